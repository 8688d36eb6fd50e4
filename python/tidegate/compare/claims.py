"""The article's claims against the results: every sentence is computed, with the spread over seeds.

One network is better than another on a task only if it is better with its worst seed than the other
with its best.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .networks import NETWORKS
from .study import Entry, Study
from .tables import number, spread
from .tasks import Array, Task

HELD, IN_PART, NOT, OPEN = "held", "held in part", "did not hold", "undecided"

# Of the best baseline's error: who stays above it has learned nothing worth mentioning.
_LEARNED = 0.9
# Of the best baseline's error: who stays below it in every seed keeps what the task asks for.
_KEPT = 0.5
# Test errors may be that many times the validation error at which training ends.
_SOLVED = 2.0
# What is left of a gradient that counts as vanished, and the reverse as exploded.
_VANISHED = 1e-3


@dataclass(frozen=True)
class Verdict:
    """What became of a claim."""

    claim: str
    where: str  # in the article
    answer: str
    reasons: tuple[str, ...]


def _named(entry: Entry) -> str:
    """The network with its error, and where training ends with success, how soon."""
    text = f"{entry.network.title} {spread(entry.errors)}"
    return f"{text} by epoch {spread(entry.epochs)}" if solves(entry) else text


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


def solves(entry: Entry) -> bool:
    """Training ends where a task counts as solved, so what differs below that means nothing."""
    solved = entry.task.solved
    return solved is not None and bool(entry.errors.max() <= _SOLVED * solved)


def _outcome(a: Entry, b: Entry, sooner: bool = False) -> tuple[str, str]:
    """What `compare` says of two networks, without figures."""
    if solves(a) and solves(b):
        if sooner and len(a.errors) > 1:
            for outcome, first, second in (("first", a, b), ("second", b, a)):
                if first.epochs.max() < second.epochs.min():
                    return outcome, f"{first.network.title} solves it sooner in every seed"
        return "solved", "both solve it in every seed"
    if min(a.median, b.median) > _LEARNED * a.best_baseline:
        return "none", f"nobody does better than the baseline {number(a.best_baseline)}"
    if len(a.errors) < 2:
        return "none", "one seed has no spread, so nothing is decided"
    if a.errors.max() < b.errors.min():
        return "first", f"{a.network.title} is ahead in every seed"
    if b.errors.max() < a.errors.min():
        return "second", f"{b.network.title} is ahead in every seed"
    return "level", "no difference beyond the spread"


def compare(a: Entry, b: Entry, sooner: bool = False) -> tuple[str, str]:
    """Which network is better on a task, and why, with figures.

    Args:
        a, b: What became of them.
        sooner: Whether, where both solve the task, it counts who needs fewer epochs.

    Returns:
        `"first"`, `"second"` or `"level"`; `"solved"` where both solve the task, `"none"` where
        nobody learned or one seed decides nothing. And a sentence.
    """
    outcome, words = _outcome(a, b, sooner)
    return outcome, f"{words}: {_named(a)} against {_named(b)}"


def _pairs(
    study: Study, first: str, second: str, sizing: str = "units"
) -> list[tuple[Entry, Entry]]:
    """Two networks, by name, on each task that both were trained on."""
    return [
        (own, other)
        for task in study.tasks
        for own in study.select(task.name, first, sizing, variants=True)
        for other in study.select(task.name, second, sizing, variants=True)
    ]


def _answer(outcomes: Sequence[str], level_is_enough: bool = False) -> str:
    """Whether the first is better (or as good), out of what `compare` says of all cases.

    What both solve says nothing about who is better, but that one is as good as the other.
    """
    good = ("first", "level", "solved") if level_is_enough else ("first",)
    bad = ("second",) if level_is_enough else ("second", "level")
    held, lost = (sum(map(outcomes.count, kinds)) for kinds in (good, bad))
    if held == outcomes.count("second") == 0:
        return OPEN
    return HELD if not lost else (IN_PART if held else NOT)


def _over_tasks(
    pairs: Sequence[tuple[Entry, Entry]], level_is_enough: bool = False, sooner: bool = False
) -> tuple[str, tuple[str, ...]]:
    """An answer out of one network against another, with its reasons."""
    outcomes, reasons = [], []
    for own, other in pairs:
        outcome, sentence = compare(own, other, sooner)
        outcomes.append(outcome)
        reasons.append(f"{own.task.title}: {sentence}.")
    return _answer(outcomes, level_is_enough), tuple(reasons)


_WORDS = {
    "first": "ahead in every seed",
    "level": "not to be told from it",
    "solved": "solving it as well",
    "second": "behind in every seed",
    "none": "undecided",
}


def _gated_over_tasks(study: Study, tasks: Sequence[Task]) -> tuple[str, tuple[str, ...]]:
    """An answer out of each gated network against the best traditional one, with its reasons.

    Best against best would be unfair: there are more gated networks.
    """
    outcomes, reasons = [], []
    for task in tasks:
        entries = study.select(task=task.name, sizing="parameters")
        gated = [entry for entry in entries if entry.network.gated]
        others = [entry for entry in entries if not entry.network.gated]
        if not gated or not others:
            continue
        best = min(others, key=lambda entry: entry.rank)
        found: dict[str, list[str]] = {outcome: [] for outcome in _WORDS}
        for entry in gated:
            outcome, _ = _outcome(entry, best)
            outcomes.append(outcome)
            found[outcome].append(_named(entry))
        texts = [f"{_WORDS[key]} {_listed(names)}" for key, names in found.items() if names]
        reasons.append(
            f"{task.title}: {_named(best)} is the best traditional network (baseline "
            f"{number(best.best_baseline)}); of the gated ones {'; '.join(texts)}."
        )
    return _answer(outcomes), tuple(reasons)


def winner(entries: Sequence[Entry]) -> str:
    """Who is best on a task, and who cannot be told from it."""
    ranked = sorted(entries, key=lambda entry: entry.rank)
    best = ranked[0]
    solvers = [_named(entry) for entry in ranked if solves(entry)]
    if solvers:
        return f"Solved in every seed by {_listed(solvers)}."
    if best.median > best.best_baseline:
        return f"Nobody is better than the best baseline, {number(best.best_baseline)}."
    if len(ranked) == 1 or len(best.errors) < 2:
        return f"Lowest: {_named(best)}."
    level = [e.network.title for e in ranked[1:] if e.errors.min() <= best.errors.max()]
    if level:
        return f"Lowest median: {_named(best)}; within its spread: {_listed(level)}."
    return f"Best in every seed: {_named(best)}; next: {_named(ranked[1])}."


def _memory(study: Study) -> Verdict | None:
    tasks = [task for task in study.tasks if task.lag]

    answer, reasons = _gated_over_tasks(study, tasks)
    if not reasons:
        return None
    return Verdict(
        "Gated networks keep long-range dependencies where traditional networks lose them.",
        "2, Q1, Q3",
        answer,
        reasons + tuple(_reaches(study)),
    )


def _reaches(study: Study) -> list[str]:
    """For each memory task, up to which lag every network keeps what it needs, in every seed."""
    sentences = []
    for family in dict.fromkeys(task.family for task in study.tasks if task.lag):
        entries = study.select(family=family, sizing="parameters")
        reach: dict[str, int] = {}
        failed: set[str] = set()
        for entry in sorted(entries, key=lambda entry: entry.task.lag or 0):
            title = entry.network.title
            if entry.errors.max() < _KEPT * entry.best_baseline and title not in failed:
                reach[title] = entry.task.lag or 0
            else:
                failed.add(title)
                reach.setdefault(title, 0)
        texts = [f"{title} {lag or 'none'}" for title, lag in reach.items()]
        sentences.append(
            f"Longest lag of {family} up to which every seed stays below half of the baseline's "
            f"error: {', '.join(texts)}."
        )
    return sentences


def _longest(study: Study) -> list[Task]:
    """The task with the longest lag of each family."""
    by_family = {t.family: t for t in sorted(study.tasks, key=lambda t: t.lag or 0) if t.lag}
    return list(by_family.values())


def _remains(entry: Entry, when: str) -> Array:
    """What is left, at the first step, of the gradient at the last; one number per seed."""
    return entry.factors(when) ** (entry.task.time - 1)


def _distance(entry: Entry, when: str) -> Array:
    """How far the gradient's change per step is from none, on a logarithmic scale."""
    with np.errstate(divide="ignore"):
        return np.abs(np.log(entry.factors(when)))


def _gradients(study: Study, when: str, words: str) -> Verdict | None:
    reasons, outcomes = [], []
    for task in _longest(study):
        entries = study.select(task=task.name, sizing="units")
        gated = [e for e in entries if e.network.gated]
        simple = [e for e in entries if e.network.recurrent and not e.network.gated]
        if not gated or not simple:
            continue
        theirs = _distance(simple[0], when)
        for entry in gated:
            own = _distance(entry, when)
            if own.max() < theirs.min():
                outcomes.append(1)
            else:
                outcomes.append(-1 if theirs.max() < own.min() else 0)
        texts = [
            f"{e.network.title} x{spread(e.factors(when))} per step, "
            f"{number(float(np.median(_remains(e, when))))} in all"
            for e in [*simple, *gated]
        ]
        reasons.append(f"{task.title}, back to the first step: {'; '.join(texts)}.")
    if not reasons:
        return None
    if all(o == 1 for o in outcomes):
        answer = HELD
    elif 1 in outcomes:
        answer = IN_PART
    else:
        answer = NOT if -1 in outcomes else OPEN
    return Verdict(
        f"Gates keep the gradient from vanishing or exploding ({words}).",
        "2, 3.1, A1",
        answer,
        tuple(reasons),
    )


def _still_vanishing(study: Study) -> Verdict | None:
    reasons = []
    count = vanished = 0
    for task in _longest(study):
        for entry in study.select(task=task.name, sizing="units"):
            if not entry.network.gated:
                continue
            for when, words in (("start", "before"), ("trained", "after")):
                remains = _remains(entry, when)
                count += 1
                if (remains < _VANISHED).all():
                    vanished += 1
                    reasons.append(
                        f"{task.title}, {entry.network.title} {words} training: the gradient of "
                        f"the first step is {spread(remains)} of the last's."
                    )
    if not count:
        return None
    if not reasons:
        reasons = [f"No gated network's gradient falls below {_VANISHED:g} in every seed."]
    return Verdict(
        "Gradients can still vanish in gated networks.",
        "5.2, A4",
        HELD if vanished else NOT,
        tuple(reasons),
    )


def _parameters(study: Study) -> Verdict | None:
    reasons, fewer = [], []
    for gru, lstm in _pairs(study, "gru", "lstm"):
        fewer.append(gru.parameters < lstm.parameters)
        reasons.append(
            f"{gru.task.title}, {gru.units} units: {gru.parameters:,} against "
            f"{lstm.parameters:,} ({gru.parameters / lstm.parameters:.0%}); "
            f"{compare(gru, lstm)[1]}."
        )
    if not reasons:
        return None
    answer = HELD if all(fewer) else (IN_PART if any(fewer) else NOT)
    return Verdict("The GRU needs fewer parameters than the LSTM.", "3.2", answer, tuple(reasons))


def _sequences(study: Study) -> Verdict | None:
    tasks = [task for task in study.tasks if not task.lag]
    answer, reasons = _gated_over_tasks(study, tasks)
    if not reasons:
        return None
    return Verdict(
        "Gated networks handle real sequences better than traditional networks.",
        "1, Q3",
        answer,
        reasons,
    )


def _price(pairs: Sequence[tuple[Entry, Entry]]) -> str:
    """What the network that comes first in all pairs costs as a multiple of the second's."""
    sizes = np.array([one.parameters / other.parameters for one, other in pairs])
    times = np.array([one.seconds_per_epoch / other.seconds_per_epoch for one, other in pairs])
    one, other = pairs[0]
    return (
        f"{one.network.title} against {other.network.title} at equal units, median (range) of "
        f"{len(pairs)} task(s): {spread(sizes)} times the parameters, {spread(times)} times the "
        f"seconds per epoch."
    )


def _costs(study: Study) -> Verdict | None:
    reasons, longer = [], []
    for network in dict.fromkeys(entry.network for entry in study.select(sizing="units")):
        pairs = _pairs(study, network.name, "simple_rnn")
        if network.gated and pairs:
            reasons.append(_price(pairs))
            longer += [one.seconds_per_epoch > other.seconds_per_epoch for one, other in pairs]
    if not reasons:
        return None
    answer = HELD if all(longer) else (IN_PART if any(longer) else NOT)
    return Verdict(
        "Gated networks have more parameters, which makes training take longer.",
        "5.1, A4",
        answer,
        tuple(reasons),
    )


def _article_gru(study: Study) -> Verdict | None:
    pairs = _pairs(study, "dual_state_gru", "gru", "parameters")
    answer, reasons = _over_tasks(pairs, level_is_enough=True)
    if not reasons:
        return None
    bounds = []
    for entry in study.select(network="dual_state_gru", sizing="units"):
        h, c = (entry.largest("trained", name).max() for name in ("largest", "largest_cell"))
        bounds.append((float(h), float(c), entry.task.title))
    h, c, title = max(bounds, default=(0.0, 0.0, ""))
    others = [
        float(entry.largest("trained").max())
        for entry in study.select(sizing="units")
        if entry.network.recurrent and entry.network.name != "dual_state_gru"
    ]
    if bounds and others:
        reasons += (
            f"Its states are not bounded by 1: after training |h| reaches {number(h)} and |C| "
            f"{number(c)} ({title}); no other network's |h| exceeds {number(max(others))}.",
        )
    return Verdict(
        "The GRU as section 3.2 writes it, with two states, does as well as the usual GRU or "
        "better.",
        "3.2",
        answer,
        reasons,
    )


def _coupled(study: Study) -> Verdict | None:
    pairs = _pairs(study, "coupled_lstm", "lstm")
    answer, reasons = _over_tasks(pairs, level_is_enough=True)
    if not reasons:
        return None
    return Verdict(
        "The LSTM with coupled gates (what comes in is what is forgotten) does as well as the "
        "LSTM with as many units, or better.",
        "5.1, 5.2, fewer parameters and other gates",
        answer,
        (*reasons, _price(pairs)),
    )


def _aids(study: Study) -> list[Verdict]:
    verdicts = []
    for network in dict.fromkeys(e.network for e in study.entries if e.network.variant_of):
        base = NETWORKS[str(network.variant_of)]
        names = (network.name, base.name) if network.aid else (base.name, network.name)
        pairs = _pairs(study, *names)
        answer, reasons = _over_tasks(pairs, sooner=True)
        if reasons:
            aid = network.aid or network.lacks
            claim = f"{aid} helps {base.title} to remember, or to learn it sooner."
            reasons += (_price(pairs),)
            verdicts.append(Verdict(claim, "5.2, what else may help", answer, reasons))
    return verdicts


def verdicts(study: Study) -> list[Verdict]:
    """All claims that the results say something about."""
    found = [
        _memory(study),
        _gradients(study, "start", "before training, as initialised"),
        _gradients(study, "trained", "after training"),
        _still_vanishing(study),
        _sequences(study),
        _parameters(study),
        _costs(study),
        _article_gru(study),
        _coupled(study),
        *_aids(study),
    ]
    return [verdict for verdict in found if verdict is not None]
