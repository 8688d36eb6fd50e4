"""Keras on TensorFlow where that is installed, else on JAX: the layer, compiled as Keras does."""

from __future__ import annotations

import importlib.util
import os
from typing import Any

import numpy as np

from ..problems import Arrays, Problem
from . import Prepared, Unsupported

NAME = "Keras"


def environment(threads: int) -> dict[str, str]:
    backend = os.environ.get("KERAS_BACKEND")
    if backend not in ("tensorflow", "jax"):
        backend = "tensorflow" if importlib.util.find_spec("tensorflow") else "jax"
    return {
        "KERAS_BACKEND": backend,
        "JAX_PLATFORMS": "cpu",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "TF_NUM_INTRAOP_THREADS": str(threads),
        "TF_NUM_INTEROP_THREADS": "1",
        "OMP_NUM_THREADS": str(threads),
    }


def version() -> str:
    import keras

    return f"{keras.__version__} on {keras.backend.backend()}"


def prepare(problem: Problem, arrays: Arrays) -> Prepared:
    import keras

    units, cell = problem.shape.units, problem.cell
    if cell in ("dual_state_gru", "coupled_lstm"):
        raise Unsupported(f"no {cell}")
    if problem.task == "step":
        raise Unsupported("no compiled call for one step")
    layer = {
        "lstm": lambda: keras.layers.LSTM(units, return_sequences=True),
        "gru": lambda: keras.layers.GRU(units, return_sequences=True),
        "gru_reset_before": lambda: keras.layers.GRU(
            units, return_sequences=True, reset_after=False
        ),
        "simple_rnn": lambda: keras.layers.SimpleRNN(units, return_sequences=True),
    }[cell]()
    x = arrays["x"]
    model = keras.Sequential([keras.Input(x.shape[1:], batch_size=x.shape[0]), layer])
    weights = [arrays[key] for key in ("kernel", "recurrent_kernel", "bias")]
    layer.set_weights(weights)
    if problem.task == "inference":
        return lambda: model.predict_on_batch(x), lambda result: {"outputs": np.asarray(result)}

    train = _train_tensorflow if keras.backend.backend() == "tensorflow" else _train_jax
    call = train(layer, x, arrays["d_outputs"])

    def gradients(result: Any) -> Arrays:
        outputs, d_x, d_weights = result
        names = ("kernel", "recurrent_kernel", "bias")
        return {
            "outputs": np.asarray(outputs),
            "inputs": np.asarray(d_x),
            **{name: np.asarray(d) for name, d in zip(names, d_weights, strict=True)},
        }

    return call, gradients


def _train_tensorflow(layer: Any, x: np.ndarray, d_outputs: np.ndarray) -> Any:
    import tensorflow as tf

    inputs, upstream = tf.constant(x), tf.constant(d_outputs)
    variables = [weight.value for weight in layer.trainable_weights]

    @tf.function
    def train() -> Any:
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            outputs = layer(inputs, training=True)
        d_x, *d_weights = tape.gradient(outputs, [inputs, *variables], output_gradients=upstream)
        return outputs, d_x, d_weights

    return train


def _train_jax(layer: Any, x: np.ndarray, d_outputs: np.ndarray) -> Any:
    import jax

    inputs, upstream = jax.numpy.asarray(x), jax.numpy.asarray(d_outputs)
    trainable = [weight.value for weight in layer.trainable_variables]
    others = [variable.value for variable in layer.non_trainable_variables]

    @jax.jit
    def train(inputs: Any, trainable: Any, upstream: Any) -> Any:
        def forward(inputs: Any, trainable: Any) -> Any:
            return layer.stateless_call(trainable, others, inputs, training=True)[0]

        outputs, pull_back = jax.vjp(forward, inputs, trainable)
        return outputs, *pull_back(upstream)

    return lambda: jax.block_until_ready(train(inputs, trainable, upstream))
