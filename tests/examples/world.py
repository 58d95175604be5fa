"""What the examples call: gateways over one Redis and one simulated Amazon Connect."""

import contextlib
import http.server
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
import urllib.request

NAME = "gateways.test"
PROGRAM = os.environ["PARTICIPANT_GATEWAY"]


class Running:
    """A child process with its output in a file."""

    def __init__(self, line: list[str], log: pathlib.Path, env: dict | None = None) -> None:
        self.log = log
        with log.open("w") as output:
            self.process = subprocess.Popen(
                line, stdout=output, stderr=subprocess.STDOUT, env=env or os.environ
            )

    def wait_for(self, text: str, seconds: float = 20) -> None:
        """Wait until the output has the text."""
        until = time.monotonic() + seconds
        while text not in self.log.read_text():
            if time.monotonic() > until or self.process.poll() is not None:
                raise AssertionError(f"no {text!r} in: {self.log.read_text()}")
            time.sleep(0.02)

    def send(self, which: signal.Signals) -> None:
        self.process.send_signal(which)

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    def calls(self) -> list[dict]:
        """Return the log's line of each call."""
        found = []
        for line in self.log.read_text().splitlines():
            with contextlib.suppress(ValueError):
                entry = json.loads(line)
                if entry.get("message") == "call":
                    found.append(entry)
        return found


class World:
    """One Redis, one simulator, one server that answers 418, and gateways as they are wanted."""

    def __init__(self) -> None:
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="examples-"))
        self._children: list[Running] = []
        self._gateways = 0
        self.redis_port = free_port()
        redis = [
            "redis-server",
            "--port",
            str(self.redis_port),
            "--save",
            "",
            "--bind",
            "127.0.0.1",
        ]
        self._child(redis, "redis").wait_for("Ready to accept connections")
        port = free_port()
        self.simulator = f"http://127.0.0.1:{port}"
        simulate = [PROGRAM, "simulate", "--listen", f"127.0.0.1:{port}"]
        simulator = self._child(simulate, "simulator")
        simulator.wait_for("AWS_ENDPOINT_URL_CONNECT")
        self.credentials = {}
        for line in simulator.log.read_text().splitlines():
            if line.startswith("export AWS_") and "ENDPOINT" not in line:
                name, value = line.removeprefix("export ").split("=", 1)
                self.credentials[name] = value
        self._teapot = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Teapot)
        threading.Thread(target=self._teapot.serve_forever, daemon=True).start()
        self.teapot = f"http://127.0.0.1:{self._teapot.server_port}"
        self.nowhere = f"http://127.0.0.1:{free_port()}"

    def close(self) -> None:
        self._teapot.shutdown()
        self._teapot.server_close()
        for child in self._children:
            child.stop()
        shutil.rmtree(self.folder)

    def gateway(
        self,
        changes: dict | None = None,
        *,
        address: str = "127.0.0.1",
        port: int | None = None,
        with_credentials: bool = True,
    ) -> "Gateway":
        """Start a gateway; `changes` go into its config, section by section."""
        self._gateways += 1
        port = port or free_port()
        admin = f"127.0.0.1:{free_port()}"
        config = self._config(f"{address}:{port}") | {"admin": {"listen": admin}}
        for section, values in (changes or {}).items():
            config[section] = {**config.get(section, {}), **values}
        file = self.folder / f"gateway-{self._gateways}.yaml"
        file.write_text(json.dumps(config))
        env = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        if with_credentials:
            env |= self.credentials
        child = Running([PROGRAM, "serve", "--config", str(file)], file.with_suffix(".log"), env)
        self._children.append(child)
        child.wait_for('"ready"')
        return Gateway(child, f"{address}:{port}", port, admin)

    def pair(self, changes: dict | None = None) -> tuple[str, "Gateway", "Gateway"]:
        """Start two gateways behind one name."""
        first = self.gateway(changes)
        second = self.gateway(changes, address="127.0.0.2", port=first.port)
        return f"dns:///{NAME}:{first.port}", first, second

    def participants(self, contact: str) -> list[dict]:
        """Return what the simulator created in a contact."""
        with urllib.request.urlopen(f"{self.simulator}/_sim/participants") as answer:
            return [one for one in json.load(answer) if contact in one.values()]

    def upstream(self, instance: str, **changes: object) -> dict:
        """Return an upstream's config, at the simulator."""
        return {
            "region": "us-east-1",
            "instances": [instance],
            "endpoint_url": self.simulator,
            "rate": "1000/s",
            "burst": 1000,
            **changes,
        }

    def _child(self, line: list[str], name: str) -> Running:
        child = Running(line, self.folder / f"{name}.log")
        self._children.append(child)
        return child

    def _config(self, listen: str) -> dict:
        root_key = self.folder / "root-key"
        if not root_key.exists():
            root_key.write_text(subprocess.check_output([PROGRAM, "keygen"], text=True))
        roomy = {"instances": ["*"], "rate": "1000/s", "burst": 1000, "max_in_flight": 1000}
        return {
            "server": {"listen": listen},
            "identity": {"mode": "header"},
            "tenants": {"demo": roomy},
            "upstreams": {"main": self.upstream("*")},
            "store": {
                "kind": "redis",
                "redis": {"urls": [f"redis://127.0.0.1:{self.redis_port}"]},
                "replicas": 2,
            },
            "idempotency": {"root_key_file": str(root_key)},
        }


class Gateway:
    """A gateway that serves."""

    def __init__(self, running: Running, target: str, port: int, admin: str) -> None:
        self.running = running
        self.admin = admin
        self.target = target
        self.port = port

    def calls(self, least: int = 0) -> list[dict]:
        """Return the log's line of each call; a line may come a little after its answer."""
        until = time.monotonic() + 5
        while len(found := self.running.calls()) < least and time.monotonic() < until:
            time.sleep(0.02)
        return found

    def admitted(self) -> float:
        """Return how many calls were admitted: those have their record in the store."""
        with urllib.request.urlopen(f"http://{self.admin}/metrics") as answer:
            lines = answer.read().decode().splitlines()
        decisions = "participant_gateway_admission_decisions_total"
        return sum(
            float(line.split()[-1])
            for line in lines
            if line.startswith(decisions) and 'decision="admitted"' in line
        )

    def wait_for_call(self, before: float) -> None:
        """Wait until more calls than before were admitted."""
        until = time.monotonic() + 20
        while self.admitted() <= before:
            assert time.monotonic() < until
            time.sleep(0.02)

    def drain(self) -> None:
        self.running.send(signal.SIGTERM)

    def kill(self) -> None:
        self.running.send(signal.SIGKILL)


class _Teapot(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", 0)))
        self.send_response(418)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def free_port() -> int:
    """Return a port that is free on both addresses of the name."""
    while True:
        with socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", 0))
            port = first.getsockname()[1]
            with contextlib.suppress(OSError):
                second.bind(("127.0.0.2", port))
                return port
