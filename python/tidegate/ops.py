"""The functional engine: every cell, and the dense layer, as forward/backward pairs of functions.

These are pure functions of arrays: nothing is cached, nothing is kept between calls.  They are what
another framework binds to, its tape keeping the `context` that `*_forward` returns:

    outputs, states, context = ops.lstm_forward(x, kernel, recurrent_kernel, bias)
    grads = ops.lstm_backward(context, d_outputs, d_states)

Shapes: x (batch, time, features); kernel (features, gates*units); recurrent_kernel (units,
gates*units); bias (gates*units,), for `gru` with `reset_after=True` (2, gates*units); outputs
(batch, time, units) for every step, in processing order; states, a list of (batch, units).  The
kernel's dtype, float32 or float64, is that of the whole computation; other arrays are cast to it.

A masked step (mask False) keeps every state, and its output repeats the previous one (zeros before
the first valid step) or is zero with `zero_output_for_mask`.  A mask is in the order of the input,
also with `go_backwards`.

A context holds what backward needs. It copies the weights and refers to x, which the caller must
not change before backward. Backward leaves it as it was, so it may be used many times.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, ParamSpec, Protocol, TypeVar

import numpy as np

from . import _core, activations

__all__ = [
    "Context",
    "coupled_lstm",
    "coupled_lstm_backward",
    "coupled_lstm_forward",
    "dense",
    "dense_backward",
    "dense_forward",
    "dual_state_gru",
    "dual_state_gru_backward",
    "dual_state_gru_forward",
    "gru",
    "gru_backward",
    "gru_forward",
    "lstm",
    "lstm_backward",
    "lstm_forward",
    "simple_rnn",
    "simple_rnn_backward",
    "simple_rnn_forward",
]

Array = np.ndarray[Any, np.dtype[Any]]

# name of the cell -> its number of "gates", "states" and "bias_rows"
CELLS: dict[str, dict[str, int]] = _core.cells()


class Context(NamedTuple):
    """What the backward pass of one forward pass needs; made by the `*_forward` functions."""

    cell: str
    saved: Any
    shape: tuple[int, ...]  # of the outputs
    states_shape: tuple[int, ...]
    dtype: Any


# ---- Checks, shared with the layers -----------------------------------------


def as_array(value: Any, dtype: Any, subject: str) -> Array:
    """`value` as a C-contiguous array of `dtype`; the subject starts the error's sentence.

    Raises:
        TypeError: It is not numeric.
        ValueError: It is not an array at all.
    """
    if type(value) is np.ndarray and value.dtype is dtype and value.flags.c_contiguous:
        return value
    try:
        array = np.asarray(value)
    except (ValueError, RuntimeError) as error:  # ragged lists; tensors that are not on the CPU
        raise ValueError(
            f"{subject}: expected an array, got {type(value).__name__}: {error}"
        ) from None
    if array.dtype.kind not in "fiub":
        raise TypeError(
            f"{subject}: expected an array of numbers, got {type(value).__name__} "
            f"of dtype {array.dtype}"
        )
    return np.ascontiguousarray(array, dtype=dtype)


def check_sequences(x: Array, features: int, subject: str) -> None:
    """Raises ValueError unless x is (batch, time >= 1, features)."""
    if x.ndim != 3 or x.shape[2] != features:
        raise ValueError(f"{subject}: expected shape (batch, time, {features}), got {x.shape}")
    if x.shape[1] == 0:
        raise ValueError(f"{subject}: expected at least one time step, got shape {x.shape}")


def as_states(
    states: Any, count: int, shape: tuple[int, ...], dtype: Any, subject: str
) -> list[Array] | None:
    """`states` as the list of arrays the engine takes; None stays None.

    A bare array stands for a list of one where the cell has one state.
    """
    if states is None:
        return None
    if not isinstance(states, list | tuple):
        states = [states]
    if len(states) != count:
        raise ValueError(f"{subject}: expected {count} state(s), got {len(states)}")
    arrays = []
    for index, state in enumerate(states):
        array = as_array(state, dtype, f"{subject} {index}")
        if array.shape != shape:
            raise ValueError(f"{subject} {index}: expected shape {shape}, got {array.shape}")
        arrays.append(array)
    return arrays


def as_mask(mask: Any, batch_time: tuple[int, ...], subject: str) -> Array | None:
    """`mask` as a contiguous (batch, time) array of bool; (batch, time, 1) and numbers will do."""
    if mask is None:
        return None
    array = np.asarray(mask)
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{subject}: expected booleans or numbers, got dtype {array.dtype}")
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.shape != batch_time:
        raise ValueError(f"{subject}: expected shape {batch_time}, got {array.shape}")
    return np.ascontiguousarray(array, dtype=np.bool_)


# ---- What every cell shares -------------------------------------------------


def _weights(
    cell: str, kernel: Any, recurrent_kernel: Any, bias: Any
) -> tuple[Array, Array, Array | None]:
    """The weights as arrays of the kernel's dtype, their shapes checked."""
    kernel = np.asarray(kernel)
    if kernel.dtype not in (np.float32, np.float64):
        raise TypeError(f"{cell} kernel: expected float32 or float64, got dtype {kernel.dtype}")
    dtype = kernel.dtype
    kernel = as_array(kernel, dtype, f"{cell} kernel")
    recurrent_kernel = as_array(recurrent_kernel, dtype, f"{cell} recurrent_kernel")
    gates = CELLS[cell]["gates"]
    if recurrent_kernel.ndim != 2 or recurrent_kernel.shape[1] != gates * len(recurrent_kernel):
        raise ValueError(
            f"{cell} recurrent_kernel: expected shape (units, {gates}*units), "
            f"got {recurrent_kernel.shape}"
        )
    width = recurrent_kernel.shape[1]
    if kernel.ndim != 2 or kernel.shape[1] != width:
        raise ValueError(f"{cell} kernel: expected shape (features, {width}), got {kernel.shape}")
    if bias is not None:
        bias = as_array(bias, dtype, f"{cell} bias")
        expected = (width,) if CELLS[cell]["bias_rows"] == 1 else (2, width)
        if bias.shape != expected:
            raise ValueError(f"{cell} bias: expected shape {expected}, got {bias.shape}")
    return kernel, recurrent_kernel, bias


def _prepare(
    name: str, arguments: Mapping[str, Any]
) -> tuple[str, Any, tuple[Any, ...], dict[str, Any]]:
    """The cell, its packed engine and the checked arguments of the engine's `forward`.

    Takes the arguments of the function `name`, all of them.
    """
    given = dict(arguments)
    cell = name if given.pop("reset_after", True) else f"{name}_reset_before"
    kernel, recurrent_kernel, bias = _weights(
        cell, *(given.pop(weight) for weight in ("kernel", "recurrent_kernel", "bias"))
    )
    names = [
        activations.engine_name(activations.get(given.pop(argument, "linear")), cell, argument)
        for argument in ("activation", "recurrent_activation")
    ]
    x = as_array(given.pop("x"), kernel.dtype, f"{cell} x")
    check_sequences(x, len(kernel), f"{cell} x")
    shape = (len(x), len(recurrent_kernel))
    states = as_states(
        given.pop("initial_state"),
        CELLS[cell]["states"],
        shape,
        x.dtype,
        f"{cell} initial_state",
    )
    mask = as_mask(given.pop("mask"), x.shape[:2], f"{cell} mask")
    engine = _core.Recurrent(cell, kernel, recurrent_kernel, bias, *names)
    return cell, engine, (x, states, mask), {option: bool(v) for option, v in given.items()}


def _infer(name: str, arguments: Mapping[str, Any]) -> tuple[Array, list[Array]]:
    _, engine, args, options = _prepare(name, arguments)
    outputs, states = engine.forward(*args, **options)
    return outputs, states


def _train(name: str, arguments: Mapping[str, Any]) -> tuple[Array, list[Array], Context]:
    cell, engine, args, options = _prepare(name, arguments)
    outputs, states, saved = engine.forward_training(*args, **options)
    return outputs, states, Context(cell, saved, outputs.shape, states[0].shape, outputs.dtype)


def _backward(name: str, context: Context, d_outputs: Any, d_states: Any) -> dict[str, Any]:
    known = context.cell if isinstance(context, Context) else type(context).__name__
    if not known.startswith(name):  # "gru_reset_before" is a "gru", too
        raise TypeError(f"{name}_backward: expected the context of {name}_forward, got {known}")
    if d_outputs is not None:
        d_outputs = as_array(d_outputs, context.dtype, f"{name} d_outputs")
        if d_outputs.shape != context.shape:
            raise ValueError(
                f"{name} d_outputs: expected shape {context.shape}, got {d_outputs.shape}"
            )
    if d_states is not None:
        count = CELLS[context.cell]["states"]
        given = [d_states] if not isinstance(d_states, list | tuple) else list(d_states)
        zeros = np.zeros(context.states_shape, context.dtype)
        given = [zeros if d is None else d for d in given]
        d_states = as_states(given, count, context.states_shape, context.dtype, f"{name} d_states")
    gradients: dict[str, Any] = context.saved.backward(d_outputs, d_states)
    return gradients


# ---- Functions made from others ----------------------------------------------

_P = ParamSpec("_P")
_R = TypeVar("_R")


def _with_arguments_of(
    function: Callable[_P, Any],
    run: Callable[[str, Mapping[str, Any]], _R],
    cell: str,
    name: str,
    doc: str,
) -> Callable[_P, _R]:
    """A function called `name` with the arguments of `function`, which `run` takes for `cell`."""
    signature = inspect.signature(function)

    def made(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{name}: {error}") from None
        bound.apply_defaults()
        return run(cell, bound.arguments)

    made.__name__ = made.__qualname__ = name
    made.__doc__ = doc
    returns = inspect.signature(run).return_annotation
    made.__signature__ = signature.replace(return_annotation=returns)  # type: ignore[attr-defined]
    return made


def _forward_of(
    function: Callable[_P, tuple[Array, list[Array]]],
) -> Callable[_P, tuple[Array, list[Array], Context]]:
    name = function.__name__
    doc = f"As `{name}`, and the context for `{name}_backward`."
    return _with_arguments_of(function, _train, name, f"{name}_forward", doc)


class _Backward(Protocol):
    def __call__(
        self, context: Context, d_outputs: Any = None, d_states: Any = None
    ) -> dict[str, Any]: ...


def _backward_of(function: Callable[..., Any]) -> _Backward:
    name = function.__name__

    def backward(context: Context, d_outputs: Any = None, d_states: Any = None) -> dict[str, Any]:
        return _backward(name, context, d_outputs, d_states)

    backward.__name__ = backward.__qualname__ = f"{name}_backward"
    backward.__doc__ = f"""Gradients of `{name}`, given those of outputs and of final states.

    Args:
        context: From `{name}_forward`.
        d_outputs: (batch, time, units), or None for zeros.
        d_states: As the states, entries may be None; or None.

    Returns:
        A dict with the keys inputs, kernel, recurrent_kernel, bias (None without bias) and
        initial_state (a list).

    Raises:
        ValueError: Shapes do not fit.
        TypeError: The context is not one of `{name}_forward`.
    """
    return backward


# ---- Dense ------------------------------------------------------------------


def _dense(x: Any, kernel: Any, bias: Any) -> tuple[Array, Array, Array | None]:
    kernel = np.asarray(kernel)
    if kernel.dtype not in (np.float32, np.float64) or kernel.ndim != 2:
        raise TypeError(
            "dense kernel: expected a float32 or float64 array of shape (features, units), "
            f"got dtype {kernel.dtype} and shape {kernel.shape}"
        )
    kernel = np.ascontiguousarray(kernel)
    x = as_array(x, kernel.dtype, "dense x")
    if x.ndim < 1 or x.shape[-1] != len(kernel):
        raise ValueError(f"dense x: expected shape (..., {len(kernel)}), got {x.shape}")
    if bias is not None:
        bias = as_array(bias, kernel.dtype, "dense bias")
        if bias.shape != kernel.shape[1:]:
            raise ValueError(f"dense bias: expected shape {kernel.shape[1:]}, got {bias.shape}")
    return x, kernel, bias


def dense(x: Any, kernel: Any, bias: Any = None) -> Array:
    """`x @ kernel + bias` over the last axis of x.

    Args:
        x: (..., features).
        kernel: (features, units), float32 or float64.
        bias: (units,) or None.

    Returns:
        (..., units).

    Raises:
        ValueError: Shapes do not fit.
        TypeError: An array is not numeric, or the kernel not a matrix of floats.
    """
    x, kernel, bias = _dense(x, kernel, bias)
    y: Array = _core.Dense(kernel, bias).forward(x.reshape(-1, len(kernel)))
    return y.reshape(x.shape[:-1] + kernel.shape[1:])


def dense_forward(x: Any, kernel: Any, bias: Any = None) -> tuple[Array, Context]:
    """As `dense`, and the context for `dense_backward`; the kernel is referred to, not copied."""
    x, kernel, bias = _dense(x, kernel, bias)
    y = dense(x, kernel, bias)
    return y, Context("dense", (x, kernel, bias is not None), y.shape, (), y.dtype)


def dense_backward(context: Context, d_outputs: Any) -> dict[str, Any]:
    """Gradients of `dense`: a dict with the keys inputs, kernel and bias (None without bias).

    Args:
        context: From `dense_forward`.
        d_outputs: (..., units), the gradient of the result.

    Raises:
        ValueError: `d_outputs` has another shape.
    """
    d_outputs = as_array(d_outputs, context.dtype, "dense d_outputs")
    if d_outputs.shape != context.shape:
        raise ValueError(f"dense d_outputs: expected shape {context.shape}, got {d_outputs.shape}")
    x, kernel, bias = context.saved
    found = _core.dense_backward(
        x.reshape(-1, len(kernel)), kernel, d_outputs.reshape(-1, kernel.shape[1]), bias=bias
    )
    assert found["inputs"] is not None
    return {**found, "inputs": found["inputs"].reshape(x.shape)}


# ---- SimpleRNN --------------------------------------------------------------


def simple_rnn(
    x: Any,
    kernel: Any,
    recurrent_kernel: Any,
    bias: Any = None,
    initial_state: Any = None,
    *,
    mask: Any = None,
    activation: Any = "tanh",
    go_backwards: bool = False,
    zero_output_for_mask: bool = False,
) -> tuple[Array, list[Array]]:
    """The simple recurrent layer: h = act(x W + h' U + b).

    Args:
        x: (batch, time, features), time at least 1.
        kernel: (features, units), float32 or float64.
        recurrent_kernel: (units, units).
        bias: (units,), or None.
        initial_state: A list [h] of (batch, units), or h; zeros if None.
        mask: (batch, time) of bool, True = use the step; or None.
        activation: Name of an elementwise activation.
        go_backwards: Whether to process the last step first.
        zero_output_for_mask: Whether masked steps give zeros.

    Returns:
        outputs (batch, time, units) in processing order, and the list [h].

    Raises:
        ValueError: Shapes do not fit, or an activation is not one the engine knows.
        TypeError: An array is not numeric, or the kernel neither float32 nor float64.
    """
    return _infer("simple_rnn", locals())


simple_rnn_forward = _forward_of(simple_rnn)
simple_rnn_backward = _backward_of(simple_rnn)


# ---- LSTM -------------------------------------------------------------------


def lstm(
    x: Any,
    kernel: Any,
    recurrent_kernel: Any,
    bias: Any = None,
    initial_state: Any = None,
    *,
    mask: Any = None,
    activation: Any = "tanh",
    recurrent_activation: Any = "sigmoid",
    go_backwards: bool = False,
    zero_output_for_mask: bool = False,
) -> tuple[Array, list[Array]]:
    """The long short-term memory: c = f*c' + i*act(..), h = o*act(c); gates i, f, c, o.

    Args:
        x: (batch, time, features), time at least 1.
        kernel: (features, 4*units), float32 or float64, gates i, f, c, o.
        recurrent_kernel: (units, 4*units).
        bias: (4*units,), or None.
        initial_state: A list [h, c] of (batch, units); zeros if None.
        mask: (batch, time) of bool, True = use the step; or None.
        activation: Name of an elementwise activation (used twice).
        recurrent_activation: The same for the gates.
        go_backwards: Whether to process the last step first.
        zero_output_for_mask: Whether masked steps give zeros.

    Returns:
        outputs (batch, time, units) in processing order, and the list [h, c].

    Raises:
        ValueError: Shapes do not fit, or an activation is not one the engine knows.
        TypeError: An array is not numeric, or the kernel neither float32 nor float64.
    """
    return _infer("lstm", locals())


lstm_forward = _forward_of(lstm)
lstm_backward = _backward_of(lstm)


# ---- What is called as the LSTM is, with three gates -------------------------


def _like_lstm(
    function: Callable[_P, tuple[Array, list[Array]]],
    name: str,
    summary: str,
    gates: str,
    states: str,
) -> Callable[_P, tuple[Array, list[Array]]]:
    _, arguments = str(function.__doc__).split("\n", 1)
    for old, new in (("i, f, c, o", gates), ("4*units", "3*units"), ("[h, c]", f"[{states}]")):
        arguments = arguments.replace(old, new)
    doc = f"{summary}; gates {gates}.\n{arguments}"
    return _with_arguments_of(function, _infer, name, name, doc)


coupled_lstm = _like_lstm(
    lstm,
    "coupled_lstm",
    "The LSTM with i = 1 - f: c = f*c' + (1-f)*act(..), h = o*act(c)",
    "f, c, o",
    "h, c",
)
coupled_lstm_forward = _forward_of(coupled_lstm)
coupled_lstm_backward = _backward_of(coupled_lstm)

dual_state_gru = _like_lstm(
    lstm,
    "dual_state_gru",
    "The GRU with two states: C = (1-z)*C' + r*act(..), h = (1-z)*h' + act(C)",
    "z, r, c",
    "h, C",
)
dual_state_gru_forward = _forward_of(dual_state_gru)
dual_state_gru_backward = _backward_of(dual_state_gru)


# ---- GRU --------------------------------------------------------------------


def gru(
    x: Any,
    kernel: Any,
    recurrent_kernel: Any,
    bias: Any = None,
    initial_state: Any = None,
    *,
    mask: Any = None,
    activation: Any = "tanh",
    recurrent_activation: Any = "sigmoid",
    go_backwards: bool = False,
    zero_output_for_mask: bool = False,
    reset_after: bool = True,
) -> tuple[Array, list[Array]]:
    """The gated recurrent unit of Cho et al.: h = z*h' + (1-z)*n; gates z, r, h.

    Args:
        x: (batch, time, features), time at least 1.
        kernel: (features, 3*units), float32 or float64, gates z, r, h.
        recurrent_kernel: (units, 3*units).
        bias: (2, 3*units): input and recurrent bias; without `reset_after` (3*units,), or None.
        initial_state: A list [h] of (batch, units), or h; zeros if None.
        mask: (batch, time) of bool, True = use the step; or None.
        activation: Name of an elementwise activation.
        recurrent_activation: The same for the gates.
        go_backwards: Whether to process the last step first.
        zero_output_for_mask: Whether masked steps give zeros.
        reset_after: Whether r multiplies the recurrent product (Keras's default) or the state
            before it.

    Returns:
        outputs (batch, time, units) in processing order, and the list [h].

    Raises:
        ValueError: Shapes do not fit, or an activation is not one the engine knows.
        TypeError: An array is not numeric, or the kernel neither float32 nor float64.
    """
    return _infer("gru", locals())


gru_forward = _forward_of(gru)
gru_backward = _backward_of(gru)
