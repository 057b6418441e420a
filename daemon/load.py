"""The products of a config: what their files say, held against its cameras; engines are not opened yet."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from calibration.calibration_file import A_CALIBRATION, Calibration, load_calibration
from daemon.capture.drivers import CameraSettings
from daemon.config import Config, ProductConfig
from daemon.judging.product import Product
from engine_runtime.engine_file import read_manifest
from engine_runtime.manifest import Manifest
from engine_runtime.signatures import TrustedKeys
from engine_runtime.tiled_engine import pictures_at_once
from foundation.errors import EngineRefused, InputError, located
from foundation.yaml_file import read_text
from pictures.frames import Roi
from pictures.heatmap import MapGeometry
from pictures.image_folder import images_in
from pictures.locating.reference import Reference
from pictures.locating.reference_file import read_reference
from pictures.mask import Mask, MaskCells, read_mask
from pictures.region import seen_region
from pictures.tile_merge import TileMerge


def load_references(config: Config, path: Path) -> dict[str, Reference]:
    """Read the taught parts that cameras look for.

    Raises:
        InputError: one cannot be read.
    """
    references = {}
    for name, settings in config.cameras.items():
        if settings.locate is not None:
            with located(f"{path}: cameras.{name}.locate.reference"):
                references[name] = read_reference(Path(settings.locate.reference))
    return references


def load_products(
    config: Config, path: Path, references: Mapping[str, Reference] | None = None
) -> dict[str | None, Product]:
    """Read what every product of a config says about itself; engines are not opened yet.

    Args:
        config: the line's config.
        path: its file, for what is said about mistakes.
        references: of the cameras that look for a part; read here when None.

    Returns:
        The products by name, in the config's order; one of the name None when the config names none.

    Raises:
        InputError: an engine or calibration cannot be used, or does not fit the cameras or other products.
    """
    references = load_references(config, path) if references is None else references
    products: dict[str | None, Product] = {}
    trusted = TrustedKeys(config.trusted_keys) if config.trusted_keys else None
    largest = 0
    for name, entry in config.named_products().items():
        where = f"{path}: " if name is None else f"{path}: products.{name}."
        with located(f"{where}engine"):
            manifest = read_manifest(entry.engine, trusted)
        with located(f"{where}calibration"):
            text = _calibration_text(entry)
            if trusted is not None:
                trusted.check(entry.calibration, text, _refused_calibration)
            calibration = load_calibration(entry.calibration, manifest.payload_sha256, manifest.maps, text)
        if config.drift is not None and calibration.drift is None:
            raise InputError(
                f"{path}: drift: {entry.calibration} does not say how good parts look; run calibrate again"
            )
        _check_cameras(path, config, entry, calibration, references)
        mask = _mask(path, config, name, entry, calibration)
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
            calibration=entry.calibration,
            calibration_sha256=hashlib.sha256(text).hexdigest(),
            manifest=manifest,
            trusted=trusted,
            threads=config.threads,
            max_batch=min(config.max_batch or at_once, at_once),
            calibrated=calibration,
            threshold=calibration.threshold,
            quantiles=calibration.quantiles_array(),
            geometry=geometry,
            weights=None if mask is None else _weights(*mask, calibration, geometry),
            merge=merge,
            score_parts=config.score_parts,
        )
        largest = max(largest, at_once)
    if config.max_batch is not None and config.max_batch > largest:
        raise InputError(
            f"{path}: max_batch: found {config.max_batch}, expected at most {largest}, for which its engine"
            " was built"
        )
    return products


def _calibration_text(entry: ProductConfig) -> bytes:
    if not entry.calibration.exists():
        raise InputError(
            f"{entry.calibration}: cannot be read: No such file; "
            f"run calibrate {entry.engine} --good DIR -o {entry.calibration}"
        )
    return read_text(entry.calibration, A_CALIBRATION)


def _refused_calibration(said: str) -> InputError:
    """Say how a calibration is signed: the lines of earlier versions had unsigned ones."""
    return InputError(f"{said}: sign it with calibrate --sign KEY, or as an engine (openssl pkeyutl)")


def _check_cameras(
    path: Path,
    config: Config,
    entry: ProductConfig,
    calibration: Calibration,
    references: Mapping[str, Reference],
) -> None:
    """Refuse cameras that show the engine something else than what it was calibrated on.

    Scores of another crop have another distribution: the threshold would mean nothing.
    """
    made = f"{entry.calibration} was made"
    for camera, settings in config.cameras.items():
        key = f"{path}: cameras.{camera}"
        reference = references.get(camera)
        _check_reference(f"{key}.locate", reference, calibration, made)
        shown = _shown_region(f"{key}.roi", settings, reference)
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


def _mask(
    path: Path, config: Config, name: str | None, entry: ProductConfig, calibration: Calibration
) -> tuple[Path, Mask] | None:
    """Read where to look: what the product names, or its cameras, and what it was calibrated with."""
    key = "mask" if name is None else f"products.{name}.mask"
    named = {} if entry.mask is None else {key: entry.mask}
    for camera, settings in config.cameras.items():
        if settings.mask is not None:
            named[f"cameras.{camera}.mask"] = Path(settings.mask)
        elif entry.mask is None and any(other.mask for other in config.cameras.values()):
            raise InputError(
                f"{path}: cameras.{camera}.mask: missing; where one camera has a mask, all need one, or {key}"
            )
    made = f"{entry.calibration} was made"
    if not named and calibration.mask is not None:
        raise InputError(
            f"{path}: {key}: missing; expected the mask {calibration.mask[:12]}…, with which {made}"
        )
    found = None
    for where, file in named.items():
        with located(f"{path}: {where}"):
            mask = read_mask(file)
        if mask.digest != calibration.mask:
            expected = "none" if calibration.mask is None else f"the mask {calibration.mask[:12]}…"
            raise InputError(
                f"{path}: {where}: {file} is {mask}, expected {expected}, with which {made}: calibrate with "
                f"--mask {file}"
            )
        found = file, mask
    return found


def _weights(file: Path, mask: Mask, calibration: Calibration, geometry: MapGeometry) -> NDArray[np.float32]:
    try:
        cells = MaskCells(mask, calibration.roi, geometry)
    except InputError as error:
        raise InputError(f"{file}: {error}") from error
    if cells.has_thresholds and calibration.threshold <= 0:
        raise InputError(
            f"{file}: a region has a threshold of its own, for which that of the calibration has to be "
            f"positive; found {calibration.threshold:.4g}"
        )
    return cells.weights(calibration.threshold)


def _check_reference(key: str, reference: Reference | None, calibration: Calibration, made: str) -> None:
    found = None if reference is None else reference.digest
    if found == calibration.locate:
        return
    if calibration.locate is None:
        raise InputError(
            f"{key}: found {reference}, but {made} on parts as they lie: take locate out, or train and "
            "calibrate with --locate"
        )
    raise InputError(
        f"{key}: found {reference or 'none'}, expected the reference {calibration.locate[:12]}…, by which "
        f"parts were brought to their place when {made}"
    )


def _shown_region(key: str, settings: CameraSettings, reference: Reference | None) -> Roi | None:
    """Tell what a camera shows of its picture; the pictures of a folder may be cut out already."""
    folder = Path(settings.source)
    if "://" in settings.source or not folder.is_dir():
        return settings.roi
    try:
        files = images_in(folder)
    except InputError:
        return settings.roi  # the camera says what is wrong
    return seen_region(files, settings.roi, reference=reference, option=key).roi


def _geometry(engine: Path, manifest: Manifest) -> MapGeometry:
    try:
        return manifest.geometry
    except EngineRefused as error:
        raise EngineRefused(f"{engine}: {error}") from error
