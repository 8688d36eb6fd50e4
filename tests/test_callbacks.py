"""Callbacks: each beside Keras's own, through the same epochs on a stand-in for the model."""

import csv
import io
import math
import os
import pickle
import re
import sys
import types
import warnings

import numpy as np
import pytest

os.environ.setdefault("KERAS_BACKEND", "numpy")
import keras

from tidegate import callbacks, metrics, optimizers, utils

NAN = math.nan


class StandIn:
    """What callbacks need of a model: its weights are the number of steps it was trained."""

    def __init__(self, rate=0.5):
        self.optimizer = types.SimpleNamespace(learning_rate=rate)
        self.metrics = []
        self.stop_training = False
        self.steps = 0
        self.events = []

    def get_weights(self):
        return [np.array(self.steps)]

    def set_weights(self, weights):
        self.steps = int(weights[0])
        self.events.append(f"set_weights {self.steps}")

    def save(self, path, overwrite=True):
        self.events.append(f"save {os.path.basename(path)} {self.steps}")
        with open(path, "w") as file:
            file.write(str(self.steps))

    def save_weights(self, path, overwrite=True):
        self.events.append("weights only")
        self.save(path)


def train(callback_list, model, epochs, batches=3):
    """The loop of `fit` over given logs; returns what happened."""
    callback_list.on_train_begin()
    logs = {}
    for epoch, given in enumerate(epochs):
        logs = dict(given)
        callback_list.on_epoch_begin(epoch)
        for batch in range(batches):
            callback_list.on_train_batch_begin(batch)
            model.steps += 1
            callback_list.on_train_batch_end(batch, {"loss": logs.get("loss", 0.0)})
            if model.stop_training:
                break
        callback_list.on_epoch_end(epoch, logs)
        model.events.append(f"epoch {epoch} rate {float(model.optimizer.learning_rate):.9g}")
        if model.stop_training:
            break
    callback_list.on_train_end(logs)
    return model.events


def both(name, settings, epochs, capsys, tmp_path, monkeypatch):
    """Events, history, output and warnings of this package's callback, and of Keras's."""
    outcomes = []
    for module in (callbacks, keras.callbacks):
        folder = tmp_path / module.__name__
        folder.mkdir()
        monkeypatch.chdir(folder)
        model = StandIn()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            callback = getattr(module, name)(**settings)
            callback_list = module.CallbackList(
                [callback], add_history=True, model=model, epochs=len(epochs), steps=3
            )
            for _ in range(2):  # a callback may be used again
                model.stop_training = False
                events = list(train(callback_list, model, epochs))
        messages = [str(w.message) for w in caught]
        history = sorted(model.history.history.items())
        outcomes.append((events, str(history), capsys.readouterr().out, messages))
    return outcomes


def losses_of(*values):
    return [{"loss": value, "val_loss": value} for value in values]


EPOCHS = {
    "falling": losses_of(1.0, 0.8, 0.6, 0.5, 0.45, 0.41),
    "flat": losses_of(1.0, 0.8, 0.9, 0.8, 0.85, 0.7, 0.75, 0.74, 0.73, 0.72),
    "odd": losses_of(1.0, NAN, 0.5, math.inf, 0.4, 0.6, 0.7),
    "infinite": losses_of(1.0, math.inf, 2.0),
    "rising": [{"loss": 1.0, "val_mae": x} for x in (0.1, 0.3, 0.2, 0.25, 0.4, 0.1, 0.2)],
}
STOPPING = [
    {},
    {"patience": 1},
    {"patience": 2, "restore_best_weights": True, "verbose": 1},
    {"patience": 2, "min_delta": 0.15, "restore_best_weights": True},
    {"patience": 2, "baseline": 0.75},
    {"patience": 1, "start_from_epoch": 3, "verbose": 1, "restore_best_weights": True},
    {"monitor": "val_mae", "mode": "max", "patience": 1, "restore_best_weights": True},
    {"monitor": "val_mae", "mode": "min", "patience": 2},
    {"monitor": "nothing", "mode": "min"},
    {"mode": "sideways"},
]
PLATEAUS = [
    {"patience": 1, "verbose": 1},
    {"patience": 2, "factor": 0.5},
    {"patience": 1, "cooldown": 2, "factor": 0.5},
    {"patience": 1, "min_lr": 0.2, "factor": 0.3, "verbose": 1},
    {"patience": 1, "min_delta": 0.3},
    {"monitor": "nothing", "mode": "min"},
]
CHECKPOINTS = [
    {"filepath": "a-{epoch:02d}-{val_loss:.2f}.keras", "mode": "min"},
    {"filepath": "a.keras", "save_best_only": True, "verbose": 1},
    {"filepath": "sub/{epoch}.weights.h5", "save_weights_only": True, "verbose": 1},
    {"filepath": "b-{epoch}-{batch}.keras", "save_freq": 2},
    {"filepath": "b-{epoch}-{batch}.keras", "save_freq": 4},
    {"filepath": "c.keras", "save_best_only": True, "initial_value_threshold": 0.7, "verbose": 1},
    {"filepath": "d.keras", "save_best_only": True, "monitor": "nothing", "mode": "max"},
]
SCHEDULERS = [
    {"schedule": lambda epoch, rate: rate / 2, "verbose": 1},
    {"schedule": lambda epoch: 0.5 / (epoch + 1)},
]
CASES = [
    *[("EarlyStopping", i, e) for i in range(len(STOPPING)) for e in EPOCHS],
    *[("ReduceLROnPlateau", i, e) for i in range(len(PLATEAUS)) for e in EPOCHS],
    *[("ModelCheckpoint", i, e) for i in range(len(CHECKPOINTS)) for e in ("falling", "flat")],
    *[("LearningRateScheduler", i, "falling") for i in range(len(SCHEDULERS))],
    *[("TerminateOnNaN", 0, e) for e in EPOCHS],
]
SETTINGS = {
    "EarlyStopping": STOPPING,
    "ReduceLROnPlateau": PLATEAUS,
    "ModelCheckpoint": CHECKPOINTS,
    "LearningRateScheduler": SCHEDULERS,
    "TerminateOnNaN": [{}],
}


@pytest.mark.parametrize(("name", "settings", "epochs"), CASES)
def test_callbacks_do_what_those_of_keras_do(name, settings, epochs, capsys, tmp_path, monkeypatch):
    chosen = SETTINGS[name][settings]
    mine, judged = both(name, chosen, EPOCHS[epochs], capsys, tmp_path, monkeypatch)
    assert mine == judged


def test_csv_logger_writes_the_lines_of_keras(tmp_path):
    epochs = [{"loss": 1.5, "mae": 1.0}, {"loss": 0.25}, {"loss": 0.125, "val_loss": NAN, "mae": 2}]
    for settings in ({}, {"separator": ";"}, {"append": True}):
        texts = []
        for module in (callbacks, keras.callbacks):
            path = tmp_path / f"{module.__name__}.csv"
            for _ in range(2):
                train(module.CSVLogger(str(path), **settings), StandIn(), epochs)
            texts.append(path.read_bytes())
        assert texts[0] == texts[1]
        assert texts[0].count(b"epoch") == 1
    path = tmp_path / "while_training.csv"
    logger = callbacks.CSVLogger(path)
    logger.on_train_begin()
    logger.on_epoch_end(0, {"loss": 1.0, "shape": np.arange(2)})
    assert next(csv.DictReader(path.read_text().splitlines()))["loss"] == "1.0"
    pickle.loads(pickle.dumps(logger)).on_train_end()
    logger.on_train_end()


def test_history_records_numbers_and_epochs():
    model = StandIn()
    listed = callbacks.CallbackList([], add_history=True, model=model)
    train(listed, model, EPOCHS["falling"][:2])
    train(listed, model, [{"loss": 0.1}])
    assert model.history is listed.callbacks[0]
    assert model.history.history == {"loss": [1.0, 0.8, 0.1], "val_loss": [1.0, 0.8]}
    assert model.history.epoch == [0]


class Recorder(callbacks.Callback):
    def __init__(self, events):
        super().__init__()
        self.events = events

    def on_epoch_end(self, epoch, logs=None):
        self.events.append(("epoch", epoch, logs["loss"], self.model, self.params["epochs"]))

    def on_batch_end(self, batch, logs=None):
        self.events.append(("batch", batch))


def test_callbacks_of_users_are_called_under_both_names():
    events, model = [], StandIn()
    counted = callbacks.LambdaCallback(
        on_train_begin=lambda logs: events.append("begin"),
        on_train_batch_begin=lambda batch, logs: events.append(("start", batch)),
        on_test_end=lambda logs: events.append("test"),
    )
    listed = callbacks.CallbackList([[Recorder(events)], counted], model=model, epochs=1)
    train(listed, model, [{"loss": 2.0}], batches=2)
    for name in ("test", "predict"):
        getattr(listed, f"on_{name}_begin")()
        getattr(listed, f"on_{name}_batch_begin")(0)
        getattr(listed, f"on_{name}_batch_end")(0)
        getattr(listed, f"on_{name}_end")()
    expected = ["begin"]
    for batch in range(2):
        expected += [("start", batch), ("batch", batch)]
    assert events == [*expected, ("epoch", 0, 2.0, model, 1), "test"]
    with pytest.raises(TypeError, match="callbacks: expected Callback objects"):
        callbacks.CallbackList([print])


def test_the_direction_of_a_number_comes_from_its_metric():
    model = StandIn()
    model.metrics = [metrics.MeanAbsoluteError(name="mae"), metrics.BinaryAccuracy(name="acc")]
    for monitor, values, best in [("val_acc", (0.1, 0.9, 0.5), 3), ("mae", (0.9, 0.1, 0.5), 3)]:
        stopping = callbacks.EarlyStopping(monitor, patience=1, restore_best_weights=True)
        model.steps, model.stop_training = 0, False
        listed = callbacks.CallbackList([stopping], model=model)
        train(listed, model, [{monitor: value} for value in values], batches=1)
        assert model.steps == best - 1
        assert stopping.stopped_epoch == 2
    for cls in (callbacks.EarlyStopping, callbacks.ReduceLROnPlateau):
        unknown = cls("val_unknown")
        unknown.set_model(model)
        with pytest.raises(ValueError, match="isn't able to automatically determine"):
            unknown.on_epoch_end(0, {"val_unknown": 1.0})


def test_rates_of_real_optimizers():
    model = StandIn()
    model.optimizer = optimizers.Adam(0.5)
    plateau = callbacks.ReduceLROnPlateau(patience=1, factor=0.5)
    listed = callbacks.CallbackList([plateau], add_history=True, model=model)
    train(listed, model, losses_of(1.0, 1.0, 0.5, 0.5))
    assert model.history.history["learning_rate"] == [0.5, 0.5, 0.25, 0.25]
    assert float(model.optimizer.learning_rate) == 0.125
    model.optimizer = optimizers.SGD(optimizers.schedules.CosineDecay(0.1, 10))
    with pytest.raises(TypeError, match="not settable"):
        train(listed, model, losses_of(1.0, 1.0))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: callbacks.ReduceLROnPlateau(factor=1.0), "factor >= 1.0"),
        (lambda: callbacks.ModelCheckpoint("a.h5", save_weights_only=True), ".weights.h5"),
        (lambda: callbacks.ModelCheckpoint("a.txt"), "must end in `.keras`"),
        (lambda: callbacks.ModelCheckpoint("a.keras", save_freq="batch"), "Unrecognized save_freq"),
    ],
)
def test_wrong_arguments(make, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        make()


def test_errors_while_training(tmp_path):
    scheduler = callbacks.LearningRateScheduler(lambda epoch, rate: "fast")
    scheduler.set_model(StandIn())
    with pytest.raises(ValueError, match=r"should be a float\. Got: fast"):
        scheduler.on_epoch_begin(0)
    stopper = callbacks.TerminateOnNaN(raise_error=True)
    with pytest.raises(RuntimeError, match="encountered at batch 3"):
        stopper.on_train_batch_end(3, {"loss": NAN})
    checkpoint = callbacks.ModelCheckpoint(str(tmp_path / "{nothing}.keras"))
    checkpoint.set_model(StandIn())
    with pytest.raises(KeyError, match="Failed to format this callback filepath"):
        checkpoint.on_epoch_end(0, {"loss": 1.0})
    (tmp_path / "folder.keras").mkdir()
    checkpoint = callbacks.ModelCheckpoint(tmp_path / "folder.keras")
    checkpoint.set_model(StandIn())
    with pytest.raises(OSError, match="non-directory filepath"):
        checkpoint.on_epoch_end(0, {"loss": 1.0})


# ---- What is shown -------------------------------------------------------------------------------


class Terminal(io.TextIOWrapper):
    def __init__(self, encoding="utf-8", terminal=True):
        super().__init__(io.BytesIO(), encoding=encoding, write_through=True)
        self.terminal = terminal

    def isatty(self):
        return self.terminal

    def text(self):
        return self.buffer.getvalue().decode(self.encoding)


def show(
    module, verbose, monkeypatch, epochs=EPOCHS["falling"][:2], terminal=True, encoding="utf-8"
):
    """What a training writes."""
    stream = Terminal(encoding, terminal)
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", stream)
        model = StandIn()
        listed = module.CallbackList(
            [], add_progbar=True, model=model, epochs=len(epochs), steps=3, verbose=verbose
        )
        train(listed, model, epochs)
    return stream.text()


def steady(text):
    """Without what depends on the clock, and how often the line was redrawn."""
    text = re.sub(r"\d+(us|ms|s)/step", "TIME", text)
    lines = text.replace("\b", "").replace("\r\n", "\n").split("\n")
    return [line.split("\r")[-1].rstrip() for line in lines]


@pytest.mark.parametrize("verbose", [0, 1, 2])
@pytest.mark.parametrize(
    "epochs", [EPOCHS["falling"][:1], EPOCHS["falling"][:2], [{"loss": 1e-5, "mae": -2.0}]]
)
def test_a_terminal_shows_what_keras_shows(verbose, epochs, monkeypatch):
    mine = show(callbacks, verbose, monkeypatch, epochs)
    judged = show(keras.callbacks, verbose, monkeypatch, epochs)
    assert steady(mine) == steady(judged)
    if verbose == 1:
        assert "\x1b[1m3/3\x1b[0m \x1b[32m━━━━━━━━━━━━━━━━━━━━\x1b[0m" in mine


def test_without_a_terminal_there_is_a_line_per_epoch(monkeypatch):
    automatic = show(callbacks, "auto", monkeypatch, terminal=False)
    assert steady(automatic) == steady(show(callbacks, 2, monkeypatch))
    assert steady(automatic)[:2] == [
        "Epoch 1/2",
        "3/3 - 0s - TIME - loss: 1.0000 - val_loss: 1.0000",
    ]
    bar = show(callbacks, 1, monkeypatch, terminal=False)
    assert "\x1b" not in bar
    assert "\r" not in bar
    assert bar.count("━" * 20) == 2
    assert "\x1b[32m" in show(callbacks, "auto", monkeypatch)


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_other_encodings_do_not_stop_a_training(encoding, monkeypatch):
    assert "=" * 20 in show(callbacks, 1, monkeypatch, encoding=encoding)
    monkeypatch.setattr(sys, "stdout", None)
    utils.print_message("nowhere")


def test_evaluate_and_predict_have_bars_of_their_own(monkeypatch):
    stream = Terminal()
    monkeypatch.setattr(sys, "stdout", stream)
    listed = callbacks.CallbackList([], add_progbar=True, epochs=1, steps=None, verbose=1)
    for name in ("test", "predict"):
        getattr(listed, f"on_{name}_begin")()
        for batch in range(2):
            getattr(listed, f"on_{name}_batch_end")(batch, {"loss": 0.5})
        getattr(listed, f"on_{name}_end")({"loss": 0.5})
    shown = steady(stream.text())
    assert re.search(r"2/2.* TIME - loss: 0.5000$", shown[0])
    assert re.search(r"2/2.* TIME$", shown[1])
    assert "1/Unknown" in stream.text()


def test_a_narrow_terminal_never_wraps_while_running(monkeypatch):
    monkeypatch.setenv("COLUMNS", "50")
    stream = Terminal()
    monkeypatch.setattr(sys, "stdout", stream)
    bar = utils.Progbar(4, interval=0.0)
    for step in range(1, 5):
        bar.update(step, {f"metric_{i}": 0.5 for i in range(6)}, finalize=step == 4)
    *running, last = re.sub(r"\x1b\[\d+m", "", stream.text()).strip().split("\r")
    assert len(running) == 3
    assert all(len(line) < 50 for line in running)
    assert "metric_5: 0.5000" in last


@pytest.mark.parametrize(
    ("seconds", "expected"), [(5, "5s"), (61, "1:01"), (3600, "60:00"), (3700, "1:01:40")]
)
def test_remaining_time(seconds, expected):
    assert utils._format_duration(seconds) == expected
