"""The story of somebody who has just started the service for the first time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from playwright.sync_api import expect


def enrol(page: Any, name: str, pictures: list[Path]) -> None:
    page.get_by_role("button", name="Enrol somebody").first.click()
    dialog = page.get_by_role("dialog", name="Enrol somebody")
    dialog.get_by_label("Name", exact=True).fill(name)
    dialog.locator("input[type=file]").first.set_input_files(pictures)
    dialog.get_by_role("button", name="Enrol", exact=True).click()
    expect(dialog.get_by_text("enrolled", exact=True)).to_have_count(len(pictures))
    dialog.get_by_role("button", name="Done").click()


def test_from_the_first_start_to_a_named_group_picture(
    open_tab: Any, picture_files: list[Path], group_picture: Path
) -> None:
    with open_tab("/", size="phone") as tab:
        page = tab.page
        expect(page.get_by_role("heading", level=1)).to_have_text("Who is in this picture?")
        tab.shoot("1-first-start-phone")

        page.get_by_role("link", name="Galleries").click()
        page.get_by_role("button", name="New domain").click()
        page.get_by_role("dialog").get_by_label("Name").fill("friends")
        page.get_by_role("button", name="Make it").click()
        expect(page.get_by_role("heading", name="Nobody is enrolled yet")).to_be_visible()
        enrol(page, "Rachel", picture_files[:1])
        expect(page.get_by_role("link", name="Rachel 1 picture")).to_be_visible()
        enrol(page, "Ross", picture_files[2:3])
        expect(page.get_by_role("link", name="Ross 1 picture")).to_be_visible()
        expect(page.get_by_text("Both stores hold the same.")).to_be_visible()
        tab.shoot("2-two-people-phone")

        page.get_by_role("link", name="Analyse").click()
        expect(page.get_by_label("Domain")).to_have_value("friends")
        page.locator("main input[type=file]").first.set_input_files(group_picture)
        said = page.locator("figcaption")
        expect(said).to_have_text(
            "There are six people in the picture: Rachel (left), Ross (centre) and four more unknown people."
        )
        expect(page.get_by_role("button", name="Unknown person").first).to_be_visible()
        expect(page.get_by_role("heading", name="Rachel")).to_be_visible()
        expect(page.get_by_text("both stores agree")).to_be_visible()
        tab.shoot("3-group-picture-phone")

        page.get_by_role("button", name="Unknown person").first.click()
        tab.examine("4-unknown-face-phone")
        page.get_by_role("button", name="Enrol this face").click()
        dialog = page.get_by_role("dialog", name="Enrol somebody")
        dialog.get_by_label("Name", exact=True).fill("Monica")
        dialog.get_by_role("button", name="Enrol", exact=True).click()
        expect(dialog.get_by_text("enrolled", exact=True)).to_be_visible()
        dialog.get_by_role("button", name="Done").click()
        expect(said).to_have_text(
            "There are six people in the picture: Rachel (left), Monica (left), Ross (centre) and three more unknown "
            "people."
        )
