"""Whether the machine went down under the last daemon, and what the journal may lack because of it."""

import logging
from pathlib import Path
from typing import Final

from daemon.journal.chain import POWER_CUT
from daemon.journal.reader import JournalReader
from daemon.journal.writer import JournalWriter

MOST_LOST: Final = 1_000_000
"""Verdicts that a power cut can have cost at the most, in numbers of ``seq``.

The verdicts that were published last and are not in the journal had the next numbers. Nobody knows how many
they were, so this many numbers are skipped. What is published next of that boot repeats none of them, and a
subscriber finds a gap, whichever of them it has received. Checkpoints sync every two seconds, in which a line
gives some ten thousand verdicts; this leaves room for a disk that failed to sync for minutes."""

_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
_log = logging.getLogger("inspectd")


def machine_boot() -> str | None:
    """Name this start of the machine; None where the system does not tell."""
    try:
        return _BOOT_ID.read_text().strip() or None
    except (OSError, UnicodeDecodeError):
        return None


def cut_off(reader: JournalReader) -> str | None:
    """Name the boot of the daemon that was running when the machine went down; None when none was.

    When only the daemon died, what it had written is in the journal: the machine's memory keeps it. Older
    versions did not note the machine's boot; their starts count as if only the daemon had died.

    Raises:
        JournalFailed: the journal cannot be read.
    """
    start = reader.unfinished_start()
    if start is None:
        return None
    boot, machine = start.get("boot"), start.get("machine")
    if not isinstance(boot, str) or machine is None or machine == machine_boot():
        return None
    return boot


def note_power_cut(journal: JournalWriter, reader: JournalReader) -> str | None:
    """Note in the journal that the machine went down under the last daemon, when it did.

    Returns:
        The boot of that daemon; None when there was no power cut.

    Raises:
        JournalFailed: the journal cannot be read or written.
    """
    boot = cut_off(reader)
    if boot is not None:
        last = reader.last_seq(boot)
        journal.note(POWER_CUT, {"boot": boot, "last": last})
        _log.warning(
            "%s: a power cut ended boot %s: what it may have published after its verdict %d is lost",
            journal.file,
            boot,
            last,
        )
    return boot
