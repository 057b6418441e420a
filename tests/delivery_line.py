"""A line without cameras in a process of its own: real journal, publisher and control address.

It journals and publishes what a test tells it, and health several times a second, as the daemon does. As a
program it is that process.
"""

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import asdict
from pathlib import Path
from typing import Any

from line_process import a_health, a_verdict
from line_rig import free_address
from patience import PATIENCE_S

from verdicts import Verdict


class DeliveryLine:
    """Starts the process; ``publish_address`` and ``control_address`` are where it listens."""

    def __init__(self, folder: Path, **options: Any) -> None:
        self.folder = folder
        self.options: dict[str, Any] = {
            "folder": str(folder),
            "publish": free_address(),
            "control": free_address(),
            "required": [],
            "resend_after_s": 0.3,
            "curve": None,
            "keep_days": 90,
            "boot": "aa",
            "product": None,
        } | options
        self.publish_address = str(self.options["publish"])
        self.control_address = str(self.options["control"])
        self.journal = folder / "journal.db"
        self.start()

    def start(self, **changes: Any) -> None:
        self.options |= changes
        command = [sys.executable, __file__, json.dumps(self.options)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._answer() == "ready"

    def restart(self, **changes: Any) -> None:
        """Kill it without warning, and start it on the same journal and addresses."""
        self.kill()
        self.start(**changes)

    def judge(self, first: int, last: int, **changes: Any) -> None:
        """Journal and publish the verdicts ``first`` to ``last``, each with these changes."""
        self.tell(do="judge", first=first, last=last, publish=True, changes=changes)

    def judge_unheard(self, first: int, last: int, **changes: Any) -> None:
        """Journal verdicts whose messages PUB loses."""
        self.tell(do="judge", first=first, last=last, publish=False, changes=changes)

    def snapshot(self) -> dict[str, Any]:
        """Subscribers' health and counters, as the daemon puts them into its health."""
        answer: dict[str, Any] = json.loads(self.tell(do="snapshot"))
        return answer

    def until(self, condition: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        for _ in range(2000):
            snapshot = self.snapshot()
            if condition(snapshot):
                return snapshot
            self.tell(do="wait", seconds=0.01)
        raise AssertionError(f"not within 20 s; last: {snapshot}")

    def tell(self, **command: Any) -> str:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()
        answer = self._answer()
        assert answer, "the line's process has ended"
        return answer

    def stop(self) -> int:
        """End it in order."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        return self.process.wait(PATIENCE_S)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()

    def _answer(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()


class _Process:
    def __init__(self, options: dict[str, Any]) -> None:
        from daemon.control.server import Control
        from daemon.delivery.publisher import Publisher
        from daemon.host.access import Access, CurveAccess
        from daemon.journal.journal import Journal

        self._boot = options["boot"]
        self._seq = 0
        self._product: str | None = options["product"]
        self._let_go = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._publishing_ns: list[int] = []
        self._worst_send_ns = 0
        file = Path(options["folder"]) / "journal.db"
        self.journal = Journal(file, line="line3", keep_days=options["keep_days"], max_mb=1000)
        curve = options["curve"]
        self.access = (
            Access() if curve is None else CurveAccess(curve["secret_key"], _clients(curve["clients"]))
        )
        self.publisher = Publisher(options["publish"], self.access)
        self.control = Control(
            options["control"],
            file,
            commands=self._command,
            access=self.access,
            required_subscribers=options["required"],
            resend_after_s=options["resend_after_s"],
        )
        self.publisher.watch(self._loop, self.send_health)
        self.control.start()

    async def serve(self) -> None:
        reader = asyncio.StreamReader(limit=2**20)
        await self._loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        health = asyncio.create_task(self._tell_health())
        print("ready", flush=True)
        while line := await reader.readline():
            command = json.loads(line)
            print(await getattr(self, f"_{command.pop('do')}")(**command) or "done", flush=True)
        health.cancel()
        self.publisher.close()
        self.control.close()
        self.access.close()
        self.journal.close()

    async def _judge(self, first: int, last: int, publish: bool, changes: dict[str, Any]) -> None:
        from verdicts import Peak, encode

        if changes.get("peak") is not None:
            changes["peak"] = Peak(**changes["peak"])
        for begin in range(first, last + 1, 50):
            seqs = range(begin, min(begin + 50, last + 1))
            batch: list[tuple[Verdict, tuple[bytes, bytes]]] = []
            for seq in seqs:
                verdict = a_verdict(seq, **({"boot": self._boot} | changes))
                batch.append((verdict, encode(verdict)))
            self.journal.write([(verdict, payload) for verdict, (_, payload) in batch])
            if changes.get("boot", self._boot) == self._boot:
                self._seq = seqs[-1]
            for _, message in batch if publish else ():
                self.publisher.send(message)
            self.control.journaled()
            await asyncio.sleep(0)

    async def _beat(self, seconds: float) -> str:
        """Send a verdict per millisecond, and tell how late the loop was at worst, in milliseconds."""
        from verdicts import encode

        worst, spent, count = 0.0, 0.0, 0
        message = encode(a_verdict(1))
        end = self._loop.time() + seconds
        while self._loop.time() < end:
            due = self._loop.time() + 0.001
            await asyncio.sleep(0.001)
            worst = max(worst, self._loop.time() - due)
            begin = self._loop.time()
            self.publisher.send(message)
            spent += self._loop.time() - begin
            count += 1
        return json.dumps({"late_ms": worst * 1000, "send_us": spent / count * 1e6, "sent": count})

    async def _send(self, topic: str, payload: str) -> None:
        self.publisher.send((bytes.fromhex(topic), bytes.fromhex(payload)))

    async def _wait(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def _clients(self, clients: dict[str, Any]) -> None:
        from daemon.host.access import CurveAccess

        assert isinstance(self.access, CurveAccess)
        self.access.replace(_clients(clients))

    async def _snapshot(self) -> str:
        from resource import RUSAGE_SELF, getrusage

        subscribers = {name: asdict(health) for name, health in self.control.subscribers.items()}
        resident = int(Path("/proc/self/statm").read_text().split()[1]) * 4096
        return json.dumps(
            {
                "subscribers": subscribers,
                "dropped": self.control.dropped_messages,
                "publisher_dropped": self.publisher.dropped_messages,
                "resident_mb": resident / 1e6,
                "cpu_s": getrusage(RUSAGE_SELF).ru_utime,
            }
        )

    def _command(self, command: str, arguments: dict[str, Any]) -> "Future[str]":
        return asyncio.run_coroutine_threadsafe(self._obey(command, arguments), self._loop)

    async def _obey(self, command: str, arguments: dict[str, Any]) -> str:
        from foundation.errors import InputError

        if arguments.get("product") == "unknown":
            raise InputError("product: found unknown, expected flange")
        if arguments.get("product") == "broken":
            raise RuntimeError("out of memory")
        if arguments.get("product") == "slow":
            await self._let_go.wait()
        if command == "select":
            self._product = arguments["product"]
        return f"{command} {arguments}"

    async def _let(self) -> None:
        """Let the product be selected that takes its time."""
        self._let_go.set()

    async def _tell_health(self) -> None:
        while True:
            self.send_health()
            await asyncio.sleep(0.2)

    def send_health(self) -> None:
        from verdicts import encode

        changes = {"boot": self._boot, "product": self._product}
        message = encode(a_health(self._seq, **changes, subscribers=dict(self.control.subscribers)))
        self.publisher.send(message)
        self.control.health(*message)


def _clients(clients: dict[str, Any]) -> Any:
    from daemon.host.access import Client

    return {name: Client(**client) for name, client in clients.items()}


async def _main() -> None:
    await _Process(json.loads(sys.argv[1])).serve()


if __name__ == "__main__":
    asyncio.run(_main())
