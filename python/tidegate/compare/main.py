"""The command line of `tidegate compare`."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Column

from ..config import get_num_threads
from .claims import HELD, IN_PART, NOT, Verdict, verdicts
from .costs import measure
from .networks import NETWORKS, QUICK
from .plots import Plot, draw_all, write_plots
from .report import html
from .study import Plan, Store, Study, perform, write_atomically, write_results
from .tables import print_study
from .tasks import FAMILIES, QUICK_FAMILIES, tasks


def _names(subject: str, allowed: Sequence[str], text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(text.split(",")))
    for name in names:
        if name not in allowed:
            raise argparse.ArgumentTypeError(
                f"{subject}: expected names out of {', '.join(allowed)}, separated by commas, "
                f"got {name!r}"
            )
    return names


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected a number from 1 on, got {text}")
    return number


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tidegate compare",
        description="Trains feed-forward and recurrent networks on the same data, at equal numbers "
        "of parameters and of units, and writes a report. Results are kept run by run: when "
        "interrupted, the same command goes on.",
    )
    add = parser.add_argument
    effort = parser.add_mutually_exclusive_group()
    effort.add_argument("--quick", action="store_true", help="a minute or two (the default)")
    effort.add_argument(
        "--full",
        action="store_true",
        help="all tasks, longer memories, more variants of the cells: a quarter of an hour or more",
    )
    add(
        "--task",
        type=lambda text: _names("task", FAMILIES, text),
        metavar="NAMES",
        help=f"out of {', '.join(FAMILIES)} (quick: {','.join(QUICK_FAMILIES)})",
    )
    add(
        "--cells",
        type=lambda text: _names("cells", tuple(NETWORKS), text),
        metavar="NAMES",
        help=f"out of {', '.join(NETWORKS)} (quick: {','.join(QUICK)})",
    )
    add("--seeds", type=_positive, metavar="N", help="runs of everything (quick: 3, full: 5)")
    add("--jobs", type=_positive, metavar="N", help="processes (default: one per core)")
    add(
        "--out",
        type=Path,
        default=Path("tidegate-compare"),
        metavar="DIR",
        help="where results go (default: %(default)s)",
    )
    return parser


class _Display:
    """A bar in a terminal; elsewhere a line for each run."""

    def __init__(self, console: Console, total: int) -> None:
        self.console, self.total, self.done = console, total, 0
        columns = (BarColumn(24), MofNCompleteColumn(), TimeElapsedColumn())
        # What does not fit is cut from the names, not from the bar.
        text = TextColumn(
            "{task.description}",
            markup=False,
            table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis"),
        )
        self.progress = Progress(
            *columns, text, console=console, expand=True, disable=not console.is_terminal
        )
        self.bar = self.progress.add_task("starting", total=total)

    def started(self, runs: Sequence[Any]) -> None:
        names = ", ".join(f"{run.task}: {NETWORKS[run.network].title}" for run in runs)
        self.progress.update(self.bar, description=names)

    def finished(self, run: Any) -> None:
        self.done += 1
        self.progress.advance(self.bar)
        if not self.console.is_terminal:
            title = NETWORKS[run.network].title
            print(
                f"[{self.done}/{self.total}] {run.task}: {title}, seed {run.seed}",
                file=self.console.file,
                flush=True,
            )


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the study; 0 when all results are written.

    Raises:
        OSError: The folder cannot be written.
    """
    arguments = _parser().parse_args(argv)
    full = arguments.full
    names = arguments.cells or (tuple(NETWORKS) if full else QUICK)
    plan = Plan(
        tuple(tasks(full, arguments.task)),
        tuple(NETWORKS[name] for name in names),
        arguments.seeds or (5 if full else 3),
        full,
    )
    console = Console(file=sys.stdout)
    if not console.is_terminal:
        console = Console(file=sys.stdout, width=120)  # a file has no width
    began = time.perf_counter()
    arguments.out.mkdir(parents=True, exist_ok=True)
    runs = plan.runs()
    display = _Display(console, len(runs))
    with display.progress:
        results, missing = perform(
            runs,
            Store(arguments.out / "runs"),
            arguments.jobs or get_num_threads(),
            display.started,
            display.finished,
        )
    study = plan.study(results, missing)
    write_results(arguments.out, results)
    found = verdicts(study)
    print_study(console, study)
    _print_verdicts(console, found)
    costs = _measure_costs(console, arguments.out) if full else []
    with console.status("drawing"):
        plots = _draw(console, study)
    write_plots(arguments.out / "plots", plots)
    command = " ".join(["tidegate compare", *(sys.argv[1:] if argv is None else argv)])
    report = arguments.out / "report.html"
    write_atomically(report, html(study, found, plots, costs, command))
    console.print(
        f"{time.perf_counter() - began:.0f} s, {len(results)} runs. Report: {report}; plots, CSV "
        "and JSON beside it.",
        highlight=False,
    )
    return 0


def _print_verdicts(console: Console, verdicts: Sequence[Verdict]) -> None:
    """The article's claims, and what became of them."""
    if verdicts:
        console.print("\nThe article's claims here (reasons in the report):", style="bold")
    for verdict in verdicts:
        colour = {HELD: "green", IN_PART: "yellow", NOT: "red"}.get(verdict.answer, "dim")
        console.print(f"[{colour}]{verdict.answer:>13}[/{colour}]  {verdict.claim}")


def _measure_costs(console: Console, folder: Path) -> list[dict[str, Any]]:
    costs = []
    with console.status("timing frameworks"):
        for cost in measure():
            costs.append(cost)
            text = f"{cost['seconds']:.3f} s/epoch" if "seconds" in cost else cost["failure"]
            console.print(f"{cost['cell']}, {cost['framework']}: {text}", markup=False)
    write_atomically(folder / "costs.json", json.dumps(costs, indent=1) + "\n")
    return costs


def _draw(console: Console, study: Study) -> list[Plot]:
    try:
        return list(draw_all(study))
    except ImportError as error:
        console.print(f"no plots: {error} (pip install matplotlib)", style="yellow", markup=False)
        return []
