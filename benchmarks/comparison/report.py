"""What a comparison found, as JSON, as Markdown and on the terminal."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Table:
    """Rows of text under headings; the first column is aligned to the left, the others to the right."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    def markdown(self) -> str:
        """Lay it out in Markdown."""
        rule = ["---", *["--:"] * (len(self.columns) - 1)]
        return "\n".join(f"| {' | '.join(row)} |" for row in (self.columns, rule, *self.rows))

    def text(self) -> str:
        """Lay it out for a terminal."""
        lines = [self.columns, *self.rows]
        widths = [max(len(line[index]) for line in lines) for index in range(len(self.columns))]
        return "\n".join(
            "  ".join(
                f"{cell:<{width}}" if index == 0 else f"{cell:>{width}}"
                for index, (cell, width) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
            for line in lines
        )


@dataclass(frozen=True)
class Part:
    """One question, with the answer as a table and with all that was measured."""

    title: str
    table: Table
    notes: Sequence[str]
    """Sentences on what was and what was not measured."""
    measured: Mapping[str, Any] = field(default_factory=dict)
    """Every single value, for JSON."""
    made: str = ""
    """By which command, and when."""

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> "Part":
        """Make the part that JSON holds."""
        return cls(**{**content, "table": Table(**content["table"])})


@dataclass(frozen=True)
class Report:
    """All parts that were measured on one machine."""

    title: str
    introduction: str
    quick: bool
    machine: Mapping[str, Any]
    versions: Mapping[str, Mapping[str, str]]
    parts: Mapping[str, Part]

    def json(self) -> str:
        """Give everything, each single value included."""
        return json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n"

    def markdown(self) -> str:
        """Give the page for people."""
        lines = [
            f"# {self.title}",
            "",
            self.introduction,
            "",
        ]
        if self.quick:
            lines += ["**A quick run with a few laps: it shows that everything runs, not how fast.**", ""]
        lines += ["| | |", "|---|---|"]
        lines += [f"| {name.replace('_', ' ')} | {value} |" for name, value in self.machine.items()]
        for who, packages in self.versions.items():
            lines.append(f"| {who} | {', '.join(f'{name} {found}' for name, found in packages.items())} |")
        for letter, part in self.parts.items():
            lines += [
                "",
                f"## ({letter}) {part.title}",
                "",
                part.made,
                "",
                part.table.markdown(),
                "",
                *part.notes,
            ]
        return "\n".join(lines) + "\n"
