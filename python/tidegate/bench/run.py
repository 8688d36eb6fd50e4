"""The command line of `tidegate bench`: which problems, which contestants, in which order."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from . import machine, report
from .problems import GATES, TASKS, Arrays, Problem, Shape, shapes
from .rivals import CONTESTANTS, own
from .worker import ContestantError, Worker

_RIVALS = [name for name in CONTESTANTS if name != "tidegate"]
_QUICK_SHAPES = ("article", "stream-64", "small", "step-32")


def _names(allowed: Sequence[str]) -> Any:
    def parse(text: str) -> list[str]:
        names = text.split(",")
        for name in names:
            if name not in allowed:
                raise argparse.ArgumentTypeError(
                    f"expected names out of {', '.join(allowed)}, separated by commas, got {name!r}"
                )
        return names

    return parse


def _counts(text: str) -> list[int]:
    counts = [int(part) for part in text.split(",")]
    if min(counts) < 1:
        raise argparse.ArgumentTypeError(f"expected positive thread counts, got {text}")
    return counts


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tidegate bench",
        description="Times tidegate and the frameworks that are installed on the same problems.",
    )
    add = parser.add_argument
    add("--quick", action="store_true", help="a few shapes, about two minutes")
    add("--shapes", type=_names(list(shapes())), help="named shapes (default: all); see --list")
    add("--cells", type=_names(list(GATES)), default=["lstm", "gru"], help="default: lstm,gru")
    add("--tasks", type=_names(list(TASKS)), default=list(TASKS), help="default: all of them")
    add("--threads", type=_counts, help="thread counts (default: 1 and, if there are, 2)")
    add(
        "--rivals",
        type=lambda text: [] if text == "none" else _names(_RIVALS)(text),
        help="default: those that are installed; `none` for tidegate alone",
    )
    add("--seconds", type=float, default=1.0, help="per contestant and problem (default: 1)")
    add("--rounds", type=int, default=5, help="turns that the seconds are split into (default: 5)")
    add("--markdown", type=Path, metavar="FILE", help="write the tables")
    add("--json", type=Path, metavar="FILE", help="write all results")
    add("--plot", type=Path, metavar="FILE", help="write a plot (.png, .svg, .pdf)")
    add("--list", action="store_true", help="list shapes, cells, tasks and rivals")
    return parser


def _problems(arguments: argparse.Namespace, threads: int) -> Iterator[Problem]:
    def suits(task: str, shape: Shape) -> bool:
        if shape.is_step or task == "step":
            # One step is the caller's thread alone, whatever the thread count.
            return shape.is_step and task == "step" and threads == 1
        # An epoch of any other shape takes seconds to minutes: on demand only.
        return task != "fit" or shape.name == "article" or bool(arguments.shapes)

    chosen = arguments.shapes or (_QUICK_SHAPES if arguments.quick else shapes())
    for task in arguments.tasks:
        for cell in arguments.cells:
            for name in chosen:
                if suits(task, shapes()[name]):
                    yield Problem(cell, shapes()[name], task, threads)


def _judge(problem: Problem) -> Arrays:
    """The problem's results by tidegate in float64, which its tests hold against textbook loops."""
    arrays = {name: array.astype(np.float64) for name, array in problem.arrays().items()}
    call, to_numpy = own.prepare(problem, arrays)
    call()
    return to_numpy(call())


def _deviation(results: Arrays, judge: Arrays) -> float:
    """Largest difference over all arrays, relative to each array's largest value."""
    worst = 0.0
    for name, expected in judge.items():
        got = results[name]
        if got.shape != expected.shape:
            raise ContestantError(f"{name}: expected shape {expected.shape}, got {got.shape}")
        difference = float(np.abs(got - expected).max() / np.abs(expected).max())
        worst = max(worst, difference if np.isfinite(difference) else np.inf)
    return worst


def _run_problem(
    problem: Problem, workers: list[Worker], limits: machine.Limits, arguments: argparse.Namespace
) -> report.Row:
    row = report.Row(
        problem,
        limits.least_seconds(problem.flops, problem.recurrent_bytes, problem.passes),
    )
    judge = _judge(problem)
    ready: list[tuple[Worker, float, float, list[float]]] = []
    for worker in workers:
        try:
            prepared = worker.prepare(problem)
            if isinstance(prepared, str):
                continue  # not supported
            results, seconds = prepared
            error = _deviation(results, judge)
            if error > problem.tolerance():
                raise ContestantError(
                    f"results differ from float64 by {error:.2g} of their largest value, "
                    f"expected at most {problem.tolerance():.2g}"
                )
            ready.append((worker, seconds, error, []))
        except ContestantError as failure:
            row.failures[worker.name] = str(failure)
    for turn in range(arguments.rounds):
        first = turn % max(1, len(ready))
        for worker, _, _, times in ready[first:] + ready[:first]:
            times += worker.burst(arguments.seconds / arguments.rounds)
    for worker, seconds, error, times in ready:
        row.timings[worker.name] = report.Timing.of(times, error, seconds)
    return row


def main(argv: Sequence[str] | None = None) -> int:
    """Runs `tidegate bench`; 1 if a contestant failed or gave another result, 0 otherwise."""
    arguments = _parser().parse_args(argv)
    console = Console()
    if not console.is_terminal:
        console = Console(width=180)  # a file has no width; the table needs about this
    if arguments.list:
        for shape in shapes().values():
            console.print(f"{shape.name:12} batch, time, features, units = {shape[1:]}")
        console.print(f"cells: {', '.join(GATES)}; tasks: {', '.join(TASKS)}")
        console.print(f"rivals: {', '.join(_RIVALS)}")
        return 0
    if arguments.quick:
        arguments.seconds = min(arguments.seconds, 0.4)
    counts = arguments.threads or ([1, 2] if (os.cpu_count() or 1) > 1 else [1])
    contestants = ["tidegate", *(_RIVALS if arguments.rivals is None else arguments.rivals)]

    description = machine.describe()
    console.print(f"{description['cpu']}, {description['cpus']} CPUs, {description['caches']}")
    rows: list[report.Row] = []
    versions: dict[str, str] = {}
    limits_found: dict[int, dict[str, Any]] = {}
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), console=console, transient=True) as progress:
        total = sum(len(list(_problems(arguments, threads))) for threads in counts)
        bar = progress.add_task("starting", total=total)
        for threads in counts:
            progress.update(bar, description=f"limits, {threads} threads")
            limits = machine.Limits(threads)
            limits_found[threads] = {
                "fma_flops": limits.peak,
                "read_bytes_per_second": limits.bandwidth,
            }
            with ExitStack() as stack:
                workers = []
                for contestant in contestants:
                    progress.update(bar, description=f"starting {contestant}")
                    worker = stack.enter_context(Worker(contestant, threads))
                    found = worker.version()
                    if found is not None:
                        versions[worker.name] = found
                        workers.append(worker)
                for problem in _problems(arguments, threads):
                    progress.update(
                        bar,
                        description=f"{problem.task} {problem.cell} {problem.shape.name}, "
                        f"{threads} thread{'s' if threads > 1 else ''}",
                    )
                    rows.append(_run_problem(problem, workers, limits, arguments))
                    progress.advance(bar)

    for threads, found_limits in limits_found.items():
        console.print(f"{threads} threads: FMA peak {found_limits['fma_flops'] / 1e9:.0f} GFLOP/s")
    console.print(", ".join(f"{name} {found}" for name, found in versions.items()))
    names = list(versions)
    report.print_tables(console, rows, names)
    header = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": description,
        "tidegate": own.describe(),
        "versions": versions,
        "limits": limits_found,
        "seconds": arguments.seconds,
    }
    if arguments.markdown:
        report.write_markdown(arguments.markdown, rows, names)
    if arguments.json:
        report.write_json(arguments.json, rows, header)
    if arguments.plot:
        title = f"{description['cpu']}, tidegate {versions['tidegate']} ({own.describe()['isa']})"
        report.write_plot(arguments.plot, rows, names, title)
    return 1 if any(row.failures for row in rows) else 0
