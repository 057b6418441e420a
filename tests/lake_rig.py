"""A lake as ``inspectd-fleet lake`` writes it, without lines, hub and time."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from line_process import a_verdict

from fleet.delta import Lake
from fleet.rows import Row, table_of
from verdicts import Peak

PLANTS = {"north": ("line3", "line4"), "south": ("line3",)}
EACH = 40


def write_lake(folder: Path, days: int = 2, hostile: str = "P-7") -> None:
    """Write some verdicts of each line and day, up to today: each tenth is a reject, one part has a name."""
    today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    rows = []
    for plant, lines in PLANTS.items():
        for line in lines:
            for seq in range(1, days * EACH + 1):
                at = today - timedelta(days=days - 1 - (seq - 1) // EACH) + timedelta(seconds=seq)
                decision = "reject" if seq % 10 == 0 else "pass"
                verdict = replace(
                    a_verdict(seq, "8f3a", decision, line=line, score=0.3 if seq % 10 == 0 else 0.1),
                    captured_at=f"{at:%Y-%m-%dT%H:%M:%S.%fZ}",
                    part=hostile if seq == 7 else f"P-{plant}-{seq}",
                    peak=Peak(x=seq, y=100),
                )
                rows.append(Row(plant, "flange", at + timedelta(seconds=0.4), verdict))
    Lake(folder).add(table_of(rows), "written by a test", 1)
