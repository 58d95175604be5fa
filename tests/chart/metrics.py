#!/usr/bin/env python3
"""Holds alerts, dashboards and docs/operations.md together: `metrics.py names|runbooks|panels`.

names     every metric and label of a rule or dashboard is in the table of metrics; every metric of the table is used
runbooks  every alert has its runbook, its switch in the values, a sound address and a test in which it rings; no runbook
          is without its alert
panels    what has an upstream follows the dashboard's choice of it; promtool works out panels over made-up series
"""

import json
import pathlib
import re
import subprocess
import sys
import tempfile

import yaml

ROOT = pathlib.Path(__file__).parents[2]
CHART = ROOT / "helm/participant-gateway"
DOCS = (ROOT / "docs/operations.md").read_text()

# What Prometheus adds to every series, and what others emit.
TARGET = {"namespace", "job", "pod", "instance", "le"}
FOREIGN = {"up": set(), "kube_pod_container_status_restarts_total": {"container"}}
WORDS = set("and or unless by without on ignoring group_left group_right bool offset sum min max avg count".split())


def documented():
    metrics = {}
    for name, kind, labels in re.findall(r"^\| `(\w+)` \| (\w+) \| ([^|]*)\|", DOCS, re.M):
        names = [name + suffix for suffix in ("_bucket", "_sum", "_count")] if kind == "histogram" else [name]
        metrics.update(dict.fromkeys(names, set(re.findall(r"`(\w+)`", labels))))
    return metrics


def expressions():
    rules = yaml.safe_load((CHART / "files/alerts.yaml").read_text())
    for group in rules["groups"]:
        for rule in group["rules"]:
            yield rule.get("alert") or rule["record"], rule["expr"]
    for file in sorted((CHART / "files/dashboards").glob("*.json")):
        dashboard = json.loads(file.read_text())
        for variable in dashboard["templating"]["list"]:
            if variable["type"] == "query":
                metric, label = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["query"]["query"]).groups()
                yield f"{file.name}, variable {variable['name']}", f"sum by ({label}) ({metric})"
        for panel in dashboard["panels"]:
            for target in panel["targets"]:
                yield f"{file.name}, {panel['title']}", target["expr"]
                legend = set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
                yield f"{file.name}, {panel['title']}, legend", f"sum by ({', '.join(legend)}) ({target['expr']})" if legend else ""


def parts(expression):
    """The metrics of an expression, each with the labels that it is selected or grouped by."""
    expression = re.sub(r"#.*", "", expression)
    grouped = {label for inner in re.findall(r"\b(?:by|without|on|ignoring) ?\(([^)]*)\)", expression) for label in re.findall(r"\w+", inner)}
    plain = re.sub(r"\b(?:by|without|on|ignoring) ?\([^)]*\)", " ", expression)
    plain = re.sub(r"\[[^\]]*\]", " ", plain)
    for name, selector in re.findall(r"(?<![\w$:.])([a-zA-Z_]\w*(?::\w+)*)\s*(\{[^}]*\})?(?!\s*\(|\w)", re.sub(r'"[^"]*"', '""', plain)):
        if name not in WORDS and not re.fullmatch(r"[0-9.]+[smhd]?|e|NaN|Inf", name) and name not in ("d", "h", "m"):
            yield name, grouped | set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", selector or ""))


def names():
    known, used = documented() | FOREIGN, set()
    recorded = {rule for rule, _ in expressions() if rule.startswith("participant_gateway:")}
    if len(documented()) < 20:
        yield "the table of metrics in docs/operations.md cannot be read"
    for where, expression in expressions():
        for name, labels in parts(expression):
            if name in recorded:
                continue
            used.add(re.sub(r"_(bucket|sum|count)$", "", name))
            if name not in known:
                yield f"{where}: {name} is not in docs/operations.md"
            elif labels - known[name] - TARGET:
                yield f"{where}: {name} has no {', '.join(sorted(labels - known[name] - TARGET))} in docs/operations.md"
    # What OpenTelemetry's exporter says of the process is for joins of one's own.
    for name in documented().keys() - {"target_info"}:
        if re.sub(r"_(bucket|sum|count)$", "", name) not in used:
            yield f"{name} is on no dashboard and in no alert"


def runbooks():
    rules = yaml.safe_load((CHART / "files/alerts.yaml").read_text())
    alerts = {rule["alert"]: rule for group in rules["groups"] for rule in group["rules"] if "alert" in rule}
    switches = yaml.safe_load((CHART / "values.yaml").read_text())["prometheusRule"]
    headings = set(re.findall(r"^### (ParticipantGateway\w+)$", DOCS, re.M))
    for name in alerts.keys() ^ headings:
        yield f"{name}: an alert without a runbook, or a runbook without an alert"
    for name in alerts.keys() ^ switches["alerts"].keys():
        yield f"{name}: an alert without a switch, or a switch without an alert"
    tested = yaml.safe_load((ROOT / "tests/chart/alerts_test.yaml").read_text())["tests"]
    ringing = {check["alertname"] for test in tested for check in test["alert_rule_test"] if check["exp_alerts"]}
    silent = {check["alertname"] for test in tested for check in test["alert_rule_test"] if not check["exp_alerts"]}
    for name in alerts.keys() - (ringing & silent):
        yield f"{name}: no test in which it rings, or none in which it does not"
    for name, rule in alerts.items():
        if rule["annotations"]["runbook_url"] != f"{switches['runbookUrl']}#{name.lower()}":
            yield f"{name}: runbook_url is not its anchor"
        if rule["labels"]["severity"] not in ("critical", "warning", "info"):
            yield f"{name}: severity"
    for anchor in re.findall(r"\]\(#([\w-]+)\)", DOCS):
        if anchor not in {re.sub(r"[^\w -]", "", h).replace(" ", "-").lower() for h in re.findall(r"^#+ (.*)$", DOCS, re.M)}:
            yield f"docs/operations.md: #{anchor} leads nowhere"


# Series that grow by so much a minute, and what panels make of them.
SERIES = {
    'participant_gateway_upstream_attempts_total{upstream="main",outcome="ok"}': 40,
    'participant_gateway_upstream_attempts_total{upstream="main",outcome="internal"}': 20,
    'participant_gateway_upstream_attempts_total{upstream="other",outcome="ok"}': 1000,
    'participant_gateway_admission_decisions_total{tenant="a",upstream="main",decision="admitted",enforcement="enforce"}': 20,
    'participant_gateway_admission_decisions_total{tenant="a",upstream="main",decision="tenant_rate",enforcement="enforce"}': 500,
    'participant_gateway_admission_decisions_total{tenant="b",upstream="main",decision="tenant_rate",enforcement="shadow"}': 20,
    'participant_gateway_admission_decisions_total{tenant="a",upstream="other",decision="admitted",enforcement="enforce"}': 1000,
    'participant_gateway_admission_wait_seconds_bucket{upstream="main",le="0.5"}': 50,
    'participant_gateway_admission_wait_seconds_bucket{upstream="main",le="1"}': 100,
    'participant_gateway_admission_wait_seconds_bucket{upstream="main",le="+Inf"}': 100,
}
VALUES = {
    # 60 attempts for the 20 calls that were admitted and the 20 that were let through in shadow.
    ("connect.json", "Attempts a call", "{{upstream}}"): ('{upstream="main"}', 1.5),
    ("admission.json", "Waits", "p50"): ("{}", 0.5),
    ("admission.json", "Waits", "p95"): ("{}", 0.95),
}


def panels():
    queries = {}
    for file in sorted((CHART / "files/dashboards").glob("*.json")):
        dashboard = json.loads(file.read_text())
        chosen = {variable["name"] for variable in dashboard["templating"]["list"]}
        for panel in dashboard["panels"]:
            for target in panel["targets"]:
                queries[file.name, panel["title"], target["legendFormat"]] = target["expr"]
                for name, selector in re.findall(r"(\w+)\{([^}]*)\}", target["expr"]):
                    if "upstream" in chosen & documented().get(name, set()) and 'upstream=~"$upstream"' not in selector:
                        yield f"{file.name}, {panel['title']}: {name} ignores $upstream"
    missing = VALUES.keys() - queries.keys()
    if missing:
        yield from (f"there is no panel {one}" for one in missing)
        return
    known = {"$namespace": "n", "$job": "j", "$upstream": "main", "$tenant": ".*", "$__rate_interval": "5m"}
    plain = lambda query: re.sub(r"\$\w+", lambda found: known[found[0]], query)
    test = {
        "interval": "1m",
        "input_series": [{"series": name.replace("{", '{namespace="n",job="j",'), "values": f"0+{step}x20"} for name, step in SERIES.items()],
        "promql_expr_test": [
            {"expr": f"round({plain(queries[where])}, 0.001)", "eval_time": "20m", "exp_samples": [{"labels": labels, "value": value}]}
            for where, (labels, value) in VALUES.items()
        ],
    }
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        yaml.safe_dump({"rule_files": [], "evaluation_interval": "1m", "tests": [test]}, file)
        file.flush()
        done = subprocess.run(["promtool", "test", "rules", file.name], capture_output=True, text=True)
        if done.returncode:
            yield done.stdout + done.stderr


found = list({"names": names, "runbooks": runbooks, "panels": panels}[sys.argv[1]]())
sys.exit("\n".join(found) or 0)
