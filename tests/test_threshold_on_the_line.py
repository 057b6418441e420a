"""The promised false reject rate is held against what a line passed, and changed on request alone."""

import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from documented_sql import documented_commands, rows_of
from line_rig import running, write_config
from scipy import stats
from test_golden import notes

from calibration.calibration_file import read_calibration, write_calibration
from calibration.reestimate import JudgedParts, reestimate
from calibration.tail import CONFIDENCE
from calibration.threshold_change import before_of
from daemon.inspectctl.cli import main as inspectctl
from foundation.errors import InputError

LAW = stats.gamma(2)


def judged(rate: float, count: int, random: np.random.Generator, defects: int) -> tuple[JudgedParts, float]:
    threshold = float(LAW.isf(rate))
    scores = LAW.rvs(count, random_state=random)
    return JudgedParts(scores[scores <= threshold], int((scores > threshold).sum()) + defects), threshold


@pytest.mark.slow
def test_the_interval_holds_though_the_highest_scores_are_missing() -> None:
    random, draws = np.random.default_rng(2026), 20
    held = held_when_set = 0
    for _ in range(draws):
        parts, threshold = judged(0.01, 1500, random, defects=10)
        found = reestimate(parts, threshold, 0.002)
        held += found.interval[0] <= 0.01 <= found.interval[1]
        true = float(LAW.sf(found.threshold.value))
        held_when_set += found.threshold.rate_interval[0] <= true <= found.threshold.rate_interval[1]
    least = stats.binom(draws, CONFIDENCE).ppf(0.001)
    assert held >= least
    assert held_when_set >= least


def test_what_people_said_of_rejects_narrows_the_interval() -> None:
    parts, threshold = judged(0.01, 1500, np.random.default_rng(0), defects=30)
    wide = reestimate(parts, threshold, 0.01).interval
    said = JudgedParts(parts.passes, parts.rejects, parts.rejects - 30, 30)
    narrow = reestimate(said, threshold, 0.01).interval
    assert wide[0] < narrow[0] < 0.01 < narrow[1] < wide[1]


def test_parts_that_depend_on_each_other_count_as_fewer() -> None:
    parts, threshold = judged(0.01, 600, np.random.default_rng(0), defects=0)
    copies = JudgedParts(np.repeat(parts.passes, 8), 8 * parts.rejects)
    once, again = (reestimate(of, threshold, 0.01) for of in (parts, copies))
    assert once.dependence < 2 < again.dependence
    assert again.interval == pytest.approx(once.interval, rel=0.5)


@pytest.mark.parametrize(
    ("passes", "rejects", "at", "expected"),
    [
        (99, 0, None, "found 99 parts that passed at this threshold, expected at least 100"),
        (500, 100, None, "fitted to what passed: 100 rejects beside 500 passes, expected at most one in ten"),
        (500, 0, 1.0, "threshold: found 1, above which 7.% of the parts that passed lie, expected a higher"),
    ],
)
def test_what_says_too_little_is_refused_in_one_line(
    passes: int, rejects: int, at: float | None, expected: str
) -> None:
    scores = LAW.rvs(passes, random_state=np.random.default_rng(0))
    with pytest.raises(InputError, match=expected):
        reestimate(JudgedParts(scores, rejects), 20.0, 0.01, at)


@pytest.mark.slow
def test_a_line_takes_the_threshold_that_its_parts_ask_for_and_the_old_one_back(
    line_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    random = np.random.default_rng(0)
    (line_folder / "parts").mkdir()
    for index, level in enumerate(np.clip(random.normal(70, 12, 150), 5, 120)):
        cv2.imwrite(str(line_folder / "parts" / f"{index:03}.png"), np.full((64, 64, 3), level, np.uint8))
    config = write_config(
        line_folder,
        {"top": {"source": "parts", "fps": 60, "loop": True}},
        journal={"file": "line3.journal"},
        control=f"ipc://{line_folder}/control",
    )
    file = line_folder / "brightness.calibration.yaml"
    original = read_calibration(file).model_copy(update={"wanted_false_reject_rate": 0.01})
    write_calibration(file, original)

    def command(*arguments: str) -> tuple[int, str]:
        capsys.readouterr()
        code = inspectctl(["threshold", *arguments, "--config", str(config)])
        said = capsys.readouterr()
        return code, said.out if code == 0 else said.err

    with running(config) as line:
        line.until(lambda line: len(line.verdicts) > 300)
        code, said = command()
        assert code == 0, said
        assert "threshold   0.5, to reject 10 in 1000 good parts" in said
        assert "NOT as promised" in said  # hardly a part comes near the threshold
        for wrong, expected in (
            (["set"], "--reason: found nothing, expected why"),
            (["set", "0.4", "--reason", "  "], "--reason: found nothing, expected why"),
            (["back", "--reason", "oops"], ".before: found no such file, expected what the calibration was"),
            (["back", "0.4", "--reason", "oops"], "VALUE: found 0.4, expected none with back"),
            (["--reason", "oops"], "--reason: found without set or back"),
            (["--by", "Ada"], "--by: found without set or back"),
            (
                ["set", "0.4", "--reason", "oops", "--product", "x"],
                "product 'x': unknown; expected one of its products",
            ),
        ):
            code, said = command(*wrong)
            assert (code, said.count("\n")) == (2, 1)
            assert expected in said
        assert read_calibration(file) == original

        code, said = command("set", "--reason", "held against a shift", "--by", "Ada")
        assert code == 0, said
        assert re.search(r"which rejects \d+ of \d+ parts that passed and 0 of 0 that did not", said)
        changed = read_calibration(file)
        assert 0.3 < changed.threshold < 0.49
        assert changed.false_reject_rate_interval[0] < 0.01 < changed.false_reject_rate_interval[1]
        assert changed.changed is not None
        assert (changed.changed.by, changed.changed.before) == ("Ada", 0.5)
        line.until(lambda line: line.verdicts[-1].threshold == changed.threshold)
        assert read_calibration(before_of(file)) == original

        code, said = command("back", "--reason", "too high", "--by", "Ben")
        assert code == 0, said
        assert read_calibration(file).threshold == 0.5
        line.until(lambda line: line.verdicts[-1].threshold == 0.5)
        line.stop()
    assert [
        (note["from"], note["to"], note["by"], note["reason"]) for note in notes(line_folder, "threshold")
    ] == [
        (0.5, changed.threshold, "Ada", "held against a shift"),
        (changed.threshold, 0.5, "Ben", "too high"),
    ]
    _, outcomes = documented_commands("golden.md")
    told = [(kind, by, value) for _, kind, by, value in rows_of(outcomes, line_folder / "line3.journal")]
    assert told == [("threshold", "Ben", 0.5), ("threshold", "Ada", changed.threshold)]
    assert inspectctl(["audit", str(line_folder / "line3.journal")]) == 0
    code, said = command("set", "0.45", "--reason", "nobody is there")
    assert (code, said.count("\n")) == (1, 1)
    assert read_calibration(file).threshold == 0.5  # the line did not take it up
