"""Tokens that are revoked and issued while the server runs."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import grpc
import pytest
from tests.fixtures.refusals import check_wire, refused
from tests.fixtures.shop import stocked
from tests.fixtures.waiting import eventually

from inventory_client import InventoryClient, PermissionDenied, Unauthenticated
from inventory_client.proto.inventory.v1 import inventory_pb2 as pb
from inventory_client.proto.inventory.v1.inventory_pb2_grpc import InventoryServiceStub

if TYPE_CHECKING:
    from pathlib import Path

    from tests.fixtures.serving import Connect, Serve


def accepted(client: InventoryClient, product_id: str) -> bool:
    try:
        client.get_stock(product_id)
    except Unauthenticated:
        return False
    return True


def test_a_revoked_token_is_refused_and_a_new_one_accepted_without_a_restart(
    database_url: str, serve: Serve, connect: Connect, tmp_path: Path
) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text("leaked write\nhonest write\n")
    server = serve(database_url, tokens_file=tokens)
    leaked, honest, new = (connect(server, token=token) for token in ("leaked", "honest", "new"))
    product_id = stocked(leaked, 10)
    assert not accepted(new, product_id)
    tokens.write_text("honest read\nnew write\n")
    # Two looks; the rest is for a machine that is busy.
    eventually(lambda: not accepted(leaked, product_id), within=3)
    assert new.add_stock(product_id, 1).available_quantity == 11
    assert accepted(honest, product_id)
    refused(PermissionDenied, partial(honest.add_stock, product_id, 1), method="AddStock")


@pytest.mark.parametrize("connect", ["sync"], indirect=True)
def test_a_broken_file_keeps_the_tokens_in_force_and_is_warned_of_with_its_line(
    database_url: str, serve: Serve, connect: Connect, tmp_path: Path
) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text("old write\n")
    server = serve(database_url, tokens_file=tokens)
    old, new = connect(server, token="old"), connect(server, token="new")
    product_id = stocked(old, 10)
    tokens.write_text("new write\nold wriet\n")
    warning = (
        "INVENTORY_TOKENS_FILE: line 2 must be a token and `read` or `write`. What was read before stays in force."
    )
    eventually(lambda: warning in server.log)
    assert (accepted(old, product_id), accepted(new, product_id)) == (True, False)
    tokens.unlink()
    eventually(lambda: "INVENTORY_TOKENS_FILE cannot be read" in server.log)
    assert (accepted(old, product_id), accepted(new, product_id)) == (True, False)
    tokens.write_text("new write\n")
    eventually(lambda: accepted(new, product_id), within=3)
    assert not accepted(old, product_id)
    assert server.log.count("stays in force") == 2


@pytest.mark.parametrize("connect", ["sync"], indirect=True)
def test_a_watcher_whose_token_is_revoked_hears_nothing_more(
    database_url: str, serve: Serve, connect: Connect, tmp_path: Path
) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text("leaked read\nhonest write\n")
    server = serve(database_url, tokens_file=tokens)
    honest, leaked = connect(server, token="honest"), connect(server, token="leaked")
    product_id = stocked(honest, 10)
    with grpc.insecure_channel(server.address) as channel:
        stub, secret = InventoryServiceStub(channel), (("authorization", "Bearer leaked"),)
        stream = stub.WatchStock(pb.WatchStockRequest(product_ids=[product_id]), timeout=30, metadata=secret)
        assert next(stream).resume_token
        honest.add_stock(product_id, 1)
        assert next(stream).movement.version == 2
        tokens.write_text("honest write\n")
        eventually(lambda: not accepted(leaked, product_id))
        honest.add_stock(product_id, 1)
        with pytest.raises(grpc.RpcError) as raised:
            next(stream)
    check_wire(raised.value, "UNAUTHENTICATED", {"http_status": "401"})
