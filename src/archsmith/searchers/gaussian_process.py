"""A Gaussian process over answers: what Bayesian optimization believes of genotypes that were not tried.

Two kernels are mixed, in a share that is learned:

- COMBO's, the diffusion kernel on the complete graph of each question's options (Oh et al. 2019): two genotypes are
  alike by a factor exp(-w_q) for each question q that they answer differently;
- one that counts which options were taken how often, over all questions of a kind, wherever they stand, as NAS-BOWL's
  kernel does before its first iteration (Ru et al. 2021): a factor exp(-v) for each that differs. It learns after few results that
  a network wants convolutions, before it is known where.

Each member of a subset is a question of its own with the weight of its subset; a question that only one of two genotypes
was asked is half a difference.

The weights, the share and the noise are those of the highest posterior density, found by some steps of Adam; the amplitude of
the highest likelihood follows from them. COMBO samples them, which takes longer.
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

SPREAD = 1.0  # standard deviation of the parameters' logarithms, and of the share's logit, before anything is known
NOISE = 0.05  # what is expected of the noise, as a share of the amplitude
STEPS, RATE = 30, 0.1  # of Adam


class Encoder:
    """Answers as columns of zeros and ones, one for each option that was met."""

    def __init__(self, columns: Sequence[tuple[str, str, str]] = ()) -> None:
        self.columns: list[tuple[str, str, str]] = []  # of each: its question, the kind of that, its answer as JSON
        self.kinds: dict[str, str] = {}  # of questions; a question's must be there before it is encoded
        self.options: dict[tuple[str, str], int] = {}  # kinds with answers
        self.option_of: list[int] = []
        self.questions: dict[str, int] = {}  # by name
        self.question_of: list[int] = []
        self.share: list[float] = []  # of the question's weight, that a difference in this column is
        self._place: dict[tuple[str, str], int] = {}
        self._met: dict[tuple[str, type, object], int] = {}  # the same by answer, which is faster
        for question, kind, text in columns:
            self.kinds[question] = kind
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
            kind = self.kinds[name]
            self.columns.append((name, kind, text))
            self.option_of.append(self.options.setdefault((kind, text), len(self.options)))
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
        self.log_weights: list[float] = []  # w by question, as far as they were fitted
        self.others: list[float] = []  # log v, the logit of the second kernel's share, log noise; empty before a fit

    @property
    def noise(self) -> float:
        """The variance of a result that nothing explains, as a share of what genotypes vary by."""
        return math.exp(self.others[2]) if self.others else NOISE

    def _parameters(self, *, fitted: bool = True) -> Floats:
        """[questions + 3], what was fitted and what is expected of the rest: weights are less, the more questions there
        are, so that near ones stay alike."""
        expected = math.log(2.0 / math.sqrt(max(len(self.encoder.questions), 1)))
        weights, others = (self.log_weights, self.others) if fitted else ([], [])
        new = len(self.encoder.questions) - len(weights)
        return np.array(weights + [expected] * new + (others or [expected, 0.0, math.log(NOISE)]))

    def fit(self, x: Floats, y: Floats) -> None:
        """Move everything up the posterior density, given results y [n] with mean 0 and variance 1."""
        prior, p = self._parameters(fitted=False), self._parameters()
        n, question_of = len(y), np.array(self.encoder.question_of)
        apart = Apart(self.encoder, x, x)
        m, v = np.zeros_like(p), np.zeros_like(p)
        for t in range(1, STEPS + 1):
            likeness = Likeness(self.encoder, p)
            placed, counted = apart.placed(likeness.columns), np.exp(-likeness.v * apart.counted)
            share, noise = likeness.share, math.exp(p[-1])
            inverse = np.linalg.inv((1 - share) * placed + share * counted + noise * np.eye(n))
            alpha = inverse @ y
            slope = np.outer(alpha, alpha) / _amplitude(y, alpha) - inverse  # twice d log likelihood / d K
            at = -(1 - share) * slope * placed
            by_column = likeness.columns * (at.sum(1) @ x - ((at @ x) * x).sum(0))
            others = (
                -0.5 * share * likeness.v * (slope * counted * apart.counted).sum(),
                0.5 * share * (1 - share) * (slope * (counted - placed)).sum(),
                0.5 * noise * np.trace(slope),
            )
            gradient = np.append(np.bincount(question_of, by_column, len(p) - 3), others) - (p - prior) / SPREAD**2
            m = 0.9 * m + 0.1 * gradient
            v = 0.99 * v + 0.01 * gradient**2
            p = p + RATE * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.99**t)) + 1e-8)
        self.log_weights, self.others = p[:-3].tolist(), p[-3:].tolist()

    def believe(self, x: Floats, y: Floats) -> Belief:
        """What results y [n] of the rows x [n, columns] say of others."""
        return Belief(Likeness(self.encoder, self._parameters()), x, y, self.noise)


class Likeness:
    """The kernel, without its amplitude: from parameters as `GaussianProcess` has them."""

    def __init__(self, encoder: Encoder, parameters: Floats) -> None:
        self._encoder = encoder
        self.columns: Floats = np.array(encoder.share) * np.exp(parameters[:-3])[np.array(encoder.question_of)]
        self.v = math.exp(parameters[-3])
        self.share = 1.0 / (1.0 + math.exp(-parameters[-2]))

    def __call__(self, x: Floats, y: Floats) -> Floats:
        """[rows of x, rows of y]"""
        apart = Apart(self._encoder, x, y)
        return (1 - self.share) * apart.placed(self.columns) + self.share * np.exp(-self.v * apart.counted)


class Apart:
    """How far rows are apart from others."""

    def __init__(self, encoder: Encoder, x: Floats, y: Floats) -> None:
        self._x, self._y = x, y
        share, option_of = np.array(encoder.share), np.array(encoder.option_of)
        a, b = (_counts(rows * share, option_of) for rows in (x, y))
        self.counted = np.zeros((len(x), len(y)))
        for option in range(a.shape[1]):
            self.counted += np.abs(a[:, option, None] - b[None, :, option])

    def placed(self, columns: Floats) -> Floats:
        """The first kernel, exp(-sum_c columns_c [x_c != y_c])."""
        x, y = self._x, self._y
        apart = (x @ columns)[:, None] + (y @ columns)[None, :] - 2.0 * (x * columns) @ y.T
        likeness: Floats = np.exp(-np.maximum(apart, 0.0))
        return likeness


def _counts(rows: Floats, option_of: npt.NDArray[np.int64]) -> Floats:
    """How often each option of each kind was taken [rows, options]."""
    counts = np.zeros((len(rows), int(option_of.max(initial=-1)) + 1))
    np.add.at(counts.T, option_of, rows.T)
    return counts


class Belief:
    """Means and standard deviations of rows, given results."""

    def __init__(self, like: Likeness, x: Floats, y: Floats, noise: float) -> None:
        self._like, self._x = like, x
        self._inverse = np.linalg.inv(like(x, x) + noise * np.eye(len(y)))
        self._alpha = self._inverse @ y
        self._amplitude = _amplitude(y, self._alpha)

    def mean(self, x: Floats) -> Floats:
        """The means [rows]."""
        mean: Floats = self._like(x, self._x) @ self._alpha
        return mean

    def __call__(self, x: Floats) -> tuple[Floats, Floats]:
        """Means and standard deviations [rows], without the noise of a result."""
        like = self._like(x, self._x)
        variance = 1.0 - ((like @ self._inverse) * like).sum(1)
        return like @ self._alpha, np.sqrt(self._amplitude * np.maximum(variance, 1e-10))


def _amplitude(y: Floats, alpha: Floats) -> float:
    return max(float(y @ alpha) / len(y), 1e-6)
