"""docs/calling.md says what the program and the examples do."""

import json
import pathlib
import re
import unittest

from reasons import CASES

ROOT = pathlib.Path(__file__).resolve().parents[2]
# A typed client cannot bring these about.
NOT_CALLED = {"MALFORMED_REQUEST", "UNKNOWN_METHOD", "UNSUPPORTED_ENCODING", "GATEWAY_BUG"}
# gRPC's codes, and a word of HTTP's.
NO_REASONS = set(
    "OK CANCELLED UNKNOWN INVALID_ARGUMENT NOT_FOUND ALREADY_EXISTS PERMISSION_DENIED "
    "RESOURCE_EXHAUSTED FAILED_PRECONDITION ABORTED OUT_OF_RANGE UNIMPLEMENTED INTERNAL "
    "UNAVAILABLE DATA_LOSS POST".split()
)
VERDICTS = {"slow_down": "slow down", "retry_after": "retry after", "never": "never"}


class Documents(unittest.TestCase):
    def setUp(self) -> None:
        self.page = (ROOT / "docs/calling.md").read_text()
        section = self.page.split("### Every reason\n")[1].split("\n### ")[0]
        rows = [
            line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("| `")
        ]
        self.rows = {reason.strip("`"): rest for reason, *rest in rows}

    def test_the_page_has_every_reason_of_the_program(self) -> None:
        literals = re.compile(r'"([A-Z]{2,}(?:_[A-Z]+)*)"')
        found = set()
        for file in (ROOT / "src/grpc").rglob("*.rs"):
            program, _, _ = file.read_text().partition("#[cfg(test)]")
            found |= set(literals.findall(program))
        self.assertGreater(len(found - NO_REASONS), 30)
        self.assertEqual(found - NO_REASONS - set(self.rows), set())

    def test_the_examples_bring_about_every_reason_of_the_page(self) -> None:
        self.assertEqual({case.reason for case in CASES} | NOT_CALLED, set(self.rows))

    def test_the_page_says_of_each_reason_what_the_examples_see(self) -> None:
        for case in CASES:
            code, verdict, *_ = self.rows[case.reason]
            with self.subTest(case.reason):
                self.assertEqual(re.split(r"[; ]", code)[0], case.code)
                self.assertEqual(verdict.split(";")[0], VERDICTS[case.verdict])

    def test_the_dns_record_is_the_service_config(self) -> None:
        record = self.page.split("```dns\n")[1].split("```")[0]
        strings = re.findall(r'^  "(.*)"$', record, re.MULTILINE)
        self.assertTrue(all(len(text) <= 255 for text in strings))
        text = "".join(strings).replace('\\"', '"')
        (choice,) = json.loads(text.removeprefix("grpc_config="))
        shared = json.loads((ROOT / "examples/service-config.json").read_text())
        self.assertEqual(choice, {"serviceConfig": shared})
