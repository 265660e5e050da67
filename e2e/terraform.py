"""Terraform's state in a bucket, locked by a file in it: by its own requests always, and by the
program where it is installed in a version that knows `use_lockfile`."""

import contextlib
import json
import shutil
import subprocess

import boto3_client
from common import environment, require, run, same, say, wait_until

# The first with `use_lockfile`.
VERSION_MIN = (1, 10)
# It reads a state in pieces of this size.
STATE_PIECE = 5 * 1024 * 1024

# One attempt per request, so that the first wrong answer counts. The one resource is built in: no
# provider is fetched from anywhere.
CONFIGURATION = """
terraform {{
  backend "s3" {{
    bucket                      = "{bucket}"
    key                         = "terraform/state"
    region                      = "us-east-1"
    endpoints                   = {{ s3 = "{endpoint}" }}
    max_retries                 = 1
    use_path_style              = true
    use_lockfile                = true
    skip_credentials_validation = true
    skip_requesting_account_id  = true
    skip_metadata_api_check     = true
    skip_region_validation      = true
  }}
}}

resource "terraform_data" "one" {{
  input = "{value}"
  {more}
}}
"""
# Holds the lock from when `held` is there until `go` is. Only what is made anew is provisioned.
HOLD = """
  triggers_replace = "{value}"
  provisioner "local-exec" {{
    command = "touch {folder}/held; until [ -e {folder}/go ]; do sleep 0.05; done"
  }}
"""


def version(env):
    """The installed version, or nothing."""
    if shutil.which("terraform") is None:
        return None
    told = json.loads(run(["terraform", "version", "-json"], env))["terraform_version"]
    return tuple(int(part) for part in told.split("-")[0].split("."))


def checks(target, work):
    s3 = boto3_client.client(target, work.tools)
    env = environment(target, work.tools)
    env.update(CHECKPOINT_DISABLE="1", TF_IN_AUTOMATION="1", TF_CLI_CONFIG_FILE="/dev/null")
    ours, theirs = work.back("terraform", "ours"), work.back("terraform", "theirs")
    lock_key = {"Bucket": target.bucket, "Key": "terraform/state.tflock"}

    def terraform(folder, *args, **options):
        return run(["terraform", f"-chdir={folder}", *args], env, **options)

    def change(folder, command, **options):
        flags = ["-auto-approve", "-input=false", "-no-color", "-lock-timeout=0s"]
        return terraform(folder, command, *flags, **options)

    def prepare(folder, value, more=""):
        folder.mkdir(exist_ok=True)
        text = CONFIGURATION.format(
            bucket=target.bucket, endpoint=target.endpoint, value=value, more=more
        )
        (folder / "main.tf").write_text(text)
        terraform(folder, "init", "-reconfigure", "-input=false", "-no-color")

    def output():
        """What the state says that was applied."""
        state = json.loads(terraform(ours, "state", "pull"))
        (resource,) = state["resources"]
        return resource["instances"][0]["attributes"]["output"]["value"]

    def keys():
        # The states of all workspaces but the first lie under a prefix of their own.
        pages = [
            s3.list_objects_v2(Bucket=target.bucket, Prefix=prefix)
            for prefix in ("env:/", "terraform/")
        ]
        return [entry["Key"] for page in pages for entry in page.get("Contents", [])]

    def unlocked(what):
        code = boto3_client.code_of(s3.head_object, **lock_key)
        same(code, "404", what)

    @contextlib.contextmanager
    def holder(value):
        """Another process in the middle of an apply."""
        shutil.rmtree(theirs, ignore_errors=True)
        prepare(theirs, value, HOLD.format(value=value, folder=theirs))
        command = ["terraform", f"-chdir={theirs}", "apply", "-auto-approve", "-input=false"]
        with open(theirs / "log", "wb") as log:
            process = subprocess.Popen(
                command, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

        def holds():
            require(process.poll() is None, f"the holder: {(theirs / 'log').read_text()}")
            return (theirs / "held").exists()

        try:
            wait_until(holds, "another process holds the lock")
            yield process
        finally:
            (theirs / "go").touch()
            process.kill()
            process.wait()

    def refused():
        """An apply meets the lock; tells who holds it, as the lock does."""
        info = json.loads(s3.get_object(**lock_key)["Body"].read())
        out = change(ours, "apply", expect="failure")
        for words in ("Error acquiring the state lock", "PreconditionFailed", info["ID"]):
            require(words in out, f"no {words!r} where the state is locked: {out}")
        return info["ID"]

    def request_sequence():
        state = {"Bucket": target.bucket, "Key": "terraform/sequence"}
        lock = {**state, "Key": "terraform/sequence.tflock"}
        kind = {"ContentType": "application/json", "ChecksumAlgorithm": "SHA256"}

        def take(who):
            answer = s3.put_object(**lock, **kind, Body=who, IfNoneMatch="*")
            same(answer["ResponseMetadata"]["HTTPStatusCode"], 200, "status of a lock")

        def locked(who):
            try:
                take(who)
            except s3.exceptions.ClientError as error:
                same(error.response["Error"]["Code"], "PreconditionFailed", "a second lock")
                same(error.response["ResponseMetadata"]["HTTPStatusCode"], 412, "its status")
            else:
                require(False, "two processes hold one lock")

        def release(who):
            same(s3.get_object(**lock)["Body"].read(), who, "what the lock says")
            s3.delete_object(**lock)

        def pull(wanted):
            same(s3.head_object(**state)["ContentLength"], len(wanted), "size of the state")
            answer = s3.get_object(**state, Range=f"bytes=0-{STATE_PIECE - 1}")
            same(answer["ResponseMetadata"]["HTTPStatusCode"], 206, "status of a piece")
            same(answer["Body"].read(), wanted, "the state")

        s3.list_objects_v2(Bucket=target.bucket, Prefix="env:/", MaxKeys=1000)
        take(b'{"ID":"one"}')
        same(boto3_client.code_of(s3.head_object, **state), "404", "a state before the first")
        locked(b'{"ID":"two"}')
        s3.put_object(**state, **kind, Body=b'{"serial":1}')
        locked(b'{"ID":"two"}')
        release(b'{"ID":"one"}')
        pull(b'{"serial":1}')
        take(b'{"ID":"two"}')
        s3.put_object(**state, **kind, Body=b'{"serial":22}')
        release(b'{"ID":"two"}')
        pull(b'{"serial":22}')
        same(keys(), ["terraform/sequence"], "no lock is left")
        s3.delete_object(**state)
        same(keys(), [], "what is left")

    def apply():
        prepare(ours, "first")
        change(ours, "apply")
        same(terraform(ours, "state", "list"), b"terraform_data.one\n", "the state")
        same(output(), "first", "output")
        prepare(ours, "second")
        change(ours, "apply")
        same(output(), "second", "output")
        same(keys(), ["terraform/state"], "no lock is left")

    def workspaces():
        terraform(ours, "workspace", "new", "other")
        change(ours, "apply")
        found = terraform(ours, "workspace", "list").split()
        same(found, [b"default", b"*", b"other"], "workspaces")
        same(keys(), ["env:/other/terraform/state", "terraform/state"], "their states")
        change(ours, "destroy")
        terraform(ours, "workspace", "select", "default")
        terraform(ours, "workspace", "delete", "other")
        same(keys(), ["terraform/state"], "what is left")

    def lock():
        with holder("theirs") as process:
            refused()
            same(output(), "second", "the state while it is locked")
            (theirs / "go").touch()
            same(process.wait(), 0, "end of the holder")
        unlocked("a released lock")
        same(output(), "theirs", "the state after its holder's apply")

    def lock_of_the_dead():
        with holder("dead") as process:
            process.kill()
            process.wait()
            held_by = refused()
        terraform(ours, "force-unlock", "-force", "no-such-id", expect="failure")
        same(refused(), held_by, "a lock after another was to be broken")
        terraform(ours, "force-unlock", "-force", held_by)
        unlocked("a broken lock")
        change(ours, "apply")
        same(output(), "second", "the state after the lock was broken")

    def destroy():
        change(ours, "destroy")
        same(terraform(ours, "state", "list"), b"", "the state in the end")
        same(keys(), ["terraform/state"], "what is left")
        s3.delete_object(Bucket=target.bucket, Key="terraform/state")

    found = version(env)
    if found is None or found < VERSION_MIN:
        say("  skipped terraform itself: it is not installed, or older than 1.10")
        return [request_sequence]
    return [request_sequence, apply, workspaces, lock, lock_of_the_dead, destroy]
