"""Training of a student and an autoencoder on good images (paper §4.2, §4.3 and algorithm 1)."""

import math
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from foundation.errors import InputError
from foundation.files import check_writable
from models.allocator import keep_freed_memory
from models.backbones.trunk import Trunk
from models.efficientad.augmentation import grey, jitter
from models.efficientad.checkpoint import (
    MapNormalisation,
    Run,
    load_progress,
    progress_file,
    save_model,
    save_progress,
    untrained_model,
)
from models.efficientad.losses import hard_feature_loss, pretraining_penalty, squared_error
from models.efficientad.model import EfficientAd, combined
from models.efficientad.networks import STRIDE, ModelSize, normalised
from models.efficientad.picture import summary
from models.efficientad.positions import pooled
from models.efficientad.teacher import Teacher
from models.efficientad.weights import map_weights
from models.errors import TrainingFailed
from models.method import Looks
from pictures.frames import Size
from pictures.heatmap import MAP_STRIDE
from pictures.map_quantiles import map_quantiles, weighted

LEARNING_RATE: dict[ModelSize, float] = {"xs": 1e-3, "s": 1e-4, "m": 1e-4}
"""The paper's for S and M. XS is trained for minutes, not hours, and bears ten times as much."""
DROP_AFTER = 0.95
"""Share of the steps after which the learning rate falls to a tenth."""

PENALTY_GREY = 0.3
"""Share of the penalty's images without colour (paper, appendix A)."""
PENALTY_DIVISOR = 2
"""The penalty looks at a window of half the height and width, for a fifth of the work. All places have the
same probability, so the middle of a photograph is in nearly all windows and its border in hardly any; but no
part of a photograph shows the product, and any will do to punish the student for."""

FOR_BASIS = 32
"""The most images among whose features the density's components are looked for."""

CACHE_BYTES = 2 << 30
"""Largest size of the teacher's features kept in memory; of a larger set they are computed in every step."""

Watch = Callable[[int, EfficientAd], None]
"""Is shown a model after so many steps, and may judge images with it; what it raises ends the training."""


@dataclass(frozen=True)
class Trained:
    """What the validation images say of a finished model."""

    resumed_at: int
    local_loss: float
    """Mean of the student–teacher map."""
    global_loss: float | None
    """Mean of the student–autoencoder map; None without an autoencoder."""
    scores: list[float]
    """One per validation image, with the quantiles of these same images."""


def train(
    run: Run,
    teacher: Teacher,
    *,
    training: Tensor,
    validation: Tensor,
    penalty: Tensor | None,
    out: Path,
    checkpoint_every: int,
    watch: Watch | None = None,
    looks: Looks | None = None,
) -> Trained:
    """Train a model and write it; go on where a killed run with the same settings stopped.

    What a step does depends on nothing but the seed, its number and the state before it, so on the same
    machine a resumed run on the CPU gives bit for bit the same model.

    Args:
        run: the settings, which the model keeps.
        teacher: weights of a PDN of ``run.size``, or a backbone for ``run.image_size``.
        training: N×3×H×W uint8, RGB.
        validation: M×3×H×W uint8, RGB.
        penalty: natural images, K×3×H×W uint8, RGB, for the pretraining penalty; None leaves it out.
        out: file of the model; its progress is kept beside it.
        checkpoint_every: steps between two checkpoints.
        watch: is shown the model at each checkpoint and at the end.
        looks: where the maps of the validation images count, see ``GoodImages.looks``; everywhere when None.

    Raises:
        InputError: the folder of ``out`` cannot be written or the progress beside it is another run's.
        TrainingFailed: the loss or the weights are no finite numbers any more, or the model could not be
            written; the last checkpoint is kept.
    """
    check_writable(out)
    _check_enough(run, training)
    partial = progress_file(out)
    progress = load_progress(partial, run)

    keep_freed_memory()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = untrained(run, teacher, device)
    # Where the device has half precision in hardware, it is faster by half.
    half = torch.autocast(device.type, torch.bfloat16, enabled=has_bfloat16(device))
    learned = [parameter for parameter in model.parameters() if parameter.requires_grad]
    rate = LEARNING_RATE[run.size] if run.learning_rate is None else run.learning_rate
    optimiser = torch.optim.Adam(learned, lr=rate, weight_decay=run.weight_decay)
    targets = look_at_teacher(model, training, device)
    first = kept = 0 if progress is None else _resume(progress, model, optimiser)

    with tqdm(range(run.steps), desc=f"training {run.size}", unit="step", initial=first) as bar:
        for step in range(first, run.steps):
            random = np.random.default_rng([run.seed, step])
            torch.manual_seed(int(random.integers(2**62)))  # for the dropout
            chosen = torch.from_numpy(sampled(len(training), run, step))
            seen = [images.to(device) for images in draw(training[chosen], penalty, random)]
            with half:
                loss = total_loss(
                    model, seen, None if targets is None else targets[chosen].to(device), run.p_hard
                )
            learn(optimiser, loss, rate * (0.1 if step >= DROP_AFTER * run.steps else 1))
            bar.update()
            done, last = step + 1, step + 1 == run.steps
            due = done % checkpoint_every == 0 and not last
            if step % 10 == 0 or due or last:
                value = float(loss.detach())
                bar.set_postfix(loss=f"{value:.3f}", refresh=False)
                # Before a checkpoint and the end the weights too: nothing spoilt may replace what is kept.
                if not (math.isfinite(value) and all(map(_finite, learned if due or last else ()))):
                    raise TrainingFailed(diverged(out, done, value, kept, rate))
            if due:
                try:
                    save_progress(partial, run, done, model, optimiser)
                    kept = done
                except InputError as error:
                    # Hours of work should outlive a disk that is full for now.
                    bar.write(f"warning: {error}; training goes on", file=sys.stderr)
                _show(watch, done, model, training, device)

    fit_usual_maps(model, training, device)
    result = validate(model, validation, run, first, device, looks=looks)
    _show(watch, run.steps, model, training, device)
    if not _finite(model.quantiles):
        raise TrainingFailed(diverged(out, run.steps, math.inf, kept, rate))
    _check_spread(model.quantiles, out, kept)
    try:
        save_model(out, run, model.cpu())
    except InputError as error:
        raise TrainingFailed(f"{error}; {where_kept(out, kept)}") from error
    partial.unlink(missing_ok=True)
    return result


def _resume(progress: dict[str, Any], model: EfficientAd, optimiser: torch.optim.Optimizer) -> int:
    """Take up the state of a killed run, and give the number of its steps."""
    progress["model"].setdefault("weights", model.weights)  # older versions had none
    model.load_state_dict(progress["model"])
    optimiser.load_state_dict(progress["optimiser"])
    return int(progress["step"])


def _check_enough(run: Run, training: Tensor) -> None:
    """Refuse to learn from one image what is usual at each position."""
    if len(training) < 2 and (run.position_aware or run.density or run.whole):
        raise InputError(
            "1 good image to train on does not say what is usual at each position; expected at least 2, or"
            " --no-position-aware --no-density --no-whole"
        )


def _check_spread(quantiles: Tensor, out: Path, kept: int) -> None:
    """Refuse a model whose scores would be divided by nothing."""
    if not bool((quantiles[:, 1] > quantiles[:, 0]).all()):
        raise TrainingFailed(
            f"{out}: an anomaly map has one value all over the validation images, the model sees nothing in"
            f" them; {where_kept(out, kept)}"
        )


def _show(watch: Watch | None, step: int, model: EfficientAd, training: Tensor, device: torch.device) -> None:
    if watch is not None:
        fit_usual_maps(model, training, device)
        watch(step, model)
        model.train()


def untrained(run: Run, teacher: Teacher, device: torch.device) -> EfficientAd:
    """Make the model from which a run starts, its weights drawn with the run's seed."""
    torch.manual_seed(run.seed)
    if isinstance(teacher, Trunk):
        model = untrained_model(run, teacher)
    else:
        model = untrained_model(run)
        model.teacher.load_state_dict(teacher)
    # In this layout CPUs are faster by a fifth.
    model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model.train()


def learn(optimiser: torch.optim.Optimizer, loss: Tensor, rate: float) -> None:
    """Take a step down the loss."""
    for group in optimiser.param_groups:
        group["lr"] = rate
    optimiser.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    optimiser.step()


def diverged(out: Path, step: int, loss: float, kept: int, rate: float) -> str:
    """Say in one line that training went wrong at a step, and what to do."""
    found = f"the loss is {loss}" if not math.isfinite(loss) else "a weight is no finite number any more"
    return (
        f"{out}: {found} at step {step}; {where_kept(out, kept)}, but the same options lead here again: "
        f"try a --learning-rate below {rate:g}"
    )


def where_kept(out: Path, step: int) -> str:
    """Say which state of a training can be resumed."""
    if step == 0:
        return "no state of it is kept"
    return f"the state of step {step} is kept in {progress_file(out)}"


def _finite(parameter: Tensor) -> bool:
    return bool(torch.isfinite(parameter).all())


def draw(training: Tensor, penalty: Tensor | None, random: np.random.Generator) -> list[Tensor]:
    """Give what the networks see in one step: images, their colour variants and natural images, if any.

    Args:
        training: B×3×H×W uint8, RGB.
        penalty: K×3×H×W uint8, RGB; B of them are drawn.
        random: decides on colours and natural images.

    Returns:
        Two or three tensors B×3×H×W float32 after ``normalised``; of the natural images, a window each.
    """
    images = training.float()
    seen = [images, torch.stack([jitter(image, random) for image in images])]
    if penalty is not None:
        natural = penalty[torch.from_numpy(random.integers(len(penalty), size=len(training)))].float()
        colourless = torch.from_numpy(random.random(len(training)) < PENALTY_GREY)[:, None, None, None]
        seen.append(random_windows(torch.where(colourless, grey(natural), natural), random))
    return [normalised(images) for images in seen]


def random_windows(images: Tensor, random: np.random.Generator) -> Tensor:
    """Cut a window out of each of B×3×H×W images, anywhere: B×3×H/2×W/2."""
    height, width = (side // PENALTY_DIVISOR for side in images.shape[2:])
    tops = random.integers(images.shape[2] - height + 1, size=len(images)).tolist()
    lefts = random.integers(images.shape[3] - width + 1, size=len(images)).tolist()
    return torch.stack(
        [
            image[:, top : top + height, left : left + width]
            for image, top, left in zip(images, tops, lefts, strict=True)
        ]
    )


def total_loss(model: EfficientAd, seen: list[Tensor], targets: Tensor | None, p_hard: float) -> Tensor:
    """Add up the losses of one step (algorithm 1): the student's, the autoencoder's and between both.

    Args:
        model: in training mode.
        seen: see ``draw``.
        targets: the teacher's normalised features of ``seen[0]``, B×C×h×w; computed when None.
        p_hard: of the hard feature loss.
    """
    images, coloured, *natural = seen
    with torch.no_grad():
        targets = model.targets(images) if targets is None else targets
    like_teacher, like_autoencoder = slice(model.channels), slice(model.channels, None)
    loss = hard_feature_loss(targets.float(), half_of_student(model, images, like_teacher), p_hard)
    if natural:
        loss = loss + pretraining_penalty(half_of_student(model, natural[0], like_teacher))
    if model.autoencoder is None:  # nothing learns from the colour variants
        return loss
    with torch.no_grad():
        coloured_targets = model.targets(coloured)
    reconstruction = model.autoencoder(coloured).float()
    loss = loss + squared_error(coloured_targets.float(), reconstruction)
    return loss + squared_error(reconstruction, half_of_student(model, coloured, like_autoencoder))


def half_of_student(model: EfficientAd, images: Tensor, channels: slice) -> Tensor:
    """Give some of the student's channels, float32: what the whole student gives there.

    Its last convolution, half of the student's work in S, goes without the channels that no loss looks at.
    """
    last = cast(nn.Conv2d, model.student[-1])
    assert last.bias is not None
    return functional.conv2d(model.student[:-1](images), last.weight[channels], last.bias[channels]).float()


def has_bfloat16(device: torch.device) -> bool:
    """Say whether a device multiplies bfloat16 in hardware; where it does not, emulating it is slow."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def sampled(count: int, run: Run, step: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Choose the images of a step: every image once per epoch, each epoch in its own order."""
    positions = np.arange(step * run.batch, (step + 1) * run.batch)
    orders = {
        epoch: np.random.default_rng([run.seed, run.steps, epoch]).permutation(count)
        for epoch in set((positions // count).tolist())
    }
    return np.array([orders[position // count][position % count] for position in positions.tolist()])


def look_at_teacher(model: EfficientAd, training: Tensor, device: torch.device) -> Tensor | None:
    """Take from the training images what depends on the teacher alone.

    Returns:
        The teacher's features, see ``cached_targets``.

    Raises:
        TrainingFailed: they do not vary at all.
    """
    measure_teacher(model, training, device)
    targets = cached_targets(model, training, device)
    try:
        fit_densities(model, training, targets, device)
    except (torch.linalg.LinAlgError, np.linalg.LinAlgError) as error:  # type: ignore[attr-defined]
        raise TrainingFailed(
            "the teacher sees the same in all good images; expected different ones"
        ) from error
    return targets


@torch.no_grad()
def measure_teacher(model: EfficientAd, training: Tensor, device: torch.device) -> None:
    """Set mean and standard deviation of the teacher's channels over the training set (paper §4.1)."""
    total = torch.zeros(model.channels, dtype=torch.float64)
    squares = torch.zeros(model.channels, dtype=torch.float64)
    for image in tqdm(training, desc="measuring the teacher", unit="image"):
        features = model.teacher(normalised(image[None].to(device)))[0].flatten(1).double().cpu()
        total += features.mean(1)
        squares += features.square().mean(1)
    mean = total / len(training)
    # A channel that never changes says nothing: the floor keeps its noise from being blown up to variance 1.
    variance = (squares / len(training) - mean.square()).clamp(min=1e-12)
    model.teacher_mean.copy_(mean)
    model.teacher_std.copy_(variance.sqrt())


@torch.no_grad()
def cached_targets(model: EfficientAd, training: Tensor, device: torch.device) -> Tensor | None:
    """Compute the teacher's features of all training images once, in half precision; None if too large."""
    first = model.targets(normalised(training[:1].to(device)))
    if len(training) * first.numel() * 2 > CACHE_BYTES:
        return None
    targets = torch.empty((len(training), *first.shape[1:]), dtype=torch.float16)
    for index, image in enumerate(tqdm(training, desc="caching the teacher", unit="image")):
        targets[index] = model.targets(normalised(image[None].to(device)))[0].cpu()
    return targets


@torch.no_grad()
def validate(
    model: EfficientAd,
    validation: Tensor,
    run: Run,
    resumed_at: int,
    device: torch.device,
    *,
    looks: Looks | None = None,
) -> Trained:
    """Set the model's quantiles from the maps of the validation images and score these images."""
    model.eval()
    images = (image[None].to(device) for image in tqdm(validation, desc="validating", leave=False))
    found = [
        (model.differences(seen, model.targets(seen)), model.maps(seen)) for seen in map(normalised, images)
    ]
    losses = [float(torch.cat(kind).mean()) for kind in zip(*(raw for raw, _ in found), strict=True)]
    maps = [torch.cat(kind).cpu() for kind in zip(*(maps for _, maps in found), strict=True)]
    cells = Size(*maps[0].shape[1:])
    lie = {MAP_STRIDE: str(STRIDE)} if model.trunk is None else {}
    there = torch.from_numpy(np.ones(cells, dtype=bool) if looks is None else looks(cells, lie))
    maps = [kind[:, there][:, None] for kind in maps]
    for row, kind in enumerate(maps):
        model.quantiles[row] = torch.from_numpy(map_scale(kind.numpy(), run.map_normalisation))
    if model.trunk is not None:
        seen = (normalised(image[None].to(device)) for image in validation)
        model.weights.copy_(map_weights(model, seen, there.to(device)))
        model.quantiles.copy_(
            torch.from_numpy(weighted(model.quantiles.cpu().numpy(), model.weights.cpu().numpy()))
        )
    scores = combined(maps, model.quantiles.cpu()).amax((1, 2)).tolist()
    return Trained(resumed_at, losses[0], losses[1] if len(losses) > 1 else None, scores)


@torch.no_grad()
def fit_densities(model: EfficientAd, training: Tensor, targets: Tensor | None, device: torch.device) -> None:
    """Fit Gaussians to the teacher's features of the training images, those that the model has.

    Args:
        model: with the teacher's mean and deviation.
        training: N×3×H×W uint8, RGB.
        targets: the teacher's features of them, N×C×h×w; computed when None.
        device: to compute on.
    """
    if model.density is None and model.picture is None:
        return
    summaries = []

    def features(indices: Iterable[int]) -> Iterator[Tensor]:
        for index in indices:
            if targets is None:
                seen = model.targets(normalised(training[index : index + 1].to(device)))
            else:
                seen = targets[index : index + 1].float()
            yield pooled(seen, model.detail).to(device)

    def seen() -> Iterator[Tensor]:
        for image in features(tqdm(range(len(training)), desc="fitting the density", unit="image")):
            summaries.append(summary(image))
            yield image

    if model.density is not None:
        every = -(-len(training) // FOR_BASIS)
        model.density.choose_components(torch.cat(list(features(range(0, len(training), every)))))
        model.density.fit(seen())
    else:
        deque(seen(), maxlen=0)
    if model.picture is not None:
        model.picture.fit(torch.cat(summaries))


@torch.no_grad()
def fit_usual_maps(model: EfficientAd, training: Tensor, device: torch.device) -> None:
    """Take from the training images how high the maps are at each position, if the model asks for it."""
    usual = [kind for kind in (model.usual_local, model.usual_global) if kind is not None]
    if not usual:
        return
    model.eval()
    differences = []
    for image in tqdm(training, desc="measuring the maps", unit="image", leave=False):
        seen = normalised(image[None].to(device))
        differences.append(model.differences(seen, model.targets(seen)))
    for kind, maps in zip(usual, zip(*differences, strict=True), strict=True):
        kind.fit(torch.cat(maps))


def map_scale(maps: NDArray[np.float32], normalisation: MapNormalisation) -> NDArray[np.float32]:
    """Give what becomes 0 and what becomes 0.1 in the maps of one kind.

    Args:
        maps: of good images, N×h×w.
        normalisation: by two quantiles (paper §4.4), or to mean 0 and variance 1, the simpler way that the
            paper compares it with. As both are linear, the graph's input ``quantiles`` serves for both.
    """
    if normalisation == "gaussian":
        mean, deviation = float(maps.mean(dtype=np.float64)), float(maps.std(dtype=np.float64))
        return np.array([mean, mean + 0.1 * deviation], dtype=np.float32)
    return map_quantiles(maps)
