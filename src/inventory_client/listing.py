"""Listings, for threads and for asyncio."""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    from inventory_client.models import Page

T = TypeVar("T")


class Listing(Iterable[T]):
    """Everything that a listing has: iterate over it, as often as you like, and pages are fetched on the way.

    What changes meanwhile is seen or not; nothing that stays is skipped or comes twice.
    """

    def __init__(self, turn: Callable[[str], Page[T]]) -> None:
        self._turn = turn

    def page(self, page_token: str = "") -> Page[T]:
        """Fetch one page: the first, or the one that a `next_page_token` asks for."""
        return self._turn(page_token)

    def __iter__(self) -> Iterator[T]:
        page = self.page()
        yield from page
        while page.next_page_token:
            page = self.page(page.next_page_token)
            yield from page


class AsyncListing(AsyncIterable[T]):
    """Everything that a listing has: iterate over it, as often as you like, and pages are fetched on the way.

    What changes meanwhile is seen or not; nothing that stays is skipped or comes twice.
    """

    def __init__(self, turn: Callable[[str], Awaitable[Page[T]]]) -> None:
        self._turn = turn

    async def page(self, page_token: str = "") -> Page[T]:
        """Fetch one page: the first, or the one that a `next_page_token` asks for."""
        return await self._turn(page_token)

    async def __aiter__(self) -> AsyncIterator[T]:
        page = await self.page()
        for item in page:
            yield item
        while page.next_page_token:
            page = await self.page(page.next_page_token)
            for item in page:
                yield item
