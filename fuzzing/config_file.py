"""Config files, through ``load_config``."""

from pathlib import Path

from daemon.config import load_config
from foundation.errors import InputError
from fuzzing import yaml_text
from fuzzing.target import Chance, must_be_one_line

_LINE = b"""\
line: line3
engine: line3.engine
calibration: line3.yaml
publish: tcp://127.0.0.1:5560
cameras: {top: {source: /dev/video0}}
"""
_SECTIONS = (
    b"""\
journal: {file: line3.journal, keep_days: 30, max_mb: 500}
on_journal_error: continue
control: ipc://line3.sock
required_subscribers: [gate, plc]
resend_after_s: 0.5
""",
    b"""\
deadline_ms: 250
engine_timeout_s: 5
lanes: 2
threads: 4
max_batch: 8
archive: {folder: rejects, max_mb: 100}
""",
    b"""\
curve:
  secret_key: credential:line3
  clients:
    gate: {key: 'rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7', control: true}
""",
)
_CAMERA = b"""\
line: a
engine: e
calibration: c
publish: ipc://p
cameras:
  top: &top
    source: aravis://x
    roi: {x: 10, y: 20, width: 300, height: 200}
    tiles: {size: 64, overlap: 8}
    fps: 30
    features: {ExposureTime: 5000, TriggerMode: On}
    loop: true
    waiting: 4
    stalled_after_s: 2
    frozen_after: 10
    black_below: 3.5
  side: {<<: *top, width: 640, height: 480}
"""
_PRODUCTS = b"""\
line: a
products:
  flange: {engine: f.engine, calibration: f.yaml}
  cover: {engine: c.engine, calibration: c.yaml}
product: cover
publish: ipc://p
cameras: {top: {source: x}}
"""


class Target:
    """Every file is a config, or refused in one line that names it."""

    documented = (InputError,)
    longest = 2048
    words = (
        *yaml_text.WORDS, "line", "engine", "calibration", "products", "product", "curve", "publish",
        "journal", "control", "required_subscribers", "archive", "cameras", "source", "roi", "tiles",
        "size", "overlap", "features",
        "tcp://127.0.0.1:1",
    )  # fmt: skip

    def __init__(self, folder: Path) -> None:
        self._path = folder / "line3.yaml"

    def seeds(self) -> list[bytes]:
        return [_LINE, *(_LINE + section for section in _SECTIONS), _CAMERA, _PRODUCTS]

    def mutate(self, data: bytes, chance: Chance) -> bytes:
        return yaml_text.mutate_yaml(data, chance)

    def run(self, data: bytes) -> None:
        self._path.write_bytes(data)
        try:
            config = load_config(self._path)
        except InputError as error:
            must_be_one_line(error, self._path)
            raise
        products = config.named_products()
        assert products and config.cameras
        assert all(
            entry.engine.is_absolute() and entry.calibration.is_absolute() for entry in products.values()
        )
        assert config.product is None or next(iter(products)) == config.product
