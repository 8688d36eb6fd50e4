"""The article's program, in the words that Keras and tidegate share: the task `fit` of both."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

from ..problems import Arrays, Problem
from . import Unsupported


def recurrent(layers: Any, cell: str) -> Any:
    """The constructor of a cell's layer in `keras.layers` or `tidegate.layers`."""
    made = {
        "lstm": lambda: layers.LSTM,
        "gru": lambda: layers.GRU,
        "gru_reset_before": lambda: partial(layers.GRU, reset_after=False),
        "simple_rnn": lambda: layers.SimpleRNN,
        "dual_state_gru": lambda: layers.DualStateGRU,
        "coupled_lstm": lambda: layers.CoupledLSTM,
    }[cell]
    try:
        return made()
    except AttributeError:
        raise Unsupported(f"no {cell}") from None


class Program:
    """Two recurrent layers and Dense(1), compiled with Adam and the mean squared error.

    A call is an epoch of `fit` in the order of the samples and returns its loss.

    Args:
        keras: The package `keras`, or `tidegate`.
        problem: Of the task `fit`.
        arrays: Its weights and data.
    """

    def __init__(self, keras: Any, problem: Problem, arrays: Arrays) -> None:
        x = arrays["x"]
        layer = partial(
            recurrent(keras.layers, problem.cell), problem.shape.units, dtype=x.dtype.name
        )
        self._model = keras.Sequential(
            [
                keras.layers.Input(x.shape[1:], dtype=x.dtype.name),
                layer(return_sequences=True),
                layer(),
                keras.layers.Dense(1, dtype=x.dtype.name),
            ]
        )
        self._model.set_weights([array for name, array in arrays.items() if name not in ("x", "y")])
        self._model.compile(optimizer="adam", loss="mean_squared_error")
        self._callback = keras.callbacks.Callback
        self._fit = partial(
            self._model.fit, x, arrays["y"], batch_size=problem.shape.batch, verbose=0
        )

    def __call__(self) -> float:
        return float(self._fit(shuffle=False).history["loss"][-1])

    def burst(self, seconds: float) -> list[float]:
        """The seconds of consecutive epochs of one `fit`, without the one it starts with."""
        times: list[float] = []
        clock = time.perf_counter
        end = clock() + seconds

        class Clock(self._callback):  # type: ignore[name-defined]
            def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
                self._start = clock()

            def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
                now = clock()
                times.append(now - self._start)
                self.model.stop_training = len(times) > 1 and now >= end

        self._fit(epochs=10**6, callbacks=[Clock()])
        return times[1:]
