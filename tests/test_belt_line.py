"""A whole line on a moving belt: each part one verdict, triggers that the PLC sends, and what health says."""

import json
import subprocess
from collections import Counter
from pathlib import Path

import pytest
from line_rig import COMMANDS, part_image, running, write_config
from patience import PATIENCE_S

from verdicts import LineControl

BELT = "simulated://belt?seed=7&width=160&height=120&diameter=58"


def inspectctl(*arguments: str | Path, code: int = 0) -> str:
    done = subprocess.run(
        [COMMANDS / "inspectctl", *arguments], capture_output=True, text=True, check=False, timeout=PATIENCE_S
    )
    assert done.returncode == code, done.stdout + done.stderr
    return (done.stdout if code == 0 else done.stderr).strip()


def test_each_part_of_a_belt_has_one_verdict_and_the_rest_none(line_folder: Path) -> None:
    truth = line_folder / "truth.jsonl"
    belt = {"source": f"{BELT}&parts=25&speed=9&truth={truth}", "present": {}, "waiting": 100}
    # A second camera keeps the line up while it is asked.
    images = [part_image(line_folder / f"parts/{index}.png", bright=False) for index in range(3)]
    config = write_config(
        line_folder,
        {"belt": belt, "top": {"source": str(images[0].parent), "loop": True, "fps": 5}},
        journal={"file": "line3.journal"},
        control=f"ipc://{line_folder}/control",
    )
    with running(config) as line:
        line.until(lambda line: line.health.cameras["belt"].state == "ended")
        line.until(lambda line: len([v for v in line.verdicts if v.camera == "belt"]) == 25)
        with LineControl(f"ipc://{line_folder}/control", timeout_s=PATIENCE_S) as control:
            statistics = control.statistics()
        status = inspectctl("status", "--config", str(config))
        line.stop()
    verdicts = [verdict for verdict in line.verdicts if verdict.camera == "belt"]
    parts = Counter(str(verdict.part).split()[0] for verdict in verdicts)
    written = [json.loads(entry)["part"] for entry in truth.read_text().splitlines()]
    assert parts == Counter(f"{part:06d}" for part in written) and len(written) == 25
    assert {verdict.decision for verdict in verdicts} <= {"pass", "reject"}
    assert sorted(verdict.frame for verdict in verdicts) == list(range(1, 26))
    assert statistics is not None and list(statistics.cameras) == ["belt"]
    seen = statistics.cameras["belt"]
    assert (seen.parts, seen.missed, seen.triggers) == (25, 0, 0)
    assert seen.pictures > seen.empty > 40
    assert seen.speed_px_per_s is not None and seen.speed_px_per_s[0] > 50
    assert f"parts     belt: 25 taken of {seen.pictures} pictures, 0 missed, belt at" in status


def test_a_part_that_a_command_announces_is_named_in_its_verdict(line_folder: Path) -> None:
    config = write_config(
        line_folder,
        {
            "top": {"source": BELT, "fps": 100, "trigger": {"by": "software"}},
            "side": {"source": BELT, "fps": 9},
        },
        journal={"file": "line3.journal"},
        control=f"ipc://{line_folder}/control",
    )
    with running(config) as line:
        line.until(lambda line: line.health.state == "running")
        said = inspectctl("trigger", "top", "--part", "4711 ü", "--config", str(config))
        assert said == "camera top: triggered, part 4711 ü"
        line.until(lambda line: any(verdict.part == "4711 ü" for verdict in line.verdicts))
        with LineControl(
            f"ipc://{line_folder}/control", timeout_s=PATIENCE_S
        ) as control:  # the same as a ZeroMQ message
            control.trigger("top", "4712")
        line.until(lambda line: any(verdict.part == "4712" for verdict in line.verdicts))
        refused = {
            ("side", "1"): "cameras.side.trigger: found none, expected by: software",
            ("below", "1"): "camera 'below': unknown; expected one of top, side",
            ("top", ""): "part: found 0 characters, expected 1 to 200",
        }
        for (camera, part), expected in refused.items():
            said = inspectctl("trigger", camera, "--part", part, "--config", str(config), code=2)
            assert expected in said and "\n" not in said
        line.stop()
    top = [verdict for verdict in line.verdicts if verdict.camera == "top"]
    assert [(verdict.frame, verdict.part, verdict.reason) for verdict in top] == [
        (1, "4711 ü", None),
        (2, "4712", None),
    ]


@pytest.mark.parametrize(
    ("arguments", "code", "expected"),
    [
        ((f"{BELT}&parts=6", "--fps", "300"), 0, "6 taken, 0 faults"),
        ((BELT, "--seconds", "0.5"), 0, "ended after 0.5 s:"),
        (("/dev/video99",), 2, "inspectctl: /dev/video99: no such device"),
        ((BELT, "--roi", "0,0,900,9"), 2, "roi 900×9+0+0 does not lie inside the picture of 160×120 pixels"),
        ((BELT, "--contrast", "0"), 2, "found '0', expected a number above 0"),
        (("top", "--config", "missing.yaml"), 2, "missing.yaml"),
    ],
)
def test_a_camera_is_tried_on_the_terminal(arguments: tuple[str, ...], code: int, expected: str) -> None:
    said = inspectctl("camera", "test", *arguments, code=code)
    assert expected in said.splitlines()[-1]
    assert code == 0 or len(said.splitlines()) == 1
    if "parts=6" in arguments[0]:
        assert said.count("taken: 00000") == 6 and " fps  exposure unknown  sharpness " in said
