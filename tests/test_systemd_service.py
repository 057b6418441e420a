"""What ``inspectctl install-service`` writes, and what systemd's own tools think of it."""

import hashlib
import json
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest
import yaml
from line_rig import COMMANDS, REPOSITORY

FILES = (
    "systemd/system/inspectd@.service",
    "systemd/system/inspectd-gpu.service",
    "sysusers.d/inspectd.conf",
    "tmpfiles.d/inspectd.conf",
    "systemd/system/inspectd-dashboard.service",
    "systemd/system/inspectd-plant@.service",
    "systemd/system/inspectd-fleet-forward.service",
    "systemd/system/inspectd-fleet-lake.service",
    "systemd/system/inspectd-fleet-pictures.service",
)
MOST_EXPOSED = 1.5

needs_systemd_analyze = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed (Debian: systemd)"
)


def install_service(*options: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [COMMANDS / "inspectctl", "install-service", *options], capture_output=True, text=True, check=False
    )


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    """Where this environment's daemon is installed as a service."""
    done = install_service("--prefix", tmp_path / "etc", "--inspectd", COMMANDS / "inspectd")
    assert done.returncode == 0, done.stderr
    return tmp_path / "etc"


def written(prefix: Path) -> dict[str, int]:
    return {
        str(path.relative_to(prefix)): path.stat().st_mtime_ns for path in prefix.rglob("*") if path.is_file()
    }


def test_writes_the_unit_the_user_and_the_folders(prefix: Path) -> None:
    assert set(written(prefix)) == set(FILES)
    assert {(prefix / name).stat().st_mode & 0o777 for name in FILES} == {0o644}
    unit = (prefix / FILES[0]).read_text().splitlines()
    assert f"ExecStart={COMMANDS / 'inspectd'} --config /etc/inspectd/%i.yaml" in unit


def test_says_what_to_type_next(tmp_path: Path) -> None:
    done = install_service("--prefix", tmp_path, "--inspectd", "/opt/inspectd/bin/inspectd")
    assert [f"wrote        {tmp_path / name}" for name in FILES] == done.stdout.splitlines()[: len(FILES)]
    for command in (
        f"systemd-sysusers {tmp_path}/sysusers.d/inspectd.conf",
        f"systemd-tmpfiles --create {tmp_path}/tmpfiles.d/inspectd.conf",
        "systemctl daemon-reload",
        "systemctl enable --now inspectd@NAME",
    ):
        assert f"  {command}" in done.stdout.splitlines()


def test_a_dry_run_writes_nothing(tmp_path: Path) -> None:
    prefix = tmp_path / "etc"
    done = install_service("--prefix", prefix, "--inspectd", "/opt/inspectd/bin/inspectd", "--dry-run")
    assert done.returncode == 0
    assert [f"would write  {prefix / name}" for name in FILES] == done.stdout.splitlines()[: len(FILES)]
    assert not prefix.exists()


def test_doing_it_again_changes_only_what_differs(prefix: Path) -> None:
    before = written(prefix)
    (prefix / FILES[0]).write_text("an older version's\n")
    (prefix / FILES[1]).chmod(0o600)
    done = install_service("--prefix", prefix, "--inspectd", COMMANDS / "inspectd")
    assert [line.split()[0] for line in done.stdout.splitlines()[:3]] == ["wrote", "wrote", "unchanged"]
    assert {(prefix / name).stat().st_mode & 0o777 for name in FILES} == {0o644}
    assert "Type=notify" in (prefix / FILES[0]).read_text()
    assert written(prefix)[FILES[2]] == before[FILES[2]]
    assert set(written(prefix)) == set(FILES)  # no temporary file is left


@pytest.mark.parametrize(
    "path", ["bin/inspectd", "/opt/my line/inspectd", "/opt/%h/inspectd", "/opt/$HOME/inspectd"]
)
def test_a_path_that_no_unit_can_name_is_refused(tmp_path: Path, path: str) -> None:
    done = install_service("--prefix", tmp_path / "etc", "--inspectd", path)
    assert done.returncode == 2
    assert done.stderr == (
        f"inspectctl: --inspectd: found {path!r}, expected an absolute path of plain characters\n"
    )
    assert not (tmp_path / "etc").exists()


def test_a_place_that_cannot_be_written_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    (tmp_path / "sysusers.d").write_text("not a folder")
    done = install_service("--prefix", tmp_path, "--inspectd", "/opt/inspectd/bin/inspectd")
    assert done.returncode == 2
    assert done.stderr == (
        f"inspectctl: {tmp_path}/sysusers.d/inspectd.conf: cannot be written; "
        "expected to run as root, such as with sudo\n"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["sysusers.d"]


def test_an_installation_that_the_service_would_not_see_is_refused(tmp_path: Path) -> None:
    hidden = Path("/tmp")
    if not tmp_path.is_relative_to(hidden):
        pytest.skip("temporary folders are not in /tmp here")
    environment = tmp_path / "venv"
    venv.create(environment, symlinks=True)
    (packages,) = environment.glob("lib/python*/site-packages")
    here = [REPOSITORY, *(path for path in map(Path, sys.path) if path.name == "site-packages")]
    (packages / "here.pth").write_text("\n".join(map(str, here)))
    command = "from daemon.inspectctl.cli import main; raise SystemExit(main())"
    done = subprocess.run(
        [environment / "bin/python", "-c", command, "install-service", "--prefix", tmp_path / "etc"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr == (
        f"inspectctl: {environment}/bin/inspectd: lies in /tmp, which the service does not see; "
        "expected inspectd to be installed for all users, such as in /opt/inspectd\n"
    )
    assert not (tmp_path / "etc").exists()


def test_uninstall_removes_what_was_written(prefix: Path) -> None:
    mine = prefix / "systemd/system/other.service"
    mine.write_text("[Service]\n")
    dry = install_service("--prefix", prefix, "--uninstall", "--dry-run")
    said = [line.split()[:2] for line in dry.stdout.splitlines()[: len(FILES)]]
    assert said == [["would", "remove"]] * len(FILES)
    assert set(FILES) < set(written(prefix))
    done = install_service("--prefix", prefix, "--uninstall")
    assert done.returncode == 0
    assert list(written(prefix)) == ["systemd/system/other.service"]
    again = install_service("--prefix", prefix, "--uninstall")
    assert again.returncode == 0
    assert again.stdout.startswith("not there")


def test_uninstall_is_refused_while_a_line_is_enabled(prefix: Path) -> None:
    wants = prefix / "systemd/system/multi-user.target.wants"
    wants.mkdir()
    (wants / "inspectd@line3.service").symlink_to("../inspectd@.service")
    done = install_service("--prefix", prefix, "--uninstall")
    assert done.returncode == 2
    assert done.stderr == (
        f"inspectctl: {prefix / FILES[0]}: is in use by inspectd@line3.service; "
        "expected none; type: systemctl disable --now inspectd@line3.service\n"
    )
    assert set(FILES) <= set(written(prefix))


@needs_systemd_analyze
@pytest.mark.parametrize(
    "unit",
    [
        *("inspectd@line3.service", "inspectd-dashboard.service", "inspectd-plant@line3.service"),
        *("inspectd-fleet-forward.service", "inspectd-fleet-lake.service"),
        "inspectd-fleet-pictures.service",
    ],
)
def test_systemd_finds_no_fault_in_the_unit(prefix: Path, unit: str) -> None:
    units = prefix / "systemd/system"
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", units / unit],
        capture_output=True,
        text=True,
        env={"SYSTEMD_UNIT_PATH": f"{units}:"},
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@needs_systemd_analyze
@pytest.mark.parametrize("unit", [FILES[0], *FILES[4:]])
def test_the_service_is_hardly_exposed(prefix: Path, unit: str) -> None:
    threshold = f"--threshold={MOST_EXPOSED * 10:.0f}"  # systemd counts tenths here
    done = subprocess.run(
        ["systemd-analyze", "security", "--no-pager", "--offline=true", threshold, prefix / unit],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert float(done.stdout.split("Overall exposure level for ")[1].split()[1]) <= MOST_EXPOSED


@pytest.mark.slow
def test_rules_and_dashboard_go_where_they_are_looked_for_and_changed_ones_are_left_alone(
    tmp_path: Path,
) -> None:
    prometheus, grafana = tmp_path / "prometheus", tmp_path / "grafana"
    prometheus.mkdir()
    grafana.mkdir()
    given = ("--prefix", tmp_path / "etc", "--inspectd", "/opt/inspectd/bin/inspectd")
    folders = ("--prometheus", prometheus, "--grafana", grafana)
    rules = prometheus / "inspectd.rules.yaml"
    dashboard = grafana / "dashboards/inspectd/inspectd.json"
    provider = grafana / "provisioning/dashboards/inspectd.yaml"

    done = install_service(*given, *folders, "--dry-run")
    assert done.returncode == 0, done.stderr
    assert f"would write  {rules}" in done.stdout.splitlines() and not rules.exists()
    done = install_service(*given, *folders)
    assert done.returncode == 0, done.stderr
    for target in (rules, dashboard, provider):
        assert f"wrote        {target}" in done.stdout.splitlines()
    assert rules.read_bytes() == (REPOSITORY / "configs/prometheus/inspectd.rules.yaml").read_bytes()
    assert dashboard.read_bytes() == (REPOSITORY / "configs/grafana/inspectd.json").read_bytes()
    [found] = yaml.safe_load(provider.read_text())["providers"]
    assert found["options"]["path"] == str(dashboard.parent)
    if shutil.which("promtool") is not None:
        subprocess.run(["promtool", "check", "rules", rules], check=True, capture_output=True)

    dashboard.write_text("an older version's\n")  # and recorded as such
    record = grafana / ".inspectd-installed.json"
    record.write_text(
        json.dumps({"dashboards/inspectd/inspectd.json": hashlib.sha256(dashboard.read_bytes()).hexdigest()})
    )
    done = install_service(*given, *folders)
    assert f"wrote        {dashboard}" in done.stdout.splitlines()
    assert f"unchanged    {rules}" in done.stdout.splitlines()

    rules.write_text(rules.read_text().replace("0.01", "0.02"))
    for option in ((), ("--uninstall",)):
        done = install_service(*given, *folders, *option)
        assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
        assert f"{rules}: was changed since it was installed" in done.stderr
        assert "0.02" in rules.read_text() and dashboard.exists()
    rules.unlink()
    done = install_service(*given, *folders, "--uninstall")
    assert done.returncode == 0, done.stderr
    assert f"removed       {dashboard}" in done.stdout.splitlines()
    assert not [path for path in (*prometheus.rglob("*"), *grafana.rglob("*")) if path.is_file()]

    done = install_service(*given, "--grafana", tmp_path / "none")
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "--grafana:" in done.stderr
