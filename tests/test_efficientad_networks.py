from pathlib import Path

import pytest
import torch
from torch import nn

from models.efficientad.model import EfficientAd
from models.efficientad.networks import SIZES, TEACHER_CHANNELS, ModelSize, autoencoder, map_size, pdn
from models.efficientad.teacher import load_teacher
from pictures.frames import Size

SQUARE = Size(256, 256)


def parameters(network: nn.Module) -> int:
    return sum(tensor.numel() for tensor in network.parameters())


def multiplications(network: nn.Module, image: Size) -> int:
    """Count the multiply-adds of all convolutions in one forward pass."""
    total = 0

    def count(layer: nn.Conv2d, _: object, output: torch.Tensor) -> None:
        nonlocal total
        total += output.numel() * layer.weight[0].numel()

    hooks = [
        layer.register_forward_hook(count) for layer in network.modules() if isinstance(layer, nn.Conv2d)
    ]
    with torch.no_grad():
        network(torch.zeros(1, 3, *image))
    for hook in hooks:
        hook.remove()
    return total


def test_small_teacher_is_the_published_one() -> None:
    state = pdn("s", 384).state_dict()
    assert {name: tuple(tensor.shape) for name, tensor in state.items()} == {
        "0.weight": (128, 3, 4, 4),
        "0.bias": (128,),
        "3.weight": (256, 128, 4, 4),
        "3.bias": (256,),
        "6.weight": (256, 256, 3, 3),
        "6.bias": (256,),
        "8.weight": (384, 256, 4, 4),
        "8.bias": (384,),
    }
    # The published file has 10,779,715 bytes: float32 weights and some 3 kB of names.
    assert 0 < 10_779_715 - 4 * parameters(pdn("s", 384)) < 4096


def test_medium_teacher_is_the_published_one() -> None:
    state = pdn("m", 384).state_dict()
    assert {name: tuple(tensor.shape) for name, tensor in state.items() if "weight" in name} == {
        "0.weight": (256, 3, 4, 4),
        "3.weight": (512, 256, 4, 4),
        "6.weight": (512, 512, 1, 1),
        "8.weight": (512, 512, 3, 3),
        "10.weight": (384, 512, 4, 4),
        "12.weight": (384, 384, 1, 1),
    }


@pytest.mark.parametrize(("size", "places"), [("s", (0, 3, 6, 8)), ("m", (0, 3, 6, 8, 10, 12))])
def test_anomalibs_teachers_are_the_same_under_other_names(
    size: ModelSize, places: tuple[int, ...], tmp_path: Path
) -> None:
    """Its torch_model.py names the convolutions conv1, conv2 … and computes what the published ones do."""
    state = pdn(size, 384).state_dict()
    theirs = {
        f"conv{number}.{kind}": state[f"{place}.{kind}"]
        for number, place in enumerate(places, start=1)
        for kind in ("weight", "bias")
    }
    torch.save(theirs, tmp_path / "pretrained_teacher.pth")
    loaded = load_teacher(size, tmp_path / "pretrained_teacher.pth")
    assert loaded.keys() == state.keys()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in state.items())


def test_autoencoder_is_the_papers_at_256() -> None:
    layers = autoencoder("s", SQUARE).eval()
    convolutions = [layer for layer in layers if isinstance(layer, nn.Conv2d)]
    found = [(*layer.weight.shape, layer.stride[0], layer.padding[0]) for layer in convolutions]
    encoder = [(32, 3, 4, 4, 2, 1), (32, 32, 4, 4, 2, 1), (64, 32, 4, 4, 2, 1)]
    encoder += [(64, 64, 4, 4, 2, 1)] * 2 + [(64, 64, 8, 8, 1, 0)]
    decoder = [(64, 64, 4, 4, 1, 2)] * 6 + [(64, 64, 3, 3, 1, 1), (384, 64, 3, 3, 1, 1)]
    assert found == encoder + decoder
    targets = [layer.size for layer in layers if isinstance(layer, nn.Upsample)]
    assert targets == [(side, side) for side in (3, 8, 15, 32, 63, 127, 56)]
    assert sum(isinstance(layer, nn.Dropout) for layer in layers) == 6


@pytest.mark.parametrize("size", SIZES)
def test_receptive_field_is_33_and_stride_4(size: ModelSize) -> None:
    network = pdn(size, TEACHER_CHANNELS[size])
    image = torch.rand(1, 3, 64, 64, requires_grad=True)
    features = network(image)
    assert features.shape[-2:] == map_size(Size(64, 64)) == (8, 8)
    bounds = []
    for row in (2, 3):
        (gradient,) = torch.autograd.grad(features[0, :, row, 3].sum(), image, retain_graph=True)
        rows = gradient.abs().sum((0, 1, 3)).nonzero().flatten()
        bounds.append((int(rows.min()), int(rows.max())))
    assert bounds[0][1] - bounds[0][0] + 1 == 33
    assert bounds[1][0] - bounds[0][0] == 4


@pytest.mark.parametrize("size", SIZES)
def test_padding_gives_the_backbones_grid(size: ModelSize) -> None:
    with torch.no_grad():
        assert pdn(size, 8, padding=True)(torch.zeros(1, 3, 128, 128)).shape == (1, 8, 32, 32)


@pytest.mark.parametrize("image", [SQUARE, Size(128, 128), Size(130, 219), Size(320, 192)])
def test_maps_of_all_networks_agree(image: Size) -> None:
    model = EfficientAd("xs", image).eval()
    frames = torch.randint(0, 256, (2, *image, 3), dtype=torch.uint8)
    with torch.no_grad():
        judgement = model(frames, model.quantiles)
    assert {values.shape for values in judgement.maps} == {(2, *map_size(image))}
    assert model.map_names == ("local", "global", "density", "whole")
    # untouched quantiles leave the maps as they are
    mean = sum(judgement.maps) / 4
    torch.testing.assert_close(judgement.anomaly_map, mean)
    torch.testing.assert_close(judgement.score, mean.amax((1, 2)))


def test_map_of_256_has_56_cells() -> None:
    assert map_size(SQUARE) == (56, 56)


def test_xs_needs_a_tenth_of_the_operations_of_s() -> None:
    def whole(size: ModelSize) -> int:
        model = EfficientAd(size, SQUARE).eval()
        return sum(
            multiplications(part, SQUARE) for part in (model.teacher, model.student, model.autoencoder)
        )

    assert whole("s") >= 10 * whole("xs")
