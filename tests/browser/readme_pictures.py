"""The README's pictures, made anew by ``make pictures``: the demo as a newcomer sees it. Not one of the tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from tests.browser.conftest import SHOTS

IMAGES = Path(__file__).resolve().parents[2] / "docs" / "images"
REQUESTS = 12


@pytest.fixture(scope="package")
def service(start: Any, browser: Any) -> Iterator[Any]:
    """The service with its default settings. There is a browser, or nothing is made."""
    with start() as running:
        yield running


def analysed(page: Page) -> None:
    page.get_by_role("button", name="Try the demo picture").click()
    page.get_by_role("button", name="guest-3", exact=True).click()
    expect(page.get_by_role("heading", name="guest-3")).to_be_visible()


def filled(page: Page) -> None:
    expect(page.locator(".person-card img")).to_have_count(6)
    expect(page.get_by_text("Both stores hold the same.")).to_be_visible()


def compared(page: Page) -> None:
    expect(page.locator(".tile", has_text="Compared faces")).to_contain_text(str(6 * REQUESTS))
    expect(page.get_by_role("figure", name="Time of a search").get_by_role("img")).to_be_visible()


def test_pictures(open_tab: Any, service: Any, group_picture: Path) -> None:
    for _ in range(REQUESTS):
        service.analyze(group_picture, "demo")
    screens = {"agreement": ("/agreement", compared), "analyse": ("/", analysed), "galleries": ("/galleries", filled)}
    for name, (path, arrive) in screens.items():
        with open_tab(f"{path}?domain=demo") as tab:
            arrive(tab.page)
            tab.page.wait_for_load_state("networkidle")
            tab.shoot(f"readme-{name}")
        with Image.open(SHOTS / f"readme-{name}.png") as shot:
            shot.convert("RGB").quantize(256).save(IMAGES / f"{name}.png", optimize=True)
