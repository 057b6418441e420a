"""The frames on which an engine is compared with its ONNX graph."""

from pathlib import Path

import cv2
import numpy as np

from pictures.frames import Frame, Size, fit
from pictures.image_file import read_image
from pictures.image_folder import images_in

GENERATED = 12
_MOST = 32


def parity_frames_from(folder: Path, size: Size) -> list[Frame]:
    """Read up to 32 images spread evenly over a folder, resized to ``size``.

    Raises:
        InputError: the folder holds no image, or one that cannot be read.
    """
    paths = images_in(folder)
    chosen = np.unique(np.linspace(0, len(paths) - 1, min(len(paths), _MOST)).round().astype(int))
    return [fit(read_image(paths[index]), size) for index in chosen]


def generated_parity_frames(size: Size) -> list[Frame]:
    """Draw 12 frames with the statistics of photographs, the same ones every time.

    Gradients, noise at several scales, shapes with edges; black and white too, where a network that
    overflows would show it.
    """
    random = np.random.default_rng(0)
    drawn = [_drawn(size, random) for _ in range(GENERATED - 2)]
    return [*drawn, np.zeros((*size, 3), np.uint8), np.full((*size, 3), 255, np.uint8)]


def _drawn(size: Size, random: np.random.Generator) -> Frame:
    height, width = size
    ramp_y, ramp_x = np.linspace(-1, 1, height)[:, None, None], np.linspace(-1, 1, width)[None, :, None]
    picture = random.uniform(60, 190, 3) + ramp_y * random.normal(0, 30, 3) + ramp_x * random.normal(0, 30, 3)
    for scale in (4, 16, 64):
        coarse = random.normal(0, 12, (height // scale + 2, width // scale + 2, 3))
        picture += cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    canvas = np.ascontiguousarray(picture.clip(0, 255).astype(np.uint8))
    for _ in range(int(random.integers(3, 8))):
        centre = (int(random.integers(width)), int(random.integers(height)))
        axes = tuple(int(random.integers(2, max(3, side // 4))) for side in (width, height))
        colour = tuple(float(value) for value in random.uniform(0, 255, 3))
        thickness = int(random.choice([-1, 1, 3]))
        cv2.ellipse(
            canvas, centre, axes, float(random.uniform(0, 180)), 0, 360, colour, thickness, cv2.LINE_AA
        )
    return (canvas + random.normal(0, 3, canvas.shape)).clip(0, 255).astype(np.uint8)
