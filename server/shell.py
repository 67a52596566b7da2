"""The page before its modules run: one HTML file in each language, with what it must know from the start."""

from __future__ import annotations

import html
import json
from dataclasses import dataclass
from string import Template
from typing import Any

from matchers.demo import demo_picture
from matchers.languages import Language, Languages
from server.assets import Asset, Assets, asset


@dataclass(frozen=True, slots=True)
class Facts:
    """What the page is told before it asks for anything; nobody needs a token to see it.

    Attributes:
        domain: the one of requests that name none.
        threshold: cosine distance up to which two faces count as one person.
        guarded: whether tokens are asked for.
        max_bytes: the largest picture that is taken.
    """

    domain: str
    threshold: float
    guarded: bool
    max_bytes: int


class Pages:
    """The page in every language, and its files.

    Attributes:
        assets: the files.
        demo: the demo picture, None when it is not installed.
    """

    def __init__(self, languages: Languages) -> None:
        self.assets = Assets(languages)
        self.demo = demo_picture()
        self._languages = languages
        self._shell = Template(self.assets.text("index.html"))
        self._rendered: dict[tuple[str, Facts], Asset] = {}

    def page(self, language: Language, facts: Facts) -> Asset:
        """The page in ``language``; its modules make the rest."""
        key = language.code, facts
        if key not in self._rendered:
            self._rendered[key] = asset(self._render(language, facts).encode(), "text/html")
        return self._rendered[key]

    def _render(self, language: Language, facts: Facts) -> str:
        assets = self.assets
        modules = [f'<link rel="modulepreload" href="{assets.address(path)}">' for path in assets.paths(".js")]
        styles = [f'<link rel="stylesheet" href="{assets.address(path)}">' for path in assets.paths(".css")]
        return self._shell.substitute(
            lang=language.tag,
            facts=html.escape(json.dumps(self._told(language, facts), ensure_ascii=False)),
            messages=assets.address(f"messages/{language.code}.json"),
            icon=assets.address("icon.svg"),
            main=assets.address("js/main.js"),
            head="\n".join([*styles, *modules]),
        )

    def _told(self, language: Language, facts: Facts) -> dict[str, Any]:
        listed = [{"code": known.code, "tag": known.tag, "name": known.native_name} for known in self._languages]
        return {
            "domain": facts.domain,
            "threshold": facts.threshold,
            "guarded": facts.guarded,
            "maxBytes": facts.max_bytes,
            "demo": self.demo is not None,
            "language": language.code,
            "languages": listed,
        }
