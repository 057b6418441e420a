"""What strict decoding costs: a camera's own reader against OpenCV's VideoCapture, alternating in one run.

    python benchmarks/video_decoding.py

Both read the same videos of noisy parts from a disk and give BGR pixels. Counted are a picture's processor
time in milliseconds over all threads, and its wall time; OpenCV has a thread for each core, the camera one.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import av
import cv2
import numpy as np

from daemon.capture.drivers.video_file import VideoFile


class Format(NamedTuple):
    """How a video is written."""

    codec: str
    pix_fmt: str
    name: str
    options: dict[str, str]


FORMATS = {
    "MJPEG": Format("mjpeg", "yuvj420p", "parts.avi", {"qmin": "3", "qmax": "3"}),
    "H.264": Format("libx264", "yuv420p", "parts.mp4", {"tune": "zerolatency", "crf": "20"}),
}


def record(folder: Path, how: Format, frames: int) -> Path:
    """Write parts that move on a belt, with a sensor's noise."""
    codec, pix_fmt, name, options = how
    noise = np.random.default_rng(1)
    with av.open(str(folder / name), "w") as output:
        stream = output.add_stream(codec, rate=Fraction(25), options=options)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = 1280, 720, pix_fmt
        for index in range(frames):
            picture = np.full((720, 1280, 3), 70, np.uint8)
            cv2.circle(picture, (200 + 8 * index % 900, 360), 180, (150, 160, 170), -1)
            pixels = np.clip(picture + noise.normal(0, 4, picture.shape), 0, 255).astype(np.uint8)
            output.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="bgr24")))
        output.mux(stream.encode(None))
    return folder / name


def through_opencv(video: Path) -> int:
    """Read a video as OpenCV does."""
    capture, count = cv2.VideoCapture(str(video), cv2.CAP_FFMPEG), 0
    while capture.read()[0]:
        count += 1
    return count


def through_the_camera(video: Path) -> int:
    """Read a video as a camera process does."""
    camera, count = VideoFile(video, loop=False, first_frame=1), 0
    while camera.grab() is not None:
        count += 1
    camera.close()
    return count


def measure(read: Callable[[Path], int], video: Path) -> tuple[float, float]:
    """Give processor and wall time of a picture in milliseconds."""
    processor_s, wall_s = time.process_time(), time.perf_counter()
    count = read(video)
    processor_s, wall_s = time.process_time() - processor_s, time.perf_counter() - wall_s
    return processor_s / count * 1000, wall_s / count * 1000


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="pairs of runs (default: %(default)s)")
    parser.add_argument("--frames", type=int, default=100, help="of each video (default: %(default)s)")
    options = parser.parse_args()
    result = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, how in FORMATS.items():
            video = record(Path(folder), how, options.frames)
            rounds = [
                (measure(through_opencv, video), measure(through_the_camera, video))
                for _ in range(options.rounds)
            ]
            result[name] = {
                reader: {
                    kind: round(statistics.median(one[side][place] for one in rounds), 2)
                    for place, kind in enumerate(("processor_ms", "wall_ms"))
                }
                for side, reader in enumerate(("opencv", "camera"))
            } | {"kb_per_picture": round(video.stat().st_size / options.frames / 1000)}
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
