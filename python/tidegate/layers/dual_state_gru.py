"""A GRU with two states, a cell state and a hidden state."""

from __future__ import annotations

from typing import Any

from .cells import BuiltinCell
from .recurrent import BuiltinRNN

__all__ = ["DualStateGRU", "DualStateGRUCell"]


class DualStateGRUCell(BuiltinCell):
    """One step of `DualStateGRU`; see there for the arguments.

    Call: `cell(inputs, states, training=False)` with inputs (batch, features) and states
    [h, C], each (batch, units) gives `(output, new_states)`.
    """

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
        "seed",
    )

    @property
    def engine_name(self) -> str:
        """What the engine calls this cell."""
        return "dual_state_gru"

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
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(locals())


class DualStateGRU(BuiltinRNN):
    """The GRU with a cell state C and a hidden state h.

    z, r = gate(x W + h' U + b), in the order z, r, c; C = (1-z)*C' + r*act(x Wc + h' Uc + bc);
    h = (1-z)*h' + act(C).

    It is not the GRU of Cho et al. (`GRU`), which differs from it in this:

    - that has one state, this has two;
    - there z = 1 keeps the old state, here z = 1 forgets it: z means the opposite;
    - there r acts on the old state inside the candidate, here on the candidate itself;
    - there the new state is a mean of old state and candidate, so it stays within (-1, 1) with
      tanh; here what comes in is added, so that neither C nor h is bounded by 1.

    Keras has no such layer, so a model with it cannot be saved as `.keras`.

    Args:
        units: Width of the output.
        activation: Used twice, for the candidate and for C; None for linear.
        recurrent_activation: Activation of the gates.
        use_bias: Whether there is a bias.
        kernel_initializer: Of the kernel (features, 3*units).
        recurrent_initializer: Of the recurrent kernel (units, 3*units).
        bias_initializer: Of the bias (3*units,).
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
    [h, C], each (batch, units).

    Raises:
        ValueError: An argument is out of range or unknown, or an activation not elementwise.
        TypeError: `units` is not a number.
    """

    cell_class = DualStateGRUCell

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
        use_cudnn: bool | str = "auto",
        **kwargs: Any,
    ) -> None:
        super().__init__(locals())
