"""A running line changes over: to what its config says now, all of it or nothing, or to another product."""

import asyncio
import logging
import traceback
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from daemon.capture.group import Exchange
from daemon.delivery.archive import Archive
from daemon.golden import Golden
from daemon.host.access import CurveAccess
from daemon.judging.product import Product
from daemon.running import Running, open_archive
from daemon.setup import Setup, clients_of, load_setup
from engine_runtime.engine import Engine
from foundation.errors import InputError

T = TypeVar("T")
_log = logging.getLogger("inspectd")


class Beside:
    """Loads beside the line, from a disk or onto a GPU. Either may hang: the line's end does not wait."""

    def __init__(self, line: str, ending: asyncio.Event) -> None:
        self._line = line
        self._ending = ending
        self._loading: Future[Any] | None = None

    @property
    def busy(self) -> bool:
        """Whether something is still being loaded."""
        return self._loading is not None and not self._loading.done()

    async def load(self, load: Callable[[], T]) -> T:
        """Call a function in a thread.

        Raises:
            InputError: the line ends before it returns.
            Exception: what it raises.
        """
        threads = ThreadPoolExecutor(1)  # not the loop's own: the loop waits for those when it ends
        self._loading = loading = threads.submit(load)
        threads.shutdown(wait=False)
        loaded, ending = asyncio.wrap_future(loading), asyncio.ensure_future(self._ending.wait())
        await asyncio.wait((loaded, ending), return_when=asyncio.FIRST_COMPLETED)
        ending.cancel()
        if not loaded.done():
            loaded.cancel()
            self.refuse_at_the_end()
        return loaded.result()

    def refuse_at_the_end(self) -> None:
        """Refuse to start anything while the line ends.

        Raises:
            InputError: it ends.
        """
        if self._ending.is_set():
            raise InputError(f"{self._line} is stopping")


class Reload:
    """One reload as a transaction: ``prepare``, ``stop_leaving_cameras`` and ``commit``, or ``roll_back``."""

    def __init__(self, running: Running, beside: Beside) -> None:
        self._running = running
        self._beside = beside
        self._undo = ExitStack()
        self._setup: Setup
        self._cameras: Exchange
        self._archive: Archive | None

    async def prepare(self) -> None:
        """Load and make what is new, beside what runs; what cannot be loaded is found out here.

        Raises:
            InputError: something is wrong with the config or what it names, or the line ends meanwhile.
        """
        running, beside, undo = self._running, self._beside, self._undo
        old = running.setup
        self._setup = setup = await beside.load(lambda: load_setup(running.path, old))
        undo.callback(self._close_opened)
        beside.refuse_at_the_end()
        self._cameras = running.intake.cameras.prepare(setup.camera_plan)
        undo.callback(self._cameras.drop)
        self._archive = running.verdicts.archive
        if setup.config.archive != old.config.archive:
            self._archive = await beside.load(lambda: open_archive(setup))
            if self._archive is not None:
                undo.callback(self._archive.close)
        curve, old_curve = setup.config.curve, old.config.curve
        if isinstance(running.access, CurveAccess) and curve is not None and old_curve is not None:
            running.access.replace(clients_of(curve))
            undo.callback(running.access.replace, clients_of(old_curve))

    def _close_opened(self) -> None:
        self._setup.close()  # which lanes may have taken over meanwhile

    async def prove(self, golden: Golden) -> None:
        """Have the lanes judge golden samples by what is new, before it judges any part.

        The lanes have the new engines from here on, beside those that judge the parts.

        Raises:
            InputError: the line ends meanwhile.
        """
        running, setup = self._running, self._setup
        if not setup.golden:
            return
        old = list(running.setup.products.values())
        running.lanes.adopt([*old, *setup.products.values()], setup.opened)
        none_opened: list[dict[Product, Engine]] = [{} for _ in setup.opened]
        self._setup = replace(setup, opened=none_opened)
        self._undo.callback(running.lanes.adopt, old, none_opened)
        await golden.test(setup.golden, "reload")

    async def stop_leaving_cameras(self) -> None:
        """End the cameras that change or go: the last step that the end of the line may still overtake.

        Frames of another size want other slots, so they end before the new product's first frame.

        Raises:
            InputError: the line ends meanwhile.
        """
        self._beside.refuse_at_the_end()
        await self._cameras.stop_leaving()
        self._beside.refuse_at_the_end()

    def roll_back(self) -> None:
        """Give back what was made; the line runs on as before."""
        self._undo.close()

    def commit(self) -> Archive | None:
        """Take everything that is new into use, between two frames; give the archive that is to be closed."""
        self._undo.pop_all()
        running, setup = self._running, self._setup
        config, old = setup.config, running.setup.config
        running.verdicts.flush()
        running.setup = setup
        running.lanes.adopt(setup.products.values(), setup.opened)
        if running.verdicts.drift is not None:
            running.verdicts.drift.take_up(setup.products.values())
        intake, selected = running.intake, running.intake.product.name
        intake.deadline_ms = config.deadline_ms
        if selected in setup.products and config.product == old.product:
            intake.product = setup.products[selected]  # the selection outlives a reload
        else:
            intake.product = next(iter(setup.products.values()))
        running.publisher.on_journal_error = config.on_journal_error
        if running.control is not None:
            running.control.require(config.required_subscribers, config.resend_after_s)
        running.intake.cameras.complete(self._cameras)
        retired, running.verdicts.archive = running.verdicts.archive, self._archive
        return retired if retired is not self._archive else None


async def reload(running: Running, beside: Beside, golden: Golden) -> str:
    """Change over to what the config says now; a captured frame keeps the product it was captured for.

    Returns:
        What was done, for whoever asked for it.

    Raises:
        InputError: it cannot be done; the line runs on as before.
    """
    change, before = Reload(running, beside), running.setup.products
    try:
        await change.prepare()
        await change.prove(golden)
        await change.stop_leaving_cameras()
    except Exception as error:
        change.roll_back()
        if isinstance(error, InputError):
            raise
        raise InputError(f"internal error: {told(error)}") from error
    retired, product = change.commit(), running.intake.product
    setup = running.setup
    running.note("reload", {"product": product.name, "sha256": setup.hashes, "proven": setup.proven})
    for name, old in before.items():
        if name in setup.products and setup.products[name].threshold != old.threshold:
            _note_threshold(running, old, setup.products[name])
    _log.info("%s: runs on the new config, engine %s", running.line, product.engine_name)
    if retired is not None:
        await asyncio.to_thread(retired.close)
    return f"{running.path}: taken up, engine {product.engine_name}"


def _note_threshold(running: Running, old: Product, new: Product) -> None:
    """Note another threshold, with who chose it where a person did."""
    changed = new.calibrated.changed
    said = None if changed is None or changed.before != old.threshold else changed
    content = {
        "product": new.name,
        "from": old.threshold,
        "to": new.threshold,
        "interval": list(new.calibrated.false_reject_rate_interval),
        "by": None if said is None else said.by,
        "reason": None if said is None else said.reason,
    }
    running.note("threshold", content)


def select(running: Running, name: str) -> str:
    """Judge by another product from the next frame on.

    Returns:
        What was done, for whoever asked for it.

    Raises:
        InputError: the line has no such product.
    """
    product = running.setup.products.get(name)
    if product is None:
        known = ", ".join(known for known in running.setup.products if known) or "the config names none"
        raise InputError(f"product {name!r}: unknown; expected one of its products: {known}")
    running.intake.product = product
    running.note("select", {"product": name, "configured": running.setup.config.product})
    _log.info("%s: product %s, engine %s", running.line, name, product.engine_name)
    return f"product {name}, engine {product.engine_name}"


def told(error: BaseException) -> str:
    """Describe an error of our own in one line, with the place where it was raised."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} ({Path(place.filename).name}:{place.lineno})"
