"""How a line changes over time: shares with control limits, scores, latencies, and what happened when."""

import bisect
import itertools
import json
import math
import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from datetime import time as time_of_day
from typing import Any, Final
from zoneinfo import ZoneInfo

from dashboard.records import FAULT, PASS, REJECT
from dashboard.rollup import NO_PRODUCT, Rollup
from dashboard.spread import Spread

BUCKETS: Final = ("minute", "hour", "shift", "day")
_MINUTE_US: Final = 60_000_000
_HOUR_US: Final = 60 * _MINUTE_US
_QUARTER: Final = 15
"""Minutes: shifts and days of any time zone begin at a multiple of them."""
_FEWEST_QUARTERS: Final = 8
_MEAN_RANGE: Final = 1.128
"""Of two standard normal numbers: what turns a mean moving range into a standard deviation."""


def starts(
    bucket: str, since_us: int, until_us: int, shifts: Sequence[str], zone: ZoneInfo | None
) -> list[int]:
    """List when the buckets begin that a span of time touches, in microseconds since 1970."""
    if bucket in {"minute", "hour"}:
        size = _MINUTE_US if bucket == "minute" else _HOUR_US
        return list(range(since_us // size * size, until_us, size))
    names = shifts if bucket == "shift" else ("00:00",)
    begin = datetime.fromtimestamp(since_us / 1e6).astimezone(zone).date() - timedelta(days=1)
    end = datetime.fromtimestamp(until_us / 1e6).astimezone(zone).date()
    found = []
    for number in range((end - begin).days + 1):
        for name in names:
            hour, minute = map(int, name.split(":"))
            local = datetime.combine(begin + timedelta(days=number), time_of_day(hour, minute), zone)
            found.append(int(local.timestamp() * 1e6))
    found.sort()
    first = max(bisect.bisect_right(found, since_us) - 1, 0)
    return [start for start in found[first:] if start < until_us]


def limits(rejected: Sequence[int], judged: Sequence[int]) -> dict[str, Any]:
    """Give share, centre and limits of a p′-chart (Laney 2002).

    A p-chart takes each bucket's parts for independent, and with many parts calls every bucket unusual.
    Here the limits are widened by how much the shares really vary from one bucket to the next.

    Args:
        rejected: parts of each bucket.
        judged: likewise.
    """
    total, out = sum(judged), sum(rejected)
    share = [None if not n else x / n for x, n in zip(rejected, judged, strict=True)]
    empty: dict[str, Any] = {
        "share": share,
        "centre": None,
        "upper": [None] * len(share),
        "lower": [None] * len(share),
        "overdispersion": None,
        "outside": [],
    }
    if not total:
        return empty
    centre = out / total
    deviations = [math.sqrt(centre * (1 - centre) / n) if n else None for n in judged]
    scores = [
        (value - centre) / deviation
        for value, deviation in zip(share, deviations, strict=True)
        if value is not None and deviation
    ]
    ranges = [abs(after - before) for before, after in itertools.pairwise(scores)]
    spread = max(1.0, sum(ranges) / len(ranges) / _MEAN_RANGE) if ranges else 1.0
    upper = [None if d is None else min(1.0, centre + 3 * spread * d) for d in deviations]
    lower = [None if d is None else max(0.0, centre - 3 * spread * d) for d in deviations]
    outside = [
        place
        for place, (value, low, high) in enumerate(zip(share, lower, upper, strict=True))
        if value is not None and low is not None and high is not None and not low <= value <= high
    ]
    return empty | {
        "centre": centre,
        "upper": upper,
        "lower": lower,
        "overdispersion": round(spread, 3),
        "outside": outside,
    }


def trends(
    rollup: Rollup,
    *,
    hours: float,
    bucket: str,
    camera: str | None,
    product: str | None,
    shifts: Sequence[str],
    zone: ZoneInfo | None,
) -> dict[str, Any]:
    """Give everything that the page Trends shows, but marks."""
    until_us = time.time_ns() // 1000
    since_us = until_us - int(hours * _HOUR_US)
    begin = starts(bucket, since_us, until_us, shifts, zone)
    which, values = _which(rollup, camera, product)
    step = 1 if bucket == "minute" else _QUARTER
    counted = [[0] * len(begin) for _ in range(3)]
    query = (
        f"SELECT minute / {step}, decision, sum(number) FROM minutes WHERE minute >= ? AND minute < ?{which} "
        f"GROUP BY minute / {step}, decision"
    )
    for part, decision, number in rollup.fetch(
        query, begin[0] // _MINUTE_US, until_us // _MINUTE_US + 1, *values
    ):
        counted[decision][_place(begin, part * step * _MINUTE_US)] += number

    spreads = [(Spread(), Spread()) for _ in begin]
    places: dict[int, list[int]] = {}
    for place, start in enumerate(begin):
        places.setdefault(start // _HOUR_US, []).append(place)
    first_hour = begin[0] // _HOUR_US
    query = f"SELECT hour, scores, latency FROM hours WHERE hour >= ?{which}"
    for hour, scores, latency in rollup.fetch(query, first_hour, *values):
        # An hour is the smallest that is kept of these: within it the minutes show the same.
        hit = places.get(hour, []) if bucket == "minute" else [_place(begin, hour * _HOUR_US)]
        for place in hit:
            spreads[place][0].merge(Spread.parse(scores))
            spreads[place][1].merge(Spread.parse(latency))
    reasons: dict[str, list[int]] = {}
    if bucket == "minute":  # the sums are by the hour, but all faults of a day are kept
        query = (
            f"SELECT at, reason, 1 FROM verdicts WHERE decision > 0 AND decision = {FAULT} AND at >= ?{which}"
        )
        found = rollup.fetch(query, begin[0], *values)
    else:
        query = f"SELECT hour * {_HOUR_US}, reason, number FROM reasons WHERE hour >= ?{which}"
        found = rollup.fetch(query, first_hour, *values)
    for at_us, reason, number in found:
        row = reasons.setdefault(rollup.name_of(reason) or "?", [0] * len(begin))
        row[_place(begin, at_us)] += number
    passes, rejects, faults = (counted[decision] for decision in (PASS, REJECT, FAULT))
    judged = [sum(pair) for pair in zip(passes, rejects, strict=True)]
    return {
        "bucket": bucket,
        "at": [start / 1000 for start in begin],
        "pass": passes,
        "reject": rejects,
        "fault": faults,
        **limits(rejects, judged),
        "median": [scores.quantile(0.5) for scores, _ in spreads],
        "q25": [scores.quantile(0.25) for scores, _ in spreads],
        "q75": [scores.quantile(0.75) for scores, _ in spreads],
        "latency": {
            "median": [latency.quantile(0.5) for _, latency in spreads],
            "p99": [latency.quantile(0.99) for _, latency in spreads],
            "longest": [latency.quantile(1.0) for _, latency in spreads],
        },
        "reasons": reasons,
    }


def unusual(rollup: Rollup, now_us: int) -> tuple[float, float] | None:
    """Tell whether more parts are rejected now than the day before explains.

    Returns:
        The share of rejects in the last quarter of an hour that is over, and the usual one; None where it is
        as usual, or too little is known.
    """
    quarter = now_us // _MINUTE_US // _QUARTER
    counted: dict[int, list[int]] = {}
    query = (
        f"SELECT minute / {_QUARTER}, decision, sum(number) FROM minutes WHERE minute >= ? AND minute < ? "
        f"AND decision < 2 GROUP BY minute / {_QUARTER}, decision"
    )
    first = (quarter - 97) * _QUARTER
    for part, decision, number in rollup.fetch(query, first, quarter * _QUARTER):
        counted.setdefault(part, [0, 0])[decision] = number
    if len(counted) < _FEWEST_QUARTERS or quarter - 1 not in counted:
        return None
    parts = [counted[part] for part in sorted(counted)]
    found = limits([reject for _, reject in parts], [sum(both) for both in parts])
    last, high = found["share"][-1], found["upper"][-1]
    return (last, found["centre"]) if last is not None and high is not None and last > high else None


def since_calibration(
    rollup: Rollup, at_us: int, camera: str | None, product: str | None
) -> dict[str, float | None]:
    """Give median and quartiles of the passing scores in the first hour with a calibration."""
    which, values = _which(rollup, camera, product)
    hour = at_us // _HOUR_US + 1  # the first that is whole
    spread = Spread()
    for (scores,) in rollup.fetch(f"SELECT scores FROM hours WHERE hour = ?{which}", hour, *values):
        spread.merge(Spread.parse(scores))
    return {name: spread.quantile(share) for name, share in (("median", 0.5), ("q25", 0.25), ("q75", 0.75))}


def marks(rollup: Rollup, since_us: int) -> list[dict[str, Any]]:
    """List what happened, the oldest first; causes of trouble have their own page."""
    found = rollup.fetch(
        "SELECT at, code, content FROM marks WHERE at >= ? AND code <> 'cause' ORDER BY at LIMIT 2000",
        since_us,
    )
    return [
        {"at": at / 1000, "code": code, "values": json.loads(content or "{}"), "detail": None}
        for at, code, content in found
    ]


def _which(rollup: Rollup, camera: str | None, product: str | None) -> tuple[str, list[int]]:
    term: str = ""
    values: list[int] = []
    if camera is not None:
        term, values = f"{term} AND camera = ?", [*values, rollup.id_of(camera)]
    if product is not None:
        number = NO_PRODUCT if product == "-" else rollup.id_of(product)
        term, values = f"{term} AND product = ?", [*values, number]
    return term, values


def _place(begin: Sequence[int], at_us: int) -> int:
    return max(0, bisect.bisect_right(begin, at_us) - 1)
