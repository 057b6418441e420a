"""Man pages and shell completion of the commands, from their own parsers."""

import argparse
import gzip
import importlib
import io
from collections.abc import Iterator
from pathlib import Path

import shtab
from argparse_manpage.manpage import Manpage

from foundation.start import COMMANDS

_COMPLETIONS = {
    "bash": "usr/share/bash-completion/completions/{command}",
    "zsh": "usr/share/zsh/vendor-completions/_{command}",
    "fish": "usr/share/fish/vendor_completions.d/{command}.fish",
}
"""Where Debian's shells look."""


def commands() -> dict[str, argparse.ArgumentParser]:
    """Give the parser of each command that runs without torch."""
    parsers = {}
    for command, (module, _) in sorted(COMMANDS.items()):
        if module.split(".")[0] != "models":
            parsers[command] = importlib.import_module(module).command_line()
    return parsers


def write_pages(root: Path, version: str, day: str) -> None:
    """Write what the shells and ``man`` look up, under the root of a file system.

    Args:
        root: such as that of a package in the making.
        version: of the release.
        day: of the release, as 2026-11-30.
    """
    for command, parser in commands().items():
        for argument in _arguments(parser):
            if argument.type is Path:
                folder = argument.metavar == "DIR"
                argument.complete = shtab.DIRECTORY if folder else shtab.FILE  # type: ignore[attr-defined]
        for shell, place in _COMPLETIONS.items():
            _write(root / place.format(command=command), shtab.complete(parser, shell).encode())
        page = Manpage(parser, {"date": day, "project_name": "inspectd", "version": version})
        page.manual = "inspectd"
        page.description = parser.description.split(". ")[0].rstrip(".") if parser.description else command
        packed = io.BytesIO()
        with gzip.GzipFile(fileobj=packed, mode="wb", mtime=0) as file:
            # In ASCII: with other letters, man breaks a line where a block of the file ends.
            file.write(str(page).replace("…", "...").encode("ascii"))
        _write(root / f"usr/share/man/man1/{command}.1.gz", packed.getvalue())


def _arguments(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                yield from _arguments(below)


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
