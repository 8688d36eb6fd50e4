"""Trained models that ordinary PyPI packages carry, and the right answers to them.

    pip install --no-deps textgenrnn g2p-en
    pytest tests/real_models

The packages' code is not imported (they want TensorFlow and NLTK downloads): their files are read,
and g2p-en's own NumPy functions are taken out of its source as the oracle. Nothing of theirs is
in this repository.
"""

import ast
import importlib.util
import json
import os
import warnings
from pathlib import Path

import numpy as np
import pytest

import tidegate as tg
from tidegate.saving import convert_h5_weights, read_h5_weights, weights_from_torch


def package_folder(name):
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        pytest.skip(f"the package {name} is not installed: pip install --no-deps {name}")
    return Path(spec.submodule_search_locations[0])


class TestTextgenrnn:
    """A character model of Keras 2: two LSTMs saved in cuDNN's layout, one branch around each.

    The probabilities expected are those that Keras 2 itself (tf_keras 2.21) gives for the file.
    """

    STEPS = 40

    @pytest.fixture(scope="class")
    @classmethod
    def folder(cls):
        return package_folder("textgenrnn")

    @pytest.fixture(scope="class")
    @classmethod
    def weights(cls, folder):
        return read_h5_weights(folder / "textgenrnn_weights.hdf5")

    @pytest.fixture(scope="class")
    @classmethod
    def vocabulary(cls, folder):
        return json.loads((folder / "textgenrnn_vocab.json").read_text(encoding="utf-8"))

    @pytest.fixture(scope="class")
    @classmethod
    def predict(cls, weights, vocabulary):
        layers = {
            "embedding": tg.layers.Embedding(465, 100),
            "rnn_1": tg.layers.LSTM(128, return_sequences=True),
            "rnn_2": tg.layers.LSTM(128, return_sequences=True),
            "output": tg.layers.Dense(465, activation="softmax"),
        }
        widths = {"embedding": None, "rnn_1": 100, "rnn_2": 128, "output": 356}
        for name, layer in layers.items():
            layer.build((None, cls.STEPS, widths[name])[: 3 if name != "embedding" else 2])
            arrays = weights[name]
            layer.set_weights(convert_h5_weights("LSTM", arrays) if "rnn" in name else arrays)
        attention = weights["attention"][0]

        def run(text):
            codes = [vocabulary.get(character, 0) for character in text]
            codes = np.array([[0] * (cls.STEPS - len(codes)) + codes])
            embedded = layers["embedding"](codes)
            first = layers["rnn_1"](embedded)
            second = layers["rnn_2"](first)
            branches = np.concatenate([embedded, first, second], axis=-1)
            logits = branches @ attention
            focus = np.exp(logits - logits.max(axis=1, keepdims=True))
            context = (branches * (focus / focus.sum(axis=1, keepdims=True))).sum(axis=1)
            return layers["output"](context)[0], float(first.sum()), float(second.sum())

        return run

    def test_layers_by_name(self, weights):
        shapes = {name: [array.shape for array in arrays] for name, arrays in weights.items()}
        assert shapes["rnn_1"] == [(100, 512), (128, 512), (1024,)]
        assert shapes["rnn_concat"] == []
        assert list(shapes) == [
            "input", "embedding", "rnn_1", "rnn_2", "rnn_concat", "attention", "output"
        ]  # fmt: skip

    @pytest.mark.parametrize(
        "text, likely, sums",
        [
            ("I was w", {"o": 0.494268, "a": 0.257666, "i": 0.099135}, (5.386577, 46.353203)),
            ("Why do pe", {"o": 0.910071, "t": 0.016392}, (-2.909268, 32.875031)),
            ("This is the be", {"s": 0.909216, "e": 0.023165}, (25.968491, 53.523857)),
            ("What is your favo", {"r": 0.797037, "u": 0.200885}, (18.080227, 61.234852)),
        ],
    )
    def test_what_follows(self, predict, vocabulary, text, likely, sums):
        probabilities, first, second = predict(text)
        assert vocabulary[next(iter(likely))] == probabilities.argmax()
        got = [probabilities[vocabulary[character]] for character in likely]
        np.testing.assert_allclose(got, list(likely.values()), atol=1e-4)
        # Sums over 5120 outputs of the LSTMs: far tighter on their weights than the softmax.
        np.testing.assert_allclose([first, second], sums, atol=2e-3)


class TestG2pEn:
    """Letters to phonemes: GRU encoder and decoder in PyTorch's layout."""

    WORDS = ("activationist", "tide", "gate", "recurrent", "qzx")

    @pytest.fixture(scope="class")
    @classmethod
    def folder(cls):
        return package_folder("g2p_en")

    @pytest.fixture(scope="class")
    @classmethod
    def oracle(cls, folder):
        """The package's class with its numerical methods only."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it was written for an older Python
            tree = ast.parse((folder / "g2p.py").read_text(encoding="utf-8"))
        found = next(node for node in tree.body if isinstance(node, ast.ClassDef))
        wanted = {"load_variables", "sigmoid", "grucell", "gru", "encode", "predict"}
        found.body = [
            node for node in found.body if isinstance(node, ast.FunctionDef) and node.name in wanted
        ]
        namespace = {"np": np, "os": os, "dirname": str(folder)}
        exec(compile(ast.Module([found], []), "g2p.py", "exec"), namespace)
        oracle = namespace[found.name]()
        oracle.load_variables()
        letters = ["<pad>", "<unk>", "</s>", *"abcdefghijklmnopqrstuvwxyz"]
        oracle.g2idx = {letter: index for index, letter in enumerate(letters)}
        oracle.idx2p = {index: index for index in range(74)}
        return oracle

    @pytest.fixture(scope="class")
    @classmethod
    def variables(cls, folder):
        with np.load(folder / "checkpoint20.npz", allow_pickle=False) as file:
            return dict(file)

    @staticmethod
    def gru(variables, part, **arguments):
        names = {"w_ih": "weight_ih", "w_hh": "weight_hh", "b_ih": "bias_ih", "b_hh": "bias_hh"}
        source = {f"{new}_l0": variables[f"{part}_{old}"] for old, new in names.items()}
        weights = weights_from_torch("gru", source)
        layer = tg.layers.GRU(256, **arguments)
        layer.build((None, None, 256))
        layer.set_weights(weights)
        return layer

    def test_encoder(self, oracle, variables):
        encoder = self.gru(variables, "enc", return_sequences=True)
        for word in self.WORDS:
            x = oracle.encode(word)
            weights = [variables[f"enc_{name}"] for name in ("w_ih", "w_hh", "b_ih", "b_hh")]
            expected = oracle.gru(x, len(word) + 1, *weights)
            # Both sides sum 256 float32 products of pre-activations up to about 10.
            np.testing.assert_allclose(encoder(x), expected, atol=1e-5)

    def test_words(self, oracle, variables):
        encoder = self.gru(variables, "enc")
        decoder = self.gru(variables, "dec", return_state=True)
        for word in self.WORDS:
            state, token, phonemes = encoder(oracle.encode(word)), 2, []
            for _ in range(20):
                step = variables["dec_emb"][token][None, None]
                output, state = decoder(step, initial_state=[state])
                token = int((output @ variables["fc_w"].T + variables["fc_b"]).argmax())
                if token == 3:
                    break
                phonemes.append(token)
            assert phonemes == oracle.predict(word)
