"""Everything of a config that is loaded before a line can run, or change over to it."""

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from calibration.calibration_file import A_CALIBRATION, Calibration, load_calibration
from calibration.golden import LIST, GoldenSample, folder_of, list_digest, load_golden
from daemon.capture.drivers import CameraSettings
from daemon.capture.group import CameraPlan
from daemon.config import A_CONFIG, Config, CurveConfig, ProductConfig, load_config
from daemon.host.access import Client
from daemon.host.cores import keep_to
from daemon.journal.database import JournalFailed
from daemon.journal.reader import JournalReader
from daemon.judging.product import Product
from engine_runtime.engine import Engine
from engine_runtime.engine_file import read_manifest
from engine_runtime.environment import environment_of
from engine_runtime.manifest import Manifest
from engine_runtime.open import runtime_module
from engine_runtime.signatures import TrustedKeys
from engine_runtime.tiled_engine import pictures_at_once
from engine_runtime.trial import try_out
from foundation.errors import EngineRefused, InputError, located
from foundation.yaml_file import read_text
from pictures.frames import Roi, Size
from pictures.heatmap import MapGeometry
from pictures.image_folder import images_in
from pictures.locating.reference import Reference
from pictures.locating.reference_file import read_reference
from pictures.mask import Mask, MaskCells, read_mask
from pictures.region import seen_region
from pictures.tile_merge import TileMerge

# What sockets, threads and files are made of at the start.
_NEEDS_RESTART = ("line", "publish", "control", "lanes", "cores", "journal", "preview", "drift")


@dataclass(frozen=True, slots=True)
class Setup:
    """A config, its products, and for each lane the engines that were opened for it."""

    config: Config
    products: Mapping[str | None, Product]
    opened: Sequence[Mapping[Product, Engine]]
    hashes: Mapping[str, str]
    """SHA-256 of the config, of each calibration and of each engine's payload, by file; for the journal."""
    proven: Mapping[str, str]
    """SHA-256 of each engine's payload, and by what it was found to run here; for the journal."""
    golden: Mapping[Product, Sequence[GoldenSample]] = field(default_factory=dict)
    """The golden samples of each product; none where the config does not ask for them."""
    references: Mapping[str, Reference] = field(default_factory=dict)
    """Camera → the part that is looked for in its pictures, of those that look for one."""

    @property
    def input_size(self) -> Size:
        """Size of the frames that the engines take."""
        return next(iter(self.products.values())).manifest.input_size

    @property
    def camera_plan(self) -> CameraPlan:
        """The cameras, and what they have to know of the engines."""
        products = self.products.values()
        return CameraPlan(
            cameras=self.config.cameras,
            size=self.input_size,
            judged_at_once=max(product.max_batch for product in products) * self.config.lanes,
            references=self.references,
            on_gpu=any(product.manifest.executed_on == "cuda" for product in products),
        )

    def close(self) -> None:
        """Close the engines that were opened for it, when no lane has taken them."""
        for engines in self.opened:
            for product, engine in engines.items():
                product.close(engine)


def load_setup(path: Path, running: Setup | None = None) -> Setup:
    """Load a config and open its engines.

    Args:
        path: the config file.
        running: what the line runs on now; a product that is the same in both is kept, and not opened again.

    Raises:
        InputError: something is wrong with the config, an engine or a calibration, or it changes what a
            running line cannot change; engines that were opened are closed again.
    """
    text = read_text(path, A_CONFIG)
    config = load_config(path, text)
    if running is None:
        _keep_to_cores(path, config)
    else:
        _refuse_restart(path, running.config, config)
    references = load_references(config, path)
    products = load_products(config, path, references)
    hashes = _hashes(products) | _reference_hashes(config, references)
    hashes |= _mask_hashes(config)
    hashes |= {str(path): hashlib.sha256(text).hexdigest()}
    if running is not None:
        same = {product.fingerprint: product for product in running.products.values()}
        products = {name: same.get(product.fingerprint, product) for name, product in products.items()}
    kept = set() if running is None else set(running.products.values())
    golden = _golden(config, products.values(), references)
    hashes |= _golden_hashes(golden)
    _try_out(_unproven(products.values(), config, running))
    opened: list[dict[Product, Engine]] = [{} for _ in range(config.lanes)]
    proven = {p.manifest.payload_sha256: environment_of(p.manifest) for p in products.values()}
    setup = Setup(config, products, opened, hashes, proven, golden, references)
    with ExitStack() as undo:
        undo.callback(setup.close)
        for engines in opened:
            for product in products.values():
                if product not in kept:
                    engines[product] = product.open()
        undo.pop_all()
    return setup


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
        manifest = read_manifest(entry.engine, trusted)
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


def _golden(
    config: Config, products: Iterable[Product], references: Mapping[str, Reference]
) -> dict[Product, Sequence[GoldenSample]]:
    """Read the golden samples of all products, if the config asks for them."""
    if config.golden is None:
        return {}
    return {
        product: load_golden(
            product.calibration,
            product.calibrated,
            product.manifest,
            product.merge,
            references=references.values(),
        )
        for product in products
    }


def _golden_hashes(products: Iterable[Product]) -> dict[str, str]:
    return {
        str(folder_of(product.calibration) / LIST): list_digest(product.calibration) for product in products
    }


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


def _keep_to_cores(path: Path, config: Config) -> None:
    """Have all that this process starts from now on, engines and cameras too, keep to the line's cores."""
    try:
        keep_to(config.cores)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _unproven(products: Iterable[Product], config: Config, running: Setup | None) -> list[Product]:
    """List the products whose engine this line has not run before, or not by this runtime on this device."""
    if running is not None:
        runs = {product.manifest.payload_sha256 for product in running.products.values()}
        return [product for product in products if product.manifest.payload_sha256 not in runs]
    proven = _proven(config)
    return [
        product
        for product in products
        # What is not known at all is not imported yet either: the trial does so meanwhile.
        if product.manifest.payload_sha256 not in proven
        or environment_of(product.manifest) not in proven[product.manifest.payload_sha256]
    ]


def _proven(config: Config) -> dict[str, set[str]]:
    """Read what the journal says of the last start and the last reload: payloads, and by what they ran."""
    if config.journal is None:
        return {}
    try:
        with JournalReader(config.journal.file) as reader:
            notes = [reader.last_event(kind) for kind in ("start", "reload")]
    except (InputError, JournalFailed):
        return {}  # not there yet; or what is wrong with it is said when the line opens it
    proven: dict[str, set[str]] = {}
    for note in notes:
        said = None if note is None else note.get("proven")
        for payload, environment in said.items() if isinstance(said, dict) else ():
            proven.setdefault(payload, set()).add(str(environment))
    return proven


def _try_out(products: Sequence[Product]) -> None:
    """Have engines opened elsewhere first: what is wrong with one must not end this process, or hang it."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        trials = [
            pool.submit(try_out, product.engine, product.threads, product.trusted) for product in products
        ]
        for product in products:
            runtime_module(product.manifest.runtime)  # its import takes as long as a trial's own
        for trial in trials:
            trial.result()


def _hashes(products: Mapping[str | None, Product]) -> dict[str, str]:
    calibrations = {str(product.calibration): product.calibration_sha256 for product in products.values()}
    return calibrations | {
        str(product.engine): product.manifest.payload_sha256 for product in products.values()
    }


def _reference_hashes(config: Config, references: Mapping[str, Reference]) -> dict[str, str]:
    files = {name: entry.locate.reference for name, entry in config.cameras.items() if entry.locate}
    return {files[name]: reference.digest for name, reference in references.items()}


def _mask_hashes(config: Config) -> dict[str, str]:
    named = [product.mask for product in config.named_products().values()]
    files = {file for file in named if file} | {
        Path(settings.mask) for settings in config.cameras.values() if settings.mask
    }
    return {str(file): read_mask(file).digest for file in files}


def clients_of(curve: CurveConfig) -> dict[str, Client]:
    """Give the clients that a config lets in."""
    return {name: Client(entry.key, entry.control) for name, entry in curve.clients.items()}


def _refuse_restart(path: Path, old: Config, new: Config) -> None:
    for key in _NEEDS_RESTART:
        if getattr(old, key) != getattr(new, key):
            raise InputError(f"{path}: {key}: was changed; only a restart makes that take effect")
    if (old.curve is None) != (new.curve is None) or (
        old.curve and new.curve and old.curve.secret_key != new.curve.secret_key
    ):
        raise InputError(f"{path}: curve.secret_key: was changed; only a restart makes that take effect")
