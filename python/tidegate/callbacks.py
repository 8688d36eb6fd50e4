"""What happens besides training: Keras's callbacks, called in Keras's order with its logs.

A callback is a subclass of `Callback` that overrides some of its methods. Within them `self.model`
is the model and `self.params` holds `epochs`, `steps` and `verbose`. Logs are dicts of floats:
those at the end of a batch hold the means since the epoch began. A callback may add to the logs at
the end of an epoch, and `History` then records that too.
"""

from __future__ import annotations

import contextlib
import csv
import math
import os
import warnings
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from .utils import Progbar, print_message, resolve_verbose

__all__ = [
    "CSVLogger",
    "Callback",
    "CallbackList",
    "EarlyStopping",
    "History",
    "LambdaCallback",
    "LearningRateScheduler",
    "ModelCheckpoint",
    "ProgbarLogger",
    "ReduceLROnPlateau",
    "TerminateOnNaN",
]

Logs = dict[str, Any]


class Callback:
    """Base class: every method does nothing until it is overridden."""

    def __init__(self) -> None:
        self.params: dict[str, Any] = {}
        self._model: Any = None

    @property
    def model(self) -> Any:
        """The model that is being trained, evaluated or asked."""
        return self._model

    def set_model(self, model: Any) -> None:
        """Called by `fit`, `evaluate` and `predict` before anything else."""
        self._model = model

    def set_params(self, params: dict[str, Any]) -> None:
        """Called by `fit`, `evaluate` and `predict` with `epochs`, `steps` and `verbose`."""
        self.params = params

    def on_train_begin(self, logs: Logs | None = None) -> None:
        """When `fit` starts."""

    def on_train_end(self, logs: Logs | None = None) -> None:
        """When `fit` ends; `logs` are those of the last epoch."""

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        """When an epoch starts; they count from 0."""

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """When an epoch ends; `logs` include those of the validation, named `val_...`."""

    def on_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        """Another name of `on_train_batch_begin`."""

    def on_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """Another name of `on_train_batch_end`."""

    def on_train_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        """When a training step starts; they count from 0 in each epoch."""
        self.on_batch_begin(batch, logs)

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """When a training step ends."""
        self.on_batch_end(batch, logs)

    def on_test_begin(self, logs: Logs | None = None) -> None:
        """When `evaluate`, or a validation within `fit`, starts."""

    def on_test_end(self, logs: Logs | None = None) -> None:
        """When `evaluate`, or a validation within `fit`, ends."""

    def on_test_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        """When a batch of an evaluation starts."""

    def on_test_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """When a batch of an evaluation ends."""

    def on_predict_begin(self, logs: Logs | None = None) -> None:
        """When `predict` starts."""

    def on_predict_end(self, logs: Logs | None = None) -> None:
        """When `predict` ends."""

    def on_predict_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        """When a batch of `predict` starts."""

    def on_predict_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """When a batch of `predict` ends."""


# Another name is a call through: who overrides it overrides the method that calls it.
_OTHER_NAMES = {
    "on_train_batch_begin": "on_batch_begin",
    "on_train_batch_end": "on_batch_end",
}


def _overrides(callback: Callback, name: str) -> bool:
    method = getattr(callback, name)
    if getattr(method, "__func__", method) is not getattr(Callback, name):
        return True
    return name in _OTHER_NAMES and _overrides(callback, _OTHER_NAMES[name])


class CallbackList(Callback):
    """Several callbacks as one.

    It calls only the methods that a callback overrides, so that an unused one costs nothing per
    step. All get the same copy of the logs, in the order of the names and as Python floats.

    Args:
        callbacks: A callback, an iterable of them (or of such), or None.
        add_history: Whether to append a `History` if there is none.
        add_progbar: Whether to append a `ProgbarLogger` if there is none.
        model: Passed to all.
        params: Passed to all.

    Raises:
        TypeError: Something is no callback.
    """

    def __init__(
        self,
        callbacks: Any = None,
        add_history: bool = False,
        add_progbar: bool = False,
        model: Any = None,
        **params: Any,
    ) -> None:
        super().__init__()
        self.callbacks: list[Callback] = list(_flatten(callbacks))
        self._history = next((c for c in self.callbacks if isinstance(c, History)), None)
        if self._history is None and add_history:
            self._history = History()
            self.callbacks.append(self._history)
        if add_progbar and not any(isinstance(c, ProgbarLogger) for c in self.callbacks):
            self.callbacks.append(ProgbarLogger())
        if model is not None:
            self.set_model(model)
        self.set_params(params)
        self._methods: dict[str, list[Callable[..., None]]] = {}

    def append(self, callback: Callback) -> None:
        """Adds one more."""
        self.callbacks.append(callback)
        self._methods.clear()

    def set_params(self, params: dict[str, Any]) -> None:
        """Passes `params`, unless empty, to all."""
        self.params = params
        if params:
            for callback in self.callbacks:
                callback.set_params(params)

    def set_model(self, model: Any) -> None:
        """Passes `model` to all, and makes the history its own."""
        super().set_model(model)
        if self._history is not None:
            model.history = self._history
        for callback in self.callbacks:
            callback.set_model(model)

    def _call(self, name: str, *args: Any, logs: Logs | None) -> None:
        methods = self._methods.get(name)
        if methods is None:
            methods = [getattr(c, name) for c in self.callbacks if _overrides(c, name)]
            self._methods[name] = methods
        if not methods:
            return
        logs = _python_logs(logs)
        for method in methods:
            method(*args, logs)

    def on_train_begin(self, logs: Logs | None = None) -> None:
        """Calls all."""
        self._methods.clear()  # a callback may have got a method since
        self._call("on_train_begin", logs=logs)

    def on_train_end(self, logs: Logs | None = None) -> None:
        """Calls all."""
        self._call("on_train_end", logs=logs)

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        """Calls all."""
        self._call("on_epoch_begin", epoch, logs=logs)

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Calls all."""
        self._call("on_epoch_end", epoch, logs=logs)

    def on_train_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        """Calls all."""
        self._call("on_train_batch_begin", batch, logs=logs)

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """Calls all."""
        self._call("on_train_batch_end", batch, logs=logs)

    def on_test_begin(self, logs: Logs | None = None) -> None:
        """Calls all."""
        self._call("on_test_begin", logs=logs)

    def on_test_end(self, logs: Logs | None = None) -> None:
        """Calls all."""
        self._call("on_test_end", logs=logs)

    def on_test_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        """Calls all."""
        self._call("on_test_batch_begin", batch, logs=logs)

    def on_test_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """Calls all."""
        self._call("on_test_batch_end", batch, logs=logs)

    def on_predict_begin(self, logs: Logs | None = None) -> None:
        """Calls all."""
        self._call("on_predict_begin", logs=logs)

    def on_predict_end(self, logs: Logs | None = None) -> None:
        """Calls all."""
        self._call("on_predict_end", logs=logs)

    def on_predict_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        """Calls all."""
        self._call("on_predict_batch_begin", batch, logs=logs)

    def on_predict_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """Calls all."""
        self._call("on_predict_batch_end", batch, logs=logs)


def _python_logs(logs: Logs | None) -> Logs:
    result = dict(sorted(logs.items())) if logs else {}
    for name, value in result.items():
        with contextlib.suppress(TypeError, ValueError):
            result[name] = float(value)
    return result


def _flatten(callbacks: Any) -> Iterable[Callback]:
    if callbacks is None:
        return
    if isinstance(callbacks, list | tuple):
        for item in callbacks:
            yield from _flatten(item)
    elif isinstance(callbacks, Callback):
        yield callbacks
    else:
        raise TypeError(f"callbacks: expected Callback objects, got {callbacks!r}")


class History(Callback):
    """Records the logs of each epoch; `fit` adds and returns one.

    Attributes:
        history: Name -> list of one number per epoch (that had it).
        epoch: The numbers of the epochs, which count from 0.
    """

    def __init__(self) -> None:
        super().__init__()
        self.history: dict[str, list[Any]] = {}
        self.epoch: list[int] = []

    def on_train_begin(self, logs: Logs | None = None) -> None:
        """Starts a new list of epochs."""
        self.epoch = []

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Records `logs`."""
        self.epoch.append(epoch)
        for name, value in (logs or {}).items():
            self.history.setdefault(name, []).append(value)
        self.model.history = self


class ProgbarLogger(Callback):
    """Shows progress as `verbose` says: 1 a bar, 2 a line per epoch, 0 nothing.

    `"auto"` is a bar where a line can be redrawn, else a line per epoch. A validation within `fit`
    shows nothing of its own.
    """

    def __init__(self) -> None:
        super().__init__()
        self.verbose = 1
        self.epochs = 1
        self.target: int | None = None
        self._seen = 0
        self._progbar: Progbar | None = None
        self._in_fit = False

    def set_params(self, params: dict[str, Any]) -> None:
        """Takes `verbose`, `epochs` and `steps`."""
        super().set_params(params)
        self.verbose = resolve_verbose(params.get("verbose", "auto"))
        self.epochs = params.get("epochs") or 1
        self.target = params.get("steps")

    def on_train_begin(self, logs: Logs | None = None) -> None:
        """Notes that evaluations are part of `fit` from now on."""
        self._in_fit = True

    def on_train_end(self, logs: Logs | None = None) -> None:
        """Notes that they no longer are."""
        self._in_fit = False

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        """Starts a bar, below a headline if there are several epochs."""
        self._start()
        if self.verbose and self.epochs > 1:
            print_message(f"Epoch {epoch + 1}/{self.epochs}")

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Ends the bar."""
        self._finish(logs)

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """Moves the bar."""
        self._update(batch, logs)

    def on_test_begin(self, logs: Logs | None = None) -> None:
        """Starts a bar, if not within `fit`."""
        if not self._in_fit:
            self._start()

    def on_test_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """Moves the bar, if not within `fit`."""
        if not self._in_fit:
            self._update(batch, logs)

    def on_test_end(self, logs: Logs | None = None) -> None:
        """Ends the bar, if not within `fit`."""
        if not self._in_fit:
            self._finish(logs)

    def on_predict_begin(self, logs: Logs | None = None) -> None:
        """Starts a bar."""
        self._start()

    def on_predict_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """Moves the bar."""
        self._update(batch, None)

    def on_predict_end(self, logs: Logs | None = None) -> None:
        """Ends the bar."""
        self._finish(None)

    def _start(self) -> None:
        self._seen = 0
        self._progbar = Progbar(self.target, self.verbose)

    def _update(self, batch: int, logs: Logs | None) -> None:
        self._seen = batch + 1
        if self._progbar is not None:
            self._progbar.update(self._seen, logs if self.verbose == 1 else None)

    def _finish(self, logs: Logs | None) -> None:
        if self._progbar is None:
            return
        if self.target is None:
            self.target = self._progbar.target = self._seen
        self._progbar.update(self.target, logs, finalize=True)


class LambdaCallback(Callback):
    """A callback made of functions.

    Args:
        on_epoch_begin: `f(epoch, logs)`, or None; and so on for the other methods of `Callback`,
            which are taken by name.
    """

    def __init__(
        self,
        on_epoch_begin: Callable[..., Any] | None = None,
        on_epoch_end: Callable[..., Any] | None = None,
        on_train_begin: Callable[..., Any] | None = None,
        on_train_end: Callable[..., Any] | None = None,
        on_train_batch_begin: Callable[..., Any] | None = None,
        on_train_batch_end: Callable[..., Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__()
        functions = {
            "on_epoch_begin": on_epoch_begin,
            "on_epoch_end": on_epoch_end,
            "on_train_begin": on_train_begin,
            "on_train_end": on_train_end,
            "on_train_batch_begin": on_train_batch_begin,
            "on_train_batch_end": on_train_batch_end,
            **kwargs,
        }
        for name, function in functions.items():
            if function is not None:
                setattr(self, name, function)


class TerminateOnNaN(Callback):
    """Ends training when the loss becomes NaN or infinite.

    Args:
        raise_error: Whether to raise RuntimeError instead.
    """

    def __init__(self, raise_error: bool = False) -> None:
        super().__init__()
        self.raise_error = raise_error

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """Looks at the loss."""
        loss = (logs or {}).get("loss")
        if loss is None or math.isfinite(loss):
            return
        if self.raise_error:
            raise RuntimeError(
                f"NaN or Inf loss encountered at batch {batch}. "
                f"Loss value: {loss}. Terminating training immediately."
            )
        print_message(f"Batch {batch}: Invalid loss, terminating training")
        self.model.stop_training = True


class LearningRateScheduler(Callback):
    """Sets the learning rate at the beginning of each epoch, and logs it as `learning_rate`.

    Args:
        schedule: `f(epoch, learning_rate)` (or `f(epoch)`), which returns a float.
        verbose: 1 prints each setting.
    """

    def __init__(self, schedule: Callable[..., Any], verbose: int = 0) -> None:
        super().__init__()
        self.schedule = schedule
        self.verbose = verbose

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        """Sets the learning rate. Raises ValueError if the schedule returns no float."""
        optimizer = self.model.optimizer
        if not hasattr(optimizer, "learning_rate"):
            raise ValueError('Optimizer must have a "learning_rate" attribute.')
        try:
            rate = self.schedule(epoch, float(optimizer.learning_rate))
        except TypeError:
            rate = self.schedule(epoch)
        if not isinstance(rate, float | np.floating):
            raise ValueError(
                f"The output of the `schedule` function should be a float. Got: {rate}"
            )
        optimizer.learning_rate = rate
        if self.verbose > 0:
            print_message(
                f"\nEpoch {epoch + 1}: LearningRateScheduler setting learning rate to {rate}."
            )

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Adds the learning rate to `logs`."""
        if logs is not None:
            logs["learning_rate"] = float(self.model.optimizer.learning_rate)


class CSVLogger(Callback):
    """Writes the logs of each epoch to a CSV file: `epoch`, then the names in order.

    Each line is on the disk when its epoch ends. Values that an epoch lacks are written as `NA`.

    Args:
        filename: Path of the file.
        separator: Between the columns.
        append: Whether to add to an existing file, instead of replacing it.
    """

    def __init__(
        self, filename: str | os.PathLike[str], separator: str = ",", append: bool = False
    ) -> None:
        super().__init__()
        self.filename = os.fspath(filename)
        self.sep = separator
        self.append = append
        self._file: Any = None
        self._names: list[str] | None = None
        self._headline = True

    def on_train_begin(self, logs: Logs | None = None) -> None:
        """Opens the file."""
        self._close()
        self._names = None
        self._headline = True
        if self.append:
            with contextlib.suppress(FileNotFoundError):
                self._headline = os.path.getsize(self.filename) == 0
        mode = "a" if self.append else "w"
        self._file = open(self.filename, mode, newline="", encoding="utf-8")  # noqa: SIM115

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Writes a line."""
        logs = logs or {}
        writer = csv.writer(self._file, delimiter=self.sep)
        if self._names is None:
            self._names = sorted(logs)
            if not any(name.startswith("val_") for name in self._names):
                # A validation may come in a later epoch.
                self._names += [f"val_{name}" for name in self._names]
            if self._headline:
                writer.writerow(["epoch", *self._names])
        writer.writerow([epoch, *(_cell(logs.get(name, "NA")) for name in self._names)])
        self._file.flush()

    def on_train_end(self, logs: Logs | None = None) -> None:
        """Closes the file."""
        self._close()

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_file": None}


def _cell(value: Any) -> Any:
    if isinstance(value, str) or np.ndim(value) == 0:
        return value
    return f'"[{", ".join(map(str, value))}]"'


class _MonitorCallback(Callback):
    """A callback that watches one number of the logs.

    Args:
        monitor: Its name.
        mode: `"min"`, `"max"` or `"auto"`: down for losses, up for accuracies, as the metric says.
        min_delta: The least change that counts.
    """

    def __init__(self, monitor: str, mode: str, min_delta: float) -> None:
        super().__init__()
        if mode not in ("auto", "min", "max"):
            warnings.warn(
                f"{type(self).__name__} mode '{mode}' is unknown, fallback to auto mode.",
                stacklevel=3,
            )
            mode = "auto"
        self.monitor = monitor
        self.mode = mode
        self.min_delta = abs(min_delta)
        self.best: Any = None
        self._upwards: bool | None = None if mode == "auto" else mode == "max"

    def _set_direction(self) -> None:
        """Finds out which way is better; called once the model's metrics exist."""
        if self._upwards is not None:
            return
        name = self.monitor.removeprefix("val_")
        if name == "loss":
            self._upwards = False
        for metric in _flat_metrics(getattr(self.model, "metrics", ())):
            direction = getattr(metric, "_direction", None)
            if metric.name == name and direction is not None:
                self._upwards = direction == "up"
        if self._upwards is None:
            raise ValueError(
                f"{type(self).__name__} callback received monitor={self.monitor}, but tidegate "
                "isn't able to automatically determine whether that metric should be maximized or "
                "minimized. Pass `mode='max'` in order to monitor based on the highest metric "
                "value, or pass `mode='min'` in order to use the lowest value."
            )

    def _improves(self, value: Any, reference: Any) -> bool:
        if reference is None:
            return True
        if self._upwards:
            return bool(value - self.min_delta > reference)
        return bool(value + self.min_delta < reference)


def _flat_metrics(metrics: Iterable[Any]) -> Iterable[Any]:
    for metric in metrics:
        inner = getattr(metric, "metrics", None)
        if inner is None:
            yield metric
        else:
            yield from _flat_metrics(inner)


class EarlyStopping(_MonitorCallback):
    """Ends training when a number of the logs no longer improves.

    Args:
        monitor: Its name.
        min_delta: The least change that counts as an improvement.
        patience: Epochs without improvement after which training ends (from the second epoch on).
        verbose: 1 prints when it does.
        mode: `"min"`, `"max"` or `"auto"`.
        baseline: If given, the patience starts anew only at improvements that are also better than
            this.
        restore_best_weights: Whether the model gets the weights of the best epoch back when
            training ends, for whatever reason.
        start_from_epoch: Epochs before this one are not looked at.
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        min_delta: float = 0,
        patience: int = 0,
        verbose: int = 0,
        mode: str = "auto",
        baseline: float | None = None,
        restore_best_weights: bool = False,
        start_from_epoch: int = 0,
    ) -> None:
        super().__init__(monitor, mode, min_delta)
        self.patience = patience
        self.verbose = verbose
        self.baseline = baseline
        self.restore_best_weights = restore_best_weights
        self.start_from_epoch = start_from_epoch
        self.wait = 0
        self.stopped_epoch = 0
        self.best_epoch = 0
        self.best_weights: Any = None

    def on_train_begin(self, logs: Logs | None = None) -> None:
        """Starts anew, so that one object serves several calls of `fit`."""
        self.wait = 0
        self.stopped_epoch = 0
        self.best = None
        self.best_epoch = 0
        self.best_weights = None

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Looks at the monitored number."""
        self._set_direction()
        current = self.get_monitor_value(logs)
        if current is None or epoch < self.start_from_epoch:
            return
        self.wait += 1
        if self._improves(current, self.best):
            self.best = current
            self.best_epoch = epoch
            if self.restore_best_weights:
                self.best_weights = self.model.get_weights()
            if self.baseline is None or self._improves(current, self.baseline):
                self.wait = 0
        elif self.wait >= self.patience and epoch > 0:
            self.stopped_epoch = epoch
            self.model.stop_training = True

    def on_train_end(self, logs: Logs | None = None) -> None:
        """Restores the best weights."""
        if self.stopped_epoch > 0 and self.verbose > 0:
            print_message(f"Epoch {self.stopped_epoch + 1}: early stopping")
        if self.restore_best_weights and self.best_weights is not None:
            if self.verbose > 0:
                print_message(
                    "Restoring model weights from the end of the best epoch: "
                    f"{self.best_epoch + 1}."
                )
            self.model.set_weights(self.best_weights)

    def get_monitor_value(self, logs: Logs | None) -> Any:
        """The monitored number, or None with a warning."""
        logs = logs or {}
        value = logs.get(self.monitor)
        if value is None:
            warnings.warn(
                f"Early stopping conditioned on metric `{self.monitor}` which is not available. "
                f"Available metrics are: {','.join(logs)}",
                stacklevel=2,
            )
        return value


class ReduceLROnPlateau(_MonitorCallback):
    """Lowers the learning rate when a number of the logs no longer improves, and logs the rate.

    Args:
        monitor: Its name.
        factor: `new_rate = rate * factor`; less than 1.
        patience: Epochs without improvement after which it does.
        verbose: 1 prints when it does.
        mode: `"min"`, `"max"` or `"auto"`.
        min_delta: The least change that counts as an improvement.
        cooldown: Epochs to wait after a reduction before counting again.
        min_lr: The lowest learning rate.

    Raises:
        ValueError: `factor` is 1 or more.
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        factor: float = 0.1,
        patience: int = 10,
        verbose: int = 0,
        mode: str = "auto",
        min_delta: float = 1e-4,
        cooldown: int = 0,
        min_lr: float = 0.0,
    ) -> None:
        super().__init__(monitor, mode, min_delta)
        if factor >= 1.0:
            raise ValueError(
                f"ReduceLROnPlateau does not support a factor >= 1.0. Received factor={factor}"
            )
        self.factor = factor
        self.patience = patience
        self.verbose = verbose
        self.cooldown = cooldown
        self.min_lr = min_lr
        self.cooldown_counter = 0
        self.wait = 0

    def on_train_begin(self, logs: Logs | None = None) -> None:
        """Starts anew."""
        self.best = None
        self.cooldown_counter = 0
        self.wait = 0

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Looks at the monitored number."""
        self._set_direction()
        logs = {} if logs is None else logs
        optimizer = self.model.optimizer
        rate = float(optimizer.learning_rate)
        logs["learning_rate"] = rate
        current = logs.get(self.monitor)
        if current is None:
            warnings.warn(
                f"Learning rate reduction is conditioned on metric `{self.monitor}` which is not "
                f"available. Available metrics are: {','.join(logs)}.",
                stacklevel=2,
            )
            return
        if self.cooldown_counter > 0:
            self.cooldown_counter -= 1
            self.wait = 0
        if self._improves(current, self.best):
            self.best = current
            self.wait = 0
        elif self.cooldown_counter <= 0:
            self.wait += 1
            if self.wait >= self.patience and rate > np.float32(self.min_lr):
                rate = max(rate * self.factor, self.min_lr)
                optimizer.learning_rate = rate
                if self.verbose > 0:
                    print_message(
                        f"\nEpoch {epoch + 1}: ReduceLROnPlateau reducing learning rate to {rate}."
                    )
                self.cooldown_counter = self.cooldown
                self.wait = 0


class ModelCheckpoint(_MonitorCallback):
    """Saves the model, or its weights, at the end of epochs or every so many steps.

    Saving replaces a file only when the new one is complete, so an interruption leaves the last
    checkpoint intact.

    Args:
        filepath: Path, which may hold fields such as `{epoch:02d}` (from 1), `{batch}` and those of
            the logs, as in `"ck-{epoch:02d}-{val_loss:.2f}.keras"`. Missing folders are made.
        monitor: Name of the number that says which is best.
        verbose: 1 prints what is done.
        save_best_only: Whether to save only after improvements.
        save_weights_only: Whether to save the weights only.
        mode: `"min"`, `"max"` or `"auto"`.
        save_freq: `"epoch"`, or a number of steps, which are counted across epochs.
        initial_value_threshold: If given, the best so far to start with.

    Raises:
        ValueError: The path does not end in `.weights.h5` (weights only) or `.keras`, `.h5`,
            `.safetensors` (the model); or `save_freq` is neither of the two.
    """

    def __init__(
        self,
        filepath: str | os.PathLike[str],
        monitor: str = "val_loss",
        verbose: int = 0,
        save_best_only: bool = False,
        save_weights_only: bool = False,
        mode: str = "auto",
        save_freq: str | int = "epoch",
        initial_value_threshold: float | None = None,
    ) -> None:
        super().__init__(monitor, mode, 0)
        self.filepath = os.fspath(filepath)
        self.verbose = verbose
        self.save_best_only = save_best_only
        self.save_weights_only = save_weights_only
        self.save_freq = save_freq
        self.best = initial_value_threshold
        self._epoch = 0
        self._last_batch: int | None = None
        self._batches_since_save = 0
        if save_freq != "epoch" and not isinstance(save_freq, int):
            raise ValueError(
                f"Unrecognized save_freq: {save_freq}. "
                "Expected save_freq are 'epoch' or integer values"
            )
        if save_weights_only:
            if not self.filepath.endswith(".weights.h5"):
                raise ValueError(
                    "When using `save_weights_only=True` in `ModelCheckpoint`, the filepath "
                    "provided must end in `.weights.h5` (Keras weights format). Received: "
                    f"filepath={self.filepath}"
                )
        elif not self.filepath.endswith((".keras", ".h5", ".safetensors")):
            raise ValueError(
                "The filepath provided must end in `.keras` (Keras model format). Received: "
                f"filepath={self.filepath}"
            )

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        """Notes the epoch."""
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """Saves, if it is time."""
        if self.save_freq == "epoch":
            return
        new_epoch = self._last_batch is None or batch <= self._last_batch
        self._batches_since_save += batch + 1 if new_epoch else batch - (self._last_batch or 0)
        self._last_batch = batch
        if self._batches_since_save >= int(self.save_freq):
            self._batches_since_save = 0
            self._save(self._epoch, batch, logs or {})

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """Saves, if it is time."""
        if self.save_best_only:
            self._set_direction()
        if self.save_freq == "epoch":
            self._save(epoch, None, logs or {})

    def _save(self, epoch: int, batch: int | None, logs: Logs) -> None:
        fields = {"epoch": epoch + 1, **logs}
        if batch is not None:
            fields.setdefault("batch", batch + 1)
        try:
            path = self.filepath.format(**fields)
        except KeyError as error:
            raise KeyError(
                f'Failed to format this callback filepath: "{self.filepath}". Reason: {error}'
            ) from None
        if not self._is_due(epoch, logs, path):
            return
        folder = os.path.dirname(path)
        if folder:
            os.makedirs(folder, exist_ok=True)
        try:
            if self.save_weights_only:
                self.model.save_weights(path, overwrite=True)
            else:
                self.model.save(path, overwrite=True)
        except IsADirectoryError:
            raise OSError(
                "Please specify a non-directory filepath for ModelCheckpoint. "
                f"Filepath used is an existing directory: {path}"
            ) from None
        if self.verbose > 0:
            print_message(f"\nEpoch {epoch + 1}: finished saving model to {path}")

    def _is_due(self, epoch: int, logs: Logs, path: str) -> bool:
        start = f"\nEpoch {epoch + 1}: "
        message = f"saving model to {path}"
        due = True
        if self.save_best_only:
            self._set_direction()
            current = logs.get(self.monitor)
            if current is None:
                warnings.warn(
                    f"Can save best model only with {self.monitor} available.", stacklevel=2
                )
                return True
            best = "None" if self.best is None else f"{self.best:.5f}"
            due = self._improves(current, self.best)
            if due:
                message = f"{self.monitor} improved from {best} to {current:.5f}, {message}"
                self.best = current
            else:
                message = f"{self.monitor} did not improve from {best}"
        if self.verbose > 0:
            print_message(start + message)
        return due
