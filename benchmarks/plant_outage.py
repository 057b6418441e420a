"""What an hour without broker and PLC costs inspectd-plant: memory meanwhile, and whether all arrives.

    python benchmarks/plant_outage.py                  # both at once, six minutes; needs mosquitto
    python benchmarks/plant_outage.py --peers plc      # a PLC alone that is written to over Modbus TCP

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
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

sys.path += [str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "tests")]

from delivery_line import DeliveryLine
from plant_rig import Plant, until, write_plant

PER_SECOND = 3000
REJECTED = 36
BEFORE = 3600
LOOK_EVERY = 10_000
GIVE_UP_S = 1800.0


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

    def newest(self) -> int:
        """Give the ``seq`` of what it got last; 0 before the first."""

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

    def newest(self) -> int:
        return self._listener.last_seq()

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

    def newest(self) -> int:
        results = self._plcs[-1].results
        return int(results[-1]["seq"]) if results else 0

    def got(self) -> Iterable[Mapping[str, Any]]:
        return [result for plc in self._plcs for result in plc.results]

    def close(self) -> None:
        self._plcs[-1].close()


PEERS: dict[str, Callable[[Path], Peer]] = {"broker": MqttBroker, "plc": ModbusPlc}


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--verdicts", type=int, default=180_000)
    parser.add_argument("--peers", choices=PEERS, nargs="+", default=list(PEERS))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        line, peers = DeliveryLine(folder), [PEERS[peer](folder) for peer in options.peers]
        running = Plant(write_plant(folder, line, **{peer.output: peer.keys for peer in peers}))
        try:
            result = outage(line, peers, running, options.verdicts)
        finally:
            running.close()
            for peer in peers:
                peer.close()
            line.kill()
    print(json.dumps(result, indent=2))


def outage(line: DeliveryLine, peers: Sequence[Peer], running: Plant, count: int) -> dict[str, Any]:
    """Let the peers be away for so many verdicts, and account for what they got afterwards."""
    for peer in peers:
        running.until_connected(peer.output)
    judge(line, 1, BEFORE)
    for peer in peers:
        until(partial(_has_all, peer, BEFORE), within_s=120)  # what a broker has confirmed dies with it
        until(partial(_delivered, running, peer, BEFORE))
        peer.go()
    judge(line, BEFORE + 1, BEFORE + PER_SECOND)
    for peer in peers:
        running.until(peer.output, lambda output: output["state"] == "down")
    memory_mb, threads = [running.memory_mb()], running.threads()
    last = BEFORE + count
    judge(line, BEFORE + PER_SECOND + 1, last, lambda: memory_mb.append(running.memory_mb()))
    memory_mb.append(running.memory_mb())
    more_threads = running.threads() - threads
    for peer in peers:
        peer.come(running)
    begun_s, took_s, delivering_mb = time.monotonic(), dict[str, float](), [running.memory_mb()]
    while len(took_s) < len(peers):
        assert time.monotonic() < begun_s + GIVE_UP_S, running.health()["outputs"]
        for peer in peers:
            if peer.output not in took_s and _delivered(running, peer, last):
                took_s[peer.output] = time.monotonic() - begun_s
        delivering_mb.append(running.memory_mb())
        time.sleep(1.0)
    return {
        "verdicts": count,
        "memory_mb": {"first": memory_mb[0], "last": memory_mb[-1], "most": max(memory_mb), "all": memory_mb},
        "more_threads": more_threads,
        "memory_mb_while_delivering": delivering_mb[:: max(1, len(delivering_mb) // 20)],
        **{peer.output: _account(peer, last, took_s[peer.output]) for peer in peers},
    }


def _delivered(running: Plant, peer: Peer, last: int) -> bool:
    return bool(running.output(peer.output)["delivered"] >= last // peer.every)


def _has_all(peer: Peer, last: int) -> bool:
    return peer.newest() == last // peer.every * peer.every


def _account(peer: Peer, last: int, took_s: float) -> dict[str, Any]:
    """Hold what a peer got against what was due to it."""
    due = last // peer.every
    until(partial(_has_all, peer, last))
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
        "due": due - BEFORE // peer.every,
        "delivered_per_second": round((due - BEFORE // peer.every) / took_s),
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
