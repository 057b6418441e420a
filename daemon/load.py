"""Everything of a config that is loaded before a line can run, or change over to it."""

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from daemon.config import Config, CurveConfig, load_config
from daemon.host.access import Client
from daemon.host.cores import keep_to
from daemon.journal.database import JournalFailed
from daemon.journal.reader import JournalReader
from daemon.judging.product import Product, load_products
from engine_runtime.engine import Engine
from engine_runtime.open import runtime_module
from engine_runtime.trial import try_out
from foundation.errors import InputError
from foundation.files import sha256
from pictures.frames import Size

# What sockets, threads and files are made of at the start.
_NEEDS_RESTART = ("line", "publish", "control", "lanes", "cores", "journal")


@dataclass(frozen=True, slots=True)
class Setup:
    """A config, its products, and for each lane the engines that were opened for it."""

    config: Config
    products: Mapping[str | None, Product]
    opened: Sequence[Mapping[Product, Engine]]
    hashes: Mapping[str, str]
    """SHA-256 of the config, of each calibration and of each engine's payload, by file; for the journal."""

    @property
    def input_size(self) -> Size:
        """Size of the frames that the engines take."""
        return next(iter(self.products.values())).manifest.input_size

    @property
    def judged_at_once(self) -> int:
        """Frames that all lanes together may hold."""
        return max(product.max_batch for product in self.products.values()) * self.config.lanes

    @property
    def on_gpu(self) -> bool:
        """Whether an engine computes on a GPU."""
        return any(product.manifest.executed_on == "cuda" for product in self.products.values())

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
    config = load_config(path)
    if running is None:
        _keep_to_cores(path, config)
    else:
        _refuse_restart(path, running.config, config)
    products = load_products(config, path)
    if running is not None:
        same = {product.fingerprint: product for product in running.products.values()}
        products = {name: same.get(product.fingerprint, product) for name, product in products.items()}
    kept = set() if running is None else set(running.products.values())
    proven = _proven(config, running)
    _try_out([product for product in products.values() if product.manifest.payload_sha256 not in proven])
    opened: list[dict[Product, Engine]] = [{} for _ in range(config.lanes)]
    setup = Setup(config, products, opened, _hashes(path, config, products))
    with ExitStack() as undo:
        undo.callback(setup.close)
        for engines in opened:
            for product in products.values():
                if product not in kept:
                    engines[product] = product.open()
        undo.pop_all()
    return setup


def _keep_to_cores(path: Path, config: Config) -> None:
    """Have all that this process starts from now on, engines and cameras too, keep to the line's cores."""
    try:
        keep_to(config.cores)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _proven(config: Config, running: Setup | None) -> set[str]:
    """List the payloads that this line has run before, by SHA-256: they need no trial."""
    if running is not None:
        return {product.manifest.payload_sha256 for product in running.products.values()}
    if config.journal is None:
        return set()
    try:
        with JournalReader(config.journal.file) as reader:
            notes = [reader.last_event(kind) for kind in ("start", "reload")]
    except (InputError, JournalFailed):
        return set()  # not there yet; or what is wrong with it is said when the line opens it
    hashes = [note.get("sha256") for note in notes if note is not None]
    return {str(found) for entry in hashes if isinstance(entry, dict) for found in entry.values()}


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


def _hashes(path: Path, config: Config, products: Mapping[str | None, Product]) -> dict[str, str]:
    files = [path, *(entry.calibration for entry in config.named_products().values())]
    engines = {str(product.engine): product.manifest.payload_sha256 for product in products.values()}
    return {str(file): sha256(file) for file in files} | engines


def clients_of(curve: CurveConfig) -> dict[str, Client]:
    """Give the clients that a config lets in."""
    return {name: Client(entry.key, entry.control) for name, entry in curve.clients.items()}


def _refuse_restart(path: Path, old: Config, new: Config) -> None:
    for key in _NEEDS_RESTART:
        if getattr(old, key) != getattr(new, key):
            raise InputError(f"{path}: {key}: was changed, which only a restart can take up")
    if (old.curve is None) != (new.curve is None) or (
        old.curve and new.curve and old.curve.secret_key != new.curve.secret_key
    ):
        raise InputError(f"{path}: curve.secret_key: was changed, which only a restart can take up")
