"""EtherNet/IP: verdicts into a tag of cpppo's simulated controller, whose program acknowledges them."""

import contextlib
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from delivery_line import DeliveryLine
from patience import PATIENCE_S
from plant_rig import complaint, free_port, plant, until, write_plant
from test_plant_alarms import Nonsense
from test_plant_modbus import read

pytest.importorskip("pylogix", reason="needs pylogix: pip install 'inspectd[plant]'")
pytest.importorskip("cpppo", reason="needs cpppo: pip install cpppo")
from pylogix import PLC

from plant.outputs import LineNow, PeerFailed
from plant.outputs.ethernet_ip import EthernetIp, EthernetIpConfig
from plant.outputs.registers import MAP, WORDS


class Controller:
    """A controller with a tag Reg, INT[110], and its program, which reads verdicts."""

    def __init__(self, port: int = 0) -> None:
        self.port = port or free_port()
        self.results: list[dict[str, Any]] = []
        self.state: list[int] = []
        self.reads = threading.Event()
        self.reads.set()
        self._end = threading.Event()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "cpppo.server.enip", "--no-udp", "--address", f"127.0.0.1:{self.port}",
             "Reg=INT[110]"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        self._plc = PLC("127.0.0.1", port=self.port, timeout=PATIENCE_S)
        until(lambda: self._plc.Read("Reg[0]").Status == "Success")
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._end.wait(0.002):
            words = [word & 0xFFFF for word in self._plc.Read("Reg[0]", 101).Value]
            self.state = words[:8]
            if not self.reads.is_set():
                continue
            valid, acknowledged = words[MAP["valid"].offset], words[100]
            if valid and not acknowledged:
                self.results.append(read(words[:WORDS]))
                self._plc.Write("Reg[100]", 1)
            elif not valid and acknowledged:
                self._plc.Write("Reg[100]", 0)

    def close(self) -> None:
        self._end.set()
        self._thread.join(PATIENCE_S)
        self.process.kill()
        self.process.wait()


@pytest.fixture
def line(tmp_path: Path) -> Iterator[DeliveryLine]:
    line = DeliveryLine(tmp_path)
    yield line
    line.kill()


@pytest.mark.slow
def test_a_controller_gets_each_verdict_and_none_is_lost_while_it_is_away(
    line: DeliveryLine, tmp_path: Path
) -> None:
    with contextlib.ExitStack() as ends:
        controller = Controller()
        ends.callback(controller.close)
        address = {"address": f"tcp://127.0.0.1:{controller.port}", "timeout": "1 s"}
        wrong = EthernetIpConfig.model_validate(address | {"tag": "Nope"})
        with pytest.raises(PeerFailed, match=r"Nope\[8\]: Path destination unknown"):
            EthernetIp(wrong, [], lambda: LineNow("line3", None, silent=True)).connect()
        running = ends.enter_context(plant(write_plant(tmp_path, line, ethernet_ip=address)))
        running.until_connected("ethernet_ip")
        line.judge(1, 9)
        line.judge(10, 10, decision="fault", reason="overload", part="Teil ä")
        until(lambda: len(controller.results) == 10, what=lambda: running.log)
        assert [result["seq"] for result in controller.results] == list(range(1, 11))
        first, last = controller.results[0], controller.results[-1]
        assert (first["decision"], first["boot"], first["score"]) == (1, 0xAA00, 0.5)
        assert (last["decision"], last["reason"]) == (3, 2)
        assert last["part"].rstrip(b"\0").decode() == "Teil ä"
        beat = controller.state[0]
        until(lambda: controller.state[0] != beat)
        assert controller.state[1] == 2

        # It waits for a program that does not read, and for a controller that hangs or is gone.
        def down(because: str) -> None:
            running.until("ethernet_ip", lambda output: because in (output["error"] or ""))

        controller.reads.clear()
        line.judge(11, 15)
        down("the PLC does not acknowledge: register 100 is 0, expected 1")
        controller.process.send_signal(signal.SIGSTOP)
        down("does not answer as a controller does")
        controller.process.send_signal(signal.SIGCONT)
        controller.reads.set()
        until(lambda: controller.results[-1]["seq"] == 15)
        controller.close()
        line.judge(16, 20)
        down("Connection refused")
        again = Controller(controller.port)
        ends.callback(again.close)
        until(lambda: again.results and again.results[-1]["seq"] == 20)
        seen = 0
        for result in controller.results + again.results:
            assert result["seq"] == seen + 1 or (result["repeated"] and result["seq"] <= seen)
            seen = max(seen, result["seq"])
        assert running.output("ethernet_ip")["lost"] == 0 and "Traceback" not in running.log


@pytest.mark.parametrize(
    "answer", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x65\0\x40\0" + bytes(20), None]
)
def test_a_peer_that_is_no_controller_is_told_and_holds_nobody_up(answer: bytes | None) -> None:
    """The third breaks off in the middle of a packet; None: it drips."""
    peer = Nonsense(answer or b"", drips=answer is None)
    config = EthernetIpConfig(address=f"tcp://127.0.0.1:{peer.port}", timeout="300 ms")
    with pytest.raises(PeerFailed, match=r"\d: does not answer as a controller does$"):
        EthernetIp(config, [], lambda: LineNow("line3", None, silent=True)).connect()
    peer.close()


@pytest.mark.parametrize(
    ("keys", "wanted"),
    [
        ({}, "ethernet_ip.address: missing"),
        ({"address": "192.168.0.10"}, "expected the address of a controller such as tcp://192.168.0.10"),
        ({"address": "tcp://h:99999"}, "expected a port from 1 to 65535"),
        ({"address": "tcp://h", "slot": 256}, "ethernet_ip.slot: found 256"),
        ({"address": "tcp://h", "tag": "Reg[0]"}, "expected the name of an array of INT, such as Reg or"),
        ({"address": "tcp://h", "register": 90}, "acknowledge: found 100, expected one outside of 90 to 133"),
    ],
)
def test_what_is_wrong_is_one_line(tmp_path: Path, keys: dict[str, Any], wanted: str) -> None:
    (tmp_path / "line3.yaml").write_text(
        "line: line3\npublish: ipc://p\ncontrol: ipc://c\njournal: {file: j}\n"
    )
    assert wanted in complaint(write_plant(tmp_path, ethernet_ip=keys))
