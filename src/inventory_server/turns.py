"""Turns: how many statements of bulk calls are under way at once, and how many such calls may wait."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from inventory_server.errors import Overloaded

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence

Item = TypeVar("Item")
Value = TypeVar("Value")

# One for PostgreSQL to work on while another is parsed or rendered here.
_WIDTH = 2
_CALLS_MAX = 64


class Turns:
    """What bulk calls of one kind wait for: each before every statement, so that those of a long one let others by."""

    def __init__(self) -> None:
        self._slots = asyncio.Semaphore(_WIDTH)
        self.calls = 0

    @contextmanager
    def call(self) -> Iterator[None]:
        """Count a call while it is under way; Overloaded where there are too many."""
        if self.calls >= _CALLS_MAX:
            raise Overloaded
        self.calls += 1
        try:
            yield
        finally:
            self.calls -= 1

    def taking(
        self, run: Callable[[Sequence[Item]], Awaitable[Sequence[Value]]], deadline: float | None
    ) -> Callable[[Sequence[Item]], Awaitable[Sequence[Value]]]:
        """Let each run wait for its turn; TimeoutError where the deadline (in the loop's time) has passed by then."""

        async def take(items: Sequence[Item]) -> Sequence[Value]:
            async with self._slots:
                if deadline is not None and deadline <= asyncio.get_running_loop().time():
                    raise TimeoutError
                return await run(items)

        return take
