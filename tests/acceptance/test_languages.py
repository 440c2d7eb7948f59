"""The clients of docs/languages.md, generated, compiled and run as the page says."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.fixtures.serving import Server

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/languages.md").read_text("utf-8")
# A machine that compiles gRPC for the first time has a minute of work.
SECONDS_MAX = 600


class Project:
    """A directory of the shop's with our protos in it, and a `protoc` on its PATH."""

    def __init__(self, directory: Path, server: Server) -> None:
        programs = directory / "bin"
        programs.mkdir()
        protoc = programs / "protoc"
        protoc.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m grpc_tools.protoc "$@"\n')
        protoc.chmod(0o755)
        path = f"{programs}{os.pathsep}{os.environ['PATH']}"
        self._environment = {**os.environ, "PATH": path, "GOBIN": str(programs)}
        self._directory = directory
        self._address = server.address
        shutil.copytree(ROOT / "protos", directory / "protos")

    def does(self, command: str) -> bool:
        return self._run(command).returncode == 0

    def shows(self, command: str, output: str) -> None:
        done = self._run(command)
        assert (done.returncode, done.stdout) == (0, output), done.stderr

    def follow(self, heading: str, program: str) -> None:
        """Do what the page says under that heading: generate, write the program, run it."""
        section = PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
        generate, source, run, shown = re.findall(r"^```\w+\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
        assert self.does(generate), self._run(generate)
        (self._directory / program).write_text(source.replace("localhost:50051", self._address))
        self.shows(run, shown)

    def _run(self, command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-euc", command],
            cwd=self._directory,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=SECONDS_MAX,
            check=False,
        )


@pytest.fixture
def project(tmp_path: Path, server: Server) -> Project:
    return Project(tmp_path, server)


def need(project: Project, program: str, registry: str) -> None:
    """Skip where the program is missing, or what its packages come from does not answer."""
    if shutil.which(program) is None:
        pytest.skip(f"no {program}")
    if not project.does(registry):
        pytest.skip(f"{registry}: no answer")


@pytest.mark.timeout(3 * SECONDS_MAX)
def test_a_client_in_go_holds_units_and_reads_a_reason(project: Project) -> None:
    need(project, "go", "go mod init shop.example/checkout && go list -m google.golang.org/grpc@latest")
    project.follow("Go", "main.go")
    project.shows("gofmt -l main.go && go vet .", "")


@pytest.mark.timeout(3 * SECONDS_MAX)
def test_a_client_in_typescript_holds_units_and_reads_a_reason(project: Project) -> None:
    need(project, "npm", "npm init --yes && npm view @connectrpc/connect version")
    project.follow("TypeScript", "main.ts")
