import argparse
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from daemon.inspectctl.by_option import add_by_option, by
from daemon.inspectctl.control_options import line_control
from daemon.inspectctl.key_options import add_key_options
from daemon.inspectctl.line_options import add_config_option, config_of
from daemon.inspectctl.values import seconds
from foundation.errors import InputError, printable
from foundation.option_types import number

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from calibration.calibration_file import Calibration
    from calibration.reestimate import Estimate
    from lines.line_config import LineConfig

_A_WEEK_S: Final = 7 * 24 * 3600.0
_RELOAD_S: Final = 60.0
_MOST_ROWS: Final = 300_000
"""Of the journal, the newest: more verdicts hardly say more."""


def add(commands: Any) -> None:
    parser = commands.add_parser(
        "threshold",
        help="hold the promised false reject rate against what passed, or change the threshold",
        description="Show what the parts that the line judged say of its threshold. With set, the line takes "
        "another threshold: the one that they say rejects the wanted share of good parts, or VALUE. With "
        "back, it takes the one before. The calibration and the journal keep who, why, and what was before.",
    )
    parser.add_argument("what", nargs="?", choices=["set", "back"], help="change it")
    parser.add_argument(
        "value", nargs="?", type=number(), metavar="VALUE", help="with set: this threshold, no other"
    )
    parser.add_argument(
        "--within",
        type=seconds,
        default=_A_WEEK_S,
        metavar="TIME",
        help="parts of so long count, such as 12 h (default: a week); none from before drift was accepted",
    )
    parser.add_argument("--reason", metavar="TEXT", help="with set and back: why")
    add_by_option(parser, "changes it")
    parser.add_argument(
        "--product", metavar="NAME", help="where the config names several (default: the first one)"
    )
    parser.add_argument(
        "--sign",
        type=Path,
        metavar="KEY",
        help="with which the calibration is signed, for lines with trusted_keys",
    )
    add_config_option(parser)
    add_key_options(parser)
    parser.set_defaults(run=_threshold, control=None)


def _threshold(options: argparse.Namespace) -> int:
    from calibration.calibration_file import read_calibration
    from calibration.reestimate import JudgedParts, reestimate
    from lines.line_config import read_line

    if options.value is not None and options.what != "set":
        raise InputError(f"VALUE: found {options.value:g}, expected none with back")
    for option in ("reason", "by", "sign"):
        if options.what is None and getattr(options, option) is not None:
            raise InputError(f"--{option}: found without set or back, expected with one of them alone")
    options.config = config_of(options)
    line = read_line(options.config, options.key, options.server_key, signing_key=options.sign)
    product = options.product or next(iter(line.products), None)
    if product not in line.products:
        known = ", ".join(name for name in line.products if name) or "the config names none"
        raise InputError(f"{line.file}: product {product!r}: unknown; expected one of its products: {known}")
    file = line.products[product].calibration
    present = read_calibration(file)
    if options.what is None:
        passes, rejects = _judged(line, present, options.within)
        judged = JudgedParts(passes, len(rejects))
        estimate = reestimate(judged, present.threshold, present.wanted_false_reject_rate)
        for row in _told(present, estimate):
            print(printable(row))
        return 0
    if not (options.reason or "").strip():
        raise InputError("--reason: found nothing, expected why the threshold is changed")
    if line.signed and options.sign is None:
        raise InputError("--sign: found nothing, expected a key: the line takes signed calibrations alone")
    print(printable(_change(options, line, file, present)))
    return 0


def _change(options: argparse.Namespace, line: "LineConfig", file: Path, present: "Calibration") -> str:
    from calibration.threshold_change import InUse, apply, go_back

    def take_up() -> str:
        with line_control(options, timeout_s=_RELOAD_S) as control:
            return control.reload()

    used, who, reason = InUse(file, take_up, options.sign), by(options) or "-", options.reason.strip()
    if options.what == "back":
        done = go_back(used, by=who, reason=reason)
        return f"{done.said}; the threshold was {done.before:.4g} and is {done.threshold:.4g} again"
    judged = _judged(line, present, options.within)
    value, interval = _wished(*judged, present, options.value)
    done = apply(used, value, by=who, reason=reason, interval=interval)
    passes, rejects = judged
    return (
        f"{done.said}; the threshold was {done.before:.4g} and is {value:.4g} now ({_rates(*interval)}), "
        f"which rejects {int((passes > value).sum())} of {len(passes)} parts that passed and "
        f"{int((rejects > value).sum())} of {len(rejects)} that did not; inspectctl threshold back undoes it"
    )


def _wished(
    passes: "NDArray[np.float64]",
    rejects: "NDArray[np.float64]",
    present: "Calibration",
    value: float | None,
) -> tuple[float, tuple[float, float]]:
    """Give the threshold to set, and the interval of its false reject rate."""
    from calibration.reestimate import JudgedParts, reestimate
    from calibration.threshold_change import counted_interval

    judged, rate = JudgedParts(passes, len(rejects)), present.wanted_false_reject_rate
    if value is None:
        found = reestimate(judged, present.threshold, rate).threshold
        return found.value, found.rate_interval
    try:
        return value, reestimate(judged, present.threshold, rate, value).interval
    except InputError:  # somebody wants this one, whatever is known of it
        above = int((passes > value).sum() + (rejects > value).sum())
        return value, counted_interval(above, len(passes) + len(rejects))


def _judged(
    line: "LineConfig", present: "Calibration", within_s: float
) -> "tuple[NDArray[np.float64], NDArray[np.float64]]":
    """Give the scores of what the line passed and rejected by a calibration, in the order of time."""
    import json

    import numpy as np

    from daemon.journal.journal import JournalFailed
    from daemon.journal.reader import JournalReader

    if line.journal is None:
        raise InputError(f"{line.file}: journal: found no such section, expected it: it keeps the scores")
    scores: dict[str, list[float]] = {"pass": [], "reject": []}
    since = datetime.now(UTC) - timedelta(seconds=within_s)
    try:
        with JournalReader(line.journal) as reader:
            accepted = reader.last_noted("drift_accepted")
            if accepted is not None:
                since = max(since, datetime.fromisoformat(accepted))
            for _, payload in reader.rows_since(since, reader.last_row() - _MOST_ROWS):
                verdict = json.loads(payload)
                same = verdict["model"] == present.model and verdict["threshold"] == present.threshold
                if same and verdict["decision"] in scores and verdict["score"] is not None:
                    scores[verdict["decision"]].append(verdict["score"])
    except JournalFailed as error:
        raise InputError(str(error)) from error
    return np.array(scores["pass"]), np.array(scores["reject"])


def _told(present: "Calibration", estimate: "Estimate") -> list[str]:
    from calibration.report import rate_text

    rate, low, high = present.wanted_false_reject_rate, *present.false_reject_rate_interval
    promised = "as promised" if estimate.interval[0] <= rate <= estimate.interval[1] else "NOT as promised"
    changed = present.changed
    since = present.made_at if changed is None else f"{changed.at}, by {changed.by}: {changed.reason}"
    found, parts = estimate.threshold, f"{estimate.parts} passes and {estimate.rejects} rejects"
    return [
        f"threshold   {present.threshold:.4g}, to reject {rate_text(rate)} good parts ({_rates(low, high)})",
        f"since       {since}",
        f"judged      {parts}; {estimate.dependence:.1f} in a row say as much as one",
        f"they say    {rate_text(estimate.rate)} good parts are rejected "
        f"({_rates(*estimate.interval)}): {promised}",
        f"to promise  {rate_text(rate)}: threshold {found.value:.4g} ({_rates(*found.rate_interval)})",
        "next: inspectctl threshold set --reason TEXT takes that one",
    ]


def _rates(low: float, high: float) -> str:
    from calibration.report import rate_text
    from calibration.tail import CONFIDENCE

    return f"{CONFIDENCE:.0%} interval {rate_text(low, high)}"
