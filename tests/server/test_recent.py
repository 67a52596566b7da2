from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from server.recent import Recent


def never() -> int:
    raise AssertionError("it was known")


def test_a_value_is_computed_once_and_given_again() -> None:
    recent = Recent()
    assert recent.get("key", lambda: 1) == 1
    assert recent.get("key", never) == 1
    assert recent.get("other", lambda: 2) == 2


def test_a_value_of_another_state_is_not_given_any_more() -> None:
    recent = Recent()
    assert recent.get("key", lambda: 1, state="before") == 1
    assert recent.get("key", lambda: 2, state="after") == 2
    assert recent.get("key", never, state="after") == 2


def test_a_failure_is_not_kept() -> None:
    recent = Recent()
    with pytest.raises(AssertionError):
        recent.get("key", never)
    assert recent.get("key", lambda: 1) == 1


def test_who_asks_for_another_state_waits_for_it_while_the_old_one_is_computed() -> None:
    recent = Recent()
    begun, go_on = threading.Event(), threading.Event()

    def slow() -> int:
        begun.set()
        assert go_on.wait(60)
        return 1

    with ThreadPoolExecutor(2) as pool:
        before = pool.submit(recent.get, "key", slow, "before")
        assert begun.wait(60)
        after = pool.submit(recent.get, "key", lambda: 2, "after")
        go_on.set()
        assert (before.result(60), after.result(60)) == (1, 2)
