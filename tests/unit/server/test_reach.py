"""How far back a look for due holds goes."""

from __future__ import annotations

from inventory_server.reach import Reach


def test_the_first_look_goes_all_the_way_and_the_next_a_minute_before_the_one_before_it() -> None:
    reach = Reach()
    assert reach.seconds(1000.0) is None
    reach.looked(None, 1000.0)
    assert reach.seconds(1001.0) == 61.0
    reach.looked(61.0, 1001.0)
    assert reach.seconds(1011.0) == 70.0


def test_what_a_look_left_is_looked_at_again() -> None:
    reach = Reach()
    reach.looked(None, 1000.0, left=300.0)
    assert reach.seconds(1001.0) == 361.0


def test_once_a_minute_a_look_goes_all_the_way() -> None:
    reach = Reach()
    reach.looked(None, 1000.0)
    for now in (1030.0, 1059.0):
        reach.looked(reach.seconds(now), now)
    assert reach.seconds(1060.0) is None


def test_so_does_the_look_after_one_that_failed() -> None:
    reach = Reach()
    reach.looked(None, 1000.0)
    reach.forget()
    assert reach.seconds(1001.0) is None
