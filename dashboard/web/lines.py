"""Answers about lines as they are now."""

from starlette.responses import Response

from dashboard.records import Shown
from dashboard.rollup import COLUMNS
from dashboard.watch import LineWatch
from dashboard.web.answers import Query, Refused, answer
from dashboard.web.live import point, sample
from dashboard.web.site import Ask, beside

_MOST_POINTS = 2000


async def lines(ask: Ask) -> Response:
    """``GET /api/lines``."""
    watches = ask.site.watches.values()
    return answer({"lines": await beside(lambda: [watch.summary() for watch in watches])})


async def line(ask: Ask) -> Response:
    """``GET /api/lines/LINE``."""
    return answer(await beside(ask.site.live.whole_state, ask.watch))


async def preview(ask: Ask) -> Response:
    """``GET …/cameras/CAMERA/preview.jpg``."""
    Query(ask.query, "v")
    watch, camera = ask.watch, ask.request.path_params["camera"]
    health = watch.listening.health
    known = health is not None and camera in health.cameras
    if not known and (watch.rollup is None or watch.rollup.id_of(camera) < 0):
        raise Refused(404, "no_such", what="camera", name=camera[:80])
    content = await beside(ask.site.previews[watch.line.name].jpeg, camera)
    return Response(content, media_type="image/jpeg", headers={"Cache-Control": "private, max-age=60"})


async def strip(ask: Ask) -> Response:
    """``GET …/strip``."""
    query = Query(ask.query, "camera", "seconds")
    camera, seconds = query.text("camera"), query.number("seconds", 10, 3600, 600)
    assert seconds is not None
    verdicts = await beside(_recent, ask.watch, camera, seconds)
    points = [point(verdict) if camera is None else point(verdict)[1:] for verdict in verdicts]
    return answer({"points": points, "threshold": ask.watch.threshold})


def _recent(watch: LineWatch, camera: str | None, seconds: float) -> list[Shown]:
    import time

    rollup = watch.need_rollup()
    since_us = time.time_ns() // 1000 - int(seconds * 1e6)
    first = rollup.first_row_since(since_us)
    condition, values = "row >= ? AND at >= ?", [first, since_us]
    if camera is not None:
        condition, values = f"{condition} AND camera = ?", [*values, rollup.id_of(camera)]
    number = rollup.fetch(f"SELECT count(*) FROM verdicts WHERE {condition}", *values)[0][0]
    if number > 4 * _MOST_POINTS:  # what is left out need not be read
        condition += f" AND (decision > 0 OR row % {number // (2 * _MOST_POINTS)} = 0)"
    rows = rollup.fetch(f"SELECT {COLUMNS} FROM verdicts WHERE {condition} ORDER BY row", *values)
    return sample([rollup.shown(row) for row in rows], _MOST_POINTS)
