"""The real process on its embedded stores, driven by the tools that people have: grpcurl, a health probe and ghz."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.acceptance.conftest import find
from tests.fixtures.shop import fresh
from tests.fixtures.waiting import eventually

from inventory_client.proto.inventory.v1 import inventory_pb2 as pb
from inventory_server.embedded.process import OURSELVES, free_port, guarded

if TYPE_CHECKING:
    from collections.abc import Iterator

SERVICE = "inventory.v1.InventoryService"
COMMAND = Path(sys.executable).with_name("inventory-server")
START_SECONDS_MAX = 60.0
STOP_SECONDS_MAX = 30.0
CALL_SECONDS_MAX = 30.0
# grpcurl ends with 64 and the gRPC code.
REFUSED = 64


class Shop:
    """`inventory-server serve` with nothing but an address and a directory, as `make run` starts it."""

    def __init__(self, grpcurl: str, directory: Path) -> None:
        self.address = f"127.0.0.1:{free_port()}"
        self._grpcurl = grpcurl
        self.directory = directory
        self._log = directory / "log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        ours = {name: text for name, text in os.environ.items() if not name.startswith("INVENTORY_")}
        settings = {"INVENTORY_LISTEN": self.address, "INVENTORY_DATA_DIR": str(self.directory / ".inventory")}
        # The guard ends the server when the tests are killed.
        command = guarded(
            [str(COMMAND), "serve"], user=OURSELVES, directory=self.directory, death_signal=signal.SIGTERM
        )
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(command, env=ours | settings, stdout=log, stderr=log)
        eventually(self._is_up, within=START_SECONDS_MAX, otherwise=self._log.read_text)

    def end(self, how: signal.Signals) -> int:
        assert self._process is not None
        self._process.send_signal(how)
        return self._process.wait(STOP_SECONDS_MAX)

    def stop(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self.end(signal.SIGTERM)

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run grpcurl; flags stand before the address, what is asked after it."""
        flags = [word for word in arguments if word.startswith("-")]
        words = [word for word in arguments if not word.startswith("-")]
        command = [self._grpcurl, "-plaintext", *flags, self.address, *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=CALL_SECONDS_MAX, check=False)

    def call(self, rpc: str, **fields: object) -> Any:
        """Make a call that must succeed; fields bear their JSON names."""
        done = self.run(f"-d={json.dumps(fields)}", f"{SERVICE}/{rpc}")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def refused(self, rpc: str, **fields: object) -> Any:
        """Make a call that must be refused; gives its status as JSON."""
        done = self.run("-format-error", f"-d={json.dumps(fields)}", f"{SERVICE}/{rpc}")
        status = json.loads(done.stderr)
        assert (done.returncode, done.stdout) == (REFUSED + status["code"], "")
        return status

    def _is_up(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self._log.read_text()
        return '"SERVING"' in self.run("grpc.health.v1.Health/Check").stdout


@pytest.fixture(scope="module")
def shop(grpcurl: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    directory = tmp_path_factory.mktemp("shop")
    shop = Shop(grpcurl, directory)
    try:
        shop.start()
        yield shop
    finally:
        shop.stop()
        shutil.rmtree(directory)


def stocked(shop: Shop, quantity: int) -> str:
    product_id = fresh()
    assert shop.call("InitializeStock", productId=product_id, quantity=quantity)["created"]
    return product_id


def test_list_names_every_service_and_operation(shop: Shop) -> None:
    assert set(shop.run("list").stdout.split()) == {
        SERVICE,
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
    }
    operations = [method.full_name for method in pb.DESCRIPTOR.services_by_name["InventoryService"].methods]
    assert sorted(shop.run("list", SERVICE).stdout.split()) == sorted(operations)


def test_describe_shows_the_service_an_operation_and_a_message(shop: Shop) -> None:
    assert "rpc ReserveStock ( .inventory.v1.ReserveStockRequest )" in shop.run("describe", SERVICE).stdout
    assert "is a method" in shop.run("describe", f"{SERVICE}.ReserveStock").stdout
    template = shop.run("-msg-template", "describe", "inventory.v1.ReserveStockRequest").stdout
    for name in ("productId", "orderId", "requestId", "ttl", "wait"):
        assert f'"{name}":' in template


@pytest.mark.parametrize("name", ["", SERVICE, "postgresql", "redis"])
def test_health_is_serving_under_each_of_its_names(shop: Shop, name: str) -> None:
    done = shop.run(f"-d={json.dumps({'service': name})}", "grpc.health.v1.Health/Check")
    assert json.loads(done.stdout) == {"status": "SERVING"}


def test_units_go_from_the_shelf_into_a_hold_and_are_sold(shop: Shop) -> None:
    product_id, order_id = stocked(shop, 5), fresh("order")
    assert "created" not in shop.call("InitializeStock", productId=product_id, quantity=9)
    added = shop.call("AddStock", productId=product_id, quantity=5, reason="delivery")["stock"]
    assert added.keys() == {"productId", "availableQuantity", "version", "createdAt", "updatedAt"}
    held = shop.call("ReserveStock", productId=product_id, orderId=order_id, quantity=3, ttl="90s")["reservation"]
    read = shop.call("GetReservation", reservationId=held["reservationId"])["reservation"]
    assert read == held
    assert held.keys() == {
        "reservationId", "productId", "orderId", "quantity", "status", "expiresAt", "createdAt", "updatedAt"
    }  # fmt: skip
    assert (held["status"], held["quantity"]) == ("RESERVATION_STATUS_RESERVED", "3")
    stock = shop.call("GetStock", productId=product_id)["stock"]
    assert (stock["availableQuantity"], stock["reservedQuantity"]) == ("7", "3")
    sold = shop.call("DeductReservation", reservationId=held["reservationId"])["reservation"]
    assert sold["status"] == "RESERVATION_STATUS_DEDUCTED"
    left = shop.call("GetStock", productId=product_id)["stock"]
    assert (left["availableQuantity"], "reservedQuantity" in left, left["version"]) == ("7", False, "4")


def test_a_released_hold_says_why(shop: Shop) -> None:
    product_id = stocked(shop, 1)
    held = shop.call("ReserveStock", productId=product_id, orderId="order", quantity=1)["reservation"]
    released = shop.call("ReleaseReservation", reservationId=held["reservationId"])["reservation"]
    assert (released["status"], released["releaseReason"]) == (
        "RESERVATION_STATUS_RELEASED",
        "RELEASE_REASON_REQUESTED",
    )


def test_a_copy_of_a_request_gets_the_first_answer(shop: Shop) -> None:
    request = {"productId": stocked(shop, 5), "orderId": "order", "quantity": 2}
    request["requestId"] = "0193e5a0-0000-7000-8000-00000000acce"
    assert shop.call("ReserveStock", **request) == shop.call("ReserveStock", **request)
    assert shop.call("GetStock", productId=request["productId"])["stock"]["reservedQuantity"] == "2"


def test_an_order_is_held_and_sold_whole(shop: Shop) -> None:
    teapot, cup, order_id = stocked(shop, 1), stocked(shop, 6), fresh("order")
    lines = [{"productId": teapot, "quantity": 1}, {"productId": cup, "quantity": 6}]
    held = shop.call("ReserveOrder", orderId=order_id, lines=lines)["reservations"]
    assert [(hold["productId"], hold["quantity"]) for hold in held] == [(teapot, "1"), (cup, "6")]
    sold = shop.call("DeductOrder", orderId=order_id)["reservations"]
    assert {hold["status"] for hold in sold} == {"RESERVATION_STATUS_DEDUCTED"}


def test_a_refusal_says_what_is_there(shop: Shop) -> None:
    product_id = stocked(shop, 2)
    status = shop.refused("ReserveStock", productId=product_id, orderId="order", quantity=3)
    assert (status["code"], status["message"]) == (9, f"Product {product_id} has 2 units available, 3 were requested.")
    assert status["details"] == [
        {
            "@type": "type.googleapis.com/google.rpc.ErrorInfo",
            "reason": "INSUFFICIENT_STOCK",
            "domain": "inventory.v1",
            "metadata": {"http_status": "409", "product_id": product_id, "requested": "3", "available": "2"},
        }
    ]


def test_an_invalid_request_is_told_every_bad_field(shop: Shop) -> None:
    info, bad = shop.refused("ReserveStock", productId=" ", quantity=-1)["details"]
    assert (info["reason"], info["metadata"]["http_status"]) == ("VALIDATION_ERROR", "400")
    assert [(field["field"], field["reason"]) for field in bad["fieldViolations"]] == [
        ("product_id", "INVALID_PRODUCT_ID"),
        ("order_id", "INVALID_ORDER_ID"),
        ("quantity", "INVALID_QUANTITY"),
    ]


def test_a_quantity_that_is_missing_is_not_zero(shop: Shop) -> None:
    (info, _) = shop.refused("InitializeStock", productId=fresh())["details"]
    assert info["reason"] == "INVALID_QUANTITY"
    assert shop.call("InitializeStock", productId=fresh(), quantity=0)["created"]


def test_after_a_kill_the_next_start_has_the_same_stock(shop: Shop) -> None:
    product_id = stocked(shop, 10)
    held = shop.call("ReserveStock", productId=product_id, orderId="order", quantity=4, ttl="3600s")
    before = shop.call("GetStock", productId=product_id)
    assert shop.end(signal.SIGKILL) == -signal.SIGKILL
    shop.start()
    assert shop.call("GetStock", productId=product_id) == before
    assert shop.call("GetReservation", reservationId=held["reservation"]["reservationId"]) == held
    assert shop.end(signal.SIGTERM) == 0
    shop.start()
    assert shop.call("GetStock", productId=product_id) == before


def test_the_audit_finds_the_embedded_postgresql(shop: Shop) -> None:
    stocked(shop, 10)
    environment = {name: value for name, value in os.environ.items() if name != "INVENTORY_DATABASE_URL"}
    done = subprocess.run(
        [COMMAND, "audit"],
        cwd=shop.directory,
        env={**environment, "INVENTORY_DATA_DIR": ".inventory"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert "everything agrees" in done.stderr


def optional(program: str) -> str:
    return find(program) or pytest.skip(f"no {program}")


@pytest.mark.parametrize("name", ["", SERVICE])
def test_the_probe_of_orchestrators_finds_it_healthy(shop: Shop, name: str) -> None:
    probe = find("grpc_health_probe") or optional("grpc-health-probe")
    command = [probe, f"-addr={shop.address}", f"-service={name}"]
    assert subprocess.run(command, capture_output=True, timeout=CALL_SECONDS_MAX, check=False).returncode == 0


def test_a_load_generator_needs_no_proto_file(shop: Shop) -> None:
    ghz, product_id = optional("ghz"), stocked(shop, 100)
    body = json.dumps({"productId": product_id, "orderId": "order", "quantity": 1})
    command = [
        ghz,
        "--insecure",
        f"--call={SERVICE}.ReserveStock",
        f"--data={body}",
        "-n",
        "40",
        "-c",
        "4",
        "-O",
        "json",
    ]
    done = subprocess.run([*command, shop.address], capture_output=True, timeout=CALL_SECONDS_MAX, check=True)
    assert json.loads(done.stdout)["statusCodeDistribution"] == {"OK": 40}
    assert shop.call("GetStock", productId=product_id)["stock"]["reservedQuantity"] == "40"
