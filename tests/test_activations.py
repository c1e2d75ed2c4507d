"""Activation functions: the language, modules, the space, its children, and exhaustive search (Ramachandran et al. 2017)."""

from __future__ import annotations

import copy
import itertools
import math
import pickle
import random
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import archsmith as smith
from archsmith.core.child import Task, TextTask
from archsmith.core.errors import ChildFailed, IllegalExpression, UnknownName, UsageError
from archsmith.core.expression import Expression
from archsmith.core.parts import PartSpace
from archsmith.core.space import FunctionSpace, build, decode, enumerate_genotypes, sample, space_size
from archsmith.core.walk import Choose
from archsmith.nn.activation import ActivationFunction, with_activation
from archsmith.nn.activation_language import ACTIVATIONS, BINARY, UNARY, is_constant, slope_at, value_at
from archsmith.nn.count import count_parameters
from archsmith.nn.models import model_named
from archsmith.report.draw import draw
from archsmith.searchers import Exhaustive
from archsmith.spaces import Activation, ConvChain, GrownGraph, Product, UpdateRule
from archsmith.testing.evaluator import RecordingContext
from archsmith.testing.searcher import SearcherContract
from archsmith.testing.space import SpaceContract
from archsmith.training import ImageClassification

L = ACTIVATIONS
X = L.make("x")
SMALL = Task((1, 8, 8), 10)


class TestActivation(SpaceContract):
    def space(self) -> Activation:
        # Without the options that make constants, and so no child.
        unary = ("x", "-x", "x^2", "beta*x", "sigmoid", "max(x,0)", "sin")
        return Activation(model="convnet2_small", units=2, unary=unary, binary=("x*y", "max", "sigmoid(x)*y"))

    def wrong_architectures(self) -> list[Any]:
        right = self.space().from_expression("relu(x)")
        return [
            None,
            {},
            "x",
            {**right, "kind": "update_rule"},
            {**right, "language": {"name": "activation functions", "version": 2}},
            {**right, "language": {"name": "activation functions", "version": True}},
            {**right, "language": None},
            {**right, "function": ["swish", "x"]},
            {**right, "function": ["exp", "x", "x"]},
            {**right, "function": ["exp"]},
            {**right, "function": math.nan},
            {**right, "more": 1},
        ]


class TestExhaustive(SearcherContract):
    def searcher(self) -> Exhaustive:
        return Exhaustive()

    def wrong(self) -> Sequence[Callable[[], object]]:
        return (
            lambda: Exhaustive(shuffle=1),  # type: ignore[arg-type]
            lambda: Exhaustive().start(GrownGraph(), 0),
            lambda: Exhaustive().start(Activation(units=2), 0),
        )
