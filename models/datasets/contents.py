"""What a data set is taken for, as a person may read it before a training begins."""

import os

from foundation.errors import printable
from models.datasets.data_set import DataSet

_MOST_LINES = 30


def contents(data_set: DataSet) -> str:
    """Lay out what is taken for what: a line for each folder, with its number of images.

    Raises:
        InputError: a name is ambiguous, or a list cannot be read.
    """
    root = data_set.root.absolute().parent
    rows = [
        (printable(os.path.relpath(place, root)), images, what) for place, images, what in data_set.taken()
    ]
    width = max((len(place) for place, _, _ in rows), default=0)
    lines = [f"{place:<{width}} {images:>7} images  {what}" for place, images, what in rows]
    if len(lines) > _MOST_LINES:
        lines[_MOST_LINES:] = [f"and {len(lines) - _MOST_LINES} more"]
    return "\n".join(lines)
