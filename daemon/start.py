"""From a config file to a running line: opens everything in an order that leaves nothing half done."""

import asyncio
import contextlib
import gc
import logging
import os
import secrets
import signal
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

from daemon.config import Config, JournalConfig
from daemon.delivery.drift_watch import DriftNews
from daemon.delivery.journaled_publisher import JournaledPublisher
from daemon.delivery.publisher import Publisher
from daemon.host.access import Access, CurveAccess
from daemon.host.turns import Turns, run
from daemon.journal.database import refused_by_sqlite
from daemon.journal.journal import Journal, JournalFailed
from daemon.journal.power_cut import machine_boot, note_power_cut
from daemon.journal.reader import JournalReader
from daemon.journal.writer import JournalWriter
from daemon.judging.product import Product
from daemon.line import Line
from daemon.recovery import forget_counts, unfinished_verdicts
from daemon.running import assemble
from daemon.setup import Setup, clients_of, load_setup
from foundation.errors import InputError, Unavailable

_START_PATIENCE_S = 30.0  # a disk that has just come up may be slow, and nothing is judged yet
_RETRY_S = 1.0
_log = logging.getLogger("inspectd")


def run_line(path: Path) -> int:
    """Run the line of a config file until it ends.

    Returns:
        The exit code: 0, or 1 when the line had to be given up.

    Raises:
        InputError: something of it does not open.
    """
    # Until the line takes it over: by default it ends the daemon, and systemd takes that for a wanted end.
    signal.signal(signal.SIGHUP, lambda *_: _log.error("reload refused: %s is starting", path))
    setup = load_setup(path)
    with _sockets(setup.config) as (wire, access):
        code, hung = run(lambda turns: _run(path, setup, wire, access, turns))
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # the closed loop has restored the default: to kill
    if hung:
        # The interpreter would wait at its end for a thread that hangs in a runtime.
        logging.shutdown()
        sys.stderr.flush()
        os._exit(code)
    return code


@contextmanager
def _sockets(config: Config) -> Iterator[tuple[Publisher, Access]]:
    """Bind the address on which verdicts are published; a second daemon fails here."""
    curve = config.curve
    access = Access() if curve is None else CurveAccess(curve.secret_key, clients_of(curve))
    with closing(access), closing(Publisher(config.publish, access)) as wire:
        yield wire, access


async def _run(path: Path, setup: Setup, wire: Publisher, access: Access, turns: Turns) -> tuple[int, bool]:
    config, boot = setup.config, secrets.token_hex(8)
    loop = asyncio.get_running_loop()
    line: Line | None = None

    def command(name: str, arguments: dict[str, Any]) -> Future[str]:
        if line is None:
            refused: Future[str] = Future()
            refused.set_exception(InputError(f"{config.line} is starting"))
            return refused
        return asyncio.run_coroutine_threadsafe(line.command(name, arguments), loop)

    def drifted(news: DriftNews) -> None:
        if line is not None:
            line.drifted(news)

    with ExitStack() as stack:
        journal, reader, control = None, None, None
        if config.journal is not None:
            opened = _open_journal(config, config.journal)
            do = turns.beside if config.journal.durable else turns.between
            journal = stack.enter_context(closing(JournalWriter(opened, do)))
            if journal.unopened is None:
                reader = stack.enter_context(closing(JournalReader(journal.file)))
            if config.control is not None:
                from daemon.control.server import Control

                control = stack.enter_context(
                    closing(
                        Control(
                            config.control,
                            journal.file,
                            commands=command,
                            access=access,
                            required_subscribers=config.required_subscribers,
                            resend_after_s=config.resend_after_s,
                            journal_may_wait=reader is None,
                        )
                    )
                )
        product = _judged_first(setup, journal, reader)
        publisher = JournaledPublisher(wire, journal, control, on_journal_error=config.on_journal_error)
        stack.callback(publisher.close)
        note = {
            "boot": boot,
            "machine": machine_boot(),
            "product": product.name,
            "sha256": setup.hashes,
            "proven": setup.proven,
        }
        journaled = journal is not None and _begin(
            path, config, journal, reader, publisher=publisher, product=product, note=note
        )
        if journal is not None and not journaled:
            stack.callback(asyncio.create_task(_note_when_it_works(journal, publisher, note)).cancel)
        line = Line(
            assemble(
                path,
                setup,
                product,
                boot=boot,
                publisher=publisher,
                journal=journal,
                # What earlier starts left unfinished stays counted for a start at which the journal works.
                counted_beside=journal.file if journal is not None and journaled else None,
                at_end=turns.at_end,
                control=control,
                access=access,
                news=lambda news: loop.call_soon_threadsafe(drifted, news),
            ),
            turns.on_signal,
        )
        wire.watch(loop, line.send_health)
        stack.callback(wire.unwatch)
        if control is not None:
            control.start()
        gc.freeze()  # what was loaded stays: collecting over it again and again would hold verdicts up
        code = await line.run()
        if journal is not None:
            if line.complete and journaled:
                forget_counts(journal.file)
            try:
                journal.note("stop", {"boot": boot, "code": code})
            except JournalFailed as error:
                _log.error("journal: %s", error)
        return code, line.hung


def _open_journal(config: Config, section: JournalConfig) -> Journal:
    """Open the journal; with ``on_journal_error: continue`` the line starts even if that fails for now."""
    return Journal(
        section.file,
        line=config.line,
        keep_days=section.keep_days,
        max_mb=section.max_mb,
        durable=section.durable,
        may_wait=config.on_journal_error == "continue",
    )


def _judged_first(setup: Setup, journal: JournalWriter | None, reader: JournalReader | None) -> Product:
    """Choose the product: the one that was selected last, until the config names another one first.

    Raises:
        Unavailable: the journal, which knows, cannot be opened now.
    """
    first = next(iter(setup.products.values()))
    if journal is None or len(setup.products) == 1:
        return first
    if reader is None:
        raise Unavailable(f"{journal.unopened}; only it knows which product was selected")
    with _readable():
        note = reader.last_event("select") or {}
    selected = note.get("product")
    if note.get("configured") != setup.config.product or not isinstance(selected, str):
        return first
    return setup.products.get(selected, first)


def _begin(
    path: Path,
    config: Config,
    journal: JournalWriter,
    reader: JournalReader | None,
    *,
    publisher: JournaledPublisher,
    product: Product,
    note: Mapping[str, Any],
) -> bool:
    """Give the frames that earlier starts left unfinished their verdicts, and note this start.

    Returns:
        False when the journal cannot be opened now and the line starts without it.

    Raises:
        Unavailable: the journal cannot be opened now, and the line needs it.
        InputError: the journal is damaged.
    """
    if reader is not None:
        with _readable():
            cut = note_power_cut(journal, reader)
            unfinished = list(unfinished_verdicts(reader, journal.file, config.line, product, cut_off=cut))
        if unfinished:
            _log.warning(
                "%s: %d frames of an earlier start had no verdict and are faults now", path, len(unfinished)
            )
            publisher.send(unfinished)
        try:
            journal.note("start", note, durable=True, patience_s=_START_PATIENCE_S)
            return True
        except JournalFailed as error:
            if config.on_journal_error == "fault":
                raise Unavailable(str(error)) from error
            journal.unopened = str(error)
    _log.error("journal: %s; on_journal_error: continue: the line starts without it", journal.unopened)
    publisher.journal_error = journal.unopened
    return False


async def _note_when_it_works(
    journal: JournalWriter, publisher: JournaledPublisher, note: Mapping[str, Any]
) -> None:
    """Write down the start of a line that began before its journal could be opened."""
    while True:
        await asyncio.sleep(_RETRY_S)
        with contextlib.suppress(JournalFailed):
            journal.note("start", note, durable=True)
            break
    publisher.send([])  # so that health tells at once that it works


@contextmanager
def _readable() -> Iterator[None]:
    """Turn errors in reading the journal into errors of the start."""
    try:
        yield
    except JournalFailed as error:
        raise refused_by_sqlite(error) from error
