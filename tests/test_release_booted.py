"""A release in a booted Debian 12 without internet: the package, an upgrade of it, and the bundle."""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest
import yaml
from booted_system import BootedSystem, debian_12
from brightness import THRESHOLD, calibrate
from line_rig import free_address
from patience import PATIENCE_S

from release.debian_package import build_deb
from release.dist import build_bundle
from release.distributions import build_distributions, copy_sources, project
from release.set_version import set_version
from verdicts import Verdict, subscribe

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

HERE = "/mnt"
OLD, NEW = "0.0.9", project()["version"]
EPOCH = 1_800_000_000
INSTALL_S = 600.0
COMMANDS = ("build-engine", "calibrate", "inspectctl", "inspectd")
LINE = "inspectd@line3.service"
JOURNAL = "/var/lib/inspectd/line3/journal"


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The packages of a release and of the one before it, and a bundle, with wheels for this Python."""
    if shutil.which("dpkg-deb") is None:
        pytest.skip("dpkg-deb is not installed (Debian: dpkg)")
    debian_12()
    folder = tmp_path_factory.mktemp("released")
    wheels = {version: folder / f"wheels-{version}" for version in (NEW, OLD)}
    for version, place in wheels.items():
        sources = folder / f"sources-{version}"
        copy_sources(sources)
        set_version(version, sources)
        build_distributions(sources, place, kinds=("wheel",))
        if version == NEW:
            _fetch_dependencies(place)
        else:
            for wheel in wheels[NEW].iterdir():
                if not wheel.name.startswith("inspectd"):
                    os.link(wheel, place / wheel.name)
        build_deb(
            folder,
            wheels=place,
            pythons=("3.11",),
            version=version,
            epoch=EPOCH,
            work=folder / f"work-{version}",
        )
    build_bundle(folder, wheels[NEW], NEW, EPOCH)
    yield folder
    shutil.rmtree(folder)


def _fetch_dependencies(wheels: Path) -> None:
    from release.dependencies import NotFetched, download

    try:
        download(wheels, "3.11")
    except NotFetched as error:
        pytest.skip(f"the wheels of the dependencies cannot be fetched here: {error}")


@pytest.fixture(scope="module")
def system(
    released: Path, brightness_engine: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[BootedSystem]:
    opt = tmp_path_factory.mktemp("opt")
    opt.chmod(0o755)
    shutil.copy2(brightness_engine, released / "line3.engine")
    calibrate(brightness_engine, released / "line3.calibration.yaml", THRESHOLD)
    system = BootedSystem(
        debian_12(), released / "console.log", seen_at={released: HERE}, kept_at={opt: "/opt"}
    )
    try:
        yield system
    finally:
        system.close()
        shutil.rmtree(opt)


def offline(system: BootedSystem, *command: str) -> subprocess.CompletedProcess[str]:
    """Run what installs where there is no network, not even the loopback."""
    return system.try_run("unshare", "--net", "--", *command, patience_s=INSTALL_S)


def installed(system: BootedSystem, *command: str) -> str:
    done = offline(system, *command)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


class Line:
    """The line ``line3`` of a system, whose camera films simulated parts."""

    def __init__(self, system: BootedSystem) -> None:
        self.system = system
        self.address = free_address()
        config = {
            "line": "line3",
            "engine": "line3.engine",
            "calibration": "line3.calibration.yaml",
            "publish": self.address,
            "journal": {"file": JOURNAL},
            "cameras": {"top": {"source": "simulated://?seed=3&defects=0.2", "fps": 20}},
        }
        system.write("/etc/inspectd/line3.yaml", yaml.safe_dump(config))
        system.run("sh", "-c", f"cp {HERE}/line3.engine {HERE}/line3.calibration.yaml /etc/inspectd")

    def verdicts(self, count: int) -> list[Verdict]:
        """Wait for this many verdicts of one start."""
        with subscribe(self.address, line="line3", silence_s=PATIENCE_S) as verdicts:
            return [next(verdicts) for _ in range(count)]

    def audit(self) -> dict[str, object]:
        found: dict[str, object] = json.loads(self.system.run("inspectctl", "audit", "--json", JOURNAL))
        return found

    def captured(self) -> dict[str, list[datetime]]:
        """Give when frames were captured in each start of the daemon that the journal knows."""
        said = self.system.run("inspectctl", "replay", "--journal", JOURNAL, "--since", "1d", "--json")
        times: dict[str, list[datetime]] = {}
        for line in said.splitlines():
            verdict = json.loads(line)
            times.setdefault(verdict["boot"], []).append(datetime.fromisoformat(verdict["captured_at"]))
        return times


def test_the_package_from_its_installation_to_its_purge(system: BootedSystem) -> None:
    # Installed, a line started.
    installed(system, "dpkg", "--install", f"{HERE}/inspectd_{OLD}_amd64.deb")
    assert system.run("inspectd", "--version") == f"inspectd {OLD}\n"
    assert [system.run("sh", "-c", f"command -v {name}") for name in COMMANDS] == [
        f"/usr/bin/{name}\n" for name in COMMANDS
    ]
    assert system.run("dpkg", "--verify", "inspectd") == ""
    assert system.run("stat", "--format=%a %U %G", "/etc/inspectd") == "2750 root inspectd\n"
    assert system.run("/opt/inspectd/bin/python", "-c", "import sys; print(sys.prefix)") == "/opt/inspectd\n"
    line = Line(system)
    system.run("systemctl", "enable", "--now", LINE)
    (first, *_) = line.verdicts(5)

    # Upgraded while the line runs: it goes on until the new version is ready, then with the same journal.
    calibration = system.run("sha256sum", "/etc/inspectd/line3.calibration.yaml")
    restarts = system.show(LINE, "NRestarts")
    began_s = time.monotonic()
    installed(system, "dpkg", "--install", f"{HERE}/inspectd_{NEW}_amd64.deb")
    took_s = time.monotonic() - began_s
    assert system.run("inspectd", "--version") == f"inspectd {NEW}\n"
    after = line.verdicts(5)[-1]
    assert after.boot != first.boot
    assert after.threshold == first.threshold == THRESHOLD
    assert system.run("sha256sum", "/etc/inspectd/line3.calibration.yaml") == calibration
    assert system.show(LINE, "NRestarts") == restarts, "it was restarted, but not because it had failed"
    environment = system.run("readlink", "--canonicalize", "/opt/inspectd/current").strip()
    assert environment.startswith(f"/opt/inspectd/{NEW}-")
    assert environment in system.run("cat", f"/proc/{system.show(LINE, 'MainPID')}/cmdline")
    captured = line.captured()
    assert list(captured) == [first.boot, after.boot]
    down = captured[after.boot][0] - captured[first.boot][-1]
    assert down.total_seconds() < took_s, "a restart, and not an installation, is what a line waits for"
    assert line.audit()["intact"] is True

    # A package of which the installation fails leaves the line as it is.
    pid = system.show(LINE, "MainPID")
    system.run("mv", "/usr/bin/python3", "/usr/bin/python3.away")
    system.write("/usr/bin/python3", "#!/bin/sh\nexit 1\n")
    system.run("chmod", "0755", "/usr/bin/python3")
    failed = offline(system, "dpkg", "--install", f"{HERE}/inspectd_{NEW}_amd64.deb")
    system.run("mv", "--force", "/usr/bin/python3.away", "/usr/bin/python3")
    assert failed.returncode != 0 and "install.sh: /usr/bin/python3: found" in failed.stderr
    assert system.show(LINE, "MainPID") == pid
    line.verdicts(1)

    # Removed, with all that is the user's left; then purged.
    system.run("dpkg", "--remove", "inspectd", patience_s=INSTALL_S)
    assert system.show(LINE, "ActiveState") == "inactive"
    left = system.run("find", "/opt", "/etc/inspectd", "/var/lib/inspectd", "-type", "f").split()
    kept = {"line3.yaml", "line3.engine", "line3.calibration.yaml", "journal"}
    assert kept <= {Path(path).name for path in left}
    assert not [path for path in left if path.startswith("/opt")]
    for gone in ("/usr/bin/inspectd", "/usr/lib/systemd/system/inspectd@.service", "/usr/share/inspectd"):
        assert system.try_run("test", "-e", gone).returncode == 1, gone
    system.run("dpkg", "--purge", "inspectd", patience_s=INSTALL_S)
    for gone in ("/etc/inspectd", "/var/lib/inspectd", "/run/inspectd", "/opt/inspectd"):
        assert system.try_run("test", "-e", gone).returncode == 1, gone
    wants = "/etc/systemd/system/multi-user.target.wants"
    assert "inspectd" not in system.run("ls", "-A", wants)
    assert system.run("dpkg-query", "--show", "--showformat=${Status}", "systemd").startswith("install ok")


def test_the_bundle_installs_and_its_service_runs(system: BootedSystem) -> None:
    system.run("tar", "-C", "/opt", "-xf", f"{HERE}/inspectd-{NEW}-linux-x86_64.tar")
    said = installed(system, f"/opt/inspectd-{NEW}-linux-x86_64/install.sh")
    assert said.splitlines()[-1] == "the commands are in /opt/inspectd/bin"
    assert system.run("/opt/inspectd/bin/inspectd", "--version") == f"inspectd {NEW}\n"
    done = system.try_run("/opt/inspectd/bin/python", "-c", "import onnx")
    assert "No module named 'onnx'" in done.stderr, "build is not installed where it was not asked for"
    said = system.run("/opt/inspectd/bin/inspectctl", "install-service")
    # The unit names the link that the next version's installer sets over, not this version's folder.
    assert "\nExecStart=/opt/inspectd/bin/inspectd " in system.run(
        "cat", "/etc/systemd/system/inspectd@.service"
    )
    for command in ("systemd-sysusers ", "systemd-tmpfiles ", "systemctl daemon-reload"):
        (typed,) = (line for line in said.splitlines() if line.strip().startswith(command))
        system.run(*typed.split())
    line = Line(system)
    system.run("systemctl", "enable", "--now", LINE)
    line.verdicts(2)
    system.run("systemctl", "stop", LINE)
