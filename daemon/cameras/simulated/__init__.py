"""A camera that needs no hardware: machined flanges on a belt, with defects of known kind and place."""

from daemon.cameras.simulated.line import SimulatedLine
from daemon.cameras.simulated.part import DEFECTS, Part

__all__ = ["DEFECTS", "Part", "SimulatedLine"]
