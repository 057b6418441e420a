"""Runs the event loop so that a thread that the disk holds up hands it on to another."""

import asyncio
import os
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any, Final, TypeVar

_LOOK_S: Final = 0.03
_LONGEST_S: Final = 0.02
"""A write into the system's memory takes 0.1 ms. What takes longer than this waits for the disk."""

Work = Callable[[], object]
T = TypeVar("T")


def run(main: "Callable[[Turns], Coroutine[Any, Any, T]]") -> T:
    """Run a coroutine in an event loop of its own, as ``asyncio.run`` does, but in other threads.

    Args:
        main: makes the coroutine, given the turns of the loop.

    Returns:
        What the coroutine returns.
    """
    with asyncio.Runner() as runner:
        return Turns(runner.get_loop()).run(main)


class Turns:
    """The turns of an event loop, and work between two of them that may be held up.

    A disk that hangs holds up the thread that writes to it, and nothing sets that thread free. If a thread of
    its own wrote, each write would cost two changes of thread. So the loop's own thread writes, while the
    loop is stopped: then any thread may run it. There are two that can, and the main thread watches them.
    When one is held up, the other goes on with the loop, and the first then waits for its turn.

    The two live as long as the loop: a camera's process ends with the thread that started it.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Take over a loop that is not running."""
        self._loop = loop
        self._ended = False
        self._last: Work | None = None
        self._next: tuple[Work, Work] | None = None
        self._stopped = True
        self._lock = threading.Lock()
        self._began_s: float | None = None  # since when the loop has been stopped for work
        self._held_up = False
        self._beside: SimpleQueue[tuple[Work, Work]] | None = None
        self._may_drive = threading.Semaphore(1)
        self._for_main_thread: SimpleQueue[Work | None] = SimpleQueue()

    def at_end(self, last: Work) -> None:
        """Do this last in this turn of the loop, when it is stopped; called in the loop's thread.

        It costs less than a turn of its own, as ``call_soon`` takes. Only one thing can be last.
        """
        self._last = last
        if not self._stopped:
            self._loop.stop()

    def between(self, work: Work, then: Work) -> None:
        """Do work after this turn of the loop; called in the loop's thread.

        The work replaces work that was asked for in this turn. While earlier work is still held up, it waits
        for its end.

        Args:
            work: may be held up; the loop then goes on without waiting for it. Must not use the loop.
            then: called after it, in the loop's thread.
        """
        self._next = (work, then)
        if not self._held_up and not self._stopped:
            self._loop.stop()

    def beside(self, work: Work, then: Work) -> None:
        """Do work in a thread of its own, one after the other; called in the loop's thread.

        Args:
            work: always waits for the disk, so that the loop would be stopped most of the time.
            then: called after it, in the loop's thread.
        """
        if self._beside is None:
            self._beside = SimpleQueue()
            _thread("beside the event loop", self._work_beside).start()
        self._beside.put((work, then))

    def on_signal(self, number: int, callback: Work) -> None:
        """Call back in the loop's thread when a signal comes; called in the loop's thread."""
        added: Future[None] = Future()

        def add() -> None:  # signals belong to the main thread
            self._loop.add_signal_handler(number, callback)
            added.set_result(None)

        self._for_main_thread.put(add)
        added.result()

    def run(self, main: "Callable[[Turns], Coroutine[Any, Any, T]]") -> T:
        """Run a coroutine to its end; called in the main thread.

        Raises:
            KeyboardInterrupt: Ctrl-C came before anybody listened to it; the coroutine was cancelled.
        """
        task = self._loop.create_task(main(self))
        task.add_done_callback(self._end)
        threads = [_thread("event loop", self._take_turns) for _ in range(2)]
        try:
            for thread in threads:
                thread.start()
            self._watch()
        except KeyboardInterrupt:
            self._loop.call_soon_threadsafe(task.cancel)
            try:
                self._watch()
            except KeyboardInterrupt:
                os._exit(130)  # the loop still runs, and cannot be put away
            raise
        return task.result()

    def _end(self, _: object) -> None:
        self._ended = True
        self._loop.stop()

    def _watch(self) -> None:
        """Do what belongs to the main thread, and have the loop go on when its thread is held up."""
        while True:
            try:
                work = self._for_main_thread.get(timeout=_LOOK_S)
            except Empty:
                self._hand_on()
            else:
                if work is None:
                    return
                work()

    def _hand_on(self) -> None:
        began_s = self._began_s
        if began_s is None or time.monotonic() - began_s < _LONGEST_S:
            return
        with self._lock:
            if self._began_s == began_s:
                self._began_s, self._held_up = None, True
                self._may_drive.release()

    # The two threads.

    def _take_turns(self) -> None:
        while not self._ended:
            self._may_drive.acquire()
            self._drive()
        self._may_drive.release()  # the other one ends, too
        self._for_main_thread.put(None)

    def _drive(self) -> None:
        """Run the loop until its end, or until this thread has been held up and another one runs it."""
        while not self._ended:
            self._stopped = False
            self._loop.run_forever()
            self._stopped = True
            while self._last is not None or (self._next is not None and not self._held_up):
                if self._last is not None:
                    last, self._last = self._last, None
                    self._do(last)
                    continue
                assert self._next is not None
                (work, then), self._next = self._next, None
                if self._was_held_up(work):
                    with suppress(RuntimeError):  # the loop has ended meanwhile
                        self._loop.call_soon_threadsafe(self._go_on, then)
                    return
                self._do(then)

    def _was_held_up(self, work: Work) -> bool:
        """Do work; say whether it took so long that another thread runs the loop."""
        began_s = self._began_s = time.monotonic()
        self._do(work)
        with self._lock:
            if self._began_s != began_s:
                return True
            self._began_s = None
        return False

    def _go_on(self, then: Work) -> None:
        """Take over what the thread that was held up has done; called in the loop."""
        self._held_up = False
        self._do(then)
        if self._next is not None:
            self._loop.stop()

    def _work_beside(self) -> None:
        assert self._beside is not None
        with suppress(RuntimeError):  # the loop has ended
            while True:
                work, then = self._beside.get()
                self._do(work)
                self._loop.call_soon_threadsafe(self._do, then)

    def _do(self, work: Work) -> None:
        try:
            work()
        except Exception as error:
            failed = {"message": "work between two turns failed", "exception": error}
            self._loop.call_soon_threadsafe(self._loop.call_exception_handler, failed)


def _thread(name: str, work: Work) -> threading.Thread:
    """Make a thread for which a process that ends does not wait: the disk may hold it up."""
    return threading.Thread(target=work, name=name, daemon=True)
