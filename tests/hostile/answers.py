"""What any request whatever may get for an answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc
from google.protobuf.message_factory import GetMessageClass
from google.rpc.error_details_pb2 import ErrorInfo
from tests.fixtures.refusals import TABLE, detail, status_of

from inventory_client.proto.inventory.v1 import inventory_pb2 as pb

if TYPE_CHECKING:
    from google.protobuf.descriptor import MethodDescriptor

    Call = grpc.UnaryUnaryMultiCallable[bytes, bytes]
    Stream = grpc.UnaryStreamMultiCallable[bytes, bytes]

METHODS = {method.name: method for method in pb.DESCRIPTOR.services_by_name["InventoryService"].methods}
# What no input whatever may bring about.
NEVER = {"INTERNAL_ERROR", "DATABASE_UNAVAILABLE", "OVERLOADED", "UNAUTHENTICATED", "PERMISSION_DENIED"}
ANSWER_SECONDS_MAX = 10.0
# A stream that has begun has accepted its request.
STREAM_SECONDS = 0.05


def ask(channel: grpc.Channel, method: MethodDescriptor, body: bytes) -> None:
    """Send a request; what comes back must be an answer that parses, or a refusal of the contract."""
    parse = GetMessageClass(method.output_type).FromString
    path = f"/inventory.v1.InventoryService/{method.name}"
    try:
        if method.server_streaming:
            stream: Stream = channel.unary_stream(path)
            parse(next(iter(stream(body, timeout=STREAM_SECONDS)), b""))
        else:
            parse(method_called(channel, method.name)(body, timeout=ANSWER_SECONDS_MAX))
    except grpc.RpcError as error:
        if method.server_streaming and error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
            return
        check(error)


def check(error: grpc.RpcError) -> None:
    info = detail(status_of(error), ErrorInfo)
    assert info.domain == "inventory.v1", error
    assert error.code() is TABLE[info.reason][0]
    assert info.reason not in NEVER, error
    assert error.details()


def method_called(channel: grpc.Channel, name: str) -> Call:
    call: Call = channel.unary_unary(f"/inventory.v1.InventoryService/{name}")
    return call
