"""A plan: which models are to be trained, of many products, by several methods, with several seeds."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import Field

from foundation.errors import InputError
from foundation.files import write_whole
from foundation.yaml_file import yaml_text
from foundation.yaml_model import read_model
from lines.section import File, Name, Section
from models.datasets.open import open_data_set
from models.settings_file import apply_settings
from models.train_cli import parser

A_PLAN: Final = "a plan of trainings: products, methods, seeds"
_GIVEN: Final = ("data", "out", "update", "seed", "settings", "defects")
"""Options that the plan itself gives."""


class PlanFile(Section):
    """The YAML file. Relative paths count from its folder."""

    products: Annotated[dict[Name, File], Field(min_length=1, description="name → folder of images, or list")]
    methods: Annotated[
        dict[Name, dict[str, str | int | float | list[str | int | float]]],
        Field(min_length=1, description="name → options of train-model"),
    ]
    seeds: Annotated[tuple[Annotated[int, Field(ge=0, lt=1 << 32)], ...], Field(min_length=1)] = (0,)


@dataclass(frozen=True)
class Task:
    """One training, and what is told of it.

    Attributes:
        product: name.
        method: name.
        seed: of all that is drawn.
        data: folder of images, or list.
        settings: file with the method's options.
        folder: for model, evaluation and result.
        evaluated: whether the data set has defective parts to evaluate on.
        digest: of all that decides what the training gives, but for the images.
    """

    product: str
    method: str
    seed: int
    data: Path
    settings: Path
    folder: Path
    evaluated: bool
    digest: str

    @property
    def name(self) -> str:
        """Product, method and seed."""
        return f"{self.product}, {self.method}, seed {self.seed}"


def read_plan(path: Path, out: Path) -> list[Task]:
    """Read a plan, see that it can be begun, and lay its settings down for the trainings.

    Args:
        path: of the plan.
        out: existing folder for all that is made.

    Raises:
        InputError: a key, an option or a product's images are wrong; the line names where.
    """
    plan, _ = read_model(path, A_PLAN, PlanFile)
    settings = {name: _settings(path, out, name, options) for name, options in plan.methods.items()}
    evaluated = {name: _can_be_evaluated(path, name, data) for name, data in plan.products.items()}
    return [
        Task(
            product,
            method,
            seed,
            data.absolute(),
            settings[method].absolute(),
            (out / product / f"{method}-{seed}").absolute(),
            evaluated[product],
            _digest(data, plan.methods[method], seed),
        )
        for product, data in plan.products.items()
        for method in plan.methods
        for seed in plan.seeds
    ]


def _settings(path: Path, out: Path, name: str, options: dict[str, Any]) -> Path:
    for key in options:
        if key.replace("_", "-") in _GIVEN:
            raise InputError(f"{path}: methods.{name}.{key}: found here, expected none: the plan gives it")
    file = out / "settings" / f"{name}.yaml"
    file.parent.mkdir(exist_ok=True)
    write_whole(file, yaml_text(options).encode() if options else b"method: auto\n")
    try:
        apply_settings(parser(), ["--settings", str(file)])
    except InputError as error:
        raise InputError(str(error).replace(f"{file}", f"{path}: methods.{name}")) from error
    return file


def _can_be_evaluated(path: Path, name: str, data: Path) -> bool:
    try:
        data_set = open_data_set(data, None)
        data_set.good()
    except InputError as error:
        raise InputError(f"{path}: products.{name}: {error}") from error
    try:
        return bool(data_set.test())
    except InputError:
        return False  # good parts alone are enough to learn from


def _digest(data: Path, options: dict[str, Any], seed: int) -> str:
    told = {"data": str(data), "options": options, "seed": seed, "version": version("inspectd")}
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def finished(task: Task) -> dict[str, Any] | None:
    """Give the result of a task that was done before; None where it was not, or with other options."""
    try:
        found = json.loads((task.folder / "result.json").read_text())
    except (OSError, ValueError):
        return None
    same = isinstance(found, dict) and found.get("digest") == task.digest
    return found if same and (task.folder / "model.onnx").exists() else None


def rows(tasks: list[Task]) -> Iterator[dict[str, Any]]:
    """Tell what became of all tasks, in the plan's order."""
    for task in tasks:
        about = {"product": task.product, "method": task.method, "seed": task.seed}
        yield about | (finished(task) or {"state": "open"})
