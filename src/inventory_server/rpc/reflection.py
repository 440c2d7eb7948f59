"""Server reflection, as v1 and v1alpha and with the documented JSON names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection, reflection_pb2

from inventory_client.proto.inventory.v1 import inventory_pb2

if TYPE_CHECKING:
    from collections.abc import Iterable

V1 = "grpc.reflection.v1.ServerReflection"

# What can be asked for: the services, and the details of their errors.
_FILES = (inventory_pb2.DESCRIPTOR, health_pb2.DESCRIPTOR, reflection_pb2.DESCRIPTOR, error_details_pb2.DESCRIPTOR)


def offer(server: grpc.aio.Server, services: Iterable[str]) -> None:
    """Serve v1alpha, which grpcio ships, and v1, which has the same messages: tools want one each."""
    servicer = reflection.aio.ReflectionServicer((*services, reflection.SERVICE_NAME, V1), pool=_Symbols(_pool()))
    handler: grpc.RpcMethodHandler[Any, Any] = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    server.add_generic_rpc_handlers(
        [
            grpc.method_handlers_generic_handler(name, {"ServerReflectionInfo": handler})
            for name in (reflection.SERVICE_NAME, V1)
        ]
    )


class _Symbols:
    """A pool that knows the file of a method, too: tools ask for one by its name, and Python's own pool does not."""

    def __init__(self, pool: DescriptorPool) -> None:
        self._pool = pool

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pool, name)

    def FindFileContainingSymbol(self, symbol: str) -> Any:  # noqa: N802 - protobuf's name
        try:
            return self._pool.FindFileContainingSymbol(symbol)
        except KeyError:
            return self._pool.FindMethodByName(symbol).containing_service.file


def _pool() -> DescriptorPool:
    """Describe the files once more: Python's descriptors lack the JSON names, and without them tools print others."""
    pool = DescriptorPool()
    seen: set[str] = set()
    for file in _FILES:
        _add(pool, file, seen)
    return pool


def _add(pool: DescriptorPool, file: Any, seen: set[str]) -> None:
    if file.name in seen:
        return
    seen.add(file.name)
    for dependency in file.dependencies:
        _add(pool, dependency, seen)
    described = FileDescriptorProto()
    file.CopyToProto(described)
    for message in described.message_type:
        for field in message.field:
            field.json_name = file.message_types_by_name[message.name].fields_by_name[field.name].json_name
    pool.Add(described)
