"""The rows of the table, each by blocks of its own."""

from . import build, long, scripts
from .blocks import NEW, REFUSAL, REMEMBERED, REPLAY, Blocks, median, say

# What can be chosen.
NAMES = ("T1", "T2", "T3", "T3b", "T4", "T5", "T6", "T7", "T8", "T9", "T11", "curves", "scripts",
         "steps")

# Of docs/design/performance.md, "Targets": the most that is allowed, and the moonshot.
TARGETS = {
    "T1": (1.10, 1.0), "T2": (1.0, 0.75), "T3": (1.0, 0.75), "T3b": (1.1, 0.9),
    "T6 all": (1.10, 1.05), "T6 1 %": (1.03, 1.01),
}


def measure(house, args, out):
    """Measures every row, or those that were chosen."""
    def wanted(*names):
        return not args.only or any(name.lower() in args.only for name in names)

    blocks = Blocks(house, args.seconds)
    out.blocks = blocks.all
    say("warming up")
    gateway = house.gateway()
    full = house.gateway("gateway-full", jwt=True, sampled=0.01)
    # With what a row calls them.
    programs = [("", gateway, full)]
    if args.plain:
        program = house.bench / "participant-gateway"
        programs.append((", without the profile", house.gateway("plain", program=program),
                         house.gateway("plain-full", jwt=True, sampled=0.01, program=program)))
    b0, b2, b2t, b4 = (house.baseline(name) for name in ("b0", "b2", "b2t", "b4"))
    others = programs[1:]
    # What is compared takes turns: by the kind of its calls.
    kinds = {kind: [] for kind in (NEW, REPLAY, REFUSAL, REMEMBERED)}
    if wanted("T1"):
        kinds[NEW] += [b2, *(one for _, _, one in others)]
    if wanted("T1", "T4", "T5", "T6", "curves"):
        kinds[NEW] += [b2t, full]
    if wanted("T6"):
        untraced = house.gateway("untraced", jwt=True)
        traced = house.gateway("all-traced", jwt=True, sampled=1.0)
        kinds[NEW] += [untraced, traced]
    if wanted("T2", "curves"):
        kinds[REPLAY] += [gateway, b4]
    if wanted("T2"):
        kinds[REPLAY] += [one for _, one, _ in others]
    if wanted("T3"):
        kinds[REFUSAL] += [gateway, b4, *(one for _, one, _ in others)]
    if wanted("T3b"):
        kinds[REMEMBERED] += [gateway, *(one for _, one, _ in others)]
    if any(kinds.values()):
        twin = house.baseline("b0", "b0-twin")
        kinds[REMEMBERED] += [b0, twin]
        say(f"{args.rounds} rounds of {sum(map(len, kinds.values()))} blocks")
        for _ in range(args.rounds):
            # Processes of one program differ by some per cent, each for its life.
            for server in dict.fromkeys(sum(kinds.values(), [])):
                server.restart()
            for kind, servers in kinds.items():
                if servers:
                    blocks.closed(servers, kind)
        out.drift(*(blocks.of(one, REMEMBERED) for one in (b0, twin)))

    def ratio(row, what, server, baseline, kind, base_kind=None):
        mine, theirs = blocks.of(server, kind), blocks.of(baseline, base_kind or kind)
        if mine and theirs:
            out.ratio(row, what, mine, theirs, *TARGETS[row])

    for by, plain, everything in programs:
        if wanted("T1"):
            ratio("T1", f"a new call, everything on{by}; B2t", everything, b2t, NEW)
        if wanted("T2"):
            ratio("T2", f"a replay{by}; B4", plain, b4, REPLAY)
        if wanted("T3"):
            ratio("T3", f"a refusal that asks Redis{by}; B4", plain, b4, REFUSAL)
        if wanted("T3b"):
            ratio("T3b", f"a refusal from memory{by}; B0", plain, b0, REMEMBERED)
    if wanted("T1"):
        out.note_ratio("B2 (system allocator) to B2t", blocks.of(b2, NEW), blocks.of(b2t, NEW))
    if wanted("T6"):
        ratio("T6 all", "all calls traced; untraced", traced, untraced, NEW)
        ratio("T6 1 %", "1 % of calls traced; untraced", full, untraced, NEW)
        for server in (untraced, traced):
            house.end(server)
    most = capacity(blocks.of(full, NEW))
    if wanted("T4") and most:
        long.added_latency(house, blocks, full, b2t, most, out)
    if wanted("T5") and most:
        long.overload(house, blocks, most, out)
    if wanted("curves"):
        say("latency by load")
        servers = [(full, NEW), (b2t, NEW), (gateway, REPLAY), (b4, REPLAY)]
        out.latency = [long.curve(blocks, *pair) for pair in servers]
    if wanted("scripts"):
        out.scripts = scripts.costs(house, blocks, gateway)
        out.record_bytes = scripts.record_bytes(house, blocks, gateway)
    for name, row in (("T7", long.noise), ("T8", long.memory), ("T9", long.replicas),
                      ("T11", long.start)):
        if wanted(name):
            row(house, blocks, args, out)
    if wanted("steps"):
        say("micro benchmarks")
        out.steps = build.steps(house.machine.server)


def capacity(blocks):
    """Calls a second that one core does, by the time that each takes."""
    return 1e6 / median([block.cpu_us for block in blocks]) if blocks else None
