"""tidegate itself, called as its layers call it."""

from __future__ import annotations

from typing import Any

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

    def outputs_only(result: Any) -> Arrays:
        return {"outputs": result[0]}

    if problem.task == "training":

        def train() -> tuple[Any, Any]:
            # The weights change at every training step, so packing them is part of the task.
            outputs, _, context = pack().forward_training(x)
            return outputs, context.backward(d_outputs)

        return train, lambda result: {"outputs": result[0], **_weights_and_inputs(result[1])}

    packed = pack()
    if problem.task == "step":
        state = packed.forward(x)[1]
        return lambda: packed.forward(x, state), outputs_only
    return lambda: packed.forward(x), outputs_only


def _weights_and_inputs(gradients: dict[str, Any]) -> Arrays:
    return {key: gradients[key] for key in ("inputs", "kernel", "recurrent_kernel", "bias")}
