"""`Dense`, the fully connected layer."""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import _core, activations
from ..ops import as_array
from ..variables import Variable
from .base import Array, Layer, resolved, serialized

__all__ = ["Dense"]


class Dense(Layer):
    """act(x W + b) over the last axis.

    Args:
        units: Width of the output.
        activation: Name or callable; None for linear.
        use_bias: Whether there is a bias.
        kernel_initializer: Of the kernel (features, units).
        bias_initializer: Of the bias (units,).
        kernel_regularizer, bias_regularizer: Penalties on the weights.
        activity_regularizer: Penalty on the outputs, divided by the batch size.
        kernel_constraint, bias_constraint: Applied after each update.

    Call: `layer(inputs)` with inputs (batch, ..., features) gives (batch, ..., units).

    Raises:
        ValueError: `units` is not a positive integer, or an argument is unknown.
    """

    _config_keys = (
        "units",
        "activation",
        "use_bias",
        "kernel_initializer",
        "bias_initializer",
        "kernel_regularizer",
        "bias_regularizer",
        "kernel_constraint",
        "bias_constraint",
    )

    def __init__(
        self,
        units: int,
        activation: Any = None,
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        kernel_constraint: Any = None,
        bias_constraint: Any = None,
        **kwargs: Any,
    ) -> None:
        if not isinstance(units, int | np.integer) or isinstance(units, bool) or units <= 0:
            raise ValueError(
                "Received an invalid value for `units`, expected a positive integer. "
                f"Received: units={units}"
            )
        if kwargs.get("quantization_config", 0) is None:  # as Keras's configs have it
            del kwargs["quantization_config"]
        super().__init__(activity_regularizer=activity_regularizer, **kwargs)
        self.units = int(units)
        self.activation = activations.get(activation)
        self.use_bias = use_bias
        self.kernel_initializer = resolved("kernel_initializer", kernel_initializer)
        self.bias_initializer = resolved("bias_initializer", bias_initializer)
        self.kernel_regularizer = resolved("kernel_regularizer", kernel_regularizer)
        self.bias_regularizer = resolved("bias_regularizer", bias_regularizer)
        self.kernel_constraint = resolved("kernel_constraint", kernel_constraint)
        self.bias_constraint = resolved("bias_constraint", bias_constraint)
        self.supports_masking = True
        self.kernel: Variable | None = None
        self.bias: Variable | None = None
        self._packed: tuple[Any, ...] | None = None

    def build(self, input_shape: Any) -> None:
        """Creates kernel and bias for `input_shape[-1]` features."""
        features = input_shape[-1]
        if features is None:
            raise ValueError(
                f"Layer '{self.name}': expected a known number of features, "
                f"got input shape {tuple(input_shape)}"
            )
        self.kernel = self.add_weight(
            (features, self.units),
            self.kernel_initializer,
            name="kernel",
            regularizer=self.kernel_regularizer,
            constraint=self.kernel_constraint,
        )
        if self.use_bias:
            self.bias = self.add_weight(
                (self.units,),
                self.bias_initializer,
                name="bias",
                regularizer=self.bias_regularizer,
                constraint=self.bias_constraint,
            )

    def _check_rank(self, shape: Any) -> None:
        if len(shape) < 2:
            raise self._rank_error("min_ndim=2", shape)

    def _engine(self) -> Any:
        """The packed weights, made anew when a variable has changed."""
        assert self.kernel is not None
        kernel, bias = self.kernel, self.bias
        key = (kernel.version, None if bias is None else bias.version)
        if self._packed is None or self._packed[0] != key:
            engine = _core.Dense(kernel.value, None if bias is None else bias.value)
            self._packed = (key, engine)
        return self._packed[1]

    def call(self, inputs: Any, training: bool = False) -> Array:
        """(batch, ..., features) to (batch, ..., units)."""
        assert self.kernel is not None
        features = self.kernel.shape[0]
        if inputs.shape[-1] != features:
            raise ValueError(
                f"Layer '{self.name}' inputs: expected shape (batch, ..., {features}), "
                f"got {inputs.shape}"
            )
        x = inputs
        if x.dtype is not self._dtype:
            x = as_array(inputs, self._dtype, f"Layer '{self.name}' inputs")
        x = x.reshape(-1, features)
        linear = self._engine().forward(x)
        if training:
            self._saved = (x, linear, inputs.shape)
        y = linear.reshape(inputs.shape[:-1] + (self.units,))
        if self.activation is _LINEAR:
            return y
        return np.asarray(self.activation(y), self._dtype)

    def backward(self, d_outputs: Any) -> Any:
        """The gradient of the inputs of the latest call with `training=True`."""
        assert self.kernel is not None
        x, linear, shape = self._get_saved()
        d = d_outputs
        if type(d) is not np.ndarray or d.dtype is not self._dtype:
            d = as_array(d_outputs, self._dtype, f"Layer '{self.name}' d_outputs")
        d = activation_backward(self, linear, d.reshape(linear.shape))
        gradients = _core.dense_backward(
            x, self.kernel._view, d, self._needs_input_gradient, self.bias is not None
        )
        self.kernel.add_gradient(gradients["kernel"])
        if self.bias is not None:
            self.bias.add_gradient(gradients["bias"])
        d_inputs = gradients["inputs"]
        return None if d_inputs is None else d_inputs.reshape(shape)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """(batch, ..., units)."""
        return (*input_shape[:-1], self.units)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments, in Keras's order."""
        return {
            **super().get_config(),
            **serialized(self, self._config_keys),
            "quantization_config": None,
        }


_LINEAR = activations.get("linear")


def activation_backward(layer: Any, x: Array, d_outputs: Array) -> Array:
    """The gradient of x through `layer.activation`.

    Raises:
        ValueError: It is a function of the user's without a `backward(x, d_outputs)`.
    """
    if layer.activation is _LINEAR:
        return d_outputs
    gradient = getattr(layer.activation, "backward", None)
    if gradient is None:
        raise ValueError(
            f"Layer '{layer.name}': expected an activation known by name, or one with a method "
            f"`backward(x, d_outputs)`, for training, got {layer.activation!r}"
        )
    return np.ascontiguousarray(gradient(x, d_outputs), dtype=layer._dtype)
