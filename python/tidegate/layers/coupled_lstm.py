"""The long short-term memory whose input gate is what its forget gate leaves."""

from __future__ import annotations

from .lstm import LSTM, LSTMCell

__all__ = ["CoupledLSTM", "CoupledLSTMCell"]


class CoupledLSTMCell(LSTMCell):
    """One step of `CoupledLSTM`; see there for the arguments.

    Call: `cell(inputs, states, training=False)` with inputs (batch, features) and states
    [h, c], each (batch, units) gives `(output, new_states)`.
    """

    _forget_gate = 0

    @property
    def engine_name(self) -> str:
        """What the engine calls this cell."""
        return "coupled_lstm"


class CoupledLSTM(LSTM):
    """The LSTM with coupled gates: as much comes in as is forgotten (CIFG, Greff et al. 2015).

    f, o = gate(x W + h' U + b), each with its own part of the weights, in the order f, c, o;
    c = f*c' + (1-f)*act(x Wc + h' Uc + bc); h = o*act(c).

    It has three quarters of the parameters of an `LSTM` with as many units. Keras has no such
    layer, so a model with it cannot be saved as `.keras`.

    Args:
        **arguments: Those of `LSTM`; kernel (features, 3*units), recurrent kernel
            (units, 3*units), bias (3*units,). With `unit_forget_bias`, f starts at gate(1), and
            so does the input at 1 - gate(1).

    Call: `layer(sequences, initial_state=None, mask=None, training=False)`, see `RNN`; states
    [h, c], each (batch, units).

    Raises:
        ValueError: An argument is out of range or unknown, or an activation not elementwise.
        TypeError: `units` is not a number.
    """

    cell_class = CoupledLSTMCell
