"""How each example is run."""

import json
import os
import pathlib
import subprocess

EXAMPLES = pathlib.Path(__file__).resolve().parents[2] / "examples"


def _rust() -> str:
    target = os.environ.get("CARGO_TARGET_DIR", "target")
    return str(EXAMPLES / "rust" / target / "debug" / "callers")


COMMANDS = {
    "go": ["gen/participant"],
    "python": ["python", "-m", "callers"],
    "typescript": ["node", "dist/main.js"],
    "java": ["java", "-jar", "target/callers.jar"],
    "rust": [_rust()],
}


# A call's deadline where a test is not about deadlines: a busy machine starts a JVM in seconds.
ENOUGH_MS = 20_000


class Example:
    """One language's program."""

    def __init__(self, language: str, flags: tuple[str, ...] = ()) -> None:
        self.language = language
        self.flags = flags
        self.name = "-".join([language, *(flag.strip("-") for flag in flags)])

    def start(self, command: str, **flags: object) -> subprocess.Popen:
        """Start it; `timeout_ms=50` becomes `--timeout-ms 50`, `gzip=True` becomes `--gzip`."""
        line = [*COMMANDS[self.language], command]
        for name, value in {"timeout_ms": ENOUGH_MS, **flags}.items():
            line.append("--" + name.replace("_", "-"))
            if value is not True:
                line.append(str(value))
        if command == "create":
            line += self.flags
        return subprocess.Popen(
            line,
            cwd=EXAMPLES / self.language,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, command: str, **flags: object) -> list[dict]:
        """Return its lines, in the calls' order."""
        return lines(self.start(command, **flags))

    def one(self, command: str = "create", **flags: object) -> dict:
        """Return the line of a single call."""
        (line,) = self.run(command, **flags)
        return line


def lines(running: subprocess.Popen) -> list[dict]:
    """Wait for the program's end, and return what it printed."""
    output, errors = running.communicate(timeout=120)
    if running.returncode != 0:
        raise AssertionError(f"exit code {running.returncode}: {output}{errors}")
    found = [json.loads(line) for line in output.splitlines()]
    return sorted(found, key=lambda line: line.get("call", 0))


def run_python(code: str) -> str:
    """Run code beside Python's example, and return what it printed."""
    return subprocess.check_output(
        ["python", "-c", code], cwd=EXAMPLES / "python", text=True, timeout=120
    )


def names() -> list[str]:
    """Return the languages that LANGUAGES names."""
    return os.environ["LANGUAGES"].split()


def chosen() -> list[Example]:
    """Return the examples of these languages; Python has two, since it has two libraries."""
    examples = []
    for language in names():
        examples.append(Example(language))
        if language == "python":
            examples.append(Example(language, ("--aio",)))
    return examples
