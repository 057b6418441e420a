"""What inspectd-plant costs its line: turns with it beside the line alternate with turns without it.

    python benchmarks/plant_beside.py        # 3 minutes; needs mosquitto

The line has four cameras with 25 parts per second each and a model that takes no time, so that what is added
shows. inspectd-plant delivers all verdicts to a broker, has them polled and acknowledged by a PLC over Modbus
TCP, is scraped every second, and moves a gate. Broker and PLC are elsewhere in a plant: they have nice 15.
"""

import argparse
import json
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
MOSQUITTO = shutil.which("mosquitto", path="/usr/sbin:/usr/bin")


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--turns", type=int, default=4, help="with and without each (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=15, help="of each turn (default: %(default)s)")
    parser.add_argument("--plc", type=int, nargs=2, metavar="PORT", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.plc is not None:
        be_a_plc(*options.plc)
    found: dict[str, list[dict[str, float]]] = {"without": [], "with": []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = brightness_model(folder / "brightness.onnx")
        subprocess.run(
            [BIN / "build-engine", model, "--runtime", "onnxruntime"], check=True, capture_output=True
        )
        calibrate(folder / "brightness.engine", folder / "brightness.calibration.yaml", THRESHOLD)
        camera = {"source": "parts", "fps": FPS, "loop": True}
        write_line(folder, cameras={f"camera{number}": camera for number in range(CAMERAS)})
        for turn in range(2 * options.turns):
            kind = "with" if turn % 2 else "without"
            found[kind].append(one_turn(folder, options.seconds, plant=kind == "with"))
            print(f"turn {turn + 1}, {kind}: {found[kind][-1]}", file=sys.stderr, flush=True)
    middle = {
        name: {key: round(statistics.median(turn[key] for turn in turns), 3) for key in turns[0]}
        for name, turns in found.items()
    }
    added = {
        f"{key}_added": round(middle["with"][key] - middle["without"][key], 3)
        for key in ("p50_ms", "p99_ms", "daemon_ms_per_verdict")
    }
    print(json.dumps({**middle, **added}, indent=2))


def one_turn(folder: Path, seconds: float, *, plant: bool) -> dict[str, float]:
    """Run the line for a while, with or without inspectd-plant beside it."""
    for left in folder.glob("line3.journal*"):
        left.unlink()
    inspection = Inspection(folder / "line3.yaml")
    try:
        until(lambda: len(inspection.verdicts) > 100)
        if not plant:
            return watch(inspection, seconds)
        with beside(folder) as running:
            before_ms, delivered = cpu_ms(running.process.pid), running.output("mqtt")["delivered"]
            figures = watch(inspection, seconds)
            figures["plant_cores"] = (cpu_ms(running.process.pid) - before_ms) / 1000 / seconds
            figures["plant_mb"] = memory_mb(running.process.pid)
            figures["mqtt_per_second"] = (running.output("mqtt")["delivered"] - delivered) / seconds
            figures["plc_per_second"] = running.output("modbus_server")["delivered"] / seconds
        return figures
    finally:
        inspection.stop()


@contextmanager
def beside(folder: Path) -> Iterator[Plant]:
    """Run inspectd-plant with all of its outputs, and who takes them."""
    broker, plc, metrics = free_port(), free_port(), free_port()
    output = {"simulated": "gate.log"}
    (folder / "mosquitto.conf").write_text(f"listener {broker} 127.0.0.1\nallow_anonymous true\n")
    assert MOSQUITTO is not None, "needs mosquitto"
    content: dict[str, Any] = {
        "line": "line3.yaml",
        "metrics": {"listen": f"http://127.0.0.1:{metrics}"},
        "mqtt": {"broker": f"mqtt://127.0.0.1:{broker}"},
        "modbus_server": {"listen": f"tcp://127.0.0.1:{plc}"},
        "gates": {"a": {"camera": "camera0", "after": "500 ms", "window": "20 ms", "output": output}},
    }
    (folder / "plant.yaml").write_text(yaml.safe_dump(content))
    low = ["nice", "-n", "15"]
    peers = [
        subprocess.Popen([*low, MOSQUITTO, "-c", folder / "mosquitto.conf"], stderr=subprocess.DEVNULL),
        subprocess.Popen([*low, sys.executable, __file__, "--plc", str(plc), str(metrics)]),
    ]
    running = Plant(folder / "plant.yaml")
    try:
        running.until_connected("mqtt")
        until(lambda: running.output("modbus_server")["delivered"] > 0)
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
