"""The AWS SDK for JavaScript, version 3, by `js_client.mjs`: default settings, but one attempt."""

import json
import pathlib

from common import ODD_NAMES, SIZES, environment, run

NAMES = [
    "sizes",
    "streams",
    "algorithms",
    "multipart",
    "odd keys",
    "ranges",
    "conditions",
    "copies",
    "tags and attributes",
    "presigned",
    "presigned upload by default",
    "listing",
    "errors",
    "deletes",
]
ODD_KEYS = [*ODD_NAMES, "a//b", "../up", "./here", "dir/"]


def checks(target, work):
    env = environment(target, work.tools)
    env.update(
        E2E_ENDPOINT=target.endpoint,
        E2E_BUCKET=target.bucket,
        E2E_FILES=str(work.folder / "files"),
        E2E_MODULES=str(work.tools.parent.parent / "node"),
        E2E_ODD_KEYS=json.dumps(ODD_KEYS),
        E2E_SIZES=json.dumps(SIZES),
    )
    script = pathlib.Path(__file__).with_name("js_client.mjs")

    def check(name):
        def call():
            run(["node", script, name], env)

        call.__name__ = name
        return call

    return [check(name) for name in NAMES]
