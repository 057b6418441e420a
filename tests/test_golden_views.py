"""Golden samples are seen as the camera sees parts: masked, at their place, in tiles, of each product."""

from pathlib import Path
from typing import Any

import cv2
import pytest
import yaml
from brightness import SIZE, calibrate
from line_rig import part_image, running, write_config
from test_daemon_reload import inspectctl
from test_daemon_tiles import CAMERA as TILED
from test_daemon_tiles import ROI as TILED_REGION
from test_daemon_tiles import TILES, picture, recalibrated
from test_golden import golden_is, notes
from test_locate import ROI, drawn, taught, with_reference
from test_mask import mask_file

from calibration.calibration_file import read_calibration, write_calibration
from calibration.golden import read_list
from daemon.inspectctl.cli import main as in_process
from pictures.frames import Frame, Size
from pictures.locating.locator import Place
from pictures.mask import read_mask
from pictures.tiles import Tiles


def golden(config: Path, *arguments: str | Path) -> int:
    action, *others = arguments
    return in_process(["golden", str(action), "--config", str(config), *map(str, others)])


def saved(file: Path, frame: Frame) -> Path:
    file.parent.mkdir(exist_ok=True)
    cv2.imwrite(str(file), frame)
    return file


def proven(config: Path) -> dict[str, Any]:
    """Start the line, wait until its samples have passed, and give its first run of them."""
    with running(config) as line:
        line.until(golden_is("passed"))
        line.until(lambda line: len(line.verdicts) > 2)
        line.stop()
    return notes(config.parent, "golden")[0]


def scores_of(run: dict[str, Any]) -> dict[str, float]:
    return {sample["file"]: sample["score"] for sample in run["samples"]}


@pytest.mark.slow
def test_products_have_samples_of_their_own_and_a_mask_hides_what_it_hides(
    line_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    right = read_mask(mask_file(line_folder / "right.mask.yaml"))
    engine = line_folder / "brightness.engine"
    plain, masked = (line_folder / f"{name}.calibration.yaml" for name in ("plain", "masked"))
    calibrate(engine, plain, 0.5)
    calibrate(engine, masked, 0.5, mask=right.digest)
    products = {
        "plain": {"engine": engine.name, "calibration": plain.name},
        "masked": {"engine": engine.name, "calibration": masked.name, "mask": "right.mask.yaml"},
    }
    part_image(line_folder / "parts" / "0.png", bright=False)
    control = f"ipc://{line_folder}/control"
    cameras = {"top": {"source": "parts", "fps": 20, "loop": True}}
    config = write_config(
        line_folder, cameras, journal={"file": "line3.journal"}, control=control, golden={"every_h": 4}
    )
    content = {
        key: value
        for key, value in yaml.safe_load(config.read_text()).items()
        if key not in {"engine", "calibration"}
    }
    config.write_text(yaml.safe_dump(content | {"products": products, "product": "plain"}))
    left = part_image(line_folder / "left.png", bright=True, spot=(4, 4))  # where the mask does not look
    other = part_image(line_folder / "right.png", bright=True, spot=(40, 4))
    assert golden(config, "add", "--bad", left, other) == 0
    assert golden(config, "add", "--product", "masked", "--bad", left) == 2
    assert "left.png: expected reject, found pass: score 0.15" in capsys.readouterr().err
    assert golden(config, "add", "--product", "masked", "--good", left, "--bad", other) == 0
    for name in ("plain", "masked"):
        assert golden(config, "test", "--product", name) == 0
    with running(config) as line:
        line.until(golden_is("passed"))
        assert inspectctl("select", "masked", "--config", config).returncode == 0
        line.until(lambda line: line.health.product == "masked" and golden_is("passed")(line))
        tested = inspectctl("selftest", "--config", config)
        assert (tested.returncode, tested.stdout[:7]) == (0, "passed:"), tested.stderr
        line.stop()
    runs = [(run["why"], run["product"], run["outcome"]) for run in notes(line_folder, "golden")]
    assert runs[:3] == [
        ("start", "plain", "passed"),
        ("start", "masked", "passed"),
        ("select", "masked", "passed"),
    ]
    by_product = {run["product"]: scores_of(run) for run in notes(line_folder, "golden")}
    assert by_product["plain"]["left.png"] > 0.5 > by_product["masked"]["left.png"]
    assert golden(config, "remove", "--product", "masked", "right.png") == 0
    kept = read_list(plain.with_suffix(".golden"))
    assert kept is not None and len(kept.samples) == 2  # those of the other product stay


@pytest.mark.slow
def test_located_samples_are_brought_to_their_place(
    line_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reference = taught(turn=20)
    with_reference(line_folder, reference, ROI)
    good = saved(line_folder / "parts" / "good.png", drawn("bracket", Place(5, 4, 6, 1, 0), 31))
    bad = saved(line_folder / "bad.png", drawn("bracket", Place(-12, 9, -10, 1, 0), 32, spot=True))
    camera = {
        "source": "parts",
        "fps": 20,
        "loop": True,
        "roi": ROI._asdict(),
        "locate": {"reference": "part.locate.png", "not_found": "fault"},
    }
    config = write_config(
        line_folder, {"top": camera}, journal={"file": "line3.journal"}, golden={"every_h": 4}
    )
    belt = saved(line_folder / "belt.png", drawn("none", Place(0, 0, 0, 1, 0), 33))
    assert golden(config, "add", "--good", belt) == 2
    assert capsys.readouterr().err.count("\n") == 1
    cut = saved(line_folder / "cut.png", cv2.imread(str(good))[:100, :100])
    assert golden(config, "add", "--good", cut) == 2
    assert "found 100×100 pixels, expected" in capsys.readouterr().err
    assert golden(config, "add", "--good", good, "--bad", bad) == 0
    run = proven(config)
    assert run["outcome"] == "passed"
    listed = read_list(line_folder / "brightness.calibration.golden")
    assert listed is not None
    assert scores_of(run) == pytest.approx({entry.file: entry.score for entry in listed.samples}, abs=1e-6)


@pytest.mark.slow
def test_tiled_samples_are_judged_as_one_picture(
    line_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recalibrated(line_folder, TILES, TILED_REGION)
    file = line_folder / "brightness.calibration.yaml"
    about = {
        "camera_picture": Size(512, 640),
        "tiled_size": Size(TILED_REGION["height"], TILED_REGION["width"]),
    }
    assert read_calibration(file).tiles == Tiles(**TILES)
    write_calibration(file, read_calibration(file).model_copy(update=about))
    good = saved(line_folder / "parts" / "good.png", picture())
    bad = saved(line_folder / "seam.png", picture(defect=(96, 96)))
    camera = TILED | {"fps": 20, "loop": True}
    config = write_config(
        line_folder,
        {"top": camera},
        deadline_ms=10_000,
        journal={"file": "line3.journal"},
        golden={"every_h": 4, "on_failure": "stop"},
    )
    small = part_image(line_folder / "small.png", bright=False)
    assert golden(config, "add", "--good", small) == 2
    assert f"found {SIZE}×{SIZE} pixels, expected 640×512" in capsys.readouterr().err
    assert golden(config, "add", "--good", good, "--bad", bad) == 0
    run = proven(config)
    assert (run["outcome"], len(run["samples"])) == ("passed", 2)
    assert scores_of(run)["seam.png"] > 0.5 > scores_of(run)["good.png"]
