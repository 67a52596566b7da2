"""The faces by which a network in another precision is made and judged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from convert.errors import FacesError
from convert.identities import Identities, of_folder, of_pictures, of_views
from convert.portraits import Portrait, Say, face_detector, folder_portraits, pictures_of_people, portraits_in
from convert.progress import Step
from convert.views import views

JUDGED = 32
"""Faces to make views of, for want of people."""
MOST_PICTURES = 2000


@dataclass(frozen=True, slots=True, eq=False)
class Samples:
    """Faces, each kept for one purpose.

    Attributes:
        calibration: to see which numbers the values inside the network take.
        held_out: others, to choose by.
        identities: to judge by.
        about: what the network is calibrated on, for people.
    """

    calibration: tuple[Portrait, ...]
    held_out: tuple[Portrait, ...]
    identities: Identities
    about: str


def gather(
    models_dir: Path,
    calibration: Path | None,
    images: Path | None,
    pairs: Path | None,
    *,
    count: int,
    say: Say,
    step: Step,
) -> Samples:
    """Faces of ``calibration`` (None: those that packages ship), every other one held out.

    They are judged by ``images``, where there are any, else by the people of ``calibration``, else by views of faces.

    Args:
        models_dir: where the detector is, or is fetched to.
        calibration: folder, ``<person>/<picture>`` or pictures of anybody.
        images: folder of people.
        pairs: file in the format of LFW that says which of ``images`` to compare.
        count: how many crops to calibrate on; three quarters as many are held out.
        say: told what is left out.
        step: told how far the reading of ``images`` is.

    Raises:
        ConvertError: there are too few faces, or the detector cannot be had.
        PairsError: ``images`` or ``pairs`` cannot be read.
    """
    if pairs is not None and images is None:
        raise FacesError(f"{pairs} names pairs of pictures; say with --images DIR where the pictures are.")
    detector = face_detector(models_dir, say)
    if calibration is None:
        given, origin = portraits_in(pictures_of_people(models_dir, say), detector), "that packages ship"
        origin += f" ({', '.join(sorted({portrait.source for portrait in given}))})"
    else:
        given = folder_portraits(calibration, detector, say, MOST_PICTURES)
        origin = f"of the folder {calibration.resolve().name}"
    if len(given) < 2:
        raise FacesError(
            f"Only {len(given)} faces were found to calibrate on; some dozens of different people serve well. "
            "Name a folder of pictures with --calibration DIR."
        )
    held_out = max(count * 3 // 4, 2)
    known, others = _some(given[::2], count), _some(given[1::2], held_out)
    about = f"{count} crops of {len(known)} faces {origin}"
    if len(known) < count:
        about += ", also mirrored, moved, relit and coarser"
    if images is not None:
        identities = of_pictures(images, pairs, detector, say, step)
    else:
        found = of_folder(given, calibration.resolve().name) if calibration is not None else None
        identities = found or of_views(_some(given, JUDGED))
    seen = views(known, count), views(others, held_out, seed=2)
    return Samples(tuple(seen[0]), tuple(seen[1]), identities, about)


def _some(portraits: Sequence[Portrait], most: int) -> list[Portrait]:
    """At most so many, from everywhere in the sequence."""
    return list(portraits[:: -(-len(portraits) // most)])
