"""Layers: Keras's signatures and configs, dropout, users' cells and layers, gradients."""

import copy
import importlib.util
import inspect
import json
import os
import pickle
import threading

import numpy as np
import pytest
from reference import cells as twin

import tidegate as tg
from tidegate import _core, layers

STEP = 1e-6  # of central differences in float64
KERAS = importlib.util.find_spec("keras") is not None
needs_keras = pytest.mark.skipif(not KERAS, reason="needs Keras")
if KERAS:
    os.environ.setdefault("KERAS_BACKEND", "numpy")

RECURRENT = ("SimpleRNN", "LSTM", "GRU", "DualStateGRU", "CoupledLSTM")
STATES = {"SimpleRNN": 1, "LSTM": 2, "GRU": 1, "DualStateGRU": 2, "CoupledLSTM": 2}


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def randomize(layer, seed=1):
    rng = np.random.default_rng(seed)
    layer.set_weights([0.5 * rng.normal(size=w.shape) for w in layer.weights])
    return layer


def check_gradients(layer, x, before=lambda: None, **call):
    """Compares `backward` with the change along a random direction of inputs and weights.

    `before` is called before each call, to make what is random repeat.
    """
    weights = layer.get_weights()
    before()
    outputs = layer(x, training=True, **call)
    rng = np.random.default_rng(5)
    cotangents = rng.normal(size=outputs.shape)
    for w in layer.weights:
        w.gradient = None
    d_x = layer.backward(cotangents)
    gradients = [d_x, *(w.gradient for w in layer.weights)]
    directions = [rng.normal(size=a.shape) for a in [x, *weights]]

    def loss(step):
        layer.set_weights([w + step * d for w, d in zip(weights, directions[1:], strict=True)])
        before()
        y = layer(x + step * directions[0], training=True, **call)
        return np.sum(y * cotangents)

    found = (loss(STEP) - loss(-STEP)) / (2 * STEP)
    layer.set_weights(weights)
    terms = [np.sum(g * d) for g, d in zip(gradients, directions, strict=True)]
    scale = max(1, np.sum(np.abs(terms)))
    assert abs(sum(terms) - found) <= 1e-7 * scale


# ---- As Keras has them --------------------------------------------------------------------------

# Arguments of Keras's that nothing here corresponds to.
FOREIGN = {"lora_rank", "lora_alpha", "quantization_config"}


@needs_keras
@pytest.mark.parametrize(
    "name",
    [
        *("SimpleRNN", "LSTM", "GRU", "SimpleRNNCell", "LSTMCell", "GRUCell", "RNN"),
        *("StackedRNNCells", "Bidirectional", "TimeDistributed", "Dense", "Embedding", "Masking"),
        *("Dropout", "Activation", "Flatten", "Wrapper", "Layer"),
    ],
)
def test_arguments_in_keras_order(name):
    import keras

    def signature(cls):
        parameters = inspect.signature(cls.__init__).parameters.values()
        return [
            (p.name, p.default) for p in parameters if p.name not in FOREIGN and p.name != "self"
        ]

    assert signature(getattr(layers, name)) == signature(getattr(keras.layers, name))
    if name == "SimpleRNNCell":  # whose inputs are called `sequence` in Keras
        return
    ours, theirs = (
        [n for n in inspect.signature(cls.call).parameters if n not in ("args", "kwargs")]
        for cls in (getattr(layers, name), getattr(keras.layers, name))
    )
    assert ours[: len(theirs)] == theirs or set(ours) - set(theirs) <= {"training"}


SAMPLES = {
    "SimpleRNN": {"units": 2, "activation": "relu", "dropout": 0.1},
    "LSTM": {"units": 2, "bias_regularizer": "l2", "recurrent_dropout": 0.2, "seed": 3},
    "GRU": {"units": 2, "reset_after": False, "kernel_constraint": "non_neg", "stateful": True},
    "Dense": {"units": 3, "activation": "softmax", "activity_regularizer": "l2"},
    "Embedding": {"input_dim": 3, "output_dim": 2, "mask_zero": True},
    "Masking": {"mask_value": 2.0},
    "Dropout": {"rate": 0.2, "noise_shape": (None, 1)},
    "Activation": {"activation": "gelu"},
    "Flatten": {},
    "LSTMCell": {"units": 2, "unit_forget_bias": False},
    "GRUCell": {"units": 2},
    "SimpleRNNCell": {"units": 2, "use_bias": False},
}


def plain(config):
    return json.loads(json.dumps(config))


@needs_keras
@pytest.mark.parametrize("name", SAMPLES)
def test_configs_as_keras(name):
    import keras

    ours = getattr(layers, name)(name="x", **SAMPLES[name])
    theirs = getattr(keras.layers, name)(name="x", **SAMPLES[name]).get_config()
    assert plain(ours.get_config()) == plain(theirs)
    assert list(ours.get_config()) == list(theirs)
    again = layers.deserialize(plain(layers.serialize(ours)))
    assert plain(again.get_config()) == plain(theirs)


@pytest.mark.parametrize("name", RECURRENT)
def test_weights(name):
    layer = getattr(layers, name)(3, name="a")
    layer.build((None, None, 2))
    gates = {"SimpleRNN": 1, "LSTM": 4}.get(name, 3)
    bias = (2, 9) if name == "GRU" else (3 * gates,)
    assert [w.shape for w in layer.weights] == [(2, 3 * gates), (3, 3 * gates), bias]
    cell = layer.cell.name
    names = ("kernel", "recurrent_kernel", "bias")
    assert [w.path for w in layer.weights] == [f"a/{cell}/{n}" for n in names]
    assert not hasattr(layer, "kernel")
    assert layer.count_params() == sum(w.size for w in layer.weights)
    recurrent = layer.get_weights()[1]
    np.testing.assert_allclose(recurrent @ recurrent.T, np.eye(3), atol=1e-5)
    assert len(layer.weights) == len(layer.weights)  # looking changes nothing
    layer.set_weights([1 + w for w in layer.get_weights()])
    again = getattr(layers, name)(3, use_bias=False)
    again.build((None, None, 2))
    assert len(again.weights) == 2


def test_unit_forget_bias():
    for bias, other in (("zeros", 0), ("ones", 1), (tg.initializers.Constant(0.5), 0.5)):
        layer = layers.LSTM(2, bias_initializer=bias)
        layer.build((1, 1, 1))
        assert layer.cell.bias.value.tolist() == [*[other] * 2, 1, 1, *[other] * 4]
        layer = layers.CoupledLSTM(2, bias_initializer=bias)
        layer.build((1, 1, 1))
        assert layer.cell.bias.value.tolist() == [1, 1, *[other] * 4]
    for cls in (layers.LSTM, layers.CoupledLSTM):
        layer = cls(2, unit_forget_bias=False)
        layer.build((1, 1, 1))
        assert not layer.cell.bias.value.any()


def test_simple_rnn_drops_its_activity_regularizer_as_keras_but_says_so():
    with pytest.warns(UserWarning, match="no effect"):
        layer = layers.SimpleRNN(2, activity_regularizer="l2")
    layer(normal(1, 2, 3))
    assert layer.losses == []


# ---- The cells that Keras does not have ---------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"go_backwards": True, "return_sequences": True}])
@pytest.mark.parametrize("name", ["DualStateGRU", "CoupledLSTM"])
def test_own_cells(name, options):
    layer = getattr(layers, name)(5, dtype="float64", return_state=True, **options)
    x, mask = normal(3, 4, 2), normal(3, 4) > -0.5
    layer.build(x.shape)
    randomize(layer)
    states = [normal(3, 5, seed=2), normal(3, 5, seed=3)]
    output, h, c = layer(x, initial_state=states, mask=mask)
    expected, final, _ = twin.forward(
        layer.cell.engine_name,
        x,
        *layer.get_weights(),
        initial_state=states,
        mask=mask,
        go_backwards=bool(options),
        return_sequences=bool(options),
    )
    for ours, theirs in zip((output, h, c), (expected, *final), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-13)
    assert type(layer).from_config(layer.get_config()).get_config() == layer.get_config()
    for part in (layer, layer.cell):
        described = layers.serialize(part)
        assert described["module"] == "tidegate.layers"
        assert type(layers.deserialize(described)) is type(part)


def test_coupled_gates_are_an_lstm_whose_input_gate_is_what_forgetting_leaves():
    coupled = layers.CoupledLSTM(5, dtype="float64", return_sequences=True)
    lstm = layers.LSTM(5, dtype="float64", return_sequences=True)
    x = normal(3, 4, 2)
    for layer in (coupled, lstm):
        layer.build(x.shape)
    randomize(coupled)
    # 1 - s(z) is s(-z).
    lstm.set_weights([np.hstack([-w[..., :5], w]) for w in coupled.get_weights()])
    np.testing.assert_allclose(coupled(x), lstm(x), rtol=0, atol=1e-14)


# ---- Dropout ------------------------------------------------------------------------------------

DROPPED = {
    "input": {"dropout": 0.4},
    "recurrent": {"recurrent_dropout": 0.4},
    "both": {"dropout": 0.3, "recurrent_dropout": 0.4},
    "all": {"dropout": 1.0, "recurrent_dropout": 1.0},
}


@pytest.mark.parametrize("name", [*RECURRENT, "GRU_before"])
@pytest.mark.parametrize("kind", DROPPED)
def test_dropout_in_cells(name, kind):
    """What comes out is what the equations give with the factors drawn, gate by gate."""
    more = {"reset_after": False} if name == "GRU_before" else {}
    layer = getattr(layers, name.removesuffix("_before"))(
        4, dtype="float64", return_sequences=True, seed=7, **DROPPED[kind], **more
    )
    x = normal(3, 5, 2)
    layer.build(x.shape)
    randomize(layer)
    cell = layer.cell

    def restart():
        cell._generator = np.random.default_rng(11)

    restart()
    inputs, recurrent = cell._dropout_factors(3)
    restart()
    outputs = layer(x, training=True)
    gates = twin.CELLS[cell.engine_name][0]
    if inputs is not None:
        per_gate = gates if kind in ("both", "all") else 1
        assert inputs.shape == (per_gate, 3, 1, 2)
        inputs = np.broadcast_to(inputs, (gates, 3, 1, 2))
    expected = textbook(cell, x, inputs, recurrent)
    np.testing.assert_allclose(outputs, expected, rtol=0, atol=1e-13)
    assert not np.array_equal(outputs, layer(x, training=True)) or kind == "all"
    assert np.array_equal(layer(x), layer(x))
    check_gradients(layer, x, restart)


def textbook(cell, x, inputs, recurrent):
    """The twin, one step at a time, with the inputs of each gate scaled on their own."""
    gates = twin.CELLS[cell.engine_name][0]
    kernel, recurrent_kernel, bias = (w.numpy() for w in cell.weights)
    if inputs is None:
        inputs = np.ones((gates, 1, 1, 1))
    width = kernel.shape[1] // gates
    states, outputs = None, []
    for t in range(x.shape[1]):
        # The input part of each gate goes in as a feature of its own.
        parts = [
            (x[:, t] * inputs[g][:, 0]) @ kernel[:, g * width : (g + 1) * width]
            for g in range(gates)
        ]
        output, states, _ = twin.forward(
            cell.engine_name,
            np.concatenate(parts, axis=1)[:, None],
            np.eye(gates * width),
            recurrent_kernel,
            bias,
            initial_state=states,
            recurrent_dropout=recurrent,
        )
        outputs.append(output[:, 0])
    return np.stack(outputs, axis=1)


def test_factors_of_dropout():
    cell = layers.LSTMCell(50, dropout=0.3, recurrent_dropout=0.6, seed=1)
    cell.build((None, 60))
    inputs, recurrent = cell._dropout_factors(200)
    for factors, rate in ((inputs, 0.3), (recurrent, 0.6)):
        kept = factors > 0
        np.testing.assert_allclose(factors[kept], 1 / (1 - rate), rtol=1e-6)
        # Some 10,000 choices per gate: five standard deviations.
        for gate in kept:
            assert abs(gate.mean() - (1 - rate)) < 5 * np.sqrt(rate * (1 - rate) / gate.size)
        assert not np.array_equal(kept[0], kept[1])
    assert layers.LSTM(2, dropout=-0.3, recurrent_dropout=1.5).get_config()["dropout"] == 0.0


def test_dropout_layer():
    layer = layers.Dropout(0.25, seed=4)
    x = np.ones((100, 50), "float32")
    assert layer(x) is not None
    assert np.array_equal(layer(x), x)
    y = layer(x, training=True)
    assert set(np.unique(y)) == {0, np.float32(1 / 0.75)}
    assert abs((y > 0).mean() - 0.75) < 5 * np.sqrt(0.25 * 0.75 / y.size)
    assert np.array_equal(layer.backward(x), y)
    same = layers.Dropout(0.5, noise_shape=(None, 1, 3))(np.ones((4, 6, 3)), training=True)
    assert np.array_equal(same, np.broadcast_to(same[:, :1], same.shape))
    assert not layers.Dropout(1.0)(x, training=True).any()


# ---- Users' own cells ---------------------------------------------------------------------------


class StepByStep:
    """Makes a built-in cell one that is run in Python, for comparison."""

    def call(self, inputs, states, training=False):
        return super().call(inputs, states, training)


CELLS = {
    name: (
        getattr(layers, f"{name}Cell"),
        type(f"Slow{name}", (StepByStep, getattr(layers, f"{name}Cell")), {}),
    )
    for name in RECURRENT
}


@pytest.mark.parametrize("go_backwards", [False, True])
@pytest.mark.parametrize("masked", [None, "repeat", "zero"])
@pytest.mark.parametrize("return_sequences", [False, True])
@pytest.mark.parametrize("kind", [*RECURRENT, "stack"])
def test_cells_in_python_are_as_those_in_the_engine(kind, return_sequences, masked, go_backwards):
    """Forward and backward, masks and directions, stacks of both kinds."""
    options = {
        "return_sequences": return_sequences,
        "return_state": True,
        "go_backwards": go_backwards,
        "zero_output_for_mask": masked == "zero",
        "dtype": "float64",
    }
    x = normal(3, 5, 2)
    mask = None if masked is None else normal(3, 5, seed=9) > -0.4

    def make(which):
        if kind != "stack":
            return layers.RNN(CELLS[kind][which](4, dtype="float64"), **options)
        # 0: all in the engine; 1: the middle one in Python
        cells = [CELLS["GRU"][0], CELLS["LSTM"][which], CELLS["SimpleRNN"][0]]
        return layers.RNN([cell(3, dtype="float64") for cell in cells], **options)

    fast, slow = make(0), make(1)
    results = []
    for layer in (fast, slow):
        layer.build(x.shape)
        randomize(layer)
        outputs = layer(x, mask=mask, training=True)
        leaves = flat(outputs)
        given = iter([normal(*leaf.shape, seed=20 + i) for i, leaf in enumerate(leaves)])
        d_x = layer.backward(like(outputs, given))
        results.append(
            [
                *leaves,
                d_x,
                *flat(layer.initial_state_gradients),
                *(w.gradient for w in layer.weights),
            ]
        )
    assert len(results[0]) == len(results[1])
    for one, other in zip(*results, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-12)


def flat(value):
    if isinstance(value, list | tuple):
        return [leaf for entry in value for leaf in flat(entry)]
    return [value]


def like(value, leaves):
    if isinstance(value, list | tuple):
        return tuple(like(entry, leaves) for entry in value)
    return next(leaves)


class Decay(layers.Layer):
    """A cell of a user's: h = a*h' + x W, with its derivatives."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.state_size = self.units = units

    def build(self, input_shape):
        self.kernel = self.add_weight((input_shape[-1], self.units), name="kernel")
        self.rate = self.add_weight((self.units,), "ones", name="rate")

    def call(self, inputs, states):
        self.seen = inputs, states[0]
        h = self.rate * states[0] + inputs @ self.kernel
        return h, [h]

    def backward(self, d_output, d_states):
        inputs, h = self.seen
        d = d_output + d_states[0]
        self.kernel.add_gradient(inputs.T @ d)
        self.rate.add_gradient((d * h).sum(axis=0))
        return d @ self.kernel.value.T, [d * self.rate]


class ForwardOnly:
    """The least a cell can be."""

    state_size = 2

    def call(self, inputs, states):
        return states[0] + inputs[:, :2], states[0] + 1


def test_a_users_cell():
    layer = layers.RNN(Decay(3, dtype="float64"), dtype="float64", return_sequences=True)
    x = normal(2, 4, 5)
    layer(x)
    randomize(layer)
    check_gradients(layer, x, mask=np.array([[1, 1, 0, 1], [0, 1, 1, 0]], bool))
    model = tg.Sequential([layers.Input((4, 5)), layers.RNN(Decay(3)), layers.Dense(1)])
    model.compile("adam", "mse")
    model.fit(x, np.ones(2), verbose=0)
    bidirectional = layers.Bidirectional(layers.RNN(Decay(2)))
    assert bidirectional(x).shape == (2, 4)


def test_the_least_a_cell_can_be():
    layer = layers.RNN(ForwardOnly(), return_state=True)
    output, state = layer(np.ones((1, 3, 2), "float32"))
    assert output.tolist() == [[3, 3]]
    assert state.tolist() == [[3, 3]]
    model = tg.Sequential([layers.Input((3, 2)), layers.Dense(2), layers.RNN(ForwardOnly())])
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match=r"Cell ForwardOnly: expected a method `backward"):
        model.fit(np.ones((1, 3, 2)), np.ones((1, 2)), verbose=0)


def test_a_cell_called_by_itself():
    cell = layers.GRUCell(3, dtype="float64")
    x, h = normal(2, 4), normal(2, 3, seed=1)
    output, states = cell(x, [h])
    bare, state = cell(x, h)
    assert np.array_equal(output, states[0])
    assert np.array_equal(bare, output)
    assert np.array_equal(state, output)
    expected, _, _ = twin.forward("gru", x[:, None], *cell.get_weights(), initial_state=[h])
    np.testing.assert_allclose(output, expected[:, 0], rtol=0, atol=1e-13)


def test_a_stack_called_by_itself():
    stack = layers.StackedRNNCells([layers.LSTMCell(3), layers.GRUCell(2)])
    x = normal(2, 4).astype("float32")
    states = stack.get_initial_state(2)
    output, new = stack(x, states)
    assert output.shape == (2, 2)
    assert [s.shape for s in flat(new)] == [(2, 3), (2, 3), (2, 2)]
    whole = layers.RNN(stack)(x[:, None])
    assert np.array_equal(whole, output)


def test_initial_states_of_a_users_layer():
    class Ones(layers.GRU):
        def get_initial_state(self, batch_size):
            return [np.ones((batch_size, self.units))]

    x = normal(2, 3, 4).astype("float32")
    layer = Ones(2)
    output = layer(x)
    assert np.array_equal(output, layer(x, initial_state=np.ones((2, 2))))
    assert not np.array_equal(output, layer(x, initial_state=np.zeros((2, 2))))


# ---- Other layers -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make, shape",
    [
        (lambda: layers.Dense(3, activation="softmax", dtype="float64"), (4, 5)),
        (lambda: layers.Dense(3, activation="gelu", dtype="float64"), (2, 3, 5)),
        (lambda: layers.Dense(1, use_bias=False, dtype="float64"), (4, 5)),
        (lambda: layers.Activation("mish", dtype="float64"), (4, 5)),
        (lambda: layers.Flatten(dtype="float64"), (2, 3, 4)),
        (lambda: layers.Flatten("channels_first", dtype="float64"), (2, 3, 4)),
        (lambda: layers.Masking(dtype="float64"), (2, 3, 4)),
        (
            lambda: layers.TimeDistributed(layers.LSTM(3, dtype="float64"), dtype="float64"),
            (2, 3, 4, 2),
        ),
        (
            lambda: layers.Dense(2, activity_regularizer=tg.regularizers.L2(0.0), dtype="float64"),
            (4, 5),
        ),
    ],
)
def test_gradients(make, shape):
    layer = make()
    x = normal(*shape)
    layer(x)
    randomize(layer)
    check_gradients(layer, x)


def test_activity_regularizer():
    layer = layers.LSTM(3, activity_regularizer="l2", return_state=True, dtype="float64")
    x = normal(4, 3, 2)
    outputs = layer(x, training=True)
    expected = [0.01 * np.sum(o**2) / 4 for o in outputs]
    np.testing.assert_allclose(layer.losses, expected)
    free = layers.LSTM(3, return_state=True, dtype="float64")
    free.build(x.shape)
    free.set_weights(layer.get_weights())
    free(x, training=True)
    d = free.backward(tuple(0.02 * o / 4 for o in outputs))
    np.testing.assert_allclose(layer.backward((None, None, None)), d, rtol=0, atol=1e-14)
    np.testing.assert_allclose(layer.backward((None,)), d, rtol=0, atol=1e-14)


def test_embedding():
    layer = layers.Embedding(5, 3, mask_zero=True, dtype="float64")
    words = np.array([[0, 4, 4], [1, 4, 0]])
    y = layer(words, training=True)
    assert np.array_equal(y, layer.embeddings.value[words])
    assert layer.compute_mask(words).tolist() == [[False, True, True], [True, True, False]]
    d = normal(2, 3, 3)
    assert layer.backward(d) is None
    expected = np.zeros((5, 3))
    np.add.at(expected, words, d)
    np.testing.assert_allclose(layer.embeddings.gradient, expected, rtol=0, atol=1e-14)
    assert np.array_equal(layer(words.astype("float32")), y)
    table = normal(5, 3)
    assert np.array_equal(
        layers.Embedding(5, 3, weights=[table], dtype="float64")(words), table[words]
    )


def test_masking():
    layer = layers.Masking(mask_value=2.0)
    x = np.array([[[2, 2], [2, 1], [0, 0]]], "float32")
    assert layer.compute_mask(x).tolist() == [[False, True, True]]
    assert layer(x).tolist() == [[[0, 0], [2, 1], [0, 0]]]


def test_time_distributed_is_a_loop_over_time():
    inner = layers.GRU(3)
    layer = layers.TimeDistributed(inner)
    x = normal(2, 4, 5, 3).astype("float32")
    y = layer(x)
    assert y.shape == layer.compute_output_shape(x.shape) == (2, 4, 3)
    for t in range(4):
        np.testing.assert_allclose(y[:, t], inner(x[:, t]), rtol=0, atol=1e-6)


def test_bidirectional_remakes_its_layers():
    given = layers.LSTM(3, return_sequences=True, name="x")
    given.build((None, 4, 2))
    layer = layers.Bidirectional(given, weights=[normal(*s) for s in [(2, 12), (3, 12), (12,)] * 2])
    layer.build((None, 4, 2))
    assert layer.forward_layer is not given
    names = [layer.forward_layer.name, layer.backward_layer.name]
    assert names == ["forward_x", "backward_x"]
    assert layer.forward_layer.zero_output_for_mask
    assert layer.backward_layer.go_backwards
    np.testing.assert_allclose(layer.get_weights()[3], normal(2, 12), rtol=1e-6)
    again = layers.deserialize(plain(layers.serialize(layer)))
    assert plain(again.get_config()) == plain(layer.get_config())


def side_by_side(monkeypatch, allowed):
    """Counts the engine's calls for both directions, or has each direction called by itself."""
    calls = []
    run_both = _core.run_both
    monkeypatch.setattr(_core, "run_both", lambda *both: calls.append(both) or run_both(*both))
    if not allowed:
        monkeypatch.setattr(layers.Bidirectional, "_side_by_side", lambda self: False)
    return calls


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("sequences", [False, True])
@pytest.mark.parametrize("mode", ["concat", "sum", "mul", "ave", None])
@pytest.mark.parametrize("kind", RECURRENT)
def test_both_directions_in_one_call_of_the_engine(monkeypatch, kind, mode, sequences, masked):
    """The same bits as a call of each, in results, states and gradients; dropout included."""
    x = normal(7, 5, 3).astype("float32")
    mask = normal(7, 5, seed=1) < 0.7 if masked else None
    initial = [normal(7, 9, seed=i).astype("float32") for i in range(2 * STATES[kind])]

    def run(threads, allowed):
        inner = getattr(layers, kind)(
            9,
            return_sequences=sequences,
            return_state=True,
            dropout=0.3,
            recurrent_dropout=0.2,
        )
        tg.set_random_seed(4)
        layer = layers.Bidirectional(inner, merge_mode=mode)
        layer.build(x.shape)
        randomize(layer)
        with monkeypatch.context() as patch:
            calls = side_by_side(patch, allowed)
            tg.set_num_threads(threads)
            plain = layer(x, initial_state=initial, mask=mask)
            outputs = layer(x, initial_state=initial, mask=mask, training=True)
            d_x = layer.backward(tuple(normal(*y.shape).astype("float32") for y in outputs))
        assert len(calls) == (3 if allowed else 0)
        children = (layer.forward_layer, layer.backward_layer)
        return [
            *(plain + outputs + (d_x,)),
            *(w.gradient for w in layer.weights),
            *(d for child in children for d in child.initial_state_gradients),
        ]

    before = tg.get_num_threads()
    _core._set_parallel_threshold(0)
    try:
        expected = run(1, allowed=False)
        for threads in (1, 2, 3, 7):
            for a, b in zip(run(threads, allowed=True), expected, strict=True):
                np.testing.assert_array_equal(a, b)
    finally:
        tg.set_num_threads(before)
        _core._set_parallel_threshold(400e3)


class CountingLSTM(layers.LSTM):
    calls = 0

    def call(self, *args, **kwargs):
        type(self).calls += 1
        return super().call(*args, **kwargs)


BY_THEMSELVES = {
    "a user's call": lambda: layers.Bidirectional(CountingLSTM(2)),
    "a user's cell": lambda: layers.Bidirectional(layers.RNN(Decay(2))),
    "a stack": lambda: layers.Bidirectional(layers.RNN([layers.LSTMCell(2), layers.GRUCell(2)])),
    "a penalty": lambda: layers.Bidirectional(layers.GRU(2, activity_regularizer="l2")),
    "two dtypes": lambda: layers.Bidirectional(
        layers.GRU(2), backward_layer=layers.GRU(2, go_backwards=True, dtype="float64")
    ),
}


@pytest.mark.parametrize("make", BY_THEMSELVES.values(), ids=BY_THEMSELVES)
def test_directions_that_are_called_by_themselves(monkeypatch, make):
    x = normal(3, 4, 2).astype("float32")
    calls, before = side_by_side(monkeypatch, allowed=True), CountingLSTM.calls
    layer = make()
    y = layer(x)
    assert calls == []
    assert CountingLSTM.calls - before == 2 * isinstance(layer.forward_layer, CountingLSTM)
    assert len(layer.losses) == 2 * (layer.forward_layer.activity_regularizer is not None)
    np.testing.assert_array_equal(y[:, :2], layer.forward_layer(x))
    np.testing.assert_array_equal(y[:, 2:], layer.backward_layer(x))


def test_a_call_replaced_in_an_instance_is_called():
    layer = layers.Bidirectional(layers.GRU(2))
    x = normal(3, 4, 2).astype("float32")
    y = layer(x)
    seen = []
    call = layer.backward_layer.call
    layer.backward_layer.call = lambda *a, **k: seen.append(a) or call(*a, **k)
    np.testing.assert_array_equal(layer(x), y)
    assert len(seen) == 1


# ---- Layer --------------------------------------------------------------------------------------


class Pair(layers.Layer):
    """A user's layer with layers and variables of its own, and no get_config."""

    def __init__(self, units, scale=2.0, **kwargs):
        super().__init__(**kwargs)
        self.scale = scale
        self.first = layers.Dense(units)
        self.rest = [layers.Dropout(0.5), layers.LSTM(units)]

    def build(self, input_shape):
        self.total = self.add_weight((), "zeros", trainable=False, name="total")

    def call(self, inputs):
        x = self.first(inputs)
        for layer in self.rest:
            x = layer(x)
        return self.scale * x


def test_a_layer_of_layers():
    layer = Pair(3, name="pair")
    x = normal(2, 4, 5).astype("float32")
    assert layer.compute_output_shape((None, None, 5)) == (None, 3)
    assert np.array_equal(layer(x), layer(x))
    assert not np.array_equal(layer(x, training=True), layer(x, training=True))  # inherited
    assert [w.name for w in layer.weights] == [
        *("total", "kernel", "bias", "kernel", "recurrent_kernel", "bias"),
    ]
    assert len(layer.trainable_weights) == 5
    assert layer.non_trainable_weights == [layer.total]
    layer.trainable = False
    assert layer.trainable_weights == []
    assert not layer.rest[1].cell.trainable
    config = layer.get_config()
    assert config["units"] == 3
    assert Pair.from_config(config).scale == 2.0
    duplicate = pickle.loads(pickle.dumps(layer))
    assert np.array_equal(duplicate(x), layer(x))


def test_losses_are_those_of_the_latest_call():
    layer = layers.Dense(2, kernel_regularizer="l1", activity_regularizer="l2")
    x = normal(3, 4)
    layer(x)
    assert len(layer.losses) == 2
    layer(x)
    assert len(layer.losses) == 2
    layer.trainable = False
    assert len(layer.losses) == 1


def test_add_loss():
    class Penalty(layers.Layer):
        def call(self, inputs):
            self.add_loss(np.sum(inputs))
            return inputs

    layer = Penalty()
    layer(np.ones((2, 3)))
    layer(np.ones((2, 3)))
    assert layer.losses == [6.0]
    model = tg.Sequential([layers.Input((3,)), Penalty(), layers.Dense(1)])
    model.compile("sgd", "mse")
    x = np.ones((2, 3))
    loss = model.train_on_batch(x, model.predict(x, verbose=0))
    assert loss == pytest.approx(6.0)


def test_dtypes_and_empty_batches():
    layer = layers.LSTM(3)
    for dtype in ("float64", "float16", "int32", "bool"):
        assert layer(normal(2, 4, 5).astype(dtype)).dtype == np.float32
    assert layer(np.zeros((0, 4, 5))).shape == (0, 3)
    assert layers.LSTM(3, dtype="float64")(np.zeros((1, 2, 3), "float32")).dtype == np.float64
    assert layer(sequences=np.zeros((1, 2, 5))).shape == (1, 3)
    assert layer(normal(2, 4, 10)[:, :, ::2]).shape == (2, 3)


@pytest.mark.parametrize("name", RECURRENT)
def test_copies_of_trained_layers(name):
    layer = getattr(layers, name)(3, return_sequences=True, stateful=True)
    x = normal(2, 4, 5)
    layer(x, training=True)
    layer.backward(np.ones((2, 4, 3)))
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert np.array_equal(other.states[0].value, layer.states[0].value)
        with pytest.raises(ValueError, match="expected a call with training=True"):
            other.backward(np.ones((2, 4, 3)))
        other.reset_state()
        assert layer.states[0].value.any()
        first = layer.get_weights()
        other.set_weights([w + 1 for w in first])
        assert all(np.array_equal(a, b) for a, b in zip(first, layer.get_weights(), strict=True))


def test_many_threads_call_one_layer():
    layer = layers.GRU(8)
    x = normal(16, 5, 3).astype("float32")
    expected = [layer(x[i : i + 1]) for i in range(16)]
    wrong = []

    def work(i):
        for _ in range(50):
            if not np.array_equal(layer(x[i : i + 1]), expected[i]):
                wrong.append(i)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
