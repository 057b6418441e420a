"""``train-model --plan``: many trainings, here or on a cluster, and their results in one table."""

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foundation.files import check_folder, write_whole
from foundation.option_types import whole_number
from foundation.parser import Parser
from models.errors import TrainingFailed

if TYPE_CHECKING:
    from models.plans.plan import Task

PROG = "train-model"


def run(arguments: list[str]) -> int:
    """Run the command line; returns the exit code."""
    options = parser().parse_args(arguments)
    try:
        carry_out(options)
    except KeyboardInterrupt as stop:
        raise KeyboardInterrupt("interrupted; the same command goes on with what is not done") from stop
    return 0


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    command = Parser(prog=PROG, description="Train the models of a plan: each product by each method.")
    command.add_argument("--plan", type=Path, required=True, metavar="FILE", help="products, methods, seeds")
    command.add_argument("--out", type=Path, required=True, metavar="DIR", help="for models and results")
    command.add_argument(
        "--cluster",
        type=_cluster,
        default="local",
        metavar="local|ray://HOST:PORT",
        help="where: on this machine (default), or on a Ray cluster whose machines see the same folders",
    )
    command.add_argument(
        "--at-once", type=whole_number(1, 1024), metavar="N", help="most trainings here (default: by cores)"
    )
    command.add_argument(
        "--threads", type=whole_number(1, 1024), default=1, metavar="N", help="of each (default: 1)"
    )
    return command


def carry_out(options: argparse.Namespace) -> None:
    """Do what of a plan is not done yet.

    Raises:
        InputError: the plan is wrong, or the cluster is away.
        TrainingFailed: some tasks failed; the table says why.
    """
    from tqdm import tqdm

    from models.plans.cluster import outcomes
    from models.plans.plan import finished, read_plan, rows

    check_folder(options.out, ["plan.md", "plan.json"])
    options.out.mkdir(exist_ok=True)
    tasks = read_plan(options.plan, options.out)
    left = [task for task in tasks if finished(task) is None]
    failed: dict[Task, str] = {}
    try:
        with tqdm(total=len(tasks), initial=len(tasks) - len(left), unit="model", disable=None) as bar:
            for task, result in outcomes(left, options.cluster, options.at_once, options.threads):
                bar.update()
                if result["state"] == "failed":
                    failed[task] = result["error"]
                    bar.write(f"{task.name}: {result['error']}", file=sys.stderr)
    finally:
        table = [
            row | ({"state": "failed", "error": failed[task]} if task in failed else {})
            for task, row in zip(tasks, rows(tasks), strict=True)
        ]
        page = as_markdown(table)
        write_whole(options.out / "plan.json", json.dumps(table, indent=1).encode() + b"\n")
        write_whole(options.out / "plan.md", page.encode())
    print(f"{page}\n{options.out}: plan.md, plan.json")
    if failed:
        task, error = next(iter(failed.items()))
        raise TrainingFailed(
            f"{options.plan}: {len(failed)} of {len(tasks)} trainings failed, first {task.name}: {error}"
        )


def as_markdown(table: list[dict[str, Any]]) -> str:
    """Lay the results out as a page: each training, and each method's mean over products and seeds."""
    lines = [
        "| product | method | seed | image AUROC | AU-PRO 0.3 | seconds | machine | |",
        f"|{' --- |' * 8}",
    ]
    for row in table:
        auroc, au_pro = (_shown(row.get(key)) for key in ("image_auroc", "au_pro"))
        note = row["state"] if row["state"] != "failed" else f"failed: {row['error']}".replace("|", "/")
        lines.append(
            f"| {row['product']} | {row['method']} | {row['seed']} | {auroc} | {au_pro} | "
            f"{row.get('seconds', '')} | {row.get('machine', '')} | {note} |"
        )
    lines += ["", "| method | mean image AUROC | mean AU-PRO 0.3 | models |", f"|{' --- |' * 4}"]
    for method in dict.fromkeys(row["method"] for row in table):
        of = [row for row in table if row["method"] == method and row["state"] == "done"]
        means = []
        for key in ("image_auroc", "au_pro"):
            values = [row[key] for row in of if row[key] is not None]
            means.append(_shown(sum(values) / len(values) if values else None))
        lines.append(f"| {method} | {means[0]} | {means[1]} | {len(of)} |")
    return "\n".join(lines) + "\n"


def _shown(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _cluster(text: str) -> str:
    from urllib.parse import urlsplit

    if text == "local":
        return text
    try:
        parts = urlsplit(text)
        sound = parts.scheme == "ray" and bool(parts.hostname and parts.port)
    except ValueError:
        sound = False
    if not sound:
        raise argparse.ArgumentTypeError(f"found {text!r:.60}, expected local or ray://HOST:10001")
    return text
