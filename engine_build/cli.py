from typing import TYPE_CHECKING

from foundation.command import run_command

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator
    from pathlib import Path

    from engine_runtime.manifest import Manifest

PROG = "build-engine"


def main(argv: list[str] | None = None) -> int:
    """Run ``build-engine`` and give its exit code."""
    return run_command(PROG, lambda: _run(argv))


def _run(argv: list[str] | None) -> int:
    import os

    arguments = command_line().parse_args(argv)
    source: Path = arguments.model
    target: Path = arguments.output or source.with_suffix(".engine")
    from engine_build.build import build
    from engine_build.device import usable_cores
    from engine_runtime.proof import ProofFailed
    from foundation.errors import EngineFailed, InputError, WorkFailed
    from foundation.files import check_writable

    if arguments.triton_repository is not None:
        return _serve(arguments)
    _refuse_server_options(arguments)
    busy, cores = os.getloadavg()[0], usable_cores()
    if target.resolve() == source.resolve():
        raise InputError(f"{target}: is the model itself; name another file with -o")
    check_writable(target, source.stat().st_size if source.is_file() else 1)
    try:
        manifest = build(
            source,
            target,
            runtime=None if arguments.runtime == "auto" else arguments.runtime,
            device=arguments.device,
            precision=arguments.precision,
            max_batch=arguments.max_batch,
            parity_images=arguments.parity_images,
            good=arguments.good,
            aim=arguments.optimise,
            threads=arguments.threads,
            limit_s=None if arguments.fast else arguments.time_limit,
            workspace_mb=arguments.workspace_mb,
        )
    except (ProofFailed, EngineFailed) as error:
        raise WorkFailed(f"{source}: {error}; {target} was not written") from error
    except KeyboardInterrupt as stop:
        raise KeyboardInterrupt(f"interrupted; {target} was not written") from stop
    print(table(target, manifest))
    if manifest.measured and busy > cores / 2:
        print(
            f"the machine was busy before (load {busy:.1f} on {cores} cores): build again when it is quiet, "
            "another engine may be faster"
        )
    print(f"next: calibrate {target} --good DIR, with images of good parts that the model was not trained on")
    return 0


def _serve(arguments: "argparse.Namespace") -> int:
    from engine_build.served import serve
    from foundation.errors import InputError
    from foundation.files import check_folder

    if arguments.calibration is None:
        raise InputError("--triton-repository: needs --calibration FILE, whose quantiles go in")
    check_folder(arguments.triton_repository)
    served = serve(
        arguments.model,
        arguments.triton_repository,
        arguments.calibration,
        name=arguments.model_name,
        addresses=arguments.server,
        timeout_ms=arguments.server_timeout,
        engine=arguments.output or arguments.model.with_suffix(".served.engine"),
        max_batch=arguments.max_batch,
        parity_images=arguments.parity_images,
    )
    print(f"model   {arguments.triton_repository / served.model.name}, version {served.model.version}")
    if served.engine is None:
        print("next: have a server load it; --server grpc://HOST:PORT gives lines an engine that asks there")
    else:
        print(f"engine  {served.engine}, calibration {served.calibration}")
        print("next: have the servers load the model, then inspectd --check; it is proven when it is opened")
    return 0


def _refuse_server_options(arguments: "argparse.Namespace") -> None:
    from foundation.errors import InputError

    given = {
        "--calibration": arguments.calibration,
        "--server": arguments.server,
        "--model-name": arguments.model_name,
    }
    for option in (option for option, value in given.items() if value):
        raise InputError(f"{option}: is for --triton-repository DIR; expected both or neither")


def table(target: "Path", manifest: "Manifest") -> str:
    """Lay out what was built and what was proven of it."""
    proof = manifest.proof
    sizes = "".join(f"{size:>9}" for size in proof.latency_ms)
    latencies = "".join(f"{latency:9.2f}" for latency in proof.latency_ms.values())
    shown = "good parts" if manifest.precision == "int8" else "frames"
    rows = [
        ("engine", f"{target}"),
        ("runtime", f"{manifest.library or manifest.runtime} {manifest.runtime_version}"),
        ("device", manifest.device),
        ("precision", manifest.precision),
        ("convolutions rewritten", f"{len(manifest.winograd)}"),
        ("input", f"{manifest.input_size} pixels, maps {manifest.map_size}"),
    ]
    if proof.graph_score_difference is not None:
        rows += [
            ("convolutions in half", f"{proof.half_precision_share:.0%}"),
            (
                "graph's score difference",
                f"{proof.graph_score_difference:.1e} on {proof.parity_frames} {shown}",
            ),
        ]
    if proof.complete:
        rows += [
            (
                "largest score difference",
                f"{proof.largest_score_difference:.1e} on {proof.parity_frames} {shown}",
            ),
            ("batch rows", "independent" if proof.batch_rows_equal else "not independent"),
            ("batch size", sizes),
            ("latency, ms per batch", latencies),
        ]
    else:
        rows.append(("proof on the GPU", "not run: there is none here; inspectd runs it at its first start"))
    rows.append(("largest batch", f"{manifest.max_batch}"))
    lines = [f"{name:<26}{value}" for name, value in rows]
    if manifest.measured:
        lines += ["", *_measured(manifest)]
    return "\n".join(lines)


def _measured(manifest: "Manifest") -> "Iterator[str]":
    """Lay out what the engine was chosen from."""
    yield f"{'measured':<26}{'threads':>8}{'batch':>7}{'median, ms':>12}{'fastest, ms':>13}"
    for row in manifest.measured:
        name = row.runtime + (f", {row.winograd} rewritten" if row.winograd else "")
        name += "" if row.precision == "fp32" else f", {row.precision}"
        mark = "  chosen" if row.chosen else ""
        yield (
            f"  {name:<24}{row.threads:>8}{row.batch:>7}{row.latency_ms:>12.2f}{row.fastest_ms:>13.2f}{mark}"
        )


def command_line() -> "argparse.ArgumentParser":
    """Describe the command line."""
    from pathlib import Path

    from foundation.option_types import file_name, number, whole_number
    from foundation.parser import Parser

    parser = Parser(
        prog=PROG,
        description="Turn an ONNX model into an engine file for this machine. The engine is compared with"
        " the model first; where it differs, nothing is written.",
    )
    parser.add_argument(
        "model",
        type=file_name,
        metavar="MODEL",
        help="an ONNX file, such as train-model writes, or OpenVINO's .xml",
    )
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="default: the model's name with .engine"
    )
    parser.add_argument(
        "--runtime",
        choices=("auto", "openvino", "onnxruntime", "tensorrt"),
        default="auto",
        help="default: auto, which is TensorRT where there is an NVIDIA GPU, else the fastest installed one",
    )
    parser.add_argument(
        "--device",
        choices=("cpu", "cuda"),
        default="cpu",
        help="where --runtime onnxruntime is to compute (default: cpu)",
    )
    parser.add_argument(
        "--precision",
        choices=("fp32", "fp16", "bf16", "int8"),
        help="bf16 and int8 are faster on devices that compute in them, and change scores; default: fp16 on"
        " a GPU, else fp32",
    )
    parser.add_argument(
        "--good",
        type=Path,
        metavar="DIR",
        help="images of good parts, on which int8 measures its ranges, and by which a density such as padim's"
        " is corrected in int8 and bf16; the model was trained on them or not",
    )
    parser.add_argument(
        "--max-batch",
        type=whole_number(1, 1024),
        metavar="N",
        help="most frames per batch, 1 to 1024 (default: as many, up to 8, as save time per frame)",
    )
    parser.add_argument(
        "--parity-images",
        type=Path,
        metavar="DIR",
        help="images to compare engine and model on (default: generated ones)",
    )
    parser.add_argument(
        "--optimise",
        choices=("latency", "throughput"),
        default="latency",
        help="for single frames or for full batches (default: latency)",
    )
    parser.add_argument(
        "--threads",
        type=whole_number(1, 1024),
        metavar="N",
        help="measure as with 'threads: N' in the line's config (default: all cores, and half of them)",
    )
    parser.add_argument(
        "--workspace-mb",
        type=whole_number(1, 1 << 20),
        metavar="MB",
        help="most memory that the engine may use between its layers on a GPU (default: what there is)",
    )
    serving = parser.add_argument_group("for an inference server that several lines share")
    serving.add_argument(
        "--triton-repository",
        type=Path,
        metavar="DIR",
        help="write the model there, with the calibration's quantiles inside, instead of an engine",
    )
    serving.add_argument("--calibration", type=Path, metavar="FILE", help="made on an engine of this model")
    serving.add_argument("--model-name", metavar="NAME", help="on the server (default: the model's)")
    serving.add_argument(
        "--server",
        type=_server,
        action="append",
        default=[],
        metavar="URL",
        help="grpc://HOST:PORT, or grpcs: also write an engine that asks there; several: one after the other",
    )
    serving.add_argument(
        "--server-timeout",
        type=number(1, 600_000),
        default=200.0,
        metavar="MS",
        help="milliseconds that one server may take (default: 200)",
    )
    pace = parser.add_mutually_exclusive_group()
    pace.add_argument(
        "--time-limit",
        type=number(1, 86_400),
        default=60.0,
        metavar="S",
        help="seconds to find the fastest engine in (default: 60)",
    )
    pace.add_argument(
        "--fast", action="store_true", help="measure nothing: the model as it stands, always the same payload"
    )
    return parser


def _server(text: str) -> str:
    import argparse

    from pydantic import TypeAdapter, ValidationError

    from engine_runtime.manifest import ServerAddress

    try:
        return TypeAdapter(ServerAddress).validate_python(text)
    except ValidationError as error:
        raise argparse.ArgumentTypeError(
            f"found {text!r:.60}, expected grpc://HOST:PORT, or grpcs:// with TLS"
        ) from error
