"""Real inference servers, each in an environment of its own: their packages do not go with ours."""

import json
import os
import shutil
import signal
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path

import pytest
from fleet_rig import free_port
from line_rig import REPOSITORY
from patience import PATIENCE_S

_GIVEN = os.environ.get("INSPECTD_MLSERVER") or shutil.which("mlserver")
MLSERVER = Path(_GIVEN) if _GIVEN else None
TRITON = os.environ.get("INSPECTD_TRITON")
"""The Python of an environment with ``nvidia-pytriton``, whose wheel holds the server."""


class InferenceServer(ABC):
    """A server with one model of a repository, which ``build-engine --triton-repository`` wrote."""

    name: str
    """Of the model there."""
    environment: Mapping[str, str] = {}

    def __init__(self, folder: Path, model: Path, version: str = "1") -> None:
        self.refuse_without()
        folder.mkdir(parents=True)
        self.folder, self.name = folder, model.name
        self.port = free_port()
        self._prepare(model, version)
        self.start()

    @staticmethod
    @abstractmethod
    def refuse_without() -> None:
        """Skip the test where the server is not installed."""

    @abstractmethod
    def _prepare(self, model: Path, version: str) -> None:
        """Write what the server reads."""

    @abstractmethod
    def _command(self) -> list[str | Path]:
        """Give the command that serves it."""

    @property
    def address(self) -> str:
        return f"grpc://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it, and wait until it has its model."""
        self.start_alone()
        import tritonclient.grpc as triton

        give_up_s = time.monotonic() + PATIENCE_S
        while True:
            with triton.InferenceServerClient(f"127.0.0.1:{self.port}") as client:
                try:
                    if client.is_model_ready(self.name, client_timeout=5):
                        return
                except triton.InferenceServerException:
                    pass
            assert self.process.poll() is None and time.monotonic() < give_up_s, self.log()[-2000:]
            time.sleep(0.2)

    def start_alone(self) -> None:
        """Start it, and do not wait for its model."""
        with (self.folder / "log").open("a") as log:
            self.process = subprocess.Popen(
                self._command(), stdout=log, stderr=log, cwd=self.folder, env=os.environ | self.environment
            )

    def log(self) -> str:
        return (self.folder / "log").read_text()

    def behaves(self, mode: str) -> None:
        """Have its model behave as no server should; "" ends that."""
        (self.folder / "mode").write_text(mode)

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.kill()


class MlServer(InferenceServer):
    """MLServer, which shares no memory."""

    @staticmethod
    def refuse_without() -> None:
        if MLSERVER is None:
            pytest.skip(
                "MLServer is not installed: in an environment of its own pip install mlserver onnxruntime, "
                "then INSPECTD_MLSERVER=…/bin/mlserver"
            )

    def _prepare(self, model: Path, version: str) -> None:
        for file in ("served_graph.py", "served_model.py"):
            shutil.copyfile(REPOSITORY / "tests" / file, self.folder / file)
        shutil.copyfile(model / version / "model.onnx", self.folder / "model.onnx")
        self._write("settings.json", host="127.0.0.1", http_port=free_port(), grpc_port=self.port)
        self._write(
            "model-settings.json",
            name=model.name,
            implementation="served_model.OnnxModel",
            parameters={"uri": str(self.folder), "version": version},
        )

    def _write(self, file: str, **content: object) -> None:
        extra = {"parallel_workers": 0, "metrics_port": free_port()} if file == "settings.json" else {}
        (self.folder / file).write_text(json.dumps(content | extra))

    def _command(self) -> list[str | Path]:
        assert MLSERVER is not None
        return [MLSERVER, "start", self.folder]


class Triton(InferenceServer):
    """Triton with a whole repository; its Python backend runs the model, as the wheel holds no other one."""

    @staticmethod
    def refuse_without() -> None:
        if TRITON is None:
            pytest.skip(
                "Triton is not installed: in an environment of its own pip install nvidia-pytriton 'numpy<2' "
                "onnxruntime, then INSPECTD_TRITON=…/bin/python"
            )

    def _prepare(self, model: Path, version: str) -> None:
        assert TRITON is not None
        asked = (
            "import json, pathlib, sys, sysconfig, pytriton; print(json.dumps({"
            "'wheel': str(pathlib.Path(pytriton.__file__).parent), "
            "'version': '%d.%d' % sys.version_info[:2], "
            "'packages': sysconfig.get_path('purelib'), 'library': sysconfig.get_config_var('LIBDIR')}))"
        )
        told = json.loads(subprocess.run([TRITON, "-c", asked], capture_output=True, check=True).stdout)
        self._wheel = Path(told["wheel"]) / "tritonserver"
        self.environment = {"PYTHONPATH": told["packages"], "LD_LIBRARY_PATH": told["library"]}
        # The backend's folder is without the program for this Python; the wheel has it elsewhere.
        shutil.copytree(self._wheel / "backends/python", self.folder / "backends/python")
        stub = self._wheel / "python_backend_stubs" / told["version"] / "triton_python_backend_stub"
        (self.folder / "backends/python/triton_python_backend_stub").symlink_to(stub)
        shutil.copytree(model.parent, self.folder / "models")  # any other one stays as it was written
        served = self.folder / "models" / model.name
        for file in ("served_graph.py", "triton_model.py"):
            name = "model.py" if file == "triton_model.py" else file
            shutil.copyfile(REPOSITORY / "tests" / file, served / version / name)
        config = (served / "config.pbtxt").read_text()
        assert 'backend: "onnxruntime"' in config
        (served / "config.pbtxt").write_text(config.replace('backend: "onnxruntime"', 'backend: "python"'))

    def _command(self) -> list[str | Path]:
        return [
            self._wheel / "bin/tritonserver",
            *("--model-repository", self.folder / "models", "--backend-directory", self.folder / "backends"),
            *("--grpc-address", "127.0.0.1", "--grpc-port", str(self.port)),
            *("--allow-http", "false", "--allow-metrics", "false", "--exit-on-error", "false"),
            *("--backend-config", f"python,shm-region-prefix-name={self._prefix}"),
        ]

    @property
    def _prefix(self) -> str:
        return f"inspectd-triton-{self.port}"

    def kill(self) -> None:
        super().kill()
        for left in Path("/dev/shm").glob(f"{self._prefix}*"):
            left.unlink()
