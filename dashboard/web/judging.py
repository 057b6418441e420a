"""Answers to people who judge: labels, undo, what is to be judged next."""

from dataclasses import replace
from typing import Any, Final

from starlette.responses import Response

from dashboard import gallery
from dashboard.config import is_kind
from dashboard.labels import Labels
from dashboard.records import LABELS, Shown, parse_id
from dashboard.watch import LineWatch
from dashboard.web.answers import Query, Refused, answer, body, text
from dashboard.web.gallery import wanted
from dashboard.web.site import Ask, beside

_MOST_AT_ONCE: Final = 500
_SAYABLE: Final = ("defect", "false_reject", "unsure")


async def label(ask: Ask) -> Response:
    """``POST …/labels``."""
    content = await body(ask.request, "ids", "label", "kind", "note")
    labels, watch = ask.site.need_labels(), ask.watch
    said, kind = content.get("label"), content.get("kind")
    if said is not None and said not in _SAYABLE:
        raise Refused(400, "bad_body", key="label", found=f"{said!r:.80}", expected=", ".join(_SAYABLE))
    if kind is not None and (not is_kind(kind) or said != "defect"):
        raise Refused(400, "bad_body", key="kind", found=f"{kind!r:.80}", expected="a name, of a defect")
    note = text(content, "note")
    names = content.get("ids")
    if not isinstance(names, list) or not 1 <= len(names) <= _MOST_AT_ONCE:
        raise Refused(400, "bad_body", key="ids", found="none", expected=f"1 to {_MOST_AT_ONCE} ids")
    user = ask.user

    def note_down() -> list[dict[str, Any]]:
        keys = [_existing(watch, name) for name in dict.fromkeys(map(str, names))]
        labels.label(user, watch.line.name, keys, said, kind=kind, note=note)
        return [verdict.short() for verdict in bring_over(watch, labels, keys)]

    labelled = await beside(note_down)
    watch.tell("labels", user)
    return answer({"labelled": labelled, "undo": labels.undoable(user, watch.line.name)})


async def undo(ask: Ask) -> Response:
    """``POST …/labels/undo``."""
    await body(ask.request)
    labels, watch, user = ask.site.need_labels(), ask.watch, ask.user

    def take_back() -> list[dict[str, Any]]:
        keys = labels.undo(user, watch.line.name)
        if not keys:
            raise Refused(404, "no_such", what="label", name=user)
        return [verdict.short() for verdict in bring_over(watch, labels, keys)]

    undone = await beside(take_back)
    watch.tell("labels", user)
    return answer({"undone": undone, "undo": labels.undoable(user, watch.line.name)})


async def review(ask: Ask) -> Response:
    """``GET …/review``."""
    which, query = wanted(ask.query, "opinion", "limit")
    second = query.one_of("opinion", ("first", "second"), "first") == "second"
    limit = query.whole("limit", 1, 200, 20)
    labels, watch, user = ask.site.need_labels(), ask.watch, ask.user

    def look() -> dict[str, Any]:
        rollup = watch.need_rollup()
        if not second:
            open_ones = replace(which, opinions=0)
            items = gallery.page(rollup, open_ones, 0, limit)
            return {"left": gallery.count(rollup, open_ones), "items": [item.short() for item in items]}
        waiting = waiting_for_second(watch, labels, user, which)
        return {"left": len(waiting), "items": [item.short(blind=True) for item in waiting[:limit]]}

    return answer(await beside(look))


async def summary(ask: Ask) -> Response:
    """``GET …/labels/summary``."""
    Query(ask.query)
    labels, watch, user = ask.site.need_labels(), ask.watch, ask.user

    def count() -> dict[str, Any]:
        rollup = watch.need_rollup()
        found = rollup.fetch(
            "SELECT label, count(*) FROM verdicts WHERE decision = 1 AND decision > 0 GROUP BY label"
        )
        counted = dict.fromkeys(LABELS, 0) | {LABELS[place]: number for place, number in found}
        return {
            **counted,
            "by_user": labels.by_user(watch.line.name),
            "kinds": labels.kinds(watch.line.name),
            "second_left": len(waiting_for_second(watch, labels, user, gallery.Wanted())),
        }

    return answer(await beside(count))


def waiting_for_second(watch: LineWatch, labels: Labels, user: str, which: gallery.Wanted) -> list[Shown]:
    """List what exactly one other person judged."""
    rollup, line = watch.need_rollup(), watch.line.name
    once = replace(which, opinions=1, labels=LABELS[1:], upto=None)
    return [
        verdict
        for verdict in gallery.page(rollup, once, 0, 100_000)
        if all(opinion.user != user for opinion in labels.opinions(line, verdict.boot, verdict.seq))
    ]


def bring_over(watch: LineWatch, labels: Labels, keys: list[tuple[str, int]]) -> list[Shown]:
    """Bring what people say of some verdicts into the roll-up, and give these as they are then."""
    rollup, line = watch.need_rollup(), watch.line.name
    rollup.label((boot, seq, *labels.summary(line, boot, seq)) for boot, seq in keys)
    return [found for key in keys if (found := rollup.find(*key)) is not None]


def _existing(watch: LineWatch, name: str) -> tuple[str, int]:
    key = parse_id(name)
    if key is None or watch.need_rollup().find(*key) is None:
        raise Refused(404, "no_such", what="verdict", name=name[:80])
    return key
