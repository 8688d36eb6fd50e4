"""One run: a network trained on a task from a seed, and everything about it that is reported."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from typing import Any

import numpy as np

import tidegate

from ..analysis import gradient_flow
from ..callbacks import Callback
from ..utils import clear_session, set_random_seed
from . import networks
from .networks import NETWORKS
from .tasks import Array, Data, Task, tasks

_FLOW_SAMPLES = 64
_FLOW_POINTS = 100  # time steps of a gradient flow that are kept


@dataclass(frozen=True, order=True)
class Run:
    """What identifies a run."""

    task: str
    network: str
    units: int
    seed: int
    full: bool = False

    @property
    def key(self) -> str:
        """A file name."""
        effort = "full" if self.full else "quick"
        return f"{self.task}.{self.network}.{self.units}.{self.seed}.{effort}"


@lru_cache(maxsize=64)
def find_task(name: str, full: bool) -> Task:
    """The task of that name; the quick study's, or the full one's."""
    family = name.rpartition("-")[0] if "-" in name else name
    return next(task for task in tasks(full, (family,)) if task.name == name)


def settings(run: Run) -> dict[str, Any]:
    """All that the result of a run depends on; an old result with others is not used."""
    task = find_task(run.task, run.full)
    values = {f.name: getattr(task, f.name) for f in fields(task) if f.name != "load"}
    return {**asdict(run), **values, "clip": networks.CLIP, "version": tidegate.__version__}


def score(task: Task, data: Data, part: str, predicted: Array) -> tuple[float, float]:
    """What weights are chosen by (the loss), and the error in the unit of the task's metric."""
    y = data.y[part]
    predicted = predicted.astype(np.float64)
    if task.kind in ("sum", "forecast"):
        mean_square = float(np.mean((predicted - y) ** 2))
        if task.kind == "sum":
            return mean_square, mean_square
        return mean_square, float(np.sqrt(mean_square)) * data.scale
    shifted = predicted - predicted.max(axis=1, keepdims=True)
    logarithms = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    entropy = -float(np.mean(logarithms[np.arange(len(y)), y]))
    if task.kind == "symbols":
        return entropy, entropy / float(np.log(2))
    return entropy, 100 * float(np.mean(predicted.argmax(axis=1) != y))


class _Watch(Callback):
    """Scores every epoch, keeps the best weights and says when to stop."""

    def __init__(self, task: Task, data: Data, x: Array) -> None:
        super().__init__()
        self.task, self.data, self.x = task, data, x
        self.curve: list[float] = []
        self.seconds: list[float] = []
        self.best = np.inf
        self.best_epoch = 0
        self.best_weights: list[Array] = []
        self.diverged = False
        self._began = 0.0

    def on_train_begin(self, logs: Any = None) -> None:
        self.best_weights = self.model.get_weights()

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._began = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.seconds.append(time.perf_counter() - self._began)
        predicted = self.model.predict(self.x, batch_size=500, verbose=0)
        loss, error = score(self.task, self.data, "validation", predicted)
        self.curve.append(error)
        if loss < self.best:
            self.best, self.best_epoch = loss, epoch
            self.best_weights = self.model.get_weights()
        patience, solved = self.task.patience, self.task.solved
        self.diverged = not np.isfinite(loss)
        waited = patience is not None and epoch - self.best_epoch >= patience
        if self.diverged or waited or (solved is not None and error <= solved):
            self.model.stop_training = True


def _rounded(values: Array) -> list[float]:
    """Evenly spaced over time, no more digits than a plot shows, and nothing JSON cannot hold."""
    values = np.nan_to_num(values, nan=0.0, posinf=1e300)
    chosen = np.unique(np.linspace(0, len(values) - 1, _FLOW_POINTS).round().astype(int))
    return [float(f"{value:.4g}") for value in values[chosen]]


def _flow(model: Any, x: Array, y: Array) -> dict[str, Any]:
    """Norms of dLoss/dh_t, their change per step over all states, and the largest |h_t|."""
    (flow,) = gradient_flow(model, x[:_FLOW_SAMPLES], y[:_FLOW_SAMPLES]).values()
    return {
        "norms": _rounded(flow.hidden),
        "factor": flow.factor if np.isfinite(flow.factor) else None,
        "largest": _rounded(flow.largest[0]),
        "largest_cell": _rounded(flow.largest[-1]),
    }


def execute(run: Run) -> dict[str, Any]:
    """Trains and scores; all numbers but the times depend on the run's settings alone.

    Raises:
        Unavailable: The data are not on this machine.
    """
    task = find_task(run.task, run.full)
    network = NETWORKS[run.network]
    data = task.load(run.seed)
    steps = networks.steps(network, task)
    x = {part: np.ascontiguousarray(values[:, -steps:]) for part, values in data.x.items()}
    clear_session()
    set_random_seed(run.seed)
    model = networks.build(network, task, run.units)
    flows = {}
    if network.recurrent:
        flows["start"] = _flow(model, x["test"], data.y["test"])
    watch = _Watch(task, data, x["validation"])
    with np.errstate(over="ignore", invalid="ignore"):  # to diverge is a result, too
        model.fit(
            x["train"],
            data.y["train"],
            batch_size=task.batch_size,
            epochs=task.epochs,
            verbose=0,
            callbacks=[watch],
        )
    model.set_weights(watch.best_weights)
    learned = bool(np.isfinite(watch.best))
    if network.recurrent:
        flows["trained"] = _flow(model, x["test"], data.y["test"])
    _, error = score(task, data, "test", model.predict(x["test"], batch_size=500, verbose=0))
    return {
        "settings": settings(run),
        "parameters": model.count_params(),
        "error": error if learned else None,
        "validation_error": watch.curve[watch.best_epoch] if learned else None,
        "curve": [value if np.isfinite(value) else None for value in watch.curve],
        "best_epoch": watch.best_epoch,
        "diverged": watch.diverged,
        "baselines": data.baselines,
        "source": data.source,
        "flow": flows,
        # The fastest: whatever else the machine does only adds time.
        "seconds_per_epoch": min(watch.seconds),
    }
