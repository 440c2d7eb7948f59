"""What both clients put on the wire and make of what comes back, through one body."""

from __future__ import annotations

import asyncio
import inspect
import logging
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from grpc import StatusCode
from tests.unit.client.conftest import QUICK

from inventory_client import (
    AsyncHold,
    AsyncInventoryClient,
    AsyncOrderHold,
    Cancelled,
    ClientConfig,
    DeadlineExceeded,
    Hold,
    InsufficientStock,
    InventoryClient,
    OrderHold,
    RetryPolicy,
    ServiceUnavailable,
    Tls,
    _channel,
)
from inventory_client.proto.inventory.v1 import inventory_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from google.rpc.status_pb2 import Status
    from tests.unit.client.conftest import Peer

    Connect = Callable[[ClientConfig], Any]
    MakeStatus = Callable[..., Status]


def test_each_method_sends_its_request_and_reads_its_answer(peer: Peer, client: Any) -> None:
    stock = pb.Stock(product_id="teapot", version=7)
    held = pb.Reservation(reservation_id="r-1", status=pb.RESERVATION_STATUS_RESERVED)
    peer.script = [
        pb.InitializeStockResponse(stock=stock, created=True),
        pb.GetStockResponse(stock=stock),
        pb.AddStockResponse(stock=stock),
        pb.ReserveStockResponse(reservation=held),
        pb.GetReservationResponse(reservation=held),
        pb.ReleaseReservationResponse(reservation=held),
        pb.DeductReservationResponse(reservation=held),
    ]
    initialized = client.initialize_stock("teapot", 5, request_id="1")
    assert (initialized.created, initialized.stock.version) == (True, 7)
    assert client.get_stock("teapot").product_id == "teapot"
    assert client.add_stock("teapot", 3, reason="delivery", request_id="3").version == 7
    ttl = timedelta(minutes=1)
    assert client.reserve_stock("teapot", "o-1", 2, ttl=ttl, request_id="4").reservation_id == "r-1"
    assert client.get_reservation("r-1").reservation_id == "r-1"
    assert client.release_reservation("r-1", request_id="6").reservation_id == "r-1"
    assert client.deduct_reservation("r-1", request_id="7").reservation_id == "r-1"

    expected = pb.ReserveStockRequest(product_id="teapot", order_id="o-1", quantity=2, request_id="4")
    expected.ttl.FromTimedelta(ttl)
    assert [seen.request for seen in peer.seen] == [
        pb.InitializeStockRequest(product_id="teapot", quantity=5, request_id="1"),
        pb.GetStockRequest(product_id="teapot"),
        pb.AddStockRequest(product_id="teapot", quantity=3, reason="delivery", request_id="3"),
        expected,
        pb.GetReservationRequest(reservation_id="r-1"),
        pb.ReleaseReservationRequest(reservation_id="r-1", request_id="6"),
        pb.DeductReservationRequest(reservation_id="r-1", request_id="7", late_policy=pb.LATE_POLICY_STRICT),
    ]


@pytest.mark.parametrize("timeout", [0, -1.0])
def test_without_any_time_nothing_is_sent(timeout: float, peer: Peer, client: Any) -> None:
    with pytest.raises(DeadlineExceeded) as raised:
        client.reserve_stock("teapot", "o-1", 2, request_id="mine", timeout=timeout)
    assert (raised.value.request_id, raised.value.outcome_unknown) == ("mine", False)
    assert peer.seen == []


def test_a_retry_is_told_in_the_log_and_what_is_raised_is_not(
    peer: Peer, client: Any, caplog: pytest.LogCaptureFixture
) -> None:
    peer.script = [StatusCode.UNAVAILABLE] * 4
    with caplog.at_level(logging.INFO, "inventory_client"), pytest.raises(ServiceUnavailable):
        client.reserve_stock("teapot", "o-1", 2, request_id="mine")
    told = [(record.name, record.levelname, record.getMessage()) for record in caplog.records]
    assert len(told) == 3
    for attempt, (name, level, sentence) in enumerate(told, start=1):
        assert (name, level) == ("inventory_client", "INFO")
        assert sentence.startswith(f"ReserveStock failed in attempt {attempt} (UNAVAILABLE: by a proxy); the next one")
        assert sentence.endswith("under request id mine")


def test_what_grpc_says_of_a_failure_is_told_to_those_who_debug(
    peer: Peer, client: Any, caplog: pytest.LogCaptureFixture
) -> None:
    peer.script = [StatusCode.UNAVAILABLE, pb.GetStockResponse()]
    with caplog.at_level(logging.DEBUG, "inventory_client"):
        client.get_stock("teapot")
    assert [record.levelname for record in caplog.records if record.name == "inventory_client"] == ["INFO", "DEBUG"]


def test_a_call_goes_on_under_the_same_request_id_until_it_is_answered(
    peer: Peer, client: Any, make_status: MakeStatus
) -> None:
    peer.script = [
        StatusCode.UNAVAILABLE,
        make_status(StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED", retry_after=0.01),
        pb.ReserveStockResponse(reservation=pb.Reservation(reservation_id="r-1")),
    ]
    assert client.reserve_stock("teapot", "o-1", 2).reservation_id == "r-1"
    assert peer.rpcs() == ["ReserveStock"] * 3
    assert len({seen.request.request_id for seen in peer.seen}) == 1
    assert peer.seen[0].request.request_id


def test_the_error_that_outlasts_the_retries_carries_the_request_id_for_one_more(peer: Peer, client: Any) -> None:
    peer.script = [StatusCode.UNAVAILABLE] * 4
    with pytest.raises(ServiceUnavailable, match="by a proxy") as raised:
        client.add_stock("teapot", 1)
    assert len(peer.seen) == 4
    assert raised.value.request_id == peer.seen[0].request.request_id
    assert isinstance(raised.value.__cause__, grpc.RpcError)
    client.add_stock("teapot", 1, request_id=raised.value.request_id)
    assert peer.seen[-1].request.request_id == raised.value.request_id


def test_a_refusal_comes_back_at_once_as_its_class(peer: Peer, client: Any, make_status: MakeStatus) -> None:
    said = {"product_id": "teapot", "requested": "3", "available": "2"}
    peer.script = [make_status(StatusCode.FAILED_PRECONDITION, "INSUFFICIENT_STOCK", metadata=said)]
    with pytest.raises(InsufficientStock) as raised:
        client.reserve_stock("teapot", "o-1", 3)
    assert raised.value.available == 2
    assert len(peer.seen) == 1


def test_every_attempt_gets_what_is_left_of_the_deadline(peer: Peer, connect: Any, make_status: MakeStatus) -> None:
    client = connect(ClientConfig(target=peer.target, retry=replace(QUICK, attempt_share=1)))
    peer.script = [make_status(StatusCode.UNAVAILABLE, "DATABASE_UNAVAILABLE", retry_after=0.3)]
    client.get_stock("teapot", timeout=5)
    first, second = (seen.seconds_left for seen in peer.seen)
    assert first < 5.2  # gRPC rounds a deadline up for the wire
    assert 1 < second < first - 0.1


def test_a_call_without_a_timeout_still_has_a_deadline(peer: Peer, client: Any) -> None:
    client.get_stock("teapot")
    assert peer.seen[0].seconds_left < _channel.RULES["GetStock"].timeout + 0.2


def test_silence_ends_at_the_deadline(connect: Connect) -> None:
    # a listener that accepts and never says a word, as a hanging proxy does
    with socket.create_server(("127.0.0.1", 0)) as mute:
        client = connect(ClientConfig(target=f"127.0.0.1:{mute.getsockname()[1]}"))
        begun = time.monotonic()
        with pytest.raises(DeadlineExceeded):
            client.get_stock("teapot", timeout=0.3)
        assert 0.25 < time.monotonic() - begun < 5


def test_no_server_is_unavailable_and_says_why(connect: Connect, free_address: str) -> None:
    client = connect(ClientConfig(target=free_address, retry=RetryPolicy(attempts=1)))
    with pytest.raises(ServiceUnavailable, match="refused"):
        client.get_stock("teapot")


def test_a_restart_costs_the_caller_a_wait_and_no_error(connect: Connect, peer: Peer) -> None:
    client = connect(ClientConfig(target=peer.target, timeout=30, retry=RetryPolicy(attempts=200)))
    client.get_stock("teapot")
    peer.stop()
    starter = threading.Timer(0.5, peer.start, [peer.target])  # the outage under test, not a wait
    starter.start()
    client.get_stock("teapot")
    starter.join()
    assert peer.rpcs() == ["GetStock", "GetStock"]


def test_the_token_goes_along_with_each_call_and_into_no_repr(peer: Peer, connect: Connect) -> None:
    config = ClientConfig(target=peer.target, token="sesame")
    client = connect(config)
    client.get_stock("teapot")
    assert peer.seen[0].metadata["authorization"] == "Bearer sesame"
    assert "sesame" not in repr(config)


def test_without_a_token_none_is_sent(peer: Peer, client: Any) -> None:
    client.get_stock("teapot")
    assert "authorization" not in peer.seen[0].metadata


def test_an_answer_larger_than_the_limit_is_not_asked_for_again(peer: Peer, connect: Connect) -> None:
    client = connect(ClientConfig(target=peer.target, message_bytes_max=100))
    peer.script = [pb.GetStockResponse(stock=pb.Stock(product_id="x" * 200))]
    with pytest.raises(Exception, match="larger than") as raised:
        client.get_stock("teapot")
    assert raised.value.code is StatusCode.RESOURCE_EXHAUSTED  # type: ignore[attr-defined]
    assert len(peer.seen) == 1


def test_closing_twice_is_fine_and_a_closed_client_says_so(peer: Peer, client: Any) -> None:
    client.close()
    client.close()
    with pytest.raises(Cancelled, match="closed"):
        client.get_stock("teapot")
    assert peer.seen == []


def test_a_channel_that_was_brought_along_stays_open(peer: Peer) -> None:
    with grpc.insecure_channel(peer.target) as channel:
        with InventoryClient(channel=channel) as client:
            client.get_stock("teapot")
        with InventoryClient(channel=channel) as client:
            client.get_stock("teapot")
    assert len(peer.seen) == 2


def test_an_asyncio_channel_that_was_brought_along_stays_open(peer: Peer) -> None:
    async def body() -> None:
        async with grpc.aio.insecure_channel(peer.target) as channel:
            async with AsyncInventoryClient(channel=channel) as client:
                await client.get_stock("teapot")
            async with AsyncInventoryClient(channel=channel) as client:
                await client.get_stock("teapot")

    asyncio.run(body())
    assert len(peer.seen) == 2


def test_the_raw_stub_is_within_reach(peer: Peer) -> None:
    with InventoryClient(peer.target) as client:
        assert client.stub.GetStock(pb.GetStockRequest(product_id="teapot")) == pb.GetStockResponse()
    assert peer.rpcs() == ["GetStock"]


def test_one_client_serves_many_threads(peer: Peer) -> None:
    with InventoryClient(peer.target) as client, ThreadPoolExecutor(16) as threads:
        list(threads.map(lambda n: client.reserve_stock("teapot", f"o-{n}", 1), range(200)))
    assert len({seen.request.request_id for seen in peer.seen}) == 200


def test_cancelling_a_task_cancels_its_call(peer: Peer, make_status: MakeStatus) -> None:
    async def body() -> None:
        async with AsyncInventoryClient(peer.target) as client:
            task = asyncio.create_task(client.get_stock("teapot", timeout=60))
            assert await asyncio.to_thread(peer.called.wait, 10)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    peer.script = [make_status(StatusCode.UNAVAILABLE, "DATABASE_UNAVAILABLE", retry_after=30)]
    asyncio.run(body())
    assert len(peer.seen) == 1


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [(InventoryClient, AsyncInventoryClient), (Hold, AsyncHold), (OrderHold, AsyncOrderHold)],
)
def test_the_two_clients_have_the_same_methods_with_the_same_arguments(ours: type, theirs: type) -> None:
    def methods(cls: type) -> dict[str, list[str]]:
        everything = {name: getattr(cls, name) for name in dir(cls) if not name.startswith("_")}
        public = {name: value for name, value in everything.items() if callable(value)}
        return {
            name: [str(each) for each in inspect.signature(value).parameters.values()] for name, value in public.items()
        }

    assert methods(ours) == methods(theirs)
    for name in methods(ours):
        if name != "hold":
            assert inspect.getdoc(getattr(ours, name)) == inspect.getdoc(getattr(theirs, name)), name


def test_certificates_are_read_from_files_and_must_come_as_a_pair(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="go together"):
        Tls(cert="client.pem")
    with pytest.raises(FileNotFoundError):
        _channel.credentials(ClientConfig(tls=Tls(ca=tmp_path / "missing.pem")))
    made_elsewhere = grpc.ssl_channel_credentials()
    assert _channel.credentials(ClientConfig(tls=made_elsewhere)) is made_elsewhere
    assert isinstance(_channel.credentials(ClientConfig(tls=Tls())), grpc.ChannelCredentials)
    assert _channel.credentials(ClientConfig()) is None


def test_channel_options_of_the_configuration_win() -> None:
    options = dict(_channel.options(ClientConfig(channel_options={"grpc.keepalive_time_ms": 1, "mine": "too"})))
    assert (options["grpc.keepalive_time_ms"], options["mine"]) == (1, "too")


def test_a_name_is_looked_up_as_often_as_a_rollout_needs_it() -> None:
    assert dict(_channel.options(ClientConfig()))["grpc.dns_min_time_between_resolutions_ms"] == 1000


def test_a_target_wins_over_the_one_of_the_configuration() -> None:
    assert _channel.settle("here:1", ClientConfig(target="there:2", token="sesame")) == ClientConfig(
        target="here:1", token="sesame"
    )
    assert _channel.settle(None, None).target == "localhost:50051"
