"""A fuzzer that is guided by coverage: what reaches code that nothing reached before is kept and changed further.

The server runs in this very process, instrumented, and is called over the wire. The first byte of an input chooses the
RPC, the rest is its request. `test_guided.py` runs it:

    python -m tests.hostile.guided DATABASE_URL REDIS_URL DIRECTORY RUNS
"""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import atheris
import grpc
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message_factory import GetMessageClass
from tests.hostile.answers import METHODS, ask

from inventory_client import InventoryClient

with atheris.instrument_imports(include=["inventory_server"]):  # type: ignore[attr-defined]
    from inventory_server.app import operations
    from inventory_server.cache import ReservationCache
    from inventory_server.embedded.process import free_port
    from inventory_server.postgres.database import Database
    from inventory_server.postgres.migrate import migrate
    from inventory_server.rpc import boundary
    from inventory_server.rpc.listening import bind, build
    from inventory_server.settings import Settings

if TYPE_CHECKING:
    from google.protobuf.descriptor import Descriptor
    from google.protobuf.message import Message

ALL = list(METHODS.values())
INPUT_BYTES_MAX = 400
START_SECONDS_MAX = 30.0


class Tracebacks(logging.Handler):
    """What the server logged with a traceback, which no request may bring about."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.seen: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info:
            self.seen.append(record.getMessage())


async def serve(address: str, database_url: str, redis_url: str, ready: threading.Event) -> None:
    settings = Settings()
    database = Database(database_url, settings, size=settings.pool_size, name="rpc")
    await database.open()
    server = build(settings)
    bind(server, address)
    *_, servicers = operations(database, database_url, ReservationCache(redis_url, settings), settings)
    boundary.register(server, servicers, None, metered=True)
    await server.start()
    ready.set()
    await server.wait_for_termination()


def filled(kind: Descriptor, known: dict[str, str]) -> Message:
    """Make a request that gets far, for the fuzzer to begin with."""
    message = GetMessageClass(kind)()
    for field in kind.fields:
        value: Any = 1
        if field.message_type is not None:
            value = filled(field.message_type, known)
        elif field.type == FieldDescriptor.TYPE_STRING:
            value = known.get(field.name) or (str(uuid4()) if field.name.endswith("_id") else "")
        if field.is_repeated:
            getattr(message, field.name).append(value)
        elif field.message_type is not None:
            getattr(message, field.name).CopyFrom(value)
        else:
            setattr(message, field.name, value)
    return message


def stock_up(address: str) -> dict[str, str]:
    with InventoryClient(address) as client:
        client.initialize_stock("teapot", 10**6)
        hold = client.reserve_stock("teapot", "order", 1)
    return {"product_id": "teapot", "order_id": "order", "reservation_id": hold.reservation_id}


def plant(directory: Path, known: dict[str, str]) -> list[str]:
    """Write down what to begin with, and words to try; give the arguments that say where."""
    seeds, words = directory / "seeds", directory / "words"
    seeds.mkdir()
    for number, method in enumerate(ALL):
        for name, of in {"known": known, "unknown": {}}.items():
            body = filled(method.input_type, of).SerializeToString()
            (seeds / f"{method.name}-{name}").write_bytes(bytes([number]) + body)
    words.write_text("".join(f'"{word}"\n' for word in (*known.values(), str(uuid4()))))
    return [str(seeds), f"-dict={words}", f"-artifact_prefix={directory}/"]


def main() -> None:
    database_url, redis_url, directory, runs = sys.argv[1:]
    tracebacks = Tracebacks()
    logging.getLogger().addHandler(tracebacks)
    migrate(database_url)
    address, ready = f"127.0.0.1:{free_port()}", threading.Event()
    serving = serve(address, database_url, redis_url, ready)
    threading.Thread(target=asyncio.run, args=[serving], daemon=True).start()
    if not ready.wait(START_SECONDS_MAX):
        sys.exit("the server did not start")
    where = plant(Path(directory), stock_up(address))
    channel = grpc.insecure_channel(address)

    def send(data: bytes) -> None:
        if data:
            ask(channel, ALL[data[0] % len(ALL)], data[1:])
            assert not tracebacks.seen, tracebacks.seen

    atheris.Setup([sys.argv[0], f"-runs={runs}", f"-max_len={INPUT_BYTES_MAX}", "-use_value_profile=1", *where], send)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
