"""The rows that are no ratio of CPU: latency, overload, neighbours, memory, replicas, start."""

import json
import os
import statistics
import subprocess
import threading
import time

from . import build
from .blocks import (CONNECTIONS, NEW, REFUSAL, REMEMBERED, REPLAY, STREAMS, Kind, await_quiet,
                     median, read, say)


def added_latency(house, blocks, gateway, baseline, most, out):
    """T4: by how much the gateway is slower than the naive server, at half its own capacity."""
    say("T4: latency at half load")
    pairs = [(gateway, []), (baseline, [])]
    for number in range(4):
        for server, found in pairs if number % 2 == 0 else pairs[::-1]:
            found.append(blocks.open(server, NEW, most / 2))
    mine, theirs = ([block.latency("first")["p50"] for block in found] for _, found in pairs)
    trip = round_trip(house)
    added = median(mine) - median(theirs)
    out.figure("T4", "added median latency of a new call at half load", f"{added:.0f} µs",
               f"B2t: {median(theirs):.0f} µs; a round trip: {trip:.0f} µs",
               f"≤ {2 * trip + 60:.0f} µs", added <= 2 * trip + 60, added <= 2 * trip + 30,
               out.pace + [problem for _, found in pairs for block in found
                           for problem in block.problems],
               [one - other for one, other in zip(mine, theirs)])


def round_trip(house):
    """µs of one round trip to Redis from the server's core, the median."""
    command = ["redis-benchmark", "-p", str(house.redis_port), "-c", "1", "-n", "20000",
               "-t", "ping_mbulk", "--csv", "--precision", "3"]
    text = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, text=True,
        preexec_fn=lambda: os.sched_setaffinity(0, house.machine.server),
    ).stdout
    header, figures = (line.replace('"', "").split(",") for line in text.strip().splitlines()[-2:])
    return float(dict(zip(header, figures))["p50_latency_ms"]) * 1000


def overload(house, blocks, most, out):
    """T5: the goodput at more load than the gateway can serve. `most`: calls/s of one core. The
    calls in flight are bounded as docs/performance.md says, "Size a deployment"."""
    say("T5: goodput by offered load")
    in_flight = max(CONNECTIONS, round(most * ACCEPTED))
    gateway = house.gateway("sized", jwt=True, sampled=0.01, most=in_flight)
    (highest,) = blocks.closed([gateway], NEW, min(STREAMS, in_flight // CONNECTIONS))
    closed = highest.rate
    points = {share: blocks.open(gateway, NEW, share * closed, expect_all=share <= 0.7)
              for share in (0.35, 0.7, 0.9, 1.0, 1.2, 1.5, 2.0, 2.5, 3.0)}
    out.goodput = {"maximum": closed, "points": [
        {"offered": block.offered, "goodput": block.rate, **block.latency("first")}
        for block in points.values()]}
    good = points[2.0].rate / closed
    before, after = (points[share].latency("first")["p99"] / 1000 for share in (0.7, 2.0))
    found = [*out.pace, *highest.problems, *points[0.7].problems, *points[2.0].problems]
    out.figure("T5", "goodput at twice the maximum, to the maximum", f"{good:.2f} ×",
               f"the maximum: {closed:.0f}/s", "≥ 0.95 ×", good >= 0.95, good >= 0.98, found)
    out.figure("T5", "p99 of the admitted at twice the maximum", f"{after:.1f} ms",
               f"at 70 %: {before:.1f} ms", f"≤ {2 * before:.1f} ms", after <= 2 * before, None,
               found)


def curve(blocks, server, kind):
    """Latency by load, up to nine tenths of what the server can do."""
    most = 1e6 / median([block.cpu_us for block in blocks.of(server, kind)])
    points = []
    for share in (0.1, 0.3, 0.5, 0.7, 0.9):
        # Where all else shares one core, that core may be full before the server's.
        block = blocks.open(server, kind, share * most, expect_all=False)
        points.append({"rate": block.offered, **block.latency(kind.outcome)})
    return {"server": server.name, "kind": kind.name, "points": points}


def noise(house, blocks, args, out):
    """T7: what a tenant at a hundred times its limit does to another one."""
    say("T7: a noisy neighbour")
    gateway = house.gateway("noisy-house", tenants={
        "noisy": {"instances": ["*"], "rate": "20/s", "burst": 20}})
    noisy = Kind("noise", "noisy", "fresh", "first", 1)
    quiet, loud, found = [], [], [*out.pace]
    for number in range(6):
        is_loud = number % 4 in (1, 2)
        noise_maker = None
        if is_loud:
            noise_maker = blocks.generate(gateway, noisy, 2000, args.seconds + 2)
        block = blocks.open(gateway, NEW, 200, expect_all=False)
        if noise_maker:
            report = json.loads(noise_maker.communicate()[0].splitlines()[-1])
            refused = report["outcomes"].get("code_8", {"count": 0})["count"]
            if refused < 0.9 * report["requests"]:
                found.append(f"the noise was not refused: {report['outcomes']}")
        else:
            found += block.problems
        (loud if is_loud else quiet).append(block.latency("first")["p99"])
        if block.latency("first")["count"] < 0.999 * 200 * args.seconds * 0.9:
            found.append(f"not all admitted: {block.outcomes}")
    alone, beside = median(quiet) / 1000, median(loud) / 1000
    out.figure("T7", "p99 beside a tenant at 100 × its limit", f"{beside / alone:.2f} ×",
               f"alone: {alone:.2f} ms", "≤ 1.2 ×", beside <= 1.2 * alone, beside <= 1.1 * alone,
               found, [figure / 1000 for figure in quiet + loud])
    house.end(gateway)


def memory(house, blocks, args, out):
    """T8: memory when idle, and after many requests."""
    say(f"T8: memory over {args.requests:.0f} requests")
    gateway = house.gateway("memory-house", jwt=True, sampled=0.01)
    await_quiet(house.machine)
    time.sleep(2)
    idle = gateway.process.resident()
    kinds, done, early = [REPLAY, REFUSAL, NEW, REMEMBERED], 0, None
    while done < args.requests:
        for kind in kinds:
            house.forget_records()
            generator = blocks.generate(gateway, kind, None, 2, warm_up=0)
            report = json.loads(generator.communicate()[0].splitlines()[-1])
            done += report["requests"]
            gateway.process.forget_log()
        if early is None and done >= args.requests / 10:
            early = gateway.process.resident()
    after = gateway.process.resident()
    crowd = with_a_crowd(blocks, gateway) - after
    each = crowd * 1024 / CROWD
    out.notes.append(f"{CROWD} calls in flight take {crowd:.1f} MiB, {each:.0f} KiB each.")
    out.figure("T8", "idle memory", f"{idle:.1f} MiB", "", "≤ 25 MiB", idle <= 25, idle <= 15, [])
    out.figure("T8", f"memory after {done:,} requests", f"{after:.1f} MiB, {after / idle:.2f} ×",
               f"idle: {idle:.1f} MiB; after a tenth of them: {early:.1f} MiB", "≤ 1.1 × idle",
               after <= 1.1 * idle, None, [])
    house.end(gateway)


def with_a_crowd(blocks, gateway):
    """MiB of memory while many calls wait for Connect."""
    slow = ("--contact", "sim-slow-2000")
    generator = blocks.generate(gateway, NEW, None, 0.1, streams=CROWD // CONNECTIONS, more=slow)
    read(generator, "begin")
    resident = gateway.process.resident()
    generator.communicate()
    return resident


def replicas(house, blocks, args, out):
    """T9: whether three gateways admit what one limit allows."""
    rate, burst, seconds = 200, 400, max(5, 5 * args.seconds)
    shared = {"shared": {"instances": ["*"], "rate": f"{rate}/s", "burst": burst,
                         "max_in_flight": 100_000}}
    kind = Kind("shared limit", "shared", "fresh", "first", 1)
    gateways = [house.gateway(f"replica-{number}", tenants=shared) for number in range(3)]
    for slow in (False, True):
        say(f"T9: three replicas, Redis {'slow' if slow else 'healthy'}")
        house.forget_records()
        stop = threading.Event()
        if slow:
            threading.Thread(target=slow_down, args=(house, stop), daemon=True).start()
        # The three ask for three times the rate: the burst is spent before the calls count.
        warm_up = 2 * burst / (2 * rate)
        running = [blocks.generate(gateway, kind, rate, seconds, warm_up) for gateway in gateways]
        reports = [json.loads(one.communicate()[0].splitlines()[-1]) for one in running]
        stop.set()
        admitted = sum(one["outcomes"].get("first", {"count": 0})["count"] for one in reports)
        allowed = rate * seconds
        off = admitted / allowed - 1
        found = [f"{one['outcomes']}" for one in reports
                 if set(one["outcomes"]) - {"first", "code_8"} or one["unanswered"]]
        out.figure("T9", f"admitted by 3 replicas, Redis {'slow' if slow else 'healthy'}",
                   f"{admitted}, {off:+.2%}", f"rate × t: {allowed:.0f}", "± 1 %",
                   abs(off) <= 0.01, None, found)
    for gateway in gateways:
        house.end(gateway)


def slow_down(house, stop):
    """Has Redis answer nobody for 50 ms, again and again."""
    while not stop.is_set():
        house.redis_cli("client", "pause", 50, "all")
        stop.wait(0.15)


def start(house, blocks, args, out):
    """T11: from the start of the process to `/readyz`, and what there is to ship."""
    say("T11: start and size")
    times = []
    for number in range(7):
        await_quiet(house.machine)
        begun = time.monotonic()
        gateway = house.gateway(f"start-{number}", jwt=True)
        times.append((time.monotonic() - begun) * 1000)
        house.end(gateway)
    took = statistics.median(times)
    out.figure("T11", "from start to ready", f"{took:.0f} ms", "", "≤ 100 ms", took <= 100, None,
               [], times)
    size = house.program.stat().st_size / 2**20
    out.figure("T11", "release binary", f"{size:.1f} MiB", "with the simulator", "≤ 20 MiB",
               size <= 20, None, [])
    files = house.folder / "image"
    command = [build.ROOT / "tools" / "image-files.sh", house.program, files]
    if subprocess.run(command, check=False).returncode:
        return
    image = sum(file.stat().st_size for file in files.rglob("*") if file.is_file()) / 2**20
    out.figure("T11", "image", f"{image:.1f} MiB", "its files, with that program", "≤ 25 MiB",
               image <= 25, None, [])


# Of T5: the latency that its callers accept, in seconds.
ACCEPTED = 0.02

# Calls that are in flight at once: fewer than `server.max_in_flight`.
CROWD = 1000
