#!/usr/bin/env python3
"""Sets each value of the chart to null, one at a time: `nulls.py`.

A null takes a default away. The chart then renders without it, or says in a sentence that it is wanted; it never fails
inside a template, and never writes what Go prints for nothing.
"""

import concurrent.futures
import pathlib
import subprocess
import sys

import yaml

ROOT = pathlib.Path(__file__).parents[2]
CHART = ROOT / "helm/participant-gateway"

# Most parts are on, so that what they read is missed; the others come with those that exclude them.
ON = (
    "networkPolicy.enabled=true,grpcRoute.enabled=true,grpcRoute.parentRefs[0].name=a,prometheusRule.enabled=true,"
    "tls.secretName=a,secrets.redisTls.name=a"
)
SOME = ON + ",autoscaling.enabled=true,serviceMonitor.enabled=true,secrets.redisPassword.name=a,dashboards.enabled=true,dashboards.saturation.enabled=false"
OTHERS = ON + ",keda.enabled=true,keda.triggers[0].type=cpu,podMonitor.enabled=true,redis.enabled=true,config.store.redis.urls=null"


def paths(values, above=()):
    for key, value in values.items():
        path = (*above, str(key))
        yield path
        # The program's own schema says what its config may lack.
        if isinstance(value, dict) and path != ("config",):
            yield from paths(value, path)


def problem(path):
    key = ".".join(one.replace(".", "\\.") for one in path)
    parts = OTHERS if path[0] in ("keda", "podMonitor", "redis", "prometheusRule") else SOME
    command = ["helm", "template", "gateway", CHART, "-f", ROOT / "tests/chart/required.yaml", "--set", parts, "--set", f"{key}=null"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        said = "don't meet the specifications" in done.stderr or "problem(s):" in done.stderr
        return None if said else f"{key}: {done.stderr}"
    written = [line for line in done.stdout.splitlines() if "<nil>" in line or line.endswith(": null")]
    return f"{key}: {written}" if written else None


with concurrent.futures.ThreadPoolExecutor(2) as pool:
    every = list(paths(yaml.safe_load((CHART / "values.yaml").read_text())))
    found = [one for one in pool.map(problem, every) if one]
sys.exit("\n".join(found) or 0)
