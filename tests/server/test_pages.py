"""The page as the server sends it: its languages, its files, what browsers may keep and what the page may not do."""

from __future__ import annotations

import html
import json
import re
from typing import Any

import httpx
import pytest

PAGES = ["/", "/agreement", "/docs", "/galleries", "/status"]
BROWSER = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


def facts(page: httpx.Response) -> dict[str, Any]:
    found = re.search(r'data-facts="([^"]*)"', page.text)
    assert found is not None
    told: dict[str, Any] = json.loads(html.unescape(found.group(1)))
    return told


def linked(page: httpx.Response) -> list[str]:
    return re.findall(r'(?:src|href)="([^"]+)"', page.text)


@pytest.mark.parametrize("path", PAGES)
def test_every_part_of_the_page_has_an_address(client: httpx.Client, path: str) -> None:
    page = client.get(path, headers=BROWSER)
    assert page.status_code == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert facts(page)["domain"] == "demo"


def test_the_page_may_do_nothing_beyond_its_own_origin(client: httpx.Client) -> None:
    page = client.get("/")
    policy = page.headers["content-security-policy"].split("; ")
    assert "default-src 'self'" in policy
    assert "img-src 'self' blob: data:" in policy
    assert "frame-ancestors 'none'" in policy
    assert "require-trusted-types-for 'script'" in policy
    assert page.headers["permissions-policy"].startswith("camera=(self)")
    assert not re.search(r"<style|<script(?![^>]*\ssrc=)|\sstyle=|\son\w+=", page.text)
    assert all(link.startswith("/static/") for link in linked(page))


def test_every_file_that_the_page_names_is_there_and_may_be_kept(client: httpx.Client) -> None:
    links = linked(client.get("/"))
    assert len(links) > 20
    for link in links:
        answer = client.get(link)
        assert answer.status_code == 200, link
        assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
        assert "https://" not in answer.text.replace("https://www.w3.org", ""), link


def test_modules_import_only_modules_that_are_there(client: httpx.Client) -> None:
    modules = {link for link in linked(client.get("/")) if link.endswith(".js")}
    imported = set()
    for module in modules:
        for name in re.findall(r'from "\./([^"]+)"', client.get(module).text):
            imported.add(module.rsplit("/", 1)[0] + "/" + name)
    assert imported | {module for module in modules if module.endswith("/main.js")} == modules


def test_what_a_browser_has_is_not_sent_again(client: httpx.Client) -> None:
    for link in ("/", linked(client.get("/"))[0]):
        first = client.get(link)
        again = client.get(link, headers={"If-None-Match": first.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["etag"] == first.headers["etag"]


def test_files_are_packed_for_those_who_take_it(client: httpx.Client) -> None:
    link = next(link for link in linked(client.get("/")) if link.endswith("main.js"))
    packed = client.get(link, headers={"Accept-Encoding": "gzip"})
    plain = client.get(link, headers={"Accept-Encoding": "identity"})
    assert packed.headers["content-encoding"] == "gzip"
    assert "content-encoding" not in plain.headers
    assert packed.text == plain.text
    assert int(packed.headers["content-length"]) < int(plain.headers["content-length"]) / 2


def test_a_file_of_another_release_is_not_kept(client: httpx.Client) -> None:
    answer = client.get("/static/0123456789ab/icon.svg")
    assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-cache")


@pytest.mark.parametrize(
    "path", ["/static/x/nothing.js", "/static/x/../app.py", "/static/x/%2e%2e/app.py", "/static/x/js", "/static/x"]
)
def test_other_files_are_not_sent(client: httpx.Client, path: str) -> None:
    answer = client.get(path)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")


@pytest.mark.parametrize(
    ("headers", "tag"),
    [
        ({}, "en-GB"),
        ({"Accept-Language": "fr, de-AT;q=0.8"}, "de"),
        ({"Accept-Language": "sr-Cyrl-RS"}, "sr-Cyrl"),
        ({"Accept-Language": "de", "Cookie": "language=sl"}, "sl"),
        ({"Accept-Language": "de", "Cookie": 'language="><script>'}, "de"),
    ],
)
def test_the_page_comes_in_the_language_of_its_reader(client: httpx.Client, headers: dict[str, str], tag: str) -> None:
    page = client.get("/", headers=headers)
    assert f'<html lang="{tag}"' in page.text
    assert page.headers["content-language"] == tag
    assert "Accept-Language" in page.headers["vary"]


def test_every_language_has_messages(client: httpx.Client) -> None:
    languages = facts(client.get("/"))["languages"]
    assert [language["code"] for language in languages] == ["en", "bs", "de", "hr", "mk", "sl", "sr", "sr-Cyrl"]
    sizes = set()
    for language in languages:
        body = client.get(f"/static/x/messages/{language['code']}.json").json()
        assert body["tag"] == language["tag"]
        assert body["plurals"][-1] == "other"
        sizes.add(len(body["messages"]))
    assert len(sizes - {0}) == 1
    slovenian = client.get("/static/x/messages/sl.json").json()
    assert slovenian["plurals"] == ["one", "two", "few", "other"]
    assert slovenian["messages"]["where one person is\u0004left"] == "levo"
    assert client.get("/static/x/messages/fr.json").status_code == 404


def test_the_demo_picture_is_there_for_newcomers(client: httpx.Client, group_picture: Any) -> None:
    assert facts(client.get("/"))["demo"] is True
    answer = client.get("/demo.jpg")
    assert (answer.headers["content-type"], answer.content) == ("image/jpeg", group_picture.read_bytes())


def test_status_is_a_report_for_programs_and_a_page_for_people(client: httpx.Client) -> None:
    report = client.get("/status").json()
    assert [model["role"] for model in report["models"]] == ["detector", "embedder"]
    assert report["models"][1]["card"]["name"] == "sface"
    assert report["database"]["state"] == "off"
    assert report["versions"]["onnxruntime"]
    assert {"data folder", "PKL galleries", "PostgreSQL"} <= {finding["part"] for finding in report["findings"]}
    assert client.get("/status", headers=BROWSER).headers["content-type"].startswith("text/html")
