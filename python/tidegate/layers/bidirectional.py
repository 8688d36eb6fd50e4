"""`Bidirectional`: one layer forwards in time, one backwards, and their outputs merged."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from .base import Array, Layer, deserialize, serialize
from .recurrent import RNN, backward_both, call_both

__all__ = ["Bidirectional"]

_MERGE_MODES = ("sum", "mul", "ave", "concat", None)


class Bidirectional(Layer):
    """Runs a recurrent layer in both directions of time.

    Both layers are made anew from the configuration of `layer`, whose weights are not taken over.
    The backward layer's sequence is turned round, so that index t means the same step in both.
    Where sequences are returned, masked steps are zero in both halves.

    Args:
        layer: A recurrent layer: `LSTM`, `GRU`, `RNN` ... .
        merge_mode: "concat" (along the features), "sum", "ave", "mul", or None for a tuple
            (forward, backward).
        weights: Initial weights, the forward layer's and then the backward layer's.
        backward_layer: The layer for the other direction, used as it is; by default made from
            `layer` with `go_backwards=True`.

    Call: `layer(sequences, initial_state=None, mask=None, training=False)`; the first half of the
    initial states is the forward layer's. With `return_state` the outputs are followed by the
    forward layer's states and then the backward layer's.

    Raises:
        ValueError: The layers do not fit together, or an argument is unknown.
    """

    def __init__(
        self,
        layer: Any,
        merge_mode: str | None = "concat",
        weights: Any = None,
        backward_layer: Any = None,
        **kwargs: Any,
    ) -> None:
        if not isinstance(layer, Layer):
            raise ValueError(
                "Please initialize `Bidirectional` layer with a `tidegate.layers.Layer` instance. "
                f"Received: {layer}"
            )
        if backward_layer is not None and not isinstance(backward_layer, Layer):
            raise ValueError(
                "`backward_layer` need to be a `tidegate.layers.Layer` instance. "
                f"Received: {backward_layer}"
            )
        for name in ("go_backwards", "return_sequences", "return_state", "stateful"):
            if not hasattr(layer, name):
                raise ValueError(
                    f"Bidirectional: expected a recurrent layer, with an attribute `{name}`, "
                    f"got {layer!r}"
                )
        if merge_mode not in _MERGE_MODES:
            raise ValueError(
                f"Invalid merge mode. Received: {merge_mode}. Merge mode should be one of "
                '{"sum", "mul", "ave", "concat", None}'
            )
        super().__init__(**kwargs)
        self.forward_layer: Any = _anew(layer, "forward_")
        if backward_layer is None:
            backward_layer = _anew(layer, "backward_", go_backwards=True)
        self.backward_layer: Any = backward_layer
        self._check_layers()
        for child in (self.forward_layer, self.backward_layer):
            child.zero_output_for_mask = child.return_sequences
        self.merge_mode = merge_mode
        self.stateful = self.forward_layer.stateful
        self.return_sequences = self.forward_layer.return_sequences
        self.return_state = self.forward_layer.return_state
        self.supports_masking = True
        self._initial_weights = None if weights is None else list(weights)

    def _check_layers(self) -> None:
        forward, backward = self.forward_layer, self.backward_layer
        if forward.go_backwards == backward.go_backwards:
            raise ValueError(
                "Forward layer and backward layer should have different `go_backwards` value. "
                f"Received: forward_layer.go_backwards {forward.go_backwards}, "
                f"backward_layer.go_backwards={backward.go_backwards}"
            )
        for name in ("stateful", "return_sequences", "return_state"):
            one, other = getattr(forward, name), getattr(backward, name)
            if one != other:
                raise ValueError(
                    "Forward layer and backward layer are expected to have the same value for "
                    f'attribute "{name}", got "{one}" for forward layer and "{other}" for '
                    "backward layer"
                )

    def build(self, sequences_shape: Any, initial_state_shape: Any = None) -> None:
        """Builds both layers."""
        for child in (self.forward_layer, self.backward_layer):
            if not child.built:
                child.build(sequences_shape)
        if self._initial_weights is not None:
            self.set_weights(self._initial_weights)
            self._initial_weights = None

    def _check_rank(self, shape: Any) -> None:
        self.forward_layer._check_rank(shape)

    def compute_output_shape(self, sequences_shape: Any, initial_state_shape: Any = None) -> Any:
        """The shape of the outputs; with `return_state` a tuple with those of the states."""
        shape = self.forward_layer.compute_output_shape(sequences_shape)
        states: tuple[Any, ...] = ()
        if self.return_state:
            shape, *own = shape
            states = (*own, *own)
        if self.merge_mode is None:
            return (shape, shape, *states)
        if self.merge_mode == "concat":
            shape = (*shape[:-1], 2 * shape[-1])
        return (shape, *states) if self.return_state else shape

    def compute_mask(self, inputs: Any, previous_mask: Any) -> Any:
        """The inputs' mask if sequences are returned, for each output; else None."""
        mask = previous_mask if self.return_sequences else None
        masks: Any = mask if self.merge_mode is not None else [mask, mask]
        if not self.return_state:
            return masks
        states = [None] * (2 * len(self.forward_layer.state_size))
        return [*(masks if isinstance(masks, list) else [masks]), *states]

    def call(
        self, sequences: Any, initial_state: Any = None, mask: Any = None, training: Any = None
    ) -> Any:
        """The merged outputs; with `return_state` a tuple with the final states."""
        forward_state = backward_state = None
        if initial_state is not None:
            count = len(self.forward_layer.state_size) + len(self.backward_layer.state_size)
            if not isinstance(initial_state, list | tuple) or len(initial_state) != count:
                raise ValueError(
                    f"Layer '{self.name}' initial_state: expected a list of {count} states, the "
                    f"forward layer's first, got {_count(initial_state)}"
                )
            half = len(self.forward_layer.state_size)
            forward_state, backward_state = initial_state[:half], initial_state[half:]
        layers = (self.forward_layer, self.backward_layer)
        if self._side_by_side():
            initial = (forward_state, backward_state)
            y, y_back = call_both(layers, sequences, initial, mask, bool(training))
        else:
            options = {"mask": mask, "training": bool(training)}
            y = self.forward_layer(sequences, initial_state=forward_state, **options)
            y_back = self.backward_layer(sequences, initial_state=backward_state, **options)
        states: tuple[Any, ...] = ()
        if self.return_state:
            states = (*y[1:], *y_back[1:])
            y, y_back = y[0], y_back[0]
        if self.return_sequences:
            y_back = y_back[:, ::-1]
        if training:
            self._saved = (y, y_back)
        outputs = self._merge(y, y_back)
        if self.merge_mode is None:
            return (*outputs, *states)
        return (outputs, *states) if self.return_state else outputs

    def _side_by_side(self) -> bool:
        """Whether the engine runs both directions in one call."""
        forward, backward = self.forward_layer, self.backward_layer
        return (
            isinstance(forward, RNN)
            and isinstance(backward, RNN)
            and forward._runs_beside(backward)
        )

    def _merge(self, y: Array, y_back: Array) -> Any:
        if self.merge_mode == "concat":
            return np.concatenate([y, y_back], axis=-1)
        if self.merge_mode == "sum":
            return y + y_back
        if self.merge_mode == "ave":
            return (y + y_back) / 2
        if self.merge_mode == "mul":
            return y * y_back
        return y, np.ascontiguousarray(y_back)

    def backward(self, d_outputs: Any) -> Any:
        """The gradient of the sequences of the latest call with `training=True`.

        Args:
            d_outputs: As the outputs: an array, or a tuple with the states', any of them None.
        """
        y, y_back = self._get_saved()
        d_states: list[Any] = []
        if self.merge_mode is None:
            d, d_back, *d_states = d_outputs
        else:
            if self.return_state:
                d_outputs, *d_states = (
                    d_outputs if isinstance(d_outputs, list | tuple) else (d_outputs,)
                )
            d, d_back = self._split(d_outputs, y, y_back)
        if self.return_sequences and d_back is not None:
            d_back = d_back[:, ::-1]
        if self.return_state:
            half = len(self.forward_layer.state_size)
            d_states += [None] * (2 * half - len(d_states))
            d, d_back = (d, *d_states[:half]), (d_back, *d_states[half:])
        layers, both = (self.forward_layer, self.backward_layer), (d, d_back)
        for child in layers:
            child._needs_input_gradient = self._needs_input_gradient
        if self._side_by_side():
            parts = backward_both(layers, both)
        else:
            parts = [child.backward(own) for child, own in zip(layers, both, strict=True)]
        return parts[0] + parts[1] if self._needs_input_gradient else None

    def _split(self, d: Any, y: Array, y_back: Array) -> tuple[Any, Any]:
        """The gradients of the two outputs from that of the merged one."""
        if d is None:
            return None, None
        if self.merge_mode == "concat":
            units = y.shape[-1]
            return d[..., :units], d[..., units:]
        if self.merge_mode == "mul":
            return d * y_back, d * y
        if self.merge_mode == "ave":
            d = d / 2
        return d, d

    def get_initial_state(self, batch_size: int) -> list[Any]:
        """What both layers start with, the forward layer's states first."""
        return [
            *self.forward_layer.get_initial_state(batch_size),
            *self.backward_layer.get_initial_state(batch_size),
        ]

    @property
    def states(self) -> tuple[Any, ...] | None:
        """The states of stateful layers, the forward layer's first; else None."""
        if not self.forward_layer.states or not self.backward_layer.states:
            return None
        return (*self.forward_layer.states, *self.backward_layer.states)

    def reset_state(self) -> None:
        """Sets the states of stateful layers to zero.

        Raises:
            AttributeError: The layer is not stateful, as in Keras.
        """
        if not self.stateful:
            raise AttributeError("Layer must be stateful.")
        self.forward_layer.reset_state()
        self.backward_layer.reset_state()

    reset_states = reset_state

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments, in Keras's order."""
        return {
            **super().get_config(),
            "merge_mode": self.merge_mode,
            "layer": serialize(self.forward_layer),
            "backward_layer": serialize(self.backward_layer),
        }

    @classmethod
    def from_config(
        cls, config: Mapping[str, Any], custom_objects: Mapping[str, Any] | None = None
    ) -> Any:
        """A new layer from what `get_config` gave."""
        rest = dict(config)
        layer = deserialize(rest.pop("layer"), custom_objects)
        other = rest.pop("backward_layer", None)
        if other is not None:
            other = deserialize(other, custom_objects)
        return cls(layer, backward_layer=other, **rest)


def _anew(layer: Any, prefix: str, **changes: Any) -> Any:
    """A layer with the configuration of `layer` and no state of it."""
    config = {**layer.get_config(), "name": prefix + layer.name.removeprefix(prefix), **changes}
    try:
        return type(layer).from_config(config)
    except ValueError:  # a user's own cell inside: its class is not found by name
        return type(layer).from_config(config, custom_objects=_classes_inside(layer))


def _classes_inside(layer: Layer) -> dict[str, type]:
    return {type(inner).__name__: type(inner) for inner in layer._flatten_layers()}


def _count(value: Any) -> str:
    return f"{len(value)}" if isinstance(value, list | tuple) else type(value).__name__
