"""Frames that a daemon captured and had not judged when it was killed: the next start closes them."""

import contextlib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from daemon.capture.counter import counter_files, read_counter
from daemon.journal.power_cut import MOST_LOST
from daemon.journal.reader import JournalReader
from daemon.journal.recovery import unjudged
from daemon.journal.stamps import iso
from daemon.judging.product import Product
from verdicts.verdict import Latency, Verdict


def forget_counts(journal: Path) -> None:
    """Remove the counters of a line that ended in order: every frame has had its verdict.

    Otherwise frames with a verdict that could not be written down would get a second one at the next start.
    """
    for file in counter_files(journal).values():
        with contextlib.suppress(OSError):  # where nothing can be removed, nothing can be written either
            file.unlink()


def unfinished_verdicts(
    reader: JournalReader, journal: Path, line: str, product: Product, *, cut_off: str | None = None
) -> Iterator[Verdict]:
    """Make the fault verdicts of the frames that earlier boots left without one.

    They carry the boot in which they were captured, and go on after its last ``seq``. When they were captured
    and what they showed is lost with that boot: ``captured_at`` is the present time.

    Args:
        reader: of the journal.
        journal: the journal's file, beside which the frames are counted.
        line: name of the line.
        product: named in the verdicts as the one that would judge now.
        cut_off: the boot that a power cut ended. Its last verdicts may have been published and are lost, so
            their numbers are skipped.
    """
    now = iso(datetime.now(UTC))
    last_seq = {} if cut_off is None else {cut_off: reader.last_seq(cut_off) + MOST_LOST}
    boots = frozenset(reader.boots())
    for camera, file in counter_files(journal).items():
        counted = read_counter(file)
        if counted is None or counted[0] not in boots:  # of a boot in another journal, which was put away
            continue
        boot, captured = counted
        for frame in unjudged(reader, boot, camera, captured):
            last_seq[boot] = last_seq.get(boot, reader.last_seq(boot)) + 1
            yield Verdict(
                line=line,
                camera=camera,
                frame=frame,
                part=None,
                boot=boot,
                seq=last_seq[boot],
                decision="fault",
                reason="shutdown",
                score=None,
                threshold=product.threshold,
                peak=None,
                captured_at=now,
                latency_ms=Latency(wait=None, infer=None, total=0),
                model=product.manifest.model,
                archive=None,
                mask=product.calibrated.mask,
            )
