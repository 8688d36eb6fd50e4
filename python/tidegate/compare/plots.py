"""The study's plots, each small enough to be read on a phone, as SVG and PNG."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .networks import Network
from .study import SIZINGS, Study, write_atomically
from .tasks import Task

# Colours of Okabe and Ito, which differ for the colour-blind, too; markers for greyscale.
_STYLES = {
    "feed_forward": ("#777777", "s"),
    "feed_forward_all": ("#222222", "D"),
    "simple_rnn": ("#d55e00", "v"),
    "lstm": ("#0072b2", "o"),
    "gru": ("#009e73", "^"),
    "dual_state_gru": ("#cc79a7", "P"),
    "coupled_lstm": ("#56b4e9", "X"),
}


@dataclass(frozen=True)
class Plot:
    """A drawn plot."""

    name: str
    title: str
    about: str  # what is to be seen, for those who do not see it
    svg: str
    png: bytes


def _style(network: Network) -> dict[str, Any]:
    colour, marker = _STYLES[network.variant_of or network.name]
    line = "--" if network.variant_of else "-"
    return dict(color=colour, marker=marker, linestyle=line, label=network.title)


def _draw(name: str, title: str, about: str, draw: Callable[[Any], None], height: float) -> Plot:
    import matplotlib
    from matplotlib.figure import Figure

    options = {
        "svg.hashsalt": name,  # so that the same results give the same file
        "font.family": ["DejaVu Sans"],
        "font.size": 10,
        "axes.spines.top": False,
        "axes.spines.right": False,
    }
    with matplotlib.rc_context(options):
        figure = Figure(figsize=(4.8, height), layout="constrained")
        axes = figure.subplots()
        figure.suptitle(title, x=0.02, ha="left", fontsize=11)  # over long names on the left, too
        draw(axes)
        svg, png = io.StringIO(), io.BytesIO()
        figure.savefig(svg, format="svg", metadata={"Date": None, "Creator": None})
        figure.savefig(png, format="png", dpi=150, metadata={"Software": None})
    return Plot(name, title, about, svg.getvalue(), png.getvalue())


def _legend(axes: Any, columns: int = 2) -> None:
    axes.figure.legend(
        *axes.get_legend_handles_labels(),
        loc="outside lower center",
        ncols=columns,
        fontsize=8,
        frameon=False,
    )


def _memory(study: Study, family: str, sizing: str) -> Plot:
    entries = study.select(family=family, sizing=sizing)
    lags = sorted({entry.task.lag or 0 for entry in entries})
    logarithmic = entries[0].task.kind == "sum"

    def draw(axes: Any) -> None:
        for network in dict.fromkeys(entry.network for entry in entries):
            own = sorted(
                (e for e in entries if e.network == network), key=lambda e: e.task.lag or 0
            )
            x = [e.task.lag for e in own]
            axes.plot(x, [e.median for e in own], markersize=5, **_style(network))
            axes.fill_between(
                x,
                [e.errors.min() for e in own],
                [e.errors.max() for e in own],
                color=_style(network)["color"],
                alpha=0.12,
                linewidth=0,
            )
        by_lag = {e.task.lag: e.best_baseline for e in entries}
        axes.plot(lags, [by_lag[lag] for lag in lags], ":", color="black", label="baseline")
        axes.set_xscale("log")
        axes.set_xticks(lags, map(str, lags))
        axes.minorticks_off()
        if logarithmic:
            axes.set_yscale("log")
        axes.set_xlabel("steps to remember")
        axes.set_ylabel(entries[0].task.metric)
        axes.grid(axis="y", alpha=0.3)
        _legend(axes)

    return _draw(
        f"memory-{family}-{sizing}",
        f"{family} at {SIZINGS[sizing]}",
        f"Test error of each network against the steps to remember, {family}, {SIZINGS[sizing]}: "
        "medians with the range over seeds.",
        draw,
        4.2,
    )


def _errors(study: Study, task: Task) -> Plot:
    entries = study.select(task=task.name)
    names = list(dict.fromkeys(entry.network for entry in entries))

    def draw(axes: Any) -> None:
        for entry in entries:
            place = names.index(entry.network) + (0.16 if entry.sizing == "units" else -0.16)
            filled = entry.sizing == "parameters"
            style = _style(entry.network)
            axes.scatter(
                entry.errors,
                [place] * len(entry.errors),
                s=30,
                marker=style["marker"],
                edgecolors=style["color"],
                facecolors=style["color"] if filled else "none",
                alpha=0.85,
            )
        right = max(
            [e.errors[np.isfinite(e.errors)].max(initial=0.0) for e in entries]
            + [0.4 * max(entries[0].baselines.values())]
        )
        for name, value in entries[0].baselines.items():
            if value <= 1.6 * right:
                axes.axvline(value, color="black", linestyle=":", linewidth=1)
                axes.annotate(
                    f" {name}", (value, -0.55), fontsize=8, rotation=90, ha="right", va="top"
                )
        axes.set_yticks(range(len(names)), [network.title for network in names])
        axes.set_ylim(len(names) - 0.5, -0.6)
        axes.set_xlim(left=0)
        axes.set_xlabel(f"{task.metric}\nfilled: equal parameters, hollow: equal units", fontsize=9)
        axes.grid(axis="x", alpha=0.3)

    return _draw(
        f"errors-{task.name}",
        task.title,
        f"Test errors of all networks and seeds on {task.title}, with the baselines.",
        draw,
        3.2,
    )


def _flow(study: Study, task: Task, when: str, words: str) -> Plot:
    entries = [e for e in study.select(task=task.name, sizing="units") if e.network.recurrent]

    def draw(axes: Any) -> None:
        for entry in entries:
            norms = np.array([result["flow"][when]["norms"] for result in entry.results])
            with np.errstate(divide="ignore", invalid="ignore"):
                relative = norms / norms[:, -1:]
            relative[~(relative > 0)] = np.nan
            t = np.linspace(1, task.time, relative.shape[1])
            style = _style(entry.network)
            middle = np.median(relative, axis=0)
            axes.plot(t, middle, color=style["color"], label=style["label"], linewidth=1.8)
            axes.fill_between(
                t,
                relative.min(axis=0),
                relative.max(axis=0),
                color=style["color"],
                alpha=0.15,
                linewidth=0,
            )
        axes.axhline(1, color="black", linestyle=":", linewidth=1)
        axes.set_yscale("log")
        low, high = axes.get_ylim()
        axes.set_ylim(max(low, 1e-16), min(max(high, 10.0), 1e8))
        axes.set_xlabel("time step t")
        axes.set_ylabel("|dLoss/dh$_t$|, times that of the last step", fontsize=9)
        axes.grid(alpha=0.3)
        _legend(axes)

    return _draw(
        f"gradient-{task.name}-{when}",
        f"gradient, {task.title}, {words}",
        f"Norm of the gradient of the hidden state over time, {words}, {task.title}. A falling "
        "line to the left is a vanishing gradient, a rising one an exploding one, a level one a "
        "gate that lets it through.",
        draw,
        4.0,
    )


def _states(study: Study, task: Task) -> Plot:
    entries = [e for e in study.select(task=task.name, sizing="units") if e.network.recurrent]

    def draw(axes: Any) -> None:
        for entry in entries:
            style = _style(entry.network)
            largest = entry.largest("trained")
            t = np.linspace(1, task.time, len(largest))
            axes.plot(t, largest, color=style["color"], label=f"|h|, {style['label']}")
            if entry.network.name == "dual_state_gru":
                cell = entry.largest("trained", "largest_cell")
                axes.plot(t, cell, ":", color=style["color"], label=f"|C|, {style['label']}")
        axes.axhline(1, color="black", linestyle=":", linewidth=1)
        axes.set_yscale("log")
        axes.set_xlabel("time step t")
        axes.set_ylabel("largest absolute value")
        axes.grid(alpha=0.3)
        _legend(axes)

    return _draw(
        f"states-{task.name}",
        f"size of the states, {task.title}",
        "Largest absolute state over time after training. Every network but DualStateGRU keeps "
        "its output within 1.",
        draw,
        4.0,
    )


def _curves(study: Study, task: Task) -> Plot:
    entries = study.select(task=task.name, sizing="parameters")

    def draw(axes: Any) -> None:
        for entry in entries:
            style = _style(entry.network)
            for number, result in enumerate(entry.results):
                curve = [np.nan if value is None else value for value in result["curve"]]
                axes.plot(
                    range(1, len(curve) + 1),
                    curve,
                    color=style["color"],
                    linewidth=1.2,
                    alpha=0.8,
                    label=None if number else style["label"],
                )
        if task.kind == "sum":
            axes.set_yscale("log")
        axes.axhline(entries[0].best_baseline, color="black", linestyle=":", label="baseline")
        axes.set_xlabel("epoch")
        axes.set_ylabel(f"validation: {task.metric}", fontsize=9)
        axes.grid(alpha=0.3)
        _legend(axes)

    return _draw(
        f"curves-{task.name}",
        f"training, {task.title}",
        f"Validation error by epoch of every seed, {task.title}, equal parameters.",
        draw,
        4.0,
    )


def _variants(study: Study, task: Task) -> Plot | None:
    entries = study.select(task=task.name, sizing="units", variants=True)
    entries = [e for e in entries if e.network.recurrent]
    if not any(entry.network.variant_of for entry in entries):
        return None
    entries.sort(key=lambda entry: entry.network.variant_of or entry.network.name)
    edge = 100 * entries[0].best_baseline if task.kind == "sum" else 100.0
    beyond = any((entry.errors > edge).any() for entry in entries)

    def draw(axes: Any) -> None:
        for place, entry in enumerate(entries):
            style = _style(entry.network)
            axes.scatter(
                np.minimum(entry.errors, edge),
                [place] * len(entry.errors),
                marker=style["marker"],
                color=style["color"],
                facecolors="none" if entry.network.variant_of else style["color"],
                s=30,
            )
        axes.axvline(entries[0].best_baseline, color="black", linestyle=":")
        if task.kind == "sum":
            axes.set_xscale("log")
        axes.set_yticks(range(len(entries)), [e.network.title for e in entries], fontsize=8)
        axes.set_ylim(len(entries) - 0.5, -0.5)
        axes.set_xlabel(task.metric + f"\nat {edge:.3g}: that or more" * beyond, fontsize=9)
        axes.grid(axis="x", alpha=0.3)

    return _draw(
        f"variants-{task.name}",
        f"variants, {task.title}",
        f"Test errors of the cells and their variants on {task.title}, equal units; the dotted "
        "line is the baseline.",
        draw,
        3.8,
    )


def draw_all(study: Study) -> Iterator[Plot]:
    """All plots that the results allow, in the order of the report.

    Raises:
        ImportError: Matplotlib is not installed.
    """
    memory = [task for task in study.tasks if task.lag]
    families: dict[str, list[Task]] = {}
    for task in memory:
        families.setdefault(task.family, []).append(task)
    for family, tasks in families.items():
        if len(tasks) > 1:
            for sizing in SIZINGS:
                yield _memory(study, family, sizing)
        longest = max(tasks, key=lambda task: task.lag or 0)
        yield _curves(study, longest)
        if any(e.network.recurrent for e in study.select(task=longest.name, sizing="units")):
            yield _flow(study, longest, "start", "before training")
            yield _flow(study, longest, "trained", "after training")
            yield _states(study, longest)
        variants = _variants(study, longest)
        if variants:
            yield variants
    for task in study.tasks:
        if not task.lag:
            yield _errors(study, task)


def write_plots(folder: Path, plots: Sequence[Plot]) -> None:
    """Writes each as .svg and .png."""
    for plot in plots:
        write_atomically(folder / f"{plot.name}.svg", plot.svg)
        write_atomically(folder / f"{plot.name}.png", plot.png)
