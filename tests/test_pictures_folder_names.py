"""What people call good and defective parts, in several languages and spellings."""

import unicodedata
from pathlib import Path

import cv2
import numpy as np
import pytest

from foundation.errors import InputError
from pictures.folder_names import role
from pictures.image_file import read_image
from pictures.image_folder import images_in

PAIRS = [
    *[
        ("OK", "NG"),
        ("Good parts", "bad_parts"),
        ("accepted", "rejected"),
        ("golden", "scrap"),
        ("i.O.", "n.i.O."),
    ],
    *[("Gutteile", "Schlechtteile"), ("bons", "rebuts"), ("buenas", "malas"), ("boas", "ruins")],
    *[("goed", "slecht"), ("dobre", "złe"), ("dobré", "vadné"), ("хорошие", "брак"), ("iyi", "hatalı")],
    *[("良品", "不良品"), ("良", "不良"), ("合格", "次品"), ("정상", "불량"), ("undamaged", "damaged")],
    *[("ＯＫ", "ＮＧ"), ("conforming", "nonconforming"), ("GODKÄND", "DÅLIG"), ("sound", "rework")],
]


@pytest.mark.parametrize(("good", "defective"), PAIRS)
@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_names_say_what_is_good(good: str, defective: str, form: str) -> None:
    """Also as macOS writes accents."""
    spelt = [Path(unicodedata.normalize(form, name)) for name in (good, defective)]  # type: ignore[arg-type]
    assert [role(path) for path in spelt] == ["good", "defective"]


@pytest.mark.parametrize("name", ["0", "positive", "unsorted", "mixed", "unknown", "TRUE"])
def test_names_that_may_mean_either(name: str) -> None:
    assert role(Path(name)) == "unclear"


@pytest.mark.parametrize("suffix", [".gif", ".heic", ".pgm", ".AVIF"])
def test_an_image_that_is_not_read_is_named_and_not_left_out(tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"part{suffix}").write_bytes(b"P5 1 1 255 \0")
    (path,) = images_in(tmp_path)
    with pytest.raises(InputError, match=rf"part{suffix}: is not a PNG, JPEG, BMP, TIFF or WebP image"):
        read_image(path)


def test_a_jpeg_may_be_called_jfif(tmp_path: Path) -> None:
    content = cv2.imencode(".jpg", np.zeros((8, 8, 3), np.uint8))[1].tobytes()
    for name in ("a.jfif", "b.JPE"):
        (tmp_path / name).write_bytes(content)
    assert [read_image(path).shape for path in images_in(tmp_path)] == [(8, 8, 3)] * 2
