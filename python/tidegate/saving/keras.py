"""Keras 3's own files, `.keras` and `.weights.h5`, read and written without Keras.

A `.keras` file is a zip archive of `metadata.json`, `config.json` and `model.weights.h5`. In the
HDF5 file every object that has variables owns a group `vars` with datasets "0", "1" and so on;
groups are called after attributes and, in lists, after classes, never after the objects' names:

    layers/lstm/cell/vars/0        kernel of the first LSTM, whatever its name
    layers/lstm_1/cell/vars/0      kernel of the second
    optimizer/vars/0               iteration, then learning rate, then the slots

Files of Keras 2.12 and later have much the same form and are read too.
"""

from __future__ import annotations

import datetime
import io
import json
import os
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from . import configs, files, shapes

# What is written is what this version of Keras writes.
KERAS_VERSION = "3.15.1"
_CONFIG, _METADATA, _WEIGHTS = "config.json", "metadata.json", "model.weights.h5"
# The groups of the layers, now and in Keras 2.12, which named it after a private attribute.
_CONTAINERS = ("layers", "_layer_checkpoint_dependencies")
# Losses and metrics by names that stand for one of several, depending on the shapes of the data.
_CHOSEN_BY_SHAPE = ("accuracy", "acc", "crossentropy", "ce")
# Arguments of compile() that concern back-ends which do not exist here.
_BACKEND_ARGUMENTS = ("run_eagerly", "steps_per_execution", "jit_compile", "auto_scale_loss")


def save_model(model: Any, path: str | os.PathLike[str]) -> None:
    """Write a `.keras` file that Keras 3 opens: configuration, weights and optimizer state.

    Raises:
        ValueError: a layer or activation that Keras does not have, by name.
        OSError: the file cannot be written; an old file at `path` is then still there.
    """
    if not model.built:
        warnings.warn(
            "You are saving a model that has not yet been built. It might not contain any weights "
            "yet. Consider building the model first by calling it on some data.",
            stacklevel=4,
        )
    config = configs.checked_for_keras(serialize_model(model), f"model {model.name!r}")
    metadata = {
        "keras_version": KERAS_VERSION,
        "date_saved": datetime.datetime.now().strftime("%Y-%m-%d@%H:%M:%S"),
    }
    weights = io.BytesIO()
    files.write_hdf5(weights, lambda root: _write_state(root, model), path)
    with files.atomic_write(path) as file, zipfile.ZipFile(file, "w") as archive:
        archive.writestr(_METADATA, json.dumps(metadata))
        archive.writestr(_CONFIG, json.dumps(config))
        archive.writestr(_WEIGHTS, weights.getbuffer())


def load_model(
    path: str | os.PathLike[str],
    model_class: type,
    custom_objects: Mapping[str, Any] | None = None,
    compile: bool = True,
) -> Any:
    """Read a `.keras` file as a `model_class`, which is Sequential.

    With `compile` it is compiled as it was, and the optimizer's state comes back.

    Raises:
        ValueError: not such a file, damaged, with layers or arguments that are not known here,
            or with weights that do not fit its configuration.
        OSError: the file cannot be opened.
    """
    label = os.fspath(path)
    objects = dict(custom_objects or {})
    with files.ZipReader(path) as archive:
        config = files.parse_json(archive.read(_CONFIG), f"{label}: {_CONFIG}")
        major = _keras_major(archive, label)
        plan = configs.parse_model(config, major, objects, label)
        data = archive.read(_WEIGHTS)
    batch = plan.batch_shape[0] if plan.batch_shape else None
    configs.check_states([layer.config for layer in plan.layers], batch, len(data), label)
    with files.Hdf5Reader(io.BytesIO(data), len(data), f"{label}: {_WEIGHTS}") as reader:
        arrays, groups = _read_layers(reader, plan, label)
        model = configs.build_model(plan, model_class)
        _build_unbuilt(model, config)
        assignments = _layer_assignments(reader, model, arrays, groups)
        if compile and config.get("compile_config"):
            compile_from_config(model, config["compile_config"], objects, label)
            if model.built and _optimizer_slots(reader) > len(model.optimizer.variables):
                model.optimizer.build(model.trainable_variables)
            assignments += _optimizer_assignments(reader, model.optimizer)
        for variable, value in assignments:
            variable.assign(value)
    return model


def save_weights(model: Any, path: str | os.PathLike[str]) -> None:
    """Write a built model's `.weights.h5` file: weights and optimizer state, no configuration.

    Raises:
        OSError: the file cannot be written; an old file at `path` is then still there.
    """
    with files.atomic_write(path) as file:
        files.write_hdf5(file, lambda root: _write_state(root, model), path)


def load_weights(model: Any, path: str | os.PathLike[str], skip_mismatch: bool = False) -> None:
    """Read the weights of a `.weights.h5` or `.keras` file into a built model.

    Nothing is changed unless everything fits, except with `skip_mismatch`, which leaves out the
    layers that do not fit and warns.

    Raises:
        ValueError: the file is damaged, or the weights do not fit.
    """
    label = os.fspath(path)
    if label.endswith(".keras"):
        with files.ZipReader(path) as archive:
            data = archive.read(_WEIGHTS)
        source = files.Hdf5Reader(io.BytesIO(data), len(data), f"{label}: {_WEIGHTS}")
    else:
        source = files.Hdf5Reader.from_path(path)
    with source as reader:
        groups = _layer_names(
            reader,
            [type(layer).__name__ for layer in model.layers],
            [bool(layer.weights) for layer in model.layers],
        )
        assignments: list[tuple[Any, np.ndarray]] = []
        failures: dict[str, ValueError] = {}
        for layer, group in zip(model.layers, groups, strict=True):
            for inner, variables in _layer_groups(layer, group):
                try:
                    assignments += _group_assignments(reader, inner, variables, layer.name)
                except ValueError as error:
                    failures.setdefault(layer.name, error)
        _raise_failures(failures, skip_mismatch)
        if not skip_mismatch:
            _refuse_unread(reader, groups)
        if getattr(model, "optimizer", None) is not None:
            assignments += _optimizer_assignments(reader, model.optimizer)
        for variable, value in assignments:
            variable.assign(value)


def serialize_model(model: Any) -> dict[str, Any]:
    """Return a model's configuration as `config.json` holds it."""
    config = model.get_config()
    serialized: dict[str, Any] = {
        "module": "keras",
        "class_name": "Sequential",
        "config": config,
        "registered_name": None,
    }
    if config.get("build_input_shape") is not None:
        serialized["build_config"] = {"input_shape": config["build_input_shape"]}
    serialized["compile_config"] = model.get_compile_config()
    return serialized


def compile_from_config(
    model: Any, config: Mapping[str, Any], custom_objects: Mapping[str, Any], label: str
) -> None:
    """Compile a model as `compile_config` says.

    Raises:
        ValueError: an optimizer, loss or metric that is not known here, by name.
    """
    from .. import losses, metrics, optimizers

    modules = {
        "optimizer": optimizers,
        "loss": losses,
        "metrics": metrics,
        "weighted_metrics": metrics,
    }
    subject = f"{label}: compile_config"
    arguments: dict[str, Any] = {}
    for key, value in config.items():
        if key in _BACKEND_ARGUMENTS:
            continue
        found = configs.resolve_custom(value, custom_objects, f"{subject}: {key}")
        try:
            arguments[key] = _deserialized(modules.get(key), found, custom_objects)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{subject}: {key}: {error}; load with compile=False") from error
    try:
        model.compile(**arguments)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{subject}: {error}; load with compile=False") from error


def _deserialized(module: Any, value: Any, custom_objects: Mapping[str, Any]) -> Any:
    """Return objects in place of their configurations; names are checked and left to `compile`."""
    if isinstance(value, str):
        if value in custom_objects:
            return custom_objects[value]
        if module is not None and value not in _CHOSEN_BY_SHAPE:
            module.get(value)
        return value
    if isinstance(value, list):
        return [_deserialized(module, item, custom_objects) for item in value]
    if isinstance(value, dict) and "class_name" in value and module is not None:
        return module.deserialize(value, custom_objects)
    if isinstance(value, dict):
        return {key: _deserialized(module, item, custom_objects) for key, item in value.items()}
    return value


def _keras_major(archive: files.ZipReader, label: str) -> int:
    if _METADATA not in archive.names:
        return 3
    metadata = files.parse_json(archive.read(_METADATA), f"{label}: {_METADATA}")
    return major_version(metadata.get("keras_version"), label)


def major_version(version: Any, label: str) -> int:
    """Return the first number of a Keras version such as "3.15.1"."""
    first = str(version).split(".")[0]
    if not first.isdecimal():
        raise ValueError(f"{label}: expected a Keras version, got {version!r}")
    return int(first)


def _build_unbuilt(model: Any, config: Mapping[str, Any]) -> None:
    """Build a model without an Input for the shape it was saved with."""
    build_config = config.get("build_config")
    if not model.built and isinstance(build_config, Mapping) and build_config.get("input_shape"):
        model.build(shapes.checked_shape(build_config["input_shape"], "build_config"))


# Reading ------------------------------------------------------------------------------------------


def _read_layers(
    reader: files.Hdf5Reader, plan: configs.Plan, label: str
) -> tuple[list[list[np.ndarray] | None], list[str]]:
    """Return the arrays of every built-in layer and the groups of all layers.

    The arrays are checked against the plan, before anything is built from it.
    """
    result: list[list[np.ndarray] | None] = []
    described = plan.describe()
    groups = _layer_names(
        reader,
        [layer.class_name for layer, _ in described],
        [weights is None or bool(weights) for _, weights in described],
    )
    # A model without an Input that was saved before it was built has no weights.
    built = plan.batch_shape is not None or any(
        group is not None and reader.holds_data(group)
        for group in (reader.group(reader.root, name) for name in _CONTAINERS)
    )
    for (layer, weights), group in zip(described, groups, strict=True):
        if weights is None:
            result.append(None)
            continue
        counts: dict[str, int] = {}
        arrays = []
        if not built:
            result.append([])
            continue
        for weight in weights:
            path = _join(group, weight.group, "vars")
            counts[path] = counts.get(path, 0) + 1
            found = reader.group(reader.root, path)
            dataset = {} if found is None else reader.children(found)
            if str(weight.index) not in dataset:
                raise ValueError(
                    f"{label}: {layer.subject}: expected weight {weight.name!r} at "
                    f"{path}/{weight.index}, found none"
                )
            shape = reader.shape(dataset[str(weight.index)])
            if not shapes.matches(shape, weight.shape):
                raise ValueError(
                    f"{label}: {layer.subject}: expected weight {weight.name!r} of shape "
                    f"{weight.shape}, got {shape}"
                )
            arrays.append(reader.array(found, str(weight.index)))
        for path, count in counts.items():
            extra = len(reader.children(reader.group(reader.root, path))) - count
            if extra:
                raise ValueError(
                    f"{label}: {layer.subject}: expected {count} arrays at {path}, "
                    f"got {count + extra}"
                )
        result.append(arrays)
    _refuse_unread(reader, groups)
    return result, groups


def _layer_names(
    reader: files.Hdf5Reader, class_names: Sequence[str], weighted: Sequence[bool]
) -> list[str]:
    """Return the groups of a file's layers.

    Keras 2.12 kept them in a dict that has every layer with weights twice, so that the numbers
    of these layers go up by two.
    """
    current, old = _CONTAINERS
    if reader.group(reader.root, current) is not None or reader.group(reader.root, old) is None:
        return [f"{current}/{name}" for name in shapes.container_names(class_names)]
    members: list[str] = []
    firsts = []
    for class_name, twice in zip(class_names, weighted, strict=True):
        firsts.append(len(members))
        members += [class_name] * (2 if twice else 1)
    names = shapes.container_names(members)
    return [f"{old}/{names[first]}" for first in firsts]


def _refuse_unread(reader: files.Hdf5Reader, known: Sequence[str]) -> None:
    """Raise if the file has arrays for layers that the model does not have."""
    for container in _CONTAINERS:
        group = reader.group(reader.root, container)
        for name, node in ({} if group is None else reader.children(group)).items():
            if f"{container}/{name}" not in known and reader.holds_data(node):
                raise ValueError(
                    f"{reader.label}: {container}/{name} has weights, expected only those of "
                    f"{sorted(known)}"
                )


def _layer_assignments(
    reader: files.Hdf5Reader,
    model: Any,
    arrays: Sequence[list[np.ndarray] | None],
    groups: Sequence[str],
) -> list[tuple[Any, np.ndarray]]:
    """Return every variable with its value from the file."""
    result: list[tuple[Any, np.ndarray]] = []
    for layer, values, group in zip(model.layers, arrays, groups, strict=True):
        if values is None:
            for inner, variables in _layer_groups(layer, group):
                result += _group_assignments(reader, inner, variables, layer.name)
        elif values:
            result += zip(layer.weights, values, strict=True)
    return result


def _group_assignments(
    reader: files.Hdf5Reader, group: str, variables: Sequence[Any], name: str
) -> list[tuple[Any, np.ndarray]]:
    """Return an object's variables with their values from `group`/vars."""
    found = reader.group(reader.root, f"{group}/vars")
    datasets = {} if found is None else reader.children(found)
    count = len(datasets)
    if datasets.keys() != {str(index) for index in range(len(variables))}:
        raise ValueError(
            f"Layer '{name}' expected {len(variables)} variables, but received {count} variables "
            f"during loading. Expected: {[variable.name for variable in variables]}"
        )
    result = []
    for index, variable in enumerate(variables):
        shape = reader.shape(datasets[str(index)])
        if shape != tuple(variable.shape):
            raise ValueError(
                f"Layer '{name}': expected variable {variable.name!r} of shape "
                f"{tuple(variable.shape)}, got {shape} from {group}/vars/{index}"
            )
        result.append((variable, reader.array(found, str(index))))
    return result


def _raise_failures(failures: Mapping[str, ValueError], warn_only: bool) -> None:
    if not failures:
        return
    name, error = next(iter(failures.items()))
    message = (
        f"A total of {len(failures)} objects could not be loaded. Example error message for "
        f"object {name}:\n\n{error}\n\nList of objects that could not be loaded:\n{list(failures)}"
    )
    if not warn_only:
        raise ValueError(message)
    warnings.warn(message, stacklevel=5)


def _optimizer_slots(reader: files.Hdf5Reader) -> int:
    """Return how many variables of the optimizer the file has; few before the first step."""
    group = reader.group(reader.root, "optimizer/vars")
    return 0 if group is None else len(reader.children(group))


def _optimizer_assignments(
    reader: files.Hdf5Reader, optimizer: Any
) -> list[tuple[Any, np.ndarray]]:
    """Return the optimizer's variables with their values; if others are saved, warn as Keras."""
    group = reader.group(reader.root, "optimizer/vars")
    if group is None:
        return []
    found = reader.children(group)
    variables = optimizer.variables
    same = len(found) == len(variables) and all(
        str(index) in found and reader.shape(found[str(index)]) == tuple(variable.shape)
        for index, variable in enumerate(variables)
    )
    if not same:
        warnings.warn(
            f"Skipping variable loading for optimizer '{optimizer.name}', because it has "
            f"{len(variables)} variables whereas the saved optimizer has {len(found)} variables. ",
            stacklevel=5,
        )
        return []
    return [(variable, reader.array(group, str(index))) for index, variable in enumerate(variables)]


# Writing ------------------------------------------------------------------------------------------


def _write_state(root: Any, model: Any) -> None:
    """Fill an HDF5 file with the variables of a model and its optimizer."""
    _write_vars(root, "", model.name, [])
    groups = shapes.container_names([type(layer).__name__ for layer in model.layers])
    for layer, group in zip(model.layers, groups, strict=True):
        names = dict(_object_names(layer, f"layers/{group}"))
        for inner, variables in _layer_groups(layer, f"layers/{group}"):
            _write_vars(root, inner, names.get(inner), variables)
    optimizer = getattr(model, "optimizer", None)
    if optimizer is not None:
        _write_vars(root, "optimizer", optimizer.name, optimizer.variables)


def _write_vars(root: Any, group: str, name: str | None, variables: Sequence[Any]) -> None:
    target = root.create_group(_join(group, "vars"))
    if name is not None:
        target.attrs["name"] = name
    for index, variable in enumerate(variables):
        target.create_dataset(str(index), data=np.asarray(variable.value))


def _layer_groups(layer: Any, group: str) -> list[tuple[str, list[Any]]]:
    """Return the group and own variables of a layer and of every layer inside it.

    Keras visits attributes in alphabetical order, private ones last, and every object once.
    """
    return [(path, inner._variables_here()) for path, inner in _walk(layer, group, set())]


def _object_names(layer: Any, group: str) -> list[tuple[str, str]]:
    return [(path, inner.name) for path, inner in _walk(layer, group, set())]


def _walk(layer: Any, group: str, seen: set[int]) -> list[tuple[str, Any]]:
    from ..layers import Layer

    if id(layer) in seen:
        return []
    seen.add(id(layer))
    found = [(group, layer)]
    if _is_model(layer):  # a Sequential as a layer of another
        names = shapes.container_names([type(member).__name__ for member in layer.layers])
        for name, member in zip(names, layer.layers, strict=True):
            found += _walk(member, f"{group}/layers/{name}", seen)
        return found
    attributes = sorted(
        vars(layer).items(),
        key=lambda item: item[0].replace("_", "~", 1) if item[0].startswith("_") else item[0],
    )
    for key, value in attributes:
        if isinstance(value, Layer):
            found += _walk(value, f"{group}/{key}", seen)
        elif isinstance(value, (list, tuple, dict)):
            members = list(value.values()) if isinstance(value, dict) else list(value)
            inner = [member for member in members if isinstance(member, Layer)]
            names = shapes.container_names([type(member).__name__ for member in inner])
            for name, member in zip(names, inner, strict=True):
                found += _walk(member, f"{group}/{key}/{name}", seen)
    return found


def _is_model(layer: Any) -> bool:
    return hasattr(layer, "layers") and hasattr(layer, "compile")


def _join(*parts: str) -> str:
    return "/".join(part for part in parts if part)
