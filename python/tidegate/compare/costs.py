"""Seconds per epoch of each cell in tidegate, Keras and PyTorch: the same training in each.

Every measurement runs in a process of its own, `python -m tidegate.compare.costs NAME CELL`, one
after another, and on one core: on a machine that is busy otherwise, threads that wait for each
other would measure that. `tidegate bench` goes deeper.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

SAMPLES, STEPS, FEATURES, UNITS, BATCH, EPOCHS = 2000, 50, 4, 64, 32, 6
WORKLOAD = (
    f"{SAMPLES} samples, {STEPS} steps, {FEATURES} features, {UNITS} units, batch {BATCH}, one core"
)
CELLS = ("SimpleRNN", "LSTM", "GRU", "DualStateGRU", "CoupledLSTM")
_OWN = ("DualStateGRU", "CoupledLSTM")  # which other frameworks do not have

_ONE_CORE = {"TIDEGATE_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
_PATIENCE = 300  # seconds for one measurement

# A back end of Keras that can train, best first: module -> KERAS_BACKEND.
_KERAS_BACKENDS = {"jax": "jax", "tensorflow": "tensorflow", "torch": "torch"}


def _data() -> tuple[Any, Any]:
    generator = np.random.default_rng(0)
    x = generator.standard_normal((SAMPLES, STEPS, FEATURES), dtype=np.float32)
    return x, x.mean(axis=(1, 2))[:, None]


def _keras_like(module: Any, cell: str) -> tuple[int, Callable[[], Any]]:
    x, y = _data()
    layers = module.layers
    model = module.Sequential(
        [layers.Input((STEPS, FEATURES)), getattr(layers, cell)(UNITS), layers.Dense(1)]
    )
    model.compile(module.optimizers.Adam(), "mse")
    count: int = model.count_params()
    return count, lambda: model.fit(x, y, batch_size=BATCH, epochs=1, verbose=0)


def _torch(cell: str) -> tuple[int, Callable[[], Any]]:
    torch: Any = importlib.import_module("torch")
    x, y = map(torch.from_numpy, _data())
    name = {"SimpleRNN": "RNN"}.get(cell, cell)
    recurrent = getattr(torch.nn, name)(FEATURES, UNITS, batch_first=True)
    dense = torch.nn.Linear(UNITS, 1)
    parameters = [*recurrent.parameters(), *dense.parameters()]
    optimizer = torch.optim.Adam(parameters)

    def epoch() -> None:
        for rows in torch.randperm(SAMPLES).split(BATCH):
            optimizer.zero_grad()
            loss = torch.nn.functional.mse_loss(dense(recurrent(x[rows])[0][:, -1]), y[rows])
            loss.backward()
            optimizer.step()

    return sum(p.numel() for p in parameters), epoch


def _prepare(framework: str, cell: str) -> tuple[int, Callable[[], Any]]:
    if framework == "PyTorch":
        return _torch(cell)
    if framework == "tidegate":
        return _keras_like(importlib.import_module("tidegate"), cell)
    return _keras_like(importlib.import_module("keras"), cell)


def frameworks() -> dict[str, dict[str, str]]:
    """Those that are installed, each with what to add to the environment."""
    found: dict[str, dict[str, str]] = {"tidegate": {}}
    if importlib.util.find_spec("keras"):
        for module, backend in _KERAS_BACKENDS.items():
            if importlib.util.find_spec(module):
                found[f"Keras ({backend})"] = {"KERAS_BACKEND": backend}
                break
    if importlib.util.find_spec("torch"):
        found["PyTorch"] = {}
    return found


def measure() -> Iterator[dict[str, Any]]:
    """For each cell and framework its parameters and the seconds of its fastest epoch."""
    for cell in CELLS:
        for framework, extra in frameworks().items():
            if cell in _OWN and framework != "tidegate":
                continue
            command = [sys.executable, "-m", __name__, framework, cell]
            result: dict[str, Any] = {"cell": cell, "framework": framework}
            try:
                done = subprocess.run(
                    command,
                    capture_output=True,
                    text=True,
                    env={**os.environ, **_ONE_CORE, **extra},
                    check=True,
                    timeout=_PATIENCE,
                )
                result.update(json.loads(done.stdout.splitlines()[-1]))
            except subprocess.TimeoutExpired:
                result["failure"] = f"no result within {_PATIENCE} s"
            except subprocess.CalledProcessError as error:
                result["failure"] = error.stderr.strip().splitlines()[-1]
            yield result


def _main(framework: str, cell: str) -> None:
    if hasattr(os, "sched_setaffinity"):  # Linux; what is imported from here on sees one core
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    parameters, epoch = _prepare(framework, cell)
    seconds = []
    for _ in range(EPOCHS):
        began = time.perf_counter()
        epoch()
        seconds.append(time.perf_counter() - began)
    # The first compiles; a noisy machine only ever adds time.
    print(json.dumps({"parameters": parameters, "seconds": min(seconds[1:])}))


if __name__ == "__main__":
    _main(*sys.argv[1:])
