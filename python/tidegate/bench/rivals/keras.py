"""Keras on each of its back ends: the layer, compiled as Keras does; `fit` of the task `fit`."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..problems import Arrays, Problem
from . import Prepared, Unsupported
from .program import Program, recurrent

NAME = {"jax": "Keras/JAX", "tensorflow": "Keras/TensorFlow", "torch": "Keras/PyTorch"}


def environment(threads: int, variant: str) -> dict[str, str]:
    return {
        "KERAS_BACKEND": variant,
        "JAX_PLATFORMS": "cpu",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "TF_NUM_INTRAOP_THREADS": str(threads),
        "TF_NUM_INTEROP_THREADS": "1",
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
    }


def version() -> str:
    import keras

    return str(keras.__version__)


def prepare(problem: Problem, arrays: Arrays) -> Prepared:
    import keras

    if problem.task == "fit":
        return Program(keras, problem, arrays), lambda loss: {"loss": np.array([loss])}
    if problem.task == "step":
        raise Unsupported("no compiled call for one step")
    layer = recurrent(keras.layers, problem.cell)(problem.shape.units, return_sequences=True)
    x = arrays["x"]
    model = keras.Sequential([keras.Input(x.shape[1:], batch_size=x.shape[0]), layer])
    weights = [arrays[key] for key in ("kernel", "recurrent_kernel", "bias")]
    layer.set_weights(weights)
    if problem.task == "inference":
        return lambda: model.predict_on_batch(x), lambda result: {"outputs": np.asarray(result)}

    train = {"jax": _train_jax, "tensorflow": _train_tensorflow, "torch": _train_torch}
    call = train[keras.backend.backend()](layer, x, arrays["d_outputs"])

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


def _train_torch(layer: Any, x: np.ndarray, d_outputs: np.ndarray) -> Any:
    import torch

    inputs, upstream = torch.from_numpy(x).requires_grad_(True), torch.from_numpy(d_outputs)
    leaves = [inputs, *(weight.value for weight in layer.trainable_weights)]

    def train() -> Any:
        outputs = layer(inputs, training=True)
        d_x, *d_weights = torch.autograd.grad(outputs, leaves, upstream)
        return outputs.detach(), d_x, d_weights

    return train
