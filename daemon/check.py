"""Whether a line would start, found out without judging anything; beside the running line too."""

import asyncio
import contextlib
import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import zmq
from tqdm import tqdm

from daemon.capture.counter import CaptureCounter
from daemon.capture.drivers import BadPicture, CameraFailed, CameraSettings
from daemon.capture.drivers.open import open_camera
from daemon.capture.supervisor import Arrival, DaemonCamera, refuse_failed
from daemon.config import Config, JournalConfig, load_config
from daemon.host.access import Access, CurveAccess
from daemon.host.bind import AddressInUse, bind
from daemon.journal.database import JournalFailed
from daemon.journal.reader import JournalReader
from daemon.setup import clients_of, load_setup
from foundation.errors import InputError
from pictures.frames import Frame, Size, cut_out
from pictures.locating.reference import Reference
from verdicts.address import from_this_machine
from verdicts.control import ControlRefused, ControlSilent, LineControl
from verdicts.curve import CurveKeys
from verdicts.health import Health
from verdicts.silence import LineSilent
from verdicts.subscription import read_health

_BOOT = "0"  # no verdict will carry it
_PATIENCE_S = 3.0


class Checked(NamedTuple):
    """A config that is in order, and what of it could not be tried."""

    config: Config
    running: bool
    """Whether the line runs now, and holds its addresses itself."""
    not_tried: list[str]


async def check_line(path: Path) -> Checked:
    """Open all that a config names, as the running daemon would, and close it again; nothing is judged.

    Raises:
        InputError: something does not open.
    """
    config = load_config(path)
    curve = config.curve
    access = Access() if curve is None else CurveAccess(curve.secret_key, clients_of(curve))
    with closing(access):
        running = check_addresses(config, access)
    if config.journal is not None:
        _check_journal(path, config.line, config.journal, runs=running is not None)
    if config.archive is not None:
        _check_folder(path, "archive.folder", config.archive.folder)
    if config.preview is not None:
        _check_folder(path, "preview.folder", config.preview.folder)
    plan = load_setup(path).camera_plan
    held = {
        name: settings
        for name, settings in config.cameras.items()
        if _is_device(settings.source) and running is not None and _runs(running, name)
    }
    await check_cameras(
        {name: settings for name, settings in config.cameras.items() if name not in held},
        plan.size,
        plan.references,
    )
    for name, settings in config.cameras.items():
        _check_region(name, settings)
    not_tried = [f"cameras.{name}: not tried: the running line uses its device" for name in held]
    return Checked(config, running is not None, not_tried)


def check_addresses(config: Config, access: Access) -> Health | None:
    """Bind the addresses of a line for a moment.

    Returns:
        The health of the line when it runs now and has one of them itself; it is known by its name, and where
        there are keys, by its own.

    Raises:
        InputError: an address cannot be bound, or is in use by something else.
    """
    running = None
    for key, address in (("publish", config.publish), ("control", config.control)):
        if address is None:
            continue
        try:
            with access.context.socket(zmq.ROUTER) as socket:
                socket.linger = 0
                bind(socket, address, key)
        except AddressInUse as error:
            found = _health(key, from_this_machine(address), config.line, access.own_keys())
            if found is None:
                raise InputError(
                    f"{key}: {address} is in use, and not by line {config.line}: "
                    "expected a free address, or that of the running line"
                ) from error
            running = found
    return running


def _health(key: str, address: str, line: str, curve: CurveKeys | None) -> Health | None:
    """Ask what listens at an address for the health of a line; None when it is not that line."""
    try:
        if key == "publish":
            return read_health(address, line=line, timeout_s=_PATIENCE_S, curve=curve)
        with LineControl(address, timeout_s=_PATIENCE_S, curve=curve) as control:
            health = control.status()
    except (LineSilent, ControlSilent, ControlRefused, ValueError):
        return None
    return health if health.line == line else None


def _check_journal(path: Path, line: str, journal: JournalConfig, *, runs: bool) -> None:
    file = journal.file
    key = f"{path}: journal.file"
    if not file.exists():
        _refuse_unwritable(file.parent, key)
        return
    if not file.is_file() or not os.access(file, os.W_OK):
        raise InputError(f"{key}: {file} cannot be written; expected a journal, or no file")
    _refuse_unwritable(file.parent, key)  # SQLite's other files lie beside it
    if file.stat().st_size:
        try:
            with JournalReader(file) as reader:
                owner = reader.line()
        except JournalFailed as error:
            raise InputError(f"{key}: {error}") from error
        if owner != line:
            raise InputError(f"{key}: {file} is the journal of line {owner}; expected one of line {line}")
    if not runs and _is_locked(file.with_name(f"{file.name}-lock")):
        raise InputError(f"{key}: another inspectd writes {file}")


def _is_locked(lock: Path) -> bool:
    try:
        descriptor = os.open(lock, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False


def _check_folder(path: Path, key: str, folder: Path) -> None:
    """The daemon makes the folder; the first one above that is there has to let it."""
    there = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    _refuse_unwritable(there, f"{path}: {key}")


def _refuse_unwritable(folder: Path, key: str) -> None:
    if not folder.is_dir():
        found = "is a file" if folder.exists() else "does not exist"
        raise InputError(f"{key}: {folder} {found}; expected a folder that can be written to")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise InputError(f"{key}: {folder} is not writable; expected a folder that can be written to")


def _is_device(source: str) -> bool:
    """Whether one process at a time has it."""
    return source.startswith(("/dev/", "aravis://"))


def _runs(line: Health, camera: str) -> bool:
    return camera in line.cameras and line.cameras[camera].state == "running"


def _check_region(name: str, settings: CameraSettings) -> None:
    """Hold the region against each picture of a folder; they may have any size.

    Pictures that cannot be read are not a mistake in the config: they will be faults.
    """
    if settings.roi is None or "://" in settings.source or not Path(settings.source).is_dir():
        return
    for part, picture in tqdm(_pictures(settings), desc=f"camera {name}", unit="picture", disable=None):
        try:
            cut_out(picture, settings.roi)
        except InputError as error:
            raise InputError(f"cameras.{name}: {part}: {error}") from error


def _pictures(settings: CameraSettings) -> Iterator[tuple[str | None, Frame]]:
    camera = open_camera(replace(settings, loop=False))
    try:
        while True:
            try:
                picture = camera.grab()
            except BadPicture:
                continue
            if picture is None:
                return
            yield picture.part, picture.pixels
    except CameraFailed as error:
        raise InputError(str(error)) from error
    finally:
        camera.close()


class _Opening:
    """Waits for cameras and lets their frames be."""

    def __init__(self) -> None:
        self.changed = asyncio.Event()

    def arrived(self, camera: str, arrival: Arrival) -> None:
        pass

    def camera_changed(self, camera: str) -> None:
        self.changed.set()


async def check_cameras(
    settings: Mapping[str, CameraSettings], size: Size, references: Mapping[str, Reference]
) -> None:
    """Open every camera as the running daemon would, in a process of its own, and close it again.

    Args:
        settings: camera name to its entry in the config.
        size: the engine's input size.
        references: of the cameras that look for a part.

    Raises:
        InputError: a camera does not open.
    """
    opening = _Opening()
    cameras = [
        DaemonCamera(
            name,
            entry,
            size,
            judged_at_once=1,
            sink=opening,
            counter=CaptureCounter.create(None, _BOOT),
            reference=references.get(name),
        )
        for name, entry in settings.items()
    ]
    for camera in cameras:
        camera.start()
    try:
        while any(camera.state == "opening" for camera in cameras):
            opening.changed.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(opening.changed.wait(), 1.0)
            for camera in cameras:
                camera.check_stalled()
        refuse_failed(cameras)
    finally:
        await asyncio.gather(*(camera.stop(patience_s=2.0) for camera in cameras))
