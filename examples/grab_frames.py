"""Look at a camera without a daemon: python grab_frames.py /dev/video0 10."""

import sys

from daemon.capture.drivers import BadPicture, CameraFailed, CameraSettings
from daemon.capture.drivers.open import open_camera
from foundation.errors import InputError

source, count = sys.argv[1:3]
try:
    camera = open_camera(CameraSettings(source))
    for number in range(int(count)):
        picture = camera.grab()
        if picture is None:
            break
        height, width, _ = picture.pixels.shape
        print(f"{number}: {width}×{height}, mean grey {picture.pixels.mean():.1f}, {picture.part or ''}")
    camera.close()
except (InputError, CameraFailed, BadPicture) as error:
    sys.exit(str(error))
