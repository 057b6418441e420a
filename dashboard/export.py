"""Rejects and labels in files that others read: a zip with a list of hashes, or folders to learn from."""

import csv
import hashlib
import io
import shutil
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from dashboard import gallery
from dashboard.gallery import Wanted
from dashboard.jobs import Job
from dashboard.kept_pictures import NoPicture, look_at, path_of, read
from dashboard.labels import Labels
from dashboard.records import Shown
from dashboard.watch import LineWatch
from foundation.errors import Unavailable, WorkFailed
from pictures.folder_names import role

_AT_ONCE: Final = 500
_LEAST_FREE: Final = 200_000_000
_COLUMNS: Final = (
    *("id", "captured_at", "camera", "frame", "part", "decision", "reason", "score", "threshold", "peak_x"),
    *("peak_y", "latency_ms", "product", "model", "label", "kind", "opinions", "frame_file", "overlay_file"),
)
_LABEL_COLUMNS: Final = ("id", "user", "label", "kind", "at", "note")


def export_zip(job: Job, watch: LineWatch, labels: Labels | None, wanted: Wanted, target: Path) -> Path:
    """Write pictures, ``verdicts.csv``, ``labels.csv`` and ``SHA256SUMS`` of what is wanted into a zip.

    Pictures that are gone or damaged are left out; their cells in the table are empty.

    Raises:
        Unavailable: the disk is nearly full.
    """
    table, said, sums = _Table(_COLUMNS), _Table(_LABEL_COLUMNS), []
    with _zip(target) as archive:

        def put(name: str, content: bytes) -> None:
            sums.append(f"{hashlib.sha256(content).hexdigest()}  {name}\n")
            archive.writestr(name, content)

        for verdict in _all(job, watch, wanted):
            names = {}
            for what in ("frame", "overlay"):
                path, content = _content(watch, verdict, what)
                names[what] = None if content is None else f"pictures/{path}"
                if content is not None:
                    put(f"pictures/{path}", content)
            _room(target)
            table.add(*_row(verdict), names["frame"], names["overlay"])
            for opinion in _opinions(labels, watch, verdict):
                said.add(*opinion)
        put("verdicts.csv", bytes(table))
        put("labels.csv", bytes(said))
        archive.writestr("SHA256SUMS", "".join(sums))
    return target


def export_folders(job: Job, watch: LineWatch, labels: Labels | None, wanted: Wanted, target: Path) -> Path:
    """Write labelled frames into a zip, sorted into ``good/`` and ``defects/KIND/``.

    Raises:
        WorkFailed: nothing is labelled.
        Unavailable: the disk is nearly full.
    """
    said = _Table(_LABEL_COLUMNS)
    sums: list[str] = []
    with _zip(target) as archive:

        def put(name: str, content: bytes) -> None:
            sums.append(f"{hashlib.sha256(content).hexdigest()}  {name}\n")
            archive.writestr(name, content)

        for verdict, name, content in sorted_frames(job, watch, wanted):
            put(name, content)
            _room(target)
            for opinion in _opinions(labels, watch, verdict):
                said.add(*opinion)
        if not sums:
            raise WorkFailed("no picture is labelled as a defect, a false reject or a good part")
        put("labels.csv", bytes(said))
        archive.writestr("SHA256SUMS", "".join(sums))
    return target


def write_folders(job: Job, watch: LineWatch, wanted: Wanted, folder: Path) -> tuple[int, int]:
    """Write labelled frames into a folder of the dashboard's own, in the place of what was there.

    Returns:
        How many good and how many defective ones.
    """
    for name in ("good", "defects"):
        shutil.rmtree(folder / name, ignore_errors=True)
    good = defective = 0
    for _, name, content in sorted_frames(job, watch, wanted):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        _room(path)
        good, defective = good + name.startswith("good/"), defective + name.startswith("defects/")
    return good, defective


def sorted_frames(job: Job, watch: LineWatch, wanted: Wanted) -> Iterator[tuple[Shown, str, bytes]]:
    """Give the frames on whose label people agree: the verdict, where the frame belongs, and its content."""
    for verdict in _all(job, watch, wanted):
        if verdict.label == "false_reject":
            folder = "good"
        elif verdict.label == "defect":
            folder = f"defects/{folder_of(verdict.kind)}"
        else:
            continue
        name, content = _content(watch, verdict, "frame")
        if content is not None:
            yield verdict, f"{folder}/{name}", content


def folder_of(kind: str | None) -> str:
    """Name the folder of a kind of defect; never one that is read as good parts, masks or a split."""
    if kind is None:
        return "defect"
    return kind if role(Path(kind)) in {"unknown", "defective"} else f"defect {kind}"


def _all(job: Job, watch: LineWatch, wanted: Wanted) -> Iterator[Shown]:
    rollup = watch.need_rollup()
    wanted = replace(wanted, upto=wanted.upto or rollup.last_row())  # what comes meanwhile moves nothing
    total = gallery.count(rollup, wanted)
    for offset in range(0, total, _AT_ONCE):
        for number, verdict in enumerate(gallery.page(rollup, wanted, offset, _AT_ONCE)):
            job.progress(offset + number, total)
            yield verdict
    job.progress(total, total)


def _content(watch: LineWatch, verdict: Shown, what: str) -> tuple[str, bytes | None]:
    try:
        path = path_of(verdict, watch.line.archive, what)
        look_at(path)
        return path.name, read(path)
    except NoPicture:
        return "", None


def _row(verdict: Shown) -> tuple[object, ...]:
    x, y = verdict.peak or (None, None)
    return (
        *(verdict.id, _stamp(verdict.at_us), verdict.camera, verdict.frame, verdict.part, verdict.decision),
        *(verdict.reason, verdict.score, verdict.threshold, x, y, verdict.total_ms, verdict.product),
        *(verdict.model, None if verdict.label == "none" else verdict.label, verdict.kind, verdict.opinions),
    )


def _opinions(labels: Labels | None, watch: LineWatch, verdict: Shown) -> Iterator[tuple[object, ...]]:
    if labels is not None and verdict.opinions:
        for said in labels.opinions(watch.line.name, verdict.boot, verdict.seq):
            yield verdict.id, said.user, said.label, said.kind, _stamp(said.at_us), said.note


def _stamp(at_us: int) -> str:
    return datetime.fromtimestamp(at_us / 1e6, UTC).isoformat(timespec="microseconds")


class _Table:
    """A CSV file. Cells that a spreadsheet would take for a formula begin with an apostrophe."""

    def __init__(self, columns: tuple[str, ...]) -> None:
        self._text = io.StringIO()
        self._writer = csv.writer(self._text)
        self._writer.writerow(columns)

    def add(self, *cells: object) -> None:
        self._writer.writerow(
            f"'{cell}" if isinstance(cell, str) and cell[:1] in {"=", "+", "-", "@", "\t", "\r"} else cell
            for cell in cells
        )

    def __bytes__(self) -> bytes:
        return self._text.getvalue().encode()


def _room(target: Path) -> None:
    if shutil.disk_usage(target.parent).free < _LEAST_FREE:
        raise Unavailable(f"{target.parent}: has less than {_LEAST_FREE // 1_000_000} MB left")


@contextmanager
def _zip(target: Path) -> Iterator[zipfile.ZipFile]:
    """Write a zip that takes its name when it is whole."""
    partial = target.with_suffix(".zip.partial")
    try:
        # Pictures are compressed already.
        with zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED, strict_timestamps=False) as archive:
            yield archive
        partial.replace(target)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


Writer = Callable[[Job, LineWatch, Labels | None, Wanted, Path], Path]
FORMATS: Final[dict[str, Writer]] = {"zip": export_zip, "folders": export_folders}
