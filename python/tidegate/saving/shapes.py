"""The shapes of every built-in layer's weights, computed from its plain configuration.

Files declare sizes twice: in the configuration (`units=50`) and in the shapes of the arrays.
Comparing the two before a layer is built means that a file can neither ask for more memory than
its own arrays take nor give a model that differs from what its weights were trained for.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .. import _core
from ..utils import to_snake_case

Shape = tuple[int | None, ...]
"""A shape with the batch axis; None is a size that is not known."""

_LAYERS = ("LSTM", "GRU", "SimpleRNN", "DualStateGRU", "CoupledLSTM")
CELL_LAYERS = {f"{name}Cell": name for name in _LAYERS}
"""Cells by class name: the layer that is one of them over time."""
CELLS = {name: to_snake_case(name) for name in _LAYERS}
CELLS |= {cell: CELLS[layer] for cell, layer in CELL_LAYERS.items()}
"""Recurrent layers and cells by class name: the name of their cell in the engine."""
RECURRENT = frozenset(_LAYERS) | {"RNN"}
_SAME_SHAPE = frozenset({"Dropout", "Activation", "Masking"})


@dataclass(frozen=True)
class Weight:
    """One array of a layer.

    Attributes:
        group: where Keras 3 keeps it, relative to the layer, such as "forward_layer/cell".
        index: its number in that group.
        name: its dotted name in a `.safetensors` file, such as "forward.recurrent_kernel".
        shape: its shape; None where a size depends on an input that is not known.
    """

    group: str
    index: int
    name: str
    shape: Shape


def describe(
    class_name: str, config: Mapping[str, Any], inputs: Shape | None, subject: str
) -> tuple[list[Weight], Shape | None] | None:
    """Return a layer's weights, in Keras's order, and the shape of its output.

    Args:
        class_name: name of the layer's class, such as "LSTM".
        config: its configuration as `get_config` gives it; absent keys have Keras's defaults.
        inputs: shape of its input, or None where it is not known.
        subject: how errors call the layer.

    Returns:
        None for a class that is not built in, whose weights cannot be known. The output's shape
        is None where it depends on what is not known.

    Raises:
        ValueError: a size is no positive integer, or the input has the wrong number of axes.
    """
    if class_name == "InputLayer":
        return [], input_shape(config, subject)
    if class_name in _SAME_SHAPE:
        return [], inputs
    if class_name == "Flatten":
        return [], _flattened(inputs)
    if class_name == "Dense":
        return _dense(config, inputs, subject)
    if class_name == "Embedding":
        shape = (
            positive_int(config, "input_dim", subject),
            positive_int(config, "output_dim", subject),
        )
        outputs = None if inputs is None else (*inputs, shape[1])
        return [Weight("", 0, "embeddings", shape)], outputs
    if class_name in RECURRENT:
        return _recurrent(class_name, config, inputs, subject)
    if class_name == "Bidirectional":
        return _bidirectional(config, inputs, subject)
    if class_name == "TimeDistributed":
        return _time_distributed(config, inputs, subject)
    if class_name == "Sequential":
        return _sequential(config, inputs, subject)
    return None


def positive_int(config: Mapping[str, Any], key: str, subject: str) -> int:
    """Return `config[key]`, which must be a positive integer (5.0 counts as 5)."""
    value = config.get(key)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{subject}: expected {key} to be a positive integer, got {value!r}")
    return value


def input_shape(config: Mapping[str, Any], subject: str) -> Shape:
    """Return the shape that an InputLayer's configuration gives, under Keras 2's names too."""
    value = config.get("batch_shape", config.get("batch_input_shape"))
    return checked_shape(value, subject)


def checked_shape(value: Any, subject: str) -> Shape:
    """Return `value` as a shape: a list of positive integers and None."""
    if (
        isinstance(value, Sequence)
        and not isinstance(value, str)
        and value
        and all(
            size is None or (isinstance(size, int) and not isinstance(size, bool) and size > 0)
            for size in value
        )
    ):
        return tuple(value)
    raise ValueError(f"{subject}: expected a shape of positive integers and null, got {value!r}")


def nested(value: Any, subject: str) -> tuple[str, Mapping[str, Any]]:
    """Return class name and configuration of a nested object such as a wrapped layer."""
    if not isinstance(value, Mapping):
        raise ValueError(f"{subject}: expected an object with class_name and config, got {value!r}")
    class_name, config = value.get("class_name"), value.get("config")
    if not isinstance(class_name, str) or not isinstance(config, Mapping):
        raise ValueError(f"{subject}: expected an object with class_name and config, got {value!r}")
    return class_name, config


def _features(inputs: Shape | None, rank: int, subject: str) -> int | None:
    """Return the last size of an input with exactly `rank` axes (at least, if negative)."""
    if inputs is None:
        return None
    if (rank > 0 and len(inputs) != rank) or len(inputs) < abs(rank):
        raise ValueError(
            f"{subject}: expected an input with {abs(rank)} axes{' or more' * (rank < 0)}, "
            f"got the shape {inputs}"
        )
    return inputs[-1]


def _flattened(inputs: Shape | None) -> Shape | None:
    if inputs is None:
        return None
    sizes = [size for size in inputs[1:] if size is not None]
    known = len(sizes) == len(inputs) - 1
    return (inputs[0], math.prod(sizes) if known else None)


def _dense(
    config: Mapping[str, Any], inputs: Shape | None, subject: str
) -> tuple[list[Weight], Shape | None]:
    units = positive_int(config, "units", subject)
    weights = [Weight("", 0, "kernel", (_features(inputs, -2, subject), units))]
    if config.get("use_bias", True):
        weights.append(Weight("", 1, "bias", (units,)))
    return weights, None if inputs is None else (*inputs[:-1], units)


def _cell(
    class_name: str, config: Mapping[str, Any], features: int | None, subject: str
) -> tuple[list[Weight], int]:
    """Return the weights of one cell and its units."""
    name = CELLS[class_name]
    if name == "gru" and not config.get("reset_after", True):
        name = "gru_reset_before"
    kind = _core.cells()[name]
    units = positive_int(config, "units", subject)
    columns = kind["gates"] * units
    weights = [
        Weight("", 0, "kernel", (features, columns)),
        Weight("", 1, "recurrent_kernel", (units, columns)),
    ]
    if config.get("use_bias", True):
        rows = kind["bias_rows"]
        weights.append(Weight("", 2, "bias", (columns,) if rows == 1 else (rows, columns)))
    return weights, units


def _recurrent(
    class_name: str, config: Mapping[str, Any], inputs: Shape | None, subject: str
) -> tuple[list[Weight], Shape | None] | None:
    features = _features(inputs, 3, subject)
    if class_name == "RNN":
        cells = stacked_cells(config, subject)
        if any(cell_class not in CELLS for cell_class, _, _ in cells):
            return None
    else:
        cells = [(class_name, config, "")]
    weights = []
    for index, (cell_class, cell_config, group) in enumerate(cells):
        arrays, units = _cell(cell_class, cell_config, features, subject)
        prefix = f"cells.{index}." if len(cells) > 1 else ""
        weights += [
            Weight(_join("cell", group), array.index, prefix + array.name, array.shape)
            for array in arrays
        ]
        features = units
    if config.get("return_state") or inputs is None:
        return weights, None
    time = inputs[1:2] if config.get("return_sequences") else ()
    return weights, (inputs[0], *time, features)


def stacked_cells(
    config: Mapping[str, Any], subject: str
) -> list[tuple[str, Mapping[str, Any], str]]:
    """Return class name, configuration and Keras's group of each cell of an `RNN` layer."""
    class_name, cell_config = nested(config.get("cell"), f"{subject}: cell")
    if class_name != "StackedRNNCells":
        return [(class_name, cell_config, "")]
    cells = cell_config.get("cells")
    if not isinstance(cells, Sequence) or not cells:
        raise ValueError(f"{subject}: expected a list of cells, got {cells!r}")
    pairs = [nested(cell, f"{subject}: cells") for cell in cells]
    groups = container_names([name for name, _ in pairs])
    return [
        (name, config, f"cells/{group}")
        for (name, config), group in zip(pairs, groups, strict=True)
    ]


def container_names(class_names: Sequence[str]) -> list[str]:
    """Return the names that Keras 3 gives to members of a list: by class, numbered in order."""
    seen: dict[str, int] = {}
    result = []
    for class_name in class_names:
        name = to_snake_case(class_name)
        count = seen.get(name, 0)
        seen[name] = count + 1
        result.append(f"{name}_{count}" if count else name)
    return result


def _bidirectional(
    config: Mapping[str, Any], inputs: Shape | None, subject: str
) -> tuple[list[Weight], Shape | None] | None:
    weights = []
    outputs = []
    for key, group, name in (
        ("layer", "forward_layer", "forward"),
        ("backward_layer", "backward_layer", "backward"),
    ):
        value = config.get(key)
        if value is None and key == "backward_layer":  # as Keras: a copy of the forward layer
            value = config.get("layer")
        child_class, child_config = nested(value, f"{subject}: {key}")
        child = describe(child_class, child_config, inputs, f"{subject}: {key}")
        if child is None:
            return None
        weights += _moved(child[0], group, name)
        outputs.append(child[1])
    forward, backward = outputs
    merge_mode = config.get("merge_mode", "concat")
    if forward is None or backward is None or merge_mode is None:
        return weights, None
    if merge_mode != "concat":
        return weights, forward
    sizes = (forward[-1], backward[-1])
    total = None if None in sizes else sum(size for size in sizes if size is not None)
    return weights, (*forward[:-1], total)


def _time_distributed(
    config: Mapping[str, Any], inputs: Shape | None, subject: str
) -> tuple[list[Weight], Shape | None] | None:
    if inputs is not None:
        _features(inputs, -3, subject)
    child_class, child_config = nested(config.get("layer"), f"{subject}: layer")
    step = None if inputs is None else (inputs[0], *inputs[2:])
    child = describe(child_class, child_config, step, f"{subject}: layer")
    if child is None:
        return None
    outputs = child[1]
    if inputs is not None and outputs is not None:
        outputs = (*inputs[:2], *outputs[1:])
    return _moved(child[0], "layer", "layer"), outputs


def _sequential(
    config: Mapping[str, Any], inputs: Shape | None, subject: str
) -> tuple[list[Weight], Shape | None] | None:
    """Return the weights of a model that is a layer of another."""
    entries = [nested(entry, subject) for entry in config.get("layers", ())]
    entries = [entry for entry in entries if entry[0] != "InputLayer"]
    groups = container_names([class_name for class_name, _ in entries])
    weights = []
    for index, ((class_name, layer), group) in enumerate(zip(entries, groups, strict=True)):
        known = describe(class_name, layer, inputs, f"{subject}: {layer.get('name')!r}")
        if known is None:
            return None
        weights += _moved(known[0], f"layers/{group}", f"layers.{index}")
        inputs = known[1]
    return weights, inputs


def _moved(weights: Sequence[Weight], group: str, name: str) -> list[Weight]:
    return [
        Weight(_join(group, weight.group), weight.index, f"{name}.{weight.name}", weight.shape)
        for weight in weights
    ]


def _join(*parts: str) -> str:
    return "/".join(part for part in parts if part)


def matches(shape: Sequence[int], expected: Shape) -> bool:
    """Return whether `shape` is `expected`, whose None stand for any size."""
    return len(shape) == len(expected) and all(
        want is None or got == want for got, want in zip(shape, expected, strict=True)
    )
