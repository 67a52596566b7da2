"""Who is enrolled: refusals and how they are overridden, taking back a deletion, two people made one, sync, repair."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect


@pytest.fixture(scope="module")
def office(service: Any, picture_files: list[Path]) -> Iterator[str]:
    """A domain with two people."""
    assert service.client.post("/domains/office").status_code == 201
    for person, path in (("amy", picture_files[0]), ("bob", picture_files[1])):
        files = {"images": (path.name, path.read_bytes())}
        assert service.client.post(f"/domains/office/people/{person}", files=files).status_code == 201
    yield "office"
    service.client.delete("/domains/office")


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def people(page: Page) -> Any:
    return page.get_by_role("region", name="People").get_by_role("link")


def test_each_picture_has_its_verdict_and_may_be_enrolled_anyway(
    open_tab: Any, office: str, picture_files: list[Path], group_picture: Path, tmp_path: Path
) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("no picture", "utf-8")
    with open_tab(f"/galleries?domain={office}", refusals=[422]) as tab:
        page = tab.page
        page.get_by_role("button", name="Enrol somebody").click()
        dialog = page.get_by_role("dialog")
        dialog.get_by_label("Name", exact=True).fill("cid")
        handed = [picture_files[2], picture_files[0], group_picture, text]
        dialog.locator("input[type=file]").first.set_input_files(handed)
        dialog.get_by_role("button", name="Enrol", exact=True).click()
        rows = dialog.get_by_role("list", name="Pictures").get_by_role("listitem")
        expect(rows.nth(0)).to_contain_text("enrolled")
        expect(rows.nth(1)).to_contain_text("The face looks like amy. Check the name.")
        expect(rows.nth(2)).to_contain_text("There are several faces. Take a picture that shows this person only.")
        expect(rows.nth(3)).to_contain_text("This file is no picture that can be read here.")
        expect(dialog.get_by_role("button", name="Enrol anyway")).to_have_count(1)
        tab.examine("verdicts-desktop")
        rows.nth(1).get_by_role("button", name="Enrol anyway").click()
        expect(rows.nth(1)).to_contain_text("enrolled")
        expect(rows.nth(1)).to_contain_text("The face looks like amy.")
        dialog.get_by_role("button", name="Done").click()
        expect(page.get_by_role("link", name="cid 2 pictures")).to_be_visible()


def test_people_are_found_by_name(open_tab: Any, office: str) -> None:
    with open_tab(f"/galleries?domain={office}") as tab:
        expect(people(tab.page).first).to_be_visible()
        tab.page.get_by_label("Search by name").fill("AM")
        expect(people(tab.page)).to_have_text(["amy1 picture"])
        tab.page.get_by_label("Search by name").fill("nobody of ours")
        expect(tab.page.get_by_role("heading", name="Nobody of that name")).to_be_visible()


def test_a_deletion_can_be_taken_back_for_some_seconds_and_then_happens(
    open_tab: Any, office: str, service: Any
) -> None:
    def is_there() -> bool:
        return bool(service.client.get(f"/domains/{office}/people/bob").status_code == 200)

    with open_tab(f"/galleries?domain={office}&person=bob", clock=True) as tab:
        page = tab.page
        bob, told = people(page).filter(has_text="bob"), page.get_by_text("bob is deleted with all pictures.")

        def delete() -> None:
            page.get_by_role("button", name="Delete", exact=True).click()
            expect(told).to_be_visible()
            expect(bob).to_have_count(0)

        delete()
        page.get_by_role("button", name="Undo").click()
        expect(bob).to_have_count(1)
        bob.click()
        delete()
        page.keyboard.press("Control+z")
        expect(bob).to_have_count(1)
        page.clock.fast_forward(60_000)
        expect(told).to_have_count(0)
        assert is_there()

        bob.click()
        delete()
        page.get_by_role("button", name="Undo").focus()
        page.clock.fast_forward(60_000)
        expect(told).to_be_visible()  # it waits while one looks at it
        page.get_by_role("heading", level=1).focus()
        page.clock.fast_forward(7_000)
        expect(told).to_be_visible()
        assert is_there()
        page.clock.fast_forward(1_000)
        expect(told).to_have_count(0)
        wait_until(lambda: not is_there())
        expect(bob).to_have_count(0)


def test_whoever_leaves_the_page_does_not_take_a_deletion_back_any_more(
    open_tab: Any, office: str, service: Any
) -> None:
    with open_tab(f"/galleries?domain={office}&person=amy") as tab:
        tab.page.get_by_role("button", name="Delete", exact=True).click()
        expect(tab.page.get_by_text("amy is deleted with all pictures.")).to_be_visible()
        assert service.client.get(f"/domains/{office}/people/amy").status_code == 200
        tab.page.goto("/docs")
        wait_until(lambda: service.client.get(f"/domains/{office}/people/amy").status_code == 404)


def test_renaming_onto_somebody_else_offers_to_make_one_of_the_two(
    open_tab: Any, service: Any, picture_files: list[Path]
) -> None:
    service.client.post("/domains/names")
    for person, path in (("dan", picture_files[3]), ("daniel", picture_files[4])):
        service.client.post(f"/domains/names/people/{person}", files={"images": (path.name, path.read_bytes())})
    with open_tab("/galleries?domain=names&person=dan", refusals=[409]) as tab:
        page = tab.page
        page.get_by_role("button", name="Rename").click()
        page.get_by_role("dialog").get_by_label("New name").fill("Dañ")
        page.get_by_role("dialog").get_by_role("button", name="Rename").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("Dañ")
        page.get_by_role("button", name="Rename").click()
        page.get_by_role("dialog").get_by_label("New name").fill("daniel")
        page.get_by_role("dialog").get_by_role("button", name="Rename").click()
        expect(page.get_by_role("dialog")).to_contain_text("They cannot be told apart again afterwards.")
        page.get_by_role("dialog").get_by_role("button", name="Merge").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("daniel")
        expect(page.locator(".face-card")).to_have_count(2)
    service.client.delete("/domains/names")


def test_a_folder_is_synchronised_with_progress_and_a_difference_repaired(
    open_tab: Any, service: Any, images: Path, picture_files: list[Path], run_matchers: Any
) -> None:
    for number, path in enumerate(picture_files[:3]):
        (images / "branch" / f"person-{number}").mkdir(parents=True)
        shutil.copy(path, images / "branch" / f"person-{number}" / "1.png")
    (images / "branch" / "person-0" / "empty.jpg").write_bytes(b"")
    service.client.post("/domains/branch")
    with open_tab("/galleries?domain=branch") as tab:
        page = tab.page
        page.get_by_role("button", name="Synchronise with the folder").click()
        page.get_by_role("dialog").get_by_role("button", name="Synchronise").click()
        outcome = page.get_by_role("status").filter(has_text="added")
        expect(outcome).to_contain_text("added3")
        expect(people(page)).to_have_count(3)
        page.get_by_text("1 picture was left out").click()
        expect(page.get_by_text("person-0/empty.jpg")).to_be_visible()
        expect(page.get_by_text("Both stores hold the same.")).to_be_visible()

        shutil.rmtree(images / "branch" / "person-2")
        data_dir = str(service.log.parent / "data")
        folder = str(images / "branch")
        run_matchers("sync", "--domain", "branch", "--images", folder, DATA_DIR=data_dir, VECTOR_DB_ENABLED="false")
        page.reload()
        expect(page.get_by_text("1 picture differs")).to_be_visible()
        expect(page.get_by_text("person-2/1.png")).to_be_visible()
        tab.examine("differences-desktop")
        page.get_by_role("button", name="Make pgvector like PKL").click()
        expect(page.get_by_role("dialog")).to_contain_text("1 picture is taken out for good.")
        page.get_by_role("dialog").get_by_role("button", name="Repair").click()
        expect(page.get_by_text("Both stores hold the same.")).to_be_visible()
        expect(people(page)).to_have_count(2)


def test_a_gallery_file_is_imported(open_tab: Any, service: Any, tmp_path: Path) -> None:
    (own,) = (service.log.parent / "data").glob("**/demo/*.pkl")
    gallery = tmp_path / "ds_model_arcface_detector_retinaface_aligned_normalization_base_expand_0.pkl"
    shutil.copy(own, gallery)
    service.client.post("/domains/imported")
    with open_tab("/galleries?domain=imported", refusals=[422]) as tab:
        page = tab.page
        expect(page.get_by_role("heading", name="Nobody is enrolled yet")).to_be_visible()
        page.locator("input[type=file][accept*='.pkl']").set_input_files(gallery)
        dialog = page.get_by_role("dialog", name="Import it all the same?")
        expect(dialog).to_contain_text("The gallery was written with another model than this service works with.")
        dialog.get_by_role("button", name="Import all the same").click()
        expect(page.get_by_role("status").filter(has_text="added")).to_contain_text("added6")
        expect(people(page)).to_have_count(6)
    service.client.delete("/domains/imported")


def test_a_domain_is_deleted_by_its_name(open_tab: Any, service: Any) -> None:
    service.client.post("/domains/brief")
    with open_tab("/galleries?domain=brief") as tab:
        page = tab.page
        page.get_by_role("button", name="Delete the domain").click()
        dialog = page.get_by_role("dialog")
        dialog.get_by_label("Write its name to confirm").fill("brie")
        dialog.get_by_role("button", name="Delete for good").click()
        expect(dialog.get_by_text("That is not its name.")).to_be_visible()
        dialog.get_by_label("Write its name to confirm").fill("brief")
        dialog.get_by_role("button", name="Delete for good").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("Galleries")
    assert service.client.get("/domains/brief").status_code == 404
