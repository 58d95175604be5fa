"""Every example against real gateways: what each call gets, and what the caller makes of it."""

import json
import pathlib
import time
import unittest
import uuid
from concurrent.futures import ThreadPoolExecutor

import languages
from credentials import Credentials
from reasons import CASES, gateways
from world import World

SHARED = pathlib.Path(languages.EXAMPLES / "service-config.json")


def setUpModule() -> None:
    global world, credentials, fixtures, once
    world = World()
    unittest.addModuleCleanup(world.close)
    credentials = Credentials(world.folder)
    fixtures = gateways(world, [example.name for example in languages.chosen()])
    # The shared config without its retries: each case shows one answer.
    config = json.loads(SHARED.read_text())
    for method in config["methodConfig"]:
        del method["retryPolicy"]
    once = world.folder / "once.json"
    once.write_text(json.dumps(config))


class Tests:
    """The tests of one example."""

    example: languages.Example

    @property
    def name(self) -> str:
        return self.example.name

    def test_the_first_call_is_ok(self) -> None:
        target = fixtures["main"].target
        line = self.example.one(target=target, tenant="demo", contact=self.contact("first"))
        self.assertEqual((line["verdict"], line["replayed"]), ("done", False))
        self.assertTrue(line["participant_id"] and line["request_id"])
        self.assertIsInstance(line["remaining"], int)

    def test_every_reason_leads_to_its_verdict(self) -> None:
        with ThreadPoolExecutor(3) as pool:
            running = {case: pool.submit(case.run, self, fixtures, once) for case in CASES}
        for case, found in running.items():
            with self.subTest(case.reason):
                line = found.result()
                seen = tuple(line[key] for key in ("reason", "code", "verdict"))
                self.assertEqual(seen, (case.reason, case.code, case.verdict))
                self.assertTrue(line["request_id"] and line["message"])
                self.assertEqual(line["delay_ms"] > 0, case.verdict in ("slow_down", "retry_after"))
                self.assertEqual(line["fields"], list(case.fields))

    def test_an_error_has_its_levels_in_the_trailers(self) -> None:
        line = self.call("main", contact="sim-not-found")
        self.assertIsInstance(line["remaining"], int)

    def test_a_bearer_token_is_an_identity_over_tls_and_in_a_mesh(self) -> None:
        secure = world.gateway(
            {"server": {"tls": credentials.tls()}, "identity": credentials.jwt(), **_bot()}
        )
        mesh = world.gateway({"identity": credentials.jwt(), **_bot()})
        over_tls = {"target": f"dns:///gateways.test:{secure.port}", "ca": credentials.ca}
        token = credentials.token(f"token-{self.name}")
        for gateway in (over_tls, {"target": mesh.target}):
            with self.subTest(gateway):
                self.assertEqual(self.example.one(token_file=token, **gateway)["verdict"], "done")
                for passing in (
                    credentials.token("expired", starts=-1200, lasts=-600),
                    credentials.token("early", starts=300),
                ):
                    line = self.example.one(token_file=passing, **gateway)
                    seen = (line["code"], line["verdict"])
                    self.assertEqual(seen, ("UNAUTHENTICATED", "new_token"))
                foreign = credentials.token("foreign", audience="another-service")
                line = self.example.one(token_file=foreign, **gateway)
                self.assertEqual((line["code"], line["verdict"]), ("UNAUTHENTICATED", "never"))
        with self.subTest("none"):
            self.assertEqual(self.example.one(**over_tls)["verdict"], "never")
        with self.subTest("an unreadable file"):
            line = self.example.one(token_file=world.folder / "absent", **over_tls)
            codes = {"python": "UNAVAILABLE", "typescript": "UNKNOWN"}
            expected = codes.get(self.example.language, "UNAUTHENTICATED")
            self.assertEqual((line["code"], line["reason"]), (expected, ""))

    def test_metadata_that_is_too_large_is_not_sent_again(self) -> None:
        for size, reason in ((16_500, "REQUEST_TOO_LARGE"), (100_000, "")):
            with self.subTest(size):
                token = world.folder / f"large-{size}"
                token.write_text("x" * size)
                gateway = fixtures["main"]
                line = self.example.one(target=gateway.target, token_file=token)
                self.assertEqual((line["reason"], line["verdict"]), (reason, "never"))

    def test_a_client_certificate_is_an_identity(self) -> None:
        gateway = world.gateway(
            {
                "server": {"tls": credentials.tls(mutual=True)},
                "identity": {"mode": "mtls"},
                **_bot(),
            }
        )
        flags = {"target": f"dns:///gateways.test:{gateway.port}", "ca": credentials.ca}
        cert, key = credentials.client
        self.assertEqual(self.example.one(cert=cert, key=key, **flags)["verdict"], "done")
        self.assertEqual(self.example.one(**flags)["reason"], "UNAUTHENTICATED")

    def test_calls_are_spread_over_both_gateways(self) -> None:
        target, first, second = world.pair()
        lines = self.example.run(
            "create",
            target=target,
            tenant="demo",
            calls=50,
            every_ms=40,
            contact=self.contact("spread"),
        )
        self.assertEqual({line["verdict"] for line in lines}, {"done"})
        for gateway in (first, second):
            self.assertGreaterEqual(len(gateway.calls()), 5)

    def test_a_list_of_addresses_is_a_target(self) -> None:
        if self.example.language not in ("python", "typescript"):
            self.skipTest("the library has no such targets")
        _, first, second = world.pair()
        target = f"ipv4:{first.target},{second.target}"
        lines = self.example.run("create", target=target, tenant="demo", calls=20, every_ms=50)
        self.assertEqual({line["verdict"] for line in lines}, {"done"})
        for gateway in (first, second):
            self.assertGreater(len(gateway.calls()), 0)

    def test_what_passes_is_repeated_and_what_is_hopeless_is_not(self) -> None:
        gateway = world.gateway({"upstreams": {"main": world.upstream("*", max_attempts=1)}})
        flags = {"target": gateway.target, "tenant": "demo", "timeout_ms": 10_000}
        # 500 twice: UNAVAILABLE with a hint of 1 s, which the library obeys.
        line = self.example.one(contact="sim-flaky-2", client_token=self.contact("flaky"), **flags)
        self.assertEqual(line["verdict"], "done")
        self.assertEqual(len(gateway.calls(3)), 3)
        for contact, verdict, attempts in (
            ("sim-throttled", "slow_down", 3),
            ("sim-quota", "never", 1),
            ("sim-conflict", "never", 1),
        ):
            with self.subTest(contact):
                before = len(gateway.calls())
                line = self.example.one(contact=contact, **flags)
                self.assertEqual(line["verdict"], verdict)
                self.assertEqual(len(gateway.calls(before + attempts)) - before, attempts)

    def test_nothing_is_repeated_while_many_calls_fail(self) -> None:
        config = json.loads(SHARED.read_text())
        # One failure leaves 1 of 2 tokens: not more than half.
        config["retryThrottling"] = {"maxTokens": 2, "tokenRatio": 0.1}
        throttled = world.folder / "throttled.json"
        throttled.write_text(json.dumps(config))
        gateway = world.gateway()
        flags = {"target": gateway.target, "tenant": "demo", "service_config": throttled}
        line = self.example.one(contact="sim-throttled", **flags)
        self.assertEqual(line["verdict"], "slow_down")
        self.assertEqual(len(gateway.calls(2)), 1)

    def test_a_crowd_is_told_to_slow_down(self) -> None:
        tenants = {"demo": {"instances": ["*"], "rate": "2/s", "burst": 4}}
        target, *_ = world.pair({"tenants": tenants})
        contact = self.contact("crowd")
        started = time.monotonic()
        lines = self.example.run(
            "create", target=target, tenant="demo", calls=40, contact=contact, timeout_ms=9000
        )
        took = time.monotonic() - started
        self.assertEqual(len(lines), 40)
        done = [line for line in lines if line["verdict"] == "done"]
        refused = [line for line in lines if line["verdict"] == "slow_down"]
        # A library that waits for a hint beyond the deadline says DEADLINE_EXCEEDED by itself.
        waited = [line for line in lines if line.get("code") == "DEADLINE_EXCEEDED"]
        self.assertEqual(len(done) + len(refused) + len(waited), 40, lines)
        self.assertGreater(len(refused) + len(waited), 0)
        for line in refused:
            self.assertEqual(line["reason"], "TENANT_RATE_LIMITED")
            self.assertGreater(line["delay_ms"], 0)
        self.assertGreaterEqual(len(done), 4)
        self.assertLessEqual(len(done), 4 + 2 * took + 1)
        # A participant may have been made when the deadline passed.
        made = len(world.participants(contact))
        self.assertTrue(len(done) <= made <= len(done) + len(waited), (made, lines))

    def test_a_drained_gateway_costs_no_call(self) -> None:
        target, first, _ = world.pair()
        contact = self.contact("drained")
        running = self.start_many(target, contact, first)
        first.drain()
        lines = languages.lines(running)
        self.assertEqual([line for line in lines if line["verdict"] != "done"], [])
        self.assertEqual(len(world.participants(contact)), len(lines))

    def test_a_killed_gateway_costs_no_call_and_makes_no_second_participant(self) -> None:
        target, first, _ = world.pair()
        contact = self.contact("killed")
        running = self.start_many(target, contact, first)
        first.kill()
        lines = languages.lines(running)
        lost = [line for line in lines if line["verdict"] != "done"]
        # A call that was in flight there may be told to wait for its lease.
        self.assertLessEqual(len(lost), 5, lost)
        for line in lost:
            self.assertEqual(line["verdict"], "retry_after", line)
            self.repeat(target, contact, line["call"])
        self.assertEqual(len(world.participants(contact)), len(lines))

    def test_the_same_token_after_a_short_deadline_gets_the_one_participant(self) -> None:
        flags = {"contact": "sim-slow-300", "client_token": self.contact("short")}
        line = self.call("main", timeout_ms=50, **flags)
        self.assertEqual((line["code"], line["verdict"]), ("DEADLINE_EXCEEDED", "retry_after"))
        again = self.call("main", timeout_ms=10_000, **flags)
        self.assertEqual(again["verdict"], "done")
        once_more = self.call("main", timeout_ms=10_000, **flags)
        self.assertEqual(once_more["participant_id"], again["participant_id"])
        self.assertTrue(once_more["replayed"])

    def test_the_same_token_after_a_cancellation_gets_the_one_participant(self) -> None:
        flags = {"contact": "sim-slow-1500", "client_token": self.contact("cancelled")}
        line = self.call("main", cancel_after_ms=500, timeout_ms=10_000, **flags)
        self.assertEqual((line["code"], line["verdict"]), ("CANCELLED", "never"))
        again = self.call("main", timeout_ms=10_000, **flags)
        once_more = self.call("main", timeout_ms=10_000, **flags)
        self.assertEqual(once_more["participant_id"], again["participant_id"])

    def test_requests_may_be_compressed(self) -> None:
        self.assertEqual(self.call("main", gzip=True)["verdict"], "done")
        health = self.example.one("health", target=fixtures["main"].target, gzip=True)
        self.assertEqual(health.get("health"), "SERVING", health)

    def test_the_quota_and_the_health_can_be_asked_for(self) -> None:
        target = fixtures["main"].target
        quota = self.example.one("quota", target=target, tenant="demo")
        self.assertEqual((quota["rate_per_second"], quota["burst"]), (1000, 1000))
        service = "participantgateway.v1.ParticipantService"
        for flags in ({}, {"service": service}):
            self.assertEqual(
                self.example.one("health", target=target, **flags)["health"], "SERVING"
            )

    def contact(self, name: str) -> str:
        """Return a text that no other test uses."""
        return f"{name}-{self.name}-{time.monotonic_ns()}"

    def call(self, gateway: str, **flags: object) -> dict:
        """Make one call without the library's retries."""
        flags = {"tenant": "demo", "service_config": once, **flags}
        return self.example.one(target=fixtures[gateway].target, **flags)

    def repeat(self, target: str, contact: str, number: int) -> None:
        """Repeat a call of many with its client_token until it is done."""
        flags = {"tenant": "demo", "contact": contact, "client_token": f"{contact}-{number}"}
        until = time.monotonic() + 30
        while self.example.one(target=target, **flags)["verdict"] != "done":
            self.assertLess(time.monotonic(), until)

    def start_many(self, target: str, contact: str, watched: object) -> object:
        """Start calls that last, and return when the watched gateway has had some."""
        flags = {"tenant": "demo", "contact": contact, "client_token": contact}
        running = self.example.start("create", target=target, calls=100, every_ms=20, **flags)
        until = time.monotonic() + 30
        while len(watched.calls()) < 10:
            self.assertLess(time.monotonic(), until)
            time.sleep(0.02)
        return running


@unittest.skipIf("python" not in languages.names(), "the page's call is in Python")
class Page(unittest.TestCase):
    """The call that docs/calling.md shows."""

    def setUp(self) -> None:
        page = (languages.EXAMPLES.parent / "docs/calling.md").read_text()
        self.code = page.split("```python\n")[1].split("```")[0]

    def test_the_call_of_the_page_prints_the_participant(self) -> None:
        printed = self.run_with(f"page-{time.monotonic_ns()}")
        self.assertEqual(len(printed.splitlines()), 1)
        uuid.UUID(printed.strip())

    def test_the_call_of_the_page_prints_what_to_do_about_an_error(self) -> None:
        self.assertIn("CONTACT_OR_INSTANCE_NOT_FOUND", self.run_with("sim-not-found"))

    def run_with(self, contact: str) -> str:
        """Run the page's code against a gateway, with another contact."""
        code = self.code.replace("127.0.0.1:50051", fixtures["main"].target)
        return languages.run_python(
            code.replace("contact-1", contact).replace("timeout=5", "timeout=20")
        )


def _bot() -> dict:
    subjects = {"subjects": ["bot", "spiffe://test/bot"]}
    return {"tenants": {"demo": {"instances": ["*"], "rate": "1000/s", "burst": 1000, **subjects}}}


for _example in languages.chosen():
    _name = "".join(part.title() for part in _example.name.split("-"))
    globals()[_name] = type(_name, (Tests, unittest.TestCase), {"example": _example})
