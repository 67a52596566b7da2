"""The languages that answers and the page are written in: one gettext catalog each, ``matchers/locales/<code>.po``.

English is the language of the messages themselves. Plural forms and list patterns come from CLDR, through Babel.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from importlib.resources.abc import Traversable

from babel import Locale
from babel.core import get_global, parse_locale
from babel.lists import format_list
from babel.messages.pofile import read_po

from matchers.errors import MatcherError

# CLDR's order, which is also the order of the forms in a catalog.
_PLURAL_ORDER = ("zero", "one", "two", "few", "many", "other")
_LONGEST_NAME = 64
_MOST_PREFERENCES = 32
_HEADER = re.compile(r'^"([\w-]+): (.*)\\n"$', re.MULTILINE)

Message = str | tuple[str, ...]


class UnknownLanguage(MatcherError):
    """No catalog is there for a language that was asked for."""


@dataclass(frozen=True)
class Language:
    """One language and its messages, which are read when the first one is needed.

    Attributes:
        code: the short name, such as ``de``, ``sr`` or ``sr-Cyrl``.
        locale: CLDR's rules for it, such as ``sr_Latn``.
        catalog: its ``.po`` file; None for English.
        other_names: what it is called besides the names that CLDR has for it, such as ``slovene``.
    """

    code: str
    locale: Locale
    catalog: Traversable | None
    other_names: tuple[str, ...] = ()

    @property
    def tag(self) -> str:
        """BCP 47, such as ``sr-Latn``: for ``Content-Language`` and HTML's ``lang``."""
        return str(self.locale).replace("_", "-")

    @property
    def name(self) -> str:
        """In English and lower case: ``german``, ``serbian (cyrillic)``."""
        return _display(Locale.parse(self.code, "-"), "en").lower()

    @property
    def native_name(self) -> str:
        """In itself: ``Deutsch``, ``srpski (latinica)``."""
        plain = Locale(self.locale.language, script=self.locale.script)
        return _display(plain, plain)

    @property
    def plural_order(self) -> list[str]:
        """CLDR's plural categories of the language in the order in which a catalog lists the forms."""
        tags = {*self.locale.plural_form.tags, "other"}
        return [tag for tag in _PLURAL_ORDER if tag in tags]

    @cached_property
    def messages(self) -> Mapping[tuple[str | None, str], Message]:
        """``{(context, English message): translation}``; several forms where the message counts something."""
        if self.catalog is None:
            return {}
        with self.catalog.open("rb") as file:
            read = read_po(file, locale=self.locale, abort_invalid=True)
        found: dict[tuple[str | None, str], Message] = {}
        for message in read:
            if message.id and message.string and not message.fuzzy:
                key, text = message.id, message.string
                found[message.context, key if isinstance(key, str) else key[0]] = (
                    text if isinstance(text, str) else tuple(text)
                )
        return found

    def gettext(self, message: str) -> str:
        """The message in this language."""
        return self._single(None, message)

    def pgettext(self, context: str, message: str) -> str:
        """The message as it is said in ``context``."""
        return self._single(context, message)

    def ngettext(self, one: str, many: str, count: int) -> str:
        """The form of the message that goes with ``count``."""
        found = self.messages.get((None, one))
        if isinstance(found, tuple):
            return found[self.plural_order.index(self.locale.plural_form(count))] or many
        return one if count == 1 else many

    def listed(self, items: Iterable[str]) -> str:
        """``amy, bob and cid``."""
        return str(format_list(list(items), locale=self.locale))

    def _single(self, context: str | None, message: str) -> str:
        found = self.messages.get((context, message))
        return found if isinstance(found, str) and found else message


class Languages:
    """Every language that there is, found by whatever name a caller uses."""

    def __init__(self, folder: Traversable | None = None) -> None:
        """``folder``: holds the catalogs; default: those of the project."""
        folder = files("matchers").joinpath("locales") if folder is None else folder
        self.default = Language("en", Locale("en", "GB"), None)
        self._by_code = {"en": self.default}
        for file in sorted(folder.iterdir(), key=lambda entry: entry.name):
            if file.name.endswith(".po"):
                language = _language(file)
                self._by_code[language.code] = language
        self._by_name = {name: language for language in self for name in _names(language)}

    def __iter__(self) -> Iterator[Language]:
        return iter(self._by_code.values())

    def find(self, name: str) -> Language:
        """The language that a caller means by ``serbian``, ``sr``, ``sr_RS``, ``srp``, ``Srpski`` or ``sr-Cyrl``.

        Serbian without a script is written in Latin, unless it is asked for in Cyrillic: ``српски``.

        Raises:
            UnknownLanguage: none of them; the message lists those that there are.
        """
        found = self._find(name)
        if found is None:
            listed = ", ".join(f"{language.name} ({language.code})" for language in self)
            raise UnknownLanguage(f"That language is not one of this server's. There are: {listed}.")
        return found

    def preferred(self, accept_language: str | None) -> Language:
        """The first language of an ``Accept-Language`` header (RFC 9110, 12.5.4) that there is, otherwise English."""
        for name in _preferences(accept_language or ""):
            found = self._find(name)
            if found is not None:
                return found
        return self.default

    def _find(self, name: str) -> Language | None:
        if len(name) > _LONGEST_NAME or not name.isprintable():
            return None
        found = self._by_name.get(_key(name))
        return found if found is not None else self._by_locale(name)

    def _by_locale(self, name: str) -> Language | None:
        try:
            language, _, script, *_ = parse_locale(name.strip().replace("_", "-"), "-")
            language, _, usual, *_ = parse_locale(get_global("language_aliases").get(language, language))
        except ValueError:
            return None
        script = script or usual
        with_script = self._by_code.get(f"{language}-{script}")
        return with_script if with_script is not None else self._by_code.get(language)


def _language(file: Traversable) -> Language:
    code = file.name.removesuffix(".po").replace("_", "-")
    header = dict(_HEADER.findall(file.read_text("utf-8").split("\n\n", 1)[0]))
    locale = Locale.parse(header.get("Language", code.replace("-", "_")))
    other_names = [name.strip() for name in header.get("X-Other-Names", "").split(",")]
    return Language(code, locale, file, tuple(filter(None, other_names)))


def _names(language: Language) -> Iterable[str]:
    plain, full = Locale.parse(language.code, "-"), Locale(language.locale.language, script=language.locale.script)
    for locale in (plain, full):
        yield from (_key(str(locale)), _key(_display(locale, "en")), _key(_display(locale, full)))
    yield _key(_display(Locale(full.language), full))
    yield from map(_key, language.other_names)


def _display(locale: Locale, spoken: Locale | str) -> str:
    return locale.get_display_name(spoken) or str(locale)


def _key(name: str) -> str:
    letters = unicodedata.normalize("NFKD", name).casefold()
    return re.sub(r"[\W_]+", "_", "".join(c for c in letters if not unicodedata.combining(c))).strip("_")


def _preferences(header: str) -> list[str]:
    weighted = []
    for part in header.split(",")[:_MOST_PREFERENCES]:
        name, _, parameter = part.partition(";")
        quality = re.fullmatch(r"\s*(?:q\s*=\s*([01](?:\.\d{0,3})?)\s*)?", parameter)
        weight = 0.0 if quality is None else float(quality.group(1) or 1)
        if weight > 0 and name.strip():
            weighted.append((weight, name.strip()))
    return [name for _, name in sorted(weighted, key=lambda item: -item[0])]
