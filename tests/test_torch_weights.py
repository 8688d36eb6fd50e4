"""Weights from and to PyTorch: against its equations in NumPy, and against it where installed."""

import numpy as np
import pytest

import tidegate as tg
from tidegate.saving import weights_from_torch, weights_to_torch

CELLS = {"lstm": tg.layers.LSTM, "gru": tg.layers.GRU, "simple_rnn": tg.layers.SimpleRNN}
MODULES = [("lstm", "LSTM"), ("gru", "GRU"), ("simple_rnn", "RNN")]
GATES = {"lstm": 4, "gru": 3, "simple_rnn": 1}


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def torch_step(cell, p, x, state):
    """One step as PyTorch's documentation writes it, from its own parameters."""
    h = state[0]
    a = x @ p["weight_ih"].T + p.get("bias_ih", 0)
    b = h @ p["weight_hh"].T + p.get("bias_hh", 0)
    if cell == "simple_rnn":
        return [np.tanh(a + b)]
    if cell == "lstm":
        i, f, g, o = np.split(a + b, 4, axis=-1)
        c = sigmoid(f) * state[1] + sigmoid(i) * np.tanh(g)
        return [sigmoid(o) * np.tanh(c), c]
    a, b = np.split(a, 3, axis=-1), np.split(b, 3, axis=-1)
    r, z = sigmoid(a[0] + b[0]), sigmoid(a[1] + b[1])
    return [(1 - z) * np.tanh(a[2] + r * b[2]) + z * h]


def torch_forward(cell, p, x, reverse=False):
    units = p["weight_hh"].shape[1]
    state = [np.zeros((len(x), units)), np.zeros((len(x), units))]
    outputs = []
    for t in range(x.shape[1])[:: -1 if reverse else 1]:
        state = torch_step(cell, p, x[:, t], state)
        outputs.append(state[0])
    return np.stack(outputs, axis=1)


def parameters(cell, features, units, bias=True, dtype=np.float64):
    random = np.random.default_rng(3)
    rows = GATES[cell] * units
    shapes = {"weight_ih": (rows, features), "weight_hh": (rows, units)}
    if bias:
        shapes |= {"bias_ih": (rows,), "bias_hh": (rows,)}
    return {name: random.normal(size=size).astype(dtype) for name, size in shapes.items()}


def named(arrays, suffix="_l0", prefix=""):
    return {f"{prefix}{name}{suffix}": array for name, array in arrays.items()}


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no_bias"])
@pytest.mark.parametrize("cell", CELLS)
class TestAgainstTheEquations:
    def test_outputs(self, cell, bias):
        p = parameters(cell, 3, 5, bias)
        layer = CELLS[cell].from_torch(named(p), return_sequences=True)
        x = np.random.default_rng(0).normal(size=(2, 7, 3))
        assert layer.dtype == "float64"
        np.testing.assert_allclose(layer(x), torch_forward(cell, p, x), atol=1e-12)

    def test_reverse(self, cell, bias):
        p = parameters(cell, 3, 5, bias)
        layer = CELLS[cell].from_torch(named(p, "_l0_reverse"), reverse=True, return_sequences=True)
        x = np.random.default_rng(0).normal(size=(2, 7, 3))
        np.testing.assert_allclose(layer(x), torch_forward(cell, p, x, reverse=True), atol=1e-12)

    def test_there_and_back(self, cell, bias):
        p = parameters(cell, 3, 5, bias, np.float32)
        weights = weights_from_torch(cell, named(p))
        back = weights_to_torch(cell, weights, "rnn", 2, reverse=True)
        again = weights_from_torch(cell, back, "rnn.", 2, reverse=True)
        assert all(np.array_equal(a, b) for a, b in zip(weights, again, strict=True))
        assert all(array.dtype == np.float32 for array in back.values())
        merged = cell != "gru" and bias
        if not merged:
            expected = named(p, "_l2_reverse", "rnn.")
            assert back.keys() == expected.keys()
            assert all(np.array_equal(back[name], expected[name]) for name in back)


def test_bidirectional_takes_both_directions():
    forward, backward = parameters("gru", 3, 4), parameters("gru", 3, 4)
    backward = {name: -array for name, array in backward.items()}
    source = named(forward, "_l1", "rnn.") | named(backward, "_l1_reverse", "rnn.")
    layer = tg.layers.Bidirectional(
        tg.layers.GRU(4, return_sequences=True, dtype="float64"), dtype="float64"
    )
    layer.build((None, None, 3))
    layer.set_weights(
        weights_from_torch("gru", source, "rnn", 1)
        + weights_from_torch("gru", source, "rnn", 1, reverse=True)
    )
    x = np.random.default_rng(0).normal(size=(2, 6, 3))
    ahead = torch_forward("gru", forward, x)
    back = torch_forward("gru", backward, x, reverse=True)[:, ::-1]
    np.testing.assert_allclose(layer(x), np.concatenate([ahead, back], axis=-1), atol=1e-12)


def test_unnumbered_parameters_of_a_cell():
    p = parameters("lstm", 3, 4)
    a = weights_from_torch("lstm", named(p, "", "cell."), "cell")
    b = weights_from_torch("lstm", named(p))
    assert all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def test_half_precision_becomes_float32():
    p = {name: array.astype(np.float16) for name, array in parameters("gru", 2, 3).items()}
    assert {w.dtype.name for w in weights_from_torch("gru", named(p))} == {"float32"}


LSTM = parameters("lstm", 3, 4)


@pytest.mark.parametrize(
    "source, arguments, message",
    [
        ({}, {}, "expected a parameter weight_ih_l0"),
        (named(LSTM), {"layer": 1}, "expected a parameter weight_ih_l1"),
        (named(LSTM), {"prefix": "enc"}, "expected a parameter encweight_ih_l0"),
        (named(LSTM), {"reverse": True}, "weight_ih_l0_reverse"),
        (named(LSTM), {"layer": -1}, "expected a number from 0"),
        (named(LSTM) | {"weight_hr_l0": np.zeros((2, 4))}, {}, "without projection"),
        (named(parameters("gru", 3, 4)), {}, r"expected the shape \(16, 3\) of cell 'lstm'"),
        ({k: v for k, v in named(LSTM).items() if k != "bias_hh_l0"}, {}, "or neither"),
        ({k: v for k, v in named(LSTM).items() if k != "weight_hh_l0"}, {}, "weight_hh_l0, got"),
        (named({k: v.astype(int) for k, v in LSTM.items()}), {}, "expected float32 or float64"),
        (named(LSTM | {"bias_hh": LSTM["bias_hh"].astype("f")}), {}, "expected one dtype"),
    ],
    ids=[
        "empty",
        "layer",
        "prefix",
        "reverse",
        "negative",
        "projection",
        "gru",
        "one_bias",
        "no_hh",
        "integers",
        "dtypes",
    ],
)
def test_refused(source, arguments, message):
    with pytest.raises(ValueError, match=message):
        weights_from_torch("lstm", source, **arguments)


def test_refused_arguments():
    with pytest.raises(TypeError, match="expected names mapped to arrays"):
        weights_from_torch("lstm", [1, 2])
    for cell in ("dual_state_gru", "coupled_lstm"):
        with pytest.raises(ValueError, match="cell: expected one of"):
            weights_from_torch(cell, {})
    with pytest.raises(ValueError, match="units: expected none"):
        tg.layers.LSTM.from_torch(named(LSTM), units=4)


@pytest.mark.parametrize(
    "layer, message",
    [
        (lambda: tg.layers.GRU(3, reset_after=False), "reset_after=True"),
        (lambda: tg.layers.LSTM(3, activation="relu"), "expected activation tanh"),
        (lambda: tg.layers.GRU(3, recurrent_activation="hard_sigmoid"), "recurrent_activation"),
        (lambda: tg.layers.SimpleRNN(3, activation="elu"), "tanh or relu"),
    ],
    ids=["reset_before", "activation", "recurrent_activation", "nonlinearity"],
)
def test_layers_that_pytorch_does_not_have(layer, message):
    built = layer()
    with pytest.raises(ValueError, match="expected a built layer"):
        built.to_torch()
    built.build((None, None, 2))
    with pytest.raises(ValueError, match=message):
        built.to_torch()


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch", reason="PyTorch is not installed")


class TestAgainstTorch:
    """The same with modules of PyTorch itself."""

    @pytest.mark.parametrize("cell, name", MODULES)
    def test_stacked_bidirectional_module(self, torch, cell, name):
        torch.manual_seed(0)
        module = getattr(torch.nn, name)(3, 5, num_layers=2, bidirectional=True, batch_first=True)
        x = np.random.default_rng(0).normal(size=(2, 6, 3)).astype("f")
        with torch.no_grad():
            expected = module(torch.from_numpy(x))[0].numpy()
        model = tg.Sequential([tg.layers.Input((None, 3))])
        for layer in range(2):
            wrapper = tg.layers.Bidirectional(CELLS[cell](5, return_sequences=True))
            model.add(wrapper)
            wrapper.set_weights(
                weights_from_torch(cell, module, layer=layer)
                + weights_from_torch(cell, module, layer=layer, reverse=True)
            )
        np.testing.assert_allclose(model.predict(x, verbose=0), expected, atol=2e-6)

    @pytest.mark.parametrize("cell, name", MODULES)
    def test_export(self, torch, cell, name):
        layer = CELLS[cell](5, return_sequences=True, bias_initializer="random_normal")
        x = np.random.default_rng(0).normal(size=(2, 6, 3)).astype("f")
        expected = layer(x)
        module = getattr(torch.nn, name)(3, 5, batch_first=True)
        arrays = layer.to_torch()
        module.load_state_dict({key: torch.from_numpy(value) for key, value in arrays.items()})
        with torch.no_grad():
            np.testing.assert_allclose(module(torch.from_numpy(x))[0].numpy(), expected, atol=2e-6)

    def test_relu_module_and_tensors(self, torch):
        module = torch.nn.RNN(3, 4, nonlinearity="relu", batch_first=True)
        layer = tg.layers.SimpleRNN.from_torch(module)
        assert layer.get_config()["activation"] == "relu"
        half = {key: value.bfloat16() for key, value in module.state_dict().items()}
        assert weights_from_torch("simple_rnn", half)[0].dtype == np.float32

    def test_projection(self, torch):
        with pytest.raises(ValueError, match="proj_size"):
            weights_from_torch("lstm", torch.nn.LSTM(3, 4, proj_size=2))
