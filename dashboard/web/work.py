"""Answers about work that takes a while: exports, commands, jobs."""

import shlex
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import anyio
from starlette.responses import Response, StreamingResponse

from dashboard import gallery
from dashboard.export import FORMATS, write_folders
from dashboard.gallery import Wanted
from dashboard.jobs import Job, installed, run_command
from dashboard.records import LABELS
from dashboard.watch import LineWatch
from dashboard.web.answers import Query, Refused, answer, body
from dashboard.web.gallery import FILTERS, wanted
from dashboard.web.site import Ask, beside
from foundation.errors import WorkFailed
from lines.line_config import Product

_CHUNK: Final = 256 * 1024
_FEWEST_GOOD: Final = 20


@dataclass(frozen=True)
class Command:
    """What one can do with labelled pictures.

    Attributes:
        steps: commands with their arguments, one after the other.
        package: that they need, and may not be here.
    """

    name: str
    steps: list[list[str]]
    package: str

    @property
    def text(self) -> str:
        """What to type."""
        return " && ".join(shlex.join(step) for step in self.steps)


async def export(ask: Ask) -> Response:
    """``POST …/exports``."""
    content = await body(ask.request, "format", *FILTERS)
    kind = content.pop("format", "zip")
    writer = FORMATS.get(kind) if isinstance(kind, str) else None
    if writer is None:
        raise Refused(400, "bad_body", key="format", found=f"{kind!r:.80}", expected=", ".join(FORMATS))
    filters = {key: _as_query(key, value) for key, value in content.items() if value is not None}
    if kind == "folders":
        filters = {"decision": "pass,reject", "label": "defect,false_reject"} | filters
    which, _ = wanted(filters)
    jobs, watch, labels = ask.site.jobs, ask.watch, ask.site.labels
    return _added(
        jobs.add(
            "export",
            watch.line.name,
            ask.user,
            lambda job: writer(job, watch, labels, which, jobs.file(job)),
        )
    )


async def commands(ask: Ask) -> Response:
    """``GET …/commands``."""
    Query(ask.query)
    watch = ask.watch

    def look() -> dict[str, Any]:
        rollup = watch.need_rollup()
        term, values = gallery.condition(rollup, _labelled(watch))
        counted = [
            (LABELS[label], kind, number)
            for label, kind, number in rollup.fetch(
                f"SELECT label, kind, count(*) FROM verdicts WHERE {term} GROUP BY label, kind", *values
            )
        ]
        return {
            "folder": str(_folder(watch)),
            "good": sum(number for label, _, number in counted if label == "false_reject"),
            "defects": {kind or "defect": number for label, kind, number in counted if label == "defect"},
            "commands": [
                {
                    "name": command.name,
                    "text": command.text,
                    "runs_here": find_spec(command.package) is not None,
                    "reason": None
                    if find_spec(command.package) is not None
                    else {"code": "not_installed", "values": {"package": command.package}, "detail": None},
                }
                for command in _commands(watch)
            ],
        }

    return answer(await beside(look))


async def run(ask: Ask) -> Response:
    """``POST …/commands/NAME``."""
    await body(ask.request)
    name, watch = ask.request.path_params["name"], ask.watch
    command = next((command for command in _commands(watch) if command.name == name), None)
    if command is None:
        raise Refused(404, "no_such", what="command", name=name[:80])
    if find_spec(command.package) is None:
        raise Refused(503, "not_available", f"{command.package} is not installed here")

    def work(job: Job) -> None:
        folder = _folder(watch)
        folder.mkdir(parents=True, exist_ok=True)
        good, _ = write_folders(job, watch, _labelled(watch), folder)
        if good < _FEWEST_GOOD:
            raise WorkFailed(
                f"{good} pictures are labelled as good; {command.steps[0][0]} needs {_FEWEST_GOOD} or more"
            )
        for step in command.steps:
            run_command(job, [installed(step[0]), *step[1:]], folder)

    return _added(ask.site.jobs.add(name, watch.line.name, ask.user, work))


async def jobs(ask: Ask) -> Response:
    """``GET /api/jobs``."""
    return answer({"jobs": [job.content() for job in ask.site.jobs.all()]})


async def job(ask: Ask) -> Response:
    """``GET /api/jobs/ID``."""
    return answer(_found(ask).content())


async def stop(ask: Ask) -> Response:
    """``DELETE /api/jobs/ID``."""
    found = _found(ask)
    found.stop.set()
    if found.state == "waiting":
        found.state = "stopped"
    return answer(found.content())


async def download(ask: Ask) -> Response:
    """``GET /api/jobs/ID/download``."""
    found = _found(ask)
    if found.state != "done" or found.file is None or not found.file.is_file():
        raise Refused(404, "no_such", what="file", name=found.id)
    headers = {
        "Content-Disposition": f'attachment; filename="{found.line}-{found.what}-{found.id}.zip"',
        "Content-Length": str(found.file.stat().st_size),
        "Cache-Control": "no-store",
    }
    return StreamingResponse(_chunks(found.file), media_type="application/zip", headers=headers)


async def _chunks(file: Path) -> AsyncIterator[bytes]:
    async with await anyio.open_file(file, "rb") as opened:
        while chunk := await opened.read(_CHUNK):
            yield chunk


def _found(ask: Ask) -> Job:
    name = ask.request.path_params["id"]
    found = ask.site.jobs.find(name)
    if found is None:
        raise Refused(404, "no_such", what="job", name=name[:80])
    return found


def _added(job: Job | None) -> Response:
    if job is None:
        raise Refused(429, "too_many", retry_s=60)
    return answer(job.content())


def _as_query(key: str, value: object) -> str:
    """Turn a filter in a body into what it would be in a query."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list) and all(isinstance(entry, str | int | float) for entry in value):
        return ",".join(map(str, value))
    if isinstance(value, str | int | float):
        return str(value)
    raise Refused(400, "bad_body", key=key, found=f"{value!r:.80}", expected="as in the query of verdicts")


def _folder(watch: LineWatch) -> Path:
    return watch.config.state / "labelled" / watch.line.name


def _labelled(watch: LineWatch) -> Wanted:
    """Say which pictures can be learnt from: those of the product that is judged now."""
    return Wanted(
        decisions=("pass", "reject"),
        labels=("defect", "false_reject"),
        products=() if watch.product is None else (watch.product,),
        pictures=True,
        sort="oldest",
    )


def _commands(watch: LineWatch) -> list[Command]:
    product = watch.line.products.get(watch.product) or next(iter(watch.line.products.values()), None)
    if product is None:
        return []
    folder = _folder(watch)
    known = gallery.count(watch.need_rollup(), replace(_labelled(watch), labels=("defect",)))
    defects = ["--defects", str(folder / "defects")] if known else []
    return [_recalibrate(watch, product, folder, defects), _train(watch, folder, defects)]


def _recalibrate(watch: LineWatch, product: Product, folder: Path, defects: list[str]) -> Command:
    step = ["calibrate", str(product.engine), "--good", str(folder / "good"), *defects]
    if watch.line.signing_key is not None:
        step += ["--sign", str(watch.line.signing_key)]
    return Command("recalibrate", [[*step, "-o", str(folder / product.calibration.name)]], "scipy")


def _train(watch: LineWatch, folder: Path, defects: list[str]) -> Command:
    model = folder / f"{watch.line.name}.onnx"
    steps = [
        ["train-model", "--data", str(folder / "good"), *defects, "--out", str(model)],
        ["build-engine", str(model), "--fast"],  # beside a running line, measuring takes long and errs
    ]
    return Command("train", steps, "torch")
