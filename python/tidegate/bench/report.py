"""Results as a table for the terminal, as Markdown, as JSON and as a plot."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median, quantiles
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from .problems import GATES, TASKS, Problem, shapes

OWN = "tidegate"


@dataclass(frozen=True)
class Timing:
    """Seconds of one contestant on one problem."""

    median: float
    best: float
    spread: float  # interquartile range / median
    samples: int
    first: float  # the first call, which compiles; of `fit` the first epoch
    error: float  # largest deviation from float64, relative to each array's largest value

    @classmethod
    def of(cls, times: list[float], error: float, first: float) -> Timing:
        middle = median(times)
        low, _, high = quantiles(times, n=4) if len(times) > 1 else (middle,) * 3
        return cls(middle, min(times), (high - low) / middle, len(times), first, error)


@dataclass
class Row:
    """One problem: what everybody needed, and the least that the machine allows."""

    problem: Problem
    least_seconds: float
    timings: dict[str, Timing] = field(default_factory=dict)  # by contestant's name
    failures: dict[str, str] = field(default_factory=dict)

    def ratio(self, rival: str) -> float | None:
        """How many times longer a rival takes than tidegate."""
        if OWN not in self.timings or rival not in self.timings:
            return None
        return self.timings[rival].median / self.timings[OWN].median

    @property
    def best_rival(self) -> str | None:
        rivals = {name: timing for name, timing in self.timings.items() if name != OWN}
        return min(rivals, key=lambda name: rivals[name].median) if rivals else None


def geometric_mean(values: Iterable[float]) -> float:
    logarithms = [math.log(value) for value in values]
    return math.exp(sum(logarithms) / len(logarithms)) if logarithms else math.nan


def microseconds(seconds: float) -> str:
    """Three significant digits are what a noisy machine supports."""
    value = seconds * 1e6
    return f"{value:.3g}" if value < 100 else f"{value:,.0f}"


class _Table(NamedTuple):
    title: str
    caption: str
    headings: tuple[str, ...]
    rows: list[list[str]]
    pooled: str


def _tables(rows: list[Row], names: list[str]) -> Iterator[_Table]:
    """A table per task: microseconds, times tidegate's in brackets, and the pooled ratios."""
    rivals = [name for name in names if name != OWN]
    for task, meaning in TASKS.items():
        chosen = sorted((row for row in rows if row.problem.task == task), key=_order)
        if not chosen:
            continue
        present = [
            r for r in rivals if any(r in row.timings or r in row.failures for row in chosen)
        ]
        first = "; first epoch" if task == "fit" else ""
        yield _Table(
            f"{task}: {meaning}",
            f"median us (times tidegate's){first}",
            ("cell", "shape", "threads", OWN, "+- %", "GFLOP/s", "% of limit", *present),
            [_cells(row, present) for row in chosen],
            _pooled(chosen, present),
        )


def print_tables(console: Console, rows: list[Row], names: list[str]) -> None:
    """The tables, for a terminal, and who failed."""
    for table in _tables(rows, names):
        shown = Table(title=table.title, caption=table.caption, title_justify="left")
        for index, heading in enumerate(table.headings):
            shown.add_column(heading, no_wrap=index < 2, justify="left" if index < 2 else "right")
        for cells in table.rows:
            shown.add_row(*cells)
        console.print(shown)
        console.print(table.pooled, style="bold")
    for row in rows:
        for name, failure in row.failures.items():
            console.print(f"{name}, {_label(row)}: {failure.strip()}", style="red", markup=False)


def write_markdown(path: Path, rows: list[Row], names: list[str]) -> None:
    """The tables, for a document."""
    lines = []
    for table in _tables(rows, names):
        lines += [f"### {table.title}", "", f"Columns: {table.caption}.", ""]
        for cells in (table.headings, ["---"] * len(table.headings), *table.rows):
            lines.append(f"| {' | '.join(cells)} |")
        lines += ["", f"{table.pooled}.", ""]
    path.write_text("\n".join(lines).replace("[bold]", "**").replace("[/bold]", "**"))


def _order(row: Row) -> tuple[int, int, int]:
    problem = row.problem
    return (
        list(GATES).index(problem.cell),
        list(shapes()).index(problem.shape.name),
        problem.threads,
    )


def _label(row: Row) -> str:
    problem = row.problem
    return f"{problem.cell} {problem.shape.name} {problem.task} threads={problem.threads}"


def _cells(row: Row, rivals: list[str]) -> list[str]:
    problem, own = row.problem, row.timings.get(OWN)
    shape = problem.shape
    sizes = ",".join(map(str, shape[1:]))
    cells = [problem.cell, f"{shape.name} ({sizes})", str(problem.threads)]

    def first(timing: Timing) -> str:
        return f"; {microseconds(timing.first)}" if problem.task == "fit" else ""

    if own:
        cells += [
            microseconds(own.median) + first(own),
            f"{50 * own.spread:.0f}",
            f"{problem.flops / own.median / 1e9:.3g}",
            f"{100 * row.least_seconds / own.median:.0f}",
        ]
    else:
        cells += ["failed", "", "", ""]
    for rival in rivals:
        ratio = row.ratio(rival)
        if rival in row.timings:
            text = microseconds(row.timings[rival].median)
            if ratio is not None:
                text += f" ({ratio:.2f}x)"
            text += first(row.timings[rival])
            cells.append(f"[bold]{text}[/bold]" if rival == row.best_rival else text)
        else:
            cells.append("failed" if rival in row.failures else "-")
    return cells


def _pooled(rows: list[Row], rivals: list[str]) -> str:
    parts = []
    for rival in rivals:
        ratios = [ratio for row in rows if (ratio := row.ratio(rival)) is not None]
        if ratios:
            parts.append(f"{rival} {geometric_mean(ratios):.2f}x")
    best = [
        ratio for row in rows if row.best_rival and (ratio := row.ratio(row.best_rival)) is not None
    ]
    if best:
        parts.append(
            f"the best of them on each shape {geometric_mean(best):.2f}x (least {min(best):.2f}x)"
        )
    return "Geometric mean of the times, in tidegate's: " + ", ".join(parts) if parts else ""


def write_json(path: Path, rows: list[Row], header: dict[str, Any]) -> None:
    """Everything, in seconds."""
    results = [
        {
            "cell": row.problem.cell,
            "shape": row.problem.shape._asdict(),
            "task": row.problem.task,
            "threads": row.problem.threads,
            "flops": row.problem.flops,
            "least_seconds": row.least_seconds,
            "timings": {name: asdict(timing) for name, timing in row.timings.items()},
            "failures": row.failures,
        }
        for row in rows
    ]
    path.write_text(json.dumps({**header, "results": results}, indent=1) + "\n")


def write_plot(path: Path, rows: list[Row], names: list[str], title: str) -> None:
    """A panel per task and thread count: how many times longer than tidegate each rival takes.

    Raises ImportError without matplotlib.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.lines import Line2D

    panels: dict[tuple[str, int], list[Row]] = {}
    for row in sorted(rows, key=_order):
        if row.best_rival and OWN in row.timings:
            panels.setdefault((row.problem.task, row.problem.threads), []).append(row)
    if not panels:
        return
    tasks = [task for task in TASKS if any(key[0] == task for key in panels)]
    counts = sorted({threads for _, threads in panels})
    widest = max(len(chosen) for chosen in panels.values())
    figure, axes = plt.subplots(
        len(tasks),
        len(counts),
        figsize=(max(4.5, 0.4 * widest + 1) * len(counts), 3.2 * len(tasks) + 0.6),
        squeeze=False,
        layout="constrained",
    )
    rivals = {name: f"C{index}" for index, name in enumerate(n for n in names if n != OWN)}
    for line, task in enumerate(tasks):
        for column, threads in enumerate(counts):
            axis = axes[line, column]
            if (task, threads) in panels:
                _panel(axis, panels[task, threads], rivals)
                axis.set_title(f"{task}, {threads} thread{'s' if threads > 1 else ''}", loc="left")
            else:
                axis.axis("off")
        axes[line, 0].set_ylabel(f"time in {OWN}'s")
    handles = [Line2D([], [], marker="o", ls="", color=c, label=n) for n, c in rivals.items()]
    figure.legend(handles=handles, ncols=len(handles), loc="outside lower center", fontsize=8)
    figure.suptitle(title, fontsize=9)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def _panel(axis: Any, rows: list[Row], rivals: dict[str, str]) -> None:
    for index, (rival, colour) in enumerate(rivals.items()):
        points = [(i, ratio) for i, row in enumerate(rows) if (ratio := row.ratio(rival))]
        shift = 0.6 * (index / max(1, len(rivals) - 1) - 0.5)
        axis.plot([i + shift for i, _ in points], [r for _, r in points], "o", ms=4, color=colour)
    axis.axhline(1, color="black", lw=0.8)
    axis.set_yscale("log")
    axis.yaxis.set_major_formatter("{x:g}")
    axis.set_xticks(
        range(len(rows)),
        [f"{row.problem.cell} {row.problem.shape.name}" for row in rows],
        rotation=45,
        ha="right",
        fontsize=7,
    )
    axis.grid(axis="y", which="both", alpha=0.3)
