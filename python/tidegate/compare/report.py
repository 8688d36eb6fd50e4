"""The study as one HTML file: plots inside, nothing loaded from anywhere, readable on a phone."""

from __future__ import annotations

import base64
import os
import platform
from collections.abc import Sequence
from html import escape
from typing import Any

import tidegate

from .. import _core
from .claims import HELD, IN_PART, NOT, Verdict, solves, winner
from .costs import WORKLOAD
from .networks import CLIP
from .plots import Plot
from .study import SIZINGS, Study
from .tables import HEADINGS, baseline_texts, row
from .tasks import Task

_CSS = """
:root { color-scheme: light; --line: #d8dde3; --soft: #f5f7f9; --text: #1c2733; --dim: #5b6875; }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem 1rem 4rem; max-width: 64rem; color: var(--text);
  background: #fff; font: 1rem/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 1rem 0 .5rem; }
h2 { font-size: 1.25rem; margin: 2.5rem 0 .75rem; padding-top: .75rem;
  border-top: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1.5rem 0 .4rem; }
p, li { overflow-wrap: anywhere; }
nav a { margin-right: .9rem; white-space: nowrap; }
a { color: #0b5cad; }
.dim { color: var(--dim); }
.plots { display: grid; gap: 1rem;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 22rem), 1fr)); }
figure { margin: 0; border: 1px solid var(--line); border-radius: .4rem; padding: .4rem; }
img { display: block; width: 100%; height: auto; }
.wide { overflow-x: auto; border: 1px solid var(--line); border-radius: .4rem; }
table { border-collapse: collapse; width: 100%; font-size: .85rem;
  font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .6rem; text-align: right; white-space: nowrap; }
th { background: var(--soft); font-weight: 600; }
th:nth-child(-n+2), td:nth-child(-n+2) { text-align: left; }
th:first-child, td:first-child { white-space: normal; min-width: 7.5rem; }
tbody tr { border-top: 1px solid var(--line); }
tr.best td { font-weight: 600; }
tr.baseline td { color: var(--dim); }
details { border: 1px solid var(--line); border-left-width: .35rem; border-radius: .4rem;
  margin: .6rem 0; padding: .5rem .8rem; }
summary { cursor: pointer; }
.answer { font-weight: 700; }
.held { border-left-color: #009e73; } .held .answer { color: #00694d; }
.part { border-left-color: #c98a00; } .part .answer { color: #7d5600; }
.not { border-left-color: #d55e00; } .not .answer { color: #a84a00; }
"""

_CLASSES = {HELD: "held", IN_PART: "part", NOT: "not"}


def _verdict(verdict: Verdict) -> str:
    reasons = "".join(f"<li>{escape(reason)}</li>" for reason in verdict.reasons)
    return (
        f'<details class="{_CLASSES.get(verdict.answer, "open")}"><summary>'
        f'<span class="answer">{escape(verdict.answer)}</span>: {escape(verdict.claim)} '
        f'<span class="dim">({escape(verdict.where)})</span></summary>'
        f"<ul>{reasons}</ul></details>"
    )


def _figure(plot: Plot) -> str:
    data = base64.b64encode(plot.svg.encode()).decode()
    return (
        f'<figure><img src="data:image/svg+xml;base64,{data}" width="480" height="400" '
        f'alt="{escape(plot.about)}" title="{escape(plot.about)}"></figure>'
    )


def _figures(plots: Sequence[Plot]) -> str:
    return f'<div class="plots">{"".join(map(_figure, plots))}</div>' if plots else ""


def _table(headings: Sequence[str], rows: Sequence[tuple[str, Sequence[str]]]) -> str:
    head = "".join(f"<th>{escape(heading)}</th>" for heading in headings)
    body = "".join(
        f'<tr class="{kind}">{"".join(f"<td>{escape(cell)}</td>" for cell in cells)}</tr>'
        for kind, cells in rows
    )
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f'<div class="wide">{table}</div>'


def _results(study: Study, task: Task) -> str:
    parts = [f"<h3>{escape(task.title)}</h3>"]
    for sizing, title in SIZINGS.items():
        entries = study.select(task=task.name, sizing=sizing, variants=True)
        if not entries:
            continue
        best = min(entry.rank for entry in entries)
        rows = [
            ("best" if entry.rank == best or solves(entry) else "", row(entry)) for entry in entries
        ]
        rows += [
            ("baseline", [f"baseline: {name}", text, "", "", "", ""])
            for name, text in baseline_texts(entries[0]).items()
        ]
        own = study.select(task=task.name, sizing=sizing)
        parts.append(f"<p>At {escape(title)}: {escape(winner(own or entries))}</p>")
        parts.append(_table([HEADINGS[0], f"test: {task.metric}", *HEADINGS[2:]], rows))
    return "".join(parts)


def _data(study: Study) -> str:
    rows = []
    for task in study.tasks:
        entry = study.select(task=task.name, variants=True)[0]
        settings = entry.results[0]["settings"]
        rows.append(
            (
                "",
                [
                    task.title,
                    entry.results[0]["source"],
                    str(task.time),
                    str(task.window),
                    str(settings["epochs"]),
                    str(task.batch_size),
                    f"{task.learning_rate:g}",
                ],
            )
        )
    headings = ("task", "data", "steps", "window", "epochs at most", "batch", "learning rate")
    return _table(headings, rows)


def _machine() -> str:
    config = _core.config()
    return (
        f"tidegate {tidegate.__version__} ({config['isa']}), Python {platform.python_version()}, "
        f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs"
    )


def html(
    study: Study,
    verdicts: Sequence[Verdict],
    plots: Sequence[Plot],
    costs: Sequence[dict[str, Any]],
    command: str,
) -> str:
    """The report as a self-contained page.

    Args:
        study: All results.
        verdicts: What they say about the claims.
        plots: Drawn; put inside the page.
        costs: Seconds per epoch of each cell in each framework, as `costs.measure` gives them.
        command: What to type to get it again.
    """
    memory = [plot for plot in plots if plot.name.startswith("memory")]
    curves = [plot for plot in plots if plot.name.startswith(("curves", "variants"))]
    flows = [plot for plot in plots if plot.name.startswith(("gradient", "states"))]
    errors = [plot for plot in plots if plot.name.startswith("errors")]
    skipped = "".join(
        f"<p>{escape(name)} was skipped: {escape(why)}</p>" for name, why in study.missing.items()
    )
    sections = {
        "claims": (
            "The article's claims, and what happened here",
            "<p>Every sentence is computed from the results. One network counts as better than "
            "another only if its worst seed is better than the other's best; figures are medians "
            "with the range over seeds. Open a claim for its reasons.</p>"
            + "".join(map(_verdict, verdicts)),
        ),
        "memory": (
            "How long can each network remember?",
            "<p>Tasks whose answer needs something many steps back. The window network sees only "
            "the last steps and cannot know more; the one that sees all steps needs no memory but "
            "has to learn every place on its own.</p>" + _figures(memory + curves),
        )
        if memory + curves
        else None,
        "gradients": (
            "Where gradients vanish, explode or flow",
            "<p>The norm of the loss's gradient with respect to the hidden state at each step, "
            "from <code>tidegate.analysis.gradient_flow</code>. The article's own GRU adds to its "
            "states instead of averaging, so they are not bounded by 1; the last plots show their "
            "size.</p>" + _figures(flows),
        )
        if flows
        else None,
        "data": ("Real data", _figures(errors)) if errors else None,
        "results": (
            "All results",
            "".join(_results(study, task) for task in study.tasks) + skipped,
        ),
        "costs": (
            "Cost against other frameworks",
            f"<p>Seconds for one epoch of the same training on this machine, each framework in a "
            f"process of its own, one after another, the fastest of several epochs: "
            f"{escape(WORKLOAD)}.</p>" + _costs_table(costs),
        )
        if costs
        else None,
        "method": (
            "Method",
            f"<p>Every network has one hidden layer. At equal parameters each has about as many "
            f"as the LSTM of the given units; at equal units all have those. All train with Adam "
            f"at one learning rate per task, gradients cut to a norm of {CLIP:g} unless a "
            f"network's name says otherwise, which is a choice that suits some cells better than "
            f"others. Training ends when a memory task "
            f"is solved, or when real data bring no progress; the weights of the lowest "
            f"validation loss are kept and scored on test data. {study.seeds} seed(s): they set "
            f"the weights, the order of samples and, in made tasks, the data. The GRU is Keras's "
            f"(reset after the product); DualStateGRU is the article's section 3.2; CoupledLSTM "
            f"is an LSTM whose input gate is 1 - f (Greff et al. 2015). Seconds per epoch in the "
            f"tables are those of the fastest, one thread each, runs side by side.</p>"
            + _data(study)
            + f'<p class="dim">{escape(_machine())}. Again: <code>{escape(command)}</code>. Raw '
            'results: <a href="results.csv">results.csv</a>, <a href="results.json">results.json'
            '</a>, <a href="timings.csv">timings.csv</a>.</p>',
        ),
    }
    shown = {name: section for name, section in sections.items() if section}
    links = "".join(f'<a href="#{name}">{name.capitalize()}</a> ' for name in shown)
    body = "".join(
        f'<section id="{name}"><h2>{escape(title)}</h2>{content}</section>'
        for name, (title, content) in shown.items()
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        # The browser itself sees to it that nothing is loaded from anywhere.
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
        "img-src data:; style-src 'unsafe-inline'\">"
        '<link rel="icon" href="data:,"><title>Traditional and gated recurrent networks</title>'
        f"<style>{_CSS}</style></head><body>"
        "<h1>Traditional networks and gated recurrent networks, compared by running them</h1>"
        f"<nav>{links}</nav>{body}</body></html>\n"
    )


def _costs_table(costs: Sequence[dict[str, Any]]) -> str:
    frameworks = list(dict.fromkeys(cost["framework"] for cost in costs))
    cells = list(dict.fromkeys(cost["cell"] for cost in costs))
    found = {(cost["cell"], cost["framework"]): cost for cost in costs}
    rows = []
    for cell in cells:
        texts = [cell]
        parameters = [c["parameters"] for c in costs if c["cell"] == cell and "parameters" in c]
        texts.append(f"{parameters[0]:,}" if parameters else "")
        for framework in frameworks:
            cost = found.get((cell, framework), {})
            texts.append(f"{cost['seconds']:.3f}" if "seconds" in cost else "-")
        rows.append(("", texts))
    return _table(["cell", "parameters", *frameworks], rows)
