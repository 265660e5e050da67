"""Real S3 clients against s3-orchestrator, over one backend, over three, and by `quickstart`.

`cargo xtask e2e` runs it. To try the checks themselves on some other S3 server:

    run.py --endpoint URL --access-key KEY --secret-key SECRET --bucket NAME
"""

import argparse
import os
import pathlib
import sys
import tempfile
import time

import aws_cli
import boto3_client
import js
import minio_client
import rclone
import restic
import s3cmd
import s3fs
import s5cmd
import terraform
from common import Failed, Target, Work, environment, require, run, same, say
from server import Quickstart, Server, foreign, local

CLIENTS = {
    "aws-cli": aws_cli.checks,
    "aws-cli of Debian": lambda *world: aws_cli.checks(*world, "/usr/bin/aws", "aws-cli-debian"),
    "boto3": boto3_client.checks,
    "rclone": rclone.checks,
    "rclone of Debian": lambda *world: rclone.checks(*world, "/usr/bin/rclone", "rclone-debian"),
    "s3cmd": s3cmd.checks,
    "s5cmd": s5cmd.checks,
    "minio": minio_client.checks,
    "js": js.checks,
    "restic": restic.checks,
    "s3fs": s3fs.checks,
    "terraform": terraform.checks,
}
QUICKSTART_BLOCKS = ["aws-cli", "rclone", "boto3"]


class Tally:
    """What ran, and what failed."""

    def __init__(self):
        self.passed = 0
        self.failed = []

    def check(self, name, call, log=None):
        """Runs one check; `log` tells what the program under test has printed meanwhile."""
        begun = time.monotonic()
        try:
            call()
        except Exception as error:  # one check that fails must not hide the next
            self.failed.append(name)
            shown = str(error) if isinstance(error, Failed) else f"{type(error).__name__}: {error}"
            say(f"  FAILED {name}: {shown}")
            if log is not None:
                say(f"  the program's log:\n{log()}")
        else:
            self.passed += 1
            say(f"  ok     {name} ({time.monotonic() - begun:.1f} s)")


def clients(tally, scenario, target, work, only, verify, log=None):
    for name, checks in CLIENTS.items():
        if only and name not in only:
            continue
        for check in checks(target, work):
            tally.check(f"{scenario}: {name}: {check.__name__.replace('_', ' ')}", check, log)
        if verify is not None:
            tally.check(f"{scenario}: {name}: exact sums", verify)


def serve(tally, scenario, binary, folder, backends, work, only, afterwards=None):
    say(f"{scenario}:")
    try:
        with Server(binary, folder, backends) as server:
            clients(tally, scenario, server.target, work, only, server.verify, server.tail)
            if afterwards is not None:
                tally.check(f"{scenario}: bytes reached every backend", afterwards)
    except Failed as error:
        tally.failed.append(scenario)
        say(f"  FAILED {scenario}: {error}")


def every_backend_was_used(backends):
    """Displaced and deleted bytes stay for a while, so used backends are not empty yet."""
    for backend in backends:
        if backend.get("kind") == "local":
            files = [path for path in pathlib.Path(backend["path"]).rglob("*") if path.is_file()]
            require(len(files) > 1, f"{backend['name']} holds {len(files)} files")
            continue
        keys = backend["access_key_id"], backend["secret_access_key"]
        target = Target(backend["endpoint"], *keys, backend["bucket"])
        s3 = boto3_client.client(target, os.path.dirname(sys.executable))
        found = s3.list_objects_v2(Bucket=backend["bucket"]).get("KeyCount", 0)
        require(found > 1, f"{backend['name']} holds {found} objects")


def blocks_of(printed):
    """The commands that quickstart prints: a block is from `# NAME` to an empty line."""
    blocks, name = {}, None
    for line in printed.splitlines():
        if line.startswith("# ") and line[2:] in QUICKSTART_BLOCKS:
            name = line[2:]
            blocks[name] = []
        elif not line.strip():
            name = None
        elif name is not None:
            blocks[name].append(line)
    return {name: "\n".join(lines) + "\n" for name, lines in blocks.items()}


def quickstart(tally, binary, folder, work):
    scenario = "quickstart"
    say(f"{scenario}:")
    # Whatever the shell of the reader knows about S3 is there too; only PATH is ours.
    nobody = Target("", "", "", "")
    env = environment(nobody, work.tools)
    env = {key: value for key, value in env.items() if not key.startswith("AWS_")}

    def paste(name, block):
        out = run(["sh", "-e", "-c", block], env).decode()
        require(f"hello from {name}" in out, f"the block printed {out!r}")

    secrets = []
    for start in ("first start", "second start"):
        try:
            with Quickstart(binary, folder) as server:
                # The last line of the last block.
                server.wait_for("\nEND")
                secrets.append([line for line in server.lines if "Secret key" in line])
                blocks = blocks_of(server.printed)
                same(sorted(blocks), sorted(QUICKSTART_BLOCKS), "printed blocks")
                for name, block in blocks.items():
                    tally.check(
                        f"{scenario}: {start}: {name} as printed",
                        lambda name=name, block=block: paste(name, block),
                    )
                tally.check(f"{scenario}: {start}: exact sums", server.verify)
        except Failed as error:
            tally.failed.append(scenario)
            say(f"  FAILED {scenario}: {error}")
            return
    same(secrets[0], secrets[1], "keys of the second start")


def parse():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--binary", help="the s3-orchestrator to test")
    parser.add_argument("--endpoint", help="test the checks on this server instead")
    parser.add_argument("--access-key")
    parser.add_argument("--secret-key")
    parser.add_argument("--bucket")
    parser.add_argument("--client", action="append", choices=CLIENTS, help="only this client")
    parser.add_argument(
        "--scenario", action="append", choices=["one", "three", "quickstart"], help="only this one"
    )
    args = parser.parse_args()
    if bool(args.binary) == bool(args.endpoint):
        parser.error("one of --binary and --endpoint is needed")
    return args


def main():
    args = parse()
    tally = Tally()
    with tempfile.TemporaryDirectory(prefix="s3o-e2e-") as name:
        folder = pathlib.Path(name)
        work = Work(folder / "work", pathlib.Path(sys.executable).parent)
        work.prepare()
        if args.endpoint:
            keys = args.access_key, args.secret_key
            target = Target(args.endpoint, *keys, args.bucket, strict=False)
            clients(tally, "direct", target, work, args.client, None)
        else:
            binary = os.path.abspath(args.binary)
            wanted = args.scenario or ["one", "three", "quickstart"]
            homes = {scenario: folder / scenario for scenario in wanted}
            for home in homes.values():
                home.mkdir()
            if "one" in wanted:
                one = [local(homes["one"], "disk")]
                serve(tally, "one backend", binary, homes["one"], one, work, args.client)
            if "three" in wanted:
                three = [
                    local(homes["three"], "disk"),
                    foreign("S3O_TEST_RADOSGW", "radosgw", "test-0"),
                    foreign("S3O_TEST_S3SFS", "s3s-fs", "test-0"),
                ]
                serve(
                    tally, "three backends", binary, homes["three"], three, work, args.client,
                    afterwards=lambda: every_backend_was_used(three),
                )
            if "quickstart" in wanted:
                quickstart(tally, binary, homes["quickstart"], work)
    say(f"{tally.passed} passed, {len(tally.failed)} failed")
    for failed in tally.failed:
        say(f"  {failed}")
    return 1 if tally.failed or not tally.passed else 0


if __name__ == "__main__":
    sys.exit(main())
