"""Which runs a study consists of, running them side by side, and keeping their results."""

from __future__ import annotations

import csv
import io
import json
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from .. import set_num_threads
from . import networks
from .networks import Network
from .runs import Run, execute, settings
from .tasks import Array, Task, Unavailable

SIZINGS = {"parameters": "equal parameters", "units": "equal units"}


@dataclass(frozen=True)
class Entry:
    """The runs, over the seeds, of one network on one task at one size."""

    task: Task
    network: Network
    sizing: str
    units: int
    results: tuple[dict[str, Any], ...]

    def _each(self, value: Callable[[dict[str, Any]], Any]) -> Array:
        """A number per seed; what diverged counts as infinite."""
        found = [value(result) for result in self.results]
        return np.array([np.inf if number is None else number for number in found])

    @property
    def errors(self) -> Array:
        """Test errors, one per seed."""
        return self._each(lambda result: result["error"])

    @property
    def validation_errors(self) -> Array:
        """Validation errors, one per seed."""
        return self._each(lambda result: result["validation_error"])

    @property
    def median(self) -> float:
        """The median of the test errors."""
        return float(np.median(self.errors))

    @property
    def rank(self) -> tuple[float, float]:
        """What entries are sorted by: the median error, then the largest."""
        return self.median, float(self.errors.max())

    @property
    def parameters(self) -> int:
        """How many numbers are trained."""
        return int(self.results[0]["parameters"])

    @property
    def epochs(self) -> Array:
        """For how long each seed was trained."""
        return self._each(lambda result: len(result["curve"]))

    @property
    def seconds_per_epoch(self) -> float:
        """The fastest epoch of all seeds."""
        return float(np.min(self._each(lambda result: result["seconds_per_epoch"])))

    @property
    def baselines(self) -> dict[str, float]:
        """Median errors of the obvious answers."""
        return {
            name: float(np.median([result["baselines"][name] for result in self.results]))
            for name in self.results[0]["baselines"]
        }

    @property
    def best_baseline(self) -> float:
        """The lowest of them."""
        return min(self.baselines.values())

    def factors(self, when: str) -> Array:
        """By what the gradient changes per step back in time, one per seed; `when` as in `flow`."""
        return self._each(lambda result: result["flow"][when]["factor"])

    def largest(self, when: str, state: str = "largest") -> Array:
        """The largest |h| (or `"largest_cell"`) at each step, the largest of the seeds'."""
        return np.max([result["flow"][when][state] for result in self.results], axis=0)


@dataclass(frozen=True)
class Study:
    """All results, and what could not be run and why."""

    entries: tuple[Entry, ...]
    missing: dict[str, str]  # by task
    seeds: int

    def select(
        self,
        task: str | None = None,
        network: str | None = None,
        sizing: str | None = None,
        family: str | None = None,
        variants: bool = False,
    ) -> list[Entry]:
        """The entries that match; those of variants only if wanted."""
        return [
            entry
            for entry in self.entries
            if task in (None, entry.task.name)
            and network in (None, entry.network.name)
            and sizing in (None, entry.sizing)
            and family in (None, entry.task.family)
            and (variants or entry.network.variant_of is None)
        ]

    @property
    def tasks(self) -> list[Task]:
        """The tasks that have results, in order."""
        return list({entry.task.name: entry.task for entry in self.entries}.values())


@dataclass(frozen=True)
class Plan:
    """What a study runs."""

    tasks: tuple[Task, ...]
    networks: tuple[Network, ...]
    seeds: int
    full: bool

    def groups(self) -> Iterator[tuple[Task, Network, str, list[Run]]]:
        """The runs of each entry; the same run may belong to two.

        Variants only run where memory is what matters, at the size of the others' units.
        """
        for task in self.tasks:
            for network in self.networks:
                if not networks.suits(network, task) or (network.variant_of and not task.lag):
                    continue
                for sizing, units in networks.sizes(network, task).items():
                    if network.variant_of and sizing != "units":
                        continue
                    runs = [
                        Run(task.name, network.name, units, seed, self.full)
                        for seed in range(self.seeds)
                    ]
                    yield task, network, sizing, runs

    def runs(self) -> list[Run]:
        """Each run once, first seeds first, so that an interrupted study covers all tasks."""
        unique = dict.fromkeys(run for *_, runs in self.groups() for run in runs)
        return sorted(unique, key=lambda run: run.seed)

    def study(self, results: dict[Run, dict[str, Any]], missing: dict[str, str]) -> Study:
        """The results in order; what has not all its seeds is left out."""
        entries = [
            Entry(task, network, sizing, runs[0].units, tuple(results[run] for run in runs))
            for task, network, sizing, runs in self.groups()
            if all(run in results for run in runs)
        ]
        return Study(tuple(entries), missing, self.seeds)


# ---- Files ---------------------------------------------------------------------------------------


def write_atomically(path: Path, content: str | bytes) -> None:
    """Writes a file that is there as a whole or not at all, whenever the process ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    data = content.encode() if isinstance(content, str) else content
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


class Store:
    """A file per finished run, so that a later call goes on where this one ended."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def _path(self, run: Run) -> Path:
        return self.folder / f"{run.key}.json"

    def load(self, run: Run) -> dict[str, Any] | None:
        """The run's result, if it is there and was made with the same settings."""
        try:
            result = json.loads(self._path(run).read_text())
        except (OSError, ValueError):
            return None
        wanted = json.loads(json.dumps(settings(run)))
        return result if isinstance(result, dict) and result.get("settings") == wanted else None

    def save(self, run: Run, result: dict[str, Any]) -> None:
        """Keeps the run's result."""
        write_atomically(self._path(run), json.dumps(result, indent=1) + "\n")


_TIMES = ("seconds_per_epoch",)


def write_results(folder: Path, results: dict[Run, dict[str, Any]]) -> list[Path]:
    """results.json and results.csv, which repeat bit for bit, and timings.csv, which does not."""
    ordered = sorted(results.items(), key=lambda item: item[0])
    whole = [
        {name: value for name, value in result.items() if name not in _TIMES}
        for _, result in ordered
    ]
    paths = [folder / name for name in ("results.json", "results.csv", "timings.csv")]
    write_atomically(paths[0], json.dumps(whole, indent=1) + "\n")
    columns = ("parameters", "error", "validation_error", "best_epoch", "diverged")
    for path, chosen in ((paths[1], columns), (paths[2], _TIMES)):
        rows = []
        for run, result in ordered:
            row = {**asdict(run), **{name: result[name] for name in chosen}}
            if path is paths[1]:
                row["epochs"] = len(result["curve"])
                row["baseline"] = min(result["baselines"].values())
            rows.append(row)
        write_atomically(path, _csv(rows))
    return paths


def _csv(rows: Sequence[dict[str, Any]]) -> str:
    if not rows:
        return ""
    file = io.StringIO()
    writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()


# ---- Running -------------------------------------------------------------------------------------


def _prepare_worker() -> None:
    """One thread each, as there are as many workers as cores; and no life after the parent's."""
    set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all; the parent decides
    parent = multiprocessing.parent_process()
    assert parent is not None

    def end_with_parent() -> None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()


def perform(
    runs: Iterable[Run],
    store: Store,
    jobs: int,
    started: Callable[[list[Run]], None],
    finished: Callable[[Run], None],
) -> tuple[dict[Run, dict[str, Any]], dict[str, str]]:
    """Runs what is not in the store yet, and stores each result at once.

    Args:
        runs: What to run.
        store: Where results are kept.
        jobs: How many processes run side by side; 1 is this process alone.
        started: Called with the runs in progress when they change.
        finished: Called after each run, also those that were in the store.

    Returns:
        All results, and for each task that could not be run the reason.

    Raises:
        OSError: A result cannot be written, or a process was killed.
    """
    results: dict[Run, dict[str, Any]] = {}
    missing: dict[str, str] = {}
    waiting = []
    for run in runs:
        found = store.load(run)
        if found is None:
            waiting.append(run)
        else:
            results[run] = found
            finished(run)

    def keep(run: Run, result: Callable[[], dict[str, Any]]) -> None:
        try:
            results[run] = result()
            store.save(run, results[run])
        except Unavailable as reason:
            missing[run.task] = str(reason)
        finished(run)

    if jobs == 1 or len(waiting) < 2:
        for run in waiting:
            if run.task in missing:
                finished(run)
                continue
            started([run])
            keep(run, partial(execute, run))
        return results, missing
    # Spawned, not forked: a fork copies the locks of other libraries' threads as they are.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(min(jobs, len(waiting)), context, _prepare_worker)
    try:
        waiting.reverse()
        active: dict[Future[dict[str, Any]], Run] = {}
        while waiting or active:
            while waiting and len(active) < jobs:
                run = waiting.pop()
                if run.task in missing:
                    finished(run)
                else:
                    active[pool.submit(execute, run)] = run
            started(list(active.values()))
            for future in wait(active, return_when=FIRST_COMPLETED).done:
                keep(active.pop(future), future.result)
        pool.shutdown()
    except BaseException as error:
        pool.shutdown(wait=False, cancel_futures=True)
        for process in multiprocessing.active_children():
            process.terminate()
        if isinstance(error, BrokenProcessPool):
            raise OSError("a process ended unexpectedly; the same command goes on") from error
        raise
    return results, missing
