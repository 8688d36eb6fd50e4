"""Voice activity from Silero's trained network: its LSTM cell runs in a Stream, chunk by chunk.

    pip install --no-deps silero-vad
    pip install onnx onnxruntime
    pytest tests/real_models

The package's code is not imported (it wants PyTorch). What precedes the recurrent layer, a few
convolutions, is written out in NumPy here. The package carries two generations of weights: those of
its ONNX files, for which ONNX Runtime has the right answers, and a `.safetensors` file with others,
for which a cell in NumPy has them.
"""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

import tidegate as tg

CHUNK, CONTEXT = 512, 64


@pytest.fixture(scope="module")
def folder():
    spec = importlib.util.find_spec("silero_vad")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("the package silero-vad is not installed: pip install --no-deps silero-vad")
    return Path(spec.submodule_search_locations[0]) / "data"


@pytest.fixture(scope="module")
def weights(folder):
    return load_file(folder / "silero_vad_16k.safetensors")


def _model(weights):
    """The part from the recurrent layer on."""
    lstm = tg.layers.LSTM.from_torch(weights, prefix="lstm_cell.")
    dense = tg.layers.Dense(1, activation="sigmoid")
    model = tg.Sequential([tg.layers.Input((None, 128)), lstm, tg.layers.Activation("relu"), dense])
    dense.set_weights([weights["final_conv.weight"][:, :, 0].T, weights["final_conv.bias"]])
    return model


def _onnx_weights(path):
    """The weights in an ONNX file, by the names of the `.safetensors` file."""
    onnx = pytest.importorskip("onnx")
    names = {"stft.forward_basis_buffer": "stft_conv.weight"}
    names |= {f"decoder.rnn.{name}": f"lstm_cell.{name}" for name in _CELL}
    for kind in ("weight", "bias"):
        names[f"decoder.decoder.2.{kind}"] = f"final_conv.{kind}"
        for i in range(4):
            names[f"encoder.{i}.reparam_conv.{kind}"] = f"conv{i + 1}.{kind}"
    graph = onnx.load(path).graph
    found = {array.name: array for array in graph.initializer}
    return {to: onnx.numpy_helper.to_array(found[f"model.{name}"]) for name, to in names.items()}


_CELL = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


def _convolve(x, kernel, stride):
    """x (in, time) with kernel (out, in, width)."""
    windows = np.lib.stride_tricks.sliding_window_view(x, kernel.shape[2], axis=1)[:, ::stride]
    return np.einsum("itw,oiw->ot", windows, kernel, optimize=True)


def _features(weights, audio):
    """One chunk with its context (576,) to the 128 features that the LSTM sees."""
    x = np.pad(audio, (0, 64), mode="reflect")[None]
    x = _convolve(x, weights["stft_conv.weight"], 128)
    x = np.sqrt(x[:129] ** 2 + x[129:] ** 2)
    for name, stride in (("conv1", 1), ("conv2", 2), ("conv3", 2), ("conv4", 1)):
        x = _convolve(np.pad(x, ((0, 0), (1, 1))), weights[f"{name}.weight"], stride)
        x = np.maximum(x + weights[f"{name}.bias"][:, None], 0)
    return x.T  # (1, 128)


def _chunks():
    """Two seconds of noise and a buzzing vowel, each chunk after the end of the last one."""
    random = np.random.default_rng(0)
    t = np.arange(64 * CHUNK) / 16000
    buzz = sum(np.sin(2 * np.pi * 140 * k * t) / k for k in range(1, 25))
    loud = np.where((t % 0.7) < 0.4, 0.2, 0) * (1 + np.sin(2 * np.pi * 4 * t))
    audio = (loud * buzz + 0.003 * random.standard_normal(len(t))).astype("float32")
    audio = np.concatenate([np.zeros(CONTEXT, "float32"), audio])
    return [audio[i : i + CONTEXT + CHUNK] for i in range(0, 64 * CHUNK, CHUNK)]


def test_probabilities(folder):
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(folder / "silero_vad_16k_op15.onnx")
    weights = _onnx_weights(folder / "silero_vad_16k_op15.onnx")
    stream = _model(weights).stream()
    state, rate = np.zeros((2, 1, 128), "float32"), np.array(16000)
    probabilities = []
    for audio in _chunks():
        expected, state = session.run(None, {"input": audio[None], "state": state, "sr": rate})
        probability = stream.step(_features(weights, audio))
        np.testing.assert_allclose(probability, expected, atol=2e-5)
        np.testing.assert_allclose(stream.state[0], state, atol=1e-4)
        probabilities.append(probability[0, 0])
    assert np.ptp(probabilities) > 0.1  # it heard something


def test_cell(weights):
    """The cell alone against NumPy in float64, on the same features."""
    w = {name: array.astype("float64") for name, array in weights.items()}
    stream, h, c = _model(weights).stream(), np.zeros(128), np.zeros(128)
    for audio in _chunks():
        x = _features(weights, audio)
        z = w["lstm_cell.weight_ih"] @ x[0] + w["lstm_cell.weight_hh"] @ h
        i, f, g, o = np.split(z + w["lstm_cell.bias_ih"] + w["lstm_cell.bias_hh"], 4)
        c = c / (1 + np.exp(-f)) + np.tanh(g) / (1 + np.exp(-i))
        h = np.tanh(c) / (1 + np.exp(-o))
        stream.step(x)
        np.testing.assert_allclose(stream.state[0][0][0], h, atol=1e-5)
        np.testing.assert_allclose(stream.state[0][1][0], c, rtol=1e-5, atol=1e-5)


def test_cpp_file(weights, tmp_path):
    """The same from the deployment file, as a C++ program loads it."""
    model = _model(weights)
    model.save(tmp_path / "vad.safetensors")
    x = np.concatenate([_features(weights, audio) for audio in _chunks()])[None]
    loaded = tg.load_model(tmp_path / "vad.safetensors")
    stream = model.stream()
    steps = [stream.step(row[None]) for row in x[0]]
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), steps[-1])
    np.testing.assert_array_equal(
        tg._core.Model(tmp_path / "vad.safetensors").predict(x), steps[-1]
    )
