"""Trainings that tidegate and Keras go through alike: one function each, which takes the package.

Weights and data come from formulas, so that nothing but the numbers Keras gets has to be kept.
"""

import numpy as np


def waves(*shape):
    """Numbers between -1 and 1 without a pattern that matters."""
    count = int(np.prod(shape))
    return np.sin(np.arange(count) * 1.7 + np.arange(count) ** 2 * 0.013).reshape(shape)


def set_weights(model):
    model.set_weights(
        [
            (waves(*w.shape) / np.sqrt(w.shape[0] if len(w.shape) > 1 else 4)).astype("float32")
            for w in model.get_weights()
        ]
    )
    return model


def series(samples=96, time=10):
    """Windows of a sum of two sines, (samples, time, 1), and the value that follows each."""
    t = np.arange(samples + time) * 0.3
    signal = (np.sin(t) + 0.5 * np.sin(2.3 * t)).astype("float32")
    x = np.stack([signal[i : i + time] for i in range(samples)])[..., None]
    return x, signal[time:]


def article(k, layer):
    """The model of the article's section 4.2 or 4.3."""
    layers = k.layers
    return k.Sequential(
        [
            layers.Input((10, 1)),
            getattr(layers, layer)(units=50, return_sequences=True),
            getattr(layers, layer)(units=50),
            layers.Dense(units=1),
        ]
    )


def _steps(k, layer):
    model = set_weights(article(k, layer))
    model.compile(optimizer="adam", loss="mean_squared_error")
    x, y = series(32 * 20)
    losses = []
    for step in range(20):
        rows = slice(32 * step, 32 * step + 32)
        losses.append(float(model.train_on_batch(x[rows], y[rows])))
    return {"loss": losses, "prediction": model.predict(x[:8], verbose=0)[:, 0].tolist()}


def lstm_adam(k):
    """20 steps of Adam."""
    return _steps(k, "LSTM")


def gru_adam(k):
    """20 steps of Adam."""
    return _steps(k, "GRU")


def _fit(model, *args, **kwargs):
    history = model.fit(*args, shuffle=False, verbose=0, **kwargs)
    return {name: [float(v) for v in values] for name, values in history.history.items()}


def sample_weights(k):
    """Metrics with and without weights; a last batch that is smaller."""
    layers = k.layers
    model = set_weights(k.Sequential([layers.Input((10, 1)), layers.LSTM(6), layers.Dense(1)]))
    model.compile("sgd", "mse", metrics=["mae"], weighted_metrics=["mae", "mse"])
    x, y = series(70)
    return _fit(model, x, y, epochs=3, sample_weight=1 + waves(70) ** 2)


def class_weights(k):
    """Classes, by name of accuracy, validated on the last samples."""
    layers = k.layers
    model = set_weights(
        k.Sequential([layers.Input((10, 1)), layers.GRU(5), layers.Dense(3, activation="softmax")])
    )
    model.compile("rmsprop", "sparse_categorical_crossentropy", metrics=["accuracy"])
    x, y = series(80)
    labels = np.digitize(y, [-0.5, 0.5])
    return _fit(
        model,
        x,
        labels,
        epochs=4,
        batch_size=16,
        class_weight={0: 2.0, 2: 0.5},
        validation_split=0.3,
    )


def masked_sequences(k):
    """A mask from the embedding to the loss of every step."""
    layers = k.layers
    model = set_weights(
        k.Sequential(
            [
                layers.Input((7,)),
                layers.Embedding(6, 4, mask_zero=True),
                layers.Bidirectional(layers.LSTM(3, return_sequences=True)),
                layers.TimeDistributed(layers.Dense(2, activation="tanh")),
                layers.SimpleRNN(3, return_sequences=True),
                layers.Dense(1),
            ]
        )
    )
    model.compile(k.optimizers.SGD(0.1, momentum=0.9, nesterov=True), "mse", metrics=["mae"])
    words = np.abs(np.round(waves(40, 7) * 5)).astype("int32")
    words[::3, 4:] = 0
    return _fit(model, words, waves(40, 7, 1).astype("float32"), epochs=3, batch_size=8)


def regularized(k):
    """Penalties on weights and outputs, constraints, clipped gradients, decay."""
    layers = k.layers
    model = set_weights(
        k.Sequential(
            [
                layers.Input((10, 1)),
                layers.LSTM(
                    4,
                    kernel_regularizer="l2",
                    recurrent_regularizer="l1",
                    bias_regularizer="l2",
                    activity_regularizer="l2",
                    kernel_constraint="max_norm",
                    return_sequences=True,
                ),
                layers.GRU(3, activity_regularizer="l1", recurrent_constraint="unit_norm"),
                layers.Dense(
                    1, kernel_regularizer=k.regularizers.L1L2(0.01, 0.02), activity_regularizer="l2"
                ),
            ]
        )
    )
    model.compile(k.optimizers.AdamW(0.01, clipnorm=0.1), k.losses.Huber(delta=0.5))
    x, y = series(48)
    return _fit(model, x, y, epochs=3, validation_data=series(20))


def stateful(k):
    """States go on from batch to batch and from call to call."""
    layers = k.layers
    model = set_weights(
        k.Sequential(
            [
                layers.Input(batch_shape=(8, 10, 1)),
                layers.GRU(4, stateful=True, return_sequences=True, reset_after=False),
                layers.LSTM(3, stateful=True, go_backwards=True),
                layers.Dense(1),
            ]
        )
    )
    model.compile("adam", "mae", metrics=["mse"])
    x, y = series(48)
    found = {
        "first": model.predict(x, batch_size=8, verbose=0)[:, 0].tolist(),
        "evaluated": [float(v) for v in model.evaluate(x, y, batch_size=8, verbose=0)],
        "second": model.predict(x[:16], batch_size=8, verbose=0)[:, 0].tolist(),
    }
    for layer in model.layers[:2]:
        layer.reset_state()
    return {**found, "reset": model.predict(x[:16], batch_size=8, verbose=0)[:, 0].tolist()}


def generator_and_plateau(k):
    """Batches from a generator, a schedule and a learning rate that is lowered."""
    layers = k.layers
    model = set_weights(k.Sequential([layers.Input((10, 1)), layers.SimpleRNN(4), layers.Dense(1)]))
    model.compile("sgd", "mse", metrics=["mse"])
    x, y = series(64)

    def batches():
        while True:
            for start in range(0, 64, 16):
                rows = slice(start, start + 16)
                yield x[rows], y[rows], np.linspace(0.5, 1.5, 16)

    callbacks = [k.callbacks.ReduceLROnPlateau(monitor="loss", patience=1, min_delta=0.05)]
    return _fit(model, batches(), steps_per_epoch=3, epochs=6, initial_epoch=1, callbacks=callbacks)


def frozen(k):
    """Only what is trainable changes, and masks of a Masking layer."""
    layers = k.layers
    model = set_weights(
        k.Sequential(
            [
                layers.Input((10, 1)),
                layers.Masking(),
                layers.LSTM(4, return_sequences=True),
                layers.Flatten(),
                layers.Dense(3, activation="relu"),
                layers.Dense(1),
            ]
        )
    )
    model.layers[1].trainable = False
    model.compile("adagrad", "log_cosh")
    x, y = series(40)
    x[5:20, 3:6] = 0
    return _fit(model, x, y, epochs=4)


# Which of Keras's back-ends is the judge: PyTorch's, as JAX's loses the mask before the metrics in
# training and the states of stateful layers between batches; NumPy's for those, which PyTorch
# cannot train.
_ALL = {
    "torch": [
        *(lstm_adam, gru_adam, sample_weights, class_weights, masked_sequences, regularized),
        *(generator_and_plateau, frozen),
    ],
    "numpy": [stateful],
}
JUDGES = {judge: [f.__name__ for f in functions] for judge, functions in _ALL.items()}
SCENARIOS = {f.__name__: f for functions in _ALL.values() for f in functions}
