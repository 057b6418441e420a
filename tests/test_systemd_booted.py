"""The service in a booted Debian 12: installed as a user would, from the wheel, and run by systemd."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import websockets.sync.client
import yaml
import zmq
from booted_system import BootedSystem, debian_12
from brightness import SIZE, THRESHOLD, brightness_model, calibrate
from c_library import c_library
from dashboard_rig import Browser
from line_rig import COMMANDS, REPOSITORY, free_address
from patience import PATIENCE_S

from engine_runtime.tensorrt_library import is_installed
from release.distributions import build_distributions, copy_sources
from verdicts import Health, Verdict, decode

pytestmark = pytest.mark.slow

RUNTIMES = ("openvino", "onnxruntime")
BRIGHT_EVERY = 3
FRAMES_PER_SECOND = 25
DEPENDENCIES = "/opt/dependencies"
HERE = "/mnt"
INSTALL = f"""
set -e
python3 -m venv --without-pip /opt/inspectd
export PYTHONPATH={DEPENDENCIES}
pip="/opt/inspectd/bin/python -m pip --quiet"
$pip install --no-deps --no-index --ignore-installed --root-user-action=ignore {HERE}/*.whl
echo {DEPENDENCIES} > /opt/inspectd/lib/python3.11/site-packages/dependencies.pth
"""


def make_engines(folder: Path) -> None:
    for runtime in RUNTIMES:
        make_engine(folder, runtime)


def make_engine(folder: Path, runtime: str) -> None:
    model = brightness_model(folder / f"{runtime}.onnx")
    command = [COMMANDS / "build-engine", model, "--runtime", runtime, "--fast"]
    subprocess.run(command, check=True, capture_output=True)
    calibrated(folder, runtime, THRESHOLD)


def calibrated(folder: Path, runtime: str, threshold: float) -> Path:
    path = folder / f"{runtime}-{threshold}.calibration.yaml"
    calibrate(folder / f"{runtime}.engine", path, threshold)
    return path


def film_parts(path: Path) -> None:
    """Film parts of which every third is bright all over, which is a defect."""
    film = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), FRAMES_PER_SECOND, (SIZE, SIZE))
    assert film.isOpened()
    for part in range(10 * BRIGHT_EVERY):
        film.write(np.full((SIZE, SIZE, 3), 255 if part % BRIGHT_EVERY == 0 else 30 + part, np.uint8))
    film.release()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("booted")
    make_engines(folder)
    film_parts(folder / "parts.avi")
    shutil.copy2(REPOSITORY / "tests" / "sandboxed_probe.py", folder)
    return folder


@pytest.fixture(scope="module")
def system(folder: Path) -> Iterator[BootedSystem]:
    root = debian_12()
    copy_sources(folder / "source")
    build_distributions(folder / "source", folder, kinds=("wheel",))
    packages = Path(zmq.__file__).parents[1]
    system = BootedSystem(root, folder / "console.log", seen_at={packages: DEPENDENCIES, folder: HERE})
    try:
        system.run("sh", "-c", INSTALL)
        said = system.run("/opt/inspectd/bin/inspectctl", "install-service")
        for command in ("systemd-sysusers ", "systemd-tmpfiles ", "systemctl daemon-reload"):
            (line,) = (line for line in said.splitlines() if line.strip().startswith(command))
            system.run(*line.split())
        system.run("cp", f"{HERE}/sandboxed_probe.py", "/opt")
        system.run("sh", "-c", f"cp {HERE}/*.engine {HERE}/*.calibration.yaml {HERE}/parts.avi /etc/inspectd")
        yield system
    finally:
        system.close()


def processes(unit: str) -> list[int]:
    """List the processes of a unit, by their numbers on this machine."""
    groups = Path("/proc").glob("[0-9]*/cgroup")
    return [int(group.parent.name) for group in groups if group.read_text().strip().endswith(f"/{unit}")]


class Service:
    """One instance of the unit, and what it publishes, heard from outside."""

    def __init__(self, system: BootedSystem, name: str) -> None:
        self.system = system
        self.name = name
        self.unit = f"inspectd@{name}.service"
        self.config: dict[str, Any] = {
            "line": name,
            "engine": "openvino.engine",
            "calibration": f"openvino-{THRESHOLD}.calibration.yaml",
            "publish": free_address(),
            "archive": {"folder": f"/var/lib/inspectd/{name}/rejects"},
            "cameras": {"top": {"source": "parts.avi", "fps": FRAMES_PER_SECOND, "loop": True}},
        }
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.SUB)
        self._socket.rcvhwm = 0
        self._socket.reconnect_ivl = 10
        self._socket.subscribe(b"")
        self._socket.connect(self.config["publish"])

    def configure(self, **keys: Any) -> None:
        self.config |= keys
        self.system.write(f"/etc/inspectd/{self.name}.yaml", yaml.safe_dump(self.config))

    def drop_in(self, text: str) -> None:
        self.system.write(f"/etc/systemd/system/{self.unit}.d/override.conf", text)
        self.system.run("systemctl", "daemon-reload")

    def start(self) -> None:
        done = self.system.try_run("systemctl", "start", self.unit)
        assert done.returncode == 0, self.system.journal(self.unit)

    def next(self) -> Verdict | Health:
        assert self._socket.poll(PATIENCE_S * 1000), self.system.journal(self.unit)
        topic, payload = self._socket.recv_multipart()
        return decode(topic, payload)

    def verdicts(self, count: int) -> list[Verdict]:
        """Wait for this many verdicts."""
        heard: list[Verdict] = []
        while len(heard) < count:
            message = self.next()
            if isinstance(message, Verdict):
                heard.append(message)
        return heard

    def show(self, name: str) -> str:
        return self.system.show(self.unit, name)

    def processes(self) -> list[int]:
        """List the daemon and its cameras."""
        return processes(self.unit)

    def kill(self, signal: str) -> None:
        """Send a signal to the daemon alone."""
        self.system.run("systemctl", "kill", "--kill-whom=main", f"--signal={signal}", self.unit)

    def probe(self) -> dict[str, Any]:
        """Run the probe in place of the daemon, with all else as it is."""
        with_probe = f"{self.unit}.d/probe.conf"
        command = "/opt/inspectd/bin/python /opt/sandboxed_probe.py"
        self.system.write(
            f"/etc/systemd/system/{with_probe}", f"[Service]\nType=oneshot\nExecStart=\nExecStart={command}\n"
        )
        self.system.run("systemctl", "daemon-reload")
        self.start()
        (result,) = (line for line in self.system.journal(self.unit).splitlines() if line.startswith("{"))
        found: dict[str, Any] = json.loads(result)
        return found

    def close(self) -> None:
        self.system.try_run("systemctl", "stop", self.unit)
        self._context.destroy(linger=0)


@pytest.fixture
def service(system: BootedSystem, request: pytest.FixtureRequest) -> Iterator[Service]:
    name = request.node.originalname.removeprefix("test_").replace("_", "-")
    service = Service(system, f"{name}-{len(request.node.name) - len(request.node.originalname)}")
    yield service
    service.close()


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_inspects(service: Service, runtime: str) -> None:
    """The sandbox breaks neither capture nor the runtimes, and nothing complains of it."""
    calibration = f"{runtime}-{THRESHOLD}.calibration.yaml"
    service.configure(engine=f"{runtime}.engine", calibration=calibration)
    service.start()
    assert service.show("ActiveState") == "active"
    verdicts = service.verdicts(12)
    expected = {frame: "reject" if (frame - 1) % BRIGHT_EVERY == 0 else "pass" for frame in range(1, 10_000)}
    assert [verdict.decision for verdict in verdicts] == [expected[verdict.frame] for verdict in verdicts]
    rejects = [verdict for verdict in verdicts if verdict.decision == "reject"]
    service.system.run("systemctl", "stop", service.unit)  # by which the pictures are written
    for reject in rejects:
        assert reject.archive is not None
        service.system.run("test", "-s", reject.archive)
    said = service.system.journal(service.unit).splitlines()
    assert [line for line in said if not line.startswith(("inspectd: ", "inspectd@", "Start", "Stop"))] == []
    assert [line for line in said if "telemetry" in line or "warning" in line.lower()] == []


def test_a_hang_is_ended_by_the_watchdog(service: Service) -> None:
    service.configure()
    service.start()
    hung = service.verdicts(1)[0].boot
    process = service.show("MainPID")
    service.kill("SIGSTOP")
    while service.verdicts(1)[0].boot == hung:
        pass
    service.system.until(service.unit, ActiveState="active", NRestarts="1")
    assert service.show("MainPID") != process
    said = service.system.journal(service.unit)
    assert "Watchdog timeout (limit 10s)!" in said
    assert "Fatal Python error: Aborted" in said and "in _run_once" in said  # where it hung
    assert "Failed with result 'watchdog'" in said


def test_a_crash_is_followed_by_a_restart(service: Service) -> None:
    service.configure()
    service.start()
    crashed = service.verdicts(1)[0].boot
    service.kill("SIGKILL")
    while service.verdicts(1)[0].boot == crashed:
        pass
    service.system.until(service.unit, ActiveState="active", NRestarts="1")
    # The daemon and its one camera: nothing of the one before is left.
    assert len(service.processes()) == 2


def test_crashes_without_end_are_given_up(service: Service) -> None:
    service.configure()
    service.drop_in("[Service]\nExecStartPost=/bin/sh -c 'kill -KILL $MAINPID'\nRestartSec=0\n")
    service.system.try_run("systemctl", "start", service.unit)
    service.system.until(service.unit, ActiveState="failed", SubState="failed", NRestarts="5")


def test_stops_in_order(service: Service) -> None:
    service.configure()
    service.start()
    verdicts = service.verdicts(5)
    service.system.run("systemctl", "stop", service.unit)
    assert service.show("Result") == "success"
    assert service.show("ActiveState") == "inactive"
    (told,) = re.findall(r"stopped after (\d+) verdicts", service.system.journal(service.unit))
    verdicts += service.verdicts(int(told) - verdicts[-1].seq)
    assert [verdict.seq for verdict in verdicts] == list(range(verdicts[0].seq, int(told) + 1))
    assert "fault" not in {verdict.decision for verdict in verdicts}


def test_reloads_without_losing_a_frame(service: Service, folder: Path) -> None:
    service.configure()
    service.start()
    process, before = service.show("MainPID"), service.verdicts(5)
    stricter = calibrated(folder, "openvino", 0.01)
    service.system.run("cp", f"{HERE}/{stricter.name}", "/etc/inspectd")
    service.configure(calibration=stricter.name)
    service.system.run("systemctl", "reload", service.unit)
    verdicts = list(before)
    while verdicts[-1].threshold != 0.01:
        verdicts += service.verdicts(1)
    verdicts += service.verdicts(5)
    assert {verdict.decision for verdict in verdicts[-5:]} == {"reject"}
    assert service.show("MainPID") == process
    assert [verdict.frame for verdict in verdicts] == list(
        range(verdicts[0].frame, verdicts[0].frame + len(verdicts))
    )
    service.system.until(service.unit, ActiveState="active")


def test_a_reload_of_a_wrong_config_is_refused(service: Service) -> None:
    service.configure()
    service.start()
    boot = service.verdicts(1)[0].boot
    service.configure(deadline_ms="soon")
    service.system.run("systemctl", "reload", service.unit)
    service.system.until(service.unit, ActiveState="active")
    assert {verdict.boot for verdict in service.verdicts(FRAMES_PER_SECOND)} == {boot}
    said = service.system.journal(service.unit)
    assert "deadline_ms" in said and f"/etc/inspectd/{service.name}.yaml" in said


def test_a_wrong_config_is_not_tried_again(service: Service) -> None:
    service.configure(lanes="many")
    assert service.system.try_run("systemctl", "start", service.unit).returncode != 0
    assert service.show("ExecMainStatus") == "2"
    assert service.show("ActiveState") == "failed"
    assert service.show("NRestarts") == "0"
    assert f"/etc/inspectd/{service.name}.yaml" in service.system.journal(service.unit)


def test_the_gpus_devices_are_made_before_a_line_starts(service: Service) -> None:
    """Not by a real driver: its helper is one that tells how it was called."""
    system, helper = service.system, "/usr/bin/nvidia-modprobe"
    service.configure()
    service.start()
    assert system.show("inspectd-gpu.service", "ConditionResult") == "no", "there is no driver here"
    system.write(helper, '#!/bin/sh\necho "$@" >> /run/devices\n')
    system.run("chmod", "0755", helper)
    try:
        for start in (1, 2):
            system.run("systemctl", "restart", service.unit)
            assert system.run("cat", "/run/devices").splitlines() == ["-c 0 -u"] * start
            made = int(system.show("inspectd-gpu.service", "ExecMainExitTimestampMonotonic"))
            assert made <= int(service.show("ExecMainStartTimestampMonotonic"))
        system.write(helper, "#!/bin/sh\nexit 1\n")
        system.run("systemctl", "restart", service.unit)  # the line itself says what it lacks, if anything
        assert system.show("inspectd-gpu.service", "ActiveState") == "failed"
    finally:
        system.run("rm", "-f", helper)
        system.try_run("systemctl", "reset-failed", "inspectd-gpu.service")


def test_a_gpu_that_does_not_answer_is_tried_again(service: Service, folder: Path) -> None:
    if not is_installed():
        pytest.skip("neither TensorRT nor TensorRT-RTX is installed")
    c_library(REPOSITORY / "tests" / "pretended_driver.c", folder / "libcuda.so.1")
    make_engine(folder, "tensorrt")
    calibration = f"tensorrt-{THRESHOLD}.calibration.yaml"
    service.system.run("cp", f"{HERE}/tensorrt.engine", f"{HERE}/{calibration}", "/etc/inspectd")
    service.system.run("install", "-D", f"{HERE}/libcuda.so.1", "/opt/driver/libcuda.so.1")
    service.drop_in("[Service]\nEnvironment=LD_LIBRARY_PATH=/opt/driver PRETENDED_INIT=100\nRestartSec=0\n")
    service.configure(engine="tensorrt.engine", calibration=calibration)
    assert service.system.try_run("systemctl", "start", service.unit).returncode != 0
    service.system.until(service.unit, ActiveState="failed", SubState="failed", NRestarts="5")
    assert service.show("ExecMainStatus") == "1"
    said = service.system.journal(service.unit)
    assert "tensorrt.engine: needs an NVIDIA GPU: cuInit: CUDA_ERROR_NO_DEVICE" in said


def test_the_sandbox_holds(service: Service) -> None:
    system = service.system
    # Stands for a camera: only the group video may open it.
    system.run("mknod", "/dev/camera", "c", "1", "3")
    system.run("sh", "-c", "chgrp video /dev/camera && chmod 0660 /dev/camera")
    # A device that is on no list, open to everybody.
    system.run("mknod", "/dev/disk0", "c", "1", "11")
    system.run("chmod", "0666", "/dev/disk0")
    system.write(f"/etc/credstore/inspectd.{service.name}.curve_secret", "very secret")
    found = service.probe()
    writable = {folder for folder, answer in found["write"].items() if answer == "done"}
    assert writable == {f"/var/lib/inspectd/{service.name}", f"/run/inspectd/{service.name}", "/tmp"}
    assert set(found["read"].values()) <= {"EACCES", "EPERM"}
    assert found["devices"] == {"/dev/null": "done", "/dev/camera": "done", "/dev/disk0": "EPERM"}
    assert found["send to"] == {"127.0.0.1": "done", "192.0.2.7": "EPERM", "198.51.100.7": "EPERM"}
    assert found["own namespace"] == found["mount"] == found["real-time"] == "EPERM"
    assert found["packet socket"] == "EAFNOSUPPORT"
    assert found["first process"] == "ENOENT"
    assert found["capabilities"] == ["0" * 16]
    assert found["executable memory"] == "done"  # OpenVINO compiles
    assert found["nice"] == -10
    assert found["secret"] == "very secret"


def test_the_documented_drop_ins_work(service: Service) -> None:
    page = (REPOSITORY / "docs" / "service.md").read_text()
    drop_ins = [block.split("```")[0] for block in page.split("```ini\n")[1:]]
    (cameras,) = (text for text in drop_ins if "IPAddressAllow" in text)
    (no_compiler,) = (text for text in drop_ins if "MemoryDenyWriteExecute" in text)
    service.drop_in(cameras + no_compiler)
    found = service.probe()
    assert found["send to"]["192.0.2.7"] != "EPERM"
    assert found["send to"]["198.51.100.7"] == "EPERM"
    assert found["executable memory"] in {"EACCES", "EPERM"}


def test_the_documented_policy_takes_the_daemon_and_its_cameras_first(service: Service) -> None:
    page = (REPOSITORY / "docs" / "service.md").read_text()
    (policy,) = (text.split("```")[0] for text in page.split("```ini\n")[1:] if "CPUScheduling" in text)
    service.drop_in(policy)
    service.configure()
    service.start()
    assert "fault" not in {verdict.decision for verdict in service.verdicts(5)}
    policies = [os.sched_getscheduler(process) for process in service.processes()]
    assert policies == [os.SCHED_RR, os.SCHED_RR]


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one core is all that this machine has")
def test_daemon_and_camera_keep_to_their_cores(service: Service) -> None:
    first, *_, last = sorted(os.sched_getaffinity(0))
    service.configure(cores=[first], cameras={"top": service.config["cameras"]["top"] | {"cores": [last]}})
    service.start()
    assert "fault" not in {verdict.decision for verdict in service.verdicts(5)}
    kept_to = [os.sched_getaffinity(process) for process in service.processes()]
    assert sorted(kept_to, key=min) == [{first}, {last}]


def test_who_has_the_key_hears_the_line(service: Service, tmp_path: Path) -> None:
    def inspectctl(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [COMMANDS / "inspectctl", *arguments], cwd=tmp_path, capture_output=True, text=True, check=False
        )

    for name in ("line", "gate"):
        assert inspectctl("keygen", name).returncode == 0
    secret = f"/etc/credstore/inspectd.{service.name}.curve_secret"
    service.system.write(secret, (tmp_path / "line.key_secret").read_text())
    (public_key,) = re.findall(r'public-key = "(.*)"', (tmp_path / "gate.key").read_text())
    clients = {"gate": {"key": public_key}}
    service.configure(curve={"secret_key": "credential:curve_secret", "clients": clients})
    service.start()
    which = ("--address", service.config["publish"], "--line", service.name)
    heard = inspectctl("tail", *which, "--key", "gate.key_secret", "--server-key", "line.key", "--count", "3")
    assert len(heard.stdout.splitlines()) == 3, heard.stderr
    assert inspectctl("status", *which).returncode == 1  # without a key


def test_only_the_group_commands_over_the_runtime_folder(service: Service) -> None:
    page = (REPOSITORY / "docs" / "service.md").read_text()
    (keys,) = (block.split("```")[0] for block in page.split("```yaml\n")[1:] if "journal:" in block)
    service.configure(**yaml.safe_load(keys.replace("line3", service.name)))
    service.start()
    command = ("/opt/inspectd/bin/inspectctl", "reload", "--config", f"/etc/inspectd/{service.name}.yaml")
    service.system.run(*command)  # by root
    as_nobody = ("setpriv", "--reuid=nobody", "--clear-groups")
    service.system.run(*as_nobody, "--regid=inspectd", *command)
    address = service.config["control"].removeprefix("ipc://")
    connect = f"import socket; socket.socket(socket.AF_UNIX, socket.SOCK_STREAM).connect('{address}')"
    service.system.run(*as_nobody, "--regid=inspectd", "python3", "-c", connect)
    stranger = service.system.try_run(*as_nobody, "--regid=nogroup", "python3", "-c", connect)
    assert "PermissionError" in stranger.stderr
    service.system.run("test", "-s", f"/var/lib/inspectd/{service.name}/journal.sqlite")


def use_the_page(browser: Browser, line: str) -> str:
    """Look at rejects and live pictures, label, calibrate again; give the reject that was labelled."""
    browser.until(line, lambda state: state["state"]["code"] == "running" and not state["trouble"])
    found = browser.until(
        f"{line}/verdicts", lambda found: found["total"], pictures="true", decision="reject"
    )
    reject = found["items"][0]["id"]
    assert browser.get(f"{line}/verdicts/{reject}/thumbnail.jpg").content.startswith(b"\xff\xd8")
    browser.until(f"{line}/verdicts/{reject}", lambda found: found["similar_good"])
    labelled = browser.done(f"{line}/labels", ids=[reject], label="defect", kind="scratch")["labelled"]
    assert labelled[0]["label"] == "defect"
    passes = {"decision": "pass", "pictures": "true", "limit": 30}
    found = browser.until(f"{line}/verdicts", lambda found: len(found["items"]) == 30, **passes)
    browser.done(f"{line}/labels", ids=[item["id"] for item in found["items"]], label="false_reject")
    job = browser.done(f"{line}/commands/recalibrate")["id"]
    done = browser.until(f"/api/jobs/{job}", lambda found: found["state"] not in {"waiting", "running"})
    assert done["state"] == "done", done
    with websockets.sync.client.connect(
        f"{browser.address.replace('http', 'ws')}{line}/live", origin=websockets.Origin(browser.address)
    ) as live:  # whose lease the line finds in its own folder
        live.send('{"previews": true}')
        while True:
            said = json.loads(live.recv(PATIENCE_S))
            if said["type"] == "preview" and said["preview"]["source"] == "live":
                break
    assert browser.get(said["preview"]["url"]).content.startswith(b"\xff\xd8")
    return reject


def test_the_operators_page_beside_the_line(service: Service) -> None:
    """Its unit: another user, a lower priority, and no more than it needs of the line's folders."""
    system, state = service.system, f"/var/lib/inspectd/{service.name}"
    service.configure(
        control=f"ipc:///run/inspectd/{service.name}/control",
        journal={"file": f"{state}/journal"},
        archive={"folder": f"{state}/rejects", "sample": 0.5},
        preview={"folder": f"/run/inspectd/{service.name}/preview"},
    )
    service.start()
    page = "inspectd-dashboard.service"
    address = free_address().replace("tcp", "http")
    config = {"listen": address, "lines": [f"{service.name}.yaml"], "kinds": "many"}
    system.write("/etc/inspectd/dashboard.yaml", yaml.safe_dump(config))
    assert system.try_run("systemctl", "start", page).returncode != 0
    assert (system.show(page, "ExecMainStatus"), system.show(page, "NRestarts")) == ("2", "0")
    assert "/etc/inspectd/dashboard.yaml: kinds" in system.journal(page)

    system.write("/etc/inspectd/dashboard.yaml", yaml.safe_dump(config | {"kinds": ["scratch"]}))
    system.run("systemctl", "start", page)
    try:
        assert (system.show(page, "ActiveState"), system.show(page, "User")) == (
            "active",
            "inspectd-dashboard",
        )
        (process,) = processes(page)
        assert os.getpriority(os.PRIO_PROCESS, process) == 10
        browser, line = Browser(address), f"/api/lines/{service.name}"
        reject = use_the_page(browser, line)
        boot = service.verdicts(1)[0].boot
        system.run("systemctl", "kill", "--signal=SIGKILL", page)
        system.until(page, ActiveState="active", NRestarts="1")
        browser = Browser(address)
        assert browser.ok(f"{line}/verdicts/{reject}")["verdict"]["label"] == "defect"
        verdicts = service.verdicts(5)
        assert {verdict.boot for verdict in verdicts} == {boot}
        assert "fault" not in {verdict.decision for verdict in verdicts}
        system.run("systemctl", "stop", page)
        assert system.show(page, "Result") == "success"
        assert [said for said in system.journal(page).splitlines() if "Traceback" in said] == []
    finally:
        system.try_run("systemctl", "stop", page)
        system.run("rm", "/etc/inspectd/dashboard.yaml")


def test_a_key_may_be_encrypted_on_the_disk(service: Service) -> None:
    page = (REPOSITORY / "docs" / "service.md").read_text().replace("line3", service.name)
    (encrypt,) = (block.split("```")[0] for block in page.split("```sh\n")[1:] if "systemd-creds" in block)
    (drop_in,) = (block.split("```")[0] for block in page.split("```ini\n")[1:] if "Encrypted" in block)
    service.system.run("sh", "-ec", f"cd /tmp; echo secret > {service.name}.key_secret; {encrypt}")
    service.drop_in(drop_in)
    assert service.probe()["secret"] == "secret\n"
    stored = service.system.run("cat", f"/etc/credstore.encrypted/inspectd.{service.name}.curve_secret")
    assert "secret" not in stored


def test_onnxruntime_compiles_nothing(service: Service) -> None:
    service.drop_in("[Service]\nMemoryDenyWriteExecute=yes\n")
    service.configure(engine="onnxruntime.engine", calibration=f"onnxruntime-{THRESHOLD}.calibration.yaml")
    service.start()
    assert "fault" not in {verdict.decision for verdict in service.verdicts(5)}


def test_installing_needs_root_and_a_place_for_all_users(system: BootedSystem) -> None:
    command = ("/opt/inspectd/bin/inspectctl", "install-service")
    as_service = ("setpriv", "--reuid=inspectd", "--regid=inspectd", "--clear-groups")
    system.run("rm", "/etc/tmpfiles.d/inspectd.conf")
    done = system.try_run(*as_service, *command)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "cannot be written; expected to run as root" in done.stderr
    system.run("chmod", "0700", "/opt/inspectd/lib")
    try:
        done = system.try_run(*command)
    finally:
        system.run("chmod", "0755", "/opt/inspectd/lib")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "not everybody may enter /opt/inspectd/lib" in done.stderr
    assert "wrote        /etc/tmpfiles.d/inspectd.conf" in system.run(*command)
