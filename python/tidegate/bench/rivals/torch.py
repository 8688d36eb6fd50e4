"""PyTorch: `torch.nn.LSTM`, `GRU`, `RNN` in eager mode; their cells for the single step."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..problems import Arrays, Problem, reorder_gates
from . import Prepared, Unsupported

NAME = "PyTorch"
# Gate order of PyTorch, and back, in terms of Keras's (i f c o; z r h).
_ORDER = {"lstm": (0, 1, 2, 3), "gru": (1, 0, 2), "simple_rnn": (0,)}


def environment(threads: int, variant: str) -> dict[str, str]:
    return {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}


def version() -> str:
    import torch

    return str(torch.__version__)


def prepare(problem: Problem, arrays: Arrays) -> Prepared:
    import torch

    if problem.cell not in _ORDER:
        raise Unsupported(f"no {problem.cell}")
    if problem.task == "fit":
        raise Unsupported("no training loop")
    torch.set_num_threads(problem.threads)
    order = _ORDER[problem.cell]
    step = problem.task == "step"
    names = {
        "lstm": ("LSTM", "LSTMCell"),
        "gru": ("GRU", "GRUCell"),
        "simple_rnn": ("RNN", "RNNCell"),
    }[problem.cell]
    shape = problem.shape
    if step:
        module = getattr(torch.nn, names[1])(shape.features, shape.units)
    else:
        module = getattr(torch.nn, names[0])(shape.features, shape.units, batch_first=True)
    suffix = "" if step else "_l0"
    bias = arrays["bias"] if problem.cell == "gru" else np.stack([arrays["bias"]] * 2)
    bias = bias * (1 if problem.cell == "gru" else np.array([[1], [0]], np.float32))
    values = {
        "weight_ih": reorder_gates(arrays["kernel"], order).T,
        "weight_hh": reorder_gates(arrays["recurrent_kernel"], order).T,
        "bias_ih": reorder_gates(bias[0], order),
        "bias_hh": reorder_gates(bias[1], order),
    }
    parameters = {name: getattr(module, name + suffix) for name in values}
    with torch.no_grad():
        for name, value in values.items():
            parameters[name].copy_(torch.from_numpy(np.ascontiguousarray(value)))

    x = torch.from_numpy(arrays["x"])
    if problem.task == "training":
        x.requires_grad_(True)
        d_outputs = torch.from_numpy(arrays["d_outputs"])
        leaves = [x, *parameters.values()]

        def train() -> Any:
            outputs, _ = module(x)
            return outputs, torch.autograd.grad(outputs, leaves, d_outputs)

        def gradients(result: Any) -> Arrays:
            outputs, (d_x, *rest) = result
            d = {
                name: reorder_gates(gradient.numpy().T, order)
                for name, gradient in zip(values, rest, strict=True)
            }
            both = np.stack([d["bias_ih"], d["bias_hh"]])
            return {
                "outputs": outputs.detach().numpy(),
                "inputs": d_x.numpy(),
                "kernel": d["weight_ih"],
                "recurrent_kernel": d["weight_hh"],
                "bias": both if problem.cell == "gru" else both[0],
            }

        return train, gradients

    if step:
        x = x[:, 0]
        with torch.inference_mode():
            state = module(x)

        def call_step() -> Any:
            with torch.inference_mode():
                return module(x, state)

        def step_outputs(result: Any) -> Arrays:
            h = result[0] if isinstance(result, tuple) else result
            return {"outputs": h.numpy()[:, None]}

        return call_step, step_outputs

    def infer() -> Any:
        with torch.inference_mode():
            return module(x)

    return infer, lambda result: {"outputs": result[0].numpy()}
