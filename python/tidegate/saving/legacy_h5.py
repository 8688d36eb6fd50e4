"""Keras's legacy HDF5 files, `.h5` and `.hdf5`: whole models and weights, read only.

Written by Keras 2 (and by Keras 3 on request). A whole model has JSON in the attributes
`model_config` and `training_config` and its weights in the group `model_weights`; a file of weights
has the layers at its root. A layer's group lists its arrays, in order, in `weight_names`.

What differed in Keras 2 is translated: `hard_sigmoid` was 0.2 x + 0.5 (here
`hard_sigmoid_keras2`), GRU without `reset_after` is the form with one bias, and the weights of
`CuDNNLSTM` and `CuDNNGRU` were stored in cuDNN's layout.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from . import configs, files, keras, shapes

_GATES = {"LSTM": 4, "GRU": 3}


def load_model(
    path: str | os.PathLike[str],
    model_class: type,
    custom_objects: Mapping[str, Any] | None = None,
    compile: bool = True,
) -> Any:
    """Read a whole model as a `model_class`, which is Sequential.

    With `compile` it is compiled as it was.

    The optimizer's state comes back from files of Keras 3. Keras 2 kept it in other forms; its
    optimizers start afresh, with a warning.

    Raises:
        ValueError: not such a file, damaged, with layers or arguments that are not known here,
            or with weights that do not fit its configuration.
        OSError: the file cannot be opened.
    """
    label = os.fspath(path)
    objects = dict(custom_objects or {})
    with files.Hdf5Reader.from_path(path) as reader:
        text = reader.attribute(reader.root, "model_config")
        weights_group = reader.group(reader.root, "model_weights")
        if text is None or weights_group is None:
            raise ValueError(
                f"No model config found in the file at {label}. It may hold weights only: read "
                "them with model.load_weights or tidegate.saving.read_h5_weights."
            )
        config = files.parse_json(text, f"{label}: model_config")
        major = _keras_major(reader, reader.root, label)
        plan = configs.parse_model(config, major, objects, label)
        batch = plan.batch_shape[0] if plan.batch_shape else None
        configs.check_states([layer.config for layer in plan.layers], batch, reader.size, label)
        names = reader.names(weights_group, "layer_names")
        arrays = []
        for layer, weights in plan.describe():
            name = str(layer.config.get("name"))
            found = _layer_arrays(reader, weights_group, name) if name in names else []
            arrays.append(_fitted(layer, weights, found, label))
        _refuse_unread(reader, weights_group, plan, label)
        model = configs.build_model(plan, model_class)
        for own, values in zip(model.layers, arrays, strict=True):
            if values or own.weights:
                own.set_weights(values)
        training = reader.attribute(reader.root, "training_config")
        if compile and training is not None:
            training_config = files.parse_json(training, f"{label}: training_config")
            _compile(model, training_config, major, objects, label)
            _load_optimizer(reader, model, major, label)
    return model


def load_weights(
    model: Any,
    path: str | os.PathLike[str],
    by_name: bool = False,
    skip_mismatch: bool = False,
) -> None:
    """Read weights into a built model, layer by layer in order, or by the layers' names.

    By name, layers that only one side has are left alone, as in Keras.

    Raises:
        ValueError: the file is damaged, or the weights do not fit;
            nothing is changed then. With `skip_mismatch`, layers that do not fit are skipped
            with a warning.
    """
    saved = {name: arrays for name, arrays in read_h5_weights(path).items() if arrays}
    own = [layer for layer in model.layers if layer.weights]
    if by_name:
        pairs = [(layer, saved[layer.name]) for layer in own if layer.name in saved]
    elif len(saved) == len(own):
        pairs = list(zip(own, saved.values(), strict=True))
    else:
        raise ValueError(
            "Layer count mismatch when loading weights from file. "
            f"Model expected {len(own)} layers, found {len(saved)} saved layers."
        )
    fitting = []
    for layer, arrays in pairs:
        subject = f"{os.fspath(path)}: layer {layer.name!r} ({type(layer).__name__})"
        try:
            values = converted(type(layer).__name__, layer.get_config(), arrays, subject)
            expected = [tuple(weight.shape) for weight in layer.weights]
            if [value.shape for value in values] != expected:
                raise ValueError(
                    f"{subject}: expected weights of shapes {expected}, "
                    f"got {[value.shape for value in values]}"
                )
        except ValueError as error:
            if not skip_mismatch:
                raise
            warnings.warn(f"Skipping loading of weights: {error}", stacklevel=4)
            continue
        fitting.append((layer, values))
    for layer, values in fitting:
        layer.set_weights(values)


def is_legacy(path: str | os.PathLike[str]) -> bool:
    """Return whether an HDF5 file has the marks of the legacy format.

    Raises:
        ValueError: no HDF5 file, or damaged.
    """
    with files.Hdf5Reader.from_path(path) as reader:
        return bool(reader.names(reader.root, "layer_names"))


def read_h5_weights(path: str | os.PathLike[str]) -> dict[str, list[np.ndarray]]:
    """Return every layer's arrays from a legacy HDF5 file, as they are stored, by layer name.

    This is the way to the layers of a model that is no Sequential. Arrays of recurrent layers
    may be in cuDNN's layout: `convert_h5_weights` gives Keras's.

    Raises:
        ValueError: not such a file, or damaged.
        OSError: the file cannot be opened.
    """
    label = os.fspath(path)
    with files.Hdf5Reader.from_path(path) as reader:
        root = reader.root
        if reader.attribute(root, "layer_names") is None:
            root = reader.group(root, "model_weights") or root
        names = reader.names(root, "layer_names")
        if not names:
            raise ValueError(f"{label}: expected an attribute 'layer_names' of a legacy Keras file")
        return {name: _layer_arrays(reader, root, name) for name in names}


def convert_h5_weights(class_name: str, arrays: Sequence[Any]) -> list[np.ndarray]:
    """Return `[kernel, recurrent_kernel, bias]` in Keras's layout from either layout.

    cuDNN's layout is known by its bias, `(8 * units,)` for LSTM and `(6 * units,)` for GRU. Other
    arrays are returned as they are. In cuDNN's layout each gate's `(features, units)` block of
    the kernel holds the memory of the row-major `(units, features)` matrix, each gate's block
    of the recurrent kernel is transposed, and there are two biases: LSTM's are added, GRU's
    become the two rows of `reset_after=True`.

    Args:
        class_name: "LSTM" or "GRU"; "CuDNNLSTM" and "CuDNNGRU" mean the same.
        arrays: three arrays, or six for a Bidirectional layer (forward, then backward).

    Raises:
        ValueError: another class name, or shapes of no recurrent layer.
    """
    name = class_name.removeprefix("CuDNN")
    if name not in _GATES:
        raise ValueError(f"class_name: expected LSTM or GRU, got {class_name!r}")
    weights = [np.asarray(array) for array in arrays]
    if len(weights) == 6:
        return convert_h5_weights(name, weights[:3]) + convert_h5_weights(name, weights[3:])
    if len(weights) == 3 and is_cudnn(name, weights):
        gates = _GATES[name]
        kernel, recurrent_kernel, bias = weights
        features, columns = kernel.shape
        blocks = [
            block.reshape(columns // gates, features).T for block in np.split(kernel, gates, axis=1)
        ]
        recurrent_blocks = [block.T for block in np.split(recurrent_kernel, gates, axis=1)]
        halves = bias.reshape(2, -1)
        return [
            np.concatenate(blocks, axis=1),
            np.concatenate(recurrent_blocks, axis=1),
            halves if name == "GRU" else halves.sum(axis=0),
        ]
    return weights


def is_cudnn(class_name: str, arrays: Sequence[np.ndarray]) -> bool:
    """Return whether an LSTM's or GRU's three arrays are in cuDNN's layout."""
    gates = _GATES[class_name]
    kernel, recurrent_kernel, bias = arrays
    units = recurrent_kernel.shape[0] if recurrent_kernel.ndim == 2 else 0
    fits = (
        units > 0
        and recurrent_kernel.shape[1] == gates * units
        and kernel.ndim == 2
        and kernel.shape[1] == gates * units
    )
    return fits and bias.shape == (2 * gates * units,)


def converted(
    class_name: str, config: Mapping[str, Any], arrays: Sequence[np.ndarray], subject: str
) -> list[np.ndarray]:
    """Return a layer's arrays in Keras's layout, whichever they are stored in.

    Raises:
        ValueError: weights of a CuDNNGRU for a GRU of `reset_after=False`, which has one bias.
    """
    if class_name == "Bidirectional":
        inner, inner_config = shapes.nested(config.get("layer"), subject)
        half = len(arrays) // 2
        return converted(inner, inner_config, arrays[:half], subject) + converted(
            inner, inner_config, arrays[half:], subject
        )
    if class_name not in _GATES or len(arrays) != 3 or not is_cudnn(class_name, arrays):
        return list(arrays)
    if class_name == "GRU" and not config.get("reset_after", True):
        raise ValueError(
            f"{subject}: expected weights of a GRU with reset_after=False, got a CuDNNGRU's, which "
            "are of the other form"
        )
    return convert_h5_weights(class_name, arrays)


def _keras_major(reader: files.Hdf5Reader, group: Any, label: str) -> int:
    version = reader.attribute(group, "keras_version")
    return 2 if version is None else keras.major_version(version, label)


def _layer_arrays(reader: files.Hdf5Reader, parent: Any, name: str) -> list[np.ndarray]:
    group = reader.group(parent, name)
    if group is None:
        raise ValueError(f"{reader.label}: expected a group for layer {name!r}, found none")
    return [reader.array(group, weight) for weight in reader.names(group, "weight_names")]


def _fitted(
    layer: configs.PlannedLayer,
    weights: Sequence[shapes.Weight] | None,
    arrays: Sequence[np.ndarray],
    label: str,
) -> list[np.ndarray]:
    """Return a layer's arrays in Keras's layout, checked against its configuration."""
    if weights is None:
        return list(arrays)
    subject = f"{label}: {layer.subject}"
    values = converted(layer.class_name, layer.config, arrays, subject)
    if len(values) != len(weights) or not all(
        shapes.matches(value.shape, weight.shape)
        for value, weight in zip(values, weights, strict=True)
    ):
        raise ValueError(
            f"{subject}: expected weights of shapes {[weight.shape for weight in weights]}, "
            f"got {[array.shape for array in arrays]}"
        )
    return values


def _refuse_unread(
    reader: files.Hdf5Reader, weights_group: Any, plan: configs.Plan, label: str
) -> None:
    known = {str(layer.config.get("name")) for layer in plan.layers}
    for name, node in reader.children(weights_group).items():
        if name not in known and reader.holds_data(node):
            raise ValueError(
                f"{label}: {name!r} has weights, expected only those of {sorted(known)}"
            )


def _compile(
    model: Any,
    training: Mapping[str, Any],
    major: int,
    custom_objects: Mapping[str, Any],
    label: str,
) -> None:
    optimizer = training.get("optimizer_config")
    if not isinstance(optimizer, Mapping):
        raise ValueError(f"{label}: expected an optimizer_config, got {optimizer!r}")
    arguments = {
        key: training.get(key) for key in ("loss", "loss_weights", "metrics", "weighted_metrics")
    }
    name, inner = shapes.nested(optimizer, f"{label}: optimizer_config")
    optimizer_config = dict(inner)
    if major < 3:
        optimizer_config = _keras2_optimizer(optimizer_config)
        arguments["loss"] = _keras2_loss(arguments["loss"])
        for key in ("metrics", "weighted_metrics"):
            arguments[key] = _keras2_metrics(arguments[key])
    arguments["optimizer"] = {
        "module": "keras.optimizers",
        "class_name": name.rsplit(">", 1)[-1],
        "config": optimizer_config,
        "registered_name": None,
    }
    keras.compile_from_config(model, arguments, custom_objects, label)


def _keras2_optimizer(config: dict[str, Any]) -> dict[str, Any]:
    """Return an optimizer's configuration with the names that Keras 3 has."""
    for key in ("jit_compile", "is_legacy_optimizer"):
        config.pop(key, None)
    if "lr" in config:
        config["learning_rate"] = config.pop("lr")
    decay = config.pop("decay", 0.0)
    if decay:  # rate / (1 + decay * iterations)
        config["learning_rate"] = {
            "module": "keras.optimizers.schedules",
            "class_name": "InverseTimeDecay",
            "config": {
                "initial_learning_rate": config["learning_rate"],
                "decay_steps": 1,
                "decay_rate": decay,
            },
            "registered_name": None,
        }
    return config


def _keras2_loss(value: Any) -> Any:
    if isinstance(value, Mapping) and isinstance(value.get("config"), Mapping):
        config = {key: item for key, item in value["config"].items() if key != "fn"}
        if config.get("reduction") == "auto":
            config["reduction"] = "sum_over_batch_size"
        return {**value, "config": config}
    return value


def _keras2_metrics(value: Any) -> Any:
    """Return metrics by name: Keras 2 wrote wrappers around functions, in a list per output."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [
            metric
            for item in value
            for metric in (
                _keras2_metrics(item) if isinstance(item, list) else [_keras2_metric(item)]
            )
        ]
    return value


def _keras2_metric(value: Any) -> Any:
    if isinstance(value, Mapping) and value.get("class_name") == "MeanMetricWrapper":
        config = value.get("config")
        if isinstance(config, Mapping):
            name = config.get("name")
            # "accuracy" was resolved to a function for the shape; resolve it again instead.
            return name if name in ("accuracy", "acc") else config.get("fn", name)
    return value


def _load_optimizer(reader: files.Hdf5Reader, model: Any, major: int, label: str) -> None:
    group = reader.group(reader.root, "optimizer_weights")
    if group is None:
        return
    if major < 3:
        warnings.warn(
            f"{label}: the optimizer's state is in Keras 2's form, which is not read; the "
            "optimizer starts afresh.",
            stacklevel=4,
        )
        return
    optimizer = model.optimizer
    optimizer.build(model.trainable_variables)
    values = [reader.array(group, name) for name in reader.names(group, "weight_names")]
    if [value.shape for value in values] != [tuple(v.shape) for v in optimizer.variables]:
        warnings.warn(
            f"{label}: the saved state does not fit optimizer {optimizer.name!r}; it starts "
            "afresh.",
            stacklevel=4,
        )
        return
    for variable, value in zip(optimizer.variables, values, strict=True):
        variable.assign(value)
