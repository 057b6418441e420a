"""The event loop goes on when work between two of its turns is held up, and the work is not lost."""

import asyncio
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from typing import Any

import pytest
from patience import PATIENCE_S

from daemon.host import turns as module
from daemon.host.turns import Turns, run


def test_work_is_done_between_two_turns_in_the_loops_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LONGEST_S", PATIENCE_S)  # this machine may be busy

    async def main(turns: Turns) -> tuple[list[int], int]:
        threads, done = [], asyncio.Event()

        def work() -> None:
            threads.append(threading.get_ident())
            with pytest.raises(RuntimeError):
                asyncio.get_running_loop()

        def then() -> None:
            threads.append(threading.get_ident())
            done.set()

        turns.between(work, then)
        assert not threads
        await done.wait()
        return threads, threading.get_ident()

    threads, loops = run(main)
    assert threads == [loops, loops]


def test_the_loop_goes_on_while_work_is_held_up() -> None:
    free = threading.Event()

    async def main(turns: Turns) -> list[str]:
        told: list[str] = []
        ended = asyncio.Event()
        turns.between(lambda: free.wait(PATIENCE_S), lambda: told.append("first"))
        for turn in range(10):
            await asyncio.sleep(0.01)
            told.append(f"turn {turn}")

        def then() -> None:
            told.append("second")
            ended.set()

        turns.between(lambda: told.append("work"), then)  # it waits for the first
        await asyncio.sleep(0.01)
        free.set()
        await ended.wait()
        return told

    told = run(main)
    assert told == [*(f"turn {turn}" for turn in range(10)), "first", "work", "second"]


def test_the_loop_changes_threads_again_and_again() -> None:
    async def main(turns: Turns) -> set[int]:
        threads = set()
        for _ in range(6):
            free, done = threading.Event(), asyncio.Event()
            turns.between(lambda free=free: free.wait(PATIENCE_S), done.set)  # type: ignore[misc]
            threads.add(threading.get_ident())
            await asyncio.sleep(0.01)
            free.set()
            await done.wait()
        return threads

    assert len(run(main)) == 2  # a camera's process ends with the thread that started it


def test_work_beside_the_loop_is_done_in_its_order() -> None:
    async def main(turns: Turns) -> list[int]:
        told: list[int] = []
        ended = asyncio.Event()
        for number in range(10):
            turns.beside(lambda: time.sleep(0.001), partial(told.append, number))
        turns.beside(lambda: None, ended.set)
        await ended.wait()
        return told

    assert run(main) == list(range(10))


def test_a_line_ends_while_work_is_held_up() -> None:
    free = threading.Event()

    async def main(turns: Turns) -> str:
        turns.between(lambda: free.wait(PATIENCE_S), lambda: None)
        await asyncio.sleep(0.01)
        return "ended"

    assert run(main) == "ended"
    free.set()


def test_what_the_coroutine_raises_is_raised() -> None:
    async def main(turns: Turns) -> None:
        raise ValueError("a fault of ours")

    with pytest.raises(ValueError, match="a fault of ours"):
        run(main)


def test_work_that_fails_is_told_to_the_loop() -> None:
    async def main(turns: Turns) -> str:
        failed: asyncio.Future[str] = asyncio.get_running_loop().create_future()

        def broken(_: Any, context: dict[str, Any]) -> None:
            failed.set_result(str(context["exception"]))

        asyncio.get_running_loop().set_exception_handler(broken)
        turns.between(lambda: 1 // 0, lambda: None)
        return await failed

    assert run(main) == "integer division or modulo by zero"


def test_signals_are_heard_also_while_work_is_held_up() -> None:
    program = """
import asyncio, os, signal, threading
from daemon.host.turns import run

async def main(turns):
    heard = asyncio.Event()
    turns.on_signal(signal.SIGUSR1, heard.set)
    turns.between(threading.Event().wait, lambda: None)
    threading.Thread(target=os.kill, args=(os.getpid(), signal.SIGUSR1)).start()
    await heard.wait()
    return "heard"

print(run(main), flush=True)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=PATIENCE_S
    )
    assert done.stdout == "heard\n"


def test_ctrl_c_cancels_what_does_not_listen_to_it() -> None:
    program = """
import asyncio
from daemon.host.turns import run

async def main(turns):
    try:
        print("runs", flush=True)
        await asyncio.sleep(20)
    finally:
        print("cleaned up", flush=True)

try:
    run(main)
except KeyboardInterrupt:
    print("interrupted")
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "runs\n"
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=PATIENCE_S)
    assert said.splitlines() == ["cleaned up", "interrupted"]


def test_what_is_last_in_a_turn_comes_before_the_work_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LONGEST_S", PATIENCE_S)  # this machine may be busy

    async def main(turns: Turns) -> list[str]:
        told: list[str] = []
        ended = asyncio.Event()

        def last() -> None:
            told.append("last")
            turns.between(lambda: told.append("work"), then)

        def then() -> None:
            told.append("then")
            if told.count("then") == 2:
                ended.set()
            else:
                turns.between(lambda: told.append("more"), then)

        turns.at_end(last)
        asyncio.get_running_loop().call_soon(told.append, "next turn")
        await ended.wait()
        return told

    assert run(main) == ["last", "work", "then", "more", "then", "next turn"]


def test_what_follows_the_work_may_ask_for_a_last() -> None:
    async def main(turns: Turns) -> None:
        was_last = asyncio.Event()
        turns.between(lambda: None, lambda: turns.at_end(was_last.set))
        await asyncio.wait_for(was_last.wait(), PATIENCE_S)

    run(main)


def test_turns_have_their_last_also_while_work_is_held_up() -> None:
    free = threading.Event()

    async def main(turns: Turns) -> None:
        turns.between(lambda: free.wait(PATIENCE_S), lambda: None)
        for _ in range(3):
            was_last = asyncio.Event()
            turns.at_end(was_last.set)
            await was_last.wait()

    run(main)
    free.set()
