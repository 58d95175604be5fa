#!/usr/bin/env python3
"""Measure the gateway beside its baselines, and print how it stands to its targets.

  make bench                                  everything, about twelve minutes after the builds
  make bench QUICK=1                          one short round: to see that it works
  make bench ONLY=T1,T2 ROUNDS=7 SECONDS=5    some rows, and longer
  make bench DOCS=1                           writes the table and the plots into docs/ as well
  make bench PLAIN=0                          without the gateway that is built without a profile

What is measured, and how: docs/performance.md. A run that cannot be relied on says why, and ends
with 1. That a target is missed does not.
"""

import argparse
import os
import sys

sys.dont_write_bytecode = True

from measure import build, report, rows
from measure.house import House
from measure.machine import Machine


def arguments():
    env = os.environ.get
    quick = env("QUICK", "") not in ("", "0")
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--seconds", type=float, default=float(env("SECONDS") or (1 if quick else 3)),
        help="length of a block [SECONDS]")
    add("--rounds", type=int, default=int(env("ROUNDS") or (1 if quick else 5)),
        help="blocks of each server and kind of call [ROUNDS]")
    add("--only", default=env("ONLY") or "", help=f"some of {', '.join(rows.NAMES)} [ONLY]")
    add("--requests", type=float,
        default=float(env("REQUESTS") or (50_000 if quick else 1_000_000)),
        help="of T8, whose target names ten million [REQUESTS]")
    add("--docs", action="store_true", default=env("DOCS", "") not in ("", "0"),
        help="write the table and the plots into docs/ [DOCS]")
    add("--plain", action=argparse.BooleanOptionalAction,
        default=(env("PLAIN") or ("0" if quick else "1")) != "0",
        help="measure the gateway without a profile, too [PLAIN]")
    add("--no-build", action="store_true", help="measure what is built")
    add("--json", default=None, help="the report's file; default: bench/report.json in the target folder")
    args = parser.parse_args()
    args.only = [name.strip().lower() for name in args.only.split(",") if name.strip()]
    unknown = set(args.only) - {name.lower() for name in rows.NAMES}
    if unknown:
        parser.error(f"there is no {', '.join(sorted(unknown))}; there are {', '.join(rows.NAMES)}")
    if args.docs and (args.only or quick):
        parser.error("DOCS takes a whole run, without ONLY and QUICK")
    return args


def main():
    args = arguments()
    if not args.no_build:
        build.gateway()
        build.plain(args.plain)
    programs, machine = build.folder(), Machine()
    out = report.Report(args, machine, programs)
    with House(machine, programs / "participant-gateway", build.plain_folder()) as house:
        rows.measure(house, args, out)
    out.print()
    out.write()
    return 1 if out.rejected() else 0


if __name__ == "__main__":
    sys.exit(main())
