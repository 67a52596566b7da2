"""Pictures come in by every door, and what is known of each face can be read, pointed at and copied."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, expect

# Hands the demo picture in as a browser does when files are dropped or pasted.
HAND_IN = """async ({ how, name, bytes }) => {
  const body = bytes.length ? new Uint8Array(bytes) : await (await fetch("/demo.jpg")).blob();
  const carried = new DataTransfer();
  carried.items.add(new File([body], name, { type: "image/jpeg" }));
  if (how === "paste") document.dispatchEvent(new ClipboardEvent("paste", { clipboardData: carried, bubbles: true }));
  else document.querySelector(".zone").dispatchEvent(new DragEvent("drop", { dataTransfer: carried, bubbles: true }));
}"""


def hand_in(page: Page, how: str, name: str, data: bytes = b"") -> None:
    page.evaluate(HAND_IN, {"how": how, "name": name, "bytes": list(data)})


def test_dropped_and_pasted_pictures_and_one_that_is_none(open_tab: Any) -> None:
    with open_tab("/?domain=demo", refusals=[415]) as tab:
        page = tab.page
        expect(page.locator(".drop")).to_be_visible()
        hand_in(page, "drop", "dropped.jpg")
        expect(page.locator("figcaption")).to_contain_text("six people")
        hand_in(page, "paste", "pasted.jpg")
        hand_in(page, "drop", "notes.txt", b"no picture")
        strip = page.get_by_role("list", name="Pictures")
        expect(strip.get_by_role("button", name="pasted.jpg: guest-1, guest-2")).to_be_visible()
        expect(strip.get_by_role("button", name="notes.txt: not read")).to_be_visible()
        strip.get_by_role("button", name="notes.txt").click()
        alert = page.get_by_role("alert")
        expect(alert).to_contain_text(
            "This file is no picture that can be read here. JPEG, PNG, WebP, BMP and TIFF can."
        )
        expect(page.get_by_role("button", name="Try again")).to_have_count(0)
        tab.examine("several-pictures-desktop")
        page.get_by_role("button", name="Clear").click()
        expect(page.locator(".drop")).to_be_visible()
        page.reload()
        expect(page.locator(".drop")).to_be_visible()


def test_a_picture_taken_with_the_camera(open_tab: Any) -> None:
    with open_tab("/?domain=demo", size="phone") as tab:
        tab.page.get_by_role("button", name="Take a picture").click()
        tab.page.get_by_role("button", name="Take the picture").click()
        expect(tab.page.get_by_role("heading", name="No face was found")).to_be_visible()
        expect(tab.page.locator("figcaption")).to_have_text("There is no face in the picture.")


def test_faces_by_mouse_and_by_keyboard(open_tab: Any) -> None:
    with open_tab("/?domain=demo") as tab:
        page = tab.page
        page.get_by_role("button", name="Try the demo picture").click()
        panel = page.get_by_role("region", name="The chosen face")
        expect(panel.get_by_role("heading", name="guest-1")).to_be_visible()
        page.get_by_role("button", name="guest-4, distance 0.00").hover()
        expect(panel.get_by_role("heading", name="guest-4")).to_be_visible()
        for store in ("PKL", "pgvector"):
            matches = panel.get_by_role("region", name=f"Nearest people in {store}").get_by_role("listitem")
            expect(matches).to_have_count(6)
            expect(matches.first).to_have_text("guest-40.000")
        expect(panel).to_contain_text("within the threshold 0.60")
        expect(panel).to_contain_text("both stores agree")
        page.get_by_role("button", name="guest-4, distance 0.00").focus()
        page.keyboard.press("Tab")
        expect(panel.get_by_role("heading", name="guest-5")).to_be_visible()
        expect(page.get_by_role("region", name="Where the time went")).to_contain_text("Find faces")


def test_the_same_request_with_curl_and_the_answer_as_json(open_tab: Any, service: Any) -> None:
    with open_tab("/?domain=demo") as tab:
        page = tab.page
        page.get_by_role("button", name="Try the demo picture").click()
        page.locator("summary", has_text="curl").click()
        page.get_by_role("button", name="Copy: curl").click()
        url = str(service.client.base_url).rstrip("/")
        expected = f"curl -F 'image=@demo.jpg' '{url}/analyze?domain=demo&language=en'"
        assert page.evaluate("navigator.clipboard.readText()") == expected
        page.locator("summary", has_text="JSON").click()
        page.get_by_role("button", name="Copy: JSON").click()
        expect(page.get_by_text("Copied.").last).to_be_visible()
        assert len(json.loads(page.evaluate("navigator.clipboard.readText()"))["faces"]) == 6


def reach(page: Page, name: str, backwards: bool = False) -> None:
    """Press the tabulator until something of that name has the focus, which must be seen."""
    target = page.get_by_role("button", name=name).or_(page.get_by_role("link", name=name)).first
    expect(target).to_be_visible()
    for _ in range(40):
        page.keyboard.press("Shift+Tab" if backwards else "Tab")
        if target.evaluate("element => element === document.activeElement"):
            outline = target.evaluate("element => getComputedStyle(element).outlineStyle")
            assert outline == "solid", name
            return
    raise AssertionError(f"{name} is not reached by keyboard")


def test_the_whole_way_by_keyboard(open_tab: Any, group_picture: Path) -> None:
    with open_tab("/?domain=demo") as tab:
        page = tab.page
        page.on("filechooser", lambda chooser: chooser.set_files(group_picture))
        expect(page.locator(".drop")).to_be_visible()
        page.keyboard.press("Tab")
        expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
        page.keyboard.press("Enter")
        page.keyboard.press("Tab")
        expect(page.get_by_role("button", name="Choose pictures")).to_be_focused()
        page.keyboard.press("Enter")
        expect(page.locator("figcaption")).to_contain_text("six people")
        for name in ("guest-1, distance 0.00", "guest-2, distance 0.00"):
            reach(page, name)
            panel = page.get_by_role("region", name="The chosen face")
            expect(panel.get_by_role("heading", name=name.split(",")[0])).to_be_visible()
        reach(page, "Galleries", backwards=True)
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", level=1, name="demo")).to_be_focused()
        reach(page, "Enrol somebody")
        page.keyboard.press("Enter")
        dialog = page.get_by_role("dialog", name="Enrol somebody")
        expect(dialog.get_by_label("Name", exact=True)).to_be_focused()
        page.keyboard.press("Escape")
        expect(dialog).to_have_count(0)
        expect(page.get_by_role("button", name="Enrol somebody")).to_be_focused()
        reach(page, "guest-1 1 picture")
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", level=1, name="guest-1")).to_be_focused()
        reach(page, "Agreement", backwards=True)
        page.keyboard.press("Enter")
        reach(page, "pgvector only")
        page.keyboard.press("Enter")
        expect(page.get_by_role("dialog", name="Search demo: pgvector only")).to_be_visible()
        reach(page, "Cancel")
        page.keyboard.press("Enter")
        expect(page.get_by_role("button", name="pgvector only")).to_be_focused()
        for name in ("Status", "API"):
            reach(page, name, backwards=name == "Status")
            page.keyboard.press("Enter")
            expect(page.get_by_role("heading", level=1, name=name)).to_be_focused()
            reach(page, name, backwards=True)
