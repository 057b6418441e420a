"""What a dead daemon left: frames that were captured and never got their verdict."""

from collections.abc import Iterator
from typing import Final

from daemon.journal.reader import JournalReader

_FEW: Final = 512


def unjudged(reader: JournalReader, boot: str, camera: str, captured: int) -> list[int]:
    """List the frames of a camera without a verdict in the journal, ascending.

    Frames whose verdicts retention has removed had one.

    Args:
        reader: of the journal; nothing may be written to it meanwhile.
        boot: which start of the daemon.
        camera: name of the camera.
        captured: number of the last frame it captured in that boot; frames count from 1.

    Raises:
        JournalFailed: the journal cannot be read.
    """
    through, removed = reader.removed_frames(boot, camera)

    def missing(first: int, last: int) -> Iterator[int]:
        # Halved until a range is small or complete: counting in the index is much cheaper than listing.
        present = reader.count_frames(boot, camera, first, last, through)
        if present + removed.count(first, last) >= last - first + 1:
            return
        if present == 0 or last - first < _FEW:
            judged = set(reader.frames(boot, camera, first, last, through)) if present else set()
            for gap_first, gap_last in removed.gaps(first, last):
                yield from (frame for frame in range(gap_first, gap_last + 1) if frame not in judged)
            return
        middle = (first + last) // 2
        yield from missing(first, middle)
        yield from missing(middle + 1, last)

    return list(missing(1, captured))
