"""The image and the composition for real, where a container engine answers and has the images they build on.

INVENTORY_ACCEPTANCE_BUILD_ARGS is passed to `docker build`, such as `--network host` or a base image of your own.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from pathlib import Path

import grpc
import pytest
from tests.fixtures.waiting import eventually

from inventory_client import InventoryClient

ROOT = Path(__file__).parents[2]
IMAGE = "inventory-server"
PROJECT = "inventory-acceptance"
ADDRESS = "127.0.0.1:50051"
BUILD_SECONDS_MAX = 600.0
NEEDED = ("postgres:18", "redis:8")


def docker(*arguments: str, seconds: float = 60.0) -> str:
    done = subprocess.run(
        ["docker", *arguments], cwd=ROOT, capture_output=True, text=True, check=False, timeout=seconds
    )
    if done.returncode:
        raise RuntimeError(f"docker {' '.join(arguments)} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return done.stdout


def fails(*arguments: str) -> bool:
    return subprocess.run(["docker", *arguments], capture_output=True, check=False).returncode != 0


def compose() -> list[str]:
    """Find the command; skip where something is missing."""
    if (
        shutil.which("docker") is None
        or subprocess.run(["docker", "info"], capture_output=True, check=False).returncode
    ):
        pytest.skip("no container engine answers")
    for image in NEEDED:
        if subprocess.run(["docker", "image", "inspect", image], capture_output=True, check=False).returncode:
            try:
                docker("pull", "--quiet", image, seconds=300)
            except RuntimeError:
                pytest.skip(f"the engine cannot pull {image}")
    if not fails("compose", "version"):
        return ["docker", "compose"]
    if shutil.which("docker-compose"):
        return ["docker-compose"]
    pytest.skip("neither docker compose nor docker-compose is there")


@pytest.mark.timeout(1200)
def test_the_composition_serves_as_nobody_and_drains() -> None:
    command = [*compose(), "--project-name", PROJECT]
    arguments = shlex.split(os.environ.get("INVENTORY_ACCEPTANCE_BUILD_ARGS", ""))
    docker("build", *arguments, "--tag", IMAGE, ".", seconds=BUILD_SECONDS_MAX)
    try:
        subprocess.run([*command, "up", "--detach", "--no-build"], cwd=ROOT, check=True, timeout=300)
        with InventoryClient(ADDRESS) as client:
            grpc.channel_ready_future(grpc.insecure_channel(ADDRESS)).result(60)
            client.initialize_stock("teapot", 10)
            assert client.reserve_stock("teapot", "order", 2).quantity == 2
        listed = subprocess.run([*command, "ps", "-q", "server"], cwd=ROOT, check=True, capture_output=True, text=True)
        server = listed.stdout.strip()
        health = ("inspect", "--format", "{{.State.Health.Status}}", server)
        eventually(lambda: docker(*health).strip() == "healthy", within=60)
        assert docker("exec", server, "id", "-u").strip() == "10001"
        docker("stop", server)
        assert docker("inspect", "--format", "{{.State.ExitCode}}", server).strip() == "0"
    finally:
        subprocess.run([*command, "down", "--volumes"], cwd=ROOT, check=False, capture_output=True, timeout=120)
