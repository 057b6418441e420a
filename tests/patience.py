"""How long tests wait for what must come."""

PATIENCE_S = 120.0
"""Only a failure takes as long: beside other work a start alone may take half a minute."""
