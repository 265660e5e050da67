"""Terraform's state in a bucket, locked by a file in it: by its own requests always, and by the
program where it is installed in a version that knows `use_lockfile`."""

import json
import shutil

from botocore.exceptions import ClientError

import boto3_client
from common import environment, require, run, same, say

VERSION_MIN = (1, 10)

CONFIGURATION = """
terraform {{
  backend "s3" {{
    bucket                      = "{bucket}"
    key                         = "terraform/{key}"
    region                      = "us-east-1"
    endpoints                   = {{ s3 = "{endpoint}" }}
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
}}
"""


def version():
    """The installed version, or nothing."""
    if shutil.which("terraform") is None:
        return None
    env = {"PATH": "/usr/local/bin:/usr/bin:/bin", "CHECKPOINT_DISABLE": "1"}
    told = json.loads(run(["terraform", "version", "-json"], env))["terraform_version"]
    return tuple(int(part) for part in told.split("-")[0].split("."))


def checks(target, work):
    s3 = boto3_client.client(target, work.tools)
    env = environment(target, work.tools)
    env.update(CHECKPOINT_DISABLE="1", TF_IN_AUTOMATION="1", TF_CLI_CONFIG_FILE="/dev/null")
    folder = work.back("terraform", "root")

    def terraform(*args, **options):
        return run(["terraform", f"-chdir={folder}", *args], env, **options)

    def write(value):
        folder.mkdir(exist_ok=True)
        text = CONFIGURATION.format(
            bucket=target.bucket, key="state", endpoint=target.endpoint, value=value
        )
        (folder / "main.tf").write_text(text)

    def request_sequence():
        names = {"Bucket": target.bucket, "Key": "terraform/sequence"}
        lock = {**names, "Key": "terraform/sequence.tflock"}
        info = json.dumps({"ID": "1", "Operation": "OperationTypeApply"}).encode()

        def take():
            return s3.put_object(
                **lock, Body=info, ContentType="application/json", IfNoneMatch="*"
            )

        take()
        try:
            take()
        except ClientError as error:
            same(error.response["Error"]["Code"], "PreconditionFailed", "a second lock")
            same(error.response["ResponseMetadata"]["HTTPStatusCode"], 412, "its status")
        else:
            require(False, "two processes hold one lock")
        same(s3.get_object(**lock)["Body"].read(), info, "what the lock says")
        s3.put_object(**names, Body=b"{}", ContentType="application/json")
        same(s3.get_object(**names)["Body"].read(), b"{}", "the state")
        s3.delete_object(**lock)
        take()
        s3.delete_object(**lock)
        s3.delete_object(**names)

    def apply():
        write("first")
        terraform("init", "-reconfigure", "-input=false", "-no-color")
        terraform("apply", "-auto-approve", "-no-color")
        same(terraform("state", "list").decode().split(), ["terraform_data.one"], "the state")
        state = json.loads(terraform("state", "pull"))
        made = state["resources"][0]["instances"][0]["attributes"]["output"]
        same(made["value"], "first", "output")

    def lock():
        write("second")
        key = {"Bucket": target.bucket, "Key": "terraform/state.tflock"}
        info = {"ID": "0f-e2e", "Operation": "apply", "Who": "e2e", "Version": "1", "Path": "p"}
        info["Created"] = "2026-01-01T00:00:00Z"
        s3.put_object(**key, Body=json.dumps(info).encode())
        out = terraform("apply", "-auto-approve", "-no-color", "-lock-timeout=0s", expect="failure")
        require("Error acquiring the state lock" in out and "0f-e2e" in out, f"it printed {out}")
        terraform("force-unlock", "-force", "0f-e2e")
        terraform("apply", "-auto-approve", "-no-color")
        terraform("destroy", "-auto-approve", "-no-color")
        same(terraform("state", "list").split(), [], "the state in the end")
        listed = s3.list_objects_v2(Bucket=target.bucket, Prefix="terraform/")
        keys = [entry["Key"] for entry in listed["Contents"]]
        same(keys, ["terraform/state"], "no lock is left")
        s3.delete_object(Bucket=target.bucket, Key="terraform/state")

    found = version()
    if found is None or found < VERSION_MIN:
        say("  skipped terraform itself: it is not installed, or older than 1.10")
        return [request_sequence]
    return [request_sequence, apply, lock]
