"""Golden samples: pictures of known parts beside a calibration, with the verdict and the score they must get.

They prove that an engine, its runtime, its driver and its device still compute what they computed when a
person looked at these parts.
"""

import hashlib
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from calibration.calibration_file import Calibration
from engine_runtime.engine import ANOMALY_MAP, SCORE, Engine
from engine_runtime.manifest import Manifest
from foundation.errors import InputError, printable
from foundation.files import replacing, sha256
from foundation.yaml_file import read_text, read_yaml, yaml_text
from pictures.frames import Frame, fit
from pictures.image_file import read_image
from pictures.locating.reference import Reference
from pictures.mask import Levels, weigh
from pictures.recording_note import note_of
from pictures.region import seen_region
from pictures.tile_merge import TileMerge
from pictures.trained_on import TrainedOn, trained_on

LIST: Final = "golden.yaml"
A_LIST: Final = "a list of golden samples, written by inspectctl golden add"
MOST_SAMPLES: Final = 200
_SHARE: Final = 0.02
"""Of a score, by which it may move where the calibration does not say more: rounding in another order, or in
half precision, stays below this."""

Expected = Literal["pass", "reject"]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Entry(BaseModel):
    """One line of the list."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    file: str = Field(pattern=r"^[^/\\\x00]{1,255}$", description="in the same folder")
    sha256: Sha256 = Field(description="of the file")
    expected: Expected
    score: float = Field(allow_inf_nan=False, description="when it was added, or accepted again")
    added_at: str = Field(description="ISO 8601, UTC")


class GoldenList(BaseModel):
    """The list of a folder of golden samples."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format_version: Literal[1]
    engine_sha256: Sha256 = Field(description="of the payload of the engine that gave the scores")
    quantiles: dict[str, tuple[float, float]] = Field(description="with which it gave them")
    samples: tuple[Entry, ...] = Field(max_length=MOST_SAMPLES)

    @field_validator("samples")
    @classmethod
    def _are_each_there_once(cls, samples: tuple[Entry, ...]) -> tuple[Entry, ...]:
        """Refuse a picture that is there twice: it might have to get two verdicts."""
        for of_entry in ("file", "sha256"):
            counted = Counter(getattr(entry, of_entry) for entry in samples)
            for entry in samples:
                if counted[getattr(entry, of_entry)] > 1:
                    raise ValueError(f"{entry.file} is there twice")
        return samples


@dataclass(frozen=True, slots=True)
class GoldenSample:
    """A sample as a lane judges it."""

    name: str
    frame: Frame
    """H×W×3 or tiles×H×W×3 uint8, BGR, as the engine takes it."""
    expected: Expected
    score: float
    allowed: float
    """By how much the score may differ."""

    def trouble(self, score: float, threshold: float) -> str | None:
        """Tell in one line what is wrong with a score; None where nothing is."""
        found = "reject" if score > threshold else "pass"
        moved = abs(score - self.score)
        numbers = (
            f"score {score:.4g}, expected {self.score:.4g} ± {self.allowed:.2g}, threshold {threshold:.4g}"
        )
        if found != self.expected:
            return f"{self.name}: expected {self.expected}, found {found}: {numbers}"
        if moved > self.allowed:
            return f"{self.name}: {found} as expected, but its score moved by {moved:.3g}: {numbers}"
        return None


def folder_of(calibration: Path) -> Path:
    """Give the folder of a calibration's golden samples."""
    return calibration.with_suffix(".golden")


def allowed(calibration: Calibration, score: float) -> float:
    """Give by how much a sample's score may differ from the expected one."""
    by_calibration = calibration.score_tolerance
    if by_calibration is None:
        by_calibration = _SHARE * abs(calibration.threshold)
    return max(by_calibration, _SHARE * abs(score))


def load_golden(
    path: Path,
    calibration: Calibration,
    manifest: Manifest,
    merge: TileMerge | None,
    *,
    references: Iterable[Reference],
) -> tuple[GoldenSample, ...]:
    """Read the golden samples of a calibration.

    Args:
        path: the calibration's file; the samples lie in a folder beside it.
        calibration: what it says.
        manifest: of its engine.
        merge: of the tiles; None where a picture is one frame.
        references: that the line's cameras look for; one of them brings the parts to their place, where the
            calibration says so.

    Raises:
        InputError: there are none, one was altered, is damaged or of another size, or they were made for
            another engine.
    """
    folder = folder_of(path)
    found = read_list(folder)
    if found is None or not found.samples:
        raise InputError(f"{folder}: holds no golden samples; expected some: run inspectctl golden add")
    _refuse_other_engine(folder, found, calibration)
    reference = _reference_of(calibration, manifest, references)
    return tuple(
        _sample(folder, entry, calibration, manifest, merge, reference=reference) for entry in found.samples
    )


def _reference_of(
    calibration: Calibration, manifest: Manifest, references: Iterable[Reference]
) -> Reference | None:
    """Find the reference that brought the calibration's parts to their place: a camera's, or the model's.

    Raises:
        InputError: there is none.
    """
    if calibration.locate is None:
        return None
    of_model = trained_on(manifest.model_metadata).reference
    for reference in [*references, *([] if of_model is None else [of_model])]:
        if reference.digest == calibration.locate:
            return reference
    raise InputError(
        f"locate: found no reference {calibration.locate[:12]}… at the line's cameras, expected the one of "
        "the calibration"
    )


def _sample(
    folder: Path,
    entry: Entry,
    calibration: Calibration,
    manifest: Manifest,
    merge: TileMerge | None,
    *,
    reference: Reference | None,
) -> GoldenSample:
    file = folder / entry.file
    if sha256(file) != entry.sha256:
        raise InputError(f"{file}: was altered: its SHA-256 is not the one in {LIST}; add it again")
    frame = frame_of(file, calibration, manifest, merge, reference=reference)
    return GoldenSample(entry.file, frame, entry.expected, entry.score, allowed(calibration, entry.score))


def frame_of(
    file: Path,
    calibration: Calibration,
    manifest: Manifest,
    merge: TileMerge | None,
    *,
    reference: Reference | None,
) -> Frame:
    """Read a picture as the camera's process would give it to the engine.

    Raises:
        InputError: it cannot be read, shows another region than the calibration's images, or has another
            size than its camera's pictures.
    """
    picture = read_image(file)
    known = TrainedOn(calibration.roi, calibration.tiles, calibration.camera_picture, reference)
    shown, size = seen_region([file], None, known), manifest.input_size
    cut = shown.cut
    camera, height, width = calibration.camera_picture, *picture.shape[:2]
    is_whole = note_of(file) is None and (cut is not None or calibration.roi is None)
    if is_whole and camera is not None and (height, width) != camera:
        raise InputError(
            f"{file}: found {width}×{height} pixels, expected {camera.width}×{camera.height}, the size of "
            "the camera's pictures"
        )
    try:
        seen = shown.view.see(picture)
        return fit(seen, size) if merge is None else merge.grid.cut(seen, size)
    except InputError as error:
        raise InputError(f"{file}: {error}") from error


def _refuse_other_engine(folder: Path, found: GoldenList, calibration: Calibration) -> None:
    if found.engine_sha256 != calibration.engine_sha256 or found.quantiles != calibration.quantiles:
        raise InputError(
            f"{folder / LIST}: its scores are of another engine or calibration "
            f"({found.engine_sha256[:12]}…): run inspectctl golden test --accept, which shows and takes over "
            "the new ones"
        )


def read_list(folder: Path) -> GoldenList | None:
    """Read the list of a folder; None where there is none.

    Raises:
        InputError: it cannot be read, or is something else.
    """
    path = folder / LIST
    if not path.exists():
        return None
    file = read_yaml(path, A_LIST)
    try:
        return GoldenList.model_validate_json(file.json)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(str(step) for step in first["loc"])
        raise InputError(f"{path}: {key}: {first['msg']}; expected {A_LIST}") from error


def write_list(folder: Path, made_by: Calibration | GoldenList, samples: Sequence[Entry]) -> None:
    """Write the list, whole or not at all; the scores are of the engine and quantiles of ``made_by``.

    Raises:
        InputError: the folder cannot be written.
    """
    content = GoldenList(
        format_version=1,
        engine_sha256=made_by.engine_sha256,
        quantiles=made_by.quantiles,
        samples=tuple(samples),
    )
    with replacing(folder / LIST) as file:
        file.write(b"# Written by inspectctl golden. Pictures of known parts, and what they must get.\n")
        file.write(yaml_text(content.model_dump(mode="json")).encode())


def list_digest(path: Path) -> str:
    """Give the SHA-256 of the list beside a calibration, which holds those of its pictures."""
    return hashlib.sha256(read_text(folder_of(path) / LIST, A_LIST)).hexdigest()


def judge_again(
    path: Path,
    calibration: Calibration,
    found: GoldenList,
    engine: Engine,
    merge: TileMerge | None,
    *,
    weights: Levels | None,
    references: Iterable[Reference],
) -> list[tuple[GoldenSample, float]]:
    """Have an engine score the samples beside a calibration, whichever engine gave their scores.

    The arguments are those of ``add_samples``, and the list that was found.

    Returns:
        Each sample and its score now.

    Raises:
        InputError: a picture was altered or cannot be used.
        EngineFailed: the runtime raised.
    """
    folder = folder_of(path)
    reference = _reference_of(calibration, engine.manifest, references)
    samples = [
        _sample(folder, entry, calibration, engine.manifest, merge, reference=reference)
        for entry in found.samples
    ]
    return [(sample, _score(sample.frame, calibration, engine, weights)) for sample in samples]


def add_samples(
    path: Path,
    calibration: Calibration,
    files: Sequence[tuple[Path, Expected]],
    engine: Engine,
    merge: TileMerge | None,
    *,
    weights: Levels | None,
    references: Iterable[Reference],
) -> list[Entry]:
    """Have an engine score pictures, and keep copies of them beside a calibration; all of them or none.

    Args:
        path: the calibration's file.
        calibration: what it says.
        files: pictures and the verdict that each must get.
        engine: the one of the calibration, opened; with tiles, the one that merges them.
        merge: of the tiles; None where a picture is one frame.
        weights: of the map's cells, where a mask says where to look; None: everywhere.
        references: that the line's cameras look for.

    Returns:
        What was added.

    Raises:
        InputError: a picture cannot be used, is there already, or gets another verdict than expected.
        EngineFailed: the runtime raised.
    """
    folder = folder_of(path)
    there = read_list(folder)
    kept = () if there is None else there.samples
    if there is not None and kept:
        _refuse_other_engine(folder, there, calibration)
    if len(kept) + len(files) > MOST_SAMPLES:
        raise InputError(
            f"{folder}: would hold {len(kept) + len(files)} samples; expected at most {MOST_SAMPLES}"
        )
    reference = _reference_of(calibration, engine.manifest, references)
    hashes = {entry.sha256: entry for entry in kept}
    names = {entry.file for entry in kept}
    added: list[Entry] = []
    for file, expected in files:
        digest = sha256(file)
        if digest in hashes:
            same = hashes[digest]
            raise InputError(f"{file}: is there already, as {same.file} ({same.expected})")
        frame = frame_of(file, calibration, engine.manifest, merge, reference=reference)
        score = _score(frame, calibration, engine, weights)
        found = "reject" if score > calibration.threshold else "pass"
        if found != expected:
            raise InputError(
                f"{file}: expected {expected}, found {found}: score {score:.4g}, threshold "
                f"{calibration.threshold:.4g}; a golden sample shows what the line decides today: is it a "
                "part of this product?"
            )
        now = datetime.now(UTC).isoformat(timespec="seconds")
        entry = Entry(
            file=_free_name(file, names), sha256=digest, expected=expected, score=score, added_at=now
        )
        hashes[digest] = entry
        names.add(entry.file)
        added.append(entry)
    with _copied(folder, list(zip([file for file, _ in files], added, strict=True))):
        write_list(folder, calibration, [*kept, *added])
    return added


def _score(frame: Frame, calibration: Calibration, engine: Engine, weights: Levels | None) -> float:
    """Score a frame as a lane does."""
    outputs = engine.infer([frame], calibration.quantiles_array(), (SCORE, ANOMALY_MAP))
    scores = outputs[SCORE] if weights is None else weigh(outputs[ANOMALY_MAP], weights)[0]
    return float(scores[0])


def _free_name(file: Path, taken: set[str]) -> str:
    """Give the file's name, with a number where it is taken."""
    name, number = printable(file.name), 1
    while name in taken or name == LIST:
        number += 1
        name = f"{printable(file.stem)}-{number}{file.suffix}"
    return name


@contextmanager
def _copied(folder: Path, files: Sequence[tuple[Path, Entry]]) -> Iterator[None]:
    """Copy pictures into the folder; what was copied is removed when the block raises."""
    written: list[Path] = []
    try:
        folder.mkdir(exist_ok=True)
        for file, entry in files:
            target = folder / entry.file
            with replacing(target) as copy, file.open("rb") as original:
                shutil.copyfileobj(original, copy)
            written.append(target)
            if sha256(target) != entry.sha256:
                raise InputError(f"{file}: was changed while it was added; add it again")
        yield
    except BaseException as error:
        for target in written:
            target.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise InputError(f"{folder}: cannot be written: {error.strerror or error}") from error
        raise
