"""The tools that people use, found where people have them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

# Where `go install` puts programs, whether or not that is on the PATH.
GO_PROGRAMS = Path(os.environ.get("GOBIN") or Path(os.environ.get("GOPATH") or Path.home() / "go") / "bin")


def find(program: str) -> str | None:
    return shutil.which(program) or shutil.which(program, path=str(GO_PROGRAMS))


@pytest.fixture(scope="session")
def grpcurl() -> str:
    """The path of grpcurl; without it the test is skipped, but never in CI."""
    found = find("grpcurl")
    if found is None and os.environ.get("CI"):
        pytest.fail("CI must have grpcurl")
    if found is None:
        pytest.skip("no grpcurl: go install github.com/fullstorydev/grpcurl/cmd/grpcurl@latest")
    return found
