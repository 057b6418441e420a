"""What whoever watches a line needs to know of its config; the daemon alone reads all of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foundation.errors import InputError
from foundation.yaml_file import described, read_yaml
from verdicts import CurveKeys
from verdicts.address import address_from, from_this_machine
from verdicts.checks import NAME


@dataclass(frozen=True)
class Product:
    """What one product is judged by: the files that the line's config names."""

    engine: Path
    calibration: Path
    mask: Path | None = None


@dataclass(frozen=True)
class LineConfig:
    """One line, as far as those are concerned who watch it.

    Attributes:
        file: the line's config.
        name: of the line.
        publish: where verdicts are published, as one connects to it.
        control: where requests are answered; None: nowhere.
        curve: with which keys one connects; None without encryption.
        journal: its file; None without one.
        archive: folder of pictures; None without one.
        preview: folder of preview pictures; None without one.
        products: by name; by None where the config names none.
        deadline_ms: from capture to verdict.
        signed: whether the line takes signed calibrations alone (its key trusted_keys).
        signing_key: with which a changed calibration is signed; None: the page may not change one of such a
            line.
        cameras: their names.
        key: file of the secret key with which one connects; None without encryption.
        server_key: file of the line's public key, likewise.
    """

    file: Path
    name: str
    publish: str
    control: str | None
    curve: CurveKeys | None
    journal: Path | None
    archive: Path | None
    preview: Path | None
    products: Mapping[str | None, Product]
    deadline_ms: float
    signed: bool = False
    signing_key: Path | None = None
    cameras: tuple[str, ...] = ()
    key: Path | None = None
    server_key: Path | None = None

    def read_again(self) -> "LineConfig":
        """Read the line's config as it is now, with the same keys.

        Raises:
            InputError: see ``read_line``.
        """
        return read_line(self.file, self.key, self.server_key, self.preview, self.signing_key)


def read_line(
    path: Path,
    key: Path | None = None,
    server_key: Path | None = None,
    preview: Path | None = None,
    signing_key: Path | None = None,
) -> LineConfig:
    """Read a line's config.

    Args:
        path: its file.
        key: secret key of whoever connects, where the line has a section ``curve``.
        server_key: the line's public key, likewise.
        preview: folder of preview pictures, instead of the one that the config names.
        signing_key: with which a changed calibration is signed.

    Raises:
        InputError: it cannot be read, or lacks what is needed; the line names file, key, found and expected.
    """
    content = read_yaml(path, "the config of a line").content
    folder = path.absolute().parent
    name = _text(path, content, "line", "the name of a line")
    if not NAME.fullmatch(name):
        raise InputError(f"{path}: line: found {name!r:.80}, expected the name of a line")
    control = content.get("control")
    return LineConfig(
        file=path,
        name=name,
        publish=_address(path, "publish", content.get("publish")),
        control=None if control is None else _address(path, "control", control),
        curve=_curve(path, content, key, server_key),
        journal=_in_section(path, content, "journal", "file"),
        archive=_in_section(path, content, "archive", "folder"),
        preview=preview or _in_section(path, content, "preview", "folder"),
        products=_products(path, folder, content),
        deadline_ms=_deadline(content),
        signed=bool(content.get("trusted_keys")),
        signing_key=signing_key,
        cameras=tuple(content["cameras"]) if isinstance(content.get("cameras"), dict) else (),
        key=key,
        server_key=server_key,
    )


def _products(path: Path, folder: Path, content: Mapping[str, Any]) -> dict[str | None, Product]:
    entries = content.get("products")
    named = entries if isinstance(entries, dict) and entries else {None: content}
    products: dict[str | None, Product] = {}
    for name, section in named.items():
        if not isinstance(section, dict):
            continue
        engine, calibration = section.get("engine"), section.get("calibration")
        if isinstance(engine, str) and isinstance(calibration, str):
            mask = section.get("mask")
            masked = folder / mask if isinstance(mask, str) else None
            products[name] = Product(folder / engine, folder / calibration, masked)
    return products


def _in_section(path: Path, content: Mapping[str, Any], section: str, key: str) -> Path | None:
    found = content.get(section)
    if not isinstance(found, dict) or key not in found:
        return None
    file = _text(path, found, key, "a path", f"{section}.{key}")
    return path.absolute().parent / file


def _curve(
    path: Path, content: Mapping[str, Any], key: Path | None, server_key: Path | None
) -> CurveKeys | None:
    if content.get("curve") is None:
        return None
    if key is None or server_key is None:
        raise InputError(
            f"{path}: the line has a section curve; expected the keys key and server_key beside it, in the "
            "config that names it"
        )
    try:
        return CurveKeys.read(key, server_key)
    except ValueError as error:
        raise InputError(str(error)) from error


def _address(path: Path, key: str, found: object) -> str:
    if not isinstance(found, str):
        raise InputError(
            f"{path}: {key}: found {described(found)}, expected an address such as tcp://127.0.0.1:5560"
        )
    try:
        return from_this_machine(address_from(path.absolute().parent, found))
    except ValueError as error:
        raise InputError(f"{path}: {key}: found {found!r:.80}, {error}") from error


def _deadline(content: Mapping[str, Any]) -> float:
    found = content.get("deadline_ms")
    return float(found) if type(found) in (int, float) else 1000.0  # type: ignore[arg-type]


def _text(path: Path, content: Mapping[str, Any], key: str, wanted: str, name: str | None = None) -> str:
    found = content.get(key)
    if not isinstance(found, str) or not found or "\0" in found:
        raise InputError(f"{path}: {name or key}: found {described(found)}, expected {wanted}")
    return found
