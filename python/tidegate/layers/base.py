"""`Layer`, the one protocol of built-in and users' layers, and `Wrapper`.

A layer is called on arrays and gives arrays.  For training it also has `backward(d_outputs)`, which
belongs to the latest call with `training=True`: it returns the gradient of the inputs and leaves
those of the variables in their `.gradient`.
"""

from __future__ import annotations

import functools
import inspect
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple, cast

import numpy as np

from .. import activations, constraints, initializers, regularizers
from ..utils import unique_name
from ..variables import Variable

__all__ = ["Layer", "Wrapper", "deserialize", "serialize"]

Array = np.ndarray[Any, np.dtype[Any]]
Shape = tuple[int | None, ...]


# ---- What is known about a call in progress -----------------------------------------------------


class _Context(threading.local):
    """Of this thread: the names of the layers being built, and the call around all others."""

    def __init__(self) -> None:
        self.scope: list[str] = []
        self.training: bool | None = None
        self.depth = 0
        self.call_number = 0


_context = _Context()


@contextmanager
def name_scope(name: str) -> Iterator[None]:
    """Puts `name` in front of the paths of the variables made inside."""
    _context.scope.append(name)
    try:
        yield
    finally:
        _context.scope.pop()


class _CallSignature(NamedTuple):
    first: str | None
    takes_training: bool
    takes_mask: bool


_signatures: dict[type, _CallSignature] = {}


def call_signature(cls: type) -> _CallSignature:
    """What `cls.call` takes; found out once per class."""
    found = _signatures.get(cls)
    if found is None:
        found = _signatures[cls] = _read_signature(cls)
    return found


def _read_signature(cls: type) -> _CallSignature:
    call = getattr(cls, "call", None)
    if call is None:
        return _CallSignature(None, False, False)
    names = list(inspect.signature(call).parameters)[1:]
    return _CallSignature(names[0] if names else None, "training" in names, "mask" in names)


# ---- dtypes and shapes --------------------------------------------------------------------------


def standard_dtype(dtype: Any, subject: str) -> np.dtype[Any]:
    """float32 or float64 from a name, a NumPy type, Keras's policy in a config, or None.

    Raises:
        ValueError: It is any other.
    """
    name = dtype
    if isinstance(name, Mapping):  # {"class_name": "DTypePolicy", "config": {"name": "float32"}}
        name = name.get("config", {}).get("name")
    name = getattr(name, "name", name)
    if name is None:
        name = "float32"
    try:
        found = np.dtype(name)
    except TypeError:
        found = None
    if found not in (np.float32, np.float64):
        raise ValueError(f"{subject}: expected dtype 'float32' or 'float64', got {dtype!r}")
    return np.dtype(found)


def dtype_config(dtype: np.dtype[Any]) -> dict[str, Any]:
    """`dtype` as Keras writes it into a config."""
    return {
        "module": "keras",
        "class_name": "DTypePolicy",
        "config": {"name": dtype.name},
        "registered_name": None,
    }


def standard_shape(shape: Any, subject: str) -> Shape:
    """`shape` as a tuple of positive integers and None.

    Raises:
        ValueError: It is anything else.
    """
    try:
        dims = tuple(None if d is None else int(d) for d in shape)
        same = all(d is None or d == given for d, given in zip(dims, shape, strict=True))
    except (TypeError, ValueError):
        same = False
    if not same or any(d is not None and d < 0 for d in dims):
        raise ValueError(f"{subject}: expected a shape, a tuple of integers or None, got {shape!r}")
    return dims


def map_arrays(function: Callable[[Any], Any], value: Any) -> Any:
    """`function` of `value`, or of every entry where it is a list, tuple or dict of arrays."""
    if isinstance(value, dict):
        return {key: map_arrays(function, entry) for key, entry in value.items()}
    if isinstance(value, list | tuple) and any(hasattr(entry, "shape") for entry in value):
        return type(value)(map_arrays(function, entry) for entry in value)
    return function(value)


def flatten(value: Any) -> list[Any]:
    """The leaves of nested lists, tuples and dicts."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return [leaf for entry in value for leaf in flatten(entry)]
    return [value]


# ---- Arguments and configs ----------------------------------------------------------------------

_KINDS: dict[str, Any] = {
    "activation": activations,
    "initializer": initializers,
    "regularizer": regularizers,
    "constraint": constraints,
}


def resolved(name: str, value: Any) -> Any:
    """An argument such as `kernel_initializer="zeros"` as the object it stands for."""
    module = _KINDS.get(name.rsplit("_", 1)[-1])
    return value if module is None else module.get(value)


def serialized(owner: Any, names: Iterable[str]) -> dict[str, Any]:
    config = {}
    for name in names:
        value = getattr(owner, name)
        module = _KINDS.get(name.rsplit("_", 1)[-1])
        if module is not None and (value is not None or module is activations):
            value = module.serialize(value)
        config[name] = value
    return config


# ---- Layer --------------------------------------------------------------------------------------

_builtin_classes: dict[str, Any] = {}


def _is_builtin(cls: type) -> bool:
    return cls.__module__.split(".")[0] == __name__.split(".")[0]


def _recorded_build(function: Callable[..., None]) -> Callable[..., None]:
    """`build` with what every layer's build needs: the name scope, `built` and the shape kept."""

    @functools.wraps(function)
    def build(self: Layer, *args: Any, **kwargs: Any) -> None:
        if self.__dict__.get("_building"):  # super().build()
            function(self, *args, **kwargs)
            return
        self._building = True
        try:
            with name_scope(self.name):
                self._path = "/".join(_context.scope)
                function(self, *args, **kwargs)
        finally:
            self._building = False
        shape = args[0] if args else next(iter(kwargs.values()), None)
        self._build_shape = None if shape is None else tuple(shape)
        self.built = True
        self._locked = True

    return build


def _with_activity_gradient(function: Callable[..., Any]) -> Callable[..., Any]:
    """`backward` with the activity regularizer's gradient added to that of the outputs."""

    @functools.wraps(function)
    def backward(self: Layer, d_outputs: Any, *args: Any) -> Any:
        outputs = self.__dict__.get("_regularized_outputs")
        if outputs is None:
            return function(self, d_outputs, *args)
        self._regularized_outputs = None  # super().backward() must not add it again
        try:
            return function(self, self._add_activity_gradient(outputs, d_outputs), *args)
        finally:
            self._regularized_outputs = outputs

    return backward


class Layer:
    """The base of all layers, Keras's `Layer` for arrays.

    A subclass defines `call(inputs)` (with `training` and `mask` among its arguments if it wants
    them), usually `build(input_shape)` with calls of `add_weight`, and `get_config`.  To be trained
    it also defines `backward(d_outputs)`: it returns the gradient of the inputs of the latest
    `call`, and gives each variable its own with `variable.add_gradient(...)`.

    Args:
        activity_regularizer: Penalty on the outputs, divided by the batch size.
        trainable: Whether the weights are updated in training.
        dtype: "float32" (default) or "float64".
        autocast: Accepted as in Keras; floating inputs are always cast to `dtype`.
        name: Defaults to the class's name in snake case, with a number.
        input_shape: Accepted with a warning, as in Keras; `Sequential` builds itself from it.

    Raises:
        ValueError: An argument is unknown or out of range.
    """

    # What pickles and copies leave out: engine objects and what backward needs.
    _transient: tuple[str, ...] = ("_saved", "_packed", "_regularized_outputs")

    _constructor_arguments: dict[str, Any]  # of users' layers without a get_config

    # Whether backward has to give the gradient of the inputs; Sequential's first layers need not.
    _needs_input_gradient = True

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if _is_builtin(cls):
            _builtin_classes[cls.__name__] = cls
        if "build" in cls.__dict__:
            cls.build = _recorded_build(cls.__dict__["build"])  # type: ignore[method-assign]
        if "backward" in cls.__dict__:
            cls.backward = _with_activity_gradient(  # type: ignore[method-assign]
                cls.__dict__["backward"]
            )

    def __new__(cls, *args: Any, **kwargs: Any) -> Layer:
        layer = super().__new__(cls)
        if not _is_builtin(cls) and "get_config" not in cls.__dict__:
            layer._constructor_arguments = _plain_arguments(cls, args, kwargs)
        return layer

    def __init__(
        self,
        *,
        activity_regularizer: Any = None,
        trainable: bool = True,
        dtype: Any = None,
        autocast: bool = True,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        cls = type(self).__name__
        input_dim = kwargs.pop("input_dim", None)
        shape = kwargs.pop("input_shape", None)
        if kwargs:
            raise ValueError(f"Unrecognized keyword arguments passed to {cls}: {kwargs}")
        if not isinstance(trainable, bool):
            raise ValueError(
                f"Expected `trainable` to be a boolean. Received: trainable={trainable} "
                f"(of type {type(trainable)})"
            )
        if name is not None and (not isinstance(name, str) or "/" in name):
            raise ValueError(
                f"Argument `name` must be a string and cannot contain character `/`. "
                f"Received: name={name} (of type {type(name)})"
            )
        self.name = unique_name(cls) if name is None else name
        self._dtype = standard_dtype(dtype, cls)
        self.autocast = autocast
        self.activity_regularizer = regularizers.get(activity_regularizer)
        self._trainable = trainable
        self.built = False
        self.input_spec: Any = None
        self._supports_masking: bool | None = None
        self._own_weights: list[Variable] = []
        self._losses: list[float] = []
        self._losses_of_call = 0
        self._build_shape: Shape | None = None
        self._path: str | None = None
        self._saved: Any = None
        self._building = self._locked = False
        if input_dim is not None:
            shape = (input_dim,)
        if shape is not None:
            warnings.warn(
                "Do not pass an `input_shape`/`input_dim` argument to a layer. When using "
                "Sequential models, prefer using an `Input(shape)` object as the first layer in "
                "the model instead.",
                UserWarning,
                stacklevel=_outside_this_package(),
            )
            self._input_shape_arg = standard_shape(shape, f"{cls} input_shape")

    # -- What subclasses define

    def build(self, input_shape: Any) -> None:
        """Creates the weights for inputs of this shape; entries may be None."""
        self._path = "/".join([*_context.scope, self.name])
        self.built = True

    def call(self, *args: Any, **kwargs: Any) -> Any:
        """The outputs for the inputs."""
        raise NotImplementedError(
            f"Layer {type(self).__name__} does not have a `call()` method implemented."
        )

    def backward(self, d_outputs: Any) -> Any:
        """The gradient of the inputs of the latest call with `training=True`.

        Adds the gradients of the variables to their `.gradient`.

        Args:
            d_outputs: The gradient of what the call returned, in the same structure.
        """
        raise ValueError(
            f"Layer '{self.name}' ({type(self).__name__}): expected a method "
            "`backward(d_outputs)` for training, which returns the gradient of the inputs and "
            "calls `add_gradient` of its variables; this layer runs forward only"
        )

    def compute_mask(self, inputs: Any, previous_mask: Any) -> Any:
        """The mask of the outputs, given that of the inputs."""
        return previous_mask

    def compute_output_shape(self, input_shape: Any) -> Any:
        """The shape of the outputs for inputs of this shape, whose entries may be None.

        The default calls the layer on zeros; entries that follow those that are None are None.
        """
        if not self.built:
            self.build(input_shape)
        shapes = []
        for unknown in (2, 3):  # an axis whose length depends on this one is unknown, too
            zeros = np.zeros([unknown if d is None else d for d in input_shape], self._dtype)
            outputs = self.call(zeros)
            shapes.append(map_arrays(np.shape, outputs))
        return _join_shapes(*shapes)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments, as plain data.

        That of a user's class need not be defined if all arguments are plain data.
        """
        config = {
            **self.__dict__.get("_constructor_arguments", {}),
            "name": self.name,
            "trainable": self.trainable,
            "dtype": dtype_config(self._dtype),
        }
        if self.activity_regularizer is not None:
            config["activity_regularizer"] = regularizers.serialize(self.activity_regularizer)
        return config

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Any:
        """A new layer from what `get_config` gave."""
        try:
            return cls(**config)
        except TypeError as error:
            raise TypeError(f"{cls.__name__}.from_config: {error}. config={config}") from error

    # -- Properties

    @property
    def dtype(self) -> str:
        """The name of the dtype of weights and outputs."""
        return self._dtype.name

    compute_dtype = variable_dtype = dtype

    @property
    def path(self) -> str | None:
        """`<model>/<layer>`; None until built."""
        return self._path

    @property
    def trainable(self) -> bool:
        """Whether the weights are updated in training; set, it holds for all inner layers, too."""
        return self._trainable

    @trainable.setter
    def trainable(self, value: bool) -> None:
        self._trainable = bool(value)
        for layer in self._sublayers():
            layer.trainable = value

    @property
    def supports_masking(self) -> bool:
        """Whether a mask of the inputs is passed on."""
        if self._supports_masking is None:
            return type(self).compute_mask is not Layer.compute_mask
        return self._supports_masking

    @supports_masking.setter
    def supports_masking(self, value: bool) -> None:
        self._supports_masking = value

    # -- Weights

    def add_weight(
        self,
        shape: Any = None,
        initializer: Any = None,
        dtype: Any = None,
        trainable: bool = True,
        autocast: bool = True,
        regularizer: Any = None,
        constraint: Any = None,
        name: str = "variable",
    ) -> Variable:
        """A new variable of this layer.

        Args:
            shape: Its shape; a scalar if None.
            initializer: Name or callable `(shape, dtype)`; "glorot_uniform" by default.
            dtype: Defaults to the layer's.
            trainable: Whether optimizers update it.
            autocast: Accepted as in Keras.
            regularizer: Penalty on it that enters the loss.
            constraint: Applied after each update.
            name: Last part of its path.

        Raises:
            ValueError: The layer is built already.
        """
        if "built" not in self.__dict__:
            self._complain_about_init()
        if self._locked:
            raise ValueError(
                f"Layer '{self.name}': You cannot add new elements of state (variables or "
                "sub-layers) to a layer that is already built. All state must be created in the "
                "`__init__()` method or in the `build()` method."
            )
        shape = () if shape is None else (shape,) if isinstance(shape, int) else tuple(shape)
        found = self._dtype if dtype is None else np.dtype(dtype)
        if initializer is None:
            initializer = "glorot_uniform" if found.kind == "f" else "zeros"
        value = cast(Any, initializers.get(initializer))(shape, found)
        if np.shape(value) != shape:
            raise ValueError(
                f"Layer '{self.name}': expected the initializer of `{name}` to give shape {shape}, "
                f"got {np.shape(value)}"
            )
        scope = _context.scope if self._building else [*_context.scope, self.name]
        variable = Variable(
            value,
            name=name,
            trainable=trainable,
            regularizer=regularizers.get(regularizer),
            constraint=constraints.get(constraint),
            dtype=found,
            path="/".join([*scope, name]),
        )
        self._own_weights.append(variable)
        return variable

    add_variable = add_weight

    def _sublayers(self) -> list[Layer]:
        """The layers in this one's attributes, in the order in which these were first set."""
        found: dict[Layer, None] = {}
        _find_layers(self.__dict__.values(), found)
        return list(found)

    def _walk(self, trainable: bool = True) -> Iterator[tuple[Layer, bool]]:
        """This layer and all inside it, each with whether its weights are to be updated."""
        trainable = trainable and self._trainable
        yield self, trainable
        for layer in self._sublayers():
            yield from layer._walk(trainable)

    def _flatten_layers(self) -> list[Layer]:
        """This layer and all inside it."""
        return [layer for layer, _ in self._walk()]

    def _variables_here(self) -> list[Variable]:
        attributes = [v for v in self.__dict__.values() if isinstance(v, Variable)]
        own = list(dict.fromkeys(self._own_weights + attributes))
        if all(variable.trainable for variable in own):
            return own
        return sorted(own, key=lambda variable: not variable.trainable)  # stable: trainable first

    @property
    def weights(self) -> list[Variable]:
        """All variables of this layer and those inside it."""
        return weights_of(self._walk())[0]

    variables = weights

    @property
    def trainable_weights(self) -> list[Variable]:
        """The variables that optimizers update."""
        return weights_of(self._walk())[1]

    trainable_variables = trainable_weights

    @property
    def non_trainable_weights(self) -> list[Variable]:
        """The variables that optimizers leave alone."""
        trainable = set(self.trainable_weights)
        return [variable for variable in self.weights if variable not in trainable]

    non_trainable_variables = non_trainable_weights

    def get_weights(self) -> list[Array]:
        """Copies of the contents of `weights`, in order."""
        return [np.array(variable.value) for variable in self.weights]

    def set_weights(self, weights: Any) -> None:
        """Sets the contents of `weights`, in order; changes nothing if one does not fit.

        Raises:
            ValueError: There are more or fewer, or one has another shape.
        """
        own = self.weights
        given = [np.asarray(value) for value in weights]
        if len(own) != len(given):
            raise ValueError(
                f"You called `set_weights(weights)` on layer '{self.name}' with a weight list of "
                f"length {len(given)}, but the layer was expecting {len(own)} weights."
            )
        for variable, value in zip(own, given, strict=True):
            if variable.shape != value.shape:
                raise ValueError(
                    f"Layer {self.name} weight shape {variable.shape} is not compatible with "
                    f"provided weight shape {value.shape}."
                )
            if value.dtype.kind not in "fiub":
                raise TypeError(
                    f"Layer {self.name} weight {variable.name}: expected numbers, "
                    f"got dtype {value.dtype}"
                )
        for variable, value in zip(own, given, strict=True):
            variable.assign(value)

    def count_params(self) -> int:
        """The number of entries of all weights.

        Raises:
            ValueError: The layer is not built.
        """
        if not self.built:
            raise ValueError(
                f"You tried to call `count_params` on layer '{self.name}', but the layer isn't "
                "built. You can build it manually via: `layer.build(input_shape)`."
            )
        return sum(variable.size for variable in self.weights)

    # -- Losses

    def add_loss(self, loss: Any) -> None:
        """Adds a scalar to `losses` until the next call; it has no gradient of its own."""
        self._losses.append(float(loss))

    @property
    def losses(self) -> list[float]:
        """Activity penalties and `add_loss` of the latest call, then the weights' penalties."""
        found = [loss for layer in self._flatten_layers() for loss in layer._losses]
        found.extend(
            float(variable.regularizer(variable.value))
            for variable in self.trainable_weights
            if variable.regularizer is not None
        )
        return found

    def _record_activity(self, outputs: Any, training: bool) -> None:
        assert self.activity_regularizer is not None
        for output in flatten(outputs):
            penalty = float(self.activity_regularizer(output))
            self._losses.append(penalty / len(output) if len(output) else 0.0)
        if training:
            self._regularized_outputs = outputs

    def _add_activity_gradient(self, outputs: Any, d_outputs: Any) -> Any:
        gradient = getattr(self.activity_regularizer, "gradient", None)
        if gradient is None:
            raise ValueError(
                f"Layer '{self.name}': expected an activity regularizer with a method "
                f"`gradient(outputs)` for training, got {self.activity_regularizer!r}"
            )
        if isinstance(outputs, tuple):  # an output and states
            given = d_outputs if isinstance(d_outputs, tuple | list) else (d_outputs,)
            given = (*given, *(None for _ in outputs[len(given) :]))
            return tuple(
                self._add_activity_gradient(output, d)
                for output, d in zip(outputs, given, strict=True)
            )
        own = gradient(outputs) / outputs.dtype.type(max(1, len(outputs)))
        return own if d_outputs is None else d_outputs + own

    # -- Calls

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Calls the layer on arrays, after building it if need be.

        Floating inputs are cast to the layer's dtype. `training` that is not given is that of the
        layer this call happens in, else False.
        """
        if "built" not in self.__dict__:
            self._complain_about_init()
        signature = _signatures.get(type(self)) or call_signature(type(self))
        if not args:
            if signature.first is None or signature.first not in kwargs:
                raise TypeError(
                    f"Layer '{self.name}': expected the argument `{signature.first}`, got none"
                )
            args = (kwargs.pop(signature.first),)
        inputs = args[0]
        if type(inputs) is not np.ndarray or inputs.dtype is not self._dtype:
            inputs = map_arrays(self._convert, inputs)
        if isinstance(inputs, np.ndarray):
            self._check_rank(inputs.shape)
        if not self.built:
            self._build_for(inputs)

        context = _context
        if context.depth == 0:
            context.call_number += 1
        if self._losses and self._losses_of_call != context.call_number:
            self._losses = []
        self._losses_of_call = context.call_number

        outer_training = context.training
        training = kwargs.get("training")
        if training is None:
            training = outer_training
            if signature.takes_training and training is not None:
                kwargs["training"] = training
        if not signature.takes_training:
            kwargs.pop("training", None)
        context.training = training
        context.depth += 1
        try:
            outputs = self.call(inputs, *args[1:], **kwargs)
        finally:
            context.training = outer_training
            context.depth -= 1
        if self.activity_regularizer is not None:
            self._record_activity(outputs, bool(training))
        return outputs

    def _build_for(self, inputs: Any) -> None:
        """Builds the layer for these inputs."""
        self.build(map_arrays(np.shape, inputs))

    def _convert(self, value: Any) -> Any:
        """An input as an array: floats in this layer's dtype, integers and booleans as they are."""
        if type(value) is np.ndarray and value.dtype == self._dtype:
            return value
        if isinstance(value, Layer):
            raise TypeError(
                f"Layer '{self.name}': expected an array, got the layer '{value.name}'. Layers are "
                "put together by Sequential; there is no functional API here."
            )
        try:
            array = np.asarray(value)
        except (ValueError, RuntimeError) as error:
            raise ValueError(f"Layer '{self.name}': expected an array, got {error}") from None
        if array.dtype.kind not in "fiub":
            raise TypeError(
                f"Layer '{self.name}': expected an array of numbers, got {type(value).__name__} "
                f"of dtype {array.dtype}"
            )
        return array.astype(self._dtype) if array.dtype.kind == "f" else array

    def _check_rank(self, shape: Any) -> None:
        """Raises ValueError unless inputs of this shape have as many axes as this layer takes."""

    def _rank_error(self, expected: str, shape: Any) -> ValueError:
        return ValueError(
            f"Input 0 with name 'None' of layer '{self.name}' is incompatible with the layer: "
            f"expected {expected}, found ndim={len(shape)}. Full shape received: {tuple(shape)}"
        )

    def _complain_about_init(self) -> None:
        raise TypeError(
            f"Layer {type(self).__name__}: expected its __init__() to call super().__init__() "
            "before anything else, which it did not"
        )

    def _get_saved(self) -> Any:
        """What the latest call with `training=True` kept for `backward`."""
        if self.__dict__.get("_saved") is None:
            raise ValueError(
                f"Layer '{self.name}': expected a call with training=True before backward()"
            )
        return self._saved

    def _forget(self) -> None:
        """Drops what the latest training call kept."""
        for layer in self._flatten_layers():
            layer._saved = layer._regularized_outputs = None

    # -- Files and copies

    def get_build_config(self) -> dict[str, Any] | None:
        """What `build_from_config` needs to create the weights; None if not built."""
        return None if self._build_shape is None else {"input_shape": self._build_shape}

    def build_from_config(self, config: Mapping[str, Any] | None) -> None:
        """Builds the layer from what `get_build_config` gave, unless it is built."""
        if config and config.get("input_shape") is not None and not self.built:
            self.build(tuple(config["input_shape"]))

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        for name in self._transient:
            if name in state:
                state[name] = None
        return state

    def __repr__(self) -> str:
        return f"<{type(self).__name__} name={self.name}, built={self.built}>"


# What most attributes are, and no layer is or holds.
_PLAIN = frozenset((type(None), bool, int, float, str, Variable, np.ndarray))


def _find_layers(values: Iterable[Any], found: dict[Layer, None]) -> None:
    """Adds the layers among `values`, and those in lists, tuples and dicts among these."""
    for value in values:
        if type(value) in _PLAIN:
            continue
        if isinstance(value, Layer):
            found[value] = None
        elif isinstance(value, dict):
            _find_layers(value.values(), found)
        elif isinstance(value, list | tuple):
            _find_layers(value, found)


def weights_of(walk: Iterable[tuple[Layer, bool]]) -> tuple[list[Variable], list[Variable]]:
    """All variables of the layers that `Layer._walk` gives, and those to be updated."""
    found: dict[Variable, None] = {}
    trainable: dict[Variable, None] = {}
    for layer, is_trainable in walk:
        for variable in layer._variables_here():
            found[variable] = None
            if is_trainable and variable.trainable:
                trainable[variable] = None
    return list(found), list(trainable)


def _plain_arguments(cls: type, args: Any, kwargs: Any) -> dict[str, Any]:
    """The arguments of a constructor call, if all of them are plain data."""
    try:
        bound = inspect.signature(cls.__init__).bind(None, *args, **kwargs)  # type: ignore[misc]
    except TypeError:  # the constructor will complain; or there is none to come, as in a copy
        return {}
    found: dict[str, Any] = {}
    for name, value in list(bound.arguments.items())[1:]:
        kind = bound.signature.parameters[name].kind
        found.update(value if kind is inspect.Parameter.VAR_KEYWORD else {name: value})
    plain = all(isinstance(v, int | float | str | None) for v in flatten(list(found.values())))
    return found if plain else {}


def _join_shapes(first: Any, second: Any) -> Any:
    if first and isinstance(first[0], tuple | list):
        return type(first)(_join_shapes(a, b) for a, b in zip(first, second, strict=True))
    return tuple(a if a == b else None for a, b in zip(first, second, strict=True))


def _outside_this_package() -> int:
    """The `stacklevel` at which a warning points to the user's own line."""
    level, frame = 2, inspect.currentframe()
    package = __name__.split(".")[0]
    frame = frame.f_back if frame is not None else None
    while frame is not None and frame.f_globals.get("__name__", "").startswith(package):
        level, frame = level + 1, frame.f_back
    return level - 1


class Wrapper(Layer):
    """A layer around another, which is its attribute `layer`.

    Raises:
        ValueError: `layer` is not a layer.
    """

    def __init__(self, layer: Layer, **kwargs: Any) -> None:
        if not isinstance(layer, Layer):
            raise ValueError(
                f"Please initialize `{type(self).__name__}` layer with a `tidegate.layers.Layer` "
                f"instance. Received: {layer}"
            )
        super().__init__(**kwargs)
        self.layer = layer

    def build(self, input_shape: Any = None) -> None:
        """Builds the inner layer."""
        if not self.layer.built:
            self.layer.build(input_shape)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments, the inner layer's among them."""
        return {**super().get_config(), "layer": serialize(self.layer)}

    @classmethod
    def from_config(
        cls, config: Mapping[str, Any], custom_objects: Mapping[str, Any] | None = None
    ) -> Any:
        """A new layer from what `get_config` gave."""
        rest = dict(config)
        return cls(deserialize(rest.pop("layer"), custom_objects), **rest)


# ---- Configs ------------------------------------------------------------------------------------

# Ours alone: Keras would not find them.
OWN_LAYERS = ("CoupledLSTM", "CoupledLSTMCell", "DualStateGRU", "DualStateGRUCell")
_KERAS_MODULES = {"Sequential": "keras", **dict.fromkeys(OWN_LAYERS, "tidegate.layers")}


def serialize(layer: Any) -> dict[str, Any]:
    """`layer` as the dict Keras's files hold: class, config, and the shape it was built for."""
    cls = type(layer)
    builtin = _is_builtin(cls)
    module = _KERAS_MODULES.get(cls.__name__, "keras.layers") if builtin else cls.__module__
    config = {
        "module": module,
        "class_name": cls.__name__,
        "config": layer.get_config(),
        "registered_name": None if builtin else cls.__name__,
    }
    build_config = layer.get_build_config() if hasattr(layer, "get_build_config") else None
    if build_config is not None:
        config["build_config"] = build_config
    return config


def deserialize(config: Any, custom_objects: Mapping[str, Any] | None = None) -> Any:
    """The layer that `config`, a dict from `serialize` or from a file, describes.

    Nothing is imported by the names in `config`: a class that is not built in has to be in
    `custom_objects`.

    Raises:
        ValueError: `config` is malformed, or the class or an argument unknown.
    """
    if not isinstance(config, Mapping) or "class_name" not in config:
        raise ValueError(f"layer config: expected a dict with 'class_name', got {config!r}")
    name = config["class_name"]
    cls = {**_builtin_classes, **(custom_objects or {})}.get(name)
    if cls is None:
        raise ValueError(
            f"layer config: expected a layer known here ({', '.join(sorted(_builtin_classes))}) or "
            f"in custom_objects, got {name!r}"
        )
    inner = dict(config.get("config") or {})
    if "custom_objects" in inspect.signature(cls.from_config).parameters:
        layer = cls.from_config(inner, custom_objects=custom_objects)
    else:
        layer = cls.from_config(inner)
    if config.get("build_config") and hasattr(layer, "build_from_config"):
        layer.build_from_config(config["build_config"])
    return layer
