"""The whole job on a data set, as a function."""

from archsmith.automl.events import DataRead, Event, StageStarted, WrapUpStarted
from archsmith.automl.job import auto
from archsmith.automl.result import AutoResult

__all__ = ["AutoResult", "DataRead", "Event", "StageStarted", "WrapUpStarted", "auto"]
