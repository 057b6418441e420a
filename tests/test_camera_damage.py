"""A short run of what docs/benchmarks/fuzz.md counts: damage by a network or a disk, and what passes."""

from collections import Counter

import cv2
import numpy as np

from fuzzing.damaged_pictures import run
from fuzzing.strict_jpeg import fault_of


def test_what_is_cut_short_lost_or_overwritten_with_zeros_is_a_fault() -> None:
    counts = run(inputs=620, seed=7)
    for (recording, damage), counted in counts.items():
        # Raw H.264 has no numbers of its own: without a key picture, what follows may fit what came before.
        lost = damage == "packets lost" and not recording.endswith("raw")
        zeros = damage == "zeros" and not recording.startswith("progr")
        if damage == "cut short" or lost or zeros:
            assert not counted["valid"] + counted["missed"], (recording, damage, counted)
    assert sum(counts.values(), Counter())["fault"] > 400


def test_the_strict_reader_of_jpeg_takes_every_intact_one_and_finds_what_is_wrong() -> None:
    picture = np.random.default_rng(1).integers(0, 255, (40, 56, 3)).astype(np.uint8)
    for options in ([], [cv2.IMWRITE_JPEG_RST_INTERVAL, 2], [cv2.IMWRITE_JPEG_OPTIMIZE, 1]):
        whole = bytes(cv2.imencode(".jpg", picture, options)[1].tobytes())
        assert fault_of(whole) is None
        middle = len(whole) * 2 // 3
        assert fault_of(whole[:middle]) is not None
        assert fault_of(whole[:middle] + whole[middle + 100 :]) is not None
        assert fault_of(whole[:-2] + b"\0\0\0\xff\xd9") is not None
