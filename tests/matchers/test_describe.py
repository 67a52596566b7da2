"""Sentences on who is in a picture, read as a speaker would."""

from __future__ import annotations

import pytest

from matchers.describe import Seen, describe
from matchers.languages import Languages

PICTURE = 900


@pytest.fixture(scope="module")
def languages() -> Languages:
    return Languages()


def row(*people: str | None) -> list[Seen]:
    """People evenly spread over the picture, from left to right."""
    step = PICTURE / len(people) if people else 0
    return [Seen(person, step * (index + 0.5), 50) for index, person in enumerate(people)]


@pytest.mark.parametrize(
    ("people", "sentence"),
    [
        ([], "There is no face in the picture."),
        (["amy"], "There is one person in the picture: amy (centre)."),
        ([None], "There is one unknown person in the picture."),
        ([None, None], "There are two unknown people in the picture."),
        (["amy", None], "There are two people in the picture: amy (left) and one more unknown person."),
        (
            [None, "amy", "bob", None],
            "There are four people in the picture: amy (centre), bob (centre) and two more unknown people.",
        ),
        (["amy", "bob", "cid"], "There are three people in the picture: amy (left), bob (centre) and cid (right)."),
        (
            ["a", "b", "c", "d", "e", "f"],
            "There are six people in the picture: on the left a and b; in the centre c and d; on the right e and f.",
        ),
        (
            ["a", "b", "c", "d", None],
            "There are five people in the picture: on the left a and b; in the centre c; on the right d. "
            "There is also one unknown person.",
        ),
        (["{0}", "%s {people}"], "There are two people in the picture: {0} (left) and %s {people} (right)."),
        ([None] * 21, "There are 21 unknown people in the picture."),
    ],
)
def test_english(languages: Languages, people: list[str | None], sentence: str) -> None:
    assert describe(row(*people), PICTURE, languages.find("english")) == sentence


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("serbian", "Na slici su dve osobe: amy (levo) i još jedna nepoznata osoba."),
        ("sr-Cyrl", "На слици су две особе: amy (лево) и још једна непозната особа."),
        ("croatian", "Na slici su dvije osobe: amy (lijevo) i još jedna nepoznata osoba."),
        ("bosnian", "Na slici su dvije osobe: amy (lijevo) i još jedna nepoznata osoba."),
        ("slovenian", "Na sliki sta dve osebi: amy (levo) in še ena neznana oseba."),
        ("macedonian", "На сликата има две лица: amy (лево) и уште едно непознато лице."),
        ("german", "Auf dem Bild sind zwei Personen zu sehen: amy (links) und eine weitere unbekannte Person."),
    ],
)
def test_two_people_one_unknown(languages: Languages, name: str, sentence: str) -> None:
    assert describe(row("amy", None), PICTURE, languages.find(name)) == sentence


@pytest.mark.parametrize(
    ("name", "count", "sentence"),
    [
        ("serbian", 1, "Na slici je jedna nepoznata osoba."),
        ("serbian", 3, "Na slici su tri nepoznate osobe."),
        ("serbian", 5, "Na slici je pet nepoznatih osoba."),
        ("serbian", 11, "Na slici je 11 nepoznatih osoba."),
        ("serbian", 21, "Na slici je 21 nepoznata osoba."),
        ("serbian", 22, "Na slici su 22 nepoznate osobe."),
        ("sr-Cyrl", 7, "На слици је седам непознатих особа."),
        ("croatian", 4, "Na slici su četiri nepoznate osobe."),
        ("bosnian", 6, "Na slici je šest nepoznatih osoba."),
        ("slovenian", 1, "Na sliki je ena neznana oseba."),
        ("slovenian", 2, "Na sliki sta dve neznani osebi."),
        ("slovenian", 4, "Na sliki so štiri neznane osebe."),
        ("slovenian", 5, "Na sliki je pet neznanih oseb."),
        ("slovenian", 102, "Na sliki sta 102 neznani osebi."),
        ("macedonian", 1, "На сликата има едно непознато лице."),
        ("macedonian", 3, "На сликата има три непознати лица."),
        ("macedonian", 11, "На сликата има 11 непознати лица."),
        ("macedonian", 21, "На сликата има 21 непознато лице."),
        ("german", 1, "Auf dem Bild ist eine unbekannte Person zu sehen."),
        ("german", 8, "Auf dem Bild sind acht unbekannte Personen zu sehen."),
    ],
)
def test_unknown_people_are_counted_as_the_language_counts(
    languages: Languages, name: str, count: int, sentence: str
) -> None:
    assert describe(row(*[None] * count), PICTURE, languages.find(name)) == sentence


@pytest.mark.parametrize("count", range(31))
def test_crowds_are_told_in_every_language_with_names_as_they_are(languages: Languages, count: int) -> None:
    names = [f"Ђорђе {{{number}}} Müller & <b>Š.</b>" for number in range(count)]
    for language in languages:
        every_other = [name if number % 2 else None for number, name in enumerate(names)]
        for people in (names, every_other):
            said = describe(row(*people), PICTURE, language)
            assert said.endswith(".")
            for name in filter(None, people):
                said = said.replace(name, "", 1)
            assert "{" not in said
            assert (str(count) in said) == (count > 10)


def test_many_people_in_slovenian(languages: Languages) -> None:
    people = row("a", "b", "c", "d", None, None)
    assert describe(people, PICTURE, languages.find("sl")) == (
        "Na sliki je šest oseb: levo a in b; na sredini c in d. Poleg tega sta na sliki še dve neznani osebi."
    )


@pytest.mark.parametrize(
    ("centres", "places"),
    [
        ([100, 800], ["left", "right"]),
        ([100, 450], ["left", "centre"]),
        ([420, 480], ["left", "right"]),
        ([450, 455], ["centre", "centre"]),
        ([50, 150, 250], ["left", "centre", "right"]),
        ([50, 60, 250], ["left", "left", "right"]),
        ([800], ["right"]),
    ],
)
def test_a_place_is_a_third_of_the_picture_or_of_the_group(
    languages: Languages, centres: list[float], places: list[str]
) -> None:
    people = [Seen("amy", centre, 50) for centre in reversed(centres)]
    listed = languages.default.listed(f"amy ({place})" for place in places)
    assert describe(people, PICTURE, languages.default).endswith(f": {listed}.")


def test_a_crowd_in_the_middle_is_still_told_apart(languages: Languages) -> None:
    people = [Seen(name, 400 + 30 * index, 40) for index, name in enumerate("abcd")]
    assert describe(people, PICTURE, languages.default) == (
        "There are four people in the picture: on the left a; in the centre b and c; on the right d."
    )
