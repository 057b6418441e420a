from typing import cast

import numpy as np
from numpy.typing import NDArray

Plane = NDArray[np.float32]
"""H×W float32, one value per pixel."""


def belt(width: int, height: int, scale: float, rng: np.random.Generator) -> Plane:
    """Draw a closed length of dark rubber belt: pebble, weave, wear along the travel, dust.

    Args:
        width: pixels along the travel until it repeats.
        height: pixels across.
        scale: pixels per pixel of a 512×512 frame, so that the texture grows with the part.
        rng: source of the texture.

    Returns:
        height×width float32, grey levels; its right edge continues on its left.
    """
    pebble = smooth_noise((height, width), (1.2 * scale, 1.2 * scale), rng)
    patches = smooth_noise((height, width), (24 * scale, 40 * scale), rng)
    wear = smooth_noise((height, width), (1.6 * scale, 260 * scale), rng)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    threads = 2 * np.pi * round(width / (7 * scale)) / width
    weave = np.sin(threads * (x + y)) * np.sin(threads * (x - y))
    dust = np.maximum(smooth_noise((height, width), (0.9 * scale, 1.1 * scale), rng) - 3.4, 0)
    levels = 40 + 2.0 * pebble + 1.0 * patches + 0.8 * wear + 2.0 * weave + 6 * dust
    return cast(Plane, levels.astype(np.float32))


def smooth_noise(shape: tuple[int, int], sigma: tuple[float, float], rng: np.random.Generator) -> Plane:
    """Draw periodic Gaussian noise of mean 0 and deviation 1.

    Args:
        shape: height and width to give.
        sigma: standard deviations (y, x) of the Gaussian that smooths it, in pixels.
        rng: source of the noise.
    """
    spectrum = np.fft.rfft2(rng.standard_normal(shape, dtype=np.float32))
    fy = np.fft.fftfreq(shape[0])[:, None]
    fx = np.fft.rfftfreq(shape[1])[None, :]
    spectrum *= np.exp(-2 * np.pi**2 * ((sigma[0] * fy) ** 2 + (sigma[1] * fx) ** 2))
    noise = np.fft.irfft2(spectrum, s=shape)
    noise -= noise.mean()
    return cast(Plane, (noise / noise.std()).astype(np.float32))
