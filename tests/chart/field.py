#!/usr/bin/env python3
"""Holds a values file of tests/chart/field and docs/deploying.md together: `field.py FILE`.

The document links the file, and the block of YAML after the link is part of the file: each value that the block shows is
the file's own.
"""

import pathlib
import re
import sys

import yaml

ROOT = pathlib.Path(__file__).parents[2]


def part_of(block, whole, path=""):
    """The paths at which the block says something else than the whole."""
    if isinstance(block, dict) and isinstance(whole, dict):
        for key, value in block.items():
            if key not in whole:
                yield f"{path}.{key} is not in the file"
            else:
                yield from part_of(value, whole[key], f"{path}.{key}")
    elif block != whole:
        yield f"{path} is {whole} in the file"


file = pathlib.Path(sys.argv[1])
text = (ROOT / "docs/deploying.md").read_text()
link = f"(../tests/chart/field/{file.name})"
if link not in text:
    sys.exit(f"docs/deploying.md does not link {file.name}")
section = text.split(link)[1].split("\n### ")[0]
block = re.search(r"```yaml\n(.*?)```", section, re.S)
if not block:
    sys.exit(f"docs/deploying.md shows nothing of {file.name}")
found = list(part_of(yaml.safe_load(block[1]), yaml.safe_load(file.read_text())))
sys.exit("\n".join(found) or 0)
