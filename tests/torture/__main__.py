"""``python -m tests.torture``: torture one backend, or all of them, and print what was done and what was counted."""

# ruff: noqa: S311 - nothing here is secret
from __future__ import annotations

import argparse
import random
import signal
import sys
import tempfile
from pathlib import Path

from tests.torture.backends import BACKENDS
from tests.torture.run import Order, Torture


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description=__doc__)
    parser.add_argument("--seconds", type=float, default=210, help="for each backend; default %(default)s")
    parser.add_argument("--kills", type=int, default=210, help="for each backend; default %(default)s")
    parser.add_argument("--seed", type=int, default=random.randrange(10_000), help="default: a random one, printed")
    parser.add_argument("--backend", choices=BACKENDS, action="append", help="repeatable; default: all")
    parser.add_argument("--keep", type=Path, help="an empty folder for the logs and books; default: a temporary one")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("told to end"))  # by way of all that cleans up
    faults = []
    for backend in options.backend or BACKENDS:
        order = Order(backend, options.seconds, options.kills, options.seed, celery=True)
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as temporary:
            directory = (options.keep or Path(temporary)) / backend
            directory.mkdir(parents=True)
            result = Torture(order, directory).run()
        sys.stdout.write(f"{result}\n\n")
        sys.stdout.flush()
        faults += result.faults
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main())
