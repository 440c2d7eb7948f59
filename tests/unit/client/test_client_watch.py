"""The live feed through both clients: it goes on by itself, tells nothing twice and leaves nothing out."""

from __future__ import annotations

import asyncio
import threading
from itertools import islice
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from grpc import StatusCode
from tests.unit.client.conftest import END, QUICK

from inventory_client import (
    AsyncInventoryClient,
    ClientConfig,
    DatabaseUnavailable,
    DeadlineExceeded,
    InventoryClient,
    LowStock,
    Movement,
    RetryPolicy,
    ServiceUnavailable,
    ValidationError,
    _watching,
)
from inventory_client._watching import Watching
from inventory_client.proto.inventory.v1 import inventory_pb2 as pb
from inventory_client.watch import AsyncStockWatch

if TYPE_CHECKING:
    from collections.abc import Callable

    from google.rpc.status_pb2 import Status
    from tests.unit.client.conftest import Peer

    MakeStatus = Callable[..., Status]


def moved(version: int) -> pb.WatchStockResponse:
    return pb.WatchStockResponse(
        movement=pb.Movement(product_id="teapot", version=version), resume_token=f"after {version}"
    )


def take(events: Any, count: int) -> list[Any]:
    return list(islice(events, count))


def versions(events: list[Any]) -> list[int]:
    return [event.change.version for event in events]


def tokens(peer: Peer) -> list[str]:
    return [seen.request.resume_token for seen in peer.seen]


def test_the_feed_tells_of_movements_and_of_stock_that_runs_low(peer: Peer, client: Any) -> None:
    low = pb.LowStock(product_id="teapot", threshold=5, available_quantity=4, version=1)
    peer.script = [[moved(1), pb.WatchStockResponse(low_stock=low, resume_token="after the crossing")]]
    with client.watch_stock(["teapot"], resume_token="before", low_stock=0) as events:
        movement, crossing = take(events, 2)
        assert isinstance(movement.change, Movement)
        assert movement.resume_token == "after 1"
        assert crossing.change == LowStock(product_id="teapot", threshold=5, available_quantity=4, version=1)
        assert events.resume_token == "after the crossing"
    assert peer.seen[0].request == pb.WatchStockRequest(product_ids=["teapot"], resume_token="before", low_stock=0)


@pytest.mark.parametrize("broken", [StatusCode.UNAVAILABLE, StatusCode.CANCELLED, END])
def test_a_feed_that_breaks_goes_on_after_the_last_event(peer: Peer, client: Any, broken: StatusCode) -> None:
    peer.script = [[moved(1), moved(2), broken], [broken], [moved(3)]]
    with client.watch_stock() as events:
        assert versions(take(events, 3)) == [1, 2, 3]
    assert tokens(peer) == ["", "after 2", "after 2"]


def test_a_reader_that_was_cut_off_for_being_slow_goes_on(peer: Peer, client: Any, make_status: MakeStatus) -> None:
    peer.script = [[moved(1), make_status(StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED", retry_after=0.01)], [moved(2)]]
    with client.watch_stock() as events:
        assert versions(take(events, 2)) == [1, 2]


def test_an_answer_without_an_event_moves_the_place_and_is_not_handed_out(peer: Peer, client: Any) -> None:
    peer.script = [[pb.WatchStockResponse(resume_token="here"), StatusCode.UNAVAILABLE], [moved(1)]]
    with client.watch_stock() as events:
        assert versions(take(events, 1)) == [1]
    assert tokens(peer) == ["", "here"]


def test_what_would_fail_again_is_raised_at_once(peer: Peer, client: Any, make_status: MakeStatus) -> None:
    peer.script = [[make_status(StatusCode.INVALID_ARGUMENT, "VALIDATION_ERROR")]]
    with pytest.raises(ValidationError), client.watch_stock(resume_token="rubbish"):
        pytest.fail("the block was entered")
    assert len(peer.seen) == 1


@pytest.mark.parametrize("broken", [StatusCode.UNAVAILABLE, END])
def test_what_may_pass_lets_the_block_begin(peer: Peer, client: Any, broken: StatusCode) -> None:
    peer.script = [[broken], [moved(1)]]
    with client.watch_stock() as events:
        assert versions(take(events, 1)) == [1]


def test_a_server_that_takes_the_connection_and_says_nothing_is_left_for_another(peer: Peer, client: Any) -> None:
    silent = threading.Event()
    peer.script = [[silent], [moved(1)]]
    with client.watch_stock(timeout=3) as events:
        assert versions(take(events, 1)) == [1]
    silent.set()
    assert len(peer.seen) == 2


def test_servers_that_all_say_nothing_are_told_when_the_time_is_over(
    peer: Peer, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_watching, "_CONNECT_SECONDS_MIN", 0.1)
    silent = threading.Event()
    peer.script = [[silent]] * 8
    with client.watch_stock(timeout=0.3) as events, pytest.raises(DeadlineExceeded):
        take(events, 1)
    silent.set()
    assert 3 <= len(peer.seen) <= 8


def test_a_feed_whose_reader_is_to_be_told_at_once_still_has_time_to_connect(peer: Peer, client: Any) -> None:
    peer.script = [[moved(1), StatusCode.UNAVAILABLE]]
    with client.watch_stock(timeout=0) as events:
        assert versions(take(events, 1)) == [1]
        with pytest.raises(ServiceUnavailable):
            take(events, 1)


class Opening:
    """A stream of asyncio whose headers come when they are told to, and nothing after them."""

    def __init__(self) -> None:
        self.headers: asyncio.Future[tuple[()]] = asyncio.get_running_loop().create_future()
        self.cancelled = False

    async def initial_metadata(self) -> tuple[()]:
        return await self.headers

    async def read(self) -> Any:
        await asyncio.Event().wait()

    def done(self) -> bool:
        return self.cancelled

    def cancel(self) -> None:
        self.cancelled = True


def test_a_cancellation_that_comes_with_the_headers_is_not_lost() -> None:
    async def body() -> None:
        stream: Any = Opening()
        watch = AsyncStockWatch(lambda _: stream, Watching(ClientConfig(), (), "", None, None))
        waiting = asyncio.ensure_future(anext(watch))
        await asyncio.sleep(0)
        stream.headers.set_result(())
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait({waiting}, timeout=5)
        assert waiting.cancelled()
        assert stream.cancelled

    asyncio.run(body())


def test_the_place_is_the_one_to_go_on_from_until_there_is_another(peer: Peer, client: Any) -> None:
    peer.script = [[moved(1)]]
    with client.watch_stock(resume_token="before") as events:
        assert events.resume_token == "before"
        take(events, 1)
        assert events.resume_token == "after 1"


def test_a_policy_without_retries_never_connects_again(peer: Peer, connect: Any) -> None:
    peer.script = [[moved(1), StatusCode.UNAVAILABLE]]
    client = connect(ClientConfig(target=peer.target, retry=RetryPolicy(attempts=1)))
    with client.watch_stock() as events:
        take(events, 1)
        with pytest.raises(ServiceUnavailable):
            take(events, 1)
    assert len(peer.seen) == 1


def test_an_outage_that_lasts_too_long_is_raised_and_the_feed_can_still_go_on(
    connect: Any, peer: Peer, make_status: MakeStatus
) -> None:
    away = [make_status(StatusCode.UNAVAILABLE, "DATABASE_UNAVAILABLE", retry_after=0.05)]
    peer.script = [[moved(1), *away], away, away, away, away, away, away, away, away]
    client = connect(ClientConfig(target=peer.target, retry=QUICK))
    with client.watch_stock(timeout=0.2) as events:
        take(events, 1)
        with pytest.raises(DatabaseUnavailable):
            take(events, 1)
        assert 2 <= len(peer.seen) < 8
        peer.script = [[moved(2)]]
        assert versions(take(events, 1)) == [2]
    assert set(tokens(peer)) == {"", "after 1"}


def test_a_restart_of_the_server_is_bridged(connect: Any, peer: Peer) -> None:
    peer.script = [[moved(1)], [moved(2)]]
    client = connect(ClientConfig(target=peer.target))
    with client.watch_stock() as events:
        take(events, 1)
        peer.stop()
        peer.start(peer.target)
        assert versions(take(events, 1)) == [2]
    assert tokens(peer) == ["", "after 1"]


def test_a_closed_feed_ends_and_cancels_its_stream(peer: Peer, client: Any) -> None:
    peer.script = [[moved(1), moved(2)]]
    events = client.watch_stock()
    take(events, 1)
    events.close()
    events.close()
    assert list(events) == []
    assert len(peer.seen) == 1


def test_closing_the_client_ends_its_feeds(peer: Peer, client: Any) -> None:
    peer.script = [[moved(1)]]
    events = client.watch_stock()
    take(events, 1)
    client.close()
    assert list(events) == []


def test_another_thread_may_close_a_feed_that_waits(peer: Peer) -> None:
    with InventoryClient(peer.target) as client, client.watch_stock() as events:
        reader = threading.Thread(target=lambda: list(events))
        reader.start()
        assert peer.called.wait(10)
        events.close()
        reader.join(10)
        assert not reader.is_alive()


def test_another_task_may_close_a_feed_that_waits(peer: Peer) -> None:
    async def body() -> list[Any]:
        async with AsyncInventoryClient(peer.target) as client, client.watch_stock() as events:
            reader = asyncio.create_task(_all(events))
            assert await asyncio.to_thread(peer.called.wait, 10)
            await events.close()
            return await asyncio.wait_for(reader, 10)

    assert asyncio.run(body()) == []


def test_a_wait_that_is_cancelled_loses_nothing(peer: Peer) -> None:
    async def body() -> list[int]:
        async with AsyncInventoryClient(peer.target) as client, client.watch_stock() as events:
            first = await anext(events)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(anext(events), 0.1)
            return versions([first, await anext(events)])

    peer.script = [[moved(1)], [moved(2)]]
    assert asyncio.run(body()) == [1, 2]
    assert tokens(peer) == ["", "after 1"]


def test_the_patience_begins_anew_with_each_outage() -> None:
    now = 1000.0
    watching = Watching(ClientConfig(), (), "", None, 10.0, clock=lambda: now, draw=lambda: 1.0)
    unavailable = grpc.aio.AioRpcError(StatusCode.UNAVAILABLE, grpc.aio.Metadata(), grpc.aio.Metadata(), "away")
    watching.request()
    assert watching.pause_after(unavailable) == pytest.approx(0.1)
    now += 9.95
    watching.request()
    with pytest.raises(ServiceUnavailable):
        watching.pause_after(unavailable)

    watching.request()
    assert watching.pause_after(unavailable) == pytest.approx(0.1)
    watching.request()
    now += 9
    assert watching.pause_after(unavailable) == pytest.approx(0.2)
    watching.request()
    watching.placed()
    now += 3600  # connected all the while, and nothing happened
    assert watching.pause_after(unavailable) == pytest.approx(0.1)
    watching.request()
    watching.read(moved(1))
    assert watching.pause_after(None) == pytest.approx(0.1)


def test_a_feed_that_breaks_at_once_each_time_is_down_although_it_connects() -> None:
    now = 1000.0
    watching = Watching(ClientConfig(), (), "", None, 10.0, clock=lambda: now, draw=lambda: 1.0)
    pauses = []
    for _ in range(5):
        watching.request()
        watching.placed()
        watching.read(pb.WatchStockResponse(resume_token="here"))
        pauses.append(watching.pause_after(None))
    assert pauses == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.0])
    watching.request()
    watching.placed()
    now += 4.9
    assert watching.pause_after(None) == pytest.approx(1.0)
    watching.request()
    watching.placed()
    now += 4.9
    with pytest.raises(ServiceUnavailable):
        watching.pause_after(None)
    watching.request()
    watching.placed()
    now += 5
    assert watching.pause_after(None) == pytest.approx(0.1)


async def _all(events: Any) -> list[Any]:
    return [event async for event in events]
