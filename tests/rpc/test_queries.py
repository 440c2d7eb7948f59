"""Listings, page by page, over the wire: each row once, whatever changes meanwhile."""

from __future__ import annotations

import base64
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import grpc
import psycopg
import pytest
from google.protobuf.duration_pb2 import Duration
from tests.fixtures.refusals import check_wire
from tests.fixtures.shop import expire, fresh

from inventory_client.proto.inventory.v1 import inventory_pb2 as pb
from inventory_client.proto.inventory.v1.inventory_pb2_grpc import InventoryServiceStub

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.fixtures.serving import Serve, Server

RESERVED, RELEASED, DEDUCTED = (
    pb.RESERVATION_STATUS_RESERVED,
    pb.RESERVATION_STATUS_RELEASED,
    (pb.RESERVATION_STATUS_DEDUCTED),
)
# The quantities at which the low-stock listing changes shelves.
SHELVES = [1, 2, 3, 6, 11, 21, 51, 101, 201, 501, 1001, 2001, 5001, 10001]
HOUR = Duration(seconds=3600)
UUID_TEXT = "01980c6e-7f4c-7c3e-9d2a-5b8f6a1e0c47"


@pytest.fixture
def calm_stub(calm_server: Server) -> Iterator[InventoryServiceStub]:
    with grpc.insecure_channel(calm_server.address) as channel:
        yield InventoryServiceStub(channel)


@pytest.fixture
def own_stub(serve: Serve, database_url: str) -> Iterator[InventoryServiceStub]:
    """A server on a database that has nothing in it."""
    with grpc.insecure_channel(serve(database_url, expiry=False).address) as channel:
        yield InventoryServiceStub(channel)


def stocked(stub: InventoryServiceStub, quantity: int = 1000, product_id: str | None = None) -> str:
    product_id = product_id or fresh()
    stub.InitializeStock(pb.InitializeStockRequest(product_id=product_id, quantity=quantity))
    return product_id


def held(stub: InventoryServiceStub, product_id: str, count: int, order_id: str = "order") -> list[str]:
    """Hold one unit so many times, under ids that lie anywhere, and give the ids in their order."""
    items = [
        pb.ReserveStockRequest(product_id=product_id, order_id=order_id, quantity=1, ttl=HOUR, request_id=str(uuid4()))
        for _ in range(count)
    ]
    done = stub.BatchReserveStock(pb.BatchReserveStockRequest(items=items))
    return sorted(outcome.reservation.reservation_id for outcome in done.outcomes)


def settle(stub: InventoryServiceStub, ids: list[str], action: pb.SettlementAction.ValueType) -> None:
    items = [pb.Settlement(reservation_id=reservation_id, action=action) for reservation_id in ids]
    outcomes = stub.BatchSettleReservations(pb.BatchSettleReservationsRequest(items=items)).outcomes
    assert all(outcome.HasField("reservation") for outcome in outcomes)


def pages(call: Callable[..., Any], request: Any, size: int) -> Iterator[Any]:
    request.page_size = size
    while True:
        answer = call(request)
        yield answer
        if not answer.next_page_token:
            return
        assert answer.next_page_token != request.page_token
        request.page_token = answer.next_page_token


def stock_ids(stub: InventoryServiceStub, size: int, **fields: Any) -> list[str]:
    found = pages(stub.ListStock, pb.ListStockRequest(**fields), size)
    return [stock.product_id for page in found for stock in page.stock]


def hold_ids(stub: InventoryServiceStub, size: int, **fields: Any) -> list[str]:
    found = pages(stub.ListReservations, pb.ListReservationsRequest(**fields), size)
    return [hold.reservation_id for page in found for hold in page.reservations]


def refuse(call: Callable[..., Any], request: Any, reason: str, field: str) -> None:
    with pytest.raises(grpc.RpcError) as raised:
        call(request)
    check_wire(raised.value, reason, {"http_status": "400", "fields": field})


@contextmanager
def running(*loops: Callable[[], object]) -> Iterator[None]:
    """Repeat calls in a thread each until the block ends or they give False; what one raises, the block raises."""
    stop = threading.Event()

    def repeat(loop: Callable[[], object]) -> None:
        while not stop.is_set() and loop() is not False:
            pass

    with ThreadPoolExecutor(len(loops)) as pool:
        futures = [pool.submit(repeat, loop) for loop in loops]
        try:
            yield
        finally:
            stop.set()
        for future in futures:
            future.result()


def test_stock_is_listed_in_the_order_of_the_product_ids(own_stub: InventoryServiceStub) -> None:
    names = ["Z", "a", "a b", "a-b", "ab", "é", "😀"]
    for name in reversed(names):
        stocked(own_stub, product_id=name)
    for size in (1, 3, 7, 8, 1000):
        assert stock_ids(own_stub, size) == names


def test_a_record_in_a_list_is_the_record_itself_as_it_is_now(own_stub: InventoryServiceStub) -> None:
    product_id = stocked(own_stub, 9)
    assert stock_ids(own_stub, 10, max_available=7) == []
    held(own_stub, product_id, 2)
    (listed,) = own_stub.ListStock(pb.ListStockRequest(max_available=7)).stock
    assert listed == own_stub.GetStock(pb.GetStockRequest(product_id=product_id)).stock
    assert (listed.available_quantity, listed.reserved_quantity) == (7, 2)


def test_a_page_has_a_hundred_rows_unless_asked_for_more_or_less(own_stub: InventoryServiceStub) -> None:
    product_id = stocked(own_stub)
    ids = held(own_stub, product_id, 150)
    request = pb.ListReservationsRequest(product_id=product_id)
    assert [hold.reservation_id for hold in own_stub.ListReservations(request).reservations] == ids[:100]
    request.page_size = 1000
    answer = own_stub.ListReservations(request)
    assert ([hold.reservation_id for hold in answer.reservations], answer.next_page_token) == (ids, "")


def test_low_stock_is_what_has_so_many_units_or_fewer(own_stub: InventoryServiceStub) -> None:
    quantities = sorted({0, 10**12, *(shelf + step for shelf in SHELVES for step in (-1, 0, 1))})
    for number, quantity in enumerate(quantities):
        # Ids that have nothing to do with the quantities.
        stocked(own_stub, quantity, product_id=f"{number * 37 % 101:03}-{quantity}")
    for limit in (*quantities, 2**63 - 1):
        expected = sorted(stock_ids(own_stub, 1000), key=str)
        expected = [name for name in expected if int(name.partition("-")[2]) <= limit]
        assert stock_ids(own_stub, 1000, max_available=limit) == expected
    assert stock_ids(own_stub, 2, max_available=500) == [
        name for name in sorted(stock_ids(own_stub, 1000)) if int(name.partition("-")[2]) <= 500
    ]


def test_low_stock_is_found_behind_many_that_have_a_little_more(
    own_stub: InventoryServiceStub, database_url: str
) -> None:
    with psycopg.connect(database_url) as connection:
        connection.execute(
            "SELECT count(*) FROM (SELECT array_agg('m' || n) AS products, array_agg(10::bigint) AS quantities,"
            " array_agg(gen_random_uuid()) AS requests FROM generate_series(1, 5000) n) new"
            " CROSS JOIN LATERAL inventory_initialize_v1(products, quantities, requests)"
        )
    low = [stocked(own_stub, 6, product_id=name) for name in ("a", "m2500-", "z")]
    assert stock_ids(own_stub, 2, max_available=6) == low


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_holds_of_an_order_or_of_a_product_are_listed_by_id(stub: InventoryServiceStub, size: int) -> None:
    one, other, order_id = stocked(stub), stocked(stub), fresh("order")
    mine = held(stub, one, 5, order_id), held(stub, other, 4, order_id)
    strangers = held(stub, one, 3, fresh("order"))
    assert hold_ids(stub, size, order_id=order_id) == sorted(mine[0] + mine[1])
    assert hold_ids(stub, size, product_id=one) == sorted(mine[0] + strangers)


@pytest.mark.parametrize("size", [1, 2, 1000])
@pytest.mark.parametrize("by", ["order_id", "product_id"])
def test_holds_are_listed_by_where_they_stand(stub: InventoryServiceStub, by: str, size: int) -> None:
    key = {"product_id": stocked(stub), "order_id": fresh("order")}
    ids = held(stub, key["product_id"], 9, key["order_id"])
    released, deducted = ids[0::3], ids[1::3]
    settle(stub, released, pb.SETTLEMENT_ACTION_RELEASE)
    settle(stub, deducted, pb.SETTLEMENT_ACTION_DEDUCT)
    of: dict[str, Any] = {by: key[by]}
    assert hold_ids(stub, size, **of) == ids
    assert hold_ids(stub, size, status=RESERVED, **of) == ids[2::3]
    assert hold_ids(stub, size, status=RELEASED, **of) == released
    assert hold_ids(stub, size, status=DEDUCTED, **of) == deducted


def test_a_hold_in_a_list_is_the_hold_itself(stub: InventoryServiceStub) -> None:
    product_id = stocked(stub)
    ids = held(stub, product_id, 3)
    settle(stub, ids[:1], pb.SETTLEMENT_ACTION_RELEASE)
    listed = stub.ListReservations(pb.ListReservationsRequest(product_id=product_id)).reservations
    asked = [stub.GetReservation(pb.GetReservationRequest(reservation_id=each)).reservation for each in ids]
    assert list(listed) == asked


@pytest.mark.parametrize("size", [1, 4, 1000])
@pytest.mark.parametrize("by", ["order_id", "product_id"])
def test_a_hold_past_its_expiry_is_listed_as_released_before_anybody_tidied_it_up(
    calm_stub: InventoryServiceStub, calm_server: Server, by: str, size: int
) -> None:
    key = {"product_id": stocked(calm_stub), "order_id": fresh("order")}
    ids = held(calm_stub, key["product_id"], 12, key["order_id"])
    settle(calm_stub, ids[1::3], pb.SETTLEMENT_ACTION_RELEASE)
    expire(calm_server.database_url, *ids[2::3])
    of: dict[str, Any] = {by: key[by]}
    assert hold_ids(calm_stub, size, status=RESERVED, **of) == ids[0::3]
    assert hold_ids(calm_stub, size, status=RELEASED, **of) == sorted(ids[1::3] + ids[2::3])
    every = calm_stub.ListReservations(pb.ListReservationsRequest(**of)).reservations
    assert [hold.release_reason for hold in every] == [
        pb.RELEASE_REASON_UNSPECIFIED,
        pb.RELEASE_REASON_REQUESTED,
        pb.RELEASE_REASON_EXPIRED,
    ] * 4


def test_a_released_hold_is_found_behind_thousands_that_are_live(own_stub: InventoryServiceStub) -> None:
    product_id, order_id = stocked(own_stub, 10_000), "order"
    ids = sorted(each for _ in range(4) for each in held(own_stub, product_id, 1000, order_id))
    settle(own_stub, [ids[0], ids[-1]], pb.SETTLEMENT_ACTION_RELEASE)
    of: dict[str, Any]
    for of in ({"product_id": product_id}, {"order_id": order_id}):
        assert hold_ids(own_stub, 1, status=RELEASED, **of) == [ids[0], ids[-1]]


def test_the_lowest_and_the_highest_of_all_ids_are_listed(own_stub: InventoryServiceStub) -> None:
    product_id = stocked(own_stub)
    ids = [str(UUID(int=0)), str(UUID(int=2**128 - 1))]
    for request_id in ids:
        own_stub.ReserveStock(
            pb.ReserveStockRequest(product_id=product_id, order_id="order", quantity=1, request_id=request_id)
        )
    assert hold_ids(own_stub, 1, product_id=product_id) == hold_ids(own_stub, 1, order_id="order") == ids


def test_nothing_is_an_empty_page(stub: InventoryServiceStub) -> None:
    for request in (
        pb.ListReservationsRequest(order_id=fresh("order")),
        pb.ListReservationsRequest(product_id=fresh(), status=RELEASED),
    ):
        assert stub.ListReservations(request) == pb.ListReservationsResponse()


@pytest.mark.parametrize("size", [1, 2, 3, 1000])
def test_movements_are_listed_newest_first(stub: InventoryServiceStub, size: int) -> None:
    product_id, order_id, request_id = stocked(stub, 5), fresh("order"), str(uuid4())
    stub.AddStock(pb.AddStockRequest(product_id=product_id, quantity=4, reason="delivery", request_id=request_id))
    (hold,) = held(stub, product_id, 1, order_id)
    settle(stub, [hold], pb.SETTLEMENT_ACTION_DEDUCT)
    found = pages(stub.ListMovements, pb.ListMovementsRequest(product_id=product_id), size)
    movements = [movement for page in found for movement in page.movements]
    assert [(m.version, m.kind, m.available_delta, m.reserved_delta) for m in movements] == [
        (4, pb.MOVEMENT_KIND_DEDUCT, 0, -1),
        (3, pb.MOVEMENT_KIND_RESERVE, -1, 1),
        (2, pb.MOVEMENT_KIND_ADD, 4, 0),
        (1, pb.MOVEMENT_KIND_INITIALIZE, 5, 0),
    ]
    sold, made, added, _ = movements
    assert (added.reason, added.request_id, added.reservation_id, added.order_id) == ("delivery", request_id, "", "")
    assert (made.reservation_id, made.order_id, made.reason) == (hold, order_id, "")
    assert (sold.available_after, sold.reserved_after, sold.product_id) == (8, 0, product_id)
    record = stub.GetStock(pb.GetStockRequest(product_id=product_id)).stock
    assert (sold.occurred_at, sold.version) == (record.updated_at, record.version)


def test_movements_of_no_product_are_not_found(stub: InventoryServiceStub) -> None:
    product_id = fresh()
    with pytest.raises(grpc.RpcError) as raised:
        stub.ListMovements(pb.ListMovementsRequest(product_id=product_id))
    check_wire(raised.value, "PRODUCT_NOT_FOUND", {"http_status": "404", "product_id": product_id})


def test_movements_that_are_added_meanwhile_move_no_page(stub: InventoryServiceStub) -> None:
    product_id = stocked(stub)
    for _ in range(6):
        held(stub, product_id, 1)
    versions = []
    for page in pages(stub.ListMovements, pb.ListMovementsRequest(product_id=product_id), 2):
        versions += [movement.version for movement in page.movements]
        held(stub, product_id, 3)
    assert versions == [7, 6, 5, 4, 3, 2, 1]


def test_holds_that_come_change_and_end_meanwhile_make_no_page_skip_or_repeat_another(
    stub: InventoryServiceStub,
) -> None:
    product_id = stocked(stub, 100_000)
    ids = held(stub, product_id, 300)
    changing = iter(ids[::2])

    def come_and_go() -> None:
        settle(stub, held(stub, product_id, 2), pb.SETTLEMENT_ACTION_DEDUCT)

    def end_one() -> bool:
        if hold := next(changing, None):
            settle(stub, [hold], pb.SETTLEMENT_ACTION_RELEASE)
        return hold is not None

    with running(come_and_go, end_one):
        for _ in range(3):
            everything = hold_ids(stub, 20, product_id=product_id)
            assert everything == sorted(set(everything))
            assert set(ids) <= set(everything)
            live = hold_ids(stub, 20, product_id=product_id, status=RESERVED)
            assert live == sorted(set(live))
            assert set(ids[1::2]) <= set(live)


def test_balances_that_move_meanwhile_make_no_page_skip_or_repeat_another(own_stub: InventoryServiceStub) -> None:
    names = [stocked(own_stub, 4, product_id=f"low-{number:03}") for number in range(60)]
    movers = [stocked(own_stub, 30, product_id=f"low-{number:03}-") for number in range(0, 60, 3)]

    def rise_and_fall(step: int) -> Callable[[], None]:
        def change() -> None:
            # Up and down within what is low, across shelves, and for others in and out of it.
            for each in names[step::2]:
                settle(own_stub, held(own_stub, each, 2), pb.SETTLEMENT_ACTION_RELEASE)
            for each in movers[step::2]:
                settle(own_stub, held(own_stub, each, 28), pb.SETTLEMENT_ACTION_RELEASE)

        return change

    with running(rise_and_fall(0), rise_and_fall(1)):
        for _ in range(5):
            listed = stock_ids(own_stub, 3, max_available=5)
            assert listed == sorted(set(listed))
            assert set(names) <= set(listed) <= {*names, *movers}


def test_a_token_belongs_to_its_query(stub: InventoryServiceStub) -> None:
    one, other, order_id = stocked(stub), stocked(stub), fresh("order")
    held(stub, one, 3, order_id)
    stocked(stub)
    holds = stub.ListReservations(pb.ListReservationsRequest(product_id=one, page_size=1)).next_page_token
    ledger = stub.ListMovements(pb.ListMovementsRequest(product_id=one, page_size=1)).next_page_token
    stock = stub.ListStock(pb.ListStockRequest(page_size=1)).next_page_token
    assert all((holds, ledger, stock))
    again = pb.ListReservationsRequest(product_id=one, page_size=2, page_token=holds)
    assert len(stub.ListReservations(again).reservations) == 2
    refusals: list[tuple[str, list[dict[str, Any]]]] = [
        (holds, [{"product_id": other}, {"order_id": order_id}, {"product_id": one, "status": RESERVED}]),
        (ledger, [{"product_id": one}]),
        (stock, [{"product_id": one}]),
    ]
    for token, wrong in refusals:
        for fields in wrong:
            request = pb.ListReservationsRequest(page_token=token, **fields)
            refuse(stub.ListReservations, request, "VALIDATION_ERROR", "page_token")
    for token, product_id in ((ledger, other), (holds, one), (stock, one)):
        movements = pb.ListMovementsRequest(product_id=product_id, page_token=token)
        refuse(stub.ListMovements, movements, "VALIDATION_ERROR", "page_token")
    for balances in (pb.ListStockRequest(page_token=stock, max_available=5), pb.ListStockRequest(page_token=holds)):
        refuse(stub.ListStock, balances, "VALIDATION_ERROR", "page_token")


def test_a_token_that_is_damaged_or_made_up_is_refused(stub: InventoryServiceStub) -> None:
    stocked(stub)
    stocked(stub)
    token = stub.ListStock(pb.ListStockRequest(page_size=1)).next_page_token
    content = base64.urlsafe_b64decode(token + "==")
    changed = base64.urlsafe_b64encode(content[:-1] + bytes([content[-1] ^ 1])).decode()
    another = base64.urlsafe_b64encode(b"\x02" + content[1:]).decode()
    for bad in ("1", "!", "é", "x" * 100_000, token[:-1], token + "A", "AAAA" + token, changed, another, "AQ", " "):
        refuse(stub.ListStock, pb.ListStockRequest(page_token=bad), "VALIDATION_ERROR", "page_token")


@pytest.mark.parametrize("size", [-1, 1001, 2**31 - 1, -(2**31)])
def test_a_page_has_at_most_a_thousand_rows(stub: InventoryServiceStub, size: int) -> None:
    refuse(stub.ListStock, pb.ListStockRequest(page_size=size), "VALIDATION_ERROR", "page_size")
    holds = pb.ListReservationsRequest(order_id="o", page_size=size)
    refuse(stub.ListReservations, holds, "VALIDATION_ERROR", "page_size")
    ledger = pb.ListMovementsRequest(product_id="p", page_size=size)
    refuse(stub.ListMovements, ledger, "VALIDATION_ERROR", "page_size")


def test_what_to_list_has_to_be_said_rightly(stub: InventoryServiceStub) -> None:
    refuse(stub.ListStock, pb.ListStockRequest(max_available=-1), "VALIDATION_ERROR", "max_available")
    for request, reason, field in (
        (pb.ListReservationsRequest(), "VALIDATION_ERROR", "order_id"),
        (pb.ListReservationsRequest(order_id="o", product_id="p"), "VALIDATION_ERROR", "order_id"),
        (pb.ListReservationsRequest(order_id=" "), "INVALID_ORDER_ID", "order_id"),
        (pb.ListReservationsRequest(product_id=" "), "INVALID_PRODUCT_ID", "product_id"),
        (pb.ListReservationsRequest(product_id="a\0"), "VALIDATION_ERROR", "product_id"),
        (pb.ListReservationsRequest(order_id="o", status=4), "VALIDATION_ERROR", "status"),  # type: ignore[arg-type]
    ):
        refuse(stub.ListReservations, request, reason, field)
    refuse(stub.ListMovements, pb.ListMovementsRequest(), "INVALID_PRODUCT_ID", "product_id")
    refuse(stub.ListMovements, pb.ListMovementsRequest(product_id="x" * 256), "VALIDATION_ERROR", "product_id")
