"""The fuzzer that is guided by coverage, for as long as a test run has time; `make fuzz` lets it go on."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

RUNS = int(os.environ.get("INVENTORY_FUZZ_EXAMPLES", "100")) * 20
ROOT = Path(__file__).parents[2]
SECONDS_MAX = 60 + RUNS * 0.1


@pytest.mark.skipif(find_spec("atheris") is None, reason="`make fuzzer` installs atheris")
@pytest.mark.timeout(SECONDS_MAX + 10)
def test_what_reaches_new_code_gets_an_answer_of_the_contract(
    database_url: str, redis_url: str, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "tests.hostile.guided", database_url, redis_url, str(tmp_path), str(RUNS)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=SECONDS_MAX, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    assert f"Done {RUNS} runs" in done.stderr
    # It is guided: there was something new to find beyond what it began with.
    assert re.search(r"^#\d+\s+NEW +cov: \d+", done.stderr, re.MULTILINE), done.stderr[-4000:]
