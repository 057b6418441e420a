"""Answers about thresholds: what another one would have done, and the change itself."""

import json
from dataclasses import asdict, dataclass
from datetime import datetime
from importlib.util import find_spec
from typing import Any, Final

from starlette.responses import Response

from calibration.calibration_file import read_calibration
from calibration.threshold_change import apply, counted_interval, digest, put_back
from dashboard.labels import Entry, Labels
from dashboard.rollup import Rollup
from dashboard.threshold_change import (
    LineDidNotAnswer,
    LineRefused,
    calibration_of,
    in_use,
    why_not,
)
from dashboard.watch import LineWatch
from dashboard.web.answers import Query, Refused, answer, body, number, text
from dashboard.web.site import Ask, beside
from dashboard.what_if import Key, Window, defects_let_through
from foundation.errors import InputError

_HOURS: Final = (0.02, 2160.0)
_SHOWN_AT_ONCE: Final = 24
_LARGEST: Final = 1e15


async def show(ask: Ask) -> Response:
    """``GET …/threshold``."""
    query = Query(ask.query, "product", "camera", "hours")
    watch, labels, key = ask.watch, ask.site.labels, _key(ask, query)

    def look() -> dict[str, Any]:
        rollup = watch.need_rollup()
        watch.refresh()
        window = ask.site.windows[watch.line.name].of(rollup, key, fresh=True)
        threshold = _judged_by(watch, key.product)
        histogram = window.histogram(rollup, threshold)
        reason = why_not(watch.line, key.product)
        return {
            "product": key.product,
            "model": key.model,
            "threshold": threshold,
            **_calibration(watch, key.product),
            "total": window.total,
            "passes": len(window.passes.scores),
            "rejects": len(window.rejects.scores),
            "since_at": window.since_us / 1000,
            **histogram,
            "tail": window.tail(rollup, histogram["edges"]),
            "estimate": _estimate(watch, rollup, window),
            "writable": reason is None,
            "reason": None if reason is None else {"code": reason[0], "values": {}, "detail": reason[1]},
            "back": None if labels is None else _shown_back(_back(watch, labels, key.product)),
            "proposals": [] if labels is None else open_proposals(labels, watch.line.name, key.product),
        }

    return answer(await beside(look))


async def preview(ask: Ask) -> Response:
    """``GET …/threshold/preview``."""
    query = Query(ask.query, "product", "camera", "hours", "threshold", "offset")
    threshold = query.number("threshold", -_LARGEST, _LARGEST)
    if threshold is None:
        raise Refused(400, "bad_query", key="threshold", found="nothing", expected="a number")
    watch, key, offset = ask.watch, _key(ask, query), query.whole("offset", 0, 10_000_000, 0)

    def look() -> dict[str, Any]:
        rollup = watch.need_rollup()
        window: Window = ask.site.windows[watch.line.name].of(rollup, key)
        change = window.preview(rollup, threshold)
        now = _judged_by(watch, key.product)
        changing = window.changing(rollup, threshold, offset, _SHOWN_AT_ONCE)
        return {
            "threshold": threshold,
            "now": now,
            "total": window.total,
            "since_at": window.since_us / 1000,
            "more_rejected": change.more_rejected,
            "fewer_rejected": change.fewer_rejected,
            "rejected": change.rejected,
            "defects_passing": change.defects_passing,
            "false_rejects_passing": change.false_rejects_passing,
            "good_rejected": change.good_rejected,
            "needs_second": now is not None
            and defects_let_through(rollup, key.product, key.model, now, threshold) > 0,
            "changing": [verdict.short() for verdict in changing],
            "changing_total": change.more_rejected + change.fewer_rejected,
        }

    return answer(await beside(look))


async def change(ask: Ask) -> Response:
    """``POST …/threshold``."""
    content = await body(ask.request, "product", "threshold", "reason", "now", "hours", "camera")
    product = _product(ask, content)
    threshold, now = number(content, "threshold"), number(content, "now")
    reason = text(content, "reason", least=3)
    if abs(threshold) > _LARGEST:
        raise Refused(400, "bad_body", key="threshold", found=f"{threshold:g}", expected="a number")
    return await _propose(ask, _Wished(product, now, threshold, reason))


async def back(ask: Ask) -> Response:
    """``POST …/threshold/back``."""
    content = await body(ask.request, "product", "reason")
    labels, watch = ask.site.need_labels(), ask.watch
    product = _product(ask, content)
    reason = text(content, "reason")
    earlier = await beside(_back, watch, labels, product)
    if earlier is None:
        raise Refused(404, "no_such", what="threshold", name=product or "")
    now = await beside(lambda: read_calibration(calibration_of(watch.line, product)).threshold)
    wished = _Wished(product, now, earlier["threshold"], reason or "back", earlier["text"])
    return await _propose(ask, wished)


async def close_proposal(ask: Ask) -> Response:
    """``POST …/threshold/proposals/ID``."""
    content = await body(ask.request, "agree")
    labels, watch, agree = ask.site.need_labels(), ask.watch, content.get("agree")
    if not isinstance(agree, bool):
        raise Refused(400, "bad_body", key="agree", found=f"{agree!r:.80}", expected="true or false")
    name = ask.request.path_params["id"]
    entry = next(
        (entry for entry in _proposals(labels, watch.line.name) if str(entry.id) == name),
        None,
    )
    if entry is None:
        raise Refused(404, "no_such", what="proposal", name=name[:80])
    proposed = json.loads(entry.content)
    if not agree:
        await beside(
            labels.add, ask.user, "proposal_closed", watch.line.name, {"id": entry.id, "agreed": False}
        )
        watch.tell("proposals", ask.user)
        return answer({"applied": False, "proposal": None})
    if entry.user == ask.user:
        raise Refused(403, "own_change")
    product, now = proposed["product"], proposed["now"]
    reason = f"{proposed['reason']} (proposed by {entry.user})"
    wished = _Wished(product, now, proposed["threshold"], reason, proposed["text"])
    response = await _apply(ask, wished)
    await beside(labels.add, ask.user, "proposal_closed", watch.line.name, {"id": entry.id, "agreed": True})
    watch.tell("proposals", ask.user)
    return response


@dataclass(frozen=True)
class _Wished:
    """A change of threshold that somebody wants.

    Attributes:
        now: the threshold that they saw.
        text: of the calibration to go back to; None for the present one with another threshold.
    """

    product: str | None
    now: float
    threshold: float
    reason: str
    text: str | None = None


async def _propose(ask: Ask, wished: _Wished) -> Response:
    """Apply a change, or have somebody else agree first where it would let known defects pass."""
    labels, watch = ask.site.need_labels(), ask.watch
    defects = await beside(
        lambda: defects_let_through(
            watch.need_rollup(),
            wished.product,
            _model(watch, wished.product),
            wished.now,
            wished.threshold,
        )
    )
    if not defects:
        return await _apply(ask, wished)
    content = {**asdict(wished), "defects": defects}
    entry = await beside(labels.add, ask.user, "proposal", watch.line.name, content)
    watch.tell("proposals", ask.user)
    return answer({"applied": False, "proposal": _shown_proposal(entry)})


async def _apply(ask: Ask, wished: _Wished) -> Response:
    labels, watch, user = ask.site.need_labels(), ask.watch, ask.user
    product, threshold = wished.product, wished.threshold

    def work() -> str:
        with watch.change_turn:
            return replaced()

    def replaced() -> str:
        watch.refresh()
        line = watch.line
        problem = why_not(line, product)
        if problem is not None:
            raise Refused(503, "not_available", problem[1])
        present = read_calibration(calibration_of(line, product)).threshold
        if present != wished.now:
            raise Refused(409, "changed_meanwhile", threshold=present)
        rollup, used = watch.need_rollup(), in_use(line, product)
        window = ask.site.windows[line.name].of(rollup, Key(product, _model(watch, product), None, 24.0))
        what_if = window.preview(rollup, threshold)
        known_defects = window.defects_rejected(rollup, threshold)
        if wished.text is None:
            false = max(0, what_if.rejected - known_defects)
            interval = counted_interval(false, window.total)
            done = apply(used, threshold, by=user, reason=wished.reason, interval=interval)
        else:
            done = put_back(used, wished.text)
        content = {"product": product, "from": done.before, "to": threshold, "reason": wished.reason}
        content |= {"text_before": done.text_before, "written": digest(used.file)}
        labels.add(user, "threshold", line.name, content | {"back": wished.text is not None})
        return done.said

    try:
        said = await beside(work)
    except LineRefused as error:
        raise Refused(502, "line_refused", str(error)) from error
    except LineDidNotAnswer as error:
        raise Refused(503, "line_silent", str(error)) from error
    except InputError as error:
        raise Refused(503, "not_available", str(error)) from error
    watch.tell("threshold", user)
    return answer({"applied": True, "threshold": threshold, "said": said})


def _key(ask: Ask, query: Query) -> Key:
    hours = query.number("hours", *_HOURS, 24.0)
    assert hours is not None
    product = query.text("product") or ask.watch.product
    return Key(product, _model(ask.watch, product), query.text("camera"), hours)


def _product(ask: Ask, content: dict[str, Any]) -> str | None:
    product = content.get("product", ask.watch.product)
    if product is not None and not isinstance(product, str):
        raise Refused(400, "bad_body", key="product", found=f"{product!r:.80}", expected="a name")
    if product not in ask.watch.line.products:
        raise Refused(404, "no_such", what="product", name=str(product)[:80])
    return product


def _judged_by(watch: LineWatch, product: str | None) -> float | None:
    """Give the threshold that a product is judged by: of the line's verdicts, or as its file says."""
    if product == watch.product and watch.threshold is not None:
        return watch.threshold
    try:
        return read_calibration(calibration_of(watch.line, product)).threshold
    except InputError:
        return None


def _model(watch: LineWatch, product: str | None) -> str | None:
    """Name the model that a product is judged by, as its calibration does; None where that is unknown."""
    try:
        return read_calibration(calibration_of(watch.line, product)).model
    except InputError:
        return None


def _calibration(watch: LineWatch, product: str | None) -> dict[str, Any]:
    try:
        file = calibration_of(watch.line, product)
        found = read_calibration(file)
    except InputError:
        return {"calibrated": None, "calibration": None}
    changed = found.changed
    return {
        "calibrated": found.threshold,
        "calibration": {
            "file": file.name,
            "made_at": _moment(found.made_at),
            "wanted_false_reject_rate": found.wanted_false_reject_rate,
            "interval": list(found.false_reject_rate_interval),
            "good_images": found.good_images,
            "changed": None
            if changed is None
            else {
                "by": changed.by,
                "reason": changed.reason,
                "at": _moment(changed.at),
                "before": changed.before,
            },
        },
    }


def _estimate(watch: LineWatch, rollup: Rollup, window: Window) -> dict[str, Any] | None:
    """Hold the promised false reject rate against what was judged since the threshold is what it is.

    None where too little was judged, another threshold is in use, or scipy is not installed.
    """
    if find_spec("scipy") is None:
        return None
    from calibration.reestimate import reestimate

    product = window.key.product
    try:
        found = read_calibration(calibration_of(watch.line, product))
        since = _moment(found.made_at if found.changed is None else found.changed.at)
        if since is None or window.key.camera is not None or _judged_by(watch, product) != found.threshold:
            return None
        judged = window.judged_since(rollup, int(since * 1000))
        estimate = reestimate(judged, found.threshold, found.wanted_false_reject_rate)
    except InputError:
        return None
    return {
        "rate": estimate.rate,
        "interval": list(estimate.interval),
        "threshold": estimate.threshold.value,
        "passes": estimate.parts,
        "rejects": estimate.rejects,
    }


def _moment(stamp: str) -> float | None:
    try:
        return datetime.fromisoformat(stamp).timestamp() * 1000
    except ValueError:
        return None


def _back(watch: LineWatch, labels: Labels, product: str | None) -> dict[str, Any] | None:
    """Find what was before the last change; None when the file was changed by something else since."""
    try:
        present = digest(calibration_of(watch.line, product))
    except InputError:
        return None
    for entry in labels.entries(line=watch.line.name, what=("threshold",), limit=100):
        content = json.loads(entry.content)
        if content["product"] != product:
            continue
        if content["written"] != present:
            return None
        return {
            "threshold": content["from"],
            "by": entry.user,
            "at": entry.at / 1000,
            "reason": content["reason"],
            "text": content["text_before"],
        }
    return None


def _shown_back(found: dict[str, Any] | None) -> dict[str, Any] | None:
    return None if found is None else {key: value for key, value in found.items() if key != "text"}


def _proposals(labels: Labels, line: str) -> list[Entry]:
    closed = {
        json.loads(entry.content)["id"]
        for entry in labels.entries(line=line, what=("proposal_closed",), limit=1000)
    }
    return [
        entry for entry in labels.entries(line=line, what=("proposal",), limit=200) if entry.id not in closed
    ]


def open_proposals(labels: Labels, line: str, product: str | None) -> list[dict[str, Any]]:
    """List the changes that wait for somebody else to agree."""
    return [
        _shown_proposal(entry)
        for entry in _proposals(labels, line)
        if json.loads(entry.content)["product"] == product
    ]


def _shown_proposal(entry: Entry) -> dict[str, Any]:
    content = json.loads(entry.content)
    return {
        "id": entry.id,
        "threshold": content["threshold"],
        "by": entry.user,
        "at": entry.at / 1000,
        "reason": content["reason"],
        "defects": content["defects"],
    }
