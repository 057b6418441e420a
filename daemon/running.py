"""What a line runs on, from its config to its lanes: made at the start, and exchanged in part by a reload."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from daemon.delivery.archive import Archive
from daemon.delivery.drift_watch import DriftNews, DriftWatch
from daemon.delivery.journaled_publisher import JournaledPublisher
from daemon.delivery.preview import Preview
from daemon.delivery.verdict_batch import VerdictBatch
from daemon.host.access import Access
from daemon.intake import Intake
from daemon.journal.journal import JournalFailed
from daemon.journal.writer import JournalWriter
from daemon.judging.lanes import Lanes
from daemon.judging.ledger import Ledger
from daemon.judging.product import Product
from daemon.judging.queue import WaitingFrames
from daemon.setup import Setup

if TYPE_CHECKING:
    from daemon.control.server import Control

_log = logging.getLogger("inspectd")


@dataclass(slots=True)
class Running:
    """The parts of one running line. Belongs to the thread of the event loop."""

    path: Path
    """The config file, read again at a reload."""
    setup: Setup
    """What was loaded from it."""
    boot: str
    """Hexadecimal digits that name this start of the daemon."""
    ledger: Ledger
    waiting: WaitingFrames
    verdicts: VerdictBatch
    intake: Intake
    lanes: Lanes
    publisher: JournaledPublisher
    """Where verdicts go."""
    journal: JournalWriter | None
    """Where events are noted; None without one."""
    control: "Control | None"
    """Its subscribers appear in health; None without one."""
    access: Access
    """Who may connect."""

    @property
    def line(self) -> str:
        """Name of the line."""
        return self.setup.config.line

    def note(self, kind: str, content: dict[str, Any]) -> None:
        """Note an event in the journal. If it cannot be written, the line runs on all the same."""
        if self.journal is not None:
            try:
                self.journal.note(kind, {"boot": self.boot, **content})
            except JournalFailed as error:
                _log.error("journal: %s", error)

    def note_soon(self, kind: str, content: dict[str, Any]) -> None:
        """Note an event in the journal without waiting for the disk: parts may be on their way."""
        if self.journal is not None:
            self.journal.note_soon(kind, {"boot": self.boot, **content})


def assemble(
    path: Path,
    setup: Setup,
    product: Product,
    *,
    boot: str,
    publisher: JournaledPublisher,
    journal: JournalWriter | None,
    counted_beside: Path | None,
    at_end: Callable[[Callable[[], object]], None],
    control: "Control | None",
    access: Access,
    news: Callable[[DriftNews], object],
) -> Running:
    """Allocate everything that a line needs, in the event loop that it will run in; nothing is started.

    Args:
        path: the config file.
        setup: what was loaded from it.
        product: the one of its products that is judged first.
        boot: hexadecimal digits that name this start of the daemon.
        publisher: where verdicts go.
        journal: where events are noted; None without one.
        counted_beside: the journal beside which captured frames are counted; None: only in memory.
        at_end: does something last in a turn of the event loop.
        control: its subscribers appear in health; None without one.
        access: who may connect.
        news: told of drift, in a thread of its own.

    Raises:
        InputError: the folder of the archive or the preview cannot be made, or there is no memory for the
            cameras' frames.
    """
    config, ledger, waiting = setup.config, Ledger(), WaitingFrames()
    preview = None if config.preview is None else Preview(config.preview.folder)
    drift = _watch_drift(setup, news)
    verdicts = VerdictBatch(
        config.line,
        boot,
        ledger=ledger,
        publisher=publisher,
        archive=open_archive(setup),
        preview=preview,
        drift=drift,
        at_end=at_end,
    )
    intake = Intake(
        setup.camera_plan,
        product,
        config.deadline_ms,
        boot=boot,
        journal=counted_beside,
        ledger=ledger,
        waiting=waiting,
        verdicts=verdicts,
    )
    return Running(
        path=path,
        setup=setup,
        boot=boot,
        ledger=ledger,
        waiting=waiting,
        verdicts=verdicts,
        intake=intake,
        lanes=Lanes(setup.opened, waiting=waiting, deliver=verdicts.deliver),
        publisher=publisher,
        journal=journal,
        control=control,
        access=access,
    )


def _watch_drift(setup: Setup, news: Callable[[DriftNews], object]) -> DriftWatch | None:
    section, journal = setup.config.drift, setup.config.journal
    if section is None:
        return None
    accepted = None if journal is None else journal.file.with_name(journal.file.name + "-drift")
    watch = DriftWatch(section.parts_per_false_alarm, accepted, news)
    watch.take_up(setup.products.values())
    return watch


def open_archive(setup: Setup) -> Archive | None:
    """Open the archive of a config; None where it names none.

    Raises:
        InputError: its folder cannot be made or read.
    """
    archive = setup.config.archive
    if archive is None:
        return None
    return Archive(
        archive.folder, max_mb=archive.max_mb, near_misses=archive.near_misses, sample=archive.sample
    )
