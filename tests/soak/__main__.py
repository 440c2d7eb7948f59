"""Proof under fire: clients use the whole API while everything is broken, and an auditor checks each answer.

python -m tests.soak --seconds 600 --seed 1
"""

from __future__ import annotations

import argparse
import secrets
import sys
import tempfile
from pathlib import Path

from tests.soak.soak import soak


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long (default: 60)")
    parser.add_argument("--seed", default=secrets.token_hex(4), help="chooses requests and faults (default: random)")
    parser.add_argument("--keep", type=Path, help="directory for histories and logs (default: a temporary one)")
    options = parser.parse_args()
    say(f"seed {options.seed}, {options.seconds:g} s")
    if options.keep is not None:
        options.keep.mkdir(parents=True)
        report = soak(options.keep, options.seconds, options.seed)
    else:
        with tempfile.TemporaryDirectory(prefix="inventory-soak-") as directory:
            report = soak(Path(directory), options.seconds, options.seed)
    say(str(report))
    return 1 if report.violations or report.undecided else 0


if __name__ == "__main__":
    sys.exit(main())
