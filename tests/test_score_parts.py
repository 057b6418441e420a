"""A verdict says what each map has in its score, where the config asks for it."""

import json
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from brightness import calibrate
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from line_process import a_verdict
from line_rig import part_image, running, write_config

from daemon.journal.reader import JournalReader
from daemon.judging.score_parts import score_parts
from pictures.mask import weigh
from verdicts import MalformedMessage, Verdict, decode, encode
from verdicts.verdict import decode_verdict

MAPS = arrays.arrays(np.float32, (2, 3, 5, 4), elements=st.floats(-10, 10, width=32))
WEIGHTS = arrays.arrays(np.float32, (5, 4), elements=st.sampled_from([0.0, 0.5, 1.0, 2.0]))


@given(MAPS, st.none() | WEIGHTS.filter(np.any))
def test_the_mean_of_the_parts_is_the_score(maps: np.ndarray, weights: np.ndarray | None) -> None:
    quantiles = np.array([[0.5, 2.5], [-1.0, 0.0]], dtype=np.float32)
    q_a, q_b = quantiles.T[:, :, None, None, None]
    anomaly_maps = (0.1 * (maps - q_a) / (q_b - q_a)).mean(0)
    scores = anomaly_maps.max((1, 2))
    if weights is not None:
        scores, anomaly_maps = weigh(anomaly_maps, weights)
    parts = score_parts(list(maps), anomaly_maps, quantiles, weights)
    assert parts.shape == (3, 2)
    np.testing.assert_allclose(parts.mean(1), scores, atol=1e-5)


def test_what_is_no_share_of_a_score_is_refused() -> None:
    verdict = a_verdict(1, score_parts={"local": 0.25, "größe": 0.75})
    assert decode(*encode(verdict)) == verdict
    assert "score_parts" not in json.loads(encode(a_verdict(1))[1])
    content = json.loads(encode(verdict)[1])
    wrong: Any
    for wrong in (None, [], {"local": "high"}, {"local": None}, {"local": True}):
        with pytest.raises(MalformedMessage, match="score_parts"):
            decode_verdict(json.dumps(content | {"score_parts": wrong}).encode())
    with pytest.raises(MalformedMessage, match="score_parts"):
        encode(a_verdict(1, score_parts={"local": float("nan")}))
    with pytest.raises(MalformedMessage, match="without a score"):
        encode(a_verdict(1, decision="fault", score_parts={"local": 0.5}))


def test_a_line_says_it_from_the_reload_that_asks_for_it(line_folder: Path) -> None:
    calibrate(
        line_folder / "brightness.engine",
        line_folder / "brightness.calibration.yaml",
        0.5,
        quantiles={"local": (0.0, 0.1), "global": (0.2, 0.6)},
    )
    part_image(line_folder / "parts" / "1.png", bright=False)
    part_image(line_folder / "parts" / "2.png", bright=True)
    (line_folder / "parts" / "3.png").write_bytes(b"none")
    config = write_config(
        line_folder,
        {"top": {"source": "parts", "fps": 30, "loop": True}},
        journal={"file": "line3.journal"},
    )

    def said(verdicts: list[Verdict]) -> dict[str, Verdict]:
        return {verdict.decision: verdict for verdict in verdicts if verdict.score_parts or not verdict.score}

    with running(config) as line:
        line.until(lambda line: len(line.verdicts) > 3)
        assert not any(verdict.score_parts for verdict in line.verdicts)
        content = yaml.safe_load(config.read_text()) | {"score_parts": True}
        config.write_text(yaml.safe_dump(content))
        line.process.send_signal(signal.SIGHUP)
        line.until(lambda line: said(line.verdicts).keys() == {"pass", "reject", "fault"})
        line.stop()
    found = said(line.verdicts)
    assert found["fault"].score_parts is None
    for decision, brightness in (("pass", 40 / 255), ("reject", 1.0)):
        parts, score = found[decision].score_parts, found[decision].score
        assert parts is not None and score is not None
        assert list(parts) == ["local", "global"]
        assert parts["local"] == pytest.approx(brightness, abs=1e-5)
        assert parts["global"] == pytest.approx(0.25 * (brightness - 0.2), abs=1e-5)
        assert sum(parts.values()) / 2 == pytest.approx(score, abs=1e-5)
    with JournalReader(line_folder / "line3.journal") as reader:
        written = [decode_verdict(payload) for _, payload in reader.after(0, 1_000_000)]
    assert {verdict.seq for verdict in line.verdicts} <= {verdict.seq for verdict in written}
    assert [v.score_parts for v in written if v.seq == found["reject"].seq] == [found["reject"].score_parts]
