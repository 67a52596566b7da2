"""What every benchmark shares: the machine's facts, interleaved timing, a Markdown table and a plot.

A script measures ours and its peers in the same run, puts rows into a :class:`Report`, prints it and writes it:

    report = Report("pkl_search", "Exact search of a PKL gallery", peers=("numpy", "faiss-cpu"))
    times = interleaved({"ours": search, "numpy": brute_force}, repeat=30)
    report.add({"faces": 100_000, "ours, ms": median(times["ours"]), "ratio": ratio(times, "numpy", "ours")})
    report.plot("faces", ["ours, ms"], "milliseconds a query")
    report.finish(Path("benchmarks/results"))
"""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from models.versions import installed_versions

RESULTS = Path(__file__).parent / "results"
"""Where results are kept under version control."""

Cell = str | int | float | None
Times = Mapping[str, Sequence[float]]

_PACKAGES = ("numpy", "onnxruntime", "opencv-python-headless")
# Instructions that decide how fast numbers of less than 32 bits are multiplied.
_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8")


def interleaved(
    calls: Mapping[str, Callable[[], object]], repeat: int, warm_up: int = 2, seconds: float = 120.0
) -> dict[str, list[float]]:
    """Milliseconds of each call, all called in turn ``repeat`` times, so that what disturbs one disturbs all.

    ``seconds`` bounds the time; at least one round is measured.
    """
    times: dict[str, list[float]] = {name: [] for name in calls}
    end = time.monotonic() + seconds
    for turn in range(-warm_up, repeat):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            elapsed = (time.perf_counter() - start) * 1000
            if turn >= 0:
                times[name].append(elapsed)
        if turn >= 0 and time.monotonic() > end:
            break
    return times


def median(values: Iterable[float]) -> float:
    """Median."""
    return statistics.median(values)


def percentile(values: Iterable[float], percent: float) -> float:
    """The smallest value that ``percent`` % of ``values`` do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def ratio(times: Times, slower: str, faster: str) -> float:
    """How many times as long as ``faster`` ``slower`` takes: median of the ratios, round by round."""
    return median(a / b for a, b in zip(times[slower], times[faster], strict=True))


def machine() -> dict[str, str]:
    """What the figures depend on: processor, cores, instructions, memory, system, Python."""
    processor = {}
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else ():
        name, _, value = line.partition(":")
        processor.setdefault(name.strip(), value.strip())
    flags = processor.get("flags", "").split()
    facts = {
        "processor": processor.get("model name", platform.processor() or platform.machine()),
        "cores": str(os.cpu_count()),
        "instructions": " ".join(flag for flag in _FLAGS if flag in flags),
        "memory": _memory(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }
    return {name: value for name, value in facts.items() if value}


def commit() -> str:
    """The commit that is checked out, ``+`` behind it when files have changed since."""
    folder = Path(__file__).parent
    try:
        head = _git(folder, "rev-parse", "--short=12", "HEAD")
        changed = _git(folder, "status", "--porcelain", "--untracked-files=no", "--", "..", ":!results")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head + ("+" if changed else "")


@dataclass(frozen=True)
class Plot:
    """Columns of a report over one of its columns; rows without a value are left out."""

    x: str
    columns: Sequence[str]
    label: str
    logarithmic: bool


@dataclass
class Report:
    """Rows of one subject, written as ``<subject>.md`` and plotted as ``<subject>*.png``.

    Args:
        subject: stem of the files.
        title: headline.
        note: what was measured and how, in a sentence or two of Markdown.
        peers: packages whose versions are printed besides our own.
        facts: further lines for the list of facts, such as the version of a server.
    """

    subject: str
    title: str
    note: str = ""
    peers: Sequence[str] = ()
    facts: dict[str, str] = field(default_factory=dict)
    rows: list[dict[str, Cell]] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    plots: list[Plot] = field(default_factory=list)

    def add(self, row: Mapping[str, Cell]) -> None:
        """One row by column name; printed at once, so that a long run shows where it is."""
        self.rows.append(dict(row))
        print("  ".join(f"{name}: {_shown(value)}" for name, value in row.items()), flush=True)

    def remark(self, text: str) -> None:
        """A line below the table: a limit that was hit, a check that was made."""
        self.remarks.append(text)
        print(text, flush=True)

    def plot(self, x: str, columns: Sequence[str], label: str, *, logarithmic: bool = True) -> None:
        """A plot of ``columns`` over the column ``x``, drawn by :meth:`finish`."""
        self.plots.append(Plot(x, columns, label, logarithmic))

    def markdown(self) -> str:
        """The whole report."""
        names = list(dict.fromkeys(name for row in self.rows for name in row))
        lines = [f"# {self.title}", ""]
        if self.note:
            lines += [self.note, ""]
        if names:
            lines += ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
            lines += ["| " + " | ".join(_shown(row.get(name)) for name in names) + " |" for row in self.rows]
            lines.append("")
        lines += [f"- {remark}" for remark in self.remarks] + [""] * bool(self.remarks)
        lines += [f"![{plot.label}]({name})" for name, plot in zip(self._names(), self.plots, strict=True)]
        lines += [""] * bool(self.plots)
        facts = {
            "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
            "commit": commit(),
            **machine(),
            **installed_versions((*_PACKAGES, *self.peers)),
            **self.facts,
            "command": " ".join(["python", *_command()]),
        }
        return "\n".join([*lines, *(f"- {name}: {value}" for name, value in facts.items()), ""])

    def finish(self, folder: Path | None = RESULTS) -> None:
        """Print the report and write it with its plots into ``folder``; None prints only."""
        text = self.markdown()
        print("\n" + text)
        if folder is None:
            return
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{self.subject}.md").write_text(text)
        for name, plot in zip(self._names(), self.plots, strict=True):
            _draw(folder / name, self.title, self.rows, plot)

    def _names(self) -> list[str]:
        return [f"{self.subject}{'' if number == 0 else f'-{number + 1}'}.png" for number in range(len(self.plots))]


def _draw(path: Path, title: str, rows: Sequence[Mapping[str, Cell]], plot: Plot) -> None:
    try:
        from matplotlib import pyplot  # noqa: PLC0415
    except ImportError:
        print(f"no plot {path}: matplotlib is not installed", file=sys.stderr)
        return
    figure, axes = pyplot.subplots(figsize=(8, 5), layout="constrained")
    for column in plot.columns:
        points = sorted(
            (row[plot.x], row[column])
            for row in rows
            if isinstance(row.get(plot.x), int | float) and isinstance(row.get(column), int | float)
        )
        if points:
            axes.plot(*zip(*points, strict=True), marker="o", label=column)
    if plot.logarithmic:
        axes.set_xscale("log")
        axes.set_yscale("log")
    axes.set(title=title, xlabel=plot.x, ylabel=plot.label)
    axes.grid(visible=True, which="both", alpha=0.25)
    axes.legend()
    figure.savefig(path, dpi=110, metadata={"Software": None})
    pyplot.close(figure)


def _shown(value: Cell) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 100 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _memory() -> str:
    path = Path("/proc/meminfo")
    if not path.exists():
        return ""
    kilobytes = int(path.read_text().split("MemTotal:")[1].split()[0])
    return f"{kilobytes / 2**20:.0f} GiB"


def _command() -> list[str]:
    """How the script was called; of absolute paths the last part, since the others are one machine's own."""
    module = sys.modules["__main__"].__spec__
    given = [Path(part).name if Path(part).is_absolute() else part for part in sys.argv[1:]]
    return (["-m", module.name] if module is not None else [Path(sys.argv[0]).name]) + given


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()  # noqa: S603
