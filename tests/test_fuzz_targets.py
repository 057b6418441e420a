"""A short run of every target of the fuzzer, and of its own watchdog."""

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

pytest.importorskip("atheris", reason="the fuzzer needs Atheris: pip install 'inspectd[fuzz]'")

ROOT = Path(__file__).resolve().parents[1]


def fuzz(*options: object, root: Path = ROOT) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fuzzing", *map(str, options)]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)


def test_no_input_of_a_short_run_does_harm(tmp_path: Path) -> None:
    # Without engine_payload: what others' runtimes make of a graph is no matter of this repository's tests.
    targets = "message request reply camera_packet engine_file leftovers control subscriber"
    targets += " config_file calibration_file camera journal live_line"
    result = tmp_path / "fuzz.json"
    done = fuzz(
        "--inputs", 2_000, "--findings", tmp_path / "found", "--json", result, "--targets", *targets.split()
    )
    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads(result.read_text())
    assert results.keys() == set(targets.split())
    for name, target in results.items():
        assert target["inputs"] == sum(target["kinds"].values()) > 0, name
        assert target["kinds"]["accepted"] > 0, name
    assert results["live_line"]["line"]["verdicts"] == results["live_line"]["line"]["frames"] > 0


def test_crashes_hangs_and_undocumented_errors_are_caught_and_their_inputs_kept(tmp_path: Path) -> None:
    (tmp_path / "fuzzing").mkdir()
    for name in ("__init__", "__main__", "child", "flight_record", "target"):
        (tmp_path / "fuzzing" / f"{name}.py").write_bytes((ROOT / "fuzzing" / f"{name}.py").read_bytes())
    (tmp_path / "fuzzing" / "request.py").write_text(
        textwrap.dedent(
            """
            import ctypes
            import random
            import time

            class Target:
                documented = (ValueError,)
                longest = 100
                words = ()

                def __init__(self, folder):
                    self._left = random.randrange(5, 50)

                def seeds(self):
                    return [b"seed"]

                def mutate(self, data, chance):
                    return chance.choice((b"fine", b"refused", b"undocumented"))

                def run(self, data):
                    self._left -= 1
                    if self._left == 0:
                        ctypes.string_at(0)
                    if data == b"refused":
                        raise ValueError
                    if data == b"undocumented":
                        raise KeyError("nobody said so")
            """
        )
    )
    found = tmp_path / "found"
    done = fuzz("--inputs", 100, "--findings", found, "--targets", "request", root=tmp_path)
    assert done.returncode == 1
    assert "inputs with findings are in" in done.stderr
    assert "KeyError at request.py" in done.stdout
    assert (found / "request-crash-0").exists()
    assert "deadly signal" in (found / "request-crash-0.txt").read_text()
    kept = [path for path in found.glob("request-finding-*") if path.suffix != ".txt"]
    assert {path.read_bytes() for path in kept} == {b"undocumented"}
    assert all("nobody said so" in Path(f"{path}.txt").read_text() for path in kept)
