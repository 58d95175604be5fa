"""A block: one kind of call at one server, for some seconds, with the reasons to doubt it."""

import dataclasses
import json
import os
import statistics
import subprocess
import time
from collections import Counter

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
    # Seconds of a turn: many times as long as a call.
    turn: float = 0.1


NEW = Kind("new", "bench", "fresh", "first", 2, turn=0.2)
REPLAY = Kind("replay", "bench", "repeated", "replayed", 1)
# It has a client_token, whose result the store may know.
REFUSAL = Kind("refusal", "limited", "fresh", "code_8", 1)
REMEMBERED = Kind("refusal from memory", "limited", "none", "code_8", 0)

CONNECTIONS, STREAMS = 8, 16
# Of an open loop: more than a gateway takes at a time by its default.
OPEN_STREAMS = 256
# Seconds.
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

    def closed(self, servers, kind, streams=STREAMS):
        """As many calls as the servers take, by turns: a block of each."""
        for _ in range(AGAIN + 1):
            blocks = self.by_turns(servers, kind, streams)
            found = [f"{block.server}: {problem}" for block in blocks for problem in block.problems]
            if not found:
                break
            say(f"  in doubt: {'; '.join(found)}")
        return [self.keep(block) for block in blocks]

    def open(self, server, kind, rate, expect_all=True):
        """Calls at this rate. `expect_all`: each of them ends as its kind must."""
        block = self.at_rate(server, kind, rate, expect_all)
        if block.problems:
            say(f"  once more: {'; '.join(block.problems)}")
            block = self.at_rate(server, kind, rate, expect_all)
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

    def by_turns(self, servers, kind, streams=STREAMS):
        """One server works at a time, in the order A B, B A, …, and the others wait. A turn is so
        short that the machine's pace hardly changes between it and the next one."""
        self.prepare(kind)
        generators = [self.generate(server, kind, streams=streams) for server in servers]
        helping = [Counter() for _ in servers]
        every = list(zip(servers, generators, helping))
        for generator in generators:
            take_turn(generator, WARM_UP)
        metrics = [server.metrics() for server in servers]
        watch = Watch(self.house, servers, generators)
        for number in range(max(1, round(self.seconds / kind.turn))):
            for _, generator, used in every if number % 2 == 0 else every[::-1]:
                before = self.house.helpers()
                take_turn(generator, kind.turn)
                used.update(grown(self.house.helpers(), before))
        # A server that waits does its chores. So its time is that of the others' turns, too.
        own, strangers = watch.end()
        blocks = []
        for (server, generator, used), spent, before in zip(every, own, metrics):
            report = report_of(generator)
            block = block_of(server, kind, report, spent, used)
            block.problems = problems(block, kind, report, strangers)
            block.problems += wrong_way(kind, before, server.metrics())
            server.process.forget_log()
            blocks.append(block)
        return blocks

    def at_rate(self, server, kind, rate, expect_all):
        """An open loop."""
        self.prepare(kind)
        generator = self.generate(server, kind, rate, self.seconds)
        read(generator, "begin")
        watch, before = Watch(self.house, [server], [generator]), self.house.helpers()
        metrics = server.metrics()
        read(generator, "end")
        (own,), strangers = watch.end()
        used = grown(self.house.helpers(), before)
        report = report_of(generator)
        block = block_of(server, kind, report, own, used, rate)
        block.problems = problems(block, kind, report, strangers, expect_all)
        if expect_all:
            block.problems += wrong_way(kind, metrics, server.metrics())
        server.process.forget_log()
        return block

    def prepare(self, kind):
        await_quiet(self.house.machine)
        if kind in (NEW, REFUSAL):
            self.house.forget_records()

    def generate(self, server, kind, rate=None, seconds=None, warm_up=WARM_UP, streams=None,
                 more=()):
        """Starts the load generator, whose input and output are pipes. Without `seconds` it takes
        turns."""
        house, streams = self.house, streams or (OPEN_STREAMS if rate else STREAMS)
        command = [house.bench / "generate", f"127.0.0.1:{server.port}", "--token", kind.token,
                   "--connections", CONNECTIONS, "--streams", streams]
        command += ["--seconds", seconds, "--warm-up", warm_up] if seconds else ["--turns"]
        if rate:
            command += ["--rate", rate]
        elif not kind.asks:
            # These servers are the quickest, and have no Redis or Connect to wait for.
            command += ["--rests"]
        for header in server.headers(kind.tenant):
            command += ["--header", header]
        return subprocess.Popen(
            [str(word) for word in [*command, *more]],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            preexec_fn=lambda: os.sched_setaffinity(0, house.machine.others),
        )


class Watch:
    """What servers and generators use of the machine, from now on."""

    def __init__(self, house, servers, generators):
        self.machine, self.house = house.machine, house
        self.servers = [server.process.pid for server in servers]
        self.generators = [generator.pid for generator in generators]
        self.first = self.now()

    def now(self):
        helping = sum(self.house.helpers().values()) + sum(map(cpu, self.generators))
        return [time.monotonic(), busy(self.machine.server), busy(self.machine.others), helping,
                *map(cpu, self.servers)]

    def end(self):
        """The seconds of each server, and the share that strangers took: of the server's core, and
        of a core among the others."""
        wall, server_busy, others_busy, helping, *own = (
            after - before for after, before in zip(self.now(), self.first))
        return own, [max(0.0, server_busy - sum(own)) / wall, max(0.0, others_busy - helping) / wall]


def take_turn(generator, seconds):
    generator.stdin.write("go\n")
    generator.stdin.flush()
    time.sleep(seconds)
    generator.stdin.write("stop\n")
    generator.stdin.flush()
    read(generator, "stopped")


def report_of(generator):
    """The report of a generator, which ends. Its output may be in our buffer already, where
    `communicate` does not look."""
    generator.stdin.close()
    report = json.loads(generator.stdout.readline())
    generator.wait()
    return report


def grown(after, before):
    return {name: after[name] - before.get(name, 0) for name in after}


def block_of(server, kind, report, own, used, rate=0):
    """`own`: seconds that the server used. `used`: those of each helper."""
    calls, seconds = max(1, report["requests"]), report["seconds"]
    ended = report["outcomes"].get(kind.outcome, {"count": 0})["count"]
    helping = used | {"generator": report["busy"] * seconds}
    return Block(
        server.name, kind.name, rate, ended / seconds, own * 1e6 / calls, report["outcomes"],
        report["late_us"]["p50"], {name: spent * 1e6 / calls for name, spent in helping.items()},
        own / seconds, [],
    )


def wrong_way(kind, before, after):
    """Whether a gateway asked Redis as often as this kind of call should make it."""
    made = grown(after, before)
    calls = made.get("rpc_server_call_duration_seconds_count")
    asks = made.get("db_client_operation_duration_seconds_count", 0)
    if calls and abs(asks / calls - kind.asks) > 0.02:
        return [f"{asks / calls:.2f} operations on Redis a call, not {kind.asks}"]
    return []


def problems(block, kind, report, strangers, expect_all=True):
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
