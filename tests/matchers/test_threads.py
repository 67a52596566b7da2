"""Threads that are kept: for what is due at a moment, and for work that may hang."""

from __future__ import annotations

import threading
import time

import pytest

from matchers.crew import Crew
from matchers.watchdog import Watchdog

WAIT = 30.0


def watching() -> int:
    return sum(thread.name == "watchdog" for thread in threading.enumerate())


def test_what_is_due_is_done_in_its_order_and_what_is_called_off_is_not() -> None:
    watchdog, done, last = Watchdog(), [], threading.Event()
    now = time.monotonic()
    with watchdog.at(now + 3600, lambda: done.append("much later")):
        with watchdog.at(now + 0.1, lambda: done.append("called off")):
            pass
        with (
            watchdog.at(now + 0.3, last.set),
            watchdog.at(now + 0.2, lambda: done.append("second")),
            watchdog.at(now, lambda: done.append("first")),
        ):
            assert last.wait(WAIT)
    assert done == ["first", "second"]


def test_an_action_that_fails_does_not_keep_the_others_from_being_done(caplog: pytest.LogCaptureFixture) -> None:
    watchdog, done = Watchdog(), threading.Event()
    now = time.monotonic()
    with watchdog.at(now, lambda: 1 / 0), watchdog.at(now + 0.05, done.set):
        assert done.wait(WAIT)
    assert "what was due could not be done" in caplog.text


def test_a_block_does_not_end_while_its_action_is_done() -> None:
    watchdog, begun, log = Watchdog(), threading.Event(), []

    def slow() -> None:
        begun.set()
        time.sleep(0.2)
        log.append("done")

    with watchdog.at(time.monotonic(), slow):
        assert begun.wait(WAIT)
    assert log == ["done"]


def test_no_thread_stays_when_nothing_is_due() -> None:
    before = watching()
    watchdog = Watchdog()
    with watchdog.at(time.monotonic() + 0.05, lambda: None):
        assert watching() > before
    deadline = time.monotonic() + WAIT
    while watching() > before:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_crew_keeps_threads_and_a_piece_of_work_that_hangs_holds_up_no_other() -> None:
    crew, hang, names = Crew("crew-test"), threading.Event(), []
    done = threading.Semaphore(0)

    def work() -> None:
        names.append(threading.get_ident())
        done.release()

    crew.do(lambda: hang.wait(WAIT) and None)
    for _ in range(20):
        crew.do(work)
        assert done.acquire(timeout=WAIT)
        time.sleep(0.01)
    assert len(set(names)) < 5
    hang.set()
