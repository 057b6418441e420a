"""A real line of drawn parts, the dashboard beside it, and a real browser in front."""

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import pytest
import yaml
from brightness import calibrate
from dashboard_rig import Dashboard, write_dashboard
from line_rig import COMMANDS, write_config
from mean_part import SIZE, mean_part_model
from patience import PATIENCE_S

CHROMIUM = "/usr/bin/chromium"
ARGUMENTS = [
    *("--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"),
    "--disable-dev-shm-usage",  # a container has little of it, and a page without it hangs
    *("--disable-component-update", "--disable-sync"),
]
AXE = Path(__file__).parent / "axe" / "axe.min.js"
PRODUCTS = ("flange", "washer")


@contextmanager
def chromium() -> Iterator[Any]:
    """A browser; skips where there is none."""
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="needs Playwright: pip install 'inspectd[dev]'"
    )
    if not Path(CHROMIUM).exists():
        pytest.skip(f"{CHROMIUM} is not installed: apt install chromium")
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


def drawn_parts(seed: int, fps: float, defects: float = 0.15) -> dict[str, Any]:
    """Give a camera over drawn parts."""
    return {"source": f"simulated://?seed={seed}&defects={defects}&width={SIZE}&height={SIZE}", "fps": fps}


def drawn_line(folder: Path, cameras: dict[str, Any], **keys: Any) -> Path:
    """Build the engine of drawn parts, and write the config of a line with all that the page shows."""
    threshold = mean_part_model(folder / "flange.onnx")
    build = [COMMANDS / "build-engine", folder / "flange.onnx", "--runtime", "onnxruntime"]
    subprocess.run([*build, "--max-batch", "8", "--fast"], check=True, capture_output=True)
    for name in PRODUCTS:
        calibrate(folder / "flange.engine", folder / f"{name}.calibration.yaml", round(threshold, 3))
    given: dict[str, Any] = {
        "products": {
            name: {"engine": "flange.engine", "calibration": f"{name}.calibration.yaml"} for name in PRODUCTS
        },
        "control": f"ipc://{folder}/control",
        "journal": {"file": "line3.journal"},
        "archive": {"folder": "rejects", "max_mb": 200, "near_misses": 0.1, "sample": 0.05},
        "preview": {"folder": "preview"},
        "deadline_ms": 2000,
    }
    config = write_config(folder, cameras, **(given | keys))
    content = yaml.safe_load(config.read_text())
    del content["engine"], content["calibration"]
    config.write_text(yaml.safe_dump(content, sort_keys=False))
    return config


class Site:
    """The line's process and the dashboard's, and somebody who asks the server without a page."""

    def __init__(self, line: Path, *others: Path, runs: bool = True, **keys: Any) -> None:
        self.folder = line.parent
        self.config = write_dashboard(
            self.folder,
            [line.name, *(other.name for other in others)],
            **({"kinds": ["scratch", "dent", "stain"]} | keys),
        )
        command = [COMMANDS / "inspectd", "--config", line.name]  # so its pictures have relative names
        self.line = subprocess.Popen(command, cwd=self.folder, stderr=subprocess.DEVNULL) if runs else None
        self.dashboard = Dashboard(self.config)
        self.address = self.dashboard.address
        self.asker = self.dashboard.browser()

    def restart_dashboard(self) -> None:
        self.dashboard.close()
        self.dashboard = Dashboard(self.config)
        self.asker = self.dashboard.browser()

    def get(self, path: str, **query: Any) -> Any:
        return self.asker.ok(f"/api/lines/line3/{path}", **query)

    def post(self, path: str, **content: Any) -> Any:
        return self.asker.done(f"/api/lines/line3/{path}", **content)

    def until(self, condition: Callable[[], Any]) -> Any:
        """Ask until something is so, and give it."""
        give_up = time.monotonic() + PATIENCE_S
        while not (found := condition()):
            assert time.monotonic() < give_up, f"not within {PATIENCE_S} s"
            time.sleep(0.05)
        return found

    def close(self) -> None:
        self.dashboard.close()
        if self.line is not None:
            self.line.kill()
            self.line.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
