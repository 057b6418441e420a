"""From a config file to a running line: opens everything in an order that leaves nothing half done."""

import asyncio
import gc
import logging
import os
import secrets
import signal
import sys
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

from daemon.config import Config
from daemon.delivery.journaled_publisher import JournaledPublisher
from daemon.delivery.publisher import Publisher
from daemon.host.access import Access, CurveAccess
from daemon.journal.journal import Journal, JournalFailed
from daemon.journal.power_cut import machine_boot, note_power_cut
from daemon.journal.reader import JournalReader
from daemon.judging.product import Product
from daemon.line import Line
from daemon.load import Setup, clients_of, load_setup
from daemon.recovery import forget_counts, unfinished_verdicts
from foundation.errors import InputError

_log = logging.getLogger("inspectd")


def run_line(path: Path) -> int:
    """Run the line of a config file until it ends.

    Returns:
        The exit code: 0, or 1 when the line had to be given up.

    Raises:
        InputError: something of it does not open.
    """
    # Until the line takes it over: its default would end the daemon, which systemd takes for what was wanted.
    signal.signal(signal.SIGHUP, lambda *_: _log.error("reload refused: %s is starting", path))
    setup = load_setup(path)
    with _sockets(setup.config) as (publisher, access):
        code, hung = asyncio.run(_run(path, setup, publisher, access))
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # the loop has given it its default back: to kill
    if hung:
        # The interpreter would wait at its end for a thread that hangs in a runtime.
        logging.shutdown()
        sys.stderr.flush()
        os._exit(code)
    return code


@contextmanager
def _sockets(config: Config) -> Iterator[tuple[Publisher, Access]]:
    """Bind what verdicts are published on; a second daemon fails here."""
    curve = config.curve
    access = Access() if curve is None else CurveAccess(curve.secret_key, clients_of(curve))
    with closing(access), closing(Publisher(config.publish, access)) as publisher:
        yield publisher, access


async def _run(path: Path, setup: Setup, publisher: Publisher, access: Access) -> tuple[int, bool]:
    config, boot = setup.config, secrets.token_hex(8)
    loop = asyncio.get_running_loop()
    line: Line | None = None

    def command(name: str, arguments: dict[str, Any]) -> Future[str]:
        if line is None:
            refused: Future[str] = Future()
            refused.set_exception(InputError(f"{config.line} is starting"))
            return refused
        return asyncio.run_coroutine_threadsafe(line.command(name, arguments), loop)

    with ExitStack() as stack:
        journal, control, product = None, None, next(iter(setup.products.values()))
        if config.journal is not None:
            section = config.journal
            journal = stack.enter_context(
                closing(
                    Journal(
                        section.file, line=config.line, keep_days=section.keep_days, max_mb=section.max_mb
                    )
                )
            )
            reader = stack.enter_context(closing(JournalReader(section.file)))
            product = _selected(reader, setup) or product
            if config.control is not None:
                from daemon.control.server import Control

                control = stack.enter_context(
                    closing(
                        Control(
                            config.control,
                            section.file,
                            commands=command,
                            access=access,
                            required_subscribers=config.required_subscribers,
                            resend_after_s=config.resend_after_s,
                        )
                    )
                )
        journaled = JournaledPublisher(publisher, journal, control, on_journal_error=config.on_journal_error)
        if journal is not None and config.journal is not None:
            cut = note_power_cut(journal, reader)
            unfinished = list(
                unfinished_verdicts(reader, config.journal.file, config.line, product, cut_off=cut)
            )
            if unfinished:
                _log.warning(
                    "%s: %d frames of an earlier start had no verdict: faults", path, len(unfinished)
                )
                journaled.send(unfinished)
            try:
                start = {"boot": boot, "machine": machine_boot(), "product": product.name}
                journal.note("start", start | {"sha256": setup.hashes}, durable=True)
            except JournalFailed as error:
                raise InputError(str(error)) from error
        line = Line(
            path,
            setup,
            product,
            boot=boot,
            publisher=journaled,
            journal=journal,
            control=control,
            access=access,
        )
        publisher.watch(loop, line.send_health)
        stack.callback(publisher.unwatch)
        if control is not None:
            control.start()
        gc.freeze()  # what was loaded stays: looking it through again and again would hold verdicts up
        code = await line.run()
        if journal is not None and config.journal is not None:
            journaled.catch_up()
            if line.complete:
                forget_counts(config.journal.file)
            try:
                journal.note("stop", {"boot": boot, "code": code})
            except JournalFailed as error:
                _log.error("journal: %s", error)
        return code, line.hung


def _selected(reader: JournalReader, setup: Setup) -> Product | None:
    """Find the product that was selected last; it holds until the config names another one first."""
    note = reader.last_event("select")
    if note is None or note.get("configured") != setup.config.product:
        return None
    selected = note.get("product")
    return setup.products.get(selected) if isinstance(selected, str) else None
