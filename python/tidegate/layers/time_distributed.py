"""`TimeDistributed`: the same layer on every time step."""

from __future__ import annotations

from typing import Any

import numpy as np

from .base import Wrapper, call_signature
from .recurrent import RNN

__all__ = ["TimeDistributed"]


class TimeDistributed(Wrapper):
    """Applies a layer to every time step of (batch, time, ...), with the same weights.

    All steps of all samples are one batch to the inner layer, which is the same as one call per
    step for any layer that treats its samples one by one.

    Args:
        layer: The layer for one step's inputs (batch, ...).

    Raises:
        ValueError: `layer` is not a layer, or is stateful: its batch would be of another size.
    """

    def __init__(self, layer: Any, **kwargs: Any) -> None:
        super().__init__(layer, **kwargs)
        if isinstance(layer, RNN) and layer.stateful:
            raise ValueError(
                f"TimeDistributed: expected a layer without states, got the stateful '{layer.name}'"
            )
        self.supports_masking = True

    def _step_shape(self, input_shape: Any) -> tuple[Any, ...]:
        if not isinstance(input_shape, tuple | list) or len(input_shape) < 3:
            raise ValueError(
                "`TimeDistributed` Layer should be passed an `input_shape` with at least 3 "
                f"dimensions, received: {input_shape}"
            )
        return (input_shape[0], *input_shape[2:])

    def build(self, input_shape: Any = None) -> None:
        """Builds the inner layer for the inputs of one step."""
        super().build(self._step_shape(input_shape))

    def compute_output_shape(self, input_shape: Any) -> Any:
        """(batch, time, ...) with what the inner layer gives for a step."""
        inner = self.layer.compute_output_shape(self._step_shape(input_shape))
        return (inner[0], input_shape[1], *inner[1:])

    def call(self, inputs: Any, training: Any = None, mask: Any = None) -> Any:
        """The inner layer's outputs for every step."""
        self._step_shape(inputs.shape)
        batch_time = inputs.shape[:2]
        takes = call_signature(type(self.layer))
        kwargs: dict[str, Any] = {}
        if takes.takes_training:
            kwargs["training"] = bool(training)
        if mask is not None:
            mask = np.asarray(mask)
            self._check_mask(mask, inputs.shape)
            if takes.takes_mask:
                kwargs["mask"] = self._merged(mask)
        y = self.layer.call(self._merged(inputs), **kwargs)
        if training:
            self._saved = inputs.shape
        return y.reshape(batch_time + y.shape[1:])

    @staticmethod
    def _merged(array: Any) -> Any:
        """(batch, time, ...) as (batch*time, ...)."""
        return np.ascontiguousarray(array).reshape((-1, *array.shape[2:]))

    def _check_mask(self, mask: Any, input_shape: Any) -> None:
        if mask.ndim < 2:
            raise ValueError(
                "The `mask` passed to the `TimeDistributed` layer must be at least 2D (e.g., "
                f"`(batch_size, timesteps)`), but it has {mask.ndim} dimension(s) with shape "
                f"{mask.shape}."
            )
        if mask.shape[:2] != input_shape[:2]:
            raise ValueError(
                f"The `mask` passed to the `TimeDistributed` layer has a shape {mask.shape} that "
                f"is incompatible with the input shape {input_shape}. The first two dimensions of "
                "the mask (batch size and timesteps) must match the input's first two dimensions. "
                f"Expected mask shape prefix: ({input_shape[0]}, {input_shape[1]})."
            )

    def backward(self, d_outputs: Any) -> Any:
        """The gradient of the inputs of the latest call with `training=True`."""
        shape = self._get_saved()
        self.layer._needs_input_gradient = self._needs_input_gradient
        d_inputs = self.layer.backward(self._merged(d_outputs))
        return None if d_inputs is None else d_inputs.reshape(shape)
