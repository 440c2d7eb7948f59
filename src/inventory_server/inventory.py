"""The operations as a servicer calls them: lanes before the repository, the cache beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

from inventory_server.batcher import Lane
from inventory_server.errors import InternalError, InventoryError
from inventory_server.postgres.repository import StockBusy, refusal

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Hashable, Sequence

    from inventory_server.cache import ReservationCache
    from inventory_server.domain import Add, Initialize, Initialized, Order, Reservation, Settle, Stock
    from inventory_server.postgres.database import BadItem
    from inventory_server.postgres.repository import Repository
    from inventory_server.settings import Settings

Item = TypeVar("Item")
Value = TypeVar("Value")

# Expired units that somebody else is tidying up are free once that statement ends; each try waits for its row lock.
_BUSY_ATTEMPTS = 5


class _Lookup(NamedTuple):
    """A hold to read, with the copy that the cache has."""

    reservation_id: str
    copy: Reservation | None


class _Lanes(Generic[Item, Value]):
    """Lanes of one operation that share out the products, so that no two batches wait for one stock row."""

    def __init__(self, lanes: list[Lane[Item, Value]]) -> None:
        self._lanes = lanes

    async def submit(self, product_id: str, item: Item, deadline: float | None) -> Value:
        return await self._lanes[hash(product_id) % len(self._lanes)].submit(item, deadline)


class Inventory:
    """All operations. Each raises the InventoryError that its request gets; `deadline` is in the loop's time."""

    def __init__(self, repository: Repository, cache: ReservationCache, settings: Settings) -> None:
        self._repository = repository
        self._cache = cache
        self._settings = settings
        self._initialize: Lane[Initialize, Initialized] = self._lane(repository.initialize, _product_id)
        self._stock: Lane[str, Stock] = self._lane(repository.stock, str)
        self._copies: Lane[str, Reservation | None] = self._lane(self._find_copies, str)
        self._reservations: Lane[_Lookup, Reservation] = self._lane(self._read_reservations, _reservation_id)
        self._add: _Lanes[Add, Stock] = self._lanes(repository.add, _request_id)
        self._reserve: _Lanes[Order, tuple[Reservation, ...]] = self._lanes(
            repository.reserve, _request_id, self._remember
        )
        self._settle: _Lanes[Settle, Reservation] = self._lanes(repository.settle, _reservation_id, self._forget)

    async def initialize(self, item: Initialize, deadline: float | None = None) -> Initialized:
        return await self._initialize.submit(item, deadline)

    async def stock(self, product_id: str, deadline: float | None = None) -> Stock:
        return await self._stock.submit(product_id, deadline)

    async def add(self, item: Add, deadline: float | None = None) -> Stock:
        return await self._add.submit(item.product_id, item, deadline)

    async def reserve(self, order: Order, deadline: float | None = None) -> tuple[Reservation, ...]:
        product_id = order.lines[0].product_id
        for _ in range(_BUSY_ATTEMPTS - 1):
            try:
                return await self._reserve.submit(product_id, order, deadline)
            except StockBusy:
                continue
        return await self._reserve.submit(product_id, order, deadline)

    async def settle(self, item: Settle, deadline: float | None = None) -> Reservation:
        """End a hold. The product that the cache knows of it picks the lane; a wrong one is only slower."""
        copy = await self._copy(item.reservation_id, deadline)
        return await self._settle.submit(copy.product_id if copy else item.reservation_id, item, deadline)

    async def reservation(self, reservation_id: str, deadline: float | None = None) -> Reservation:
        """Read a hold. PostgreSQL sends only what differs from the cache's copy, so a stale one never gets out."""
        copy = await self._copy(reservation_id, deadline)
        return await self._reservations.submit(_Lookup(reservation_id, copy), deadline)

    async def _copy(self, reservation_id: str, deadline: float | None) -> Reservation | None:
        return await self._copies.submit(reservation_id, deadline) if self._cache.usable else None

    async def _find_copies(self, reservation_ids: Sequence[str]) -> list[Reservation | None]:
        found = await self._cache.find(reservation_ids)
        return [found.get(reservation_id) for reservation_id in reservation_ids]

    async def _read_reservations(self, items: Sequence[_Lookup]) -> list[Reservation | InventoryError]:
        copies = {item.reservation_id: item.copy for item in items if item.copy is not None}
        return await self._repository.reservations([item.reservation_id for item in items], copies)

    async def _remember(self, orders: Sequence[tuple[Reservation, ...]]) -> None:
        await self._cache.put([reservation for order in orders for reservation in order])

    async def _forget(self, reservations: Sequence[Reservation]) -> None:
        await self._cache.forget([reservation.reservation_id for reservation in reservations])

    def _lanes(
        self,
        run: Callable[[Sequence[Item]], Awaitable[Sequence[Value | InventoryError]]],
        key: Callable[[Item], Hashable],
        after: Callable[[Sequence[Value]], Awaitable[None]] | None = None,
    ) -> _Lanes[Item, Value]:
        return _Lanes([self._lane(run, key, after) for _ in range(self._settings.lanes)])

    def _lane(
        self,
        run: Callable[[Sequence[Item]], Awaitable[Sequence[Value | InventoryError]]],
        key: Callable[[Item], Hashable],
        after: Callable[[Sequence[Value]], Awaitable[None]] | None = None,
    ) -> Lane[Item, Value]:
        return Lane(
            run,
            key=key,
            refusal=_refusal,
            after=after if self._cache.enabled else None,
            batch_size=self._settings.batch_size,
            queue_size=self._settings.queue_size,
        )


def _product_id(item: Initialize) -> str:
    return item.product_id


def _request_id(item: Add | Order) -> str:
    return item.request_id


def _reservation_id(item: Settle | _Lookup) -> str:
    return item.reservation_id


def _refusal(item: object, bad: BadItem) -> InventoryError:
    request_id = getattr(item, "request_id", None)
    return InternalError() if request_id is None else refusal(request_id, bad)
