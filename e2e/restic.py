"""restic: a backup program that trusts a bucket with everything it has."""

import json
import pathlib
import shutil

import boto3_client
from common import environment, require, run, same, same_tree

PASSWORD = "e2e"
# What this repository is made of: several hundred files.
REAL_TREE = ("crates", "docs", "e2e")
PREFIX = "restic/"


def checks(target, work):
    env = environment(target, work.tools)
    env["RESTIC_PASSWORD"] = PASSWORD
    env["RESTIC_REPOSITORY"] = f"s3:{target.endpoint}/{target.bucket}/{PREFIX}"
    source = work.back("restic", "source")
    s3 = boto3_client.client(target, work.tools)

    def restic(*args, env=env, **options):
        # One attempt per request of its S3 library, path-style, nothing kept between two runs.
        fixed = ["-o", "s3.retries=1", "-o", "s3.bucket-lookup=path", "--no-cache"]
        # It tries again by itself too, and says so.
        silent = options.get("expect") != "failure"
        return run(["restic", *fixed, *args], env, silent=silent, **options)

    def keys(below):
        pages = s3.get_paginator("list_objects_v2").paginate(
            Bucket=target.bucket, Prefix=f"{PREFIX}{below}"
        )
        return {entry["Key"] for page in pages for entry in page.get("Contents", [])}

    def saved():
        """Backs up, and tells of the files: new, changed, and the pieces of data that needed."""
        told = json.loads(restic("backup", "--json", source).splitlines()[-1])
        return told["files_new"], told["files_changed"], told["data_blobs"]

    def checked():
        out = restic("check", "--read-data").decode()
        require("no errors were found" in out, f"`check` printed {out}")

    def restored():
        back = work.back("restic", "restored")
        shutil.rmtree(back, ignore_errors=True)
        restic("restore", "latest", "--target", back)
        same_tree(back / str(source).lstrip("/"), source)

    def backup():
        shutil.rmtree(source, ignore_errors=True)
        shutil.copytree(work.tree, source / "odd")
        for name in REAL_TREE:
            here = pathlib.Path(__file__).parents[1] / name
            shutil.copytree(here, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("0", "1", "8MiB-1", "8MiB"):
            shutil.copyfile(work.file(name), source / name)
        restic("init")
        files = sum(path.is_file() for path in source.rglob("*"))
        same(saved()[:2], (files, 0), "files in the first backup")

    def check():
        checked()

    def restore():
        restored()

    def second_backup():
        shutil.rmtree(source / "docs")
        (source / "1").write_bytes(b"changed")
        (source / "8MiB").unlink()
        same(saved(), (0, 1, 1), "files and data in the second backup")

    def prune():
        before = keys("data/")
        same(len(keys("snapshots/")), 2, "snapshots")
        restic("forget", "--keep-last", "1", "--prune", "--max-unused", "0")
        same(len(keys("snapshots/")), 1, "snapshots that are left")
        require(before - keys("data/"), "no pack was removed")
        same(keys("locks/"), set(), "locks that are left")
        checked()
        restored()

    def wrong_keys():
        out = restic("snapshots", env={**env, "RESTIC_PASSWORD": "wrong"}, expect="failure")
        require("wrong password" in out, f"a wrong password: {out}")
        forged = {**env, "AWS_SECRET_ACCESS_KEY": "wrong"}
        out = restic("snapshots", env=forged, expect="failure")
        # It asks by HEAD, whose answers have no body to say more.
        require("Access Denied" in out, f"a wrong secret: {out}")

    def deletes():
        doomed = [{"Key": key} for key in keys("")]
        s3.delete_objects(Bucket=target.bucket, Delete={"Objects": doomed})
        same(keys(""), set(), "what is left")

    return [backup, check, restore, second_backup, prune, wrong_keys, deletes]
