"""The search for the settings of a training, by Optuna, without looking at a test image."""

import fcntl
import json
import os
import platform
import sqlite3
import time
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import torch
from optuna.exceptions import ExperimentalWarning, StorageInternalError, UpdateFinishedTrialError
from optuna.storages import RDBStorage, fail_stale_trials
from optuna.trial import TrialState
from sqlalchemy.exc import SQLAlchemyError
from torch import Tensor
from tqdm import tqdm

from calibration.ranking import Ranking
from foundation.errors import InputError, Unavailable
from models.efficientad.checkpoint import Run, progress_file
from models.efficientad.model import EfficientAd
from models.efficientad.networks import ModelSize
from models.efficientad.train import LEARNING_RATE, train, validate
from models.errors import TrainingFailed
from models.evaluation.judge import BATCH
from models.synthetic_defects import with_defect
from models.training_images import Natural, Split, planes
from pictures.frames import Size

FORMAT_VERSION = 1
RUNGS = 8
"""How often a trial may be given up."""
_DEFECTIVE = 64
"""At least as many pictures with painted defects."""
_RATES = (1 / 5, 5)
"""Learning rates that are tried, against the usual one of the size."""
_DECAYS = (1e-7, 1e-3)
HEARTBEAT_S, SILENT_S = 2, 20
"""How often a process says that its trial goes on, and after how long without that another takes it up."""
_PATIENCE_S = 60.0
"""How long to wait for the study's file while other processes write."""
_FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)


@dataclass(frozen=True)
class Material:
    """What models of one image size learn from and are compared on."""

    split: Split
    penalty: Natural | None


@dataclass(frozen=True)
class Teacher:
    """The teacher of one size."""

    weights: dict[str, Tensor]
    digest: str


@dataclass(frozen=True)
class Search:
    """What a study has to decide, and on what."""

    base: Run
    """What all trials have in common; its size, image size, steps, rate and decay are replaced."""
    teachers: Mapping[ModelSize, Teacher]
    """The sizes that are tried."""
    materials: Mapping[Size, Material]
    """The image sizes that are tried."""
    most_steps: int
    """Of one training; a quarter of them is the least."""


def tune(
    search: Search, *, trials: int, limit_s: float | None, out: Path, storage: str | None = None
) -> dict[str, Any]:
    """Train with different settings until so many trials are finished; go on where a killed study stopped.

    Several processes may work on one study; a trial whose process was killed is taken up by another. With
    ``storage`` they may be on several machines, each with a folder of its own.

    A trial's score is the AUROC by which its model tells held-out good images from the same images with
    painted defects. Trials that fall behind the median of the others are given up.

    Args:
        search: the settings.
        trials: that are to be finished, those of earlier calls included.
        limit_s: begin no trial after so many seconds.
        out: existing folder of the study, which keeps the best model; with ``storage``, this machine's best.
        storage: address of the PostgreSQL database that keeps the study, by the folder's name; else a file in
            the folder does.

    Returns:
        The study, as it stands in ``tune.json``.

    Raises:
        InputError: the study is another one's, or damaged; a file cannot be written; the database refuses, or
            is away (``Unavailable``).
    """
    with _database(storage):
        return _tuned(_open(search, out, storage), search, trials, limit_s, out)


def _tuned(
    study: optuna.Study, search: Search, trials: int, limit_s: float | None, out: Path
) -> dict[str, Any]:
    number = -1

    def objective(trial: optuna.Trial) -> float:
        nonlocal number
        number = trial.number
        return _score(trial, search, out)

    began_s = time.monotonic()
    with tqdm(desc="tuning", unit="trial", total=trials, initial=_count(study, _FINISHED)) as bar:
        while bar.n < trials:
            if limit_s is not None and time.monotonic() - began_s >= limit_s:
                bar.write(f"the time is over: {bar.n} of {trials} trials are finished")
                break
            fail_stale_trials(study)
            others = _count(study, (TrialState.RUNNING,))
            if bar.n + others >= trials and not _count(study, (TrialState.WAITING,)):
                time.sleep(HEARTBEAT_S)  # other processes work on the last trials, or were killed
            else:
                try:
                    study.optimize(objective, n_trials=1)
                except UpdateFinishedTrialError:  # this process was held up, and another took the trial up
                    bar.write(f"trial {number} was taken up by another process")
                except BaseException:
                    _take_up(study, study.trials[number])
                    raise
            bar.update(_count(study, _FINISHED) - bar.n)
            if any(
                "failed" not in trial.user_attrs for trial in study.get_trials(states=(TrialState.COMPLETE,))
            ):
                bar.set_postfix(best=f"{study.best_value:.4f}", refresh=False)
            with _alone(out):
                _keep_best_model(study, out)
    return _table(study, search)


def as_markdown(table: dict[str, Any], data: str) -> str:
    """Lay a study out as a page."""
    lines = [
        f"# Tuning on {data}",
        "",
        "Scores are AUROC on held-out good images against the same with painted defects, "
        "no test image among them.",
        "",
        "| trial | score | size | pixels | steps | learning rate | weight decay | seconds | machine | |",
        f"|{' --- |' * 10}",
    ]
    for row in table["trials"]:
        height, width = row["image_size"]
        score = "" if row["score"] is None else f"{row['score']:.4f}"
        lines.append(
            f"| {row['trial']} | {score} | {row['size']} | {height}×{width} | {row['steps']} | "
            f"{row['learning_rate']:.2g} | {row['weight_decay']:.2g} | {row['seconds']:.0f} | "
            f"{row['machine']} | {row['note']} |"
        )
    return "\n".join(lines) + "\n"


def _open(search: Search, out: Path, address: str | None) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", category=ExperimentalWarning)  # of heartbeats
    where = str(out / "study.db") if address is None else f"{address}: study {out.absolute().name}"
    told = json.loads(json.dumps(_identity(search)))
    try:
        with _alone(out):
            study = optuna.create_study(
                storage=_storage(out, address),
                study_name="tune" if address is None else out.absolute().name,
                direction="maximize",
                load_if_exists=True,
                pruner=optuna.pruners.MedianPruner(
                    n_startup_trials=4, n_warmup_steps=search.most_steps // RUNGS
                ),
            )
            calls = study.user_attrs.get("calls", 0)
            found = study.user_attrs.get("search", told)
            study.set_user_attr("search", found)
            study.set_user_attr("calls", calls + 1)
        # Processes that begin at the same time must not try the same; the lock holds on one machine only.
        seed = search.base.seed + calls + len(study.trials)
        seed += 0 if address is None else zlib.crc32(f"{platform.node()} {os.getpid()}".encode())
        study.sampler = optuna.samplers.TPESampler(seed=seed % 2**32, constant_liar=True)
    except OSError as error:
        raise InputError(f"{where}: cannot be used: {error.strerror}") from error
    except InputError:
        raise
    except Exception as error:  # what a damaged file raises is not documented
        if address is not None:
            raise
        raise InputError(f"{where}: is not a study of 'efficientad tune', or damaged") from error
    differing = [key for key, value in told.items() if found.get(key) != value]
    if differing:
        key = differing[0]
        raise InputError(
            f"{where}: belongs to a study with {key} {found.get(key)}, this one has {told[key]}; "
            f"give the same options to go on with it, or another --out"
        )
    return study


@contextmanager
def _database(address: str | None) -> Iterator[None]:
    """Say in one line that a database is away, also in the middle of a study."""
    try:
        yield
    except (SQLAlchemyError, StorageInternalError) as error:
        if address is None:
            raise
        cause = error.__cause__ or error
        said = " ".join(str(getattr(cause, "orig", None) or cause).split())
        raise Unavailable(
            f"{address}: {said:.300}; the same command goes on where this one stopped"
        ) from error


def _storage(out: Path, address: str | None) -> RDBStorage:
    """Open what keeps the study: a file of its folder, or a database."""
    arguments: dict[str, Any]
    if address is None:
        # Not by an address: a path may hold what would mean something there.
        arguments = {"creator": lambda: sqlite3.connect(out / "study.db", timeout=_PATIENCE_S)}
    else:
        if find_spec("psycopg") is None:
            raise InputError("--storage needs psycopg: pip install 'inspectd[fleet]'")
        arguments = {"connect_args": {"connect_timeout": 10}, "pool_pre_ping": True}
    return RDBStorage(
        "sqlite://" if address is None else f"postgresql+psycopg://{address.partition('://')[2]}",
        engine_kwargs=arguments,
        heartbeat_interval=HEARTBEAT_S,
        grace_period=SILENT_S,
        heartbeat_stale_trial_callback=_take_up,
    )


def _identity(search: Search) -> dict[str, Any]:
    base = search.base
    return {
        "tool_version": base.tool_version,
        "seed": base.seed,
        "roi": base.roi,
        "batch": base.batch,
        "most_steps": search.most_steps,
        "teachers": {size: teacher.digest for size, teacher in search.teachers.items()},
        "images": {str(size): material.split.digest for size, material in search.materials.items()},
        "penalty": [material.penalty and material.penalty.digest for material in search.materials.values()],
    }


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Keep other processes that work on the study out."""
    descriptor = os.open(out, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _take_up(study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
    """Have a trial that was broken off begin again where its training stopped."""
    if trial.state == TrialState.FAIL and trial.params:
        began_as = trial.user_attrs.get("began_as", trial.number)
        study.enqueue_trial(trial.params, user_attrs={"began_as": began_as})


def _count(study: optuna.Study, states: tuple[TrialState, ...]) -> int:
    return len(study.get_trials(deepcopy=False, states=states))


def _score(trial: optuna.Trial, search: Search, out: Path) -> float:
    run = _suggested(trial, search)
    material = search.materials[run.image_size]
    good = material.split.validation
    defective = _defective(good, search.base.seed)
    began_s, score = time.monotonic(), 0.0
    trial.set_user_attr("machine", platform.node())

    def watch(step: int, model: EfficientAd) -> None:
        nonlocal score
        score = auroc(model, run, good, defective)
        trial.report(score, step)
        if step < run.steps and trial.should_prune():
            trial.set_user_attr("seconds", time.monotonic() - began_s)
            trial.set_user_attr("given_up_at", step)
            raise optuna.TrialPruned

    file = out / f"trial-{trial.user_attrs.get('began_as', trial.number)}.pt"
    try:
        train(
            run,
            search.teachers[run.size].weights,
            training=material.split.training,
            validation=good,
            penalty=None if material.penalty is None else material.penalty.images,
            out=file,
            checkpoint_every=max(1, search.most_steps // RUNGS),
            watch=watch,
        )
    except optuna.TrialPruned:
        progress_file(file).unlink(missing_ok=True)
        raise
    except TrainingFailed as error:
        progress_file(file).unlink(missing_ok=True)
        trial.set_user_attr("failed", str(error))
        score = 0.0  # so that the search keeps away from there
    else:
        trial.set_user_attr("model", file.name)
    trial.set_user_attr("seconds", time.monotonic() - began_s)
    return score


def _suggested(trial: optuna.Trial, search: Search) -> Run:
    models = {str(size): size for size in search.teachers}
    size = models[trial.suggest_categorical("size", list(models))]
    pictures = {str(size): size for size in search.materials}
    image_size = pictures[trial.suggest_categorical("image_size", list(pictures))]
    # Against the usual rate of the size, so that what is learnt of one size helps with the other.
    factor = trial.suggest_float("learning_rate_factor", *_RATES, log=True)
    material = search.materials[image_size]
    return replace(
        search.base,
        size=size,
        image_size=image_size,
        steps=trial.suggest_int("steps", max(1, search.most_steps // 4), search.most_steps, log=True),
        learning_rate=LEARNING_RATE[size] * factor,
        weight_decay=trial.suggest_float("weight_decay", *_DECAYS, log=True),
        teacher_digest=search.teachers[size].digest,
        training_digest=material.split.digest,
        pixel_digests=material.split.pixel_digests,
        penalty_digest=None if material.penalty is None else material.penalty.digest,
    )


def _defective(good: Tensor, seed: int) -> Tensor:
    """Paint defects on good images, N×3×H×W uint8, each as often as it takes."""
    random = np.random.default_rng([seed, len(good)])
    times = -(-_DEFECTIVE // len(good))
    frames = [np.ascontiguousarray(image.flip(0).permute(1, 2, 0).numpy()) for image in good]
    return torch.stack([planes(with_defect(frame, random)) for frame in frames for _ in range(times)])


@torch.no_grad()
def auroc(model: EfficientAd, run: Run, good: Tensor, defective: Tensor) -> float:
    """Say how well a model tells good images from defective ones.

    Args:
        model: its quantiles are set from the good images.
        run: its settings.
        good: M×3×H×W uint8, RGB, that it was not trained on.
        defective: N×3×H×W uint8, RGB.
    """
    device = next(model.parameters()).device
    validate(model, good, run, 0, device)
    frames = torch.cat([good, defective]).flip(1).permute(0, 2, 3, 1)  # N×H×W×3, BGR
    scores = torch.cat(
        [model(batch.contiguous().to(device), model.quantiles).score for batch in torch.split(frames, BATCH)]
    )
    is_defective = np.arange(len(frames)) >= len(good)
    ranking = Ranking(scores.cpu().double().numpy(), is_defective)
    return float(ranking.auroc(np.ones((1, len(frames))))[0])


def _keep_best_model(study: optuna.Study, out: Path) -> None:
    """Name the best trial's model ``best.pt`` and remove the others."""
    done = [trial for trial in study.get_trials(states=(TrialState.COMPLETE,)) if "model" in trial.user_attrs]
    best = max(done, key=lambda trial: trial.value or 0.0, default=None)
    for trial in done:
        file = out / trial.user_attrs["model"]
        if file.exists():
            if trial is best:
                file.replace(out / "best.pt")
            else:
                file.unlink()


def _table(study: optuna.Study, search: Search) -> dict[str, Any]:
    rows = list(_rows(study, search))
    failed = {trial.number for trial in study.trials if "failed" in trial.user_attrs}
    complete = [row for row in rows if row["score"] is not None and row["trial"] not in failed]
    return {
        "format_version": FORMAT_VERSION,
        "search": _identity(search),
        "best": max(complete, key=lambda row: float(row["score"]), default=None),
        "trials": rows,
    }


def _rows(study: optuna.Study, search: Search) -> Iterator[dict[str, Any]]:
    for trial in study.get_trials(deepcopy=False, states=_FINISHED):
        run = _suggested_before(trial, search)
        given_up, failed = trial.user_attrs.get("given_up_at"), trial.user_attrs.get("failed")
        note = f"given up at step {given_up}" if given_up else failed or ""
        yield {
            "trial": trial.number,
            "score": trial.value if trial.state == TrialState.COMPLETE else None,
            "size": run.size,
            "image_size": list(run.image_size),
            "steps": run.steps,
            "learning_rate": run.learning_rate,
            "weight_decay": run.weight_decay,
            "seconds": trial.user_attrs.get("seconds", 0.0),
            "machine": trial.user_attrs.get("machine", ""),
            "note": note,
        }


def _suggested_before(trial: optuna.trial.FrozenTrial, search: Search) -> Run:
    """Give the settings of a finished trial."""
    suggest: Callable[[optuna.trial.FixedTrial, Search], Run] = _suggested  # type: ignore[assignment]
    return suggest(optuna.trial.FixedTrial(trial.params), search)
