"""What is timed: named shapes, cells and tasks, their data and the work they amount to."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import NamedTuple

import numpy as np

Arrays = dict[str, np.ndarray]

TASKS = {
    "inference": "every output of a sequence",
    "training": "forward and backward: packing, outputs, gradients of inputs and of every weight",
    "fit": "an epoch of `fit`: two layers and Dense(1), Adam, mean squared error, 32 batches",
    "step": "one time step from Python with the state carried along",
}
EPOCH = 32  # batches
# Gates per cell, as Keras names and orders them (`gru` is reset_after=True).
GATES = {
    "lstm": 4,
    "gru": 3,
    "gru_reset_before": 3,
    "simple_rnn": 1,
    "dual_state_gru": 3,
    "coupled_lstm": 3,
}
STATES = {cell: 2 if cell in ("lstm", "dual_state_gru", "coupled_lstm") else 1 for cell in GATES}


class Shape(NamedTuple):
    """A named problem size."""

    name: str
    batch: int
    time: int
    features: int
    units: int

    @property
    def is_step(self) -> bool:
        return self.batch == self.time == 1


@cache
def shapes() -> dict[str, Shape]:
    """The named shapes of shapes.txt, in its order."""
    table = {}
    for line in resources.files(__package__).joinpath("shapes.txt").read_text().splitlines():
        fields = line.split()
        if fields and not line.startswith("#"):
            table[fields[0]] = Shape(fields[0], *map(int, fields[1:5]))
    return table


@dataclass(frozen=True)
class Problem:
    """One cell on one shape, with one task, on a number of threads."""

    cell: str
    shape: Shape
    task: str
    threads: int

    @property
    def flops(self) -> float:
        """Multiplications and additions of the matrix products; backward has two for each."""
        _, batch, time, features, units = self.shape
        if self.task == "fit":
            # Three products of each kernel, but none for the gradient of the first layer's inputs.
            rows = 2 * features + 3 * units + 3 * (units + units)
            return EPOCH * batch * (2.0 * GATES[self.cell] * units * rows * time + 6 * units)
        forward = 2.0 * GATES[self.cell] * units * (features + units) * batch * time
        return 3 * forward if self.task == "training" else forward

    @property
    def recurrent_bytes(self) -> int:
        """Size of the float32 recurrent kernel, read once a step (twice with backward)."""
        return 4 * GATES[self.cell] * self.shape.units**2

    @property
    def passes(self) -> int:
        """How often the recurrent kernel is read, at least."""
        calls = {"training": 2, "fit": EPOCH * 2 * 2}  # backward, too; layers
        return self.shape.time * calls.get(self.task, 1)

    def arrays(self) -> Arrays:
        """Weights in Keras's layout, x (batch, time, features) and d_outputs (batch, time, units).

        For `fit` the weights of the whole model in its order, x of an epoch and y (samples, 1).

        float32, the same in every process: contestants make their own copy from the seed.
        """
        _, batch, time, features, units = self.shape
        columns = GATES[self.cell] * units
        random = np.random.default_rng(7)

        def draw(scale: float, *size: int) -> np.ndarray:
            return (scale * random.uniform(-1, 1, size)).astype(np.float32)

        bound = float(np.sqrt(1 / units))
        bias_shape = (2, columns) if self.cell == "gru" else (columns,)

        def layer(features: int) -> Arrays:
            return {
                "kernel": draw(bound, features, columns),
                "recurrent_kernel": draw(bound, units, columns),
                "bias": draw(bound, *bias_shape),
            }

        if self.task == "fit":
            x = draw(1.0, EPOCH * batch, time, features)
            return {
                **layer(features),
                **{f"{name}_2": array for name, array in layer(units).items()},
                "dense_kernel": draw(bound, units, 1),
                "dense_bias": draw(bound, 1),
                "x": x,
                "y": x.mean(axis=(1, 2))[:, None],
            }
        return {
            **layer(features),
            "x": draw(1.0, batch, time, features),
            "d_outputs": draw(1.0, batch, time, units),
        }

    def tolerance(self) -> float:
        """How far a float32 result may lie from float64, relative to the array's largest value.

        Rounding errors of a sum of n terms grow like sqrt(n); the longest sums are over inputs and
        state or, for weight gradients, over steps and rows. The factor leaves room for coarser
        activation functions; a different task (another gate order, say) is off by far more.
        """
        _, batch, time, features, units = self.shape
        longest = max(features + units, batch * time)
        return 64 * float(np.finfo(np.float32).eps) * float(np.sqrt(longest))


def reorder_gates(array: np.ndarray, order: tuple[int, ...]) -> np.ndarray:
    """Blocks of the last axis, one per gate, put in another order."""
    blocks = np.split(array, len(order), axis=-1)
    return np.ascontiguousarray(np.concatenate([blocks[gate] for gate in order], axis=-1))
