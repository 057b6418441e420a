import platform
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
import torch

from models import training_images
from models.commands import efficientad as main
from models.datasets.open import open_data_set
from models.efficientad import augmentation, losses
from models.efficientad.checkpoint import load_model, progress_file
from models.efficientad.model import EfficientAd
from models.efficientad.networks import ModelSize, pdn
from models.efficientad.teacher import save_teacher
from models.efficientad.train import draw, total_loss
from pictures.digest import set_digest
from pictures.frames import Roi, Size, fit
from pictures.image_file import read_image
from pictures.image_folder import images_in
from pictures.tiles import TileGrid, Tiles

EXECUTABLE = Path(sys.executable).parent / "efficientad"


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("teacher") / "xs.safetensors"
    save_teacher(path, pdn("xs", 96), {"size": "xs"})
    return path


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight pictures of a ring, in an MVTec AD layout whose test images cannot even be read."""
    folder = tmp_path_factory.mktemp("product")
    (folder / "train" / "good").mkdir(parents=True)
    (folder / "test" / "broken").mkdir(parents=True)
    (folder / "test" / "broken" / "000.png").write_bytes(b"no image")
    random = np.random.default_rng(0)
    for index in range(8):
        picture = random.integers(90, 110, (150, 170, 3), dtype=np.uint8)
        cv2.circle(picture, (85 + index % 3, 75), 50, (30, 180, 90), 12)
        cv2.imwrite(str(folder / "train" / "good" / f"{index:03}.png"), picture)
    return folder


def command(good: Path, teacher: Path, out: Path, *more: str) -> list[str]:
    given = [
        "train",
        "--data",
        str(good),
        "--teacher",
        str(teacher),
        "--out",
        str(out),
        "--image-size",
        "128",
    ]
    return [*given, *more]


def state(path: Path) -> dict[str, torch.Tensor]:
    return load_model(path)[1].state_dict()


def test_training_lowers_the_loss_on_validation_images(
    good: Path, teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    maps = {}
    for steps in (1, 120):
        assert main(command(good, teacher, tmp_path / "model.pt", "--steps", str(steps))) == 0
        report = capsys.readouterr().out
        assert "next: efficientad export" in report
        maps[steps] = [
            float(part.split()[1]) for part in report.split("held-out images: ")[1].split(", ")[:2]
        ]
    assert maps[120][0] < 0.9 * maps[1][0]
    run, model = load_model(tmp_path / "model.pt")
    assert (run.size, run.image_size, run.steps) == ("xs", Size(128, 128), 120)
    assert (model.quantiles[:, 1] > model.quantiles[:, 0]).all()
    assert [path.name for path in tmp_path.iterdir()] == ["model.pt"]


def test_the_same_seed_gives_the_same_model_and_another_seed_another(
    good: Path, teacher: Path, tmp_path: Path
) -> None:
    for name, seed in (("a.pt", "3"), ("b.pt", "3"), ("c.pt", "4")):
        assert main(command(good, teacher, tmp_path / name, "--steps", "3", "--seed", seed)) == 0
    a, b, c = (state(tmp_path / name) for name in ("a.pt", "b.pt", "c.pt"))
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert not torch.equal(a["student.0.weight"], c["student.0.weight"])


def test_a_model_of_an_older_version_is_refused_in_one_line(
    good: Path, teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "old.pt"
    assert main(command(good, teacher, path, "--steps", "1")) == 0
    content = torch.load(path, weights_only=True)
    content["state"]["student.0.weight"] = torch.zeros(32, 3, 4, 4)
    torch.save(content, path)
    capsys.readouterr()
    assert main(["export", str(path), "-o", str(tmp_path / "old.onnx")]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert "whose networks of size xs had other shapes: student.0.weight is 32×3×4×4, here 16×3×4×4" in line
    assert "train it again" in line


def test_a_killed_run_resumes_to_the_same_model(
    good: Path, teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, killed = tmp_path / "whole.pt", tmp_path / "killed.pt"
    settings = ["--steps", "30", "--batch", "2", "--checkpoint-every", "3"]
    process = subprocess.Popen(
        [EXECUTABLE, *command(good, teacher, killed, *settings)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={"OMP_NUM_THREADS": "1"},
    )
    assert process.stderr is not None
    for _ in process.stderr:  # a line per turn of the progress bar
        if progress_file(killed).exists():
            break
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not killed.exists()

    # The fixture gives this process one thread as well, so both compute in the same order.
    assert main(command(good, teacher, killed, *settings)) == 0
    assert "resumed at step" in capsys.readouterr().out
    assert not progress_file(killed).exists()
    assert main(command(good, teacher, whole, *settings)) == 0
    assert "resumed" not in capsys.readouterr().out
    expected, found = state(whole), state(killed)
    # Of this one LAPACK's threads decide the last bits, and the sign of each column.
    one, other = (values.pop("picture.whitening") for values in (expected, found))
    torch.testing.assert_close(one @ one.T, other @ other.T, rtol=1e-2, atol=1e-3)
    assert [name for name in expected if not torch.equal(expected[name], found[name])] == []


def test_progress_of_another_run_is_refused(
    good: Path,
    teacher: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    out = tmp_path / "model.pt"
    with monkeypatch.context() as patch:
        patch.setattr("models.efficientad.train.validate", interrupted)
        assert main(command(good, teacher, out, "--steps", "2", "--checkpoint-every", "1")) == 130
    assert capsys.readouterr().err.endswith("the same command resumes from the last checkpoint\n")
    before = progress_file(out).read_bytes()
    assert main(command(good, teacher, out, "--steps", "5")) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert str(progress_file(out)) in last
    assert "steps 2, this one has 5" in last
    assert progress_file(out).read_bytes() == before
    assert not out.exists()


def test_non_square_input_region_and_penalty(good: Path, teacher: Path, tmp_path: Path) -> None:
    out = tmp_path / "model.pt"
    natural = str(good / "train")
    arguments = command(
        good, teacher, out, "--steps", "2", "--roi", "10,5,150,140", "--penalty-images", natural
    )
    arguments[arguments.index("128")] = "128x200"
    assert main(arguments) == 0
    run, _ = load_model(out)
    assert run.image_size == Size(128, 200)
    assert run.roi == (10, 5, 150, 140)
    assert run.penalty_digest is not None


def test_validation_comes_from_training_images_alone(good: Path) -> None:
    data_set = open_data_set(good)
    split = training_images.load(data_set, Size(128, 128), None, seed=0)
    again = training_images.load(data_set, Size(128, 128), None, seed=0)
    other = training_images.load(data_set, Size(128, 128), None, seed=5)
    assert (len(split.training), len(split.validation)) == (7, 1)
    assert torch.equal(split.validation, again.validation)
    assert not torch.equal(split.validation, other.validation)
    files = training_images.stack(sorted((good / "train" / "good").iterdir()), Size(128, 128), None).images
    together, alone = torch.cat([split.training, split.validation]), torch.cat(files)
    assert sorted(map(repr, together.sum((1, 2, 3)).tolist())) == sorted(
        map(repr, alone.sum((1, 2, 3)).tolist())
    )


def test_tiles_are_the_training_images_and_stay_with_their_picture(
    good: Path, teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiles, region = Tiles(80, 20), Size(140, 150)
    data_set, roi = open_data_set(good), Roi(10, 5, 150, 140)
    split = training_images.load(data_set, Size(128, 128), roi, 0, tiles=tiles)
    whole = training_images.load(data_set, Size(128, 128), roi, 0)
    assert (len(split.training), len(split.validation)) == (7 * 6, 6)
    assert split.digest == whole.digest  # of the files
    # The picture that is held out without tiles is held out with them, and cut as the daemon will cut it.
    held_out = []
    for file in sorted((good / "train" / "good").iterdir()):
        picture = read_image(file)
        if torch.equal(training_images.planes(fit(picture, Size(128, 128), roi)), whole.validation[0]):
            held_out = [
                training_images.planes(tile)
                for tile in TileGrid(tiles, region).cut(picture, Size(128, 128), roi)
            ]
    assert torch.equal(torch.stack(held_out), split.validation)

    out = tmp_path / "model.pt"
    options = ["--steps", "2", "--roi", "10,5,150,140", "--tiles", "80,20"]
    assert main(command(good, teacher, out, *options)) == 0
    said = capsys.readouterr().out
    assert "2 steps on 42 tiles" in said
    assert "validation on 6 tiles of 1 held-out images" in said
    assert load_model(out)[0].tiles == tiles
    assert main(["export", str(out)]) == 0
    metadata = {entry.key: entry.value for entry in onnx.load(tmp_path / "model.onnx").metadata_props}
    assert (metadata["roi"], metadata["tiles"]) == ("10,5,150,140", "80,20")


def test_pictures_of_several_sizes_are_cut_into_as_many_tiles_as_each_holds(
    teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "good").mkdir()
    for index, (height, width) in enumerate([(64, 64), (64, 150), (130, 64), (64, 64)]):
        cv2.imwrite(str(tmp_path / "good" / f"{index}.png"), np.full((height, width, 3), 9 * index, np.uint8))
    split = training_images.load(
        open_data_set(tmp_path / "good"), Size(128, 128), None, 0, tiles=Tiles(64, 0)
    )
    assert len(split.training) + len(split.validation) == 1 + 3 + 3 + 1
    cv2.imwrite(str(tmp_path / "good" / "9.png"), np.zeros((63, 200, 3), np.uint8))
    arguments = command(tmp_path / "good", teacher, tmp_path / "model.pt", "--steps", "1", "--tiles", "64,0")
    line = refused(arguments, capsys)
    assert "9.png: a roi of 200×63 pixels is smaller than a tile of 64" in line
    assert not (tmp_path / "model.pt").exists()


def test_digest_follows_names_and_contents(tmp_path: Path) -> None:
    for name, shade in (("a.png", 10), ("b.png", 20)):
        cv2.imwrite(str(tmp_path / name), np.full((8, 8, 3), shade, np.uint8))
    digests = [set_digest(tmp_path, images_in(tmp_path))]
    (tmp_path / "b.png").rename(tmp_path / "c.png")
    digests.append(set_digest(tmp_path, images_in(tmp_path)))
    cv2.imwrite(str(tmp_path / "c.png"), np.full((8, 8, 3), 21, np.uint8))
    digests.append(set_digest(tmp_path, images_in(tmp_path)))
    assert len(set(digests)) == 3


def test_published_state_dicts_load(good: Path, tmp_path: Path) -> None:
    torch.save(pdn("xs", 96).state_dict(), tmp_path / "teacher.pth")
    assert main(command(good, tmp_path / "teacher.pth", tmp_path / "model.pt", "--steps", "1")) == 0
    saved = torch.load(tmp_path / "teacher.pth", weights_only=True)
    assert torch.equal(state(tmp_path / "model.pt")["teacher.8.weight"], saved["8.weight"])


def test_every_image_is_seen_once_per_epoch(teacher: Path) -> None:
    from models.efficientad.checkpoint import Run
    from models.efficientad.train import sampled

    run = Run("xs", Size(128, 128), None, 100, 3, 0, "", "", None, "")
    seen = np.concatenate([sampled(7, run, step) for step in range(14)]).reshape(6, 7)
    assert (np.sort(seen) == np.arange(7)).all()
    assert len({tuple(epoch) for epoch in seen.tolist()}) > 1


def test_hard_feature_loss_keeps_the_largest_thousandth() -> None:
    torch.manual_seed(0)
    teacher, student = torch.randn(2, 1, 8, 40, 40)
    differences = (teacher - student).square().flatten()
    hard = differences[differences >= torch.quantile(differences, 0.999)]
    torch.testing.assert_close(losses.hard_feature_loss(teacher, student), hard.mean())


def test_colour_changes_do_what_they_say() -> None:
    image = torch.rand(3, 16, 16) * 100 + 50
    torch.testing.assert_close(augmentation.brightness(image, 0.8), image * 0.8)
    assert float(augmentation.contrast(image, 0.8).std()) < float(image.std())
    flat = augmentation.grey(image).expand(3, -1, -1)
    torch.testing.assert_close(augmentation.saturation(image, 0.0), flat)
    for change in (augmentation.brightness, augmentation.contrast, augmentation.saturation):
        torch.testing.assert_close(change(image, 1.0), image)
        assert float(change(image * 1.7, 1.2).max()) <= 255


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    assert main(arguments) == 2
    lines = [
        line for line in capsys.readouterr().err.replace("\r", "\n").splitlines() if "efficientad: " in line
    ]
    assert len(lines) == 1
    return lines[0]


def test_missing_and_empty_data(teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "model.pt"
    missing = tmp_path / "missing"
    assert str(missing) in refused(command(missing, teacher, out, "--steps", "1"), capsys)
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "holds no image" in refused(command(empty, teacher, out, "--steps", "1"), capsys)
    (empty / "test").mkdir()
    assert "no train/good" in refused(command(empty, teacher, out, "--steps", "1"), capsys)
    single = tmp_path / "single"
    single.mkdir()
    cv2.imwrite(str(single / "a.png"), np.zeros((9, 9, 3), np.uint8))
    assert "at least 2" in refused(command(single, teacher, out, "--steps", "1"), capsys)
    assert not out.exists()


def test_corrupt_image_and_wrong_region(
    good: Path, teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = tmp_path / "images"
    images.mkdir()
    (images / "a.png").write_bytes((good / "train/good/000.png").read_bytes())
    (images / "b.png").write_bytes((good / "train/good/001.png").read_bytes()[:20])
    out = tmp_path / "model.pt"
    assert str(images / "b.png") in refused(command(images, teacher, out, "--steps", "1"), capsys)
    line = refused(command(good, teacher, out, "--steps", "1", "--roi", "100,0,100,100"), capsys)
    assert "000.png" in line
    assert "does not lie inside the picture of 170×150" in line
    line = refused(command(good, teacher, tmp_path / "nowhere" / "model.pt", "--steps", "1"), capsys)
    assert "cannot be written" in line


def test_a_size_without_a_packaged_teacher_asks_for_one(
    good: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["train", "--data", str(good), "--size", "m", "--steps", "1", "--out", str(tmp_path / "m.pt")]
    assert "--teacher" in refused(arguments, capsys)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("content", ["garbage", "another size", "surplus", "missing"])
def test_wrong_teachers(
    content: str, suffix: str, good: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / f"teacher{suffix}"
    if content == "garbage":
        path.write_bytes(b"garbage")
    elif content != "missing":
        network = pdn("s" if content == "another size" else "xs", 96)
        if content == "surplus":
            network.append(torch.nn.Conv2d(96, 1, 1))
        if suffix == ".pth":
            torch.save(network.state_dict(), path)
        else:
            save_teacher(path, network, {})
    line = refused(command(good, path, tmp_path / "model.pt", "--steps", "1"), capsys)
    assert str(path) in line
    if content == "another size":
        assert "0.weight is 128×3×4×4, expected 16×3×4×4" in line


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told to keep memory")
def test_memory_that_a_step_frees_is_kept_for_the_next() -> None:
    script = """
from pathlib import Path
import torch
from models.allocator import keep_freed_memory
keep_freed_memory()
large = torch.ones(50_000_000)
del large
print(Path("/proc/self/status").read_text().split("VmRSS:")[1].split()[0])
"""
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert int(done.stdout) > 200_000  # kB, what was freed included


@pytest.mark.parametrize(
    ("size", "autoencoder", "penalty"),
    [
        *(("xs", autoencoder, penalty) for autoencoder in (True, False) for penalty in (True, False)),
        *(("s", True, True), ("m", True, True)),  # other networks, the same losses
    ],
)
def test_the_loss_of_a_step_is_the_papers(size: ModelSize, autoencoder: bool, penalty: bool) -> None:
    """Value and gradients of algorithm 1, written out with the whole student for each image."""
    torch.manual_seed(3)
    model = EfficientAd(size, Size(128, 128), autoencoder).eval()  # no dropout
    model.teacher_mean.normal_()
    model.teacher_std.uniform_(0.5, 2)
    pictures = torch.randint(0, 256, (2, 3, 128, 128), dtype=torch.uint8)
    natural = pictures.flip(0, 3) if penalty else None
    seen = draw(pictures, natural, np.random.default_rng(0))
    assert [images.shape[-1] for images in seen] == [128, 128, 64][: len(seen)]
    learned = [parameter for parameter in model.parameters() if parameter.requires_grad]

    def student(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        whole = model.student(images)
        return whole[:, : model.channels], whole[:, model.channels :]

    def target(images: torch.Tensor) -> torch.Tensor:
        mean, std = (value[:, None, None] for value in (model.teacher_mean, model.teacher_std))
        return (model.teacher(images) - mean) / std

    differences = (target(seen[0]) - student(seen[0])[0]) ** 2
    expected = differences[differences >= torch.quantile(differences.double(), 0.9).float()].mean()
    if penalty:
        expected = expected + (student(seen[2])[0] ** 2).mean()
    if model.autoencoder is not None:
        made = model.autoencoder(seen[1])
        expected = expected + ((target(seen[1]) - made) ** 2).mean()
        expected = expected + ((made - student(seen[1])[1]) ** 2).mean()
    loss = total_loss(model, seen, None, 0.9)
    torch.testing.assert_close(loss, expected)
    for ours, literal in zip(
        torch.autograd.grad(loss, learned), torch.autograd.grad(expected, learned), strict=True
    ):
        torch.testing.assert_close(ours, literal, rtol=1e-3, atol=1e-4 * float(literal.abs().max()))


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--image-size", "64"),
        ("--image-size", "256x64"),
        ("--image-size", "big"),
        ("--image-size", "99999"),
        ("--image-size", "128x128x128"),
        ("--roi", "1,2,3"),
        ("--roi", "-1,0,50,50"),
        ("--roi", "0,0,0,50"),
        ("--tiles", "64"),
        ("--tiles", "8,0"),
        ("--tiles", "64,33"),
        ("--steps", "0"),
        ("--batch", "-2"),
        ("--seed", "x"),
        ("--size", "xl"),
    ],
)
def test_wrong_options(option: str, value: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        main(["train", "--data", "d", "--out", "o", f"{option}={value}"])
    assert raised.value.code == 2
    error = capsys.readouterr().err
    assert option in error.splitlines()[-1]
    assert "Traceback" not in error


def test_help_needs_no_torch() -> None:
    script = "import sys\nfrom models.commands import efficientad as main\n"
    script += "try: main(['train', '--help'])\nexcept SystemExit: pass\n"
    script += "assert not {'torch', 'cv2', 'onnx', 'openvino', 'onnxruntime'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)
