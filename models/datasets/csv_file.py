"""CSV files with a header, read so that an error names the line."""

import csv
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

from foundation.errors import InputError


class Row(NamedTuple):
    """One line of a CSV file."""

    path: Path
    line: int
    cells: dict[str, str]

    def one_of(self, column: str, allowed: Collection[str]) -> str:
        """Give a cell that must be one of a few words.

        Raises:
            InputError: it is another.
        """
        found = self.cells[column].lower()
        if found not in allowed:
            raise self.wrong(column, f"expected {' or '.join(allowed)}, found {found!r:.40}")
        return found

    def file(self, column: str, root: Path) -> Path:
        """Give a cell that names a file, relative to ``root`` unless it is absolute.

        Raises:
            InputError: the cell is empty or the file does not exist.
        """
        if not self.cells[column]:
            raise self.wrong(column, "expected the name of a file, found nothing")
        file = root / self.cells[column]
        try:
            exists = file.is_file()
        except (OSError, ValueError):  # a name no file system would take
            exists = False
        if not exists:
            raise self.wrong(column, f"there is no file {file}")
        return file

    def wrong(self, column: str, what: str) -> InputError:
        """Make the error about a cell."""
        return InputError(f"{self.path}, line {self.line}, column {column!r}: {what}")


def rows(path: Path, required: Collection[str], optional: Collection[str] = ()) -> Iterator[Row]:
    """Read the rows of a CSV file, cells stripped; empty lines are skipped.

    Args:
        path: UTF-8, comma or semicolon between the columns, first line with their names.
        required: columns that must be there.
        optional: columns that are empty when they are not there.

    Raises:
        InputError: the file cannot be read, lacks a column, has one more than once or one unknown, or a line
            has too many or too few cells.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: is not UTF-8 text: {error.reason} at byte {error.start}") from error
    first = text.partition("\n")[0]
    delimiter = ";" if first.count(";") > first.count(",") else ","
    reader = csv.reader(text.splitlines(keepends=True), delimiter=delimiter, strict=True)
    try:
        header = [name.strip().lower() for name in next(reader, [])]
        known = [*required, *optional]
        for name in required:
            if name not in header:
                raise InputError(f"{path}: has no column {name!r}; expected {', '.join(known)}")
        for name in header:
            if name not in known or header.count(name) > 1:
                kind = "twice" if name in known else "unknown"
                raise InputError(f"{path}: column {name!r:.40} is {kind}; expected {', '.join(known)}")
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) != len(header):
                raise InputError(
                    f"{path}, line {reader.line_num}: expected {len(header)} cells, found {len(cells)}"
                )
            found = dict(zip(header, (cell.strip() for cell in cells), strict=True))
            yield Row(path, reader.line_num, dict.fromkeys(optional, "") | found)
    except csv.Error as error:
        raise InputError(f"{path}, line {reader.line_num}: {error}") from error
