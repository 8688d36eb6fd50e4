"""The networks that are compared: one hidden layer each, of a feed-forward or a recurrent kind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from .. import layers
from ..initializers import Chrono
from ..models import Sequential
from ..optimizers import Adam
from .tasks import Task

CLIP = 1.0  # norm that the gradients of a step are cut to
_EMBEDDING = 16
_CHRONO = "Chrono initialisation"


@dataclass(frozen=True)
class Network:
    """A kind of hidden layer, and what is special about it."""

    name: str
    title: str
    layer: str  # class in tidegate.layers
    recurrent: bool = True
    gated: bool = False
    sees_all: bool = False  # a feed-forward network over all steps, not only the task's window
    variant_of: str | None = None
    aid: str | None = None  # of a variant: what it has and the original lacks
    lacks: str | None = None  # or what the original has and it lacks
    arguments: Callable[[Task], dict[str, Any]] = field(default=lambda task: {}, compare=False)
    clip: bool = True


_ALL = [
    Network("feed_forward", "feed-forward, window", "Dense", recurrent=False),
    Network("feed_forward_all", "feed-forward, all steps", "Dense", recurrent=False, sees_all=True),
    Network("simple_rnn", "SimpleRNN", "SimpleRNN"),
    Network("lstm", "LSTM", "LSTM", gated=True),
    Network("gru", "GRU", "GRU", gated=True),
    Network("dual_state_gru", "DualStateGRU", "DualStateGRU", gated=True),
    Network("coupled_lstm", "CoupledLSTM", "CoupledLSTM", gated=True),
    Network(
        "simple_rnn_unclipped",
        "SimpleRNN, gradients not clipped",
        "SimpleRNN",
        variant_of="simple_rnn",
        lacks="Clipping gradients",
        clip=False,
    ),
    Network(
        "simple_rnn_identity",
        "SimpleRNN, relu, started as identity",  # Le, Jaitly, Hinton 2015
        "SimpleRNN",
        variant_of="simple_rnn",
        aid="Starting as identity, with relu,",
        arguments=lambda task: dict(activation="relu", recurrent_initializer="identity"),
    ),
    Network(
        "lstm_unclipped",
        "LSTM, gradients not clipped",
        "LSTM",
        gated=True,
        variant_of="lstm",
        lacks="Clipping gradients",
        clip=False,
    ),
    Network(
        "lstm_zero_bias",
        "LSTM, unit_forget_bias=False",
        "LSTM",
        gated=True,
        variant_of="lstm",
        lacks="unit_forget_bias",
        arguments=lambda task: dict(unit_forget_bias=False),
    ),
    Network(
        "lstm_chrono",
        "LSTM, chrono initialisation",
        "LSTM",
        gated=True,
        variant_of="lstm",
        aid=_CHRONO,
        arguments=lambda task: dict(
            unit_forget_bias=False, bias_initializer=Chrono(task.time, "lstm")
        ),
    ),
    Network(
        "gru_chrono",
        "GRU, chrono initialisation",
        "GRU",
        gated=True,
        variant_of="gru",
        aid=_CHRONO,
        arguments=lambda task: dict(bias_initializer=Chrono(task.time, "gru")),
    ),
    Network(
        "dual_state_gru_chrono",
        "DualStateGRU, chrono initialisation",
        "DualStateGRU",
        gated=True,
        variant_of="dual_state_gru",
        aid=_CHRONO,
        arguments=lambda task: dict(bias_initializer=Chrono(task.time, "dual_state_gru")),
    ),
    Network(
        "coupled_lstm_chrono",
        "CoupledLSTM, chrono initialisation",
        "CoupledLSTM",
        gated=True,
        variant_of="coupled_lstm",
        aid=_CHRONO,
        arguments=lambda task: dict(
            unit_forget_bias=False, bias_initializer=Chrono(task.time, "coupled_lstm")
        ),
    ),
]
NETWORKS = {network.name: network for network in _ALL}
CELLS = tuple(network.name for network in _ALL if network.variant_of is None)
QUICK = (*CELLS, "lstm_chrono", "gru_chrono")


def suits(network: Network, task: Task) -> bool:
    """Whether the network differs from the others on this task."""
    return not network.sees_all or task.window < task.time


def steps(network: Network, task: Task) -> int:
    """How many of the last steps the network is given."""
    return task.time if network.recurrent or network.sees_all else task.window


def build(network: Network, task: Task, units: int) -> Sequential:
    """The compiled model; its weights come from the shared random generator."""
    time = steps(network, task)
    model = Sequential(name=network.name)
    if task.symbols:
        model.add(layers.Input((time,), dtype="int32"))
        model.add(layers.Embedding(task.symbols, _EMBEDDING))
    else:
        model.add(layers.Input((time, task.features)))
        if task.masked and network.recurrent:
            model.add(layers.Masking())
    if network.recurrent:
        layer = getattr(layers, network.layer)
        model.add(layer(units, **network.arguments(task)))
    else:
        model.add(layers.Flatten())
        model.add(layers.Dense(units, activation="relu"))
    model.add(layers.Dense(task.outputs))
    loss: Any = "mean_squared_error"
    if task.kind in ("classes", "symbols"):
        from ..losses import SparseCategoricalCrossentropy

        loss = SparseCategoricalCrossentropy(from_logits=True)
    clip = CLIP if network.clip else None
    model.compile(Adam(task.learning_rate, global_clipnorm=clip), loss)
    return model


@cache
def _count(network: Network, task: Task, units: int) -> int:
    return build(network, task, units).count_params()


def units_for(network: Network, task: Task, budget: int) -> int:
    """The number of units with which the network comes closest to `budget` parameters."""
    low, high = 1, 2
    while _count(network, task, high) < budget:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        if _count(network, task, middle) < budget:
            low = middle
        else:
            high = middle
    return min((low, high), key=lambda units: abs(_count(network, task, units) - budget))


def sizes(network: Network, task: Task) -> dict[str, int]:
    """Units at the same number of units for all, and at the LSTM's number of parameters."""
    budget = _count(NETWORKS["lstm"], task, task.units)
    return {"units": task.units, "parameters": units_for(network, task, budget)}
