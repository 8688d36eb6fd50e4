"""JAX: `lax.scan` over the textbook step, inputs projected beforehand, everything under `jit`."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..problems import STATES, Arrays, Problem
from . import Prepared, Unsupported

NAME = "JAX"


def environment(threads: int, variant: str) -> dict[str, str]:
    # XLA sizes its pool by the CPUs the process may use, which the worker restricts.
    return {"JAX_PLATFORMS": "cpu"}


def version() -> str:
    import jax

    return str(jax.__version__)


def _step(cell: str) -> Any:
    """(states, projected input, recurrent kernel and bias) -> states, the output first."""
    import jax.numpy as jnp
    from jax.nn import sigmoid

    def lstm(states: Any, a: Any, u: Any, b: Any) -> Any:
        h, c = states
        i, f, g, o = jnp.split(a + h @ u, 4, axis=-1)
        c = sigmoid(f) * c + sigmoid(i) * jnp.tanh(g)
        return sigmoid(o) * jnp.tanh(c), c

    def gru(states: Any, a: Any, u: Any, b: Any) -> Any:
        (h,) = states
        xz, xr, xh = jnp.split(a, 3, axis=-1)
        hz, hr, hh = jnp.split(h @ u + b, 3, axis=-1)
        z = sigmoid(xz + hz)
        return (z * h + (1 - z) * jnp.tanh(xh + sigmoid(xr + hr) * hh),)

    def gru_reset_before(states: Any, a: Any, u: Any, b: Any) -> Any:
        (h,) = states
        units = h.shape[-1]
        z, r = jnp.split(sigmoid(a[..., : 2 * units] + h @ u[:, : 2 * units]), 2, axis=-1)
        return (z * h + (1 - z) * jnp.tanh(a[..., 2 * units :] + (r * h) @ u[:, 2 * units :]),)

    def simple_rnn(states: Any, a: Any, u: Any, b: Any) -> Any:
        return (jnp.tanh(a + states[0] @ u),)

    def dual_state_gru(states: Any, a: Any, u: Any, b: Any) -> Any:
        h, c = states
        z, r, g = jnp.split(a + h @ u, 3, axis=-1)
        keep = 1 - sigmoid(z)
        c = keep * c + sigmoid(r) * jnp.tanh(g)
        return keep * h + jnp.tanh(c), c

    def coupled_lstm(states: Any, a: Any, u: Any, b: Any) -> Any:
        h, c = states
        f, g, o = jnp.split(a + h @ u, 3, axis=-1)
        f = sigmoid(f)
        c = f * c + (1 - f) * jnp.tanh(g)
        return sigmoid(o) * jnp.tanh(c), c

    steps = (lstm, gru, gru_reset_before, simple_rnn, dual_state_gru, coupled_lstm)
    return {step.__name__: step for step in steps}[cell]


def prepare(problem: Problem, arrays: Arrays) -> Prepared:
    import jax
    import jax.numpy as jnp

    if problem.task == "fit":
        raise Unsupported("no training loop")
    step = _step(problem.cell)
    zeros = jnp.zeros((problem.shape.batch, problem.shape.units), jnp.float32)
    start = (zeros,) * STATES[problem.cell]
    weights = tuple(jnp.asarray(arrays[key]) for key in ("kernel", "recurrent_kernel", "bias"))

    def rows(bias: Any) -> Any:
        return bias if problem.cell == "gru" else (bias, jnp.zeros_like(bias))

    if problem.task == "step":
        x = jnp.asarray(arrays["x"][:, 0])

        @jax.jit
        def one(w: Any, u: Any, b: Any, x: Any, states: Any) -> Any:
            return step(states, x @ w + rows(b)[0], u, rows(b)[1])

        states = one(*weights, x, start)
        return (
            lambda: jax.block_until_ready(one(*weights, x, states)),
            lambda result: {"outputs": np.asarray(result[0])[:, None]},
        )

    def forward(x: Any, w: Any, u: Any, b: Any) -> Any:  # x (time, batch, features)
        def body(states: Any, a: Any) -> Any:
            states = step(states, a, u, rows(b)[1])
            return states, states[0]

        return jax.lax.scan(body, start, x @ w + rows(b)[0])[1]

    x = jnp.asarray(arrays["x"].swapaxes(0, 1))
    if problem.task == "inference":
        infer = jax.jit(forward)
        return (
            lambda: jax.block_until_ready(infer(x, *weights)),
            lambda result: {"outputs": np.asarray(result).swapaxes(0, 1)},
        )

    d_outputs = jnp.asarray(arrays["d_outputs"].swapaxes(0, 1))

    @jax.jit
    def train(d_outputs: Any, *values: Any) -> Any:
        outputs, pull_back = jax.vjp(forward, *values)
        return outputs, pull_back(d_outputs)

    def gradients(result: Any) -> Arrays:
        outputs, (d_x, d_w, d_u, d_b) = result
        return {
            "outputs": np.asarray(outputs).swapaxes(0, 1),
            "inputs": np.asarray(d_x).swapaxes(0, 1),
            "kernel": np.asarray(d_w),
            "recurrent_kernel": np.asarray(d_u),
            "bias": np.asarray(d_b),
        }

    return lambda: jax.block_until_ready(train(d_outputs, x, *weights)), gradients
