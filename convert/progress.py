"""Progress of long steps, on standard error so that results stay alone on standard output."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, TaskID, TextColumn, TransferSpeedColumn
from rich.progress import Progress as Bars


class Progress:
    """Says steps and draws download bars while it is entered."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, soft_wrap=True, highlight=False)
        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
        self._bars = Bars(*columns, console=self._console, transient=True)
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def say(self, text: str) -> None:
        """Print one line."""
        self._console.print(text, markup=False)

    def advance(self, name: str, done: int, total: int) -> None:
        """Move the bar of ``name``; ``total`` 0 means unknown."""
        if name not in self._tasks:
            self.say(f"{name}: downloading")
            self._bars.start()
            self._tasks[name] = self._bars.add_task(name, total=None)
        self._bars.update(self._tasks[name], completed=done, total=total or None)
        if total and done >= total:
            self._bars.remove_task(self._tasks.pop(name))
