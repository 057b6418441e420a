"""Whose files the packages of this installation are."""

from contextlib import suppress
from importlib.metadata import PackageNotFoundError, files, packages_distributions, version
from importlib.util import find_spec
from pathlib import Path

from foundation.errors import InputError

_OURS = {"inspectd", "inspectd-verdicts"}


def require_own_packages() -> None:
    """Refuse to run where another distribution has files in the folder of one of our packages.

    Installing, upgrading or removing one of the two then overwrites or removes files of the other, and pip
    says nothing. ``python-daemon`` is such a distribution.

    Raises:
        InputError: there is one.
    """
    if not any(_has_other_files(distribution) for distribution in _OURS):
        return  # to ask who owns what reads the lists of all distributions, which takes 0.2 s
    for package, owners in packages_distributions().items():
        others = sorted(set(owners) - _OURS)
        if not others or not _OURS & set(owners):
            continue
        spec = find_spec(package)
        folders = [Path(folder) for folder in (spec and spec.submodule_search_locations) or ()]
        for other in others:
            if any(_has_files_in(other, folder) for folder in folders):
                raise InputError(
                    f"{other} {version(other)} is installed in the same environment, and both bring the "
                    f"package {package}; expected an environment of inspectd's own, such as in /opt/inspectd"
                )


def _has_other_files(distribution: str) -> bool:
    """Whether the folders of our packages hold modules that we did not bring, or our first one is another."""
    ours: dict[Path, set[str]] = {}
    try:
        listed = files(distribution) or ()
    except PackageNotFoundError:  # run from its source
        return False
    for path in listed:
        if len(path.parts) != 2 or path.suffix != ".py":
            continue
        module = Path(str(path.locate()))
        ours.setdefault(module.parent, set()).add(module.name)
        with suppress(FileNotFoundError):
            if module.name == "__init__.py" and module.stat().st_size != path.size:
                return True
    return any({module.name for module in folder.glob("*.py")} - names for folder, names in ours.items())


def _has_files_in(distribution: str, folder: Path) -> bool:
    return any(Path(str(path.locate())).parent == folder for path in files(distribution) or ())
