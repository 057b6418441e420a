import hashlib
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from engine_build.cli import main as build_engine
from engine_runtime.engine import FRAMES, QUANTILES, Engine, map_output, outputs_of, uncalibrated
from engine_runtime.open import open_engine
from engine_runtime.tiled_engine import TiledEngine
from models.commands import efficientad as main
from models.efficientad.checkpoint import Run, save_model
from models.efficientad.export import export
from models.efficientad.model import EfficientAd
from models.efficientad.networks import ModelSize, map_size
from pictures.frames import Roi, Size, fit
from pictures.tile_merge import TileMerge
from pictures.tiles import TileGrid, Tiles

OUTPUTS = outputs_of({name: map_output(name) for name in ("local", "global", "density", "whole")})


def exported(folder: Path, size: ModelSize, image: Size) -> tuple[EfficientAd, Path]:
    torch.manual_seed(7)
    model = EfficientAd(size, image).eval()
    model.teacher_mean.normal_(0, 0.1)
    model.teacher_std.uniform_(0.02, 0.2)
    assert model.usual_local is not None and model.usual_global is not None and model.density is not None
    for tensor in (model.usual_local.mean, model.usual_global.mean, model.density.mean, model.density.basis):
        tensor.normal_(0, 0.3)
    for tensor in (model.usual_local.deviation, model.usual_global.deviation):
        tensor.uniform_(0.2, 0.6)
    assert model.picture is not None
    model.density.whitening.normal_(0, 0.2).triu_()
    model.picture.mean.normal_(0, 0.3)
    model.picture.whitening.normal_(0, 0.2)
    model.quantiles.copy_(torch.tensor([[0.5, 1.5], [0.1, 0.4], [0.2, 0.7], [0.1, 0.3]]))
    digest = hashlib.sha256(b"images").hexdigest()
    run = Run(size, image, Roi(1, 2, 300, 400), 10, 1, 0, digest, digest, None, "0.1.0")
    save_model(folder / "model.pt", run, model)
    assert main(["export", str(folder / "model.pt"), "-o", str(folder / "model.onnx")]) == 0
    return model, folder / "model.onnx"


@pytest.mark.parametrize(
    ("size", "image"),
    [
        ("xs", Size(256, 256)),
        ("xs", Size(131, 202)),
        ("xs", Size(320, 128)),
        ("s", Size(256, 256)),
        ("m", Size(128, 160)),
    ],
)
def test_graph_gives_what_torch_gives(tmp_path: Path, size: ModelSize, image: Size) -> None:
    model, path = exported(tmp_path, size, image)
    frames = np.random.default_rng(3).integers(0, 256, (2, *image, 3), dtype=np.uint8)
    frames[1] //= 3
    quantiles = np.array([[0.2, 0.9], [0.01, 0.3], [0.4, 0.5], [0.3, 0.9]], dtype=np.float32)
    with torch.no_grad():
        judgement = model(torch.from_numpy(frames), torch.from_numpy(quantiles))
    expected = dict(zip(OUTPUTS, (*judgement[:2], *judgement.maps), strict=True))
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    found = dict(
        zip(OUTPUTS, session.run(list(OUTPUTS), {FRAMES: frames, QUANTILES: quantiles}), strict=True)
    )
    for name, tensor in expected.items():
        assert found[name].dtype == np.float32
        assert found[name].shape == tensor.shape
        assert np.abs(found[name] - tensor.numpy()).max() <= 1e-4 * np.abs(tensor.numpy()).max(), name


def test_export_says_what_to_use_next_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    exported(tmp_path, "xs", Size(128, 128))
    assert capsys.readouterr().err.splitlines()[-1] == (
        "efficientad: next time use train-model --method efficientad, which writes the ONNX by itself"
    )


def test_rows_of_a_batch_do_not_touch_each_other(tmp_path: Path) -> None:
    _, path = exported(tmp_path, "xs", Size(128, 128))
    frames = np.random.default_rng(4).integers(0, 256, (3, 128, 128, 3), dtype=np.uint8)
    quantiles = np.array([[0, 1]] * 4, dtype=np.float32)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (batch,) = session.run(["score"], {FRAMES: frames, QUANTILES: quantiles})
    alone = [session.run(["score"], {FRAMES: frame[None], QUANTILES: quantiles})[0][0] for frame in frames]
    np.testing.assert_allclose(batch, alone, rtol=1e-5)


def test_graph_keeps_the_contract(tmp_path: Path) -> None:
    model, path = exported(tmp_path, "xs", Size(128, 160))
    proto = onnx.load(path)
    assert next(node for node in proto.graph.node if FRAMES in node.input).op_type == "Cast"
    assert proto.opset_import[0].version <= 20

    def described(value: onnx.ValueInfoProto) -> tuple[int, list[str | int]]:
        tensor = value.type.tensor_type
        return tensor.elem_type, [axis.dim_param or axis.dim_value for axis in tensor.shape.dim]

    rows, columns = map_size(Size(128, 160))
    number = onnx.TensorProto.FLOAT
    assert {value.name: described(value) for value in proto.graph.input} == {
        "frames": (onnx.TensorProto.UINT8, ["N", 128, 160, 3]),
        "quantiles": (number, [4, 2]),
    }
    assert {value.name: described(value) for value in proto.graph.output} == {
        "score": (number, ["N"]),
        **{name: (number, ["N", rows, columns]) for name in OUTPUTS if name != "score"},
    }
    metadata = {entry.key: entry.value for entry in proto.metadata_props}
    assert (metadata["contract"], metadata["maps"]) == ("2", "local,global,density,whole")
    assert metadata["image_size"] == "128x160"
    assert metadata["channel_order"] == "BGR"
    assert metadata["model_size"] == "xs"
    assert metadata["training_digest"] == hashlib.sha256(b"images").hexdigest()
    assert metadata["tool_version"] == "0.1.0"
    assert metadata["roi"] == "1,2,300,400"
    quantiles = [float(number) for number in metadata["training_quantiles"].split(",")]
    assert quantiles == pytest.approx(model.quantiles.flatten().tolist())


TILE, REGION = Size(128, 128), Size(176, 248)


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[Size, Engine]]:
    """The same networks for two sizes of input."""
    folder = tmp_path_factory.mktemp("sizes")
    torch.manual_seed(3)
    alone = {"with_autoencoder": False, "position_aware": False, "with_density": False, "with_whole": False}
    pretrained = EfficientAd("xs", TILE, **alone).state_dict()
    opened = {}
    for size in (TILE, REGION):
        model = EfficientAd("xs", size, **alone).eval()
        model.load_state_dict(pretrained)
        run = Run("xs", size, None, 1, 1, 0, "", "", None, "0.1.0", autoencoder=False, density=False)
        export(folder / f"{size}.onnx", run, model)
        arguments = [str(folder / f"{size}.onnx"), "--runtime", "onnxruntime", "--fast", "--max-batch", "2"]
        assert build_engine(arguments) == 0
        opened[size] = open_engine(folder / f"{size}.engine")
    yield opened
    for engine in opened.values():
        engine.close()


@pytest.mark.parametrize(
    ("tiles", "most"),
    [
        # The step from tile to tile is a whole number of cells of 4 pixels: nothing is interpolated.
        (Tiles(128, 48), 1e-4),
        (Tiles(128, 32), 1e-4),
        # It is not: values are interpolated between cells that share most of what they see.
        (Tiles(128, 38), 0.1),
    ],
)
def test_tiles_give_the_map_of_the_whole_picture(
    engines: dict[Size, Engine], tiles: Tiles, most: float
) -> None:
    """A PDN has no padding, so every cell sees the same pixels in a tile and in the whole."""
    picture = np.random.default_rng(5).integers(0, 256, (22, 31, 3), dtype=np.uint8)
    picture = fit(cv2.GaussianBlur(picture, (3, 3), 0).astype(np.uint8), REGION)

    local, quantiles = map_output("local"), uncalibrated(["local"])
    [whole] = engines[REGION].infer([picture], quantiles, (local,))[local]
    merge = TileMerge(TileGrid(tiles, REGION), engines[TILE].manifest.geometry)
    tiled = TiledEngine(engines[TILE], merge)
    [merged] = tiled.infer([merge.grid.cut(picture, TILE)], quantiles, (local,))[local]
    geometry = engines[REGION].manifest.geometry
    assert merge.least_overlap == 32
    np.testing.assert_allclose(merge.geometry.margin, geometry.margin, atol=1)
    np.testing.assert_allclose(merge.geometry.stride, geometry.stride, rtol=0.05)
    ours, theirs = merge.geometry.spread(merged), geometry.spread(whole)
    assert np.abs(ours - theirs).max() <= most * (theirs.max() - theirs.min())
    if most < 0.1:
        assert merge.geometry == geometry
        np.testing.assert_allclose(merged, whole, rtol=1e-4, atol=1e-6)


def test_export_writes_beside_the_model_by_default(tmp_path: Path) -> None:
    exported(tmp_path, "xs", Size(128, 128))
    assert main(["export", str(tmp_path / "model.pt")]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.onnx", "model.pt"]


@pytest.mark.parametrize("content", [None, b"", b"not a model", "other dict", "other state", "truncated"])
def test_what_is_no_model_is_refused(
    tmp_path: Path, content: bytes | str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "given.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content == "other dict":
        torch.save({"0.weight": torch.zeros(3)}, path)
    elif content:
        exported(tmp_path, "xs", Size(128, 128))
        whole = torch.load(tmp_path / "model.pt", weights_only=True)
        if content == "other state":
            whole["run"]["size"] = "s"
            torch.save(whole, path)
        else:
            path.write_bytes((tmp_path / "model.pt").read_bytes()[:5000])
    capsys.readouterr()
    assert main(["export", str(path), "-o", str(tmp_path / "new.onnx")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert str(path) in error
    assert not (tmp_path / "new.onnx").exists()
