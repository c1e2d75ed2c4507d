"""A Gaussian process over answers: what Bayesian optimization believes of genotypes that were not tried.

The kernel is COMBO's, the diffusion kernel on the complete graph of each question's options (Oh et al. 2019, section
2.2): two genotypes are alike by a factor exp(-w_q) for each question q that they answer differently. Each member of a subset
is a question of its own with the weight of its subset; a question that only one of two genotypes was asked is half a difference.

    k(x, y) = amplitude * exp(-sum_q w_q [x_q != y_q]) + noise [x is y]

The weights and the noise are those of the highest posterior density, found by some steps of Adam; the amplitude of the highest
likelihood follows from them. COMBO samples them, which takes longer.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from archsmith.core.genotype import Answer

Floats: TypeAlias = npt.NDArray[np.float64]
Columns: TypeAlias = tuple[int, ...]
"""A genotype as the columns that are 1 for it, ascending: equal genotypes have equal ones."""

SPREAD = 1.0  # standard deviation of the logarithms of weights and noise, before anything is known
NOISE = 0.05  # what is expected of the noise, as a share of the amplitude
STEPS, RATE = 30, 0.1  # of Adam


class Encoder:
    """Answers as columns of zeros and ones, one for each option that was met."""

    def __init__(self, columns: Sequence[tuple[str, str]] = ()) -> None:
        self.columns: list[tuple[str, str]] = []  # of each: its question, and its answer as JSON
        self.questions: dict[str, int] = {}  # by name
        self.question_of: list[int] = []
        self.share: list[float] = []  # of the question's weight, that a difference in this column is
        self._place: dict[tuple[str, str], int] = {}
        self._met: dict[tuple[str, type, object], int] = {}  # the same by answer, which is faster
        for question, text in columns:
            self._make(question, text)

    def encode(self, answers: Mapping[str, Answer]) -> Columns:
        """The columns of a genotype; those that are new are added."""
        found = []
        for name, answer in answers.items():
            if isinstance(answer, list | tuple):
                # That a subset was asked is a column as well, or an empty one would be as one that was not asked.
                found.append(self._column(name, list, None))
                found += [self._column(name, list, member, type(member)) for member in answer]
            else:
                found.append(self._column(name, type(answer), answer))
        return tuple(sorted(found))

    def _column(self, name: str, form: type, value: object, of: type | None = None) -> int:
        key = (name, form, value if of is None else (of, value))
        column = self._met.get(key)
        if column is None:
            text = json.dumps(value if form is not list else [] if of is None else [value])
            column = self._met[key] = self._make(name, text)
        return column

    def _make(self, name: str, text: str) -> int:
        column = self._place.get((name, text))
        if column is None:
            column = self._place[name, text] = len(self.columns)
            self.columns.append((name, text))
            self.question_of.append(self.questions.setdefault(name, len(self.questions)))
            # A choice that is answered differently differs in two columns, a member of a subset in one.
            self.share.append(1.0 if text.startswith("[") and text != "[]" else 0.5)
        return column

    def table(self, rows: Sequence[Columns]) -> Floats:
        """Zeros and ones [rows, columns]."""
        table = np.zeros((len(rows), len(self.columns)))
        for row, columns in zip(table, rows, strict=True):
            row[list(columns)] = 1.0
        return table


class GaussianProcess:
    """Weights of an encoder's questions, and what they make of results.

    Args:
        encoder: whose columns the tables have.
    """

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder
        self.log_weights: list[float] = []  # by question, as far as they were fitted
        self.log_noise = math.log(NOISE)

    def fit(self, x: Floats, y: Floats) -> None:
        """Move weights and noise up the posterior density, given results y [n] with mean 0 and variance 1."""
        n, question_of = len(y), np.array(self.encoder.question_of)
        num_questions = len(self.encoder.questions)
        share = np.array(self.encoder.share)
        prior = np.append(np.full(num_questions, self._expected()), math.log(NOISE))
        p = np.append(self._all_log_weights(), self.log_noise)
        m, v = np.zeros_like(p), np.zeros_like(p)
        for t in range(1, STEPS + 1):
            a = share * np.exp(p[:-1])[question_of]
            like = _likeness(x, x, a)
            inverse = np.linalg.inv(like + np.exp(p[-1]) * np.eye(n))
            alpha = inverse @ y
            slope = np.outer(alpha, alpha) / _amplitude(y, alpha) - inverse  # twice d log likelihood / d K
            at = -slope * like
            by_column = a * (at.sum(1) @ x - ((at @ x) * x).sum(0))
            gradient = np.append(
                np.bincount(question_of, by_column, num_questions), 0.5 * np.trace(slope) * math.exp(p[-1])
            )
            gradient -= (p - prior) / SPREAD**2
            m = 0.9 * m + 0.1 * gradient
            v = 0.99 * v + 0.01 * gradient**2
            p = p + RATE * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.99**t)) + 1e-8)
        self.log_weights, self.log_noise = p[:-1].tolist(), float(p[-1])

    def _expected(self) -> float:
        """The weight that is expected of a question: less, the more there are, so that near ones stay alike."""
        return math.log(2.0 / math.sqrt(max(len(self.encoder.questions), 1)))

    def _all_log_weights(self) -> Floats:
        new = len(self.encoder.questions) - len(self.log_weights)
        return np.array(self.log_weights + [self._expected()] * new)

    def believe(self, x: Floats, y: Floats) -> Belief:
        """What results y [n] of the rows x [n, columns] say of others."""
        weights = np.exp(self._all_log_weights())
        a = np.array(self.encoder.share) * weights[np.array(self.encoder.question_of)]
        return Belief(x, y, a, math.exp(self.log_noise))


class Belief:
    """Means and standard deviations of rows, given results."""

    def __init__(self, x: Floats, y: Floats, a: Floats, noise: float) -> None:
        self._x, self._a, self._noise = x, a, noise
        self._inverse = np.linalg.inv(_likeness(x, x, a) + noise * np.eye(len(y)))
        self._alpha = self._inverse @ y
        self._amplitude = _amplitude(y, self._alpha)

    def mean(self, x: Floats) -> Floats:
        """The means [rows]."""
        mean: Floats = _likeness(x, self._x, self._a) @ self._alpha
        return mean

    def __call__(self, x: Floats) -> tuple[Floats, Floats]:
        """Means and standard deviations [rows], without the noise of a result."""
        like = _likeness(x, self._x, self._a)
        variance = 1.0 - ((like @ self._inverse) * like).sum(1)
        return like @ self._alpha, np.sqrt(self._amplitude * np.maximum(variance, 1e-10))


def _likeness(x: Floats, y: Floats, a: Floats) -> Floats:
    """exp(-sum_c a_c [x_c != y_c]), [rows of x, rows of y]."""
    apart = (x @ a)[:, None] + (y @ a)[None, :] - 2.0 * (x * a) @ y.T
    likeness: Floats = np.exp(-np.maximum(apart, 0.0))
    return likeness


def _amplitude(y: Floats, alpha: Floats) -> float:
    return max(float(y @ alpha) / len(y), 1e-6)
