"""How weights start: Keras's initializers, with its names, defaults and limits.

Every initializer is called as `initializer(shape, dtype="float32")` and returns a new array. Random
ones draw from a generator of their own: seeded by `seed`, or by a number drawn from the shared
generator when the object is made, so calling one object twice gives the same values, as in Keras.
The streams themselves are NumPy's, not those of a Keras back end.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from .utils import Array, Registry, draw_seed, make_generator

__all__ = [
    "Chrono",
    "Constant",
    "GlorotNormal",
    "GlorotUniform",
    "HeNormal",
    "HeUniform",
    "Identity",
    "Initializer",
    "LecunNormal",
    "LecunUniform",
    "Ones",
    "Orthogonal",
    "RandomNormal",
    "RandomUniform",
    "TruncatedNormal",
    "VarianceScaling",
    "Zeros",
    "deserialize",
    "get",
    "serialize",
]

Shape = Sequence[int]

# Standard deviation of a standard normal cut at +-2: the correction of VarianceScaling.
_TRUNCATED_STDDEV = 0.87962566103423978


class Initializer:
    """Base class. Subclasses define `__call__`, and `get_config` if they take arguments."""

    def __call__(self, shape: Shape, dtype: Any = "float32") -> Array:
        """A new array of that shape and dtype."""
        raise NotImplementedError(f"{type(self).__name__}: expected a __call__ method")

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Initializer:
        """The initializer that `get_config` described."""
        return cls(**config)


class Zeros(Initializer):
    """All 0."""

    def __call__(self, shape: Shape, dtype: Any = "float32") -> Array:
        """Zeros of that shape and dtype."""
        return np.zeros(shape, dtype)


class Ones(Initializer):
    """All 1."""

    def __call__(self, shape: Shape, dtype: Any = "float32") -> Array:
        """Ones of that shape and dtype."""
        return np.ones(shape, dtype)


class Constant(Initializer):
    """All `value`, a scalar."""

    def __init__(self, value: Any = 0.0) -> None:
        self.value = value

    def __call__(self, shape: Shape, dtype: Any = "float32") -> Array:
        """An array of that shape and dtype filled with `value`."""
        return np.full(shape, self.value, dtype)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {"value": self.value}


class Identity(Initializer):
    """`gain` times the identity matrix; the shape must have two axes."""

    def __init__(self, gain: float = 1.0) -> None:
        self.gain = gain

    def __call__(self, shape: Shape, dtype: Any = "float32") -> Array:
        """A matrix of that shape and dtype with `gain` on its main diagonal."""
        if len(shape) != 2:
            raise ValueError(f"Identity: expected a shape of two axes, got {tuple(shape)}")
        return np.asarray(self.gain * np.eye(shape[0], shape[1]), dtype)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {"gain": self.gain}


class _Random(Initializer):
    """A random initializer: keeps the seed, and starts a new generator at each call."""

    def __init__(self, seed: Any = None) -> None:
        if isinstance(seed, Mapping):  # Keras's SeedGenerator, as its files write it
            seed = seed["config"]["seed"]
        if seed is not None and not isinstance(seed, int | np.integer):
            raise ValueError(f"seed: expected an integer or None, got {seed!r}")
        self._given_seed = None if seed is None else int(seed)
        self.seed = draw_seed() if seed is None else int(seed)

    def _generator(self) -> np.random.Generator:
        return make_generator(self.seed)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {"seed": self._given_seed}


def _normal(generator: np.random.Generator, shape: Shape, mean: float, stddev: float) -> Array:
    return mean + stddev * generator.standard_normal(shape)


def _truncated_normal(
    generator: np.random.Generator, shape: Shape, mean: float, stddev: float
) -> Array:
    """Normal values; those more than two standard deviations off are drawn again."""
    values = generator.standard_normal(shape)
    flat = values.reshape(-1)
    outside = np.flatnonzero(np.abs(flat) > 2)
    while outside.size:
        flat[outside] = generator.standard_normal(outside.size)
        outside = outside[np.abs(flat[outside]) > 2]
    return mean + stddev * values


class RandomNormal(_Random):
    """Normal values."""

    def __init__(self, mean: float = 0.0, stddev: float = 0.05, seed: int | None = None) -> None:
        super().__init__(seed)
        self.mean = mean
        self.stddev = stddev

    def __call__(self, shape: Shape, dtype: Any = "float32") -> Array:
        """An array of that shape and dtype."""
        return _normal(self._generator(), shape, self.mean, self.stddev).astype(dtype)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {**super().get_config(), "mean": self.mean, "stddev": self.stddev}


class TruncatedNormal(RandomNormal):
    """Normal values; those more than two standard deviations from the mean are drawn again."""

    def __call__(self, shape: Shape, dtype: Any = "float32") -> Array:
        """An array of that shape and dtype."""
        return _truncated_normal(self._generator(), shape, self.mean, self.stddev).astype(dtype)


class RandomUniform(_Random):
    """Uniform values from `minval` up to `maxval`."""

    def __init__(
        self, minval: float = -0.05, maxval: float = 0.05, seed: int | None = None
    ) -> None:
        super().__init__(seed)
        self.minval = minval
        self.maxval = maxval

    def __call__(self, shape: Shape, dtype: Any = "float32") -> Array:
        """An array of that shape and dtype."""
        return self._generator().uniform(self.minval, self.maxval, shape).astype(dtype)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {**super().get_config(), "minval": self.minval, "maxval": self.maxval}


class VarianceScaling(_Random):
    """Values whose variance is `scale / n`, with n the number of inputs, outputs or their mean.

    Args:
        scale: Positive factor.
        mode: `"fan_in"`, `"fan_out"` or `"fan_avg"`: what n is. For a matrix the fans are its rows
            and columns (a recurrent layer's kernel of G gates counts G*units outputs).
        distribution: `"truncated_normal"` (cut at two standard deviations, `"normal"` for short),
            `"untruncated_normal"` or `"uniform"` (limits +-sqrt(3 * scale / n)).
        seed: Integer or None.
        input_axes: The axes that count as inputs; with `output_axes`, instead of the usual rule.
        output_axes: The axes that count as outputs.

    Raises:
        ValueError: `scale` is not positive, or a name is unknown.
    """

    def __init__(
        self,
        scale: float = 1.0,
        mode: str = "fan_in",
        distribution: str = "truncated_normal",
        seed: int | None = None,
        input_axes: Sequence[int] | None = None,
        output_axes: Sequence[int] | None = None,
    ) -> None:
        if scale <= 0.0:
            raise ValueError(f"Argument `scale` must be positive float. Received: scale={scale}")
        if mode not in ("fan_in", "fan_out", "fan_avg"):
            raise ValueError(
                f"Invalid `mode` argument: {mode}. Please use one of 'fan_in', 'fan_out', 'fan_avg'"
            )
        distribution = distribution.lower()
        if distribution == "normal":
            distribution = "truncated_normal"
        if distribution not in ("uniform", "truncated_normal", "untruncated_normal"):
            raise ValueError(
                f"Invalid `distribution` argument: {distribution}. Please use one of "
                "'uniform', 'truncated_normal', 'untruncated_normal'"
            )
        super().__init__(seed)
        self.scale = scale
        self.mode = mode
        self.distribution = distribution
        self.input_axes = input_axes
        self.output_axes = output_axes

    def __call__(self, shape: Shape, dtype: Any = "float32") -> Array:
        """An array of that shape and dtype."""
        fan_in, fan_out = _fans(shape, self.input_axes, self.output_axes)
        count = {"fan_in": fan_in, "fan_out": fan_out, "fan_avg": (fan_in + fan_out) / 2}[self.mode]
        variance = self.scale / max(1.0, count)
        generator = self._generator()
        if self.distribution == "uniform":
            limit = math.sqrt(3.0 * variance)
            values = generator.uniform(-limit, limit, shape)
        elif self.distribution == "truncated_normal":
            stddev = math.sqrt(variance) / _TRUNCATED_STDDEV
            values = _truncated_normal(generator, shape, 0.0, stddev)
        else:
            values = _normal(generator, shape, 0.0, math.sqrt(variance))
        return values.astype(dtype)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {
            **super().get_config(),
            "scale": self.scale,
            "mode": self.mode,
            "distribution": self.distribution,
            "input_axes": self.input_axes,
            "output_axes": self.output_axes,
        }


def _fans(
    shape: Shape, input_axes: Sequence[int] | None, output_axes: Sequence[int] | None
) -> tuple[int, int]:
    """How many inputs each output has, and the reverse."""
    if input_axes is not None and output_axes is not None:
        return math.prod(shape[i] for i in input_axes), math.prod(shape[i] for i in output_axes)
    if len(shape) < 2:
        size = math.prod(shape)
        return size, size
    field = math.prod(shape[:-2])
    return shape[-2] * field, shape[-1] * field


class _NamedScaling(VarianceScaling):
    """VarianceScaling with fixed scale, mode and distribution."""

    _settings: tuple[float, str, str]

    def __init__(
        self,
        seed: int | None = None,
        input_axes: Sequence[int] | None = None,
        output_axes: Sequence[int] | None = None,
    ) -> None:
        super().__init__(*self._settings, seed, input_axes, output_axes)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        config = super().get_config()
        return {name: config[name] for name in ("seed", "input_axes", "output_axes")}


class GlorotUniform(_NamedScaling):
    """Uniform in +-sqrt(6 / (fan_in + fan_out)) (Glorot and Bengio, 2010)."""

    _settings = (1.0, "fan_avg", "uniform")


class GlorotNormal(_NamedScaling):
    """Truncated normal of variance 2 / (fan_in + fan_out) (Glorot and Bengio, 2010)."""

    _settings = (1.0, "fan_avg", "truncated_normal")


class LecunUniform(_NamedScaling):
    """Uniform in +-sqrt(3 / fan_in) (LeCun et al., 1998)."""

    _settings = (1.0, "fan_in", "uniform")


class LecunNormal(_NamedScaling):
    """Truncated normal of variance 1 / fan_in (LeCun et al., 1998)."""

    _settings = (1.0, "fan_in", "truncated_normal")


class HeUniform(_NamedScaling):
    """Uniform in +-sqrt(6 / fan_in) (He et al., 2015)."""

    _settings = (2.0, "fan_in", "uniform")


class HeNormal(_NamedScaling):
    """Truncated normal of variance 2 / fan_in (He et al., 2015)."""

    _settings = (2.0, "fan_in", "truncated_normal")


def _orthonormal(a: Array) -> Array:
    """Q of the QR decomposition of `a` with a positive diagonal of R.

    By panels of columns, each made orthogonal to those before it (twice, which is exact to
    rounding) and decomposed by itself. It takes half as long as LAPACK's QR of the whole, and
    for layers of up to some 64 units no product is large enough for BLAS to start its threads: they
    would spin on for a tenth of a second, on the cores that the first epoch wants.
    """
    q = np.empty_like(a)
    for first in range(0, a.shape[1], 32):
        panel, before = a[:, first : first + 32], q[:, :first]
        for _ in range(2 if first else 0):
            panel = panel - before @ (before.T @ panel)
        part, r = np.linalg.qr(panel)
        q[:, first : first + 32] = part * np.sign(np.diag(r))
    return q


class Orthogonal(_Random):
    """A random matrix with orthonormal rows or columns, whichever are fewer (Saxe et al., 2014).

    It is the Q of the QR decomposition of a normal matrix, its columns multiplied by the signs of
    R's diagonal so that it is uniform over the orthogonal matrices. More than two axes are taken
    as a matrix of `prod(shape[:-1])` rows.

    Args:
        gain: Factor.
        seed: Integer or None.
    """

    def __init__(self, gain: float = 1.0, seed: int | None = None) -> None:
        super().__init__(seed)
        self.gain = gain

    def __call__(self, shape: Shape, dtype: Any = "float32") -> Array:
        """An array of that shape, which must have at least two axes, and dtype."""
        if len(shape) < 2:
            raise ValueError(
                "Orthogonal: expected a shape of at least two axes, "
                f"got {tuple(shape)} of rank {len(shape)}"
            )
        rows, columns = math.prod(shape[:-1]), shape[-1]
        normal = self._generator().standard_normal((max(rows, columns), min(rows, columns)))
        # In float64 whatever the dtype: orthonormal to the dtype's own precision.
        q = _orthonormal(normal)
        if rows < columns:
            q = q.T
        return np.ascontiguousarray((self.gain * q).reshape(shape), dtype)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {**super().get_config(), "gain": self.gain}


# Of each cell's bias, gate by gate: the factor of log(u).
_CHRONO_SIGNS = {
    "lstm": (-1, 1, 0, 0),
    "gru": (1, 0, 0),
    "dual_state_gru": (-1, 0, 0),
    "coupled_lstm": (1, 0, 0),
}


class Chrono(_Random):
    """Biases that make gates forget over times spread from 1 to `max_timescale` steps.

    The bias of what keeps the state is log(u), u uniform in [1, max_timescale - 1], so its gate
    keeps for about u steps; the LSTM's input gate starts with -log(u), all else with 0 (Tallec and
    Ollivier, "Can recurrent neural networks warp time?", 2018). Pass it as `bias_initializer`; to
    an `LSTM` or `CoupledLSTM` together with `unit_forget_bias=False`, as `True` would overwrite a
    part of it. Keras has no such initializer, so its files name this class.

    Args:
        max_timescale: Length of the dependencies to expect, in steps, at least 2.
        cell: `"lstm"`, `"coupled_lstm"`, `"gru"` or `"dual_state_gru"` (whose z forgets when it
            opens).
        seed: Integer or None.

    Raises:
        ValueError: `max_timescale` is less than 2 or the cell unknown.
    """

    def __init__(self, max_timescale: float, cell: str = "lstm", seed: int | None = None) -> None:
        if not max_timescale >= 2:
            raise ValueError(f"max_timescale: expected at least 2, got {max_timescale!r}")
        if cell not in _CHRONO_SIGNS:
            raise ValueError(f"cell: expected one of {', '.join(_CHRONO_SIGNS)}, got {cell!r}")
        super().__init__(seed)
        self.max_timescale = max_timescale
        self.cell = cell

    def __call__(self, shape: Shape, dtype: Any = "float32") -> Array:
        """A bias (gates*units,), or (2, gates*units), of which the second row is 0."""
        signs = np.array(_CHRONO_SIGNS[self.cell])
        if not 1 <= len(shape) <= 2 or shape[-1] % len(signs):
            raise ValueError(
                f"Chrono: expected the shape of the bias of {self.cell}, whose last axis is a "
                f"multiple of {len(signs)}, got {tuple(shape)}"
            )
        units = shape[-1] // len(signs)
        times = self._generator().uniform(1.0, self.max_timescale - 1.0, units)
        bias = np.zeros(shape)
        bias.reshape(-1)[: shape[-1]] = np.outer(signs, np.log(times)).reshape(-1)
        return bias.astype(dtype)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {**super().get_config(), "max_timescale": self.max_timescale, "cell": self.cell}


_registry = Registry(
    "keras.initializers",
    "initializer",
    [
        Constant,
        GlorotNormal,
        GlorotUniform,
        HeNormal,
        HeUniform,
        Identity,
        LecunNormal,
        LecunUniform,
        Ones,
        Orthogonal,
        RandomNormal,
        RandomUniform,
        TruncatedNormal,
        VarianceScaling,
        Zeros,
    ],
    {
        # Not among the built-in ones above: files would say that Keras has it.
        "Chrono": Chrono,
        "IdentityInitializer": Identity,
        "OrthogonalInitializer": Orthogonal,
        "normal": RandomNormal,
        "one": Ones,
        "uniform": RandomUniform,
        "zero": Zeros,
    },
)


def serialize(initializer: Any) -> dict[str, Any]:
    """`initializer` as the dict that Keras's files hold."""
    return _registry.serialize(initializer)


def deserialize(config: Any, custom_objects: Mapping[str, Any] | None = None) -> Any:
    """The initializer that a name or a dict from `serialize` describes."""
    return _registry.deserialize(config, custom_objects)


def get(identifier: Any) -> Callable[..., Array] | None:
    """The initializer for an identifier.

    Args:
        identifier: A name (`"glorot_uniform"`, `"GlorotUniform"`, ...), a dict from `serialize`, an
            array (which is returned at each call, and must have the shape asked for), a callable
            `f(shape, dtype)`, a class, or None.

    Raises:
        ValueError: It is none of these, or the name is unknown.
    """
    if isinstance(identifier, np.ndarray | np.generic):
        return _Given(identifier)
    found: Callable[..., Array] | None = _registry.get(identifier)
    return found


class _Given(Initializer):
    """Fixed contents."""

    def __init__(self, value: Any) -> None:
        self._value = np.array(value)

    def __call__(self, shape: Shape, dtype: Any = "float32") -> Array:
        if tuple(shape) != self._value.shape:
            raise ValueError(
                f"initializer: expected to be asked for the shape {self._value.shape} of the array "
                f"given as initializer, got {tuple(shape)}"
            )
        return self._value.astype(dtype)
