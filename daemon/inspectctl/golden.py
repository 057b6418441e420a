import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from daemon.inspectctl.line_options import add_config_option, config_of
from foundation.errors import InputError, printable

if TYPE_CHECKING:
    from calibration.golden import Entry, Expected, GoldenList
    from daemon.judging.product import Product
    from engine_runtime.engine import Engine
    from pictures.locating.reference import Reference


def add(commands: Any) -> None:
    parser = commands.add_parser(
        "golden",
        help="keep pictures of known parts, with which the line tests itself",
        description="Golden samples are pictures of known good and bad parts beside a calibration. With the "
        "config's section golden, the line judges them at each start, reload and select, and every few "
        "hours.",
    )
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    adding = actions.add_parser(
        "add",
        help="add pictures",
        description="Have the line's engine judge pictures, and keep those that get the verdict that is "
        "expected: all of them or none. The line takes them up with inspectctl reload.",
    )
    adding.add_argument("--good", type=Path, nargs="+", default=[], metavar="FILE", help="of good parts")
    adding.add_argument("--bad", type=Path, nargs="+", default=[], metavar="FILE", help="of defective parts")
    adding.set_defaults(run=_add)
    listing = actions.add_parser("list", help="list them", description="List the golden samples.")
    listing.set_defaults(run=_list)
    removing = actions.add_parser("remove", help="remove some", description="Remove golden samples.")
    removing.add_argument("names", nargs="+", metavar="NAME", help="as list shows it")
    removing.set_defaults(run=_remove)
    testing = actions.add_parser(
        "test",
        help="have the engine judge them here",
        description="Open the engine in this process and judge the golden samples. The running line is not "
        "asked: inspectctl selftest does that. Exit code 0 when all pass, else 1.",
    )
    testing.add_argument(
        "--accept",
        action="store_true",
        help="take over the scores, as after a new calibration, if each sample gets the verdict expected",
    )
    testing.set_defaults(run=_test)
    for action in (adding, listing, removing, testing):
        add_config_option(action)
        action.add_argument(
            "--product", metavar="NAME", help="where the config names several (default: the first one)"
        )


def _add(options: argparse.Namespace) -> int:
    from calibration.golden import add_samples

    files: list[tuple[Path, Expected]] = [(file, "pass") for file in options.good]
    files += [(file, "reject") for file in options.bad]
    if not files:
        raise InputError("golden add: found no pictures, expected --good FILE or --bad FILE")
    product, references = _product(options)
    with _opened(product) as engine:
        added = add_samples(
            product.calibration,
            product.calibrated,
            files,
            engine,
            product.merge,
            weights=product.weights,
            references=references,
        )
    for entry in added:
        print(_told(entry))
    print("next: inspectctl reload, and golden: {every_h: 4} in the line's config")
    return 0


def _list(options: argparse.Namespace) -> int:
    *_, found = _samples(options)
    for entry in found.samples:
        print(_told(entry))
    return 0


def _remove(options: argparse.Namespace) -> int:
    from calibration.golden import folder_of, write_list

    product, _, found = _samples(options)
    folder, named = folder_of(product.calibration), set(options.names)
    for name in sorted(named - {entry.file for entry in found.samples}):
        raise InputError(f"{folder}: found no sample {name}, expected one that golden list shows")
    write_list(folder, found, [entry for entry in found.samples if entry.file not in named])
    for name in sorted(named):
        (folder / name).unlink(missing_ok=True)
    print(f"removed {len(named)} of {len(found.samples)} golden samples")
    return 0


def _test(options: argparse.Namespace) -> int:
    from calibration.golden import folder_of, judge_again, write_list

    product, references, found = _samples(options)
    with _opened(product) as engine:
        judged = judge_again(
            product.calibration,
            product.calibrated,
            found,
            engine,
            product.merge,
            weights=product.weights,
            references=references,
        )
    threshold = product.calibrated.threshold
    wrong = [sample for sample, score in judged if (score > threshold) != (sample.expected == "reject")]
    failed = 0
    for sample, score in judged:
        trouble = sample.trouble(score, threshold)
        failed += trouble is not None
        print(printable(f"failed  {trouble}" if trouble else f"passed  {sample.name}: score {score:.6g}"))
    if not options.accept:
        return 1 if failed else 0
    if wrong:
        raise InputError(
            f"{folder_of(product.calibration)}: nothing is accepted: {len(wrong)} samples get another "
            f"verdict than expected, such as {wrong[0].name}; remove them, or mend the calibration"
        )
    scores = {sample.name: score for sample, score in judged}
    entries = [entry.model_copy(update={"score": scores[entry.file]}) for entry in found.samples]
    write_list(folder_of(product.calibration), product.calibrated, entries)
    print(f"accepted the scores of {len(entries)} golden samples; next: inspectctl reload")
    return 0


def _product(options: argparse.Namespace) -> "tuple[Product, list[Reference]]":
    """Give the product that is meant, and what the line's cameras look for."""
    from daemon.config import load_config
    from daemon.load import load_products, load_references

    path = config_of(options)
    config = load_config(path)
    references = load_references(config, path)
    products = load_products(config, path, references)
    name = options.product
    if name is None:
        return next(iter(products.values())), list(references.values())
    if name not in products:
        known = ", ".join(known for known in products if known) or "the config names none"
        raise InputError(f"{path}: product {name!r}: unknown; expected one of its products: {known}")
    return products[name], list(references.values())


def _samples(options: argparse.Namespace) -> "tuple[Product, list[Reference], GoldenList]":
    from calibration.golden import folder_of, read_list

    product, references = _product(options)
    folder = folder_of(product.calibration)
    found = read_list(folder)
    if found is None:
        raise InputError(f"{folder}: holds no golden samples; expected some: run inspectctl golden add")
    return product, references, found


@contextmanager
def _opened(product: "Product") -> "Iterator[Engine]":
    engine = product.open()
    try:
        yield engine
    finally:
        product.close(engine)


def _told(entry: "Entry") -> str:
    return printable(f"{entry.file}  {entry.expected}  score {entry.score:.6g}  {entry.added_at}")
