"""s3cmd. Its `signurl` knows version 2 of the signature only, which is not spoken here."""

from common import SIZES, environment, require, run, same, same_file, same_tree


def checks(target, work):
    env = environment(target, work.tools)
    root = f"s3://{target.bucket}/s3cmd"

    def s3cmd(*args, secret=target.secret_key, **options):
        fixed = [
            "s3cmd",
            "--config=/dev/null",
            "--no-ssl",
            f"--host={target.host}",
            f"--host-bucket={target.host}",
            f"--access_key={target.access_key}",
            f"--secret_key={secret}",
            "--region=us-east-1",
            "--max-retries=1",
        ]
        return run([*fixed, *args], env, **options)

    def names(prefix):
        out = s3cmd("ls", "--recursive", f"{root}/{prefix}").decode()
        return [line.split(root, 1)[1] for line in out.splitlines()]

    def sizes():
        for name in SIZES:
            s3cmd("put", "--quiet", work.file(name), f"{root}/size/{name}")
            back = work.back("s3cmd", name)
            s3cmd("get", "--quiet", f"{root}/size/{name}", back)
            same_file(back, work.file(name))

    def tree():
        s3cmd("sync", "--quiet", f"{work.tree}/", f"{root}/tree/")
        back = work.back("s3cmd", "tree")
        back.mkdir(exist_ok=True)
        s3cmd("sync", "--quiet", f"{root}/tree/", f"{back}/")
        same_tree(back, work.tree)

    def ranges():
        # s3cmd asks for a range only to finish what it has begun.
        back = work.back("s3cmd", "continued")
        whole = work.file("8MiB").read_bytes()
        back.write_bytes(whole[:5_000_000])
        s3cmd("get", "--quiet", "--continue", f"{root}/size/8MiB", back)
        same_file(back, work.file("8MiB"))

    def copies():
        s3cmd("cp", "--quiet", f"{root}/size/8MiB", f"{root}/copy/8MiB")
        header = "--add-header=x-amz-meta-colour:blue"
        s3cmd("modify", "--quiet", header, f"{root}/copy/8MiB")
        out = s3cmd("info", f"{root}/copy/8MiB").decode()
        require("x-amz-meta-colour: blue" in out, f"info after modify: {out}")
        back = work.back("s3cmd", "copy")
        s3cmd("get", "--quiet", f"{root}/copy/8MiB", back)
        same_file(back, work.file("8MiB"))
        s3cmd("mv", "--quiet", f"{root}/copy/8MiB", f"{root}/moved")
        same(names("copy"), [], "source of a move")

    def listing():
        out = s3cmd("ls", f"{root}/").decode()
        found = [line.split(root, 1)[1] for line in out.splitlines()]
        same(sorted(found), ["/moved", "/size/", "/tree/"], "top of the listing")

    def errors():
        out = s3cmd("get", f"{root}/none", work.back("s3cmd", "none"), expect="failure")
        require("does not exist" in out, f"a missing key: {out}")
        out = s3cmd("ls", root, secret="wrong", expect="failure")
        require("SignatureDoesNotMatch" in out, f"a wrong secret: {out}")
        out = s3cmd("ls", "s3://no-such-bucket-here", expect="failure")
        require("NoSuchBucket" in out, f"a wrong bucket: {out}")

    def deletes():
        s3cmd("del", "--quiet", f"{root}/moved")
        s3cmd("del", "--quiet", "--recursive", "--force", f"{root}/")
        same(names(""), [], "what is left")

    return [sizes, tree, ranges, copies, listing, errors, deletes]
