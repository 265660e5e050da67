"""s3fs: a file system over a bucket, where this machine has FUSE."""

import contextlib
import os
import shutil
import subprocess

from common import (
    MIB, ODD_NAMES, Failed, environment, require, run, same, same_file, same_tree, say, wait_until,
)

FUSE = "/dev/fuse"
REFUSAL_WAIT_S = 30


def checks(target, work):
    if not os.path.exists(FUSE):
        say(f"  skipped s3fs: this machine has no {FUSE}")
        return []
    env = environment(target, work.tools)
    mount = work.back("s3fs", "mount")
    local = work.back("s3fs", "local")

    def command(secret, *options):
        passwords = work.back("s3fs", "passwords")
        passwords.write_text(f"{target.access_key}:{secret}\n")
        passwords.chmod(0o600)
        mount.mkdir(exist_ok=True)
        # One attempt per request, and none with another kind of signature: the first wrong answer
        # counts.
        fixed = ["use_path_request_style", "retries=1", "sigv4"]
        fixed += [f"url={target.endpoint}", "endpoint=us-east-1", f"passwd_file={passwords}"]
        return ["s3fs", target.bucket, str(mount), "-o", ",".join([*fixed, *options])]

    def unmount():
        # Lazily: a file that a failed check has left open must not keep the folder from going.
        run(["fusermount", "-u", "-z", mount], env)

    @contextlib.contextmanager
    def mounted():
        """The bucket as a directory, for as long as this lasts; each time as one never seen."""
        run(command(target.secret_key), env)
        try:
            wait_until(lambda: os.path.ismount(mount), "the bucket is mounted")
            yield mount / "s3fs"
        finally:
            if os.path.ismount(mount):
                unmount()

    def patched():
        whole = bytearray(work.file("100MiB").read_bytes())
        whole[50 * MIB : 50 * MIB + 5] = b"patch"
        return whole

    def names(folder):
        return sorted(os.listdir(folder))

    def files():
        with mounted() as root:
            root.mkdir()
            for name in ("0", "1", "100MiB"):
                shutil.copyfile(work.file(name), root / name)
        with mounted() as root:
            same(names(root), ["0", "1", "100MiB"], "names")
            for name in names(root):
                same_file(root / name, work.file(name))

    def tree():
        odd = [name for name in ODD_NAMES if "/" not in name]
        shutil.rmtree(local, ignore_errors=True)
        (local / "below" / "it").mkdir(parents=True)
        for name in odd:
            shutil.copyfile(work.tree / name, local / name)
            shutil.copyfile(work.tree / name, local / "below" / "it" / name)
        with mounted() as root:
            shutil.copytree(local, root / "tree", copy_function=shutil.copyfile)
        with mounted() as root:
            same_tree(root / "tree", local)

    def ranges():
        whole = work.file("100MiB").read_bytes()
        with mounted() as root, open(root / "100MiB", "rb", buffering=0) as file:
            last = (100 * MIB - 10, 10)
            for start, length in (last, (MIB - 1, 2), (50 * MIB + 17, 70_000)):
                file.seek(start)
                same(file.read(length) == whole[start : start + length], True, f"from {start}")

    def changes():
        with mounted() as root:
            # What is not written anew is copied from the object as parts of the next. Only to cut a
            # large file short is not tried: this release makes zeros of it by itself.
            with open(root / "100MiB", "r+b") as file:
                file.seek(50 * MIB)
                file.write(b"patch")
            with open(root / "1", "ab") as file:
                file.write(b" world")
            (root / "0").write_bytes(b"no longer empty")
        with mounted() as root:
            same((root / "1").read_bytes(), work.file("1").read_bytes() + b" world", "appended")
            same((root / "0").read_bytes(), b"no longer empty", "overwritten")
            same((root / "100MiB").read_bytes() == patched(), True, "what was patched")

    def renames():
        with mounted() as root:
            (root / "1").rename(root / "tree" / "moved")
            (root / "100MiB").rename(root / "moved too")
            (root / "tree").rename(root / "renamed")
        with mounted() as root:
            same(names(root), ["0", "moved too", "renamed"], "names")
            same((root / "moved too").read_bytes() == patched(), True, "a moved file")
            (root / "renamed" / "moved").unlink()
            same_tree(root / "renamed", local)

    def attributes():
        with mounted() as root:
            (root / "0").chmod(0o640)
            os.utime(root / "0", (1_600_000_000, 1_600_000_000))
            (root / "link").symlink_to("0")
        with mounted() as root:
            found = (root / "0").stat()
            same((found.st_mode & 0o777, found.st_mtime), (0o640, 1_600_000_000), "attributes")
            same(os.readlink(root / "link"), "0", "a symbolic link")

    def unlinks():
        with mounted() as root:
            (root / "link").unlink()
            (root / "moved too").unlink()
            shutil.rmtree(root / "renamed")
        with mounted() as root:
            same(names(root), ["0"], "names")
            (root / "0").unlink()
            root.rmdir()
        with mounted() as root:
            same(root.exists(), False, "a removed folder")

    def errors():
        with mounted() as root:
            try:
                (root / "none").read_bytes()
            except FileNotFoundError:
                pass
            else:
                raise Failed("a missing file was read")
        # In the foreground, as the other says nothing; either way it ends well.
        try:
            refused = subprocess.run(
                [*command("wrong"), "-f"],
                env=env,
                capture_output=True,
                timeout=REFUSAL_WAIT_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            unmount()
            raise Failed("a wrong secret was let in") from None
        said = (refused.stdout + refused.stderr).decode(errors="replace")
        require("invalid credentials" in said, f"with a wrong secret it said {said}")

    return [files, tree, ranges, changes, renames, attributes, unlinks, errors]
