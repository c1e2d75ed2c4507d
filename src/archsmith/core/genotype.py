"""The genotype: the answers to a space's choices, as plain JSON that is readable and loadable next year."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

from archsmith.core.checks import PLAIN, Array, python_scalar
from archsmith.core.errors import IllegalGenotype
from archsmith.core.shown import shown

Scalar: TypeAlias = str | int | float | bool | None
"""What one option of a choice may be."""

Answer: TypeAlias = Scalar | list[Scalar]
"""The option taken, or for a subset the list of options taken, in option order."""

Architecture: TypeAlias = Any
"""What a genotype describes, as plain data: dicts, lists and scalars that JSON can hold."""


def canonical_json(value: object) -> str:
    """One text for equal values: keys sorted, no spaces, NaN refused."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def same_json(a: Any, b: Any) -> bool:
    """Whether two values are the same JSON text: True is not 1, 1.0 is not 1, and -0.0 is not 0.0."""
    if a is b:
        return True
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return a.keys() == b.keys() and all(same_json(value, b[key]) for key, value in a.items())
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(map(same_json, a, b))
    return type(a) is type(b) and bool(a == b) and (a != 0 or repr(a) == repr(b))


def read_json(text: str) -> Any:
    """The value of a JSON text. Raises ValueError for what would mean one thing to one reader and another to the next: a key
    that stands twice in an object, and numbers that are none; RecursionError for one nested without end."""
    return json.loads(text, object_pairs_hook=_object, parse_constant=_no_number)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {shown(next(key for key in keys if keys.count(key) > 1))} stands twice in an object")
    return value


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no number that JSON has")


def _is_plain(answers: Mapping[str, Any]) -> bool:
    types = set(map(type, answers.values()))
    if list not in types:
        return types <= PLAIN
    lists = (answer for answer in answers.values() if type(answer) is list)
    return types - {list} <= PLAIN and all(PLAIN.issuperset(map(type, answer)) for answer in lists)


def _plain(answer: Any) -> Any:
    if isinstance(answer, Iterable) and (
        isinstance(answer, list | tuple) or (isinstance(answer, Array) and answer.ndim == 1)
    ):
        return [python_scalar(member) for member in answer]
    return python_scalar(answer)


class Genotype:
    """Answers to the choices of a space, with the space's identity (its name, version and options).

    Immutable by convention, and cheap to make: the canonical text and the key are computed when first asked for.
    Two genotypes are equal when their canonical texts are. Answers that are scalars or arrays of NumPy and the like, or
    tuples, become plain JSON.
    """

    __slots__ = ("_canonical", "answers", "space")

    def __init__(self, space: Mapping[str, Any], answers: Mapping[str, Answer]) -> None:
        self.space = space
        self.answers = answers if _is_plain(answers) else {name: _plain(answer) for name, answer in answers.items()}
        self._canonical: str | None = None

    @property
    def canonical(self) -> str:
        """The canonical JSON text: equal genotypes have equal texts."""
        if self._canonical is None:
            self._canonical = canonical_json(self.to_json())
        return self._canonical

    @property
    def key(self) -> str:
        """A short name for it: the first 12 hexadecimal digits of the SHA-256 of its canonical text."""
        return hashlib.sha256(self.canonical.encode(errors="surrogatepass")).hexdigest()[:12]

    def to_json(self) -> dict[str, Any]:
        """`{"space": {"name", "version", "options"}, "answers": {name: value}}`, answers in the order asked."""
        return {"space": dict(self.space), "answers": dict(self.answers)}

    @classmethod
    def from_json(cls, value: object) -> Genotype:
        """The genotype that `to_json` wrote.

        Raises IllegalGenotype when the value has another shape; whether the answers are legal, only the space knows
        (`archsmith.core.space.decode`).
        """
        if isinstance(value, str):
            try:
                value = read_json(value)
            except (ValueError, RecursionError) as error:  # also a number of thousands of digits
                raise IllegalGenotype(f"a genotype must be JSON, and this text is not: {error}") from None
        if not isinstance(value, Mapping) or set(value) != {"space", "answers"}:
            found = shown(list(value)) if isinstance(value, Mapping) else type(value).__name__
            raise IllegalGenotype(f'a genotype must be an object with the keys "space" and "answers", got {found}')
        space, answers = value["space"], value["answers"]
        if not isinstance(space, Mapping) or not isinstance(space.get("name"), str):
            raise IllegalGenotype(f'the "space" of a genotype must be an object with a "name", got {shown(space)}')
        if not isinstance(answers, Mapping):
            raise IllegalGenotype(f'the "answers" of a genotype must be an object, got {type(answers).__name__}')
        return cls(dict(space), dict(answers))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Genotype) and self.canonical == other.canonical

    def __hash__(self) -> int:
        return hash(self.canonical)

    def __repr__(self) -> str:
        return f"Genotype({self.space['name']}, {len(self.answers)} answers, key={self.key})"
