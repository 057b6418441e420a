"""A line takes up a release, and goes back by itself where that is worse than what it had."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tqdm import tqdm

from calibration.golden import folder_of, read_list
from daemon.config import load_config
from daemon.journal.database import JournalFailed
from daemon.journal.reader import JournalReader
from daemon.updates.canary import Tally, newest, trouble
from daemon.updates.installed import Installed, State, Trial
from daemon.updates.release import Release
from daemon.updates.source import Source
from foundation.errors import InputError, Unavailable, WorkFailed, printable
from foundation.files import write_whole
from foundation.yaml_file import read_yaml, yaml_text
from verdicts import ControlRefused, ControlSilent, CurveKeys, LineControl

_RELOAD_S: Final = 120.0  # engines are loaded and tried out before the line takes them
_TICK_S: Final = 0.2


class RolledBack(WorkFailed):
    """The line has its former files again."""


@dataclass(frozen=True)
class Watch:
    """How a release is tried.

    Attributes:
        parts: how many have to be judged by it; 0: none is waited for.
        within_s: in which time.
        most_rejects: share of them that may be thrown out; None: judged by what the line did before.
    """

    parts: int
    within_s: float
    most_rejects: float | None


@dataclass(frozen=True)
class Line:
    """The line that is to be updated.

    Attributes:
        installed: its releases.
        control: where it answers; None: nowhere.
        curve: keys to connect with; None without encryption.
        has_process: whether a daemon of its config runs on this machine.
        say: tells a person what is being done.
    """

    installed: Installed
    control: str | None
    curve: CurveKeys | None
    has_process: Callable[[], bool]
    say: Callable[[str], None]

    @property
    def path(self) -> Path:
        """Its config."""
        return self.installed.config

    def runs(self) -> bool:
        """Whether it runs now, and can be told to reload.

        Raises:
            InputError: it runs and does not answer: whether a release does it good could not be seen.
        """
        if self.control is not None:
            with suppress(ControlSilent), self._asked(3.0) as control:
                control.status()
                return True
        if self.has_process():
            at = "no control address" if self.control is None else f"no answer at {self.control}"
            raise Unavailable(f"{self.path}: the line runs; expected to reload and watch it, found {at}")
        return False

    def reload(self) -> str | None:
        """Have the line read its files again.

        Returns:
            What is wrong with them, in the line's words; None where it runs on them.
        """
        try:
            with self._asked(_RELOAD_S) as control:
                control.reload()
                golden = control.status().golden
        except (ControlRefused, ControlSilent) as error:
            return printable(str(error))
        if golden is not None and golden.state == "failed":
            return f"golden samples failed: {printable(golden.error or '')}"
        return None

    @contextmanager
    def _asked(self, timeout_s: float) -> Iterator[LineControl]:
        assert self.control is not None
        with LineControl(self.control, curve=self.curve, timeout_s=timeout_s) as control:
            yield control


def update(
    line: Line, open_source: Callable[[], Source], watch: Watch, *, again: bool, replace_changed: bool
) -> None:
    """Take up the newest release of a line.

    Args:
        line: which.
        open_source: from where; called when no other update of the line runs.
        watch: how it is tried.
        again: take up a release that was rolled back here before.
        replace_changed: exchange files that were changed on this machine since the last release, too.

    Raises:
        InputError: what is there must not be taken up; nothing was changed. ``Unavailable`` where trying
            again later may help.
        RolledBack: it was taken up, was worse, and is gone again.
    """
    installed, name = line.installed, load_config(line.path).line
    with installed.locked():
        finish_interrupted(line)
        source = open_source()
        release = source.newest(name, installed.folder)
        state = installed.state
        found, installed_one = f"release {release.number} of {name}", installed.release_in(state.folder)
        present = None if installed_one is None else installed_one.number
        if present is not None and release.number < present:
            raise InputError(f"{source.address}: found {found}, expected {present}, which is here, or newer")
        why = state.rolled_back.get(release.number)
        if why is not None and not again:
            raise InputError(
                f"{source.address}: {found} was rolled back here ({why}); expected a newer one, or --again"
            )
        changed = installed.changed()
        if changed and not replace_changed:
            raise InputError(
                f"{line.path.parent / changed[0]}: was changed here since release {present}; expected it as "
                "released, or --replace-changed (a copy is kept)"
            )
        if release.number == present and not changed:
            line.say(f"{found} is installed already")
            return
        size = sum(file.size for file in release.files)
        line.say(f"{found}, made at {release.made_at}: {len(release.files)} files, {size / 1e6:.1f} MB")
        folder = installed.stage(release, source.fetch)
        _check(line, folder, release)
        _go_live(line, folder, release, watch)
        installed.forget_others()


def go_back(line: Line) -> None:
    """Take up the files that the line had before its release.

    Raises:
        InputError: there are none, or the line refuses them.
    """
    installed = line.installed
    with installed.locked():
        finish_interrupted(line)
        state, present = installed.state, installed.present()
        if state.back is None or present is None or not (installed.folder / state.back).is_dir():
            raise InputError(f"{installed.folder}: holds no files from before; expected an update first")
        installed.take_effect(installed.folder / state.back)
        if line.runs() and (refused := line.reload()):
            installed.take_effect(present)
            raise InputError(f"{line.path}: {refused}; the line runs on as it was")
        rolled_back, left = dict(state.rolled_back), installed.release_in(state.folder)
        if left is not None:
            rolled_back[left.number] = "by hand"
        is_release = installed.release_in(state.back) is not None
        installed.note(State(folder=state.back if is_release else None, rolled_back=rolled_back))
        line.say(f"{line.path}: has the files of {installed.folder / state.back} again")


def finish_interrupted(line: Line) -> None:
    """Go back to the files before a release that was still watched when its update was killed."""
    trial = line.installed.state.trial
    if trial is not None:
        line.say(f"{line.path}: the update to {trial.folder} was interrupted: {_roll_back(line, trial)}")


def _check(line: Line, folder: Path, release: Release) -> None:
    """Try a release as the line would run it, in processes of their own, before it takes effect.

    Raises:
        InputError: it is not in order.
    """
    path = line.path.with_name(f".{line.path.name}.trial")
    write_whole(path, _with_paths_of(folder, folder / release.config).encode())
    try:
        if load_config(path).line != release.line:
            raise InputError(f"{folder / release.config}: is not of line {release.line}")
        _run("inspectd", "--check", "--config", path)
        line.say(f"{release.line}: check: in order")
        for name, product in load_config(path).named_products().items():
            if read_list(folder_of(product.calibration)) is not None:
                of = [] if name is None else ["--product", name]
                _run("inspectctl", "golden", "test", "--config", path, *of)
                line.say(f"{release.line}: golden samples: passed{'' if name is None else f' ({name})'}")
    except InputError as error:
        raise type(error)(
            f"release {release.number}: {str(error).replace(str(path), release.config)}"
        ) from error
    finally:
        path.unlink(missing_ok=True)


def _run(command: str, *arguments: str | Path) -> None:
    """Run a command of ours.

    Raises:
        InputError: in the words of the command, if it fails.
    """
    program = "import sys; from foundation import start; sys.argv[0] = sys.argv.pop(1); sys.exit(start.{}())"
    words = [sys.executable, "-c", program.format(command), command, *map(str, arguments)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        failed = [text for text in done.stdout.splitlines() if text.startswith("failed")]
        said = (done.stderr.splitlines() or failed or [f"ended with status {done.returncode}"])[-1]
        refused = Unavailable if done.returncode == 1 and not failed else InputError
        raise refused(f"{said.removeprefix(f'{command}: ')}; the line runs on as it is")


def _with_paths_of(folder: Path, config: Path) -> str:
    """Write a release's config as it has to stand in the line's folder while its files lie elsewhere."""
    content: dict[str, Any] = read_yaml(config, "the config of a line").content
    content = dict(content)

    def moved(section: Any, *keys: str) -> Any:
        if not isinstance(section, dict):
            return section
        return section | {
            key: str(folder / section[key]) for key in keys if isinstance(section.get(key), str)
        }

    content = moved(content, "engine", "calibration", "mask")
    for key, names in (("products", ("engine", "calibration", "mask")), ("cameras", ("mask",))):
        if isinstance(content.get(key), dict):
            content[key] = {name: moved(section, *names) for name, section in content[key].items()}
    if isinstance(content.get("cameras"), dict):
        for camera in content["cameras"].values():
            if isinstance(camera, dict) and "locate" in camera:
                camera["locate"] = moved(camera["locate"], "reference")
    return yaml_text(content)


def _go_live(line: Line, folder: Path, release: Release, watch: Watch) -> None:
    installed = line.installed
    journal = load_config(line.path).journal
    runs = line.runs()
    back = installed.keep_present(release)
    before = installed.state
    trial = Trial(folder=folder.name, back=back.name)
    # Once this is noted, whatever ends this process, the next one goes back.
    installed.note(before.model_copy(update={"trial": trial}))
    with _sigterm_raises():
        try:
            if runs and journal is not None:
                with JournalReader(journal.file) as reader:
                    earlier = newest(reader)
                    installed.take_effect(folder)
                    if refused := line.reload():
                        raise RolledBack(refused)
                    line.say(f"{release.line}: reloaded")
                    seen = _watched(reader, earlier, watch)
                line.say(f"{release.line}: {seen}, before {earlier}")
            else:
                installed.take_effect(folder)
                line.say(f"{release.line}: does not run now, and will start with this release")
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                said = f"interrupted: release {release.number}: {_roll_back(line, trial)}"
                raise KeyboardInterrupt(said) from error
            why = printable(str(error))
            said = _roll_back(line, trial, because=why)
            if isinstance(error, (RolledBack, JournalFailed, InputError)):
                raise RolledBack(f"{line.path}: release {release.number}: {why}: {said}") from error
            raise
        rolled_back = {number: why for number, why in before.rolled_back.items() if number != release.number}
        installed.note(State(folder=folder.name, back=back.name, rolled_back=rolled_back))
    line.say(f"{release.line}: release {release.number} is installed")


def _watched(journal: JournalReader, before: Tally, watch: Watch) -> Tally:
    """Wait until enough parts were judged.

    Raises:
        RolledBack: they are worse than before, or do not come.
    """
    seen, last_row = Tally(), journal.last_row()
    give_up_s = time.monotonic() + watch.within_s
    with tqdm(total=watch.parts, desc="watching", unit="part", leave=False, disable=None) as progress:
        while (missing := watch.parts - seen.parts) > 0:
            rows = journal.after(last_row, missing)
            for row, payload in rows:
                last_row, seen = row, seen.and_of([payload])
                progress.update()
                if worse := trouble(before, seen, watch.most_rejects):
                    raise RolledBack(worse)
            if not rows:
                if time.monotonic() > give_up_s:
                    raise RolledBack(
                        f"only {seen.parts} of {watch.parts} parts came within {watch.within_s:g} s"
                    )
                time.sleep(_TICK_S)
    return seen


def _roll_back(line: Line, trial: Trial, because: str | None = None) -> str:
    """Give the line its former files, have it take them up, and tell how that went.

    Args:
        line: which.
        trial: what is ended.
        because: why the release is not to be tried again; None: it may be.
    """
    installed = line.installed
    installed.take_effect(installed.folder / trial.back)
    try:
        refused = line.reload() if line.runs() else None
    except InputError as error:
        refused = str(error)
    state, release = installed.state, installed.release_in(trial.folder)
    rolled_back = dict(state.rolled_back)
    if because is not None and release is not None:
        rolled_back[release.number] = because[:500]
    installed.note(state.model_copy(update={"trial": None, "rolled_back": rolled_back}))
    if refused is not None:
        return f"rolled back, but the line did not take that up ({refused}): run inspectctl reload"
    return "rolled back"


@contextmanager
def _sigterm_raises() -> Iterator[None]:
    """Have SIGTERM roll back, as Ctrl-C does."""
    former = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, former)
