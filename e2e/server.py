"""The program under test: its configuration, its process, its own verdict on its sums."""

import json
import os
import pathlib
import signal
import socket
import subprocess
import threading
import time
import urllib.error

from common import Failed, Target, http, require, run

BUCKET = "e2e-bucket"
ACCESS_KEY = "E2EACCESSKEY"
SECRET_KEY = "e2e-secret-0123456789"
# Equal and far from full, so that `spread` has a reason to use every backend.
QUOTA = "4GiB"
START_WAIT_S = 60
STOP_WAIT_S = 60
POLL_INTERVAL_S = 0.05


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def local(folder, name):
    path = pathlib.Path(folder) / name
    path.mkdir()
    return {"name": name, "kind": "local", "path": str(path), "quota_bytes": QUOTA}


def foreign(variable, name, bucket):
    """A backend on one of the servers that `cargo xtask servers` has started."""
    require(variable in os.environ, f"{variable} is not set; run this by `cargo xtask e2e`")
    return {
        "name": name,
        "endpoint": os.environ[variable],
        "region": "us-east-1",
        "bucket": bucket,
        "access_key_id": os.environ[f"{variable}_ACCESS_KEY"],
        "secret_access_key": os.environ[f"{variable}_SECRET_KEY"],
        "quota_bytes": QUOTA,
    }


class Server:
    """`s3-orchestrator serve` with a configuration of ours."""

    def __init__(self, binary, folder, backends):
        self.binary = binary
        self.folder = pathlib.Path(folder)
        self.config = self.folder / "config.yaml"
        self.log = self.folder / "serve.log"
        self.port = free_port()
        keys = {"access_key_id": ACCESS_KEY, "secret_access_key": SECRET_KEY}
        # JSON is YAML.
        document = {
            "server": {"listen_addr": f"127.0.0.1:{self.port}"},
            "buckets": [{"name": BUCKET, "credentials": [keys]}],
            "database": {"driver": "sqlite", "path": str(self.folder / "catalogue.db")},
            "backends": backends,
            "routing_strategy": "spread",
        }
        self.config.write_text(json.dumps(document, indent=2))

    @property
    def target(self):
        return Target(f"http://127.0.0.1:{self.port}", ACCESS_KEY, SECRET_KEY, BUCKET)

    def __enter__(self):
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                [self.binary, "serve", "--config", str(self.config)],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                cwd=self.folder,
            )
        try:
            wait_until_ready(self.target.endpoint, self.process, self.tail)
        except BaseException:
            self.process.kill()
            self.process.wait()
            raise
        return self

    def __exit__(self, kind, *_):
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(STOP_WAIT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            code = "none: it had to be killed"
        if kind is None:
            require(code == 0, f"after SIGTERM the exit code was {code}\n{self.tail()}")

    def verify(self):
        """Asks the program itself whether every sum is exact."""
        run([self.binary, "catalogue", "verify", "--config", self.config], dict(os.environ))

    def tail(self):
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-30:])


class Quickstart:
    """`s3-orchestrator quickstart` in a folder of its own; `printed` is what it says."""

    def __init__(self, binary, folder):
        self.binary = binary
        self.folder = pathlib.Path(folder)
        self.lines = []

    def __enter__(self):
        self.process = subprocess.Popen(
            [self.binary, "quickstart"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            cwd=self.folder,
            text=True,
        )
        threading.Thread(target=self.read, daemon=True).start()
        return self

    def read(self):
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))

    @property
    def printed(self):
        return "\n".join(self.lines)

    def wait_for(self, text):
        begun = time.monotonic()
        while text not in self.printed:
            code = self.process.poll()
            require(code is None, f"quickstart ended with {code}:\n{self.printed}")
            waited = time.monotonic() - begun
            require(waited < START_WAIT_S, f"no {text!r} in what quickstart prints:\n{self.printed}")
            time.sleep(POLL_INTERVAL_S)

    def __exit__(self, kind, *_):
        # As Ctrl-C does.
        self.process.send_signal(signal.SIGINT)
        try:
            code = self.process.wait(STOP_WAIT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            code = "none: it had to be killed"
        if kind is None:
            require(code == 0, f"after Ctrl-C the exit code was {code}\n{self.printed}")

    def verify(self):
        config = self.folder / "s3o-data" / "config.yaml"
        run([self.binary, "catalogue", "verify", "--config", config], dict(os.environ))


def wait_until_ready(endpoint, process, tail):
    begun = time.monotonic()
    while True:
        try:
            http("GET", f"{endpoint}/health/ready")
            return
        except (urllib.error.URLError, ConnectionError) as error:
            code = process.poll()
            if code is not None:
                raise Failed(f"serve ended with {code}:\n{tail()}") from error
            if time.monotonic() - begun > START_WAIT_S:
                raise Failed(f"not ready after {START_WAIT_S} s:\n{tail()}") from error
        time.sleep(POLL_INTERVAL_S)
