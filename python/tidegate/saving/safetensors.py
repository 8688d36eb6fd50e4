"""The deployment format: one `.safetensors` file with the weights, the model and a test vector.

`docs/file-format.md` is the specification of what is written here; the C++ library reads the
same files. Everything that inference needs is in the file and nothing else: no optimizer, no
initializers, no regularizers, no dropout rates of recurrent layers.
"""

from __future__ import annotations

import copy
import json
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from . import configs, files, shapes

FORMAT_VERSION = 1
# How far a replayed test vector may be from the stored one, relative to max(1, max|output|).
# Instruction sets round differently; a pre-activation of size 100 carries an error of about
# 3e-5 in float32, so a tighter bound would refuse sound models with large weights.
TOLERANCE = {"float32": 1e-4, "float64": 1e-10}
_TEST_BATCH = 2
_TEST_STEPS = 8

# fmt: off
ACTIVATIONS = frozenset(
    {
        "linear", "relu", "relu6", "leaky_relu", "elu", "selu", "celu", "gelu", "gelu_tanh",
        "silu", "sigmoid", "hard_sigmoid", "hard_sigmoid_keras2", "hard_silu", "hard_tanh",
        "tanh", "softplus", "softsign", "exponential", "mish", "log_sigmoid", "tanh_shrink",
        "softmax", "log_softmax",
    }
)
# fmt: on
_NOT_IN_CELLS = frozenset({"softmax", "log_softmax"})
_RECURRENT_KEYS: dict[str, Any] = {
    "units": int,
    "activation": str,
    "use_bias": bool,
    "return_sequences": bool,
    "go_backwards": bool,
    "stateful": bool,
    "zero_output_for_mask": bool,
}
_GATED_KEYS = {**_RECURRENT_KEYS, "recurrent_activation": str}
# Per class the keys of its configuration and their types; dict stands for a nested layer.
_KEYS: dict[str, dict[str, Any]] = {
    "LSTM": _GATED_KEYS,
    "GRU": {**_GATED_KEYS, "reset_after": bool},
    "SimpleRNN": _RECURRENT_KEYS,
    "DualStateGRU": _GATED_KEYS,
    "CoupledLSTM": _GATED_KEYS,
    "Dense": {"units": int, "activation": str, "use_bias": bool},
    "Embedding": {"input_dim": int, "output_dim": int, "mask_zero": bool},
    "Masking": {"mask_value": float},
    "Activation": {"activation": str},
    "Dropout": {"rate": float},
    "Flatten": {},
    "Bidirectional": {"merge_mode": str, "layer": dict, "backward_layer": dict},
    "TimeDistributed": {"layer": dict},
}
# What an absent key means in a Keras configuration, where it is not None or False.
_DEFAULTS = {
    "activation": "linear",
    "use_bias": True,
    "reset_after": True,
    "mask_value": 0.0,
    "merge_mode": "concat",
}


def save(model: Any, path: str | os.PathLike[str]) -> None:
    """Write a built Sequential model for deployment.

    A test vector is drawn and run through `model.predict`, so that whoever loads the file can
    check that it computes the same.

    Raises:
        ValueError: a layer, argument or activation that the format does not know, or layers
            of different dtypes.
    """
    data = serialize(model, os.fspath(path))
    with files.atomic_write(path) as file:
        file.write(data)


def serialize(model: Any, label: str) -> bytes:
    """Return what `save` writes; `label` names it in errors.

    Raises:
        ValueError: as `save`.
    """
    from safetensors.numpy import save as to_bytes

    config = model.get_config()
    batch_shape = shapes.checked_shape(config.get("build_input_shape"), f"{label}: model input")
    layers: list[dict[str, Any]] = []
    tensors: dict[str, np.ndarray] = {}
    inputs: shapes.Shape | None = batch_shape
    own_layers = [layer for layer in config["layers"] if layer["class_name"] != "InputLayer"]
    for layer, serialized in zip(model.layers, own_layers, strict=True):
        subject = f"layer {layer.name!r}"
        weights = [np.ascontiguousarray(weight) for weight in layer.get_weights()]
        for entry in _plain_layers(serialized["class_name"], serialized["config"], subject):
            known = shapes.describe(entry["class_name"], entry["config"], inputs, subject)
            assert known is not None  # _plain_layers lets no other class through
            expected, inputs = known
            for weight in expected:
                tensors[f"layers.{len(layers)}.{weight.name}"] = weights.pop(0)
            layers.append(entry)
    dtype = _common_dtype(tensors, model)
    x = _test_input(batch_shape, layers, dtype)
    y = _predict_fresh(model, x)
    tensors["test_vector.input"], tensors["test_vector.output"] = x, np.ascontiguousarray(y)
    from .. import __version__

    description = {
        "format_version": FORMAT_VERSION,
        "producer": f"tidegate {__version__}",
        "model": {
            "class_name": "Sequential",
            "name": config["name"],
            "dtype": dtype,
            "batch_input_shape": list(batch_shape),
            "layers": layers,
        },
        "test_vector": {
            "input": "test_vector.input",
            "output": "test_vector.output",
            "tolerance": TOLERANCE[dtype],
        },
    }
    data: bytes = to_bytes(tensors, metadata={"tidegate": json.dumps(description)})
    return data


def load(path: str | os.PathLike[str], model_class: type) -> Any:
    """Read a model that `save` wrote as a `model_class`, which is Sequential.

    The test vector is replayed.

    Raises:
        ValueError: not such a file, damaged, of another version, with unknown or missing keys
            or tensors, tensors of other shapes, or a test vector that does not come out.
        OSError: the file cannot be opened.
    """
    description, tensors = read(path)
    model_config = description["model"]
    batch = model_config["batch_input_shape"][0]
    configs.check_states(model_config["layers"], batch, os.path.getsize(path), os.fspath(path))
    from .. import layers as layer_module

    dtype = model_config["dtype"]
    model = model_class(name=model_config["name"])
    model.add(
        layer_module.Input(
            batch_shape=tuple(model_config["batch_input_shape"]),
            dtype=tensors["test_vector.input"].dtype.name,
        )
    )
    for index, entry in enumerate(model_config["layers"]):
        layer = _build_layer(layer_module, entry, dtype)
        with configs.initial_zeros(layer):
            model.add(layer)
        known = shapes.describe(entry["class_name"], entry["config"], None, f"{path}: {index}")
        assert known is not None  # read() has checked the class
        layer.set_weights([tensors[f"layers.{index}.{weight.name}"] for weight in known[0]])
    _replay(model, description["test_vector"], tensors, os.fspath(path))
    return model


def read(path: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return the checked description and tensors of a deployment file, without building it.

    Raises:
        ValueError: as `load`, except for the test vector.
    """
    from safetensors import SafetensorError, safe_open

    label = os.fspath(path)
    if not os.path.isfile(path):
        raise FileNotFoundError(f"{label}: expected a file, found none")
    try:
        with safe_open(path, framework="np") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, ValueError, TypeError) as error:
        raise ValueError(f"{label}: expected a safetensors file, got {error}") from error
    if "tidegate" not in metadata:
        raise ValueError(
            f"{label}: expected metadata with an entry 'tidegate', got {sorted(metadata)}; "
            "this file holds tensors without a model"
        )
    description = files.parse_json(metadata["tidegate"], f"{label}: metadata 'tidegate'")
    version = description.get("format_version")
    if version != FORMAT_VERSION:
        raise ValueError(
            f"{label}: expected format_version {FORMAT_VERSION}, got {version!r}; a newer "
            "tidegate may read it"
        )
    _check(description, tensors, label)
    return description, tensors


def _plain_layers(class_name: str, config: Mapping[str, Any], subject: str) -> list[dict[str, Any]]:
    """Return a layer as the entries that the format has for it, in order.

    A model as a layer becomes its layers, and `RNN` of built-in cells the layers that it equals:
    one per cell, all but the last with `return_sequences`.
    """
    if class_name == "Sequential":
        entries = [
            entry
            for inner_class, inner in (shapes.nested(e, subject) for e in config["layers"])
            if inner_class != "InputLayer"
            for entry in _plain_layers(inner_class, inner, f"{subject}: layer {inner['name']!r}")
        ]
        for entry in entries:  # names of different models may be the same
            entry["name"] = f"{config['name']}_{entry['name']}"
        return entries
    if class_name != "RNN":
        return [_plain_layer(class_name, config, subject)]
    cells = shapes.stacked_cells(config, subject)
    if len(cells) > 1 and (config.get("go_backwards") or config.get("stateful")):
        raise ValueError(
            f"{subject}: expected an RNN of stacked cells without go_backwards and stateful, "
            "which the layers it is written as cannot express"
        )
    entries = []
    for index, (cell_class, cell_config, _) in enumerate(cells):
        if cell_class not in shapes.CELL_LAYERS:
            raise ValueError(
                f"{subject}: expected a cell of {sorted(shapes.CELL_LAYERS)}, got {cell_class!r}"
            )
        merged = {**config, **cell_config, "name": config.get("name")}
        if index < len(cells) - 1:
            merged["return_sequences"] = True
            merged["name"] = f"{config.get('name')}_{index}"
        entries.append(_plain_layer(shapes.CELL_LAYERS[cell_class], merged, subject))
    return entries


def _plain_layer(class_name: str, config: Mapping[str, Any], subject: str) -> dict[str, Any]:
    if class_name not in _KEYS:
        raise ValueError(
            f"{subject}: expected one of {sorted(_KEYS)}, the layers of a .safetensors file, "
            f"got {class_name!r}"
        )
    if config.get("return_state"):
        raise ValueError(f"{subject}: expected return_state=False in a .safetensors file")
    if config.get("data_format", "channels_last") != "channels_last":
        raise ValueError(f"{subject}: expected data_format='channels_last' in a .safetensors file")
    plain: dict[str, Any] = {}
    for key, kind in _KEYS[class_name].items():
        value = config.get(key, _DEFAULTS.get(key))
        if kind is dict:
            value = config.get("layer") if value is None else value
            child_class, child_config = shapes.nested(value, f"{subject}: {key}")
            children = _plain_layers(child_class, child_config, f"{subject}: {key}")
            if len(children) != 1:
                raise ValueError(f"{subject}: expected one layer in {key}, got {len(children)}")
            plain[key] = children[0]
        elif kind is bool:
            plain[key] = bool(value)
        elif kind is int:
            plain[key] = shapes.positive_int(config, key, subject)
        elif kind is float:
            plain[key] = float(value)
            if not math.isfinite(plain[key]):  # JSON has no way to write it
                raise ValueError(f"{subject}: expected a finite {key}, got {value!r}")
        elif key == "merge_mode" and value is None:
            raise ValueError(f"{subject}: expected a merge_mode, got None, which gives two outputs")
        else:
            plain[key] = value
    entry = {"class_name": class_name, "name": str(config.get("name")), "config": plain}
    _check_layer(entry, subject)
    return entry


def _check(description: dict[str, Any], tensors: dict[str, np.ndarray], label: str) -> None:
    """Refuse a description with unknown, missing or wrong entries, or tensors that differ."""
    files.require_keys(description, {"format_version", "model", "test_vector"}, {"producer"}, label)
    model = _mapping(description["model"], f"{label}: model")
    files.require_keys(
        model,
        {"class_name", "name", "dtype", "batch_input_shape", "layers"},
        set(),
        f"{label}: model",
    )
    if model["class_name"] != "Sequential":
        raise ValueError(f"{label}: expected class_name Sequential, got {model['class_name']!r}")
    if not isinstance(model["name"], str):
        raise ValueError(f"{label}: expected a model name, got {model['name']!r}")
    if model["dtype"] not in TOLERANCE:
        raise ValueError(f"{label}: expected dtype float32 or float64, got {model['dtype']!r}")
    inputs: shapes.Shape | None = shapes.checked_shape(
        model["batch_input_shape"], f"{label}: batch_input_shape"
    )
    if not isinstance(model["layers"], list) or not model["layers"]:
        raise ValueError(f"{label}: expected a list of layers, got {model['layers']!r}")
    expected: dict[str, shapes.Shape] = {}
    for index, entry in enumerate(model["layers"]):
        subject = f"{label}: layers[{index}]"
        _check_layer(entry, subject)
        known = shapes.describe(entry["class_name"], entry["config"], inputs, subject)
        assert known is not None  # _check_layer has checked the class
        for weight in known[0]:
            expected[f"layers.{index}.{weight.name}"] = weight.shape
        inputs = known[1]
    _check_test_vector(description["test_vector"], tensors, model, inputs, label)
    for name, shape in expected.items():
        if name not in tensors:
            raise ValueError(f"{label}: expected a tensor {name!r}, found none")
        found = tensors[name]
        if not shapes.matches(found.shape, shape) or found.dtype != model["dtype"]:
            raise ValueError(
                f"{label}: tensor {name!r}: expected shape {shape} and dtype {model['dtype']}, "
                f"got {found.shape} and {found.dtype}"
            )
    extra = sorted(tensors.keys() - expected.keys() - {"test_vector.input", "test_vector.output"})
    if extra:
        raise ValueError(f"{label}: unknown tensors {extra[:8]}, which belong to no layer")


def _check_layer(entry: Any, subject: str) -> None:
    """Refuse a layer entry with an unknown class, unknown or missing keys, or wrong values."""
    entry = _mapping(entry, subject)
    files.require_keys(entry, {"class_name", "name", "config"}, set(), subject)
    class_name, config = entry["class_name"], _mapping(entry["config"], f"{subject}: config")
    if not isinstance(class_name, str) or class_name not in _KEYS:
        raise ValueError(f"{subject}: expected one of {sorted(_KEYS)}, got {class_name!r}")
    if not isinstance(entry["name"], str):
        raise ValueError(f"{subject}: expected a name, got {entry['name']!r}")
    keys = _KEYS[class_name]
    files.require_keys(config, set(keys), set(), f"{subject} ({class_name})")
    for key, kind in keys.items():
        value = config[key]
        if kind is dict:
            _check_layer(value, f"{subject}: {key}")
            allowed = shapes.RECURRENT - {"RNN"} if class_name == "Bidirectional" else set(_KEYS)
            if value["class_name"] not in allowed:
                raise ValueError(
                    f"{subject}: {key}: expected one of {sorted(allowed)}, "
                    f"got {value['class_name']!r}"
                )
            continue
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            continue
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise ValueError(f"{subject}: expected {key} to be a {kind.__name__}, got {value!r}")
        if key.endswith("activation"):
            names = ACTIVATIONS - (_NOT_IN_CELLS if "return_sequences" in keys else set())
            if value not in names:
                raise ValueError(
                    f"{subject}: {key}: expected one of {sorted(names)}, got {value!r}"
                )
        if key == "merge_mode" and value not in ("concat", "sum", "mul", "ave"):
            raise ValueError(
                f"{subject}: expected merge_mode concat, sum, mul or ave, got {value!r}"
            )


def _check_test_vector(
    vector: Any,
    tensors: Mapping[str, np.ndarray],
    model: Mapping[str, Any],
    outputs: shapes.Shape | None,
    label: str,
) -> None:
    subject = f"{label}: test_vector"
    vector = _mapping(vector, subject)
    files.require_keys(vector, {"input", "output", "tolerance"}, set(), subject)
    for key in ("input", "output"):
        if vector[key] != f"test_vector.{key}" or vector[key] not in tensors:
            raise ValueError(f"{subject}: expected a tensor 'test_vector.{key}' named in {key!r}")
    tolerance = vector["tolerance"]
    if not isinstance(tolerance, float) or not 0 < tolerance < 1:
        raise ValueError(f"{subject}: expected a tolerance between 0 and 1, got {tolerance!r}")
    x, y = tensors["test_vector.input"], tensors["test_vector.output"]
    first = model["layers"][0]["class_name"]
    input_dtype = "int32" if first == "Embedding" else model["dtype"]
    batch_shape = model["batch_input_shape"]
    # Fewer time steps than the model is declared with are enough for a test.
    same_rank = len(x.shape) == len(batch_shape)
    if (
        not same_rank
        or x.dtype != input_dtype
        or not shapes.matches(x.shape[2:], tuple(batch_shape[2:]))
        or 0 in x.shape
    ):
        raise ValueError(
            f"{subject}: expected an input like {batch_shape} of dtype {input_dtype}, "
            f"got {x.shape} of {x.dtype}"
        )
    if (
        y.dtype != model["dtype"]
        or y.shape[:1] != x.shape[:1]
        or (outputs is not None and not shapes.matches(y.shape[-1:], outputs[-1:]))
    ):
        raise ValueError(
            f"{subject}: expected an output like {outputs} of dtype {model['dtype']}, "
            f"got {y.shape} of {y.dtype}"
        )


def _mapping(value: Any, subject: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{subject}: expected an object, got {value!r}")
    return value


def _common_dtype(tensors: Mapping[str, np.ndarray], model: Any) -> str:
    dtypes = {array.dtype.name for array in tensors.values()}
    if not tensors:
        dtypes = {np.dtype(model.layers[0].dtype).name}
    if len(dtypes) > 1 or not dtypes <= TOLERANCE.keys():
        raise ValueError(
            f"{model.name}: expected all layers to have one dtype, float32 or float64, "
            f"got {sorted(dtypes)}"
        )
    return dtypes.pop()


def _test_input(
    batch_shape: shapes.Shape, layers: Sequence[Mapping[str, Any]], dtype: str
) -> np.ndarray:
    """Draw an input that also reaches masks, where the model has any."""
    batch, *rest = batch_shape
    steps = rest[0] if rest else None
    if len(rest) > 1 or layers[0]["class_name"] == "Embedding":
        if steps is None:
            rest[0] = _TEST_STEPS
        elif not any(layer["class_name"] == "Flatten" for layer in layers):
            rest[0] = min(steps, _TEST_STEPS)
    size = (batch or _TEST_BATCH, *(size or 1 for size in rest))
    random = np.random.default_rng(0)
    first = layers[0]
    if first["class_name"] == "Embedding":
        x = random.integers(0, first["config"]["input_dim"], size).astype(np.int32)
        if first["config"]["mask_zero"]:
            x[-1, -1:] = 0
        return x
    x = random.standard_normal(size).astype(dtype)
    if first["class_name"] == "Masking":
        x[-1, -1:] = first["config"]["mask_value"]
    return x


def _predict_fresh(model: Any, x: np.ndarray) -> np.ndarray:
    """Return the model's output from zero states, and leave a stateful model's as they were."""
    if any(getattr(layer, "stateful", False) for layer in model.layers):
        model = copy.deepcopy(model)
        _reset_states(model)
    return np.asarray(model.predict(x, verbose=0))


def _reset_states(model: Any) -> None:
    for layer in model.layers:
        if getattr(layer, "stateful", False):
            layer.reset_state()


def _build_layer(layer_module: Any, entry: Mapping[str, Any], dtype: str) -> Any:
    config = dict(entry["config"])
    for key in ("layer", "backward_layer"):
        if key in config:
            config[key] = _build_layer(layer_module, config[key], dtype)
    return getattr(layer_module, entry["class_name"])(**config, name=entry["name"], dtype=dtype)


def _replay(
    model: Any, vector: Mapping[str, Any], tensors: Mapping[str, np.ndarray], label: str
) -> None:
    expected = tensors["test_vector.output"]
    got = np.asarray(model.predict(tensors["test_vector.input"], verbose=0))
    _reset_states(model)
    scale = max(1.0, float(np.max(np.abs(expected), initial=0.0)))
    if got.shape != expected.shape:
        raise ValueError(
            f"{label}: expected a test output of shape {expected.shape}, got {got.shape}"
        )
    error = float(np.max(np.abs(got - expected), initial=0.0)) / scale
    if not error <= vector["tolerance"]:
        raise ValueError(
            f"{label}: expected the test vector within {vector['tolerance']} of its output, "
            f"got a relative error of {error:.3g}; the file is damaged"
        )
