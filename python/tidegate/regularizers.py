"""Penalties on weights or outputs, each with its value and, beside it, its gradient.

A regularizer is called on an array and returns the penalty as a float; `gradient` returns the
penalty's derivative, an array of the same shape and dtype. A user's own regularizer is a subclass
that defines both (a plain function will do where nothing is trained).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from .utils import EPSILON, Array, Registry

__all__ = [
    "L1",
    "L1L2",
    "L2",
    "OrthogonalRegularizer",
    "Regularizer",
    "deserialize",
    "get",
    "l1",
    "l1_l2",
    "l2",
    "serialize",
]


class Regularizer:
    """Base class. Subclasses define `__call__`, `gradient` and `get_config`."""

    def __call__(self, x: Any) -> float:
        """The penalty on `x`."""
        raise NotImplementedError(f"{type(self).__name__}: expected a __call__ method")

    def gradient(self, x: Any) -> Array:
        """The derivative of the penalty by `x`."""
        raise NotImplementedError(f"{type(self).__name__}: training needs a gradient method")

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Regularizer:
        """The regularizer that `get_config` described."""
        return cls(**config)


def _factor(value: Any, name: str) -> float:
    if not isinstance(value, float | int | np.number) or not 0 <= value < math.inf:
        raise ValueError(
            f"Invalid value for argument {name}: expected a non-negative float. "
            f"Received: {name}={value}"
        )
    return float(value)


class L1L2(Regularizer):
    """`l1 * sum(|x|) + l2 * sum(x**2)`. The plain name `"l1_l2"` leaves both factors at 0."""

    def __init__(self, l1: float | None = 0.0, l2: float | None = 0.0) -> None:
        self.l1 = _factor(0.0 if l1 is None else l1, "l1")
        self.l2 = _factor(0.0 if l2 is None else l2, "l2")

    def __call__(self, x: Any) -> float:
        """The penalty on `x`."""
        array = np.asarray(x)
        penalty = 0.0
        if self.l1:
            penalty += self.l1 * float(np.abs(array).sum())
        if self.l2:
            penalty += self.l2 * float(np.square(array).sum())
        return penalty

    def gradient(self, x: Any) -> Array:
        """The derivative of the penalty by `x`."""
        array = np.asarray(x)
        gradient = (2.0 * self.l2) * array
        if self.l1:
            gradient += self.l1 * np.sign(array)
        return gradient

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {"l1": self.l1, "l2": self.l2}


class L1(L1L2):
    """`l1 * sum(|x|)`."""

    def __init__(self, l1: float | None = 0.01) -> None:
        super().__init__(l1=0.01 if l1 is None else l1)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {"l1": self.l1}


class L2(L1L2):
    """`l2 * sum(x**2)`."""

    def __init__(self, l2: float | None = 0.01) -> None:
        super().__init__(l2=0.01 if l2 is None else l2)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {"l2": self.l2}


class OrthogonalRegularizer(Regularizer):
    """`factor` times the mean absolute cosine between different rows (or columns) of a matrix.

    Args:
        factor: Non-negative.
        mode: `"rows"` or `"columns"`.
    """

    def __init__(self, factor: float = 0.01, mode: str = "rows") -> None:
        self.factor = _factor(factor, "factor")
        if mode not in ("rows", "columns"):
            raise ValueError(
                "Invalid value for argument `mode`. Expected one of "
                f'{{"rows", "columns"}}. Received: mode={mode}'
            )
        self.mode = mode

    def _unit_rows(self, x: Any) -> tuple[Array, Array, Array, float]:
        """Rows scaled to unit length, the scales, cosines off the diagonal, weight of each pair."""
        matrix = np.asarray(x)
        if matrix.ndim != 2:
            raise ValueError(
                "Inputs to OrthogonalRegularizer must have rank 2. "
                f"Received: inputs.shape={matrix.shape}"
            )
        if self.mode == "columns":
            matrix = matrix.T
        norms = np.sqrt(np.square(matrix).sum(axis=1, keepdims=True))
        scales = 1.0 / np.maximum(norms, EPSILON)
        rows = matrix * scales
        cosines = rows @ rows.T
        np.fill_diagonal(cosines, 0.0)
        count = len(rows)
        # One row has no pair: its penalty is 0 (where Keras divides 0 by 0).
        return rows, scales, cosines, self.factor / max(count * (count - 1), 1)

    def __call__(self, x: Any) -> float:
        """The penalty on `x`, a matrix."""
        _, _, cosines, weight = self._unit_rows(x)
        return weight * float(np.abs(cosines).sum())

    def gradient(self, x: Any) -> Array:
        """The derivative of the penalty by `x`, a matrix."""
        rows, scales, cosines, weight = self._unit_rows(x)
        d_rows = 2.0 * weight * (np.sign(cosines) @ rows)
        # Through r = x / |x|: only what is perpendicular to r changes r.
        d_x = scales * (d_rows - rows * (d_rows * rows).sum(axis=1, keepdims=True))
        gradient: Array = d_x if self.mode == "rows" else np.ascontiguousarray(d_x.T)
        return gradient

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {"factor": self.factor, "mode": self.mode}


l1 = L1
l2 = L2
l1_l2 = L1L2

_registry = Registry(
    "keras.regularizers",
    "regularizer",
    [L1, L1L2, L2, OrthogonalRegularizer],
    {"l1_l2": L1L2},
)


def serialize(regularizer: Any) -> dict[str, Any]:
    """`regularizer` as the dict that Keras's files hold."""
    return _registry.serialize(regularizer)


def deserialize(config: Any, custom_objects: Mapping[str, Any] | None = None) -> Any:
    """The regularizer that a name or a dict from `serialize` describes."""
    return _registry.deserialize(config, custom_objects)


def get(identifier: Any) -> Callable[[Any], float] | None:
    """The regularizer for a name, a dict from `serialize`, a callable, a class, or None.

    Raises:
        ValueError: It is none of these, or the name is unknown.
    """
    found: Callable[[Any], float] | None = _registry.get(identifier)
    return found
