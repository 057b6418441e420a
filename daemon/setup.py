"""Everything that a line stands on: its config, read, and its engines, tried out and opened."""

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from calibration.golden import LIST, GoldenSample, folder_of, list_digest, load_golden
from daemon.capture.group import CameraPlan
from daemon.config import A_CONFIG, Config, CurveConfig, load_config
from daemon.host.access import Client
from daemon.host.cores import keep_to
from daemon.journal.database import JournalFailed
from daemon.journal.reader import JournalReader
from daemon.judging.product import Product
from daemon.load import load_products, load_references
from engine_runtime.engine import Engine
from engine_runtime.environment import environment_of
from engine_runtime.open import runtime_module
from engine_runtime.trial import try_out
from foundation.errors import InputError
from foundation.yaml_file import read_text
from pictures.frames import Size
from pictures.locating.reference import Reference
from pictures.mask import read_mask

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


def _refuse_restart(path: Path, old: Config, new: Config) -> None:
    for key in _NEEDS_RESTART:
        if getattr(old, key) != getattr(new, key):
            raise InputError(f"{path}: {key}: was changed; only a restart makes that take effect")
    if (old.curve is None) != (new.curve is None) or (
        old.curve and new.curve and old.curve.secret_key != new.curve.secret_key
    ):
        raise InputError(f"{path}: curve.secret_key: was changed; only a restart makes that take effect")


def _keep_to_cores(path: Path, config: Config) -> None:
    """Have all that this process starts from now on, engines and cameras too, keep to the line's cores."""
    try:
        keep_to(config.cores)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


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
