"""Has another process judge, here or elsewhere: Open Inference Protocol (KServe, version 2) over gRPC.

Triton, MLServer, OpenVINO Model Server and others speak it. The model there has its quantiles inside, as
``build-engine --triton-repository`` writes it: what the line sends are frames alone, which a server may put
together with those of other lines.
"""

import logging
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import version
from typing import Any, Final
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # what it would print, its exceptions say too
import tritonclient.grpc as triton

from engine_runtime.batch import Batch, check_quantiles
from engine_runtime.engine import ANOMALY_MAP, FRAMES, SCORE, Quantiles
from engine_runtime.manifest import Manifest, Server
from engine_runtime.served_model import quantiles_in
from engine_runtime.server_memory import ServerMemory
from foundation.errors import EngineAway, EngineFailed, EngineRefused
from pictures.frames import Frame

VERSION: str = version("tritonclient")

_PAUSE_S: Final = 1.0
"""A server that failed is asked again after so long, or when no other one is left."""
_LEAVE_S: Final = 0.1
"""What memory a server may forget is told to it in passing."""
_AWAY: Final = "UNAVAILABLE"
_LATE: Final = "DEADLINE_EXCEEDED"
_NEAR: Final = {"localhost", "127.0.0.1", "::1"}
"""Names of this machine. Where a tunnel leads elsewhere, the server finds no such memory."""
_CHANNEL: Final = [
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
]

_log = logging.getLogger(__name__)


class KserveEngine:
    """Asks one server after the other until one answers. Belongs to one lane."""

    def __init__(self, manifest: Manifest, payload: bytes, threads: int | None) -> None:
        del threads  # the server has its own
        if manifest.server is None:
            raise EngineRefused("the manifest names no server; build it again")
        self.manifest = manifest
        self.trouble: str | None = None
        """See ``Engine.trouble``; None while all servers that were asked have answered."""
        self._batch = Batch(manifest.input_size, manifest.max_batch)
        self._inside = quantiles_in(payload, manifest.maps)
        self._servers = [_Remote(address, manifest) for address in manifest.server.addresses]

    def infer(
        self, frames: Sequence[Frame], quantiles: Quantiles, outputs: Sequence[str] = (SCORE, ANOMALY_MAP)
    ) -> dict[str, NDArray[np.float32]]:
        """See ``Engine.infer``.

        Raises:
            EngineAway: no server answers, or not in time, or as the manifest says.
        """
        check_quantiles(quantiles, self.manifest)
        batch = self._batch.gather(frames)
        if np.array_equal(quantiles, self._inside):
            return self._asked(batch, outputs)
        # With other ones than the server has, as in a calibration, the maps are put together here.
        found = self._asked(batch, tuple(self.manifest.maps.values()))
        return found | _combined([found[name] for name in self.manifest.maps.values()], quantiles)

    def _asked(self, batch: Frame, outputs: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        now_s = time.monotonic()
        try:
            for server in [one for one in self._servers if one.due_s <= now_s]:
                answer = server.ask(batch, outputs)
                if answer is not None:
                    # It stays the first: the others have to show that they are well before a part needs them.
                    self._servers.sort(key=lambda one: one is not server)
                    return answer
        finally:
            said = [f"{one.address}: {one.trouble}" for one in self._servers if one.trouble]
            self.trouble = "; ".join(said) or None
        raise EngineAway(f"no server judged it: {self.trouble}")

    def half_precision_share(self) -> float:
        """See ``Engine.half_precision_share``; what a server computes in, it does not say."""
        return self.manifest.proof.half_precision_share

    def close(self) -> None:
        """See ``Engine.close``."""
        for server in self._servers:
            server.close()


class _Remote:
    """One server."""

    def __init__(self, address: str, manifest: Manifest) -> None:
        assert manifest.server is not None
        url = urlsplit(address)
        self.address = url.netloc
        self.trouble: str | None = None
        self.due_s = 0.0
        self._server: Server = manifest.server
        self._manifest = manifest
        self._client = triton.InferenceServerClient(
            self.address, ssl=url.scheme == "grpcs", channel_args=_CHANNEL
        )
        self._is_near = url.hostname in _NEAR
        self._may_share = self._is_near
        self._memory: ServerMemory | None = None

    def ask(self, batch: Frame, outputs: Sequence[str]) -> dict[str, NDArray[np.float32]] | None:
        """Have a batch judged; None where that failed, and ``trouble`` says why."""
        until_s = time.monotonic() + self._server.timeout_ms / 1e3
        try:
            answer = self._asked(batch, outputs, until_s)
        except Exception as error:  # of gRPC, of the client, or of what it makes of rubbish
            self._forget_memory(error)
            self.trouble = _told(error, self._server.timeout_ms)
            self.due_s = time.monotonic() + _PAUSE_S
            return None
        self.trouble, self.due_s = None, 0.0
        return answer

    def _asked(self, batch: Frame, outputs: Sequence[str], until_s: float) -> dict[str, NDArray[np.float32]]:
        known = self._memory
        self._share(until_s)
        try:
            return self._judged(batch, outputs, until_s)
        except triton.InferenceServerException as error:
            if known is None or _status(error) in {_AWAY, _LATE}:
                raise
            if known.is_known(self._client, _left(until_s)):
                raise
            # It was started anew between two parts; none is lost for that.
            self._memory = None
            self._share(until_s)
            return self._judged(batch, outputs, until_s)

    def _judged(self, batch: Frame, outputs: Sequence[str], until_s: float) -> dict[str, NDArray[np.float32]]:
        memory = self._memory
        if memory is None:
            frames = triton.InferInput(FRAMES, list(batch.shape), "UINT8")
            frames.set_data_from_numpy(np.ascontiguousarray(batch))
            wanted = [triton.InferRequestedOutput(name) for name in outputs]
        else:
            frames, wanted = memory.frames(batch), memory.outputs(outputs)
        result = self._client.infer(
            self._server.model,
            [frames],
            model_version=self._server.version,
            outputs=wanted,
            client_timeout=_left(until_s),
        )
        found = {
            name: result.as_numpy(name) if memory is None else memory.answer(result, name) for name in outputs
        }
        return {name: self._checked(name, values, len(batch)) for name, values in found.items()}

    def _share(self, until_s: float) -> None:
        """Share memory with a server of this machine that can; frames go over gRPC to any other."""
        if self._memory is not None or not self._may_share:
            return
        try:
            memory = ServerMemory(self._manifest)
            memory.register(self._client, _left(until_s))
        except (OSError, triton.InferenceServerException) as error:
            if _status(error) in {_AWAY, _LATE}:
                raise
            self._may_share = False
            _log.info("%s: frames go over gRPC: %s", self.address, _told(error, self._server.timeout_ms))
        else:
            self._memory = memory

    def _forget_memory(self, error: Exception) -> None:
        """Never use memory again into which an answer may still be written after the request has failed."""
        if not isinstance(error, triton.InferenceServerException):
            return
        is_away = _status(error) == _AWAY
        if is_away and self._memory is not None:  # or has it lost its model alone?
            with suppress(triton.InferenceServerException):
                self._client.unregister_system_shared_memory(self._memory.name, client_timeout=_LEAVE_S)
        self._memory = None
        # One that hangs may still hold the region: as long as it runs, it gets no other one.
        self._may_share = self._is_near and is_away

    def _checked(self, name: str, found: Any, count: int) -> NDArray[np.float32]:
        """Give an output as contract 1 wants it; what does not fit is never a score."""
        expected = (count,) if name == SCORE else (count, *self._manifest.map_size)
        if not isinstance(found, np.ndarray) or found.dtype.kind != "f":
            raise EngineFailed(f"gives {name} as {getattr(found, 'dtype', 'nothing')}, expected floats")
        if name == SCORE and found.shape == (count, 1):
            found = found[:, 0]
        if found.shape != expected:
            raise EngineFailed(f"gives {name} of shape {found.shape}, expected {expected}")
        if not np.isfinite(found).all():
            raise EngineFailed(f"gives {name} with NaN or infinite values")
        values: NDArray[np.float32] = found.astype(np.float32, copy=True)
        return values

    def close(self) -> None:
        if self._memory is not None:
            with suppress(triton.InferenceServerException):
                self._client.unregister_system_shared_memory(self._memory.name, client_timeout=_LEAVE_S)
        self._client.close()


def _left(until_s: float) -> float:
    return max(0.001, until_s - time.monotonic())


def _status(error: Exception) -> str | None:
    status = error.status() if isinstance(error, triton.InferenceServerException) else None
    return None if status is None else str(status).removeprefix("StatusCode.")


def _told(error: Exception, timeout_ms: float) -> str:
    status = _status(error)
    if status == _LATE:
        return f"no answer within {timeout_ms:g} ms"
    text = error.message() if isinstance(error, triton.InferenceServerException) else str(error)
    text = " ".join(str(text).split())[:200]
    return f"{status}: {text}" if status else text


def _combined(maps: Sequence[NDArray[np.float32]], quantiles: Quantiles) -> dict[str, NDArray[np.float32]]:
    """Put maps together as contract 1 says."""
    normal = [0.1 * (found - a) / (b - a) for found, (a, b) in zip(maps, quantiles, strict=True)]
    anomaly_map = np.mean(normal, axis=0, dtype=np.float32)
    return {ANOMALY_MAP: anomaly_map, SCORE: anomaly_map.max(axis=(1, 2))}


load = KserveEngine
