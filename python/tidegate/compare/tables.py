"""Results as tables for the terminal."""

from __future__ import annotations

import numpy as np
from rich.console import Console
from rich.table import Table

from .study import SIZINGS, Entry, Study
from .tasks import Array


def number(value: float) -> str:
    """Three significant digits, or all before the point."""
    if not np.isfinite(value):
        return "diverged"
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e6 else f"{value:.3g}"


def spread(values: Array) -> str:
    """Median and, in brackets, the range over the seeds if there is one."""
    middle, low, high = (number(float(f(values))) for f in (np.median, np.min, np.max))
    return middle if low == high else f"{middle} ({low} to {high})"


def row(entry: Entry) -> list[str]:
    """The columns of `HEADINGS`."""
    return [
        entry.network.title,
        spread(entry.errors),
        number(float(np.median(entry.validation_errors))),
        str(entry.units),
        f"{entry.parameters:,}",
        f"{entry.seconds_per_epoch:.3f}",
    ]


# What matters most first: the rest may be out of sight on a phone.
HEADINGS = ("network", "test error", "validation", "units", "parameters", "s/epoch")


def baseline_texts(entry: Entry) -> dict[str, str]:
    """The errors of the obvious answers, by name."""
    return {name: number(error) for name, error in entry.baselines.items()}


def print_study(console: Console, study: Study) -> None:
    """A table for each way to make networks comparable, and what was skipped."""
    for sizing, title in SIZINGS.items():
        table = Table(
            title=f"At {title}, {study.seeds} seed(s): median error (range)", title_justify="left"
        )
        for index, heading in enumerate(HEADINGS):
            table.add_column(heading, justify="right" if index else "left")
        for task in study.tasks:
            entries = study.select(task=task.name, sizing=sizing, variants=True)
            if not entries:
                continue
            table.add_row(f"[bold]{task.title}[/bold]", f"[bold]{task.metric}[/bold]")
            best = min(entries, key=lambda entry: entry.rank)
            for entry in entries:
                table.add_row(*row(entry), style="green" if entry is best else None)
            for name, text in baseline_texts(entries[0]).items():
                table.add_row(f"baseline: {name}", text, style="dim")
            table.add_section()
        if table.row_count:
            console.print(table)
    for task_name, reason in study.missing.items():
        console.print(f"{task_name} skipped: {reason}", style="yellow", markup=False)
