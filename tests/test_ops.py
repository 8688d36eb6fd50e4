"""The functional engine: every cell against its textbook twin, and what contexts promise."""

import numpy as np
import pytest
from reference import cells as twin

from tidegate import activations, ops

CELLS = {  # functions: name, further arguments, cell of the twin
    "lstm": ("lstm", {}, "lstm"),
    "gru": ("gru", {}, "gru"),
    "gru_before": ("gru", {"reset_after": False}, "gru_reset_before"),
    "simple_rnn": ("simple_rnn", {}, "simple_rnn"),
    "dual_state_gru": ("dual_state_gru", {}, "dual_state_gru"),
    "coupled_lstm": ("coupled_lstm", {}, "coupled_lstm"),
}
EPS = {"float32": 2.0**-23, "float64": 2.0**-52}


class Problem:
    """Arrays for one cell, drawn from a seed."""

    def __init__(self, cell, units=7, batch=3, time=5, features=4, dtype="float64", seed=0):
        rng = np.random.default_rng(seed)
        gates, states, rows = twin.CELLS[cell]
        width = gates * units
        self.x = rng.normal(size=(batch, time, features)).astype(dtype)
        self.kernel = (rng.normal(size=(features, width)) / 2).astype(dtype)
        self.recurrent_kernel = (rng.normal(size=(units, width)) / 2).astype(dtype)
        self.bias = rng.normal(size=(width,) if rows == 1 else (2, width)).astype(dtype)
        self.states = [rng.normal(size=(batch, units)).astype(dtype) for _ in range(states)]
        self.mask = rng.random((batch, time)) > 0.3
        self.d_outputs = rng.normal(size=(batch, time, units)).astype(dtype)
        self.d_states = [rng.normal(size=(batch, units)).astype(dtype) for _ in range(states)]

    @property
    def arguments(self):
        return self.x, self.kernel, self.recurrent_kernel, self.bias, self.states


def close(ours, theirs, dtype, steps=5):
    """Equal up to the rounding of sums of some 20 terms over the steps."""
    bound = 64 * steps * EPS[dtype] * max(1, np.max(np.abs(theirs), initial=0))
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=bound)


@pytest.mark.parametrize("dtype", EPS)
@pytest.mark.parametrize("options", [{}, {"go_backwards": True}, {"zero_output_for_mask": True}])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("name", CELLS)
def test_against_the_twin(name, masked, options, dtype):
    function, more, cell = CELLS[name]
    p = Problem(cell, dtype=dtype)
    options = {**options, "mask": p.mask if masked else None}
    outputs, states = getattr(ops, function)(*p.arguments, **options, **more)
    also, _, context = getattr(ops, f"{function}_forward")(*p.arguments, **options, **more)
    gradients = getattr(ops, f"{function}_backward")(context, p.d_outputs, p.d_states)

    expected, expected_states, trace = twin.forward(
        cell, p.x, p.kernel, p.recurrent_kernel, p.bias, initial_state=p.states, **options
    )
    truth = twin.backward(trace, p.d_outputs, p.d_states)
    assert np.array_equal(outputs, also)
    assert outputs.dtype == dtype
    close(outputs, expected, dtype)
    for ours, theirs in zip(states, expected_states, strict=True):
        close(ours, theirs, dtype)
    assert set(gradients) == set(truth)
    for key in ("inputs", "kernel", "recurrent_kernel", "bias"):
        assert gradients[key].dtype == dtype
        close(gradients[key], truth[key], dtype, steps=15)
    for ours, theirs in zip(gradients["initial_state"], truth["initial_state"], strict=True):
        close(ours, theirs, dtype)


def test_the_articles_gru_to_the_letter():
    p = Problem("dual_state_gru")
    sigma = lambda v: 1 / (1 + np.exp(-v))  # noqa: E731
    Wz, Wr, Wc = np.split(p.kernel, 3, axis=1)
    Uz, Ur, Uc = np.split(p.recurrent_kernel, 3, axis=1)
    bz, br, bc = np.split(p.bias, 3)
    h, C = p.states
    outputs, states = ops.dual_state_gru(*p.arguments)
    for t in range(p.x.shape[1]):
        x = p.x[:, t]
        z = sigma(x @ Wz + h @ Uz + bz)
        r = sigma(x @ Wr + h @ Ur + br)
        C = (1 - z) * C + r * np.tanh(x @ Wc + h @ Uc + bc)
        h = (1 - z) * h + np.tanh(C)
        close(outputs[:, t], h, "float64")
    close(states[0], h, "float64")
    close(states[1], C, "float64")


def test_a_context_may_be_used_many_times_and_keeps_its_weights():
    p = Problem("lstm")
    _, _, context = ops.lstm_forward(*p.arguments)
    first = ops.lstm_backward(context, p.d_outputs, p.d_states)
    p.kernel[...] = 0  # the context has its own
    p.recurrent_kernel[...] = 0
    again = ops.lstm_backward(context, p.d_outputs, p.d_states)
    assert all(np.array_equal(first[key], again[key]) for key in first if key != "initial_state")
    only_states = ops.lstm_backward(context, None, [None, p.d_states[1]])
    only_outputs = ops.lstm_backward(context, p.d_outputs, [p.d_states[0], None])
    close(only_states["kernel"] + only_outputs["kernel"], first["kernel"], "float64")


def test_nothing_is_kept_between_calls():
    p = Problem("gru")
    first, _ = ops.gru(*p.arguments)
    p.kernel *= 2  # the same array object
    second, _ = ops.gru(*p.arguments)
    assert not np.array_equal(first, second)
    p.kernel /= 2
    assert np.array_equal(ops.gru(*p.arguments)[0], first)


def test_a_bare_state_and_other_dtypes_and_layouts():
    p = Problem("gru", dtype="float32")
    outputs, _ = ops.gru(*p.arguments)
    bare, _ = ops.gru(*p.arguments[:4], p.states[0])
    wide, _ = ops.gru(p.x.astype("float64"), *p.arguments[1:])
    strided, _ = ops.gru(np.asfortranarray(p.x), p.kernel.T.copy().T, *p.arguments[2:])
    mask, _ = ops.gru(*p.arguments, mask=np.ones((3, 5, 1), int))
    for other in (bare, wide, strided, mask):
        assert np.array_equal(outputs, other)
    no_bias, states, context = ops.gru_forward(p.x, p.kernel, p.recurrent_kernel)
    assert np.array_equal(no_bias, ops.gru(p.x, p.kernel, p.recurrent_kernel, 0 * p.bias)[0])
    assert ops.gru_backward(context, None, states[0])["bias"] is None


@pytest.mark.parametrize("dtype", EPS)
@pytest.mark.parametrize("shape", [(5, 4), (2, 3, 4), (4,), (0, 4)])
def test_dense(shape, dtype):
    rng = np.random.default_rng(0)
    x, kernel, bias = (rng.normal(size=s).astype(dtype) for s in (shape, (4, 9), (9,)))
    y, context = ops.dense_forward(x, kernel, bias)
    close(y, x.astype("f8") @ kernel + bias, dtype)
    assert np.array_equal(y, ops.dense(x, kernel, bias))
    d = rng.normal(size=y.shape).astype(dtype)
    gradients = ops.dense_backward(context, d)
    close(gradients["inputs"], d.astype("f8") @ kernel.T, dtype)
    flat = d.reshape(-1, 9).astype("f8")
    close(gradients["kernel"], x.reshape(-1, 4).T @ flat, dtype)
    close(gradients["bias"], flat.sum(axis=0), dtype)
    _, context = ops.dense_forward(x, kernel)
    assert ops.dense_backward(context, d)["bias"] is None


# ---- Activations --------------------------------------------------------------------------------

KNOWN = [
    *twin.ACTIVATIONS,
    *("softmax", "log_softmax", "squareplus", "soft_shrink", "hard_shrink", "sparse_plus"),
    "sparse_sigmoid",
]


@pytest.mark.parametrize("dtype", EPS)
@pytest.mark.parametrize("name", twin.ACTIVATIONS)
def test_elementwise_activations(name, dtype):
    value, derivative = twin.ACTIVATIONS[name]
    # 332 points, so that none is at a kink, where derivatives are a matter of taste.
    x = np.concatenate([np.linspace(-8, 8, 332), np.random.default_rng(0).normal(size=39)])
    x = x.astype(dtype).reshape(7, 53)
    function = activations.get(name)
    assert activations.serialize(function) == name
    close(function(x), value(x.astype("f8")), dtype)
    d = np.cos(x)
    close(function.backward(x, d), derivative(x.astype("f8")) * d, dtype)


@pytest.mark.parametrize("name", KNOWN)
def test_derivatives_of_activations(name):
    rng = np.random.default_rng(1)
    x, d = rng.normal(size=(40, 5)) * 2, rng.normal(size=(40, 5))
    direction = rng.normal(size=x.shape)
    function, step = activations.get(name), 1e-6
    change = (function(x + step * direction) - function(x - step * direction)) / (2 * step)
    ours = np.sum(function.backward(x, d) * direction)
    # Central differences: rounding of values up to 1e3 over the step.
    assert ours == pytest.approx(np.sum(change * d), abs=1e-6)


def test_activations_by_name():
    assert activations.get("swish") is activations.get("silu") is activations.silu
    assert activations.get(None) is activations.get("linear")
    assert activations.get({"class_name": "function", "config": "relu"}) is activations.relu
    assert activations.get(np.sin) is np.sin
    with pytest.raises(ValueError, match="Could not interpret activation function identifier: foo"):
        activations.get("foo")
    with pytest.raises(AttributeError):
        _ = activations.foo


# ---- Errors -------------------------------------------------------------------------------------


def call(name="lstm", **changes):
    p = Problem("lstm")
    arguments = {
        "x": p.x,
        "kernel": p.kernel,
        "recurrent_kernel": p.recurrent_kernel,
        "bias": p.bias,
        "initial_state": p.states,
    }
    return getattr(ops, name)(**{**arguments, **changes})


@pytest.mark.parametrize(
    "changes, error, message",
    [
        ({"x": np.zeros((3, 5, 9))}, ValueError, r"lstm x: expected shape \(batch, time, 4\), got"),
        ({"x": np.zeros((3, 0, 4))}, ValueError, "at least one time step"),
        ({"x": np.zeros((3, 4))}, ValueError, r"got \(3, 4\)"),
        ({"x": [[["a"]]]}, TypeError, "lstm x: expected an array of numbers, got list"),
        ({"x": [[1, 2], [3]]}, ValueError, "lstm x: expected an array"),
        ({"kernel": np.zeros((4, 28), int)}, TypeError, "expected float32 or float64, got dtype"),
        ({"kernel": np.zeros((4, 27))}, ValueError, r"kernel: expected shape \(features, 28\)"),
        (
            {"recurrent_kernel": np.zeros((7, 27))},
            ValueError,
            r"\(units, 4\*units\), got \(7, 27\)",
        ),
        ({"bias": np.zeros(27)}, ValueError, r"lstm bias: expected shape \(28,\), got \(27,\)"),
        ({"initial_state": [np.zeros((3, 7))]}, ValueError, r"expected 2 state\(s\), got 1"),
        (
            {"initial_state": [np.zeros((3, 7)), np.zeros((2, 7))]},
            ValueError,
            r"initial_state 1: expected shape \(3, 7\), got \(2, 7\)",
        ),
        ({"mask": np.ones((3, 4), bool)}, ValueError, r"lstm mask: expected shape \(3, 5\)"),
        ({"mask": "all"}, TypeError, "lstm mask: expected booleans"),
        ({"activation": "softmax"}, ValueError, "elementwise activation known by name"),
        ({"activation": np.sin}, ValueError, "got sin"),
        ({"recurrent_activation": "foo"}, ValueError, "Could not interpret"),
    ],
)
def test_what_ops_refuse(changes, error, message):
    for name in ("lstm", "lstm_forward"):
        with pytest.raises(error, match=message):
            call(name, **changes)


def test_what_backward_refuses():
    _, _, context = call("lstm_forward")
    with pytest.raises(TypeError, match="expected the context of gru_forward, got lstm"):
        ops.gru_backward(context)
    with pytest.raises(TypeError, match="got NoneType"):
        ops.lstm_backward(None)
    with pytest.raises(ValueError, match=r"d_outputs: expected shape \(3, 5, 7\), got \(3, 7\)"):
        ops.lstm_backward(context, np.zeros((3, 7)))
    with pytest.raises(ValueError, match=r"d_states: expected 2 state\(s\), got 1"):
        ops.lstm_backward(context, None, [None])
