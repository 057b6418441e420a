"""Shows live what a camera sees, and what is made of it."""

import contextlib
import queue
import sys
import threading
import time
from collections import deque
from pathlib import Path
from typing import Final, NamedTuple

import cv2
import numpy as np

from daemon.capture.choice import Choice, Missed, Outcome, Taken
from daemon.capture.drivers import BadPicture, Camera, CameraFailed, CameraSettings, Picture
from daemon.capture.drivers.open import open_camera
from daemon.capture.presence.presence import Presence
from daemon.capture.triggers.open import open_input
from daemon.capture.triggers.triggers import Triggers
from foundation.errors import InputError, printable
from pictures.frames import cut_out
from pictures.locating.locator import Locator, NotLocated, Place
from pictures.locating.reference_file import read_reference

_SHOWN_S: Final = 0.25
_SILENT_S: Final = 2.0  # without a picture
_CLOSE_S: Final = 1.0
_USUAL_FPS: Final = 30.0


class _Shown:
    """One line on the terminal that is written again and again; a line a second elsewhere."""

    def __init__(self) -> None:
        self._live = sys.stdout.isatty()
        self._every_s = _SHOWN_S if self._live else 1.0
        self._next_s = 0.0

    def say(self, text: str) -> None:
        """Say something that stays."""
        print(f"\r\x1b[K{printable(text)}" if self._live else printable(text), flush=True)

    def show(self, text: str) -> None:
        """Show how things stand, if it is time to."""
        now_s = time.monotonic()
        if now_s < self._next_s:
            return
        self._next_s = now_s + self._every_s
        if self._live:
            print(f"\r\x1b[K{printable(text)}", end="", flush=True)
        else:
            print(printable(text), flush=True)


class _Figures:
    """What was measured lately."""

    def __init__(self) -> None:
        self.began_s = time.monotonic()
        self.pictures = self.parts = self.faults = self.bad = 0
        self.times: deque[float] = deque(maxlen=60)
        self.used_ms: deque[float] = deque(maxlen=60)
        self.located_ms: deque[float] = deque(maxlen=60)
        self.sharpness = 0.0

    def fps(self) -> float:
        """Pictures per second."""
        return (
            (len(self.times) - 1) / max(1e-6, self.times[-1] - self.times[0]) if len(self.times) > 1 else 0.0
        )


def show(settings: CameraSettings, seconds: float | None) -> None:
    """Look at a camera's pictures as the daemon would, and show what is made of them.

    Args:
        settings: of the camera.
        seconds: end after so long; at Ctrl-C or the end of the source when None.

    Raises:
        InputError: the camera or its trigger does not open, or breaks off.
    """
    shown, figures = _Shown(), _Figures()
    try:
        choice, locator = _choice(settings), _locator(settings)
        camera = open_camera(settings)
    except CameraFailed as error:
        raise InputError(str(error)) from error
    pictures = _Pictures(camera)
    try:
        with contextlib.suppress(KeyboardInterrupt):  # the usual end
            look = _Look(settings, camera, pictures, choice, locator, shown=shown, figures=figures)
            look.until_end(seconds)
    except CameraFailed as error:
        raise InputError(str(error)) from error
    finally:
        pictures.end()
    without = "" if choice is None else f", {choice.watch().empty} without a part or trigger"
    shown.say(
        f"ended after {time.monotonic() - figures.began_s:.1f} s: {figures.pictures} pictures, "
        f"{figures.parts} taken, {figures.faults} faults{without}"
    )


def _choice(settings: CameraSettings) -> Choice | None:
    """Set up what chooses among the pictures, as the daemon would; None where each is judged."""
    trigger, present = settings.trigger, settings.looked_for
    if present is not None:
        return Presence(settings, present)
    if trigger is None:
        return None
    triggers = Triggers(trigger, time.monotonic_ns())
    edges = open_input(trigger, triggers)
    if edges is not None:

        def listen() -> None:
            for at_ns in edges:
                triggers.fire(at_ns)

        threading.Thread(target=listen, daemon=True).start()
    return triggers


def _locator(settings: CameraSettings) -> Locator | None:
    return None if settings.locate is None else Locator(read_reference(Path(settings.locate.reference)))


class _Grabbed(NamedTuple):
    """What came of waiting for a picture."""

    outcome: Picture | Exception | None
    """None: the source has ended."""
    at_ns: int
    """When, as ``time.monotonic_ns()``."""


class _Pictures:
    """Waits for a camera's pictures in a thread: one that waits for its trigger may wait for ever."""

    def __init__(self, camera: Camera) -> None:
        self.exposure_us: float | None = None
        """As the camera says now and then; None when it does not say."""
        self._camera = camera
        self._grabbed: queue.Queue[_Grabbed] = queue.Queue(maxsize=1)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._grab, daemon=True)
        self._thread.start()

    def next(self, seconds: float) -> _Grabbed | None:
        """Give what comes next; None when nothing comes for so long."""
        with contextlib.suppress(queue.Empty):
            return self._grabbed.get(timeout=seconds)
        return None

    def end(self) -> None:
        """Close the camera, unless it still waits for a picture: the end of the process does it then."""
        self._ended.set()
        with contextlib.suppress(queue.Empty):
            self._grabbed.get_nowait()
        self._thread.join(timeout=_CLOSE_S)
        if not self._thread.is_alive():
            self._camera.close()

    def _grab(self) -> None:
        goes_on, asked_s = True, 0.0
        while goes_on and not self._ended.is_set():
            outcome: Picture | Exception | None
            try:
                outcome = self._camera.grab()
                goes_on = outcome is not None
                if time.monotonic() > asked_s + _SHOWN_S:
                    asked_s = time.monotonic()
                    self.exposure_us = getattr(self._camera, "exposure_us", None)
            except BadPicture as bad:
                outcome = bad
            except Exception as error:  # raised again by whoever looks at it
                outcome, goes_on = error, False
            self._grabbed.put(_Grabbed(outcome, time.monotonic_ns()))


class _Look:
    """Looks at one picture after the other, and tells of each."""

    def __init__(
        self,
        settings: CameraSettings,
        camera: Camera,
        pictures: _Pictures,
        choice: Choice | None,
        locator: Locator | None,
        *,
        shown: _Shown,
        figures: _Figures,
    ) -> None:
        self._settings, self._choice, self._locator = settings, choice, locator
        self._is_live, self._pictures = camera.live, pictures
        self._shown, self._figures = shown, figures

    def until_end(self, seconds: float | None) -> None:
        """Look until the source ends, or so many seconds are over."""
        figures, settings = self._figures, self._settings
        period_s = 0.0 if self._is_live else 1 / (settings.fps or _USUAL_FPS)
        due_s = figures.began_s
        while seconds is None or time.monotonic() - figures.began_s < seconds:
            if period_s:
                due_s = max(due_s + period_s, time.monotonic() - period_s)
                time.sleep(max(0.0, due_s - time.monotonic()))
            grabbed = self._pictures.next(_SHOWN_S)
            if grabbed is None:
                if isinstance(self._choice, Triggers):
                    self._tell(self._choice.overdue(time.monotonic_ns()))
                self._shown.show(self._line())
                continue
            picture, now_ns = grabbed
            if isinstance(picture, BadPicture):
                self._fault(str(picture))
                continue
            if isinstance(picture, Exception):
                raise picture
            if picture is None:
                self._tell([] if self._choice is None else self._choice.finish(now_ns))
                return
            figures.pictures += 1
            figures.times.append(now_ns / 1e9)
            began = time.perf_counter()
            taken: list[Outcome] = [Taken(picture, picture.part, now_ns)]
            outcomes = taken if self._choice is None else self._choice.look(picture, now_ns)
            figures.used_ms.append((time.perf_counter() - began) * 1e3)
            figures.sharpness = _sharpness(settings, picture)
            self._tell(outcomes)
            self._shown.show(self._line())

    def _fault(self, text: str) -> None:
        self._figures.faults += 1
        self._shown.say(f"fault{text if text.startswith(':') else f': {text}'}")

    def _tell(self, outcomes: list[Outcome]) -> None:
        for outcome in outcomes:
            named = "" if outcome.part is None else f": {outcome.part}"
            if isinstance(outcome, Missed):
                self._fault(f"{named}: {outcome.error}")
                continue
            self._figures.parts += 1
            where = self._located(outcome.picture)
            self._shown.say(f"taken{named} (picture {self._figures.pictures}){where}")

    def _located(self, picture: Picture) -> str:
        """Say where the locator finds the parts of a picture."""
        if self._locator is None or self._settings.locate is None:
            return ""
        wrong = self._locator.reference.fault_of(picture.pixels)
        if wrong is not None:
            raise InputError(wrong)
        began = time.perf_counter()
        places = self._locator.locate_all(picture.pixels, self._settings.locate.parts)
        self._figures.located_ms.append((time.perf_counter() - began) * 1e3)
        return "".join(map(_where, places))

    def _line(self) -> str:
        figures = self._figures
        silent_s = time.monotonic() - (figures.times[-1] if figures.times else figures.began_s)
        if silent_s > _SILENT_S:
            silent = f"no picture for {silent_s:.0f} s"
            return f"{silent}{self._state()}  taken {figures.parts}  faults {figures.faults}"
        if not figures.times:
            return "no picture yet"
        exposure = self._pictures.exposure_us
        located = f"  locate {np.median(figures.located_ms):.2f} ms" if figures.located_ms else ""
        return (
            f"{figures.fps():.1f} fps  exposure {'unknown' if exposure is None else f'{exposure:g} µs'}  "
            f"sharpness {figures.sharpness:.0f}{self._state()}  taken {figures.parts}  "
            f"faults {figures.faults}  used {np.median(figures.used_ms):.2f} ms{located}"
        )

    def _state(self) -> str:
        """Say what presence or the trigger make of the last picture."""
        if self._choice is None:
            return ""
        watch = self._choice.watch()
        presence = self._choice if isinstance(self._choice, Presence) else None
        state = presence.state if presence is not None else watch.trouble or f"{watch.triggers} triggers"
        speed = "" if watch.speed is None else f"  belt {np.hypot(*watch.speed):.0f} pixels/s"
        return f"  {state}{speed}"


def _where(place: Place | NotLocated) -> str:
    if isinstance(place, NotLocated):
        return f"  not located: {place.reason}"
    return (
        f"  shift {place.dx:+.1f} {place.dy:+.1f}  turn {place.turn:+.1f}°  scale {place.scale:.3f}  "
        f"residual {place.residual:.2f}"
    )


def _sharpness(settings: CameraSettings, picture: Picture) -> float:
    """Variance of the Laplacian of what is looked at: to compare while the lens is turned."""
    green = np.ascontiguousarray(cut_out(picture.pixels, settings.roi)[..., 1])
    return float(cv2.meanStdDev(cv2.Laplacian(green, cv2.CV_16S))[1][0, 0]) ** 2
