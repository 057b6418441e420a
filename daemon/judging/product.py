"""What parts are judged by: an engine and the calibration that was made on it."""

import logging
from dataclasses import dataclass
from pathlib import Path

from calibration.calibration_file import Calibration, load_calibration
from daemon.capture.drivers import CameraSettings
from daemon.config import Config, ProductConfig
from engine_runtime.engine import Engine, Quantiles
from engine_runtime.engine_file import read_manifest
from engine_runtime.manifest import Manifest
from engine_runtime.open import open_engine
from engine_runtime.signatures import TrustedKeys
from engine_runtime.tiled_engine import TiledEngine, pictures_at_once
from foundation.errors import EngineRefused, InputError
from pictures.frames import Frame, Roi, images_in
from pictures.heatmap import MapGeometry
from pictures.region import seen_region
from pictures.tile_merge import TileMerge

_log = logging.getLogger("inspectd")


@dataclass(frozen=True, eq=False, slots=True)
class Product:
    """One product of a line, loaded.

    Compared by identity: after a reload the same name may stand for another engine or threshold, and a
    frame is judged by what held when it was captured.
    """

    name: str | None
    """None when the config names no products."""
    engine: Path
    manifest: Manifest
    trusted: TrustedKeys | None
    """The keys of which one must have signed the engine; None where its origin does not matter."""
    threads: int | None
    max_batch: int
    threshold: float
    quantiles: Quantiles
    geometry: MapGeometry
    """How anomaly maps lie over what is seen of a picture: the engine's input, or with tiles the region."""
    merge: TileMerge | None = None
    """How the maps of a picture's tiles become one; None when a picture is one frame."""

    @property
    def engine_name(self) -> str:
        """Name of the model and the start of the engine's SHA-256, as health tells it."""
        return f"{self.manifest.model} {self.manifest.payload_sha256[:12]}"

    @property
    def fingerprint(self) -> tuple[object, ...]:
        """What makes two loaded products the same."""
        return (
            self.name,
            self.engine,
            self.manifest.model_dump_json(),
            None if self.trusted is None else self.trusted.fingerprint,
            self.threads,
            self.max_batch,
            self.threshold,
            self.quantiles.tobytes(),
            None if self.merge is None else (self.merge.grid.tiles, self.merge.grid.region),
        )

    def picture(self, frame: Frame) -> Frame:
        """Give what the engine saw of a picture as one picture: the tiles put together, where there are any.

        Args:
            frame: from a slot, H×W×3 or tiles×H×W×3 uint8, BGR.

        Returns:
            H×W×3 uint8, BGR.
        """
        return frame if self.merge is None else self.merge.grid.assemble(frame)

    def open(self) -> Engine:
        """Open the engine.

        Raises:
            EngineRefused: it does not open, or the file holds another engine by now.
        """
        engine = open_engine(self.engine, threads=self.threads, trusted=self.trusted)
        found = engine.manifest.payload_sha256
        if found != self.manifest.payload_sha256:
            engine.close()
            raise EngineRefused(
                f"{self.engine}: was replaced by another engine ({found[:12]}…) while the line runs on "
                f"{self.manifest.payload_sha256[:12]}…: reload the config to change over"
            )
        return engine if self.merge is None else TiledEngine(engine, self.merge)

    def close(self, engine: Engine) -> None:
        """Close an engine that was opened; that it could not be closed is logged.

        A device that has failed may not let go of its memory either, and the line must go on all the same.
        """
        try:
            engine.close()
        except Exception as error:  # whatever a driver raises
            _log.error("%s: could not be closed: %s", self.engine, error)


def load_products(config: Config, path: Path) -> dict[str | None, Product]:
    """Read what every product of a config says about itself; engines are not opened yet.

    Args:
        config: the line's config.
        path: its file, for what is said about mistakes.

    Returns:
        The products by name, in the config's order; one of the name None when the config names none.

    Raises:
        InputError: an engine or calibration cannot be used, or does not fit the cameras or other products.
    """
    products: dict[str | None, Product] = {}
    trusted = TrustedKeys(config.trusted_keys) if config.trusted_keys else None
    largest = 0
    for name, entry in config.named_products().items():
        manifest = read_manifest(entry.engine, trusted)
        calibration = load_calibration(entry.calibration, manifest.payload_sha256)
        _check_cameras(path, config, entry, calibration)
        first = next(iter(products.values()), None)
        if first is not None and manifest.input_size != first.manifest.input_size:
            raise InputError(
                f"{path}: products.{name}.engine: {entry.engine} takes frames of {manifest.input_size}, "
                f"{first.engine} of {first.manifest.input_size}; one line's products must share one size"
            )
        geometry, at_once, merge = _geometry(entry.engine, manifest), manifest.max_batch, None
        grid = next(iter(config.cameras.values())).grid()  # the same for all of them
        if grid is not None:
            merge = TileMerge(grid, geometry)
            geometry, at_once = merge.geometry, pictures_at_once(manifest.max_batch, merge)
        products[name] = Product(
            name=name,
            engine=entry.engine,
            manifest=manifest,
            trusted=trusted,
            threads=config.threads,
            max_batch=min(config.max_batch or at_once, at_once),
            threshold=calibration.threshold,
            quantiles=calibration.quantiles_array(),
            geometry=geometry,
            merge=merge,
        )
        largest = max(largest, at_once)
    if config.max_batch is not None and config.max_batch > largest:
        raise InputError(
            f"{path}: max_batch: found {config.max_batch}, expected at most {largest}, for which its engine"
            " was built"
        )
    return products


def _check_cameras(path: Path, config: Config, entry: ProductConfig, calibration: Calibration) -> None:
    """Refuse cameras that show the engine something else than what it was calibrated on.

    Scores of another crop have another distribution: the threshold would mean nothing.
    """
    made = f"{entry.calibration} was made"
    for camera, settings in config.cameras.items():
        key = f"{path}: cameras.{camera}"
        shown = _shown_region(f"{key}.roi", settings)
        picture = calibration.camera_picture
        whole = None if picture is None else Roi(0, 0, picture.width, picture.height)
        is_known = calibration.roi is not None or whole is not None
        if is_known and shown != calibration.roi and not (shown == whole and calibration.roi is None):
            raise InputError(
                f"{key}.roi: found {shown or 'the whole picture'}, expected "
                f"{calibration.roi or 'none, the whole picture'}, with which {made}: "
                "set it so, or calibrate on pictures of this region"
            )
        if settings.tiles != calibration.tiles:
            found, expected = (tiles or "none" for tiles in (settings.tiles, calibration.tiles))
            raise InputError(f"{key}.tiles: found {found}, expected {expected}, with which {made}")
        grid, region = settings.grid(), calibration.tiled_size
        if grid is not None and region is not None and grid.region != region:
            raise InputError(
                f"{key}.roi: found {settings.roi}, expected one of {region.width}×{region.height} pixels, "
                f"with which {made}"
            )


def _shown_region(key: str, settings: CameraSettings) -> Roi | None:
    """Tell what a camera shows of its picture; the pictures of a folder may be cut out already."""
    folder = Path(settings.source)
    if "://" in settings.source or not folder.is_dir():
        return settings.roi
    try:
        files = images_in(folder)
    except InputError:
        return settings.roi  # the camera says what is wrong
    return seen_region(files, settings.roi, option=key).roi


def _geometry(engine: Path, manifest: Manifest) -> MapGeometry:
    try:
        return manifest.geometry
    except EngineRefused as error:
        raise EngineRefused(f"{engine}: {error}") from error
