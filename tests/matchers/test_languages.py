"""Which language a caller means, and whether every catalog says everything."""

from __future__ import annotations

import re
from gettext import c2py
from pathlib import Path
from typing import Any

import pytest
from babel.messages.catalog import Catalog
from babel.messages.extract import extract_from_dir
from babel.messages.frontend import parse_mapping_cfg
from babel.messages.pofile import read_po
from babel.plural import to_python

from matchers.languages import Language, Languages, UnknownLanguage

ROOT = Path(__file__).resolve().parents[2]
LOCALES = ROOT / "matchers" / "locales"
CATALOGS = sorted(LOCALES.glob("*.po"))
CYRILLIC = "абвгдђежзијклљмнњопрстћуфхцчџш"
LATIN = "a b v g d đ e ž z i j k l lj m n nj o p r s t ć u f h c č dž š"


@pytest.fixture(scope="module")
def languages() -> Languages:
    return Languages()


def catalog(path: Path) -> Catalog:
    with path.open("rb") as file:
        return read_po(file, abort_invalid=True)


def key(message_id: Any, context: str | None) -> tuple[str | None, str]:
    return context or None, message_id if isinstance(message_id, str) else message_id[0]


@pytest.fixture(scope="module")
def said() -> set[tuple[str | None, str]]:
    """Every message that the code and the page say."""
    with (ROOT / "babel.cfg").open(encoding="utf-8") as file:
        methods, options = parse_mapping_cfg(file)
    return {
        key(message, context)
        for _, _, message, _, context in extract_from_dir(ROOT, methods, options, directory_filter=_holds_messages)
    }


def _holds_messages(folder: str) -> bool:
    return Path(folder).relative_to(ROOT).parts[0] in ("matchers", "server")


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("serbian", "sr"),
        ("Serbian", "sr"),
        ("sr", "sr"),
        ("SR-latn", "sr"),
        ("sr_RS", "sr"),
        ("sr-Latn-RS", "sr"),
        ("srp", "sr"),
        ("srpski", "sr"),
        ("sh", "sr"),
        ("cnr", "sr"),
        ("Montenegrin", "sr"),
        ("sr_RS@latin", "sr"),
        ("Serbian (Latin)", "sr"),
        ("sr-Cyrl", "sr-Cyrl"),
        ("sr_cyrl_RS", "sr-Cyrl"),
        ("serbian-cyrillic", "sr-Cyrl"),
        ("српски (ћирилица)", "sr-Cyrl"),
        ("srpski (ćirilica)", "sr-Cyrl"),
        ("Српски", "sr-Cyrl"),
        ("slovenian", "sl"),
        ("slovenščina", "sl"),
        ("Slovenscina", "sl"),
        ("slv", "sl"),
        ("slovene", "sl"),
        ("croatian", "hr"),
        ("hr-HR", "hr"),
        ("bosnian", "bs"),
        ("bosanski", "bs"),
        ("macedonian", "mk"),
        ("македонски", "mk"),
        ("mac", "mk"),
        ("german", "de"),
        ("deutsch", "de"),
        ("de-AT", "de"),
        ("english", "en"),
        ("en-US", "en"),
        (" EN ", "en"),
    ],
)
def test_a_language_is_known_by_the_names_that_callers_write(languages: Languages, name: str, code: str) -> None:
    assert languages.find(name).code == code


@pytest.mark.parametrize("name", ["klingon", "fr", "", " ", "-", "<script>", "s" * 5000, "sr\x00", "de fr", "\ud800"])
def test_an_unknown_language_is_refused_with_those_that_there_are(languages: Languages, name: str) -> None:
    with pytest.raises(UnknownLanguage, match=r"english \(en\).*serbian \(sr\), serbian \(cyrillic\) \(sr-Cyrl\)"):
        languages.find(name)


def test_every_name_in_the_list_of_a_refusal_is_a_name(languages: Languages) -> None:
    for language in languages:
        assert languages.find(language.name) is languages.find(language.code) is language
        assert languages.find(language.native_name) is languages.find(language.tag) is language


@pytest.mark.parametrize(
    ("header", "code"),
    [
        (None, "en"),
        ("", "en"),
        ("de", "de"),
        ("fr-FR, sl;q=0.8, en;q=0.5", "sl"),
        ("en;q=0.4, hr;q=0.9", "hr"),
        ("sr-Cyrl-RS,sr;q=0.9", "sr-Cyrl"),
        ("de;q=0, mk;q=0.1", "mk"),
        ("fr, *;q=0.5", "en"),
        ("de;q=high, bs", "bs"),
        (",;=,q" * 5000, "en"),
    ],
)
def test_accept_language_is_a_wish(languages: Languages, header: str | None, code: str) -> None:
    assert languages.preferred(header).code == code


def test_the_template_holds_what_is_said(said: set[tuple[str | None, str]]) -> None:
    assert len(said) > 20
    assert {key(message.id, message.context) for message in catalog(LOCALES / "messages.pot") if message.id} == said


@pytest.mark.parametrize("path", CATALOGS, ids=lambda path: path.stem)
def test_no_message_is_missing(path: Path, said: set[tuple[str | None, str]]) -> None:
    messages = [message for message in catalog(path) if message.id]
    assert {key(message.id, message.context) for message in messages} == said
    for message in messages:
        forms = [message.string] if isinstance(message.string, str) else message.string
        assert all(forms), message.id
        assert not message.fuzzy, message.id
        ids = [message.id] if isinstance(message.id, str) else message.id
        for form in forms:
            assert placeholders(form) == placeholders(ids[-1]), message.id


def placeholders(text: str) -> set[str]:
    return set(re.findall(r"{(\w*)}", text))


@pytest.mark.parametrize("path", CATALOGS, ids=lambda path: path.stem)
def test_plurals_follow_cldr(path: Path, languages: Languages) -> None:
    language = languages.find(path.stem)
    read = catalog(path)
    category = to_python(language.locale.plural_form)
    index = c2py(read.plural_expr)
    assert read.num_plurals == len(language.plural_order)
    for count in range(250):
        expected = language.plural_order.index(category(count))
        assert index(count) == expected, count
    for message in read:
        if message.pluralizable:
            assert len(message.string) == read.num_plurals


def test_both_scripts_of_serbian_say_the_same(languages: Languages) -> None:
    letters = dict(zip(CYRILLIC, LATIN.split(" "), strict=True))
    latin, cyrillic = languages.find("sr-Latn"), languages.find("sr-Cyrl")
    assert latin.messages.keys() == cyrillic.messages.keys()
    for message, text in cyrillic.messages.items():
        assert "".join(letters.get(c, c) for c in "".join(text).lower()) == "".join(latin.messages[message]).lower()


def test_a_new_catalog_is_a_new_language(tmp_path: Path) -> None:
    (tmp_path / "cs.po").write_text(
        'msgid ""\nmsgstr ""\n"Language: cs\\n"\n'
        '"Plural-Forms: nplurals=4; plural=(n==1 ? 0 : n>=2 && n<=4 ? 1 : 3);\\n"\n\n'
        'msgid "There is no face in the picture."\nmsgstr "Na snímku není žádný obličej."\n',
        "utf-8",
    )
    czech = Languages(tmp_path).find("čeština")
    assert czech.gettext("There is no face in the picture.") == "Na snímku není žádný obličej."
    assert czech.gettext("left") == "left"


def test_english_needs_no_catalog(languages: Languages) -> None:
    english: Language = languages.default
    assert english.ngettext("one", "many", 1) == "one"
    assert english.ngettext("one", "many", 0) == "many"
    assert english.listed(["a", "b", "c"]) == "a, b and c"
