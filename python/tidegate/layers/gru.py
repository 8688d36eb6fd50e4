"""The gated recurrent unit of Cho et al."""

from __future__ import annotations

from typing import Any

from .cells import BuiltinCell
from .recurrent import BuiltinRNN

__all__ = ["GRU", "GRUCell"]


class GRUCell(BuiltinCell):
    """One step of `GRU`; see there for the arguments.

    Call: `cell(inputs, states, training=False)` with inputs (batch, features) and states
    [h], h (batch, units) gives `(output, new_states)`.
    """

    reset_after: bool
    _config_keys = (
        "units",
        "activation",
        "recurrent_activation",
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
        "reset_after",
        "seed",
    )

    @property
    def engine_name(self) -> str:
        """What the engine calls this cell."""
        return "gru" if self.reset_after else "gru_reset_before"

    def __init__(
        self,
        units: int,
        activation: Any = "tanh",
        recurrent_activation: Any = "sigmoid",
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
        reset_after: bool = True,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(locals())


class GRU(BuiltinRNN):
    """The gated recurrent unit of Cho et al., as Keras has it.

    z, r = gate(x W + h' U + b), in the order z, r, h; n = act(x Wn + bn + r*(h' Un + b'n)), or
    without `reset_after` n = act(x Wn + (r*h') Un + bn); h = z*h' + (1-z)*n: z = 1 keeps the old
    state.

    Args:
        units: Width of the output.
        activation: Activation of the candidate; None for linear.
        recurrent_activation: Activation of the gates.
        use_bias: Whether there is a bias.
        kernel_initializer: Of the kernel (features, 3*units).
        recurrent_initializer: Of the recurrent kernel (units, 3*units).
        bias_initializer: Of the bias (2, 3*units), its rows added to the input and
            the recurrent product; (3*units,) without `reset_after`.
        kernel_regularizer, recurrent_regularizer, bias_regularizer: Penalties on the weights.
        activity_regularizer: Penalty on the outputs, divided by the batch size.
        kernel_constraint, recurrent_constraint, bias_constraint: Applied after each update.
        dropout: Rate at which inputs are dropped in training, one choice for all time steps.
        recurrent_dropout: Rate at which units of h' are dropped from the recurrent product.
        reset_after: Whether r multiplies the recurrent product or, as in the first paper, the state
            before it.
        seed: Of the dropout.
        return_sequences, return_state, go_backwards, stateful, unroll: See `RNN`.
        use_cudnn: 'auto' or False; there is no cuDNN here.
        **kwargs: zero_output_for_mask (see `RNN`), and those of `Layer`.

    Call: `layer(sequences, initial_state=None, mask=None, training=False)`, see `RNN`; states
    [h], h (batch, units).

    Raises:
        ValueError: An argument is out of range or unknown, or an activation not elementwise.
        TypeError: `units` is not a number.
    """

    cell_class = GRUCell

    def __init__(
        self,
        units: int,
        activation: Any = "tanh",
        recurrent_activation: Any = "sigmoid",
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
        seed: int | None = None,
        return_sequences: bool = False,
        return_state: bool = False,
        go_backwards: bool = False,
        stateful: bool = False,
        unroll: bool = False,
        reset_after: bool = True,
        use_cudnn: bool | str = "auto",
        **kwargs: Any,
    ) -> None:
        super().__init__(locals())
