import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from data_set_folders import draw_mask, draw_part, mvtec_ad

from calibration.cli import main as calibrate
from engine_build.cli import main as build_engine
from engine_runtime.engine import FRAMES, QUANTILES
from models.commands import efficientad as main
from models.efficientad.ablation import ROWS
from models.efficientad.checkpoint import Run, load_model, save_model
from models.efficientad.losses import hard_feature_loss
from models.efficientad.model import EfficientAd
from models.efficientad.networks import ModelSize
from models.efficientad.train import map_scale
from pictures.frames import Size

COMMAND = Path(sys.executable).parent / "efficientad"


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return mvtec_ad(tmp_path_factory.mktemp("ablate") / "bottle")


@pytest.fixture(scope="module")
def natural(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("natural")
    for index in range(3):
        draw_part(folder / f"{index}.png", 900 + index, level=40 + 60 * index)
    return folder


def study(data: Path, natural: Path, out: Path, *more: str) -> list[str]:
    settings = ["--steps", "2", "--image-size", "128", "--penalty-images", str(natural)]
    return ["ablate", "--data", str(data), "--out", str(out), *settings, *more]


@pytest.fixture(scope="module")
def finished(data: Path, natural: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study with one seed that was never stopped."""
    out = tmp_path_factory.mktemp("finished")
    assert main(study(data, natural, out)) == 0
    return out


def table(out: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((out / "ablation.json").read_text())
    return content


@pytest.mark.slow
def test_the_whole_table_resumed_after_a_kill(
    data: Path, natural: Path, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    killed = tmp_path / "killed"
    process = subprocess.Popen(
        [COMMAND, *study(data, natural, killed, "--seeds", "2")],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={"OMP_NUM_THREADS": "1"},
    )
    assert process.stderr is not None
    for _ in process.stderr:  # a line per turn of a progress bar
        if len(list(killed.glob("*-seed-0.json"))) >= 3:
            break
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (killed / "ablation.json").exists()
    done = {path: path.stat().st_mtime_ns for path in killed.glob("*.json")}
    assert len(done) >= 3

    assert main(study(data, natural, killed, "--seeds", "2")) == 0
    assert {path: path.stat().st_mtime_ns for path in done} == done
    found = table(killed)
    for row, alone in zip(found["rows"], table(finished)["rows"], strict=True):
        for name, metric in row["metrics"].items():
            assert metric["values"][:1] == alone["metrics"][name]["values"]
            assert alone["metrics"][name]["deviation"] is None
    assert "ablation.md, ablation.json" in capsys.readouterr().out

    assert [row["name"] for row in found["rows"]] == [row.name for row in ROWS if not row.larger]
    for row in found["rows"]:
        assert set(row["metrics"]) == {"image AUROC", "F1 best", "pixel AUROC", "AU-PRO 0.3"}
        auroc = row["metrics"]["image AUROC"]
        assert len(auroc["values"]) == 2
        assert auroc["mean"] == pytest.approx(np.mean(auroc["values"]))
        assert auroc["deviation"] == pytest.approx(np.std(auroc["values"], ddof=1))
    page = (killed / "ablation.md").read_text()
    assert "mean ± standard deviation over 2 seeds" in page
    assert page.count("\n| without ") == 7
    # Five trainings for fourteen rows, each with two seeds.
    assert len(list(killed.glob("*.pt"))) == 10


@pytest.mark.slow
def test_a_finished_study_gets_the_row_of_the_larger_size(
    data: Path, natural: Path, finished: Path, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    teacher = tmp_path / "teacher_small.pth"
    torch.save(EfficientAd("s", Size(128, 128)).teacher.state_dict(), teacher)
    out = tmp_path / "out"
    shutil.copytree(finished, out)
    done = {path: path.read_bytes() for path in out.glob("*-seed-0.json")}
    options = ("--larger-size", "s", "--larger-teacher", str(teacher))
    assert main(study(data, natural, out, *options)) == 0
    assert [row["name"] for row in table(out)["rows"]] == [row.name for row in ROWS]
    assert {path: path.read_bytes() for path in done} == done
    assert len(list(out.glob("*-seed-0.json"))) == len(done) + 1
    (larger,) = out.glob("larger*.pt")
    assert load_model(larger)[0].size == "s"
    assert "| + larger size |" in (out / "ablation.md").read_text()


def test_another_study_in_the_folder_is_refused(
    data: Path, natural: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    other = {"run": {"size": "xs", "image_size": [128, 128], "roi": None, "steps": 7}, "metrics": {}}
    for content, said in (
        (json.dumps(other), "belongs to a study with steps 7, this one has 2"),
        ("{", "is not a finished row of an ablation"),
        ("[]", "is not a finished row of an ablation"),
    ):
        (out / "cumulative-1-seed-0.json").write_text(content)
        assert main(study(data, natural, out)) == 2
        last = capsys.readouterr().err.splitlines()[-1]
        assert last.startswith(f"efficientad: {out / 'cumulative-1-seed-0.json'}: ")
        assert said in last


def test_what_ablate_needs_is_found_before_it_trains(
    data: Path, natural: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"

    def refused(*arguments: str) -> str:
        assert main(list(arguments)) == 2
        assert not out.exists()
        lines = capsys.readouterr().err.replace("\r", "\n").splitlines()
        return next(line for line in lines if line.startswith("efficientad: "))

    assert "good images alone" in refused(*study(data / "train" / "good", natural, out))
    assert "holds no image" in refused(*study(data, data / "ground_truth" / "nothing", out)).replace(
        "not a folder; expected a folder of images", "holds no image"
    )
    wrong = mvtec_ad(tmp_path / "wrong")
    mask = draw_mask(wrong / "ground_truth/scratch/002_mask.png", side=50)
    assert f"{mask}: the mask is 50×50 pixels" in refused(*study(wrong, natural, out))
    assert "no teacher is packaged for size m" in refused(*study(data, natural, out, "--larger-size", "m"))
    assert "is the size of the other rows" in refused(*study(data, natural, out, "--larger-size", "xs"))
    teacher = ("--larger-teacher", str(data))
    assert "give its --larger-size too" in refused(*study(data, natural, out, *teacher))


def trained(data: Path, out: Path, *options: str) -> tuple[Run, EfficientAd]:
    arguments = ["train", "--data", str(data), "--out", str(out), "--image-size", "128", "--steps", "2"]
    assert main([*arguments, *options]) == 0
    return load_model(out)


def test_every_ingredient_is_an_option_that_the_checkpoint_keeps(data: Path, tmp_path: Path) -> None:
    run, model = trained(data, tmp_path / "full.pt")
    assert (run.p_hard, run.autoencoder, run.map_normalisation) == (0.999, True, "quantile")
    assert (run.learning_rate, run.weight_decay) == (None, 1e-5)
    options = ["--p-hard", "0", "--no-autoencoder", "--map-normalisation", "gaussian"]
    options += ["--learning-rate", "3e-4", "--weight-decay", "0"]
    run, bare = trained(data, tmp_path / "bare.pt", *options)
    assert (run.p_hard, run.autoencoder, run.map_normalisation) == (0, False, "gaussian")
    assert (run.learning_rate, run.weight_decay) == (3e-4, 0)
    assert bare.autoencoder is None
    assert model.autoencoder is not None
    last = "student.8.weight"
    assert (len(bare.state_dict()[last]), len(model.state_dict()[last])) == (96, 2 * 96)


@pytest.mark.parametrize("option", ["--p-hard=0", "--learning-rate=1e-2", "--weight-decay=10"])
def test_options_change_what_is_learned(option: str, data: Path, tmp_path: Path) -> None:
    plain = trained(data, tmp_path / "plain.pt")[1].state_dict()
    changed = trained(data, tmp_path / "changed.pt", option)[1].state_dict()
    assert not torch.equal(plain["student.0.weight"], changed["student.0.weight"])
    assert torch.equal(plain["teacher.0.weight"], changed["teacher.0.weight"])


@pytest.mark.parametrize("option", ["--p-hard=1", "--p-hard=nan", "--learning-rate=0", "--learning-rate=x",
                                    "--weight-decay=-1", "--map-normalisation=none"])  # fmt: skip
def test_wrong_options(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        main(["train", "--data", "d", "--out", "o", option])
    assert raised.value.code == 2
    assert option.partition("=")[0] in capsys.readouterr().err.splitlines()[-1]


def test_without_hard_feature_loss_all_differences_count() -> None:
    torch.manual_seed(0)
    teacher, student = torch.randn(2, 1, 8, 20, 20)
    torch.testing.assert_close(hard_feature_loss(teacher, student, 0.0), (teacher - student).square().mean())


def test_gaussian_normalisation_gives_mean_0_and_variance_1() -> None:
    maps = np.random.default_rng(0).gamma(2, 3, (5, 30, 30)).astype(np.float32)
    low, high = map_scale(maps, "gaussian")
    scaled = 0.1 * (maps - low) / (high - low)
    assert scaled.mean() == pytest.approx(0, abs=1e-4)
    assert scaled.std() == pytest.approx(1, abs=1e-4)
    low, high = map_scale(maps, "quantile")
    assert (maps <= low).mean() == pytest.approx(0.9, abs=1e-3)
    assert (maps <= high).mean() == pytest.approx(0.995, abs=1e-3)


@pytest.mark.parametrize("size", ["xs", "s"])
def test_the_graph_without_an_autoencoder_keeps_the_contract(size: ModelSize, tmp_path: Path) -> None:
    torch.manual_seed(7)
    image = Size(128, 160)
    model = EfficientAd(
        size, image, with_autoencoder=False, position_aware=False, with_density=False, with_whole=False
    ).eval()
    model.teacher_std.uniform_(0.02, 0.2)
    off = {"autoencoder": False, "position_aware": False, "density": False, "whole": False}
    run = Run(size, image, None, 1, 1, 0, "", "", None, "0.1.0", **off)
    save_model(tmp_path / "model.pt", run, model)
    assert main(["export", str(tmp_path / "model.pt")]) == 0
    frames = np.random.default_rng(3).integers(0, 256, (2, *image, 3), dtype=np.uint8)
    quantiles = np.array([[0.2, 0.9]], dtype=np.float32)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    outputs = [output.name for output in session.get_outputs()]
    assert outputs == ["score", "anomaly_map", "map_local"]
    found = dict(zip(outputs, session.run(outputs, {FRAMES: frames, QUANTILES: quantiles}), strict=True))
    with torch.no_grad():
        judgement = model(torch.from_numpy(frames), torch.from_numpy(quantiles))
    for name, tensor in zip(outputs, (*judgement[:2], *judgement.maps), strict=True):
        np.testing.assert_allclose(found[name], tensor.numpy(), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(found["anomaly_map"], (found["map_local"] - 0.2) / 7, rtol=1e-3, atol=1e-4)
    metadata = {entry.key: entry.value for entry in onnx.load(tmp_path / "model.onnx").metadata_props}
    assert metadata["autoencoder"] == "no"


@pytest.mark.slow
def test_a_model_without_an_autoencoder_goes_all_the_way(data: Path, tmp_path: Path) -> None:
    """Trained, exported, built, calibrated and evaluated with its calibration."""
    for index in range(24):
        draw_part(tmp_path / "held-out" / f"{index}.png", 400 + index)
    trained(data, tmp_path / "part.pt", "--no-autoencoder")
    assert main(["export", str(tmp_path / "part.pt")]) == 0
    assert build_engine([str(tmp_path / "part.onnx"), "--fast", "--max-batch", "2"]) == 0
    assert calibrate([str(tmp_path / "part.engine"), "--good", str(tmp_path / "held-out")]) == 0
    calibration = str(tmp_path / "part.calibration.yaml")
    arguments = ["evaluate", str(tmp_path / "part.engine"), "--calibration", calibration]
    assert main([*arguments, "--data", str(data), "--out", str(tmp_path / "report")]) == 0
    found = json.loads((tmp_path / "report" / "evaluation.json").read_text())
    assert found["operating_point"]["calibrated"]


def test_models_of_older_versions_still_load(tmp_path: Path) -> None:
    """Without the ingredients among the settings, as they were written before there was a choice."""
    torch.manual_seed(0)
    before = {"position_aware": False, "density": False, "whole": False}
    run = Run("xs", Size(128, 128), None, 1, 1, 0, "", "", None, "0.1.0", **before)
    save_model(
        tmp_path / "model.pt",
        run,
        EfficientAd("xs", Size(128, 128), position_aware=False, with_density=False, with_whole=False),
    )
    content = torch.load(tmp_path / "model.pt", weights_only=True)
    for name in (
        "position_aware",
        "density",
        "learning_rate",
        "weight_decay",
        "p_hard",
        "autoencoder",
        "map_normalisation",
    ):
        del content["run"][name]
    torch.save(content, tmp_path / "model.pt")
    assert load_model(tmp_path / "model.pt")[0] == run
