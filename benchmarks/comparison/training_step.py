"""(g) One step of training S at 256×256, one image per step on either side."""

from collections.abc import Callable

import numpy as np

from comparison.equality import SamePeer
from comparison.pairing import Spread, Turn, ratio, take_turns, timed
from comparison.report import Part, Table
from comparison.session import Session
from pictures.frames import Size

SIDE, IMAGES = 256, 8
OURS, OURS_FLOAT32, PEER = "ours", "ours, float32", "anomalib"


def compare(session: Session) -> Part:
    """Time the steps of both sides."""
    with session.peer() as peer:
        SamePeer(session, peer, "s", SIDE, session.engine("s", SIDE, session.max_batch))
        frames, path = session.frames(SIDE, IMAGES)
        peer.ask("start_training", frames=str(path), natural=str(path), threads=session.threads)
        half, sides = our_steps(session, frames)
        sides[PEER] = lambda: float(peer.ask("train")["ms"])
        times = take_turns(sides, session.laps(6), "(g) training")
    rows = [
        (
            name,
            *Spread.of(times[name]).cells(0),
            "" if name == OURS else f"{ratio(times, name, OURS).median:.2f}",
        )
        for name in sides
    ]
    note = (
        "Forward, backward and the step of Adam, with the penalty on natural images. Ours is the step of"
        " `efficientad train`: the teacher's features of the training images are computed once before, the"
        " penalty looks at windows of half the height and width, freed memory is kept for the next step, "
        + ("and the forward pass is in bfloat16, which this CPU has." if half else "all in float32.")
        + " The peer's is the step of its Lightning module in its default float32, without Lightning's"
        " trainer and without reading images."
    )
    return Part(
        "A training step, S at 256×256",
        Table(("", "ms per step", "10–90 %", "× ours"), rows),
        [note],
        {"ms": times},
    )


def our_steps(
    session: Session, frames: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]
) -> tuple[bool, dict[str, Turn]]:
    """Make our step, as it is and held to float32; the flag says whether the two differ."""
    import torch

    from models.allocator import keep_freed_memory
    from models.efficientad.checkpoint import Run
    from models.efficientad.train import (
        LEARNING_RATE,
        cached_targets,
        draw,
        has_bfloat16,
        learn,
        measure_teacher,
        total_loss,
        untrained,
    )

    keep_freed_memory()
    torch.set_num_threads(session.threads)
    device = torch.device("cpu")
    run = Run("s", Size(SIDE, SIDE), None, 1000, 1, 0, "", "", "", "")
    saved = torch.load(session.weights("s", SIDE), weights_only=True)
    teacher = {
        key.removeprefix("teacher."): value for key, value in saved.items() if key.startswith("teacher.")
    }
    images = torch.from_numpy(np.ascontiguousarray(frames[..., ::-1].transpose(0, 3, 1, 2)))

    def step(half: bool) -> Callable[[], object]:
        model = untrained(run, teacher, device)
        learned = [parameter for parameter in model.parameters() if parameter.requires_grad]
        optimiser = torch.optim.Adam(learned, lr=LEARNING_RATE["s"], weight_decay=run.weight_decay)
        measure_teacher(model, images, device)
        targets = cached_targets(model, images, device)
        assert targets is not None
        steps = iter(range(1_000_000))

        def one() -> None:
            number = next(steps)
            chosen = slice(number % IMAGES, number % IMAGES + 1)
            seen = draw(images[chosen], images, np.random.default_rng(number))
            with torch.autocast("cpu", torch.bfloat16, enabled=half):
                loss = total_loss(model, seen, targets[chosen], run.p_hard)
            learn(optimiser, loss, LEARNING_RATE["s"])

        return one

    half = has_bfloat16(device)
    sides = {OURS: step(half)} | ({OURS_FLOAT32: step(False)} if half else {})
    return half, {name: (lambda work=work: timed(work)) for name, work in sides.items()}  # type: ignore[misc]
