"""``import-anomalib``, with checkpoints made under anomalib's names.

``benchmarks/anomalib_import.py`` holds the command against anomalib itself.
"""

import os
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from engine_build.cli import main as build_engine
from engine_build.graph import read_graph
from foundation.errors import InputError
from models.commands import import_anomalib
from models.torch_file import TorchFile, find
from pictures.frames import Size

pytestmark = pytest.mark.usefixtures("one_thread")

Layers = dict[int, tuple[int, int, int]]
"""Number of a convolution → channels that it gives and takes, sides of its kernel."""


def small_pdn(channels: int) -> Layers:
    return {1: (128, 3, 4), 2: (256, 128, 4), 3: (256, 256, 3), 4: (channels, 256, 4)}


def medium_pdn(channels: int) -> Layers:
    front = {1: (256, 3, 4), 2: (512, 256, 4), 3: (512, 512, 1), 4: (512, 512, 3)}
    return front | {5: (channels, 512, 4), 6: (channels, channels, 1)}


ENCODER = {1: (32, 3, 4), 2: (32, 32, 4), 3: (64, 32, 4), 4: (64, 64, 4), 5: (64, 64, 4), 6: (64, 64, 8)}
DECODER = dict.fromkeys(range(1, 7), (64, 64, 4)) | {7: (64, 64, 3), 8: (384, 64, 3)}


class ModelSize(StrEnum):  # anomalib's checkpoints hold one
    S = "small"


def state(pdn: Callable[[int], Layers], prefix: str = "model.") -> OrderedDict[str, Tensor]:
    """Make random weights under the names of anomalib 2.7."""
    torch.manual_seed(0)
    found: OrderedDict[str, Tensor] = OrderedDict()

    def network(name: str, layers: Layers) -> None:
        for number, (outputs, inputs, kernel) in layers.items():
            scale = (inputs * kernel * kernel) ** -0.5
            found[f"{prefix}{name}{number}.weight"] = torch.randn(outputs, inputs, kernel, kernel) * scale
            found[f"{prefix}{name}{number}.bias"] = torch.randn(outputs) * 0.1

    network("teacher.conv", pdn(384))
    network("student.conv", pdn(768))
    network("ae.encoder.enconv", ENCODER)
    network("ae.decoder.deconv", DECODER)
    found[f"{prefix}mean_std.mean"] = torch.randn(1, 384, 1, 1) * 0.1
    found[f"{prefix}mean_std.std"] = torch.rand(1, 384, 1, 1) * 0.2 + 0.1
    for name, value in (("qa_ae", 0.4), ("qa_st", 1.5), ("qb_ae", 0.9), ("qb_st", 2.5)):
        found[f"{prefix}quantiles.{name}"] = torch.tensor(value)
    return found


def anomaly_map(weights: dict[str, Tensor], images: Tensor, padding: bool, pad_maps: bool) -> Tensor:
    """Compute what the small model of anomalib 2.7 computes, from its layers one by one."""
    mean = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
    images = (images - mean) / torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    pad = int(padding)

    def conv(name: str, values: Tensor, **how: Any) -> Tensor:
        return functional.conv2d(
            values, weights[f"model.{name}.weight"], weights[f"model.{name}.bias"], **how
        )

    def pdn(name: str) -> Tensor:
        values = conv(f"{name}.conv1", images, padding=3 * pad).relu()
        values = functional.avg_pool2d(values, 2, 2, pad)
        values = conv(f"{name}.conv2", values, padding=3 * pad).relu()
        values = functional.avg_pool2d(values, 2, 2, pad)
        return conv(f"{name}.conv4", conv(f"{name}.conv3", values, padding=pad).relu())

    student = pdn("student")
    teacher = (pdn("teacher") - weights["model.mean_std.mean"]) / weights["model.mean_std.std"]
    values = images
    for number in range(1, 6):
        values = conv(f"ae.encoder.enconv{number}", values, stride=2, padding=1).relu()
    values = conv("ae.encoder.enconv6", values)
    height, width = images.shape[-2:]
    shares = ((64, 1), (32, 0), (16, 1), (8, 0), (4, 1), (2, 1))
    for number, (share, less) in enumerate(shares, start=1):
        sides = (height // share - less, width // share - less)
        values = functional.interpolate(values, sides, mode="bilinear")
        values = conv(f"ae.decoder.deconv{number}", values, padding=2).relu()
    sides = (-(-height // 4) - 8 * (1 - pad), -(-width // 4) - 8 * (1 - pad))
    values = functional.interpolate(values, sides, mode="bilinear")
    rebuilt = conv("ae.decoder.deconv8", conv("ae.decoder.deconv7", values, padding=1).relu(), padding=1)
    total = torch.zeros(())
    pairs = ((teacher, student[:, :384], "st"), (rebuilt, student[:, 384:], "ae"))
    for target, prediction, kind in pairs:
        plane = (target - prediction).square().mean(1, keepdim=True)
        plane = functional.pad(plane, (4,) * 4) if pad_maps else plane
        plane = functional.interpolate(plane, (height, width), mode="bilinear")
        low, high = weights[f"model.quantiles.qa_{kind}"], weights[f"model.quantiles.qb_{kind}"]
        total = total + 0.05 * (plane - low) / (high - low)
    return total[:, 0]


def frames(height: int = 256, width: int = 256) -> NDArray[np.uint8]:
    found = np.random.default_rng(1).integers(0, 256, (1, height, width, 3), dtype=np.uint8)
    found[0, : height // 2] = (np.add.outer(np.arange(height // 2), np.arange(width)) % 256)[..., None]
    return found


@pytest.fixture(scope="module")
def small() -> OrderedDict[str, Tensor]:
    return state(small_pdn)


@pytest.mark.parametrize(
    ("padding", "pad_maps", "sides"),
    [
        (False, True, (256, 256)),
        pytest.param(True, True, (256, 256), marks=pytest.mark.slow),
        pytest.param(False, False, (288, 320), marks=pytest.mark.slow),
    ],
)
def test_scores_are_anomalibs(
    tmp_path: Path, small: OrderedDict[str, Tensor], padding: bool, pad_maps: bool, sides: tuple[int, int]
) -> None:
    path = tmp_path / "model.ckpt"
    settings = {"padding": padding, "pad_maps": pad_maps, "model_size": ModelSize.S}
    torch.save({"epoch": 1, "state_dict": small, "hyper_parameters": settings}, path)
    assert import_anomalib([str(path), "--image-size", "{}x{}".format(*sides)]) == 0
    seen = frames(*sides)
    with torch.inference_mode():
        planes = torch.from_numpy(seen[..., ::-1].transpose(0, 3, 1, 2).copy()).float() / 255
        theirs = anomaly_map(small, planes, padding, pad_maps).numpy()
    model = tmp_path / "model.onnx"
    said = {entry.key: entry.value for entry in onnx.load(model).metadata_props}
    quantiles = np.array(said["training_quantiles"].split(","), dtype=np.float32).reshape(2, 2)
    np.testing.assert_allclose(quantiles, [[1.5, 2.5], [0.4, 0.9]], rtol=1e-6)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    score, found = session.run(["score", "anomaly_map"], {"frames": seen, "quantiles": quantiles})
    np.testing.assert_allclose(found, theirs, atol=1e-4)
    np.testing.assert_allclose(score, theirs.max((1, 2)), atol=1e-4)


@pytest.mark.slow
def test_the_medium_size(tmp_path: Path) -> None:
    path, model = tmp_path / "model.ckpt", tmp_path / "line3.onnx"
    torch.save({"state_dict": state(medium_pdn)}, path)
    assert import_anomalib([str(path), "--out", str(model)]) == 0
    graph = read_graph(model)
    assert list(graph.maps) == ["local", "global"]
    assert graph.metadata["model_size"] == "m"
    assert graph.input_size == Size(256, 256)


class Network(nn.Module):  # named as whatever: only the names of its parts are read
    def __init__(self, weights: dict[str, Tensor], prefix: str, padding: int) -> None:
        super().__init__()
        for name, weight in weights.items():
            if name.startswith(prefix) and name.endswith(".weight"):
                outputs, inputs, kernel, _ = weight.shape
                layer = nn.Conv2d(inputs, outputs, kernel, padding=padding)
                part = name.removeprefix(prefix).removesuffix(".weight")
                layer.load_state_dict({"weight": weight, "bias": weights[f"{prefix}{part}.bias"]})
                self.add_module(part, layer)


class Resize:
    def __init__(self, size: list[int]) -> None:
        self.size = size


class Lightning(nn.Module):
    """A whole pickled module, as ``Engine.export`` with ``ExportType.TORCH`` writes it."""

    def __init__(self, weights: dict[str, Tensor], padding: bool) -> None:
        super().__init__()
        self.transform = Resize([256, 288])
        self.model = nn.Module()
        self.model.pad_maps = False  # type: ignore[assignment]
        self.model.teacher = Network(weights, "model.teacher.", 3 * padding)
        self.model.student = Network(weights, "model.student.", 3 * padding)
        self.model.ae = nn.Module()
        self.model.ae.encoder = Network(weights, "model.ae.encoder.", 1)
        self.model.ae.decoder = Network(weights, "model.ae.decoder.", 2)
        for group in ("mean_std", "quantiles"):
            prefix = f"model.{group}."
            named = {
                name.removeprefix(prefix): nn.Parameter(tensor)
                for name, tensor in weights.items()
                if name.startswith(prefix)
            }
            self.model.add_module(group, nn.ParameterDict(named))


@pytest.mark.parametrize("padding", [False, True])
def test_a_whole_pickled_module_is_read(
    tmp_path: Path, small: OrderedDict[str, Tensor], padding: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "model.pt"
    torch.save({"model": Lightning(small, padding), "metadata": {"task": "segmentation"}}, path)
    assert import_anomalib([str(path)]) == 0
    word = "with" if padding else "without"
    assert capsys.readouterr().out.splitlines()[0] == (
        f"{tmp_path / 'model.onnx'}: EfficientAD of size s, 256×288 pixels, networks {word} padding,"
        " maps with a border of 0 cells"
    )


@pytest.mark.parametrize("prefix", ["", "model.model.", "_orig_mod.model."])
def test_other_prefixes_and_a_bare_state_dict(
    tmp_path: Path, small: OrderedDict[str, Tensor], prefix: str
) -> None:
    path = tmp_path / "model.pth"
    torch.save({prefix + name.removeprefix("model."): tensor for name, tensor in small.items()}, path)
    assert import_anomalib([str(path), "--padding", "yes"]) == 0


class Node:
    """A value as OmegaConf wraps it, with whose settings anomalib before version 1 wrote its checkpoints."""

    def __init__(self, value: object) -> None:
        name = "_content" if isinstance(value, (dict, list)) else "_val"
        self.__dict__[name] = value


def test_settings_of_versions_before_1(
    tmp_path: Path, small: OrderedDict[str, Tensor], capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "model.ckpt"
    model = Node({"padding": Node(True), "pad_maps": Node(False), "model_size": Node("small")})
    data = Node({"image_size": Node([Node(256), Node(320)])})
    settings = Node({"model": model, "dataset": data})
    old = {"image_threshold.value": torch.tensor(0.5), "normalization_metrics.min": torch.tensor(0.0)}
    torch.save({"state_dict": old | small, "hyper_parameters": settings}, path)
    assert import_anomalib([str(path)]) == 0
    said = "size s, 256×320 pixels, networks with padding, maps with a border of 0 cells"
    assert said in capsys.readouterr().out


class Treacherous:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.target),)


def test_nothing_in_a_file_is_executed(tmp_path: Path, small: OrderedDict[str, Tensor]) -> None:
    path, made = tmp_path / "model.ckpt", tmp_path / "made"
    torch.save({"callbacks": Treacherous(made), "state_dict": small}, path)
    assert import_anomalib([str(path)]) == 0
    assert not made.exists()
    assert (tmp_path / "model.onnx").exists()


def changed(small: OrderedDict[str, Tensor], **changes: Tensor | None) -> dict[str, Tensor]:
    wanted = {f"model.{name.replace('__', '.')}": tensor for name, tensor in changes.items()}
    kept = {name: wanted.get(name, tensor) for name, tensor in small.items()}
    return {name: tensor for name, tensor in kept.items() if tensor is not None}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"student__conv4__weight": None}, "expected a tensor student.conv4.weight, found none"),
        (
            {"student__conv4__weight": torch.zeros(384, 256, 4, 4)},
            "student.conv4.weight is 384×256×4×4, expected 768×256×4×4",
        ),
        (
            {"teacher__conv1__weight": torch.zeros(16, 3, 4, 4)},
            "its teacher has 16 channels after the first layer; expected 128 or 256, as anomalib's small and"
            " medium",
        ),
        (
            {"teacher__conv1__weight": None},
            "is not an EfficientAD of anomalib: expected its teacher and its student",
        ),
        (
            {"ae__encoder__enconv2__bias": torch.full((32,), torch.nan)},
            "autoencoder.enconv2.bias has values that are NaN or infinite",
        ),
        (
            {"mean_std__std": torch.zeros(1, 384, 1, 1)},
            "mean_std.std is 0 or less in a channel; expected a deviation above 0",
        ),
        ({"mean_std__mean": torch.ones(1, 96, 1, 1)}, "mean_std.mean is 1×96×1×1, expected 384"),
        ({"quantiles__qb_st": None}, "expected a tensor quantiles.qb_st, found none"),
        (
            {"quantiles__qb_st": torch.tensor(1.0)},
            "its quantiles are 1.5, 1, 0.4, 0.9; expected each q_a below its q_b",
        ),
    ],
)
def test_what_is_no_such_model_is_one_line(
    tmp_path: Path,
    small: OrderedDict[str, Tensor],
    capsys: pytest.CaptureFixture[str],
    changes: dict[str, Tensor | None],
    said: str,
) -> None:
    path = tmp_path / "model.ckpt"
    torch.save({"state_dict": changed(small, **changes)}, path)
    assert import_anomalib([str(path)]) == 2
    assert capsys.readouterr().err == f"import-anomalib: {path}: {said}\n"
    assert not (tmp_path / "model.onnx").exists()


def test_damaged_files_are_one_line(
    tmp_path: Path, small: OrderedDict[str, Tensor], capsys: pytest.CaptureFixture[str]
) -> None:
    sound = tmp_path / "sound.ckpt"
    torch.save({"state_dict": small}, sound)
    whole = sound.read_bytes()
    damaged = {"cut.ckpt": whole[: len(whole) // 2], "text.ckpt": b"no checkpoint", "empty.ckpt": b""}
    for name, content in damaged.items():
        (tmp_path / name).write_bytes(content)
        assert import_anomalib([str(tmp_path / name)]) == 2
        assert capsys.readouterr().err == (
            f"import-anomalib: {tmp_path / name}: is not a file that torch.save wrote, or a damaged one\n"
        )
    without = tmp_path / "without.ckpt"
    with zipfile.ZipFile(sound) as full, zipfile.ZipFile(without, "w") as less:
        for entry in full.infolist():
            if not entry.filename.endswith("/data/3"):
                less.writestr(entry, full.read(entry))
    assert import_anomalib([str(without)]) == 2
    assert "are missing or damaged" in capsys.readouterr().err
    assert import_anomalib([str(tmp_path / "none.ckpt")]) == 2
    assert capsys.readouterr().err == (
        f"import-anomalib: {tmp_path / 'none.ckpt'}: cannot be read: No such file or directory\n"
    )
    assert import_anomalib([str(sound), "--image-size", "128"]) == 2
    assert "anomalib's encoder needs at least 256 per side" in capsys.readouterr().err


def test_a_partwithout_end_ends(tmp_path: Path) -> None:
    endless: dict[str, Any] = {}
    endless["a"] = endless["b"] = endless
    path = tmp_path / "endless.pt"
    torch.save(endless, path)
    file = TorchFile(path)
    with pytest.raises(InputError, match="without end"):
        file.tensors(file.content)


def rewritten(path: Path, pickled: bytes) -> Path:
    """Give a file of torch.save another pickle."""
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, content in entries.items():
            archive.writestr(name, pickled if name.endswith("/data.pkl") else content)
    return path


def pickle_of(path: Path) -> bytes:
    with zipfile.ZipFile(path) as archive:
        [name] = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        return archive.read(name)


@given(
    changes=st.lists(st.tuples(st.integers(0, 2000), st.binary(min_size=0, max_size=6)), max_size=4),
    inserted=st.booleans(),
)
@settings(max_examples=100, deadline=None)
def test_whatever_a_pickle_says_it_is_read_or_refused(
    changes: list[tuple[int, bytes]], inserted: bool
) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model.pt"
        content = {"state_dict": {"a.weight": torch.ones(2, 3)}, "hyper_parameters": {"size": ModelSize.S}}
        torch.save({**content, "callback": Treacherous(Path(folder) / "made")}, path)
        pickled = bytearray(pickle_of(path))
        for place, part in changes:
            at = place % len(pickled)
            pickled[at : at if inserted else at + len(part)] = part
        rewritten(path, bytes(pickled))
        try:
            file = TorchFile(path)
            file.tensors(file.content)
            find(file.content, "size")
        except InputError as error:
            assert str(error).startswith(f"{path}: ")
        assert not (Path(folder) / "made").exists()


def test_a_pickle_that_would_fill_the_memory_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    torch.save({}, path)
    rewritten(path, b"\x80\x02}r\xff\xff\xff\x7f.")
    with pytest.raises(InputError, match="or a damaged one"):
        TorchFile(path)


def test_build_engine_says_what_to_do_with_a_checkpoint(
    tmp_path: Path, small: OrderedDict[str, Tensor], capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "model.ckpt"
    torch.save({"state_dict": small}, path)
    assert build_engine([str(path)]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.endswith(f"; take anomalib's checkpoint over first: import-anomalib {path}")
