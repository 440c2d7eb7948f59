"""The tests that the how-to for consumers shows, run as its readers would."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

DOCUMENT = Path(__file__).parents[2] / "docs" / "consumer.md"
_FILE = re.compile(r"^```python\n# (\w+\.py)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SECONDS_MAX = 100


def test_the_fixture_of_the_document_serves_the_test_of_the_document(tmp_path: Path) -> None:
    files = dict(_FILE.findall(DOCUMENT.read_text("utf-8")))
    assert set(files) == {"conftest.py", "test_checkout.py"}
    for name, source in files.items():
        (tmp_path / name).write_text(source, "utf-8")
    scripts = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", tmp_path],
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "PATH": scripts},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout
