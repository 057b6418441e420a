"""JSON schema of the config, with which editors complete keys and mark mistakes while one types."""

import json

from pydantic.json_schema import GenerateJsonSchema

from fleet.config import FleetConfig


def schema_text() -> str:
    """Give the schema as JSON, with a line break at its end."""
    schema = FleetConfig.model_json_schema()
    schema["$schema"] = GenerateJsonSchema.schema_dialect
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"
