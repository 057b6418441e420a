import argparse
import os
import re
import signal
import sys
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from engine_runtime.errors import InputError

if TYPE_CHECKING:
    from verdicts import Decision, Health, Lost, Subscription, Verdict

_DECISIONS: "tuple[Decision, ...]" = ("pass", "reject", "fault")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def main(argv: list[str] | None = None) -> int:
    """Run ``inspectctl``, the operator's side of a running daemon.

    Returns:
        The exit code: 0 done, 1 the line is silent or not well, 2 wrong input, 130 interrupted.
    """
    parser = _Parser(prog="inspectctl", description="Look at a running inspectd.")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for add in (_add_tail, _add_status, _add_record):
        add(commands)
    options = parser.parse_args(argv)
    run: Callable[[argparse.Namespace], int] = options.run
    try:
        return run(options)
    except InputError as error:
        _complain(str(error))
        return 2
    except KeyboardInterrupt:
        _complain("interrupted")
        return 130
    except BrokenPipeError:  # such as `inspectctl tail | head`; nothing more may go there, not even at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


# tail


def _add_tail(commands: Any) -> None:
    parser = commands.add_parser(
        "tail",
        help="print verdicts as they come",
        description="Print verdicts as they come, until interrupted. Lost verdicts and silence go to stderr.",
    )
    _add_line_options(parser)
    parser.add_argument(
        "--decisions",
        type=_decisions,
        default=_DECISIONS,
        metavar="LIST",
        help="only these, such as reject,fault",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object per line, as published")
    parser.add_argument("--count", type=_count, metavar="N", help="end after N verdicts")
    parser.set_defaults(run=_tail)


def _tail(options: argparse.Namespace) -> int:
    from verdicts import subscribe

    for stop in (signal.SIGINT, signal.SIGTERM):
        signal.signal(stop, signal.default_int_handler)
    address, line = _address_and_line(options)
    try:
        subscription = subscribe(address, line=line, decisions=options.decisions, on_lost=_complain_of_loss)
    except ValueError as error:
        raise InputError(str(error)) from error
    try:
        with subscription:
            _print_verdicts(subscription, options.json, options.count)
    except KeyboardInterrupt:
        pass  # the usual end
    return 0


def _print_verdicts(subscription: "Subscription", as_json: bool, count: int | None) -> None:
    from verdicts import LineSilent, encode

    sys.stdout.reconfigure(encoding="utf-8")  # type: ignore[union-attr]
    printed = 0
    silent_since: object = "the start"
    while count is None or printed < count:
        try:
            verdict = next(subscription)
        except LineSilent as silence:
            if silence.health is not silent_since:  # once per silence, not every few seconds all night
                silent_since = silence.health
                _complain(str(silence))
            continue
        print(encode(verdict)[1].decode() if as_json else _verdict_line(verdict), flush=True)
        printed += 1


def _verdict_line(verdict: "Verdict") -> str:
    at = datetime.fromisoformat(verdict.captured_at).astimezone()
    decision = verdict.decision if verdict.reason is None else f"{verdict.decision} {verdict.reason}"
    score = "-" if verdict.score is None else f"{verdict.score:.4f}"
    columns = (
        f"{at:%H:%M:%S}.{at.microsecond // 1000:03d}",
        f"{verdict.camera:<8}",
        f"{verdict.frame:>7}",
        f"{decision:<14}",
        f"{score:>7} / {verdict.threshold:.4f}",
        f"{_printable(verdict.part or '-'):<16}",
        f"{verdict.latency_ms.total:>7.1f} ms",
        _printable(verdict.archive or ""),
    )
    return "  ".join(columns).rstrip()


def _complain_of_loss(lost: "Lost") -> None:
    _complain(f"lost {lost.last - lost.first + 1} verdicts: {lost.first} to {lost.last} of boot {lost.boot}")


# status


def _add_status(commands: Any) -> None:
    parser = commands.add_parser(
        "status",
        help="show how the line fares",
        description="Show the line's next health. Exit code 0 when it is running, else 1.",
    )
    _add_line_options(parser)
    parser.set_defaults(run=_status)


def _status(options: argparse.Namespace) -> int:
    from verdicts import LineSilent, read_health

    address, line = _address_and_line(options)
    try:
        health = read_health(address, line=line)
    except LineSilent as silence:
        _complain(str(silence))
        return 1
    except ValueError as error:
        raise InputError(str(error)) from error
    sys.stdout.reconfigure(encoding="utf-8")  # type: ignore[union-attr]
    print(_health_table(health), flush=True)
    return 0 if health.state == "running" else 1


def _health_table(health: "Health") -> str:
    counts = "   ".join(f"{health.verdicts[decision]} {decision}" for decision in _DECISIONS)
    width = max([len("camera"), *map(len, health.cameras)])
    rows = [
        f"line      {health.line}",
        f"state     {health.state}",
        f"up        {timedelta(seconds=int(health.uptime_s))}",
        f"engine    {_printable(health.engine)}",
        f"verdicts  {counts}",
        f"waiting   {health.waiting}",
        "",
        f"{'camera':<{width}}  state      captured     faults  error",
    ]
    for name, camera in health.cameras.items():
        error = _printable(camera.error or "")
        rows.append(
            f"{name:<{width}}  {camera.state:<7}  {camera.captured:>10}  {camera.faults:>9}  {error}".rstrip()
        )
    return "\n".join(rows)


def _add_record(commands: Any) -> None:
    parser = commands.add_parser(
        "record",
        help="save a camera's frames as images to train on",
        description="Save the next frames of a camera as PNG images, cut out as the daemon cuts them out.",
    )
    parser.add_argument(
        "source",
        help="/dev/video0, a video file, an rtsp:// or http:// address, or simulated://?seed=1",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where the images go")
    parser.add_argument("--count", type=_count, default=200, help="how many (default: %(default)s)")
    parser.add_argument("--roi", type=_roi, metavar="X,Y,W,H", help="the part of the picture to keep")
    parser.set_defaults(run=_record)


def _record(options: argparse.Namespace) -> int:
    from daemon.cameras import CameraSettings
    from daemon.record import record
    from engine_runtime.frames import Roi

    settings = CameraSettings(options.source, roi=Roi(*options.roi) if options.roi else None)
    saved = record(settings, options.out, options.count)
    print(f"saved {saved} of {options.count} frames in {options.out}")
    return 0 if saved == options.count else 1


# which line, and the options' values


def _add_line_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--address", help="where the daemon publishes, such as tcp://127.0.0.1:5560")
    parser.add_argument("--line", metavar="NAME", help="name of the line, such as line3")
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="the daemon's own, instead of --address and --line"
    )


def _address_and_line(options: argparse.Namespace) -> tuple[str, str]:
    given = (options.address is not None, options.line is not None)
    if options.config is None and all(given):
        return options.address, options.line
    if options.config is None or any(given):
        raise InputError("which line: expected --address and --line, or --config alone")
    config = _read_yaml(options.config)
    line = _text(options.config, config, "line", "line3")
    publish = _text(options.config, config, "publish", "tcp://127.0.0.1:5560")
    # A daemon that publishes on every interface does so on this machine's loopback too.
    return re.sub(r"^tcp://(\*|0\.0\.0\.0|\[::\]):", "tcp://127.0.0.1:", publish), line


def _read_yaml(path: Path) -> dict[str, object]:
    import yaml

    try:
        config = yaml.safe_load(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise InputError(f"{path}: not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(config, dict):
        raise InputError(f"{path}: found {type(config).__name__}, expected the keys of a line's config")
    return config


def _text(path: Path, config: dict[str, object], key: str, example: str) -> str:
    value = config.get(key)
    if not isinstance(value, str):
        found = "nothing" if value is None else repr(value)
        raise InputError(f"{path}: {key}: found {found}, expected text such as {example}")
    return value


def _decisions(text: str) -> tuple[str, ...]:
    chosen = tuple(text.split(","))
    for decision in chosen:
        if decision not in _DECISIONS:
            raise argparse.ArgumentTypeError(f"found {decision!r}, expected some of {','.join(_DECISIONS)}")
    return chosen


def _roi(text: str) -> tuple[int, ...]:
    numbers = tuple(int(number) for number in text.split(",") if number.isdecimal())
    if len(numbers) != 4:
        raise argparse.ArgumentTypeError(f"found {text!r}; expected X,Y,WIDTH,HEIGHT in pixels")
    return numbers


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected a whole number from 1")
    return int(text)


def _printable(text: str) -> str:
    """Escape what could move an operator's cursor; a part's name may come from a bar code."""
    return "".join(character if character.isprintable() else ascii(character)[1:-1] for character in text)


def _complain(text: str) -> None:
    print(f"inspectctl: {_printable(text)}", file=sys.stderr, flush=True)
