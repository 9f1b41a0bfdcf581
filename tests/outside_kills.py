"""Disturb a job from outside: KILL, TERM, INT or STOP at a random moment, by another process.

    uv run python tests/outside_kills.py --kills 100

Unlike the kill matrix nothing inside the process knows of it, and a stopped process wakes up again
while another one is at work on its job. Each job is then run to its end and audited: no row lost,
none executed twice, no second batch for a shard, no file that nobody uses.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from crash import server_process, start
from kill_matrix import ON_ITS_WAY_SECONDS, SERVICES, Matrix, show

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGSTOP)


class Outside(Matrix):
    """Runs cases and sends them signals."""

    def disturb(self, number: signal.Signals, after: float, asleep: float) -> bool:
        """Send a signal to a run after some seconds; whether it was still there to be met."""
        case = self._new_case(ON_ITS_WAY_SECONDS)
        child = start(case.run)
        time.sleep(after)
        met = os.waitpid(child, os.WNOHANG)[0] == 0
        if met:
            os.kill(child, number)
            others = [start(case.run)] if number == signal.SIGSTOP else []
            if others:
                time.sleep(asleep)
                os.kill(child, signal.SIGCONT)
            for process in (child, *others):
                os.waitpid(process, 0)
            self.tally.kills += 1
        self._again(case)
        return met


def main() -> int:
    """Print what was sent and what came of it; 0 where nothing was lost or paid twice."""
    parser = argparse.ArgumentParser(description="Disturb jobs from outside and count the losses.")
    parser.add_argument("--kills", type=int, default=100, help="how many runs are met by a signal")
    parser.add_argument("--seed", type=int, default=0, help="of the moments and the signals")
    parser.add_argument("--service", default="openai", choices=SERVICES, help="whose API")
    options = parser.parse_args()
    chance, sent = random.Random(options.seed), Counter[str]()
    service = SERVICES[options.service]
    with (
        server_process(service.server, **service.options) as base_url,
        tempfile.TemporaryDirectory() as root,
    ):
        outside = Outside("none", service, base_url, Path(root), bucket=False)
        outside.warm_up()
        started = time.monotonic()
        outside.warm_up()
        usual = time.monotonic() - started
        while sum(sent.values()) < options.kills:
            number = chance.choice(SIGNALS)
            if outside.disturb(number, chance.uniform(0, usual), chance.uniform(0.05, 0.5)):
                sent[number.name] += 1
        tally = outside.close_books()
    print(show([tally]))
    print(", ".join(f"{name} {count}" for name, count in sorted(sent.items())))
    return 0 if tally.clean else 1


if __name__ == "__main__":
    sys.exit(main())
