"""JSON schemas of the two YAML files, with which editors complete keys and mark mistakes while one types."""

import json
from typing import Any, Final, Literal

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema

from calibration.calibration_file import Calibration
from daemon.config import Config
from pictures.frames import Roi

Kind = Literal["config", "calibration"]
_MODELS: Final[dict[Kind, type[BaseModel]]] = {"config": Config, "calibration": Calibration}


def schema_text(kind: Kind) -> str:
    """Give the schema of the config or of the calibration as JSON, with a line break at its end."""
    schema = _MODELS[kind].model_json_schema()
    schema["$schema"] = GenerateJsonSchema.schema_dialect
    _allow_names(schema["$defs"])
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def _allow_names(definitions: dict[str, Any]) -> None:
    """Let a region be written with the names of its sides, as in the examples; pydantic knows rows only."""
    row = definitions["Roi"]
    sides = dict(zip(Roi._fields, row["prefixItems"], strict=True))
    named = {"type": "object", "properties": sides, "required": [*sides], "additionalProperties": False}
    definitions["Roi"] = {"anyOf": [named, row]}
