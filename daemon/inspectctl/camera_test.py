"""Shows live what a camera sees, and what is made of it."""

import contextlib
import sys
import threading
import time
from collections import deque
from typing import Any, Final

import cv2
import numpy as np

from daemon.capture.choice import Choice, Missed, Outcome
from daemon.capture.drivers import BadPicture, Camera, CameraFailed, CameraSettings, Picture
from daemon.capture.drivers.open import open_camera
from daemon.capture.presence.presence import Presence
from daemon.capture.triggers.open import open_input
from daemon.capture.triggers.triggers import Triggers
from foundation.errors import InputError, printable
from pictures.frames import cut_out

_SHOWN_S: Final = 0.25
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
        choice = _choice(settings)
        camera = open_camera(settings)
    except CameraFailed as error:
        raise InputError(str(error)) from error
    try:
        with contextlib.suppress(KeyboardInterrupt):  # the usual end
            _look(settings, camera, choice, seconds=seconds, shown=shown, figures=figures)
    except CameraFailed as error:
        raise InputError(str(error)) from error
    finally:
        camera.close()
    watch = choice.watch()
    shown.say(
        f"ended after {time.monotonic() - figures.began_s:.1f} s: {figures.pictures} pictures, "
        f"{figures.parts} taken, {figures.faults} faults, {watch.empty} without a part or trigger"
    )


def _choice(settings: CameraSettings) -> Choice:
    trigger, present = settings.trigger, settings.looked_for
    if present is not None or trigger is None:
        assert present is not None
        return Presence(settings, present)
    triggers = Triggers(trigger, time.monotonic_ns())
    edges = open_input(trigger, triggers)
    if edges is not None:

        def listen() -> None:
            for at_ns in edges:
                triggers.fire(at_ns)

        threading.Thread(target=listen, daemon=True).start()
    return triggers


def _look(
    settings: CameraSettings,
    camera: Camera,
    choice: Choice,
    *,
    seconds: float | None,
    shown: _Shown,
    figures: _Figures,
) -> None:
    period_s = 0.0 if camera.live else 1 / (settings.fps or _USUAL_FPS)
    due_s = figures.began_s
    while seconds is None or time.monotonic() - figures.began_s < seconds:
        if period_s:
            due_s = max(due_s + period_s, time.monotonic() - period_s)
            time.sleep(max(0.0, due_s - time.monotonic()))
        try:
            picture = camera.grab()
        except BadPicture as bad:
            figures.bad += 1
            shown.say(f"fault: {bad}")
            figures.faults += 1
            continue
        if picture is None:
            _tell(choice.finish(time.monotonic_ns()), shown, figures)
            return
        figures.pictures += 1
        figures.times.append(time.monotonic())
        began = time.perf_counter()
        outcomes = choice.look(picture, time.monotonic_ns())
        figures.used_ms.append((time.perf_counter() - began) * 1e3)
        figures.sharpness = _sharpness(settings, picture)
        _tell(outcomes, shown, figures)
        shown.show(_line(camera, choice, figures))


def _tell(outcomes: list[Outcome], shown: _Shown, figures: _Figures) -> None:
    for outcome in outcomes:
        named = "" if outcome.part is None else f": {outcome.part}"
        if isinstance(outcome, Missed):
            figures.faults += 1
            shown.say(f"fault{named}: {outcome.error}")
        else:
            figures.parts += 1
            shown.say(f"taken{named} (picture {figures.pictures})")


def _line(camera: Camera, choice: Choice, figures: _Figures) -> str:
    exposure: Any = getattr(camera, "exposure_us", None)
    watch = choice.watch()
    state = choice.state if isinstance(choice, Presence) else watch.trouble or f"{watch.triggers} triggers"
    speed = "" if watch.speed is None else f"  belt {np.hypot(*watch.speed):.0f} pixels/s"
    return (
        f"{figures.fps():.1f} fps  exposure {'unknown' if exposure is None else f'{exposure:g} µs'}  "
        f"sharpness {figures.sharpness:.0f}  {state}{speed}  taken {figures.parts}  faults {figures.faults}  "
        f"used {np.median(figures.used_ms):.2f} ms"
    )


def _sharpness(settings: CameraSettings, picture: Picture) -> float:
    """Variance of the Laplacian of what is looked at: to compare while the lens is turned."""
    green = np.ascontiguousarray(cut_out(picture.pixels, settings.roi)[..., 1])
    return float(cv2.meanStdDev(cv2.Laplacian(green, cv2.CV_16S))[1][0, 0]) ** 2
