"""The alert rules and the dashboard, where Prometheus and Grafana look for them."""

import hashlib
import json
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Final

from foundation.errors import InputError
from foundation.files import write_whole

_RULES: Final = "inspectd.rules.yaml"
_DASHBOARD: Final = Path("dashboards/inspectd/inspectd.json")
_PROVIDER: Final = Path("provisioning/dashboards/inspectd.yaml")
_RECORD: Final = ".inspectd-installed.json"
"""Digests of what was written here: thresholds are there to be changed, and then they are the plant's."""


class Monitoring:
    """The files for one folder of a Prometheus and one of a Grafana, either of which may be absent."""

    def __init__(self, prometheus: Path | None, grafana: Path | None) -> None:
        """Read what came with the package.

        Args:
            prometheus: folder with prometheus.yml, such as /etc/prometheus.
            grafana: folder with provisioning/, such as /etc/grafana.

        Raises:
            InputError: one of them is not there.
        """
        came_with = files("daemon")
        self._folders: dict[Path, dict[Path, str]] = {}
        if prometheus is not None:
            rules = (came_with / "prometheus" / _RULES).read_text(encoding="utf-8")
            self._folders[_folder("--prometheus", prometheus)] = {Path(_RULES): rules}
        if grafana is not None:
            dashboard = (came_with / "grafana" / "inspectd.json").read_text(encoding="utf-8")
            folder = _folder("--grafana", grafana)
            self._folders[folder] = {
                _DASHBOARD: dashboard,
                _PROVIDER: _provider(folder / _DASHBOARD.parent),
            }
        self._grafana = grafana is not None
        self._prometheus = prometheus is not None

    def targets(self) -> list[Path]:
        """List the files."""
        return [folder / name for folder, texts in self._folders.items() for name in texts]

    def check(self, *, uninstall: bool = False) -> None:
        """Refuse to lose what somebody has changed, before anything is written.

        Raises:
            InputError: a file is not as it was installed.
        """
        for folder, texts in self._folders.items():
            known = _record(folder)
            for name, text in texts.items():
                found = _digest(folder / name)
                if found is None or found == known.get(str(name)) or found == _sha256(text):
                    continue
                wanted = "to remove it yourself" if uninstall else "to move it away first"
                raise InputError(
                    f"{folder / name}: was changed since it was installed, or is another's; expected {wanted}"
                )

    def install(self, *, dry_run: bool) -> None:
        """Write what differs, and say what was done."""
        for folder, texts in self._folders.items():
            for name, text in texts.items():
                target = folder / name
                if _digest(target) == _sha256(text):
                    print(f"unchanged    {target}")
                elif dry_run:
                    print(f"would write  {target}")
                else:
                    target.parent.mkdir(parents=True, exist_ok=True)
                    write_whole(target, text.encode())
                    print(f"wrote        {target}")
            if not dry_run:
                _remember(folder, {str(name): _sha256(text) for name, text in texts.items()})

    def uninstall(self, *, dry_run: bool) -> None:
        """Remove the files, and say so."""
        for folder, texts in self._folders.items():
            for name in texts:
                remove(folder / name, dry_run=dry_run)
            if not dry_run:
                (folder / _RECORD).unlink(missing_ok=True)

    def next_steps(self) -> str:
        """Say what to type then."""
        steps = ""
        if self._prometheus:
            steps += (
                f"and, with {_RULES} under rule_files: of prometheus.yml, and inspectd-plant's\n"
                "address under scrape_configs: (job_name: inspectd; docs/grafana.md has both):\n"
                "  systemctl reload prometheus\n"
            )
        if self._grafana:
            steps += "and, so that Grafana finds its dashboard:\n  systemctl restart grafana-server\n"
        return steps.rstrip()


def _folder(option: str, folder: Path) -> Path:
    if not folder.is_dir():
        raise InputError(f"{option}: {folder} is no folder; expected the one with the program's config")
    return folder.absolute()


def _provider(folder: Path) -> str:
    # JSON is YAML: whatever the path holds is quoted rightly.
    provider = {"name": "inspectd", "type": "file", "options": {"path": str(folder)}}
    return f"apiVersion: 1\nproviders:\n  - {json.dumps(provider)}\n"


def _record(folder: Path) -> Mapping[str, str]:
    try:
        content = json.loads((folder / _RECORD).read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise InputError(
            f"{folder / _RECORD}: cannot be read: {error}; expected what was installed"
        ) from error
    return content if isinstance(content, dict) else {}


def _remember(folder: Path, digests: Mapping[str, str]) -> None:
    write_whole(folder / _RECORD, json.dumps(digests, indent=1).encode())


def _digest(file: Path) -> str | None:
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InputError(f"{file}: cannot be read: {error.strerror}") from error


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def remove(target: Path, *, dry_run: bool) -> None:
    """Remove a file that was installed, and say so."""
    if not target.exists():
        print(f"not there     {target}")
    elif dry_run:
        print(f"would remove  {target}")
    else:
        target.unlink()
        print(f"removed       {target}")
