"""Print the score of each image: python judge_images.py line3.engine line3.calibration.yaml parts/."""

import sys
from pathlib import Path

from calibration.calibration_file import load_calibration
from engine_runtime.open import open_engine
from pictures.frames import fit
from pictures.image_file import read_image
from pictures.image_folder import images_in

engine_file, calibration_file, folder = map(Path, sys.argv[1:4])
engine = open_engine(engine_file, threads=2)
calibration = load_calibration(calibration_file, engine.manifest.payload_sha256, engine.manifest.maps)
for path in images_in(folder):
    frame = fit(read_image(path), engine.manifest.input_size, calibration.roi)
    score = float(engine.infer([frame], calibration.quantiles_array())["score"][0])
    print(f"{'reject' if score > calibration.threshold else 'pass  '} {score:.4f} {path.name}")
engine.close()
