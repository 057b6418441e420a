import argparse
from pathlib import Path
from typing import Any

from daemon.inspectctl.control_options import control_in
from daemon.inspectctl.key_options import add_key_options, curve_keys
from daemon.inspectctl.line_options import add_config_option, config_of
from daemon.inspectctl.packages import require_tuf
from daemon.inspectctl.this_machine import running_configs
from daemon.inspectctl.values import seconds
from foundation.errors import InputError, printable
from foundation.option_types import share, whole_number
from foundation.terminal import drop_unread


def add(commands: Any) -> None:
    parser = commands.add_parser(
        "update",
        help="take up the line's newest release, and go back by itself if it is worse",
        description="Take up the newest release of the line: check it, judge its golden samples, reload, and "
        "watch the next parts. If rejects or faults rise, or parts do not come, the line gets its former "
        "files back. Exit code 0: the release is installed; 1: rolled back, or trying again may help; 2: "
        "refused, nothing was changed.",
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--from", dest="source", metavar="URL|DIR", help="the repository")
    what.add_argument("--back", action="store_true", help="go back to the files before the installed release")
    add_config_option(parser)
    parser.add_argument(
        "--root", type=Path, metavar="FILE", help="root.json of the repository; needed the first time"
    )
    parser.add_argument(
        "--parts",
        type=whole_number(0, 1_000_000),
        default=200,
        metavar="N",
        help="how many parts to watch (default: 200)",
    )
    parser.add_argument(
        "--within",
        type=seconds,
        default=600.0,
        metavar="TIME",
        help="in which they must come (default: 10 min)",
    )
    parser.add_argument(
        "--most-rejects",
        type=share(0, 1),
        metavar="SHARE",
        help="of the parts that may be thrown out, such as 0.05, whatever the line did before",
    )
    parser.add_argument(
        "--again", action="store_true", help="take up a release that was rolled back here before"
    )
    parser.add_argument(
        "--replace-changed",
        action="store_true",
        help="also exchange files that were changed here since the last release",
    )
    add_key_options(parser)
    parser.set_defaults(run=_update)


def _update(options: argparse.Namespace) -> int:
    require_tuf("update")
    drop_unread()  # an update goes on when nobody reads what it says
    from daemon.config import load_config
    from daemon.updates.installed import SEEN, Installed
    from daemon.updates.source import Source
    from daemon.updates.update import Line, Watch, go_back, update

    config = config_of(options).absolute()
    curve = curve_keys(options)
    if load_config(config).curve is not None and curve is None:
        raise InputError(f"{config}: the line has a section curve; expected --key and --server-key")
    installed = Installed(config)
    line = Line(
        installed,
        control_in(config),
        curve,
        has_process=lambda: config in running_configs(),
        say=lambda text: print(printable(text), flush=True),
    )
    if options.back:
        go_back(line)
        return 0

    def source() -> Source:
        return Source(options.source, installed.folder / SEEN, options.root)

    watch = Watch(options.parts, options.within, options.most_rejects)
    update(line, source, watch, again=options.again, replace_changed=options.replace_changed)
    return 0
