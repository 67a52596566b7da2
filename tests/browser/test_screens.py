"""Every screen, on a phone and on a desk, by day and by night: it fits, keeps nobody out and complains of nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Page, expect


def analysed(page: Page) -> None:
    page.get_by_role("button", name="Try the demo picture").click()
    expect(page.locator("figcaption")).to_contain_text("There are six people in the picture")
    page.locator("summary", has_text="curl").click()


def loaded(selector: str) -> Callable[[Page], None]:
    return lambda page: expect(page.locator(selector).first).to_be_visible()


def enrolling(page: Page) -> None:
    page.get_by_role("button", name="Enrol somebody").click()
    expect(page.get_by_role("dialog")).to_be_visible()


SCREENS: dict[str, tuple[str, Callable[[Page], None]]] = {
    "analyse": ("/?domain=demo", loaded(".drop")),
    "result": ("/?domain=demo", analysed),
    "galleries": ("/galleries", loaded(".domain-card")),
    "gallery": ("/galleries?domain=demo", loaded(".person-card img")),
    "enrolling": ("/galleries?domain=demo", enrolling),
    "person": ("/galleries?domain=demo&person=guest-1", loaded(".face-card img")),
    "agreement": ("/agreement?domain=demo", loaded(".tile")),
    "status": ("/status", loaded(".findings")),
    "api": ("/docs", loaded(".endpoint")),
}


@pytest.mark.parametrize(("size", "scheme"), [("phone", "dark"), ("desktop", "light")])
@pytest.mark.parametrize("screen", SCREENS)
def test_a_screen(open_tab: Any, screen: str, size: str, scheme: str) -> None:
    path, arrive = SCREENS[screen]
    with open_tab(path, size=size, scheme=scheme) as tab:
        arrive(tab.page)
        tab.shoot(f"{screen}-{size}")
        assert tab.overflow() == 0
        assert tab.barriers() == []
        expect(tab.page.get_by_role("heading", level=1)).to_have_count(1)
