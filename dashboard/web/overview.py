"""Answers about a line over time: trends, health and products."""

import json
import time
from datetime import datetime
from typing import Any, Final

from starlette.responses import Response

from calibration.calibration_file import read_calibration
from dashboard import trends
from dashboard.gallery import NO_PRODUCT_NAME
from dashboard.labels import Labels
from dashboard.watch import LineWatch
from dashboard.web.answers import Query, Refused, answer, body, text
from dashboard.web.site import Ask, beside
from foundation.errors import InputError
from verdicts import ControlRefused, ControlSilent, LineControl, MalformedMessage

_DAY_US: Final = 86_400_000_000
_SELECT_S: Final = 30.0
_SAME_MS: Final = 300_000


async def trend(ask: Ask) -> Response:
    """``GET …/trends``."""
    query = Query(ask.query, "hours", "bucket", "camera", "product")
    hours = query.number("hours", 0.02, 2160, 24) or 24.0
    bucket = query.one_of("bucket", trends.BUCKETS, "hour")
    if bucket == "minute" and hours > 24:
        raise Refused(400, "bad_query", key="bucket", found="minute", expected="hour, shift or day")
    camera, product, watch, labels = query.text("camera"), query.text("product"), ask.watch, ask.site.labels

    def look() -> dict[str, Any]:
        rollup = watch.need_rollup()
        content = trends.trends(
            rollup,
            hours=hours,
            bucket=bucket,
            camera=camera,
            product=product,
            shifts=watch.config.shifts,
            zone=watch.config.time_zone,
        )
        marks = trends.marks(rollup, int(content["at"][0] * 1000))
        content["marks"] = _with_names(marks, labels, watch.line.name)
        content["calibration"] = _calibration(watch, camera, product)
        return content

    return answer(await beside(look))


def _with_names(marks: list[dict[str, Any]], labels: Labels | None, line: str) -> list[dict[str, Any]]:
    """Say of each change of threshold who made it, where it was made here."""
    made = [] if labels is None else labels.entries(line=line, what=("threshold",), limit=500)
    for mark in marks:
        if mark["code"] != "threshold":
            continue
        for entry in made:
            content = json.loads(entry.content)
            if content["to"] == mark["values"].get("to") and abs(entry.at / 1000 - mark["at"]) < _SAME_MS:
                mark["values"]["by"], mark["detail"] = entry.user, content["reason"]
                break
    return marks


def _calibration(watch: LineWatch, camera: str | None, product: str | None) -> dict[str, Any]:
    named = watch.product if product is None else None if product == NO_PRODUCT_NAME else product
    known = watch.line.products.get(named)
    nothing: dict[str, Any] = {"median": None, "q25": None, "q75": None, "threshold": watch.threshold}
    if known is None:
        return nothing
    try:
        found = read_calibration(known.calibration)
        at_us = int(datetime.fromisoformat(found.made_at).timestamp() * 1e6)
    except (InputError, ValueError):
        return nothing
    shown = trends.since_calibration(watch.need_rollup(), at_us, camera, product)
    return {**nothing, **shown, "threshold": found.threshold}


async def health(ask: Ask) -> Response:
    """``GET …/health``."""
    days = Query(ask.query, "days").whole("days", 1, 90, 7)
    return answer(await beside(_health, ask.watch, ask.site.labels, days))


async def acknowledge(ask: Ask) -> Response:
    """``POST …/health/acknowledge``."""
    content = await body(ask.request, "key", "note")
    watch, labels = ask.watch, ask.site.need_labels()
    key, note = text(content, "key", least=1, most=200), text(content, "note")
    since_us = next((since_us for since_us, cause in watch.causes() if cause.key == key), None)
    if since_us is None:
        raise Refused(404, "no_such", what="cause", name=key[:80])
    entry = {"key": key, "since_us": since_us, "note": note}
    await beside(labels.add, ask.user, "acknowledge", watch.line.name, entry)
    watch.tell("health", ask.user)
    return answer(await beside(_health, watch, labels, 7))


def _health(watch: LineWatch, labels: Labels | None, days: int) -> dict[str, Any]:
    said = [] if labels is None else labels.entries(line=watch.line.name, what=("acknowledge",), limit=500)
    acknowledged = {
        (content["key"], content["since_us"]): {
            "by": entry.user,
            "at": entry.at / 1000,
            "note": content["note"],
        }
        for entry in reversed(said)
        for content in [json.loads(entry.content)]
    }
    causes = [
        {
            "key": cause.key,
            "code": cause.code,
            "subject": cause.subject,
            "values": cause.values,
            "detail": cause.detail,
            "since_at": since_us / 1000,
            "severity": cause.severity,
            "follows": cause.follows,
            "acknowledged": acknowledged.get((cause.key, since_us)),
        }
        for since_us, cause in watch.causes()
    ]
    history = []
    if watch.rollup is not None:
        rows = watch.rollup.fetch(
            "SELECT at, content FROM marks WHERE code = 'cause' AND at >= ? ORDER BY at DESC LIMIT 500",
            time.time_ns() // 1000 - days * _DAY_US,
        )
        for at, content in rows:
            past = json.loads(content)
            history.append(
                {
                    "key": past["key"],
                    "code": past["code"],
                    "subject": past["subject"],
                    "values": past["values"],
                    "since_at": at / 1000,
                    "until_at": past["until_us"] / 1000,
                    "detail": past["detail"],
                    "acknowledged": acknowledged.get((past["key"], at)),
                }
            )
    return {"causes": causes, "history": history}


async def products(ask: Ask) -> Response:
    """``GET …/products``."""
    return answer(await beside(_products, ask.watch, ask.site.labels))


async def select(ask: Ask) -> Response:
    """``POST …/products/select``."""
    content = await body(ask.request, "product")
    product = text(content, "product", least=1, most=64)
    watch, labels, user = ask.watch, ask.site.need_labels(), ask.user
    control_at = watch.line.control
    if control_at is None:
        raise Refused(503, "not_available", f"{watch.line.file}: control: found nothing; expected an address")

    def ask_line() -> str:
        try:
            with LineControl(control_at, curve=watch.line.curve, timeout_s=_SELECT_S) as control:
                said = control.select(product)
        except ControlRefused as error:
            raise Refused(502, "line_refused", str(error)) from error
        except (ControlSilent, MalformedMessage) as error:
            raise Refused(503, "line_silent", str(error)) from error
        labels.add(user, "select", watch.line.name, {"product": product})
        return said

    said = await beside(ask_line)
    watch.tell("products", user)
    return answer({"said": said})


def _products(watch: LineWatch, labels: Labels | None) -> dict[str, Any]:
    watch.refresh()
    since_us = None if watch.rollup is None else watch.rollup.about("product_since")
    by = None
    newest = [] if labels is None else labels.entries(line=watch.line.name, what=("select",), limit=1)
    for entry in newest:
        if json.loads(entry.content)["product"] == watch.product and (
            since_us is None or abs(entry.at - since_us) < _SAME_MS * 1000
        ):
            by = entry.user
    health = watch.listening.health
    found = []
    for name, product in watch.line.products.items():
        try:
            threshold: float | None = read_calibration(product.calibration).threshold
        except InputError:
            threshold = None
        found.append(
            {
                "name": name,
                "engine": product.engine.name,
                "calibration": product.calibration.name,
                "threshold": threshold,
            }
        )
    return {
        "now": watch.product,
        "since_at": None if since_us is None else since_us / 1000,
        "by": by,
        "engine": None if health is None else health.engine,
        "threshold": watch.threshold,
        "products": found,
        "control": watch.line.control is not None,
    }
