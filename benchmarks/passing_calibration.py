"""A calibration that lets every part pass, for benchmarks that are not about judging."""

from pathlib import Path

from calibration.calibration_file import Calibration, write_calibration
from engine_runtime.engine_file import read_manifest


def write_passing_calibration(path: Path, engine: Path) -> None:
    """Write one that belongs to an engine."""
    manifest = read_manifest(engine)
    calibration = Calibration(
        format_version=1,
        model=manifest.model,
        engine_sha256=manifest.payload_sha256,
        quantiles=dict.fromkeys(manifest.maps, (0.0, 0.1)),
        threshold=1e9,
        wanted_false_reject_rate=0.0,
        false_reject_rate_interval=(0.0, 1.0),
        confidence=0.9,
        good_images=1,
        good_images_sha256="0" * 64,
        roi=None,
        made_at="2026-01-01T00:00:00Z",
        tool_version="benchmark",
    )
    write_calibration(path, calibration)
