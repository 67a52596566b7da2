"""How far the stores agree, while it happens; and what stands before pgvector may answer alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from playwright.sync_api import expect


def test_figures_come_while_one_looks(open_tab: Any, service: Any, group_picture: Path) -> None:
    with open_tab("/agreement?domain=demo") as tab:
        page = tab.page
        expect(page.get_by_text("Live, as of")).to_be_visible()
        compared = page.locator(".tile", has_text="Compared faces").locator("dd")
        before = int(compared.inner_text())
        for _ in range(3):
            service.analyze(group_picture, "demo")
        expect(compared).to_have_text(str(before + 18))
        expect(page.locator(".tile", has_text="Same person first")).to_contain_text("100%")
        chart = page.get_by_role("figure", name="Agreement over time")
        expect(chart.get_by_role("img")).to_have_attribute(
            "aria-label", "Agreement over time: same person first 100%, first five alike 100%"
        )
        chart.get_by_text("As a table").click()
        expect(chart.get_by_role("cell", name="100%").first).to_be_visible()
        # So low that it scrolls, as it does after some minutes.
        chart.locator(".chart-table").evaluate("table => { table.style.maxHeight = '3rem'; }")
        tab.examine("agreement-live-desktop")


def test_closed_gates_are_shown_and_can_be_passed_and_the_way_back_is_open(open_tab: Any, service: Any) -> None:
    with open_tab("/agreement?domain=demo", refusals=[409]) as tab:
        page = tab.page
        page.get_by_role("button", name="pgvector only").click()
        dialog = page.get_by_role("dialog")
        dialog.get_by_role("button", name="Change it").click()
        expect(dialog).to_contain_text("Not yet: pgvector has not proved itself in this domain.")
        gate = dialog.get_by_role("listitem").filter(has_text="Compared faces")
        expect(gate).to_contain_text("does not hold")
        expect(gate).to_contain_text("at least 1,000")
        tab.examine("closed-gates-desktop")
        dialog.get_by_role("button", name="Change it all the same").click()
        expect(page.get_by_role("button", name="pgvector only")).to_have_attribute("aria-pressed", "true")
        expect(page.get_by_text("past closed gates")).to_be_visible()
        assert service.client.get("/domains/demo").json()["mode"] == "pgvector_only"
        page.get_by_role("button", name="both stores").click()
        page.get_by_role("dialog").get_by_role("button", name="Change it").click()
        expect(page.get_by_role("button", name="both stores")).to_have_attribute("aria-pressed", "true")
        assert service.client.get("/domains/demo").json()["mode"] == "dual"


def test_changes_of_the_mode_are_read_without_scrolling_sideways(open_tab: Any, service: Any) -> None:
    for mode in ("pgvector_only", "dual"):
        answer = service.client.put("/domains/demo/mode", json={"mode": mode, "force": True})
        assert answer.status_code == 200
    with open_tab("/agreement?domain=demo") as tab:
        events = tab.page.locator(".events").filter(has_text="past closed gates")
        expect(events).to_be_visible()
        assert events.evaluate("box => box.scrollWidth - box.clientWidth") == 0
