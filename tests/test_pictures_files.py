"""Image files and folders as people have them: damaged, of several pages, linked, hidden, unreadable."""

import struct
import subprocess
import sys
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from foundation.errors import InputError
from models.datasets.contents import contents
from models.datasets.folders import Folders, GoodImages
from models.datasets.masks import regions
from models.datasets.mvtec_ad import MvtecAd
from models.datasets.open import open_data_set
from pictures.digest import pack_digests, pixel_digest, unpack_digests
from pictures.frames import Frame, Size
from pictures.image_file import read_image, read_unchanged
from pictures.image_folder import images_in

PICTURE: Frame = cv2.GaussianBlur(
    np.random.default_rng(0).integers(0, 256, (96, 128, 3), dtype=np.uint8), (0, 0), 2
).astype(np.uint8)
SUFFIXES = (".png", ".jpg", ".bmp", ".tif", ".webp")


def encoded(suffix: str, picture: Frame = PICTURE) -> bytes:
    return cv2.imencode(suffix, picture)[1].tobytes()


def refused(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    with pytest.raises(InputError) as error:
        read_image(path)
    said = str(error.value)
    assert said.startswith(f"{path}: ")
    assert "\n" not in said
    return said.removeprefix(f"{path}: ")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_sound_file_is_read_as_opencv_reads_it(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    for picture in (PICTURE, PICTURE[..., 0], PICTURE[:1, :1]):
        path.write_bytes(encoded(suffix, picture))
        np.testing.assert_array_equal(read_image(path), cv2.imread(str(path)))


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("share", [0.3, 0.7, 0.99])
def test_a_file_cut_short_is_refused(tmp_path: Path, suffix: str, share: float) -> None:
    whole = encoded(suffix)
    refused(tmp_path / f"a{suffix}", whole[: int(share * len(whole))])


def test_damage_in_the_middle_of_a_jpeg_is_refused(tmp_path: Path) -> None:
    whole = encoded(".jpg")
    middle = len(whole) // 2
    for options in ([], [cv2.IMWRITE_JPEG_PROGRESSIVE, 1], [cv2.IMWRITE_JPEG_RST_INTERVAL, 2]):
        whole = cv2.imencode(".jpg", PICTURE, options)[1].tobytes()
        said = refused(tmp_path / "a.jpg", whole[:middle] + bytes(300) + whole[middle + 300 :])
        assert said.startswith("is a damaged JPEG: ")


def test_a_jpeg_without_its_end_is_refused_and_one_with_more_after_it_is_not(tmp_path: Path) -> None:
    whole = encoded(".jpg")
    assert refused(tmp_path / "a.jpg", whole[:-2]) == "is a JPEG that is cut short: its end marker is missing"
    assert refused(tmp_path / "a.jpg", whole[: len(whole) // 2] + whole[-2:]).startswith("is a damaged JPEG")
    (tmp_path / "a.jpg").write_bytes(whole + b"what some cameras add")
    assert read_image(tmp_path / "a.jpg").shape == PICTURE.shape


@pytest.mark.parametrize("place", [20, 0.5, -6])
def test_a_changed_byte_of_a_png_is_refused(tmp_path: Path, place: float) -> None:
    content = bytearray(encoded(".png"))
    content[int(place * len(content)) if isinstance(place, float) else int(place)] ^= 1
    assert "PNG" in refused(tmp_path / "a.png", bytes(content))


def test_damage_in_a_compressed_tiff_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    whole = cv2.imencode(".tif", PICTURE, [cv2.IMWRITE_TIFF_COMPRESSION, 8])[1].tobytes()
    path.write_bytes(whole)
    assert read_image(path).shape == PICTURE.shape
    middle = len(whole) // 2
    assert "damaged TIFF" in refused(path, whole[:middle] + bytes(200) + whole[middle + 200 :])


def test_several_pages_are_refused_and_a_thumbnail_is_none(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.stack([PICTURE] * 3), photometric="rgb")
    assert refused(path, path.read_bytes()) == "holds 3 pages; expected one picture in a file"
    with tifffile.TiffWriter(path) as file:
        file.write(PICTURE, photometric="rgb")
        file.write(PICTURE[::4, ::4], photometric="rgb", subfiletype=1)
    assert read_image(path).shape == PICTURE.shape


def test_values_that_would_become_other_grey_levels_are_refused(tmp_path: Path) -> None:
    for kind in (np.int16, np.int32, np.float32):
        path = tmp_path / "c.tif"
        tifffile.imwrite(path, PICTURE[..., 0].astype(kind))
        assert refused(path, path.read_bytes()).startswith(f"is a TIFF of {np.dtype(kind)} values; expected ")


def test_a_strip_of_a_tiff_that_lies_nowhere_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, PICTURE, photometric="rgb", rowsperstrip=16)
    with tifffile.TiffFile(path) as file:
        offsets = file.pages.first.tags["StripOffsets"]
    whole = bytearray(path.read_bytes())
    at, size = offsets.valueoffset, struct.calcsize("<H" if offsets.dtype == 3 else "<I")
    whole[at + size : at + 2 * size] = bytes(size)
    assert refused(path, bytes(whole)) == "is a damaged TIFF: a part of its pixels lies nowhere"


@pytest.mark.parametrize("content", [b"", b"hello", b"GIF89a", b"\x89PNG\r\n\x1a\n", b"II*\0", b"BM"])
def test_what_is_no_image(tmp_path: Path, content: bytes) -> None:
    refused(tmp_path / "a.png", content)


@given(suffix=st.sampled_from(SUFFIXES), place=st.integers(0, 3000), data=st.binary(max_size=60))
@settings(max_examples=150, deadline=None)
def test_any_damage_is_one_line_or_a_picture(
    tmp_path_factory: pytest.TempPathFactory, suffix: str, place: int, data: bytes
) -> None:
    path = tmp_path_factory.mktemp("damage") / f"a{suffix}"
    whole = encoded(suffix)
    path.write_bytes(whole[:place] + data + whole[place + len(data) :])
    try:
        read_image(path)
    except InputError as error:
        assert "\n" not in str(error)


def test_no_message_of_a_library_comes_through(tmp_path: Path) -> None:
    """From processes of their own: libraries write to the descriptor, not to sys.stderr."""
    whole = encoded(".png")
    profile = b"iCCP" + b"x\0\0short"
    chunk = struct.pack(">I", len(profile) - 4) + profile + struct.pack(">I", zlib.crc32(profile))
    (tmp_path / "profile.png").write_bytes(whole[:33] + chunk + whole[33:])
    for suffix in SUFFIXES:
        content = encoded(suffix)
        (tmp_path / f"cut{suffix}").write_bytes(content[: len(content) // 2])
        (tmp_path / f"holed{suffix}").write_bytes(
            content[: len(content) // 2] + bytes(200) + content[len(content) // 2 + 200 :]
        )
    cv2.imwrite(str(tmp_path / "float.tif"), PICTURE.astype(np.float32))
    script = (
        "import sys\nfrom pathlib import Path\nfrom foundation.errors import InputError\n"
        "from pictures.image_file import read_image\n"
        "for path in sorted(Path(sys.argv[1]).iterdir()):\n"
        "    try: read_image(path)\n    except InputError as error: pass\n"
    )
    done = subprocess.run([sys.executable, "-c", script, tmp_path], capture_output=True, check=True)
    assert done.stderr == b""
    assert read_image(tmp_path / "profile.png").shape == PICTURE.shape


def write(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encoded(".png"))
    return path


HIDDEN = (
    *(".Trash-1000/files/a.png", ".ipynb_checkpoints/a.png", "._a.png", "@eaDir/a.png", "__MACOSX/a.png"),
    *("$RECYCLE.BIN/a.png", "lost+found/a.png", "sub/.hidden/a.png", "mask/a.png", "Ground_Truth/a.png"),
)


def test_what_no_person_put_there_stays_out(tmp_path: Path) -> None:
    for name in HIDDEN:
        write(tmp_path / name)
    (tmp_path / "folder.png").mkdir()
    kept = [write(tmp_path / "a.PNG"), write(tmp_path / "sub/b.png")]
    assert images_in(tmp_path) == kept
    assert images_in(tmp_path / ".Trash-1000") == [tmp_path / ".Trash-1000/files/a.png"]


def test_linked_folders_are_followed_once(tmp_path: Path) -> None:
    write(tmp_path / "elsewhere/a.png")
    here = tmp_path / "here"
    write(here / "b.png")
    (here / "link").symlink_to(tmp_path / "elsewhere")
    (here / "again").symlink_to(tmp_path / "elsewhere")
    (here / "loop").symlink_to(here)
    assert images_in(here) == [here / "again/a.png", here / "b.png"]
    (here / "gone.png").symlink_to(tmp_path / "nowhere.png")
    with pytest.raises(InputError, match=r"gone\.png: cannot be read"):
        read_image(images_in(here)[-1])


def test_an_unreadable_folder_is_named(tmp_path: Path) -> None:
    write(tmp_path / "a.png")
    (tmp_path / "self").symlink_to(tmp_path / "self")
    with pytest.raises(InputError, match=r"self: cannot be read: Too many levels"):
        images_in(tmp_path)


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        *(("OK", "NG"), ("normal", "abnormal"), ("Good", "Bad"), ("pass", "FAIL"), ("i.O.", "n.i.O.")),
        *(("ok_images", "Reject Parts"), ("good", "anomaly"), ("GUT", "Ausschuss"), ("good", "scratch")),
    ],
)
def test_folders_are_known_by_their_names(tmp_path: Path, good: str, bad: str) -> None:
    for index in range(5):
        cv2.imwrite(str(write(tmp_path / good / f"{index}.png")), PICTURE + np.uint8(index))
    write(tmp_path / bad / "0.png")
    write(tmp_path / "masks" / bad / "0.png")
    data_set = open_data_set(tmp_path)
    assert isinstance(data_set, Folders)
    assert all(path.parent.name == good for path in data_set.good().training)
    assert [sample.defect for sample in data_set.test()] == [None, bad]
    assert data_set.test()[-1].masks == (tmp_path / "masks" / bad / "0.png",)
    listed = contents(data_set)
    assert f"{tmp_path.name}/{bad} " in listed
    assert "1 images  defective: test" in listed
    assert "5 images  good: training" in listed
    assert "1 images  masks" in listed


def test_splits_are_known_by_their_names(tmp_path: Path) -> None:
    for name in ("Train/OK/0.png", "Train/OK/1.png", "Train/NG/0.png", "Test/OK/0.png", "Test/NG/0.png"):
        write(tmp_path / name)
    data_set = open_data_set(tmp_path)
    assert isinstance(data_set, MvtecAd)
    assert len(data_set.good().training) == 2
    assert [sample.defect for sample in data_set.test()] == [None, "NG"]
    assert "left out: training sees good parts only" in contents(data_set)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("a.png", "NG/b.png"), "NG: its name says that it holds defective parts"),
        (("monday/bad/b.png", "monday/a.png"), "bad: its name says that it holds defective parts"),
        (("bottle_ok/a.png", "bottle_ng/b.png"), "bottle_ng: its name says that it holds defective"),
        (("positive/a.png", "negative/b.png"), "its name may mean good or defective parts"),
        (("0/a.png", "1/b.png"), "its name may mean good or defective parts"),
        (("dent/a.png", "scratch/b.png"), "its name is that of a kind of defects"),
        (("OK/a.png", "good/b.png", "NG/c.png"), "OK and good are both names for good images"),
        (("good/train/a.png", "good/test/b.png"), "its name is that of a split"),
    ],
)
def test_what_is_ambiguous_is_refused(tmp_path: Path, names: tuple[str, ...], said: str) -> None:
    for name in names:
        write(tmp_path / name)
    with pytest.raises(InputError, match=said):
        open_data_set(tmp_path).good()


def test_subfolders_of_good_images_are_good(tmp_path: Path) -> None:
    for name in ("monday/a.png", "tuesday/b.png", "line 2/c.png", ".cache/d.png"):
        write(tmp_path / name)
    data_set = open_data_set(tmp_path)
    assert isinstance(data_set, GoodImages)
    assert len(data_set.good().training) == 3


@pytest.mark.parametrize("colour", [0, 255])
def test_a_mask_in_the_alpha_channel(tmp_path: Path, colour: int) -> None:
    from models.datasets.data_set import Sample

    mask = np.full((96, 128, 4), colour, dtype=np.uint8)
    mask[..., 3] = 0
    mask[10:20, 30:50, 3] = 255
    cv2.imwrite(str(tmp_path / "mask.png"), mask)
    assert read_unchanged(tmp_path / "mask.png").shape == (96, 128, 4)
    sample = Sample(write(tmp_path / "a.png"), "dent", (tmp_path / "mask.png",))
    found = regions(sample, Size(96, 128), None, None)
    assert found is not None
    assert [len(region.indices) for region in found] == [200]


@given(st.sets(st.integers(0, 2**64 - 1), max_size=50))
def test_digests_come_back(digests: set[int]) -> None:
    assert unpack_digests(pack_digests(digests)) == digests


def test_ten_thousand_digests_are_small() -> None:
    assert len(pack_digests(range(10_000))) < 110_000
    assert pixel_digest(PICTURE) != pixel_digest(PICTURE[::-1])
    assert pixel_digest(PICTURE[:, ::2]) == pixel_digest(PICTURE[:, ::2].copy())
