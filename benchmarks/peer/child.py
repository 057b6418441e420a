"""The peer's side of a comparison, run by the Python of the peer's own environment.

Takes one JSON object per line on stdin, ``{"do": NAME, ...}``, and answers each with one on stdout. Times are
taken here, around the call alone, so that neither the pipe nor the reading of frames counts. Nothing of
inspectd is imported.
"""

import importlib.util
import json
import os
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from learner import Learner

MODEL_SIZES = {"s": "small", "m": "medium"}
PACKAGES = ("anomalib", "torch", "torchvision", "lightning", "openvino", "onnxruntime", "numpy")


def main() -> None:
    """Answer until stdin ends."""
    # The peer and its libraries print; the answers get a pipe of their own.
    with os.fdopen(os.dup(1), "w") as answers:
        os.dup2(2, 1)
        side = PeerSide()
        for line in sys.stdin:
            request = json.loads(line)
            try:
                answer = getattr(side, request.pop("do"))(**request)
            except Exception as error:
                answer = {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}
            print(json.dumps(answer), file=answers, flush=True)


def declare_missing_operators() -> None:
    """Let torchvision be imported where its compiled operators cannot be loaded.

    torchvision's CUDA build beside torch's CPU build lacks its C++ library, and its import fails over two
    operators on boxes. EfficientAD uses none of them; declared without an implementation, they would raise.
    """
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        return  # whoever imports it says so
    import torch

    try:
        torch.ops.load_library(Path(spec.origin).with_name("_C.so"))  # type: ignore[no-untyped-call]
    except OSError:
        operators = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
        for name in ("nms", "qnms"):
            signature = f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
            operators.define(signature)  # type: ignore[no-untyped-call]
        globals()["_operators"] = operators  # they live as long as this object


class PeerSide:
    """What the child can be asked to do; every method gives a JSON object."""

    def __init__(self) -> None:
        declare_missing_operators()
        self._module: Any = None
        self._opened: dict[str, tuple[Any, Callable[[Any], Any], Callable[[Any], Any]]] = {}
        self._train: Callable[[], float] | None = None
        self._learner: Learner | None = None

    def versions(self) -> dict[str, str]:
        return {package: version(package) for package in PACKAGES}

    def load(self, *, weights: str, size: str, side: int, ceiling: float, threads: int) -> dict[str, Any]:
        """Make the peer's model with the weights of ours.

        Args:
            weights: state dict of our model, a file of torch.
            size: s or m.
            side: of the image in pixels, to which the peer's pre-processor resizes.
            ceiling: what the post-processor maps to 1, so that it has something to do and can be undone.
            threads: of torch.

        Returns:
            ``kept``: layers that keep the peer's own weights because their shape differs.
        """
        import torch
        from anomalib.models import EfficientAd  # type: ignore[import-not-found]

        torch.set_num_threads(threads)
        torch.manual_seed(0)
        ours = torch.load(weights, weights_only=True)
        resize = EfficientAd.configure_pre_processor((side, side))
        module = EfficientAd(
            model_size=MODEL_SIZES[size], pre_processor=resize, evaluator=False, visualizer=False
        ).eval()
        model = module.model
        kept = [
            name
            for prefix, network in (
                ("teacher", model.teacher),
                ("student", model.student),
                ("autoencoder", model.ae),
            )
            for name in copy_convolutions(ours, prefix, network)
        ]
        post = module.post_processor
        with torch.no_grad():
            model.mean_std["mean"].copy_(ours["teacher_mean"].view(1, -1, 1, 1))
            model.mean_std["std"].copy_(ours["teacher_std"].view(1, -1, 1, 1))
            # q_a ↦ 0 and q_b ↦ 0.1: the normalisation is computed, and leaves the maps as they are.
            for kind in ("st", "ae"):
                model.quantiles[f"qa_{kind}"].fill_(0.0)
                model.quantiles[f"qb_{kind}"].fill_(0.1)
            for kind in ("image", "pixel"):
                getattr(post, f"{kind}_min").fill_(0.0)
                getattr(post, f"{kind}_max").fill_(ceiling)
                getattr(post, f"_{kind}_threshold").fill_(ceiling / 2)
        self._module = module
        return {"kept": kept}

    def raw_maps(self, *, frames: str, out: str) -> dict[str, Any]:
        """Save the maps ``local`` and ``global``, N×h×w: not yet padded, enlarged and normalised."""
        import torch

        batch = torch.from_numpy(planes(frames))
        model = self._module.model
        with torch.inference_mode():
            student, distance = model.compute_student_teacher_distance(batch)
            rest = model.ae(batch, batch.shape[-2:]) - student[:, model.teacher_out_channels :]
        np.savez(out, **{"local": distance.mean(1).numpy(), "global": rest.square().mean(1).numpy()})
        return {}

    def export(self, *, folder: str, side: int | None) -> dict[str, str]:
        """Export the model with the peer's own methods.

        Args:
            folder: to write to.
            side: of the input in pixels; None leaves height and width free, as ``anomalib export`` does.
        """
        shape = None if side is None else (side, side)
        return {
            "onnxruntime": str(self._module.to_onnx(folder, input_size=shape)),
            "openvino": str(self._module.to_openvino(folder, input_size=shape)),
        }

    def export_untrained(self, *, method: str, side: int, patches: int, folder: str) -> dict[str, str]:
        """Export PaDiM with resnet18, or PatchCore with the peer's default backbone, with drawn statistics.

        Args:
            method: padim or patchcore.
            side: of the image in pixels.
            patches: that PatchCore remembers.
            folder: to write to.
        """
        import torch
        from anomalib.models import Padim, Patchcore

        torch.manual_seed(0)
        off = {"pre_trained": False, "evaluator": False, "visualizer": False}
        if method == "padim":
            resize = Padim.configure_pre_processor((side, side))
            module = Padim(backbone="resnet18", pre_processor=resize, **off).eval()
            features, positions = module.model.n_features, (side // 4) ** 2
            module.model.gaussian.mean = torch.randn(features, positions)
            module.model.gaussian.inv_covariance = torch.eye(features).expand(positions, -1, -1).clone()
        else:
            # Its own pre-processor crops to 224 pixels; ours sees all 256.
            resize = Padim.configure_pre_processor((side, side))
            module = Patchcore(pre_processor=resize, **off).eval()
            channels = sum(module.model.feature_extractor.out_dims)
            module.model.memory_bank = torch.randn(patches, channels)
        return {"openvino": str(module.to_openvino(folder, input_size=(side, side)))}

    def open(
        self,
        *,
        name: str,
        runtime: str,
        threads: int,
        path: str = "",
        precision: str | None = None,
        device: str = "",
    ) -> Any:
        """Open a model for ``infer`` and, with OpenVINO, for ``predict``.

        Args:
            name: to ask for it by.
            runtime: openvino, onnxruntime, or torch and torch_half, which take the model that was loaded.
            threads: that one inference may use.
            path: of the exported model.
            precision: that OpenVINO is held to; None leaves it to the device, as the peer does.
            device: of torch_half.
        """
        if runtime == "openvino":
            self._opened[name] = open_openvino(path, threads, precision)
        elif runtime == "onnxruntime":
            self._opened[name] = open_onnxruntime(path, threads)
        elif runtime == "torch_half":
            self._opened[name] = open_torch_half(self._module, device)
        else:
            self._opened[name] = open_torch(self._module, threads)
        return {}

    def close(self, *, name: str) -> dict[str, Any]:
        del self._opened[name]
        return {}

    def precision(self, *, name: str) -> dict[str, str]:
        """Say what OpenVINO computes in."""
        compiled = self._opened[name][0].model
        return {"precision": compiled.get_property("INFERENCE_PRECISION_HINT").to_string()}

    def infer(
        self, *, name: str, frames: str, out: str | None = None, repetitions: int = 1
    ) -> dict[str, float]:
        """Time one batch through the model alone: its input is ready, its outputs are arrays.

        Args:
            name: of an opened model.
            frames: N×H×W×3 uint8 BGR, a file of numpy.
            out: where to save ``score`` (N) and ``map`` (N×H×W); not saved when None.
            repetitions: of which the mean is taken.
        """
        _, run, outputs = self._opened[name]
        batch = planes(frames)
        started = time.perf_counter()
        for _ in range(repetitions):
            result = run(batch)
        took = (time.perf_counter() - started) / repetitions
        if out is not None:
            named = outputs(result)
            np.savez(out, score=named["pred_score"].reshape(-1), map=named["anomaly_map"][:, 0])
        return {"ms": took * 1e3}

    def predict(self, *, name: str, frame: str) -> dict[str, Any]:
        """Time one frame through the inferencer, its pre- and post-processing included.

        Args:
            name: of a model opened with OpenVINO.
            frame: H×W×3 uint8 RGB, a file of numpy.
        """
        picture = np.load(frame)
        inferencer = self._opened[name][0]
        started = time.perf_counter()
        prediction = inferencer.predict(picture)
        reject = bool(prediction.pred_label.item())
        took = time.perf_counter() - started
        return {"ms": took * 1e3, "reject": reject, "score": float(prediction.pred_score.item())}

    def start_training(self, *, frames: str, natural: str, threads: int) -> dict[str, Any]:
        """Make ready to train the loaded model, on frames and natural images like those of ``infer``."""
        import torch

        torch.set_num_threads(threads)
        module = self._module.train()
        images = torch.from_numpy(planes(frames))[:, None]
        others = torch.from_numpy(planes(natural))[:, None]
        learned = [*module.model.student.parameters(), *module.model.ae.parameters()]
        optimiser = torch.optim.Adam(learned, lr=module.lr, weight_decay=module.weight_decay)
        steps = 0

        def step() -> float:
            nonlocal steps
            losses = module.model(
                batch=images[steps % len(images)], batch_imagenet=others[steps % len(others)]
            )
            loss = sum(losses)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            steps += 1
            return float(loss.detach())

        self._train = step
        return {}

    def train(self) -> dict[str, float]:
        """Time one training step."""
        assert self._train is not None
        started = time.perf_counter()
        loss = self._train()
        return {"ms": (time.perf_counter() - started) * 1e3, "loss": loss}

    def start_learning(
        self,
        *,
        teacher: str,
        training: str,
        natural: str,
        steps: int,
        seed: int,
        threads: int,
        state: str,
        run: dict[str, Any],
    ) -> dict[str, Any]:
        """Make the peer's small model with a teacher of ours, ready to learn.

        Args:
            teacher: state dict with our teacher's weights, a file of torch; or a backbone, see ``Backbone``.
            training: good images, like the frames of ``infer``.
            natural: images for the penalty, of the same kind.
            steps: there will be.
            seed: of everything that is drawn.
            threads: of torch.
            state: file from which a training that was cut off goes on.
            run: all that decides what the training gives.

        Returns:
            ``taken``: steps of that training.
        """
        import torch
        from anomalib.models import EfficientAd
        from learner import Learner

        torch.set_num_threads(threads)
        torch.manual_seed(seed)
        small = {"model_size": MODEL_SIZES["s"], "evaluator": False, "visualizer": False}
        if teacher.endswith(".onnx"):
            from backbone import Backbone

            backbone = Backbone(teacher, threads)
            module = EfficientAd(teacher_out_channels=backbone.channels, **small)
            module.model.teacher = backbone
        else:
            module = EfficientAd(**small)
            kept = copy_convolutions(torch.load(teacher, weights_only=True), "teacher", module.model.teacher)
            if kept:
                raise ValueError(f"the teacher does not fit: {kept[0]}")
        self._learner = Learner(
            module, planes(training), planes(natural), steps=steps, seed=seed, state=Path(state), run=run
        )
        return {"taken": self._learner.taken}

    def learn(self, *, steps: int) -> dict[str, float]:
        """Take training steps."""
        assert self._learner is not None
        return {"steps": steps, "loss": self._learner.learn(steps)}

    def finish_learning(self, *, validation: str) -> dict[str, Any]:
        """Set what the peer sets from good images that it did not learn from."""
        assert self._learner is not None
        self._learner.finish(planes(validation))
        return {}

    def judge(self, *, frames: str, out: str) -> dict[str, Any]:
        """Save ``score`` (N) and ``map`` (N×H×W) of frames like those of ``infer``."""
        assert self._learner is not None
        scores, maps = self._learner.judge(planes(frames))
        np.savez(out, score=scores, map=maps)
        return {}


def copy_convolutions(ours: dict[str, Any], prefix: str, network: Any) -> list[str]:
    """Copy our convolutions into the peer's, in order: both are the paper's, under other names.

    Returns:
        Names of the peer's layers whose shape is another.
    """
    import torch

    layers = [(name, layer) for name, layer in network.named_modules() if isinstance(layer, torch.nn.Conv2d)]
    places = sorted({int(key.split(".")[1]) for key in ours if key.startswith(f"{prefix}.")})
    kept = []
    with torch.no_grad():
        for place, (name, layer) in zip(places, layers, strict=True):
            weight, bias = ours[f"{prefix}.{place}.weight"], ours[f"{prefix}.{place}.bias"]
            if layer.weight.shape == weight.shape:
                layer.weight.copy_(weight)
                assert layer.bias is not None
                layer.bias.copy_(bias)
            else:
                kept.append(name)
    return kept


def open_openvino(path: str, threads: int, precision: str | None) -> Any:
    from anomalib.deploy import OpenVINOInferencer  # type: ignore[import-not-found]

    settings: dict[str, Any] = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
    if precision is not None:
        settings["INFERENCE_PRECISION_HINT"] = precision
    inferencer = OpenVINOInferencer(path, device="CPU", config=settings)
    return (
        inferencer,
        lambda batch: inferencer.model({inferencer.input_blob.any_name: batch}),
        inferencer.post_process,
    )


def open_onnxruntime(path: str, threads: int) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    name = session.get_inputs()[0].name
    return (
        session,
        lambda batch: session.run(names, {name: batch}),
        lambda result: dict(zip(names, result, strict=True)),
    )


def open_torch(module: Any, threads: int) -> Any:
    import torch

    torch.set_num_threads(threads)

    def run(batch: Any) -> Any:
        with torch.inference_mode():
            return module(torch.from_numpy(batch))

    def outputs(result: Any) -> dict[str, Any]:
        return {name: value.numpy() for name, value in result._asdict().items() if value is not None}

    return module, run, outputs


def open_torch_half(module: Any, device: str) -> Any:
    """Run the loaded model as the peer's ``precision="16-mixed"`` does; images come from ordinary memory."""
    import torch

    module.to(device)

    def run(batch: Any) -> Any:
        with torch.inference_mode(), torch.autocast(device, torch.float16):
            found = module.model(torch.from_numpy(batch).to(device))
        return found.pred_score.float().cpu(), found.anomaly_map.float().cpu()

    def outputs(result: Any) -> dict[str, Any]:
        score, anomaly_map = result
        return {"pred_score": score.numpy(), "anomaly_map": anomaly_map.numpy()}

    return module, run, outputs


def planes(frames: str) -> Any:
    """Read N×H×W×3 uint8 BGR as what the peer's models take: N×3×H×W float32, RGB from 0 to 1."""
    return np.ascontiguousarray(np.load(frames)[..., ::-1].transpose(0, 3, 1, 2), dtype=np.float32) / 255


if __name__ == "__main__":
    main()
