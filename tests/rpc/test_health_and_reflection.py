"""What orchestrators and tools ask: health under its four names, watched or not, and reflection in both versions."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import grpc
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from tests.fixtures.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.fixtures.serving import Serve, Server

    from inventory_server.embedded import EmbeddedPostgres, EmbeddedRedis

    Reflect = grpc.StreamStreamMultiCallable[
        reflection_pb2.ServerReflectionRequest, reflection_pb2.ServerReflectionResponse
    ]

SERVICE = "inventory.v1.InventoryService"


@contextmanager
def watching(server: Server, name: str) -> Iterator[list[str]]:
    """Give the statuses that a watch of a name tells, as they come."""
    told: list[str] = []
    with grpc.insecure_channel(server.address) as channel:
        watch: grpc.UnaryStreamMultiCallable[health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse] = (
            channel.unary_stream(
                "/grpc.health.v1.Health/Watch",
                request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
                response_deserializer=health_pb2.HealthCheckResponse.FromString,
            )
        )
        answers = watch(health_pb2.HealthCheckRequest(service=name))

        def listen() -> None:
            try:
                told.extend(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status) for answer in answers)
            except grpc.RpcError as error:
                told.append(error.code().name)

        listener = threading.Thread(target=listen)
        listener.start()
        try:
            yield told
        finally:
            answers.cancel()
            listener.join()


def listed(told: list[str], *statuses: str) -> None:
    eventually(lambda: told == list(statuses), within=20, otherwise=lambda: f"{told} were told, not {statuses}")


def test_all_names_are_serving_and_others_unknown(server: Server) -> None:
    for name in ("", SERVICE, "postgresql", "redis", "liveness"):
        assert server.health(name) == "SERVING"
    assert server.health("inventory.v1.Other") == "NOT_FOUND"
    with watching(server, "inventory.v1.Other") as told:
        listed(told, "SERVICE_UNKNOWN")


def test_without_the_database_it_is_not_serving_until_that_is_back(
    private_postgres: EmbeddedPostgres, redis_url: str, serve: Serve
) -> None:
    server = serve(private_postgres.url, redis_url, pool_timeout="200ms")
    with watching(server, "") as all_told, watching(server, SERVICE) as told:
        listed(told, "SERVING")
        private_postgres.kill()
        listed(told, "SERVING", "NOT_SERVING")
        assert [server.health(name) for name in ("", "postgresql", "redis", "liveness")] == [
            "NOT_SERVING",
            "NOT_SERVING",
            "SERVING",
            "SERVING",
        ]
        private_postgres.start()
        listed(told, "SERVING", "NOT_SERVING", "SERVING")
        listed(all_told, *told)


def test_without_redis_it_is_serving_all_the_same(
    database_url: str, private_redis: EmbeddedRedis, serve: Serve
) -> None:
    server = serve(database_url, private_redis.url)
    with watching(server, "redis") as redis, watching(server, "") as told, watching(server, SERVICE) as service:
        listed(redis, "SERVING")
        private_redis.kill()
        listed(redis, "SERVING", "NOT_SERVING")
        private_redis.start()
        listed(redis, "SERVING", "NOT_SERVING", "SERVING")
        assert told == service == ["SERVING"]


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
def test_reflection_lists_the_services_and_describes_ours_with_its_json_names(
    channel: grpc.Channel, version: str
) -> None:
    reflect: Reflect = channel.stream_stream(
        f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )
    questions = [
        reflection_pb2.ServerReflectionRequest(list_services=""),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol=SERVICE),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol="google.rpc.ErrorInfo"),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol=f"{SERVICE}.ReserveStock"),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol="nobody.knows.This"),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol=f"{SERVICE}.NobodyKnowsThis"),
    ]
    services, ours, details, method, *unknown = reflect(iter(questions), timeout=10)
    assert {SERVICE, "grpc.health.v1.Health"} <= {each.name for each in services.list_services_response.service}
    files = [FileDescriptorProto.FromString(file) for file in ours.file_descriptor_response.file_descriptor_proto]
    (file,) = [file for file in files if file.package == "inventory.v1"]
    assert "ReserveStock" in [method.name for method in file.service[0].method]
    (stock,) = [message for message in file.message_type if message.name == "Stock"]
    assert "availableQuantity" in [field.json_name for field in stock.field]
    assert details.file_descriptor_response.file_descriptor_proto
    assert method.file_descriptor_response == ours.file_descriptor_response
    assert [each.error_response.error_code for each in unknown] == [grpc.StatusCode.NOT_FOUND.value[0]] * 2
