"""What an hour without its broker or its PLC costs inspectd-plant: memory meanwhile, and whether all arrives.

    python benchmarks/plant_outage.py                  # the broker; needs mosquitto
    python benchmarks/plant_outage.py --peer plc       # a PLC that is written to over Modbus TCP

An hour at 50 verdicts per second are 180,000. They are journaled and published at 3,000 per second, so the
hour passes in a minute, and the memory that is read is of a process that keeps up. To the broker all of them
are due. The PLC gets rejects alone, one of 36, as a handshake takes its time.
"""

import argparse
import json
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

sys.path += [str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "tests")]

from delivery_line import DeliveryLine
from plant_rig import Plant, until, write_plant

PER_SECOND = 3000
REJECTED = 36
BEFORE = 3600
LOOK_EVERY = 10_000


class Peer(Protocol):
    """Who is at the other end."""

    output: str
    keys: dict[str, Any]
    every: int
    """Each so-maniest verdict is for it."""

    def go(self) -> None:
        """Be gone at once."""

    def come(self, running: Plant) -> None:
        """Be back."""

    def got(self) -> Iterable[Mapping[str, Any]]:
        """Give what it got, in order: seq and repeated."""

    def close(self) -> None:
        """End."""


class MqttBroker:
    """A mosquitto, and somebody who listens to it."""

    output, every = "mqtt", 1

    def __init__(self, folder: Path) -> None:
        from test_plant_mqtt import Broker, Listener

        self._broker = Broker(folder)
        self._listener = Listener(self._broker.port)
        assert self._listener.subscribed.wait(20)
        self.keys = {"broker": f"mqtt://127.0.0.1:{self._broker.port}"}

    def go(self) -> None:
        self._broker.kill()

    def come(self, running: Plant) -> None:
        running.process.send_signal(signal.SIGSTOP)  # who listens is to be there before the first message
        self._broker.start()
        assert self._listener.subscribed.wait(20)
        running.process.send_signal(signal.SIGCONT)

    def got(self) -> Iterable[Mapping[str, Any]]:
        return self._listener.verdicts()

    def close(self) -> None:
        self._broker.kill()
        self._listener.close()


class ModbusPlc:
    """A PLC that acknowledges what it reads."""

    output, every = "modbus_client", REJECTED

    def __init__(self, _folder: Path) -> None:
        from test_plant_modbus import Plc

        self._make = Plc
        self._plcs = [Plc()]
        port = self._plcs[0].port
        self.keys = {
            "address": f"tcp://127.0.0.1:{port}", "register": 10, "acknowledge": 150, "decisions": ["reject"],
        }  # fmt: skip

    def go(self) -> None:
        self._plcs[-1].close()

    def come(self, running: Plant) -> None:
        self._plcs.append(self._make(self._plcs[0].port))

    def got(self) -> Iterable[Mapping[str, Any]]:
        return [result for plc in self._plcs for result in plc.results]

    def close(self) -> None:
        self._plcs[-1].close()


PEERS: dict[str, Callable[[Path], Peer]] = {"broker": MqttBroker, "plc": ModbusPlc}


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--verdicts", type=int, default=180_000)
    parser.add_argument("--peer", choices=PEERS, default="broker")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        line, peer = DeliveryLine(folder), PEERS[options.peer](folder)
        running = Plant(write_plant(folder, line, **{peer.output: peer.keys}))
        try:
            result = outage(line, peer, running, options.verdicts)
        finally:
            running.close()
            peer.close()
            line.kill()
    print(json.dumps({"peer": options.peer, **result}, indent=2))


def outage(line: DeliveryLine, peer: Peer, running: Plant, count: int) -> dict[str, Any]:
    """Let the peer be away for so many verdicts, and account for what it got afterwards."""
    running.until_connected(peer.output)
    judge(line, 1, BEFORE)
    running.until(peer.output, lambda output: output["delivered"] == BEFORE // peer.every)
    peer.go()
    judge(line, BEFORE + 1, BEFORE + PER_SECOND)
    running.until(peer.output, lambda output: output["state"] == "down")
    memory_mb, threads = [running.memory_mb()], running.threads()
    last = BEFORE + count
    judge(line, BEFORE + PER_SECOND + 1, last, lambda: memory_mb.append(running.memory_mb()))
    memory_mb.append(running.memory_mb())
    more_threads = running.threads() - threads
    due = last // peer.every
    peer.come(running)
    running.until_connected(peer.output)
    begin_s = time.monotonic()
    until(lambda: running.output(peer.output)["delivered"] >= due, within_s=900)
    took_s = time.monotonic() - begin_s
    until(lambda: seqs(peer.got())[-1:] == [due * peer.every])
    got = list(peer.got())
    expected = iter(range(peer.every, last + 1, peer.every))
    unmarked, wanted = 0, next(expected)
    for verdict in got:
        if verdict["seq"] == wanted:
            wanted = next(expected, 0)
        else:
            assert not wanted or verdict["seq"] < wanted, f"{wanted} is missing"
            unmarked += not verdict["repeated"]
    return {
        "verdicts": count,
        "memory_mb": {"first": memory_mb[0], "last": memory_mb[-1], "most": max(memory_mb), "all": memory_mb},
        "more_threads": more_threads,
        "delivered_per_second": round((due - BEFORE // peer.every) / took_s),
        "memory_mb_afterwards": running.memory_mb(),
        "lost": due - len(set(seqs(got))),
        "twice": len(got) - len(set(seqs(got))),
        "twice_and_not_marked": unmarked,
    }


def seqs(got: Iterable[Mapping[str, Any]]) -> list[int]:
    return [int(verdict["seq"]) for verdict in got]


def judge(line: DeliveryLine, first: int, last: int, look: Callable[[], object] = lambda: None) -> None:
    """Have verdicts journaled and published, every 36th a reject, and look now and then."""
    begin, begin_s = first, time.monotonic()
    while first <= last:
        if first % REJECTED == 0:
            line.judge(first, first, decision="reject", score=0.9)
            end = first
        else:
            end = min(last, first + REJECTED - first % REJECTED - 1)
            line.judge(first, end)
        if end // LOOK_EVERY > (first - 1) // LOOK_EVERY:
            look()
        first = end + 1
        time.sleep(max(0.0, begin_s + (first - begin) / PER_SECOND - time.monotonic()))


if __name__ == "__main__":
    main()
