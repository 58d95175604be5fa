#!/usr/bin/env python3
"""Make calls of every kind at a gateway, for the profile.

  benches/train.py FOLDER [PROGRAM]      called by tools/profile/renew.sh

FOLDER has the simulator and what makes calls. The gateway is PROGRAM, or the one in FOLDER.
"""

import json
import pathlib
import sys

sys.dont_write_bytecode = True

from measure.blocks import NEW, REFUSAL, REMEMBERED, REPLAY, Blocks, say
from measure.house import House
from measure.machine import Machine

SECONDS = 4
# A second has few new calls.
SECONDS_OF_NEW = 12


def main():
    programs, *other = map(pathlib.Path, sys.argv[1:])
    program = other[0] if other else programs / "participant-gateway"
    with House(Machine(), programs / "participant-gateway", programs) as house:
        blocks = Blocks(house, SECONDS)
        gateways = [
            (house.gateway(program=program), [REMEMBERED, REFUSAL, REPLAY]),
            (house.gateway("gateway-full", jwt=True, sampled=0.01, program=program), [NEW]),
            (house.gateway("all-traced", jwt=True, sampled=1.0, program=program), [NEW]),
        ]
        for gateway, kinds in gateways:
            for kind in kinds:
                seconds = SECONDS_OF_NEW if kind is NEW else SECONDS
                generator = blocks.generate(gateway, kind, None, seconds)
                report = json.loads(generator.communicate()[0].splitlines()[-1])
                say(f"{gateway.name}: {report['requests']} calls, {kind.name}")


if __name__ == "__main__":
    main()
