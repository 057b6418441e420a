"""A camera that needs no hardware: machined flanges on a belt, with defects of known kind and place."""

from daemon.capture.drivers.simulated.line import SimulatedLine
from daemon.capture.drivers.simulated.part import DEFECTS, LOGICAL_DEFECTS, Part

__all__ = ["DEFECTS", "LOGICAL_DEFECTS", "Part", "SimulatedLine"]
