"""OpenVINO: the ONNX model of onnxruntime.py, compiled for latency in float32."""

from __future__ import annotations

import numpy as np

from ..problems import Arrays, Problem
from . import Prepared
from .onnxruntime import onnx_model, outputs_of, step_feeds, time_major

NAME = "OpenVINO"


def environment(threads: int, variant: str) -> dict[str, str]:
    return {"OPENVINO_TELEMETRY_DISABLE": "1"}


def version() -> str:
    import onnx  # noqa: F401  (builds the model)
    import openvino

    return str(openvino.__version__).split("-", maxsplit=1)[0]


def prepare(problem: Problem, arrays: Arrays) -> Prepared:
    model = onnx_model(problem, arrays)
    import openvino

    core = openvino.Core()
    compiled = core.compile_model(
        core.read_model(model),
        "CPU",
        {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "f32",
            "INFERENCE_NUM_THREADS": problem.threads,
        },
    )
    request = compiled.create_infer_request()

    def run(feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
        results = request.infer(feeds, share_inputs=True, share_outputs=True)
        return [results[port] for port in compiled.outputs]

    if problem.task == "step":
        feeds = step_feeds(problem, arrays, run)
    else:
        feeds = {"X": time_major(arrays["x"])}
    return lambda: run(feeds), lambda result: outputs_of(result[0])
