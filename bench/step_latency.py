"""One time step of an LSTM from Python, each call timed: tidegate's stream beside ONNX Runtime.

python bench/step_latency.py [STEPS]
"""

import sys
import time

import numpy as np

import tidegate as tg
from tidegate.bench.problems import Problem, Shape
from tidegate.bench.rivals import onnxruntime as rival


def percentiles(step, steps):
    """p50, p99, p99.9 and the longest of `steps` calls, in microseconds."""
    times = np.empty(steps)
    for _ in range(steps // 10):
        step()
    clock = time.perf_counter_ns
    for i in range(steps):
        start = clock()
        step()
        times[i] = clock() - start
    return [*np.percentile(times, [50, 99, 99.9]) / 1000, times.max() / 1000]


def own_step(units, arrays):
    layer = tg.layers.LSTM(units)
    model = tg.Sequential([tg.layers.Input((None, units)), layer])
    layer.set_weights([arrays[name] for name in ("kernel", "recurrent_kernel", "bias")])
    stream, x, y = model.stream(), arrays["x"][:, 0].copy(), np.empty((1, units), np.float32)
    return lambda: stream.step(x, out=y)


def onnx_step(problem, arrays):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(rival.onnx_model(problem, arrays), options)
    feeds = {"X": rival.time_major(arrays["x"])}
    feeds |= {f"{name}_in": np.zeros((1, 1, problem.shape.units), np.float32) for name in "hc"}
    return lambda: session.run(None, feeds)


def main():
    steps = int(sys.argv[1]) if len(sys.argv) > 1 else 50000
    print(f"{'microseconds':30}{'p50':>8}{'p99':>8}{'p99.9':>8}{'longest':>10}")
    for units in (8, 32, 64, 128, 256):
        problem = Problem("lstm", Shape("", 1, 1, units, units), "step", 1)
        arrays = problem.arrays()
        for name, step in (
            ("tidegate", own_step(units, arrays)),
            ("ONNX Runtime", onnx_step(problem, arrays)),
        ):
            row = percentiles(step, steps if units < 128 else steps // 5)
            print(
                f"LSTM {units:3}: {name:20}"
                + "".join(f"{v:8.1f}" for v in row[:3])
                + f"{row[3]:10.1f}"
            )


if __name__ == "__main__":
    main()
