"""Scenario files: one question each, read, checked to the last key, and spread into runs."""

from fedemu.scenario.file import Experiment, as_yaml, differences, foreign, load, parse, schema
from fedemu.scenario.grid import Cell
from fedemu.scenario.sections import Scenario

__all__ = ["Cell", "Experiment", "Scenario", "as_yaml", "differences", "foreign", "load", "parse", "schema"]
