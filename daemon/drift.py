"""What has drifted since the calibration: noted when it is noticed, and when a person takes it for normal."""

import asyncio
import logging

from daemon.delivery.drift_watch import DriftNews
from daemon.running import Running
from foundation.errors import InputError

_log = logging.getLogger("inspectd")


def note_drift(on: Running, news: DriftNews) -> None:
    """Note that something has changed since the calibration, or no longer has.

    Args:
        on: what the line runs on.
        news: what was noticed.
    """
    drift = news.drift
    named = (
        f"camera {news.camera}" if news.product is None else f"product {news.product}, camera {news.camera}"
    )
    if drift is None:
        _log.info("%s: %s: what had drifted is as it was", on.line, named)
    else:
        _log.warning("%s: %s: %s since frame %d: %s; %s", on.line, named, drift.cause, drift.since,
                     drift.amount, drift.do)  # fmt: skip
    told = {} if drift is None else {"since_frame": drift.since, "amount": drift.amount, "do": drift.do}
    content = {"product": news.product, "camera": news.camera, "frame": news.frame}
    on.note_soon("drift", content | {"cause": None if drift is None else drift.cause} | told)


async def accept_drift(on: Running, camera: str | None, by: str | None) -> str:
    """Take how the parts look now for normal, and note who said so.

    Args:
        on: what the line runs on.
        camera: whose parts; None for all cameras.
        by: who says so.

    Raises:
        InputError: nobody looks for drift, there is no such camera, or too few parts have passed.
    """
    watch, product = on.verdicts.drift, on.intake.product
    if watch is None:
        raise InputError(f"{on.path}: drift: found no such section, expected drift: {{}}")
    if camera is not None:
        on.intake.cameras.named(camera)
    known = [name for name, _ in on.intake.cameras.items()]
    before = {name: entry.cause for name, entry in watch.health(product.name, known).items()}
    cameras = await asyncio.wrap_future(watch.accept(product.name, camera))
    told = {name: before.get(name) for name in cameras}
    on.note_soon("drift_accepted", {"product": product.name, "cameras": told, "by": by})
    return f"accepted as normal: how parts look now at {', '.join(cameras)}"
