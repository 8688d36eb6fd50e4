"""How gradients travel through time: the norm of dLoss/dh_t in every recurrent layer of a model.

    flows = gradient_flow(model, x, y)
    flows["lstm"].hidden            # one number per time step
    plot_gradient_flow(flows, "flow.png")

In a layer that forgets quickly the norm falls towards the past by the same factor at every step
(it vanishes) or grows (it explodes); where gates let the state through it stays level.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from typing import Any, ClassVar

import numpy as np

from . import losses
from .data import numeric
from .layers.base import Array, flatten
from .layers.recurrent import RNN, BuiltinCell, StackedRNNCells, initial_states_of, run_cell
from .models import Sequential

__all__ = ["GradientFlow", "gradient_flow", "plot_gradient_flow"]

_SLOPE = 1e-300  # so that the logarithm of a gradient of exactly 0 is a number


@dataclass(frozen=True)
class GradientFlow:
    """One layer's gradients and states, by time step in the order of the inputs.

    Attributes:
        layer: Its name.
        states: (states, time) float64: the Frobenius norm, over batch and units, of dLoss/ds_t for
            each state s after step t, with everything counted that it changes: the output of step
            t and all later steps. In the order of the layer's states: h, then c or C.
        largest: (states, time) float64: the largest absolute value of each state after step t.
    """

    layer: str
    states: Array
    largest: Array

    @property
    def hidden(self) -> Array:
        """(time,): the norm of dLoss/dh_t, h being the layer's output."""
        norms: Array = self.states[0]
        return norms

    @property
    def factor(self) -> float:
        """By what the norm changes per step towards the past, geometric mean: 1 is level.

        Of all states together, as what h forgets c may keep. nan without any gradient or step.
        """
        total = np.sqrt(np.sum(self.states**2, axis=0))
        reached = np.flatnonzero(total > 0)
        if len(reached) < 2:
            return float("nan")
        first, last = reached[0], reached[-1]
        ratio = np.log(max(total[first], _SLOPE)) - np.log(total[last])
        return float(np.exp(ratio / (last - first)))


def gradient_flow(model: Sequential, x: Any, y: Any) -> dict[str, GradientFlow]:
    """How much the loss depends on the state of every recurrent layer at every time step.

    The model is evaluated once forwards and once backwards on all samples, dropout off; it is left
    as it was. The gradient of a state is found by going back one step at a time, dLoss/ds_t being
    what the next step sends back plus, for h, the gradient of the layer's own output at t
    (backpropagation through time, Werbos 1990).

    Args:
        model: A compiled model with recurrent layers of the built-in cells, stacks of them
            included, also inside `Bidirectional` and `TimeDistributed`.
        x: Inputs (samples, time, ...).
        y: Targets, as for `fit`.

    Returns:
        A `GradientFlow` for each recurrent layer, by its name, in the order of the model; for a
        stack of cells one for each, by the names of layer and cell with a slash between.

    Raises:
        ValueError: The model is not compiled or has no loss or recurrent layer, a layer's cell is
            not built in, or shapes do not fit.
        TypeError: The data are not numeric.
    """
    if not isinstance(model, Sequential):
        raise TypeError(f"gradient_flow: expected a Sequential model, got {type(model).__name__}")
    if not model.compiled or model.loss is None:
        raise ValueError(f"gradient_flow: expected '{model.name}' compiled with a loss, got none")
    x, y = numeric(x, "x"), numeric(y, "y")
    if len(x) == 0 or len(x) != len(y):
        raise ValueError(f"gradient_flow: expected as many x as y, got {len(x)} and {len(y)}")
    model = copy.deepcopy(model)
    recorders = []
    for layer in model._flatten_layers():
        _switch_dropout_off(layer)
        if isinstance(layer, RNN):
            recorders.append(_Recorder(layer))
    if not recorders:
        raise ValueError(f"gradient_flow: expected recurrent layers in '{model.name}', got none")
    outputs = model(x, training=True)
    mask, model._latest_mask = model._latest_mask, None
    loss = losses.resolve(model.loss, y, outputs)
    assert loss is not None  # as there is model.loss
    model.backward(loss.value_and_gradient(y, outputs, None, mask)[1])
    flows: dict[str, GradientFlow] = {}
    for recorder in recorders:
        for flow in recorder.flows():
            flows[flow.layer] = flow
    return flows


def _switch_dropout_off(layer: Any) -> None:
    """Of a copy: layers have a rate, built-in cells two."""
    for name in ("rate", "dropout", "recurrent_dropout"):
        if isinstance(vars(layer).get(name), float):
            setattr(layer, name, 0.0)


class _Recorder:
    """Keeps what a layer is called with, and the gradient it gets, to go through it by steps."""

    def __init__(self, layer: RNN) -> None:
        stack = isinstance(layer.cell, StackedRNNCells)
        self.cells = layer.cell.cells if stack else [layer.cell]
        for cell in self.cells:
            if not isinstance(cell, BuiltinCell):
                raise ValueError(
                    f"Layer '{layer.name}': expected built-in cells, got {type(cell).__name__}"
                )
        self.layer = layer
        self._call, self._backward = layer.call, layer.backward
        self.x: Any = None
        self.d_outputs: Any = None
        # On this copy only: the layer is otherwise called and run as ever.
        layer.call = self._recording_call  # type: ignore[method-assign]
        layer.backward = self._recording_backward  # type: ignore[method-assign]

    def _recording_call(
        self, sequences: Any, initial_state: Any = None, mask: Any = None, training: bool = False
    ) -> Any:
        states = self.layer.states if initial_state is None else initial_state
        if states is not None and not isinstance(states, list | tuple):
            states = [states]
        self.x, self.mask = np.asarray(sequences, self.layer.dtype), mask
        self.initial = None if states is None else [np.array(state) for state in flatten(states)]
        return self._call(sequences, initial_state, mask, training)

    def _recording_backward(self, d_outputs: Any) -> Any:
        d = d_outputs[0] if isinstance(d_outputs, tuple | list) else d_outputs
        self.d_outputs = None if d is None else np.asarray(d)
        return self._backward(d_outputs)

    def flows(self) -> list[GradientFlow]:
        """One for the layer, or one for each cell of its stack."""
        layer, cells = self.layer, self.cells
        if self.d_outputs is None:
            raise ValueError(f"Layer '{layer.name}': expected a gradient of its output, got none")
        batch, time = self.x.shape[:2]
        order = list(range(time - 1, -1, -1) if layer.go_backwards else range(time))
        valid = None
        if self.mask is not None:
            valid = [np.ascontiguousarray(np.asarray(self.mask)[:, t : t + 1]) for t in order]
        xs = [np.ascontiguousarray(self.x[:, t : t + 1]) for t in order]
        initial = iter(self.initial or [])
        passes = []
        for cell in cells:
            states = initial_states_of(cell, batch, self.x.dtype)
            if self.initial is not None:
                states = [next(initial) for _ in states]
            passes.append(_Pass(cell, xs, states, valid))
            xs = passes[-1].outputs
        d_outputs = self._by_step(time, valid)
        flows = []
        for cell, steps in zip(reversed(cells), reversed(passes), strict=True):
            norms, d_outputs = steps.backward(d_outputs)
            arrays = np.array([norms, steps.largest])
            if layer.go_backwards:
                arrays = arrays[:, ::-1]
            name = layer.name if len(cells) == 1 else f"{layer.name}/{cell.name}"
            flows.append(GradientFlow(name, arrays[0].T.copy(), arrays[1].T.copy()))
        return flows[::-1]

    def _by_step(self, time: int, valid: list[Array] | None) -> list[Array]:
        """The gradient of the last cell's output at every step, in processing order."""
        layer = self.layer
        if layer.return_sequences:
            steps = [self.d_outputs[:, k] for k in range(time)]
        else:
            steps = [np.zeros_like(self.d_outputs)] * (time - 1) + [self.d_outputs]
        if valid is not None:
            # A masked step repeats the output before, so that is what its gradient is of.
            for k in range(time - 1, -1, -1):
                if k and not layer.zero_output_for_mask:
                    steps[k - 1] = steps[k - 1] + np.where(valid[k], 0, steps[k])
                steps[k] = np.where(valid[k], steps[k], 0)
        return steps


class _Pass:
    """A cell over a sequence, step by step, and back."""

    _options: ClassVar[dict[str, Any]] = {
        "return_sequences": False,
        "go_backwards": False,
        "zero_output_for_mask": True,
    }

    def __init__(
        self, cell: BuiltinCell, xs: list[Array], states: list[Array], valid: list[Array] | None
    ) -> None:
        self.outputs: list[Array] = []
        self.largest: list[list[float]] = []
        self._tapes = []
        for k, x in enumerate(xs):
            mask = None if valid is None else valid[k]
            output, states, tape = run_cell(
                cell, x, states, mask, True, self._options, f"Cell '{cell.name}'"
            )
            self.outputs.append(np.ascontiguousarray(output[:, None]))
            self.largest.append([float(np.abs(state).max()) for state in states])
            self._tapes.append(tape)
        self._zeros = [np.zeros_like(state) for state in states]

    def backward(self, d_outputs: list[Array]) -> tuple[list[list[float]], list[Array]]:
        """The norms of dLoss/ds_t for every step t and state s, and the gradients of the inputs."""
        d_states = list(self._zeros)
        norms, d_inputs = [], []
        for tape, d_output in zip(reversed(self._tapes), reversed(d_outputs), strict=True):
            d_states[0] = d_states[0] + d_output  # h is the output
            norms.append([float(np.linalg.norm(d.astype(np.float64))) for d in d_states])
            d_x, d_states = tape.backward(None, d_states)
            d_inputs.append(d_x[:, 0])
        return norms[::-1], d_inputs[::-1]


def plot_gradient_flow(
    flows: Mapping[str, GradientFlow | Array],
    path: str | PathLike[str] | None = None,
    *,
    axes: Any = None,
    title: str | None = None,
) -> Any:
    """Draws the norms of dLoss/dh_t over t, on a logarithmic scale.

    Args:
        flows: What `gradient_flow` gave, or several of its entries under names of your own; an
            array (time,) of norms does, too.
        path: File to write, its format by the extension; with None nothing is written.
        axes: Matplotlib axes to draw into; by default those of a new figure.
        title: Of the plot.

    Returns:
        The axes.

    Raises:
        ImportError: Matplotlib is not installed.
        ValueError: There is nothing to draw.
    """
    if not flows:
        raise ValueError("flows: expected at least one, got none")
    if axes is None:
        from matplotlib.figure import Figure

        axes = Figure(figsize=(6, 3.8), layout="constrained").subplots()
    for name, flow in flows.items():
        norms = flow.hidden if isinstance(flow, GradientFlow) else np.asarray(flow)
        # A gradient of exactly 0 has no place on a logarithmic axis.
        axes.plot(np.arange(1, len(norms) + 1), np.where(norms > 0, norms, np.nan), label=name)
    axes.set_yscale("log")
    axes.set_xlabel("time step t")
    axes.set_ylabel("norm of dLoss/dh$_t$")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    if title:
        axes.set_title(title, loc="left", fontsize="medium")
    if path is not None:
        axes.figure.savefig(path, dpi=140)
    return axes
