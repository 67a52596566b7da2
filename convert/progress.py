"""Progress of long steps, on standard error so that results stay alone on standard output."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, TaskID, TextColumn, TransferSpeedColumn
from rich.progress import Progress as Bars

Step = Callable[[int, int], None]
"""Called with how many steps are done, and how many there are."""


class Progress:
    """Says steps and draws bars of downloads and of other long work while it is entered."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, soft_wrap=True, highlight=False)
        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
        self._bars = Bars(*columns, console=self._console, transient=True)
        counting = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        self._counts = Bars(*counting, console=self._console, transient=True)
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _hide(self._bars)
        _hide(self._counts)

    def say(self, text: str) -> None:
        """Print one line."""
        self._console.print(text, markup=False)

    def advance(self, name: str, done: int, total: int) -> None:
        """Move the bar of ``name``; ``total`` 0 means unknown."""
        if name not in self._tasks:
            self.say(f"{name}: downloading")
            self._show(self._bars)
            self._tasks[name] = self._bars.add_task(name, total=None)
        self._bars.update(self._tasks[name], completed=done, total=total or None)
        if total and done >= total:
            self._bars.remove_task(self._tasks.pop(name))

    def _show(self, bars: Bars) -> None:
        # In a log file a bar is a row of empty lines.
        if self._console.is_terminal:
            bars.start()

    def count(self, name: str) -> Step:
        """A bar for ``name`` that is drawn once it is told of a step, and goes when the last one is done."""
        task: list[TaskID] = []

        def step(done: int, total: int) -> None:
            if not task:
                _hide(self._bars)
                self._show(self._counts)
                task.append(self._counts.add_task(name, total=total))
            self._counts.update(task[0], completed=done)
            if done >= total:
                self._counts.remove_task(task.pop())
                _hide(self._counts)

        return step


def _hide(bars: Bars) -> None:
    if bars.live.is_started:
        bars.stop()
