"""Time and memory of hostile gallery files: ``python -m benchmarks.hostile_galleries``.

Every kind of hostile file that the tests know (``HOSTILE`` of ``tests/matchers/test_pickles.py`` and
``test_formats.py``) is read in a process of its own, as ``python -m matchers import`` reads it. Each must be refused in
less than 2 seconds, in less than 300 MB with all that the interpreter and its helpers hold, and leave nothing behind.
About two minutes.

  python -m benchmarks.hostile_galleries
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.report import RESULTS, Report
from tests.matchers import test_formats, test_pickles

SECONDS, MEGABYTES = 2.0, 300.0
ROOT = Path(__file__).resolve().parent.parent

# Reads one file; prints the seconds, the most memory in kB that the process and its helpers had, and the error.
READER = """
import json, re, resource, sys, time
from pathlib import Path
from matchers.errors import GalleryError
from matchers.formats import format_of, read_records
from matchers.records import gallery_of
path, begun, message = Path(sys.argv[1]), time.perf_counter(), None
try:
    with path.open("rb") as file:
        found = gallery_of(read_records(file, format_of(path.name)))
    if not found.faces:
        message = "no record can be used: " + "; ".join(one.reason for one in found.unusable)
except GalleryError as error:
    message = str(error)
seconds = time.perf_counter() - begun
own = int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
helpers = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
print(json.dumps([seconds, own, helpers, message]))
"""

NOTE = """\
Hostile gallery files, each read in a fresh process; the memory is the most that this process, with Python and NumPy in
it, or the process that reads Parquet and Feather ever held. Shown are the slowest and the largest of each format."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 1 when a file is read, runs something, or takes more time or memory than it may."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.hostile_galleries",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of the table")
    parser.add_argument("--all", action="store_true", help="a row for every file")
    options = parser.parse_args(arguments)
    report = Report("hostile-galleries", "Hostile gallery files", note=NOTE)
    with tempfile.TemporaryDirectory() as folder:
        found = [_read(path, kind) for path, kind in _write(Path(folder), Path(folder) / "canary")]
        executed = (Path(folder) / "canary").exists()
    for ending in dict.fromkeys(one.ending for one in found):
        of_kind = [one for one in found if one.ending == ending]
        extremes = {max(of_kind, key=lambda one: one.seconds), max(of_kind, key=lambda one: one.megabytes)}
        for one in of_kind if options.all else sorted(extremes, key=lambda one: -one.seconds):
            report.add({"format": f"{ending} ({len(of_kind)} files)", **one.shown()})
    slowest, largest = max(one.seconds for one in found), max(one.megabytes for one in found)
    refused = sum(one.error is not None for one in found)
    fine = refused == len(found) and not executed and slowest < SECONDS and largest < MEGABYTES
    report.remark(f"refused: {refused} of {len(found)}; something was executed: {'yes' if executed else 'no'}")
    report.remark(f"at most {slowest:.2f} s and {largest:.0f} MB")
    report.remark(f"asked for: all refused, {SECONDS:g} s, {MEGABYTES:g} MB: {'met' if fine else 'NOT met'}")
    report.finish(options.output)
    return int(not fine)


@dataclass(frozen=True, slots=True)
class Reading:
    """How a file was read.

    Attributes:
        error: why it was refused; None when it was read, or the process died.
    """

    ending: str
    kind: str
    seconds: float
    megabytes: float
    error: str | None

    def shown(self) -> Mapping[str, str]:
        """Cells of its row."""
        return {
            "file": self.kind,
            "seconds": f"{self.seconds:.2f}",
            "MB": f"{self.megabytes:.0f}",
            "answer": (self.error or "not refused").replace("|", "/"),
        }


def _write(folder: Path, canary: Path) -> Iterator[tuple[Path, str]]:
    """The hostile files of the tests, one after the other, and their kinds."""
    kinds = {kind: (".pkl", make) for kind, make in test_pickles.HOSTILE.items()} | test_formats.HOSTILE
    for number, (kind, (ending, make)) in enumerate(kinds.items()):
        path = folder / f"{number}{ending}"
        path.write_bytes(make(canary))
        yield path, kind
        path.unlink()


def _read(path: Path, kind: str) -> Reading:
    done = subprocess.run([sys.executable, "-c", READER, str(path)], stdout=subprocess.PIPE, check=False, cwd=ROOT)  # noqa: S603
    if done.returncode:
        return Reading(path.suffix, kind, 0.0, 0.0, None)
    seconds, own, helper, error = json.loads(done.stdout)
    return Reading(path.suffix, kind, seconds, max(own, helper) * 1024 / 1e6, error)


if __name__ == "__main__":
    sys.exit(main())
