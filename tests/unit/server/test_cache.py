"""What Redis says may be anything at all: a copy of a hold is read from it, or nothing."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inventory_server.cache import _decoded, _encoded
from inventory_server.domain import Reservation

unhurried = settings(deadline=None)  # however busy the machine is
HOLD = "01980c6e-7f4c-7c3e-9d2a-5b8f6a1e0c47"
# The years 1 to 9999.
MOMENTS = st.integers(-62_135_596_800_000_000, 253_402_300_799_999_999)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
FIELDS: dict[str, Any] = {
    "reservationId": HOLD,
    "productId": "teapot",
    "orderId": "order",
    "quantity": 3,
    "status": "RESERVED",
    "expiresAt": "2026-01-01T00:10:00Z",
    "createdAt": "2026-01-01T00:00:00.000001Z",
    "updatedAt": "2026-01-01T00:00:00Z",
}


def entry(**changed: Any) -> bytes:
    return json.dumps({name: value for name, value in {**FIELDS, **changed}.items() if value is not ...}).encode()


@unhurried
@given(
    st.builds(
        Reservation,
        st.just(HOLD),
        st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])),
        st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])),
        st.integers(1, 10**12),
        st.just("RESERVED"),
        st.none(),
        MOMENTS,
        MOMENTS,
        MOMENTS,
    )
)
def test_a_hold_comes_back_as_it_went(hold: Reservation) -> None:
    assert _decoded(HOLD, _encoded(hold)) == hold


def test_an_entry_is_the_documented_json() -> None:
    hold = Reservation(HOLD, "teapot", "order", 3, "RESERVED", None, *(1_767_225_600_000_000,) * 3)
    moment = "2026-01-01T00:00:00Z"
    assert json.loads(_encoded(hold)) == FIELDS | dict.fromkeys(("expiresAt", "createdAt", "updatedAt"), moment)


def test_an_entry_of_somebody_elses_making_is_read_too() -> None:
    hold = _decoded(HOLD, entry(createdAt="2026-01-01T01:00:00+01:00", status="nonsense", more=[1]))
    assert hold is not None
    assert (hold.product_id, hold.quantity, hold.status) == ("teapot", 3, "RESERVED")
    assert hold.created_at_us == 1_767_225_600_000_000


@pytest.mark.parametrize(
    "rubbish",
    [
        b"",
        b"\xff\xfe",
        b"null",
        b"[]",
        b'"text"',
        b"7",
        b"{}",
        entry()[:-1],
        b"[" * 100_000,
        *[entry(**{name: ...}) for name in FIELDS if name not in {"reservationId", "status"}],
        *[entry(**{name: 7}) for name in ("productId", "orderId", "expiresAt", "createdAt", "updatedAt")],
        *[entry(quantity=quantity) for quantity in ("3", 3.0, True, None, [3], 2**63, -(2**63) - 1, 10**40)],
        *[entry(expiresAt=text) for text in ("", "soon", "2026-01-01", "2026-01-01T00:00:00", "9999-99-99T00:00:00Z")],
        entry(productId="tea\0pot"),
        entry(orderId="\0"),
    ],
)
def test_what_makes_no_sense_is_nothing(rubbish: bytes) -> None:
    assert _decoded(HOLD, rubbish) is None


@unhurried
@given(st.sampled_from(sorted(FIELDS)), JSON)
def test_whatever_a_field_holds_nothing_is_raised(name: str, value: Any) -> None:
    hold = _decoded(HOLD, entry(**{name: value}))
    assert hold is None or (type(hold.quantity) is int and "\0" not in hold.product_id + hold.order_id)


@unhurried
@given(st.binary())
def test_whatever_bytes_there_are_nothing_is_raised(rubbish: bytes) -> None:
    assert _decoded(HOLD, rubbish) is None
