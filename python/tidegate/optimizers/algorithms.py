"""The optimizers. Formulas and their order are Keras's, so that float32 results agree with it.

The engine computes them (`cpp/src/kernels/optimizer.hpp`), from the coefficients that each gives.
Beside the arguments listed, each takes those of `Optimizer` by name.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..utils import Registry
from ..variables import Variable
from .base import LearningRate, Optimizer

__all__ = [
    "SGD",
    "Adadelta",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "Lion",
    "Nadam",
    "RMSprop",
    "deserialize",
    "get",
    "serialize",
]


class SGD(Optimizer):
    """Gradient descent: `w -= lr * g`; with momentum `v = momentum * v - lr * g; w += v`.

    Nesterov's form moves by `momentum * v - lr * g` with the new v. The learning rate is inside the
    velocity, unlike PyTorch's.

    Args:
        learning_rate: Default 0.01.
        momentum: From 0 to 1.
        nesterov: Whether to use Nesterov's form.
    """

    def __init__(
        self,
        learning_rate: LearningRate = 0.01,
        momentum: float = 0.0,
        nesterov: bool = False,
        weight_decay: float | None = None,
        clipnorm: float | None = None,
        clipvalue: float | None = None,
        global_clipnorm: float | None = None,
        **kwargs: Any,
    ) -> None:
        if not isinstance(momentum, float) or not 0 <= momentum <= 1:
            raise ValueError("`momentum` must be a float between [0, 1].")
        super().__init__(
            learning_rate, weight_decay, clipnorm, clipvalue, global_clipnorm, **kwargs
        )
        self.momentum = momentum
        self.nesterov = nesterov

    def _slot_names(self) -> list[tuple[str, ...]]:
        return [("momentum",)] if self.momentum != 0 else []

    def _rule(self) -> str:
        if self.momentum == 0:
            return "sgd"
        return "sgd_nesterov" if self.nesterov else "sgd_momentum"

    def _coefficients(self, step: int, rate: Any) -> tuple[Any, ...]:
        return (rate, self.momentum) if self.momentum != 0 else (rate,)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments, as Keras writes them."""
        return {**super().get_config(), "momentum": self.momentum, "nesterov": self.nesterov}


class RMSprop(Optimizer):
    """`v = rho * v + (1 - rho) * g**2; w -= lr * g / sqrt(v + epsilon)` (Hinton, 2012).

    Epsilon is inside the root, unlike PyTorch's, and rho defaults to 0.9.

    Args:
        learning_rate: Default 0.001.
        rho: How much of the average stays.
        momentum: If positive, `m = momentum * m + step; w -= m`.
        epsilon: Keeps the quotient finite.
        centered: Whether the square of the mean gradient is subtracted from v.
    """

    def __init__(
        self,
        learning_rate: LearningRate = 0.001,
        rho: float = 0.9,
        momentum: float = 0.0,
        epsilon: float = 1e-7,
        centered: bool = False,
        weight_decay: float | None = None,
        clipnorm: float | None = None,
        clipvalue: float | None = None,
        global_clipnorm: float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            learning_rate, weight_decay, clipnorm, clipvalue, global_clipnorm, **kwargs
        )
        self.rho = rho
        self.momentum = momentum
        self.epsilon = epsilon
        self.centered = centered

    def _slot_names(self) -> list[tuple[str, ...]]:
        names: list[tuple[str, ...]] = [("velocity",)]
        if self.momentum > 0:
            names.append(("momentum",))
        if self.centered:
            names.append(("average_gradient",))
        return names

    def _rule(self) -> str:
        momentum = "_momentum" if self.momentum > 0 else ""
        return f"rmsprop{momentum}{'_centered' if self.centered else ''}"

    def _coefficients(self, step: int, rate: Any) -> tuple[Any, ...]:
        momentum = (self.momentum,) if self.momentum > 0 else ()
        return (rate, self.rho, 1 - self.rho, self.epsilon, *momentum)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments, as Keras writes them."""
        return {
            **super().get_config(),
            "rho": self.rho,
            "momentum": self.momentum,
            "epsilon": self.epsilon,
            "centered": self.centered,
        }


class Adam(Optimizer):
    """Adam (Kingma and Ba, 2014).

    `m += (1 - beta_1) * (g - m); v += (1 - beta_2) * (g**2 - v);`
    `w -= lr * sqrt(1 - beta_2**t) / (1 - beta_1**t) * m / (sqrt(v) + epsilon)`. Epsilon is not
    bias-corrected, unlike PyTorch's, and defaults to 1e-7.

    Args:
        learning_rate: Default 0.001.
        beta_1: How much of the mean gradient stays.
        beta_2: How much of the mean squared gradient stays.
        epsilon: Keeps the quotient finite.
        amsgrad: Whether v is replaced by its maximum so far (Reddi et al., 2018).
    """

    def __init__(
        self,
        learning_rate: LearningRate = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        amsgrad: bool = False,
        weight_decay: float | None = None,
        clipnorm: float | None = None,
        clipvalue: float | None = None,
        global_clipnorm: float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            learning_rate, weight_decay, clipnorm, clipvalue, global_clipnorm, **kwargs
        )
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = epsilon
        self.amsgrad = amsgrad

    def _slot_names(self) -> list[tuple[str, ...]]:
        names: list[tuple[str, ...]] = [("momentum", "velocity")]
        return [*names, ("velocity_hat",)] if self.amsgrad else names

    def _rule(self) -> str:
        return "adam_amsgrad" if self.amsgrad else "adam"

    def _coefficients(self, step: int, rate: Any) -> tuple[Any, ...]:
        real = type(rate)
        rest_1 = 1 - real(self.beta_1) ** real(step)
        rest_2 = 1 - real(self.beta_2) ** real(step)
        alpha = rate * real(math.sqrt(rest_2)) / rest_1
        return (alpha, 1 - self.beta_1, 1 - self.beta_2, self.epsilon)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments, as Keras writes them."""
        return {
            **super().get_config(),
            "beta_1": self.beta_1,
            "beta_2": self.beta_2,
            "epsilon": self.epsilon,
            "amsgrad": self.amsgrad,
        }


class AdamW(Adam):
    """Adam with weight decay 0.004 (Loshchilov and Hutter, 2019)."""

    def __init__(
        self,
        learning_rate: LearningRate = 0.001,
        weight_decay: float | None = 0.004,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        amsgrad: bool = False,
        **kwargs: Any,
    ) -> None:
        if weight_decay is None:
            raise ValueError("Argument `weight_decay` must be a float. Received: weight_decay=None")
        super().__init__(learning_rate, beta_1, beta_2, epsilon, amsgrad, weight_decay, **kwargs)


class Nadam(Optimizer):
    """Adam with Nesterov momentum (Dozat, 2016).

    With `u_t = beta_1 * (1 - 0.96**t / 2)` and U the product of all u so far,
    `m_hat = u_(t+1) * m / (1 - U * u_(t+1)) + (1 - u_t) * g / (1 - U)` and
    `w -= lr * m_hat / (sqrt(v / (1 - beta_2**t)) + epsilon)`; m and v as Adam's.

    Args:
        learning_rate: Default 0.001.
        beta_1: How much of the mean gradient stays.
        beta_2: How much of the mean squared gradient stays.
        epsilon: Keeps the quotient finite.
    """

    def __init__(
        self,
        learning_rate: LearningRate = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        weight_decay: float | None = None,
        clipnorm: float | None = None,
        clipvalue: float | None = None,
        global_clipnorm: float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            learning_rate, weight_decay, clipnorm, clipvalue, global_clipnorm, **kwargs
        )
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = epsilon
        self._u_product: Variable | None = None

    def _slot_names(self) -> list[tuple[str, ...]]:
        return [("momentum", "velocity")]

    def build(self, variables: Any) -> None:
        """Makes the slots for `variables`, and the running product. A second call does nothing."""
        if not self.built:
            super().build(variables)
            dtype = self._trainable_variables[0].dtype if self._trainable_variables else "float32"
            self._u_product = self._variable(np.ones((), dtype), "u_product")

    @property
    def variables(self) -> list[Variable]:
        """The state in the order of Keras's files: the running product comes last."""
        return [*super().variables, *([] if self._u_product is None else [self._u_product])]

    def _begin_update(self, step: int) -> None:
        assert self._u_product is not None
        real = self._u_product.dtype.type
        decay = 1.0 - 0.5 * np.power(real(0.96), real(step))
        self._u_product.assign(self._u_product.value * self.beta_1 * decay)

    def _rule(self) -> str:
        return "nadam"

    def _coefficients(self, step: int, rate: Any) -> tuple[Any, ...]:
        assert self._u_product is not None
        real = type(rate)
        beta_1, beta_2, decay = real(self.beta_1), real(self.beta_2), real(0.96)
        u_now = beta_1 * (1 - real(0.5) * np.power(decay, real(step)))
        u_next = beta_1 * (1 - real(0.5) * np.power(decay, real(step + 1)))
        product = real(self._u_product.value)
        return (
            rate,
            1 - beta_1,
            1 - beta_2,
            self.epsilon,
            u_next,
            1 - product * u_next,
            1 - u_now,
            1 - product,
            1 - np.power(beta_2, real(step)),
        )

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments, as Keras writes them."""
        return {
            **super().get_config(),
            "beta_1": self.beta_1,
            "beta_2": self.beta_2,
            "epsilon": self.epsilon,
        }


class Adamax(Optimizer):
    """Adam with the maximum norm (Kingma and Ba, 2014).

    `u = max(beta_2 * u, |g|); w -= lr * m / ((1 - beta_1**t) * (u + epsilon))`; m as Adam's.

    Args:
        learning_rate: Default 0.001.
        beta_1: How much of the mean gradient stays.
        beta_2: How much of the norm stays.
        epsilon: Keeps the quotient finite.
    """

    def __init__(
        self,
        learning_rate: LearningRate = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
        weight_decay: float | None = None,
        clipnorm: float | None = None,
        clipvalue: float | None = None,
        global_clipnorm: float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            learning_rate, weight_decay, clipnorm, clipvalue, global_clipnorm, **kwargs
        )
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = epsilon

    def _slot_names(self) -> list[tuple[str, ...]]:
        return [("momentum", "norm")]

    def _rule(self) -> str:
        return "adamax"

    def _coefficients(self, step: int, rate: Any) -> tuple[Any, ...]:
        real = type(rate)
        rest = 1 - np.power(real(self.beta_1), real(step))
        return (rate, 1 - self.beta_1, self.beta_2, self.epsilon, rest)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments, as Keras writes them."""
        return {
            **super().get_config(),
            "beta_1": self.beta_1,
            "beta_2": self.beta_2,
            "epsilon": self.epsilon,
        }


class Adagrad(Optimizer):
    """`a += g**2; w -= lr * g / sqrt(a + epsilon)` (Duchi et al., 2011).

    Args:
        learning_rate: Default 0.001.
        initial_accumulator_value: Where a starts.
        epsilon: Keeps the quotient finite.
    """

    def __init__(
        self,
        learning_rate: LearningRate = 0.001,
        initial_accumulator_value: float = 0.1,
        epsilon: float = 1e-7,
        weight_decay: float | None = None,
        clipnorm: float | None = None,
        clipvalue: float | None = None,
        global_clipnorm: float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            learning_rate, weight_decay, clipnorm, clipvalue, global_clipnorm, **kwargs
        )
        self.initial_accumulator_value = initial_accumulator_value
        self.epsilon = epsilon

    def _slot_names(self) -> list[tuple[str, ...]]:
        return [("accumulator",)]

    def _initial_slot_value(self) -> float:
        return self.initial_accumulator_value

    def _rule(self) -> str:
        return "adagrad"

    def _coefficients(self, step: int, rate: Any) -> tuple[Any, ...]:
        return (rate, self.epsilon)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments, as Keras writes them."""
        return {
            **super().get_config(),
            "initial_accumulator_value": self.initial_accumulator_value,
            "epsilon": self.epsilon,
        }


class Adadelta(Optimizer):
    """Adagrad with averages over a window (Zeiler, 2012).

    `a = rho * a + (1 - rho) * g**2; d = sqrt(b + epsilon) * g / sqrt(a + epsilon);`
    `b = rho * b + (1 - rho) * d**2; w -= lr * d`.

    Args:
        learning_rate: Default 0.001 (the paper's is 1.0).
        rho: How much of the averages stays.
        epsilon: Keeps the quotient finite.
    """

    def __init__(
        self,
        learning_rate: LearningRate = 0.001,
        rho: float = 0.95,
        epsilon: float = 1e-7,
        weight_decay: float | None = None,
        clipnorm: float | None = None,
        clipvalue: float | None = None,
        global_clipnorm: float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            learning_rate, weight_decay, clipnorm, clipvalue, global_clipnorm, **kwargs
        )
        self.rho = rho
        self.epsilon = epsilon

    def _slot_names(self) -> list[tuple[str, ...]]:
        return [("accumulated_grad", "accumulated_delta_var")]

    def _rule(self) -> str:
        return "adadelta"

    def _coefficients(self, step: int, rate: Any) -> tuple[Any, ...]:
        return (rate, self.rho, 1 - self.rho, self.epsilon)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments, as Keras writes them."""
        return {**super().get_config(), "rho": self.rho, "epsilon": self.epsilon}


class Lion(Optimizer):
    """`w -= lr * sign(beta_1 * m + (1 - beta_1) * g); m = beta_2 * m + (1 - beta_2) * g`.

    Source: Chen et al., 2023.

    Args:
        learning_rate: Default 0.001.
        beta_1: Weight of the average within a step.
        beta_2: How much of the average stays.
    """

    def __init__(
        self,
        learning_rate: LearningRate = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.99,
        weight_decay: float | None = None,
        clipnorm: float | None = None,
        clipvalue: float | None = None,
        global_clipnorm: float | None = None,
        **kwargs: Any,
    ) -> None:
        if not 0 < beta_1 <= 1:
            raise ValueError(
                "Argument `beta_1` must be in the [0, 1] range. Otherwise, the optimizer "
                f"degenerates to SignSGD. Received: beta_1={beta_1}."
            )
        super().__init__(
            learning_rate, weight_decay, clipnorm, clipvalue, global_clipnorm, **kwargs
        )
        self.beta_1 = beta_1
        self.beta_2 = beta_2

    def _slot_names(self) -> list[tuple[str, ...]]:
        return [("momentum",)]

    def _rule(self) -> str:
        return "lion"

    def _coefficients(self, step: int, rate: Any) -> tuple[Any, ...]:
        real = type(rate)
        beta_1, beta_2 = real(self.beta_1), real(self.beta_2)
        return (rate, beta_1, 1 - beta_1, beta_2, 1 - beta_2)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments, as Keras writes them."""
        return {**super().get_config(), "beta_1": self.beta_1, "beta_2": self.beta_2}


_registry = Registry(
    "keras.optimizers",
    "optimizer",
    [SGD, Adadelta, Adagrad, Adam, AdamW, Adamax, Lion, Nadam, RMSprop],
    lowercase=True,
)


def serialize(optimizer: Optimizer) -> dict[str, Any]:
    """`optimizer`, without its state, as the dict that Keras's files hold."""
    return _registry.serialize(optimizer)


def deserialize(config: Any, custom_objects: Mapping[str, Any] | None = None) -> Any:
    """The optimizer that a name or a dict from `serialize` describes."""
    return _registry.deserialize(config, custom_objects)


def get(identifier: Any) -> Optimizer | None:
    """The optimizer for a name (case does not matter), a dict, an `Optimizer`, or None.

    Raises:
        ValueError: It is none of these, or the name is unknown.
    """
    if identifier is None or isinstance(identifier, Optimizer):
        return identifier
    found = _registry.get(identifier)
    if not isinstance(found, Optimizer):
        raise ValueError(f"Could not interpret optimizer identifier: {identifier}")
    return found
