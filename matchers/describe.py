"""One or two sentences on who is in a picture, and where."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matchers.languages import Language

# More people than this are named place by place, so that no place is said over and over.
_NAMED_ONE_BY_ONE = 3
_LEFT, _CENTRE, _RIGHT = range(3)


@dataclass(frozen=True, slots=True)
class Seen:
    """One face of a picture.

    Attributes:
        person: who it is, None for somebody unknown.
        centre: middle of the face, pixels from the picture's left edge.
        width: of the face, pixels.
    """

    person: str | None
    centre: float
    width: float


def describe(people: Sequence[Seen], picture_width: int, language: Language) -> str:
    """Who is in a picture of ``picture_width`` pixels and where, in ``language``.

    Examples: ``There are two people in the picture: amy (left) and one more unknown person.``,
    ``Na slici su dve nepoznate osobe.``
    """
    people = sorted(people, key=lambda seen: seen.centre)
    count = len(people)
    if not people:
        return language.gettext("There is no face in the picture.")
    places = _places(people, picture_width)
    named = [(seen.person, place) for seen, place in zip(people, places, strict=True) if seen.person is not None]
    unknown = count - len(named)
    if not named:
        return language.ngettext(
            "There is {count} unknown person in the picture.", "There are {count} unknown people in the picture.", count
        ).format(count=_number(count, language))
    if len(named) <= _NAMED_ONE_BY_ONE:
        return _head(count, language.listed(_one_by_one(named, unknown, language)), language)
    sentence = _head(count, "; ".join(_place_by_place(named, language)), language)
    return f"{sentence} {_also(unknown, language)}" if unknown else sentence


def _head(count: int, people: str, language: Language) -> str:
    return language.ngettext(
        "There is {count} person in the picture: {people}.", "There are {count} people in the picture: {people}.", count
    ).format(count=_number(count, language), people=people)


def _one_by_one(named: Sequence[tuple[str, int]], unknown: int, language: Language) -> list[str]:
    words = (
        language.pgettext("where one person is", "left"),
        language.pgettext("where one person is", "centre"),
        language.pgettext("where one person is", "right"),
    )
    listed = [f"{person} ({words[place]})" for person, place in named]
    if unknown:
        more = language.ngettext("{count} more unknown person", "{count} more unknown people", unknown)
        listed.append(more.format(count=_number(unknown, language)))
    return listed


def _place_by_place(named: Sequence[tuple[str, int]], language: Language) -> list[str]:
    phrases = (
        language.gettext("on the left {people}"),
        language.gettext("in the centre {people}"),
        language.gettext("on the right {people}"),
    )
    groups = [[person for person, where in named if where == place] for place in (_LEFT, _CENTRE, _RIGHT)]
    return [
        phrase.format(people=language.listed(group)) for phrase, group in zip(phrases, groups, strict=True) if group
    ]


def _also(unknown: int, language: Language) -> str:
    return language.ngettext(
        "There is also {count} unknown person.", "There are also {count} unknown people.", unknown
    ).format(count=_number(unknown, language))


def _number(count: int, language: Language) -> str:
    words = (
        language.pgettext("number of people", "one"),
        language.pgettext("number of people", "two"),
        language.pgettext("number of people", "three"),
        language.pgettext("number of people", "four"),
        language.pgettext("number of people", "five"),
        language.pgettext("number of people", "six"),
        language.pgettext("number of people", "seven"),
        language.pgettext("number of people", "eight"),
        language.pgettext("number of people", "nine"),
        language.pgettext("number of people", "ten"),
    )
    return words[count - 1] if count <= len(words) else str(count)


def _places(people: Sequence[Seen], picture_width: int) -> list[int]:
    """Left, centre or right by the thirds of the picture. Where that does not tell people apart who stand apart, by the
    thirds of the stretch between the outermost two."""
    places = [_third(seen.centre, 0, picture_width) for seen in people]
    told_apart = len(set(places)) == len(people) if len(people) <= _NAMED_ONE_BY_ONE else len(set(places)) > 1
    first, last = people[0].centre, people[-1].centre
    apart = last - first >= sum(seen.width for seen in people) / len(people) / 2 > 0
    if told_apart or not apart:
        return places
    return [_third(seen.centre, first, last) for seen in people]


def _third(value: float, low: float, high: float) -> int:
    share = (value - low) / (high - low)
    return _LEFT if share < 1 / 3 else _RIGHT if share > 2 / 3 else _CENTRE
