"""Saves frames of a camera as images to train on, cut out exactly as the daemon will cut them out."""

import re
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from daemon.capture.drivers import BadPicture, CameraFailed, CameraSettings
from daemon.capture.drivers.open import open_camera
from foundation.errors import InputError
from foundation.files import replacing
from pictures.frames import cut_out

_MOST_BAD = 10  # bad pictures for each one that is wanted


def record(settings: CameraSettings, folder: Path, count: int) -> int:
    """Save the next frames of a camera as PNG, in their own resolution; numbers go on where others end.

    Args:
        settings: the camera.
        folder: made when it is not there; nothing in it is overwritten.
        count: frames to save.

    Returns:
        How many were saved: fewer than ``count`` when the source ended.

    Raises:
        InputError: the camera does not open or breaks off, or the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: cannot be made: {error.strerror}") from error
    numbers = [int(m[1]) for path in folder.iterdir() if (m := re.fullmatch(r"frame-(\d+)\.png", path.name))]
    first = max(numbers, default=0) + 1
    saved = 0
    try:
        camera = open_camera(settings)
    except CameraFailed as error:
        raise InputError(str(error)) from error
    try:
        with tqdm(total=count, unit="frame", desc="recording", disable=None) as progress:
            bad = 0
            while saved < count:
                try:
                    picture = camera.grab()
                except BadPicture:
                    bad += 1
                    if not camera.live or bad > _MOST_BAD * count:
                        raise
                    continue  # a live camera goes on, and what it loses now and then need not be recorded
                if picture is None:
                    break
                pixels = cut_out(picture.pixels, settings.roi)
                with replacing(folder / f"frame-{first + saved:06d}.png") as file:
                    file.write(np.asarray(cv2.imencode(".png", pixels)[1]).tobytes())
                saved += 1
                progress.update()
    except (CameraFailed, BadPicture) as error:
        raise InputError(f"{error}; {saved} frames lie in {folder}") from error
    finally:
        camera.close()
    return saved
