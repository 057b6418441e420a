"""What every manifest says of its graph and its payload, whatever runs them."""

import hashlib
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from engine_build.graph import Graph
from engine_runtime.manifest import FORMAT_VERSION
from engine_runtime.proof import Reference


def described(graph: Graph, reference: Reference, payload: bytes) -> dict[str, Any]:
    """Give the manifest's entries that follow from the graph, its reference and the payload."""
    return {
        "format_version": FORMAT_VERSION,
        "model": graph.name,
        "input_size": graph.input_size,
        "map_size": reference.map_size,
        "outputs": graph.outputs,
        "maps": graph.maps,
        "payload_sha256": hashlib.sha256(payload).hexdigest(),
        "source_sha256": graph.source_sha256,
        "model_metadata": graph.metadata,
        "built_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "tool_version": version("inspectd"),
    }
