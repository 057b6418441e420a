"""Modbus TCP: the client that writes, against pymodbus; the server, polled by pymodbus and libmodbus."""

import asyncio
import shutil
import struct
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest
from delivery_line import DeliveryLine
from patience import PATIENCE_S
from plant_rig import complaint, free_port, plant, until, write_plant

pytest.importorskip("pymodbus", reason="needs pymodbus: pip install 'inspectd[plant]'")
from pymodbus.client import ModbusTcpClient
from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

from plant.outputs.registers import MAP, WORDS

pytestmark = pytest.mark.slow
Result = dict[str, Any]


def read(words: list[int]) -> Result:
    """Read the registers as docs/plant.md describes them."""
    raw = struct.pack(f">{len(words)}H", *words)
    names = [*MAP]
    values = struct.unpack(">HHIIIHHHHHHIIfffQ32s", raw)
    return dict(zip(names, values, strict=True))


class Plc:
    """A PLC with a Modbus server; its program reads verdicts and acknowledges them while ``reads`` is set."""

    def __init__(self, port: int = 0) -> None:
        self.port = port or free_port()
        self.results: list[Result] = []
        self.state: list[int] = []
        self.reads = threading.Event()
        self.reads.set()
        self._begun = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)
        self._thread.start()
        assert self._begun.wait(PATIENCE_S)

    async def _serve(self) -> None:
        device = SimDevice(1, [SimData(0, values=[0] * 200, datatype=DataType.REGISTERS)], action=self._asked)
        self._server = ModbusTcpServer(device, address=("127.0.0.1", self.port))
        self._loop = asyncio.get_running_loop()
        await self._server.listen()
        self._begun.set()
        await self._server.serving

    async def _asked(
        self, _function: int, _start: int, address: int, _count: int, registers: list[int], values: Any
    ) -> None:
        if values is None and address == 150 and self.reads.is_set():  # a turn of the PLC's program
            valid = registers[10 + MAP["valid"].offset]
            if valid and not registers[150]:
                self.results.append(read(registers[10 : 10 + WORDS]))
                registers[150] = 1
            elif not valid:
                registers[150] = 0
        self.state = registers[10:18]

    def close(self) -> None:
        asyncio.run_coroutine_threadsafe(self._server.shutdown(), self._loop)  # type: ignore[no-untyped-call]
        self._thread.join(PATIENCE_S)


def test_a_verdict_is_written_when_the_plc_may_read_it_and_none_is_lost(
    line: DeliveryLine, tmp_path: Path
) -> None:
    plc = Plc()
    config = write_plant(
        tmp_path,
        line,
        modbus_client={
            "address": f"tcp://127.0.0.1:{plc.port}", "register": 10, "acknowledge": 150, "timeout": "1 s",
        },
    )  # fmt: skip
    with plant(config) as running:
        running.until_connected("modbus_client")
        line.judge(1, 40)
        line.judge(41, 41, decision="fault", reason="overload", part="Teil ä" + "x" * 40)
        until(lambda: len(plc.results) == 41, what=lambda: running.log)
        first, last = plc.results[0], plc.results[-1]
        assert [result["seq"] for result in plc.results] == list(range(1, 42))
        assert (first["decision"], first["valid"], first["frame"], first["boot"]) == (1, 1, 101, 0xAA00)
        assert (first["score"], first["threshold"], first["total_ms"]) == (0.5, 0.25, 22.0)
        assert first["captured_us"] == 1769860800123456 and first["part"].rstrip(b"\0") == b"flange"
        assert (last["decision"], last["reason"], last["score"] == last["score"]) == (3, 2, False)
        assert last["part"].decode() == "Teil ä" + "x" * 25
        beat = plc.state[0]
        until(lambda: plc.state[0] not in (beat, beat + 1))
        assert plc.state[1] == 2

        # It waits for a PLC that does not read, however long.
        plc.reads.clear()
        line.judge(42, 60)
        down = running.until("modbus_client", lambda output: output["state"] == "down")
        assert "the PLC does not acknowledge: register 150 is" in down["error"]
        plc.reads.set()
        until(lambda: plc.results[-1]["seq"] == 60)
        plc.close()
        line.judge(61, 80)
        running.until("modbus_client", lambda output: "nobody answers" in (output["error"] or ""))
        again = Plc(plc.port)
        until(lambda: again.results and again.results[-1]["seq"] == 80)
        results = plc.results + again.results
        seen: set[int] = set()
        for result in results:
            assert result["repeated"] or result["seq"] == len(seen) + 1, result
            seen.add(result["seq"])
        assert seen == set(range(1, 81))
        line.kill()
        until(lambda: again.state[1] == 0)  # silent
        again.close()
    assert "Traceback" not in running.log


LIBMODBUS = """
#include <modbus/modbus.h>
#include <stdio.h>
#include <stdlib.h>
int main(int argc, char **argv) {
    modbus_t *plc = modbus_new_tcp("127.0.0.1", atoi(argv[1]));
    int wanted = atoi(argv[2]), got = 0;
    uint16_t words[44], before = 0;
    modbus_set_slave(plc, 1);
    if (modbus_connect(plc)) return 1;
    while (got < wanted) {
        if (modbus_read_registers(plc, 0, 44, words) != 44) return 2;
        if (words[8] && !before) {
            printf("%u %u\\n", words[9], words[14] << 16 | words[15]);
            got++;
            if (modbus_write_register(plc, 100, 1) != 1) return 3;
        } else if (!words[8] && before) {
            if (modbus_write_register(plc, 100, 0) != 1) return 4;
        }
        before = words[8];
    }
    modbus_write_register(plc, 100, 0);
    modbus_close(plc);
    return 0;
}
"""


def test_a_plc_polls_and_acknowledges(line: DeliveryLine, tmp_path: Path) -> None:
    port = free_port()
    config = write_plant(
        tmp_path, line, modbus_server={"listen": f"tcp://127.0.0.1:{port}", "timeout": "1 s"}, silence="1 s"
    )
    with plant(config) as running:
        running.until_connected("modbus_server")
        line.judge(1, 30)
        plc = ModbusTcpClient("127.0.0.1", port=port)
        assert plc.connect()

        def result() -> Result:
            return read(list(plc.read_holding_registers(0, count=WORDS).registers))

        until(lambda: result()["valid"])
        assert result()["seq"] == 1 and result()["state"] == 2
        # Nobody acknowledges: it stays, and is told.
        down = running.until("modbus_server", lambda output: output["state"] == "down")
        assert "no PLC acknowledges" in down["error"]
        assert result()["seq"] == 1
        # Nothing but the acknowledgement can be written.
        assert plc.write_register(MAP["decision"].offset, 1).isError()
        assert plc.write_register(100, 7).isError() and plc.write_register(5000, 1).isError()
        assert plc.read_holding_registers(40, count=10).isError()
        got = []
        for _ in range(5):
            until(lambda: result()["valid"])
            got.append(result()["seq"])
            assert not plc.write_register(100, 1).isError()
            until(lambda: not result()["valid"])
            plc.write_register(100, 0)
        assert got == [1, 2, 3, 4, 5]
        if shutil.which("gcc") is not None and Path("/usr/include/modbus/modbus.h").exists():
            (tmp_path / "plc.c").write_text(LIBMODBUS)
            subprocess.run(["gcc", "plc.c", "-o", "plc", "-lmodbus"], cwd=tmp_path, check=True)
            plc.close()
            done = subprocess.run(
                [tmp_path / "plc", str(port), "25"],
                capture_output=True,
                text=True,
                check=False,
                timeout=PATIENCE_S,
            )
            assert done.returncode == 0
            assert [line.split()[1] for line in done.stdout.splitlines()] == [
                str(seq) for seq in range(6, 31)
            ]
            assert plc.connect()
        beat = result()["heartbeat"]
        until(lambda: result()["heartbeat"] != beat)
        line.kill()
        until(lambda: result()["state"] == 0)
        plc.close()
    assert "Traceback" not in running.log


PLC = {"address": "tcp://p"}
GATES = {"a": {"camera": "top", "after_pulses": 9, "window": 1, "output": {"simulated": "g"}}}
ENCODER = {"modbus": {"address": "tcp://p", "register": 43}}


@pytest.mark.parametrize(
    ("keys", "wanted"),
    [
        ({"modbus_client": PLC | {"register": 80}}, "acknowledge: found 100, expected one outside"),
        ({"modbus_client": PLC | {"register": 65500}}, "register: found 65500, expected at most"),
        ({"modbus_client": {"address": "p:502"}}, "modbus_client.address: found"),
        ({"modbus_server": {"listen": "tcp://127.0.0.1"}}, "modbus_server.listen: found"),
        ({"modbus_server": {"listen": "tcp://1.2.3.4.5:502"}}, "expected an address of this machine"),
        ({"modbus_client": PLC | {"address": "tcp://p:502"}, "belt": ENCODER, "gates": GATES}, "overlaps"),
        ({"modbus_client": PLC | {"timeout": "0 s"}}, "timeout: found '0 s', expected more than 0"),
        ({"modbus_client": PLC, "belt": ENCODER, "gates": GATES}, "which overlaps modbus_client's 0 to 43"),
        ({"modbus_server": {}, "opcua": {"listen": "opc.tcp://0.0.0.0:502"}}, "where modbus_server listens"),
    ],
)
def test_registers_that_overlap_and_other_mistakes_are_one_line(
    tmp_path: Path, keys: dict[str, Any], wanted: str
) -> None:
    (tmp_path / "line3.yaml").write_text(
        "line: line3\npublish: ipc://p\ncontrol: ipc://c\njournal: {file: j}\n"
    )
    assert wanted in complaint(write_plant(tmp_path, **keys))
