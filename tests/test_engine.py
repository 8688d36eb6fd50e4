"""The compiled engine against its float64 twin, central differences, and itself.

Every test here runs on each instruction set this CPU has: test_isa.py runs this file again with
TIDEGATE_ISA forced.
"""

import concurrent.futures
import itertools
import signal
from time import monotonic

import numpy as np
import pytest
from reference import cells as twin

from tidegate import _core

CELLS = list(_core.cells())
# Tails of every vector width (SSE2 2/4, AVX2 4/8, AVX-512 8/16) and more than one block of four.
UNITS = [1, 7, 8, 9, 15, 16, 17, 33, 77]
ACTIVATIONS = _core.activations()


@pytest.fixture(autouse=True)
def many_threads_on_small_shapes():
    """Small shapes really run on as many threads as are set."""
    _core._set_parallel_threshold(0.0)
    before = _core.get_num_threads()
    yield
    _core._set_parallel_threshold(400e3)
    _core.set_num_threads(before)


class Problem:
    """A random layer and call; the same numbers in float32 and float64."""

    def __init__(
        self, cell, batch, time, features, units, seed=0, bias=True, mask=False, dropout=False
    ):
        info = _core.cells()[cell]
        rng = np.random.default_rng([seed, batch, time, features, units, CELLS.index(cell)])

        def draw(*shape, scale=1.0):
            return (scale * rng.standard_normal(shape)).astype(np.float32).astype(np.float64)

        columns = info["gates"] * units
        self.cell, self.states = cell, info["states"]
        self.batch, self.time, self.features, self.units = batch, time, features, units
        self.x = draw(batch, time, features)
        self.kernel = draw(features, columns, scale=features**-0.5)
        self.recurrent_kernel = draw(units, columns, scale=units**-0.5)
        shape = (2, columns) if info["bias_rows"] == 2 else (columns,)
        self.bias = draw(*shape, scale=0.3) if bias else None
        self.initial_state = [draw(batch, units, scale=0.5) for _ in range(self.states)]
        self.mask = rng.random((batch, time)) < 0.6 if mask else None
        if mask:
            self.mask[0] = False  # a row that is never used
            self.mask[-1] = np.arange(time) < (time + 1) // 2  # right padding
        keep = rng.random((info["gates"], batch, units)) < 0.7
        self.dropout = keep / 0.7 if dropout else None
        self.dropout = (
            None if self.dropout is None else self.dropout.astype(np.float32).astype(float)
        )
        self.d_outputs = draw(batch, time, units)
        self.d_states = [draw(batch, units) for _ in range(self.states)]

    def run(self, dtype, training=True, return_sequences=True, prefix="", **options):
        names = ("activation", "recurrent_activation")
        chosen = {name: options.pop(name) for name in names if name in options}

        def cast(a):
            return None if a is None else np.ascontiguousarray(a, dtype=dtype)

        layer = _core.Recurrent(
            self.cell, cast(self.kernel), cast(self.recurrent_kernel), cast(self.bias), **chosen
        )
        call = getattr(layer, prefix + ("forward_training" if training else "forward"))
        return call(
            cast(self.x),
            [cast(s) for s in self.initial_state],
            self.mask,
            return_sequences=return_sequences,
            recurrent_dropout=cast(self.dropout),
            **options,
        )

    def gradients(self, dtype, return_sequences=True, **options):
        context = self.run(dtype, return_sequences=return_sequences, **options)[2]
        return context.backward(*self.d_results(dtype, return_sequences))

    def d_results(self, dtype, return_sequences=True):
        """What `backward` takes."""
        d_outputs = self.d_outputs if return_sequences else self.d_outputs[:, -1]
        return np.ascontiguousarray(d_outputs, dtype=dtype), [
            d.astype(dtype) for d in self.d_states
        ]

    def twin_forward(self, **options):
        return twin.forward(
            self.cell,
            self.x,
            self.kernel,
            self.recurrent_kernel,
            self.bias,
            initial_state=self.initial_state,
            mask=self.mask,
            recurrent_dropout=self.dropout,
            **options,
        )

    def twin_gradients(self, return_sequences=True, **options):
        context = self.twin_forward(return_sequences=return_sequences, **options)[2]
        d_outputs = self.d_outputs if return_sequences else self.d_outputs[:, -1]
        return twin.backward(context, d_outputs, self.d_states)

    def bound(self, dtype):
        """Rounding that a step can add, times the steps it can travel.

        The states neither grow nor shrink much.
        """
        eps = np.finfo(dtype).eps
        return 4 * eps * (self.features + self.units + 16) ** 0.5 * self.time * 4


def flatten(grads):
    for name, value in grads.items():
        for i, array in enumerate(value if isinstance(value, list) else [value]):
            if array is not None:
                yield f"{name}[{i}]", array


def assert_close(actual, expected, bound, what=""):
    assert actual.shape == expected.shape, what
    scale = max(1.0, np.abs(expected).max(initial=0.0))
    error = np.abs(actual - expected).max(initial=0.0) / scale
    assert error <= bound, f"{what}: error {error:.3g} over bound {bound:.3g}"


def assert_gradients_close(actual, expected, bound):
    expected = dict(flatten(expected))
    actual = dict(flatten(actual))
    assert actual.keys() == expected.keys()
    for name, array in actual.items():
        assert_close(array, expected[name], bound, name)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("units", UNITS)
@pytest.mark.parametrize("cell", CELLS)
def test_forward_and_backward_match_the_twin(cell, units, dtype):
    for batch, time, features in [(1, 1, 1), (1, 9, 3), (5, 6, 17), (13, 4, 33)]:
        problem = Problem(cell, batch, time, features, units)
        expected, states, _ = problem.twin_forward()
        outputs, final, _ = problem.run(dtype)
        bound = problem.bound(dtype)
        assert outputs.dtype == dtype
        assert_close(outputs, expected, bound)
        for actual, state in zip(final, states, strict=True):
            assert_close(actual, state, bound)
        # Gradients add up over batch, time and units.
        bound *= (batch * time) ** 0.5 * 4
        assert_gradients_close(problem.gradients(dtype), problem.twin_gradients(), bound)


@pytest.mark.parametrize("dropout", [False, True], ids=["", "dropout"])
@pytest.mark.parametrize("go_backwards", [False, True], ids=["forwards", "backwards"])
@pytest.mark.parametrize("zero_output", [False, True], ids=["repeat", "zero"])
@pytest.mark.parametrize("return_sequences", [False, True], ids=["last", "sequences"])
@pytest.mark.parametrize("cell", CELLS)
def test_masks_direction_dropout(cell, return_sequences, zero_output, go_backwards, dropout):
    options = {"go_backwards": go_backwards, "zero_output_for_mask": zero_output}
    for batch, units in [(5, 17), (9, 40)]:
        problem = Problem(cell, batch, 7, 3, units, mask=True, dropout=dropout)
        expected, states, _ = problem.twin_forward(return_sequences=return_sequences, **options)
        for training in (False, True):
            result = problem.run(np.float64, training, return_sequences, **options)
            assert_close(result[0], expected, problem.bound(np.float64))
            for actual, state in zip(result[1], states, strict=True):
                assert_close(actual, state, problem.bound(np.float64))
        assert_gradients_close(
            problem.gradients(np.float64, return_sequences, **options),
            problem.twin_gradients(return_sequences, **options),
            16 * problem.bound(np.float64),
        )


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("cell", CELLS)
def test_inputs_dropped_per_gate(cell, threads):
    """As if every gate had inputs of its own: side by side, through a block-diagonal kernel."""
    _core.set_num_threads(threads)
    gates = _core.cells()[cell]["gates"]
    for batch, features, units, mask in [(1, 5, 17, False), (7, 18, 9, True), (14, 3, 40, True)]:
        problem = Problem(cell, batch, 6, features, units, mask=mask, dropout=True)
        rng = np.random.default_rng(units)
        factors = (rng.random((gates, batch, features)) < 0.7) / 0.7
        layer = _core.Recurrent(cell, problem.kernel, problem.recurrent_kernel, problem.bias)
        dropouts = {"input_dropout": factors, "recurrent_dropout": problem.dropout}
        outputs, states, context = layer.forward_training(
            problem.x, problem.initial_state, problem.mask, go_backwards=True, **dropouts
        )
        grads = context.backward(problem.d_outputs, problem.d_states)

        x, kernel = problem.x, problem.kernel
        blocks = [slice(g * units, (g + 1) * units) for g in range(gates)]
        problem.x = np.concatenate([x * f[:, None] for f in factors], axis=-1)
        problem.kernel = np.zeros((gates * features, gates * units))
        for g, columns in enumerate(blocks):
            problem.kernel[g * features : (g + 1) * features, columns] = kernel[:, columns]
        expected, final, wide = problem.twin_forward(go_backwards=True)
        bound = 16 * problem.bound(np.float64)
        assert_close(outputs, expected, bound)
        for actual, state in zip(states, final, strict=True):
            assert_close(actual, state, bound)
        wanted = twin.backward(wide, problem.d_outputs, problem.d_states)
        wanted["inputs"] = sum(
            part * f[:, None]
            for part, f in zip(np.split(wanted["inputs"], gates, axis=-1), factors, strict=True)
        )
        wanted["kernel"] = np.concatenate(
            [wanted["kernel"][g * features :][:features, c] for g, c in enumerate(blocks)], axis=1
        )
        assert_gradients_close(grads, wanted, bound)


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("cell", CELLS)
def test_every_activation(cell, name):
    other = "hard_sigmoid" if name != "hard_sigmoid" else "tanh"
    pairs = [{"activation": name}]
    if cell != "simple_rnn":
        pairs = [
            {"activation": name, "recurrent_activation": other},
            {"activation": "tanh", "recurrent_activation": name},
        ]
    for pair in pairs:
        problem = Problem(cell, 3, 3, 5, 11)
        if name == "exponential":  # of an exponential of an exponential: keep it in range
            problem.kernel *= 0.2
            problem.recurrent_kernel *= 0.2
        expected, _, _ = problem.twin_forward(**pair)
        # Unbounded activations feed rounding back through the recurrence at a growing scale.
        bound = 1e3 * problem.bound(np.float64)
        assert_close(problem.run(np.float64, **pair)[0], expected, bound)
        assert_gradients_close(
            problem.gradients(np.float64, **pair), problem.twin_gradients(**pair), 10 * bound
        )


@pytest.mark.parametrize("units", [1, 7, 8, 9, 15, 16, 17, 33])
@pytest.mark.parametrize("cell", CELLS)
def test_central_differences(cell, units):
    """Independent of the twin's derivatives: the loss nudged along random directions."""
    problem = Problem(cell, 3, 4, 2, units)
    grads = dict(flatten(problem.gradients(np.float64)))

    def loss():
        outputs, states = problem.run(np.float64, training=False)
        total = (outputs * problem.d_outputs).sum()
        return total + sum((s * d).sum() for s, d in zip(states, problem.d_states, strict=True))

    names = {
        "inputs": "x",
        "kernel": "kernel",
        "recurrent_kernel": "recurrent_kernel",
        "bias": "bias",
    }
    rng = np.random.default_rng(units)
    step = 1e-4
    for key, gradient in grads.items():
        name, index = key[:-1].split("[")
        target = (
            problem.initial_state[int(index)]
            if name == "initial_state"
            else getattr(problem, names[name])
        )
        for _ in range(3):
            direction = rng.standard_normal(target.shape)
            direction /= np.linalg.norm(direction)
            start = target.copy()
            slopes = []
            for distance in (step, 2 * step):  # the two together cancel the h^2 term (Richardson)
                target[...] = start + distance * direction
                up = loss()
                target[...] = start - distance * direction
                slopes.append((up - loss()) / (2 * distance))
            target[...] = start
            expected = (4 * slopes[0] - slopes[1]) / 3
            actual = (gradient * direction).sum()
            scale = max(1.0, abs(expected), np.linalg.norm(gradient))
            assert abs(actual - expected) <= 1e-7 * scale, (key, actual, expected)


THREADS = [1, 2, 3, 7]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("cell", CELLS)
def test_threads_give_the_same_bits(cell, dtype):
    for batch, time, units, mask, dropout in [
        (1, 5, 130, False, False),
        (2, 9, 33, False, False),
        (25, 4, 50, True, True),
        (6, 70, 17, True, False),
    ]:
        problem = Problem(cell, batch, time, 19, units, mask=mask, dropout=dropout)
        results = []
        for threads in THREADS:
            _core.set_num_threads(threads)
            outputs, states, _ = problem.run(dtype)
            plain, plain_states = problem.run(dtype, training=False)
            np.testing.assert_array_equal(outputs, plain)
            for a, b in zip(states, plain_states, strict=True):
                np.testing.assert_array_equal(a, b)
            results.append([outputs, *states, *(a for _, a in flatten(problem.gradients(dtype)))])
        for other in results[1:]:
            for a, b in zip(results[0], other, strict=True):
                np.testing.assert_array_equal(a, b)


def arrays_of(outputs, states, gradients=()):
    return [outputs, *states, *(array for _, array in flatten(dict(gradients)))]


@pytest.mark.parametrize("threads", [*THREADS, 4])
@pytest.mark.parametrize("return_sequences", [True, False])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("cell", CELLS)
def test_two_calls_at_once_give_the_bits_of_each(cell, dtype, return_sequences, threads):
    shapes = [(1, 5, 19, 130), (2, 9, 19, 33), (25, 4, 19, 50), (0, 3, 2, 5)]
    for (batch, time, features, units), extras, other_units in [
        *((shape, {}, shape[3]) for shape in shapes),
        ((25, 4, 19, 50), {"mask": True, "dropout": True}, 50),
        ((6, 70, 3, 17), {"mask": True}, 17),
        ((6, 7, 3, 17), {}, 40),  # one has more to do
    ]:
        one = Problem(cell, batch, time, features, units, **extras)
        other = Problem(cell, batch, time, features, other_units, seed=1, bias=False, **extras)
        ways = [{}, {"go_backwards": True, "zero_output_for_mask": True}]
        options = [{"return_sequences": return_sequences, **way} for way in ways]
        _core.set_num_threads(1)
        expected = []
        for problem, own in zip((one, other), options, strict=True):
            outputs, states, _ = problem.run(dtype, **own)
            expected.append(arrays_of(outputs, states, problem.gradients(dtype, **own)))
        _core.set_num_threads(threads)

        def both(training, problems=(one, other), options=options):
            return _core.run_both(
                *(
                    problem.run(dtype, training=training, prefix="prepare_", **own)
                    for problem, own in zip(problems, options, strict=True)
                )
            )

        trained = both(True)
        gradients = _core.run_both(
            *(
                context.prepare_backward(*problem.d_results(dtype, return_sequences))
                for problem, (_, _, context) in zip((one, other), trained, strict=True)
            )
        )
        for want, plain, (outputs, states, _), grads in zip(
            expected, both(False), trained, gradients, strict=True
        ):
            got = arrays_of(outputs, states, grads)
            for a, b in zip(got, want, strict=True):
                np.testing.assert_array_equal(a, b)
            for a, b in zip(arrays_of(*plain), want, strict=False):
                np.testing.assert_array_equal(a, b)


def test_two_calls_at_once_are_alike_and_fresh():
    problem = Problem("lstm", 2, 3, 4, 5)

    def call(dtype=np.float32, training=True):
        return problem.run(dtype, training=training, prefix="prepare_")

    context = problem.run(np.float32)[2]
    for other in (call(np.float64), context.prepare_backward()):
        with pytest.raises(TypeError, match="run_both: expected calls of the same kind and dtype"):
            _core.run_both(call(), other)
    one = call()
    with pytest.raises(ValueError, match="call: expected one that has not run, got one that has"):
        _core.run_both(one, one)
    outputs, *_ = _core.run_both(call(), call(training=False))[1]  # training or not: alike
    np.testing.assert_array_equal(outputs, problem.run(np.float32)[0])


@pytest.mark.parametrize("threads", THREADS)
@pytest.mark.parametrize("cell", CELLS)
def test_a_row_does_not_depend_on_its_batch_nor_a_step_on_its_call(cell, threads):
    _core.set_num_threads(threads)
    problem = Problem(cell, 14, 11, 6, 41)
    layer = _core.Recurrent(
        cell,
        *(a.astype(np.float32) for a in (problem.kernel, problem.recurrent_kernel, problem.bias)),
    )
    x = problem.x.astype(np.float32)
    initial = [s.astype(np.float32) for s in problem.initial_state]
    outputs, states = layer.forward(x, initial)
    for rows in (slice(0, 1), slice(3, 5), slice(2, 14)):
        part, part_states = layer.forward(x[rows].copy(), [s[rows].copy() for s in initial])
        np.testing.assert_array_equal(part, outputs[rows])
        for a, b in zip(part_states, states, strict=True):
            np.testing.assert_array_equal(a, b[rows])
    carried = initial
    for t in range(x.shape[1]):
        y, carried = layer.forward(x[:, t : t + 1].copy(), carried)
        np.testing.assert_array_equal(y[:, 0], outputs[:, t])
    # The gradients of a row's inputs and states do not depend on the batch either.
    d = problem.d_outputs.astype(np.float32)
    whole = layer.forward_training(x, initial)[2].backward(d)
    part = layer.forward_training(x[3:4].copy(), [s[3:4].copy() for s in initial])[2].backward(
        d[3:4].copy()
    )
    np.testing.assert_array_equal(part["inputs"], whole["inputs"][3:4])
    for a, b in zip(part["initial_state"], whole["initial_state"], strict=True):
        np.testing.assert_array_equal(a, b[3:4])


@pytest.mark.parametrize("cell", CELLS)
def test_context_may_be_used_again(cell):
    problem = Problem(cell, 4, 5, 3, 20)
    context = problem.run(np.float64)[2]
    first = dict(flatten(context.backward(problem.d_outputs, problem.d_states)))
    context.backward(2 * problem.d_outputs)
    again = dict(flatten(context.backward(problem.d_outputs, problem.d_states)))
    for name, array in first.items():
        np.testing.assert_array_equal(array, again[name])
    without = context.backward(problem.d_outputs, problem.d_states, inputs=False)
    assert without["inputs"] is None
    np.testing.assert_array_equal(without["kernel"], first["kernel[0]"])


@pytest.mark.parametrize("cell", CELLS)
def test_nan_comes_out_as_nan(cell):
    problem = Problem(cell, 3, 4, 3, 21)
    problem.x[1, 2, 0] = np.nan
    for dtype in (np.float32, np.float64):
        outputs, _, context = problem.run(dtype)
        assert np.isnan(outputs[1, 2:]).all()
        assert np.isfinite(outputs[[0, 2]]).all()
        assert np.isfinite(outputs[1, :2]).all()
        assert np.isnan(context.backward(problem.d_outputs.astype(dtype))["kernel"]).any()


@pytest.mark.parametrize("cell", CELLS)
def test_empty_batch(cell):
    problem = Problem(cell, 0, 4, 3, 5)
    outputs, states, context = problem.run(np.float32)
    assert outputs.shape == (0, 4, 5)
    assert all(s.shape == (0, 5) for s in states)
    grads = context.backward(np.zeros((0, 4, 5), np.float32))
    assert grads["inputs"].shape == (0, 4, 3)
    assert not grads["kernel"].any()
    assert not grads["bias"].any()


def test_errors_name_what_was_expected_and_what_came():
    problem = Problem("lstm", 2, 3, 4, 5)
    good = [a.astype(np.float32) for a in (problem.kernel, problem.recurrent_kernel, problem.bias)]
    layer = _core.Recurrent("lstm", *good)
    x = problem.x.astype(np.float32)
    cases = [
        (ValueError, "cell: expected one of .*, got 'foo'", lambda: _core.Recurrent("foo", *good)),
        (
            ValueError,
            r"expected recurrent_kernel with shape",
            lambda: _core.Recurrent("lstm", good[0], good[0]),
        ),
        (
            ValueError,
            r"expected bias with shape \(20,\), got \(3,\)",
            lambda: _core.Recurrent("lstm", good[0], good[1], np.zeros(3, np.float32)),
        ),
        (
            TypeError,
            "expected kernel of dtype float32 or float64, got int64",
            lambda: _core.Recurrent("lstm", good[0].astype(int), *good[1:]),
        ),
        (
            TypeError,
            "recurrent_kernel of dtype float32",
            lambda: _core.Recurrent("lstm", good[0], problem.recurrent_kernel),
        ),
        (
            ValueError,
            "activation: expected one of",
            lambda: _core.Recurrent("lstm", *good, activation="softmax"),
        ),
        (
            ValueError,
            r"expected x with shape \(any, any, 4\), got \(2, 3, 3\)",
            lambda: layer.forward(x[:, :, 1:]),
        ),
        (ValueError, r"expected x with shape .* got \(2, 3\)", lambda: layer.forward(x[:, :, 0])),
        (TypeError, "expected x to be a NumPy array, got list", lambda: layer.forward(x.tolist())),
        (TypeError, "expected x of dtype float32, got float64", lambda: layer.forward(problem.x)),
        (
            TypeError,
            "expected x of dtype float32, got object",
            lambda: layer.forward(x.astype(object)),
        ),
        (ValueError, "at least one time step", lambda: layer.forward(x[:, :0])),
        (ValueError, "initial_state to hold 2 arrays, got 1", lambda: layer.forward(x, [x[:, 0]])),
        (
            ValueError,
            r"initial_state with shape \(2, 5\), got \(2, 4\)",
            lambda: layer.forward(x, [x[:, 0]] * 2),
        ),
        (
            ValueError,
            r"mask with shape \(2, 3\)",
            lambda: layer.forward(x, None, np.ones((2, 4), bool)),
        ),
        (TypeError, "mask", lambda: layer.forward(x, None, np.ones((2, 3), int))),
    ]
    for kind, message, call in cases:
        with pytest.raises(kind, match=message):
            call()


def test_dense_and_its_backward():
    rng = np.random.default_rng(0)
    for n, features, units in itertools.product([1, 6, 31], [1, 9, 70], UNITS):
        x, kernel = rng.standard_normal((n, features)), rng.standard_normal((features, units))
        bias, d = rng.standard_normal(units), rng.standard_normal((n, units))
        for dtype in (np.float32, np.float64):
            cast = [a.astype(dtype) for a in (x, kernel, bias, d)]
            bound = np.finfo(dtype).eps * (max(n, features, units) + 1)
            y = _core.Dense(cast[1], cast[2]).forward(cast[0])
            exact = [a.astype(np.float64) for a in cast]
            assert_close(y, exact[0] @ exact[1] + exact[2], bound)
            grads = _core.dense_backward(cast[0], cast[1], cast[3])
            assert_close(grads["inputs"], exact[3] @ exact[1].T, bound)
            assert_close(grads["kernel"], exact[0].T @ exact[3], bound)
            assert_close(grads["bias"], exact[3].sum(0), bound)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activation_alone(name):
    x = np.concatenate([np.linspace(-30, 30, 1001), [-1e3, 1e3, -3, 3, -2.5, 2.5, 0, 6]])
    d = np.linspace(-1, 2, x.size)
    f, slope = twin.ACTIVATIONS[name]
    for dtype, bound in ((np.float32, 1e-6), (np.float64, 1e-14)):
        at = x.astype(dtype)
        with np.errstate(over="ignore"):
            expected, slopes = f(at.astype(np.float64)), slope(at.astype(np.float64))
            grown = expected > np.finfo(dtype).max
        y = _core.activation(name, at)
        assert np.isinf(y[grown]).all()
        good = ~grown
        scale = np.maximum(1, np.abs(expected[good]))
        assert (np.abs(y[good] - expected[good]) / scale).max() <= bound
        good &= ~np.isin(at, [-3, 3, 0, 6, -1, 1, -2.5, 2.5])  # kinks
        got = _core.activation_backward(name, at, d.astype(dtype))[good]
        scale = np.maximum(1, np.abs(expected[good]))
        assert (np.abs(got - slopes[good] * d.astype(dtype)[good]) / scale).max() <= 4 * bound
        assert np.isnan(_core.activation(name, np.array([np.nan], dtype))).all()


def test_python_threads_at_once():
    """The GIL is free during work; calls that meet share the machine and give the same bits."""
    _core.set_num_threads(3)
    problem = Problem("lstm", 6, 9, 5, 33, mask=True)
    outputs, states, context = problem.run(np.float32)
    d_outputs = problem.d_outputs.astype(np.float32)
    grads = dict(flatten(context.backward(d_outputs)))

    def work(_):
        again, final, own = problem.run(np.float32)
        same = np.array_equal(again, outputs) and all(map(np.array_equal, final, states))
        for ctx in (own, context):
            same &= all(np.array_equal(a, grads[k]) for k, a in flatten(ctx.backward(d_outputs)))
        return same

    with concurrent.futures.ThreadPoolExecutor(5) as pool:
        assert all(pool.map(work, range(60)))


@pytest.mark.parametrize("calls", [1, 2])
def test_ctrl_c_ends_a_long_call(calls):
    def interrupt(*_):
        raise KeyboardInterrupt

    problem = Problem("lstm", 1, 1, 1, 256)
    layer = _core.Recurrent(
        "lstm",
        *(a.astype(np.float32) for a in (problem.kernel, problem.recurrent_kernel, problem.bias)),
    )
    x = np.zeros((1, 2_000_000, 1), np.float32)  # half a minute

    def run():
        if calls == 1:
            return layer.forward(x, return_sequences=False)
        directions = (
            layer.prepare_forward(x, return_sequences=False, go_backwards=way)
            for way in (False, True)
        )
        return _core.run_both(*directions)

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    start = monotonic()
    try:
        with pytest.raises(KeyboardInterrupt):
            run()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    # Not a measure of speed: the call alone would take many times this.
    assert monotonic() - start < 10
