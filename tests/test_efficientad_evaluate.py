import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from brightness import THRESHOLD, UNIT_QUANTILES
from data_set_folders import PATCH, SIDE, csv_list, draw_mask, draw_part, folders, mvtec_ad, mvtec_loco, visa
from sklearn.metrics import roc_auc_score

from calibration.calibration_file import load_calibration, write_calibration
from engine_build.cli import main as build_engine
from engine_runtime.engine import SCORE, uncalibrated
from engine_runtime.engine_file import read_engine, read_manifest, write_engine
from engine_runtime.open import open_engine
from engine_runtime.tiled_engine import TiledEngine
from models.commands import efficientad as main
from models.efficientad.checkpoint import Run, save_model
from models.efficientad.model import EfficientAd
from pictures.frames import Roi, Size
from pictures.image_file import read_image
from pictures.tile_merge import TileMerge
from pictures.tiles import TileGrid, Tiles

COMMAND = Path(sys.executable).parent / "efficientad"


@pytest.fixture
def line(line_folder: Path) -> tuple[str, str, str]:
    """The engine whose score is the brightest cell of a frame, and its calibration, as arguments."""
    engine = line_folder / "brightness.engine"
    return str(engine), "--calibration", str(line_folder / "brightness.calibration.yaml")


def evaluated(out: Path) -> dict[str, Any]:
    assert sorted(path.name for path in out.iterdir()) == [
        "evaluation.json",
        "evaluation.md",
        "evaluation.png",
    ]
    content: dict[str, Any] = json.loads((out / "evaluation.json").read_text())
    return content


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str], code: int = 2) -> str:
    capsys.readouterr()
    assert main(arguments) == code
    lines = capsys.readouterr().err.replace("\r", "\n").splitlines()
    said = [text for text in lines if text.startswith("efficientad: ")]
    assert len(said) == 1
    assert not any("Traceback" in text for text in lines)
    return said[0]


def test_an_engine_that_sees_every_defect(
    line: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Bright patches of two by three cells: whole images are told apart, and pixels too, exactly."""
    data, out = mvtec_ad(tmp_path / "bottle"), tmp_path / "report"
    assert main(["evaluate", *line, "--data", str(data), "--out", str(out)]) == 0
    found = evaluated(out)
    assert found["overall"]["images"] == 5
    assert found["overall"]["image_auroc"] == {"value": 1, "interval": [1, 1]}
    assert found["overall"]["f1_best"]["value"] == 1
    assert found["overall"]["pixel_auroc"]["value"] > 0.97
    assert found["overall"]["overlap"]["0.3"]["value"] > 0.9
    assert {kind: metrics["images"] for kind, metrics in found["by_defect"].items()} == {
        "dent": 2,
        "scratch": 3,
    }
    point = found["operating_point"]
    assert point["calibrated"]
    assert point["threshold"] == THRESHOLD
    assert (point["caught"]["hits"], point["false_rejects"]["hits"]) == (5, 0)
    assert point["false_rejects"]["interval"][1] == pytest.approx(0.602, abs=1e-3)  # none in 4, exactly
    assert found["notes"] == []
    for image in found["images"]:
        assert image["score"] == pytest.approx(230 / 255 if image["defect"] else 60 / 255, abs=0.02)
    page = (out / "evaluation.md").read_text()
    assert "| scratch | 3 | 1.000 (1.000–1.000) |" in page
    assert page in capsys.readouterr().out
    sheet = cv2.imread(str(out / "evaluation.png"))
    assert sheet is not None
    assert sheet.shape[1] == 1320


def test_missed_and_falsely_rejected_parts(line: tuple[str, ...], tmp_path: Path) -> None:
    """A dark scratch under the threshold, a bright good part over it; AUROC as scikit-learn has it."""
    data, out = mvtec_ad(tmp_path / "bottle"), tmp_path / "report"
    dark = cv2.imread(str(data / "test/scratch/001.png"))
    assert dark is not None
    dark[PATCH] = 110
    cv2.imwrite(str(data / "test/scratch/001.png"), dark)
    draw_part(data / "test/good/002.png", 7, level=180)
    assert main(["evaluate", *line, "--data", str(data), "--out", str(out)]) == 0
    found = evaluated(out)
    point = found["operating_point"]
    assert (point["caught"]["hits"], point["false_rejects"]["hits"]) == (4, 1)
    assert point["caught_by_defect"]["scratch"]["hits"] == 2
    page = (out / "evaluation.md").read_text()
    assert "Missed:\n\n- test/scratch/001.png, score 0.4" in page
    assert "Falsely rejected:\n\n- test/good/002.png, score 0.7" in page
    scores = [image["score"] for image in found["images"]]
    kinds = [image["defect"] is not None for image in found["images"]]
    assert found["overall"]["image_auroc"]["value"] == pytest.approx(roc_auc_score(kinds, scores))
    low, high = found["overall"]["image_auroc"]["interval"]
    assert low < found["overall"]["image_auroc"]["value"] < high
    scratches = [(s, k) for s, k, image in zip(scores, kinds, found["images"], strict=True)
                 if image["defect"] in (None, "scratch")]  # fmt: skip
    expected = roc_auc_score([kind for _, kind in scratches], [score for score, _ in scratches])
    assert found["by_defect"]["scratch"]["image_auroc"]["value"] == pytest.approx(expected)


def test_the_sheet_shows_the_heat_where_the_defect_is(line: tuple[str, ...], tmp_path: Path) -> None:
    data, out = mvtec_ad(tmp_path / "bottle"), tmp_path / "report"
    assert main(["evaluate", *line, "--data", str(data), "--out", str(out), "--bootstrap", "0"]) == 0
    sheet = cv2.imread(str(out / "evaluation.png"))
    assert sheet is not None
    tile = sheet[260 + 34 : 260 + 34 + 208, 6:214].astype(int)  # the first picture of the first row
    spread = tile.max(2) - tile.min(2)  # parts are grey, tints and outlines are not
    assert spread[60:90, 90:140].mean() > 60
    assert spread[150:200].mean() < 12


def test_without_masks_pixel_metrics_are_said_to_be_absent(line: tuple[str, ...], tmp_path: Path) -> None:
    data, out = mvtec_ad(tmp_path / "bottle", masks=False), tmp_path / "report"
    assert main(["evaluate", *line, "--data", str(data), "--out", str(out)]) == 0
    found = evaluated(out)
    assert found["overall"]["pixel_auroc"] is None
    assert found["overall"]["overlap"] == {}
    assert found["notes"] == ["the defective images have no masks, so there are no pixel metrics"]
    page = (out / "evaluation.md").read_text()
    assert "pixel AUROC" not in page
    assert "no masks, so there are no pixel metrics" in page


def test_types_without_masks_are_left_out_of_pixel_metrics(line: tuple[str, ...], tmp_path: Path) -> None:
    data, out = folders(tmp_path / "parts"), tmp_path / "report"
    assert main(["evaluate", *line, "--data", str(data), "--out", str(out)]) == 0
    found = evaluated(out)
    assert found["overall"]["overlap"]["0.3"]["value"] > 0.9
    assert found["by_defect"]["stain"]["pixel_auroc"] is None
    assert found["by_defect"]["stain"]["image_auroc"]["value"] == 1
    assert found["notes"] == [
        "2 of 4 defective images have no mask, or an empty one; pixel metrics leave them out"
    ]


def test_an_empty_mask_is_no_mask(line: tuple[str, ...], tmp_path: Path) -> None:
    data, out = mvtec_ad(tmp_path / "bottle"), tmp_path / "report"
    draw_mask(data / "ground_truth/dent/001_mask.png", value=0)
    assert main(["evaluate", *line, "--data", str(data), "--out", str(out)]) == 0
    found = evaluated(out)
    assert found["overall"]["overlap"]["0.3"]["value"] > 0.9
    assert "1 of 5 defective images have no mask, or an empty one" in found["notes"][0]


def test_loco_has_spro(line: tuple[str, ...], tmp_path: Path) -> None:
    data, out = mvtec_loco(tmp_path / "pushpins"), tmp_path / "report"
    assert main(["evaluate", *line, "--data", str(data), "--out", str(out)]) == 0
    found = evaluated(out)
    assert found["overlap"] == "sPRO"
    assert set(found["overall"]["overlap"]) == {"0.05", "0.3"}
    logical, structural = (found["by_defect"][kind]["overlap"]["0.05"]["value"]
                           for kind in ("logical_anomalies", "structural_anomalies"))  # fmt: skip
    assert structural > 0.85
    # Of the second logical defect only a third is bright. It was asked for half of its area; now for all.
    config = (data / "defects_config.json").read_text()
    (data / "defects_config.json").write_text(config.replace("0.5", "1.0"))
    assert main(["evaluate", *line, "--data", str(data), "--out", str(out)]) == 0
    stricter = evaluated(out)["by_defect"]["logical_anomalies"]["overlap"]["0.05"]["value"]
    assert stricter < logical - 0.1
    assert "AU-sPRO 0.05" in (out / "evaluation.md").read_text()


@pytest.mark.parametrize("layout", ["visa", "csv"])
def test_other_layouts(line: tuple[str, ...], layout: str, tmp_path: Path) -> None:
    data = visa(tmp_path / "VisA") if layout == "visa" else csv_list(tmp_path)
    out = tmp_path / "report"
    assert main(["evaluate", *line, "--data", str(data), "--layout", layout, "--out", str(out)]) == 0
    assert evaluated(out)["overall"]["overlap"]["0.3"]["value"] > 0.9


def test_a_region_of_interest_cuts_pictures_and_masks(line: tuple[str, ...], tmp_path: Path) -> None:
    data, out = mvtec_ad(tmp_path / "bottle"), tmp_path / "report"
    x, y = PATCH[1].start - 8, PATCH[0].start - 8
    arguments = ["evaluate", *line, "--data", str(data), "--roi", f"{x},{y},40,32", "--out", str(out)]
    assert main(arguments) == 0
    found = evaluated(out)
    assert found["roi"] == [x, y, 40, 32]
    assert found["overall"]["overlap"]["0.3"]["value"] > 0.9


def test_a_region_of_interest_without_any_defect(line: tuple[str, ...], tmp_path: Path) -> None:
    data, out = mvtec_ad(tmp_path / "bottle"), tmp_path / "report"
    assert main(["evaluate", *line, "--data", str(data), "--roi", "0,40,64,20", "--out", str(out)]) == 0
    found = evaluated(out)
    assert found["overall"]["image_auroc"]["value"] < 1
    assert found["overall"]["overlap"] == {}


def test_tiles_are_judged_as_the_daemon_judges_them(line_folder: Path, tmp_path: Path) -> None:
    """Tiles of half the pictures' size: the engine sees defects of twice the size, and finds them all."""
    data = mvtec_ad(tmp_path / "bottle")
    calibration = line_folder / "brightness.calibration.yaml"
    line = [str(line_folder / "brightness.engine"), "--calibration", str(calibration)]
    results = []
    tiles = f"{SIDE // 2},{SIDE // 4}"
    assert main(["evaluate", *line, "--data", str(data), "--tiles", tiles, "--out", str(tmp_path / "a")]) == 0
    results.append(evaluated(tmp_path / "a"))
    text = calibration.read_text()
    calibration.write_text(text.replace("tiles: null", f"tiles: {{size: {SIDE // 2}, overlap: {SIDE // 4}}}"))
    assert main(["evaluate", *line, "--data", str(data), "--out", str(tmp_path / "b")]) == 0
    results.append(evaluated(tmp_path / "b"))
    for found in results:
        assert found["tiles"] == tiles
        assert found["overall"]["image_auroc"]["value"] == 1
        assert found["overall"]["overlap"]["0.3"]["value"] > 0.95

    engine = open_engine(line_folder / "brightness.engine")
    grid = TileGrid(Tiles(SIDE // 2, SIDE // 4), Size(SIDE, SIDE))
    tiled = TiledEngine(engine, TileMerge(grid, engine.manifest.geometry))
    for image in results[0]["images"]:
        frame = grid.cut(read_image(data / image["image"]), engine.manifest.input_size)
        [score] = tiled.infer([frame], uncalibrated(tiled.manifest.maps), (SCORE,))[SCORE]
        assert image["score"] == pytest.approx(float(score), rel=1e-6)
    tiled.close()


def test_tiles_need_pictures_of_one_size(
    line: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = mvtec_ad(tmp_path / "bottle", masks=False)
    arguments = ["evaluate", *line, "--data", str(data), "--out", str(tmp_path / "report"), "--tiles"]
    assert f"tiles: a roi of {SIDE}×{SIDE} pixels is smaller than a tile of 999" in refused(
        [*arguments, "999,0"], capsys
    )
    larger = np.full((SIDE + 8, SIDE + 8, 3), 60, np.uint8)
    assert cv2.imwrite(str(data / "test" / "good" / "001.png"), larger)
    assert f"001.png: {SIDE + 8}×{SIDE + 8} pixels; expected {SIDE}×{SIDE}, over which" in refused(
        [*arguments, "32,8"], capsys
    )
    assert not (tmp_path / "report").exists()


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """An untrained model."""
    import torch

    torch.manual_seed(0)
    model = EfficientAd("xs", Size(128, 160)).eval()
    model.quantiles.copy_(torch.tensor([[0.5, 2.0], [0.1, 0.4], [0.3, 1.2], [0.2, 0.9]]))
    run = Run("xs", Size(128, 160), Roi(2, 3, 60, 50), 1, 1, 0, "", "", None, "0.1.0")
    save_model(tmp_path / "model.pt", run, model)
    return tmp_path / "model.pt"


@pytest.mark.slow
def test_a_checkpoint_and_the_engine_made_of_it_agree(checkpoint: Path, tmp_path: Path) -> None:
    data = mvtec_ad(tmp_path / "bottle")
    assert main(["export", str(checkpoint)]) == 0
    assert build_engine([str(tmp_path / "model.onnx"), "--runtime", "onnxruntime", "--max-batch", "2"]) == 0
    results = []
    for model in (checkpoint, tmp_path / "model.engine"):
        out = tmp_path / f"report-{model.suffix[1:]}"
        assert main(["evaluate", str(model), "--data", str(data), "--out", str(out)]) == 0
        results.append(evaluated(out))
    ours, theirs = results
    assert ours["roi"] == theirs["roi"] == [2, 3, 60, 50]
    assert not ours["operating_point"]["calibrated"]
    assert "flatters" in ours["notes"][0]
    for image, same in zip(ours["images"], theirs["images"], strict=True):
        assert image["score"] == pytest.approx(same["score"], rel=1e-3)
    found, expected = (result["overall"]["overlap"]["0.3"]["value"] for result in results)
    assert found == pytest.approx(expected, abs=1e-3)


def test_good_test_images_that_were_trained_on_are_reported(
    line_folder: Path, line: tuple[str, ...], tmp_path: Path
) -> None:
    from models import training_images
    from models.datasets.open import open_data_set

    data, out = folders(tmp_path / "parts"), tmp_path / "report"
    digest = training_images.load(open_data_set(data / "good"), Size(64, 64), None, 0).digest
    engine = line_folder / "brightness.engine"
    manifest, payload = read_engine(engine)
    write_engine(engine, manifest.model_copy(update={"model_metadata": {"training_digest": digest}}), payload)
    assert main(["evaluate", *line, "--data", str(data), "--out", str(out)]) == 0
    assert any(f"trained on {data / 'good'}" in note for note in evaluated(out)["notes"])


def test_the_calibration_brings_the_quantiles(line_folder: Path, tmp_path: Path) -> None:
    data, out = mvtec_ad(tmp_path / "bottle"), tmp_path / "report"
    engine = line_folder / "brightness.engine"
    path = line_folder / "brightness.calibration.yaml"
    calibration = load_calibration(path, read_manifest(engine).payload_sha256, UNIT_QUANTILES)
    halved = {name: (a, 2 * b) for name, (a, b) in UNIT_QUANTILES.items()}
    write_calibration(path, calibration.model_copy(update={"quantiles": halved, "threshold": 0.25}))
    arguments = ["evaluate", str(engine), "--calibration", str(path), "--data", str(data), "--out", str(out)]
    assert main(arguments) == 0
    found = evaluated(out)
    assert found["operating_point"]["threshold"] == 0.25
    assert max(image["score"] for image in found["images"]) == pytest.approx(115 / 255, abs=0.01)


def test_same_seed_same_intervals(line: tuple[str, ...], tmp_path: Path) -> None:
    data = mvtec_ad(tmp_path / "bottle")
    draw_part(data / "test/good/002.png", 7, level=235)
    results = []
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        out = tmp_path / name
        options = ["--seed", seed, "--bootstrap", "50", "--out", str(out)]
        assert main(["evaluate", *line, "--data", str(data), *options]) == 0
        results.append(evaluated(out)["overall"])
    assert results[0] == results[1] != results[2]


def test_pictures_of_any_size_and_depth(line: tuple[str, ...], tmp_path: Path) -> None:
    """Twice as large, grey, and of 16 bits: the same scores and areas, with masks of the pictures' sizes."""
    data, out = mvtec_ad(tmp_path / "bottle"), tmp_path / "report"
    for name in ("test/scratch/000.png", "test/good/000.png"):
        picture = cv2.imread(str(data / name), cv2.IMREAD_GRAYSCALE)
        assert picture is not None
        large = cv2.resize(picture, (2 * SIDE, 2 * SIDE), interpolation=cv2.INTER_NEAREST)
        cv2.imwrite(str(data / name), large.astype(np.uint16) * 257)
    rows, columns = (slice(2 * part.start, 2 * part.stop) for part in PATCH)
    draw_mask(data / "ground_truth/scratch/000_mask.png", pixels=(rows, columns), side=2 * SIDE)
    assert main(["evaluate", *line, "--data", str(data), "--out", str(out)]) == 0
    found = evaluated(out)
    assert found["overall"]["overlap"]["0.3"]["value"] > 0.9
    scores = {image["image"]: image["score"] for image in found["images"]}
    assert scores["test/scratch/000.png"] == pytest.approx(scores["test/scratch/001.png"], abs=0.02)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".tif", ".webp"])
def test_truncated_images_are_named(
    suffix: str, line: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = mvtec_ad(tmp_path / "bottle", masks=False), tmp_path / "report"
    good = data / "test/good/001.png"
    whole = cv2.imencode(suffix, cv2.imread(str(good)))[1].tobytes()  # type: ignore[arg-type]
    cut = good.with_name(f"cut{suffix}")
    cut.write_bytes(whole[: len(whole) * 2 // 3])
    said = refused(["evaluate", *line, "--data", str(data), "--out", str(out)], capsys)
    assert said.startswith(f"efficientad: {cut}: is ")
    assert "cut short" in said or "damaged" in said
    assert not out.exists()


def test_wrong_data_and_masks(
    line: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = mvtec_ad(tmp_path / "bottle"), tmp_path / "report"
    arguments = ["evaluate", *line, "--data", str(data), "--out", str(out)]
    mask = draw_mask(data / "ground_truth/dent/001_mask.png", side=50)
    assert f"{mask}: the mask is 50×50 pixels" in refused(arguments, capsys)
    (data / "test" / "crack").mkdir()
    assert f"{data / 'test/crack'}: holds no image" in refused(arguments, capsys)
    assert "001.png: roi 60×60+10+10 does not lie inside" in refused(
        [
            *arguments[:-4],
            "--data",
            str(mvtec_ad(tmp_path / "other")),
            "--out",
            str(out),
            "--roi",
            "10,10,60,60",
        ],
        capsys,
    ).replace("000.png", "001.png")
    assert not out.exists()


def test_wrong_models_and_folders(
    line: tuple[str, ...], checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = str(mvtec_ad(tmp_path / "bottle"))
    rest = ["--data", data, "--out", str(tmp_path / "report")]
    missing = tmp_path / "missing.pt"
    assert f"{missing}: cannot be read" in refused(["evaluate", str(missing), *rest], capsys)
    (tmp_path / "bad.engine").write_bytes(b"garbage")
    assert "not an engine file" in refused(["evaluate", str(tmp_path / "bad.engine"), *rest], capsys)
    assert "is not a model of 'efficientad train'" in refused(
        ["evaluate", f"{data}/train/good/000.png", *rest], capsys
    )
    assert "a calibration belongs to an engine" in refused(
        ["evaluate", str(checkpoint), *line[1:], *rest], capsys
    )
    assert "brings no quantiles of its own; give --calibration" in refused(
        ["evaluate", line[0], *rest], capsys
    )
    assert "is a file; expected a folder" in refused(
        ["evaluate", *line, "--data", data, "--out", str(checkpoint)], capsys
    )
    nowhere = str(tmp_path / "a" / "b")
    assert "there is no folder" in refused(["evaluate", *line, "--data", data, "--out", nowhere], capsys)


def test_the_command_shows_its_progress(line: tuple[str, ...], tmp_path: Path) -> None:
    data = mvtec_ad(tmp_path / "bottle")
    done = subprocess.run(
        [COMMAND, "evaluate", *line, "--data", data, "--out", tmp_path / "report"],
        capture_output=True,
        text=True,
        check=True,
    )
    for bar in ("judging", "comparing with masks", "drawing test sets"):
        assert bar in done.stderr
    assert "report: evaluation.md, evaluation.json, evaluation.png" in done.stdout


def test_an_engine_is_evaluated_where_torch_is_not_installed(line: tuple[str, ...], tmp_path: Path) -> None:
    data = mvtec_ad(tmp_path / "bottle")
    arguments = ["evaluate", *line, "--data", str(data), "--out", str(tmp_path / "report")]
    script = "import sys\nfrom models.commands import efficientad as main\n"
    script += f"assert main({arguments!r}) == 0\nassert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)
    assert evaluated(tmp_path / "report")["overall"]["image_auroc"]["value"] == 1


def test_names_cannot_break_the_table(line: tuple[str, ...], tmp_path: Path) -> None:
    path = csv_list(tmp_path)
    with path.open("a", newline="") as file:
        draw_part(tmp_path / "images" / "odd.png", 3, defective=True)
        csv.writer(file).writerow(("images/odd.png", "defective", "a|b\nc", "", "test"))
    assert main(["evaluate", *line, "--data", str(path), "--out", str(tmp_path / "report")]) == 0
    assert "| a/b c | 1 |" in (tmp_path / "report" / "evaluation.md").read_text()
