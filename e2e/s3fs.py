"""s3fs: a file system over a bucket, where this machine has FUSE."""

import os
import shutil
import subprocess
import time

from common import COMMAND_WAIT_S, Failed, environment, require, run, same, same_file, say

FUSE = "/dev/fuse"


def checks(target, work):
    if not os.path.exists(FUSE):
        say(f"  skipped s3fs: this machine has no {FUSE}")
        return []
    env = environment(target, work.tools)
    mount = work.back("s3fs", "mount")
    passwords = work.back("s3fs", "passwords")

    class Mounted:
        """The bucket as a directory, for as long as this lasts."""

        def __enter__(self):
            passwords.write_text(f"{target.access_key}:{target.secret_key}\n")
            passwords.chmod(0o600)
            mount.mkdir(exist_ok=True)
            options = f"url={target.endpoint},use_path_request_style,passwd_file={passwords}"
            run(["s3fs", target.bucket, mount, "-o", options, "-o", "endpoint=us-east-1"], env)
            begun = time.monotonic()
            while not os.path.ismount(mount):
                require(time.monotonic() - begun < COMMAND_WAIT_S, "s3fs did not mount")
                time.sleep(0.05)
            return mount / "s3fs"

        def __exit__(self, *_):
            run(["fusermount", "-u", mount], env)

    def files():
        with Mounted() as root:
            root.mkdir()
            (root / "small").write_bytes(b"hello")
            shutil.copy(work.file("100MiB"), root / "large")
        with Mounted() as root:
            same((root / "small").read_bytes(), b"hello", "a small file")
            same_file(root / "large", work.file("100MiB"))
            same(sorted(os.listdir(root)), ["large", "small"], "names")

    def changes():
        with Mounted() as root:
            with open(root / "small", "ab") as out:
                out.write(b" world")
            (root / "folder").mkdir()
            (root / "small").rename(root / "folder" / "moved")
            (root / "large").unlink()
        with Mounted() as root:
            same((root / "folder" / "moved").read_bytes(), b"hello world", "what was appended")
            same(sorted(os.listdir(root)), ["folder"], "names")
            shutil.rmtree(root / "folder")

    def errors():
        with Mounted() as root:
            try:
                (root / "none").read_bytes()
            except FileNotFoundError:
                pass
            else:
                raise Failed("a missing file was read")
            root.rmdir()
        passwords.write_text(f"{target.access_key}:wrong\n")
        command = ["s3fs", target.bucket, mount, "-f", "-o", f"url={target.endpoint}"]
        options = ["-o", f"use_path_request_style,passwd_file={passwords}", "-o", "retries=0"]
        done = subprocess.run(
            [str(part) for part in [*command, *options]],
            env=env,
            capture_output=True,
            timeout=COMMAND_WAIT_S,
            check=False,
        )
        require(done.returncode != 0, "a wrong secret was let in")

    return [files, changes, errors]
