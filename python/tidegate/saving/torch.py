"""Weights to and from PyTorch's `nn.LSTM`, `nn.GRU`, `nn.RNN` and their cells.

Pure functions of arrays: PyTorch need not be installed. The layouts differ as follows
(`W` input, `U` recurrent weights, `units` columns per gate here, rows per gate there):

=========== ======================= ============================ =============================
cell        gates here              gates in PyTorch             biases
=========== ======================= ============================ =============================
LSTM        i, f, c, o              i, f, g, o (g is c)          here the sum of PyTorch's two
GRU         z, r, h                 r, z, n (n is h)             both kept: row 0 and row 1
SimpleRNN   one                     one                          here the sum of PyTorch's two
=========== ======================= ============================ =============================

Only the GRU with `reset_after=True` exists in PyTorch. Its two biases cannot be merged, since
the reset gate multiplies the recurrent one alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from ..utils import to_snake_case

# Per cell: the order in which PyTorch's gate blocks appear here. Each permutation used is its
# own inverse, so the same one serves both directions.
_GATE_ORDER = {"lstm": (0, 1, 2, 3), "gru": (1, 0, 2), "simple_rnn": (0,)}

LayerType = TypeVar("LayerType")


def weights_from_torch(
    cell: str,
    source: Any,
    prefix: str = "",
    layer: int = 0,
    reverse: bool = False,
) -> list[np.ndarray]:
    """Return `[kernel, recurrent_kernel, bias]` in Keras's layout from PyTorch's parameters.

    Args:
        cell: "lstm", "gru" or "simple_rnn".
        source: a state_dict (names to arrays or tensors) or a module that has `state_dict()`.
        prefix: what precedes `weight_ih_l0` in the names, such as "encoder.rnn"; the dot
            after it may be left out.
        layer: which layer of a stack (`num_layers`); 0 also takes the unnumbered parameters
            of `nn.LSTMCell` and the other cells.
        reverse: take the backward direction (`_reverse`) of a bidirectional module.

    Returns:
        kernel `(features, gates * units)`, recurrent_kernel `(units, gates * units)` and, where
        the module has biases, bias `(gates * units,)`, or `(2, gates * units)` for "gru"; all
        of the parameters' dtype (float16 and bfloat16 become float32).

    Raises:
        ValueError: unknown cell, missing parameters, shapes of another cell, or a projection.
        TypeError: source is neither a mapping nor a module.
    """
    order = _gate_order(cell)
    parameters = _parameters(source)
    suffix = _suffix(layer, reverse)
    full, suffix = _locate(parameters, prefix, suffix)
    if f"{full}weight_hr{suffix}" in parameters:
        raise ValueError(
            f"{full}weight_hr{suffix}: expected an LSTM without projection, got one with "
            "proj_size; it has no equal in Keras or here"
        )
    arrays = {
        name: _array(parameters[f"{full}{name}{suffix}"], f"{full}{name}{suffix}")
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        if f"{full}{name}{suffix}" in parameters
    }
    _check_shapes(arrays, len(order), cell, full, suffix)

    kernel = _gates(arrays["weight_ih"], order).T
    recurrent_kernel = _gates(arrays["weight_hh"], order).T
    weights = [np.ascontiguousarray(kernel), np.ascontiguousarray(recurrent_kernel)]
    if "bias_ih" in arrays:
        biases = [_gates(arrays[name], order) for name in ("bias_ih", "bias_hh")]
        weights.append(np.stack(biases) if cell == "gru" else biases[0] + biases[1])
    return weights


def weights_to_torch(
    cell: str,
    weights: Sequence[np.ndarray],
    prefix: str = "",
    layer: int = 0,
    reverse: bool = False,
) -> dict[str, np.ndarray]:
    """Return PyTorch's parameters by name from `[kernel, recurrent_kernel, bias]`.

    The inverse of `weights_from_torch`, with the same arguments; a merged bias goes to
    `bias_ih`, and `bias_hh` is zero. Load the result with
    `module.load_state_dict({name: torch.from_numpy(array) for name, array in ...})`.

    Raises:
        ValueError: unknown cell, wrong number or shapes of weights, or a GRU of
            `reset_after=False`, which PyTorch does not have.
    """
    order = _gate_order(cell)
    full = prefix if not prefix or prefix.endswith(".") else f"{prefix}."
    suffix = _suffix(layer, reverse)
    if len(weights) not in (2, 3):
        raise ValueError(
            f"weights: expected kernel, recurrent_kernel and perhaps bias, "
            f"got {len(weights)} arrays"
        )
    kernel, recurrent_kernel = (np.asarray(weight) for weight in weights[:2])
    columns = len(order) * recurrent_kernel.shape[0]
    if (
        kernel.ndim != 2
        or recurrent_kernel.ndim != 2
        or not (kernel.shape[1] == recurrent_kernel.shape[1] == columns)
    ):
        raise ValueError(
            f"weights: expected shapes (features, {len(order)} * units) and (units, {len(order)} "
            f"* units) for cell {cell!r}, got {kernel.shape} and {recurrent_kernel.shape}"
        )
    arrays = {
        "weight_ih": _gates(kernel.T, order),
        "weight_hh": _gates(recurrent_kernel.T, order),
    }
    if len(weights) == 3:
        bias = np.asarray(weights[2])
        if cell == "gru" and bias.shape == (columns,):
            raise ValueError(
                "weights: expected a GRU with reset_after=True, got one with "
                "reset_after=False, which PyTorch does not have"
            )
        expected = (2, columns) if cell == "gru" else (columns,)
        if bias.shape != expected:
            raise ValueError(f"weights: expected a bias of shape {expected}, got {bias.shape}")
        rows = bias if cell == "gru" else [bias, np.zeros_like(bias)]
        arrays["bias_ih"], arrays["bias_hh"] = (_gates(row, order) for row in rows)
    return {f"{full}{name}{suffix}": np.ascontiguousarray(array) for name, array in arrays.items()}


def layer_from_torch(
    layer_class: type[LayerType],
    source: Any,
    prefix: str,
    layer: int,
    reverse: bool,
    arguments: Mapping[str, Any],
) -> LayerType:
    """Return a built `layer_class` with the weights of `weights_from_torch`.

    `arguments` go to the constructor; units, use_bias, dtype, `go_backwards` (from `reverse`)
    and, for an `nn.RNN` module, the activation come from the source.
    """
    cell = _cell_of(layer_class)
    weights = weights_from_torch(cell, source, prefix, layer, reverse)
    config: dict[str, Any] = {"use_bias": len(weights) == 3, "dtype": weights[0].dtype.name}
    if reverse:
        config["go_backwards"] = True
    if cell == "simple_rnn" and (nonlinearity := getattr(source, "nonlinearity", None)):
        config["activation"] = nonlinearity
    fixed = sorted(arguments.keys() & {"units", "use_bias"})
    if fixed:
        raise ValueError(f"{fixed[0]}: expected none, since it comes from the parameters")
    result: Any = layer_class(  # type: ignore[call-arg]
        weights[1].shape[0], **{**config, **arguments}
    )
    result.build((None, None, weights[0].shape[0]))
    result.set_weights(weights)
    return result


def layer_to_torch(layer: Any, prefix: str, number: int, reverse: bool) -> dict[str, np.ndarray]:
    """Return `weights_to_torch` of a built layer, if PyTorch has a module equal to it.

    Raises:
        ValueError: the layer is not built, or has activations PyTorch's module does not offer.
    """
    cell = _cell_of(type(layer))
    if not layer.built:
        raise ValueError(f"{layer.name}: expected a built layer; call it on data or build it")
    config = layer.get_config()
    offered: dict[str, tuple[str, ...]] = {
        "activation": ("tanh",),
        "recurrent_activation": ("sigmoid",),
    }
    if cell == "simple_rnn":
        offered["activation"] = ("tanh", "relu")
    for key, names in offered.items():
        if key in config and config[key] not in names:
            raise ValueError(
                f"{layer.name}: expected {key} {' or '.join(names)}, the only choice PyTorch's "
                f"module has, got {config[key]!r}"
            )
    if config.get("reset_after") is False:
        raise ValueError(f"{layer.name}: expected reset_after=True, the only GRU PyTorch has")
    return weights_to_torch(cell, layer.get_weights(), prefix, number, reverse)


def _cell_of(layer_class: Any) -> str:
    return to_snake_case(layer_class.cell_class.__name__.removesuffix("Cell"))


def _gate_order(cell: str) -> tuple[int, ...]:
    if cell not in _GATE_ORDER:
        raise ValueError(f"cell: expected one of {sorted(_GATE_ORDER)}, got {cell!r}")
    return _GATE_ORDER[cell]


def _suffix(layer: int, reverse: bool) -> str:
    if not isinstance(layer, int) or layer < 0:
        raise ValueError(f"layer: expected a number from 0, got {layer!r}")
    return f"_l{layer}_reverse" if reverse else f"_l{layer}"


def _parameters(source: Any) -> Mapping[str, Any]:
    parameters = source.state_dict() if hasattr(source, "state_dict") else source
    if not isinstance(parameters, Mapping):
        raise TypeError(
            f"state_dict: expected names mapped to arrays, or a module, got {type(source).__name__}"
        )
    return parameters


def _locate(parameters: Mapping[str, Any], prefix: str, suffix: str) -> tuple[str, str]:
    """Return the prefix and suffix under which the input weights are found."""
    suffixes = (suffix, "") if suffix == "_l0" else (suffix,)
    for full in (prefix, f"{prefix}."):
        for end in suffixes:
            if f"{full}weight_ih{end}" in parameters:
                return full, end
    found = sorted(name for name in parameters if "weight_ih" in name)
    raise ValueError(
        f"state_dict: expected a parameter {prefix}weight_ih{suffix}, got "
        f"{found[:8] if found else sorted(parameters)[:8]}"
    )


def _array(value: Any, name: str) -> np.ndarray:
    """Return an array from an array or a tensor on any device, without importing torch."""
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        if not value.dtype.is_floating_point:
            raise ValueError(f"{name}: expected floating-point numbers, got {value.dtype}")
        if value.dtype.itemsize < 4:
            value = value.float()
        value = value.numpy()
    array = np.asarray(value)
    if array.dtype == np.float16:
        array = array.astype(np.float32)
    if array.dtype not in (np.float32, np.float64):
        raise ValueError(f"{name}: expected float32 or float64, got {array.dtype}")
    return array


def _check_shapes(
    arrays: Mapping[str, np.ndarray], gates: int, cell: str, prefix: str, suffix: str
) -> None:
    """Refuse parameters that do not have the shapes of one layer of this cell."""
    if "weight_hh" not in arrays:
        raise ValueError(f"state_dict: expected a parameter {prefix}weight_hh{suffix}, got none")
    if ("bias_ih" in arrays) != ("bias_hh" in arrays):
        raise ValueError(
            f"state_dict: expected both {prefix}bias_ih{suffix} and "
            f"{prefix}bias_hh{suffix}, or neither, got one"
        )
    units = arrays["weight_hh"].shape[-1] if arrays["weight_hh"].ndim == 2 else -1
    features = arrays["weight_ih"].shape[-1] if arrays["weight_ih"].ndim == 2 else -1
    rows = gates * units
    expected = {
        "weight_ih": (rows, features),
        "weight_hh": (rows, units),
        "bias_ih": (rows,),
        "bias_hh": (rows,),
    }
    for name, array in arrays.items():
        if array.shape != expected[name] or units < 1 or features < 1:
            raise ValueError(
                f"{prefix}{name}{suffix}: expected the shape {expected[name]} of cell {cell!r} "
                f"with {units} units, got {array.shape}"
            )
    dtypes = {array.dtype for array in arrays.values()}
    if len(dtypes) > 1:
        raise ValueError(f"state_dict: expected one dtype, got {sorted(map(str, dtypes))}")


def _gates(array: np.ndarray, order: Sequence[int]) -> np.ndarray:
    """Reorder equal blocks along the first axis."""
    blocks = np.split(array, len(order))
    return np.concatenate([blocks[index] for index in order])
