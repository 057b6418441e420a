"""Runs a command in the test's own process: as users do, but for the start of Python."""

import io
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from subprocess import CompletedProcess


def run(main: Callable[[list[str]], int], *arguments: object) -> CompletedProcess[str]:
    """Run a command's ``main`` and give what it said."""
    words, out, err = list(map(str, arguments)), io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        try:
            code = main(words)
        except SystemExit as end:  # of the parser
            code = int(end.code or 0)
    return CompletedProcess(words, code, out.getvalue(), err.getvalue())


def refused(done: CompletedProcess[str], code: int = 2) -> str:
    """Give the one line that a command said."""
    assert done.returncode == code, f"{done.stdout}\n{done.stderr}"
    [line] = done.stderr.splitlines()
    return line
