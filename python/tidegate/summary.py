"""The table that `model.summary()` prints, in the look of Keras's."""

from __future__ import annotations

import itertools
import math
import re
import shutil
from collections.abc import Callable
from typing import Any

from .layers.base import Layer

__all__ = ["print_summary"]


def print_summary(
    model: Any,
    line_length: int | None = None,
    positions: Any = None,
    print_fn: Callable[[str], Any] | None = None,
    expand_nested: bool = False,
    show_trainable: bool = False,
    layer_range: Any = None,
) -> None:
    """Prints the layers of `model`; see `Sequential.summary` for the arguments."""
    import rich.console
    import rich.table
    from rich.markup import escape

    header = ["Layer (type)", "Output Shape", "Param #"]
    alignment: list[Any] = ["left", "left", "right"]
    positions = list(positions or [0.45, 0.80, 1.0])
    length = 88
    if show_trainable:
        length += 12
        positions = [p * 0.90 for p in positions] + [1.0]
        header.append("Trainable")
        alignment.append("center")
    line_length = line_length or min(length, shutil.get_terminal_size().columns - 4)
    ends = [0, *(int(position * line_length) for position in positions)]
    widths = [right - left for left, right in itertools.pairwise(ends)]
    if min(widths) < 4:
        raise ValueError(
            f"summary: expected room for the columns, got line_length={line_length} and "
            f"positions={positions}"
        )
    columns = [
        rich.table.Column(name, justify=side, width=width)
        for name, side, width in zip(header, alignment, widths, strict=False)
    ]
    table = rich.table.Table(*columns, width=line_length, show_lines=True)

    def row(layer: Layer, shape: Any, prefix: str) -> list[str]:
        name = f"{prefix}{escape(layer.name)} ([color(33)]{escape(type(layer).__name__)}[/])"
        params = f"{layer.count_params():,}" if layer.built else "0"
        cells = [name, _shape(shape), _number(params) + ("" if layer.built else " (unbuilt)")]
        if show_trainable:
            marks = {True: "[bold][color(34)]Y[/][/]", False: "[bold][color(9)]N[/][/]"}
            cells.append(marks[layer.trainable] if layer.weights else "[bold]-[/]")
        return cells

    shapes = _output_shapes(model)
    for layer in _range(model.layers, layer_range):
        table.add_row(*row(layer, shapes.get(layer), ""))
        for depth, inner, shape in _nested(layer, 1) if expand_nested else ():
            table.add_row(*row(inner, shape, "   " * depth + "└ "))

    if print_fn:
        console = rich.console.Console(highlight=False, force_terminal=False, color_system=None)
        console.begin_capture()
    else:
        console = rich.console.Console(highlight=False)
    console.print(f'[bold]Model: "{escape(model.name)}"[/]')
    console.print(table)
    optimizer = model.optimizer if model.compiled and model.optimizer.built else None
    slots = list(optimizer.variables) if optimizer is not None else []
    for title, variables in (
        ("Total params", model.weights + slots),
        ("Trainable params", model.trainable_weights),
        ("Non-trainable params", model.non_trainable_weights),
        *((("Optimizer params", slots),) if optimizer is not None else ()),
    ):
        count = sum(variable.size for variable in variables)
        size = sum(variable.size * variable.dtype.itemsize for variable in variables)
        console.print(f"[bold] {title}: [/]{_number(f'{count:,}')} ({_bytes(size)})")
    if print_fn:
        print_fn(console.end_capture())


def _nested(model: Any, depth: int) -> Any:
    """The layers of a model inside the model, with their depths and output shapes."""
    shapes = _output_shapes(model) if hasattr(model, "layers") else {}
    for layer, shape in shapes.items():
        yield depth, layer, shape
        yield from _nested(layer, depth + 1)


def _output_shapes(model: Any) -> dict[Layer, Any]:
    """The output shape of every layer; None while the model is not built."""
    if not model.built:
        return dict.fromkeys(model.layers)
    shape, shapes = model.input_shape, {}
    for layer in model.layers:
        shapes[layer] = shape = layer.compute_output_shape(shape)
    return shapes


def _shape(shape: Any) -> str:
    if shape is None:
        return "?"
    if shape and isinstance(shape[0], tuple | list):
        return f"[{', '.join(_shape(entry) for entry in shape)}]".replace("[(", "\\[(")
    return f"({', '.join(_number(entry) for entry in shape)})"


def _number(value: Any) -> str:
    return f"[color(45)]{value}[/]" if value is None else f"[color(34)]{value}[/]"


def _bytes(size: int) -> str:
    if not size:
        return "0.00 B"
    power = int(math.log(size, 1024))
    return f"{size / 1024**power:.2f} {('B', 'KB', 'MB', 'GB', 'TB', 'PB')[power]}"


def _range(layers: list[Layer], bounds: Any) -> list[Layer]:
    """The layers from the first that matches `bounds[0]` to the last that matches `bounds[1]`."""
    if bounds is None:
        return layers
    if len(bounds) != 2 or not all(isinstance(bound, str) for bound in bounds):
        raise ValueError(f"layer_range: expected two names, got {bounds!r}")
    first = [i for i, layer in enumerate(layers) if re.match(bounds[0], layer.name)]
    last = [i for i, layer in enumerate(layers) if re.match(bounds[1], layer.name)]
    if not first or not last:
        raise ValueError(
            f"Passed layer_names do not match the layer names in the model. Received: {bounds}"
        )
    one, other = min(first), max(last)
    return layers[min(one, other) : max(one, other) + 1]
