from importlib.resources import files
from typing import Final

NODESET: Final = files("plant.outputs.opcua") / "Opc.Ua.MachineVision.NodeSet2.xml"
"""The information model of OPC 40100-1 as the OPC Foundation publishes it, under its MIT licence."""
