"""The machine: its cores, who uses them, and processes that are pinned to them."""

import os
import pathlib
import platform
import re
import subprocess
import time

TICK = os.sysconf("SC_CLK_TCK")


class Machine:
    """The first core is the server's. All others are for the programs that it talks to."""

    def __init__(self):
        cores = sorted(os.sched_getaffinity(0))
        if len(cores) < 2:
            raise SystemExit("two cores at least: one for the server, one for all else")
        self.server, self.others = {cores[0]}, set(cores[1:])

    def describe(self):
        text = pathlib.Path("/proc/cpuinfo").read_text()
        model = re.search(r"model name\s*:\s*(.*)", text)
        name = model[1] if model else platform.machine()
        return f"{len(self.server | self.others)} cores of {name}, Linux {platform.release()}"


class Process:
    """A child that is pinned to cores and ends with the house."""

    def __init__(self, command, cores, log, env=None):
        self.command, self.cores, self.log, self.env = command, cores, log, env
        self.begin()

    def begin(self):
        self.output = open(self.log, "ab")
        self.child = subprocess.Popen(
            [str(word) for word in self.command],
            stdout=self.output, stderr=self.output, stdin=subprocess.DEVNULL, env=self.env,
            preexec_fn=lambda: os.sched_setaffinity(0, self.cores),
        )
        self.pid = self.child.pid

    def cpu(self):
        """Seconds of processor time so far."""
        return cpu(self.pid)

    def resident(self):
        """MiB of memory."""
        text = pathlib.Path(f"/proc/{self.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", text)[1]) / 1024

    def forget_log(self):
        os.truncate(self.log, 0)

    def has_ended(self):
        return self.child.poll() is not None

    def end(self):
        self.child.terminate()
        try:
            self.child.wait(10)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()
        self.output.close()


def cpu(pid):
    """User and system seconds of a process so far; nothing where it has ended."""
    try:
        text = pathlib.Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return 0.0
    fields = text.rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def busy(cores):
    """Busy seconds of the cores so far, by all processes. Stolen time counts."""
    total = 0
    for line in pathlib.Path("/proc/stat").read_text().splitlines():
        name, *fields = line.split()
        if name.startswith("cpu") and name[3:].isdigit() and int(name[3:]) in cores:
            ticks = [int(field) for field in fields[:8]]
            total += sum(ticks) - ticks[3] - ticks[4]
    return total / TICK


def wait_until(what, happened, seconds=20):
    end = time.monotonic() + seconds
    while not happened():
        if time.monotonic() > end:
            raise SystemExit(f"not within {seconds} s: {what}")
        time.sleep(0.005)
