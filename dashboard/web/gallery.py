"""Answers about verdicts: the gallery, one in detail, its pictures."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, get_args

import numpy as np
from starlette.responses import Response

from dashboard import gallery
from dashboard.gallery import Wanted
from dashboard.kept_pictures import NoPicture, Picture, decoded, essence, look_at, note, path_of, read
from dashboard.records import DECISIONS, LABELS, Shown, parse_id
from dashboard.watch import LineWatch
from dashboard.web.answers import Query, Refused, answer
from dashboard.web.site import Ask, beside
from verdicts.verdict import Reason

FILTERS: Final = (
    *("decision", "camera", "product", "reason", "model", "score_min", "score_max", "from", "to", "label"),
    *("kind", "part", "peak", "pictures", "sort", "upto"),
)
_LARGEST: Final = 1e15
_AROUND: Final = 5
_MOST_COMPARED: Final = 60
_FOR_EVER: Final = {"Cache-Control": "private, max-age=31536000, immutable"}


def wanted(content: Mapping[str, str], *more: str) -> tuple[Wanted, Query]:
    """Read the filters of the gallery.

    Raises:
        Refused: one is wrong.
    """
    query = Query(content, *FILTERS, *more)
    peak = query.texts("peak")
    try:
        corners = [float(corner) for corner in peak]
    except ValueError:
        corners = []
    if peak and (len(corners) != 4 or not all(abs(corner) < _LARGEST for corner in corners)):
        raise Refused(400, "bad_query", key="peak", found=",".join(peak)[:80], expected="x0,y0,x1,y1")
    since, until = (query.number(key, 0, _LARGEST) for key in ("from", "to"))
    return Wanted(
        decisions=tuple(query.texts("decision", DECISIONS)) or ("reject",),
        cameras=tuple(query.texts("camera")),
        products=tuple(query.texts("product")),
        models=tuple(query.texts("model")),
        reasons=tuple(query.texts("reason", get_args(Reason))),
        labels=tuple(query.texts("label", LABELS)),
        kinds=tuple(query.texts("kind")),
        score_min=query.number("score_min", -_LARGEST, _LARGEST),
        score_max=query.number("score_max", -_LARGEST, _LARGEST),
        since_us=None if since is None else int(since * 1000),
        until_us=None if until is None else int(until * 1000),
        part=query.text("part"),
        peak=(corners[0], corners[1], corners[2], corners[3]) if corners else None,
        pictures=query.flag("pictures"),
        upto=query.whole("upto", 0, 2**53, 0) or None,
        sort=query.one_of("sort", gallery.SORTS, "newest"),
    ), query


async def verdicts(ask: Ask) -> Response:
    """``GET …/verdicts``."""
    which, query = wanted(ask.query, "offset", "limit")
    offset, limit = query.whole("offset", 0, 2**53, 0), query.whole("limit", 1, 500, 60)
    rollup = ask.watch.need_rollup()

    def find() -> dict[str, Any]:
        from dataclasses import replace

        last = rollup.last_row()
        shown = replace(which, upto=which.upto or last)
        total = gallery.count(rollup, shown)
        newer = 0 if shown.upto == last else gallery.count(rollup, which.without_end()) - total
        items = gallery.page(rollup, shown, offset, limit)
        return {
            "total": total,
            "offset": offset,
            "upto": shown.upto,
            "newer": max(0, newer),
            "items": [item.short() for item in items],
        }

    return answer(await beside(find))


async def filters(ask: Ask) -> Response:
    """``GET …/filters``."""
    watch = ask.watch
    rollup = watch.need_rollup()

    def find() -> dict[str, Any]:
        found = gallery.choices(rollup)
        return {**found, "picture_size": {name: _camera_size(watch, name) for name in found["cameras"]}}

    return answer(await beside(find))


def _camera_size(watch: LineWatch, camera: str) -> list[int] | None:
    """Find how large a camera's whole picture is: from its last archived picture."""
    rollup = watch.need_rollup()
    newest = rollup.rows("camera = ? AND archive IS NOT NULL ORDER BY row DESC LIMIT 1", rollup.id_of(camera))
    if not newest:
        return None
    try:
        path = path_of(newest[0], watch.line.archive, "frame")
        said = note(path)
        if said is not None:
            return [said.camera_picture.width, said.camera_picture.height]
        height, width = decoded(path).shape[:2]
    except NoPicture:
        return None
    return [width, height]


def find(watch: LineWatch, name: str) -> Shown:
    """Find a verdict by its id.

    Raises:
        Refused: it is not there (any more).
    """
    key = parse_id(name)
    found = None if key is None else watch.need_rollup().find(*key)
    if found is None:
        raise Refused(404, "no_such", what="verdict", name=name[:80])
    return found


async def verdict(ask: Ask) -> Response:
    """``GET …/verdicts/ID``."""
    query = Query(ask.query, "blind")
    blind, watch, name = query.flag("blind"), ask.watch, ask.request.path_params["id"]
    labels, user = ask.site.labels, ask.user

    def look() -> dict[str, Any]:
        rollup, found = watch.need_rollup(), find(watch, name)
        opinions = [] if labels is None else labels.opinions(watch.line.name, found.boot, found.seq)
        return {
            "verdict": found.short(blind=blind),
            "latency": {"wait": found.wait_ms, "infer": found.infer_ms, "total": found.total_ms},
            "boot": found.boot,
            "seq": found.seq,
            "pictures": {what: _picture(watch, found, what) for what in ("frame", "overlay")},
            "region": _region(watch, found),
            "opinions": [
                {
                    "user": opinion.user,
                    "label": opinion.label,
                    "kind": opinion.kind,
                    "at": opinion.at_us / 1000,
                    "note": opinion.note,
                }
                for opinion in opinions
                if not blind or opinion.user == user
            ],
            "around": [other.short(blind=blind) for other in gallery.around(rollup, found, _AROUND)],
            "similar_good": _similar_good(watch, found),
        }

    return answer(await beside(look))


def _picture(watch: LineWatch, verdict: Shown, what: str) -> dict[str, Any]:
    import time

    try:
        picture: Picture = look_at(path_of(verdict, watch.line.archive, what))
    except NoPicture as none:
        fresh = none.code == "gone" and time.time() * 1e6 - verdict.at_us < 10_000_000
        reason = NoPicture("not_yet") if fresh else none
        return {"url": None, "width": None, "height": None, "reason": reason.content()}
    name = "frame.png" if what == "frame" else "overlay.jpg"
    url = f"/api/lines/{watch.line.name}/verdicts/{verdict.id}/{name}"
    return {"url": url, "width": picture.width, "height": picture.height, "reason": None}


def _region(watch: LineWatch, verdict: Shown) -> dict[str, int] | None:
    try:
        said = note(path_of(verdict, watch.line.archive, "frame"))
    except NoPicture:
        return None
    if said is None:
        return None
    if said.roi is None:
        return {"x": 0, "y": 0, "width": said.camera_picture.width, "height": said.camera_picture.height}
    return {"x": said.roi.x, "y": said.roi.y, "width": said.roi.width, "height": said.roi.height}


def _similar_good(watch: LineWatch, verdict: Shown) -> dict[str, Any] | None:
    """Find the good part that looks most alike, among those that the archive kept last."""
    folder = watch.line.archive
    try:
        looked_for = essence(path_of(verdict, folder, "frame"))
    except NoPicture:
        return None
    best: tuple[float, Shown] | None = None
    for good in gallery.kept_passes(watch.need_rollup(), verdict, _MOST_COMPARED):
        try:
            likeness = float(np.dot(looked_for, _essence_of(path_of(good, folder, "frame"))))
        except NoPicture:
            continue
        if best is None or likeness > best[0]:
            best = likeness, good
    if best is None:
        return None
    return {
        "verdict": best[1].short(),
        "pictures": {what: _picture(watch, best[1], what) for what in ("frame", "overlay")},
        "likeness": round(best[0], 4),
    }


_essences: dict[Path, Any] = {}
_MOST_ESSENCES: Final = 2000


def _essence_of(path: Path) -> Any:
    """Give the essence of an archived picture; it never changes, and most are asked for again."""
    if path not in _essences:
        if len(_essences) >= _MOST_ESSENCES:
            _essences.clear()
        _essences[path] = essence(path)
    return _essences[path]


async def frame(ask: Ask) -> Response:
    """``GET …/verdicts/ID/frame.png``."""
    return await _file(ask, "frame")


async def overlay(ask: Ask) -> Response:
    """``GET …/verdicts/ID/overlay.jpg``."""
    return await _file(ask, "overlay")


async def _file(ask: Ask, what: str) -> Response:
    Query(ask.query)
    watch, name = ask.watch, ask.request.path_params["id"]

    def load() -> tuple[bytes, str]:
        path = path_of(find(watch, name), watch.line.archive, what)
        look_at(path)
        return read(path), "image/png" if path.suffix == ".png" else "image/jpeg"

    content, kind = await beside(load)
    return Response(content, media_type=kind, headers=_FOR_EVER)


async def thumbnail(ask: Ask) -> Response:
    """``GET …/verdicts/ID/thumbnail.jpg``."""
    side = Query(ask.query, "size").whole("size", 32, 512, 160)
    watch, name, thumbnails = ask.watch, ask.request.path_params["id"], ask.site.thumbnails
    content = await beside(
        lambda: thumbnails.of(path_of(find(watch, name), watch.line.archive, "overlay"), side)
    )
    return Response(content, media_type="image/jpeg", headers=_FOR_EVER)
