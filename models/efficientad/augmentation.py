"""Colour changes for the autoencoder's images (paper §4.3): one of three, by a factor from 0.8 to 1.2."""

import numpy as np
from torch import Tensor


def jitter(image: Tensor, random: np.random.Generator) -> Tensor:
    """Change the brightness, the contrast or the saturation of an image.

    Args:
        image: 3×H×W float, RGB from 0 to 255.
        random: decides which and by how much.
    """
    change = (brightness, contrast, saturation)[random.integers(3)]
    return change(image, float(random.uniform(0.8, 1.2)))


def brightness(image: Tensor, factor: float) -> Tensor:
    """Scale a 3×H×W image from black."""
    return (image * factor).clamp(0, 255)


def contrast(image: Tensor, factor: float) -> Tensor:
    """Scale a 3×H×W image from its mean luminance."""
    mean = grey(image).mean()
    return (mean + (image - mean) * factor).clamp(0, 255)


def saturation(image: Tensor, factor: float) -> Tensor:
    """Scale a 3×H×W image from its own grey version."""
    luminance = grey(image)
    return (luminance + (image - luminance) * factor).clamp(0, 255)


def grey(image: Tensor) -> Tensor:
    """Give the luminance (ITU-R BT.601) of images …×3×H×W as …×1×H×W."""
    red, green, blue = image.unbind(-3)
    return (0.299 * red + 0.587 * green + 0.114 * blue).unsqueeze(-3)
