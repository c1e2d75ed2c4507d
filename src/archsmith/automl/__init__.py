"""The whole job on a data set, as a function."""

from archsmith.automl.job import AutoResult, DataRead, Event, StageStarted, WrapUpStarted, auto

__all__ = ["AutoResult", "DataRead", "Event", "StageStarted", "WrapUpStarted", "auto"]
