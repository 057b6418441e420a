import argparse
import os
import sys
import sysconfig
from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path
from typing import Any

from daemon.inspectctl.monitoring import Monitoring, remove
from foundation.errors import InputError
from foundation.files import write_whole

_UNIT = Path("systemd/system/inspectd@.service")
_FILES = {
    _UNIT: "inspectd@.service",
    Path("systemd/system/inspectd-gpu.service"): "inspectd-gpu.service",
    Path("sysusers.d/inspectd.conf"): "inspectd.sysusers",
    Path("tmpfiles.d/inspectd.conf"): "inspectd.tmpfiles",
    Path("systemd/system/inspectd-dashboard.service"): "inspectd-dashboard.service",
    Path("systemd/system/inspectd-plant@.service"): "inspectd-plant@.service",
    Path("systemd/system/inspectd-fleet-forward.service"): "inspectd-fleet-forward.service",
    Path("systemd/system/inspectd-fleet-lake.service"): "inspectd-fleet-lake.service",
    Path("systemd/system/inspectd-fleet-pictures.service"): "inspectd-fleet-pictures.service",
}
"""Where under the prefix each file goes, and its name among those that came with the package."""
_MODE = 0o644
_COMMAND_IN_UNIT = "/opt/inspectd/bin/inspectd"
_HIDDEN = tuple(map(Path, ("/home", "/root", "/run/user", "/tmp", "/var/tmp")))
"""What the unit's ProtectHome and PrivateTmp take out of the service's sight."""


def add(commands: Any) -> None:
    parser = commands.add_parser(
        "install-service",
        help="install the systemd service",
        description="Write the systemd unit inspectd@.service, its user and its folders, and say what "
        "to type next. Doing so again brings them up to date.",
    )
    parser.add_argument(
        "--prefix",
        type=Path,
        default=Path("/etc"),
        metavar="DIR",
        help="where systemd/, sysusers.d/ and tmpfiles.d/ lie (default: %(default)s; a package's: /usr/lib)",
    )
    parser.add_argument(
        "--inspectd",
        type=Path,
        metavar="FILE",
        help="the daemon's path on the machine that will run it, when that is not this one",
    )
    parser.add_argument(
        "--prometheus",
        type=Path,
        metavar="DIR",
        help="write the alert rules there, too: the folder with prometheus.yml, such as /etc/prometheus",
    )
    parser.add_argument(
        "--grafana",
        type=Path,
        metavar="DIR",
        help="write the dashboard there, too: the folder with provisioning/, such as /etc/grafana",
    )
    parser.add_argument("--dry-run", action="store_true", help="say what would be done and do nothing")
    parser.add_argument(
        "--uninstall", action="store_true", help="remove the files; configs and journals stay"
    )
    parser.set_defaults(run=_install_service)


def _install_service(options: argparse.Namespace) -> int:
    monitoring = Monitoring(options.prometheus, options.grafana)
    if options.uninstall:
        _uninstall(options.prefix, monitoring, dry_run=options.dry_run)
    else:
        _install(options.prefix, monitoring, options.inspectd, dry_run=options.dry_run)
    return 0


def _install(prefix: Path, monitoring: Monitoring, inspectd: Path | None, *, dry_run: bool) -> None:
    contents = _contents(_installed_inspectd() if inspectd is None else inspectd)
    _refuse_unwritable([*(prefix / path for path in contents), *monitoring.targets()])
    monitoring.check()
    for path, text in contents.items():
        target = prefix / path
        if _is(target, text):
            print(f"unchanged    {target}")
        elif dry_run:
            print(f"would write  {target}")
        else:
            _write(target, text)
            print(f"wrote        {target}")
    monitoring.install(dry_run=dry_run)
    print(
        "\nnow type:\n"
        f"  systemd-sysusers {prefix / 'sysusers.d/inspectd.conf'}\n"
        f"  systemd-tmpfiles --create {prefix / 'tmpfiles.d/inspectd.conf'}\n"
        "  systemctl daemon-reload\n"
        "and, with the config of a line in /etc/inspectd/NAME.yaml:\n"
        "  systemctl enable --now inspectd@NAME\n"
        "and, for the operators' page, with /etc/inspectd/dashboard.yaml:\n"
        "  systemctl enable --now inspectd-dashboard\n"
        "and, for metrics, MQTT, Modbus and the gate, with /etc/inspectd/NAME.plant.yaml:\n"
        "  systemctl enable --now inspectd-plant@NAME\n"
        "and, where many lines come together, with /etc/inspectd/fleet.yaml, one of them or both:\n"
        "  systemctl enable --now inspectd-fleet-forward inspectd-fleet-lake"
    )
    if steps := monitoring.next_steps():
        print(steps)


def _uninstall(prefix: Path, monitoring: Monitoring, *, dry_run: bool) -> None:
    enabled = sorted({link.name for link in (prefix / _UNIT).parent.glob("*.wants/inspectd*@*.service")})
    if enabled:
        raise InputError(
            f"{prefix / _UNIT}: is in use by {', '.join(enabled)}; "
            f"expected none; type: systemctl disable --now {' '.join(enabled)}"
        )
    targets = [prefix / path for path in _FILES]
    _refuse_unwritable([*targets, *monitoring.targets()])
    monitoring.check(uninstall=True)
    for target in targets:
        remove(target, dry_run=dry_run)
    monitoring.uninstall(dry_run=dry_run)
    print(
        "\nnow type:\n"
        "  systemctl daemon-reload\n"
        "what stays: /etc/inspectd, /var/lib/inspectd, keys in /etc/credstore, the user inspectd"
    )


def _contents(inspectd: Path) -> dict[Path, str]:
    """Give the text of each file for a daemon at the given path."""
    if not inspectd.is_absolute() or set(str(inspectd)) & set(" \t\n%\"'\\$;"):
        raise InputError(
            f"--inspectd: found {str(inspectd)!r}, expected an absolute path of plain characters"
        )
    came_with = files("daemon") / "systemd"
    contents = {path: (came_with / name).read_text(encoding="utf-8") for path, name in _FILES.items()}
    return {path: text.replace(_COMMAND_IN_UNIT, str(inspectd)) for path, text in contents.items()}


def _installed_inspectd() -> Path:
    """Find the daemon that is installed beside this command.

    Raises:
        InputError: the service could not run it there.
    """
    inspectd = Path(sysconfig.get_path("scripts")) / "inspectd"
    for needed in (inspectd, Path(sys.executable), Path(sys.executable).resolve(), Path(__file__)):
        _check_reachable(needed)
    # A release's installer keeps each version in a folder of its own, and beside them a link to the newest.
    link = inspectd.parents[2] / "bin" / inspectd.name
    return link if link.exists() and link.samefile(inspectd) else inspectd


def _check_reachable(path: Path) -> None:
    """Refuse a file that the service's user cannot reach, or that its sandbox hides from it."""
    wanted = "expected inspectd to be installed for all users, such as in /opt/inspectd"
    for folder in _HIDDEN:
        if path.is_relative_to(folder):
            raise InputError(f"{path}: lies in {folder}, which the service does not see; {wanted}")
    try:
        path.stat()
        closed = [folder for folder in path.parents if not folder.stat().st_mode & 0o001]
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; {wanted}") from error
    if closed:
        raise InputError(f"{path}: not everybody may enter {closed[-1]}; {wanted}")


def _refuse_unwritable(targets: Iterable[Path]) -> None:
    """Refuse before the first file is written: half a service would be worse than none."""
    for target in targets:
        there = next(folder for folder in target.parents if folder.exists())
        if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
            raise InputError(f"{target}: cannot be written; expected to run as root, such as with sudo")


def _is(target: Path, text: str) -> bool:
    try:
        return target.read_bytes() == text.encode() and target.stat().st_mode & 0o777 == _MODE
    except FileNotFoundError:
        return False
    except OSError as error:
        raise InputError(f"{target}: cannot be read: {error.strerror}") from error


def _write(target: Path, text: str) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    write_whole(target, text.encode(), _MODE)
