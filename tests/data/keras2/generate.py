"""Writes the files in this folder with Keras 2: `pip install tensorflow-cpu tf_keras`, then run.

Weights are random, expected.npz has inputs and Keras 2's predictions. The cuDNN layers cannot run
on a CPU; their weights are loaded into LSTM and GRU by Keras 2 itself, which converts them.
"""

import os
from pathlib import Path

os.environ["TF_USE_LEGACY_KERAS"] = "1"

import numpy as np
import tf_keras
from tf_keras import layers
from tf_keras.src.layers.rnn.cudnn_gru import CuDNNGRU
from tf_keras.src.layers.rnn.cudnn_lstm import CuDNNLSTM

HERE = Path(__file__).parent
random = np.random.default_rng(0)
expected = {}


def randomize(model):
    for weight in model.weights:
        weight.assign(random.normal(size=weight.shape).astype("f") * 0.5)


def save(model, file, x):
    randomize(model)
    model.save(HERE / file)
    name = Path(file).stem
    expected[f"{name}.x"], expected[f"{name}.y"] = x, model.predict(x, verbose=0)


x = random.normal(size=(3, 5, 4)).astype("f")
words = random.integers(0, 11, size=(3, 5)).astype("int32")

compiled = tf_keras.Sequential(
    [
        layers.LSTM(
            6, return_sequences=True, recurrent_activation="hard_sigmoid", input_shape=(5, 4)
        ),
        layers.GRU(5, reset_after=False, recurrent_activation="hard_sigmoid"),
        layers.Dense(2, activation="hard_sigmoid"),
    ]
)
compiled.compile("adam", tf_keras.losses.MeanSquaredError(), metrics=["mae", "accuracy"])
compiled.fit(x, np.ones((3, 2)), verbose=0)
save(compiled, "compiled.h5", x)

masked = tf_keras.Sequential(
    [
        layers.Embedding(11, 4, mask_zero=True, input_length=5),
        layers.Bidirectional(layers.GRU(5, return_sequences=True)),
        layers.TimeDistributed(layers.Dense(3, activation="relu")),
        layers.Dropout(0.2),
        layers.Bidirectional(layers.LSTM(2), merge_mode="sum"),
        layers.Dense(2, activation="softmax"),
    ]
)
masked.build((None, 5))
save(masked, "masked.h5", words)

inputs = layers.Input((5, 4))
hidden = layers.RNN([layers.LSTMCell(3), layers.GRUCell(2)], return_sequences=True)(inputs)
hidden = layers.SimpleRNN(3, activation="hard_sigmoid", return_sequences=True)(hidden)
save(tf_keras.Model(inputs, layers.Dense(2)(layers.Flatten()(hidden))), "functional.keras", x)


def recurrent(lstm, gru):
    return tf_keras.Sequential(
        [
            layers.Input((5, 4)),
            lstm(6, return_sequences=True, name="lstm"),
            layers.Bidirectional(gru(5, return_sequences=True), name="both"),
            gru(3, name="gru"),
            layers.Dense(2, name="dense"),
        ]
    )


cudnn = recurrent(CuDNNLSTM, CuDNNGRU)
randomize(cudnn)
cudnn.save(HERE / "cudnn.h5")
plain = recurrent(layers.LSTM, layers.GRU)
plain.load_weights(HERE / "cudnn.h5")
expected["cudnn.x"], expected["cudnn.y"] = x, plain.predict(x, verbose=0)

np.savez_compressed(HERE / "expected.npz", **expected)
