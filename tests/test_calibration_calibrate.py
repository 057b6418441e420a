import json
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import cv2
import numpy as np
import onnx
import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from engine_graphs import GLOBAL_MAP, LOCAL_MAP, OUTPUTS, UNCALIBRATED, little_model, save
from onnx import helper

from calibration.calibration_file import load_calibration
from calibration.cli import main
from calibration.images import image_set
from calibration.tail import fit_threshold
from engine_build.cli import main as build_engine
from engine_runtime.engine import SCORE
from engine_runtime.engine_file import read_engine, read_manifest, write_engine
from engine_runtime.manifest import VERSION_1_MAPS
from engine_runtime.open import open_engine
from engine_runtime.tiled_engine import TiledEngine
from pictures.digest import pack_digests, pixel_digest
from pictures.frames import Frame, Roi, Size, fit
from pictures.image_file import read_image
from pictures.image_folder import images_in
from pictures.tile_merge import TileMerge
from pictures.tiles import TileGrid, Tiles
from pictures.trained_on import PIXEL_DIGESTS

COMMAND = Path(sys.executable).parent / "calibrate"


def picture(seed: int, *, defect: bool = False) -> Frame:
    """Draw a grey disc that varies a little; a defect is a white patch on it.

    Around 120 the little model's networks agree best, so that what departs from it scores high.
    """
    random = np.random.default_rng(seed)
    drawn = random.normal(120, 3, (80, 90, 3))
    cv2.circle(drawn, (45, 40), 25, (130 + random.normal(0, 2),) * 3, -1)
    if defect:
        x, y = (int(value) for value in random.integers(30, 50, 2))
        drawn[y : y + 8, x : x + 8] = 255
    return drawn.clip(0, 255).astype(np.uint8)


def folder_of(path: Path, count: int, first: int = 0, *, defect: bool = False) -> Path:
    path.mkdir()
    for seed in range(first, first + count):
        cv2.imwrite(str(path / f"{seed:03}.png"), picture(seed, defect=defect))
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("calibrate")
    model = save(little_model(64, 72), folder / "little.onnx")
    assert build_engine([str(model), "-o", str(folder / "line3.engine"), "--max-batch", "4"]) == 0
    folder_of(folder / "good", 70)
    folder_of(folder / "defects", 12, 500, defect=True)
    return folder


def refusal(capsys: pytest.CaptureFixture[str], engine: Path, *options: object, code: int = 2) -> str:
    """Run calibrate, which must fail with one line and write nothing."""
    before = sorted(engine.parent.iterdir())
    capsys.readouterr()
    try:
        assert main([str(engine), *map(str, options)]) == code
    except SystemExit as refused:  # by argparse
        assert refused.code == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert before == sorted(engine.parent.iterdir())
    [line] = captured.err.splitlines()
    assert line.startswith("calibrate: ")
    return line


def test_quantiles_and_threshold_are_those_of_the_engine_itself(folder: Path, tmp_path: Path) -> None:
    target = tmp_path / "line3.calibration.yaml"
    arguments = [str(folder / "line3.engine"), "--good", str(folder / "good"), "-o", str(target)]
    assert main(arguments) == 0
    manifest = read_manifest(folder / "line3.engine")
    made = load_calibration(target, manifest.payload_sha256, VERSION_1_MAPS)
    engine = open_engine(folder / "line3.engine")
    frames = [fit(read_image(file), manifest.input_size) for file in images_in(folder / "good")]
    outputs = [engine.infer([frame], UNCALIBRATED, OUTPUTS) for frame in frames]
    for row, name in enumerate((LOCAL_MAP, GLOBAL_MAP)):
        expected = np.quantile(np.stack([output[name] for output in outputs]), (0.9, 0.995))
        np.testing.assert_allclose(made.quantiles_array()[row], expected, rtol=1e-4)
    scores = [engine.infer([frame], made.quantiles_array())[SCORE].item() for frame in frames]
    assert max(scores) < made.threshold < 3 * max(scores)
    assert (made.model, made.good_images, made.roi) == ("little", 70, None)
    assert made.wanted_false_reject_rate == 0.001
    low, high = made.false_reject_rate_interval
    assert low < 0.001 < high


def test_the_report_with_defects(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "line3.yaml"
    options = ["--false-reject-rate", "0.01", "--defects", str(folder / "defects"), "-o", str(target)]
    assert main([str(folder / "line3.engine"), "--good", str(folder / "good"), *options]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"^good images +70$", shown, re.M)
    assert re.search(r"^threshold +\d\S+, to reject 10 in 1000 good parts$", shown, re.M)
    assert re.search(
        r"^90% confidence +\d\S* to \d+ in 1000 \(tail fitted on the \d+ highest scores\)$", shown, re.M
    )
    found = re.search(r"^defective images +12, AUROC (\d\.\d{4})$", shown, re.M)
    assert found
    assert float(found[1]) > 0.9
    assert re.search(r"^caught +\d+ of 12, \d+\.\d% \(95 % interval \d+\.\d% to \d+\.\d%\)$", shown, re.M)


def test_by_default_beside_the_engine(folder: Path, tmp_path: Path) -> None:
    engine = tmp_path / "flange.engine"
    engine.write_bytes((folder / "line3.engine").read_bytes())
    assert main([str(engine), "--good", str(folder / "good")]) == 0
    assert (tmp_path / "flange.calibration.yaml").is_file()


def test_few_images_bring_a_warning_and_a_number(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = folder_of(tmp_path / "few", 25)
    options = ["--good", str(good), "-o", str(tmp_path / "few.yaml")]
    assert main([str(folder / "line3.engine"), *options]) == 0
    [warning] = capsys.readouterr().err.splitlines()
    found = re.search(
        r"25 good images are few: up to \d\S* in 1000 .*; about 440 in all, (\d+) more, would narrow",
        warning,
    )
    assert found
    assert int(found[1]) == 440 - 25
    assert (tmp_path / "few.yaml").is_file()


def test_too_few_images(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = folder_of(tmp_path / "good", 19)
    line = refusal(capsys, folder / "line3.engine", "--good", good)
    assert re.search(r"good: holds 19 different images; .* at least 20, and about \d{3} for .* 0\.001", line)
    # Copies are no further evidence.
    for file in images_in(good):
        (good / f"copy of {file.name}").write_bytes(file.read_bytes())
    assert "holds 19 different images" in refusal(capsys, folder / "line3.engine", "--good", good)


def test_copies_are_left_out(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = folder_of(tmp_path / "good", 30)
    (good / "again.png").write_bytes((good / "007.png").read_bytes())
    target = tmp_path / "copies.yaml"
    assert main([str(folder / "line3.engine"), "--good", str(good), "-o", str(target)]) == 0
    assert "30 (1 copies left out)" in capsys.readouterr().out
    assert yaml.safe_load(target.read_text())["good_images"] == 30


def test_a_defect_among_the_good_images_is_named(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = folder_of(tmp_path / "good", 60)
    spoilt = picture(42)
    spoilt[20:60, 20:60] = 255
    cv2.imwrite(str(good / "042.png"), spoilt)
    assert main([str(folder / "line3.engine"), "--good", str(good), "-o", str(tmp_path / "x.yaml")]) == 0
    assert re.search(r"042\.png: scores .* far above the other good images", capsys.readouterr().err)


def test_the_region_of_interest(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    engine, good = folder / "line3.engine", folder / "good"
    cropped = tmp_path / "cropped"
    cropped.mkdir()
    for file in images_in(good):
        cv2.imwrite(str(cropped / file.name), read_image(file)[4:68, 8:80])
    whole, part = tmp_path / "whole.yaml", tmp_path / "part.yaml"
    assert main([str(engine), "--good", str(cropped), "-o", str(whole)]) == 0
    assert main([str(engine), "--good", str(good), "--roi", "8,4,72,64", "-o", str(part)]) == 0
    sha256 = read_manifest(engine).payload_sha256
    with_roi, without = (
        load_calibration(part, sha256, VERSION_1_MAPS),
        load_calibration(whole, sha256, VERSION_1_MAPS),
    )
    assert with_roi.roi == Roi(8, 4, 72, 64)
    assert (with_roi.quantiles, with_roi.threshold) == (without.quantiles, without.threshold)
    line = refusal(capsys, engine, "--good", good, "--roi", "8,4,90,64")
    assert "000.png: roi 90×64+8+4 does not lie inside the picture of 90×80 pixels" in line
    for wrong in ("8,4,72", "a,b,c,d", "8,4,-1,64", "8,4,0,64", ""):
        assert "argument --roi: " in refusal(capsys, engine, "--good", good, f"--roi={wrong}")


def test_the_region_the_model_was_trained_with_is_the_default(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest, payload = read_engine(folder / "line3.engine")
    engine, target = tmp_path / "cropped.engine", tmp_path / "cropped.calibration.yaml"
    write_engine(engine, manifest.model_copy(update={"model_metadata": {"roi": "8,4,72,64"}}), payload)
    assert main([str(engine), "--good", str(folder / "good")]) == 0
    assert load_calibration(target, manifest.payload_sha256, VERSION_1_MAPS).roi == Roi(8, 4, 72, 64)


def test_tiles(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The scores are those of the merged maps, and the file tells the daemon how to cut."""
    engine_file, good, target = folder / "line3.engine", folder / "good", tmp_path / "tiled.yaml"
    options = ["--roi", "4,2,80,70", "--tiles", "40,16", "-o", str(target)]
    assert main([str(engine_file), "--good", str(good), *options]) == 0
    said = capsys.readouterr()
    assert "tiles               9 of 40×40 pixels, overlapping by 16" in said.out
    assert "leave gaps" not in said.err
    made = load_calibration(target, read_manifest(engine_file).payload_sha256, VERSION_1_MAPS)
    assert (made.roi, made.tiles, made.tiled_size) == (Roi(4, 2, 80, 70), Tiles(40, 16), (70, 80))

    inner = open_engine(engine_file)
    merge = TileMerge(TileGrid(Tiles(40, 16), Size(70, 80)), inner.manifest.geometry)
    engine = TiledEngine(inner, merge)
    frames = [
        merge.grid.cut(read_image(file), inner.manifest.input_size, made.roi) for file in images_in(good)
    ]
    raw = [engine.infer([frame], UNCALIBRATED, (LOCAL_MAP, GLOBAL_MAP)) for frame in frames]
    for name, measured in zip((LOCAL_MAP, GLOBAL_MAP), made.quantiles.values(), strict=True):
        expected = np.quantile([found[name] for found in raw], (0.9, 0.995))
        np.testing.assert_allclose(measured, expected, rtol=1e-5)
    scores = [engine.infer([frame], made.quantiles_array(), (SCORE,))[SCORE][0] for frame in frames]
    assert made.threshold == pytest.approx(fit_threshold(np.array(scores, np.float64), 0.001).value, rel=1e-4)
    engine.close()


def test_of_maps_too_large_for_memory_pixels_are_drawn(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, drawn = tmp_path / "whole.yaml", tmp_path / "drawn.yaml"
    arguments = [str(folder / "line3.engine"), "--good", str(folder / "good"), "-o"]
    assert main([*arguments, str(whole)]) == 0
    monkeypatch.setattr("calibration.measure._MOST_VALUES", 2 * 70 * 60)  # 60 of the 80 of each image
    assert main([*arguments, str(drawn)]) == 0
    sha256 = read_manifest(folder / "line3.engine").payload_sha256
    exact, estimated = (
        load_calibration(path, sha256, VERSION_1_MAPS).quantiles_array() for path in (whole, drawn)
    )
    assert not np.array_equal(exact, estimated)
    np.testing.assert_allclose(estimated, exact, rtol=0.15)


def test_tiles_of_the_whole_picture_need_pictures_of_one_size(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    engine, target = folder / "line3.engine", tmp_path / "tiled.yaml"
    good = tmp_path / "good"
    good.mkdir()
    for file in images_in(folder / "good"):
        cv2.imwrite(str(good / file.name), read_image(file))
    assert main([str(engine), "--good", str(good), "--tiles", "64,16", "-o", str(target)]) == 0
    made = load_calibration(target, read_manifest(engine).payload_sha256, VERSION_1_MAPS)
    # Which part of a camera's picture they show is not known, but its size is.
    assert (made.roi, made.tiled_size) == (None, (80, 90))
    for size in ((88, 80), (100, 100)):
        cv2.imwrite(str(good / "050.png"), cv2.resize(picture(1), size))
        line = refusal(capsys, engine, "--good", good, "--tiles", "64,16")
        assert f"050.png: {size[0]}×{size[1]} pixels; expected 90×80, over which the tiles are laid" in line


def test_the_tiles_the_model_was_trained_with_are_the_default(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest, payload = read_engine(folder / "line3.engine")
    engine, target = tmp_path / "tiled.engine", tmp_path / "tiled.calibration.yaml"
    # A stride in which the maps leave margins of four pixels at the side of a tile.
    metadata = {"roi": "8,4,72,64", "tiles": "36,2", "map_stride": "4"}
    write_engine(engine, manifest.model_copy(update={"model_metadata": metadata}), payload)
    assert main([str(engine), "--good", str(folder / "good")]) == 0
    made = load_calibration(target, manifest.payload_sha256, VERSION_1_MAPS)
    assert (made.roi, made.tiles, made.tiled_size) == (Roi(8, 4, 72, 64), Tiles(36, 2), (64, 72))
    least = TileMerge(TileGrid(made.tiles, Size(64, 72)), read_manifest(engine).geometry).least_overlap
    assert least > 2
    assert f"leave gaps between them: a small defect there may be missed; an overlap of {least}" in (
        capsys.readouterr().err
    )
    target.unlink()
    write_engine(engine, manifest.model_copy(update={"model_metadata": {"tiles": "36"}}), payload)
    line = refusal(capsys, engine, "--good", folder / "good")
    assert "the model's metadata: tiles: '36' is not size,overlap" in line


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--tiles", "64"], "--tiles: '64' is not size,overlap in whole pixels"),
        (["--tiles", "64,40"], "--tiles: found overlap 40, expected 0 to 32 pixels"),
        (["--tiles", "81,0"], "tiles: a roi of 90×80 pixels is smaller than a tile of 81"),
        (
            ["--tiles", "64,0", "--roi", "0,0,60,60"],
            "tiles: a roi of 60×60 pixels is smaller than a tile of 64",
        ),
    ],
)
def test_tiles_that_are_refused(
    folder: Path, capsys: pytest.CaptureFixture[str], options: list[str], expected: str
) -> None:
    assert expected in refusal(capsys, folder / "line3.engine", "--good", folder / "good", *options)


def test_the_images_of_the_training_are_recognised(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest, payload = read_engine(folder / "line3.engine")
    engine = tmp_path / "trained.engine"
    digest = image_set(folder / "good").digest(folder)
    write_engine(engine, manifest.model_copy(update={"model_metadata": {"training_digest": digest}}), payload)
    assert main([str(engine), "--good", str(folder / "good")]) == 0
    assert "the model was trained on all of these" in capsys.readouterr().err


def test_single_images_of_the_training_are_recognised(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest, payload = read_engine(folder / "line3.engine")
    engine, good = tmp_path / "trained.engine", folder_of(tmp_path / "good", 40)
    known = [read_image(folder / "good" / f"{index:03}.png") for index in (7, 9, 55)]
    metadata = {PIXEL_DIGESTS: pack_digests(map(pixel_digest, known))}
    write_engine(engine, manifest.model_copy(update={"model_metadata": metadata}), payload)
    (good / "007.png").unlink()  # the same pixels in another file are the same image
    cv2.imwrite(str(good / "seven.bmp"), known[0])
    assert main([str(engine), "--good", str(good)]) == 0
    said = capsys.readouterr().err
    assert "the model was trained on 2 of these 40 images (009.png, seven.bmp)" in said


def test_near_copies_count_as_one(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = tmp_path / "video"
    good.mkdir()
    random = np.random.default_rng(0)
    for part in range(24):
        shown = cv2.resize(random.integers(60, 200, (5, 5, 3), dtype=np.uint8), (90, 80))
        for frame in range(3):
            noisy = shown + random.normal(0, 2, shown.shape)
            cv2.imwrite(str(good / f"{part:02}-{frame}.png"), noisy.clip(0, 255).astype(np.uint8))
    assert main([str(folder / "line3.engine"), "--good", str(good), "-o", str(tmp_path / "x.yaml")]) == 0
    printed = capsys.readouterr()
    assert "72, effectively 24: near-copies" in printed.out
    assert "24 good images are few" in printed.err


def test_data_sets_and_defects_are_not_taken_for_good(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parts = tmp_path / "parts"
    parts.mkdir()
    folder_of(parts / "OK", 30)
    folder_of(parts / "NG", 3, 500, defect=True)
    engine = folder / "line3.engine"
    assert "is a data set with the folders OK and NG" in refusal(capsys, engine, "--good", parts)
    (parts / "OK").rename(parts / "monday")
    assert "NG: its name says that it holds defective" in refusal(capsys, engine, "--good", parts)


def test_images_and_folders_that_are_refused(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    engine, good = folder / "line3.engine", folder / "good"
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "empty: holds no image" in refusal(capsys, engine, "--good", empty)
    assert "gone: not a folder" in refusal(capsys, engine, "--good", tmp_path / "gone")
    assert "empty: holds no image" in refusal(capsys, engine, "--good", good, "--defects", empty)
    line = refusal(capsys, engine, "--good", good, "--defects", folder_of(tmp_path / "mixed", 3))
    assert re.search(
        r"mixed/\d+\.png: is among the good images too, as .*good/\d+\.png \(3 such images\)", line
    )
    (tmp_path / "dataset" / "train").mkdir(parents=True)
    assert "is a data set with a folder 'train'" in refusal(capsys, engine, "--good", tmp_path / "dataset")
    torn = folder_of(tmp_path / "torn", 30)
    (torn / "015.png").write_bytes((torn / "015.png").read_bytes()[:60])
    assert "015.png: is a PNG that is cut short" in refusal(capsys, engine, "--good", torn)


def test_equal_scores_have_no_tail(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = tmp_path / "equal"
    good.mkdir()
    for index in range(25):  # different files, one picture
        cv2.imwrite(str(good / f"{index}.png"), picture(0), [cv2.IMWRITE_PNG_COMPRESSION, index % 10])
        with (good / f"{index}.png").open("ab") as file:
            file.write(bytes([index]))
    line = refusal(capsys, folder / "line3.engine", "--good", good)
    assert "equal: no threshold can be fitted: the 11 highest good scores are all" in line


def test_engines_that_are_refused(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = folder / "good"
    assert "gone.engine: cannot be read" in refusal(capsys, tmp_path / "gone.engine", "--good", good)
    (tmp_path / "torn.engine").write_bytes((folder / "line3.engine").read_bytes()[:-100])
    assert "torn.engine: not an engine file" in refusal(capsys, tmp_path / "torn.engine", "--good", good)
    engine = folder / "line3.engine"
    assert "is the engine itself" in refusal(capsys, engine, "--good", good, "-o", engine)
    assert "cannot be written" in refusal(capsys, engine, "--good", good, "-o", tmp_path / "no" / "such.yaml")


def test_a_score_that_is_not_finite_names_its_image(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Dividing by the distance to a score that only the 11th picture has makes that one infinite.
    model: onnx.ModelProto = little_model(64, 72)
    path = save(model, tmp_path / "plain.onnx")
    assert build_engine([str(path), "--max-batch", "1"]) == 0
    manifest, payload = read_engine(tmp_path / "plain.engine")
    good = folder_of(tmp_path / "good", 20)
    cv2.imwrite(str(good / "010.png"), np.full((80, 90, 3), 255, np.uint8))
    model = onnx.load_model_from_string(payload)
    node = next(node for node in model.graph.node if node.output[0] == "score")
    node.output[0] = "own"
    sum_of_frame = [
        helper.make_node("Cast", ["frames"], ["float_frames"], to=1),
        helper.make_node("Constant", [], ["axes"], value_ints=[1, 2, 3]),
        helper.make_node("ReduceMin", ["float_frames", "axes"], ["darkest"], keepdims=0),
        helper.make_node("Constant", [], ["white"], value_float=255.0),
        helper.make_node("Sub", ["white", "darkest"], ["left"]),
        helper.make_node("Div", ["own", "left"], ["score"]),
    ]
    model.graph.node.extend(sum_of_frame)
    import hashlib

    payload = model.SerializeToString()
    changes = {"payload_sha256": hashlib.sha256(payload).hexdigest()}
    write_engine(tmp_path / "plain.engine", manifest.model_copy(update=changes), payload)
    line = refusal(capsys, tmp_path / "plain.engine", "--good", good)
    assert re.search(r"010\.png: the engine gives it the score -?(inf|nan)", line)


@pytest.mark.parametrize("wrong", ["0", "-0.1", "0.2", "nan", "inf", "one", "1e-9"])
def test_rates_that_make_no_sense(folder: Path, capsys: pytest.CaptureFixture[str], wrong: str) -> None:
    with pytest.raises(SystemExit) as raised:
        main([str(folder / "line3.engine"), "--good", str(folder), f"--false-reject-rate={wrong}"])
    assert raised.value.code == 2
    assert "expected a share from 1e-06 to 0.1" in capsys.readouterr().err


def test_ctrl_c_is_one_line_and_leaves_nothing(folder: Path, tmp_path: Path) -> None:
    engine = tmp_path / "line3.engine"
    engine.write_bytes((folder / "line3.engine").read_bytes())
    script = (
        "import os, signal, calibration.calibrate as calibrate\n"
        "run = calibrate.measure_scores\n"
        "def interrupted(*arguments, **options):\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    return run(*arguments, **options)\n"
        "calibrate.measure_scores = interrupted\n"
        "from calibration.cli import main\n"
        f"raise SystemExit(main([{str(engine)!r}, '--good', {str(folder / 'good')!r}]))\n"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert ended.returncode == 128 + signal.SIGINT
    [line] = ended.stderr.splitlines()
    assert line.startswith("calibrate: interrupted; ")
    assert [file.name for file in tmp_path.iterdir()] == ["line3.engine"]


@pytest.mark.slow
def test_the_page_and_its_numbers_show_what_the_threshold_rests_on(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    engine, target = str(folder / "line3.engine"), tmp_path / "line3.calibration.yaml"
    labels = tmp_path / "labels"
    shutil.copytree(folder / "good", labels / "good")
    shutil.copytree(folder / "defects", labels / "defects/dent")
    key = tmp_path / "release.key"
    secret = Ed25519PrivateKey.generate()
    key.write_bytes(secret.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    rate = ["--false-reject-rate", "0.05"]
    assert main([engine, "--from-labels", str(labels), *rate, "-o", str(target), "--sign", str(key)]) == 0
    secret.public_key().verify(target.with_name(f"{target.name}.sig").read_bytes(), target.read_bytes())
    numbers = json.loads(target.with_suffix(".json").read_text())
    calibration = load_calibration(target, read_manifest(Path(engine)).payload_sha256, VERSION_1_MAPS)
    assert numbers["calibration"]["threshold"] == calibration.threshold
    assert calibration.score_tolerance is not None
    assert [len(numbers["good"]), len(numbers["defective"]["images"])] == [70, 12]
    rates = [point["rate"] for point in numbers["tail"]]
    assert rates == sorted(rates, reverse=True)
    assert all(point["low"] <= point["rate"] <= point["high"] for point in numbers["tail"])
    widths = [more["interval"][1] for more in numbers["more_images"]]
    assert widths == sorted(widths, reverse=True)
    assert numbers["more_images"][0]["interval"] == pytest.approx(calibration.false_reject_rate_interval)
    scores = sorted((image["score"] for image in numbers["good"]), reverse=True)
    assert [image["score"] for image in numbers["highest"]] == pytest.approx(scores[:6])
    assert len(numbers["stability"]["random_halves"]) == 10
    page = target.with_suffix(".html").read_text()
    for heading in ("The tail", "Stability", "What 100 more images would bring", "Overlap with the training"):
        assert f"<h2>{heading}</h2>" in page
    assert page.count("data:image/jpeg;base64,") == 12
    assert not re.search(r'(src|href)="(?!data:)|<script|url\(', page), "it loads or runs something"
    ElementTree.fromstring(re.search(r"<svg.*?</svg>", page, re.DOTALL)[0])  # type: ignore[index]

    strict = ["--false-reject-rate", "0.001", "--compare", str(target), "-o", str(tmp_path / "strict.yaml")]
    capsys.readouterr()
    assert main([engine, "--from-labels", str(labels), *strict]) == 0
    told = capsys.readouterr()
    assert f"compared with {target}: threshold {calibration.threshold:.4g}, now" in told.out
    assert "What would change" in (tmp_path / "strict.html").read_text()
    assert "would pass now" in told.out or "decided as before" in told.out
    assert main([engine, "--from-labels", str(labels), *rate, "-o", str(target)]) == 0
    assert "is the signature of an earlier calibration" in capsys.readouterr().err


def test_images_that_cannot_be_a_report_are_refused_in_one_line(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    engine, good = folder / "line3.engine", folder / "good"
    labels = tmp_path / "labels"
    shutil.copytree(good, labels / "good")
    shutil.copytree(folder / "defects", labels / "defects/dent")
    shutil.copy(labels / "good/000.png", labels / "defects/dent/good-after-all.png")
    assert "is among the good images too" in refusal(capsys, engine, "--from-labels", labels)
    (labels / "defects/dent/good-after-all.png").unlink()
    cv2.imwrite(str(labels / "defects/dent/saved-again.bmp"), read_image(labels / "good/000.png"))
    told = refusal(capsys, engine, "--from-labels", labels)
    assert f"saved-again.bmp: has the pixels of the good image {labels / 'good/000.png'}" in told
    assert "found no folder good" in refusal(capsys, engine, "--from-labels", labels / "good")
    assert "which images" in refusal(capsys, engine)
    assert "which images" in refusal(capsys, engine, "--from-labels", labels, "--good", good)
    assert "no folder" in refusal(capsys, engine, "--good", good, "--report", tmp_path / "no/line3.html")
    assert "expected the name of a page" in refusal(
        capsys, engine, "--good", good, "--report", tmp_path / "x"
    )
    assert "cannot be read" in refusal(capsys, engine, "--good", good, "--compare", tmp_path / "old.yaml")
    assert "the signing key cannot be read" in refusal(
        capsys, engine, "--good", good, "--sign", tmp_path / "no.key"
    )
    for nameless in ("", ".", "/"):
        for option in ("-o", "--report"):
            told = refusal(capsys, engine, "--good", good, option, nameless)
            assert f"found {nameless!r}, expected the name of a file" in told
    with pytest.raises(SystemExit):
        main(["", "--good", str(good)])
    assert "model.engine: found '', expected the name of a file" in capsys.readouterr().err
    for name in ("line3.html", "line3.json"):
        told = refusal(capsys, engine, "--good", good, "-o", tmp_path / name)
        assert "is where the page or its numbers go; name another file" in told
