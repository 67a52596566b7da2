"""What is set for one domain, seen by every process."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from matchers.errors import GalleryError, InvalidName
from matchers.preferences import Preferences, PreferenceStore, default_threshold, domain_threshold, open_preferences
from models.card import ModelCard
from models.errors import CardError
from models.settings import Settings

WAIT = 2.0


@pytest.fixture
def store(tmp_path: Path) -> PreferenceStore:
    return PreferenceStore(tmp_path / "domains")


def test_nothing_is_set_at_first_and_nothing_is_written(store: PreferenceStore) -> None:
    assert store.get("office") == Preferences()
    assert not store.root.exists()


def test_a_change_keeps_the_rest_and_lies_in_a_private_folder(store: PreferenceStore, embedder_card: ModelCard) -> None:
    assert store.set_threshold("office", embedder_card, 0.4) is None
    before, after = store.change("office", lambda now: replace(now, mode="dual", sample=0.25))
    assert before.threshold(embedder_card) == after.threshold(embedder_card) == 0.4
    assert store.set_threshold("office", embedder_card, 0.3) == 0.4
    again = PreferenceStore(store.root).get("office")
    assert (again.mode, again.sample, again.threshold(embedder_card)) == ("dual", 0.25, 0.3)
    assert stat.S_IMODE(store.root.stat().st_mode) == 0o700
    assert stat.S_IMODE(store.path("office").stat().st_mode) == 0o600
    assert store.get("home") == Preferences()


def test_a_threshold_belongs_to_one_embedding_space(
    store: PreferenceStore, card: Callable[[str, int], ModelCard]
) -> None:
    store.set_threshold("office", card("one", 4), 0.4)
    assert store.get("office").threshold(card("other", 4)) is None


def test_another_process_is_seen_within_two_seconds(store: PreferenceStore, embedder_card: ModelCard) -> None:
    store.set_threshold("office", embedder_card, 0.4)
    script = (
        "import sys; from pathlib import Path; from dataclasses import replace\n"
        "from matchers.preferences import PreferenceStore\n"
        "PreferenceStore(Path(sys.argv[1])).change('office', lambda now: replace(now, mode='pkl_only'))"
    )
    subprocess.run([sys.executable, "-c", script, str(store.root)], check=True, cwd=Path(__file__).parents[2])
    deadline = time.monotonic() + WAIT
    while store.get("office").mode != "pkl_only":
        assert time.monotonic() < deadline, "the other process's change was not seen"
        time.sleep(0.05)
    assert store.get("office").threshold(embedder_card) == 0.4
    store.drop("office")
    assert store.get("office") == Preferences()


def test_writers_at_once_lose_nothing(tmp_path: Path, card: Callable[[str, int], ModelCard]) -> None:
    def write(number: int) -> None:
        PreferenceStore(tmp_path).set_threshold("office", card(f"model-{number}", 4), number / 100)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert PreferenceStore(tmp_path).get("office").thresholds == {f"model-{n}": n / 100 for n in range(20)}


@pytest.mark.parametrize("text", ["", "[]", "{", '{"mode": "both"}', '{"sample": 2}', '{"thresholds": {"a": 9}}'])
def test_a_damaged_file_is_named_and_never_written_over(store: PreferenceStore, text: str) -> None:
    store.root.mkdir()
    store.path("office").write_text(text)
    with pytest.raises(GalleryError, match=r"office\.json"):
        store.get("office")
    with pytest.raises(GalleryError):
        store.change("office", lambda now: now)
    assert store.path("office").read_text() == text


def test_a_file_that_is_damaged_later_changes_nothing(store: PreferenceStore) -> None:
    store.change("office", lambda now: replace(now, mode="pgvector_only"))
    store.path("office").write_text("{")
    os.utime(store.path("office"), ns=(1, 1))
    time.sleep(0.6)
    assert store.get("office").mode == "pgvector_only"


def test_asking_for_ever_new_domains_takes_no_more_memory(store: PreferenceStore) -> None:
    store.change("office", lambda now: replace(now, mode="pgvector_only"))
    tracemalloc.start()
    try:
        for number in range(20_000):
            store.get(f"nobody-{number}")
        assert tracemalloc.get_traced_memory()[0] < 2 * 2**20
    finally:
        tracemalloc.stop()
    assert store.get("office").mode == "pgvector_only"


def test_a_domain_cannot_name_another_file(store: PreferenceStore) -> None:
    with pytest.raises(InvalidName):
        store.get("../office")


def test_the_threshold_is_the_domains_then_the_settings_then_the_cards(
    tmp_path: Path, embedder_card: ModelCard
) -> None:
    settings = Settings(_env_file=None, data_dir=tmp_path)
    assert domain_threshold(settings, embedder_card, "office") == embedder_card.threshold
    settings = Settings(_env_file=None, data_dir=tmp_path, match_threshold=0.7)
    assert domain_threshold(settings, embedder_card, "office") == 0.7
    open_preferences(settings).set_threshold("office", embedder_card, 0.0)
    assert domain_threshold(settings, embedder_card, "office") == 0.0
    assert domain_threshold(settings, embedder_card, "home") == 0.7
    with pytest.raises(CardError, match="MATCH_THRESHOLD"):
        default_threshold(Settings(_env_file=None, match_threshold=None), replace(embedder_card, threshold=None))
