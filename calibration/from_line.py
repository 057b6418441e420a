"""``calibrate --camera``: good parts of a running line, and what is known of those that it rejected."""

import argparse
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from calibration.calibration_file import Calibration, load_calibration
from calibration.tail import Truncation, scores_needed
from engine_runtime.engine import Quantiles
from engine_runtime.engine_file import read_manifest
from foundation.errors import InputError
from lines.collecting import Collected, Collecting
from lines.line_config import Product, read_line


@dataclass(frozen=True)
class FromLine:
    """What a line judged by while parts of it were collected, and how many it judged.

    Attributes:
        calibration: by which it judged. Its quantiles stay: then the scores are those of the line, and it is
            known where they end.
        collected: how many parts passed, and how many did not.
    """

    calibration: Calibration
    collected: Collected

    @property
    def quantiles(self) -> Quantiles:
        """Those of the calibration, K×2."""
        return self.calibration.quantiles_array()

    def truncation(self, highest: float) -> Truncation | None:
        """Tell what is known of good parts that were rejected; None where rejects are among the pictures.

        Args:
            highest: of the scores here; rounding may have moved it beyond the threshold.

        Raises:
            ValueError: too many parts were rejected.
        """
        found = self.collected
        if found.with_rejects:
            return None
        at = float(np.maximum(self.calibration.threshold, highest))
        return Truncation(at, found.passes, 0, found.rejects)


def fill_in(arguments: argparse.Namespace) -> None:
    """Take from the line's config what the command line does not say.

    The new calibration goes beside the line's own, which stays, and is compared with it.

    Raises:
        InputError: the config cannot be read, or has no such product, or another engine.
    """
    arguments.line = read_line(arguments.camera, arguments.key, arguments.server_key)
    products = arguments.line.products
    name = arguments.product or next(iter(products), None)
    if name not in products:
        known = ", ".join(known for known in products if known) or "the config names none"
        raise InputError(
            f"{arguments.camera}: product {name!r}: unknown; expected one of its products: {known}"
        )
    product: Product = products[name]
    if arguments.engine is not None and arguments.engine.resolve() != product.engine.resolve():
        raise InputError(f"{arguments.engine}: is not the engine of {arguments.camera}: {product.engine}")
    beside = product.calibration.with_name(f"new-{product.calibration.name}")
    arguments.engine, arguments.used = product.engine, product.calibration
    arguments.compare = arguments.compare or product.calibration
    arguments.mask = arguments.mask or product.mask
    arguments.output = arguments.output or beside
    arguments.good = arguments.good or arguments.output.with_suffix(".good")


def collect(arguments: argparse.Namespace) -> FromLine:
    """Collect what the command line asks for, as ``fill_in`` left it, with a bar that shows the progress.

    Raises:
        InputError: the line's config or folder will not do; ``Unavailable``: the line does not run.
        KeyboardInterrupt: with what was kept.
    """
    manifest = read_manifest(arguments.engine)
    used = load_calibration(arguments.used, manifest.payload_sha256, manifest.maps)
    begun = Collected(manifest.payload_sha256, used.threshold, arguments.with_rejects)
    collecting = Collecting(arguments.line, arguments.good, begun, manifest.model)
    wanted = arguments.count or scores_needed(arguments.false_reject_rate)
    try:
        with tqdm(total=wanted, initial=len(collecting), unit="part", desc="good parts", disable=None) as bar:

            def tell(count: int, found: Collected) -> None:
                bar.set_postfix(passes=found.passes, rejects=found.rejects, refresh=False)
                bar.update(count - bar.n)

            collecting.until(wanted, tell)
    except KeyboardInterrupt as stop:
        raise KeyboardInterrupt(
            f"interrupted; {collecting.kept}, {wanted - len(collecting)} more are wanted: the same command "
            "goes on"
        ) from stop
    return FromLine(used, collecting.collected)
