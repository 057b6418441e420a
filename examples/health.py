"""Print how a line is: python health.py tcp://127.0.0.1:5560 line3. Exit code 1 when it is not well."""

import sys

from verdicts import LineSilent, read_health

address, line = sys.argv[1:3]
try:
    health = read_health(address, line=line)
except LineSilent as silent:
    sys.exit(str(silent))
print(
    f"{health.line}: {health.state}, {sum(health.verdicts.values())} verdicts, {health.waiting} frames wait"
)
for name, camera in health.cameras.items():
    print(
        f"  {name}: {camera.state}, {camera.captured} captured, {camera.faults} faults {camera.error or ''}"
    )
sys.exit(health.state != "running" or any(camera.state != "running" for camera in health.cameras.values()))
