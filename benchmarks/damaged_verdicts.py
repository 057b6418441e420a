"""What becomes of verdicts when one bit of a JPEG has flipped and no check can tell.

    python benchmarks/damaged_verdicts.py model.engine --good held-out/ --defects defects/

Calibrates on the good images, encodes every image as a JPEG of quality 90, flips a bit of it, and judges what
is not told as damaged.
"""

import argparse
import random
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from calibration.calibrate import calibrate
from daemon.capture.drivers import BadPicture
from daemon.capture.drivers.jpeg import decode_jpeg
from engine_runtime.engine import SCORE
from engine_runtime.open import open_engine
from pictures.frames import Frame, fit
from pictures.image_file import read_image
from pictures.image_folder import images_in


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("engine", type=Path)
    parser.add_argument("--good", type=Path, required=True)
    parser.add_argument("--defects", type=Path, required=True)
    parser.add_argument("--flips", type=int, default=6, help="of each image (default: %(default)s)")
    options = parser.parse_args()
    calibration = calibrate(options.engine, options.good, None, 0.01).calibration
    engine = open_engine(options.engine)
    size, maps = engine.manifest.input_size, engine.manifest.maps
    quantiles = np.array([calibration.quantiles[name] for name in maps], np.float32)

    def verdict(picture: Frame) -> str:
        frames = fit(picture, size=size, roi=None)[None]
        return (
            "reject"
            if engine.infer(frames, quantiles, (SCORE,))[SCORE][0] > calibration.threshold
            else "pass"
        )

    for kind, folder in (("good", options.good), ("defective", options.defects)):
        counts: Counter[str] = Counter()
        for path in tqdm(images_in(folder), desc=kind, disable=None):
            encoded = cv2.imencode(".jpg", read_image(path), [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()
            before = verdict(decode_jpeg(encoded))
            for flip in range(options.flips):
                chance, damaged = random.Random(f"{path.name} {flip}"), bytearray(encoded)
                damaged[chance.randrange(2, len(damaged) - 2)] ^= 1 << chance.randrange(8)
                try:
                    after = verdict(decode_jpeg(bytes(damaged)))
                except BadPicture:
                    after = "fault"
                counts[f"{before} → {after}"] += 1
        print(f"{kind}: " + ", ".join(f"{count} {what}" for what, count in sorted(counts.items())))


if __name__ == "__main__":
    main()
