"""``python -m convert`` run in this process: to start one for every run takes longer than most runs."""

from __future__ import annotations

import contextlib
import io
import subprocess

from convert.__main__ import main


def convert(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Exit status and output of one command, as a process of its own would give them."""
    words, output, errors = list(map(str, arguments)), io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
        try:
            status = main(words)
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else 1
    return subprocess.CompletedProcess(words, status, output.getvalue(), errors.getvalue())
