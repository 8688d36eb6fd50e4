"""ONNX Runtime: one LSTM, GRU or RNN node, the sequence time-major as ONNX stores it."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..problems import STATES, Arrays, Problem, reorder_gates
from . import Prepared, Unsupported

NAME = "ONNX Runtime"
# Operator, and its gate order in terms of Keras's (ONNX's LSTM has i o f c).
_OPERATORS = {
    "lstm": ("LSTM", (0, 3, 1, 2)),
    "gru": ("GRU", (0, 1, 2)),
    "gru_reset_before": ("GRU", (0, 1, 2)),
    "simple_rnn": ("RNN", (0,)),
}
_STATE_NAMES = ("h", "c")


def environment(threads: int, variant: str) -> dict[str, str]:
    return {}


def version() -> str:
    import onnx
    import onnxruntime

    return f"{onnxruntime.__version__} (onnx {onnx.__version__})"


def onnx_model(problem: Problem, arrays: Arrays) -> bytes:
    """The problem as serialised ONNX: X (time, batch, features) -> Y (time, 1, batch, units).

    For the task `step` the states go in and come out as well.
    """
    from onnx import TensorProto, checker, helper, numpy_helper

    if problem.cell not in _OPERATORS:
        raise Unsupported(f"no {problem.cell}")
    if problem.task in ("training", "fit"):
        raise Unsupported("inference only")
    operator, order = _OPERATORS[problem.cell]
    _, batch, time, features, units = problem.shape
    bias = arrays["bias"]
    rows = bias if bias.ndim == 2 else np.stack([bias, np.zeros_like(bias)])
    constants = {
        "W": reorder_gates(arrays["kernel"], order).T[None],
        "R": reorder_gates(arrays["recurrent_kernel"], order).T[None],
        "B": reorder_gates(rows, order).reshape(1, -1),
    }
    states = _STATE_NAMES[: STATES[problem.cell]] if problem.task == "step" else ()

    def info(name: str, *size: int) -> Any:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, size)

    extra: dict[str, Any] = {}
    if operator == "GRU":
        extra["linear_before_reset"] = int(problem.cell == "gru")
    node = helper.make_node(
        operator,
        ["X", "W", "R", "B", *([""] if states else []), *(f"{name}_in" for name in states)],
        ["Y", *(f"{name}_out" for name in states)],
        hidden_size=units,
        **extra,
    )
    graph = helper.make_graph(
        [node],
        problem.cell,
        [info("X", time, batch, features)]
        + [info(f"{name}_in", 1, batch, units) for name in states],
        [info("Y", time, 1, batch, units)]
        + [info(f"{name}_out", 1, batch, units) for name in states],
        [
            numpy_helper.from_array(np.ascontiguousarray(value), name)
            for name, value in constants.items()
        ],
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8, producer_name="tidegate"
    )
    checker.check_model(model)
    return model.SerializeToString()


def time_major(x: np.ndarray) -> np.ndarray:
    """(batch, time, features) as (time, batch, features)."""
    return np.ascontiguousarray(x.swapaxes(0, 1))


def outputs_of(y: np.ndarray) -> Arrays:
    """ONNX's Y (time, 1, batch, units) as outputs (batch, time, units)."""
    return {"outputs": np.asarray(y)[:, 0].swapaxes(0, 1)}


def step_feeds(problem: Problem, arrays: Arrays, run: Any) -> dict[str, np.ndarray]:
    """Inputs of one step whose states come out of a first one from zero states.

    `run(feeds)` returns the model's outputs in order.
    """
    names = _STATE_NAMES[: STATES[problem.cell]]
    zeros = np.zeros((1, problem.shape.batch, problem.shape.units), np.float32)
    feeds = {"X": time_major(arrays["x"]), **{f"{name}_in": zeros for name in names}}
    _, *states = run(feeds)
    return feeds | {
        f"{name}_in": np.array(state) for name, state in zip(names, states, strict=True)
    }


def prepare(problem: Problem, arrays: Arrays) -> Prepared:
    model = onnx_model(problem, arrays)
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = problem.threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    if problem.task == "step":
        feeds = step_feeds(problem, arrays, lambda inputs: session.run(None, inputs))
        return lambda: session.run(None, feeds), lambda result: outputs_of(result[0])
    feeds = {"X": time_major(arrays["x"])}
    return lambda: session.run(None, feeds), lambda result: outputs_of(result[0])
