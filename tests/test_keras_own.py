"""Keras's own tests of its recurrent layers, from the Keras that is installed, run on these layers.

The files are read from Keras's wheel and executed with other modules in place of Keras's.  Left out
is what tests Keras's internals or its functional API; each with its reason.
"""

import builtins
import importlib.util
import sys
import types
from pathlib import Path

import numpy as np
import pytest

import tidegate as tg

if not importlib.util.find_spec("keras") or not importlib.util.find_spec("absl"):
    pytest.skip("needs Keras", allow_module_level=True)
from absl.testing import parameterized

_FUNCTIONAL = "builds a functional model, of which there are none here"
_CUDNN = "is about cuDNN"
LEFT_OUT = {
    "bidirectional.test_keeps_use_cudnn": _CUDNN,
    "bidirectional.test_fused_lstm_eligibility": _CUDNN,
    "bidirectional.test_fused_gru_eligibility": _CUDNN,
    "bidirectional.test_fused_lstm_matches_unfused": _CUDNN,
    "bidirectional.test_fused_gru_matches_unfused": _CUDNN,
    "bidirectional.test_torch_cudnn_bidirectional_gru_dispatch_fires": _CUDNN,
    "gru.test_torch_cudnn_dispatch_fires": _CUDNN,
    "gru.test_stateful_with_symbolic_batch_size": "is about TensorFlow's symbolic shapes",
    "rnn.test_stateful_batch_size_mismatch_raises": _FUNCTIONAL,
    "time_distributed.test_build": _FUNCTIONAL,
}


class KerasTestCase(parameterized.TestCase):
    """What Keras's tests use of its TestCase."""

    def assertAllClose(self, x1, x2, atol=1e-6, rtol=1e-6, tpu_atol=None, tpu_rtol=None, msg=None):
        np.testing.assert_allclose(x1, x2, atol=atol, rtol=rtol, err_msg=msg or "")

    def run_class_serialization_test(self, instance, custom_objects=None):
        classes = {type(i).__name__: type(i) for i in instance._flatten_layers()}
        config = instance.get_config()
        again = tg.layers.deserialize(
            tg.layers.serialize(instance), {**classes, **(custom_objects or {})}
        )
        assert again.get_config() == config
        return again

    def run_layer_test(
        self,
        layer_cls,
        init_kwargs,
        input_shape,
        call_kwargs=None,
        expected_output_shape=None,
        expected_num_trainable_weights=None,
        expected_num_non_trainable_weights=None,
        expected_num_losses=None,
        supports_masking=None,
        custom_objects=None,
        **others,
    ):
        internal = {"expected_num_seed_generators", "expected_num_non_trainable_variables"}
        assert set(others) <= {*internal, "run_mixed_precision_check"}
        layer = self.run_class_serialization_test(layer_cls(**init_kwargs), custom_objects)
        x = np.random.default_rng(0).random(input_shape, dtype="float32")
        outputs = layer(x, **(call_kwargs or {}))
        first = outputs[0] if isinstance(outputs, tuple) else outputs
        assert first.shape == expected_output_shape
        assert first.dtype == np.float32
        shape = layer.compute_output_shape(input_shape)
        assert (shape[0] if isinstance(outputs, tuple) else shape) == expected_output_shape
        assert len(layer.trainable_weights) == expected_num_trainable_weights
        assert len(layer.non_trainable_weights) == expected_num_non_trainable_weights
        if expected_num_losses is not None:
            assert len(layer.losses) == expected_num_losses
        assert layer.supports_masking == supports_masking
        self._train(layer, x, outputs)

    def _train(self, layer, x, outputs):
        cell = getattr(layer, "cell", None)
        users_own = cell is not None and any(
            type(inner).__module__.split(".")[0] != "tidegate" for inner in cell._flatten_layers()
        )
        if isinstance(outputs, tuple) or users_own:
            return  # several outputs; cells that do not say how to go backward
        again = type(layer).from_config(layer.get_config())
        model = tg.Sequential([tg.layers.Input(batch_shape=x.shape), again])
        model.compile(optimizer="sgd", loss="mse")
        before = model.get_weights()
        model.fit(x, np.ones_like(outputs), verbose=0, batch_size=len(x))
        assert any(
            not np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True)
        )


def _module(name, **contents):
    module = types.ModuleType(name)
    module.__dict__.update(contents)
    return module


def _stand_ins():
    random = _module("random", uniform=lambda shape: np.random.default_rng(0).random(shape))
    ops = _module(
        "ops",
        matmul=np.matmul,
        transpose=np.transpose,
        cast=lambda x, t: x.astype(t),
        random=random,
    )
    backend = _module("backend", backend=lambda: "tidegate")
    testing = _module("testing", TestCase=KerasTestCase, tensorflow_uses_gpu=lambda: False)
    source = _module(
        "keras.src",
        initializers=tg.initializers,
        layers=tg.layers,
        ops=ops,
        backend=backend,
        testing=testing,
    )
    marks = _module(
        "mark",
        requires_trainable_backend=lambda function: function,
        skipif=pytest.mark.skipif,
        xfail=pytest.mark.xfail,
    )
    return {
        "keras.src": source,
        "keras.src.models": tg.models,
        "pytest": _module("pytest", mark=marks),
    }


def _load(name, modules):
    """The test class of Keras's file `<name>_test.py`, made to test this package."""
    (folder,) = importlib.util.find_spec("keras").submodule_search_locations
    path = Path(folder) / "src" / "layers" / "rnn" / f"{name}_test.py"

    def importer(module, *args, **kwargs):
        if module in modules:
            return modules[module]
        assert not module.startswith("keras"), f"{path} imports {module}"
        return builtins.__import__(module, *args, **kwargs)

    namespace = {
        "__name__": f"keras_{name}_test",
        "__builtins__": {**vars(builtins), "__import__": importer},
    }
    sys.modules[namespace["__name__"]] = module = _module(namespace["__name__"])
    exec(compile(path.read_text(), str(path), "exec"), namespace)
    module.__dict__.update(namespace)
    modules[f"keras.src.layers.rnn.{name}_test"] = module
    return [
        value
        for value in namespace.values()
        if isinstance(value, type) and issubclass(value, KerasTestCase)
    ]


def _collect():
    modules = _stand_ins()
    found = {}
    for name in (
        *("simple_rnn", "lstm", "gru", "rnn", "stacked_rnn_cells", "bidirectional"),
        "time_distributed",
    ):
        (cls,) = _load(name, modules)  # some of them have the same name
        found[f"{name}_tests"] = cls
    for left_out in LEFT_OUT:
        name, method = left_out.split(".")
        delattr(found[f"{name}_tests"], method)
    return found


globals().update(_collect())
