"""The ablation study of the paper: what each ingredient is worth on a data set."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor
from tqdm import tqdm

from foundation.errors import InputError
from foundation.files import replacing
from models.datasets.data_set import DataSet
from models.efficientad.checkpoint import MapNormalisation, Run, load_model, untrained_model
from models.efficientad.losses import P_HARD
from models.efficientad.networks import ModelSize
from models.efficientad.teacher import Teacher as PdnOrBackbone
from models.efficientad.train import train, validate
from models.evaluation.evaluate import Evaluation, evaluate
from models.evaluation.judge import CheckpointJudge
from models.training_images import Natural, Split

FORMAT_VERSION = 1


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    section: str
    name: str
    hard_feature_loss: bool = True
    pretraining_penalty: bool = True
    map_normalisation: MapNormalisation = "quantile"
    autoencoder: bool = True
    position_aware: bool = True
    density: bool = True
    whole: bool = True
    larger: bool = False
    """Whether it has the larger size."""

    @property
    def trained_as(self) -> str:
        """Name what decides the training: rows that differ in what is read out alone share a model."""
        on = {
            "larger": self.larger,
            "hard": self.hard_feature_loss,
            "penalty": self.pretraining_penalty,
            "autoencoder": self.autoencoder,
        }
        return "-".join(name for name, used in on.items() if used) or "plain"


ROWS = (
    Row("cumulative", "PDN", False, False, "gaussian", position_aware=False, density=False, whole=False),
    Row("cumulative", "+ map normalisation", False, False, position_aware=False, density=False, whole=False),
    Row("cumulative", "+ hard feature loss", True, False, position_aware=False, density=False, whole=False),
    Row(
        "cumulative", "+ pretraining penalty = the paper's", position_aware=False, density=False, whole=False
    ),
    Row("cumulative", "+ position-aware maps", density=False, whole=False),
    Row("cumulative", "+ density of the teacher's features", whole=False),
    Row("cumulative", "+ the picture as a whole = ours"),
    Row("cumulative", "+ larger size", larger=True),
    Row("isolated", "without map normalisation", map_normalisation="gaussian"),
    Row("isolated", "without hard feature loss", hard_feature_loss=False),
    Row("isolated", "without pretraining penalty", pretraining_penalty=False),
    Row("isolated", "without autoencoder", autoencoder=False),
    Row("isolated", "without position-aware maps", position_aware=False),
    Row("isolated", "without density", density=False),
    Row("isolated", "without the picture as a whole", whole=False),
)
"""Cumulative: techniques are combined one by one. Isolated: one is taken from all of them.

As in the paper, the first row averages all differences, scales the maps to mean 0 and variance 1, and has its
autoencoder already. The row without it is ours.
"""


@dataclass(frozen=True)
class Teacher:
    """A size and the teacher for it."""

    size: ModelSize
    weights: PdnOrBackbone
    digest: str


@dataclass(frozen=True)
class Settings:
    """What all rows have in common."""

    base: Run
    """Of the full recipe; size, seed and ingredients are replaced for each row."""
    teacher: Teacher
    larger: Teacher | None
    """Of another size; its row is left out when None."""
    seeds: Sequence[int]
    checkpoint_every: int


def ablate(
    settings: Settings, data_set: DataSet, split_of: Mapping[int, Split], penalty: Natural, out: Path
) -> dict[str, Any]:
    """Train and evaluate every row with every seed; what is finished in ``out`` is kept.

    Args:
        settings: of the study.
        data_set: brings the test images.
        split_of: seed → training and validation images.
        penalty: natural images for the pretraining penalty.
        out: existing folder of the study.

    Returns:
        The table, as it stands in ``ablation.json``.

    Raises:
        InputError: a finished row or a model in ``out`` belongs to a study with other settings; an image or
            mask is wrong; a file cannot be written.
        TrainingFailed: see ``train``.
    """
    rows = [row for row in ROWS if not row.larger or settings.larger is not None]
    tasks = [(row, seed) for seed in settings.seeds for row in rows]
    found: dict[Row, dict[int, dict[str, Any]]] = {row: {} for row in rows}
    for row, seed in tqdm(tasks, desc="ablation", unit="row"):
        run = run_of(settings, row, seed, split_of[seed], penalty)
        file = out / f"{row.section}-{place(row)}-seed-{seed}.json"
        metrics = _finished(file, run)
        if metrics is None:
            model = out / f"{row.trained_as}-seed-{seed}.pt"
            judge = _trained(model, settings, run, split_of[seed], penalty)
            metrics = _summary(evaluate(judge, data_set, roi=run.roi, draws=0))
            with replacing(file) as stream:
                content = {"format_version": FORMAT_VERSION, "run": _plain(run), "metrics": metrics}
                stream.write(json.dumps(content, indent=2).encode() + b"\n")
        found[row][seed] = metrics
    return {
        "format_version": FORMAT_VERSION,
        "tool_version": version("inspectd"),
        "steps": settings.base.steps,
        "batch": settings.base.batch,
        "image_size": list(settings.base.image_size),
        "size": settings.teacher.size,
        "larger_size": settings.larger.size if settings.larger else None,
        "seeds": list(settings.seeds),
        "rows": [
            {**asdict(row), "metrics": dict(_over_seeds(list(by_seed.values())))}
            for row, by_seed in found.items()
        ],
    }


def place(row: Row) -> int:
    """Give where a row stands in its section, from 1, whether or not the larger size has its row."""
    return [other for other in ROWS if other.section == row.section].index(row) + 1


def run_of(settings: Settings, row: Row, seed: int, split: Split, penalty: Natural) -> Run:
    """Give the settings of one training."""
    larger = settings.larger if row.larger else None
    teacher = larger or settings.teacher
    return replace(
        settings.base,
        size=teacher.size,
        teacher_digest=teacher.digest,
        seed=seed,
        training_digest=split.digest,
        pixel_digests=split.pixel_digests,
        penalty_digest=penalty.digest if row.pretraining_penalty else None,
        p_hard=P_HARD if row.hard_feature_loss else 0.0,
        autoencoder=row.autoencoder,
        map_normalisation=row.map_normalisation,
        position_aware=row.position_aware,
        density=row.density,
        whole=row.whole,
    )


def as_markdown(table: dict[str, Any], data: str) -> str:
    """Lay the table out as a page."""
    names = list(table["rows"][0]["metrics"])
    seeds = len(table["seeds"])
    height, width = table["image_size"]
    spread = f", mean ± standard deviation over {seeds} seeds" if seeds > 1 else ", one seed"
    lines = [
        f"# Ablation on {data}",
        "",
        f"Size {table['size']}, {height}×{width} pixels, {table['steps']} steps of {table['batch']}{spread}.",
    ]
    for section in dict.fromkeys(row["section"] for row in table["rows"]):
        lines += ["", f"| {section} | {' | '.join(names)} |", f"|{' --- |' * (len(names) + 1)}"]
        for row in table["rows"]:
            if row["section"] == section:
                cells = (_shown(row["metrics"].get(name)) for name in names)
                lines.append(f"| {row['name']} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _trained(path: Path, settings: Settings, run: Run, split: Split, penalty: Natural) -> CheckpointJudge:
    """Train a model, or take the one that another row had trained, and read out of it what this row wants."""
    training = replace(run, map_normalisation="quantile", position_aware=True, density=True, whole=True)
    if path.exists():
        found = load_model(path)[0]
        if found != training:
            raise InputError(f"{path}: belongs to a study with other settings; give another --out")
    else:
        larger = settings.larger
        teacher = larger if larger is not None and larger.size == run.size else settings.teacher
        train(
            training,
            teacher.weights,
            training=split.training,
            validation=split.validation,
            penalty=None if run.penalty_digest is None else penalty.images,
            out=path,
            checkpoint_every=settings.checkpoint_every,
        )
    judge = CheckpointJudge(path)
    if run != training:
        read_out(judge, run, split.validation)
    return judge


def read_out(judge: CheckpointJudge, run: Run, validation: Tensor) -> None:
    """Leave out of a trained model what a run does not have of its maps.

    Args:
        judge: of the model, which is replaced.
        run: differs from that of its training in the maps and their normalisation alone.
        validation: M×3×H×W uint8, RGB, for the quantiles.
    """
    trained = judge.model.state_dict()
    judge.model = untrained_model(run, judge.model.trunk).to(trained["quantiles"].device)
    kept = {name: trained[name] for name in judge.model.state_dict() if name not in ("quantiles", "weights")}
    judge.model.load_state_dict(kept, strict=False)
    validate(judge.model, validation, run, run.steps, trained["quantiles"].device)


def _finished(file: Path, run: Run) -> dict[str, Any] | None:
    if not file.exists():
        return None
    try:
        content = json.loads(file.read_bytes())
        found, metrics = content["run"], dict(content["metrics"])
    except OSError as error:
        raise InputError(f"{file}: cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{file}: is not a finished row of an ablation; delete it to do it again") from error
    wanted = _plain(run)
    for name, value in wanted.items():
        if found.get(name) != value:
            raise InputError(
                f"{file}: belongs to a study with {name} {found.get(name)}, this one has {value}; "
                "give the same options to resume it, or another --out"
            )
    return metrics


def _plain(run: Run) -> dict[str, Any]:
    plain: dict[str, Any] = json.loads(json.dumps(asdict(run)))
    return plain


def _summary(evaluation: Evaluation) -> dict[str, float]:
    overall = evaluation.overall
    summary = {"image AUROC": overall.image_auroc.value, "F1 best": overall.f1_best.value}
    if overall.pixel_auroc is not None:
        summary["pixel AUROC"] = overall.pixel_auroc.estimate.value
    name = "AU-sPRO" if evaluation.saturated else "AU-PRO"
    for limit, area in overall.overlap.items():
        summary[f"{name} {limit:g}"] = area.estimate.value
    return summary


def _over_seeds(metrics: list[dict[str, float]]) -> Iterator[tuple[str, dict[str, Any]]]:
    for name in metrics[0]:
        values = [of_seed[name] for of_seed in metrics]
        deviation = float(np.std(values, ddof=1)) if len(values) > 1 else None
        yield name, {"mean": float(np.mean(values)), "deviation": deviation, "values": values}


def _shown(metric: dict[str, Any] | None) -> str:
    if metric is None:
        return "–"
    deviation = metric["deviation"]
    return f"{metric['mean']:.4f}" + ("" if deviation is None else f" ± {deviation:.4f}")
