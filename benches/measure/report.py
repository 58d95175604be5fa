"""The table, its JSON, and its place in the documents."""

import dataclasses
import datetime
import json
import pathlib
import statistics
import textwrap

from . import build, plots
from .blocks import NEW, REFUSAL, REMEMBERED, REPLAY, median

BEGIN, END = "<!-- make bench: begin -->", "<!-- make bench: end -->"
PAGE = build.ROOT / "docs/performance.md"
# Beside the page: figures of one run, which the page shows.
PLOTS = build.ROOT / "docs/performance"
SIZED = [("gateway-full", NEW), ("gateway", REPLAY), ("gateway", REFUSAL), ("gateway", REMEMBERED)]
# Of the page's prose.
COLUMNS = 100
# The most that B0 may differ from its twin in a round, and from its own median over a run.
DRIFT = 0.05


@dataclasses.dataclass
class Row:
    name: str
    what: str
    figure: str
    baseline: str
    spread: str
    target: str
    verdict: str
    problems: list


class Report:
    def __init__(self, args, machine, programs):
        self.args = args
        self.about = {
            "machine": machine.describe(), "commit": build.commit(),
            "date": datetime.date.today().isoformat(), "rounds": args.rounds,
            "seconds": args.seconds, "only": args.only,
        }
        self.file = pathlib.Path(args.json or programs.parent / "bench/report.json")
        self.rows, self.notes, self.unsound, self.blocks = [], [], [], []
        self.latency, self.goodput, self.scripts, self.steps = [], None, {}, None
        self.record_bytes = None
        # Why figures of different moments cannot be compared.
        self.pace = []

    def ratio(self, name, what, mine, theirs, must, moonshot):
        """CPU a call, to that of the baseline's in the same round: the machine's pace changes from
        one round to the next."""
        own, base = (median([block.cpu_us for block in blocks]) for blocks in (mine, theirs))
        each = [one.cpu_us / other.cpu_us for one, other in zip(mine, theirs)]
        ratio = median(each)
        found = [problem for block in [*mine, *theirs] for problem in block.problems]
        self.add(name, what, f"{own:.1f} µs, {ratio:.2f} ×", f"{base:.1f} µs",
                 f"{min(each):.2f}–{max(each):.2f} ×", f"≤ {must:.2f} × (moonshot {moonshot:.2f})",
                 ratio <= must, ratio <= moonshot, found)

    def figure(self, name, what, figure, baseline, target, met, moonshot, found, samples=()):
        spread = f"{min(samples):.1f}–{max(samples):.1f}" if samples else ""
        self.add(name, what, figure, baseline, spread, target, met, moonshot, found)

    def add(self, name, what, figure, baseline, spread, target, met, moonshot, found):
        verdict = "rejected" if found else "moonshot" if met and moonshot else (
            "met" if met else "**missed**")
        self.rows.append(Row(name, what, figure, baseline, spread, target, verdict,
                             sorted(set(found))))

    def note_ratio(self, what, mine, theirs):
        own, base = (median([block.cpu_us for block in blocks]) for blocks in (mine, theirs))
        self.notes.append(f"{what}: {own:.1f} to {base:.1f} µs, {own / base:.2f} ×.")

    def drift(self, blocks, twins):
        """Whether servers that took turns saw the same machine, as two of B0 tell. And whether the
        machine was the same from the first round to the last."""
        apart = max(abs(one.cpu_us / twin.cpu_us - 1) for one, twin in zip(blocks, twins))
        times = [block.cpu_us for block in blocks]
        middle = statistics.median(times)
        drift = max(abs(time / middle - 1) for time in times)
        self.about |= {"b0_us": middle, "b0_apart": apart, "b0_drift": drift}
        if apart > DRIFT:
            self.unsound.append(f"B0 and its twin were {apart:.0%} apart")
        if drift > DRIFT:
            self.pace = [f"B0 drifted by {drift:.0%} around {middle:.1f} µs"]
        self.unsound += [f"B0: {problem}" for block in [*blocks, *twins]
                         for problem in block.problems]

    def rejected(self):
        return bool(self.unsound or any(row.problems for row in self.rows))

    def judgement(self):
        return "this run is rejected" if self.unsound else "some rows of this run are rejected"

    def why(self):
        rows = [f"{row.name}: {problem}" for row in self.rows for problem in row.problems]
        return list(dict.fromkeys(self.unsound + rows))

    def table(self):
        lines = ["| | what | gateway | baseline | spread | target | |",
                 "|---|---|---|---|---|---|---|"]
        lines += [f"| {row.name} | {row.what} | {row.figure} | {row.baseline} | {row.spread} |"
                  f" {row.target} | {row.verdict} |" for row in self.rows]
        return lines

    def costs(self):
        """CPU of each kind of call at each server, and where the rest of it went."""
        lines = ["| server | call | calls/s | CPU µs a call | Redis µs | p50, p99 µs |",
                 "|---|---|---|---|---|---|"]
        seen = {}
        for block in self.blocks:
            if not block.offered:
                seen.setdefault((block.server, block.kind), []).append(block)
        for (server, kind), blocks in seen.items():
            times = [max(block.outcomes.values(), key=lambda one: one["count"]) for block in blocks
                     if block.outcomes]
            cpu = [block.cpu_us for block in blocks]
            lines.append(
                f"| {server} | {kind} | {median([block.rate for block in blocks]):,.0f} |"
                f" {median(cpu):.1f} ({min(cpu):.1f}–{max(cpu):.1f}) |"
                f" {median([block.others_us['redis'] for block in blocks]):.1f} |"
                f" {median([one['p50'] for one in times]):,.0f},"
                f" {median([one['p99'] for one in times]):,.0f} |")
        return lines

    def sizing(self):
        """The most calls that one core of the gateway serves, and one core of Redis."""
        lines = ["| call | calls/s of one core | calls/s of one core of Redis |",
                 "|---|---|---|"]
        for server, kind in SIZED:
            blocks = [block for block in self.blocks if not block.offered
                      and (block.server, block.kind) == (server, kind.name)]
            if blocks:
                own = median([block.cpu_us for block in blocks])
                redis = median([block.others_us["redis"] for block in blocks])
                others = f"{1e6 / redis:,.0f}" if kind.asks else "is not asked"
                lines.append(f"| {kind.name} | {1e6 / own:,.0f} | {others} |")
        if self.record_bytes:
            lines += ["", f"A record takes {self.record_bytes:,.0f} bytes of Redis's memory."]
        return lines

    def print(self):
        print("\n" + "\n".join(self.table()) + "\n")
        print("\n".join(self.costs()) + "\n")
        print("\n".join(self.sizing()) + "\n")
        for text in self.notes:
            print(text)
        if self.scripts:
            print("\n".join(self.script_table()))
        if self.steps:
            print("\n".join(self.step_table()))
        if self.rejected():
            print(f"{self.judgement().upper()}:\n  " + "\n  ".join(self.why()))

    def script_table(self):
        return ["| script | µs of Redis |", "|---|---|"] + [
            f"| {name} | {micros:.1f} |" for name, micros in self.scripts.items()]

    def step_table(self):
        return ["| step | time | allocations | bytes |", "|---|---|---|---|"] + [
            f"| {' | '.join(step)} |" for step in self.steps]

    def write(self):
        self.file.parent.mkdir(parents=True, exist_ok=True)
        content = {
            **self.about, "rejected": self.why(), "notes": self.notes,
            "rows": [dataclasses.asdict(row) for row in self.rows],
            "blocks": [dataclasses.asdict(block) for block in self.blocks],
            "latency": self.latency, "goodput": self.goodput, "scripts": self.scripts,
            "steps": self.steps, "record_bytes": self.record_bytes,
        }
        self.file.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
        print(f"written: {self.file}")
        self.draw(self.file.parent)
        if self.args.docs:
            PLOTS.mkdir(exist_ok=True)
            self.draw(PLOTS)
            self.into_page()

    def draw(self, folder):
        if self.latency:
            (folder / "latency.svg").write_text(plots.latency(self.latency))
        if self.goodput:
            (folder / "goodput.svg").write_text(plots.goodput(self.goodput))

    def into_page(self):
        """Writes what was measured between the marks of the page."""
        about = self.about
        on = (f"Measured on {about['date']} at `{about['commit']}`: {about['machine']}."
              f" {about['rounds']} rounds of {about['seconds']:g} s. B0 and its twin were"
              f" {about['b0_apart']:.1%} apart at most. B0 drifted by {about['b0_drift']:.1%}.")
        lines = [BEGIN, "", *textwrap.wrap(on, COLUMNS), ""]
        if self.rejected():
            lines += [f"**{self.judgement().capitalize()}:**", ""]
            for why in self.why():
                lines += textwrap.wrap(f"- {why}", COLUMNS, subsequent_indent="  ")
            lines += [""]
        for part in (self.table(), self.costs(), self.notes, self.sizing()):
            lines += [*part, ""] if part else []
        if self.scripts:
            lines += [*self.script_table(), ""]
        if self.steps:
            lines += [*self.step_table(), ""]
        for name, drawn in (("latency", self.latency), ("goodput", self.goodput)):
            if drawn:
                lines += [f"![{name.capitalize()} by load]({PLOTS.name}/{name}.svg)", ""]
        page = PAGE.read_text()
        before, _, rest = page.partition(BEGIN)
        _, _, after = rest.partition(END)
        PAGE.write_text(before + "\n".join(lines) + END + after)
        print(f"written: {PAGE}")
