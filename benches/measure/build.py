"""The programs that are measured, and those that measure them."""

import json
import os
import pathlib
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[2]
PACKAGE = "participant-gateway-benches"
STEPS = ["bench", "-p", PACKAGE, "--bench", "steps"]


def gateway():
    """Builds the gateway with the profile."""
    cargo("build", "--release", "-p", "participant-gateway")


def plain(with_gateway):
    """Builds without a profile what measures and what is compared. The packages are built one after
    the other: built together, each would get the other's features of a library."""
    if with_gateway:
        cargo("build", "--release", "-p", "participant-gateway", env=without_profile())
    cargo("build", "--release", "-p", PACKAGE, env=without_profile())
    cargo(*STEPS, "--no-run", env=without_profile())


def cargo(*words, env=None):
    subprocess.run(["cargo", *words, "--locked"], cwd=ROOT, check=True, env=env)


def without_profile():
    """The environment of Cargo. The target folder is another one, as Cargo does not notice that a
    profile is missing."""
    target = str(plain_folder().parent)
    return os.environ | {"RUSTC_WRAPPER": "", "CARGO_TARGET_DIR": target}


def plain_folder():
    """Of the programs without a profile."""
    return folder().parent / "plain" / "release"


def folder():
    """Of the release programs."""
    command = ["cargo", "metadata", "--format-version=1", "--no-deps", "--offline", "--locked"]
    metadata = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout
    return pathlib.Path(json.loads(metadata)["target_directory"]) / "release"


def steps(cores):
    """Runs the micro benchmarks. Returns of each its name, and medians of its time, its allocations
    and their bytes."""
    text = subprocess.run(
        ["cargo", *STEPS, "--locked"], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True,
        env=without_profile(),
        # Lines of a log, thousands of them.
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: os.sched_setaffinity(0, cores),
    ).stdout
    return parsed(text)


def parsed(text):
    """divan's tree: a line for each benchmark, with its times, then lines of what it allocates. The
    third of a line's columns has the medians."""
    found, lines = [], text.splitlines()[1:]
    for at, line in enumerate(lines):
        columns = [column.strip() for column in line.split("│")]
        if line.startswith(("├─", "╰─")):
            found.append([line.split()[1], columns[2], "0", "0 B"])
        elif columns[0] == "alloc:" or (len(columns) > 1 and columns[1] == "alloc:"):
            found[-1][2:] = (lines[at + rows].split("│")[-3].strip() for rows in (1, 2))
    return found


def commit():
    def git(*words):
        return subprocess.run(
            ["git", *words], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False
        ).stdout.strip()

    return git("rev-parse", "--short", "HEAD") + ("" if not git("status", "--porcelain") else "+")
