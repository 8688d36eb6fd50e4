"""`tidegate.analysis`: gradients of the states against central differences."""

import importlib.util

import numpy as np
import pytest

import tidegate as tg
from tidegate import analysis, initializers, layers

B, T, F, U = 3, 5, 2, 4
CELLS = {
    "simple_rnn": layers.SimpleRNN,
    "lstm": layers.LSTM,
    "gru": layers.GRU,
    "dual_state_gru": layers.DualStateGRU,
    "coupled_lstm": layers.CoupledLSTM,
}


def data(seed=0):
    generator = np.random.default_rng(seed)
    return generator.standard_normal((B, T, F)), generator.standard_normal((B, 1))


def model_with(*stack, loss="mse"):
    tg.set_random_seed(1)
    model = tg.Sequential([layers.Input((T, F), dtype="float64"), *stack])
    model.compile(loss=loss)
    return model


def loss_from(layer, head, states, x, y, mask=None):
    """The loss when `layer` goes on from `states` over the steps x."""
    outputs = layer(x, initial_state=list(states), mask=mask)
    return float(np.mean((head(outputs) - y) ** 2))


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("masked", [False, True])
def test_norms_are_those_of_central_differences(cell, masked):
    x, y = data()
    layer = CELLS[cell](U, dtype="float64", name=cell)
    head = layers.Dense(1, dtype="float64")
    stack = [layer, head]
    mask = None
    if masked:
        x[0, 3:] = x[1, 0] = 0
        stack.insert(0, layers.Masking(dtype="float64"))
        mask = np.any(x != 0, axis=-1)
    model = model_with(*stack)
    flow = analysis.gradient_flow(model, x, y)[cell]
    states = layer.get_initial_state(B)
    count = len(states)
    assert flow.states.shape == flow.largest.shape == (count, T)
    run = CELLS[cell](U, dtype="float64", return_state=True)
    run.build((None, None, F))
    run.set_weights(layer.get_weights())
    step = 1e-6
    for t in range(T):
        step_mask = None if mask is None else np.ascontiguousarray(mask[:, t : t + 1])
        _, *states = run(np.ascontiguousarray(x[:, t : t + 1]), list(states), mask=step_mask)
        assert flow.largest[:, t] == pytest.approx([np.abs(s).max() for s in states], rel=1e-12)
        if t == T - 1:
            break
        rest = np.ascontiguousarray(x[:, t + 1 :])
        rest_mask = None if mask is None else np.ascontiguousarray(mask[:, t + 1 :])
        if masked and not rest_mask.any(axis=1).all():
            continue  # the output of steps that are all masked is 0 when they stand alone
        for number in range(count):
            gradient = np.zeros((B, U))
            for index in np.ndindex(B, U):
                values = []
                for sign in (1, -1):
                    moved = [s.copy() for s in states]
                    moved[number][index] += sign * step
                    values.append(loss_from(layer, head, moved, rest, y, rest_mask))
                gradient[index] = (values[0] - values[1]) / (2 * step)
            assert flow.states[number, t] == pytest.approx(np.linalg.norm(gradient), rel=1e-6)


@pytest.mark.parametrize("factor", [0.5, 1.0, 2.0])
def test_a_linear_layer_vanishes_and_explodes_by_its_own_factor(factor):
    layer = layers.SimpleRNN(
        U,
        activation=None,
        dtype="float64",
        recurrent_initializer=initializers.Identity(factor),
    )
    model = model_with(layer, layers.Dense(1, dtype="float64"))
    flow = analysis.gradient_flow(model, *data())[layer.name]
    np.testing.assert_allclose(flow.hidden[:-1] / flow.hidden[1:], factor, rtol=1e-12)
    assert flow.factor == pytest.approx(factor, rel=1e-12)


def test_the_article_s_gru_is_not_bounded():
    # With z closed, h is a sum of tanh(C): it grows by up to 1 a step; the usual GRU cannot.
    x, y = np.ones((2, 50, F)), np.zeros((2, 1))
    largest = {}
    for cell in ("gru", "dual_state_gru"):
        layer = CELLS[cell](
            U,
            dtype="float64",
            name=cell,
            bias_initializer=initializers.Chrono(1000, cell, seed=0),
        )
        model = model_with(layer, layers.Dense(1, dtype="float64"))
        largest[cell] = analysis.gradient_flow(model, x, y)[cell].largest
    assert largest["gru"].max() <= 1
    assert (largest["dual_state_gru"].max(axis=1) > 5).all()


def test_stacks_directions_and_sequences():
    x, y = data()
    stack = layers.RNN(
        [layers.LSTMCell(U, dtype="float64"), layers.GRUCell(3, dtype="float64")],
        return_sequences=True,
        dtype="float64",
        name="stack",
    )
    both = layers.Bidirectional(layers.GRU(U, dtype="float64", name="gru"), dtype="float64")
    top = layers.Dense(1, dtype="float64")
    flows = analysis.gradient_flow(model_with(stack, both, top), x, y)
    lower, upper = (f"stack/{cell.name}" for cell in stack.cell.cells)
    assert list(flows) == [lower, upper, "forward_gru", "backward_gru"]
    assert flows[lower].states.shape == (2, T)
    for name, flow in flows.items():
        assert flow.layer == name
        assert (flow.states[0] > 0).all()

    # A layer by itself on the reversed sequence sees the same, the other way round.
    forward = layers.GRU(U, dtype="float64", go_backwards=True, name="gru")
    top = layers.Dense(1, dtype="float64")
    model = model_with(forward, top)
    plain = layers.GRU(U, dtype="float64", name="gru")
    turned = model_with(plain, top)
    plain.set_weights(forward.get_weights())
    back = analysis.gradient_flow(model, x, y)["gru"]
    ahead = analysis.gradient_flow(turned, np.ascontiguousarray(x[:, ::-1]), y)["gru"]
    np.testing.assert_allclose(back.states, ahead.states[:, ::-1], rtol=1e-12)
    np.testing.assert_allclose(back.largest, ahead.largest[:, ::-1], rtol=1e-12)


def test_a_stack_of_cells_is_a_stack_of_layers():
    x, y = data()
    x[0, 2:] = x[1, 1] = 0  # masked
    one, two = layers.GRUCell(U, dtype="float64"), layers.LSTMCell(3, dtype="float64")
    cells = layers.RNN([one, two], dtype="float64", name="cells")
    head = layers.Dense(1, dtype="float64")
    stack = analysis.gradient_flow(model_with(layers.Masking(dtype="float64"), cells, head), x, y)
    first = layers.GRU(U, dtype="float64", return_sequences=True, name="first")
    second = layers.LSTM(3, dtype="float64", name="second")
    model = model_with(layers.Masking(dtype="float64"), first, second, head)
    first.set_weights(one.get_weights())
    second.set_weights(two.get_weights())
    flows = analysis.gradient_flow(model, x, y)
    for of_cell, of_layer in zip(stack.values(), flows.values(), strict=True):
        np.testing.assert_allclose(of_cell.states, of_layer.states, rtol=1e-12)
        np.testing.assert_allclose(of_cell.largest, of_layer.largest, rtol=1e-12)


def test_dropout_is_off_and_the_model_left_as_it_was():
    x, y = data()
    layer = layers.LSTM(
        U, dropout=0.9, recurrent_dropout=0.9, stateful=True, dtype="float64", name="lstm"
    )
    tg.set_random_seed(1)
    model = tg.Sequential(
        [
            layers.Input(batch_shape=(B, T, F), dtype="float64"),
            layers.Dropout(0.9, dtype="float64"),
            layer,
            layers.Dense(1, dtype="float64"),
        ]
    )
    model.compile(loss="mse")
    before = [w.copy() for w in model.get_weights()]
    flows = [analysis.gradient_flow(model, x, y)["lstm"] for _ in range(2)]
    np.testing.assert_array_equal(flows[0].states, flows[1].states)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    assert all(variable.gradient is None for variable in model.weights)
    assert layer.cell.dropout == layer.cell.recurrent_dropout == 0.9
    np.testing.assert_array_equal(np.asarray(layer.states[0]), 0)


class OwnCell:
    state_size = U

    def call(self, inputs, states):
        return inputs[:, :U], states


@pytest.mark.parametrize(
    "change, error, message",
    [
        (dict(model=None), TypeError, "gradient_flow: expected a Sequential model, got NoneType"),
        (dict(loss=None), ValueError, "compiled with a loss, got none"),
        (dict(y=np.zeros((B + 1, 1))), ValueError, "expected as many x as y, got 3 and 4"),
        (dict(x="text"), TypeError, "x: expected an array of numbers"),
        (dict(layer=layers.Flatten()), ValueError, "expected recurrent layers in .*, got none"),
        (dict(layer=layers.RNN(OwnCell())), ValueError, "expected built-in cells, got OwnCell"),
    ],
)
def test_what_cannot_be_analysed_is_refused(change, error, message):
    x, y = data()
    layer = change.get("layer") or layers.GRU(U)
    tg.set_random_seed(0)
    model = tg.Sequential([layers.Input((T, F)), layer])
    model.compile(loss=change.get("loss", "mse"))
    with pytest.raises(error, match=message):
        analysis.gradient_flow(change.get("model", model), change.get("x", x), change.get("y", y))


@pytest.mark.skipif(
    not importlib.util.find_spec("matplotlib"), reason="matplotlib is not installed"
)
def test_plot(tmp_path):
    model = model_with(layers.GRU(U, dtype="float64", name="gru"), layers.Dense(1, dtype="float64"))
    flows = analysis.gradient_flow(model, *data())
    path = tmp_path / "flow.svg"
    axes = analysis.plot_gradient_flow({**flows, "other": np.zeros(T)}, path, title="flow")
    assert path.read_text().startswith("<?xml")
    assert [line.get_label() for line in axes.lines] == ["gru", "other"]
    np.testing.assert_allclose(axes.lines[0].get_ydata(), flows["gru"].hidden)
    with pytest.raises(ValueError, match="flows: expected at least one"):
        analysis.plot_gradient_flow({})


# ---- Chrono initialisation -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "cell, arguments, keeps, rest",
    [
        ("lstm", dict(unit_forget_bias=False), (1, 1), (2, 3)),
        ("gru", {}, (0, 1), (1, 2)),
        ("dual_state_gru", {}, (0, -1), (1, 2)),
        ("coupled_lstm", dict(unit_forget_bias=False), (0, 1), (1, 2)),
    ],
)
def test_chrono_spreads_the_times_that_gates_keep(cell, arguments, keeps, rest):
    units = 100
    chrono = initializers.Chrono(100, cell, seed=0)
    layer = CELLS[cell](units, bias_initializer=chrono, **arguments)
    layer.build((None, None, F))
    bias = layer.get_weights()[2]
    gates = np.atleast_2d(bias)[0].reshape(-1, units)
    gate, sign = keeps
    times = np.exp(sign * gates[gate])
    assert 1 <= times.min() < 8
    assert 90 < times.max() <= 99 * (1 + 1e-6)
    assert times.mean() == pytest.approx(50, abs=8)
    np.testing.assert_array_equal(gates[list(rest)], 0)
    if cell == "lstm":
        np.testing.assert_array_equal(gates[0], -gates[1])
    if bias.ndim == 2:
        np.testing.assert_array_equal(bias[1], 0)
    again = initializers.get(initializers.serialize(chrono))
    np.testing.assert_array_equal(again(bias.shape), bias)


def test_chrono_refuses_what_it_cannot_be():
    with pytest.raises(ValueError, match="max_timescale: expected at least 2, got 1"):
        initializers.Chrono(1)
    with pytest.raises(ValueError, match=r"cell: expected one of lstm, gru, .*, got 'simple_rnn'"):
        initializers.Chrono(10, "simple_rnn")
    with pytest.raises(ValueError, match=r"bias of lstm, whose last axis .* multiple of 4"):
        initializers.Chrono(10)((6,))
