"""Patch description networks and autoencoders, layer by layer as in the paper (arXiv 2303.14535, appendix A).

Every network takes N×3×H×W float32: RGB after ``normalised``.
"""

from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn

from pictures.frames import Size

ModelSize = Literal["xs", "s", "m"]
SIZES: tuple[ModelSize, ...] = get_args(ModelSize)

TEACHER_CHANNELS: dict[ModelSize, int] = {"xs": 96, "s": 384, "m": 384}
"""Channels of a teacher's features; a student has twice as many."""

WIDTHS: dict[ModelSize, tuple[int, int]] = {"xs": (16, 64), "s": (128, 256), "m": (256, 512)}
"""Channels after the first convolution, and inside."""

AUTOENCODER_WIDTHS: dict[ModelSize, tuple[int, int]] = {"xs": (16, 32), "s": (32, 64), "m": (32, 64)}
"""Channels of the autoencoder's first two convolutions, and of the others."""

STRIDE = 4
"""Pixels from cell to cell of every PDN, which pools twice."""

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
"""Of ImageNet, RGB in [0, 1]."""


class AsInAnomalib(NamedTuple):
    """What anomalib's EfficientAD does otherwise than the paper's reference and ours."""

    padding: bool
    """Whether the convolutions pad, so that a map has a quarter of the image's sides."""
    border: int
    """Cells of zeros around a map before it is enlarged to the sides of the image."""


COARSE = 4
"""Steps of the decoder for a teacher of stride 8."""

ANOMALIB_ENCODER = 8
"""Sides of the last kernel of anomalib's encoder, whatever the size of the image."""


def normalised(images: Tensor) -> Tensor:
    """Turn N×3×H×W images, RGB from 0 to 255, into a network's input."""
    mean = torch.tensor(MEAN, device=images.device)[:, None, None]
    std = torch.tensor(STD, device=images.device)[:, None, None]
    return (images.float() / 255 - mean) / std


def pdn(size: ModelSize, channels: int, padding: bool = False) -> nn.Sequential:
    """Build a patch description network: receptive field 33×33, stride 4.

    S and M are the paper's, with the state-dict keys of the teachers published by nelson1425/EfficientAD.
    XS is S with a quarter of its width, and an eighth in the first convolution
    (docs/benchmarks/xs_front.md).

    Args:
        size: of the model.
        channels: of the output, ``TEACHER_CHANNELS[size]`` for a teacher and twice that for a student.
        padding: as in distillation, where an output of H/4×W/4 must lie on the backbone's grid. Without it,
            as in training and inference, an input of H×W gives ``map_size``.
    """
    pad = 1 if padding else 0
    first, width = WIDTHS[size]
    if size == "m":
        return nn.Sequential(
            nn.Conv2d(3, first, 4, padding=3 * pad),
            nn.ReLU(),
            nn.AvgPool2d(2, 2, padding=pad),
            nn.Conv2d(first, width, 4, padding=3 * pad),
            nn.ReLU(),
            nn.AvgPool2d(2, 2, padding=pad),
            nn.Conv2d(width, width, 1),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=pad),
            nn.ReLU(),
            nn.Conv2d(width, channels, 4),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 1),
        )
    return nn.Sequential(
        nn.Conv2d(3, first, 4, padding=3 * pad),
        nn.ReLU(),
        nn.AvgPool2d(2, 2, padding=pad),
        nn.Conv2d(first, width, 4, padding=3 * pad),
        nn.ReLU(),
        nn.AvgPool2d(2, 2, padding=pad),
        nn.Conv2d(width, width, 3, padding=pad),
        nn.ReLU(),
        nn.Conv2d(width, channels, 4),
    )


def strided_pdn(size: ModelSize, channels: int) -> nn.Sequential:
    """Build a student for a backbone's features: stride 8, receptive field 47×47.

    It strides instead of pooling and pads, as backbones do, so that its cells are theirs for any image.

    Args:
        size: of the model.
        channels: of the output.
    """
    first, width = WIDTHS[size]
    wide = width * 3 // 2
    layers: list[nn.Module] = []
    inputs = 3
    for outputs, stride in ((first, 2), (width // 2, 2), (width, 2), (wide, 1), (wide, 1)):
        layers += [nn.Conv2d(inputs, outputs, 3, stride, padding=1), nn.ReLU()]
        inputs = outputs
    return nn.Sequential(*layers, nn.Conv2d(inputs, channels, 1))


def map_size(image: Size, padding: bool = False) -> Size:
    """Give the size of a PDN's output, in cells, from that of its input, in pixels."""
    if padding:
        height, width = (((side + 5) // 2 + 5) // 2 - 3 for side in image)
    else:
        height, width = (((side - 3) // 2 - 3) // 2 - 5 for side in image)
    return Size(height, width)


class FeatureMap(NamedTuple):
    """What a backbone gives of an image."""

    channels: int
    cells: Size


def autoencoder(
    size: ModelSize,
    image: Size,
    anomalib: AsInAnomalib | None = None,
    like: FeatureMap | None = None,
) -> nn.Sequential:
    """Build the autoencoder, whose output has the channels and the map size of the teacher's.

    S and M have the paper's, exactly so at 256×256. Other sizes keep its two principles: the bottleneck is
    one cell that sees the whole image, so the last encoder kernel covers what is left after five halvings,
    and the decoder doubles the map from image / 64 on. XS has half the width and goes without the decoder's
    step to 127×127, detail that the next step to 56×56 would discard. Its last two convolutions are not
    padded: after short trainings the zeros at the border made the corners of good images their worst cells.

    Args:
        size: of the model.
        image: height and width of the input, at least ``models.option_types.SMALLEST_SIDE`` each.
        anomalib: for its weights, of size S or M; the image then has sides of 256 at least.
        like: of a backbone that is the teacher; a PDN's when None. Its map is coarser, and the decoder goes
            without the steps beyond it.
    """
    narrow, wide = AUTOENCODER_WIDTHS[size]
    channels = TEACHER_CHANNELS[size] if like is None else like.channels
    layers: list[nn.Module] = []
    for inputs, outputs in [(3, narrow), (narrow, narrow), (narrow, wide), (wide, wide), (wide, wide)]:
        layers += [nn.Conv2d(inputs, outputs, 4, stride=2, padding=1), nn.ReLU()]
    last = (ANOMALIB_ENCODER,) * 2 if anomalib else (image.height // 32, image.width // 32)
    layers.append(nn.Conv2d(wide, wide, last))
    shares = [(64, 1), (32, 0), (16, 1), (8, 0), (4, 1)] + ([] if size == "xs" else [(2, 1)])
    for divisor, less in shares if like is None else shares[:COARSE]:
        target = (image.height // divisor - less, image.width // divisor - less)
        layers += [nn.Upsample(target, mode="bilinear"), nn.Conv2d(wide, wide, 4, padding=2), nn.ReLU()]
        layers.append(nn.Dropout(0.2))
    padding = 0 if size == "xs" else 1
    cells = map_size(image, anomalib is not None and anomalib.padding) if like is None else like.cells
    rows, columns = (side + 4 * (1 - padding) for side in cells)
    layers += [nn.Upsample((rows, columns), mode="bilinear"), nn.Conv2d(wide, wide, 3, padding=padding)]
    return nn.Sequential(*layers, nn.ReLU(), nn.Conv2d(wide, channels, 3, padding=padding))
