"""Runs the SQL of the docs against a journal: as the shell passes it on, and read-only."""

import re
import shutil
import sqlite3
import subprocess
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parents[1] / "docs"
_ARGUMENTS = """sqlite3() { printf '%s\\0' "$@"; }\n"""


def documented_commands(page: str) -> list[str]:
    """Give the commands of a page that call ``sqlite3``."""
    blocks = re.findall(r"^```sh\n(.*?)^```", (DOCS / page).read_text(), re.DOTALL | re.MULTILINE)
    found = [block for block in blocks if block.startswith("sqlite3 ")]
    assert found, f"{page} shows no SQL"
    return found


def rows_of(command: str, journal: Path) -> list[tuple[Any, ...]]:
    """Run a command of the docs in the folder of a journal, which it names line3.journal; give the rows.

    Not every machine has the program sqlite3, so Python's own SQLite runs what the shell passes to it; where
    the program is there, it must take it, too.
    """
    asked = subprocess.run(["bash", "-ec", _ARGUMENTS + command], capture_output=True, text=True, check=True)
    *options, file, query = asked.stdout.removesuffix("\0").split("\0")
    assert "-readonly" in options
    assert file == journal.name
    if shutil.which("sqlite3"):
        subprocess.run(["bash", "-ec", command], cwd=journal.parent, capture_output=True, check=True)
    with sqlite3.connect(f"file:{journal}?mode=ro", uri=True) as database:
        found = database.execute(query).fetchall()
    database.close()
    return found
