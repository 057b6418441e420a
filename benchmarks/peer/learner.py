"""Trains the peer's model for as many steps as wanted, by its own losses and its own statistics."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

GREY = 0.3
"""Share of natural images without colour, as in the peer's own loader of them."""
DROP_AFTER = 0.95
"""Share of the steps after which its scheduler lowers the learning rate to a tenth."""


class Learner:
    """A model of the peer, on the GPU where there is one.

    Args:
        module: the peer's Lightning module; its trainer is left out, since that wants to download the teacher
            and other natural images.
        training: N×3×H×W float32, RGB from 0 to 1.
        natural: K×3×H×W of the same kind.
        steps: there will be.
        seed: of weights, order and natural images.
        state: file from which a training that was cut off goes on, to the same model as if it had not been.
        run: all that decides what the training gives; a state of another run is not gone on from.

    Attributes:
        taken: steps so far.
    """

    def __init__(
        self,
        module: Any,
        training: Any,
        natural: Any,
        *,
        steps: int,
        seed: int,
        state: Path,
        run: dict[str, Any],
    ) -> None:
        import torch

        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._module = module.to(self._device)
        self._training, self._natural = training, natural
        self._random = np.random.default_rng(seed)
        self._order: list[int] = []
        self._state, self._run = state, run
        self.taken = 0
        batches = [SimpleNamespace(image=torch.from_numpy(image[None])) for image in training]
        module.model.mean_std.update(module.teacher_channel_mean_std(batches))
        learned = [*module.model.student.parameters(), *module.model.ae.parameters()]
        self._optimiser = torch.optim.Adam(learned, lr=module.lr, weight_decay=module.weight_decay)
        self._schedule = torch.optim.lr_scheduler.StepLR(self._optimiser, max(1, int(DROP_AFTER * steps)))
        module.train()
        if state.exists():
            self._go_on()

    def learn(self, steps: int) -> float:
        """Take steps, keep the state after them, and give their mean loss."""
        losses = [self._step() for _ in range(steps)]
        self.taken += steps
        self._keep()
        return sum(losses) / len(losses)

    def finish(self, validation: Any) -> None:
        """Set the quantiles of the maps from good images, N×3×H×W float32, RGB from 0 to 1."""
        import torch

        self._module.eval()
        batches = [
            SimpleNamespace(image=torch.from_numpy(image[None])[None], gt_label=[0]) for image in validation
        ]
        self._module.model.quantiles.update(self._module.map_norm_quantiles(batches))

    def judge(self, images: Any) -> tuple[Any, Any]:
        """Give scores (N) and maps (N×H×W) of images, N×3×H×W float32, RGB from 0 to 1."""
        import torch

        with torch.inference_mode():
            found = self._module.model(torch.from_numpy(images).to(self._device))
        return found.pred_score.reshape(-1).cpu().numpy(), found.anomaly_map[:, 0].cpu().numpy()

    def _keep(self) -> None:
        import torch

        state = {
            "run": self._run,
            "taken": self.taken,
            "order": self._order,
            "drawn": self._random.bit_generator.state,
            "drawn_by_torch": torch.get_rng_state(),
            "module": self._module.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "schedule": self._schedule.state_dict(),
        }
        partial = self._state.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(self._state)

    def _go_on(self) -> None:
        import torch

        state = torch.load(self._state, weights_only=True)
        if state["run"] != self._run:
            return
        self.taken, self._order = state["taken"], state["order"]
        self._random.bit_generator.state = state["drawn"]
        torch.set_rng_state(state["drawn_by_torch"])
        self._module.load_state_dict(state["module"])
        self._optimiser.load_state_dict(state["optimiser"])
        self._schedule.load_state_dict(state["schedule"])

    def _step(self) -> float:
        import torch

        if not self._order:
            self._order = self._random.permutation(len(self._training)).tolist()
        image = torch.from_numpy(self._training[self._order.pop(0)][None]).to(self._device)
        natural = torch.from_numpy(self._natural[self._random.integers(len(self._natural))][None])
        if self._random.random() < GREY:
            from torchvision.transforms.functional import rgb_to_grayscale

            natural = rgb_to_grayscale(natural, num_output_channels=3)
        losses = self._module.model(batch=image, batch_imagenet=natural.to(self._device))
        loss = sum(losses)
        self._optimiser.zero_grad()
        loss.backward()
        self._optimiser.step()
        self._schedule.step()
        return float(loss.detach())
