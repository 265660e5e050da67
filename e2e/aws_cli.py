"""aws-cli: the one of PyPI, and Debian's, which is another major version."""

import json

from common import SIZES, environment, http, require, run, same, same_tree


def checks(target, work, aws="aws", name="aws-cli"):
    env = environment(target, work.tools)
    root = f"s3://{target.bucket}/{name}"

    def s3(*args, env=env, **options):
        return run([aws, "--endpoint-url", target.endpoint, "s3", *args], env, **options)

    def api(operation, *args, bucket=target.bucket, env=env, **options):
        command = [aws, "--endpoint-url", target.endpoint, "s3api", operation, "--bucket", bucket]
        printed = run([*command, *args], env, **options)
        if options.get("expect") == "failure":
            return printed
        return json.loads(printed) if printed.strip() else {}

    def listed(prefix, *args):
        page = api("list-objects-v2", "--prefix", prefix, *args)
        return [entry["Key"] for entry in page.get("Contents", [])]

    def sizes():
        # Few commands, each for all files: this client takes longer to start than to copy.
        files = work.file("1").parent
        s3("cp", "--only-show-errors", "--recursive", files, f"{root}/size")
        back = work.back(name, "size")
        s3("cp", "--only-show-errors", "--recursive", f"{root}/size", back)
        same_tree(back, files)
        page = api("list-objects-v2", "--prefix", f"{name}/size/")
        found = {entry["Key"].split("/")[-1]: entry["Size"] for entry in page["Contents"]}
        same(found, SIZES, "sizes in a listing")

    def streams():
        s3("cp", "-", f"{root}/stream", stdin=b"from a pipe")
        same(s3("cp", f"{root}/stream", "-"), b"from a pipe", "streamed object")

    def tree():
        s3("sync", "--only-show-errors", work.tree, f"{root}/tree")
        back = work.back(name, "tree")
        s3("sync", "--only-show-errors", f"{root}/tree", back)
        same_tree(back, work.tree)
        same(s3("sync", work.tree, f"{root}/tree"), b"", "second sync")

    def ranges():
        whole = work.file("8MiB").read_bytes()
        ranges = [("bytes=0-0", whole[:1]), ("bytes=-5", whole[-5:])]
        ranges.append(("bytes=4194300-4194309", whole[4194300:4194310]))
        for wanted, part in ranges:
            back = work.back(name, "range")
            api("get-object", "--key", f"{name}/size/8MiB", "--range", wanted, back)
            same(back.read_bytes(), part, wanted)

    def copies():
        # The largest is above the client's threshold, so it is copied part by part.
        s3("cp", "--only-show-errors", "--recursive", f"{root}/size", f"{root}/copy")
        back = work.back(name, "copy")
        s3("cp", "--only-show-errors", "--recursive", f"{root}/copy", back)
        same_tree(back, work.file("1").parent)
        replace = ["--metadata-directive", "REPLACE", "--metadata", "colour=blue"]
        source = f"{target.bucket}/{name}/size/1"
        api("copy-object", "--key", f"{name}/copy/1", "--copy-source", source, *replace)
        same(api("head-object", "--key", f"{name}/copy/1")["Metadata"], {"colour": "blue"}, "meta")
        s3("mv", "--only-show-errors", f"{root}/copy/8MiB", f"{root}/moved")
        left = [f"{name}/copy/{size}" for size in sorted(SIZES) if size != "8MiB"]
        same(listed(f"{name}/copy/"), left, "what a move left")

    def presigned():
        # By default this client signs URLs for us-east-1 with version 2, which is not spoken here.
        config = work.back(name, "config")
        config.write_text("[default]\ns3 =\n  signature_version = s3v4\n")
        modern = {**env, "AWS_CONFIG_FILE": str(config)}
        url = s3("presign", f"{root}/size/8MiB", env=modern).decode().strip()
        same(http("GET", url), work.file("8MiB").read_bytes(), "presigned GET")

    def listing():
        out = s3("ls", f"{root}/").decode()
        found = sorted(line.split()[-1] for line in out.splitlines())
        same(found, ["copy/", "moved", "size/", "stream", "tree/"], "top of the listing")
        files = [path for path in work.tree.rglob("*") if path.is_file()]
        wanted = [f"{name}/tree/{path.relative_to(work.tree)}" for path in files]
        found = listed(f"{name}/tree/", "--page-size", "3")
        same(found, sorted(wanted, key=str.encode), "a listing in pages of three")

    def errors():
        if target.strict:
            missing = ["--key", f"{name}/none", work.back(name, "none")]
            out = api("get-object", *missing, expect="failure")
            require("(NoSuchKey)" in out, f"a missing key answered {out}")
        forged = {**env, "AWS_SECRET_ACCESS_KEY": "wrong"}
        out = api("list-objects-v2", env=forged, expect="failure")
        require("(SignatureDoesNotMatch)" in out, f"a wrong secret answered {out}")
        out = api("list-objects-v2", bucket="no-such-bucket-here", expect="failure")
        require("(NoSuchBucket)" in out, f"a wrong bucket answered {out}")

    def deletes():
        batch = {"Objects": [{"Key": f"{name}/moved"}, {"Key": f"{name}/copy/1"}, {"Key": "none"}]}
        answer = api("delete-objects", "--delete", json.dumps(batch))
        found = sorted(entry["Key"] for entry in answer["Deleted"])
        same(found, sorted(entry["Key"] for entry in batch["Objects"]), "what a batch deleted")
        s3("rm", "--only-show-errors", f"{root}/stream")
        s3("rm", "--only-show-errors", "--recursive", root)
        same(listed(f"{name}/"), [], "what is left")

    return [sizes, streams, tree, ranges, copies, presigned, listing, errors, deletes]
