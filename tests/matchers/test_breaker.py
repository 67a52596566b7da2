from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from matchers.breaker import CircuitBreaker
from matchers.errors import StoreUnavailable, UnknownDomain


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def fail() -> int:
    raise StoreUnavailable("down")


def open_breaker(clock: Clock) -> CircuitBreaker:
    breaker = CircuitBreaker(failures=3, cooldown=2.0, clock=clock)
    for _ in range(3):
        with pytest.raises(StoreUnavailable, match="down"):
            breaker.call(fail)
    return breaker


def test_a_working_store_is_called_through() -> None:
    breaker = CircuitBreaker()
    assert breaker.call(lambda: 7) == 7
    assert breaker.state == "closed"


def test_three_failures_in_a_row_open_it_and_the_store_is_not_called_any_more() -> None:
    breaker = open_breaker(Clock())
    called = []
    with pytest.raises(StoreUnavailable, match="left alone"):
        breaker.call(lambda: called.append(1))
    assert breaker.state == "open"
    assert called == []


def test_a_success_between_failures_starts_the_count_again() -> None:
    breaker = CircuitBreaker(failures=2)
    for _ in range(3):
        with pytest.raises(StoreUnavailable):
            breaker.call(fail)
        breaker.call(lambda: 1)
    assert breaker.state == "closed"


def test_half_of_twenty_failures_open_it_though_never_many_in_a_row() -> None:
    clock = Clock()
    breaker = CircuitBreaker(failures=3, cooldown=2.0, clock=clock)
    for _ in range(9):
        with pytest.raises(StoreUnavailable):
            breaker.call(fail)
        breaker.call(lambda: 1)
    assert breaker.state == "closed"
    with pytest.raises(StoreUnavailable):
        breaker.call(fail)
    assert breaker.state == "open"
    clock.now += 2.0
    breaker.call(lambda: 1)
    with pytest.raises(StoreUnavailable):
        breaker.call(fail)
    assert breaker.state == "closed"


def test_after_the_cooldown_a_success_closes_it() -> None:
    clock = Clock()
    breaker = open_breaker(clock)
    states = [breaker.state]
    clock.now += 2.0
    states.append(breaker.state)
    assert breaker.call(lambda: "back") == "back"
    states.append(breaker.state)
    assert states == ["open", "half-open", "closed"]


def test_a_failed_probe_opens_it_for_another_cooldown() -> None:
    clock = Clock()
    breaker = open_breaker(clock)
    clock.now += 2.0
    with pytest.raises(StoreUnavailable, match="down"):
        breaker.call(fail)
    assert breaker.state == "open"
    clock.now += 1.9
    with pytest.raises(StoreUnavailable, match="left alone"):
        breaker.call(lambda: 1)


def test_only_one_probe_goes_through_at_a_time() -> None:
    clock = Clock()
    breaker = open_breaker(clock)
    clock.now += 2.0
    entered, leave = threading.Event(), threading.Event()

    def probe() -> str:
        entered.set()
        assert leave.wait(10)
        return "probed"

    with ThreadPoolExecutor(1) as threads:
        first = threads.submit(breaker.call, probe)
        assert entered.wait(10)
        with pytest.raises(StoreUnavailable, match="left alone"):
            breaker.call(lambda: "second")
        leave.set()
        assert first.result(10) == "probed"
    assert breaker.state == "closed"


def test_an_unknown_domain_is_an_answer_and_no_failure() -> None:
    breaker = CircuitBreaker(failures=1)

    def unknown() -> None:
        raise UnknownDomain("x")

    with pytest.raises(UnknownDomain):
        breaker.call(unknown)
    assert breaker.state == "closed"


def test_an_unexpected_exception_does_not_block_the_probe_for_ever() -> None:
    clock = Clock()
    breaker = open_breaker(clock)
    clock.now += 2.0
    with pytest.raises(ZeroDivisionError):
        breaker.call(lambda: 1 // 0)
    clock.now += 2.0
    assert breaker.call(lambda: 1) == 1
    assert breaker.state == "closed"


def test_changes_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    with caplog.at_level("INFO", logger="matchers.breaker"):
        breaker = open_breaker(clock)
        clock.now += 2.0
        breaker.call(lambda: 1)
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO", "INFO"]
    assert "open" in caplog.messages[0]
    assert "closed" in caplog.messages[-1]
