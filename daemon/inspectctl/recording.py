"""Saves frames of a camera as images to train on, cut out exactly as the daemon will cut them out."""

import re
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from daemon.capture.drivers import BadPicture, CameraFailed, CameraSettings, Picture
from daemon.capture.drivers.open import open_camera
from foundation.errors import InputError
from foundation.files import write_whole
from foundation.secrets import masked
from pictures.frames import Roi, Size, cut_out
from pictures.recording_note import RecordingNote, note_of, with_note

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
    made = not folder.exists()
    source, target = Path(settings.source), folder.resolve()
    if source.is_dir() and source.resolve() in {target, *target.parents}:
        raise InputError(
            f"{folder}: lies in the folder that is recorded, {source}; name another one with --out"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: cannot be made: {error.strerror}") from error
    numbers = [int(m[1]) for path in folder.iterdir() if (m := re.fullmatch(r"frame-(\d+)\.png", path.name))]
    first = max(numbers, default=0) + 1
    saved = 0
    camera = None
    try:
        camera = open_camera(settings)
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
                png = np.asarray(cv2.imencode(".png", pixels)[1]).tobytes()
                write_whole(
                    folder / f"frame-{first + saved:06d}.png", with_note(png, _note(settings, picture))
                )
                saved += 1
                progress.update()
    except (CameraFailed, BadPicture) as error:
        kept = f"; {saved} frames lie in {folder}" if saved else ""
        raise InputError(f"{error}{kept}") from error
    finally:
        if camera is not None:
            camera.close()
        if made and not saved:
            with suppress(OSError):
                folder.rmdir()  # a mistake leaves nothing behind
    return saved


def _note(settings: CameraSettings, picture: Picture) -> RecordingNote:
    """Say how a picture was taken; one of a folder may have been cut out of a camera's picture before."""
    roi, size = settings.roi, Size(*picture.pixels.shape[:2])
    file = Path(settings.source, picture.part or "")
    earlier = note_of(file) if picture.part and file.is_file() else None
    if earlier is not None:
        if roi is not None and size not in {earlier.camera_picture, _size(earlier.roi)}:
            raise InputError(
                f"{file}: shows its camera's picture in another size, as an archive of rejects does, so "
                f"{roi} cannot be cut out of it: record from the camera"
            )
        size = earlier.camera_picture
        if roi is None or earlier.roi is None:
            roi = roi or earlier.roi
        else:
            roi = Roi(earlier.roi.x + roi.x, earlier.roi.y + roi.y, roi.width, roi.height)
    return RecordingNote(
        source=masked(settings.source),
        camera_picture=size,
        roi=roi,
        captured_at=datetime.now(UTC).isoformat(timespec="milliseconds"),
        tool_version=version("inspectd"),
    )


def _size(roi: Roi | None) -> Size | None:
    return None if roi is None else Size(roi.height, roi.width)
