"""The AWS SDK for JavaScript, version 3, with its default settings; `js_client.mjs` does the work."""

import pathlib

from common import environment, run

NAMES = [
    "sizes",
    "odd keys",
    "ranges",
    "conditions",
    "copies",
    "tags and attributes",
    "presigned",
    "listing",
    "errors",
    "deletes",
]


def checks(target, work):
    env = environment(target, work.tools)
    env.update(
        E2E_ENDPOINT=target.endpoint,
        E2E_BUCKET=target.bucket,
        E2E_FILES=str(work.folder / "files"),
        E2E_MODULES=str(work.tools.parent.parent / "node"),
    )
    script = pathlib.Path(__file__).with_name("js_client.mjs")

    def check(name):
        def call():
            run(["node", script, name], env)

        call.__name__ = name
        return call

    return [check(name) for name in NAMES]
