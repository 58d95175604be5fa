#!/usr/bin/env python3
"""Gives rendered manifests to the program: `program.py check|serve FILE`, the program in PARTICIPANT_GATEWAY.

check  the rendered config is accepted by `participant-gateway check`
serve  the rendered config and the pod's own arguments answer a call (for a pod with the simulator), and log what
       docs/operations.md says; GATEWAY may be another program for the gateway, such as one in an image
"""

import base64
import json
import os
import pathlib
import re
import socket
import subprocess
import sys
import tempfile
import time

import yaml

PROGRAM = os.environ["PARTICIPANT_GATEWAY"]
GATEWAY = os.environ.get("GATEWAY", PROGRAM)
MOUNTS = "/etc/participant-gateway"


def mounted(folder):
    """The pod, its files under `folder` in place of the mounts, and its config as it then is."""
    objects = [one for one in yaml.safe_load_all(open(sys.argv[2])) if one]
    config = next(one["data"]["config.yaml"] for one in objects if "config.yaml" in one.get("data", {}))
    deployments = [one for one in objects if one["kind"] == "Deployment"]
    pod = next(one for one in deployments if one["spec"]["template"]["spec"]["containers"][0]["name"] == "gateway")
    config = placed(yaml.safe_load(config), folder)
    (folder / "config").mkdir()
    (folder / "config/config.yaml").write_text(yaml.safe_dump(config))
    return pod["spec"]["template"]["spec"], config


def placed(config, folder):
    """The config with each file that it names below `folder`, where there is such a file now."""
    if isinstance(config, list):
        return [placed(one, folder) for one in config]
    if not isinstance(config, dict):
        return config
    for key, value in config.items():
        if key.endswith("_file") and value:
            file = folder / value.lstrip("/")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(content(key, folder))
            config[key] = str(file)
        else:
            config[key] = placed(value, folder)
    return config


def content(key, folder):
    if key in ("root_key_file", "sealing_keys_file"):
        return base64.b64encode(os.urandom(32)).decode() + "\n"
    if key.endswith(("password_file", "token_file")):
        return "a secret\n"
    key_file, cert = folder / "key.pem", folder / "cert.pem"
    if not key_file.exists():
        command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1 -subj /CN=test -addext subjectAltName=DNS:localhost"
        subprocess.run([*command.split(), "-keyout", key_file, "-out", cert], check=True, capture_output=True)
    return (key_file if key == "key_file" else cert).read_text()


def check(folder):
    mounted(folder)
    done = subprocess.run([PROGRAM, "check", "--config", folder / "config/config.yaml"], capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stdout + done.stderr)


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def serve(folder):
    pod, config = mounted(folder)
    grpc, admin, simulator = free_port(), free_port(), free_port()
    gateway, sim = pod["containers"]
    environment = {one["name"]: one["value"] for one in gateway["env"] if "value" in one and "$(" not in one["value"]}
    # What a pod has for itself, this machine shares: other ports.
    environment |= {
        "PARTICIPANT_GATEWAY__SERVER__LISTEN": f"127.0.0.1:{grpc}",
        "PARTICIPANT_GATEWAY__ADMIN__LISTEN": f"127.0.0.1:{admin}",
        "PARTICIPANT_GATEWAY__UPSTREAMS__MAIN__ENDPOINT_URL": f"http://127.0.0.1:{simulator}",
    }
    arguments = [one.replace(MOUNTS, str(folder)) for one in gateway["args"]]
    aside = [one.replace("127.0.0.1:4571", f"127.0.0.1:{simulator}") for one in sim["args"]]
    running = [
        subprocess.Popen([PROGRAM, *aside], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={}),
        subprocess.Popen([GATEWAY, *arguments], stdout=open(folder / "log", "w"), stderr=subprocess.STDOUT, env=environment),
    ]
    try:
        tenant, request = next(iter(config["tenants"])), {
            "instance_id": "demo",
            "contact_id": "contact-1",
            "client_token": "token-1",
            "participant_details": {"participant_role": "PARTICIPANT_ROLE_CUSTOM_BOT", "display_name": "Bot"},
        }
        call = ["grpcurl", "-plaintext", "-H", f"x-tenant-id: {tenant}", "-d", json.dumps(request), f"127.0.0.1:{grpc}", "participantgateway.v1.ParticipantService/CreateParticipant"]
        for _ in range(100):
            done = subprocess.run(call, capture_output=True, text=True)
            if done.returncode == 0 or running[1].poll() is not None:
                break
            time.sleep(0.1)
        if "participantId" not in done.stdout:
            sys.exit(done.stdout + done.stderr + (folder / "log").read_text())
        call[call.index("-d") + 1] = json.dumps(request | {"contact_id": "sim-internal", "client_token": ""})
        subprocess.run(call, capture_output=True)
        running[1].terminate()
        if running[1].wait(timeout=30) != 0:
            sys.exit(f"SIGTERM ended it with {running[1].returncode}, not with 0")
        logged((folder / "log").read_text())
    finally:
        for one in running:
            one.kill()
            one.wait()


def logged(log):
    """The lines of both calls are as the table of fields says."""
    docs = (pathlib.Path(__file__).parents[2] / "docs/operations.md").read_text()
    rows = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \|", docs.split("\n## Logs")[1].split("\n## ")[0], re.M)
    fields = set(re.findall(r"\w+", " ".join(rows)))
    calls = [line for line in map(json.loads, filter(lambda line: line.startswith("{"), log.splitlines())) if line.get("code")]
    if [line["code"] for line in calls] != ["OK", "INTERNAL"]:
        sys.exit(f"no line for each call: {calls}")
    unknown = {field for line in calls for field in line} - fields
    if unknown:
        sys.exit(f"docs/operations.md does not know {', '.join(sorted(unknown))} of {calls[-1]}")
    if {line["level"] for line in calls} != set(re.findall(r"[A-Z]{4,}", re.search(r"^\| `level` \|(.*)$", docs, re.M)[1])):
        sys.exit(f"docs/operations.md knows other levels than {calls}")


with tempfile.TemporaryDirectory() as folder:
    {"check": check, "serve": serve}[sys.argv[1]](pathlib.Path(folder))
