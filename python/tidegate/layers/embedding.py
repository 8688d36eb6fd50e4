"""`Embedding`: integers to vectors."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from .base import Array, Layer, resolved, serialized

__all__ = ["Embedding"]


class Embedding(Layer):
    """A table of vectors, looked up by index.

    Args:
        input_dim: Number of vectors; indices go from 0 to `input_dim - 1`.
        output_dim: Width of a vector.
        embeddings_initializer: Of the table (input_dim, output_dim).
        embeddings_regularizer: Penalty on the table.
        embeddings_constraint: Applied after each update.
        mask_zero: Whether index 0 means "no step here": the mask of the outputs is `indices != 0`.
        weights: Initial table.

    Call: `layer(indices)` with integers of any shape gives that shape + (output_dim,).

    Raises:
        ValueError: A size is not a positive integer, or an argument is unknown.
    """

    _config_keys = (
        "input_dim",
        "output_dim",
        "embeddings_initializer",
        "embeddings_regularizer",
        "activity_regularizer",
        "embeddings_constraint",
        "mask_zero",
    )

    def __init__(
        self,
        input_dim: int,
        output_dim: int,
        embeddings_initializer: Any = "uniform",
        embeddings_regularizer: Any = None,
        embeddings_constraint: Any = None,
        mask_zero: bool = False,
        weights: Any = None,
        **kwargs: Any,
    ) -> None:
        for name, value in (("input_dim", input_dim), ("output_dim", output_dim)):
            if not isinstance(value, int | np.integer) or isinstance(value, bool) or value <= 0:
                raise ValueError(
                    f"`{name}` must be a positive integer. Received: {name}={value} "
                    f"(of type {type(value).__name__})."
                )
        if kwargs.pop("input_length", None) is not None:
            warnings.warn(
                "Argument `input_length` is deprecated. Just remove it.", UserWarning, stacklevel=2
            )
        if kwargs.get("quantization_config", 0) is None:  # as Keras's configs have it
            del kwargs["quantization_config"]
        super().__init__(**kwargs)
        self.input_dim = int(input_dim)
        self.output_dim = int(output_dim)
        self.embeddings_initializer = resolved("embeddings_initializer", embeddings_initializer)
        self.embeddings_regularizer = resolved("embeddings_regularizer", embeddings_regularizer)
        self.embeddings_constraint = resolved("embeddings_constraint", embeddings_constraint)
        self.mask_zero = mask_zero
        self.supports_masking = mask_zero
        self._initial_weights = weights
        if weights is not None:
            self.build()

    def build(self, input_shape: Any = None) -> None:
        """Creates the table, whatever the shape of the inputs."""
        if self.built:
            return
        self.embeddings = self.add_weight(
            (self.input_dim, self.output_dim),
            self.embeddings_initializer,
            name="embeddings",
            regularizer=self.embeddings_regularizer,
            constraint=self.embeddings_constraint,
        )
        if self._initial_weights is not None:
            weights = self._initial_weights
            self.set_weights(weights if isinstance(weights, list) else [weights])
            self._initial_weights = None

    def _convert(self, value: Any) -> Any:
        # Indices keep their own type: float32 would lose those above 2**24.
        array = np.asarray(value)
        if array.dtype.kind not in "fiub":
            raise TypeError(
                f"Layer '{self.name}': expected an array of indices, got dtype {array.dtype}"
            )
        return array

    def call(self, inputs: Any, training: bool = False) -> Array:
        """Indices of any shape to that shape + (output_dim,).

        Raises:
            ValueError: An index is out of range.
        """
        indices = np.asarray(inputs)
        if indices.dtype.kind == "f" and not np.isfinite(indices).all():
            raise ValueError(
                f"Layer '{self.name}': expected indices, got values that are not finite"
            )
        indices = indices.astype(np.intp)
        if indices.size and (indices.min() < 0 or indices.max() >= self.input_dim):
            raise ValueError(
                f"Layer '{self.name}': expected indices from 0 to {self.input_dim - 1}, "
                f"got {indices.min()} to {indices.max()}"
            )
        if training:
            self._saved = indices
        return self.embeddings.value[indices]

    def backward(self, d_outputs: Any) -> None:
        """Adds up the gradients of each vector; indices have none."""
        indices = self._get_saved().ravel()
        gradient = np.zeros(self.embeddings.shape, self._dtype)
        if indices.size:
            # Sorted by index, each vector's gradients stand together: one pass, and in an order
            # that depends on nothing else.
            order = np.argsort(indices, kind="stable")
            d = np.asarray(d_outputs, self._dtype).reshape(-1, self.output_dim)[order]
            used, starts = np.unique(indices[order], return_index=True)
            gradient[used] = np.add.reduceat(d, starts, axis=0)
        self.embeddings.add_gradient(gradient)

    def compute_mask(self, inputs: Any, previous_mask: Any = None) -> Any:
        """`inputs != 0` with `mask_zero`, else None."""
        return np.not_equal(inputs, 0) if self.mask_zero else None

    def compute_output_shape(self, input_shape: Any) -> Any:
        """The shape of the indices + (output_dim,)."""
        return (*input_shape, self.output_dim)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments, in Keras's order."""
        return {
            **super().get_config(),
            **serialized(self, self._config_keys),
            "quantization_config": None,
        }
