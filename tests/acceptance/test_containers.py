"""The image and the composition for real, where a container engine answers and has the images they build on.

INVENTORY_ACCEPTANCE_BUILD_ARGS is passed to `docker build`, such as `--network host` or a base image of your own.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pytest
from tests.fixtures.waiting import eventually

from inventory_client import InventoryClient

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
IMAGE = "inventory-server"
PROJECT = "inventory-acceptance"
# Port 0 lets the engine choose, so that a server of somebody else does not matter; a URL would misread the password.
ENVIRONMENT = {**os.environ, "INVENTORY_PORT": "0", "POSTGRES_PASSWORD": "p@ss/w:rd#1%"}
BUILD_ARGUMENTS = shlex.split(os.environ.get("INVENTORY_ACCEPTANCE_BUILD_ARGS", ""))
BUILD_SECONDS_MAX = 600.0
PULL_SECONDS_MAX = 300.0


def run(*command: str, seconds: float = 60.0) -> str:
    """Give what the command prints; RuntimeError tells how it failed."""
    try:
        done = subprocess.run(
            command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, check=False, timeout=seconds
        )
    except (OSError, subprocess.TimeoutExpired) as failure:
        raise RuntimeError(f"{shlex.join(command)}: {failure}") from None
    if done.returncode:
        raise RuntimeError(f"{shlex.join(command)} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout.strip()


def works(*command: str, seconds: float = 60.0) -> bool:
    try:
        run(*command, seconds=seconds)
    except RuntimeError:
        return False
    return True


def images() -> list[str]:
    """List what others publish and we build on."""
    needed = re.findall(r"^ +image: (\S+:\S+)$", (ROOT / "compose.yaml").read_text(), re.MULTILINE)
    if "BASE_IMAGE=" not in " ".join(BUILD_ARGUMENTS):
        needed += re.findall(r"^ARG BASE_IMAGE=(\S+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    return needed


def compose_command() -> list[str]:
    """Find the command; skip where something is missing."""
    if shutil.which("docker") is None or not works("docker", "info", seconds=10):
        pytest.skip("no container engine answers")
    for image in images():
        if not works("docker", "image", "inspect", image) and not works(
            "docker", "pull", "--quiet", image, seconds=PULL_SECONDS_MAX
        ):
            pytest.skip(f"the engine cannot pull {image}")
    for command in (["docker", "compose"], ["docker-compose"]):
        if works(*command, "version"):
            return command
    pytest.skip("neither docker compose nor docker-compose is there")


class Composition:
    """The services of compose.yaml under a project name of the tests' own."""

    def __init__(self, command: list[str]) -> None:
        self._command = [*command, "--project-name", PROJECT]

    def __call__(self, *arguments: str) -> str:
        return run(*self._command, *arguments, seconds=300)

    def up(self) -> str:
        """Start everything and give the address of the server, once it answers."""
        self("up", "--detach", "--no-build")
        address = self("port", "server", "50051")
        with grpc.insecure_channel(address) as channel:
            try:
                grpc.channel_ready_future(channel).result(60)
            except grpc.FutureTimeoutError:
                pytest.fail(f"the server does not answer:\n{self('logs', '--tail', '20', 'server')}")
        return address

    def server(self, property_: str) -> str:
        return run("docker", "inspect", "--format", f"{{{{.{property_}}}}}", self("ps", "--all", "--quiet", "server"))


@pytest.fixture
def composition() -> Iterator[Composition]:
    made = Composition(compose_command())
    run("docker", "build", *BUILD_ARGUMENTS, "--tag", IMAGE, ".", seconds=BUILD_SECONDS_MAX)
    try:
        yield made
    finally:
        made("down", "--volumes")


@pytest.mark.timeout(1800)
def test_the_composition_serves_as_nobody_drains_and_keeps_its_stock(composition: Composition) -> None:
    with InventoryClient(composition.up()) as client:
        client.initialize_stock("teapot", 10)
        hold = client.reserve_stock("teapot", "order", 2)
    cached = ("exec", "-T", "redis", "redis-cli", "exists", f"reservation:{hold.reservation_id}")
    eventually(lambda: composition(*cached) == "1")
    eventually(lambda: composition.server("State.Health.Status") == "healthy", within=60)
    assert composition("exec", "-T", "server", "id", "-u") == "10001"

    composition("stop", "server")
    assert composition.server("State.ExitCode") == "0"

    composition("down")  # containers and all, but not the volume
    with InventoryClient(composition.up()) as client:
        assert client.get_stock("teapot").available_quantity == 8
