"""What the scripts and EXISTS cost on the server of Redis."""

import re

from .blocks import NEW, REFUSAL, REPLAY, median, say


def costs(house, blocks, gateway):
    """µs of each script, by the server's own statistics. Where a call runs two of them, its slow
    log tells them apart."""
    say("the scripts on the server")
    found = {}
    house.redis_cli("config", "set", "slowlog-max-len", 20_000)
    try:
        house.redis_cli("config", "set", "slowlog-log-slower-than", 0)
        admit, mean, _ = run(house, blocks, gateway, REPLAY)
        found["admit, a replay"] = mean
        found["EXISTS, a refusal"] = run(house, blocks, gateway, REFUSAL, command="exists")[1]
        for kind, settled, more in (
            (NEW, "settle, a result", ()),
            (NEW, "settle, a release", ("--contact", "sim-not-found")),
        ):
            _, mean, by_script = run(house, blocks, gateway, kind, more)
            by_admit = median(by_script.pop(admit, []))
            by_settle = median([time for times in by_script.values() for time in times])
            both = by_admit + by_settle
            found.setdefault("admit, a new call", 2 * mean * by_admit / both)
            found[settled] = 2 * mean * by_settle / both
    finally:
        house.redis_cli("config", "set", "slowlog-log-slower-than", 10_000)
    for name, micros in found.items():
        say(f"  {name:20} {micros:6.1f} µs")
    return found


def record_bytes(house, blocks, gateway):
    """What a record takes of Redis's memory."""
    def used():
        return int(re.search(r"used_memory:(\d+)", house.redis_cli("info", "memory"))[1])

    house.redis_cli("flushdb", "sync")
    before = used()
    blocks.generate(gateway, NEW, None, blocks.seconds, warm_up=0).communicate()
    gateway.process.forget_log()
    return (used() - before) / int(house.redis_cli("dbsize"))


def run(house, blocks, gateway, kind, more=(), command="evalsha"):
    """The script that ran most, the command's mean in µs, and times by script."""
    house.forget_records()
    generator = blocks.generate(gateway, kind, None, blocks.seconds, more=more)
    for word in ("begin", "end"):
        generator.stdout.readline()
        if word == "begin":
            house.redis_cli("config", "resetstat")
            house.redis_cli("slowlog", "reset")
        else:
            statistics = house.redis_cli("info", "commandstats")
            log = house.redis_cli("slowlog", "get", 20_000)
    generator.communicate()
    gateway.process.forget_log()
    mean = float(re.search(rf"cmdstat_{command}:.*?usec_per_call=([0-9.]+)", statistics)[1])
    if command != "evalsha":
        return None, mean, {}
    # Entries as redis-cli writes them without a terminal: id, time, µs, words, and the client.
    by_script = {}
    for micros, sha in re.findall(r"\n(\d+)\nEVALSHA\n([0-9a-f]{40})\n", log, re.IGNORECASE):
        by_script.setdefault(sha.lower(), []).append(int(micros))
    if not by_script:
        raise SystemExit("no script ran")
    return max(by_script, key=lambda sha: len(by_script[sha])), mean, by_script
