"""Whether the stated interval of the false reject rate holds the true rate as often as it says.

    python benchmarks/false_rejects.py bottle.padim tile.padim --json docs/benchmarks/false_rejects.json
        --markdown docs/benchmarks/false_rejects.md

Each file is what `train-model --method padim` wrote beside a model: it holds the scores of good images that
the model had not seen. They stand for all parts of the product: scores are drawn from them with a little
normal noise (smoothed bootstrap, Silverman's bandwidth), half as many as there are, a threshold is fitted to
these, and its true rate is known exactly. Without the noise the true rate could only be a whole number of
images, and 0 above the highest of them. The same with scores from distributions.
"""

import argparse
import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from tqdm import tqdm

from calibration.tail import CONFIDENCE, FEWEST_SCORES, fit_threshold
from foundation.errors import InputError
from foundation.files import write_whole
from foundation.option_types import whole_number

RATES = (0.05, 0.1)
"""Wanted of products: of 100 images, lower ones are not resolved."""
LOW_RATES = (0.001, 0.01, 0.05)
"""Wanted of distributions."""
DRAWN = 100

Floats = NDArray[np.float64]
Draw = Callable[[np.random.Generator], Floats]
TrueRate = Callable[[float], float]


def main() -> int:
    """Run the benchmark and give its exit code."""
    options = parser().parse_args()
    try:
        products = {path: held_out_scores(path) for path in options.models}
    except InputError as error:
        print(f"false_rejects.py: {error}", file=sys.stderr)
        return 2
    rows: list[dict[str, Any]] = []
    for what, draw, true_rate, rate in tqdm(tasks(products), desc="false rejects", unit="row"):
        rows.append({**what, **coverage(draw, true_rate, rate, options.splits)})
        page = as_markdown(rows, options.splits)
        content = {"date": datetime.now(UTC).date().isoformat(), "confidence": CONFIDENCE, "rows": rows}
        for target, text in ((options.json, json.dumps(content, indent=2) + "\n"), (options.markdown, page)):
            if target is not None:
                write_whole(target, text.encode())
    print(page)
    return 0


def tasks(products: dict[Path, Floats]) -> list[tuple[dict[str, Any], Draw, TrueRate, float]]:
    """Give what to measure: a description, how to draw scores, the true rate, the wanted one."""
    laws = {"normal": stats.norm, "exponential": stats.expon, "Gumbel": stats.gumbel_r}
    return [
        *(of_images(path, scores, rate) for rate in RATES for path, scores in products.items()),
        *(of_distribution(name, law, rate) for name, law in laws.items() for rate in LOW_RATES),
    ]


def of_images(path: Path, scores: Floats, rate: float) -> tuple[dict[str, Any], Draw, TrueRate, float]:
    """Draw from the smoothed scores of a product's images, half as many as there are."""
    sample = max(FEWEST_SCORES, len(scores) // 2)
    width = bandwidth(scores)

    def draw(random: np.random.Generator) -> Floats:
        return random.choice(scores, sample) + random.normal(scale=width, size=sample)

    def true_rate(value: float) -> float:
        return float(np.mean(stats.norm.sf(value, loc=scores, scale=width)))

    return {"what": path.stem, "truth": f"{len(scores)} images", "drawn": sample}, draw, true_rate, rate


def bandwidth(scores: Floats) -> float:
    """Give the width of the noise (Silverman 1986, equation 3.31)."""
    low, high = np.quantile(scores, (0.25, 0.75))
    spread = min(float(scores.std(ddof=1)), float(high - low) / 1.34)
    return 0.9 * spread * len(scores) ** -0.2


def of_distribution(name: str, law: Any, rate: float) -> tuple[dict[str, Any], Draw, TrueRate, float]:
    """Draw from a distribution whose true rates are known."""

    def draw(random: np.random.Generator) -> Floats:
        drawn: Floats = law.rvs(size=DRAWN, random_state=random)
        return drawn

    def true_rate(value: float) -> float:
        return float(law.sf(value))

    return {"what": name, "truth": "distribution", "drawn": DRAWN}, draw, true_rate, rate


def held_out_scores(path: Path) -> Floats:
    """Read the scores of good images that a model of padim had not seen."""
    from models.padim.sums_file import load_sums

    scores = load_sums(path).held_out_scores
    if len(scores) < FEWEST_SCORES:
        raise InputError(f"{path}: holds {len(scores)} scores; expected at least {FEWEST_SCORES}")
    return scores


def coverage(
    draw: Draw,
    true_rate: TrueRate,
    rate: float,
    splits: int,
) -> dict[str, Any]:
    """Fit a threshold to drawn scores again and again, and see whether its interval holds the true rate."""
    random = np.random.default_rng(0)
    held = below = 0
    rates = []
    for _ in range(splits):
        threshold = fit_threshold(np.sort(draw(random)), rate)
        low, high = threshold.rate_interval
        rates.append(true_rate(threshold.value))
        held += low <= rates[-1] <= high
        below += rates[-1] < low
    return {
        "wanted": rate,
        "mean_true_rate": float(np.mean(rates)),
        "held": held / splits,
        "true_rate_below": below / splits,
    }


def as_markdown(rows: list[dict[str, Any]], splits: int) -> str:
    """Write the page."""
    lines = [
        "# The promised false reject rate",
        "",
        f"`calibrate` and `train-model` state an interval that holds the true rate with {CONFIDENCE:.0%}"
        f" confidence. Here {splits} thresholds each were fitted to drawn scores whose true rate is known. Of"
        " a product, the held-out scores are the truth, each with normal noise of Silverman's width around"
        " it, because a rate of 5 % cannot be told from whole images. Aim: 85 to 95 %.",
        "",
        "    python benchmarks/false_rejects.py PRODUCT.padim …",
        "",
        "| scores of | truth | drawn | wanted | true rate, mean | interval holds it | true rate below it |",
        "|---|---|--:|--:|--:|--:|--:|",
    ]
    lines += [
        f"| {row['what']} | {row['truth']} | {row['drawn']} | {row['wanted']:.1%}"
        f" | {row['mean_true_rate']:.2%} | {row['held']:.1%} | {row['true_rate_below']:.1%} |"
        for row in rows
    ]
    return "\n".join(lines) + "\n"


def parser() -> argparse.ArgumentParser:
    """Make the parser of the command line."""
    made = argparse.ArgumentParser(
        prog="false_rejects.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("models", type=Path, nargs="+", metavar="FILE.padim")
    made.add_argument("--splits", type=whole_number(1), default=200, help="of each (default: %(default)s)")
    made.add_argument("--json", type=Path, metavar="FILE", help="write the result here")
    made.add_argument("--markdown", type=Path, metavar="FILE", help="write the page here")
    return made


if __name__ == "__main__":
    sys.exit(main())
