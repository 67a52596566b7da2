from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from matchers.errors import InvalidName
from matchers.names import domain_name, person_name


@pytest.mark.parametrize("name", ["slovenia", "SI", "site-2", "a.b_c", "0"])
def test_plain_domain_names_are_kept(name: str) -> None:
    assert domain_name(name) == name


@pytest.mark.parametrize("name", ["", ".", "..", "-a", ".hidden", "a/b", "a\\b", "a b", "č", "a\0", "a\n", "x" * 65])
def test_other_domain_names_are_refused(name: str) -> None:
    with pytest.raises(InvalidName, match="domain"):
        domain_name(name)


@pytest.mark.parametrize("name", ["amy", "Đorđe Đoković", "O'Neil", "陳", "x" * 128])
def test_people_have_names_of_all_scripts(name: str) -> None:
    assert person_name(name) == name


@pytest.mark.parametrize(
    "name", ["", ".", "..", ".x", " x", "x ", "a/b", "a\\b", "a\0b", "a\nb", "a\u202eb", "x" * 129]
)
def test_other_person_names_are_refused(name: str) -> None:
    with pytest.raises(InvalidName, match="person"):
        person_name(name)


def test_two_ways_to_write_a_letter_are_one_name() -> None:
    assert person_name(unicodedata.normalize("NFD", "Đurić")) == unicodedata.normalize("NFC", "Đurić")


@given(st.text())
def test_an_admitted_person_is_always_one_plain_path_part(text: str) -> None:
    try:
        name = person_name(text)
    except InvalidName:
        return
    assert name not in {"", ".", ".."}
    assert not set(name) & {"/", "\\", "\0", "\n"}
    assert person_name(name) == name
