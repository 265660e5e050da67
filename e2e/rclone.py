"""rclone: the newest, and Debian's, which is years older."""

from common import SIZES, environment, http, require, run, same, same_file, same_tree


def checks(target, work, program="rclone", name="rclone"):
    env = environment(target, work.tools)
    env.update(
        RCLONE_CONFIG="/dev/null",
        RCLONE_CONFIG_T_TYPE="s3",
        RCLONE_CONFIG_T_PROVIDER="Other",
        RCLONE_CONFIG_T_ENDPOINT=target.endpoint,
        RCLONE_CONFIG_T_REGION="us-east-1",
        RCLONE_CONFIG_T_FORCE_PATH_STYLE="true",
        RCLONE_CONFIG_T_ACCESS_KEY_ID=target.access_key,
        RCLONE_CONFIG_T_SECRET_ACCESS_KEY=target.secret_key,
        RCLONE_RETRIES="1",
        RCLONE_LOW_LEVEL_RETRIES="1",
        # Uploads above this size go part by part.
        RCLONE_S3_UPLOAD_CUTOFF="16Mi",
    )
    root = f"t:{target.bucket}/{name}"

    def rclone(*args, **options):
        return run([program, *args], options.pop("env", env), **options)

    def sizes():
        for name in SIZES:
            rclone("copyto", work.file(name), f"{root}/size/{name}")
            back = work.back(name, name)
            rclone("copyto", f"{root}/size/{name}", back)
            same_file(back, work.file(name))

    def streams():
        rclone("rcat", f"{root}/stream", stdin=b"from a pipe")
        same(rclone("cat", f"{root}/stream"), b"from a pipe", "streamed object")

    def tree():
        rclone("sync", work.tree, f"{root}/tree")
        back = work.back(name, "tree")
        rclone("sync", f"{root}/tree", back)
        same_tree(back, work.tree)
        rclone("check", "--download", work.tree, f"{root}/tree")
        rclone("check", work.tree, f"{root}/tree")

    def ranges():
        whole = work.file("8MiB").read_bytes()
        part = rclone("cat", "--offset", "4194300", "--count", "10", f"{root}/size/8MiB")
        same(part, whole[4194300:4194310], "a range in the middle")
        same(rclone("cat", "--tail", "5", f"{root}/size/8MiB"), whole[-5:], "the last five bytes")

    def copies():
        for name in ("8MiB", "100MiB"):
            rclone("copyto", f"{root}/size/{name}", f"{root}/copy/{name}")
            back = work.back(name, "copy", name)
            rclone("copyto", f"{root}/copy/{name}", back)
            same_file(back, work.file(name))
        rclone("moveto", f"{root}/copy/8MiB", f"{root}/moved")
        same(rclone("lsf", f"{root}/copy").decode().split(), ["100MiB"], "after a move")
        # Rewrites the metadata in place, by a copy onto itself.
        rclone("touch", "--timestamp", "2020-02-03T04:05:06", f"{root}/moved")
        out = rclone("lsl", f"{root}/moved").decode()
        require("2020-02-03 04:05:06" in out, f"after a touch: {out}")

    def presigned():
        url = rclone("link", f"{root}/size/1").decode().strip()
        same(http("GET", url), work.file("1").read_bytes(), "presigned GET")

    def listing():
        found = sorted(rclone("lsf", root).decode().split())
        same(found, ["copy/", "moved", "size/", "stream", "tree/"], "top of the listing")

    def versions():
        # Nothing is versioned: what is there is all there is.
        found = sorted(rclone("lsf", "--s3-versions", root).decode().split())
        same(found, ["copy/", "moved", "size/", "stream", "tree/"], "with versions")
        # One's own bucket is made again.
        rclone("mkdir", f"t:{target.bucket}")

    def errors():
        # A missing key is an empty folder to rclone, hence no failure.
        same(rclone("cat", f"{root}/none"), b"", "a missing key")
        out = rclone("lsf", "t:no-such-bucket-here", expect="failure")
        require("directory not found" in out, f"a wrong bucket: {out}")
        forged = {**env, "RCLONE_CONFIG_T_SECRET_ACCESS_KEY": "wrong"}
        out = rclone("lsf", root, env=forged, expect="failure")
        require("SignatureDoesNotMatch" in out, f"a wrong secret: {out}")

    def deletes():
        rclone("deletefile", f"{root}/moved")
        rclone("delete", f"{root}/tree")
        rclone("purge", root)
        same(rclone("lsf", "-R", root), b"", "what is left")

    return [sizes, streams, tree, ranges, copies, presigned, listing, versions, errors, deletes]
