"""What every client's checks share: the target, the files, running programs, comparing."""

import dataclasses
import hashlib
import os
import pathlib
import random
import subprocess
import time
import urllib.request

MIB = 1024 * 1024
SIZES = {"0": 0, "1": 1, "8MiB-1": 8 * MIB - 1, "8MiB": 8 * MIB, "100MiB": 100 * MIB}
REGION = "us-east-1"
COMMAND_WAIT_S = 300
POLL_INTERVAL_S = 0.05
SEED = 20
# What the machine's own settings of our clients are named.
SETTINGS = ("AWS_", "S3O_", "RCLONE_", "RESTIC_", "TF_")
PROXIES = ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")

# Names that clients, shells, XML or URLs are known to get wrong.
ODD_NAMES = [
    "plain.txt",
    "with space.txt",
    "two  spaces",
    " leading and trailing ",
    "plus+sign+",
    "per%cent",
    "per%2Fcent%20",
    "hash#tag",
    "question?mark=1&b",
    "amp&lt;<tag>",
    "quote'single\"double",
    "semi;colon:comma,",
    "at@dollar$bang!star*",
    "paren(these)[square]{curly}",
    "tilde~caret^pipe|back\\slash`tick",
    "a~b~c",
    "umlaut-äöü-ß",
    "japanese-日本語",
    "crab-\U0001f980",
    "combining-e\u0301",
    "l" * 200,
    "dots.in.dir/..two/...three/.hidden",
    "/".join(f"level{n}" for n in range(25)) + "/deep",
    "sub/same", "sub-/same", "sub0/same",
    "empty/empty",
]


class Failed(Exception):
    """A check that did not hold."""


@dataclasses.dataclass
class Target:
    """An S3 endpoint with one bucket on it."""

    endpoint: str
    access_key: str
    secret_key: str
    bucket: str
    # Whether it must do all that S3 does; other people's servers need not.
    strict: bool = True

    @property
    def host(self):
        return self.endpoint.split("://", 1)[1]


@dataclasses.dataclass
class Work:
    """A folder with the files to upload, and room for what comes back."""

    folder: pathlib.Path
    tools: pathlib.Path

    @property
    def tree(self):
        return self.folder / "tree"

    def file(self, name):
        return self.folder / "files" / name

    def back(self, *names):
        """A path for something downloaded; its folder exists, it does not."""
        path = self.folder.joinpath("back", *names)
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_file():
            path.unlink()
        return path

    def prepare(self):
        chance = random.Random(SEED)
        (self.folder / "files").mkdir(parents=True)
        for name, size in SIZES.items():
            with open(self.file(name), "wb") as out:
                for start in range(0, size, MIB):
                    out.write(chance.randbytes(min(MIB, size - start)))
        for name in ODD_NAMES:
            path = self.tree / name
            path.parent.mkdir(parents=True, exist_ok=True)
            size = 0 if name.startswith("empty/") else chance.randrange(1, 20_000)
            path.write_bytes(chance.randbytes(size))


def environment(target, tools):
    """Our own keys and nothing of what the machine knows about other S3 accounts."""
    env = {key: value for key, value in os.environ.items() if not key.startswith(SETTINGS)}
    env.update(
        AWS_ACCESS_KEY_ID=target.access_key,
        AWS_SECRET_ACCESS_KEY=target.secret_key,
        AWS_CONFIG_FILE="/dev/null",
        AWS_SHARED_CREDENTIALS_FILE="/dev/null",
        AWS_DEFAULT_REGION=REGION,
        AWS_EC2_METADATA_DISABLED="true",
        # The first wrong answer counts.
        AWS_MAX_ATTEMPTS="1",
        AWS_PAGER="",
        LC_ALL="C.UTF-8",
        PATH=f"{tools}{os.pathsep}{os.environ['PATH']}",
    )
    for name in PROXIES:
        env.pop(name, None)
    return env


def run(args, env, expect=0, stdin=b"", silent=False):
    """Runs a program to its end and returns what it printed; its exit code must be as expected.

    A `silent` one must not complain either: a program that tries again after a wrong answer says so
    and ends well.
    """
    done = subprocess.run(
        [str(arg) for arg in args],
        env=env,
        input=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        timeout=COMMAND_WAIT_S,
        check=False,
    )
    wrong = done.returncode == 0 if expect == "failure" else done.returncode != expect
    if wrong or silent and done.stderr:
        raise Failed(
            f"{' '.join(map(str, args))}\n  exit code {done.returncode}, expected {expect}\n"
            f"  stdout: {done.stdout[-1500:].decode(errors='replace')}\n"
            f"  stderr: {done.stderr[-1500:].decode(errors='replace')}"
        )
    if expect == "failure":
        return (done.stdout + done.stderr).decode(errors="replace")
    return done.stdout


def wait_until(holds, what):
    begun = time.monotonic()
    while not holds():
        require(time.monotonic() - begun < COMMAND_WAIT_S, f"waited in vain until {what}")
        time.sleep(POLL_INTERVAL_S)


def require(condition, message):
    if not condition:
        raise Failed(message)


def same(found, wanted, what):
    if found != wanted:
        raise Failed(f"{what}: found {shorten(found)}, wanted {shorten(wanted)}")


def shorten(value):
    text = repr(value)
    return text if len(text) < 400 else f"{text[:380]}... ({len(text)} characters)"


def digest(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def same_file(found, wanted):
    require(pathlib.Path(found).is_file(), f"{found} was not written")
    same(os.path.getsize(found), os.path.getsize(wanted), f"size of {found}")
    same(digest(found), digest(wanted), f"bytes of {found}")


def same_tree(found, wanted):
    def names(root):
        paths = (path for path in pathlib.Path(root).rglob("*") if path.is_file())
        return sorted(str(path.relative_to(root)) for path in paths)

    same(names(found), names(wanted), f"names under {found}")
    for name in names(wanted):
        same_file(pathlib.Path(found) / name, pathlib.Path(wanted) / name)


def http(method, url, body=None, headers=None):
    """One plain HTTP request, as any program without an S3 library would send it."""
    request = urllib.request.Request(url, data=body, method=method, headers=headers or {})
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=COMMAND_WAIT_S) as answer:
        return answer.read()


def say(text):
    print(text, flush=True)
