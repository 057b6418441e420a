"""What people call the folders of a data set, whatever the case, width, spaces, dots and dashes."""

import re
from pathlib import Path
from typing import Literal

from foundation.errors import InputError
from pictures.image_folder import MASKS, folded, plain, subfolders

Role = Literal["good", "defective", "unclear", "train", "validation", "test", "masks", "unknown"]


def _names(*rows: str) -> frozenset[str]:
    return frozenset(name for row in rows for name in row.split())


_ROLES: dict[Role, frozenset[str]] = {
    "good": _names(
        "good goods ok okay normal normals pass passed io gut fine healthy clean perfect golden conform",
        "conforme nodefect nodefects defectfree faultfree nondefective noanomaly anomalyfree",
        "accepted acceptable conforming undamaged intact flawless sound einwandfrei golden",
        "bon bons bueno buenos buena buenas buono buoni buona buone bom boa boas",
        "correct corretto correcto",
        "goed goede bra godkänd hyvä dobre dobry dobrý dobré dobra dobro ispravno iyi sağlam jó jók bun bune",
        "хорошие хороший годные годный норма годен καλό καλά 良品 良 合格 合格品 正常 正常品 良好 양품 정상",
    ),
    "defective": _names(
        "ng bad bads nok notok notgood nogood abnormal abnormals anomaly anomalies anomalous anomal ko",
        "defect defects defective defectives fail failed fails failure failures fault faults faulty nio",
        "reject rejects rejected scrap scraps scrapped damaged error errors unhealthy outlier outliers",
        "notnormal nonconforming nonconforme schlecht ausschuss defekt defekte fehler mauvais malo cattivo",
        "scarto scarti difetto difetti difettoso difettosi malos mala malas cattivi rebut",
        "rebuts défaut défauts",
        "défectueux defecto defectos defectuoso defectuosos defeito defeitos defeituoso ruim ruins",
        "rework nacharbeit",
        "slecht slechte afkeur fout fouten dålig dåliga fel kasserad viallinen vialliset huono",
        "złe zły zle wadliwe wada wady braki vadné vadný vada vady zmetek zmetky škart loše",
        "hatalı kötü kusurlu",
        "hibás rossz selejt defecte rebutat брак бракованные бракованный дефект",
        "дефекты плохие плохой негодные",
        "不良 不良品 不合格 不合格品 异常 異常 異常品 缺陷 瑕疵 欠陥 欠陥品 次品 废品 불량 불량품 결함",
    ),
    "unclear": _names(
        "positive negative pos neg positives negatives true false yes no 0 1 p n",
        "unknown unclear unsorted unlabeled unlabelled mixed mix suspect suspects doubtful unsure unsortiert",
    ),
    "train": _names("train training trainset trainingset"),
    "validation": _names("val valid validate validation validationset valset"),
    "test": _names("test testing tests testset"),
    "masks": MASKS,
}
_SPLITS: tuple[Role, ...] = ("train", "validation", "test")
_KINDS_OF_DEFECTS = _names(
    "scratch scratches scratched dent dents dented crack cracks cracked hole holes stain stains stained",
    "contamination contaminations broken breakage chip chips chipped burr burrs bent cut cuts missing tear",
    "kratzer delle riss loch fleck bruch grat",
)
_UNITS = ("parts", "part", "images", "image", "samples", "sample", "pictures", "imgs", "img", "pics", "teile")


def role(folder: Path) -> Role:
    """Say what a folder's name says of its images; unknown where it says nothing."""
    name = plain(folder.name)
    for unit in _UNITS:  # OK parts, bad_images
        if name.endswith(unit) and name != unit:
            name = name.removesuffix(unit)
            break
    return next((known for known, names in _ROLES.items() if name in names), "unknown")


def named(folder: Path, wanted: Role) -> Path | None:
    """Find the one folder in a folder whose name says what is wanted; None where there is none.

    Raises:
        InputError: there are several, or the folder cannot be read.
    """
    found = [path for path in subfolders(folder) if role(path) == wanted]
    if len(found) > 1:
        both = " and ".join(path.name for path in found)
        raise InputError(f"{folder}: {both} are both names for {wanted} images; expected one such folder")
    return found[0] if found else None


def check_good(folder: Path) -> None:
    """Look through a folder of good images for folders whose names say something else.

    Raises:
        InputError: there is one of defective parts, of a split, or one that may be either.
    """
    for path in _below(folder, set()):
        says = _against_good(path)
        if says is not None:
            raise InputError(
                f"{path}: {says}, but it lies in {folder} among images that would be taken as good"
            )


def _against_good(path: Path) -> str | None:
    found, words = role(path), set(re.split(r"[\W_]+", folded(path.name)))
    if found == "defective" or words & _ROLES["defective"]:
        return "its name says that it holds defective parts"
    if words & _KINDS_OF_DEFECTS or plain(path.name) in _KINDS_OF_DEFECTS:
        return "its name is that of a kind of defects"
    if found in _SPLITS or words & set().union(*(_ROLES[split] for split in _SPLITS)):
        return "its name is that of a split"
    if found == "unclear":
        return "its name may mean good or defective parts"
    return None


def _below(folder: Path, visited: set[tuple[int, int]]) -> list[Path]:
    status = folder.stat()
    if (status.st_dev, status.st_ino) in visited:
        return []
    visited.add((status.st_dev, status.st_ino))
    found = []
    for path in subfolders(folder):
        if role(path) != "masks":
            found += [path, *_below(path, visited)]
    return found
