"""The long short-term memory."""

from __future__ import annotations

from typing import Any

import numpy as np

from .base import Array
from .cells import BuiltinCell
from .recurrent import BuiltinRNN

__all__ = ["LSTM", "LSTMCell"]


class LSTMCell(BuiltinCell):
    """One step of `LSTM`; see there for the arguments.

    Call: `cell(inputs, states, training=False)` with inputs (batch, features) and states
    [h, c], each (batch, units) gives `(output, new_states)`.
    """

    unit_forget_bias: bool
    _forget_gate = 1  # its place among the gates
    _config_keys = (
        "units",
        "activation",
        "recurrent_activation",
        "use_bias",
        "unit_forget_bias",
        "kernel_initializer",
        "recurrent_initializer",
        "bias_initializer",
        "kernel_regularizer",
        "recurrent_regularizer",
        "bias_regularizer",
        "kernel_constraint",
        "recurrent_constraint",
        "bias_constraint",
        "dropout",
        "recurrent_dropout",
        "seed",
    )

    @property
    def engine_name(self) -> str:
        """What the engine calls this cell."""
        return "lstm"

    def _initial_bias(self, shape: Any, dtype: Any) -> Array:
        if not self.unit_forget_bias:
            return super()._initial_bias(shape, dtype)
        ones = np.ones(self.units, dtype)
        before, after = self._forget_gate, self._gates - self._forget_gate - 1
        parts = [self.bias_initializer((n * self.units,), dtype) for n in (before, after) if n]
        return np.concatenate([*parts[:-1], ones, parts[-1]])

    def __init__(
        self,
        units: int,
        activation: Any = "tanh",
        recurrent_activation: Any = "sigmoid",
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        recurrent_initializer: Any = "orthogonal",
        bias_initializer: Any = "zeros",
        unit_forget_bias: bool = True,
        kernel_regularizer: Any = None,
        recurrent_regularizer: Any = None,
        bias_regularizer: Any = None,
        kernel_constraint: Any = None,
        recurrent_constraint: Any = None,
        bias_constraint: Any = None,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(locals())


class LSTM(BuiltinRNN):
    """The long short-term memory of Hochreiter and Schmidhuber, with forget gates.

    i, f, o = gate(x W + h' U + b), each with its own part of the weights, in the order i, f, c, o;
    c = f*c' + i*act(x Wc + h' Uc + bc); h = o*act(c).

    Args:
        units: Width of the output.
        activation: Used twice, for the candidate and for c; None for linear.
        recurrent_activation: Activation of the gates.
        use_bias: Whether there is a bias.
        kernel_initializer: Of the kernel (features, 4*units).
        recurrent_initializer: Of the recurrent kernel (units, 4*units).
        bias_initializer: Of the bias (4*units,).
        unit_forget_bias: Whether the forget gate's part of the bias starts at 1.
        kernel_regularizer, recurrent_regularizer, bias_regularizer: Penalties on the weights.
        activity_regularizer: Penalty on the outputs, divided by the batch size.
        kernel_constraint, recurrent_constraint, bias_constraint: Applied after each update.
        dropout: Rate at which inputs are dropped in training, one choice for all time steps.
        recurrent_dropout: Rate at which units of h' are dropped from the recurrent product.
        seed: Of the dropout.
        return_sequences, return_state, go_backwards, stateful, unroll: See `RNN`.
        use_cudnn: 'auto' or False; there is no cuDNN here.
        **kwargs: zero_output_for_mask (see `RNN`), and those of `Layer`.

    Call: `layer(sequences, initial_state=None, mask=None, training=False)`, see `RNN`; states
    [h, c], each (batch, units).

    Raises:
        ValueError: An argument is out of range or unknown, or an activation not elementwise.
        TypeError: `units` is not a number.
    """

    cell_class = LSTMCell

    @classmethod
    def _config_keys(cls) -> list[str]:
        keys = super()._config_keys()
        keys.remove("unit_forget_bias")  # Keras has it elsewhere in the layer than in the cell
        keys.insert(keys.index("kernel_regularizer"), "unit_forget_bias")
        return keys

    def __init__(
        self,
        units: int,
        activation: Any = "tanh",
        recurrent_activation: Any = "sigmoid",
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        recurrent_initializer: Any = "orthogonal",
        bias_initializer: Any = "zeros",
        unit_forget_bias: bool = True,
        kernel_regularizer: Any = None,
        recurrent_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        kernel_constraint: Any = None,
        recurrent_constraint: Any = None,
        bias_constraint: Any = None,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        seed: int | None = None,
        return_sequences: bool = False,
        return_state: bool = False,
        go_backwards: bool = False,
        stateful: bool = False,
        unroll: bool = False,
        use_cudnn: bool | str = "auto",
        **kwargs: Any,
    ) -> None:
        super().__init__(locals())
