"""What the measurements run in: a Redis, a simulated Connect, a collector, gateways, baselines."""

import http.client
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import tempfile

from . import token
from .machine import Process, wait_until


class Server:
    """A gateway or a baseline that listens."""

    def __init__(self, name, process, port, admin=None, headers=None):
        self.name, self.process, self.port, self.admin = name, process, port, admin
        self.headers = headers or (lambda tenant: [f"x-tenant-id: {tenant}"])

    def await_ready(self):
        def is_up():
            return is_ready(self.admin) if self.admin else listens(self.port)

        wait_until(f"{self.name} is ready", lambda: self.process.has_ended() or is_up())
        if self.process.has_ended():
            raise SystemExit(f"{self.name}: " + pathlib.Path(self.process.log).read_text())

    def restart(self):
        """A new process at the same address."""
        self.process.end()
        self.process.begin()
        self.await_ready()

    def metrics(self):
        """The sums of the gateway's counters, by name. A baseline has none."""
        if not self.admin:
            return {}
        connection = http.client.HTTPConnection("127.0.0.1", self.admin, timeout=5)
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
        sums = {}
        for line in text.splitlines():
            found = re.match(r"([a-z_]+)(?:\{(.*)\})? ([0-9.e+-]+)", line)
            if found:
                sums[found[1]] = sums.get(found[1], 0) + float(found[3])
        return sums


class House:
    def __init__(self, machine, program, bench):
        """`program`: the gateway. `bench`: the folder of the baselines and of what measures."""
        self.machine, self.program, self.bench = machine, program, bench
        shared = "/dev/shm" if os.path.isdir("/dev/shm") else None
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="bench-", dir=shared))
        self.processes, self.servers = [], {}

    def __enter__(self):
        signal.signal(signal.SIGTERM, lambda *_: exit(1))
        os.sched_setaffinity(0, self.machine.others)
        self.redis_port, redis_cores = free_port(), self.machine.others
        command = ["redis-server", "--port", self.redis_port, "--bind", "127.0.0.1",
                   "--save", "", "--appendonly", "no", "--dir", self.folder]
        self.redis = self.start("redis", command, redis_cores)
        self.connect_port = free_port()
        command = [self.program, "simulate", "--listen", f"127.0.0.1:{self.connect_port}"]
        self.simulator = self.start("simulator", command, self.machine.others)
        self.collector_port = free_port()
        command = [self.bench / "collect", f"127.0.0.1:{self.collector_port}"]
        self.collector = self.start("collector", command, self.machine.others)
        for port in [self.redis_port, self.connect_port, self.collector_port]:
            wait_until(f"somebody listens on {port}", lambda port=port: listens(port))
        # The simulator listens before it prints its keys.
        wait_until("the simulator prints its keys", lambda: len(self.printed_keys()) == 3)
        self.keys = self.printed_keys()
        (self.folder / "root_key").write_text(token.random_key())
        self.issuer = token.Issuer(self.folder)
        return self

    def __exit__(self, *_):
        for process in reversed(self.processes):
            process.end()
        shutil.rmtree(self.folder, ignore_errors=True)

    def printed_keys(self):
        """The environment that the simulator prints: the credentials that it takes."""
        text = (self.folder / "simulator.log").read_text()
        return dict(re.findall(r"export (\w+)=(\S+)\n", text))

    def start(self, name, command, cores, env=None):
        plain = {key: value for key, value in os.environ.items()
                 if not key.startswith(("AWS_", "OTEL_", "PARTICIPANT_GATEWAY__"))}
        process = Process(command, cores, self.folder / f"{name}.log", plain | (env or {}))
        self.processes.append(process)
        return process

    def helpers(self):
        """Seconds of processor time so far, of what the servers talk to."""
        helpers = {"redis": self.redis, "simulator": self.simulator, "collector": self.collector}
        return {name: process.cpu() for name, process in helpers.items()}

    def end(self, server):
        server.process.end()
        self.processes.remove(server.process)
        self.servers.pop(server.name, None)

    def baseline(self, program, name=None):
        """One of b0, b2, b2t and b4, which runs from now on."""
        name = name or program
        if name not in self.servers:
            port = free_port()
            # Its keys are not among those that a new block clears.
            redis = f"redis://127.0.0.1:{self.redis_port}/1"
            command = [self.bench / program, f"127.0.0.1:{port}"]
            command += [redis] if program == "b4" else []
            env = self.keys | {"AWS_REGION": "us-east-1"}
            process = self.start(name, command, self.machine.server, env)
            self.servers[name] = Server(name, process, port)
            self.servers[name].await_ready()
        return self.servers[name]

    def gateway(self, name="gateway", jwt=False, sampled=None, tenants=None, fresh=False,
                most=None, program=None):
        """A gateway, which runs from now on. `sampled`: the share of calls whose traces are
        exported; None: tracing is off. `most`: the calls in flight. `program`: another one."""
        if name in self.servers and not fresh:
            return self.servers[name]
        port, admin = free_port(), free_port()
        config = self.config(port, admin, jwt, sampled, tenants or {})
        if most:
            config["server"]["max_in_flight"] = most
        file = self.folder / f"{name}.json"
        file.write_text(json.dumps(config))
        command = [program or self.program, "serve", "--config", file]
        process = self.start(name, command, self.machine.server, self.keys)
        server = Server(name, process, port, admin)
        if jwt:
            server.headers = lambda tenant: [f"authorization: Bearer {self.issuer.token(tenant)}"]
        server.await_ready()
        self.servers[name] = server
        return server

    def config(self, port, admin, jwt, sampled, tenants):
        out_of_reach = {"instances": ["*"], "rate": "1000000/s", "burst": 1_000_000,
                        "max_in_flight": 100_000}
        own = {"subjects": ["bench"], **out_of_reach}
        limited = {"subjects": ["limited"], **out_of_reach, "rate": "1/h", "burst": 1}
        config = {
            "server": {"listen": f"127.0.0.1:{port}"},
            "admin": {"listen": f"127.0.0.1:{admin}"},
            "identity": self.issuer.config() if jwt else {"mode": "header"},
            "tenants": {"bench": own, "limited": limited, **tenants},
            "upstreams": {"main": {
                "region": "us-east-1", "instances": ["*"], "rate": "1000000/s", "burst": 1_000_000,
                "endpoint_url": f"http://127.0.0.1:{self.connect_port}",
            }},
            "store": {"kind": "redis",
                      "redis": {"urls": [f"redis://127.0.0.1:{self.redis_port}"]}},
            "idempotency": {"root_key_file": str(self.folder / "root_key")},
        }
        if sampled is not None:
            config["telemetry"] = {"otlp": {"endpoint": f"http://127.0.0.1:{self.collector_port}",
                                            "sample_ratio": sampled}}
        return config

    def redis_cli(self, *words):
        command = ["redis-cli", "-p", str(self.redis_port), *map(str, words)]
        # The slow log has the scripts' arguments, which are no text.
        return subprocess.run(
            command, check=True, stdout=subprocess.PIPE, text=True, errors="replace"
        ).stdout

    def forget_records(self):
        """Of the gateways. What B4 keeps is in another database."""
        self.redis_cli("flushdb", "async")


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def listens(port):
    try:
        socket.create_connection(("127.0.0.1", port), 0.2).close()
        return True
    except OSError:
        return False


def is_ready(admin):
    try:
        connection = http.client.HTTPConnection("127.0.0.1", admin, timeout=1)
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except OSError:
        return False
