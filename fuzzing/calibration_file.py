"""Calibration files, through ``load_calibration``."""

from pathlib import Path

from calibration.calibration_file import Calibration, load_calibration, write_calibration
from foundation.errors import InputError
from fuzzing import yaml_text
from fuzzing.target import Chance, must_be_one_line
from pictures.frames import Roi, Size
from pictures.tiles import Tiles

_ENGINE = "5e" * 32
_MAPS = ("local", "global")


def sound_calibration(engine_sha256: str) -> Calibration:
    """Make what ``calibrate`` could have measured on an engine."""
    return Calibration(
        format_version=1,
        model="flange",
        engine_sha256=engine_sha256,
        quantiles={"local": (0.0, 0.1), "global": (0.25, 12.5)},
        threshold=0.625,
        wanted_false_reject_rate=0.001,
        false_reject_rate_interval=(0.0, 0.01),
        confidence=0.95,
        good_images=100,
        good_images_sha256="0" * 64,
        roi=None,
        made_at="2026-01-01T00:00:00Z",
        tool_version="0.1.0",
    )


class Target:
    """Every file is a calibration that can be written and read again, or refused in one line."""

    documented = (InputError,)
    longest = 2048
    words = (*yaml_text.WORDS, *Calibration.model_fields, _ENGINE)

    def __init__(self, folder: Path) -> None:
        self._path, self._again = folder / "calibration.yaml", folder / "again.yaml"

    def seeds(self) -> list[bytes]:
        calibration = sound_calibration(_ENGINE)
        write_calibration(self._path, calibration)
        other = {"roi": Roi(1, 2, 300, 200), "tiles": Tiles(64, 8), "tiled_size": Size(200, 300)}
        write_calibration(self._again, calibration.model_copy(update=other | {"model": "cover"}))
        return [self._path.read_bytes(), self._again.read_bytes()]

    def mutate(self, data: bytes, chance: Chance) -> bytes:
        return yaml_text.mutate_yaml(data, chance)

    def run(self, data: bytes) -> None:
        self._path.write_bytes(data)
        try:
            calibration = load_calibration(self._path, _ENGINE, _MAPS)
        except InputError as error:
            must_be_one_line(error, self._path)
            raise
        write_calibration(self._again, calibration)
        assert load_calibration(self._again, _ENGINE, _MAPS) == calibration
