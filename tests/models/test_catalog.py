"""The catalog that is shipped is sound, and a wrong one is refused with the entry's name."""

from __future__ import annotations

from pathlib import Path

import pytest

from models.catalog import Catalog, UrlSource, WheelSource, load_catalog
from models.errors import CatalogError

ENTRY = """
[[model]]
name = "x"
role = "detector"
licence = "MIT"
about = "x"
file = "x.onnx"
[[model.source]]
kind = "url"
url = "https://example.org/x.onnx"
"""


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return load_catalog()


def test_the_default_pack_needs_a_package_index_and_nothing_else(catalog: Catalog) -> None:
    pack = catalog.pack("default")
    assert [entry.name for entry in pack] == ["retinaface", "yunet", "sface"]
    for entry in pack:
        assert isinstance(entry.sources[0], WheelSource)
        assert entry.card is not None
        assert entry.licence in {"MIT", "Apache-2.0"}


def test_every_entry_ends_in_a_model_or_in_a_command_that_makes_one(catalog: Catalog) -> None:
    for entry in catalog.entries:
        if entry.card is None:
            assert "python -m convert" in entry.next_step
            assert "{path}" in entry.next_step
        else:
            assert entry.file == f"{entry.name}.onnx"
            assert entry.card.name == entry.name


def test_sums_are_lower_case_hex_and_addresses_are_encrypted(catalog: Catalog) -> None:
    for source in (source for entry in catalog.entries for source in entry.sources):
        assert source.sha256 == "" or (len(source.sha256) == 64 and int(source.sha256, 16))
        assert source.sha256 == source.sha256.lower()
        if isinstance(source, UrlSource):
            assert source.url.startswith("https://")


def test_the_embedders_threshold_says_where_it_comes_from(catalog: Catalog) -> None:
    card = catalog.find("sface").card
    assert card is not None
    assert card.threshold_origin


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("licence =", "license ="), "'x' lacks 'licence'"),
        (('"detector"', '"seer"'), "'seer' is neither detector nor embedder"),
        (('"url"', '"pigeon"'), "'pigeon', not wheel, local or url"),
        (("url = ", "address = "), "the model 'x' is wrong|lacks 'url'"),
        (('file = "x.onnx"', 'file = "../x.onnx"'), "lies outside the models folder"),
        (('file = "x.onnx"', 'file = "/x.onnx"'), "lies outside the models folder"),
        (("[[model.source]]", '[model.card]\nfamily = "yunet"\n[[model.source]]'), "model card is incomplete"),
        (("[[model]]", "[[model]"), "cannot be read"),
    ],
)
def test_a_wrong_entry_is_named(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    path = tmp_path / "catalog.toml"
    path.write_text(ENTRY.replace(*change))
    with pytest.raises(CatalogError, match=message):
        load_catalog(path)


def test_a_name_may_stand_only_once(tmp_path: Path) -> None:
    path = tmp_path / "catalog.toml"
    path.write_text(ENTRY + ENTRY)
    with pytest.raises(CatalogError, match="twice"):
        load_catalog(path)
    path.write_text(ENTRY)
    assert load_catalog(path).find("x").sources == (UrlSource("https://example.org/x.onnx", "", "x.onnx"),)
