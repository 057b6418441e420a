"""Small data sets in the layouts in which the public ones are published."""

import json
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

SIDE = 64
PATCH = (slice(16, 32), slice(24, 48))
"""Where defective parts are defective: rows, columns."""


def draw_part(path: Path, seed: int, *, defective: bool = False, level: int = 60) -> Path:
    """Draw a grey part; a defect is a bright patch of 16 × 24 pixels."""
    picture = np.random.default_rng(seed).integers(level - 10, level + 10, (SIDE, SIDE, 3), dtype=np.uint8)
    if defective:
        picture[PATCH] = 230
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), picture)
    return path


def draw_mask(path: Path, value: int = 255, pixels: tuple[slice, slice] = PATCH, side: int = SIDE) -> Path:
    mask = np.zeros((side, side), dtype=np.uint8)
    mask[pixels] = value
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), mask)
    return path


def mvtec_ad(root: Path, *, masks: bool = True) -> Path:
    """Six good images for training; a test of four good, two dents and three scratches."""
    for index in range(6):
        draw_part(root / "train" / "good" / f"{index:03}.png", index)
    for index in range(4):
        draw_part(root / "test" / "good" / f"{index:03}.png", 100 + index)
    for kind, count in (("dent", 2), ("scratch", 3)):
        for index in range(count):
            draw_part(root / "test" / kind / f"{index:03}.png", 200 + index, defective=True)
            if masks:
                draw_mask(root / "ground_truth" / kind / f"{index:03}_mask.png")
    return root


LOCO_DEFECTS = [
    {"defect_name": "missing", "pixel_value": 255, "saturation_threshold": 96, "relative_saturation": False},
    {"defect_name": "bent", "pixel_value": 254, "saturation_threshold": 0.5, "relative_saturation": True},
]


def mvtec_loco(root: Path) -> Path:
    """Like ``mvtec_ad`` with two validation images; the logical anomaly has two masks that overlap."""
    for index in range(5):
        draw_part(root / "train" / "good" / f"{index:03}.png", index)
    for index in range(2):
        draw_part(root / "validation" / "good" / f"{index:03}.png", 50 + index)
        draw_part(root / "test" / "good" / f"{index:03}.png", 100 + index)
    draw_part(root / "test" / "logical_anomalies" / "000.png", 200, defective=True)
    draw_part(root / "test" / "structural_anomalies" / "000.png", 201, defective=True)
    masks = root / "ground_truth"
    draw_mask(masks / "logical_anomalies" / "000" / "000.png", 255)
    draw_mask(masks / "logical_anomalies" / "000" / "001.png", 254, (slice(28, 40), slice(24, 48)))
    draw_mask(masks / "structural_anomalies" / "000" / "000.png", 254)
    (root / "defects_config.json").write_text(json.dumps(LOCO_DEFECTS))
    return root


def visa(top: Path, name: str = "candle", *, annotations: bool = True) -> Path:
    """One object of VisA, named in the split together with another that is not there."""
    root = top / name
    lines = ["object,split,label,image,mask", "cashew,train,normal,cashew/Data/Images/Normal/0000.JPG,"]
    for index in range(7):
        image = f"{name}/Data/Images/Normal/{index:04}.JPG"
        draw_part(top / image, index)
        lines.append(f"{name},{'train' if index < 5 else 'test'},normal,{image},")
    described = ["image,label,mask"]
    for index, kind in enumerate(("wax melded", "chunk of wax missing,foreign particals")):
        image, mask = (
            f"{name}/Data/Images/Anomaly/{index:03}.JPG",
            f"{name}/Data/Masks/Anomaly/{index:03}.png",
        )
        draw_part(top / image, 300 + index, defective=True)
        draw_mask(top / mask, value=1 + index)
        lines.append(f"{name},test,anomaly,{image},{mask}")
        described.append(f'{image},"{kind}",{mask}')
    (top / "split_csv").mkdir()
    (top / "split_csv" / "1cls.csv").write_text("\n".join(lines) + "\n")
    if annotations:
        (root / "image_anno.csv").write_text("\n".join(described) + "\n")
    return root


def folders(root: Path, good: int = 10) -> Path:
    """``good`` and two folders of defects, of which only dents have masks."""
    for index in range(good):
        draw_part(root / "good" / f"{index:03}.png", index)
    for index in range(2):
        draw_part(root / "dent" / f"{index:03}.png", 200 + index, defective=True)
        draw_mask(root / "ground_truth" / "dent" / f"{index:03}.png")
        draw_part(root / "stain" / f"{index:03}.png", 300 + index, defective=True)
    return root


def csv_list(folder: Path, rows: Sequence[str] | None = None) -> Path:
    """A list beside its images."""
    for index in range(4):
        draw_part(folder / "images" / f"{index}.png", index)
    draw_part(folder / "images" / "bad.png", 9, defective=True)
    draw_mask(folder / "masks" / "bad.png")
    path = folder / "list.csv"
    rows = rows or (
        "path,label,defect,mask,split",
        "images/0.png,good,,,train",
        "images/1.png,good,,,train",
        "images/2.png,good,,,validation",
        "images/3.png,good,,,test",
        "images/bad.png,defective,dent,masks/bad.png,test",
    )
    path.write_text("\n".join(rows) + "\n")
    return path
