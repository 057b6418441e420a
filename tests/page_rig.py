"""A real line of drawn parts, the dashboard beside it, and a real browser in front."""

import json
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import pytest
import yaml
from brightness import calibrate
from line_rig import COMMANDS, PATIENCE_S, write_config
from mean_part import SIZE, mean_part_model

from fuzzing.free_port import free_port

CHROMIUM = "/usr/bin/chromium"
ARGUMENTS = [
    *("--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
]
AXE = Path(__file__).parent / "axe" / "axe.min.js"


@contextmanager
def chromium() -> Iterator[Any]:
    """A browser; skips where there is none."""
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="needs Playwright: pip install inspectd[dev]"
    )
    if not Path(CHROMIUM).exists():
        pytest.skip(f"{CHROMIUM} is not installed: apt install chromium")
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


def flange_engine(folder: Path) -> float:
    """Build the model of drawn parts in this folder as ``flange.engine``, and give its threshold."""
    threshold = mean_part_model(folder / "flange.onnx")
    subprocess.run(
        [
            COMMANDS / "build-engine",
            folder / "flange.onnx",
            "--runtime",
            "onnxruntime",
            "--max-batch",
            "8",
            "--fast",
        ],
        check=True,
        capture_output=True,
    )
    for name in ("flange", "washer"):
        calibrate(folder / "flange.engine", folder / f"{name}.calibration.yaml", round(threshold, 3))
    return threshold


def drawn_line(folder: Path, cameras: dict[str, Any], **keys: Any) -> Path:
    """Write the config of a line with journal, archive and control, of two products."""
    products = {
        name: {"engine": "flange.engine", "calibration": f"{name}.calibration.yaml"}
        for name in ("flange", "washer")
    }
    config = write_config(
        folder,
        cameras,
        products=products,
        control=f"ipc://{folder}/control",
        journal={"file": "line3.journal"},
        archive={"folder": "rejects", "max_mb": 200},
        deadline_ms=2000,
        **keys,
    )
    content = yaml.safe_load(config.read_text())
    del content["engine"], content["calibration"]
    config.write_text(yaml.safe_dump(content, sort_keys=False))
    return config


def drawn_parts(seed: int, fps: float, defects: float = 0.15) -> dict[str, Any]:
    """Give a camera over drawn parts."""
    return {"source": f"simulated://?seed={seed}&defects={defects}&width={SIZE}&height={SIZE}", "fps": fps}


class Site:
    """The line's process and the dashboard's."""

    def __init__(self, config: Path, **keys: Any) -> None:
        self.folder = config.parent
        self.address = f"http://127.0.0.1:{free_port()}"
        dashboard = self.folder / "dashboard.yaml"
        content = {
            "listen": self.address,
            "lines": [config.name],
            "kinds": ["scratch", "dent", "stain"],
            **keys,
        }
        dashboard.write_text(yaml.safe_dump(content))
        self.config = dashboard
        self._csrf = ""
        self.line = subprocess.Popen([COMMANDS / "inspectd", "--config", config], stderr=subprocess.DEVNULL)
        self.dashboard = self.start_dashboard()

    def start_dashboard(self) -> subprocess.Popen[bytes]:
        with (self.folder / "dashboard.log").open("ab") as log:
            process = subprocess.Popen(
                [COMMANDS / "inspectd-dashboard", "--config", self.config], stdout=log, stderr=log
            )
        self.until(lambda: self._is_up(process))
        return process

    def _is_up(self, process: subprocess.Popen[bytes]) -> bool:
        assert process.poll() is None, (self.folder / "dashboard.log").read_text()
        try:
            self._csrf = self.get("/api/session")["csrf"] or ""
        except (urllib.error.URLError, ConnectionError):
            return False
        return True

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(self.address + path, timeout=PATIENCE_S) as answer:
            return json.load(answer)

    def post(self, path: str, body: dict[str, Any]) -> Any:
        headers = {"Content-Type": "application/json", "X-CSRF-Token": self._csrf, "Origin": self.address}
        request = urllib.request.Request(self.address + path, json.dumps(body).encode(), headers)
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
            return json.load(answer)

    def verdicts(self, query: str = "") -> Any:
        return self.get(f"/api/lines/line3/verdicts{query}")

    def until(self, condition: Callable[[], Any]) -> Any:
        """Ask until something is so, and give it."""
        give_up = time.monotonic() + PATIENCE_S
        while not (found := condition()):
            assert time.monotonic() < give_up, f"not within {PATIENCE_S} s"
            time.sleep(0.05)
        return found

    def close(self) -> None:
        for process in (self.dashboard, self.line):
            process.kill()
            process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def copied_engine(source: Path, folder: Path) -> None:
    """Put an engine that was built before, with its calibrations, into another folder."""
    for file in source.glob("*.*"):
        if file.suffix in (".engine", ".yaml"):
            shutil.copy(file, folder)
