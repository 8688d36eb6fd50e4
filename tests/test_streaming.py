"""Streams and pools of streams against `predict`, bit for bit; the C++ model against it too."""

import copy
import pickle

import numpy as np
import pytest

import tidegate as tg
from tidegate import _core, layers
from tidegate.saving import safetensors
from tidegate.streaming import Stream

# Some units fill whole vectors, some do not.
RECURRENT = {
    "lstm": lambda **k: layers.LSTM(20, **k),
    "lstm_relu": lambda **k: layers.LSTM(7, activation="relu", **k),
    "gru": lambda **k: layers.GRU(33, **k),
    "gru_before": lambda **k: layers.GRU(19, reset_after=False, **k),
    "simple": lambda **k: layers.SimpleRNN(16, **k),
    "dual": lambda **k: layers.DualStateGRU(9, **k),
    "coupled": lambda **k: layers.CoupledLSTM(18, **k),
}
DTYPES = ["float32", "float64"]


def _random(shape, dtype="float32", seed=1):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def _model(*stack, features=5, dtype="float32"):
    """A model of `dtype` with random weights, biases too; `stack` holds functions of dtype."""
    model = tg.Sequential([layers.Input((None, features), dtype=dtype), *(f(dtype) for f in stack)])
    random = np.random.default_rng(3)
    model.set_weights([random.uniform(-0.5, 0.5, w.shape).astype(dtype) for w in model.weights])
    return model


def _sequence(make, **arguments):
    return lambda dtype: make(return_sequences=True, dtype=dtype, **arguments)


def _dense(units, **arguments):
    return lambda dtype: layers.Dense(units, dtype=dtype, **arguments)


STACKS = {
    **{name: [_sequence(make)] for name, make in RECURRENT.items()},
    "stacked": [
        _sequence(RECURRENT["lstm"]),
        lambda d: layers.Dropout(0.5, dtype=d),
        _sequence(RECURRENT["gru"]),
        _dense(6, activation="gelu"),
        _dense(3, activation="softmax"),
    ],
    "dense_first": [
        _dense(40, activation="tanh"),
        _sequence(RECURRENT["gru_before"]),
        lambda d: layers.Activation("log_softmax", dtype=d),
    ],
    "masked": [
        lambda d: layers.Masking(0.0, dtype=d),
        _sequence(RECURRENT["gru"]),
        _sequence(RECURRENT["lstm"], zero_output_for_mask=True),
        _dense(2),
    ],
    "masked_repeat": [
        lambda d: layers.Masking(0.0, dtype=d),
        _sequence(RECURRENT["dual"]),
        _sequence(RECURRENT["simple"]),
    ],
    "no_recurrent": [_dense(4, activation="relu")],
    "identity": [lambda d: layers.Dropout(0.1, dtype=d)],
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", STACKS)
def test_stream_is_predict(name, dtype):
    model = _model(*STACKS[name], dtype=dtype)
    x = _random((3, 9, 5), dtype)
    if name.startswith("masked"):
        x[0, :2] = x[1, 4] = x[2, 3:6] = 0
    expected = model.predict(x, verbose=0)
    together = model.stream(batch_size=3)
    for t in range(x.shape[1]):
        np.testing.assert_array_equal(together.step(x[:, t]), expected[:, t])
    alone = model.stream()
    y = np.empty((1, expected.shape[-1]), dtype)
    for row in range(3):
        alone.reset()
        for t in range(x.shape[1]):
            assert alone.step(x[row : row + 1, t], out=y) is y
            np.testing.assert_array_equal(y[0], expected[row, t])


def test_many_rows():
    """More rows than the library takes at once."""
    model = _model(*STACKS["stacked"])
    x = _random((203, 4, 5))
    stream, expected = model.stream(203), model.predict(x, verbose=0)
    for t in range(4):
        np.testing.assert_array_equal(stream.step(x[:, t]), expected[:, t])


def test_last_step_only():
    model = _model(_sequence(RECURRENT["lstm"]), lambda d: layers.LSTM(6), _dense(1))
    x = _random((2, 7, 5))
    stream = model.stream(2)
    for t in range(7):
        y = stream.step(x[:, t])
    np.testing.assert_array_equal(y, model.predict(x, verbose=0))


def test_embedding():
    model = tg.Sequential(
        [
            layers.Input((None,), dtype="int32"),
            layers.Embedding(11, 4, mask_zero=True),
            layers.GRU(8, return_sequences=True),
        ]
    )
    x = np.array([[3, 0, 10, 1], [0, 2, 2, 9]], "int32")
    expected, stream = model.predict(x, verbose=0), model.stream(2)
    for t in range(4):
        np.testing.assert_array_equal(stream.step(x[:, t]), expected[:, t])
    with pytest.raises(ValueError, match="Embedding"):
        stream.step([3, 11])
    pool = tg.StreamPool(model, 2)
    ids = [pool.open(), pool.open()]
    for t in range(4):
        np.testing.assert_array_equal(pool.step(ids, x[:, t]), expected[:, t])
    with pytest.raises(ValueError, match="ids from 0 to 10"):
        pool.step(ids, [-1, 0])


def test_denormals():
    """Values around the smallest normal number: flushed the same way by steps and sequences."""
    model = _model(_sequence(RECURRENT["lstm"]), _dense(20, activation="sigmoid"), _dense(3))
    x = _random((1, 6, 5)) * np.float32(1e-38)
    stream, expected = model.stream(), model.predict(x, verbose=0)
    for t in range(6):
        np.testing.assert_array_equal(stream.step(x[:, t]), expected[:, t])


def test_state():
    model = _model(*STACKS["stacked"])
    x = _random((2, 10, 5))
    stream = model.stream(2)
    for t in range(4):
        stream.step(x[:, t])
    state = stream.state
    assert [[s.shape for s in layer] for layer in state] == [[(2, 20)] * 2, [(2, 33)]]
    twin = copy.copy(stream)
    expected = [stream.step(x[:, t]) for t in range(4, 10)]
    np.testing.assert_array_equal([twin.step(x[:, t]) for t in range(4, 10)], expected)
    stream.state = state
    np.testing.assert_array_equal([stream.step(x[:, t]) for t in range(4, 10)], expected)
    # One row from the beginning, the other as it was.
    stream.reset()
    first = [stream.step(x[:, t]) for t in range(4)]
    stream.reset([1])
    stream.state[0][0][:] = 9  # a copy
    again = stream.step(np.stack([x[0, 4], x[1, 0]]))
    np.testing.assert_array_equal(again[0], expected[0][0])
    np.testing.assert_array_equal(again[1], first[0][1])
    # As the layer's own states.
    np.testing.assert_array_equal(state[0][0], model.layers[0](x[:, :4])[:, -1])


def test_snapshot():
    """Later changes of the model do not reach a stream."""
    model = _model(*STACKS["gru"])
    stream, x = model.stream(), _random((1, 1, 5))
    expected = model.predict(x, verbose=0)
    model.set_weights([w * 0 for w in model.get_weights()])
    np.testing.assert_array_equal(stream.step(x[:, 0]), expected[:, 0])


def test_inputs():
    model = _model(*STACKS["lstm"])
    stream = model.stream(2)
    x = _random((2, 5))
    expected = stream.step(x)
    for same in (x.astype("float64"), x.tolist(), np.asfortranarray(x), np.repeat(x, 2, 1)[:, ::2]):
        stream.reset()
        np.testing.assert_array_equal(stream.step(same), expected)
    stream.reset()
    unpickled = pickle.loads(pickle.dumps(np.zeros((2, 20), "float32")))
    np.testing.assert_array_equal(stream.step(x, out=unpickled), expected)
    stream.reset()
    big = np.zeros((3, 20), "float32")
    stream.step(x=x, out=big[1:])
    np.testing.assert_array_equal(big[1:], expected)


@pytest.mark.parametrize(
    "call, error, match",
    [
        (
            lambda s: s.step(np.zeros((1, 5))),
            ValueError,
            r"Stream.step: expected x with shape \(2, 5\)",
        ),
        (lambda s: s.step(np.zeros((2, 5), complex)), TypeError, "array of numbers"),
        (lambda s: s.step("abc"), TypeError, "array of numbers"),
        (lambda s: s.step(), TypeError, "arguments x and out"),
        (lambda s: s.step(np.zeros((2, 5)), None, 1), TypeError, "arguments x and out"),
        (lambda s: s.step(np.zeros((2, 5)), y=None), TypeError, "arguments x and out"),
        (lambda s: s.step(np.zeros((2, 5)), out=[1]), TypeError, "out to be"),
        (lambda s: s.step(np.zeros((2, 5)), out=np.zeros((2, 20))), ValueError, "float64"),
        (lambda s: s.step(np.zeros((2, 5)), out=np.zeros((2, 9), "f")), ValueError, r"\(2, 20\)"),
        (lambda s: s.step(np.zeros((2, 5)), out=_frozen((2, 20))), ValueError, "read-only"),
        (lambda s: s.step(*_overlapping()), ValueError, "memory of its own"),
        (lambda s: s.reset([2]), ValueError, "rows from 0 to 1"),
        (lambda s: s.reset("a"), TypeError, "rows"),
        (lambda s: s.reset(0.5), TypeError, "rows"),
        (lambda s: setattr(s, "state", [[1]]), ValueError, "2 states"),
        (lambda s: setattr(s, "state", 3), TypeError, "list"),
        (lambda s: setattr(s, "state", [[np.zeros((2, 3))] * 2]), ValueError, r"\(2, 20\)"),
        (lambda s: Stream.__new__(Stream).step(1), TypeError, "initialised"),
    ],
)
def test_wrong_calls(call, error, match):
    stream = _model(*STACKS["lstm"]).stream(2)
    with pytest.raises(error, match=match):
        call(stream)


def _frozen(shape):
    array = np.zeros(shape, "float32")
    array.flags.writeable = False
    return array


def _overlapping():
    memory = np.zeros(60, "float32")
    return memory[:10].reshape(2, 5), memory[4:44].reshape(2, 20)


@pytest.mark.parametrize(
    "stack, match",
    [
        ([lambda d: layers.Bidirectional(layers.LSTM(3))], "Bidirectional"),
        ([lambda d: layers.TimeDistributed(layers.Dense(3))], "TimeDistributed"),
        ([lambda d: layers.GRU(3, go_backwards=True)], "go_backwards"),
        ([_sequence(RECURRENT["lstm"]), lambda d: layers.Flatten()], "all steps"),
        ([lambda d: layers.Flatten("channels_first")], "channels_last"),
        ([lambda d: layers.Dense(3, activation=np.sin)], "activation"),
    ],
)
def test_what_cannot_stream(stack, match):
    fixed = tg.Sequential([layers.Input((4, 5)), *(f("float32") for f in stack)])
    with pytest.raises(ValueError, match=match):
        fixed.stream()


def test_wrong_models():
    with pytest.raises(ValueError, match="built Sequential model"):
        tg.Sequential([layers.LSTM(3)]).stream()
    model = _model(*STACKS["lstm"])
    with pytest.raises(ValueError, match="batch_size"):
        model.stream(0)
    with pytest.raises(TypeError, match="batch_size"):
        model.stream(1.5)
    with pytest.raises(TypeError, match="capacity"):
        tg.StreamPool(model, None)


# ---- Pools ----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["stacked", "masked", "masked_repeat", "dual"])
@pytest.mark.parametrize("threads", [1, 3])
def test_pool_is_predict(name, dtype, threads):
    """Streams that are opened, step and close at random, each against its own sequence."""
    model = _model(*STACKS[name], dtype=dtype)
    x = _random((200, 6, 5), dtype)
    if name.startswith("masked"):
        x[::3, 2] = x[1::3, :1] = 0
    expected = model.predict(x, verbose=0)
    random = np.random.default_rng(5)
    pool = tg.StreamPool(model, 150)
    before = tg.get_num_threads()
    tg.set_num_threads(threads)
    _core._set_parallel_threshold(0)
    try:
        left = list(range(200))
        running = {}
        while left or running:
            while left and len(running) < 150:
                running[pool.open()] = [left.pop(), 0]
            assert len(pool) == len(running)
            ready = [i for i in random.permutation(list(running)) if random.random() < 0.7]
            at = np.array([running[i] for i in ready], int).reshape(-1, 2)
            y = pool.step(ready, x[at[:, 0], at[:, 1]])
            np.testing.assert_array_equal(y, expected[at[:, 0], at[:, 1]])
            for i in ready:
                running[i][1] += 1
                if running[i][1] == 6:
                    del running[i]
                    pool.close(i)
    finally:
        tg.set_num_threads(before)
        _core._set_parallel_threshold(400e3)


def test_pool_errors():
    model = _model(*STACKS["lstm"])
    pool = tg.StreamPool(model, 2)
    a, b = pool.open(), pool.open()
    with pytest.raises(ValueError, match="capacity"):
        pool.open()
    x = np.ones((2, 5), "float32")
    first = pool.step([a, b], x)
    for ids, error in (
        ([a, a], ValueError),
        ([a, 2], ValueError),
        ([a, -1], ValueError),
        ([0.0, 1.0], TypeError),
        ([a], ValueError),
    ):
        with pytest.raises(error):
            pool.step(ids, x)
    pool.reset(a)
    y = pool.step([b, a], x)
    np.testing.assert_array_equal(y[1], first[0])  # a from the beginning
    assert (y[0] != first[1]).any()  # b went on; the failed calls changed nothing
    stream = model.stream()
    stream.step(x[:1])
    np.testing.assert_array_equal(y[:1], stream.step(x[:1]))
    pool.close(b)
    with pytest.raises(ValueError, match="not open"):
        pool.step([b], x[:1])
    assert pool.step([], np.empty((0, 5))).shape == (0, 20)
    assert pool.open() == b


# ---- The C++ model ----------------------------------------------------------------------------


WHOLE = {
    "bidirectional": [
        lambda d: layers.Bidirectional(layers.LSTM(7, return_sequences=True, dtype=d), dtype=d),
        lambda d: layers.Bidirectional(layers.GRU(6, dtype=d), merge_mode="ave", dtype=d),
    ],
    "bidirectional_masked": [
        lambda d: layers.Masking(0.0, dtype=d),
        lambda d: layers.Bidirectional(
            layers.GRU(5, return_sequences=True, dtype=d), merge_mode="sum", dtype=d
        ),
        lambda d: layers.Bidirectional(layers.SimpleRNN(5, dtype=d), merge_mode="mul", dtype=d),
    ],
    "time_distributed": [
        lambda d: layers.LSTM(5, go_backwards=True, return_sequences=True, dtype=d),
        lambda d: layers.TimeDistributed(layers.Dense(3, activation="mish", dtype=d), dtype=d),
        lambda d: layers.Flatten(dtype=d),
        _dense(2),
    ],
    "stacked": STACKS["stacked"],
    "masked": STACKS["masked"],
    "last_step": [lambda d: layers.DualStateGRU(6, dtype=d), _dense(2, use_bias=False)],
    "coupled": [lambda d: layers.Bidirectional(layers.CoupledLSTM(6, dtype=d), dtype=d)],
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", WHOLE)
def test_cpp_model_is_predict(name, dtype, tmp_path):
    model = tg.Sequential([layers.Input((6, 5), dtype=dtype), *(f(dtype) for f in WHOLE[name])])
    x = _random((4, 6, 5), dtype)
    if "masked" in name:
        x[0, :2] = x[1, 4] = x[2, 3:6] = 0
    expected = model.predict(x, verbose=0)
    model.save(tmp_path / "m.safetensors")
    from_path = _core.Model(tmp_path / "m.safetensors")
    from_bytes = _core.Model((tmp_path / "m.safetensors").read_bytes())
    for loaded in (from_path, from_bytes):
        assert loaded.input_size == 5
        assert loaded.output_size == expected.shape[-1]
        assert loaded.returns_sequences == (expected.ndim == 3)
        np.testing.assert_array_equal(loaded.predict(x), expected)
    if "distributed" not in name:
        longer = _random((2, 9, 5), dtype)
        np.testing.assert_array_equal(from_path.predict(longer), model(longer))
    else:
        with pytest.raises(ValueError, match="Dense"):
            from_path.predict(_random((2, 9, 5), dtype))


def test_cpp_model_of_arrays():
    """A step that is itself an array; a model without a time axis."""
    model = tg.Sequential(
        [
            layers.Input((None, 3, 4)),
            layers.TimeDistributed(layers.LSTM(5)),
            layers.LSTM(2),
        ]
    )
    x = _random((2, 6, 3, 4))
    loaded = _core.Model(safetensors.serialize(model, "m"))
    np.testing.assert_array_equal(loaded.predict(x), model.predict(x, verbose=0))
    flat = tg.Sequential([layers.Input((4,)), layers.Dense(3, activation="softmax")])
    loaded = _core.Model(safetensors.serialize(flat, "m"))
    np.testing.assert_array_equal(loaded.predict(x[0, 0]), flat.predict(x[0, 0], verbose=0))
    np.testing.assert_array_equal(flat.stream(3).step(x[0, 0]), flat.predict(x[0, 0], verbose=0))


def test_cpp_model_errors(tmp_path):
    with pytest.raises(ValueError, match="No such file"):
        _core.Model(tmp_path / "none.safetensors")
    with pytest.raises(ValueError, match="safetensors"):
        _core.Model(b"abc")
    loaded = _core.Model(safetensors.serialize(_model(*STACKS["lstm"]), "m"))
    with pytest.raises(ValueError, match=r"Model\.predict"):
        loaded.predict(np.zeros((2, 3, 4), "float32"))
