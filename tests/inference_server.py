"""A real inference server, in an environment of its own: its packages do not go with ours."""

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from fleet_rig import free_port
from line_rig import REPOSITORY
from patience import PATIENCE_S

_GIVEN = os.environ.get("INSPECTD_MLSERVER") or shutil.which("mlserver")
MLSERVER = Path(_GIVEN) if _GIVEN else None


class MlServer:
    """MLServer with one model of a repository, which ``build-engine --triton-repository`` wrote."""

    def __init__(self, folder: Path, model: Path, version: str = "1") -> None:
        if MLSERVER is None:
            pytest.skip(
                "MLServer is not installed: in an environment of its own pip install mlserver onnxruntime, "
                "then INSPECTD_MLSERVER=…/bin/mlserver"
            )
        folder.mkdir(parents=True)
        self.folder = folder
        self.port = free_port()
        shutil.copyfile(REPOSITORY / "tests/served_model.py", folder / "served_model.py")
        shutil.copyfile(model / version / "model.onnx", folder / "model.onnx")
        self._write("settings.json", host="127.0.0.1", http_port=free_port(), grpc_port=self.port)
        self._write(
            "model-settings.json",
            name=model.name,
            implementation="served_model.OnnxModel",
            parameters={"uri": str(folder), "version": version},
        )
        self.start()

    def _write(self, file: str, **content: object) -> None:
        extra = {"parallel_workers": 0, "metrics_port": free_port()} if file == "settings.json" else {}
        (self.folder / file).write_text(json.dumps(content | extra))

    @property
    def address(self) -> str:
        return f"grpc://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it, and wait until it has its model."""
        assert MLSERVER is not None
        with (self.folder / "log").open("a") as log:
            self.process = subprocess.Popen(
                [MLSERVER, "start", self.folder], stdout=log, stderr=log, cwd=self.folder
            )
        import tritonclient.grpc as triton

        name = json.loads((self.folder / "model-settings.json").read_text())["name"]
        give_up_s = time.monotonic() + PATIENCE_S
        while True:
            with triton.InferenceServerClient(f"127.0.0.1:{self.port}") as client:
                try:
                    if client.is_model_ready(name, client_timeout=5):
                        return
                except triton.InferenceServerException:
                    pass
            said = (self.folder / "log").read_text()[-2000:]
            assert self.process.poll() is None and time.monotonic() < give_up_s, said
            time.sleep(0.2)

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
