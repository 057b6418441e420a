"""A Debian 12 of its own, booted with systemd as its first process, to try the service in."""

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest
from patience import PATIENCE_S

_INCLUDED = ("systemd", "systemd-sysv", "dbus", "python3")
_CGROUPS = ("/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/systemd")
# Keeps two systems that run at the same time out of each other's cgroups.
_ENTER_CGROUP = f"""
for hierarchy in {" ".join(_CGROUPS)}; do
    if [ -w $hierarchy/cgroup.procs ]; then mkdir -p $hierarchy/$0 && echo $$ > $hierarchy/$0/cgroup.procs; fi
done
exec "$@"
"""


Reached = TypeVar("Reached")


class BootedSystem:
    """The running system; what it writes is gone with it."""

    def __init__(
        self, root: Path, log: Path, *, seen_at: dict[Path, str], kept_at: dict[Path, str] | None = None
    ) -> None:
        """Boot.

        Args:
            root: folder of the installed system; nothing in it changes.
            log: file for what the console says.
            seen_at: folders of this machine, and the place where the booted system sees each, read-only.
            kept_at: as before, but written to: what would fill the memory, in which all else is kept.
        """
        self._log = log
        self._cgroup = f"inspectd-test-{os.getpid()}"
        # Cgroups as on an installed Debian 12, or the service's lists of devices and addresses would not be
        # enforced, for which the system must be allowed to load BPF programs.
        unified = {"SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"}
        binds = [f"--bind-ro={folder}:{place}" for folder, place in seen_at.items()]
        binds += [f"--bind={folder}:{place}" for folder, place in (kept_at or {}).items()]
        command = [
            *("setpriv", "--pdeathsig", "TERM"),
            *("sh", "-c", _ENTER_CGROUP, self._cgroup),
            *("systemd-nspawn", "--quiet", "--register=no", "--keep-unit", "--console=pipe"),
            *("--volatile=overlay", "--capability=all", "--system-call-filter=bpf"),
            *(f"--directory={root}", *binds, "--boot"),
        ]
        with log.open("wb") as console:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
                env=os.environ | unified,
                start_new_session=True,
            )
        self._init = self._wait_for(self._first_process, "its first process")
        self._wait_for(
            lambda: self.try_run("systemctl", "is-system-running").stdout == "running\n", "it had booted"
        )

    def _first_process(self) -> int | None:
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        for child in children:
            status = Path(f"/proc/{child}/status").read_text()
            if f"\nNSpid:\t{child}\t1\n" in status and status.startswith("Name:\tsystemd\n"):
                return int(child)
        return None

    def _wait_for(self, condition: Callable[[], Reached | None], what: str) -> Reached:
        give_up = time.monotonic() + PATIENCE_S
        while not (reached := condition()):
            assert self._process.poll() is None, f"ended before {what}:\n{self._log.read_text()}"
            assert time.monotonic() < give_up, f"not within {PATIENCE_S} s: {what}:\n{self._log.read_text()}"
            time.sleep(0.05)
        return reached

    def try_run(
        self, *command: str, stdin: str | None = None, patience_s: float = PATIENCE_S
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in the system as root and give how it ended."""
        return subprocess.run(
            ["nsenter", "--target", str(self._init), "--all", "--", *command],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=patience_s,
            check=False,
        )

    def run(self, *command: str, stdin: str | None = None, patience_s: float = PATIENCE_S) -> str:
        """Run a command that must succeed and give what it printed."""
        done = self.try_run(*command, stdin=stdin, patience_s=patience_s)
        assert done.returncode == 0, (
            f"{' '.join(command)}: exit code {done.returncode}: {done.stderr}{done.stdout}"
        )
        return done.stdout

    def write(self, path: str, text: str) -> None:
        """Write a file as root, with its folder."""
        self.run("install", "-D", "-m", "0640", "/dev/stdin", path, stdin=text)

    def show(self, unit: str, name: str) -> str:
        """Give a property of a unit as systemd tells it."""
        return self.run("systemctl", "show", "--value", "--property", name, unit).strip()

    def until(self, unit: str, **properties: str) -> None:
        """Wait until a unit's properties are these."""
        give_up = time.monotonic() + PATIENCE_S
        while (now := {name: self.show(unit, name) for name in properties}) != properties:
            assert time.monotonic() < give_up, f"{unit} is {now}, not {properties}:\n{self.journal(unit)}"
            time.sleep(0.1)

    def journal(self, unit: str) -> str:
        """Give what a unit wrote, and what systemd wrote about it."""
        return self.run("journalctl", "--no-pager", "--output=cat", "--unit", unit)

    def close(self) -> None:
        self._process.terminate()  # a request to power off
        try:
            self._process.wait(timeout=PATIENCE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for hierarchy in map(Path, _CGROUPS):
            left = sorted((hierarchy / self._cgroup).glob("**/"), reverse=True)
            for group in left:
                group.rmdir()


def debian_12() -> Path:
    """Install the system, or give the one that an earlier run installed."""
    for command in ("systemd-nspawn", "debootstrap", "nsenter", "setpriv"):
        if shutil.which(command) is None:
            pytest.skip(f"{command} is not installed (Debian: systemd-container, debootstrap, util-linux)")
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode:
        pytest.skip("only root, where it may make namespaces, can boot a system")
    if sys.version_info[:2] != (3, 11):
        pytest.skip("Debian 12 has Python 3.11, for which the packages of this environment are not")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "inspectd-tests"
    root = cache / "-".join(("bookworm", *_INCLUDED))
    if not root.is_dir():
        _install(root)
    return root


def _install(root: Path) -> None:
    root.parent.mkdir(parents=True, exist_ok=True)
    unfinished = root.with_name(f"{root.name}.{os.getpid()}")
    command = ["debootstrap", "--variant=minbase", f"--include={','.join(_INCLUDED)}", "bookworm"]
    try:
        done = subprocess.run([*command, unfinished], stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode:
            pytest.skip(f"debootstrap could not install Debian 12: {done.stdout.splitlines()[-1:]}")
        with contextlib.suppress(OSError):  # another run was faster
            unfinished.rename(root)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
