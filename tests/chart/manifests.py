#!/usr/bin/env python3
"""Looks at rendered manifests: `manifests.py schemas|restricted|mounts FILE`, `manifests.py same|changes FILE FILE`.

schemas     Kubernetes' own schemas, of several versions, strictly
restricted  the Pod Security Standard "restricted", and a read-only root
mounts      everything mounted as whole directories, and nothing secret in a ConfigMap
same        both files hold the same objects, in whatever order
changes     prints what an upgrade from the first to the second changes, a line each; fails where the API server refuses
            such a change, or where an object would be another one
"""

import json
import re
import sys

import kubernetes_validate
import yaml

VERSIONS = ["1.30", "1.32", "1.34", "1.37"]


def pods(objects):
    for one in objects:
        name = f"{one['kind']}/{one['metadata']['name']}"
        if one["kind"] == "Pod":
            yield name, one["spec"]
        elif "template" in one.get("spec", {}):
            yield name, one["spec"]["template"]["spec"]


def schemas(objects):
    own = [one for one in objects if re.fullmatch(r"v1|[a-z]+/v[0-9]+|[a-z.]+\.k8s\.io/v[0-9]+", one["apiVersion"])]
    own = [one for one in own if not one["apiVersion"].startswith("gateway.networking.k8s.io")]
    for one in own:
        for version in VERSIONS:
            try:
                kubernetes_validate.validate(one, version, strict=True)
            except kubernetes_validate.ValidationError as error:
                yield f"{one['kind']}/{one['metadata']['name']} in {version}: {error.message}"
    if len(own) < 4:
        yield f"only {len(own)} objects of Kubernetes' own"


def restricted(objects):
    seen = 0
    for name, pod in pods(objects):
        seen += 1
        for key in ("hostNetwork", "hostPID", "hostIPC"):
            if pod.get(key):
                yield f"{name}: {key}"
        for volume in pod.get("volumes", []):
            allowed = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}
            if not set(volume) - {"name"} <= allowed:
                yield f"{name}: volume {volume}"
        whole = pod.get("securityContext", {})
        for container in pod["containers"] + pod.get("initContainers", []):
            here = f"{name}, container {container['name']}"
            own = container.get("securityContext", {})
            both = {**whole, **own}
            if both.get("runAsNonRoot") is not True or both.get("runAsUser") == 0:
                yield f"{here}: may be root"
            if both.get("seccompProfile", {}).get("type") not in ("RuntimeDefault", "Localhost"):
                yield f"{here}: no seccomp profile"
            if own.get("allowPrivilegeEscalation") is not False or own.get("privileged"):
                yield f"{here}: may gain privileges"
            if own.get("capabilities", {}).get("drop") != ["ALL"] or set(own["capabilities"].get("add", [])) - {"NET_BIND_SERVICE"}:
                yield f"{here}: has capabilities"
            if any("hostPort" in port for port in container.get("ports", [])):
                yield f"{here}: a port of the host"
            if own.get("readOnlyRootFilesystem") is not True:
                yield f"{here}: may write to its root"
            if "memory" not in container["resources"].get("limits", {}):
                yield f"{here}: no memory limit"
    if not seen:
        yield "no pods"


def mounts(objects):
    for name, pod in pods(objects):
        volumes = {volume["name"] for volume in pod.get("volumes", [])}
        for container in pod["containers"]:
            for mount in container.get("volumeMounts", []):
                if "subPath" in mount or "subPathExpr" in mount:
                    yield f"{name}: {mount['name']} is mounted by subPath"
                if mount["name"] not in volumes:
                    yield f"{name}: {mount['name']} is no volume"
    for one in objects:
        if one["kind"] == "Secret":
            yield f"Secret/{one['metadata']['name']}: the chart makes none"
        if one["kind"] == "ConfigMap" and "config.yaml" in one.get("data", {}):
            config = yaml.safe_load(one["data"]["config.yaml"])
            for section in ("store", "idempotency"):
                for key in re.findall(r"^[\s-]*(\w*(?:password|key|secret)\w*):(?=\s)", yaml.dump(config.get(section)), re.M):
                    if not key.endswith("_file") and key != "key_prefix":
                        yield f"config.yaml: {section} has {key}"


def same(objects, others):
    key = lambda one: (one["kind"], one["metadata"]["name"])
    for one, other in zip(sorted(objects, key=key), sorted(others, key=key), strict=True):
        if one != other:
            yield f"{key(one)} differs from {key(other)}"


# What the API server lets nobody change.
IMMUTABLE = {
    "Deployment": r"spec\.selector\b.*",
    "Service": r"spec\.(clusterIP|loadBalancerClass)",
}


def changes(objects, others):
    key = lambda one: (one["kind"], one["metadata"]["name"])
    before, after = ({key(one): one for one in of} for of in (objects, others))
    for name in sorted(before.keys() | after.keys()):
        if name not in before or name not in after:
            print(*name, "is gone" if name in before else "is new")
            if name in before:
                yield f"{'/'.join(name)} is gone"
            continue
        for path, old, new in differences(before[name], after[name]):
            print(*name, f"{path}: {short(old)} -> {short(new)}")
            if re.fullmatch(IMMUTABLE.get(name[0], "(?!)"), path):
                yield f"{'/'.join(name)}: {path} cannot be changed"


def short(value):
    text = json.dumps(value)
    return text if len(text) < 150 else "…"


def differences(old, new, path=""):
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            yield from differences(old.get(key), new.get(key), f"{path}.{key}" if path else key)
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for index, (one, other) in enumerate(zip(old, new)):
            yield from differences(one, other, f"{path}[{index}]")
    elif old != new:
        yield path, old, new


check, *files = sys.argv[1:]
read = [[one for one in yaml.safe_load_all(open(file)) if one] for file in files]
found = list({"schemas": schemas, "restricted": restricted, "mounts": mounts, "same": same, "changes": changes}[check](*read))
sys.exit("\n".join(found) or 0)
