"""Keras's named activations, each with its derivative.

The elementwise ones run in the engine, and those a recurrent layer may use inside its cell; the
others (softmax, and a few rare ones in NumPy) serve in `Dense` and `Activation`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from . import _core

__all__ = ["ActivationFunction", "deserialize", "get", "serialize"]

Array = np.ndarray[Any, np.dtype[Any]]


class ActivationFunction:
    """A known activation: `f(x)`, and `f.backward(x, d_outputs)` for the gradient of x.

    Args:
        name: Keras's name, which is also the engine's if `forward` is not given.
        forward: NumPy function of x, for those the engine does not have.
        gradient: NumPy function of (x, d_outputs); needed with `forward`.
    """

    def __init__(
        self,
        name: str,
        forward: Callable[[Array], Array] | None = None,
        gradient: Callable[[Array, Array], Array] | None = None,
    ) -> None:
        self.__name__ = name
        self._forward = forward
        self._gradient = gradient

    @property
    def in_engine(self) -> bool:
        """Whether a cell may use it: elementwise and known to the engine."""
        return self._forward is None

    def __call__(self, x: Any) -> Array:
        """The activation of `x`, an array of any shape; integers are taken as float32."""
        x = _floating(x)
        if self._forward is not None:
            return self._forward(x)
        return _core.activation(self.__name__, x)

    def backward(self, x: Array, d_outputs: Array) -> Array:
        """The gradient of `x`, the argument of the call, from that of its result."""
        if self._gradient is not None:
            return self._gradient(x, d_outputs)
        return _core.activation_backward(self.__name__, x, np.ascontiguousarray(d_outputs))

    def __repr__(self) -> str:
        return f"<activation {self.__name__}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return get, (self.__name__,)  # there is one of each, also after a copy


def _floating(x: Any) -> Array:
    array = np.asarray(x)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"activation: expected numbers, got dtype {array.dtype}")
    if array.dtype not in (np.float32, np.float64):
        array = array.astype(np.float32)
    return np.ascontiguousarray(array)


# ---- The ones that are not elementwise, or rare ------------------------------


def _softmax(x: Array) -> Array:
    if x.ndim < 2:
        raise ValueError(f"softmax: expected at least 2 dimensions, got shape {x.shape}")
    return _core.softmax(x)


def _softmax_gradient(x: Array, d: Array) -> Array:
    y = _softmax(x)
    return y * (d - (d * y).sum(axis=-1, keepdims=True))


def _log_softmax(x: Array) -> Array:
    return _core.log_softmax(x)


def _log_softmax_gradient(x: Array, d: Array) -> Array:
    return d - np.exp(_log_softmax(x)) * d.sum(axis=-1, keepdims=True)


def _squareplus(x: Array) -> Array:
    return (x + np.sqrt(x * x + 4)) / 2


def _squareplus_gradient(x: Array, d: Array) -> Array:
    return d * (1 + x / np.sqrt(x * x + 4)) / 2


def _soft_shrink(x: Array) -> Array:
    return np.sign(x) * np.maximum(np.abs(x) - x.dtype.type(0.5), 0)


def _hard_shrink(x: Array) -> Array:
    return np.where(np.abs(x) > 0.5, x, x.dtype.type(0))


def _shrink_gradient(x: Array, d: Array) -> Array:
    return np.where(np.abs(x) > 0.5, d, d.dtype.type(0))


def _sparse_plus(x: Array) -> Array:
    return np.where(x <= -1, 0, np.where(x < 1, (x + 1) ** 2 / 4, x)).astype(x.dtype)


def _sparse_plus_gradient(x: Array, d: Array) -> Array:
    return d * np.clip((x + 1) / 2, 0, 1)


def _sparse_sigmoid(x: Array) -> Array:
    return np.clip((x + 1) / 2, 0, 1)


def _sparse_sigmoid_gradient(x: Array, d: Array) -> Array:
    return np.where(np.abs(x) < 1, d / 2, d.dtype.type(0))


_ENGINE = [
    "linear",
    "relu",
    "relu6",
    "leaky_relu",
    "elu",
    "selu",
    "celu",
    "gelu",
    "gelu_tanh",
    "silu",
    "sigmoid",
    "hard_sigmoid",
    "hard_sigmoid_keras2",
    "hard_silu",
    "hard_tanh",
    "tanh",
    "softplus",
    "softsign",
    "exponential",
    "mish",
    "log_sigmoid",
    "tanh_shrink",
]

_KNOWN = {name: ActivationFunction(name) for name in _ENGINE} | {
    name: ActivationFunction(name, forward, gradient)
    for name, forward, gradient in (
        ("softmax", _softmax, _softmax_gradient),
        ("log_softmax", _log_softmax, _log_softmax_gradient),
        ("squareplus", _squareplus, _squareplus_gradient),
        ("soft_shrink", _soft_shrink, _shrink_gradient),
        ("hard_shrink", _hard_shrink, _shrink_gradient),
        ("sparse_plus", _sparse_plus, _sparse_plus_gradient),
        ("sparse_sigmoid", _sparse_sigmoid, _sparse_sigmoid_gradient),
    )
}
_ALIASES = {"swish": "silu", "hard_swish": "hard_silu"}


def __getattr__(name: str) -> ActivationFunction:
    """`activations.tanh` and so on, by Keras's names."""
    try:
        return _KNOWN[_ALIASES.get(name, name)]
    except KeyError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None


def get(identifier: Any) -> Any:
    """The activation for a name, a config, a callable or None (which is "linear").

    Raises:
        ValueError: It is none of these.
    """
    if identifier is None:
        return _KNOWN["linear"]
    name = identifier
    if isinstance(identifier, Mapping):
        name = identifier.get("config", identifier.get("class_name"))
        if isinstance(name, Mapping):
            name = identifier.get("class_name")
    elif getattr(identifier, "__module__", "").startswith("keras."):
        name = getattr(identifier, "__name__", identifier)  # Keras's own function object
    if isinstance(name, str):
        known = _KNOWN.get(_ALIASES.get(name, name))
        if known is not None:
            return known
    elif callable(identifier):
        return identifier
    raise ValueError(f"Could not interpret activation function identifier: {identifier}")


def serialize(activation: Any) -> str:
    """The name of `activation`, as configs hold it.

    Raises:
        ValueError: It is a function of the user's that has no name here.
    """
    if isinstance(activation, ActivationFunction):
        return activation.__name__
    raise ValueError(
        f"activation: expected one of Keras's named activations in a config, got {activation!r}"
    )


def deserialize(config: Any, custom_objects: Mapping[str, Any] | None = None) -> Any:
    """The activation that `config` describes; names in `custom_objects` come first."""
    if custom_objects and isinstance(config, str) and config in custom_objects:
        return custom_objects[config]
    return get(config)


def engine_name(activation: Any, layer: str, argument: str) -> str:
    """The engine's name of `activation`, for the cells.

    Raises:
        ValueError: It is not elementwise, or not one the engine knows.
    """
    if isinstance(activation, ActivationFunction) and activation.in_engine:
        return activation.__name__
    name = getattr(activation, "__name__", repr(activation))
    raise ValueError(
        f"{layer}: expected `{argument}` to be an elementwise activation known by name "
        f"({', '.join(_ENGINE)}), got {name}"
    )
