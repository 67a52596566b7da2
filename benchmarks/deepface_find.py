"""The way back: DeepFace searches galleries that this project wrote. ``python -m benchmarks.deepface_find``.

DeepFace makes a gallery of a folder of pictures with its own ArcFace (random weights) and searches every picture in it.
The gallery is brought into both stores with ``python -m matchers import`` and written again with ``export``; DeepFace
then searches what was exported, and our PKL gallery file as it is, and must name the same pictures in the same order at
the same distances. Scratch environments are made under ``--work`` unless they are there or named. About 10 minutes on
2 cores.

  python -m benchmarks.deepface_find --images ../shared/faces/bbt
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.deepface_versions import PEER, ROOT, Peer, add_galleries, command_line, copied, open_versions
from benchmarks.report import Report

MAX_DIFFERENCE = 1e-3
DOMAIN = "slovenia"

NOTE = """\
DeepFace's `find` on the gallery that it made itself, against `find` on the same gallery after `matchers import` and
`matchers export`. ArcFace with random weights, detector `opencv`, cosine distance, every picture searched among all.
`taken over`: with `refresh_database=True` DeepFace left the exported file as it was, so it embedded nothing anew."""


@dataclass(frozen=True, slots=True)
class Matchers:
    """``python -m matchers`` over a folder of its own, with the converted weights and DeepFace's detector."""

    data: Path
    model: Path

    def call(self, *arguments: str | Path) -> Any:
        """What one command prints as JSON."""
        environment = {
            **os.environ,
            "DATA_DIR": str(self.data),
            "DATABASE_URL": "",
            "EMBEDDER": str(self.model),
            "DETECTOR": "haar",
            "PYTHONPATH": str(ROOT),
        }
        command = [sys.executable, "-m", "matchers", *map(str, arguments), "--json"]
        done = subprocess.run(command, check=True, env=environment, stdout=subprocess.PIPE, cwd=ROOT)  # noqa: S603
        return json.loads(done.stdout)


Found = Mapping[str, Sequence[tuple[str, float]]]
"""By searched picture, the pictures found and their distances, nearest first."""


@dataclass(frozen=True, slots=True)
class Row:
    """How DeepFace searches a gallery that was handed back.

    Attributes:
        same, count: searches that gave the same pictures in the same order, and all.
        largest: difference of two distances.
        accepted: whether DeepFace found the file by its name, or left it as it was.
    """

    gallery: str
    same: int
    count: int
    largest: float
    accepted: bool

    @classmethod
    def of(cls, gallery: str, expected: Found, found: Found, *, accepted: bool) -> Row:
        """Compare what DeepFace found in its own gallery and in the one handed back."""
        same, largest = 0, 0.0
        for query, ranking in expected.items():
            same += [source for source, _ in found[query]] == [source for source, _ in ranking]
            given = dict(found[query])
            largest = max(largest, *(abs(given[source] - distance) for source, distance in ranking))
        return cls(gallery, same, len(expected), largest, accepted)

    @property
    def fine(self) -> bool:
        """Whether nothing differs."""
        return self.same == self.count and self.largest <= MAX_DIFFERENCE and self.accepted

    def shown(self, version: str) -> Mapping[str, str]:
        """The row of the table."""
        return {
            "DeepFace": version,
            "gallery": self.gallery,
            "same rankings": f"{self.same} of {self.count}",
            "largest difference of a distance": f"{self.largest:.1e}",
            "found by its name, or taken over": "yes" if self.accepted else "no",
        }


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 1 when DeepFace finds anything else in a gallery that was handed back."""
    parser = command_line("benchmarks.deepface_find", __doc__ or "")
    add_galleries(parser)
    options = parser.parse_args(arguments)
    versions = open_versions(options)
    work = versions.work / "find"
    report = Report("deepface-find", "DeepFace searches what was exported", note=NOTE)
    fine = True
    for peer, suffix in ((versions.old, "pkl"), (versions.new, "npz")):
        pictures = copied(options.images.resolve(), work / f"pictures-{peer.version}")
        matchers = Matchers(work / f"data-{peer.version}", versions.model)
        for row in _there_and_back(peer, suffix, pictures, matchers):
            report.add(row.shown(peer.version))
            fine &= row.fine
    wanted = f"the same pictures in the same order, distances within {MAX_DIFFERENCE}"
    report.remark(f"asked for: {wanted}: {'met' if fine else 'NOT met'}")
    report.finish(options.output)
    return int(not fine)


def _there_and_back(peer: Peer, suffix: str, pictures: Path, matchers: Matchers) -> Iterator[Row]:
    expected = _found(peer, pictures, refresh=True)
    (theirs,) = pictures.glob(f"ds_model_*.{suffix}")
    shutil.rmtree(matchers.data, ignore_errors=True)
    matchers.call("import", "--domain", DOMAIN, theirs)
    theirs.unlink()
    exported = Path(matchers.call("export", "--domain", DOMAIN, "--format", suffix, pictures)["file"])
    before = exported.read_bytes()
    kept = _found(peer, pictures, refresh=False)
    yield Row.of(f"export, .{suffix}, refresh_database=False", expected, kept, accepted=exported == theirs)
    refreshed = _found(peer, pictures, refresh=True)
    taken_over = exported.read_bytes() == before
    yield Row.of(f"export, .{suffix}, refresh_database=True", expected, refreshed, accepted=taken_over)
    if suffix == "pkl":
        (own,) = matchers.data.glob(f"galleries/{DOMAIN}/*.pkl")
        shutil.copy(own, exported)
        found = _found(peer, pictures, refresh=False)
        yield Row.of("our PKL gallery as it is", expected, found, accepted=own.name == exported.name)


def _found(peer: Peer, pictures: Path, *, refresh: bool) -> Found:
    answers = pictures.with_suffix(".json")
    peer.call(PEER, "find", pictures, answers, "--refresh" if refresh else "--no-refresh")
    return {picture["source"]: picture["find"][0] for picture in json.loads(answers.read_text())["pictures"]}


if __name__ == "__main__":
    sys.exit(main())
