#!/usr/bin/env python3
"""Writes the four Grafana dashboards of the chart: `dashboards.py [--check]`.

JSON for Grafana is long and says everything four times; here a panel is a line. With --check nothing is written: it
fails where a file is not what this script says.
"""

import json
import pathlib
import sys

FOLDER = pathlib.Path(__file__).parents[2] / "helm/participant-gateway/files/dashboards"
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}

# Of the release that the variables name.
OURS = 'namespace="$namespace",job="$job"'
CREATE = OURS + ',rpc_method="participantgateway.v1.ParticipantService/CreateParticipant"'
FAILED = 'rpc_response_status_code=~"UNKNOWN|DEADLINE_EXCEEDED|UNIMPLEMENTED|INTERNAL|UNAVAILABLE|DATA_LOSS"'
UPSTREAM = OURS + ',upstream=~"$upstream"'


def rate(metric, labels=OURS, by=""):
    by = f" by ({by})" if by else ""
    return f"sum{by} (rate({metric}{{{labels}}}[$__rate_interval]))"


def quantile(q, metric, labels=OURS, by=""):
    return f"histogram_quantile({q}, {rate(metric + '_bucket', labels, 'le' + (', ' + by if by else ''))})"


def quantiles(metric, labels=OURS):
    return [(f"p{int(q * 100)}", quantile(q, metric, labels)) for q in (0.5, 0.95, 0.99)]


def panel(title, description, *queries, unit="short", kind="timeseries", stack=False, width=12, least=0, exemplars=False):
    """A panel of queries, each (legend, PromQL). `exemplars`: with the traces of single calls as dots."""
    custom = {"fillOpacity": 20 if stack else 5, "stacking": {"mode": "normal" if stack else "none"}}
    defaults = {"unit": unit, "min": least}
    if kind == "timeseries":
        defaults["custom"] = custom
    return {
        "type": kind,
        "title": title,
        "description": description,
        "datasource": DATASOURCE,
        "gridPos": {"h": 8 if kind == "timeseries" else 4, "w": width},
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "targets": [
            {"refId": chr(65 + i), "datasource": DATASOURCE, "expr": expr, "legendFormat": legend, **({"exemplar": True} if exemplars else {})}
            for i, (legend, expr) in enumerate(queries)
        ],
    }


def variable(name, query, many=False):
    return {
        "name": name,
        "type": "query",
        "datasource": DATASOURCE,
        "query": {"query": query, "refId": name},
        "refresh": 2,
        "sort": 1,
        **({"multi": True, "includeAll": True, "allValue": ".*", "current": {"text": "All", "value": "$__all"}} if many else {}),
    }


CALLS = "rpc_server_call_duration_seconds"
CONNECT = "rpc_client_call_duration_seconds"
REDIS = "db_client_operation_duration_seconds"
ATTEMPTS = "participant_gateway_upstream_attempts_total"
DECISIONS = "participant_gateway_admission_decisions_total"
NEAR_LIMIT = "participant_gateway_admission_near_limit_total"
LIMIT = "participant_gateway_limit"
UPSTREAM_LIMIT = "participant_gateway_upstream_limit"
BUILD = "participant_gateway_build_info"
VARIABLES = [
    {"name": "datasource", "type": "datasource", "query": "prometheus"},
    variable("namespace", f"label_values({BUILD}, namespace)"),
    variable("job", f'label_values({BUILD}{{namespace="$namespace"}}, job)'),
]
BY_UPSTREAM = variable("upstream", f"label_values({ATTEMPTS}{{{OURS}}}, upstream)", many=True)
BY_TENANT = variable("tenant", f"label_values({DECISIONS}{{{OURS}}}, tenant)", many=True)


def dashboard(name, title, description, variables, *panels):
    x = y = height = 0
    for number, one in enumerate(panels, 1):
        position = one["gridPos"]
        if x + position["w"] > 24:
            x, y, height = 0, y + height, 0
        position.update(x=x, y=y)
        x, height = x + position["w"], max(height, position["h"])
        one["id"] = number
    return name, {
        "uid": f"participant-gateway-{name}",
        "title": f"Participant Gateway / {title}",
        "description": description,
        "tags": ["participant-gateway"],
        "schemaVersion": 39,
        "editable": False,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "templating": {"list": VARIABLES + variables},
        "links": [{"type": "dashboards", "title": "Participant Gateway", "tags": ["participant-gateway"], "includeVars": True, "keepTime": True, "asDropdown": True}],
        "annotations": {"list": []},
        "panels": list(panels),
    }


TENANT = CREATE + ',tenant=~"$tenant"'
THROTTLED = UPSTREAM + ',outcome="throttled"'
REFUSED = UPSTREAM + ',tenant=~"$tenant",decision=~"tenant_rate|in_flight|budget"'
BOTH = UPSTREAM + ',tenant=~"$tenant"'
ADMITTED = BOTH + ',decision="admitted"'
# In shadow a limit is counted in place of `admitted`.
LET_THROUGH = f'sum by (upstream) (rate({DECISIONS}{{{UPSTREAM},decision="admitted"}}[$__rate_interval]) or rate({DECISIONS}{{{UPSTREAM},enforcement="shadow"}}[$__rate_interval]))'

DASHBOARDS = [
    dashboard(
        "slo",
        "SLO and calls",
        "What callers see: how many calls, how many fail, how long they take.",
        [BY_TENANT],
        panel("Failed by our fault, 30 days", "The codes that count against the objective.",
              ("", f"sum(rate({CALLS}_count{{{CREATE},{FAILED}}}[30d])) / sum(rate({CALLS}_count{{{CREATE}}}[30d]))"), unit="percentunit", kind="stat", width=6),
        panel("Failed by our fault, 1 hour", "As above.",
              ("", f"sum(rate({CALLS}_count{{{CREATE},{FAILED}}}[1h])) / sum(rate({CALLS}_count{{{CREATE}}}[1h]))"), unit="percentunit", kind="stat", width=6),
        panel("Calls a second", "CreateParticipant, over all replicas.",
              ("", rate(f"{CALLS}_count", CREATE)), unit="reqps", kind="stat", width=6),
        panel("p99", "How long the slowest hundredth takes at least.",
              ("", quantile(0.99, CALLS, CREATE)), unit="s", kind="stat", width=6),
        panel("Calls by code", "CreateParticipant.",
              ("{{rpc_response_status_code}}", rate(f"{CALLS}_count", TENANT, "rpc_response_status_code")), unit="reqps", stack=True),
        panel("Calls by tenant", "CreateParticipant; callers that no config names have none.",
              ("{{tenant}}", rate(f"{CALLS}_count", TENANT, "tenant")), unit="reqps", stack=True),
        panel("Failed by our fault, by tenant", "The share of each tenant's calls.",
              ("{{tenant}}", f"{rate(f'{CALLS}_count', TENANT + ',' + FAILED, 'tenant')} / {rate(f'{CALLS}_count', TENANT, 'tenant')}"), unit="percentunit"),
        panel("Duration", "CreateParticipant, with retries and waits; a dot is a call, and leads to its trace.", *quantiles(CALLS, TENANT), unit="s", exemplars=True),
        panel("p95 by tenant", "CreateParticipant.", ("{{tenant}}", quantile(0.95, CALLS, TENANT, "tenant")), unit="s"),
        panel("Refused for their identity", "By reason.",
              ("{{reason}}", rate("participant_gateway_identity_refusals_total", OURS, "reason")), unit="reqps"),
    ),
    dashboard(
        "connect",
        "Amazon Connect",
        "What Connect answers, and what the gateway makes of it.",
        [BY_UPSTREAM],
        panel("Duration of attempts", "A call may need several.", *quantiles(CONNECT, UPSTREAM), unit="s"),
        panel("Attempts by outcome", "Every attempt is charged to the budget.",
              ("{{upstream}} {{outcome}}", rate(ATTEMPTS, UPSTREAM, "upstream, outcome")), unit="reqps", stack=True),
        panel("Attempts a call", "For each call that was let through; above one where attempts are tried again.",
              ("{{upstream}}", f"{rate(ATTEMPTS, UPSTREAM, 'upstream')} / {LET_THROUGH}")),
        panel("Exceptions", "Outcomes but ok and throttled.",
              ("{{upstream}} {{outcome}}", rate(ATTEMPTS, UPSTREAM + ',outcome!~"ok|throttled"', "upstream, outcome")), unit="reqps"),
        panel("Throttled", "The share of the attempts.",
              ("{{upstream}}", f"{rate(ATTEMPTS, THROTTLED, 'upstream')} / {rate(ATTEMPTS, UPSTREAM, 'upstream')}"), unit="percentunit"),
        panel("Rate in use", "Attempts a second, as a share of the upstream's configured rate.",
              ("{{upstream}}", f'{rate(ATTEMPTS, UPSTREAM, "upstream")} / max by (upstream) ({UPSTREAM_LIMIT}{{{UPSTREAM},limit="rate"}})'), unit="percentunit"),
        panel("Calls in the queue", "Admitted calls that wait for their slot in the budget; max_wait is how long.",
              ("{{upstream}}", f"max by (upstream) (participant_gateway_upstream_queue{{{UPSTREAM}}})")),
        panel("Budget factor", "1 is the whole configured rate; throttles halve it, time brings it back.",
              ("{{upstream}}", f"min by (upstream) (participant_gateway_upstream_budget_factor{{{UPSTREAM}}})"), unit="percentunit"),
        panel("Circuit", "0: closed; 1: half-open, a probe is due or under way; 2: open, calls are refused.",
              ("{{upstream}} {{pod}}", f"max by (upstream, pod) (participant_gateway_upstream_circuit_state{{{UPSTREAM}}})")),
    ),
    dashboard(
        "admission",
        "Admission and Redis",
        "Who is let in, who is not and why, and the store that decides.",
        [BY_TENANT, BY_UPSTREAM],
        panel("Decisions", "tenant_rate, in_flight and budget are refusals.",
              ("{{decision}}", rate(DECISIONS, BOTH, "decision")), unit="reqps", stack=True),
        panel("Refused, by tenant", "By the limit that refused.",
              ("{{tenant}} {{decision}}", rate(DECISIONS, REFUSED + ',enforcement="enforce"', "tenant, decision")), unit="reqps"),
        panel("Would have been refused", "Tenants in shadow: decided, but let through.",
              ("{{tenant}} {{decision}}", rate(DECISIONS, REFUSED + ',enforcement="shadow"', "tenant, decision")), unit="reqps"),
        panel("Rate in use, by tenant", "Admitted calls a second, as a share of the tenant's rate on the upstream.",
              ("{{tenant}} {{upstream}}", f'{rate(DECISIONS, ADMITTED, "tenant, upstream")} / max by (tenant, upstream) ({LIMIT}{{{BOTH},limit="rate"}})'), unit="percentunit"),
        panel("Near the limit, by tenant", "The share of admitted calls that left less than a fifth of the tenant's burst.",
              ("{{tenant}} {{upstream}}", f"{rate(NEAR_LIMIT, BOTH, 'tenant, upstream')} / {rate(DECISIONS, ADMITTED, 'tenant, upstream')}"), unit="percentunit"),
        panel("Waits", "Of admitted calls, for their slot in the budget or for a duplicate elsewhere; near 0 for most.",
              *quantiles("participant_gateway_admission_wait_seconds", UPSTREAM), unit="s"),
        panel("Replays", "Calls that were answered with an earlier call's result.",
              ("replays", rate("participant_gateway_replays_total"))),
        panel("Redis, p99", "By operation.",
              ("{{db_operation_name}} {{db_stored_procedure_name}}", quantile(0.99, REDIS, OURS, "db_operation_name, db_stored_procedure_name")), unit="s"),
        panel("Redis, operations", "By operation.",
              ("{{db_operation_name}} {{db_stored_procedure_name}}", rate(f"{REDIS}_count", OURS, "db_operation_name, db_stored_procedure_name")), unit="ops"),
        panel("Degraded replicas", "Those that work without Redis.",
              ("replicas", f"sum(participant_gateway_store_degraded{{{OURS}}})")),
        panel("Unsettled results", "Results that could not be written.",
              ("{{pod}}", rate("participant_gateway_results_unsettled_total", OURS, "pod"))),
        panel("Records distrusted", "Records in Redis that were not believed, by cause.",
              ("{{cause}}", rate("participant_gateway_records_distrusted_total", OURS, "cause"))),
    ),
    dashboard(
        "saturation",
        "Saturation",
        "How full the replicas are, and whether what they tell arrives.",
        [],
        panel("Replicas", "Those that can be scraped.", ("replicas", f"sum(up{{{OURS}}})"), kind="stat", width=6),
        panel("Versions", "Replicas of each.",
              ("{{version}}", f"count by (version) ({BUILD}{{{OURS}}})"), kind="stat", width=6),
        panel("First certificate ends in", "Nothing without TLS.",
              ("", f"min(participant_gateway_certificate_expiry_seconds{{{OURS}}}) - time()"), unit="s", kind="stat", width=6, least=None),
        panel("Refused configs", "Replicas that go on with the old config, since the changed one has problems.",
              ("", f"sum(1 - participant_gateway_config_last_reload_successful{{{OURS}}})"), kind="stat", width=6),
        panel("Calls in flight", "server.max_in_flight is the most.",
              ("{{pod}}", f"participant_gateway_in_flight{{{OURS}}}")),
        panel("Shed", "Answered OVERLOADED.",
              ("{{pod}}", rate("participant_gateway_shed_total", OURS, "pod")), unit="reqps"),
        panel("Connections refused", "Before there was a call on them, by reason.",
              ("{{reason}}", rate("participant_gateway_connections_refused_total", OURS, "reason")), unit="cps"),
        panel("CPU", "Seconds a second.", ("{{pod}}", rate("process_cpu_seconds_total", OURS, "pod"))),
        panel("Memory", "Resident.", ("{{pod}}", f"process_resident_memory_bytes{{{OURS}}}"), unit="bytes"),
        panel("File descriptors", "Of those that the process may have.",
              ("{{pod}}", f"process_open_fds{{{OURS}}} / process_max_fds{{{OURS}}}"), unit="percentunit"),
        panel("Tasks", "That have not ended, for each thread that runs calls.",
              ("{{pod}}", f"participant_gateway_runtime_alive_tasks{{{OURS}}} / participant_gateway_runtime_workers{{{OURS}}}")),
        panel("Telemetry dropped", "Spans and metrics that did not reach the collector.",
              ("{{pod}}", rate("participant_gateway_telemetry_dropped_total", OURS, "pod"))),
        panel("Log lines dropped", "Always 0: a full log makes calls wait.",
              ("{{pod}}", rate("participant_gateway_log_dropped_total", OURS, "pod"))),
        panel("Config reloads", "By result.",
              ("{{result}}", rate("participant_gateway_config_reloads_total", OURS, "result"))),
    ),
]

for name, content in DASHBOARDS:
    file = FOLDER / f"{name}.json"
    text = json.dumps(content, indent=2) + "\n"
    if "--check" not in sys.argv[1:]:
        file.write_text(text)
    elif not file.exists() or file.read_text() != text:
        sys.exit(f"{file.name} is not what tools/chart/dashboards.py says: run it")
