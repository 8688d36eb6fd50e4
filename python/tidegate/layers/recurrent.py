"""What all recurrent layers share: `RNN` around a cell, the built-in cells' base, stacks of cells.

A cell says what happens in one step; running it over a sequence is `run_cell`.  The built-in cells
run over all steps in one call of the engine, also inside `RNN` and `StackedRNNCells`; a user's own
cell runs step by step in Python.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from .. import _core, activations, constraints, initializers, regularizers
from ..ops import CELLS, as_array, as_mask, as_states, check_sequences
from ..utils import make_generator, to_snake_case
from ..variables import Variable
from .base import Array, Layer, Shape, call_signature, deserialize, flatten, serialize

__all__ = ["RNN", "BuiltinCell", "BuiltinRNN", "StackedRNNCells", "TorchWeights"]


# ---- Running a cell over a sequence -----------------------------------------


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


def _map(function: Any, states: Any, *others: Any) -> Any:
    """`function` of every array of nested states, together with those at its place in `others`."""
    if isinstance(states, list | tuple):
        return [_map(function, *entries) for entries in zip(states, *others, strict=True)]
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
            states = _map(
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
        zeros = _map(np.zeros_like, self.states_before[0])
        if d_states is None:
            d_states = zeros
        else:
            d_states = _map(lambda d, zero: zero if d is None else np.asarray(d), d_states, zeros)
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
            d_new = _map(lambda d, z, t=t: self._keep(t, d, z), d_states, zeros)
            d_x[:, t], d_previous = self.cell.backward(self._keep(t, d_output, zero), d_new)
            if not isinstance(d_previous, list | tuple):
                d_previous = [d_previous]
            if self.mask is not None:
                kept = _map(lambda d, z, t=t: self._keep(t, z, d), d_states, zeros)
                d_previous = _map(np.add, kept, d_previous)
            d_states = list(d_previous)
        return d_x, d_states


# ---- The built-in cells -----------------------------------------------------


class _EngineTape:
    """One run of a built-in cell, with the dropout factors it used."""

    def __init__(
        self, cell: BuiltinCell, context: Any, input_factors: Array | None, per_gate: bool
    ) -> None:
        self.cell, self.context = cell, context
        self.input_factors = input_factors  # (gates or 1, batch, 1, features)
        self.per_gate = per_gate

    def backward(
        self, d_outputs: Any, d_states: Any, inputs: bool = True
    ) -> tuple[Array | None, list[Array]]:
        cell = self.cell
        if d_outputs is not None:
            d_outputs = as_array(d_outputs, cell._dtype, f"{cell.name} d_outputs")
        if d_states is not None:
            d_states = [
                None if d is None else as_array(d, cell._dtype, f"{cell.name} d_states")
                for d in d_states
            ]
        gradients = self.context.backward(d_outputs, d_states, inputs=inputs)
        d_kernel, d_x = gradients["kernel"], gradients["inputs"]
        if self.per_gate:
            d_kernel = cell._unblock(d_kernel)
        cell.kernel.add_gradient(d_kernel)
        cell.recurrent_kernel.add_gradient(gradients["recurrent_kernel"])
        if cell.bias is not None:
            cell.bias.add_gradient(gradients["bias"])
        if d_x is not None and self.input_factors is not None:
            parts = np.split(d_x, len(self.input_factors), axis=-1)
            d_x = sum(part * f for part, f in zip(parts, self.input_factors, strict=True))
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
        arguments, kwargs = _own_arguments(arguments)
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

    def _engine(self, per_gate: bool = False) -> Any:
        """The packed weights, made anew when a variable has changed."""
        bias = self.bias
        key = (
            self.kernel.version,
            self.recurrent_kernel.version,
            None if bias is None else bias.version,
            per_gate,
        )
        packed = self._packed
        if packed is None or packed[0] != key:
            engine = _core.Recurrent(
                self.engine_name,
                self._block(self.kernel.value) if per_gate else self.kernel.value,
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
    ) -> tuple[Array, list[Array], _EngineTape | None]:
        """Runs over the sequence x (batch, time, features); see `run_cell`."""
        x = as_array(x, self._dtype, f"{subject} inputs")
        check_sequences(x, self.kernel.shape[0], f"{subject} inputs")
        states = as_states(
            states, self._states, (len(x), self.units), self._dtype, f"{subject} initial_state"
        )
        if not training:
            outputs, states = self._engine().forward(x, states, mask, **options)
            return outputs, states, None
        factors = recurrent_factors = None
        if self.dropout > 0 or self.recurrent_dropout > 0:
            factors, recurrent_factors = self._dropout_factors(len(x))
        per_gate = factors is not None and len(factors) > 1
        if factors is not None:
            x = np.concatenate([x * f for f in factors], axis=-1)
        if recurrent_factors is not None:
            options = {**options, "recurrent_dropout": recurrent_factors}
        outputs, states, context = self._engine(per_gate).forward_training(
            x, states, mask, **options
        )
        return outputs, states, _EngineTape(self, context, factors, per_gate)

    # -- Dropout

    def _dropout_factors(self, batch: int) -> tuple[Array | None, Array | None]:
        """Fresh factors for the inputs (n, batch, 1, features) and the state (gates, batch, units).

        As in Keras, one set for all time steps; the inputs have one set per gate (n = gates) if
        there is recurrent dropout, else one for all gates (n = 1).
        """
        if self._generator is None:
            self._generator = make_generator(self.seed)
        inputs = recurrent = None
        if self.dropout > 0:
            count = self._gates if self.recurrent_dropout > 0 else 1
            inputs = inverted_dropout(
                self._generator,
                self.dropout,
                (count, batch, 1, self.kernel.shape[0]),
                self._dtype,
            )
        if self.recurrent_dropout > 0:
            recurrent = inverted_dropout(
                self._generator,
                self.recurrent_dropout,
                (self._gates, batch, self.units),
                self._dtype,
            )
        return inputs, recurrent

    # Gates that see the inputs through factors of their own: the inputs side by side, once per
    # gate, times a kernel whose block (g, g) is that of gate g.

    def _block(self, kernel: Array) -> Array:
        features, units = kernel.shape[0], self.units
        blocks = np.zeros((self._gates * features, kernel.shape[1]), kernel.dtype)
        for g in range(self._gates):
            columns = slice(g * units, (g + 1) * units)
            blocks[g * features : (g + 1) * features, columns] = kernel[:, columns]
        return blocks

    def _unblock(self, d_blocks: Array) -> Array:
        features, units = self.kernel.shape[0], self.units
        return np.concatenate(
            [
                d_blocks[g * features : (g + 1) * features, g * units : (g + 1) * units]
                for g in range(self._gates)
            ],
            axis=1,
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


def _own_arguments(arguments: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """A constructor's `locals()` as its named arguments and its `**kwargs`."""
    kwargs = dict(arguments.get("kwargs", {}))
    hidden = ("self", "kwargs", "__class__")
    return {name: value for name, value in arguments.items() if name not in hidden}, kwargs


_KINDS: dict[str, Any] = {
    "activation": activations,
    "initializer": initializers,
    "regularizer": regularizers,
    "constraint": constraints,
}


def resolved(name: str, value: Any) -> Any:
    """An argument such as `kernel_initializer="zeros"` as the object it stands for."""
    module = _KINDS.get(name.rsplit("_", 1)[-1])
    return value if module is None else module.get(value)


def serialized(owner: Any, names: Iterable[str]) -> dict[str, Any]:
    config = {}
    for name in names:
        value = getattr(owner, name)
        module = _KINDS.get(name.rsplit("_", 1)[-1])
        if module is not None and (value is not None or module is activations):
            value = module.serialize(value)
        config[name] = value
    return config


# ---- Stacks -----------------------------------------------------------------


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
        return _output_size(self.cells[-1])

    def build(self, input_shape: Any) -> None:
        """Builds the cells for a step's inputs (batch, features)."""
        for cell in self.cells:
            if isinstance(cell, Layer) and not cell.built:
                cell.build(input_shape)
            input_shape = (input_shape[0], _output_size(cell))

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


def _output_size(cell: Any) -> int:
    size = getattr(cell, "output_size", None)
    if size is None:
        size = cell.state_size
    return int(size[0] if isinstance(size, list | tuple) else size)


# ---- RNN --------------------------------------------------------------------


class RNN(Layer):
    """A recurrent layer around a cell.

    Args:
        cell: A cell, or a list of cells, which is taken as `StackedRNNCells`.  A user's own cell
            has `call(x_t, states)` (and `training`, if it wants it), which returns the output and
            the new states; `state_size`, an integer or a list of them; and possibly `output_size`,
            `get_initial_state(batch_size)`, and for training `backward(d_output, d_states)`, which
            returns `(d_inputs, d_states)` of the latest call.
        return_sequences: Whether to return the outputs of all steps, (batch, time, units), instead
            of the last, (batch, units).
        return_state: Whether to return `(outputs, *final_states)`.
        go_backwards: Whether to process the last step first; sequences are returned in the order
            of processing.
        stateful: Whether the final states of a call are the initial ones of the next.
        unroll: Accepted as in Keras; it makes no difference.
        zero_output_for_mask: Whether the outputs of masked steps are zero; else they repeat the
            output before.

    Call arguments:
        sequences: (batch, time, features), time at least 1.
        initial_state: A list with an entry per state, each (batch, units).
        mask: (batch, time), True = use the step.
        training: Whether dropout applies and `backward` will follow.

    Raises:
        ValueError: The cell has no `call` or no `state_size`, or an argument is unknown.
    """

    def __init__(
        self,
        cell: Any,
        return_sequences: bool = False,
        return_state: bool = False,
        go_backwards: bool = False,
        stateful: bool = False,
        unroll: bool = False,
        zero_output_for_mask: bool = False,
        **kwargs: Any,
    ) -> None:
        if isinstance(cell, list | tuple):
            cell = StackedRNNCells(cell, dtype=kwargs.get("dtype"))
        if not hasattr(cell, "call"):
            raise ValueError(f"Argument `cell` should have a `call` method. Received: cell={cell}")
        if not hasattr(cell, "state_size"):
            raise ValueError(
                "The RNN cell should have a `state_size` attribute (single integer or list of "
                f"integers, one integer per RNN state). Received: cell={cell}"
            )
        super().__init__(**kwargs)
        self.cell = cell
        self.return_sequences = return_sequences
        self.return_state = return_state
        self.go_backwards = go_backwards
        self.stateful = stateful
        self.unroll = unroll
        self.zero_output_for_mask = zero_output_for_mask
        self.supports_masking = True
        self.states: Any = None
        self.initial_state_gradients: Any = None
        size = cell.state_size
        if not isinstance(size, int | list | tuple):
            raise ValueError(
                "state_size must be an integer, or a list/tuple of integers (one for each state "
                f"tensor), got {size!r}"
            )
        self.state_size = [size] if isinstance(size, int) else list(size)

    # -- Shapes and states

    def _check_rank(self, shape: Any) -> None:
        if len(shape) < 3:
            raise self._rank_error("min_ndim=3", shape)

    def build(self, sequences_shape: Any, initial_state_shape: Any = None) -> None:
        """Builds the cell for sequences (batch, time, features), batch and time may be None."""
        step_shape = (sequences_shape[0], *sequences_shape[2:])
        if isinstance(self.cell, Layer) and not self.cell.built:
            self.cell.build(step_shape)
        if self.stateful:
            if sequences_shape[0] is None:
                raise ValueError(
                    "When using `stateful=True` in a RNN, the batch size must be static. Found "
                    f"dynamic batch size: sequence.shape={tuple(sequences_shape)}"
                )
            self.states = _map(
                lambda state: Variable(state, "rnn_state", trainable=False, dtype=self._dtype),
                self.get_initial_state(sequences_shape[0]),
            )

    def _variables_here(self) -> list[Variable]:
        return list(self._own_weights)  # the states are no weights

    def get_initial_state(self, batch_size: int) -> list[Any]:
        """What the layer starts with if nothing else is given."""
        return initial_states_of(self.cell, batch_size, self._dtype)

    def reset_state(self) -> None:
        """Sets the states of a stateful layer to zero."""
        for state in flatten(self.states) if self.states is not None else ():
            state.assign(np.zeros(state.shape, state.dtype))

    reset_states = reset_state

    def compute_output_shape(self, sequences_shape: Any, initial_state_shape: Any = None) -> Any:
        """The shape of the outputs; with `return_state` a tuple with those of the states."""
        batch, time = sequences_shape[:2]
        output: Shape = (batch, _output_size(self.cell))
        if self.return_sequences:
            output = (batch, time, output[1])
        if not self.return_state:
            return output

        def shape(size: Any) -> Any:
            return [shape(s) for s in size] if isinstance(size, list | tuple) else (batch, size)

        return output, *(shape(size) for size in self.state_size)

    def compute_mask(self, inputs: Any, previous_mask: Any) -> Any:
        """The inputs' mask if sequences are returned, else None; states have none."""
        if isinstance(previous_mask, list | tuple):
            previous_mask = previous_mask[0]
        mask = previous_mask if self.return_sequences else None
        return [mask, *(None for _ in self.state_size)] if self.return_state else mask

    # -- Calls

    def call(
        self, sequences: Any, initial_state: Any = None, mask: Any = None, training: bool = False
    ) -> Any:
        """The outputs for sequences; with `return_state` a tuple with the final states."""
        training = bool(training)
        if sequences.shape[1] == 0:
            raise ValueError(
                f"Layer '{self.name}': expected at least one time step, got {sequences.shape}"
            )
        subject = f"Layer '{self.name}'"
        x = as_array(sequences, self._dtype, f"{subject} inputs")
        if mask is not None:
            mask = as_mask(mask, x.shape[:2], f"{subject} mask")
        if self.stateful:
            expected = flatten(self.states)[0].shape[0]
            if len(x) != expected:
                raise ValueError(
                    "If an RNN is stateful, the batch size of the input sequences must be the "
                    "same as the batch size of the initial state. \n"
                    f"- Expected batch size: {expected}\n- Received batch size: {len(x)}"
                )
            if initial_state is None:
                initial_state = _map(np.array, self.states)
        elif initial_state is None and type(self).get_initial_state is not RNN.get_initial_state:
            initial_state = self.get_initial_state(len(x))
        if initial_state is not None:
            if not isinstance(initial_state, list | tuple):
                initial_state = [initial_state]
            if len(initial_state) != len(self.state_size):
                raise ValueError(
                    f"{subject} initial_state: expected {len(self.state_size)} state(s), "
                    f"got {len(initial_state)}"
                )
            initial_state = list(initial_state)
        outputs, states, tape = run_cell(
            self.cell,
            x,
            initial_state,
            mask,
            training,
            {
                "return_sequences": self.return_sequences,
                "go_backwards": self.go_backwards,
                "zero_output_for_mask": self.zero_output_for_mask,
            },
            subject,
        )
        if training:
            self._saved = tape
        if self.stateful:
            _map(lambda variable, state: variable.assign(state), self.states, states)
        return (outputs, *states) if self.return_state else outputs

    def backward(self, d_outputs: Any) -> Any:
        """The gradient of the sequences of the latest call with `training=True`.

        Those of the initial states are left in `initial_state_gradients`.

        Args:
            d_outputs: The gradient of the outputs; with `return_state` a tuple with those of the
                states, of which any may be None.
        """
        d_states = None
        if self.return_state:
            d_outputs, *given = d_outputs if isinstance(d_outputs, tuple | list) else (d_outputs,)
            if any(d is not None for d in given):
                d_states = given
        tape = self._get_saved()
        if isinstance(tape, _EngineTape):
            d_x, d_initial = tape.backward(d_outputs, d_states, self._needs_input_gradient)
        else:
            d_x, d_initial = tape.backward(d_outputs, d_states)
        self.initial_state_gradients = d_initial
        return d_x

    # -- Configs

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments, in Keras's order."""
        return {
            **super().get_config(),
            "return_sequences": self.return_sequences,
            "return_state": self.return_state,
            "go_backwards": self.go_backwards,
            "stateful": self.stateful,
            "unroll": self.unroll,
            "zero_output_for_mask": self.zero_output_for_mask,
            "cell": serialize(self.cell),
        }

    @classmethod
    def from_config(
        cls, config: Mapping[str, Any], custom_objects: Mapping[str, Any] | None = None
    ) -> Any:
        """A new layer from what `get_config` gave."""
        rest = dict(config)
        return cls(deserialize(rest.pop("cell"), custom_objects), **rest)


class TorchWeights:
    """Weights from and to PyTorch, for the layers that PyTorch has, too."""

    @classmethod
    def from_torch(
        cls,
        state_dict: Any,
        prefix: str = "",
        layer: int = 0,
        reverse: bool = False,
        **arguments: Any,
    ) -> Any:
        """A built layer with the weights of an `nn.LSTM`, `nn.GRU` or `nn.RNN`, or its cell.

        PyTorch need not be installed: names with arrays will do.

        Args:
            state_dict: Names to arrays or tensors, or a module.
            prefix: What precedes `weight_ih_l0` in the names.
            layer: Number of the layer in a stack.
            reverse: Whether to take the backward direction of a bidirectional module.
            **arguments: Further ones of the constructor.

        Raises:
            ValueError: Parameters are missing or are those of another cell, or of a projection.
            TypeError: `state_dict` is neither a mapping nor a module.
        """
        from ..saving.torch import layer_from_torch

        return layer_from_torch(cls, state_dict, prefix, layer, reverse, arguments)

    def to_torch(self, prefix: str = "", layer: int = 0, reverse: bool = False) -> dict[str, Array]:
        """The weights by PyTorch's names and in its layout.

        Raises:
            ValueError: The layer is not built, or PyTorch has no module equal to it.
        """
        from ..saving.torch import layer_to_torch

        return layer_to_torch(self, prefix, layer, reverse)


class BuiltinRNN(RNN):
    """A recurrent layer whose constructor takes its cell's arguments.

    The cell's arguments can be read from the layer, too (`layer.units`, `layer.activation` ...);
    the weights are the cell's (`layer.cell.kernel`).
    """

    cell_class: Any  # a subclass of BuiltinCell

    @classmethod
    def _config_keys(cls) -> list[str]:
        """The cell's arguments and the layer's own in the order of the layer's config."""
        keys = list(cls.cell_class._config_keys)
        keys.insert(keys.index("bias_regularizer") + 1, "activity_regularizer")
        return keys

    def __init__(self, arguments: dict[str, Any]) -> None:
        arguments, kwargs = _own_arguments(arguments)
        cell_arguments = {
            name: arguments.pop(name)
            for name in inspect.signature(self.cell_class).parameters
            if name in arguments
        }
        cell_arguments |= {n: kwargs[n] for n in ("dtype", "trainable") if n in kwargs}
        if "implementation" in kwargs and self.cell_class.takes_implementation:
            del kwargs["implementation"]  # Keras's choice between two ways to the same numbers
        use_cudnn = arguments.pop("use_cudnn", "auto")
        if use_cudnn not in ("auto", True, False):
            raise ValueError(
                "Invalid valid received for argument `use_cudnn`. Expected one of "
                f"{{'auto', True, False}}. Received: use_cudnn={use_cudnn}"
            )
        if use_cudnn is True:
            raise ValueError(
                f"{type(self).__name__} use_cudnn: expected 'auto' or False, as there is no cuDNN "
                "on a CPU, got True"
            )
        name = to_snake_case(self.cell_class.__name__)
        super().__init__(self.cell_class(**cell_arguments, name=name), **arguments, **kwargs)

    def __getattr__(self, name: str) -> Any:
        if name in type(self).cell_class._config_keys:
            return getattr(self.cell, name)
        raise AttributeError(f"'{type(self).__name__}' object has no attribute '{name}'")

    def _check_rank(self, shape: Any) -> None:
        if len(shape) != 3:
            raise self._rank_error("ndim=3", shape)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments, in Keras's order."""
        config = super().get_config()
        del config["cell"]
        return {**config, **serialized(self, self._config_keys())}

    @classmethod
    def from_config(cls, config: Mapping[str, Any], custom_objects: Any = None) -> Any:
        """A new layer from what `get_config` gave."""
        return cls(**config)

    # -- PyTorch

    @classmethod
    def from_torch(
        cls,
        state_dict: Any,
        prefix: str = "",
        layer: int = 0,
        reverse: bool = False,
        **kwargs: Any,
    ) -> Any:
        """A built layer with the weights of PyTorch's `nn.LSTM`, `nn.GRU` or `nn.RNN`.

        Args:
            state_dict: Names to arrays or tensors, or a module.
            prefix: What precedes `weight_ih_l0` in the names.
            layer: Which layer of a stack.
            reverse: Take the backward direction, and process the last step first.
            **kwargs: Arguments of the constructor except units and use_bias, for example
                `return_sequences=True`, which PyTorch's modules always do.

        Raises:
            ValueError: Parameters are missing, of another cell, or have a projection; or the
                cell is one PyTorch does not have.
        """
        from ..saving.torch import layer_from_torch

        return layer_from_torch(cls, state_dict, prefix, layer, reverse, kwargs)

    def to_torch(self, prefix: str = "", layer: int = 0, reverse: bool = False) -> dict[str, Array]:
        """The weights by PyTorch's names, in its layout; arguments as in `from_torch`.

        Raises:
            ValueError: The layer is not built, or not one that PyTorch has.
        """
        from ..saving.torch import layer_to_torch

        return layer_to_torch(self, prefix, layer, reverse)
