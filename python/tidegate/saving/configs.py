"""Keras's model configurations, checked and turned into models, for every format that has them.

A configuration is parsed into a `Plan` first, which is plain data: what Keras 2 wrote is brought
into Keras 3's form, and whatever cannot be honoured is refused by name. Only after a file's weights
have been compared with the plan is anything built. Class names are looked up in tables; nothing
is imported by a name that a file gives.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import files, shapes

# Keys that Keras writes and that mean nothing here, as long as they have one of these values.
_ANY = object()
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "quantization_config": (None,),
    "sparse": (False, None),
    "ragged": (False, None),
    "optional": (False, None),
    "data_format": ("channels_last", None),
    "implementation": (0, 1, 2, None),
    # Keras 2:
    "time_major": (False, None),
    "batch_input_shape": (_ANY,),
    "input_length": (_ANY,),
}
_INPUT_KEYS = {"batch_shape", "dtype", "name", "trainable"}
_CUDNN = {"CuDNNLSTM": "LSTM", "CuDNNGRU": "GRU"}
_NESTED_LAYERS = ("layer", "backward_layer", "cell")
# Ours alone: Keras would not find them, or would find something else.
_UNKNOWN_TO_KERAS = frozenset({"hard_sigmoid_keras2", "gelu_tanh"})


@dataclass
class PlannedLayer:
    """One layer of a plan.

    Attributes:
        class_name: name of its class.
        config: its configuration, checked, in Keras 3's form, custom objects already in place.
        custom: the user's class, if it is not a built-in one.
    """

    class_name: str
    config: dict[str, Any]
    custom: type | None

    @property
    def subject(self) -> str:
        """How errors call the layer."""
        return f"layer {self.config.get('name')!r} ({self.class_name})"


@dataclass
class Plan:
    """A Sequential model as plain data."""

    name: str
    batch_shape: shapes.Shape | None
    input_dtype: str | None
    input_name: str | None
    layers: list[PlannedLayer]

    def describe(self) -> list[tuple[PlannedLayer, list[shapes.Weight] | None]]:
        """Return every layer with its weights, None for a user's own layer."""
        result: list[tuple[PlannedLayer, list[shapes.Weight] | None]] = []
        inputs = self.batch_shape
        for layer in self.layers:
            known = None
            if layer.custom is None:
                known = shapes.describe(layer.class_name, layer.config, inputs, layer.subject)
            result.append((layer, known[0] if known else None))
            inputs = known[1] if known else None
        return result


def parse_model(
    config: Mapping[str, Any], keras_major: int, custom_objects: Mapping[str, Any], label: str
) -> Plan:
    """Return the plan of a serialized model.

    A functional model is taken if its layers form one chain, which is what a Sequential is.

    Raises:
        ValueError: another kind of model, an unknown layer, an argument that has no equal here,
            or a malformed configuration; the layer is named.
    """
    if keras_major < 3 and isinstance(config.get("config"), list):
        # Before Keras 2.2.3 a Sequential was the bare list of its layers.
        config = {**config, "config": {"name": "sequential", "layers": config["config"]}}
    class_name, inner = shapes.nested(config, label)
    if class_name == "Sequential":
        entries = inner.get("layers")
    elif class_name in ("Functional", "Model"):
        entries = _chain(inner, label)
    else:
        raise ValueError(
            f"{label}: expected a Sequential model, got a model of class "
            f"{class_name!r}, which is not built in"
        )
    if not isinstance(entries, Sequence) or not all(isinstance(e, Mapping) for e in entries):
        raise ValueError(f"{label}: expected a list of layers, got {entries!r}")

    batch_shape, input_dtype, input_name = None, None, None
    planned: list[tuple[str, dict[str, Any], type | None]] = []
    for index, entry in enumerate(entries):
        name, raw = shapes.nested(entry, f"{label}: layer {index}")
        subject = f"{label}: layer {raw.get('name')!r} ({name})"
        if name == "InputLayer" and not planned:
            batch_shape = shapes.input_shape(raw, subject)
            input_dtype, input_name = _input_dtype(raw, subject), raw.get("name")
            files.require_keys(_neutral(dict(raw), subject), set(), _INPUT_KEYS, subject)
            continue
        if index == 0 and "batch_input_shape" in raw:  # Keras 2 without an InputLayer
            batch_shape = shapes.input_shape(raw, subject)
            input_dtype = "int32" if name == "Embedding" else _input_dtype(raw, subject)
        planned.append(_layer(name, entry, raw, keras_major, custom_objects, subject))
    if batch_shape is None and inner.get("build_input_shape") is not None:
        batch_shape = shapes.checked_shape(inner["build_input_shape"], label)

    layers = [PlannedLayer(*parts) for parts in planned]
    return Plan(str(inner.get("name", "sequential")), batch_shape, input_dtype, input_name, layers)


def build_model(plan: Plan, model_class: type) -> Any:
    """Return a new `model_class`, which is Sequential, from a plan.

    It is built if the plan has the shape of the input.

    Raises:
        ValueError: an argument that a layer does not take; layer and argument are named.
    """
    from .. import layers as layer_module

    model = model_class(name=plan.name)
    if plan.batch_shape is not None:
        options = {"dtype": plan.input_dtype, "name": plan.input_name}
        given: dict[str, Any] = {key: value for key, value in options.items() if value is not None}
        model.add(layer_module.Input(batch_shape=plan.batch_shape, **given))
    for layer in plan.layers:
        parts = (layer.class_name, layer.config, layer.custom, layer.subject)
        own = _build_layer(*parts, model_class)
        with initial_zeros(own) if plan.batch_shape else contextlib.nullcontext():
            model.add(own)
    return model


@contextlib.contextmanager
def initial_zeros(layer: Any) -> Iterator[None]:
    """Let a layer be built with zeros for weights: a file's replace them anyway.

    Drawing a large orthogonal matrix takes far longer than reading it.
    """
    kept = [
        (inner, key, value)
        for inner in layer._flatten_layers()
        if type(inner).__module__.startswith("tidegate.")
        for key, value in vars(inner).items()
        if key.endswith("_initializer") and value is not None
    ]
    for inner, key, _ in kept:
        setattr(inner, key, np.zeros)
    try:
        yield
    finally:
        for inner, key, value in kept:
            setattr(inner, key, value)


def check_states(plan_or_layers: Any, batch: int | None, size: int, label: str) -> None:
    """Refuse a stateful layer whose states would take more than a file of `size` bytes warrants.

    Raises:
        ValueError: the batch size is out of all proportion.
    """
    stated = (batch or 1) * 16 * _stateful_units(plan_or_layers)
    if stated > files.MAX_EXPANSION * size + files.FREE_BYTES:
        raise ValueError(
            f"{label}: expected a batch size in proportion to the weights for stateful layers, "
            f"got {batch}, which takes {stated} bytes"
        )


def _stateful_units(value: Any, stateful: bool = False) -> int:
    """Return the sum of `units` at or below configurations that are stateful."""
    if isinstance(value, (list, tuple)):
        return sum(_stateful_units(item, stateful) for item in value)
    if not isinstance(value, Mapping):
        return 0
    stateful = stateful or bool(value.get("stateful"))
    units = value.get("units") if stateful else 0
    own = units if isinstance(units, int) else 0
    return own + sum(_stateful_units(item, stateful) for item in value.values())


def checked_for_keras(config: Any, subject: str) -> Any:
    """Return a configuration as Keras 3 writes it, refusing what Keras does not have.

    Raises:
        ValueError: a layer or activation that only tidegate has, or a value JSON cannot hold.
    """
    from ..layers.base import OWN_LAYERS

    if isinstance(config, Mapping):
        if isinstance(config.get("class_name"), str) and isinstance(config.get("config"), Mapping):
            name = config["config"].get("name")
            subject = f"layer {name!r} ({config['class_name']})" if name else subject
            if config["class_name"] in OWN_LAYERS:
                raise ValueError(
                    f"{subject}: expected a layer of Keras, got {config['class_name']}, which "
                    "a .keras file cannot hold; save to .safetensors or .weights.h5"
                )
        return {str(key): _keras_value(key, value, subject) for key, value in config.items()}
    if isinstance(config, (list, tuple)):
        return [checked_for_keras(value, subject) for value in config]
    if config is None or isinstance(config, (str, int, float, bool)):
        return config
    if hasattr(config, "item") and getattr(config, "ndim", None) == 0:
        return config.item()
    raise ValueError(f"{subject}: expected a value that JSON can hold, got {config!r}")


def resolve_custom(value: Any, custom_objects: Mapping[str, Any], subject: str) -> Any:
    """Return a configuration with the user's objects in place of their names.

    Raises:
        ValueError: a lambda, an object of a module that is not Keras's, or a registered name
            for which `custom_objects` has nothing.
    """
    if isinstance(value, list):
        return [resolve_custom(item, custom_objects, subject) for item in value]
    if not isinstance(value, dict):
        return value
    class_name = value.get("class_name")
    if not isinstance(class_name, str) or "config" not in value:
        return {key: resolve_custom(item, custom_objects, subject) for key, item in value.items()}
    if class_name == "__lambda__" or class_name == "Lambda":
        raise ValueError(f"{subject}: refusing a lambda, whose code would have to be executed")
    registered = value.get("registered_name")
    inner = value["config"]
    for name in (registered, class_name, inner if isinstance(inner, str) else None):
        if isinstance(name, str) and name in custom_objects:
            return _custom_instance(custom_objects[name], inner, custom_objects, subject)
    module = value.get("module", "keras")
    # A built-in function has its own name or "function" for a registered name, a class none.
    allowed = (inner, "function", None) if class_name == "function" else (class_name, None)
    if registered not in allowed or not _of_keras(module):
        called = registered or (inner if class_name == "function" else class_name)
        raise ValueError(
            f"{subject}: expected a built-in object, got {called!r} of module {module!r}; pass "
            f"custom_objects={{{called!r}: ...}}"
        )
    if class_name == "__numpy__" or class_name == "__tensor__":
        raise ValueError(f"{subject}: expected a named object, got an array in the configuration")
    return {**value, "config": resolve_custom(inner, custom_objects, subject)}


def _of_keras(module: Any) -> bool:
    return module is None or (
        isinstance(module, str)
        and module.split(".")[0] in ("keras", "tf_keras", "builtins", "tidegate")
    )


def _custom_instance(
    found: Any, config: Any, custom_objects: Mapping[str, Any], subject: str
) -> Any:
    if not isinstance(found, type):
        return found
    inner = resolve_custom(dict(config or {}), custom_objects, subject)
    try:
        if hasattr(found, "from_config"):
            return found.from_config(inner)
        return found(**inner)
    except TypeError as error:
        raise ValueError(f"{subject}: {found.__name__} from its configuration: {error}") from error


def _layer(
    class_name: str,
    entry: Mapping[str, Any],
    raw: Mapping[str, Any],
    keras_major: int,
    custom_objects: Mapping[str, Any],
    subject: str,
) -> tuple[str, dict[str, Any], type | None]:
    """Return class name, checked configuration and, if it is the user's, class of a layer."""
    registered = entry.get("registered_name")
    for name in (registered, class_name):
        if isinstance(name, str) and isinstance(custom_objects.get(name), type):
            return class_name, dict(raw), custom_objects[name]
    module = entry.get("module", "keras.layers")
    class_name = _CUDNN.get(class_name, class_name) if keras_major < 3 else class_name
    if class_name == "Sequential" and _of_keras(module):
        plan = parse_model(entry, keras_major, custom_objects, subject)
        described = [{"class_name": part.class_name, "config": part.config} for part in plan.layers]
        return class_name, {"name": plan.name, "layers": described, "plan": plan}, None
    known = class_name in _layer_names()
    if not known or not _of_keras(module) or registered not in (None, class_name):
        called = registered or class_name
        raise ValueError(
            f"{subject}: unknown layer {called!r} of module {module!r}; expected one of "
            f"{sorted(_layer_names())}, or a class of that name in custom_objects"
        )
    config = _neutral(dict(raw), subject)
    if keras_major < 3:
        config = _from_keras2(class_name, config, entry["class_name"])
    config["dtype"] = _dtype(config.get("dtype"), subject)
    for key in _NESTED_LAYERS:
        if isinstance(config.get(key), Mapping):
            config[key] = _nested_layer(config[key], keras_major, custom_objects, subject, key)
    if class_name == "StackedRNNCells" and isinstance(config.get("cells"), Sequence):
        config["cells"] = [
            _nested_layer(cell, keras_major, custom_objects, subject, f"cells[{index}]")
            for index, cell in enumerate(config["cells"])
        ]
    for key, value in config.items():
        if key not in (*_NESTED_LAYERS, "cells"):
            found = resolve_custom(value, custom_objects, f"{subject}: {key}")
            if key.endswith("activation") and isinstance(value, str):
                found = custom_objects.get(value, value)
            config[key] = found
    return class_name, config, None


def _nested_layer(
    value: Any,
    keras_major: int,
    custom_objects: Mapping[str, Any],
    subject: str,
    key: str,
) -> dict[str, Any]:
    name, raw = shapes.nested(value, f"{subject}: {key}")
    class_name, config, custom = _layer(
        name, value, raw, keras_major, custom_objects, f"{subject}: {key}: {name}"
    )
    return {"class_name": class_name, "config": config, "custom": custom}


def _layer_names() -> frozenset[str]:
    from .. import layers as layer_module

    return frozenset(
        name
        for name, value in vars(layer_module).items()
        if isinstance(value, type)
        and issubclass(value, layer_module.Layer)
        and name not in ("Layer", "Wrapper", "InputLayer")
    )


def _build_layer(
    class_name: str,
    config: Mapping[str, Any],
    custom: type | None,
    subject: str,
    model_class: type,
) -> Any:
    from .. import layers as layer_module

    if class_name == "Sequential":
        return build_model(config["plan"], model_class)
    arguments = {
        key: _build_nested(value, f"{subject}: {key}", model_class) for key, value in config.items()
    }
    layer_class: Any = custom or getattr(layer_module, class_name)
    try:
        return layer_class.from_config(arguments) if custom else layer_class(**arguments)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{subject}: {error}") from error


def _build_nested(value: Any, subject: str, model_class: type) -> Any:
    if isinstance(value, dict) and value.keys() == {"class_name", "config", "custom"}:
        parts = (value["class_name"], value["config"], value["custom"])
        return _build_layer(*parts, subject, model_class)
    if isinstance(value, list):
        return [_build_nested(item, subject, model_class) for item in value]
    return value


def _neutral(config: dict[str, Any], subject: str) -> dict[str, Any]:
    """Drop keys that mean nothing here, refusing values that would mean something."""
    for key, allowed in _NEUTRAL.items():
        if key not in config:
            continue
        value = config.pop(key)
        if allowed != (_ANY,) and not any(value is a or value == a for a in allowed):
            raise ValueError(f"{subject}: expected {key} to be {allowed[0]!r}, got {value!r}")
    return config


def _from_keras2(class_name: str, config: dict[str, Any], written: str) -> dict[str, Any]:
    """Return a layer's configuration as Keras 3 would have to write it to mean the same."""
    for key in ("activation", "recurrent_activation"):
        if config.get(key) == "hard_sigmoid":  # 0.2 x + 0.5 then, x / 6 + 0.5 now
            config[key] = "hard_sigmoid_keras2"
    if class_name in ("GRU", "GRUCell"):
        # CuDNNGRU is the form with two biases; a GRU that does not say is older than that form.
        config.setdefault("reset_after", written == "CuDNNGRU")
    if config.get("activity_regularizer") is None:
        config.pop("activity_regularizer", None)  # a key of every layer then, of few now
    for key, value in config.items():
        if key.endswith("_initializer") and isinstance(value, Mapping):
            config[key] = _initializer_from_keras2(value)
    return config


def _initializer_from_keras2(value: Mapping[str, Any]) -> dict[str, Any]:
    inner = dict(value.get("config") or {})
    inner.pop("dtype", None)
    if inner.get("distribution") == "normal":  # always drawn truncated
        inner["distribution"] = "truncated_normal"
    return {**value, "config": inner}


def _dtype(value: Any, subject: str) -> str:
    """Return the name of a dtype or of a dtype policy."""
    if isinstance(value, Mapping):
        name, inner = shapes.nested(value, f"{subject}: dtype")
        value = inner.get("name") if name in ("DTypePolicy", "Policy") else name
    if value is None:
        return "float32"
    if value not in ("float32", "float64"):
        raise ValueError(f"{subject}: expected dtype float32 or float64, got {value!r}")
    return str(value)


def _input_dtype(config: Mapping[str, Any], subject: str) -> str | None:
    value = config.get("dtype")
    if value is None or isinstance(value, str):
        return value
    return _dtype(value, subject)


def _keras_value(key: Any, value: Any, subject: str) -> Any:
    if isinstance(key, str) and key.endswith("activation") and value in _UNKNOWN_TO_KERAS:
        raise ValueError(
            f"{subject}: expected a {key} that Keras 3 has, got {value!r}; save to .safetensors"
        )
    return checked_for_keras(value, f"{subject}: {key}" if key != "config" else subject)


def _chain(config: Mapping[str, Any], label: str) -> list[Mapping[str, Any]]:
    """Return a functional model's layers in order, if each feeds the next and nothing else."""
    entries = config.get("layers")
    if not isinstance(entries, Sequence):
        raise ValueError(f"{label}: expected a list of layers, got {entries!r}")
    previous = None
    for index, entry in enumerate(entries):
        if not isinstance(entry, Mapping):
            raise ValueError(f"{label}: expected layers, got {entry!r}")
        name = entry.get("name")
        sources = _inbound(entry.get("inbound_nodes"), f"{label}: layer {name!r}")
        expected = [] if index == 0 else [previous]
        if sources != expected or (index == 0) != (entry.get("class_name") == "InputLayer"):
            raise ValueError(
                f"{label}: expected layers in one chain, got layer {name!r} fed by {sources}; read "
                "a branching model's weights layer by layer with tidegate.saving.read_h5_weights"
            )
        previous = name
    ends = config.get("output_layers")
    if _flat_names(ends) != [previous]:
        raise ValueError(f"{label}: expected the last layer {previous!r} as the output, got {ends}")
    return list(entries)


def _flat_names(ends: Any) -> list[Any]:
    """Return names from `["a", 0, 0]` or `[["a", 0, 0], ...]`; Keras 3 drops a single list."""
    if not isinstance(ends, Sequence) or isinstance(ends, str) or not ends:
        return []
    if isinstance(ends[0], str):
        return [ends[0]]
    return [end[0] if isinstance(end, Sequence) and end else end for end in ends]


def _inbound(nodes: Any, subject: str) -> list[Any]:
    """Return the names of the layers that feed a layer, as Keras 2 or Keras 3 wrote them."""
    if not isinstance(nodes, Sequence) or isinstance(nodes, str):
        raise ValueError(f"{subject}: expected inbound_nodes, got {nodes!r}")
    sources: list[Any] = []
    for node in nodes:
        if isinstance(node, Mapping):  # Keras 3: the arguments of the call
            arguments, keywords = node.get("args"), node.get("kwargs")
            if isinstance(keywords, Mapping) and any(
                value not in (None, False) for value in keywords.values()
            ):
                raise ValueError(f"{subject}: expected a call without arguments, got {keywords}")
            sources += _histories(arguments)
        elif isinstance(node, Sequence):  # Keras 2: [[name, node, tensor, arguments], ...]
            for tensor in node:
                if not isinstance(tensor, Sequence) or len(tensor) < 3 or any(tensor[3:]):
                    raise ValueError(f"{subject}: expected a call without arguments, got {tensor}")
                sources.append(tensor[0])
    return sources


def _histories(value: Any) -> list[Any]:
    if isinstance(value, Mapping):
        config = value.get("config")
        if value.get("class_name") == "__keras_tensor__" and isinstance(config, Mapping):
            history = config.get("keras_history")
            return [history[0]] if isinstance(history, Sequence) and history else [None]
        return [None]
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [name for item in value for name in _histories(item)]
    return [None]
