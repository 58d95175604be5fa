#!/usr/bin/env python3
"""Make calls of every kind at the programs in FOLDER, for the profile.

  benches/train.py FOLDER      called by tools/profile/renew.sh
"""

import json
import pathlib
import sys

sys.dont_write_bytecode = True

from measure.blocks import NEW, REFUSAL, REMEMBERED, REPLAY, Blocks, say
from measure.house import House
from measure.machine import Machine

SECONDS = 4


def main():
    programs = pathlib.Path(sys.argv[1])
    with House(Machine(), programs / "participant-gateway", programs) as house:
        blocks = Blocks(house, SECONDS)
        gateways = [
            (house.gateway(), [REMEMBERED, REFUSAL, REPLAY]),
            (house.gateway("gateway-full", jwt=True, sampled=0.01), [NEW]),
            (house.gateway("all-traced", jwt=True, sampled=1.0), [NEW]),
        ]
        for gateway, kinds in gateways:
            for kind in kinds:
                generator = blocks.generate(gateway, kind, None, SECONDS)
                report = json.loads(generator.communicate()[0].splitlines()[-1])
                say(f"{gateway.name}: {report['requests']} calls, {kind.name}")


if __name__ == "__main__":
    main()
