"""Sequential: the article's program, trainings as Keras's, and how data come and go."""

import copy
import json
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest

import tidegate as tg
from tidegate import callbacks, layers

GOLDEN = Path(__file__).parent / "golden"
sys.path.insert(0, str(GOLDEN))
from scenarios import SCENARIOS, article, series, set_weights  # noqa: E402

EXPECTED = json.loads((GOLDEN / "training.json").read_text())


def small(**kwargs):
    model = tg.Sequential([layers.Input((10, 1)), layers.LSTM(4), layers.Dense(1)])
    model.compile(**{"optimizer": "sgd", "loss": "mse", **kwargs})
    return set_weights(model)


def same(weights, others):
    """Bit for bit."""
    return all(np.array_equal(a, b) for a, b in zip(weights, others, strict=True))


@pytest.mark.parametrize("name", SCENARIOS)
def test_trains_as_keras(name):
    found, expected = SCENARIOS[name](tg), EXPECTED[name]
    assert sorted(found) == sorted(expected)
    for key, values in expected.items():
        # Both are in float32; what they differ by grows slowly over some 30 updates.
        np.testing.assert_allclose(found[key], values, rtol=1e-5, atol=1e-6, err_msg=key)


# ---- The article's program ----------------------------------------------------------------------

ARTICLE = """
import numpy as np
from {package}.models import Sequential
from {package}.layers import LSTM, GRU, Dense

model = Sequential()
model.add(LSTM(units=50, input_shape=(10, 1), return_sequences=True))
model.add(LSTM(units=50))
model.add(Dense(units=1))

model_gru = Sequential()
model_gru.add(GRU(units=50, input_shape=(10, 1), return_sequences=True))
model_gru.add(GRU(units=50))
model_gru.add(Dense(units=1))

model.compile(optimizer='adam', loss='mean_squared_error')
history = model.fit(x_train, y_train, epochs=100, batch_size=32)

model_gru.compile(optimizer='adam', loss='mean_squared_error')
history_gru = model_gru.fit(x_train, y_train, epochs=100, batch_size=32)
"""


@pytest.mark.filterwarnings("ignore:Do not pass an `input_shape`")
def test_the_articles_program(capsys):
    tg.set_random_seed(1)
    x, y = series(96)
    names = {"x_train": x, "y_train": y}
    exec(ARTICLE.format(package="tidegate"), names)
    for key in ("history", "history_gru"):
        losses = names[key].history["loss"]
        assert len(losses) == 100
        assert losses[-1] < losses[0] / 10
    assert names["model"].count_params() == 10_400 + 20_200 + 51
    assert names["model"].predict(x, verbose=0).shape == (96, 1)
    assert "Epoch 100/100" in capsys.readouterr().out


def test_input_shape_warns_and_builds_at_once():
    model = tg.Sequential()
    with pytest.warns(UserWarning, match="Do not pass an `input_shape`") as caught:
        model.add(layers.LSTM(50, input_shape=(10, 1), return_sequences=True))
    assert caught[0].filename == __file__
    assert model.built
    assert model.output_shape == (None, 10, 50)
    assert model.input_shape == (None, 10, 1)


SUMMARY = """\
Model: "seq"
┏━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━┳━━━━━━━━━━━━━━━━━━━━━━━━┳━━━━━━━━━━━━━━━┓
┃ Layer (type)                    ┃ Output Shape           ┃       Param # ┃
┡━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━╇━━━━━━━━━━━━━━━━━━━━━━━━╇━━━━━━━━━━━━━━━┩
│ one (LSTM)                      │ (None, 10, 50)         │        10,400 │
├─────────────────────────────────┼────────────────────────┼───────────────┤
│ two (LSTM)                      │ (None, 50)             │        20,200 │
├─────────────────────────────────┼────────────────────────┼───────────────┤
│ three (Dense)                   │ (None, 1)              │            51 │
└─────────────────────────────────┴────────────────────────┴───────────────┘
 Total params: 30,651 (119.73 KB)
 Trainable params: 30,651 (119.73 KB)
 Non-trainable params: 0 (0.00 B)
"""


def test_summary(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    model = article(tg, "LSTM")
    model.name = "seq"
    for layer, name in zip(model.layers, ("one", "two", "three"), strict=True):
        layer.name = name
    text = []
    model.summary(print_fn=text.append)
    assert "".join(text) == SUMMARY
    text.clear()
    model.summary(print_fn=text.append, show_trainable=True, layer_range=("two", "three"))
    assert "one (LSTM)" not in text[0]
    assert "Traina" in text[0]


def test_summary_of_models_in_models(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    inner = tg.Sequential([layers.Input((10, 1)), layers.LSTM(3, name="deep")], name="in")
    model = tg.Sequential([layers.Input((10, 1)), inner, layers.Dense(1)])
    text = []
    model.summary(print_fn=text.append, expand_nested=True)
    assert "└ deep (LSTM)" in text[0]
    model.compile("adam", "mse")
    model.fit(*series(4), verbose=0)
    text.clear()
    model.summary(print_fn=text.append)
    slots = 2 + 2 * model.count_params()
    assert f"Optimizer params: {slots:,}" in text[0]
    tg.Sequential([layers.LSTM(3)]).summary(print_fn=text.append)
    assert "0 (unbuilt)" in text[1]


# ---- Repeatability and copies -------------------------------------------------------------------


def train_once(seed):
    tg.set_random_seed(seed)
    model = tg.Sequential(
        [
            layers.Input((10, 1)),
            layers.LSTM(5, dropout=0.2, recurrent_dropout=0.1, return_sequences=True),
            layers.Dropout(0.3),
            layers.GRU(4),
            layers.Dense(1),
        ]
    )
    model.compile("adam", "mse")
    history = model.fit(*series(40), epochs=2, verbose=0)
    return history.history["loss"], model


def test_seeds_repeat_bit_for_bit():
    (first, one), (again, two), (other, _) = train_once(3), train_once(3), train_once(4)
    assert first == again
    assert same(one.get_weights(), two.get_weights())
    assert first != other


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_go_on_alike_and_apart(duplicate):
    _, model = train_once(5)
    x, y = series(40)
    twin = duplicate(model)
    assert np.array_equal(model.predict(x, verbose=0), twin.predict(x, verbose=0))
    for seeded in (model, twin):
        tg.set_random_seed(1)
        seeded.fit(x, y, verbose=0)
    assert same(model.get_weights(), twin.get_weights())
    twin.layers[0].cell.kernel.assign(np.zeros(twin.layers[0].cell.kernel.shape))
    assert not np.array_equal(model.predict(x, verbose=0), twin.predict(x, verbose=0))


def test_packed_weights_follow_every_change():
    model = small()
    x, y = series(8)
    seen = {model.predict(x, verbose=0).tobytes()}
    model.train_on_batch(x, y)
    seen.add(model.predict(x, verbose=0).tobytes())
    model.set_weights([w * 0.5 for w in model.get_weights()])
    seen.add(model.predict(x, verbose=0).tobytes())
    bias = model.layers[0].cell.bias
    bias.assign(bias.value + 1)
    seen.add(model.predict(x, verbose=0).tobytes())
    assert len(seen) == 4
    with pytest.raises(ValueError, match="read-only"):
        model.layers[0].cell.bias.value[0] = 0


# ---- fit ----------------------------------------------------------------------------------------


def test_history():
    model = small(metrics=["mae"])
    x, y = series(50)
    history = model.fit(
        x,
        y,
        batch_size=16,
        epochs=5,
        initial_epoch=2,
        validation_split=0.2,
        validation_freq=2,
        verbose=0,
    )
    assert history is model.history
    assert history.epoch == [2, 3, 4]
    assert {key: len(values) for key, values in history.history.items()} == {
        "loss": 3,
        "mae": 3,
        "val_loss": 1,
        "val_mae": 1,
    }
    assert history.params["steps"] == 3
    assert all(isinstance(v, float) for v in history.history["loss"])


def test_epoch_loss_is_the_mean_over_samples():
    model = small(optimizer=tg.optimizers.SGD(0.0))
    x, y = series(50)
    loss = model.fit(x, y, batch_size=32, verbose=0).history["loss"][0]
    expected = np.mean((model.predict(x, verbose=0)[:, 0] - y) ** 2)
    assert loss == pytest.approx(expected, rel=1e-6)
    assert model.evaluate(x, y, verbose=0) == pytest.approx(expected, rel=1e-6)


def test_validation_split_takes_the_last_samples():
    model = small(optimizer=tg.optimizers.SGD(0.0))
    x, y = series(50)
    found = model.fit(x, y, validation_split=0.3, verbose=0).history["val_loss"][0]
    assert found == pytest.approx(model.evaluate(x[35:], y[35:], verbose=0), rel=1e-12)


class Recorder(callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.calls = []

    def __getattribute__(self, name):
        if name.startswith("on_"):
            calls = super().__getattribute__("calls")
            return lambda *args, **kwargs: calls.append(name)
        return super().__getattribute__(name)


def test_order_of_callbacks():
    recorder = Recorder()
    x, y = series(8)
    small().fit(
        x, y, batch_size=4, epochs=1, validation_data=(x, y), callbacks=[recorder], verbose=0
    )
    batch = ["on_train_batch_begin", "on_train_batch_end"]
    test_batch = ["on_test_batch_begin", "on_test_batch_end"]
    assert recorder.calls == [
        "on_train_begin",
        "on_epoch_begin",
        *(batch * 2),
        "on_test_begin",
        *(test_batch * 2),
        "on_test_end",
        "on_epoch_end",
        "on_train_end",
    ]


def test_stop_training_stops_after_the_batch():
    class Stop(callbacks.Callback):
        batches = 0

        def on_train_batch_end(self, batch, logs=None):
            self.batches += 1
            self.model.stop_training = self.batches == 2

    stop = Stop()
    history = small().fit(*series(40), batch_size=8, epochs=3, callbacks=[stop], verbose=0)
    assert stop.batches == 2
    assert len(history.history["loss"]) == 1


def steps_of(x, y=None, **kwargs):
    """The number of the batch in every training step."""
    steps = []
    recorder = callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: steps.append(batch))
    small().fit(x, y, verbose=0, callbacks=[recorder], **kwargs)
    return steps


def batches(count):
    x, y = series(4)
    for _ in range(count):
        yield x, y


def test_steps_per_epoch_go_on_through_the_data():
    x, y = series(20)
    assert steps_of(x, y, steps_per_epoch=3, epochs=2) == [0, 1, 2, 0, 1, 2]
    with pytest.warns(UserWarning, match="ran out of data"):
        found = steps_of(x, y, batch_size=4, steps_per_epoch=3, epochs=4)
    assert found == [0, 1, 2, 0, 1, 0, 1, 2, 0, 1]


def test_generators():
    assert steps_of(batches(3)) == [0, 1, 2]
    assert steps_of(batches(9), steps_per_epoch=2, epochs=2) == [0, 1, 0, 1]
    with pytest.warns(UserWarning, match="ran out of data"):
        assert steps_of(batches(3), epochs=2) == [0, 1, 2]


def test_datasets():
    class Dataset:
        ended = 0

        def __len__(self):
            return 3

        def __getitem__(self, index):
            x, y = series(12)
            return x[4 * index : 4 * index + 4], y[4 * index : 4 * index + 4]

        def on_epoch_end(self):
            self.ended += 1

    dataset = Dataset()
    assert steps_of(dataset, epochs=2) == [0, 1, 2, 0, 1, 2]
    assert dataset.ended == 2

    class Loader:  # as PyTorch's DataLoader: known length, new iterator every epoch
        def __len__(self):
            return 2

        def __iter__(self):
            return batches(2)

    assert steps_of(Loader(), epochs=2) == [0, 1, 0, 1]
    model = small()
    assert model.evaluate(Loader(), verbose=0) > 0
    assert model.predict(Loader(), verbose=0).shape == (8, 1)


def test_an_unbuilt_model_builds_itself():
    for use in ("fit", "evaluate", "predict", "call"):
        model = tg.Sequential([layers.SimpleRNN(3), layers.Dense(1)])
        model.compile("sgd", "mse")
        x, y = series(6)
        if use == "fit":
            model.fit(batches(2), verbose=0)
        elif use == "evaluate":
            model.evaluate(x, y, verbose=0)
        elif use == "predict":
            model.predict(x, verbose=0)
        else:
            model(x)
        assert model.built
        assert model.input_shape == (None, 10, 1)


def test_forms_of_results():
    x, y = series(8)
    model = small()
    assert isinstance(model.train_on_batch(x, y), float)
    assert isinstance(model.evaluate(x, y, verbose=0), float)
    model = small(metrics=["mae", "mae"], weighted_metrics=["mae"])
    names = ["loss", "mae", "mae_1", "weighted_mae"]
    assert list(model.evaluate(x, y, verbose=0, return_dict=True)) == names
    assert len(model.evaluate(x, y, verbose=0)) == 4
    assert list(model.train_on_batch(x, y, return_dict=True)) == names
    before = model.test_on_batch(x, y)
    assert model.test_on_batch(x, y) == before  # of this batch alone
    assert model.metrics_names == ["loss", "compile_metrics"]


def test_no_samples_and_few():
    model = small()
    x, _ = series(3)
    assert model.predict(x[:0], verbose=0).shape == (0, 1)
    assert model.predict(x[:1], verbose=0).shape == (1, 1)
    assert model.predict_on_batch(x[:2]).shape == (2, 1)


def test_rank_and_dtype_of_inputs_are_adjusted():
    model = small()
    x, y = series(6)
    expected = model.predict(x, verbose=0)
    for other in (x[..., 0], x[..., None], x.astype("float64"), x.tolist()):
        assert np.array_equal(model.predict(other, verbose=0), expected)
    whole = np.arange(60).reshape(6, 10)
    assert np.array_equal(model.predict(whole), model.predict(whole[..., None].astype("float32")))
    for targets in (y, y[:, None], y.tolist(), (100 * y).astype(int)):
        small().fit(x, targets, verbose=0)


def test_float64():
    model = tg.Sequential(
        [
            layers.Input((10, 1)),
            layers.GRU(3, dtype="float64"),
            layers.Dense(1, dtype="float64"),
        ]
    )
    model.compile("adam", "mse")
    x, y = series(8)
    model.fit(x, y, verbose=0)
    assert model.predict(x, verbose=0).dtype == np.float64
    assert all(w.dtype == np.float64 for w in model.weights)


def test_loss_weights_and_scales():
    x, y = series(8)
    plain, doubled, scaled = (
        small(),
        small(loss_weights=[2.0], optimizer=tg.optimizers.SGD(0.005)),
        small(optimizer=tg.optimizers.SGD(0.01, loss_scale_factor=8.0)),
    )
    losses = [float(m.train_on_batch(x, y)) for m in (plain, doubled, scaled)]
    assert losses[1] == pytest.approx(2 * losses[0], rel=1e-6)
    assert losses[2] == losses[0]
    for other in (doubled, scaled):
        for a, b in zip(plain.get_weights(), other.get_weights(), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)


def test_class_weights_of_generated_batches():
    x, y = series(12)
    labels = (y > 0).astype(int)

    def model():
        stack = [layers.Input((10, 1)), layers.LSTM(3), layers.Dense(2, activation="softmax")]
        made = set_weights(tg.Sequential(stack))
        made.compile("sgd", "sparse_categorical_crossentropy")
        return made

    one, other = model(), model()
    kwargs = {"class_weight": {1: 3.0}, "verbose": 0}
    one.fit(x, labels, batch_size=4, shuffle=False, **kwargs)
    rows = [slice(i, i + 4) for i in range(0, 12, 4)]
    other.fit(iter([(x[r], labels[r]) for r in rows]), **kwargs)
    assert same(one.get_weights(), other.get_weights())
    one_hot = model()
    one_hot.compile("sgd", "categorical_crossentropy")
    one_hot.fit(x, np.eye(2)[labels], batch_size=4, shuffle=False, **kwargs)
    for a, b in zip(one.get_weights(), one_hot.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)


def test_shuffling():
    seen = []

    class Spy(layers.Layer):
        def call(self, inputs):
            seen.append(inputs[:, 0].astype(int).tolist())
            return inputs

    x = np.arange(10.0)[:, None].astype("float32")
    model = tg.Sequential([layers.Input((1,)), Spy(), layers.Dense(1)])
    model.compile("sgd", "mse")
    orders = {}
    for shuffle in (False, True, "batch"):
        seen.clear()
        tg.set_random_seed(2)
        model.fit(x, x, batch_size=4, epochs=2, shuffle=shuffle, verbose=0)
        orders[shuffle] = list(seen)
    whole = [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert orders[False] == whole * 2
    first, second = ([n for batch in orders[True][i : i + 3] for n in batch] for i in (0, 3))
    assert sorted(first) == sorted(second) == list(range(10))
    assert first != second
    assert sorted(orders["batch"][:3]) == whole
    assert orders["batch"] != orders[False]


def test_validation_in_given_epochs():
    x, y = series(8)
    seen = []
    recorder = callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: seen.append("val_loss" in logs)
    )
    small().fit(
        x,
        y,
        epochs=4,
        validation_data=(x, y, y),
        validation_freq=[1, 4],
        callbacks=[recorder],
        verbose=0,
    )
    assert seen == [True, False, False, True]


# ---- The stack ----------------------------------------------------------------------------------


def test_add_and_pop():
    model = tg.Sequential(name="m")
    model.add(layers.Input((5, 2)))
    model.add(layers.LSTM(3, name="a", return_sequences=True))
    model.add(layers.LSTM(4, name="b"))
    assert [w.path for w in model.weights][3] == "m/b/lstm_cell/kernel"
    assert model.pop().name == "b"
    assert model.output_shape == (None, 5, 3)
    model.add(layers.Dense(2))
    assert model(np.zeros((1, 5, 2))).shape == (1, 5, 2)
    assert model.get_layer("a") is model.get_layer(index=0)


def test_config_round_trip():
    model = article(tg, "GRU")
    again = tg.Sequential.from_config(json.loads(json.dumps(model.get_config())))
    assert json.dumps(again.get_config()) == json.dumps(model.get_config())
    again.set_weights(model.get_weights())
    x, _ = series(3)
    assert np.array_equal(again.predict(x, verbose=0), model.predict(x, verbose=0))
    model.compile(tg.optimizers.Adam(0.01), tg.losses.Huber(), metrics=["mae"])
    again.compile(**{**model.get_compile_config(), "jit_compile": False})
    assert again.optimizer.get_config()["learning_rate"] == pytest.approx(0.01)


def test_models_in_models():
    x, y = series(16)
    inner = tg.Sequential([layers.Input((10, 1)), layers.LSTM(3, return_sequences=True)], name="in")
    model = tg.Sequential([layers.Input((10, 1)), inner, layers.GRU(2), layers.Dense(1)])
    flat = tg.Sequential(
        [
            layers.Input((10, 1)),
            layers.LSTM(3, return_sequences=True),
            layers.GRU(2),
            layers.Dense(1),
        ]
    )
    flat.set_weights(model.get_weights())
    for one in (model, flat):
        one.compile("adam", "mse")
        one.fit(x, y, shuffle=False, epochs=2, verbose=0)
    assert same(model.get_weights(), flat.get_weights())


def test_masks_go_through_models_in_models():
    def stack(nest):
        inner = [layers.Masking(), layers.GRU(3, return_sequences=True)]
        if nest:
            inner = [tg.Sequential([layers.Input((10, 1)), *inner])]
        return tg.Sequential([layers.Input((10, 1)), *inner, layers.LSTM(2), layers.Dense(1)])

    x, _ = series(6)
    x[2:, 4:] = 0
    nested, flat = set_weights(stack(True)), set_weights(stack(False))
    assert np.array_equal(nested.predict(x, verbose=0), flat.predict(x, verbose=0))


class Scale(layers.Layer):
    """A user's layer that can be trained."""

    def build(self, input_shape):
        self.factor = self.add_weight((input_shape[-1],), "ones", name="factor")

    def call(self, inputs, training=False):
        self.inputs = inputs
        return inputs * self.factor

    def backward(self, d_outputs):
        axes = tuple(range(d_outputs.ndim - 1))
        self.factor.add_gradient((d_outputs * self.inputs).sum(axis=axes))
        return d_outputs * self.factor


class Doubled(layers.Layer):
    """A user's layer that runs forward only."""

    def call(self, inputs):
        return inputs * 2


def test_users_layers_train_if_they_can():
    x, y = series(32)
    model = tg.Sequential(
        [layers.Input((10, 1)), Scale(), layers.LSTM(3), Scale(name="last"), layers.Dense(1)]
    )
    model.compile("adam", "mse")
    losses = model.fit(x, y, epochs=4, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    assert all(np.all(layer.factor.value != 1) for layer in (model.layers[0], model.layers[2]))

    model = tg.Sequential([layers.Input((10, 1)), layers.LSTM(3), Doubled(), layers.Dense(1)])
    assert model.output_shape == (None, 1)
    model.compile("adam", "mse")
    before = model.get_weights()
    with pytest.raises(ValueError, match=r"Layer 'doubled.*' \(Doubled\): expected a method"):
        model.fit(x, y, verbose=0)
    assert same(before, model.get_weights())
    assert model.predict(x, verbose=0).shape == (32, 1)
    # Below the first layer with weights nothing needs a gradient.
    model = tg.Sequential([layers.Input((10, 1)), Doubled(), layers.LSTM(3), layers.Dense(1)])
    model.compile("adam", "mse")
    model.fit(x, y, verbose=0)


def test_what_is_frozen_stays():
    x, y = series(16)
    model = small(optimizer="adam")
    model.layers[0].trainable = False
    before = model.layers[0].get_weights()
    model.fit(x, y, verbose=0)
    assert same(before, model.layers[0].get_weights())
    assert len(model.trainable_weights) == 2
    assert len(model.non_trainable_weights) == 3


def test_nan_comes_out_as_nan():
    x, y = series(8)
    x[2, 3] = np.nan
    model = small()
    out = model.predict(x, verbose=0)[:, 0]
    assert np.isnan(out[2])
    assert np.isfinite(np.delete(out, 2)).all()
    assert np.isnan(model.fit(x, y, verbose=0).history["loss"][0])
