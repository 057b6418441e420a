"""Cameras that die, hang, lie and go away, in a running line."""

import ctypes
import http.server
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from brightness import calibrate
from http_camera import HttpCamera, http_camera, jpeg
from line_rig import part_image
from patience import PATIENCE_S
from video_files import write_video

from daemon.capture.drivers.simulated import SimulatedLine
from faults.trial import BELT, STEADY, Trial, faulted, health
from pictures.locating.reference_file import write_reference
from pictures.locating.teach import teach
from verdicts import LineControl

_PIDFD_GETFD = 438  # the same on all architectures; Python has no function for it


def belt(*troubles: str, **settings: object) -> dict[str, object]:
    """A simulated camera that rehearses troubles, ``KIND@FRAME``."""
    source = str(BELT["source"]) + "".join(f"&trouble={trouble}" for trouble in troubles)
    return BELT | {"source": source, "fps": 50} | settings


@pytest.mark.faults("Cameras", "process killed (SIGKILL)")
def test_killed(trial: Trial) -> None:
    trial.start({"top": BELT, "side": BELT})
    process = trial.camera_process("top")
    trial.inject()
    os.kill(process, signal.SIGKILL)
    trial.detected(faulted("camera"))
    trial.recovered()
    trial.finish(faults={("top", "camera")})


@pytest.mark.faults("Cameras", "both cameras killed at once")
def test_both_killed(trial: Trial) -> None:
    trial.start({"top": BELT, "side": BELT})
    processes = [trial.camera_process(camera) for camera in ("top", "side")]
    trial.inject()
    for process in processes:
        os.kill(process, signal.SIGKILL)
    trial.detected(faulted("camera", "side"))
    trial.recovered("top", "side")
    trial.finish(faults={("top", "camera"), ("side", "camera")})


@pytest.mark.faults("Cameras", "driver crashes (SIGABRT)")
def test_crashed(trial: Trial) -> None:
    trial.start({"top": belt("crash@50"), "side": BELT})
    trial.injected_after(49)
    trial.detected(faulted("camera"))
    trial.recovered()
    trial.finish(faults={("top", "camera")})


@pytest.mark.faults("Cameras", "driver hangs")
def test_driver_hangs(trial: Trial) -> None:
    trial.start({"top": belt("hang@50", stalled_after_s=0.5), "side": BELT})
    trial.injected_after(49)
    trial.detected(health("camera stalled", lambda health: health.cameras["top"].state == "stalled"))
    trial.recovered()
    trial.finish(faults={("top", "camera")})


@pytest.mark.faults("Cameras", "process stopped for good (SIGSTOP), no `stalled_after_s`")
def test_stopped(trial: Trial) -> None:
    trial.start({"top": BELT, "side": BELT})
    process = trial.camera_process("top")
    trial.inject()
    os.kill(process, signal.SIGSTOP)
    # Without a time after which silence is suspect, its missing heartbeat tells.
    trial.detected(health("camera stalled", lambda health: health.cameras["top"].state == "stalled"))
    trial.recovered()
    trial.finish(faults={("top", "camera")})


@pytest.mark.faults("Cameras", "process held up for 1 s (SIGSTOP, SIGCONT)")
def test_held_up(trial: Trial) -> None:
    trial.start({"top": BELT, "side": BELT})
    process = trial.camera_process("top")
    trial.inject()
    os.kill(process, signal.SIGSTOP)
    trial.uninterrupted("side", verdicts=100)
    os.kill(process, signal.SIGCONT)
    trial.not_told()
    trial.uninterrupted("top", verdicts=100)
    trial.finish()


@pytest.mark.faults("Cameras", "process stopped (SIGSTOP) while the daemon is told to end")
def test_stopped_at_the_end(trial: Trial) -> None:
    trial.start({"top": BELT})
    os.kill(trial.camera_process("top"), signal.SIGSTOP)
    trial.inject()
    trial.send(signal.SIGTERM)
    trial.detected(health("stopping", lambda health: health.state == "stopping"))
    trial.exited(0)
    trial.finish(possible={("top", "camera")})  # a frame that was counted and not delivered yet


@pytest.mark.faults("Cameras", "frozen picture")
def test_frozen(trial: Trial) -> None:
    trial.start({"top": belt("frozen@50", frozen_after=5), "side": BELT})
    trial.injected_after(49)
    trial.detected(faulted("camera"))
    trial.recovered()
    trial.finish(faults={("top", "camera")})


@pytest.mark.faults("Cameras", "black pictures")
def test_black(trial: Trial) -> None:
    trial.start({"top": belt("black@50", black_below=5)})
    trial.injected_after(49)
    trial.detected(faulted("camera"))
    trial.recovered()
    trial.finish(faults={("top", "camera")})


@pytest.mark.faults("Cameras", "pictures of another size")
def test_resized(trial: Trial) -> None:
    trial.start({"top": belt("resized@50"), "side": BELT})
    trial.injected_after(49)
    trial.detected(faulted("camera"))
    trial.recovered()
    trial.finish(faults={("top", "camera")})


@pytest.mark.faults("Cameras", "timestamp goes backwards")
def test_backwards(trial: Trial) -> None:
    trial.start({"top": belt("backwards@50")})
    trial.injected_after(49)
    trial.detected(faulted("camera"))
    trial.recovered()
    trial.finish(faults={("top", "camera")})


@pytest.mark.faults("Cameras", "process leaks memory beyond `max_mb`")
def test_leak(trial: Trial) -> None:
    trial.start({"top": belt("leak@30", max_mb=400, fps=20), "side": BELT})
    trial.injected_after(29)
    trial.detected(faulted("camera"))
    trial.recovered()
    assert "more than max_mb 400" in trial.log
    trial.finish(faults={("top", "camera")})


@pytest.mark.faults("Cameras", "garbage from the process on its link")
def test_garbage_on_the_link(trial: Trial) -> None:
    trial.start({"top": BELT, "side": BELT})
    with link_of(trial.camera_process("top")) as link:
        trial.inject()
        link.send(b"\x93NUMPY rubbish")
    trial.detected(faulted("camera"))
    trial.recovered()
    assert "its process broke the protocol" in trial.log
    trial.finish(faults={("top", "camera")})


def link_of(process: int) -> socket.socket:
    """Take a copy of a camera process's own end of its link."""
    command = Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0")
    number = int(command[command.index(b"daemon.capture.process") + 1])
    pidfd = os.pidfd_open(process)
    taken = ctypes.CDLL(None, use_errno=True).syscall(_PIDFD_GETFD, pidfd, number, 0)
    os.close(pidfd)
    if taken < 0:
        pytest.skip(f"a process's descriptors cannot be taken: {os.strerror(ctypes.get_errno())}")
    return socket.socket(fileno=taken)


@pytest.mark.faults("Cameras", "an image that cannot be read")
def test_unreadable_image(trial: Trial) -> None:
    for index in range(100):
        part_image(trial.folder / f"parts/{index:03d}.png", bright=False)
    (trial.folder / "parts/050.png").write_bytes(b"no image")
    trial.start({"top": {"source": "parts", "fps": 50, "waiting": 100}})
    trial.injected_after(50)
    trial.detected(faulted("camera"))
    trial.recovered()
    trial.finish(faults={("top", "camera")})


class IpCamera(http.server.BaseHTTPRequestHandler):
    """Motion JPEG at 50 frames per second, as long as its server is not told to go away."""

    gone = threading.Event()

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        index = 0
        while not self.gone.wait(0.02):
            picture = np.full((64, 64, 3), 20 + index % 100, np.uint8)
            jpeg = cv2.imencode(".jpg", picture)[1].tobytes()
            try:
                self.wfile.write(b"--frame\r\nContent-Type: image/jpeg\r\n\r\n" + jpeg + b"\r\n")
            except OSError:
                return
            index += 1

    def log_message(self, format: str, *args: object) -> None:
        pass


class IpCameras:
    """An IP camera that can be switched off, and on again at the same address."""

    def __init__(self) -> None:
        self.port = 0

    def switch_on(self) -> None:
        IpCamera.gone.clear()
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", self.port), IpCamera)
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def switch_off(self) -> None:
        IpCamera.gone.set()
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def ip_camera() -> Iterator[IpCameras]:
    camera = IpCameras()
    camera.switch_on()
    yield camera
    camera.switch_off()


@pytest.mark.faults("Cameras", "stream breaks off and comes back after 1 s")
def test_stream_gone_and_back(trial: Trial, ip_camera: IpCameras) -> None:
    trial.start({"top": {"source": f"http://127.0.0.1:{ip_camera.port}/", "waiting": 100}, "side": BELT})
    trial.inject()
    ip_camera.switch_off()
    trial.detected(faulted("camera"))
    trial.uninterrupted("side", verdicts=100)
    ip_camera.switch_on()
    trial.recovered()
    trial.finish(faults={("top", "camera")})


@pytest.fixture
def web() -> Iterator[HttpCamera]:
    """An IP camera at 50 frames per second, that sends ``next_parts`` first."""
    with http_camera() as camera:

        def parts() -> Iterator[bytes]:
            for index in range(10_000):
                yield camera.next_parts.pop(0) if camera.next_parts else jpeg(50 + index % 50)
                time.sleep(0.02)

        camera.parts = parts
        yield camera


@pytest.mark.faults("Cameras", "a JPEG of a stream is cut short")
def test_jpeg_cut_short(trial: Trial, web: HttpCamera) -> None:
    trial.start({"top": {"source": web.address("/stream"), "waiting": 100}})
    trial.inject()
    web.next_parts.append(jpeg(50)[:-500])
    trial.detected(faulted("camera"))
    trial.recovered()
    trial.finish(faults={("top", "camera")})


@pytest.mark.faults("Cameras", "a stream changes its size")
def test_stream_resized(trial: Trial, web: HttpCamera) -> None:
    trial.start({"top": {"source": web.address("/stream"), "waiting": 100}, "side": BELT})
    trial.inject()
    web.next_parts += [jpeg(50 + index, 48) for index in range(3)]
    trial.detected(faulted("camera"))
    trial.recovered()
    trial.finish(faults={("top", "camera")})


@pytest.mark.faults("Cameras", "a snapshot address gives half a picture")
def test_half_a_snapshot(trial: Trial, web: HttpCamera) -> None:
    web.snapshot = lambda asked: jpeg(50 + asked % 50)[: -500 if asked == 50 else None]
    trial.start({"top": {"source": web.address("/snapshot"), "fps": 20, "waiting": 100}})
    trial.injected_after(49)
    trial.detected(faulted("camera"))
    trial.recovered()
    trial.finish(faults={("top", "camera")})


@pytest.mark.faults("Cameras", "a picture of an H.264 video is missing, those after it refer to it")
def test_h264_picture_lost(trial: Trial) -> None:
    write_video(trial.folder / "parts.h264", lost=[52], pictures=200)
    trial.start({"top": {"source": "parts.h264", "fps": 50, "waiting": 100}})
    trial.injected_after(52)
    trial.detected(faulted("camera"))
    trial.recovered()
    trial.finish(faults={("top", "camera")})


@pytest.mark.faults("Cameras", "process killed amid a video without an index")
def test_killed_amid_a_video(trial: Trial) -> None:
    write_video(trial.folder / "parts.ts", pictures=300)
    trial.start({"top": {"source": "parts.ts", "fps": 50, "waiting": 100}})
    process = trial.camera_process("top")
    trial.inject()
    os.kill(process, signal.SIGKILL)
    trial.detected(faulted("camera"))
    trial.recovered(healthy=False)
    trial.exited(0)
    assert len(trial.verdicts) == 300  # each picture once, the one amid which it died as a fault
    trial.finish(faults={("top", "camera")})


@pytest.mark.faults("Cameras", "a video file is cut short")
def test_video_cut_short(trial: Trial) -> None:
    video = write_video(trial.folder / "parts.avi", pictures=100)
    os.truncate(video, video.stat().st_size * 2 // 3)
    trial.start({"top": {"source": "parts.avi", "fps": 50, "waiting": 100}})
    trial.injected_after(40)
    trial.detected(faulted("camera"))
    trial.exited(2)
    assert "parts.avi: is damaged or cut short after picture" in trial.log.splitlines()[-1]
    trial.finish(faults={("top", "camera")})


MOVING = "simulated://belt?width=160&height=120&diameter=58&speed=9&stops=0"
"""A free-running camera: a part passes about every ten pictures."""


@pytest.mark.faults("Cameras", "belt stopped with a part in view for 1 s")
def test_belt_stopped(trial: Trial) -> None:
    trial.start({"top": {"source": f"{MOVING}&halt=250", "fps": 100, "waiting": 100, "present": {}}})
    verdicts = len(trial.verdicts)
    trial.inject()
    trial.wait_until(lambda: len(trial.verdicts) > verdicts + 20)
    trial.not_told()
    parts = [verdict.part for verdict in trial.verdicts]
    numbers = [int(str(part).split()[0]) for part in parts]
    assert numbers == list(range(len(numbers)))  # the one that stood has one verdict, like all others
    trial.finish(possible={("top", "camera")})  # a part that is half in view at the end


@pytest.mark.faults("Cameras", "lamp off for 0.6 s over a moving belt (`present`)")
def test_lamp_off(trial: Trial) -> None:
    trial.start({"top": {"source": f"{MOVING}&trouble=dark@400", "fps": 100, "waiting": 100, "present": {}}})
    trial.inject()
    trial.detected(faulted("camera"))
    assert "dark: the lamp is off" in str(trial.health.cameras["top"].error) or "dark" in trial.log
    trial.recovered()
    trial.finish(faults={("top", "camera")})


APART_S = 0.1
"""Triggers that come sooner count as one part: long enough for two that a busy machine sends in a row."""


def triggered(trial: Trial, **trigger: float) -> LineControl:
    """Start a line that judges a part for each trigger, and give who triggers it."""
    settings = {"by": "software", "apart_ms": 1000 * APART_S, **trigger}
    camera = {"source": MOVING, "fps": 100, "waiting": 100, "trigger": settings}
    trial.configure({"top": camera, "side": BELT})
    trial.launch()
    trial.connect()
    trial.wait_for(health("running", lambda health: health.state == "running"), since_s=0)
    return LineControl(f"ipc://{trial.folder}/control", timeout_s=PATIENCE_S)


def trigger_steadily(trial: Trial, control: LineControl, count: int = STEADY + 1) -> None:
    """Trigger, and wait for each verdict."""
    for _ in range(count):
        before = len([verdict for verdict in trial.verdicts if verdict.camera == "top"])
        control.trigger("top", "part")
        trial.wait_until(
            lambda before=before: len([v for v in trial.verdicts if v.camera == "top"]) > before  # type: ignore[misc]
        )
        time.sleep(1.3 * APART_S)  # as parts do


@pytest.mark.faults("Cameras", "trigger bouncing: three in a millisecond")
def test_trigger_bounces(trial: Trial) -> None:
    with triggered(trial) as control:
        trigger_steadily(trial, control)
        trial.inject()
        for _ in range(3):
            control.trigger("top", "bouncing")
        trial.detected(faulted("camera"))
        trigger_steadily(trial, control)
        trial.recovered()
        reasons = sorted(str(v.reason) for v in trial.verdicts if v.part == "bouncing")
        assert reasons == ["None", "camera", "camera"]  # one trigger, one verdict
    trial.finish(faults={("top", "camera")})


@pytest.mark.faults("Cameras", "trigger doubled: 10 ms apart, `apart_ms: 100`")
def test_trigger_doubled(trial: Trial) -> None:
    with triggered(trial) as control:
        trigger_steadily(trial, control)
        trial.inject()
        control.trigger("top", "doubled")
        time.sleep(0.01)
        control.trigger("top", "doubled")
        trial.detected(faulted("camera"))
        trigger_steadily(trial, control)
        trial.recovered()
    trial.finish(faults={("top", "camera")})


@pytest.mark.faults("Cameras", "trigger missing: none for 1 s, `silent_after_s: 1`")
def test_trigger_missing(trial: Trial) -> None:
    with triggered(trial, silent_after_s=1) as control:
        trigger_steadily(trial, control)
        trial.inject()
        trial.detected(faulted("camera"))
        trial.wait_for(health("degraded", lambda health: health.state == "degraded"))
        trigger_steadily(trial, control)
        trial.recovered()
    trial.finish(faults={("top", "camera")})


@pytest.mark.faults("Cameras", "trigger without a picture: the camera's process is stopped")
def test_trigger_without_a_picture(trial: Trial) -> None:
    with triggered(trial) as control:
        trigger_steadily(trial, control)
        process = trial.camera_process("top")
        trial.inject()
        os.kill(process, signal.SIGSTOP)
        control.trigger("top", "unseen")
        trial.detected(faulted("camera"))
        trial.wait_until(lambda: trial.health.cameras["top"].state == "running")
        trigger_steadily(trial, control)
        trial.recovered()
        assert [v.decision for v in trial.verdicts if v.part == "unseen"] == ["fault"]
    trial.finish(faults={("top", "camera")})


@pytest.mark.faults("Cameras", "the reference of `locate` lost, and the camera's process killed")
def test_reference_lost(trial: Trial) -> None:
    line = SimulatedLine(width=96, height=96)
    pictures = [line.frame(index)[0] for index in range(6)]
    taught = teach(pictures, turn=10)
    file = trial.folder / "part.locate.png"
    write_reference(file, taught.reference, pictures[taught.chosen])
    about = {"locate": taught.reference.digest, "camera_picture": taught.reference.picture}
    calibrate(trial.folder / "brightness.engine", trial.folder / "brightness.calibration.yaml", 2.0, **about)
    source = "simulated://?width=96&height=96&cached=4"
    trial.start({"top": BELT | {"source": source, "locate": {"reference": file.name}}})
    process = trial.camera_process("top")
    trial.inject()
    file.unlink()
    os.kill(process, signal.SIGKILL)
    trial.detected(faulted("camera"))
    trial.recovered()
    trial.finish(faults={("top", "camera")})
