"""Answers about the lines of all plants."""

from datetime import date

from starlette.responses import Response

from dashboard.lake import REPORTS, LakeBusy, ask_lake
from dashboard.web.answers import Query, Refused, answer
from dashboard.web.site import Ask, beside
from foundation.errors import WorkFailed


async def report(ask: Ask) -> Response:
    """``GET /api/lake/REPORT``."""
    name, folder = ask.request.path_params["report"], ask.site.config.lake
    if folder is None or name not in REPORTS:
        raise Refused(404, "no_such", what="report", name=name[:80])
    query = Query(ask.query, "plant", "line", "since", "until", *(["part"] if name == "part" else []))
    choice = {key: query.text(key) for key in ("plant", "line", "since", "until")}
    for key in ("since", "until"):
        if not _is_day(choice[key]):
            raise Refused(400, "bad_query", key=key, found=choice[key], expected="a day such as 2026-01-31")
    part = query.text("part") if name == "part" else None
    if name == "part" and part is None:
        raise Refused(400, "bad_query", key="part", found="", expected="the id of a part")
    try:
        return answer(await beside(ask_lake, folder, name, choice, part))
    except LakeBusy as busy:
        raise Refused(409, "in_the_way") from busy
    except WorkFailed as failed:
        raise Refused(503, "not_available", str(failed)) from failed


def _is_day(text: str | None) -> bool:
    try:
        return text is None or date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False
