"""What inspectd-plant costs its line: turns with it beside the line alternate with turns without it.

    python benchmarks/plant_beside.py        # three minutes; needs mosquitto

The line has four cameras with 25 parts per second each and a model that takes no time, so that what is added
shows. It runs through all turns: how its cameras' frames fall together differs from start to start by more
than what is measured here. inspectd-plant delivers all verdicts to a broker, has them polled and acknowledged
by a PLC over Modbus TCP, is scraped every second, and moves a gate. As root the line has its unit's priority.
Broker and PLC are elsewhere in a plant: they get what is left of this machine.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from inspection import BIN, Inspection, cpu_ms, memory_mb, watch

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).parents[1]))  # first: here is a dashboard.py, too
from brightness import THRESHOLD, brightness_model, calibrate
from dashboard_rig import write_line
from plant_rig import Plant, free_port, until

from plant.outputs.registers import MAP, WORDS

CAMERAS, FPS = 4, 25
OUTPUTS = ("mqtt", "modbus_server")
LINE_NICE = -10
"""Of the line's unit, for root alone."""
IDLE = ("chrt", "--idle", "0")
MOSQUITTO = shutil.which("mosquitto", path="/usr/sbin:/usr/bin")


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--turns", type=int, default=8, help="with and without each (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=8, help="of each turn (default: %(default)s)")
    parser.add_argument("--plc", type=int, nargs=2, metavar="PORT", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.plc is not None:
        be_a_plc(*options.plc)
    if os.geteuid() == 0:
        os.nice(LINE_NICE)
    pairs: list[dict[str, dict[str, float]]] = []
    with tempfile.TemporaryDirectory() as name, inspected(Path(name)) as inspection:
        for turn in range(options.turns):
            pair = {"without": watch(inspection, options.seconds)}
            with beside(Path(name), f"plant{turn}") as running:
                pair["with"] = watched_beside(running, inspection, options.seconds)
            pairs.append(pair)
            print(f"turn {turn + 1}: {pair}", file=sys.stderr, flush=True)
    result: dict[str, Any] = {
        kind: {key: round(statistics.median(pair[kind][key] for pair in pairs), 3) for key in pairs[0][kind]}
        for kind in ("without", "with")
    }
    for key in ("p50_ms", "p99_ms", "daemon_ms_per_verdict"):
        added = [round(pair["with"][key] - pair["without"][key], 3) for pair in pairs]
        result[f"added_to_{key}"] = {"median": round(statistics.median(added), 3), "turns": added}
    print(json.dumps(result, indent=2))


@contextmanager
def inspected(folder: Path) -> Iterator[Inspection]:
    """Run the line."""
    model = brightness_model(folder / "brightness.onnx")
    subprocess.run([BIN / "build-engine", model, "--runtime", "onnxruntime"], check=True, capture_output=True)
    calibrate(folder / "brightness.engine", folder / "brightness.calibration.yaml", THRESHOLD)
    camera = {"source": "parts", "fps": FPS, "loop": True}
    write_line(folder, cameras={f"camera{number}": camera for number in range(CAMERAS)})
    inspection = Inspection(folder / "line3.yaml")
    try:
        until(lambda: len(inspection.verdicts) > 100)
        yield inspection
    finally:
        inspection.stop()


def watched_beside(running: Plant, inspection: Inspection, seconds: float) -> dict[str, float]:
    """Measure the line with inspectd-plant beside it, and what that does meanwhile."""
    pid = running.process.pid
    [gates] = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    before_ms, gates_ms = cpu_ms(pid), cpu_ms(int(gates))
    delivered = {name: running.output(name)["delivered"] for name in OUTPUTS}
    figures = watch(inspection, seconds)
    figures["plant_cores"] = (cpu_ms(pid) - before_ms) / 1000 / seconds
    figures["gates_cores"] = (cpu_ms(int(gates)) - gates_ms) / 1000 / seconds
    figures["plant_mb"] = memory_mb(pid)
    for name in OUTPUTS:
        figures[f"{name}_per_second"] = (running.output(name)["delivered"] - delivered[name]) / seconds
    return figures


@contextmanager
def beside(folder: Path, name: str) -> Iterator[Plant]:
    """Run inspectd-plant, and who takes what it puts out; a new name has nothing to catch up with."""
    broker, plc, metrics = free_port(), free_port(), free_port()
    output = {"simulated": "gate.log"}
    (folder / "mosquitto.conf").write_text(f"listener {broker} 127.0.0.1\nallow_anonymous true\n")
    assert MOSQUITTO is not None, "needs mosquitto"
    content: dict[str, Any] = {
        "line": "line3.yaml",
        "name": name,
        "metrics": {"listen": f"http://127.0.0.1:{metrics}"},
        "mqtt": {"broker": f"mqtt://127.0.0.1:{broker}"},
        "modbus_server": {"listen": f"tcp://127.0.0.1:{plc}"},
        "gates": {"a": {"camera": "camera0", "after": "500 ms", "window": "20 ms", "output": output}},
    }
    (folder / "plant.yaml").write_text(yaml.safe_dump(content))
    peers = [
        subprocess.Popen([*IDLE, MOSQUITTO, "-c", folder / "mosquitto.conf"], stderr=subprocess.DEVNULL),
        subprocess.Popen([*IDLE, sys.executable, __file__, "--plc", str(plc), str(metrics)]),
    ]
    running = Plant(folder / "plant.yaml", {"INSPECTD_PLANT_SCHEDULING": "idle"})  # as its unit runs it
    try:
        running.until_connected("mqtt")
        until(lambda: running.output("modbus_server")["delivered"] > 0)
        until(lambda: running.health()["gates"]["a"]["state"] == "trusted")
        yield running
    finally:
        running.close()
        for peer in peers:
            peer.kill()
            peer.wait()


def be_a_plc(port: int, metrics: int) -> None:
    """Read verdicts and acknowledge them, and scrape every second, until killed."""
    from pymodbus.client import ModbusTcpClient
    from pymodbus.exceptions import ModbusException

    client = ModbusTcpClient("127.0.0.1", port=port)
    scraped_s = time.monotonic()
    while True:
        time.sleep(0.002)  # a turn of its program
        try:
            if not client.connected and not client.connect():
                continue
            valid = client.read_holding_registers(0, count=WORDS).registers[MAP["valid"].offset]
            client.write_register(100, valid)
            if time.monotonic() - scraped_s > 1:
                scraped_s = time.monotonic()
                urllib.request.urlopen(f"http://127.0.0.1:{metrics}/metrics", timeout=5).read()
        except (ModbusException, OSError):
            continue


if __name__ == "__main__":
    main()
