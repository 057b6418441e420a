"""What pages are told without asking: verdicts, states, pictures, changes."""

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

from starlette.concurrency import run_in_threadpool
from starlette.websockets import WebSocket, WebSocketDisconnect

from dashboard.access import Session
from dashboard.listening import Listening
from dashboard.preview import Previews
from dashboard.records import Shown, shown
from dashboard.watch import LineWatch

_log = logging.getLogger(__name__)
_SOONEST_S: Final = 0.05
"""Between two messages about the verdicts of a line: what comes meanwhile goes together."""
_UNWATCHED_S: Final = 1.0
"""As before, while no page of the line is open."""
_PREVIEWS_S: Final = 0.2
"""The line has two new ones a second; half of this is how much later they are seen."""
_STATE_S: Final = 1.0
_MOST_POINTS: Final = 400
_MOST_REJECTS: Final = 10
_MOST_WAITING: Final = 50
_PATIENCE_S: Final = 5.0
MOST_PAGES: Final = 200


class Page:
    """One open page.

    Attributes:
        previews: whether it wants pictures.
        slow: whether it does not read what it is told.
        code: with which it is closed.
    """

    def __init__(self, socket: WebSocket, session: Session | None) -> None:
        self.previews = False
        self.code = 1013
        self._session = session
        self._socket = socket
        self._waiting: asyncio.Queue[str] = asyncio.Queue(_MOST_WAITING)
        self.slow = False

    def tell(self, message: str) -> None:
        """Have a message sent; a page that does not read misses it, and is dropped."""
        try:
            self._waiting.put_nowait(message)
        except asyncio.QueueFull:
            self.slow = True

    @property
    def logged_out(self) -> bool:
        """Whether its session is over; a page that is open counts as somebody who is there."""
        if self._session is None:
            return False
        if not self._session.expired:
            self._session.seen_s = time.monotonic()
        return self._session.expired

    async def send_all(self) -> None:
        """Send what waits, until the page is gone or does not read."""
        while not self.slow:
            message = await self._waiting.get()
            if self.logged_out:
                self.code = 4401
                return
            await asyncio.wait_for(self._socket.send_text(message), _PATIENCE_S)

    async def hear_all(self) -> None:
        """Take what the page says, until it is gone."""
        while True:
            said = await self._socket.receive_text()
            if len(said) > 1000:
                return
            with contextlib.suppress(ValueError, RecursionError):
                content = json.loads(said)
                if isinstance(content, dict) and isinstance(content.get("previews"), bool):
                    self.previews = content["previews"]


class Live:
    """Tells the open pages of each line what happens there; in the thread of the event loop."""

    def __init__(self, watches: dict[str, LineWatch], previews: dict[str, Previews]) -> None:
        self._watches = watches
        self._previews = previews
        self._pages: dict[str, set[Page]] = {name: set() for name in watches}
        self._shown: dict[tuple[str, str], tuple[object, bool]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        for name, watch in watches.items():
            watch.tell = lambda what, by, name=name: self.changed(name, what, by)  # type: ignore[misc]

    @property
    def pages(self) -> int:
        """How many are open."""
        return sum(map(len, self._pages.values()))

    def changed(self, line: str, what: str, by: str | None) -> None:
        """Tell the pages of a line that something changed; from any thread."""
        message = json.dumps({"type": "changed", "what": what, "by": by})
        if self._loop is not None and not self._loop.is_closed():
            with contextlib.suppress(RuntimeError):  # it ended just now
                self._loop.call_soon_threadsafe(self._tell, line, message)

    def _tell(self, line: str, message: str) -> None:
        for page in self._pages[line]:
            page.tell(message)

    async def run(self) -> None:
        """Tell what happens, for ever. States and pictures take their time; verdicts do not wait for them."""
        self._loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as tasks:
            for name, watch in self._watches.items():
                arrived = self._arrivals(watch.listening)
                tasks.create_task(_repeat(name, self._verdicts, watch, arrived))
                tasks.create_task(_repeat(name, self._state, watch))
                tasks.create_task(_repeat(name, self._pictures, watch))

    async def serve(self, socket: WebSocket, line: str, session: Session | None) -> None:
        """Tell one page what happens on a line, until it is gone or its session is over."""
        page = Page(socket, session)
        watch = self._watches[line]
        await socket.accept()
        page.tell(json.dumps({"type": "hello", "state": await run_in_threadpool(self.whole_state, watch)}))
        self._pages[line].add(page)
        tasks = [asyncio.create_task(page.send_all()), asyncio.create_task(page.hear_all())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._pages[line].discard(page)
            for task in tasks:
                task.cancel()
            for result in await asyncio.gather(*tasks, return_exceptions=True):
                if isinstance(result, Exception) and not isinstance(
                    result, WebSocketDisconnect | TimeoutError | RuntimeError
                ):
                    _log.debug("page: %r", result)
            with contextlib.suppress(Exception):
                await asyncio.wait_for(socket.close(page.code), 1)

    def whole_state(self, watch: LineWatch) -> dict[str, Any]:
        """Give what a Line page shows at once."""
        watch.refresh()
        state = watch.state()
        previews = self._previews[watch.line.name]
        for camera, content in state["cameras"].items():
            content["preview"] = previews.of(camera).content
        rejects = [] if watch.rollup is None else watch.rollup.last_rejects(10)
        return {**state, "last_rejects": [reject.short() for reject in rejects]}

    def _arrivals(self, listening: Listening) -> asyncio.Event:
        """Give an event that is set while verdicts wait."""
        arrived, loop = asyncio.Event(), asyncio.get_running_loop()

        def tell() -> None:  # in the thread that listens; most verdicts find it set
            if not arrived.is_set():
                with contextlib.suppress(RuntimeError):  # the loop ended just now
                    loop.call_soon_threadsafe(arrived.set)

        listening.arrived = tell
        return arrived

    async def _verdicts(self, watch: LineWatch, arrived: asyncio.Event) -> float:
        await arrived.wait()
        arrived.clear()
        verdicts, left_out = watch.listening.take()
        pages = self._pages[watch.line.name]
        if verdicts and pages:
            archive = watch.line.archive
            found = [shown(verdict, product, archive) for verdict, product in verdicts]
            self._tell(watch.line.name, verdicts_message(found, left_out))
        return _SOONEST_S if pages else _UNWATCHED_S

    async def _state(self, watch: LineWatch) -> float:
        await run_in_threadpool(watch.look)
        if self._pages[watch.line.name]:
            state = await run_in_threadpool(watch.state)
            self._tell(watch.line.name, json.dumps({"type": "state", "state": state}, separators=(",", ":")))
        return _STATE_S

    async def _pictures(self, watch: LineWatch) -> float:
        name = watch.line.name
        if not any(page.previews for page in self._pages[name]):
            return _PREVIEWS_S
        previews = self._previews[name]
        health = watch.listening.health
        cameras = [] if health is None else list(health.cameras)

        def look() -> list[tuple[str, dict[str, Any]]]:
            previews.lease()
            return [(camera, previews.of(camera).content) for camera in cameras]

        for camera, content in await run_in_threadpool(look):
            known = (content["url"], content["old"])
            if self._shown.get((name, camera)) != known:
                self._shown[name, camera] = known
                message = json.dumps({"type": "preview", "camera": camera, "preview": content})
                for page in self._pages[name]:
                    if page.previews:
                        page.tell(message)
        return _PREVIEWS_S


async def _repeat(name: str, work: Callable[..., Awaitable[float]], *arguments: object) -> None:
    """Do something about a line for ever; it gives the seconds until it is due again."""
    while True:
        pause_s = 1.0
        try:
            pause_s = await work(*arguments)
        except Exception:  # one line must not silence the others
            _log.exception("%s", name)
        await asyncio.sleep(pause_s)


def verdicts_message(verdicts: list[Shown], left_out: int) -> str:
    """Make the message about some verdicts; where they are many, some passes are left out."""
    counts = {"pass": 0, "reject": 0, "fault": 0}
    for verdict in verdicts:
        counts[verdict.decision] += 1
    chosen = sample(verdicts, _MOST_POINTS)
    rejects = [verdict for verdict in verdicts if verdict.decision == "reject"]
    return json.dumps(
        {
            "type": "verdicts",
            "at": time.time() * 1000,
            "counts": counts,
            "left_out": left_out + len(verdicts) - len(chosen),
            "points": [point(verdict) for verdict in chosen],
            "threshold": verdicts[-1].threshold,
            "rejects": [verdict.short() for verdict in rejects[-_MOST_REJECTS:]],
        },
        separators=(",", ":"),
    )


def sample(verdicts: list[Shown], most: int) -> list[Shown]:
    """Choose some evenly, rejects and faults before passes, in their order."""
    if len(verdicts) <= most:
        return verdicts
    out = [verdict for verdict in verdicts if verdict.decision != "pass"]
    out = _evenly(out, most)
    passes = _evenly([verdict for verdict in verdicts if verdict.decision == "pass"], most - len(out))
    kept = {id(verdict) for verdict in (*out, *passes)}
    return [verdict for verdict in verdicts if id(verdict) in kept]


def _evenly(verdicts: list[Shown], most: int) -> list[Shown]:
    if len(verdicts) <= most:
        return verdicts
    return [verdicts[place * len(verdicts) // most] for place in range(most)]


def point(verdict: Shown) -> tuple[str, float, float | None, str]:
    """Give what the strip shows of a verdict."""
    return verdict.camera, verdict.at_us / 1000, verdict.score, verdict.decision
