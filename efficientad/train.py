"""Training of a student and an autoencoder on good images (paper §4.2, §4.3 and algorithm 1)."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from efficientad.augmentation import grey, jitter
from efficientad.checkpoint import Run, load_progress, progress_file, save_model, save_progress
from efficientad.losses import hard_feature_loss, pretraining_penalty, squared_error
from efficientad.model import EfficientAd
from efficientad.networks import ModelSize, normalised
from engine_runtime.errors import InputError

LEARNING_RATE: dict[ModelSize, float] = {"xs": 1e-3, "s": 1e-4, "m": 1e-4}
"""The paper's for S and M. XS is trained for minutes, not hours, and bears ten times as much."""
WEIGHT_DECAY = 1e-5
DROP_AFTER = 0.95
"""Share of the steps after which the learning rate falls to a tenth."""

Q_A, Q_B = 0.9, 0.995
"""Quantiles of the good maps that become 0 and 0.1 (paper §4.4)."""

PENALTY_GREY = 0.3
"""Share of the penalty's images without colour (paper, appendix A)."""

CACHE_BYTES = 2 << 30
"""Largest size of the teacher's features kept in memory; of a larger set they are computed in every step."""


@dataclass(frozen=True)
class Trained:
    """What the validation images say of a finished model."""

    resumed_at: int
    local_loss: float
    """Mean of the student–teacher map."""
    global_loss: float
    """Mean of the student–autoencoder map."""
    scores: list[float]
    """One per validation image, with the quantiles of these same images."""


def train(
    run: Run,
    teacher: dict[str, Tensor],
    *,
    training: Tensor,
    validation: Tensor,
    penalty: Tensor | None,
    out: Path,
    checkpoint_every: int,
) -> Trained:
    """Train a model and write it; go on where a killed run with the same settings stopped.

    What a step does depends on nothing but the seed, its number and the state before it, so on the same
    machine a resumed run on the CPU gives bit for bit the same model.

    Args:
        run: the settings, which the model keeps.
        teacher: state dict that fits ``run.size``.
        training: N×3×H×W uint8, RGB.
        validation: M×3×H×W uint8, RGB.
        penalty: natural images, K×3×H×W uint8, RGB, for the pretraining penalty; None leaves it out.
        out: file of the model; its progress is kept beside it.
        checkpoint_every: steps between two checkpoints.

    Raises:
        InputError: the folder of ``out`` cannot be written or the progress beside it is another run's.
    """
    partial = progress_file(out)
    progress = load_progress(partial, run)
    if not os.access(out.absolute().parent, os.W_OK):  # found before the work, not after it
        raise InputError(f"{out}: cannot be written: {out.parent} is no folder that can be written to")

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(run.seed)
    model = EfficientAd(run.size, run.image_size)
    model.teacher.load_state_dict(teacher)
    # Faster by a fifth on CPUs; half precision, where the device has it in hardware, by another half.
    model.to(device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    half = torch.autocast(device.type, torch.bfloat16, enabled=has_bfloat16(device))
    learned = [*model.student.parameters(), *model.autoencoder.parameters()]
    optimiser = torch.optim.Adam(learned, lr=LEARNING_RATE[run.size], weight_decay=WEIGHT_DECAY)
    measure_teacher(model, training, device)
    targets = cached_targets(model, training, device)
    first = 0
    if progress is not None:
        first = progress["step"]
        model.load_state_dict(progress["model"])
        optimiser.load_state_dict(progress["optimiser"])

    steps = tqdm(range(run.steps), desc=f"training {run.size}", unit="step", initial=first)
    for step in range(first, run.steps):
        random = np.random.default_rng([run.seed, step])
        torch.manual_seed(int(random.integers(2**62)))  # for the dropout
        for group in optimiser.param_groups:
            group["lr"] = LEARNING_RATE[run.size] * (0.1 if step >= DROP_AFTER * run.steps else 1)
        chosen = torch.from_numpy(sampled(len(training), run, step))
        seen = [images.to(device) for images in draw(training[chosen], penalty, random)]
        with half:
            loss = total_loss(model, seen, None if targets is None else targets[chosen].to(device))
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        if step % 10 == 0:
            steps.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
        steps.update()
        if (step + 1) % checkpoint_every == 0 and step + 1 < run.steps:
            save_progress(partial, run, step + 1, model, optimiser)
    steps.close()

    result = validate(model, validation, first, device)
    save_model(out, run, model.cpu())
    partial.unlink(missing_ok=True)
    return result


def draw(training: Tensor, penalty: Tensor | None, random: np.random.Generator) -> list[Tensor]:
    """Give what the networks see in one step: images, their colour variants and natural images, if any.

    Args:
        training: B×3×H×W uint8, RGB.
        penalty: K×3×H×W uint8, RGB; B of them are drawn.
        random: decides on colours and natural images.

    Returns:
        Two or three tensors B×3×H×W float32 after ``normalised``.
    """
    images = training.float()
    seen = [images, torch.stack([jitter(image, random) for image in images])]
    if penalty is not None:
        natural = penalty[torch.from_numpy(random.integers(len(penalty), size=len(training)))].float()
        colourless = torch.from_numpy(random.random(len(training)) < PENALTY_GREY)[:, None, None, None]
        seen.append(torch.where(colourless, grey(natural), natural))
    return [normalised(images) for images in seen]


def total_loss(model: EfficientAd, seen: list[Tensor], targets: Tensor | None) -> Tensor:
    """Add up the losses of one step (algorithm 1): the student's, the autoencoder's and between both.

    Args:
        model: in training mode.
        seen: see ``draw``.
        targets: the teacher's normalised features of ``seen[0]``, B×C×h×w; computed when None.
    """
    images, coloured = seen[:2]
    with torch.no_grad():
        targets = model.targets(images) if targets is None else targets
        coloured_targets = model.targets(coloured)
    student = model.student(torch.cat(seen)).float().split(len(images))
    reconstruction = model.autoencoder(coloured).float()
    loss = hard_feature_loss(targets.float(), student[0][:, : model.channels])
    if len(seen) == 3:
        loss = loss + pretraining_penalty(student[2][:, : model.channels])
    loss = loss + squared_error(coloured_targets.float(), reconstruction)
    return loss + squared_error(reconstruction, student[1][:, model.channels :])


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
def validate(model: EfficientAd, validation: Tensor, resumed_at: int, device: torch.device) -> Trained:
    """Set the model's quantiles from the maps of the validation images and score these images."""
    model.eval()
    maps = [model.maps(normalised(image[None].to(device))) for image in tqdm(validation, desc="validating")]
    local, large = (torch.cat(kind).cpu() for kind in zip(*maps, strict=True))
    for row, kind in enumerate((local, large)):
        # numpy's quantile takes any number of values, torch's at most 16 million
        model.quantiles[row] = torch.from_numpy(np.quantile(kind.numpy(), (Q_A, Q_B)).astype(np.float32))
    quantiles = model.quantiles.cpu()
    spread = (quantiles[:, 1] - quantiles[:, 0])[:, None, None]
    anomaly = (0.1 * (torch.stack([local, large], dim=1) - quantiles[:, :1, None]) / spread).mean(1)
    return Trained(resumed_at, float(local.mean()), float(large.mean()), anomaly.amax((1, 2)).tolist())
