"""What all optimizers share: slots, clipping, decay, averages, accumulation.

A step is one pass of the engine over weights, gradients and slots (`_core.Updater`): nothing is
allocated and no intermediate result leaves the registers. What some optimizers ask for besides
(clipping, accumulation, averages) is done before and after in NumPy.
"""

from __future__ import annotations

import math
import operator
import re
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from .. import _core
from ..ops import as_array
from ..utils import Array, unique_name
from ..variables import Variable
from . import schedules

__all__ = ["Optimizer"]

LearningRate = float | schedules.LearningRateSchedule | Callable[[], float]


class _Group(NamedTuple):
    """The variables of one dtype: their positions among all, and what updates them."""

    real: type[np.floating[Any]]
    members: list[int]
    updater: _core.Updater


class Optimizer:
    """Base class of optimizers.

    Each step: unscale the gradients, clip them, decay the weights, update, average, apply the
    variables' constraints, count.

    An algorithm defines `_slot_names`, `_rule` and `_coefficients`.

    Args:
        learning_rate: A float, a `LearningRateSchedule`, or a callable without arguments.
        weight_decay: If given, every step first subtracts `weight * weight_decay * learning_rate`.
        clipnorm: If given, the gradient of each variable is scaled to at most this norm.
        clipvalue: If given, every entry of the gradients is clipped to +- this.
        global_clipnorm: If given, all gradients are scaled together to at most this norm.
        use_ema: Whether to keep a moving average of the weights.
        ema_momentum: `average = ema_momentum * average + (1 - ema_momentum) * weight`.
        ema_overwrite_frequency: If given, every so many steps the weights become their average. In
            any case they do at the end of `fit`.
        loss_scale_factor: If given, the gradients are divided by it: the caller multiplied the
            loss.
        gradient_accumulation_steps: If given, the weights change every so many steps only, by the
            mean of the gradients.
        name: Defaults to the class's name in snake case.

    Raises:
        ValueError: An argument is unknown, out of range, or excludes another.
    """

    def __init__(
        self,
        learning_rate: LearningRate,
        weight_decay: float | None = None,
        clipnorm: float | None = None,
        clipvalue: float | None = None,
        global_clipnorm: float | None = None,
        use_ema: bool = False,
        ema_momentum: float = 0.99,
        ema_overwrite_frequency: int | None = None,
        loss_scale_factor: float | None = None,
        gradient_accumulation_steps: int | None = None,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        if kwargs.pop("decay", None) is not None:
            warnings.warn(
                "Argument `decay` is no longer supported and will be ignored.", stacklevel=3
            )
        if kwargs:
            raise ValueError(f"Argument(s) not recognized: {kwargs}")
        if gradient_accumulation_steps and not gradient_accumulation_steps >= 2:
            raise ValueError(
                "`gradient_accumulation_steps` must be an integer >= 2. "
                f"Received: gradient_accumulation_steps={gradient_accumulation_steps}"
            )
        if use_ema:
            if not 0 <= ema_momentum <= 1:
                raise ValueError(
                    "`ema_momentum` must be in the range [0, 1]. "
                    f"Received: ema_momentum={ema_momentum}"
                )
            if ema_overwrite_frequency and (
                not isinstance(ema_overwrite_frequency, int) or ema_overwrite_frequency < 1
            ):
                raise ValueError(
                    "`ema_overwrite_frequency` must be an integer >= 1 or None. "
                    f"Received: ema_overwrite_frequency={ema_overwrite_frequency}"
                )
        if sum(clip is not None for clip in (clipnorm, clipvalue, global_clipnorm)) > 1:
            raise ValueError(
                "Only one of `clipnorm`, `clipvalue` and `global_clipnorm` can be set. Received: "
                f"clipnorm={clipnorm}, clipvalue={clipvalue}, global_clipnorm={global_clipnorm}"
            )
        if not callable(learning_rate) and not isinstance(learning_rate, float | np.floating):
            raise ValueError(
                "Argument `learning_rate` should be float, or an instance of "
                "LearningRateSchedule, or a callable (that takes in the current iteration value "
                "and returns the corresponding learning rate value). "
                f"Received instead: learning_rate={learning_rate}"
            )
        self.name = name or unique_name(type(self).__name__)
        self.weight_decay = weight_decay
        self.clipnorm = clipnorm
        self.clipvalue = clipvalue
        self.global_clipnorm = global_clipnorm
        self.use_ema = use_ema
        self.ema_momentum = ema_momentum
        self.ema_overwrite_frequency = ema_overwrite_frequency
        self.loss_scale_factor = loss_scale_factor
        self.gradient_accumulation_steps = gradient_accumulation_steps
        self.built = False
        self._iterations = self._variable(np.int64(0), "iteration")
        self._learning_rate: Any = learning_rate
        if not callable(learning_rate):
            self._learning_rate = self._variable(np.float32(learning_rate), "learning_rate")
        self._trainable_variables: list[Variable] = []
        self._positions: dict[int, int] = {}
        self._slots: dict[str, list[Variable]] = {}
        self._slot_order: list[Variable] = []
        self._groups: list[_Group] = []
        self._undecayed: set[int] = set()
        self._undecayed_names: re.Pattern[str] | None = None

    def _variable(self, value: Any, name: str) -> Variable:
        return Variable(value, name, trainable=False, path=f"{self.name}/{name}")

    # ---- What an algorithm defines ---------------------------------------------------------------

    def _slot_names(self) -> list[tuple[str, ...]]:
        """The slots, in the order of Keras's files: those of one tuple take turns per variable."""
        raise NotImplementedError(f"{type(self).__name__}: expected a _slot_names method")

    def _rule(self) -> str:
        """What the engine calls the formula; it takes the slots in the order of `_slot_names`."""
        raise NotImplementedError(f"{type(self).__name__}: expected a _rule method")

    def _coefficients(self, step: int, rate: Any) -> tuple[Any, ...]:
        """What the rule needs of this step, in the dtype of `rate`; `step` counts from 1.

        Called once per step and dtype.
        """
        raise NotImplementedError(f"{type(self).__name__}: expected a _coefficients method")

    def _initial_slot_value(self) -> float:
        return 0.0

    # ---- Variables -------------------------------------------------------------------------------

    def build(self, variables: Iterable[Variable]) -> None:
        """Makes the slots for `variables`. A second call does nothing.

        Raises:
            ValueError: A variable is not of a floating dtype, or is given twice.
        """
        if self.built:
            return
        variables = list(variables)
        for variable in variables:
            if variable.dtype.kind != "f":
                raise ValueError(
                    f"optimizer {self.name!r}: expected variables of a floating dtype, "
                    f"got {variable!r}"
                )
        positions = {id(variable): i for i, variable in enumerate(variables)}
        if len(positions) != len(variables):
            raise ValueError(
                f"optimizer {self.name!r}: expected different variables, got one twice"
            )
        shared = [("average",)] if self.use_ema else []
        if self.gradient_accumulation_steps:
            shared.append(("gradient_accumulator",))
        for names in [*shared, *self._slot_names()]:
            initial = 0.0 if names in shared else self._initial_slot_value()
            for name in names:
                self._slots[name] = []
            for variable in variables:
                for name in names:
                    slot = self._variable(
                        np.full(variable.shape, initial, variable.dtype),
                        f"{variable.path.replace('/', '_')}_{name}",
                    )
                    self._slots[name].append(slot)
                    self._slot_order.append(slot)
        self._trainable_variables = variables
        self._bind()
        self.built = True

    def _bind(self) -> None:
        """Hands the memory of variables and slots to the engine."""
        variables = self._trainable_variables
        self._positions = {id(variable): i for i, variable in enumerate(variables)}
        own = [self._slots[name] for names in self._slot_names() for name in names]
        self._groups = []
        for dtype in dict.fromkeys(variable.dtype for variable in variables):
            members = [i for i, variable in enumerate(variables) if variable.dtype == dtype]
            updater = _core.Updater(
                self._rule(),
                [variables[i]._data for i in members],
                [[slot[i]._data for slot in own] for i in members],
                [self._decays(variables[i]) for i in members],
            )
            self._groups.append(_Group(dtype.type, members, updater))

    def __getstate__(self) -> dict[str, Any]:
        # A copy's variables have memory of their own.
        state = self.__dict__.copy()
        for name in ("_groups", "_positions"):
            state.pop(name, None)
        state["_undecayed"] = [v for v in self._trainable_variables if id(v) in self._undecayed]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._undecayed = {id(variable) for variable in state["_undecayed"]}
        self._groups, self._positions = [], {}
        if self.built:
            self._bind()

    @property
    def variables(self) -> list[Variable]:
        """The state in the order of Keras's files: iteration, learning rate, slots."""
        rate = [self._learning_rate] if isinstance(self._learning_rate, Variable) else []
        return [self._iterations, *rate, *self._slot_order]

    @property
    def iterations(self) -> Any:
        """How many updates there have been: a variable, or a number if gradients accumulate."""
        steps = self.gradient_accumulation_steps
        return self._iterations.value // steps if steps else self._iterations

    @property
    def learning_rate(self) -> Any:
        """The learning rate: a variable, or what the schedule or the callable gives now."""
        if isinstance(self._learning_rate, schedules.LearningRateSchedule):
            return self._learning_rate(int(self._iterations))
        if isinstance(self._learning_rate, Variable):
            return self._learning_rate
        return self._learning_rate()

    @learning_rate.setter
    def learning_rate(self, learning_rate: Any) -> None:
        if callable(learning_rate):
            self._learning_rate = learning_rate
        elif isinstance(self._learning_rate, Variable):
            self._learning_rate.assign(learning_rate)
        else:
            raise TypeError(
                "This optimizer was created with a `LearningRateSchedule` object (or a callable) "
                "as its `learning_rate` constructor argument, hence its learning rate is not "
                "settable. If you need the learning rate to be settable, you should instantiate "
                "the optimizer with a float `learning_rate` argument."
            )

    def set_weights(self, weights: Sequence[Any]) -> None:
        """Sets all `variables` of a built optimizer.

        Raises:
            ValueError: It is not built, or number or shapes differ.
        """
        if not self.built:
            raise ValueError(
                "You are calling `set_weights()` on an optimizer that has not yet been built. "
                "Please call `optimizer.build(trainable_variables)` to create the optimizer "
                "weights before calling `set_weights()`."
            )
        variables = self.variables
        shapes = [np.shape(weight) for weight in weights]
        expected = [variable.shape for variable in variables]
        if shapes != expected:
            raise ValueError(
                f"optimizer {self.name!r}: expected weights of shapes {expected}, got {shapes}"
            )
        for variable, weight in zip(variables, weights, strict=True):
            variable.assign(weight)

    def exclude_from_weight_decay(
        self,
        var_list: Iterable[Variable] | None = None,
        var_names: Iterable[str] | None = None,
    ) -> None:
        """Spares variables the weight decay; to be called before `build`.

        Args:
            var_list: The variables.
            var_names: Patterns; a variable is spared if one is found in its name.

        Raises:
            ValueError: The optimizer is built.
        """
        if self.built:
            raise ValueError(
                "`exclude_from_weight_decay()` can only be configured before the optimizer is "
                "built."
            )
        self._undecayed = {id(variable) for variable in var_list or ()}
        names = sorted(set(var_names or ()))
        self._undecayed_names = re.compile("|".join(names)) if names else None

    def _decays(self, variable: Variable) -> bool:
        if id(variable) in self._undecayed:
            return False
        names = self._undecayed_names
        return names is None or names.search(variable.name) is None

    # ---- The step --------------------------------------------------------------------------------

    def apply_gradients(self, grads_and_vars: Iterable[tuple[Any, Variable]]) -> Variable:
        """One step for pairs of gradient and variable; returns the iteration counter."""
        gradients, variables = zip(*grads_and_vars, strict=True)
        self.apply(gradients, variables)
        return self._iterations

    def apply(
        self, gradients: Sequence[Any], trainable_variables: Iterable[Variable] | None = None
    ) -> None:
        """One step.

        Args:
            gradients: One per variable, of its shape. None leaves that variable as it is.
            trainable_variables: The variables. Builds the optimizer at the first call; later, any
                of those. None: all it was built with.

        Raises:
            ValueError: The optimizer does not know a variable, a gradient has a wrong shape, or
                there are no gradients.
        """
        if len(gradients) == 0:
            return
        given = self._given(gradients, trainable_variables)
        if self._prepares_gradients:
            given = [None if gradient is None else gradient.copy() for gradient in given]
        if self.loss_scale_factor is not None:
            for gradient in given:
                if gradient is not None:
                    gradient /= self.loss_scale_factor
        if self._accumulate(given):
            self._clip(given)
            self._update(given)
        if self.use_ema:
            self._average()
        for variable, gradient in zip(self._trainable_variables, given, strict=True):
            if variable.constraint is not None and gradient is not None:
                variable.assign(variable.constraint(variable.value))
        self._iterations._data += 1
        self._iterations._changed()

    def _update(self, gradients: list[Array | None]) -> None:
        step = int(self.iterations) + 1
        rate = float(self.learning_rate)
        self._begin_update(step)
        decay = self.weight_decay or 0.0
        for real, members, updater in self._groups:
            coefficients = self._coefficients(step, real(rate))
            updater.step([gradients[i] for i in members], coefficients, decay, rate)
        for variable, gradient in zip(self._trainable_variables, gradients, strict=True):
            if gradient is not None:
                variable._changed()

    def _begin_update(self, step: int) -> None:
        """For an algorithm with state of the whole step: called once, before all updates."""

    def _given(
        self, gradients: Sequence[Any], variables: Iterable[Variable] | None
    ) -> list[Array | None]:
        """The gradient of each variable the optimizer knows, None without; after all checks."""
        if variables is None:
            if not self.built:
                raise ValueError(
                    "When passing `grads` without `variables`, the optimizer must already be built "
                    "on a list of variables. Call `optimizer.build(trainable_variables)` first."
                )
            variables = self._trainable_variables
        else:
            variables = list(variables)
        if len(gradients) != len(variables):
            raise ValueError(
                f"optimizer {self.name!r}: expected a gradient for each of {len(variables)} "
                f"variables, got {len(gradients)}"
            )
        arrays: list[Array | None] = []
        for gradient, variable in zip(gradients, variables, strict=True):
            if gradient is not None:
                data = variable._data
                if type(gradient) is not np.ndarray or gradient.dtype is not data.dtype:
                    subject = f"optimizer {self.name!r} gradient of {variable.path!r}"
                    gradient = as_array(gradient, data.dtype, subject)
                if gradient.shape != data.shape:
                    raise ValueError(
                        f"optimizer {self.name!r}: expected a gradient of shape {variable.shape} "
                        f"for {variable.path!r}, got shape {gradient.shape}"
                    )
            arrays.append(gradient)
        self.build(variables)
        known = self._trainable_variables
        if len(variables) != len(known) or not all(map(operator.is_, variables, known)):
            positions = [self._position(variable) for variable in variables]
            found: list[Array | None] = [None] * len(known)
            for position, array in zip(positions, arrays, strict=True):
                found[position] = array
        else:
            found = arrays
        if any(array is None for array in arrays):
            missing = [v.path for g, v in zip(arrays, variables, strict=True) if g is None]
            if len(missing) == len(variables):
                raise ValueError("No gradients provided for any variable.")
            warnings.warn(
                f"Gradients do not exist for variables {missing} when minimizing the loss. If "
                "using `model.compile()`, did you forget to provide a `loss` argument?",
                stacklevel=3,
            )
        return found

    def _position(self, variable: Variable) -> int:
        try:
            return self._positions[id(variable)]
        except KeyError:
            raise ValueError(
                f"Unknown variable: {variable}. This optimizer can only be called for the "
                "variables it was originally built with. When working with a new set of "
                "variables, you should recreate a new optimizer instance."
            ) from None

    @property
    def _prepares_gradients(self) -> bool:
        """Whether gradients are changed before the update, which happens in place."""
        return bool(
            self.loss_scale_factor is not None
            or self.gradient_accumulation_steps
            or self.clipnorm
            or self.global_clipnorm
            or self.clipvalue
        )

    def _accumulate(self, gradients: list[Array | None]) -> bool:
        """Adds up gradients; whether it is time for an update, then with their mean."""
        steps = self.gradient_accumulation_steps
        if not steps:
            return True
        update = (int(self._iterations) + 1) % steps == 0
        totals = [slot._data for slot in self._slots["gradient_accumulator"]]
        for gradient, total in zip(gradients, totals, strict=True):
            if gradient is None:
                continue
            if update:
                gradient += total
                gradient /= steps
            else:
                total += gradient
        if update:
            for total in totals:
                total[...] = 0
        return update

    def _clip(self, gradients: list[Array | None]) -> None:
        given = [gradient for gradient in gradients if gradient is not None]
        if self.clipnorm and self.clipnorm > 0:
            for gradient in given:
                norm = np.sqrt(np.square(gradient).sum())
                gradient *= self.clipnorm
                gradient /= np.maximum(norm, self.clipnorm)
        elif self.global_clipnorm and self.global_clipnorm > 0:
            norm = math.sqrt(sum(float(np.square(gradient).sum()) for gradient in given))
            # An infinite norm leaves no direction to keep: the result is NaN, as in Keras.
            factor = self.global_clipnorm / max(norm, self.global_clipnorm) + (norm - norm)
            for gradient in given:
                gradient *= factor
        elif self.clipvalue and self.clipvalue > 0:
            for gradient in given:
                np.clip(gradient, -self.clipvalue, self.clipvalue, out=gradient)

    def _average(self) -> None:
        # The first step starts the average at the weights.
        momentum = self.ema_momentum if int(self.iterations) else 0.0
        averages = self._slots["average"]
        for variable, average in zip(self._trainable_variables, averages, strict=True):
            average._data *= momentum
            average._data += (1 - momentum) * variable._data
            average._changed()
        frequency = self.ema_overwrite_frequency
        if frequency and (int(self.iterations) + 1) % frequency == 0:
            self.finalize_variable_values(self._trainable_variables)

    def finalize_variable_values(self, var_list: Sequence[Variable]) -> None:
        """Replaces the variables by their moving averages, if there are any: the end of `fit`.

        Raises:
            ValueError: The optimizer averages other variables.
        """
        if not self.use_ema:
            return
        averages = [self._slots["average"][self._position(variable)] for variable in var_list]
        for variable, average in zip(var_list, averages, strict=True):
            variable.assign(average.value)

    def scale_loss(self, loss: Any) -> Any:
        """`loss`, or its gradient, times the loss scale factor."""
        return loss if self.loss_scale_factor is None else loss * self.loss_scale_factor

    # ---- Configuration ---------------------------------------------------------------------------

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments, as Keras writes them."""
        rate: Any = self._learning_rate
        if isinstance(rate, Variable):
            rate = float(rate)
        else:
            rate = schedules.serialize(rate)
        return {
            "name": self.name,
            "learning_rate": rate,
            "weight_decay": self.weight_decay,
            "clipnorm": self.clipnorm,
            "global_clipnorm": self.global_clipnorm,
            "clipvalue": self.clipvalue,
            "use_ema": self.use_ema,
            "ema_momentum": self.ema_momentum,
            "ema_overwrite_frequency": self.ema_overwrite_frequency,
            "loss_scale_factor": self.loss_scale_factor,
            "gradient_accumulation_steps": self.gradient_accumulation_steps,
        }

    @classmethod
    def from_config(
        cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None
    ) -> Optimizer:
        """The optimizer that `get_config` described, without its state."""
        config = dict(config)
        if isinstance(config.get("learning_rate"), dict):
            config["learning_rate"] = schedules.deserialize(config["learning_rate"], custom_objects)
        return cls(**config)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} name={self.name}>"
