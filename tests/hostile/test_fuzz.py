"""Every RPC is sent anything at all, as bytes and as fields: each answer is one that the contract knows.

`make fuzz ARGS=100000` tries that many requests of each RPC and kind instead of the few of a test run.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import grpc
import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message_factory import GetMessageClass
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.fixtures.shop import held, stocked
from tests.hostile.answers import ANSWER_SECONDS_MAX, METHODS, ask, method_called

from inventory_client.proto.inventory.v1 import inventory_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Callable

    from google.protobuf.descriptor import Descriptor
    from google.protobuf.message import Message
    from tests.fixtures.serving import Server

    from inventory_client import InventoryClient


EXAMPLES = int(os.environ.get("INVENTORY_FUZZ_EXAMPLES", "40"))

fuzzed = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=EXAMPLES <= 40,  # a test run is the same every time; a long one goes elsewhere
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
# The shop is filled by a client, and one is enough.
one_client = pytest.mark.parametrize("connect", ["sync"], indirect=True)
every_method = pytest.mark.parametrize("method", METHODS)

INT64 = st.one_of(
    st.sampled_from([0, 1, -1, 2**63 - 1, -(2**63), 10**15, 10**15 + 1]), st.integers(-(2**63), 2**63 - 1)
)
INT32 = st.one_of(
    st.sampled_from([0, 1, -1, 999_999_999, 10**9, 2**31 - 1, -(2**31)]), st.integers(-(2**31), 2**31 - 1)
)
TEXT = st.one_of(
    st.sampled_from(
        ["", " ", "\0", "a\nb", "x" * 255, "x" * 256, "x" * 10_000, "{}", '"', "\\", "NULL", "{a,b}", "%s"]
    ),
    st.sampled_from(["\u202egnp.exe", "😀", "é", "e\u0301", "\ufeff", "'; DROP TABLE inventory_stock; --"]),
    st.uuids().map(str),
    st.text(max_size=40),
)


class Shop:
    """What exists, so that requests get further than the first look-up."""

    def __init__(self, client: InventoryClient) -> None:
        self.product_id = stocked(client, 10**6)
        hold = held(client, self.product_id)
        self.known = st.sampled_from([self.product_id, hold.order_id, hold.reservation_id])


@pytest.fixture
def shop(client: InventoryClient) -> Shop:
    return Shop(client)


def messages(kind: Descriptor, texts: st.SearchStrategy[str]) -> st.SearchStrategy[Message]:
    """Draw messages with any values in their fields."""
    fields = {
        field.name: st.lists(_values(field, texts), max_size=3) if field.is_repeated else _values(field, texts)
        for field in kind.fields
    }
    return st.fixed_dictionaries({}, optional=fields).map(lambda drawn: GetMessageClass(kind)(**drawn))


def _values(field: FieldDescriptor, texts: st.SearchStrategy[str]) -> st.SearchStrategy[Any]:
    if field.message_type is not None:
        return messages(field.message_type, texts)
    return {
        FieldDescriptor.TYPE_STRING: texts,
        FieldDescriptor.TYPE_INT64: INT64,
        FieldDescriptor.TYPE_INT32: INT32,
        FieldDescriptor.TYPE_ENUM: INT32,
        FieldDescriptor.TYPE_BOOL: st.booleans(),
    }[field.type]


def unharmed(server: Server, log_before: str) -> None:
    """The server serves, and has found nothing worth a word."""
    assert server.health() == "SERVING"
    assert "Traceback" not in server.log[len(log_before) :]


@every_method
def test_any_bytes_get_an_answer_of_the_contract(server: Server, channel: grpc.Channel, method: str) -> None:
    log = server.log

    @fuzzed
    @given(st.binary(max_size=300))
    def run(body: bytes) -> None:
        ask(channel, METHODS[method], body)

    run()
    unharmed(server, log)


@every_method
@one_client
def test_any_values_of_the_fields_get_an_answer_of_the_contract(
    server: Server, channel: grpc.Channel, shop: Shop, method: str
) -> None:
    log = server.log

    @fuzzed
    @given(messages(METHODS[method].input_type, st.one_of(shop.known, TEXT)))
    def run(message: Message) -> None:
        ask(channel, METHODS[method], message.SerializeToString())

    run()
    unharmed(server, log)


@every_method
@one_client
def test_a_damaged_message_gets_an_answer_of_the_contract(
    server: Server, channel: grpc.Channel, shop: Shop, method: str
) -> None:
    log = server.log

    @fuzzed
    @given(messages(METHODS[method].input_type, shop.known), st.data())
    def run(message: Message, data: st.DataObject) -> None:
        body = bytearray(message.SerializeToString())
        for _ in range(data.draw(st.integers(1, 4))):
            place = data.draw(st.integers(0, len(body)))
            body[place : place + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
        ask(channel, METHODS[method], bytes(body))

    run()
    unharmed(server, log)


@pytest.mark.parametrize("depth", [10, 99, 101, 10_000])
def test_unknown_fields_nested_however_deep_are_refused_or_ignored(channel: grpc.Channel, depth: int) -> None:
    # A group of an unknown field within another, which a decoder follows by recursion.
    body = b"\xfb\x01" * depth + b"\xfc\x01" * depth
    for method in METHODS.values():
        ask(channel, method, body)


def code_of(call: Callable[[], object]) -> grpc.StatusCode:
    with pytest.raises(grpc.RpcError) as raised:
        call()
    return raised.value.code()


@pytest.mark.parametrize("size", [4 * 2**20, 64 * 2**20])
def test_a_message_beyond_the_limit_is_refused(server: Server, size: int) -> None:
    body = pb.GetStockRequest(product_id="x" * size).SerializeToString()
    with grpc.insecure_channel(server.address, [("grpc.max_send_message_length", -1)]) as channel:
        code = code_of(lambda: method_called(channel, "GetStock")(body, timeout=60))
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert server.health() == "SERVING"


@pytest.mark.parametrize("name", ["nothing", "", "GetStock/", "getStock", "../GetStock", "x" * 5000])
def test_a_method_that_does_not_exist_is_unimplemented(channel: grpc.Channel, name: str) -> None:
    code = code_of(lambda: method_called(channel, name)(b"", timeout=ANSWER_SECONDS_MAX))
    assert code is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize(
    "metadata",
    [
        (("authorization", "Bearer " + "x" * 2000),),
        (("x-binary-bin", b"\xff\0" * 500),),
        (("grpc-tags-bin", b"\0"),),
        tuple((f"x-{number}", "y") for number in range(100)),
    ],
    ids=["token", "binary", "reserved", "many"],
)
def test_odd_metadata_changes_no_answer(channel: grpc.Channel, metadata: tuple[tuple[str, str | bytes], ...]) -> None:
    body = pb.GetStockRequest(product_id=str(uuid4())).SerializeToString()
    code = code_of(lambda: method_called(channel, "GetStock")(body, metadata=metadata, timeout=ANSWER_SECONDS_MAX))
    assert code is grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize("seconds", [-1.0, 0.0, 1e-9])
@pytest.mark.parametrize("method", sorted(METHODS.keys() - {"WatchStock"}))
def test_a_deadline_that_has_passed_ends_the_call_and_harms_nobody(
    server: Server, channel: grpc.Channel, method: str, seconds: float
) -> None:
    log = server.log
    code = code_of(lambda: method_called(channel, method)(b"\xff", timeout=seconds))
    # What is no message is refused at once, which may still be in time. An empty one is too, but by ListStock answered.
    assert code in {grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.INVALID_ARGUMENT}
    unharmed(server, log)
