"""Small layers without weights: `Input`, `Masking`, `Dropout`, `Activation`, `Flatten`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from .. import activations
from ..utils import make_generator
from .base import Array, Layer, standard_shape
from .cells import inverted_dropout
from .dense import activation_backward

__all__ = ["Activation", "Dropout", "Flatten", "Input", "InputLayer", "Masking"]


class InputLayer(Layer):
    """The first entry of a `Sequential`, which says what its inputs look like; see `Input`."""

    def __init__(
        self,
        shape: Any = None,
        batch_size: int | None = None,
        dtype: Any = None,
        batch_shape: Any = None,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        for known, neutral in (("sparse", False), ("ragged", False), ("optional", False)):
            if kwargs.pop(known, neutral) not in (neutral, None):
                raise ValueError(f"Input: expected `{known}` to be {neutral}; there is no other")
        if shape is not None and batch_shape is not None:
            raise ValueError("You cannot pass both `shape` and `batch_shape` at the same time.")
        if batch_size is not None and batch_shape is not None:
            raise ValueError(
                "You cannot pass both `batch_size` and `batch_shape` at the same time."
            )
        if shape is None and batch_shape is None:
            raise ValueError("You must pass a `shape` argument.")
        super().__init__(name=name, **kwargs)
        self._input_dtype = "float32" if dtype is None else np.dtype(dtype).name
        if shape is not None:
            shape = (shape,) if isinstance(shape, int) else shape
            batch_shape = (batch_size, *standard_shape(shape, "Input shape"))
        self.batch_shape = standard_shape(batch_shape, "Input batch_shape")
        self.built = True

    @property
    def dtype(self) -> str:
        """The name of the inputs' dtype."""
        return self._input_dtype

    def call(self, inputs: Any) -> Any:
        """The inputs as they are."""
        return inputs

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments, in Keras's order."""
        return {
            "batch_shape": self.batch_shape,
            "dtype": self.dtype,
            "sparse": False,
            "ragged": False,
            "name": self.name,
            "optional": False,
        }


def Input(
    shape: Any = None,
    batch_size: int | None = None,
    dtype: Any = None,
    batch_shape: Any = None,
    name: str | None = None,
    **kwargs: Any,
) -> InputLayer:
    """Says what the inputs of a `Sequential` look like, as its first entry.

    Args:
        shape: Without the batch axis; entries may be None.
        batch_size: Length of the batch axis, if it is fixed.
        dtype: Of the inputs; float32 by default.
        batch_shape: Shape with the batch axis, instead of `shape` and `batch_size`.
        name: Of the entry.

    Raises:
        ValueError: No shape is given, or it is none.
    """
    return InputLayer(shape, batch_size, dtype, batch_shape, name, **kwargs)


class Masking(Layer):
    """Masks the time steps in which all features are `mask_value`, and sets them to zero.

    Args:
        mask_value: The value that marks a step to be left out.

    Call: `layer(inputs)` with inputs (batch, time, features).
    """

    def __init__(self, mask_value: float = 0.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if isinstance(mask_value, Mapping):  # as Keras writes a NumPy scalar into a config
            mask_value = mask_value["config"]["value"]
        self.mask_value = mask_value
        self.supports_masking = True
        self.built = True

    def compute_mask(self, inputs: Any, previous_mask: Any = None) -> Array:
        """(batch, time): whether any feature differs from `mask_value`."""
        return np.asarray(np.not_equal(inputs, self.mask_value).any(axis=-1))

    def call(self, inputs: Any, training: bool = False) -> Array:
        """The inputs, zero where masked."""
        mask = self.compute_mask(inputs)[..., None]
        if training:
            self._saved = mask
        return np.asarray(inputs * mask.astype(inputs.dtype))

    def backward(self, d_outputs: Any) -> Array:
        """The gradient of the inputs of the latest call with `training=True`."""
        return np.asarray(d_outputs * self._get_saved().astype(d_outputs.dtype))

    def compute_output_shape(self, input_shape: Any) -> Any:
        """That of the inputs."""
        return tuple(input_shape)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {**super().get_config(), "mask_value": self.mask_value}


class Dropout(Layer):
    """In training, sets entries to zero at random and divides the others by `1 - rate`.

    Args:
        rate: Fraction to drop, from 0 to 1.
        noise_shape: Shape of the random choice, which broadcasts; None entries are the inputs'.
        seed: Of the random choice.

    Raises:
        ValueError: `rate` is out of range.
    """

    def __init__(
        self, rate: float, noise_shape: Any = None, seed: int | None = None, **kwargs: Any
    ) -> None:
        if not isinstance(rate, int | float | np.number) or not 0 <= rate <= 1:
            raise ValueError(
                "Invalid value received for argument `rate`. Expected a float value between 0 and "
                f"1. Received: rate={rate}"
            )
        super().__init__(**kwargs)
        self.rate = rate
        self.seed = seed
        self.noise_shape = (
            None if noise_shape is None else standard_shape(noise_shape, "Dropout noise_shape")
        )
        self.supports_masking = True
        self.built = True
        self._generator: np.random.Generator | None = None

    def call(self, inputs: Any, training: bool = False) -> Array:
        """The inputs; in training with some of them dropped."""
        x = np.asarray(inputs)
        if not training or self.rate == 0:
            self._saved = () if training else self._saved
            return x
        if x.dtype.kind != "f":
            x = x.astype(self._dtype)
        shape = x.shape
        if self.noise_shape is not None:
            if len(self.noise_shape) != x.ndim:
                raise ValueError(
                    f"Layer '{self.name}': expected inputs of the rank of noise_shape "
                    f"{self.noise_shape}, got shape {shape}"
                )
            shape = tuple(
                d if n is None else n for n, d in zip(self.noise_shape, shape, strict=True)
            )
        if self._generator is None:
            self._generator = make_generator(self.seed)
        factors = inverted_dropout(self._generator, self.rate, shape, x.dtype)
        self._saved = (factors,)
        return np.asarray(x * factors)

    def backward(self, d_outputs: Any) -> Array:
        """The gradient of the inputs of the latest call with `training=True`."""
        for factors in self._get_saved():
            d_outputs = d_outputs * factors
        return np.asarray(d_outputs)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """That of the inputs."""
        return tuple(input_shape)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments, in Keras's order."""
        return {
            **super().get_config(),
            "rate": self.rate,
            "seed": self.seed,
            "noise_shape": self.noise_shape,
        }


class Activation(Layer):
    """Applies an activation.

    Args:
        activation: Name or callable.

    Raises:
        ValueError: The name is unknown.
    """

    def __init__(self, activation: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.activation = activations.get(activation)
        self.supports_masking = True
        self.built = True

    def call(self, inputs: Any, training: bool = False) -> Array:
        """The activation of the inputs."""
        x = np.ascontiguousarray(inputs, dtype=self._dtype)
        if training:
            self._saved = x
        return np.asarray(self.activation(x), self._dtype)

    def backward(self, d_outputs: Any) -> Array:
        """The gradient of the inputs of the latest call with `training=True`."""
        return activation_backward(self, self._get_saved(), np.asarray(d_outputs, self._dtype))

    def compute_output_shape(self, input_shape: Any) -> Any:
        """That of the inputs."""
        return tuple(input_shape)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {**super().get_config(), "activation": activations.serialize(self.activation)}


class Flatten(Layer):
    """(batch, ...) to (batch, features).

    Args:
        data_format: "channels_last" (default), or "channels_first": the axis after the batch is
            then moved to the end first.

    Raises:
        ValueError: `data_format` is any other.
    """

    def __init__(self, data_format: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.data_format = "channels_last" if data_format is None else data_format
        if self.data_format not in ("channels_last", "channels_first"):
            raise ValueError(
                "Flatten data_format: expected 'channels_last' or 'channels_first', "
                f"got {data_format!r}"
            )

    def build(self, input_shape: Any) -> None:
        """Nothing to create; as in Keras, the shape is kept for `get_build_config`."""

    def call(self, inputs: Any, training: bool = False) -> Array:
        """The inputs with all axes but the first made one."""
        x = np.asarray(inputs)
        if self.data_format == "channels_first" and x.ndim > 1:
            x = np.moveaxis(x, 1, -1)
        if training:
            self._saved = x.shape
        return x.reshape(len(x), math.prod(x.shape[1:]))

    def backward(self, d_outputs: Any) -> Array:
        """The gradient of the inputs of the latest call with `training=True`."""
        d = np.asarray(d_outputs).reshape(self._get_saved())
        if self.data_format == "channels_first" and d.ndim > 1:
            d = np.moveaxis(d, -1, 1)
        return d

    def compute_output_shape(self, input_shape: Any) -> Any:
        """(batch, product of the other axes); None if one of them is None."""
        rest = input_shape[1:]
        return (input_shape[0], None if None in rest else math.prod(rest))

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {**super().get_config(), "data_format": self.data_format}
