import csv
import io
import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from data_set_folders import (
    LOCO_DEFECTS,
    PATCH,
    SIDE,
    csv_list,
    draw_mask,
    draw_part,
    folders,
    mvtec_ad,
    mvtec_loco,
    visa,
)
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from calibration.images import image_set, is_training_set
from foundation.errors import InputError
from models import training_images
from models.datasets.csv_list import CsvList
from models.datasets.data_set import DataSet, Sample, Saturations
from models.datasets.folders import Folders, GoodImages
from models.datasets.masks import Region, regions
from models.datasets.mvtec_ad import MvtecAd
from models.datasets.mvtec_loco import MvtecLoco
from models.datasets.open import LAYOUTS, open_data_set
from models.datasets.visa import Visa
from models.option_types import LAYOUTS as OFFERED
from pictures.frames import Roi, Size

SQUARE = Size(SIDE, SIDE)
AREA = 16 * 24


def known(sample: Sample, size: Size, roi: Roi | None, saturations: Saturations | None) -> list[Region]:
    found = regions(sample, size, roi, saturations)
    assert found is not None
    return found


def types(data_set: DataSet) -> Counter[str | None]:
    return Counter(sample.defect for sample in data_set.test())


def test_mvtec_ad(tmp_path: Path) -> None:
    data_set = open_data_set(mvtec_ad(tmp_path / "bottle"))
    assert isinstance(data_set, MvtecAd)
    assert [path.name for path in data_set.good().training] == [f"{index:03}.png" for index in range(6)]
    assert not data_set.good().validation
    assert types(data_set) == {None: 4, "dent": 2, "scratch": 3}
    last = data_set.test()[-1]
    assert last.image == tmp_path / "bottle/test/scratch/002.png"
    assert last.masks == (tmp_path / "bottle/ground_truth/scratch/002_mask.png",)
    (region,) = known(last, SQUARE, None, None)
    assert region.pixels[PATCH].all()
    assert region.saturation == region.pixels.sum() == AREA


def test_masks_may_be_missing_for_whole_types_only(tmp_path: Path) -> None:
    root = mvtec_ad(tmp_path / "bottle")
    shutil.rmtree(root / "ground_truth" / "dent")
    samples = open_data_set(root).test()
    assert [bool(sample.masks) for sample in samples] == [False] * 6 + [True] * 3
    (root / "ground_truth/scratch/001_mask.png").unlink()
    with pytest.raises(InputError, match=r"scratch/001.png: has no mask; expected .*/scratch/001_mask.png"):
        open_data_set(root).test()


def test_a_mask_of_no_image_is_named(tmp_path: Path) -> None:
    root = mvtec_ad(tmp_path / "bottle")
    stray = draw_mask(root / "ground_truth" / "dent" / "7_mask.png")
    with pytest.raises(InputError, match=f"{stray}: no image in .* belongs to this mask"):
        open_data_set(root).test()


def test_an_empty_folder_of_defects_is_named(tmp_path: Path) -> None:
    for root in (mvtec_ad(tmp_path / "bottle"), mvtec_loco(tmp_path / "pins"), folders(tmp_path / "plain")):
        inside = root if (root / "good").is_dir() else root / "test"
        (inside / "crack").mkdir()
        with pytest.raises(InputError, match=f"{inside / 'crack'}: holds no image"):
            open_data_set(root).test()
        assert open_data_set(root).good().training  # which training does not care about


@pytest.mark.parametrize("missing", ["test", "test/good", "defects"])
def test_a_test_without_good_or_defective_parts_is_refused(tmp_path: Path, missing: str) -> None:
    root = mvtec_ad(tmp_path / "bottle")
    for folder in ("test/dent", "test/scratch") if missing == "defects" else (missing,):
        shutil.rmtree(root / folder)
    expected = {
        "test": "has no folder test",
        "test/good": "has no folder of good parts",
        "defects": "has no folder of defective parts",
    }
    with pytest.raises(InputError, match=expected[missing]):
        open_data_set(root).test()


def test_mvtec_loco(tmp_path: Path) -> None:
    data_set = open_data_set(mvtec_loco(tmp_path / "pushpins"))
    assert isinstance(data_set, MvtecLoco)
    assert (len(data_set.good().training), len(data_set.good().validation)) == (5, 2)
    assert types(data_set) == {None: 2, "logical_anomalies": 1, "structural_anomalies": 1}
    logical, structural = data_set.test()[-2:]
    found = known(logical, SQUARE, None, data_set.saturations())
    assert [int(region.pixels.sum()) for region in found] == [AREA, 12 * 24]
    assert [region.saturation for region in found] == [96, 144]  # in pixels; half of the area
    (only,) = known(structural, SQUARE, None, data_set.saturations())
    assert only.saturation == AREA // 2


def test_a_loco_defect_saturates_at_its_area_at_most(tmp_path: Path) -> None:
    root = mvtec_loco(tmp_path / "pushpins")
    (root / "defects_config.json").write_text(
        json.dumps(
            [entry | {"saturation_threshold": 5000, "relative_saturation": False} for entry in LOCO_DEFECTS]
        )
    )
    data_set = open_data_set(root)
    (region,) = known(data_set.test()[-1], SQUARE, None, data_set.saturations())
    assert region.saturation == AREA


def test_a_reduced_loco_object_has_merged_masks_and_smaller_thresholds(tmp_path: Path) -> None:
    """As juice_bottle at 320×640 instead of 800×1600."""
    root = mvtec_loco(tmp_path / "juice_bottle")
    masks = root / "ground_truth" / "structural_anomalies"
    (masks / "000" / "000.png").rename(masks / "000.png")
    (masks / "000").rmdir()
    data_set = open_data_set(root)
    before = data_set.saturations()
    assert before is not None
    assert data_set.test()[-1].masks == (masks / "000.png",)
    for image in data_set.good().training:
        cv2.imwrite(str(image), np.zeros((640, 320, 3), np.uint8))
    after = data_set.saturations()
    assert after is not None
    for value, (threshold, relative) in before.items():
        assert after[value].threshold == pytest.approx(threshold * (1 if relative else 0.16))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"pixel_value": None}, "defect 2: pixel_value: expected a positive number, found None"),
        ({"pixel_value": True}, "pixel_value: expected a positive number, found True"),
        ({"saturation_threshold": -1}, "saturation_threshold: expected a positive number, found -1"),
        ({"saturation_threshold": "x"}, "saturation_threshold: expected a positive number, found 'x'"),
        ({"relative_saturation": 1}, "relative_saturation: expected true or false, found 1"),
    ],
)
def test_wrong_saturation_thresholds(tmp_path: Path, change: dict[str, object], said: str) -> None:
    root = mvtec_loco(tmp_path / "pushpins")
    path = root / "defects_config.json"
    path.write_text(json.dumps([LOCO_DEFECTS[0], LOCO_DEFECTS[1] | change]))
    with pytest.raises(InputError) as raised:
        open_data_set(root).saturations()
    assert str(raised.value).startswith(f"{path}: ")
    assert said in str(raised.value)


@pytest.mark.parametrize("content", ["", "[]", "{}", "[1]", "[" * 100_000])
def test_saturation_thresholds_that_are_no_list(tmp_path: Path, content: str) -> None:
    root = mvtec_loco(tmp_path / "pushpins")
    (root / "defects_config.json").write_text(content)
    with pytest.raises(InputError, match=r"defects_config.json: "):
        open_data_set(root).saturations()


def test_a_loco_mask_of_unknown_value(tmp_path: Path) -> None:
    root = mvtec_loco(tmp_path / "pushpins")
    mask = draw_mask(root / "ground_truth/structural_anomalies/000/000.png", 77)
    data_set = open_data_set(root)
    with pytest.raises(InputError, match=f"{mask}: holds the pixel values 77; expected one of 254, 255"):
        regions(data_set.test()[-1], SQUARE, None, data_set.saturations())


def test_visa(tmp_path: Path) -> None:
    data_set = open_data_set(visa(tmp_path))
    assert isinstance(data_set, Visa)
    assert [path.name for path in data_set.good().training] == [f"{index:04}.JPG" for index in range(5)]
    combined = "chunk of wax missing,foreign particals"
    assert types(data_set) == {None: 2, "wax melded": 1, combined: 1}
    for sample in data_set.test()[2:]:  # masks of value 1 and 2, hardly darker than black
        (region,) = known(sample, SQUARE, None, None)
        assert region.pixels.sum() == AREA


def test_visa_without_annotations_knows_one_type(tmp_path: Path) -> None:
    assert types(open_data_set(visa(tmp_path, annotations=False))) == {None: 2, "anomaly": 2}


def test_visa_without_its_split(tmp_path: Path) -> None:
    root = visa(tmp_path)
    (tmp_path / "split_csv/1cls.csv").unlink()
    with pytest.raises(InputError, match=r"split_csv/1cls.csv: cannot be read: No such file"):
        open_data_set(root).good()


def test_visa_object_that_the_split_does_not_name(tmp_path: Path) -> None:
    root = visa(tmp_path)
    root.rename(tmp_path / "kerze")
    with pytest.raises(InputError, match="has no normal training image of kerze"):
        open_data_set(tmp_path / "kerze").good()


def test_plain_folders_hold_good_images_out(tmp_path: Path) -> None:
    root = folders(tmp_path / "parts")
    data_set = open_data_set(root)
    assert isinstance(data_set, Folders)
    training = set(data_set.good().training)
    test = {sample.image for sample in data_set.test() if sample.defect is None}
    assert (len(training), len(test)) == (8, 2)
    assert not training & test
    assert types(data_set) == {None: 2, "dent": 2, "stain": 2}
    assert {sample.defect for sample in data_set.test() if sample.masks} == {"dent"}
    # The choice hangs on contents, not on names or the order of files.
    for index, path in enumerate(sorted((root / "good").iterdir(), reverse=True)):
        path.rename(path.with_name(f"renamed-{index}.png"))
    again = {path.read_bytes() for path in open_data_set(root).good().training}
    assert len(again) == 8
    assert not again & {
        sample.image.read_bytes() for sample in open_data_set(root).test() if not sample.defect
    }


def test_good_images_alone_cannot_be_evaluated(tmp_path: Path) -> None:
    data_set = open_data_set(folders(tmp_path / "parts") / "good")
    assert isinstance(data_set, GoodImages)
    assert len(data_set.good().training) == 10
    with pytest.raises(InputError, match="good images alone"):
        data_set.test()


def test_csv_list(tmp_path: Path) -> None:
    data_set = open_data_set(csv_list(tmp_path))
    assert isinstance(data_set, CsvList)
    good = data_set.good()
    assert [path.name for path in good.training] == ["0.png", "1.png"]
    assert [path.name for path in good.validation] == ["2.png"]
    assert data_set.test() == [
        Sample(tmp_path / "images/3.png", None),
        Sample(tmp_path / "images/bad.png", "dent", (tmp_path / "masks/bad.png",)),
    ]


def test_csv_list_as_spreadsheets_write_it(tmp_path: Path) -> None:
    path = csv_list(tmp_path)
    text = (
        "SPLIT;Label;Path\ntrain;good;images/0.png\n\ntest;Good;images/1.png\ntest;defective;images/bad.png\n"
    )
    path.write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    assert types(open_data_set(path)) == {None: 1, "defective": 1}


def test_csv_list_with_several_masks(tmp_path: Path) -> None:
    path = csv_list(tmp_path)
    draw_mask(tmp_path / "masks/second.png", pixels=(slice(50, 60), slice(50, 60)))
    path.write_text(path.read_text().replace("masks/bad.png", "masks/bad.png | masks/second.png"))
    found = known(open_data_set(path).test()[-1], SQUARE, None, None)
    assert sorted(int(region.pixels.sum()) for region in found) == [100, AREA]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("images/1.png,good,,,training", "column 'split': expected train or validation or test"),
        ("images/1.png,fine,,,train", "column 'label': expected good or defective, found 'fine'"),
        ("images/9.png,good,,,train", "column 'path': there is no file"),
        (",good,,,train", "column 'path': expected the name of a file, found nothing"),
        ("images/1.png,good,dent,,test", "column 'defect': a good part has none, found 'dent'"),
        ("images/bad.png,defective,dent,masks/9.png,test", "column 'mask': there is no file"),
        ("images/bad.png,defective,dent,,train", "column 'label': a defective part in split train"),
        ("images/bad.png,defective,good,,test", "column 'defect': a defective part is not of the type good"),
        ("images/0.png,good,,,test", "is already listed in line 2"),
        ("images/1.png,good,,train", "expected 5 cells, found 4"),
        ('images/1.png,"good,,,train', "unexpected end of data"),
    ],
)
def test_wrong_lines_of_a_csv_list(tmp_path: Path, line: str, said: str) -> None:
    header = "path,label,defect,mask,split"
    path = csv_list(tmp_path, (header, "images/0.png,good,,,train", line))
    with pytest.raises(InputError) as raised:
        open_data_set(path).good()
    assert str(raised.value).startswith(f"{path}, line 3")
    assert said in str(raised.value)


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ("path,label", "has no column 'split'"),
        ("path,label,split,colour", "column 'colour' is unknown"),
        ("path,label,split,path", "column 'path' is twice"),
        ("", "has no column 'path'"),
    ],
)
def test_wrong_headers_of_a_csv_list(tmp_path: Path, header: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        open_data_set(csv_list(tmp_path, (header, "a,b,c"))).good()


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=300) | st.text(max_size=300).map(str.encode))
def test_any_bytes_as_a_csv_list_give_one_clear_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "list.csv"
    path.write_bytes(content)
    with pytest.raises(InputError) as raised:
        open_data_set(path).good()
    assert str(raised.value).startswith(str(path))
    assert "\n" not in str(raised.value)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    defects=st.lists(
        st.text(st.characters(exclude_categories=("Cs", "Cc", "Zl", "Zp")), max_size=20),
        min_size=1,
        max_size=4,
    )
)
def test_any_name_of_a_defect_comes_back_from_a_csv_list(tmp_path: Path, defects: list[str]) -> None:
    assume("good" not in [" ".join(defect.split()) for defect in defects])
    rows = io.StringIO()
    writer = csv.writer(rows, lineterminator="\n")
    writer.writerow(("path", "label", "defect", "split"))
    writer.writerow(("good.png", "good", "", "test"))
    (tmp_path / "good.png").touch()
    for index, defect in enumerate(defects):
        (tmp_path / f"{index}.png").touch()
        writer.writerow((f"{index}.png", "defective", defect, "test"))
    (tmp_path / "list.csv").write_text(rows.getvalue(), encoding="utf-8")
    found = {sample.image.stem: sample.defect for sample in open_data_set(tmp_path / "list.csv").test()}
    assert found == {"good": None} | {
        str(i): " ".join(d.split()) or "defective" for i, d in enumerate(defects)
    }


def test_the_layout_can_be_forced(tmp_path: Path) -> None:
    root = mvtec_ad(tmp_path / "bottle")
    assert len(open_data_set(root, "images").good().training) == 6 + 9
    assert tuple(LAYOUTS) == OFFERED
    with pytest.raises(InputError, match=r"defects_config.json: cannot be read"):
        open_data_set(root, "mvtec-loco").saturations()


def test_what_is_no_data_set(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        open_data_set(tmp_path / "missing")
    (tmp_path / "a.png").touch()
    with pytest.raises(InputError, match="is a file; expected a folder of images or a list in CSV"):
        open_data_set(tmp_path / "a.png")
    (tmp_path / "test").mkdir()
    with pytest.raises(InputError, match="no train/good"):
        open_data_set(tmp_path)


def masked(folder: Path, make: Callable[[Path], object], name: str = "mask.png") -> Sample:
    make(folder / name)
    return Sample(draw_part(folder / "part.png", 0, defective=True), "dent", (folder / name,))


def test_a_mask_of_another_size(tmp_path: Path) -> None:
    sample = masked(tmp_path, lambda path: draw_mask(path, side=50))
    with pytest.raises(InputError) as raised:
        regions(sample, SQUARE, None, None)
    assert str(raised.value) == (
        f"{sample.masks[0]}: the mask is 50×50 pixels, its image {sample.image} is 64×64"
    )


@pytest.mark.parametrize("content", [b"", b"no image", None])
def test_a_mask_that_cannot_be_read(tmp_path: Path, content: bytes | None) -> None:
    sample = masked(tmp_path, lambda path: content is None or path.write_bytes(content))
    with pytest.raises(InputError, match=f"{sample.masks[0]}: "):
        regions(sample, SQUARE, None, None)


def test_a_mask_that_marks_nothing_says_nothing(tmp_path: Path) -> None:
    sample = masked(tmp_path, lambda path: draw_mask(path, value=0))
    assert regions(sample, SQUARE, None, None) is None
    assert regions(Sample(sample.image, "dent"), SQUARE, None, None) is None


@pytest.mark.parametrize("name", ["grey.jpg", "colour.png", "transparent.png", "deep.tif", "deep.png"])
def test_masks_of_any_kind(tmp_path: Path, name: str) -> None:
    def draw(path: Path) -> None:
        mask = np.zeros((SIDE, SIDE), dtype=np.uint8)
        mask[PATCH] = 255
        if path.stem == "colour":
            mask = np.dstack([mask * 0, mask * 0, mask])
        elif path.stem == "transparent":
            mask = np.dstack([mask, mask, mask, np.full_like(mask, 255)])
        elif path.stem == "deep":
            mask = np.multiply(mask, 100, dtype=np.uint16)
        assert cv2.imwrite(str(path), mask)

    (region,) = known(masked(tmp_path, draw, name), SQUARE, None, None)
    assert region.pixels[PATCH].all()
    assert region.pixels.sum() == AREA


def test_a_mask_of_thousands_of_specks_needs_little_memory(tmp_path: Path) -> None:
    def draw(path: Path) -> None:
        mask = np.zeros((SIDE, SIDE), dtype=np.uint8)
        mask[::2, ::2] = 255
        assert cv2.imwrite(str(path), mask)

    found = known(masked(tmp_path, draw), SQUARE, None, None)
    assert len(found) == SIDE**2 // 4
    assert sum(region.indices.nbytes for region in found) == SIDE**2 * 2


def test_regions_are_eight_connected_and_cut_to_the_region_of_interest(tmp_path: Path) -> None:
    def draw(path: Path) -> None:
        mask = np.zeros((SIDE, SIDE), dtype=np.uint8)
        mask[0:5, 0:5] = mask[5:10, 5:10] = mask[40:50, 40:50] = 255
        assert cv2.imwrite(str(path), mask)

    sample = masked(tmp_path, draw)
    assert sorted(int(region.pixels.sum()) for region in known(sample, SQUARE, None, None)) == [50, 100]
    (left,) = known(sample, SQUARE, Roi(45, 30, 19, 20), None)
    assert left.pixels.shape == (20, 19)
    assert left.pixels[10:20, 0:5].all()
    assert left.pixels.sum() == left.saturation == 50
    assert known(sample, SQUARE, Roi(20, 0, 10, 10), None) == []


def test_validation_images_of_the_layout_are_taken(tmp_path: Path) -> None:
    split = training_images.load(open_data_set(mvtec_loco(tmp_path / "pins")), SQUARE, None, seed=3)
    assert (len(split.training), len(split.validation)) == (5, 2)
    expected = training_images.stack(
        sorted((tmp_path / "pins/validation/good").iterdir()), SQUARE, None
    ).images
    assert (split.validation == torch.cat(expected)).all()
    assert split.sizes == [SQUARE]


def test_calibrate_recognises_the_training_images(tmp_path: Path) -> None:
    """The digest in a model's metadata is the one that calibrate computes, for either folder named."""
    root = mvtec_ad(tmp_path / "bottle")
    good = image_set(root / "train" / "good")
    for path in (root, root / "train" / "good"):
        assert is_training_set(good, training_images.load(open_data_set(path), SQUARE, None, 0).digest)
    other = image_set(root / "test" / "good")
    assert not is_training_set(other, training_images.load(open_data_set(root), SQUARE, None, 0).digest)


def test_grey_and_16_bit_images_are_scaled_alike(tmp_path: Path) -> None:
    grey = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE), dtype=np.uint8)
    pictures: dict[str, np.ndarray[Any, Any]] = {
        "colour.png": cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR),
        "grey.png": grey,
        "deep.png": grey.astype(np.uint16) * 257,
        "deep.tif": grey.astype(np.uint16) * 257,
        "deep-colour.png": cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR).astype(np.uint16) * 257,
    }
    for name, picture in pictures.items():
        assert cv2.imwrite(str(tmp_path / name), picture)
    images = training_images.stack([tmp_path / name for name in pictures], SQUARE, None).images
    for image in images[1:]:
        assert (image == images[0]).all()


def test_16_bit_images_of_12_bits_are_refused(tmp_path: Path) -> None:
    for index in range(3):
        values = np.random.default_rng(index).integers(0, 4096, (SIDE, SIDE), dtype=np.uint16)
        assert cv2.imwrite(str(tmp_path / f"{index}.png"), values)
    with pytest.raises(InputError, match=r"0.png: 16 bits per channel, but .* above 4095"):
        training_images.load(open_data_set(tmp_path), SQUARE, None, 0)
    # One that uses the range says that the others are merely dark.
    assert cv2.imwrite(str(tmp_path / "1.png"), np.full((SIDE, SIDE), 40_000, dtype=np.uint16))
    assert len(training_images.load(open_data_set(tmp_path), SQUARE, None, 0).training) == 2
    for index in range(3):
        assert cv2.imwrite(str(tmp_path / f"{index}.png"), np.full((SIDE, SIDE), 9, dtype=np.uint8))
    assert len(training_images.load(open_data_set(tmp_path), SQUARE, None, 0).training) == 2
