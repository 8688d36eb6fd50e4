"""What weights are mapped to after each update: Keras's constraints.

A constraint is called on an array and returns the nearest allowed one, of the same shape and dtype.
`axis` names the axes a norm is taken over; 0 constrains the weights into each unit of a dense or
recurrent kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from .utils import EPSILON, Array, Registry

__all__ = [
    "Constraint",
    "MaxNorm",
    "MinMaxNorm",
    "NonNeg",
    "UnitNorm",
    "deserialize",
    "get",
    "max_norm",
    "min_max_norm",
    "non_neg",
    "serialize",
    "unit_norm",
]


class Constraint:
    """Base class. Subclasses define `__call__`, and `get_config` if they take arguments."""

    def __call__(self, w: Any) -> Array:
        """The allowed array for `w`; here `w` itself."""
        return np.asarray(w)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Constraint:
        """The constraint that `get_config` described."""
        return cls(**config)


def _norms(w: Array, axis: int | Sequence[int]) -> Array:
    over = axis if isinstance(axis, int) else tuple(axis)
    norms: Array = np.sqrt(np.square(w).sum(axis=over, keepdims=True))
    return norms


class NonNeg(Constraint):
    """Negative weights become 0."""

    def __call__(self, w: Any) -> Array:
        """`max(w, 0)`."""
        return np.maximum(w, 0)


class UnitNorm(Constraint):
    """Norms become 1."""

    def __init__(self, axis: int | Sequence[int] = 0) -> None:
        self.axis = axis

    def __call__(self, w: Any) -> Array:
        """`w` scaled to norms of 1."""
        w = np.asarray(w)
        return w / (EPSILON + _norms(w, self.axis))

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {"axis": self.axis}


class MaxNorm(Constraint):
    """Norms above `max_value` become `max_value`."""

    def __init__(self, max_value: float = 2, axis: int | Sequence[int] = 0) -> None:
        self.max_value = max_value
        self.axis = axis

    def __call__(self, w: Any) -> Array:
        """`w` with norms of at most `max_value`."""
        w = np.asarray(w)
        norms = _norms(w, self.axis)
        return w * (np.clip(norms, 0, self.max_value) / (EPSILON + norms))

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {"max_value": self.max_value, "axis": self.axis}


class MinMaxNorm(Constraint):
    """Norms move towards [`min_value`, `max_value`], by the fraction `rate` of the way."""

    def __init__(
        self,
        min_value: float = 0.0,
        max_value: float = 1.0,
        rate: float = 1.0,
        axis: int | Sequence[int] = 0,
    ) -> None:
        self.min_value = min_value
        self.max_value = max_value
        self.rate = rate
        self.axis = axis

    def __call__(self, w: Any) -> Array:
        """`w` with norms nearer to the interval."""
        w = np.asarray(w)
        norms = _norms(w, self.axis)
        inside = np.clip(norms, self.min_value, self.max_value)
        desired = self.rate * inside + (1 - self.rate) * norms
        return w * (desired / (EPSILON + norms))

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {
            "min_value": self.min_value,
            "max_value": self.max_value,
            "rate": self.rate,
            "axis": self.axis,
        }


max_norm = MaxNorm
min_max_norm = MinMaxNorm
non_neg = NonNeg
unit_norm = UnitNorm

_registry = Registry("keras.constraints", "constraint", [MaxNorm, MinMaxNorm, NonNeg, UnitNorm])


def serialize(constraint: Any) -> dict[str, Any]:
    """`constraint` as the dict that Keras's files hold."""
    return _registry.serialize(constraint)


def deserialize(config: Any, custom_objects: Mapping[str, Any] | None = None) -> Any:
    """The constraint that a name or a dict from `serialize` describes."""
    return _registry.deserialize(config, custom_objects)


def get(identifier: Any) -> Callable[[Any], Array] | None:
    """The constraint for a name, a dict from `serialize`, a callable, a class, or None.

    Raises:
        ValueError: It is none of these, or the name is unknown.
    """
    found: Callable[[Any], Array] | None = _registry.get(identifier)
    return found
