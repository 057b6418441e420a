"""Draw parts of the simulated line, with the truth in their names: python draw_parts.py parts/ 20."""

import sys
from pathlib import Path

import cv2

from daemon.capture.drivers.simulated import SimulatedLine

folder, count = Path(sys.argv[1]), int(sys.argv[2])
folder.mkdir(parents=True, exist_ok=True)
line = SimulatedLine(seed=1, defects=0.3)
for index in range(count):
    frame, part = line.frame(index)
    cv2.imwrite(str(folder / f"{index:06d}-{part.defect or 'good'}.png"), frame)
print(f"{count} parts lie in {folder}")
