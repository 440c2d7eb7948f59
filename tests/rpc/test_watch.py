"""WatchStock over the wire, by the raw stub: streams, tokens, refusals, slow callers, shutdown."""

from __future__ import annotations

import asyncio
import base64
import struct
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import uuid4

import grpc
import pytest
from tests.fixtures.feeding import listeners
from tests.fixtures.refusals import check_wire
from tests.fixtures.serving import connected
from tests.fixtures.shop import LONG, fresh, stocked
from tests.fixtures.waiting import eventually

from inventory_client.proto.inventory.v1 import inventory_pb2 as pb
from inventory_client.proto.inventory.v1.inventory_pb2_grpc import InventoryServiceStub

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from tests.fixtures.serving import Serve, Server

    from inventory_client import InventoryClient

T = TypeVar("T")

SECONDS_MAX = 30.0
_CHANNELS = 8


@pytest.fixture
def shop(server: Server) -> Iterator[InventoryClient]:
    with connected(server) as client:
        yield client


@contextmanager
def watching(server: Server, options: Any = (), metadata: Any = (), **request: Any) -> Iterator[Any]:
    """Watch; the stream is in place when this gives it, and has said where it begins unless that was asked for."""
    with grpc.insecure_channel(server.address, options) as channel:
        stub = InventoryServiceStub(channel)
        stream = stub.WatchStock(pb.WatchStockRequest(**request), timeout=SECONDS_MAX, metadata=metadata)
        stream.initial_metadata()
        if not request.get("resume_token"):
            beginning = next(stream)
            assert (beginning.WhichOneof("event"), bool(beginning.resume_token)) == (None, True)
        yield stream
        stream.cancel()


def take(stream: Iterable[T], count: int) -> list[T]:
    return list(islice(stream, count))


def brief(event: pb.WatchStockResponse) -> tuple[Any, ...]:
    if event.HasField("low_stock"):
        low = event.low_stock
        return ("LOW", low.version, low.threshold, low.available_quantity)
    movement = event.movement
    kind = pb.MovementKind.Name(movement.kind).removeprefix("MOVEMENT_KIND_")
    return (kind, movement.version, movement.available_after, movement.reserved_after)


def refusal(server: Server, reason: str, metadata: dict[str, str], **request: Any) -> None:
    with pytest.raises(grpc.RpcError) as raised, watching(server, **request) as stream:
        next(stream)
    check_wire(raised.value, reason, metadata)


def test_a_watcher_hears_each_change_of_its_product_with_the_balances_after_it(
    server: Server, shop: InventoryClient
) -> None:
    product_id = stocked(shop, 10)
    with watching(server, product_ids=[product_id]) as stream:
        shop.add_stock(product_id, 5, reason="delivery")
        stocked(shop, 1)
        hold = shop.reserve_stock(product_id, "order-7", 4, ttl=LONG)
        other = shop.reserve_stock(product_id, "order-8", 2, ttl=LONG)
        shop.release_reservation(hold.reservation_id)
        shop.deduct_reservation(other.reservation_id)
        events = take(stream, 5)
    assert [brief(event) for event in events] == [
        ("ADD", 2, 15, 0),
        ("RESERVE", 3, 11, 4),
        ("RESERVE", 4, 9, 6),
        ("RELEASE", 5, 13, 2),
        ("DEDUCT", 6, 13, 0),
    ]
    added, reserved = events[0].movement, events[1].movement
    assert (added.product_id, added.reason, added.available_delta) == (product_id, "delivery", 5)
    assert (reserved.order_id, reserved.reservation_id) == ("order-7", hold.reservation_id)
    assert (reserved.available_delta, reserved.reserved_delta) == (-4, 4)
    assert reserved.occurred_at.ToMicroseconds() == round(hold.created_at.timestamp() * 1_000_000)


def test_a_watcher_of_everything_hears_of_products_that_are_new(server: Server, shop: InventoryClient) -> None:
    with watching(server) as stream:
        product_id = stocked(shop, 1)
        assert next(event for event in stream if event.movement.product_id == product_id)


def test_each_resume_token_goes_on_after_its_change_at_any_server(calm_server: Server, twin_server: Server) -> None:
    with connected(calm_server) as shop:
        product_id = stocked(shop, 1)
        with watching(calm_server, product_ids=[product_id]) as stream:
            for quantity in range(1, 6):
                shop.add_stock(product_id, quantity)
            events = take(stream, 5)
        for number, event in enumerate(events):
            for server in (calm_server, twin_server):
                with watching(server, product_ids=[product_id], resume_token=event.resume_token) as stream:
                    shop.add_stock(product_id, 1)
                    rest = take(stream, len(events) - number)
                assert rest[:-1] == events[number + 1 :][: len(rest) - 1]
                assert [each.movement.version for each in rest] == [*range(number + 3, number + 3 + len(rest))]


def test_a_watcher_that_leaves_before_the_first_change_can_go_on_from_where_it_began(
    server: Server, shop: InventoryClient
) -> None:
    product_id = stocked(shop, 1)
    with grpc.insecure_channel(server.address) as channel:
        stream = InventoryServiceStub(channel).WatchStock(pb.WatchStockRequest(product_ids=[product_id]))
        token = next(stream).resume_token
        stream.cancel()
    shop.add_stock(product_id, 1)
    for _ in range(2):
        with watching(server, product_ids=[product_id], resume_token=token) as stream:
            assert brief(next(stream)) == ("ADD", 2, 2, 0)


def test_low_stock_is_told_once_per_crossing_after_the_change_that_crossed(
    server: Server, shop: InventoryClient
) -> None:
    product_id = stocked(shop, 10)
    with watching(server, product_ids=[product_id], low_stock=5) as stream:
        shop.reserve_stock(product_id, "first", 4, ttl=LONG)
        hold = shop.reserve_stock(product_id, "second", 2, ttl=LONG)
        shop.reserve_stock(product_id, "third", 1, ttl=LONG)
        shop.add_stock(product_id, 2)
        shop.release_reservation(hold.reservation_id)
        shop.reserve_stock(product_id, "fourth", 2, ttl=LONG)
        assert [brief(event)[:3] for event in take(stream, 8)] == [
            ("RESERVE", 2, 6),
            ("RESERVE", 3, 4),
            ("LOW", 3, 5),
            ("RESERVE", 4, 3),
            ("ADD", 5, 5),
            ("RELEASE", 6, 7),
            ("RESERVE", 7, 5),
            ("LOW", 7, 5),
        ]


def test_a_caller_that_leaves_between_a_change_and_its_low_stock_misses_neither_and_gets_neither_twice(
    server: Server, shop: InventoryClient
) -> None:
    product_id = stocked(shop, 2)
    wanted = {"product_ids": [product_id], "low_stock": 0}
    with watching(server, **wanted) as stream:
        shop.reserve_stock(product_id, "order", 2, ttl=LONG)
        shop.add_stock(product_id, 3)
        events = take(stream, 3)
    assert [brief(event)[:2] for event in events] == [("RESERVE", 2), ("LOW", 2), ("ADD", 3)]
    for number in (0, 1):
        with watching(server, resume_token=events[number].resume_token, **wanted) as stream:
            assert take(stream, 2 - number) == events[number + 1 :]


def token(version: int = 1, whole: int = 1, transaction: int = 1000, number: int = 1, product: bytes = b"p") -> str:
    return base64.urlsafe_b64encode(struct.pack(">BBQQ", version, whole, transaction, number) + product).decode()


@pytest.mark.parametrize(
    "garbage",
    [
        "garbage",
        "~",
        "ü",
        "AQEA",
        token(version=2),
        token(whole=2),
        token(number=0),
        token(number=2**63),
        token(product=b""),
        token(product=b"\xff"),
        token(product=b"a\0b"),
        token(product=b"p" * 256),
        token(transaction=2**64 - 1),
    ],
)
def test_a_resume_token_that_no_change_came_with_is_refused(server: Server, garbage: str) -> None:
    refusal(server, "VALIDATION_ERROR", {"fields": "resume_token", "http_status": "400"}, resume_token=garbage)


def test_product_ids_are_checked_as_everywhere(server: Server) -> None:
    told = {"fields": "product_ids[1]", "http_status": "400"}
    refusal(server, "INVALID_PRODUCT_ID", told, product_ids=["teapot", " "])
    refusal(server, "VALIDATION_ERROR", told, product_ids=["teapot", "tea\npot"])
    told = {"fields": "product_ids", "http_status": "400"}
    refusal(server, "VALIDATION_ERROR", told, product_ids=[f"p{number}" for number in range(1001)])
    with watching(server, product_ids=[f"p{number}" for number in range(1000)]):
        pass


def test_a_threshold_below_zero_is_refused(server: Server) -> None:
    refusal(server, "VALIDATION_ERROR", {"fields": "low_stock", "http_status": "400"}, low_stock=-1)


def test_a_watcher_needs_a_token_that_reads(serve: Serve, database_url: str, tmp_path: Path) -> None:
    (tmp_path / "tokens").write_text("secret read\n")
    server = serve(database_url, tokens_file=tmp_path / "tokens")
    refusal(server, "UNAUTHENTICATED", {"http_status": "401"})
    with watching(server, metadata=(("authorization", "Bearer secret"),)):
        pass


def test_watchers_are_told_at_once_that_the_server_stops(serve: Serve, database_url: str) -> None:
    server = serve(database_url, shutdown_grace="20s")
    with watching(server) as stream:
        server.terminate()
        with pytest.raises(grpc.RpcError) as raised:
            next(stream)
        assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
        assert "stopping" in str(raised.value.details())
        # Before the time that calls in flight would have.
        assert server.process.wait(10) == 0


def test_a_caller_that_reads_too_slowly_is_told_overloaded_and_can_go_on_from_where_it_was(
    serve: Serve, database_url: str
) -> None:
    server = serve(database_url, watch_queue_size=50)
    # A small window: what is on its way to the caller does not hide that it reads nothing.
    window = (("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 65536))
    with connected(server) as shop, grpc.insecure_channel(server.address) as channel:
        product_id, other = stocked(shop, 10_000), stocked(shop, 1)
        with (
            watching(server, options=window, product_ids=[product_id]) as stream,
            watching(server, product_ids=[other]) as marker,
        ):
            order_id = "o" * 255
            items = [
                pb.ReserveStockRequest(product_id=product_id, order_id=order_id, quantity=1, request_id=str(uuid4()))
                for _ in range(1000)
            ]
            InventoryServiceStub(channel).BatchReserveStock(pb.BatchReserveStockRequest(items=items), timeout=30)
            shop.add_stock(other, 1)
            next(marker)  # all that was before it has been handed out
            events: list[pb.WatchStockResponse] = []
            with pytest.raises(grpc.RpcError) as raised:
                events += iter(stream)
        check_wire(raised.value, "OVERLOADED", {"http_status": "429"})
        assert 0 < len(events) < 1000
        with watching(server, resume_token=events[-1].resume_token, product_ids=[product_id]) as stream:
            events += take(stream, 1000 - len(events))
    assert [event.movement.version for event in events] == list(range(2, 1002))


def test_callers_that_leave_leave_nothing_behind(serve: Serve, database_url: str) -> None:
    server = serve(database_url)
    with connected(server) as shop:
        for _ in range(3):
            with watching(server) as first, watching(server) as second:
                product_id = stocked(shop, 1)
                assert next(first).movement.product_id == next(second).movement.product_id == product_id
                eventually(lambda: listeners(database_url) == 1)
            eventually(lambda: listeners(database_url) == 0)


def test_a_thousand_watchers_of_one_server_hear_their_changes_through_one_listener(
    serve: Serve, database_url: str
) -> None:
    server = serve(database_url)
    products = [fresh() for _ in range(1000)]

    async def watch(stub: Any, product_id: str) -> Any:
        stream = stub.WatchStock(pb.WatchStockRequest(product_ids=[product_id]), timeout=60)
        await stream.read()  # where it begins
        return stream

    async def hear(stream: Any) -> str:
        event = await stream.read()
        stream.cancel()
        return str(event.movement.product_id)

    async def everybody() -> None:
        # Each with a connection of its own: one carries as many streams as the server allows, a thousand.
        options = [("grpc.use_local_subchannel_pool", 1)]
        channels = [grpc.aio.insecure_channel(server.address, options=options) for _ in range(_CHANNELS)]
        stubs: list[Any] = [InventoryServiceStub(channel) for channel in channels]
        users = [(stubs[number % _CHANNELS], product_id) for number, product_id in enumerate(products)]
        streams = await asyncio.gather(*(watch(stub, product_id) for stub, product_id in users))
        await asyncio.to_thread(eventually, lambda: listeners(database_url) == 1)
        for stub, product_id in users:
            stub.InitializeStock(pb.InitializeStockRequest(product_id=product_id, quantity=1), timeout=60)
        assert await asyncio.gather(*map(hear, streams)) == products
        assert await asyncio.to_thread(listeners, database_url) <= 1
        for channel in channels:
            await channel.close()

    asyncio.run(everybody())
    eventually(lambda: listeners(database_url) == 0)
