"""Every screen, on a phone and on a desk, by day and by night: it fits, keeps nobody out and complains of nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import SIZES, Tab


def analysed(page: Page) -> None:
    page.get_by_role("button", name="Try the demo picture").click()
    expect(page.locator("figcaption")).to_contain_text("There are six people in the picture")
    page.locator("summary", has_text="curl").click()


def loaded(selector: str) -> Callable[[Page], None]:
    return lambda page: expect(page.locator(selector).first).to_be_visible()


def enrolling(page: Page) -> None:
    page.get_by_role("button", name="Enrol somebody").click()
    expect(page.get_by_role("dialog")).to_be_visible()


def merging(page: Page) -> None:
    page.get_by_role("button", name="Merge").click()
    expect(page.get_by_role("dialog").get_by_role("button", name="guest-2")).to_be_visible()


def switching(page: Page) -> None:
    page.get_by_role("button", name="both stores").click()
    expect(page.get_by_role("dialog")).to_be_visible()


SCREENS: dict[str, tuple[str, Callable[[Page], None]]] = {
    "analyse": ("/?domain=demo", loaded(".drop")),
    "result": ("/?domain=demo", analysed),
    "galleries": ("/galleries", loaded(".domain-card")),
    "gallery": ("/galleries?domain=demo", loaded(".person-card img")),
    "no-gallery": ("/galleries?domain=nowhere", loaded(".empty")),
    "enrolling": ("/galleries?domain=demo", enrolling),
    "person": ("/galleries?domain=demo&person=guest-1", loaded(".face-card img")),
    "merging": ("/galleries?domain=demo&person=guest-1", merging),
    "agreement": ("/agreement?domain=demo", loaded(".tile")),
    "nothing-compared": ("/agreement?domain=untouched", loaded(".card.empty")),
    "switching": ("/agreement?domain=demo", switching),
    "status": ("/status", loaded(".findings")),
    "api": ("/docs", loaded(".endpoint")),
}


@pytest.fixture(scope="module")
def tabs(open_tab: Any, service: Any) -> Iterator[dict[str, Tab]]:
    """A tab of each size, in which one screen is shown after the other."""
    service.client.post("/domains/untouched")
    with ExitStack() as stack:
        yield {size: stack.enter_context(open_tab(size=size, refusals=[404])) for size in SIZES}
    service.client.delete("/domains/untouched")


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("screen", SCREENS)
def test_a_screen(tabs: dict[str, Tab], screen: str, size: str) -> None:
    path, arrive = SCREENS[screen]
    tab = tabs[size]
    tab.page.goto(path)
    arrive(tab.page)
    tab.examine(f"{screen}-{size}")
    expect(tab.page.get_by_role("heading", level=1)).to_have_count(1)
    complaints = tab.complaints.copy()
    tab.complaints.clear()
    assert complaints == []
