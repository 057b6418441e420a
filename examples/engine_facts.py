"""Print what an engine file says of itself, without opening it: python engine_facts.py line3.engine."""

import sys
from pathlib import Path

from engine_runtime.engine_file import read_manifest
from foundation.errors import InputError

try:
    manifest = read_manifest(Path(sys.argv[1]))
except InputError as error:
    sys.exit(str(error))
print(f"{manifest.model}: {manifest.runtime} {manifest.runtime_version}, {manifest.precision}")
print(f"frames of {manifest.input_size}, maps of {manifest.map_size}, batches of up to {manifest.max_batch}")
print(f"built on {manifest.device} at {manifest.built_at}; model file {manifest.source_sha256[:12]}")
