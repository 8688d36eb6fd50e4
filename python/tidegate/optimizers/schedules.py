"""Learning rates that depend on the step: Keras's schedules.

A schedule is called with the number of steps done so far and returns the learning rate of the next
one. All arithmetic is in float32, as in Keras.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..utils import Registry

__all__ = [
    "CosineDecay",
    "CosineDecayRestarts",
    "ExponentialDecay",
    "InverseTimeDecay",
    "LearningRateSchedule",
    "PiecewiseConstantDecay",
    "PolynomialDecay",
    "deserialize",
    "serialize",
]

_f32 = np.float32


class LearningRateSchedule:
    """Base class. Subclasses define `__call__(step)` and, to be saved, `get_config`."""

    def __call__(self, step: Any) -> Any:
        """The learning rate after `step` steps."""
        raise NotImplementedError(
            f"Learning rate schedule '{type(self).__name__}' must override `__call__(self, step)`."
        )

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        raise NotImplementedError(
            f"Learning rate schedule '{type(self).__name__}' must override `get_config()` in order "
            "to be serializable."
        )

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> LearningRateSchedule:
        """The schedule that `get_config` described."""
        return cls(**config)


def _check_positive(value: float, name: str) -> None:
    if value <= 0:
        raise ValueError(f"Argument `{name}` must be > 0. Received: {name}={value}")


class ExponentialDecay(LearningRateSchedule):
    """`initial_learning_rate * decay_rate**(step / decay_steps)`.

    Args:
        initial_learning_rate: The rate at step 0.
        decay_steps: Steps after which the rate has been multiplied by `decay_rate`.
        decay_rate: That factor.
        staircase: Whether the exponent is rounded down, so that the rate falls in steps.
        name: Kept in the configuration.
    """

    def __init__(
        self,
        initial_learning_rate: float,
        decay_steps: float,
        decay_rate: float,
        staircase: bool = False,
        name: str = "ExponentialDecay",
    ) -> None:
        _check_positive(decay_steps, "decay_steps")
        self.initial_learning_rate = initial_learning_rate
        self.decay_steps = decay_steps
        self.decay_rate = decay_rate
        self.staircase = staircase
        self.name = name

    def _periods(self, step: Any) -> Any:
        periods = _f32(step) / _f32(self.decay_steps)
        return np.floor(periods) if self.staircase else periods

    def __call__(self, step: Any) -> Any:
        """The learning rate after `step` steps."""
        rate = np.power(_f32(self.decay_rate), self._periods(step))
        return _f32(self.initial_learning_rate) * rate

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {
            "initial_learning_rate": self.initial_learning_rate,
            "decay_steps": self.decay_steps,
            "decay_rate": self.decay_rate,
            "staircase": self.staircase,
            "name": self.name,
        }


class InverseTimeDecay(ExponentialDecay):
    """`initial_learning_rate / (1 + decay_rate * step / decay_steps)`.

    With `staircase`, `step / decay_steps` is rounded down.
    """

    def __init__(
        self,
        initial_learning_rate: float,
        decay_steps: float,
        decay_rate: float,
        staircase: bool = False,
        name: str = "InverseTimeDecay",
    ) -> None:
        super().__init__(initial_learning_rate, decay_steps, decay_rate, staircase, name)

    def __call__(self, step: Any) -> Any:
        """The learning rate after `step` steps."""
        growth = _f32(1) + _f32(self.decay_rate) * self._periods(step)
        return _f32(self.initial_learning_rate) / growth


class PiecewiseConstantDecay(LearningRateSchedule):
    """`values[0]` up to and including step `boundaries[0]`, then `values[1]`, and so on.

    Args:
        boundaries: Increasing step numbers.
        values: Learning rates, one more than boundaries.
        name: Kept in the configuration.
    """

    def __init__(
        self,
        boundaries: Sequence[float],
        values: Sequence[float],
        name: str = "PiecewiseConstant",
    ) -> None:
        if len(boundaries) != len(values) - 1:
            raise ValueError(
                "The length of boundaries should be 1 less than the length of values. Received: "
                f"boundaries={boundaries} of length {len(boundaries)}, and values={values} "
                f"of length {len(values)}."
            )
        self.boundaries = boundaries
        self.values = values
        self.name = name

    def __call__(self, step: Any) -> Any:
        """The learning rate after `step` steps."""
        return _f32(self.values[bisect.bisect_left([int(b) for b in self.boundaries], int(step))])

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {"boundaries": self.boundaries, "values": self.values, "name": self.name}


class PolynomialDecay(LearningRateSchedule):
    """From `initial_learning_rate` to `end_learning_rate` as `(1 - step / decay_steps)**power`.

    Args:
        initial_learning_rate: The rate at step 0.
        decay_steps: Steps until the end is reached.
        end_learning_rate: The rate from then on.
        power: Of the polynomial; 1 is a straight line.
        cycle: Whether, at the end, `decay_steps` grows to its next multiple instead.
        name: Kept in the configuration.
    """

    def __init__(
        self,
        initial_learning_rate: float,
        decay_steps: float,
        end_learning_rate: float = 0.0001,
        power: float = 1.0,
        cycle: bool = False,
        name: str = "PolynomialDecay",
    ) -> None:
        _check_positive(decay_steps, "decay_steps")
        self.initial_learning_rate = initial_learning_rate
        self.decay_steps = decay_steps
        self.end_learning_rate = end_learning_rate
        self.power = power
        self.cycle = cycle
        self.name = name

    def __call__(self, step: Any) -> Any:
        """The learning rate after `step` steps."""
        done, steps = _f32(step), _f32(self.decay_steps)
        if self.cycle:
            steps *= max(_f32(1), np.ceil(done / steps))
        else:
            done = min(done, steps)
        start, end = _f32(self.initial_learning_rate), _f32(self.end_learning_rate)
        return (start - end) * np.power(_f32(1) - done / steps, _f32(self.power)) + end

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {
            "initial_learning_rate": self.initial_learning_rate,
            "decay_steps": self.decay_steps,
            "end_learning_rate": self.end_learning_rate,
            "power": self.power,
            "cycle": self.cycle,
            "name": self.name,
        }


def _half_cosine(fraction: Any) -> Any:
    """From 1 at 0 down to 0 at 1."""
    return _f32(0.5) * (_f32(1) + np.cos(_f32(math.pi) * fraction))


class CosineDecay(LearningRateSchedule):
    """Half a cosine from the initial rate to `alpha` times it, optionally after a linear warm-up.

    Source: Loshchilov and Hutter, 2016.

    Args:
        initial_learning_rate: The rate at step 0.
        decay_steps: Length of the half cosine, which starts after the warm-up.
        alpha: What is left at the end, as a fraction.
        name: Kept in the configuration.
        warmup_target: The rate after the warm-up, where the cosine starts. None: no warm-up.
        warmup_steps: Length of the warm-up.
    """

    def __init__(
        self,
        initial_learning_rate: float,
        decay_steps: float,
        alpha: float = 0.0,
        name: str = "CosineDecay",
        warmup_target: float | None = None,
        warmup_steps: float = 0,
    ) -> None:
        _check_positive(decay_steps, "decay_steps")
        self.initial_learning_rate = initial_learning_rate
        self.decay_steps = decay_steps
        self.alpha = alpha
        self.name = name
        self.warmup_target = warmup_target
        self.warmup_steps = warmup_steps

    def __call__(self, step: Any) -> Any:
        """The learning rate after `step` steps."""
        start, done = _f32(self.initial_learning_rate), _f32(step)
        if self.warmup_target is not None:
            target, warmup = _f32(self.warmup_target), _f32(self.warmup_steps)
            if done < warmup:
                return (target - start) * (done / warmup) + start
            start, done = target, done - warmup
        steps = _f32(self.decay_steps)
        decayed = _half_cosine(min(done, steps) / steps)
        return start * (_f32(1 - self.alpha) * decayed + _f32(self.alpha))

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {
            "initial_learning_rate": self.initial_learning_rate,
            "decay_steps": self.decay_steps,
            "alpha": self.alpha,
            "name": self.name,
            "warmup_target": self.warmup_target,
            "warmup_steps": self.warmup_steps,
        }


class CosineDecayRestarts(LearningRateSchedule):
    """Half cosines one after the other, each `t_mul` times as long and `m_mul` times as high.

    Source: Loshchilov and Hutter, 2016.

    Args:
        initial_learning_rate: The rate at step 0.
        first_decay_steps: Length of the first half cosine.
        t_mul: Factor of the lengths.
        m_mul: Factor of the heights.
        alpha: The lowest rate, as a fraction of the initial one.
        name: Kept in the configuration.
    """

    def __init__(
        self,
        initial_learning_rate: float,
        first_decay_steps: float,
        t_mul: float = 2.0,
        m_mul: float = 1.0,
        alpha: float = 0.0,
        name: str = "SGDRDecay",
    ) -> None:
        _check_positive(first_decay_steps, "first_decay_steps")
        self.initial_learning_rate = initial_learning_rate
        self.first_decay_steps = first_decay_steps
        self.t_mul = t_mul
        self.m_mul = m_mul
        self.alpha = alpha
        self.name = name

    def __call__(self, step: Any) -> Any:
        """The learning rate after `step` steps."""
        fraction = _f32(step) / _f32(self.first_decay_steps)
        one, t_mul = _f32(1), _f32(self.t_mul)
        if t_mul == one:
            restarts = np.floor(fraction)
            fraction = fraction - restarts
        else:
            # The n-th restart is after (1 - t_mul**n) / (1 - t_mul) first lengths.
            restarts = np.floor(np.log(one - fraction * (one - t_mul)) / np.log(t_mul))
            length = np.power(t_mul, restarts)
            fraction = (fraction - (one - length) / (one - t_mul)) / length
        height = np.power(_f32(self.m_mul), restarts) * _half_cosine(fraction)
        alpha = _f32(self.alpha)
        return _f32(self.initial_learning_rate) * ((one - alpha) * height + alpha)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {
            "initial_learning_rate": self.initial_learning_rate,
            "first_decay_steps": self.first_decay_steps,
            "t_mul": self.t_mul,
            "m_mul": self.m_mul,
            "alpha": self.alpha,
            "name": self.name,
        }


_registry = Registry(
    "keras.optimizers.schedules",
    "learning rate schedule",
    [
        CosineDecay,
        CosineDecayRestarts,
        ExponentialDecay,
        InverseTimeDecay,
        PiecewiseConstantDecay,
        PolynomialDecay,
    ],
)


def serialize(learning_rate_schedule: LearningRateSchedule) -> dict[str, Any]:
    """A schedule as the dict that Keras's files hold."""
    return _registry.serialize(learning_rate_schedule)


def deserialize(config: Any, custom_objects: Mapping[str, Any] | None = None) -> Any:
    """The schedule that a dict from `serialize` describes."""
    return _registry.deserialize(config, custom_objects)
