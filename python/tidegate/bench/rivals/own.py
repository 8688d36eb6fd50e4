"""tidegate itself, called as its layers call it."""

from __future__ import annotations

from typing import Any

import numpy as np

from tidegate import _core

from ..problems import Arrays, Problem
from . import Prepared
from .program import Program, recurrent

NAME = "tidegate"


def environment(threads: int, variant: str) -> dict[str, str]:
    return {"TIDEGATE_NUM_THREADS": str(threads)}


def version() -> str:
    import tidegate

    return tidegate.__version__


def describe() -> dict[str, Any]:
    """Instruction set, threads and build of the engine that was timed."""
    return _core.config()


def prepare(problem: Problem, arrays: Arrays) -> Prepared:
    if problem.task == "fit":
        import tidegate

        return Program(tidegate, problem, arrays), lambda loss: {"loss": np.array([loss])}
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

    dtype = arrays["x"].dtype.name
    layer = recurrent(layers, problem.cell)(problem.shape.units, dtype=dtype)
    model = Sequential([layers.Input((None, problem.shape.features), dtype=dtype), layer])
    layer.set_weights([arrays[key] for key in ("kernel", "recurrent_kernel", "bias")])
    return model.stream(problem.shape.batch)


def _weights_and_inputs(gradients: dict[str, Any]) -> Arrays:
    return {key: gradients[key] for key in ("inputs", "kernel", "recurrent_kernel", "bias")}
