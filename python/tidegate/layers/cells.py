"""Cells, and how they run over a sequence: the built-in ones, stacks, and users' own.

A cell says what happens in one step; running it over a sequence is `run_cell`.  The built-in cells
run over all steps in one call of the engine, also inside `RNN` and `StackedRNNCells`; a user's own
cell runs step by step in Python.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from .. import _core, activations
from ..ops import CELLS, as_array, as_states, check_sequences
from ..utils import make_generator
from ..variables import Variable
from .base import Array, Layer, call_signature, deserialize, resolved, serialize, serialized

__all__ = ["BuiltinCell", "StackedRNNCells", "initial_states_of", "run_cell"]


# ---- Running a cell over a sequence -------------------------------------------------------------


def run_cell(
    cell: Any,
    x: Array,
    states: Any,
    mask: Array | None,
    training: bool,
    options: dict[str, Any],
    subject: str,
) -> tuple[Array, Any, Any]:
    """Runs `cell` over the time axis of x.

    Args:
        cell: A built-in cell, StackedRNNCells, or any object with `call(x_t, states)`.
        x: (batch, time, ...).
        states: As `cell.state_size`: one entry per state; None for zeros.
        mask: (batch, time) of bool, or None.
        training: Whether `backward` will follow.
        options: return_sequences, go_backwards, zero_output_for_mask.
        subject: The layer, for errors.

    Returns:
        outputs (batch, time, ...) in processing order, or the last one; the final states; and a
        tape, whose `backward(d_outputs, d_states)` gives `(d_x, d_initial_states)`.
    """
    call = type(cell).call
    if call is BuiltinCell.call or call is StackedRNNCells.call:
        outputs: tuple[Array, Any, Any] = cell.run(x, states, mask, training, options, subject)
        return outputs
    tape = _PythonTape(cell, x, mask, training, options)
    if states is None:
        states = initial_states_of(cell, len(x), x.dtype)
    return *tape.forward(states), tape


def initial_states_of(cell: Any, batch: int, dtype: Any) -> list[Any]:
    """The states a cell starts with: its own `get_initial_state`, or zeros."""
    own = getattr(cell, "get_initial_state", None)
    if own is not None:
        states = own(batch_size=batch)
        return list(states) if isinstance(states, list | tuple) else [states]
    size = cell.state_size
    return _zeros(list(size) if isinstance(size, list | tuple) else [size], batch, dtype)


def _zeros(size: Any, batch: int, dtype: Any) -> Any:
    """Zeros for a `state_size`: an array for an integer, else a list."""
    if isinstance(size, list | tuple):
        return [_zeros(entry, batch, dtype) for entry in size]
    return np.zeros((batch, size), dtype)


def map_states(function: Any, states: Any, *others: Any) -> Any:
    """`function` of every array of nested states, together with those at its place in `others`."""
    if isinstance(states, list | tuple):
        return [map_states(function, *entries) for entries in zip(states, *others, strict=True)]
    return function(states, *others)


class _PythonTape:
    """A user's cell over a sequence, a call per step; backward calls it again, last step first."""

    def __init__(
        self, cell: Any, x: Array, mask: Array | None, training: bool, options: dict[str, Any]
    ) -> None:
        self.cell, self.x, self.mask, self.options = cell, x, mask, options
        self.training = training
        time = x.shape[1]
        self.order = range(time - 1, -1, -1) if options["go_backwards"] else range(time)
        self.states_before: list[Any] = []

    def _step(self, t: int, states: Any) -> tuple[Array, Any]:
        kwargs = {}
        if call_signature(type(self.cell)).takes_training:
            kwargs["training"] = self.training
        step = self.cell if callable(self.cell) else self.cell.call
        output, new_states = step(np.ascontiguousarray(self.x[:, t]), states, **kwargs)
        if not isinstance(new_states, list | tuple):
            new_states = [new_states]
        return np.asarray(output, self.x.dtype), list(new_states)

    def _keep(self, t: int, new: Array, old: Array) -> Array:
        """`new` where the step is valid, else `old`."""
        if self.mask is None:
            return new
        valid = self.mask[:, t].reshape((-1,) + (1,) * (new.ndim - 1))
        return np.where(valid, new, old)

    def forward(self, states: Any) -> tuple[Array, Any]:
        outputs: list[Array] = []
        output = None
        for t in self.order:
            if self.training:
                self.states_before.append(states)
            new_output, new_states = self._step(t, states)
            states = map_states(
                lambda new, old, t=t: self._keep(t, np.asarray(new), np.asarray(old)),
                new_states,
                states,
            )
            if output is None or self.options["zero_output_for_mask"]:
                output = np.zeros_like(new_output)
            output = self._keep(t, new_output, output)
            outputs.append(output)
        assert output is not None
        return (np.stack(outputs, axis=1) if self.options["return_sequences"] else output), states

    def backward(self, d_outputs: Any, d_states: Any) -> tuple[Array, Any]:
        if not hasattr(self.cell, "backward") or type(self.cell).backward is Layer.backward:
            raise ValueError(
                f"Cell {type(self.cell).__name__}: expected a method `backward(d_output, d_states)`"
                " for training, which returns `(d_inputs, d_states)`; this cell runs forward only"
            )
        zeros = map_states(np.zeros_like, self.states_before[0])
        if d_states is None:
            d_states = zeros
        else:
            d_states = map_states(
                lambda d, zero: zero if d is None else np.asarray(d), d_states, zeros
            )
        d_x = np.zeros_like(self.x)
        d_repeated: Any = 0
        for k in range(len(self.order) - 1, -1, -1):
            t = self.order[k]
            output, _ = self._step(t, self.states_before[k])  # what the cell keeps is this step's
            if self.options["return_sequences"]:
                d_output = d_outputs[:, k] + d_repeated
            else:
                d_output = (d_outputs if k == len(self.order) - 1 else 0) + d_repeated
            d_output = np.broadcast_to(d_output, output.shape)
            zero = np.zeros_like(output)
            d_repeated = 0
            if not self.options["zero_output_for_mask"] and self.mask is not None:
                d_repeated = self._keep(t, zero, d_output)
            d_new = map_states(lambda d, z, t=t: self._keep(t, d, z), d_states, zeros)
            d_x[:, t], d_previous = self.cell.backward(self._keep(t, d_output, zero), d_new)
            if not isinstance(d_previous, list | tuple):
                d_previous = [d_previous]
            if self.mask is not None:
                kept = map_states(lambda d, z, t=t: self._keep(t, z, d), d_states, zeros)
                d_previous = map_states(np.add, kept, d_previous)
            d_states = list(d_previous)
        return d_x, d_states


# ---- The built-in cells -------------------------------------------------------------------------


def _fits(x: Any, dtype: np.dtype[Any]) -> bool:
    """Whether the engine takes x as it is, or copies it itself where it is not contiguous."""
    return type(x) is np.ndarray and x.dtype is dtype


class EngineTape:
    """One run of a built-in cell, with the dropout factors it used."""

    def __init__(self, cell: BuiltinCell, context: Any, input_factors: Array | None) -> None:
        self.cell, self.context = cell, context
        self.input_factors = input_factors  # (batch, 1, features), or None

    def backward(
        self, d_outputs: Any, d_states: Any, inputs: bool = True
    ) -> tuple[Array | None, list[Array]]:
        arguments = self.prepare(d_outputs, d_states)
        return self.finish(self.context.backward(*arguments, inputs))

    def prepare(self, d_outputs: Any, d_states: Any) -> tuple[Any, Any]:
        """Both as the engine takes them."""
        cell = self.cell
        if d_outputs is not None and not _fits(d_outputs, cell._dtype):
            d_outputs = as_array(d_outputs, cell._dtype, f"{cell.name} d_outputs")
        if d_states is not None:
            d_states = [
                None if d is None else as_array(d, cell._dtype, f"{cell.name} d_states")
                for d in d_states
            ]
        return d_outputs, d_states

    def finish(self, gradients: Any) -> tuple[Array | None, list[Array]]:
        """What `backward` returns, from the engine's gradients, which the variables get."""
        cell = self.cell
        d_x = gradients["inputs"]
        cell.kernel.add_gradient(gradients["kernel"])
        cell.recurrent_kernel.add_gradient(gradients["recurrent_kernel"])
        if cell.bias is not None:
            cell.bias.add_gradient(gradients["bias"])
        if d_x is not None and self.input_factors is not None:
            d_x *= self.input_factors
        return d_x, gradients["initial_state"]


class BuiltinCell(Layer):
    """A cell that the engine knows.  See the layers for what the arguments mean.

    Call: `cell(inputs, states, training=False)` with inputs (batch, features) and states a list of
    (batch, units) gives `(output, new_states)`; a bare array stands for a list of one state.
    """

    # The cell's own constructor arguments in the order of its config.
    _config_keys: tuple[str, ...] = ()
    takes_implementation = True

    seed: int | None
    use_bias: bool
    bias_initializer: Any
    kernel_initializer: Any
    recurrent_initializer: Any
    kernel: Variable
    recurrent_kernel: Variable
    bias: Variable | None

    def __init__(self, arguments: dict[str, Any]) -> None:
        arguments, kwargs = own_arguments(arguments)
        units = arguments["units"]
        if isinstance(units, str) or units is None or isinstance(units, bool):
            raise TypeError(
                f"{type(self).__name__}: expected `units` to be a positive integer, got {units!r}"
            )
        if units <= 0 or int(units) != units:
            raise ValueError(
                "Received an invalid value for argument `units`, expected a positive integer, "
                f"got {units}."
            )
        if self.takes_implementation:
            kwargs.pop("implementation", None)
        super().__init__(**kwargs)
        for name, value in arguments.items():
            setattr(self, name, resolved(name, value))
        self.units = int(units)
        self.dropout, self.recurrent_dropout = (
            self._rate(name, arguments[name]) for name in ("dropout", "recurrent_dropout")
        )
        self._activation_names = tuple(
            activations.engine_name(getattr(self, name), type(self).__name__, name)
            for name in ("activation", "recurrent_activation")
            if name in arguments
        )
        self.state_size: int | list[int] = (
            self.units if self._states == 1 else [self.units] * self._states
        )
        self.output_size = self.units
        self.bias = None
        self._generator: np.random.Generator | None = None
        self._packed: tuple[Any, ...] | None = None

    def _rate(self, name: str, value: Any) -> float:
        if not isinstance(value, int | float | np.number) or value != value:
            raise ValueError(
                f"{type(self).__name__}: expected `{name}` to be a number from 0 to 1, "
                f"got {value!r}"
            )
        return min(1.0, max(0.0, float(value)))  # clipped as in Keras

    # -- The engine

    @property
    def engine_name(self) -> str:
        """What the engine calls this cell."""
        raise NotImplementedError

    @property
    def _gates(self) -> int:
        return CELLS[self.engine_name]["gates"]

    @property
    def _states(self) -> int:
        return CELLS[self.engine_name]["states"]

    def build(self, input_shape: Any) -> None:
        """Creates kernel, recurrent_kernel and bias for `input_shape[-1]` features."""
        features = input_shape[-1]
        if features is None:
            raise ValueError(
                f"{type(self).__name__}: expected a known number of features, "
                f"got input shape {tuple(input_shape)}"
            )
        width = self._gates * self.units
        self.kernel = self._add("kernel", (features, width), self.kernel_initializer)
        self.recurrent_kernel = self._add(
            "recurrent_kernel", (self.units, width), self.recurrent_initializer
        )
        if self.use_bias:
            rows = CELLS[self.engine_name]["bias_rows"]
            shape = (width,) if rows == 1 else (rows, width)
            self.bias = self._add("bias", shape, self._initial_bias)

    def _add(self, name: str, shape: tuple[int, ...], initializer: Any) -> Variable:
        short = name.removesuffix("_kernel")  # kernel, recurrent, bias: as in the arguments' names
        return self.add_weight(
            shape,
            initializer,
            name=name,
            regularizer=getattr(self, f"{short}_regularizer"),
            constraint=getattr(self, f"{short}_constraint"),
        )

    def _initial_bias(self, shape: Any, dtype: Any) -> Array:
        bias: Array = self.bias_initializer(shape, dtype)
        return bias

    def _engine(self) -> Any:
        """The packed weights, made anew when a variable has changed."""
        bias = self.bias
        key = (
            self.kernel.version,
            self.recurrent_kernel.version,
            None if bias is None else bias.version,
        )
        packed = self._packed
        if packed is None or packed[0] != key:
            engine = _core.Recurrent(
                self.engine_name,
                self.kernel.value,
                self.recurrent_kernel.value,
                None if bias is None else bias.value,
                *self._activation_names,
            )
            self._packed = packed = (key, engine)
        return packed[1]

    def run(
        self,
        x: Array,
        states: Any,
        mask: Array | None,
        training: bool,
        options: dict[str, Any],
        subject: str,
    ) -> tuple[Array, list[Array], EngineTape | None]:
        """Runs over the sequence x (batch, time, features); see `run_cell`."""
        arguments, factors = self._prepare_run(x, states, mask, training, options, subject)
        engine = self._engine()
        forward = engine.forward_training if training else engine.forward
        return self._finish_run(forward(*arguments), factors)

    def _prepare_run(
        self,
        x: Array,
        states: Any,
        mask: Array | None,
        training: bool,
        options: dict[str, Any],
        subject: str,
    ) -> tuple[tuple[Any, ...], Array | None]:
        """The engine's arguments for `run`, and the factors of the inputs that are in them."""
        if not _fits(x, self._dtype):
            x = as_array(x, self._dtype, f"{subject} inputs")
        if x.ndim != 3 or x.shape[2] != self.kernel._data.shape[0] or x.shape[1] == 0:
            check_sequences(x, self.kernel.shape[0], f"{subject} inputs")
        if states is not None:
            states = as_states(
                states, self._states, (len(x), self.units), self._dtype, f"{subject} initial_state"
            )
        factors = input_dropout = recurrent = None
        if training and (self.dropout > 0 or self.recurrent_dropout > 0):
            inputs, recurrent = self._dropout_factors(len(x))
            if inputs is not None and len(inputs) == 1:
                factors = inputs[0]
                x = x * factors
            elif inputs is not None:
                input_dropout = inputs[:, :, 0]
        # By position: names cost the engine more to look up than a small step takes.
        arguments = (
            *(x, states, mask, options["return_sequences"], options["go_backwards"]),
            *(options["zero_output_for_mask"], input_dropout, recurrent),
        )
        return arguments, factors

    def _finish_run(
        self, result: Any, factors: Array | None
    ) -> tuple[Array, list[Array], EngineTape | None]:
        """What `run` returns, from what the engine gave."""
        outputs, states, *context = result
        return outputs, states, EngineTape(self, context[0], factors) if context else None

    # -- Dropout

    def _dropout_factors(self, batch: int) -> tuple[Array | None, Array | None]:
        """Fresh factors for the inputs (n, batch, 1, features) and the state (gates, batch, units).

        As in Keras, one set for all time steps; the inputs have one set per gate (n = gates) if
        there is recurrent dropout, else one for all gates (n = 1).
        """
        if self._generator is None:
            self._generator = make_generator(self.seed)
        generator = self._generator

        def draw(rate: float, *shape: int) -> Array | None:
            return inverted_dropout(generator, rate, shape, self._dtype) if rate > 0 else None

        count = self._gates if self.recurrent_dropout > 0 else 1
        return (
            draw(self.dropout, count, batch, 1, self.kernel.shape[0]),
            draw(self.recurrent_dropout, self._gates, batch, self.units),
        )

    # -- One step

    def get_initial_state(self, batch_size: int | None = None) -> list[Array]:
        """Zeros, one array (batch_size, units) per state."""
        return [np.zeros((batch_size or 0, self.units), self._dtype) for _ in range(self._states)]

    def call(self, inputs: Any, states: Any, training: bool = False) -> tuple[Array, Any]:
        """One step: inputs (batch, features) and the states to the output and the new states."""
        x = as_array(inputs, self._dtype, f"Layer '{self.name}' inputs")
        if x.ndim != 2:
            raise self._rank_error("ndim=2", x.shape)
        options = {"return_sequences": False, "go_backwards": False, "zero_output_for_mask": False}
        output, new_states, self._saved = self.run(
            x[:, None], states, None, bool(training), options, f"Layer '{self.name}'"
        )
        bare = not isinstance(states, list | tuple)
        return output, new_states[0] if bare else new_states

    def backward(self, d_outputs: Any, d_states: Any = None) -> Any:
        """Gradients of the latest call with `training=True`: `(d_inputs, d_states)`.

        Args:
            d_outputs: (batch, units).
            d_states: A list with an entry per state, each may be None; or None.
        """
        d_x, d_initial = self._get_saved().backward(d_outputs, d_states)
        return d_x[:, 0], d_initial

    def compute_output_shape(self, input_shape: Any) -> Any:
        """(batch, units) for the output of a step."""
        return (input_shape[0], self.units)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments, in Keras's order."""
        return {**super().get_config(), **serialized(self, self._config_keys)}


def inverted_dropout(
    generator: np.random.Generator, rate: float, shape: tuple[int, ...], dtype: Any
) -> Array:
    """Factors 0 with probability `rate`, else 1/(1-rate)."""
    if rate >= 1:
        return np.zeros(shape, dtype)
    kept = generator.random(shape, dtype) >= rate
    return np.multiply(kept, np.dtype(dtype).type(1 / (1 - rate)), dtype=dtype)


def own_arguments(arguments: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """A constructor's `locals()` as its named arguments and its `**kwargs`."""
    kwargs = dict(arguments.get("kwargs", {}))
    hidden = ("self", "kwargs", "__class__")
    return {name: value for name, value in arguments.items() if name not in hidden}, kwargs


# ---- Stacks -------------------------------------------------------------------------------------


class _StackTape:
    def __init__(self, tapes: list[Any]) -> None:
        self.tapes = tapes

    def backward(self, d_outputs: Any, d_states: Any) -> tuple[Any, Any]:
        d_initial: list[Any] = [None] * len(self.tapes)
        for index in reversed(range(len(self.tapes))):
            own = None if d_states is None else d_states[index]
            if own is not None and not isinstance(own, list | tuple):
                own = [own]
            d_outputs, initial = self.tapes[index].backward(d_outputs, own)
            d_initial[index] = initial
        return d_outputs, d_initial


class StackedRNNCells(Layer):
    """Cells one on top of another, which behave as one cell.

    Its states are a list with an entry per cell: a list of the cell's states, or an array for a
    user's own cell with one.

    Args:
        cells: Cells, built-in or users' own.

    Raises:
        ValueError: One of them has no `call` or no `state_size`.
    """

    def __init__(self, cells: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        for cell in cells:
            if not hasattr(cell, "call"):
                raise ValueError(
                    "All cells must have a `call` method. "
                    f"Received cell without a `call` method: {cell}"
                )
            if not hasattr(cell, "state_size"):
                raise ValueError(
                    "All cells must have a `state_size` attribute. "
                    f"Received cell without a `state_size`: {cell}"
                )
        if not cells:
            raise ValueError(f"{type(self).__name__}: expected at least one cell, got {cells!r}")
        self.cells = list(cells)

    @property
    def state_size(self) -> list[Any]:
        """The state sizes of the cells."""
        return [cell.state_size for cell in self.cells]

    @property
    def output_size(self) -> int:
        """The width of the last cell's output."""
        return output_size(self.cells[-1])

    def build(self, input_shape: Any) -> None:
        """Builds the cells for a step's inputs (batch, features)."""
        for cell in self.cells:
            if isinstance(cell, Layer) and not cell.built:
                cell.build(input_shape)
            input_shape = (input_shape[0], output_size(cell))

    def get_initial_state(self, batch_size: int | None = None) -> list[Any]:
        """The cells' initial states."""
        initial = []
        for cell in self.cells:
            states = initial_states_of(cell, batch_size or 0, self._dtype)
            bare = isinstance(cell.state_size, int) and not hasattr(cell, "get_initial_state")
            initial.append(states[0] if bare else states)
        return initial

    def run(
        self,
        x: Array,
        states: Any,
        mask: Array | None,
        training: bool,
        options: dict[str, Any],
        subject: str,
    ) -> tuple[Array, list[Any], _StackTape]:
        """Runs one cell after another, each over the whole sequence; see `run_cell`."""
        if states is None:
            states = [None] * len(self.cells)
        if len(states) != len(self.cells):
            raise ValueError(
                f"{subject} initial_state: expected {len(self.cells)} entries, one per cell, "
                f"got {len(states)}"
            )
        final: list[Any] = []
        tapes: list[Any] = []
        for index, (cell, own) in enumerate(zip(self.cells, states, strict=True)):
            last = index == len(self.cells) - 1
            if own is None:
                bare = isinstance(cell.state_size, int) and not hasattr(cell, "get_initial_state")
            else:
                bare = not isinstance(own, list | tuple)
                own = [own] if bare else own
            x, new, tape = run_cell(
                cell,
                x,
                own,
                mask,
                training,
                {**options, "return_sequences": options["return_sequences"] or not last},
                subject,
            )
            if options["go_backwards"]:  # what the first cell gives is in processing order
                options = {**options, "go_backwards": False}
                mask = None if mask is None else np.ascontiguousarray(mask[:, ::-1])
            # As in Keras: an entry that came as an array goes as one, and so does the only one.
            final.append(new[0] if len(new) == 1 and (bare or len(self.cells) == 1) else new)
            tapes.append(tape)
        return x, final, _StackTape(tapes)

    def call(self, inputs: Any, states: Any, training: bool = False) -> tuple[Array, list[Any]]:
        """One step: inputs (batch, features) and the states to the output and the new states."""
        x = as_array(inputs, self._dtype, f"Layer '{self.name}' inputs")
        options = {"return_sequences": False, "go_backwards": False, "zero_output_for_mask": False}
        output, new_states, self._saved = self.run(
            x[:, None], states, None, bool(training), options, f"Layer '{self.name}'"
        )
        return output, new_states

    def backward(self, d_outputs: Any, d_states: Any = None) -> Any:
        """Gradients of the latest call with `training=True`: `(d_inputs, d_states)`."""
        d_x, d_initial = self._get_saved().backward(d_outputs, d_states)
        return d_x[:, 0], d_initial

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {**super().get_config(), "cells": [serialize(cell) for cell in self.cells]}

    @classmethod
    def from_config(
        cls, config: Mapping[str, Any], custom_objects: Mapping[str, Any] | None = None
    ) -> Any:
        """A new stack from what `get_config` gave."""
        rest = dict(config)
        cells = [deserialize(cell, custom_objects) for cell in rest.pop("cells")]
        return cls(cells, **rest)


def output_size(cell: Any) -> int:
    size = getattr(cell, "output_size", None)
    if size is None:
        size = cell.state_size
    return int(size[0] if isinstance(size, list | tuple) else size)
