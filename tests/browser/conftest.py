"""The page in a real browser, over a real server. One server and one browser serve all tests here."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from axe_playwright_python.base import AXE_FILE_PATH
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Request, expect, sync_playwright
from processes import Service, environment, run_matchers, start

__all__ = ["environment", "run_matchers", "start"]

SHOTS = Path(__file__).resolve().parents[2] / "build" / "screenshots"
SIZES = {"phone": {"width": 390, "height": 844}, "desktop": {"width": 1280, "height": 800}}
# A camera that shows a moving pattern; nothing that the browser itself would ask of the network.
ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
]
PATIENCE_MS = 60_000
SCHEMES = ("light", "dark")
AXE = Path(AXE_FILE_PATH).read_text("utf-8")


@dataclass
class Tab:
    """A page, and everything about it that should not be.

    Attributes:
        refusals: HTTP statuses of the service that the test provokes; browsers complain about each.
        complaints: errors and warnings of the console, exceptions, requests to other hosts.
    """

    page: Page
    host: str
    refusals: tuple[int, ...] = ()
    complaints: list[str] = field(default_factory=list)

    def watch(self) -> None:
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", self._request)

    def _console(self, message: ConsoleMessage) -> None:
        provoked = any(f"status of {status} " in message.text for status in self.refusals)
        if message.type in ("error", "warning") and not provoked:
            self.complaints.append(f"{message.text} ({message.location['url']})")

    def _request(self, request: Request) -> None:
        address = urlsplit(request.url)
        if address.scheme not in ("blob", "data") and address.netloc != self.host:
            self.complaints.append(f"request to {request.url}")

    def shoot(self, name: str) -> None:
        """Write a screenshot for people to look at."""
        SHOTS.mkdir(parents=True, exist_ok=True)
        self.page.evaluate("scrollTo(0, 0)")
        self.page.screenshot(path=SHOTS / f"{name}.png", animations="disabled")

    def examine(self, name: str) -> None:
        """What every screen must be, by day and by night: not wider than its window, and keeping nobody out."""
        assert self.overflow() == 0
        for scheme in SCHEMES:
            self.page.emulate_media(color_scheme=scheme)
            self.shoot(f"{name}-{scheme}")
            # By night nothing but the colours is another.
            assert self.barriers(*([] if scheme == SCHEMES[0] else ["color-contrast"])) == [], scheme
        self.page.emulate_media(color_scheme=SCHEMES[0])

    def barriers(self, *rules: str) -> list[str]:
        """What axe finds that keeps people out, serious or critical; by all of its rules, or by those named."""
        self.page.wait_for_load_state()
        if not self.page.evaluate("'axe' in window"):
            self.page.evaluate(f"() => {{{AXE}}}")
        options = {"resultTypes": ["violations"], **({"runOnly": {"type": "rule", "values": rules}} if rules else {})}
        found: dict[str, Any] = self.page.evaluate("options => axe.run(options)", options)
        return [
            f"{violation['id']}: {json.dumps([node['html'][:160] for node in violation['nodes']])}"
            for violation in found["violations"]
            if violation["impact"] in ("serious", "critical")
        ]

    def overflow(self) -> int:
        """Pixels by which the page is wider than the window."""
        width: int = self.page.evaluate("document.documentElement.scrollWidth - innerWidth")
        return max(0, width)


Open = Callable[..., AbstractContextManager[Tab]]


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """Chromium of this machine, without a window."""
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("there is no browser: install Debian's package chromium")
    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield opened
        opened.close()


@pytest.fixture(scope="package")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The server's folder of pictures, one folder per domain."""
    return tmp_path_factory.mktemp("images")


@pytest.fixture(scope="package")
def token_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tokens of the server; none at first."""
    path = tmp_path_factory.mktemp("tokens") / "tokens.toml"
    path.write_text("", "utf-8")
    return path


@pytest.fixture(scope="package")
def service(start: Any, browser: Browser, images: Path, token_file: Path) -> Iterator[Service]:
    """The service as a newcomer starts it. There is a browser, or the tests do not get here."""
    with start(IMAGES_DIR=str(images), API_TOKENS_FILE=str(token_file), GATE_COMPARISONS="1000") as running:
        yield running


@pytest.fixture(scope="package")
def open_tab(browser: Browser, service: Service) -> Open:
    """Opens the page; when it is closed, there must be nothing to complain about.

    Tabs of one size and locale share what a browser keeps of files, but no cookies. ``clock``: the test moves the
    page's time; such a tab shares nothing.
    """
    contexts: dict[tuple[str, str], BrowserContext] = {}

    def new_context(size: str, locale: str) -> BrowserContext:
        context = browser.new_context(
            base_url=str(service.client.base_url),
            viewport=SIZES[size],
            has_touch=size == "phone",
            color_scheme=SCHEMES[0],
            reduced_motion="reduce",
            locale=locale,
            permissions=["camera", "clipboard-read", "clipboard-write"],
        )
        context.set_default_timeout(PATIENCE_MS)
        return context

    @contextmanager
    def opened(
        path: str = "/", size: str = "desktop", locale: str = "en-GB", refusals: Any = (), *, clock: bool = False
    ) -> Iterator[Tab]:
        if clock:
            context = new_context(size, locale)
            context.clock.install()
        else:
            if (size, locale) not in contexts:
                contexts[size, locale] = new_context(size, locale)
            context = contexts[size, locale]
        tab = Tab(context.new_page(), urlsplit(str(service.client.base_url)).netloc, tuple(refusals))
        tab.watch()
        try:
            tab.page.goto(path)
            yield tab
        finally:
            tab.page.close()
            context.clear_cookies()
        assert tab.complaints == []

    return opened


@pytest.fixture(scope="package")
def picture_files(portraits: list[bytes], tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Files with one face each, cut out of the group picture from left to right."""
    folder = tmp_path_factory.mktemp("portraits")
    paths = []
    for number, data in enumerate(portraits, start=1):
        paths.append(folder / f"portrait-{number}.png")
        paths[-1].write_bytes(data)
    return paths
