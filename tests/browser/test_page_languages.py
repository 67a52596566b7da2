"""The page in the language of whoever looks at it, with the service's own sentence in the same."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import expect


@pytest.mark.parametrize(
    ("locale", "language", "words"),
    [
        ("sr-Latn-RS", "sr-Latn", ["Ko je na ovoj slici?", "Isprobaj probnu sliku", "Na slici je šest osoba: levo"]),
        ("de-AT", "de", ["Wer ist auf diesem Bild?", "Beispielbild ausprobieren", "Auf dem Bild sind sechs Personen"]),
    ],
)
def test_the_browser_says_which_language(open_tab: Any, locale: str, language: str, words: list[str]) -> None:
    question, demo, sentence = words
    with open_tab("/?domain=demo", locale=locale, size="phone") as tab:
        page = tab.page
        expect(page.get_by_role("heading", level=1)).to_have_text(question)
        assert page.locator("html").get_attribute("lang") == language
        page.get_by_role("button", name=demo).click()
        expect(page.locator("figcaption")).to_contain_text(sentence)
        assert tab.overflow() == 0
        tab.shoot(f"language-{language}-phone")


def test_another_language_is_chosen_and_remembered(open_tab: Any) -> None:
    with open_tab("/galleries?domain=demo") as tab:
        page = tab.page
        expect(page.get_by_role("link", name="guest-1 1 picture")).to_be_visible()
        page.get_by_label("Language").select_option("српски (ћирилица)")
        expect(page.get_by_role("link", name="guest-1 1 слика")).to_be_visible()
        expect(page.get_by_text("6 особа", exact=True)).to_be_visible()
        page.get_by_role("link", name="Анализа").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("Ко је на овој слици?")
        page.reload()
        expect(page.get_by_role("heading", level=1)).to_have_text("Ко је на овој слици?")
        page.get_by_label("Језик").select_option("slovenščina")
        page.get_by_role("link", name="Galerije").click()
        expect(page.get_by_text("6 oseb", exact=True)).to_be_visible()


def test_the_name_and_the_language_stand_side_by_side_on_the_smallest_phone(open_tab: Any) -> None:
    with open_tab("/status", size="phone") as tab:
        tab.page.set_viewport_size({"width": 320, "height": 600})
        brand = tab.page.get_by_role("link", name="Face service")
        assert brand.evaluate("link => link.scrollWidth - link.clientWidth") == 0
        name = brand.bounding_box()
        language = tab.page.get_by_label("Language").bounding_box()
        assert name["x"] + name["width"] <= language["x"]
        assert language["x"] + language["width"] <= 320
