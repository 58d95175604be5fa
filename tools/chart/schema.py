#!/usr/bin/env python3
"""Puts the program's config schema into the chart's: `participant-gateway schema | schema.py [--check]`.

The rest of values.schema.json is written by hand. With --check nothing is written: it fails where the file is behind.
"""

import json
import pathlib
import sys

FILE = pathlib.Path(__file__).parents[2] / "helm/participant-gateway/values.schema.json"

program = json.load(sys.stdin)
definitions = program.pop("$defs")
program.pop("$schema")

# What the operator has to say is asked for by templates/problems.yaml, all at once and with a sentence each; here it
# would keep `helm lint` from passing without values, and a values file from being split in two.
program.pop("required")
for section in ("tenants", "upstreams"):
    program["properties"][section].pop("minProperties", None)
definitions["Identity"].pop("required")

chart = json.loads(FILE.read_text())
chart["properties"]["config"] = program
chart["$defs"] = definitions
text = json.dumps(chart, indent=2, ensure_ascii=False) + "\n"

if "--check" not in sys.argv[1:]:
    FILE.write_text(text)
elif FILE.read_text() != text:
    sys.exit(f"{FILE.name} is behind the program: run `participant-gateway schema | tools/chart/schema.py`")
