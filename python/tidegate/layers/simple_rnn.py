"""The simple recurrent layer."""

from __future__ import annotations

import warnings
from typing import Any

from .cells import BuiltinCell
from .recurrent import BuiltinRNN

__all__ = ["SimpleRNN", "SimpleRNNCell"]


class SimpleRNNCell(BuiltinCell):
    """One step of `SimpleRNN`; see there for the arguments.

    Call: `cell(inputs, states, training=False)` with inputs (batch, features) and states
    [h], h (batch, units) gives `(output, new_states)`.
    """

    _config_keys = (
        "units",
        "activation",
        "use_bias",
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
    takes_implementation = False

    @property
    def engine_name(self) -> str:
        """What the engine calls this cell."""
        return "simple_rnn"

    def __init__(
        self,
        units: int,
        activation: Any = "tanh",
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        recurrent_initializer: Any = "orthogonal",
        bias_initializer: Any = "zeros",
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


class SimpleRNN(BuiltinRNN):
    """The simple recurrent layer: h = act(x W + h' U + b).

    Args:
        units: Width of the output.
        activation: Activation of the output; None for linear.
        use_bias: Whether there is a bias.
        kernel_initializer: Of the kernel (features, units).
        recurrent_initializer: Of the recurrent kernel (units, units).
        bias_initializer: Of the bias (units,).
        kernel_regularizer, recurrent_regularizer, bias_regularizer: Penalties on the weights.
        activity_regularizer: Penalty on the outputs, ignored with a warning as in Keras.
        kernel_constraint, recurrent_constraint, bias_constraint: Applied after each update.
        dropout: Rate at which inputs are dropped in training, one choice for all time steps.
        recurrent_dropout: Rate at which units of h' are dropped from the recurrent product.
        seed: Of the dropout.
        return_sequences, return_state, go_backwards, stateful, unroll: See `RNN`.
        **kwargs: zero_output_for_mask (see `RNN`), and those of `Layer`.

    Call: `layer(sequences, initial_state=None, mask=None, training=False)`, see `RNN`; states
    [h], h (batch, units).

    Raises:
        ValueError: An argument is out of range or unknown, or an activation not elementwise.
        TypeError: `units` is not a number.
    """

    cell_class = SimpleRNNCell

    @classmethod
    def _config_keys(cls) -> list[str]:
        return super()._config_keys()[:-1]  # all but the seed, as in Keras

    def __init__(
        self,
        units: int,
        activation: Any = "tanh",
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        recurrent_initializer: Any = "orthogonal",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        recurrent_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        kernel_constraint: Any = None,
        recurrent_constraint: Any = None,
        bias_constraint: Any = None,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        return_sequences: bool = False,
        return_state: bool = False,
        go_backwards: bool = False,
        stateful: bool = False,
        unroll: bool = False,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        if activity_regularizer is not None:
            warnings.warn(
                "SimpleRNN: `activity_regularizer` has no effect, as in Keras 3",
                UserWarning,
                stacklevel=2,
            )
            activity_regularizer = None
        super().__init__(locals())
