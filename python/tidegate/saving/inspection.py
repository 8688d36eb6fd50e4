"""What a model file holds, as plain data: read, checked, but not built."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Mapping
from typing import Any

from . import files, safetensors


def describe_file(path: str) -> dict[str, Any]:
    """Return the result of `tidegate.saving.info` for an existing file."""
    result: dict[str, Any] = {"bytes": os.path.getsize(path)}
    if path.endswith(".keras"):
        result["format"] = "Keras 3 model"
        with files.ZipReader(path) as archive:
            for member in ("metadata.json", "config.json"):
                if member not in archive.names:
                    raise ValueError(f"{path}: expected a member {member!r}, found none")
            metadata = files.parse_json(archive.read("metadata.json"), f"{path}: metadata.json")
            config = files.parse_json(archive.read("config.json"), f"{path}: config.json")
            data = archive.read("model.weights.h5")
        result["keras_version"] = metadata.get("keras_version")
        result |= _model(config)
        with files.Hdf5Reader(io.BytesIO(data), len(data), path) as reader:
            result["shapes"] = _shapes(reader)
    elif path.endswith(".safetensors"):
        result["format"] = "deployment file"
        description, tensors = safetensors.read(path)
        result["producer"] = description.get("producer")
        result |= _model({"class_name": "Sequential", "config": description["model"]})
        result["shapes"] = {
            name: tuple(array.shape)
            for name, array in tensors.items()
            if not name.startswith("test_vector.")
        }
    elif path.endswith((".h5", ".hdf5")):
        with files.Hdf5Reader.from_path(path) as reader:
            result["keras_version"] = reader.attribute(reader.root, "keras_version")
            text = reader.attribute(reader.root, "model_config")
            if text is not None:
                result |= _model(files.parse_json(text, f"{path}: model_config"))
            legacy = reader.attribute(reader.root, "layer_names") is not None or text is not None
            result["format"] = "legacy Keras HDF5" if legacy else "Keras 3 weights"
            result["shapes"] = _shapes(reader)
    else:
        raise ValueError(
            f"File format not supported: filepath={path}. Expected `.keras`, `.weights.h5`, "
            "`.safetensors` or a legacy `.h5`."
        )
    weights = {
        name: shape
        for name, shape in result["shapes"].items()
        if not name.startswith(("optimizer", "metrics"))
    }
    result["parameters"] = sum(math.prod(shape) for shape in weights.values())
    return result


def _model(config: Mapping[str, Any]) -> dict[str, Any]:
    inner = config.get("config")
    if isinstance(inner, list):  # Keras before 2.2.3
        inner = {"layers": inner}
    if not isinstance(inner, Mapping):
        raise ValueError(f"model: expected a configuration, got {inner!r}")
    return {
        "model": {"class_name": config.get("class_name"), "name": inner.get("name")},
        "layers": [
            {
                "class_name": layer.get("class_name"),
                "name": layer.get("name") or layer.get("config", {}).get("name"),
            }
            for layer in inner.get("layers", [])
            if isinstance(layer, Mapping)
        ],
    }


def _shapes(reader: files.Hdf5Reader) -> dict[str, tuple[int, ...]]:
    """Return the shape of every dataset by path."""
    return {name: reader.shape(node) for name, node in reader.datasets()}
