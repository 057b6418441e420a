"""A whole daemon in a child process, heard over its socket."""

import http.server
import os
import signal
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest
from brightness import SIZE, THRESHOLD
from line_rig import COMMANDS, RunningLine, exists, part_image, running, write_config
from patience import PATIENCE_S

from daemon.capture.drivers.simulated import SimulatedLine
from engine_runtime.engine_file import read_manifest
from fuzzing.free_port import free_port


def every_frame_has_one_verdict(line: RunningLine) -> None:
    assert [verdict.seq for verdict in line.verdicts] == list(range(1, len(line.verdicts) + 1))
    for name, camera in line.health.cameras.items():
        frames = sorted(verdict.frame for verdict in line.verdicts if verdict.camera == name)
        assert frames == list(range(1, camera.captured + 1))
    counts = Counter(verdict.decision for verdict in line.verdicts)
    assert counts == Counter(line.health.verdicts)
    assert line.health.waiting == 0


def test_a_folder_gets_one_verdict_per_image_and_the_daemon_ends(line_folder: Path) -> None:
    for index in range(20):
        part_image(line_folder / f"parts/{index:02d}.png", bright=index % 4 == 0)
    config = write_config(line_folder, {"top": {"source": "parts"}})
    with running(config) as line:
        errors = line.until_end()
    assert line.process.returncode == 0, errors
    every_frame_has_one_verdict(line)
    assert line.health.state == "stopping"
    assert line.health.cameras["top"].state == "ended"
    for verdict in line.verdicts:
        index = int(Path(verdict.part or "").stem)
        assert verdict.frame == index + 1
        assert verdict.decision == ("reject" if index % 4 == 0 else "pass")
        assert verdict.score == pytest.approx(1.0 if index % 4 == 0 else 40 / 255, abs=1e-5)
        assert verdict.threshold == THRESHOLD
        assert verdict.model == "brightness"
        latency = verdict.latency_ms
        assert latency.wait is not None and latency.infer is not None
        assert latency.total >= latency.wait + latency.infer - 0.01


def test_the_peak_points_at_the_spot_in_the_cameras_own_picture(line_folder: Path) -> None:
    part_image(line_folder / "parts/0.png", bright=True, size=400, spot=(200, 100))  # 100 wide and high
    roi = {"x": 100, "y": 50, "width": 256, "height": 256}
    config = write_config(line_folder, {"top": {"source": "parts", "roi": roi}})
    with running(config) as line:
        line.until_end()
    peak = line.verdicts[0].peak
    assert peak is not None
    assert 200 <= peak.x < 300
    assert 100 <= peak.y < 200


def test_rejects_are_archived_with_frame_and_overlay_and_the_oldest_go(line_folder: Path) -> None:
    generator = np.random.default_rng(1)
    for index in range(12):
        path = part_image(line_folder / f"parts/{index:02d}.png", bright=True)
        noisy = generator.integers(0, 255, (SIZE, SIZE, 3), dtype=np.uint8)
        noisy[:32] = 255
        cv2.imwrite(str(path), noisy)
    part_image(line_folder / "parts/99.png", bright=False)
    config = write_config(
        line_folder, {"top": {"source": "parts"}}, archive={"folder": "rejects", "max_mb": 1}
    )
    with running(config) as line:
        line.until_end()
    archived = [verdict.archive for verdict in line.verdicts]
    assert archived[-1] is None
    for name in archived[:-1]:
        overlay = Path(name or "")
        assert overlay.parent == line_folder / "rejects"
        assert cv2.imread(str(overlay)).shape == (SIZE, SIZE, 3)
        frame = cv2.imread(str(overlay).replace(".overlay.jpg", ".png"))
        assert (frame[:32] == 255).all()


def test_an_unreadable_image_is_a_fault_and_the_line_goes_on(line_folder: Path) -> None:
    for index in range(3):
        part_image(line_folder / f"parts/{index}.png", bright=False)
    (line_folder / "parts/1.png").write_bytes(b"no image")
    config = write_config(line_folder, {"top": {"source": "parts"}})
    with running(config) as line:
        errors = line.until_end()
    every_frame_has_one_verdict(line)
    by_part = {verdict.part: verdict for verdict in line.verdicts}
    assert {part: verdict.decision for part, verdict in by_part.items()} == {
        "0.png": "pass",
        "1.png": "fault",
        "2.png": "pass",
    }
    assert by_part["1.png"].reason == "camera"
    assert "1.png: is not a PNG" in errors


def test_sigterm_gives_every_captured_frame_its_verdict(line_folder: Path) -> None:
    cameras = {
        name: {"source": f"simulated://?seed={seed}&width=128&height=128", "fps": 200}
        for seed, name in enumerate(("top", "side"))
    }
    config = write_config(line_folder, cameras, lanes=2)
    with running(config) as line:
        line.until(lambda line: len(line.verdicts) > 100)
        errors = line.stop()
    assert line.process.returncode == 0, errors
    assert "Traceback" not in errors
    every_frame_has_one_verdict(line)
    assert {verdict.reason for verdict in line.verdicts} == {None}


def test_a_deadline_that_cannot_be_met_makes_faults(line_folder: Path) -> None:
    for index in range(5):
        part_image(line_folder / f"parts/{index}.png", bright=False)
    config = write_config(line_folder, {"top": {"source": "parts"}}, deadline_ms=0.001)
    with running(config) as line:
        line.until_end()
    every_frame_has_one_verdict(line)
    assert {(verdict.decision, verdict.reason) for verdict in line.verdicts} == {("fault", "deadline")}


def test_overload_drops_the_oldest_and_says_so(line_folder: Path) -> None:
    # A camera that does not wait, far faster than one stopped daemon can take frames in.
    part_image(line_folder / "parts/0.png", bright=False)
    camera = {"source": "parts", "loop": True, "fps": 500, "waiting": 2}
    config = write_config(line_folder, {"top": camera}, max_batch=1, deadline_ms=60_000)
    with running(config) as line:
        line.until(lambda line: len(line.verdicts) > 20)
        line.process.send_signal(signal.SIGSTOP)
        captured = line.verdicts[-1].frame
        subprocess.run(["sleep", "0.3"], check=True)  # the time in which a camera captures and nobody listens
        line.process.send_signal(signal.SIGCONT)
        line.until(lambda line: line.verdicts[-1].frame > captured + 100)
        line.stop()
    every_frame_has_one_verdict(line)
    assert ("fault", "overload") in {(verdict.decision, verdict.reason) for verdict in line.verdicts}


def test_a_killed_camera_is_a_fault_a_health_state_and_comes_back(line_folder: Path) -> None:
    cameras = {
        "top": {"source": "simulated://?width=128&height=128", "fps": 100},
        "side": {"source": "simulated://?width=128&height=128", "fps": 100},
    }
    config = write_config(line_folder, cameras)
    with running(config) as line:
        line.until(lambda line: {"top", "side"} <= {verdict.camera for verdict in line.verdicts})
        os.kill(line.camera_processes()[0], signal.SIGKILL)
        line.until(lambda line: line.health.state == "degraded")
        line.until(lambda line: line.health.state == "running")
        killed = next(name for name, camera in line.health.cameras.items() if camera.faults)
        seen = len(line.verdicts)
        line.until(lambda line: killed in {verdict.camera for verdict in line.verdicts[seen:]})
        line.stop()
    every_frame_has_one_verdict(line)
    faults = [verdict for verdict in line.verdicts if verdict.decision == "fault"]
    assert faults
    assert {(fault.camera, fault.reason) for fault in faults} == {(killed, "camera")}


def test_lanes_and_senders_give_way_to_the_loop_and_the_cameras(line_folder: Path) -> None:
    with running(write_config(line_folder, {"top": {"source": "simulated://", "fps": 20}})) as line:
        line.until(lambda line: len(line.verdicts) > 5)
        daemon = line.process.pid
        policies: dict[str, list[int]] = {}
        for thread in Path(f"/proc/{daemon}/task").iterdir():
            if int(thread.name) != daemon:
                name = (thread / "comm").read_text().strip()
                policies.setdefault(name, []).append(os.sched_getscheduler(int(thread.name)))
        assert policies["ZMQbg/IO/0"].count(os.SCHED_BATCH) >= 1
        assert os.SCHED_BATCH in policies["inspectd"]  # the lane
        for process in (daemon, *line.camera_processes()):
            assert os.sched_getscheduler(process) == os.SCHED_OTHER


def test_camera_processes_do_not_outlive_a_killed_daemon(line_folder: Path) -> None:
    config = write_config(line_folder, {"top": {"source": "simulated://?width=128&height=128", "fps": 50}})
    with running(config) as line:
        line.until(lambda line: bool(line.verdicts))
        processes = line.camera_processes()
        assert processes
        line.process.kill()
        line.process.wait()
        waiting = subprocess.run(
            ["tail", "--pid", str(processes[0]), "-f", "/dev/null"], timeout=PATIENCE_S, check=False
        )
        assert waiting.returncode == 0
    assert not any(exists(process) for process in processes)


def test_a_video_file_is_a_camera(line_folder: Path) -> None:
    writer = cv2.VideoWriter(str(line_folder / "belt.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 25, (128, 128))
    for index in range(10):
        writer.write(np.full((128, 128, 3), 250 if index == 7 else 20, np.uint8))
    writer.release()
    config = write_config(line_folder, {"top": {"source": "belt.avi"}})
    with running(config) as line:
        line.until_end()
    every_frame_has_one_verdict(line)
    assert [verdict.frame for verdict in line.verdicts if verdict.decision == "reject"] == [8]
    assert len(line.verdicts) == 10


class MotionJpeg(http.server.BaseHTTPRequestHandler):
    """An IP camera that breaks off after ten frames, each time it is opened."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        picture = cv2.imencode(".jpg", np.full((128, 128, 3), 20, np.uint8))[1].tobytes()
        for _ in range(10):
            self.wfile.write(b"--frame\r\nContent-Type: image/jpeg\r\n\r\n" + picture + b"\r\n")

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def ip_camera_at(port: int) -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", port), MotionJpeg)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


@pytest.fixture
def ip_camera() -> Iterator[str]:
    with ip_camera_at(0) as address:
        yield address


@pytest.fixture(name="free_port")
def a_free_port() -> int:
    return free_port()


def test_a_stream_that_breaks_off_is_a_fault_and_is_opened_again(line_folder: Path, ip_camera: str) -> None:
    config = write_config(line_folder, {"top": {"source": ip_camera}})
    with running(config) as line:
        line.until(lambda line: line.health.state == "degraded")
        camera = line.health.cameras["top"]
        assert camera.error is not None
        seen = len(line.verdicts)
        line.until(lambda line: any(v.decision == "pass" for v in line.verdicts[seen:]))
        line.stop()
    every_frame_has_one_verdict(line)
    assert {verdict.reason for verdict in line.verdicts if verdict.decision == "fault"} == {"camera"}


def one_line(config: Path, *options: str, code: int = 2) -> str:
    """Run inspectd on something wrong and give the one line it says."""
    done = subprocess.run(
        [COMMANDS / "inspectd", "--config", config, *options],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    lines = [line for line in done.stderr.splitlines() if not line.startswith("inspectd: camera ")]
    assert done.returncode == code, done.stderr
    assert len(lines) == 1, done.stderr
    return lines[0]


def test_a_second_daemon_on_the_same_address_is_refused(line_folder: Path) -> None:
    config = write_config(line_folder, {"top": {"source": "simulated://?width=128&height=128", "fps": 10}})
    with running(config) as line:
        line.until(lambda line: bool(line.verdicts))
        said = one_line(config, code=1)
    assert "publish" in said and "in use" in said


@pytest.mark.parametrize("options", [(), ("--check",)])
@pytest.mark.parametrize(
    ("camera", "expected"),
    [
        ({"source": "nowhere.mp4"}, "nowhere.mp4: no such device, file or folder"),
        ({"source": "empty"}, "holds no image"),
        ({"source": "noise.avi"}, "noise.avi: is not a video"),
        ({"source": "gopher://x"}, "unknown kind of address"),
        ({"source": "simulated://?speed=1"}, "unknown option speed"),
        ({"source": "simulated://?seed=x"}, "seed is 'x'; expected a whole number"),
        (
            {
                "source": "simulated://?width=128&height=128",
                "roi": {"x": 100, "y": 0, "width": 64, "height": 64},
            },
            "cameras.top: roi 64×64+100+0 does not lie inside the picture of 128×128",
        ),
    ],
)
def test_a_camera_that_cannot_work_is_refused_at_the_start(
    line_folder: Path, camera: dict[str, object], expected: str, options: tuple[str, ...]
) -> None:
    (line_folder / "empty").mkdir()
    (line_folder / "noise.avi").write_bytes(b"noise" * 100)
    said = one_line(write_config(line_folder, {"top": camera}), *options)
    assert expected in said


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("/dev/video97", "cameras.top: /dev/video97: no such device"),
        ("http://127.0.0.1:9/", "does not open: connection refused"),
    ],
)
def test_check_refuses_a_camera_that_is_not_there(line_folder: Path, source: str, expected: str) -> None:
    assert expected in one_line(write_config(line_folder, {"top": {"source": source}}), "--check")


def test_a_camera_that_is_not_there_yet_is_waited_for_while_the_others_work(
    line_folder: Path, free_port: int
) -> None:
    cameras = {
        "top": {"source": f"http://127.0.0.1:{free_port}/"},
        "side": {"source": "simulated://?width=128&height=128", "fps": 20},
    }
    with running(write_config(line_folder, cameras)) as line:
        line.until(lambda line: line.health.state == "degraded" and len(line.verdicts) > 5)
        assert line.health.cameras["top"].error is not None
        assert {verdict.camera for verdict in line.verdicts} == {"side"}
        with ip_camera_at(free_port):
            line.until(lambda line: "top" in {verdict.camera for verdict in line.verdicts})
        errors = line.stop()
    assert line.process.returncode == 0, errors
    every_frame_has_one_verdict(line)


def test_check_says_that_all_is_in_order_and_judges_nothing(line_folder: Path) -> None:
    config = write_config(line_folder, {"top": {"source": "simulated://?width=128&height=128", "fps": 10}})
    done = subprocess.run(
        [COMMANDS / "inspectd", "--config", config, "--check"],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "in order" in done.stdout


def test_missing_damaged_and_foreign_files_are_refused(line_folder: Path) -> None:
    camera = {"top": {"source": "simulated://?width=128&height=128"}}
    assert "gone.engine" in one_line(write_config(line_folder, camera, engine="gone.engine"))
    assert "gone.yaml" in one_line(write_config(line_folder, camera, calibration="gone.yaml"))

    whole = (line_folder / "brightness.engine").read_bytes()
    (line_folder / "cut.engine").write_bytes(whole[: len(whole) // 2])
    assert "cut.engine" in one_line(write_config(line_folder, camera, engine="cut.engine"))

    altered = bytearray(whole)
    altered[whole.index(b"Transpose") + 2] ^= 1
    (line_folder / "altered.engine").write_bytes(altered)
    assert "altered.engine" in one_line(write_config(line_folder, camera, engine="altered.engine"))

    text = (line_folder / "brightness.calibration.yaml").read_text()
    payload = read_manifest(line_folder / "brightness.engine").payload_sha256
    (line_folder / "other.yaml").write_text(text.replace(payload, "f" * 64))
    said = one_line(write_config(line_folder, camera, calibration="other.yaml"))
    assert "other.yaml" in said and "another engine" in said


def test_a_batch_that_the_engine_was_not_built_for_is_refused(line_folder: Path) -> None:
    camera = {"top": {"source": "simulated://?width=128&height=128"}}
    said = one_line(write_config(line_folder, camera, max_batch=9))
    assert "line3.yaml: max_batch: found 9, expected at most 8, for which its engine was built" in said


def test_a_calibration_made_with_another_region_is_refused(line_folder: Path) -> None:
    calibration = line_folder / "brightness.calibration.yaml"
    calibration.write_text(calibration.read_text().replace("roi: null", "roi: [0, 0, 64, 64]"))
    camera = {
        "source": "simulated://?width=128&height=128",
        "roi": {"x": 8, "y": 0, "width": 64, "height": 64},
    }
    said = one_line(write_config(line_folder, {"top": camera}))
    assert "cameras.top.roi: found 64×64+8+0, expected 64×64+0+0" in said


def test_a_camera_that_hangs_is_stalled_killed_and_opened_again(line_folder: Path) -> None:
    part_image(line_folder / "parts/0.png", bright=False)
    camera = {"source": "parts", "loop": True, "fps": 50, "stalled_after_s": 1}
    config = write_config(line_folder, {"top": camera})
    with running(config) as line:
        line.until(lambda line: len(line.verdicts) > 5)
        os.kill(line.camera_processes()[0], signal.SIGSTOP)
        line.until(lambda line: line.health.state == "degraded")
        line.until(lambda line: line.health.state == "running")
        seen = len(line.verdicts)
        line.until(lambda line: any(v.decision == "pass" for v in line.verdicts[seen:]))
        errors = line.stop()
    every_frame_has_one_verdict(line)
    assert "camera top: stalled: delivered nothing for 1 s" in errors
    assert ("fault", "camera") in {(v.decision, v.reason) for v in line.verdicts}


def test_recorded_frames_are_what_the_daemon_will_judge(tmp_path: Path) -> None:
    command = [COMMANDS / "inspectctl", "record", "simulated://?seed=4&width=160&height=128"]
    command += ["--roi", "16,0,128,128", "--out", tmp_path / "good", "--count", "3"]
    for expected in (3, 6):  # a second recording goes on behind the first
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert "saved 3 of 3" in done.stdout
        assert len(list((tmp_path / "good").iterdir())) == expected
    whole, _ = SimulatedLine(seed=4, width=160, height=128).frame(1)
    recorded = cv2.imread(str(tmp_path / "good/frame-000002.png"))
    assert np.array_equal(recorded, whole[:, 16:144])


@pytest.mark.parametrize(
    ("source", "options", "expected"),
    [
        ("/dev/video97", [], "/dev/video97: no such device"),
        ("simulated://", ["--roi", "0,0,9999,9"], "roi 9999×9+0+0 does not lie inside"),
        ("simulated://", ["--roi", "a,b"], "expected x,y,width,height in whole pixels"),
        ("simulated://", ["--count", "0"], "--count"),
    ],
)
def test_a_recording_that_cannot_work_is_refused(
    tmp_path: Path, source: str, options: list[str], expected: str
) -> None:
    done = subprocess.run(
        [COMMANDS / "inspectctl", "record", source, "--out", tmp_path / "good", *options],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert expected in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "good").exists()
