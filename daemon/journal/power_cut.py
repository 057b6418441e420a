"""Whether the machine went down under the last daemon, and what the journal may lack because of it."""

import logging
from pathlib import Path
from typing import Final

from daemon.journal.chain import POWER_CUT
from daemon.journal.journal import Journal
from daemon.journal.reader import JournalReader

MOST_LOST: Final = 1_000_000
"""Verdicts that a power cut can have cost at the most, in numbers of ``seq``.

What was published last and is not in the journal had the next numbers. Nobody knows how many they were, so
that the numbers behind them are left out: what is published next of that boot repeats none of them, and a
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
    """Name the boot of the daemon that the machine took down with it; None when none was.

    When only the daemon died, what it had written is in the journal: the machine's memory keeps it. A start
    that an older version noted does not name the machine's, and counts as such a death.

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


def note_power_cut(journal: Journal, reader: JournalReader) -> str | None:
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
