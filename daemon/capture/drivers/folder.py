from pathlib import Path

from daemon.capture.drivers import BadPicture, Picture
from foundation.errors import InputError, printable
from pictures.frames import Size
from pictures.image_file import read_image
from pictures.image_folder import images_in


class FolderCamera:
    """The images of a folder and its subfolders, in the order of their paths.

    ``Picture.part`` is the image's path inside the folder.
    """

    live = False
    picture_size: Size | None = None

    def __init__(self, folder: Path, *, loop: bool, first_frame: int) -> None:
        self._folder = folder
        self._images = images_in(folder)
        self._loop = loop
        first = first_frame - 1
        self._next = first % len(self._images) if loop else min(first, len(self._images))

    def grab(self) -> Picture | None:
        if self._next == len(self._images):
            if not self._loop:
                return None
            self._next = 0
        path = self._images[self._next]
        self._next += 1
        part = printable(path.relative_to(self._folder).as_posix())  # a name may be no UTF-8
        try:
            return Picture(read_image(path), part)
        except InputError as error:
            raise BadPicture(str(error), part) from error

    def close(self) -> None:
        pass
