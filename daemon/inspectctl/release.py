import argparse
from pathlib import Path
from typing import Any

from daemon.inspectctl.packages import require_tuf
from foundation.errors import printable


def add(commands: Any) -> None:
    parser = commands.add_parser(
        "release",
        help="put engines, calibrations and configs where lines update from",
        description="Keep a signed repository (TUF) of releases, from which lines take theirs with "
        "inspectctl update. A release is a line's config, and all files that it judges by.",
    )
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    making = actions.add_parser(
        "init",
        help="make an empty repository and its keys",
        description="Make an empty repository and its keys. Each line needs its root.json once.",
    )
    making.set_defaults(run=_init)
    adding = actions.add_parser(
        "make",
        help="put in a new release of a line",
        description="Put in a new release of each line whose config is named, all of them or none.",
    )
    adding.add_argument("configs", type=Path, nargs="+", metavar="CONFIG", help="the line's YAML config")
    adding.set_defaults(run=_make)
    renewing = actions.add_parser(
        "renew",
        help="sign anew before it expires",
        description="Sign anew what the keys in DIR can sign: online.pem every few weeks, releases.pem and "
        "root.pem once a year.",
    )
    renewing.set_defaults(run=_renew)
    changing = actions.add_parser(
        "change-key",
        help="make a new key for a role, when one is lost to others or its owner leaves",
        description="Make a new key for a role. The root's key signs that, so it must be there; lines follow "
        "by themselves with their next update.",
    )
    changing.add_argument("role", choices=("root", "releases", "online"), help="whose key")
    changing.set_defaults(run=_change_key)
    for action in (making, adding, renewing, changing):
        action.add_argument(
            "--repository", type=Path, required=True, metavar="DIR", help="folder of the repository"
        )
        action.add_argument(
            "--keys", type=Path, required=True, metavar="DIR", help="folder of the secret keys"
        )


def _init(options: argparse.Namespace) -> int:
    require_tuf("release")
    from daemon.updates.repository import KEYS, init

    *keys, root = init(options.repository, options.keys)
    for file, purpose in zip(keys, KEYS.values(), strict=True):
        print(printable(f"{file}: {purpose}"))
    print(printable(f"{root}: give it to each line: inspectctl update --root root.json --from …"))
    return 0


def _make(options: argparse.Namespace) -> int:
    require_tuf("release")
    from daemon.updates.repository import make

    for release in make(options.repository, options.keys, options.configs):
        size = sum(file.size for file in release.files)
        print(f"{release.line}: release {release.number}: {len(release.files)} files, {size / 1e6:.1f} MB")
    return 0


def _renew(options: argparse.Namespace) -> int:
    require_tuf("release")
    from daemon.updates.repository import renew

    for kind, expires in renew(options.repository, options.keys).items():
        print(f"{kind}: good until {expires:%Y-%m-%d %H:%M} UTC")
    return 0


def _change_key(options: argparse.Namespace) -> int:
    require_tuf("release")
    from daemon.updates.repository import change_key

    former = change_key(options.repository, options.keys, options.role)
    print(printable(f"{options.keys / options.role}.pem: new; {former} is taken no more: destroy it"))
    return 0
