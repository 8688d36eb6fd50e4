"""`RNN`, the recurrent layer around a cell, and the base of those named after their cells."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np

from .. import _core
from ..ops import as_array, as_mask
from ..utils import to_snake_case
from ..variables import Variable
from .base import Array, Layer, Shape, deserialize, flatten, serialize, serialized
from .cells import (
    BuiltinCell,
    EngineTape,
    StackedRNNCells,
    initial_states_of,
    map_states,
    output_size,
    own_arguments,
    run_cell,
)

__all__ = ["RNN", "BuiltinCell", "BuiltinRNN", "StackedRNNCells", "initial_states_of", "run_cell"]


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
            self.states = map_states(
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
        output: Shape = (batch, output_size(self.cell))
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
        run = self._run_arguments(sequences, initial_state, mask, bool(training))
        return self._finish(run_cell(self.cell, *run), bool(training))

    def _run_arguments(
        self, sequences: Any, initial_state: Any, mask: Any, training: bool
    ) -> tuple[Any, ...]:
        """What `run_cell` takes after the cell."""
        if sequences.shape[1] == 0:
            raise ValueError(
                f"Layer '{self.name}': expected at least one time step, got {sequences.shape}"
            )
        subject = f"Layer '{self.name}'"
        x = sequences
        if type(x) is not np.ndarray or x.dtype is not self._dtype:
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
                initial_state = map_states(np.array, self.states)
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
        options = {
            "return_sequences": self.return_sequences,
            "go_backwards": self.go_backwards,
            "zero_output_for_mask": self.zero_output_for_mask,
        }
        return x, initial_state, mask, training, options, subject

    def _finish(self, result: tuple[Any, Any, Any], training: bool) -> Any:
        """What `call` returns, from what `run_cell` gave."""
        outputs, states, tape = result
        if training:
            self._saved = tape
        if self.stateful:
            map_states(lambda variable, state: variable.assign(state), self.states, states)
        return (outputs, *states) if self.return_state else outputs

    def backward(self, d_outputs: Any) -> Any:
        """The gradient of the sequences of the latest call with `training=True`.

        Those of the initial states are left in `initial_state_gradients`.

        Args:
            d_outputs: The gradient of the outputs; with `return_state` a tuple with those of the
                states, of which any may be None.
        """
        d_outputs, d_states = self._split_gradients(d_outputs)
        tape = self._get_saved()
        if isinstance(tape, EngineTape):
            d_x, d_initial = tape.backward(d_outputs, d_states, self._needs_input_gradient)
        else:
            d_x, d_initial = tape.backward(d_outputs, d_states)
        self.initial_state_gradients = d_initial
        return d_x

    def _split_gradients(self, d_outputs: Any) -> tuple[Any, Any]:
        """The gradients of the outputs and of the states, of which there may be none."""
        if not self.return_state:
            return d_outputs, None
        d_outputs, *given = d_outputs if isinstance(d_outputs, tuple | list) else (d_outputs,)
        return d_outputs, given if any(d is not None for d in given) else None

    # -- Two layers in one call of the engine

    def _runs_beside(self, other: Any) -> bool:
        """Whether `call_both` and `backward_both` do what calls of both layers do."""
        return self._runs_in_engine() and other._runs_in_engine() and self._dtype == other._dtype

    def _runs_in_engine(self) -> bool:
        return (
            type(self).__call__ is Layer.__call__
            and _functions(self, "call", "backward") == (RNN.call, RNN.backward)
            and _functions(self.cell, "call", "run") == (BuiltinCell.call, BuiltinCell.run)
            and self.activity_regularizer is None
            and not self._losses
        )

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


def _functions(owner: Any, *names: str) -> tuple[Any, ...]:
    """Those behind an object's methods."""
    return tuple(getattr(getattr(owner, name, None), "__func__", None) for name in names)


def call_both(
    layers: tuple[RNN, RNN], sequences: Any, initial_states: Any, mask: Any, training: bool
) -> list[Any]:
    """What two layers' calls on the same sequences return, from one call of the engine."""
    calls, factors = [], []
    for layer, state in zip(layers, initial_states, strict=True):
        run = layer._run_arguments(sequences, state, mask, training)
        arguments, own_factors = layer.cell._prepare_run(*run)
        engine = layer.cell._engine()
        prepare = engine.prepare_forward_training if training else engine.prepare_forward
        calls.append(prepare(*arguments))
        factors.append(own_factors)
    return [
        layer._finish(layer.cell._finish_run(result, own_factors), training)
        for layer, result, own_factors in zip(layers, _core.run_both(*calls), factors, strict=True)
    ]


def backward_both(layers: tuple[RNN, RNN], d_outputs: Any) -> list[Any]:
    """What two layers' `backward` return, from one call of the engine."""
    tapes = [layer._get_saved() for layer in layers]
    calls = [
        tape.context.prepare_backward(
            *tape.prepare(*layer._split_gradients(d)), layer._needs_input_gradient
        )
        for layer, tape, d in zip(layers, tapes, d_outputs, strict=True)
    ]
    d_inputs = []
    for layer, tape, result in zip(layers, tapes, _core.run_both(*calls), strict=True):
        d_x, layer.initial_state_gradients = tape.finish(result)
        d_inputs.append(d_x)
    return d_inputs


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
        arguments, kwargs = own_arguments(arguments)
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
