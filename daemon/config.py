"""The config of a line: YAML, checked against the models below, every mistake named by file, line and key."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    ValidationInfo,
    field_validator,
)

from daemon.capture.drivers import CameraSettings
from daemon.host.cores import Cores
from foundation.errors import InputError
from foundation.yaml_model import line_of, read_model
from lines.section import Name, Section
from verdicts.address import address_from, parse_address

_Z85_KEY = re.compile(r"[0-9a-zA-Z.\-:+=^!/*?&<>()\[\]{}@%$#]{40}")


A_CONFIG = "the YAML config of a line"


class ProductConfig(Section):
    """What one product is judged by."""

    engine: Path
    calibration: Path
    mask: Path | None = Field(default=None, description="where to look; everywhere when absent")


class ArchiveConfig(Section):
    """Where pictures of rejects are kept."""

    folder: Path
    max_mb: int = Field(default=1000, gt=0, le=1_000_000_000)
    near_misses: float = Field(
        default=0, ge=0, le=1, description="also passes so close below the threshold, as a share of it"
    )
    sample: float = Field(default=0, ge=0, le=1, description="also this share of all passes, by chance")


class PreviewConfig(Section):
    """Where small live pictures are put while somebody looks."""

    folder: Path


class JournalConfig(Section):
    """Where every verdict is written down before it is published."""

    file: Path
    keep_days: float = Field(default=90, gt=0, le=36_500)
    max_mb: float = Field(default=1000, ge=1, le=1_000_000_000)
    durable: bool = Field(default=False, description="publish a verdict only when it is on the disk")


class GoldenConfig(Section):
    """When golden samples are judged, and what follows when one gets another verdict or score."""

    every_h: float = Field(default=4, ge=0.0003, le=8760, description="beside each start, reload and select")
    on_failure: Literal["warn", "stop"] = Field(
        default="warn", description="stop: no part is released until they pass again; each is a fault"
    )


class DriftConfig(Section):
    """Whether it is watched if parts still look as they did when the line was calibrated."""

    parts_per_false_alarm: float = Field(default=1_000_000, ge=10_000, le=1e12)


class ClientConfig(Section):
    """Who may connect when there is a CURVE key."""

    key: str = Field(description="the client's public key, 40 characters of Z85")
    control: bool = Field(default=False, description="may also reload and select")

    @field_validator("key")
    @classmethod
    def _key_is_z85(cls, key: str) -> str:
        if not _Z85_KEY.fullmatch(key):
            raise ValueError("expected a public key of 40 characters, as inspectctl keygen prints it")
        return key


class CurveConfig(Section):
    """Encryption and the clients that are let in; nobody else is."""

    secret_key: str = Field(description="file from inspectctl keygen, or credential:NAME of the service")
    clients: dict[Name, ClientConfig] = Field(default_factory=dict)


class Config(Section):
    """One line. Relative paths count from the config file's folder."""

    line: Name
    engine: Path | None = None
    calibration: Path | None = None
    mask: Path | None = Field(
        default=None, description="where to look; everywhere when absent. Of a product or a camera, too"
    )
    products: dict[Name, ProductConfig] = Field(default_factory=dict)
    product: Annotated[Name | None, Field(validate_default=True)] = None
    trusted_keys: Annotated[tuple[Path, ...], Field(min_length=1)] | None = Field(
        default=None,
        description="files with public keys; one of them must have signed each engine and calibration",
    )
    curve: CurveConfig | None = None
    publish: str = Field(description="where the verdicts go, such as tcp://127.0.0.1:5560")
    journal: JournalConfig | None = None
    on_journal_error: Literal["fault", "continue"] = "fault"
    control: str | None = Field(
        default=None, description="where requests are answered, such as tcp://127.0.0.1:5561 or ipc://PATH"
    )
    required_subscribers: tuple[Name, ...] = ()
    resend_after_s: float = Field(default=1.0, ge=0.05, le=3600)
    deadline_ms: float = Field(default=1000, gt=0, le=3_600_000)
    engine_timeout_s: float = Field(default=10, gt=0, le=3600)
    lanes: int = Field(default=1, ge=1, le=16)
    threads: int | None = Field(
        default=None, ge=1, le=1024, description="of each lane; the runtime chooses when absent"
    )
    max_batch: int | None = Field(default=None, ge=1, description="the engine's own when absent")
    cores: Cores | None = Field(default=None, description="the cores that the line may use; all when absent")
    score_parts: bool = Field(
        default=False, description="verdicts say what each anomaly map has in the score; readers must know it"
    )
    archive: ArchiveConfig | None = None
    preview: PreviewConfig | None = None
    golden: GoldenConfig | None = None
    drift: DriftConfig | None = None
    cameras: Annotated[dict[Name, CameraSettings], Field(min_length=1)]

    @field_validator("trusted_keys", "golden", "drift")
    @classmethod
    def _is_not_left_empty(cls, section: object) -> object:
        """Refuse a key without a value, which YAML reads as null: its author thinks that the line watches.

        It sees what was given alone, never the default.
        """
        if section is None:
            raise ValueError("expected a value; without the key, the line does without")
        return section

    @field_validator("product")
    @classmethod
    def _product_is_one_of_products(cls, product: str | None, info: ValidationInfo) -> str | None:
        products: dict[str, ProductConfig] = info.data.get("products", {})
        single = [info.data.get(key) for key in ("engine", "calibration")]
        if products and any([*single, info.data.get("mask")]):
            raise ValueError("expected either engine, calibration and mask, or products")
        if product is not None and product not in products:
            raise ValueError(f"expected one of products: {', '.join(products) or 'there are none'}")
        return product

    @field_validator("publish", "control")
    @classmethod
    def _other_hosts_need_keys(cls, text: str | None, info: ValidationInfo) -> str | None:
        if text is None:
            return None
        address = parse_address(text)
        if not address.is_loopback and info.data.get("curve", ...) is None:
            raise ValueError(
                "expected a loopback address such as tcp://127.0.0.1:5560, or ipc://PATH; "
                "other interfaces need the section curve (inspectctl keygen)"
            )
        return text

    @field_validator("control")
    @classmethod
    def _control_needs_a_journal(cls, address: str | None, info: ValidationInfo) -> str | None:
        if address is not None and info.data.get("journal", ...) is None:
            raise ValueError("needs the section journal: it answers from the journal")
        return address

    @field_validator("required_subscribers")
    @classmethod
    def _subscribers_need_control(cls, names: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        if names and info.data.get("control", ...) is None:
            raise ValueError("need the key control: they acknowledge at that address")
        return names

    @field_validator("cameras")
    @classmethod
    def _tiled_cameras_are_alike(cls, cameras: dict[str, CameraSettings]) -> dict[str, CameraSettings]:
        # Their pictures share engines, which merge the tiles of one region.
        (first, expected), *others = cameras.items()
        for name, settings in others:
            if _tiling(settings) != _tiling(expected):
                raise ValueError(
                    f"found {_tiling(settings)} for {name}, {_tiling(expected)} for {first}; "
                    "with tiles, all cameras of a line need the same tiles and rois of one size"
                )
        return cameras

    def named_products(self) -> dict[str | None, ProductConfig]:
        """Give the products by name, the one that is judged first at the front."""
        if self.engine is not None and self.calibration is not None:
            return {None: ProductConfig(engine=self.engine, calibration=self.calibration, mask=self.mask)}
        first = self.product or next(iter(self.products))
        return {name: self.products[name] for name in sorted(self.products, key=lambda name: name != first)}


def _tiling(settings: CameraSettings) -> str:
    if settings.tiles is None or settings.roi is None:
        return "no tiles"
    return f"tiles {settings.tiles} of a roi of {settings.roi.width}×{settings.roi.height}"


def load_config(path: Path, text: bytes | None = None) -> Config:
    """Read and check a line's config.

    Args:
        path: its file.
        text: what ``read_text`` gave; read here when None.

    Raises:
        InputError: the file cannot be read, is not YAML, or breaks a rule; the line names file, line, key,
            what was found and what was expected.
    """
    config, document = read_model(path, A_CONFIG, Config, text)
    _refuse_incomplete(path, config)
    config = _from_folder(config, path)
    control = config.control
    if control is not None and parse_address(control).overlaps(parse_address(config.publish)):
        line = line_of(document, ["control"])
        raise InputError(
            f"{path}:{line}: control: found {control}, expected another address than publish has"
        )
    return config


def _refuse_incomplete(path: Path, config: Config) -> None:
    """Say what to run where the engine or its calibration is not there yet."""
    if config.products or (config.engine and config.calibration):
        return
    if config.engine is None:
        raise InputError(f"{path}: engine: missing; expected the engine file that build-engine wrote")
    raise InputError(
        f"{path}: calibration: missing; expected the file that calibrate writes: "
        f"run calibrate {config.engine} --good DIR"
    )


def _from_folder(config: Config, path: Path) -> Config:
    """Count relative paths from the config file's folder."""
    folder = path.parent

    def moved(section: Section | None, *keys: str) -> Any:
        if section is None:
            return None
        paths = {key: getattr(section, key) for key in keys}
        return section.model_copy(
            update={key: folder / path for key, path in paths.items() if path is not None}
        )

    curve = config.curve
    if curve is not None and not curve.secret_key.startswith("credential:"):
        curve = curve.model_copy(update={"secret_key": str(folder / curve.secret_key)})
    archive = moved(config.archive, "folder")
    if archive is not None:  # verdicts say where the pictures lie, also to who works in another folder
        archive = archive.model_copy(update={"folder": archive.folder.absolute()})
    moved_config: Config = moved(config, "engine", "calibration", "mask")
    return moved_config.model_copy(
        update={
            "products": {
                name: moved(product, "engine", "calibration", "mask")
                for name, product in config.products.items()
            },
            "archive": archive,
            "preview": moved(config.preview, "folder"),
            "journal": moved(config.journal, "file"),
            "curve": curve,
            "publish": _address_from(path, "publish", config.publish),
            "control": config.control and _address_from(path, "control", config.control),
            "trusted_keys": config.trusted_keys and tuple(folder / file for file in config.trusted_keys),
            "cameras": {name: _camera_from(folder, camera) for name, camera in config.cameras.items()},
        }
    )


def _address_from(path: Path, key: str, text: str) -> str:
    try:
        return address_from(path.parent, text)
    except ValueError as error:
        raise InputError(f"{path}: {key}: found {text}, {error}") from error


def _camera_from(folder: Path, camera: CameraSettings) -> CameraSettings:
    if camera.locate is not None:
        taught = replace(camera.locate, reference=str(folder / camera.locate.reference))
        camera = replace(camera, locate=taught)
    if camera.mask is not None:
        camera = replace(camera, mask=str(folder / camera.mask))
    if "://" in camera.source:
        return camera
    return replace(camera, source=str(folder / camera.source))
