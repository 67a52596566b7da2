"""Signing in with a token: it stays out of addresses and of what the browser keeps, and its rights are respected."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from server.tokens import new_token


@pytest.fixture(scope="module")
def secrets(service: Any, token_file: Path) -> Iterator[dict[str, str]]:
    """From here on the server asks for a token; the secrets of those that there are, by their highest right."""
    rights = {"analyze": ["analyze"], "enrol": ["analyze", "enrol"], "admin": ["admin"]}
    made = {name: new_token(name, rights[name], None, 0) for name in rights}
    token_file.write_text("\n".join(entry for _, entry in made.values()), "utf-8")
    service.client.post("/reload")
    wait_for(service, 401)
    yield {right: secret for right, (secret, _) in made.items()}
    token_file.write_text("", "utf-8")
    service.client.post("/reload", headers={"Authorization": made["admin"][0]})
    wait_for(service, 200)


def wait_for(service: Any, status: int) -> None:
    deadline = time.monotonic() + 60
    while service.client.get("/domains").status_code != status:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def sign_in(page: Page, secret: str) -> None:
    page.get_by_role("dialog").get_by_label("Token").fill(secret)
    page.get_by_role("dialog").get_by_role("button", name="Sign in").click()


def test_a_token_is_sent_once_and_kept_nowhere(open_tab: Any, secrets: dict[str, str]) -> None:
    with open_tab("/?domain=demo", refusals=[401]) as tab:
        page = tab.page
        addresses: list[str] = []
        page.on("request", lambda request: addresses.append(request.url))
        sign_in(page, "wrong")
        expect(page.get_by_text("This token is not known here.")).to_be_visible()
        tab.examine("sign-in-desktop")
        sign_in(page, secrets["analyze"])
        expect(page.get_by_role("button", name="Sign out")).to_be_visible()
        page.get_by_role("button", name="Try the demo picture").click()
        expect(page.locator("figcaption")).to_contain_text("six people")
        kept = page.evaluate("JSON.stringify([localStorage, sessionStorage, document.cookie, location.href])")
        assert secrets["analyze"] not in kept + "".join(addresses)
        (cookie,) = [kept for kept in page.context.cookies() if kept["name"] == "session"]
        assert cookie["httpOnly"]
        assert cookie["sameSite"] == "Strict"
        assert secrets["analyze"] not in cookie["value"]
        page.locator("summary", has_text="curl").click()
        expect(page.locator(".copyable", has_text="curl")).to_contain_text('-H "Authorization: $TOKEN"')
        page.reload()
        expect(page.get_by_role("button", name="Sign out")).to_be_visible()
        page.get_by_role("button", name="Sign out").click()
        expect(page.get_by_role("banner").get_by_role("button", name="Sign in")).to_be_visible()
        assert [kept["name"] for kept in page.context.cookies()] == []


@pytest.mark.parametrize(
    ("right", "tabs", "buttons"),
    [
        ("analyze", ["Analyse", "Galleries", "API"], []),
        ("enrol", ["Analyse", "Galleries", "API"], ["Enrol somebody"]),
        (
            "admin",
            ["Analyse", "Galleries", "Agreement", "Status", "API"],
            ["Enrol somebody", "Delete the domain", "Synchronise with the folder", "Import a gallery", "Compare again"],
        ),
    ],
)
def test_a_token_sees_what_it_may_do(
    open_tab: Any, secrets: dict[str, str], right: str, tabs: list[str], buttons: list[str]
) -> None:
    with open_tab("/", refusals=[401]) as tab:
        page = tab.page
        sign_in(page, secrets[right])
        expect(page.get_by_role("button", name="Sign out")).to_be_visible()
        expect(page.get_by_role("navigation", name="Parts of the service").get_by_role("link")).to_have_text(tabs)
        page.get_by_role("link", name="Galleries").click()
        if right == "admin":
            expect(page.get_by_role("button", name="New domain")).to_be_visible()
        page.get_by_role("link", name="demo").click()
        expect(page.get_by_role("link", name="guest-1")).to_be_visible()
        expect(page.get_by_role("main").get_by_role("button")).to_have_count(len(buttons))
        for button in buttons:
            expect(page.get_by_role("button", name=button)).to_be_visible()
        page.get_by_role("link", name="guest-1").click()
        expect(page.locator(".face-card img")).to_be_visible()
        expect(page.get_by_role("button", name="Rename")).to_have_count(0 if right == "analyze" else 1)
        page.goto("/agreement?domain=demo")
        if right == "admin":
            expect(page.locator(".tile").first).to_be_visible()
        else:
            expect(page.get_by_role("heading", name="Not for this token")).to_be_visible()
