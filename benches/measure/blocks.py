"""A block: one kind of call at one server, for some seconds, with the reasons to doubt it."""

import dataclasses
import json
import os
import statistics
import subprocess
import time

from .machine import busy, cpu


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of call: who makes it, and how it must end."""

    name: str
    tenant: str
    token: str
    outcome: str
    # What a gateway asks Redis, a call.
    asks: int


NEW = Kind("new", "bench", "fresh", "first", 2)
REPLAY = Kind("replay", "bench", "repeated", "replayed", 1)
# It has a client_token, whose result the store may know.
REFUSAL = Kind("refusal", "limited", "fresh", "code_8", 1)
REMEMBERED = Kind("refusal from memory", "limited", "none", "code_8", 0)

CONNECTIONS, STREAMS = 8, 16
# Of an open loop: more than a gateway takes at a time by its default.
OPEN_STREAMS = 256
WARM_UP = 1.0


@dataclasses.dataclass
class Block:
    server: str
    kind: str
    offered: float
    rate: float
    cpu_us: float
    outcomes: dict
    late_us: float
    others_us: dict
    server_busy: float
    problems: list

    def latency(self, outcome):
        return self.outcomes.get(outcome, {"count": 0, "p50": 0.0, "p99": 0.0})


class Blocks:
    """Runs blocks, and keeps all of them for the report."""

    def __init__(self, house, seconds):
        self.house, self.seconds, self.all = house, seconds, []

    def rounds(self, pairs, rounds):
        """Each server's blocks, in the order A B, B A, …; `pairs` are servers and kinds."""
        for number in range(rounds):
            for server, kind in pairs if number % 2 == 0 else pairs[::-1]:
                self.closed(server, kind)

    def closed(self, server, kind):
        """As many calls as the server takes."""
        block = self.once(server, kind, None)
        for _ in range(AGAIN):
            if not block.problems:
                break
            say(f"  once more: {'; '.join(block.problems)}")
            block = self.once(server, kind, None)
        return self.keep(block)

    def open(self, server, kind, rate, expect_all=True):
        """Calls at this rate. `expect_all`: each of them ends as its kind must."""
        block = self.once(server, kind, rate, expect_all)
        if block.problems:
            say(f"  once more: {'; '.join(block.problems)}")
            block = self.once(server, kind, rate, expect_all)
        return self.keep(block)

    def keep(self, block):
        self.all.append(block)
        offered = f" of {block.offered:.0f}/s" if block.offered else ""
        say(f"  {block.server:12} {block.kind:20} {block.rate:8.0f}/s{offered}"
            f" {block.cpu_us:7.1f} µs, core {block.server_busy:.0%}"
            f" {'; '.join(block.problems)}")
        return block

    def of(self, server, kind):
        return [block for block in self.all
                if block.server == server.name and block.kind == kind.name and not block.offered]

    def once(self, server, kind, rate, expect_all=True):
        house, machine = self.house, self.house.machine
        await_quiet(machine)
        if kind in (NEW, REFUSAL):
            house.forget_records()
        helpers = {"redis": house.redis.pid, "simulator": house.simulator.pid,
                   "collector": house.collector.pid}
        generator = self.generate(server, kind, rate, self.seconds)

        def used():
            return [time.monotonic(), server.process.cpu(), busy(machine.server),
                    busy(machine.others), *map(cpu, helpers.values())]

        read(generator, "begin")
        before = used()
        metrics = server.metrics() if server.admin else None
        read(generator, "end")
        wall, own, server_busy, others_busy, *helping = (
            after - first for after, first in zip(used(), before))
        report = json.loads(generator.stdout.readline())
        generator.wait()
        calls = max(1, report["requests"])
        block = Block(
            server.name, kind.name, rate or 0, report["outcomes"].get(
                kind.outcome, {"count": 0})["count"] / report["seconds"],
            own * 1e6 / calls, report["outcomes"], report["late_us"]["p50"],
            {name: spent * 1e6 / calls for name, spent in zip(helpers, helping)}
            | {"generator": report["busy"] * wall * 1e6 / calls},
            own / wall, [],
        )
        strangers = [
            max(0.0, server_busy - own) / wall,
            max(0.0, others_busy - sum(helping) - report["busy"] * wall) / wall,
        ]
        block.problems = problems(block, kind, report, strangers, expect_all)
        if metrics is not None and expect_all:
            block.problems += self.wrong_way(server, kind, metrics)
        server.process.forget_log()
        return block

    def generate(self, server, kind, rate, seconds, warm_up=WARM_UP, streams=None, more=()):
        """Starts the load generator, whose output is a pipe."""
        house, streams = self.house, streams or (OPEN_STREAMS if rate else STREAMS)
        command = [house.bench / "generate", f"127.0.0.1:{server.port}",
                   "--token", kind.token, "--seconds", seconds, "--warm-up", warm_up,
                   "--connections", CONNECTIONS, "--streams", streams]
        if rate:
            command += ["--rate", rate]
        elif not kind.asks:
            # These servers are the quickest, and have no Redis or Connect to wait for.
            command += ["--rests"]
        for header in server.headers(kind.tenant):
            command += ["--header", header]
        return subprocess.Popen(
            [str(word) for word in [*command, *more]], stdout=subprocess.PIPE, text=True,
            preexec_fn=lambda: os.sched_setaffinity(0, house.machine.others),
        )

    def wrong_way(self, server, kind, before):
        """Whether the gateway asked Redis as often as this kind of call should make it."""
        after = server.metrics()

        def grown(name):
            return after.get(name, 0) - before.get(name, 0)

        asks = grown("db_client_operation_duration_seconds_count")
        calls = max(1, grown("rpc_server_call_duration_seconds_count"))
        if abs(asks / calls - kind.asks) > 0.02:
            return [f"{asks / calls:.2f} operations on Redis a call, not {kind.asks}"]
        return []


def problems(block, kind, report, strangers, expect_all):
    """Why the figures of a block are in doubt."""
    found = []
    outcomes = {name: times["count"] for name, times in report["outcomes"].items()}
    wrong = report["requests"] - outcomes.get(kind.outcome, 0) + report["unanswered"]
    if expect_all and wrong > report["requests"] / 1000:
        found.append(f"not all {kind.outcome}: {outcomes}, unanswered {report['unanswered']}")
    if report["busy"] > 0.7:
        found.append(f"the generator took {report['busy']:.0%} of a core")
    for share, cores in zip(strangers, ("the server's core", "the other cores")):
        if share > STRANGERS:
            found.append(f"other processes took {share:.0%} of {cores}")
    if block.offered and expect_all and report["late_us"]["p99"] > 2000:
        found.append(f"calls were sent {report['late_us']['p99'] / 1000:.1f} ms late (p99)")
    return found


def read(generator, word):
    line = generator.stdout.readline().strip()
    if line != word:
        raise SystemExit(f"the load generator said {line!r}, not {word!r}")


def await_quiet(machine, patience=10):
    """Waits for half a second in which no other process uses the CPU."""
    end = time.monotonic() + patience
    while time.monotonic() < end:
        before = busy(machine.server | machine.others)
        time.sleep(0.25)
        if busy(machine.server | machine.others) - before < 0.05:
            return


def median(figures):
    return statistics.median(figures) if figures else float("nan")


def say(text):
    print(text, flush=True)


# How often a disturbed block is measured again.
AGAIN = 2

# The share of a core that other processes may use.
STRANGERS = 0.05
