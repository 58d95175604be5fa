#!/usr/bin/env python3
"""Puts the program's config schema into the chart's: `participant-gateway schema | schema.py [--check]`.

The rest of values.schema.json is written by hand. With --check nothing is written: it fails where the file is behind.
"""

import json
import pathlib
import sys

FILE = pathlib.Path(__file__).parents[2] / "helm/participant-gateway/values.schema.json"



def nullable(schema):
    """Lets the value be null too, which in a values file takes a default away; templates leave it out of the config."""
    if "type" in schema:
        types = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
        schema["type"] = types + [one for one in ["null"] if one not in types]
    if "enum" in schema and None not in schema["enum"]:
        schema["enum"].append(None)
    # Several of the choices may be null now, which `oneOf` would refuse.
    if "oneOf" in schema:
        schema["anyOf"] = schema.pop("oneOf")
    if "anyOf" in schema and {"type": "null"} not in schema["anyOf"]:
        schema["anyOf"].append({"type": "null"})
    for inner in schema.get("properties", {}).values():
        nullable(inner)


program = json.load(sys.stdin)
definitions = program.pop("$defs")
program.pop("$schema")

# What the operator has to say is asked for by templates/problems.yaml, all at once and with a sentence each; here it
# would keep `helm lint` from passing without values, and a values file from being split in two.
program.pop("required")
for section in ("tenants", "upstreams"):
    program["properties"][section].pop("minProperties", None)
for name, definition in definitions.items():
    if name.startswith(("Identity", "Jwt")) or "Iam" in name:
        definition.pop("required", None)

for schema in [*definitions.values(), *program["properties"].values()]:
    nullable(schema)

chart = json.loads(FILE.read_text())
chart["properties"]["config"] = program
chart["$defs"] = definitions
text = json.dumps(chart, indent=2, ensure_ascii=False) + "\n"

if "--check" not in sys.argv[1:]:
    FILE.write_text(text)
elif FILE.read_text() != text:
    sys.exit(f"{FILE.name} is behind the program: run `participant-gateway schema | tools/chart/schema.py`")
