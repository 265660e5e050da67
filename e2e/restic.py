"""restic: a backup program that trusts a bucket with everything it has."""

import json
import shutil

from common import environment, run, same, same_tree

PASSWORD = "e2e"


def checks(target, work):
    env = environment(target, work.tools)
    env["RESTIC_PASSWORD"] = PASSWORD
    env["RESTIC_REPOSITORY"] = f"s3:{target.endpoint}/{target.bucket}/restic"
    source = work.back("restic", "source")

    def restic(*args, **options):
        return run(["restic", "--no-cache", "--quiet", *args], env, **options).decode()

    def restored():
        back = work.back("restic", "restored")
        shutil.rmtree(back, ignore_errors=True)
        restic("restore", "latest", "--target", back)
        same_tree(back / str(source).lstrip("/"), source)

    def backup():
        shutil.rmtree(source, ignore_errors=True)
        shutil.copytree(work.tree, source)
        shutil.copy(work.file("8MiB"), source / "large")
        restic("init")
        restic("backup", source)
        restic("check", "--read-data")

    def restore():
        restored()

    def prune():
        shutil.rmtree(source / "sub")
        (source / "plain.txt").write_bytes(b"changed")
        shutil.copy(work.file("8MiB-1"), source / "large")
        restic("backup", source)
        restic("forget", "--keep-last", "1", "--prune")
        restic("check", "--read-data")
        same(len(json.loads(restic("snapshots", "--json"))), 1, "snapshots that are left")
        restored()

    def wrong_password():
        other = {**env, "RESTIC_PASSWORD": "wrong"}
        out = run(["restic", "--no-cache", "snapshots"], other, expect="failure")
        same("wrong password" in out, True, "a wrong password is told")

    return [backup, restore, prune, wrong_password]
