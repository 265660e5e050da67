"""s5cmd, which encodes the source of a copy as a query and removes versions one by one."""

from common import SIZES, environment, http, require, run, same, same_file, same_tree


def checks(target, work):
    env = environment(target, work.tools)
    root = f"s3://{target.bucket}/s5cmd"

    def s5cmd(*args, env=env, **options):
        fixed = ["s5cmd", "--endpoint-url", target.endpoint, "--retry-count", "0"]
        return run([*fixed, *args], env, **options)

    def names(prefix, *flags):
        out = s5cmd("ls", *flags, f"{root}/{prefix}*").decode()
        return [line.split(maxsplit=3)[3] for line in out.splitlines()]

    def sizes():
        for name in SIZES:
            s5cmd("cp", work.file(name), f"{root}/size/{name}")
            back = work.back("s5cmd", name)
            s5cmd("cp", f"{root}/size/{name}", back)
            same_file(back, work.file(name))

    def streams():
        s5cmd("pipe", f"{root}/stream", stdin=b"from a pipe")
        same(s5cmd("cat", f"{root}/stream"), b"from a pipe", "streamed object")

    def tree():
        s5cmd("sync", f"{work.tree}/", f"{root}/tree/")
        back = work.back("s5cmd", "tree")
        s5cmd("cp", f"{root}/tree/*", f"{back}/")
        same_tree(back, work.tree)

    def copies():
        for name in ("with space", "plus+sign", "per%2Fcent", "umlaut-ä"):
            s5cmd("cp", "--raw", work.file("1"), f"{root}/odd/{name}")
            s5cmd("cp", "--raw", f"{root}/odd/{name}", f"{root}/copy/{name}")
            same(
                s5cmd("cat", "--raw", f"{root}/copy/{name}"),
                work.file("1").read_bytes(),
                f"copy of {name!r}",
            )
        s5cmd("mv", "--raw", f"{root}/copy/with space", f"{root}/moved here")
        same(
            sorted(names("copy/")),
            ["per%2Fcent", "plus+sign", "umlaut-ä"],
            "after a move",
        )

    def presigned():
        url = s5cmd("presign", f"{root}/size/1").decode().strip()
        same(http("GET", url), work.file("1").read_bytes(), "presigned GET")

    def bucket():
        # One's own bucket is made again, as scripts do that do not ask first.
        s5cmd("mb", f"s3://{target.bucket}")

    def errors():
        out = s5cmd("cat", f"{root}/none", expect="failure")
        require("not found" in out, f"a missing key: {out}")
        out = s5cmd("ls", "s3://no-such-bucket-here", expect="failure")
        require("NoSuchBucket" in out, f"a wrong bucket: {out}")
        forged = {**env, "AWS_SECRET_ACCESS_KEY": "wrong"}
        out = s5cmd("ls", f"{root}/", env=forged, expect="failure")
        require("SignatureDoesNotMatch" in out, f"a wrong secret: {out}")

    def versions():
        out = s5cmd("ls", "--all-versions", f"{root}/size/*").decode()
        same(len(out.splitlines()), len(SIZES), "versions of the sizes")
        require(all("null" in line for line in out.splitlines()), f"null versions: {out}")

    def deletes():
        s5cmd("rm", f"{root}/stream")
        s5cmd("rm", "--all-versions", f"{root}/*")
        out = s5cmd("ls", f"{root}/*", expect="failure")
        require("no object found" in out, f"what is left: {out}")

    return [sizes, streams, tree, copies, presigned, bucket, errors, versions, deletes]
