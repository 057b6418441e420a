"""Whether each part of a belt is taken once when the background is hard to learn.

    python benchmarks/belt_starts.py --seed 300 --seeds 3

Presence alone, without a daemon, on drawn belts (docs/simulated-line.md): the camera begins while parts lie
on the belt, which stands or runs; the light changes at once or slowly while the belt runs, or stands with
parts in view. Printed for each kind: parts that were whole in view, of them without and with two pictures,
and faults beyond those that are due: one for another light, one for each part that was never whole in view.
"""

import argparse
from collections import Counter
from collections.abc import Callable, Iterator

import cv2
import numpy as np
from tqdm import tqdm

from daemon.capture.choice import Missed, Outcome
from daemon.capture.drivers import CameraSettings, Picture, Present
from daemon.capture.drivers.open import open_camera
from daemon.capture.presence.presence import Presence

PARTS = 40
SPEEDS = (3, 12, 30)
WHOLE = 65
"""Pixels of the drawn parts' boxes."""
BRIGHTER = 2.6

Stream = Iterator[Picture]


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seed", type=int, default=300, help="the first (default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=3, help="how many (default: %(default)s)")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    seeds = range(options.seed, options.seed + options.seeds)
    for name, (kind, due) in KINDS.items():
        total: Counter[str] = Counter()
        for seed in tqdm(seeds, desc=name, leave=False, disable=None):
            for speed in SPEEDS:
                total += judged(kind(belt(seed, speed), int((170 + 13 * (seed % 7)) * 12 / speed)), due)
        counts = ", ".join(f"{total[key]} {key}" for key in ("parts", "without", "twice", "more faults"))
        print(f"{name}: {counts}", flush=True)


def belt(seed: int, speed: int) -> Stream:
    """Give the pictures of a belt."""
    camera = open_camera(
        CameraSettings(f"simulated://belt?seed={seed}&parts={PARTS}&speed={speed}&stops=0.1")
    )
    while (picture := camera.grab()) is not None:
        yield picture


def standing(pictures: int) -> Callable[[Stream, int], Stream]:
    """Begin amid the belt, which stands for so many pictures first."""

    def stream(whole: Stream, at: int) -> Stream:
        for number, picture in enumerate(whole):
            for _ in range(pictures + 1 if number == at else number > at):
                yield picture

    return stream


def light(per_picture: float) -> Callable[[Stream, int], Stream]:
    """Make the light brighter by so much from picture to picture while the belt runs."""

    def stream(whole: Stream, at: int) -> Stream:
        for number, picture in enumerate(whole):
            yield lit(picture, 1 + min(BRIGHTER - 1, max(0.0, per_picture * (number - at))))

    return stream


def light_while_it_stands(whole: Stream, at: int) -> Stream:
    """Stop the belt with parts in view, and make the light brighter then."""
    for number, picture in enumerate(whole):
        for after in range(110 if number == at else 1):
            yield lit(picture, BRIGHTER if number > at or after > 30 else 1.0)


def lit(picture: Picture, gain: float) -> Picture:
    """Give a picture as a brighter lamp shows it."""
    return picture._replace(pixels=cv2.convertScaleAbs(picture.pixels, alpha=gain).astype(np.uint8))


KINDS: dict[str, tuple[Callable[[Stream, int], Stream], int]] = {
    **{f"begins amid parts, stands for {count} pictures": (standing(count), 0) for count in (0, 12, 300)},
    "another light at once": (light(BRIGHTER), 1),
    "another light within 8 pictures": (light(0.2), 1),
    "another light while the belt stands": (light_while_it_stands, 1),
}
"""What happens, and how many faults are due for it."""


def judged(stream: Stream, due: int) -> Counter[str]:
    """Count what presence makes of a stream."""
    present = Present()
    presence = Presence(CameraSettings("nowhere", present=present), present)
    taken: Counter[str] = Counter()
    seen: set[str] = set()
    whole: set[str] = set()
    faults = at_ns = 0
    outcomes: list[Outcome] = []
    for picture in stream:
        at_ns += 33_333_333
        outcomes += presence.look(picture, at_ns)
        seen |= {name for name, _ in picture.parts}
        whole |= {name for name, box in picture.parts if box.width == WHOLE}
    for outcome in outcomes + presence.finish(at_ns):
        if isinstance(outcome, Missed):
            faults += 1
        else:
            taken[str(outcome.part).split()[0]] += 1
    names, halves = {name.split()[0] for name in whole}, {name.split()[0] for name in seen}
    return Counter(
        {
            "parts": len(names),
            "without": len(names - taken.keys()),
            "twice": sum(count > 1 for count in taken.values()),
            "more faults": max(0, faults - due - len(halves - names)),
        }
    )


if __name__ == "__main__":
    main()
