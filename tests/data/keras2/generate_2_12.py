"""Writes oldest.keras with Keras 2.12, the first to have the format (tensorflow==2.12).

oldest.npz has inputs and its predictions.
"""

from pathlib import Path

import numpy as np
import tensorflow as tf

HERE = Path(__file__).parent
layers = tf.keras.layers
random = np.random.default_rng(0)
x = random.normal(size=(3, 5, 4)).astype("f")
model = tf.keras.Sequential(
    [
        layers.LSTM(
            4, return_sequences=True, recurrent_activation="hard_sigmoid", input_shape=(5, 4)
        ),
        layers.Dropout(0.2),
        layers.LSTM(4, return_sequences=True),
        layers.Dropout(0.2),
        layers.Bidirectional(layers.GRU(5)),
        layers.Dense(10, activation="relu"),
        layers.Dense(10),
    ]
)
for weight in model.weights:
    weight.assign(random.normal(size=weight.shape).astype("f") * 0.5)
model.save(str(HERE / "oldest.keras"), save_format="keras_v3")
np.savez_compressed(HERE / "oldest.npz", x=x, y=model.predict(x, verbose=0))
