"""Show where a part looks wrong: python heat_map.py line3.engine line3.calibration.yaml part.png heat.png."""

import sys
from pathlib import Path

import cv2

from calibration.calibration_file import load_calibration
from engine_runtime.open import open_engine
from pictures.frames import fit
from pictures.heatmap import overlay
from pictures.image_file import read_image

engine_file, calibration_file, part, out = map(Path, sys.argv[1:5])
engine = open_engine(engine_file, threads=2)
manifest = engine.manifest
calibration = load_calibration(calibration_file, manifest.payload_sha256, manifest.maps)
frame = fit(read_image(part), manifest.input_size, calibration.roi)
anomaly_map = engine.infer([frame], calibration.quantiles_array())["anomaly_map"][0]
cv2.imwrite(str(out), overlay(frame, manifest.geometry.spread(anomaly_map), calibration.threshold))
x, y = manifest.geometry.peak(anomaly_map)
print(f"the peak lies at x = {x:.0f}, y = {y:.0f} of {manifest.input_size}; {out} shows it")
engine.close()
