"""How each reason is brought about, and what a caller makes of it."""

import dataclasses
import pathlib
from collections.abc import Mapping

import languages
from world import Gateway, World


@dataclasses.dataclass(frozen=True, eq=False)
class Case:
    """A call, and the answer that it gets."""

    reason: str
    code: str
    verdict: str
    flags: Mapping = dataclasses.field(default_factory=dict)
    """Those of the call whose answer counts."""
    before: tuple[Mapping, ...] = ()
    """Those of the calls before it. They have the same client_token."""
    beside: Mapping | None = None
    """Those of a call that still runs, at the gateway `busy`. It has the same client_token."""
    gateway: str = "main"
    upstream: Mapping | None = None
    """The config of an upstream of the case's and the language's own."""
    is_drained: bool = False
    """The gateway, one of the language's own, is told to end while the call runs."""
    fields: tuple[str, ...] = ()

    def run(self, test: object, fixtures: dict[str, Gateway], config: pathlib.Path) -> dict:
        """Make the calls, and return the line of the one that counts."""
        example: languages.Example = test.example
        gateway = fixtures[f"draining-{test.name}" if self.is_drained else self.gateway]
        common = {
            "target": gateway.target,
            "service_config": config,
            "tenant": "demo",
            "client_token": test.contact(self.reason),
            "instance": self.instance(test.name) if self.upstream is not None else "demo",
        }
        for flags in self.before:
            example.run("create", **{**common, **flags})
        beside = None
        if self.beside:
            busy = fixtures["busy"]
            admitted = busy.admitted()
            beside = example.start("create", **{**common, "target": busy.target, **self.beside})
            busy.wait_for_call(admitted)
        admitted = gateway.admitted()
        counted = example.start("create", **{**common, **self.flags})
        if self.is_drained:
            gateway.wait_for_call(admitted)
            gateway.drain()
        lines = languages.lines(counted)
        if beside:
            beside.kill()
            beside.communicate()
        # Of several calls, one that the reason refused.
        return next((line for line in lines if line.get("reason") == self.reason), lines[0])

    def instance(self, language: str) -> str:
        """Return the name of the upstream and its one instance."""
        return f"{self.reason}-{language}".lower().replace("_", "-")


def gateways(world: World, names: list[str]) -> dict[str, Gateway]:
    """Start what the cases call."""
    upstreams = {"main": world.upstream("demo"), "other": world.upstream("other")}
    for case in CASES:
        for name in names:
            if case.upstream is not None and case.gateway == "main":
                instance = case.instance(name)
                places = {"teapot": world.teapot, "nowhere": world.nowhere}
                changes = dict(case.upstream)
                if "endpoint_url" in changes:
                    changes["endpoint_url"] = places[changes["endpoint_url"]]
                upstreams[instance] = world.upstream(instance, **changes)
    roomy = {"instances": ["*"], "rate": "1000/s", "burst": 1000, "max_in_flight": 1000}
    tenants = {
        "demo": roomy,
        "narrow": {**roomy, "instances": ["demo"], "roles": ["CUSTOM_BOT"]},
        "slow": {**roomy, "rate": "1/h", "burst": 1},
        "single": {**roomy, "max_in_flight": 1},
    }
    lost = {
        "kind": "redis",
        "redis": {"urls": [world.nowhere.replace("http", "redis")]},
        "on_loss": "reject",
    }
    found = {
        "main": world.gateway({"upstreams": upstreams, "tenants": tenants}),
        "busy": world.gateway({"upstreams": {"main": world.upstream("*", attempt_timeout="25s")}}),
        "lost": world.gateway({"store": lost}),
        "crowded": world.gateway({"server": {"max_in_flight": 1}}),
        "bare": world.gateway(with_credentials=False),
        "brief": world.gateway({"server": {"default_timeout": "2s", "max_timeout": "2s"}}),
        "hasty": world.gateway({"server": {"default_timeout": "300ms", "max_timeout": "300ms"}}),
    }
    for name in names:
        found[f"draining-{name}"] = world.gateway({"server": {"drain_timeout": "300ms"}})
    return found


def contact(name: str, **flags: object) -> Mapping:
    """Return the flags of a call to a contact."""
    return {"contact": name, **flags}


NEVER, LATER, SLOWER = "never", "retry_after", "slow_down"

CASES = [
    Case("UNAUTHENTICATED", "UNAUTHENTICATED", NEVER, {"tenant": ""}),
    Case("TENANT_UNKNOWN", "PERMISSION_DENIED", NEVER, {"tenant": "nobody"}),
    Case("REQUEST_TOO_LARGE", "RESOURCE_EXHAUSTED", NEVER, {"name": "x" * 70_000}),
    Case("INVALID_REQUEST", "INVALID_ARGUMENT", NEVER, contact(""), fields=("contact_id",)),
    Case(
        "INSTANCE_NOT_ALLOWED",
        "PERMISSION_DENIED",
        NEVER,
        {"tenant": "narrow", "instance": "other"},
    ),
    Case("ROLE_NOT_ALLOWED", "PERMISSION_DENIED", NEVER, {"tenant": "narrow", "role": "CUSTOMER"}),
    Case(
        "CLIENT_TOKEN_REUSED",
        "INVALID_ARGUMENT",
        NEVER,
        {"name": "Another"},
        before=({},),
        fields=("client_token",),
    ),
    Case(
        "RESULT_EXPIRED",
        "FAILED_PRECONDITION",
        NEVER,
        contact("sim-expires-5000"),
        before=(contact("sim-expires-5000"),),
    ),
    Case(
        "REQUEST_IN_PROGRESS",
        "ABORTED",
        LATER,
        contact("sim-slow-20000"),
        beside=contact("sim-slow-20000", timeout_ms=25_000),
        gateway="brief",
    ),
    Case("TENANT_RATE_LIMITED", "RESOURCE_EXHAUSTED", SLOWER, {"tenant": "slow", "calls": 3}),
    Case(
        "TENANT_IN_FLIGHT_LIMITED",
        "RESOURCE_EXHAUSTED",
        SLOWER,
        contact("sim-slow-1000", tenant="single", calls=3),
    ),
    Case(
        "UPSTREAM_BUDGET_EXHAUSTED",
        "RESOURCE_EXHAUSTED",
        SLOWER,
        {"calls": 3},
        upstream={"rate": "1/h", "burst": 1},
    ),
    Case(
        "OVERLOADED",
        "RESOURCE_EXHAUSTED",
        SLOWER,
        contact("sim-slow-1000", calls=3),
        gateway="crowded",
    ),
    Case("SHUTTING_DOWN", "UNAVAILABLE", LATER, contact("sim-slow-3000"), is_drained=True),
    Case("STORE_UNAVAILABLE", "UNAVAILABLE", LATER, gateway="lost"),
    Case(
        "CIRCUIT_OPEN",
        "UNAVAILABLE",
        LATER,
        contact("sim-internal", calls=40, every_ms=100),
        upstream={"max_attempts": 1},
    ),
    Case(
        "DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED", LATER, contact("sim-slow-1000"), gateway="hasty"
    ),
    Case(
        "UPSTREAM_TIMEOUT",
        "DEADLINE_EXCEEDED",
        LATER,
        contact("sim-slow-1000"),
        upstream={"attempt_timeout": "300ms", "max_attempts": 1},
    ),
    Case("UPSTREAM_INVALID_REQUEST", "INVALID_ARGUMENT", NEVER, contact("sim-invalid")),
    Case("CONTACT_OR_INSTANCE_NOT_FOUND", "NOT_FOUND", NEVER, contact("sim-not-found")),
    Case("UPSTREAM_CONFLICT", "ABORTED", NEVER, contact("sim-conflict")),
    Case("SERVICE_QUOTA_EXCEEDED", "RESOURCE_EXHAUSTED", NEVER, contact("sim-quota")),
    Case("UPSTREAM_THROTTLED", "RESOURCE_EXHAUSTED", SLOWER, contact("sim-throttled"), upstream={}),
    Case("UPSTREAM_ERROR", "UNAVAILABLE", LATER, contact("sim-internal"), upstream={}),
    Case("UPSTREAM_UNREACHABLE", "UNAVAILABLE", LATER, upstream={"endpoint_url": "nowhere"}),
    Case("UPSTREAM_BAD_RESPONSE", "INTERNAL", NEVER, contact("sim-garbage"), upstream={}),
    Case("UPSTREAM_AUTH_MISCONFIGURED", "INTERNAL", NEVER, contact("sim-access-denied")),
    Case(
        "UPSTREAM_CREDENTIALS_STALE",
        "UNAVAILABLE",
        LATER,
        contact("sim-expired-token"),
        upstream={},
    ),
    Case("UPSTREAM_CREDENTIALS_UNAVAILABLE", "INTERNAL", NEVER, gateway="bare"),
    Case("UPSTREAM_UNRECOGNIZED", "UNKNOWN", NEVER, upstream={"endpoint_url": "teapot"}),
]
