"""The servers that judge for a line fail: the next one takes over, or each part is a fault."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from brightness import brightness_model
from in_process import run

pytest.importorskip("tritonclient", reason="needs tritonclient: pip install 'inspectd[kserve]'")

from inference_server import InferenceServer, MlServer, Triton

from engine_build.cli import main as build_engine
from faults.trial import BELT, Trial, faulted, health

AWAY = health("degraded, which server", lambda h: h.state == "degraded" and "127.0.0.1:" in (h.error or ""))


@pytest.fixture(scope="module", params=[MlServer, Triton])
def servers(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, brightness_engine: Path
) -> Iterator[list[InferenceServer]]:
    from brightness import THRESHOLD, calibrate

    request.param.refuse_without()
    folder = tmp_path_factory.mktemp("served")
    model = brightness_model(folder / "brightness.onnx")
    calibrate(brightness_engine, folder / "made.yaml", THRESHOLD)
    _build(folder)
    made = [request.param(folder / name, folder / "models" / model.stem) for name in ("first", "second")]
    yield made
    for server in made:
        server.close()


def _build(folder: Path, *options: object) -> None:
    done = run(
        build_engine,
        *(folder / "brightness.onnx", "--triton-repository", folder / "models"),
        *("--calibration", folder / "made.yaml", *options),
    )
    assert done.returncode == 0, done.stderr


@pytest.fixture
def served(trial: Trial, servers: list[InferenceServer]) -> list[InferenceServer]:
    """Servers that are well, and engines of the trial's folder that have them judge."""
    trial.row.group = f"Inference server: {type(servers[0]).__name__}"
    for server in servers:
        server.behaves("")
        if server.process.poll() is not None:
            server.start()
    for name, chosen in (("one", servers[:1]), ("both", servers)):
        addresses = [word for server in chosen for word in ("--server", server.address)]
        output = trial.folder / f"{name}.engine"
        _build(servers[0].folder.parent, *addresses, "--server-timeout", 1000, "-o", output)
    return servers


def keys(name: str) -> dict[str, object]:
    return {"engine": f"{name}.engine", "calibration": f"{name}.calibration.yaml", "max_batch": 8}


@pytest.mark.faults("Inference server", "killed (SIGKILL); a second one takes over")
def test_second_takes_over(trial: Trial, served: list[InferenceServer]) -> None:
    trial.start({"top": BELT}, **keys("both"))
    trial.inject()
    served[0].kill()
    trial.detected(AWAY)
    trial.uninterrupted()
    served[0].start()
    trial.finish()  # not one fault


@pytest.mark.faults("Inference server", "the only one killed (SIGKILL), started again")
def test_killed(trial: Trial, served: list[InferenceServer]) -> None:
    trial.start({"top": BELT}, **keys("one"))
    trial.inject()
    served[0].kill()
    trial.detected(faulted("engine"))
    trial.wait_for(AWAY)
    served[0].start()
    trial.recovered()
    trial.finish(faults={("top", "engine")}, possible={("top", "overload")})


@pytest.mark.faults("Inference server", "the only one stopped (SIGSTOP), and goes on")
def test_stopped(trial: Trial, served: list[InferenceServer]) -> None:
    trial.start({"top": BELT}, **keys("one"))
    trial.inject()
    served[0].send(signal.SIGSTOP)
    trial.detected(faulted("engine"))
    served[0].send(signal.SIGCONT)
    trial.recovered()
    trial.finish(faults={("top", "engine")}, possible={("top", "overload")})


@pytest.mark.faults("Inference server", "slower than its time-out; a second one takes over")
def test_slow(trial: Trial, served: list[InferenceServer]) -> None:
    trial.start({"top": BELT}, **keys("both"))
    trial.inject()
    served[0].behaves("slow")
    trial.detected(AWAY)
    trial.uninterrupted()
    trial.finish(possible={("top", "overload")})


@pytest.mark.faults("Inference server", "the only one answers rubbish")
def test_rubbish(trial: Trial, served: list[InferenceServer]) -> None:
    trial.start({"top": BELT}, **keys("one"))
    trial.inject()
    served[0].behaves("nan")
    trial.detected(faulted("engine"))
    served[0].behaves("")
    trial.recovered()
    trial.finish(faults={("top", "engine")}, possible={("top", "overload")})
