"""The benchmark that fills the table of accuracy."""

import json
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture
def accuracy(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import accuracy

    return accuracy


def cell(method: str, data: str, auroc: float, au_pro: float | None) -> dict[str, Any]:
    return {
        "settings": {"method": method, "data": data},
        "device": "a CPU",
        "learned_in_s": 3.0,
        "image_auroc": auroc,
        "au_pro": au_pro,
    }


def test_the_page_gives_means_and_spreads_of_what_is_finished(accuracy: Any) -> None:
    cells = [
        cell("ours, XS", "bottle", 0.90, 0.8),
        cell("ours, XS", "bottle", 1.00, 0.6),
        cell("ours, XS", "aliens", 0.85, None),
        cell("ours, S", "bottle", 0.99, 0.9),
    ]
    content = {"command": "accuracy.py", "date": "2026-01-01", "steps": 10, "seeds": 2, "cells": cells}
    page = accuracy.as_markdown(content)
    assert "| ours, XS | 0.950 ± 0.050 | 0.850 | 0.900 |" in page
    assert "| ours, S | 0.990 | – |  |" in page  # no mean over products that are not all measured
    assert "| ours, XS | 0.700 ± 0.100 | – |  |" in page


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--methods", "s"), "no teacher is packaged for size s"),
        (("--methods", "nearest"), "--methods nearest: needs --backbone FILE"),
        (("--methods", "xs", "--natural", "missing"), "missing: not a folder"),
    ],
)
def test_what_is_missing_is_said_in_one_line(
    accuracy: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, ...], said: str
) -> None:
    given = ["--data", str(tmp_path), "--natural", str(tmp_path), "--out", str(tmp_path / "out"), *options]
    assert accuracy.main(given) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert said in lines[0]


def test_a_finished_cell_is_not_measured_again(accuracy: Any, tmp_path: Path, shared_data: Path) -> None:
    def run() -> dict[str, Any]:
        options = [
            "--data",
            shared_data / "hazelnut_toy",
            "--natural",
            shared_data / "hazelnut_toy/train/good",
        ]
        options += ["--methods", "nearest", "--backbone", shared_data / "backbone/mobilenet_v2_quant.onnx"]
        options += ["--out", tmp_path / "out", "--json", tmp_path / "accuracy.json"]
        assert accuracy.main([str(option) for option in options]) == 0
        found: dict[str, Any] = json.loads((tmp_path / "accuracy.json").read_text())
        return found

    [first] = run()["cells"]
    assert first["image_auroc"] > 0.95
    assert first["images"]["test"] == 23
    assert run()["cells"] == [first]  # down to the seconds that it took
    [file] = (tmp_path / "out/hazelnut_toy").glob("*.json")
    file.write_text(json.dumps(first | {"settings": {}}))
    [anew] = run()["cells"]
    assert anew["settings"] == first["settings"]
    assert anew["image_auroc"] == first["image_auroc"]
