"""One process of clients: many tasks that use the whole API, retry under one id, and write down every answer.

    python -m tests.soak.workload --index 0 --targets 127.0.0.1:1,127.0.0.1:2 --directory ... --begin T --until T ...

Products live for an era of some seconds, so that the history of each is short enough for the linearizability checker,
and have few units, so that requests collide.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import time
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.soak.history import Call, Recorder
from tests.soak.requests import Request, send, send_bulk

from inventory_client import (
    AsyncInventoryClient,
    ClientConfig,
    InsufficientStock,
    InventoryError,
    ProductNotFound,
    RetryPolicy,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

ERA_SECONDS = 6.0
PRODUCTS = 6
ATTEMPT_SECONDS = 1.5
# How long a client keeps asking for an answer: longer than any fault lasts, and a restart after it.
PATIENCE_SECONDS = 45.0
RETRY_SECONDS = (0.02, 0.3)
THINK_SECONDS = (0.0, 0.05)
TTLS = (1, 1, 1, 2, 30)
REMEMBERED = 24

_CHOICES = {
    "reserve": 26,
    "settle": 24,
    "reserve_order": 7,
    "settle_order": 6,
    "settle_at_expiry": 6,
    "extend": 5,
    "add": 5,
    "adjust": 5,
    "get_stock": 8,
    "batch_get": 3,
    "get_reservation": 5,
    "reserve_many": 4,
    "settle_many": 4,
    "repeat": 4,
    "twice_at_once": 3,
}


class Era:
    """The products of some seconds, and what this process did to them."""

    def __init__(self, number: int) -> None:
        self.products = [f"teapot-{number}-{index}" for index in range(PRODUCTS)]
        self.holds: deque[dict[str, Any]] = deque(maxlen=REMEMBERED)
        self.orders: deque[str] = deque(maxlen=REMEMBERED)
        self.done: deque[Request] = deque(maxlen=REMEMBERED)
        self.versions: dict[str, int] = {}

    def learn(self, request: Request, answer: dict[str, Any]) -> None:
        """Remember what may be settled, expected or repeated."""
        for stock in answer.get("stocks", ()):
            self.versions[stock["product"]] = stock["version"]
        if request.kind in {"reserve", "reserve_order"}:
            self.holds.extend(answer["holds"])
            self.orders.append(request.asked["order"])
        self.done.append(request)


class Shopper:
    """One task: makes one request after the other until its time is up."""

    def __init__(
        self, name: str, clients: Sequence[AsyncInventoryClient], recorder: Recorder, rng: random.Random
    ) -> None:
        self._name = name
        self._clients = clients
        self._recorder = recorder
        self._rng = rng
        self._era = Era(-1)

    async def run(self, eras: dict[int, Era], begin: float, until: float) -> None:
        while time.monotonic() < until:
            number = int((time.monotonic() - begin) / ERA_SECONDS)
            era = eras.setdefault(number, Era(number))
            if era is not self._era:
                self._era = era
                for product in era.products:
                    await self._make(Request("initialize", {"product": product, "quantity": self._rng.randint(5, 30)}))
                continue
            (choice,) = self._rng.choices(list(_CHOICES), list(_CHOICES.values()))
            await getattr(self, f"_do_{choice}")()
            await asyncio.sleep(self._rng.uniform(*THINK_SECONDS))

    async def _do_reserve(self) -> None:
        request = self._reserve()
        if self._rng.random() < 0.1:
            request.asked["wait"] = 0.3
        await self._make(request)

    async def _do_settle(self) -> None:
        if self._era.holds:
            await self._make(self._settlement())

    async def _do_settle_at_expiry(self) -> None:
        """Ask for a hold within a few milliseconds of its end, before or after."""
        made = await self._make(Request("reserve", self._reserve().asked | {"ttl": 1}))
        if made.answer is None:
            return
        (hold,) = made.answer["holds"]
        await asyncio.sleep(max(0.0, hold["expires_at"] - time.time() + self._rng.uniform(-0.01, 0.03)))
        kind = self._rng.choice(["deduct", "deduct", "late_deduct", "extend"])
        await self._make(Request(kind, {"hold": hold["hold"]} | ({"ttl": 1} if kind == "extend" else {})))

    async def _do_reserve_order(self) -> None:
        products = self._rng.sample(self._era.products, self._rng.randint(1, 3))
        lines = [[product, self._rng.randint(1, 4)] for product in products]
        if self._rng.random() < 0.3:
            lines.append([products[0], 1])
        await self._make(Request("reserve_order", {"order": self._order(), "lines": lines, "ttl": self._ttl()}))

    async def _do_settle_order(self) -> None:
        if self._era.orders:
            kind = self._rng.choice(["release_order", "deduct_order", "late_deduct_order", "extend_order"])
            asked = {"order": self._rng.choice(self._era.orders)}
            await self._make(Request(kind, asked | ({"ttl": self._ttl()} if kind == "extend_order" else {})))

    async def _do_extend(self) -> None:
        if self._era.holds:
            hold = self._rng.choice(self._era.holds)["hold"]
            await self._make(Request("extend", {"hold": hold, "ttl": self._ttl()}))

    async def _do_add(self) -> None:
        await self._make(Request("add", {"product": self._product(), "quantity": self._rng.randint(1, 6)}))

    async def _do_adjust(self) -> None:
        product = self._product()
        asked = {"product": product, "delta": self._rng.choice([-4, -2, -1, 1, 2])}
        if product in self._era.versions and self._rng.random() < 0.5:
            asked["version"] = self._era.versions[product]
        await self._make(Request("adjust", asked))

    async def _do_get_stock(self) -> None:
        await self._attempt([Request("get_stock", {"product": self._product()})])

    async def _do_batch_get(self) -> None:
        await self._attempt([Request("batch_get", {"products": self._rng.sample(self._era.products, 3)})])

    async def _do_get_reservation(self) -> None:
        if self._era.holds:
            await self._attempt([Request("get_reservation", {"hold": self._rng.choice(self._era.holds)["hold"]})])

    async def _do_reserve_many(self) -> None:
        await self._make_all([self._reserve() for _ in range(self._rng.randint(2, 5))])

    async def _do_settle_many(self) -> None:
        if self._era.holds:
            await self._make_all([self._settlement() for _ in range(self._rng.randint(2, 4))])

    async def _do_repeat(self) -> None:
        """Send once more what was acknowledged some time ago, or something else under its id."""
        if not self._era.done:
            return
        request = self._rng.choice(self._era.done)
        if request.kind in {"reserve", "add"} and self._rng.random() < 0.3:
            other = request.asked | {"kind": request.kind, "quantity": request.asked["quantity"] + 1}
            await self._attempt([Request("conflict", other, request.request_id)])
        else:
            await self._make(request)

    async def _do_twice_at_once(self) -> None:
        """Send one request to both servers at once, as an impatient proxy does."""
        request = self._settlement() if self._era.holds and self._rng.random() < 0.5 else self._reserve()
        await asyncio.gather(*[self._attempt([request], client) for client in self._clients])
        await self._make(request)

    def _reserve(self) -> Request:
        return Request(
            "reserve",
            {
                "product": self._product(),
                "order": self._order(),
                "quantity": self._rng.randint(1, 4),
                "ttl": self._ttl(),
            },
        )

    def _settlement(self) -> Request:
        (kind,) = self._rng.choices(["release", "deduct", "late_deduct"], [3, 4, 2])
        return Request(kind, {"hold": self._rng.choice(self._era.holds)["hold"]})

    def _product(self) -> str:
        """Pick a product; the first ones are hot."""
        return self._era.products[min(int(self._rng.expovariate(0.6)), PRODUCTS - 1)]

    def _order(self) -> str:
        return f"order-{self._rng.getrandbits(48):x}"

    def _ttl(self) -> int:
        return self._rng.choice(TTLS)

    async def _make(self, request: Request) -> Call:
        """Send a mutation until it has an answer or patience ends."""
        (call,) = await self._make_all([request], bulk=False)
        return call

    async def _make_all(self, requests: Sequence[Request], *, bulk: bool = True) -> list[Call]:
        patience = time.monotonic() + PATIENCE_SECONDS
        while True:
            calls = await self._attempt(requests, bulk=bulk)
            for request, call in zip(requests, calls, strict=True):
                if call.answer is not None:
                    self._era.learn(request, call.answer)
            if not any(call.unknown for call in calls) or time.monotonic() > patience:
                return calls
            # Those that were answered are repeated beside the others: they must answer the same again.
            await asyncio.sleep(self._rng.uniform(*RETRY_SECONDS))

    async def _attempt(
        self, requests: Sequence[Request], client: AsyncInventoryClient | None = None, *, bulk: bool = False
    ) -> list[Call]:
        """Send once, to either server, and write down what came of it."""
        client = client or self._rng.choice(self._clients)
        outcomes: Sequence[dict[str, Any] | InventoryError]
        start = time.monotonic()
        try:
            outcomes = await (send_bulk(client, requests) if bulk else _send_one(client, requests[0]))
        except InventoryError as error:
            outcomes = [error] * len(requests)
        end = time.monotonic()
        calls = [self._call(each, start, end, outcome) for each, outcome in zip(requests, outcomes, strict=True)]
        for call in calls:
            self._recorder.write(call)
        return calls

    def _call(self, request: Request, start: float, end: float, outcome: dict[str, Any] | InventoryError) -> Call:
        about = (self._name, request.kind, request.request_id, request.asked, start, end)
        if isinstance(outcome, InventoryError):
            return Call(*about, reason=outcome.reason, told=_told(outcome))
        return Call(*about, answer=outcome)


async def _send_one(client: AsyncInventoryClient, request: Request) -> list[dict[str, Any] | InventoryError]:
    return [await send(client, request)]


def _told(error: InventoryError) -> dict[str, Any]:
    told: dict[str, Any] = dict(error.metadata)
    if isinstance(error, (InsufficientStock, ProductNotFound)) and error.lines:
        told["lines"] = [list(line) for line in error.lines]
    return told


async def work(options: argparse.Namespace) -> None:
    eras: dict[int, Era] = {}
    config = [
        ClientConfig(target=target, timeout=ATTEMPT_SECONDS, retry=RetryPolicy(attempts=1))
        for target in options.targets.split(",")
    ]
    clients = [AsyncInventoryClient(config=each) for each in config]
    try:
        with (options.directory / f"history-{options.index}.jsonl").open("w") as file:
            shoppers = [
                Shopper(
                    f"{options.index}.{task}",
                    clients,
                    Recorder(file),
                    random.Random(f"{options.seed} {options.index} {task}"),  # noqa: S311 - to be repeatable
                )
                for task in range(options.tasks)
            ]
            await asyncio.gather(*[shopper.run(eras, options.begin, options.until) for shopper in shoppers])
    finally:
        for client in clients:
            await client.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--index", type=int, required=True)
    parser.add_argument("--tasks", type=int, required=True)
    parser.add_argument("--seed", required=True)
    parser.add_argument("--targets", required=True)
    parser.add_argument("--directory", type=Path, required=True)
    parser.add_argument("--begin", type=float, required=True)
    parser.add_argument("--until", type=float, required=True)
    asyncio.run(work(parser.parse_args()))


if __name__ == "__main__":
    main()
