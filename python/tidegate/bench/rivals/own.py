"""tidegate itself, called as its layers call it."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from tidegate import _core

from ..problems import Arrays, Problem
from . import Prepared

NAME = "tidegate"


def environment(threads: int) -> dict[str, str]:
    return {"TIDEGATE_NUM_THREADS": str(threads)}


def version() -> str:
    import tidegate

    return tidegate.__version__


def describe() -> dict[str, Any]:
    """Instruction set, threads and build of the engine that was timed."""
    return _core.config()


def prepare(problem: Problem, arrays: Arrays) -> Prepared:
    x, d_outputs = arrays["x"], arrays["d_outputs"]

    def pack() -> _core.Recurrent:
        return _core.Recurrent(
            problem.cell, arrays["kernel"], arrays["recurrent_kernel"], arrays["bias"]
        )

    if problem.task == "training":

        def train() -> tuple[Any, Any]:
            # The weights change at every training step, so packing them is part of the task.
            outputs, _, context = pack().forward_training(x)
            return outputs, context.backward(d_outputs)

        return train, lambda result: {"outputs": result[0], **_weights_and_inputs(result[1])}

    if problem.task == "step":
        stream = _stream(problem, arrays)
        frame = np.ascontiguousarray(x[:, 0])
        out = np.empty((problem.shape.batch, problem.shape.units), x.dtype)
        return lambda: stream.step(frame, out), lambda y: {"outputs": y[:, None].copy()}

    packed = pack()
    return lambda: packed.forward(x), lambda result: {"outputs": result[0]}


def _stream(problem: Problem, arrays: Arrays) -> Any:
    from tidegate import Sequential, layers

    units, dtype = problem.shape.units, arrays["x"].dtype.name
    make: dict[str, Any] = {
        "lstm": layers.LSTM,
        "gru": layers.GRU,
        "gru_reset_before": partial(layers.GRU, reset_after=False),
        "simple_rnn": layers.SimpleRNN,
        "dual_state_gru": layers.DualStateGRU,
        "coupled_lstm": layers.CoupledLSTM,
    }
    layer = make[problem.cell](units, dtype=dtype)
    model = Sequential([layers.Input((None, problem.shape.features), dtype=dtype), layer])
    layer.set_weights([arrays[key] for key in ("kernel", "recurrent_kernel", "bias")])
    return model.stream(problem.shape.batch)


def _weights_and_inputs(gradients: dict[str, Any]) -> Arrays:
    return {key: gradients[key] for key in ("inputs", "kernel", "recurrent_kernel", "bias")}
