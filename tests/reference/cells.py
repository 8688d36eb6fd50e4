"""Every cell in float64 NumPy, textbook form: the slow twin the engine is judged by.

One step of a cell is written as its equations, its backward as their derivatives, and one loop over
time does the rest (masks, direction, initial state).  Nothing here is fast and nothing is shared
with the library.

Shapes: x (batch, time, features); kernel (features, gates*units); recurrent_kernel (units,
gates*units); bias (gates*units,), for "gru" (2, gates*units); states, a list of (batch, units);
mask (batch, time) bool; recurrent_dropout (gates, batch, units), factors on h(t-1) in the recurrent
product only.
"""

import math

import numpy as np

CELLS = {  # name: gates, states, rows of the bias
    "simple_rnn": (1, 1, 1),
    "lstm": (4, 2, 1),
    "gru": (3, 1, 2),
    "gru_reset_before": (3, 1, 1),
    "dual_state_gru": (3, 2, 1),
    "coupled_lstm": (3, 2, 1),
}


# --------------------------------------------------------------------------------- activations
def _erf(x):
    return np.vectorize(math.erf, otypes=[np.float64])(x) if np.size(x) else np.asarray(x)


def _sigmoid(x):
    with np.errstate(over="ignore"):
        return np.where(x >= 0, 1 / (1 + np.exp(-np.abs(x))), 1 - 1 / (1 + np.exp(-np.abs(x))))


def _softplus(x):
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def _elu(x):
    return np.where(x > 0, x, np.expm1(np.minimum(x, 0)))


def _d_elu(x):
    return np.where(x > 0, 1.0, np.exp(np.minimum(x, 0)))


def _gelu_tanh(x):
    return 0.5 * x * (1 + np.tanh(_GELU * (x + 0.044715 * x**3)))


def _d_gelu_tanh(x):
    t = np.tanh(_GELU * (x + 0.044715 * x**3))
    return 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * _GELU * (1 + 3 * 0.044715 * x * x)


def _d_gelu(x):
    density = np.exp(-x * x / 2) / math.sqrt(2 * math.pi)
    return 0.5 * (1 + _erf(x / math.sqrt(2))) + x * density


def _d_silu(x):
    s = _sigmoid(x)
    return s + x * s * (1 - s)


def _d_mish(x):
    t = np.tanh(_softplus(x))
    return t + x * (1 - t * t) * _sigmoid(x)


def _inside(x, low, high):
    return ((x > low) & (x < high)).astype(np.float64)


_GELU = math.sqrt(2 / math.pi)
_SELU_ALPHA = 1.6732632423543772848170429916717
_SELU_SCALE = 1.0507009873554804934193349852946

ACTIVATIONS = {  # name: value and derivative at the pre-activation x
    "linear": (lambda x: x, lambda x: np.ones_like(x)),
    "relu": (lambda x: np.maximum(x, 0), lambda x: (x > 0).astype(np.float64)),
    "relu6": (lambda x: np.clip(x, 0, 6), lambda x: _inside(x, 0, 6)),
    "leaky_relu": (lambda x: np.where(x > 0, x, 0.2 * x), lambda x: np.where(x > 0, 1.0, 0.2)),
    "elu": (_elu, _d_elu),
    "selu": (
        lambda x: _SELU_SCALE * np.where(x > 0, x, _SELU_ALPHA * np.expm1(np.minimum(x, 0))),
        lambda x: _SELU_SCALE * np.where(x > 0, 1.0, _SELU_ALPHA * np.exp(np.minimum(x, 0))),
    ),
    "celu": (_elu, _d_elu),  # Keras's default alpha is 1, where celu is elu
    "gelu": (lambda x: 0.5 * x * (1 + _erf(x / math.sqrt(2))), _d_gelu),
    "gelu_tanh": (_gelu_tanh, _d_gelu_tanh),
    "silu": (lambda x: x * _sigmoid(x), _d_silu),
    "sigmoid": (_sigmoid, lambda x: _sigmoid(x) * _sigmoid(-x)),
    "hard_sigmoid": (lambda x: np.clip(x / 6 + 0.5, 0, 1), lambda x: _inside(x, -3, 3) / 6),
    "hard_sigmoid_keras2": (
        lambda x: np.clip(0.2 * x + 0.5, 0, 1),
        lambda x: _inside(x, -2.5, 2.5) * 0.2,
    ),
    "hard_silu": (
        lambda x: x * np.clip(x / 6 + 0.5, 0, 1),
        lambda x: np.clip(x / 6 + 0.5, 0, 1) + x * _inside(x, -3, 3) / 6,
    ),
    "hard_tanh": (lambda x: np.clip(x, -1, 1), lambda x: _inside(x, -1, 1)),
    "tanh": (np.tanh, lambda x: 1 - np.tanh(x) ** 2),
    "softplus": (_softplus, _sigmoid),
    "softsign": (lambda x: x / (1 + np.abs(x)), lambda x: 1 / (1 + np.abs(x)) ** 2),
    "exponential": (np.exp, np.exp),
    "mish": (lambda x: x * np.tanh(_softplus(x)), _d_mish),
    "log_sigmoid": (lambda x: -_softplus(-x), lambda x: _sigmoid(-x)),
    "tanh_shrink": (lambda x: x - np.tanh(x), lambda x: np.tanh(x) ** 2),
}


# --------------------------------------------------------------------------------------- cells
class Parameters:
    """The weights of one cell cut into its gates, and the gradients that gather beside them."""

    def __init__(self, cell, weights, activation, recurrent_activation, drop):
        kernel, recurrent_kernel, bias = weights
        gates, self.states, rows = CELLS[cell]
        self.units = recurrent_kernel.shape[0]
        if bias is None:
            bias = np.zeros((rows, gates * self.units))
        bias = np.reshape(bias, (rows, gates * self.units))
        self.W = np.split(kernel, gates, axis=1)
        self.U = np.split(recurrent_kernel, gates, axis=1)
        self.b = np.split(bias[0], gates)
        self.br = np.split(bias[-1], gates)  # the recurrent bias of "gru"; unused by the others
        self.dW = [np.zeros_like(w) for w in self.W]
        self.dU = [np.zeros_like(u) for u in self.U]
        self.db = [np.zeros_like(b) for b in self.b]
        self.dbr = [np.zeros_like(b) for b in self.br]
        self.act, self.d_act = ACTIVATIONS[activation]
        self.rec, self.d_rec = ACTIVATIONS[recurrent_activation]
        self.drop = drop if drop is not None else np.ones((gates, 1, 1))

    def input_part(self, g, x):
        return x @ self.W[g] + self.b[g]

    def recurrent_part(self, g, h):
        return (h * self.drop[g]) @ self.U[g]

    def input_part_backward(self, g, x, dz):
        """Adds to the gradients of W and b of gate g; returns the gradient of x."""
        self.dW[g] += x.T @ dz
        self.db[g] += dz.sum(axis=0)
        return dz @ self.W[g].T

    def recurrent_part_backward(self, g, h, dz):
        """Adds to the gradient of U of gate g; returns the gradient of h."""
        self.dU[g] += (h * self.drop[g]).T @ dz
        return (dz @ self.U[g].T) * self.drop[g]


def _sum_of_parts(p, x, h, gates):
    return [p.input_part(g, x) + p.recurrent_part(g, h) for g in range(gates)]


def _sum_of_parts_backward(p, x, h, d_gates):
    dx = sum(p.input_part_backward(g, x, dz) for g, dz in enumerate(d_gates))
    dh = sum(p.recurrent_part_backward(g, h, dz) for g, dz in enumerate(d_gates))
    return dx, dh


def _simple_rnn(p, x, states):
    (h,) = states
    (z,) = _sum_of_parts(p, x, h, 1)
    return [p.act(z)], (x, h, z)


def _simple_rnn_backward(p, saved, d_states):
    x, h, z = saved
    dx, dh = _sum_of_parts_backward(p, x, h, [d_states[0] * p.d_act(z)])
    return dx, [dh]


def _lstm(p, x, states):
    h, c = states
    zi, zf, zc, zo = _sum_of_parts(p, x, h, 4)
    c_new = p.rec(zf) * c + p.rec(zi) * p.act(zc)
    return [p.rec(zo) * p.act(c_new), c_new], (x, h, c, zi, zf, zc, zo, c_new)


def _lstm_backward(p, saved, d_states):
    x, h, c, zi, zf, zc, zo, c_new = saved
    dh_new, dc_new = d_states
    dc_new = dc_new + dh_new * p.rec(zo) * p.d_act(c_new)
    dzo = dh_new * p.act(c_new) * p.d_rec(zo)
    dzf = dc_new * c * p.d_rec(zf)
    dzi = dc_new * p.act(zc) * p.d_rec(zi)
    dzc = dc_new * p.rec(zi) * p.d_act(zc)
    dx, dh = _sum_of_parts_backward(p, x, h, [dzi, dzf, dzc, dzo])
    return dx, [dh, dc_new * p.rec(zf)]


def _gru(p, x, states):
    (h,) = states
    xz, xr, xn = (p.input_part(g, x) for g in range(3))
    uz, ur, un = (p.recurrent_part(g, h) + p.br[g] for g in range(3))
    z, r = p.rec(xz + uz), p.rec(xr + ur)
    n = p.act(xn + r * un)
    return [z * h + (1 - z) * n], (x, h, xz + uz, xr + ur, xn + r * un, un)


def _gru_backward(p, saved, d_states):
    x, h, pre_z, pre_r, pre_n, un = saved
    (dh_new,) = d_states
    z, r, n = p.rec(pre_z), p.rec(pre_r), p.act(pre_n)
    dz = dh_new * (h - n) * p.d_rec(pre_z)
    dn = dh_new * (1 - z) * p.d_act(pre_n)
    dr = dn * un * p.d_rec(pre_r)
    dx = sum(p.input_part_backward(g, x, d) for g, d in enumerate([dz, dr, dn]))
    dh = dh_new * z
    for g, d in enumerate([dz, dr, dn * r]):
        dh = dh + p.recurrent_part_backward(g, h, d)
        p.dbr[g] += d.sum(axis=0)
    return dx, [dh]


def _gru_reset_before(p, x, states):
    (h,) = states
    pre_z, pre_r = _sum_of_parts(p, x, h, 2)
    z, r = p.rec(pre_z), p.rec(pre_r)
    pre_n = p.input_part(2, x) + p.recurrent_part(2, r * h)
    return [z * h + (1 - z) * p.act(pre_n)], (x, h, pre_z, pre_r, pre_n)


def _gru_reset_before_backward(p, saved, d_states):
    x, h, pre_z, pre_r, pre_n = saved
    (dh_new,) = d_states
    z, r, n = p.rec(pre_z), p.rec(pre_r), p.act(pre_n)
    dz = dh_new * (h - n) * p.d_rec(pre_z)
    dn = dh_new * (1 - z) * p.d_act(pre_n)
    d_reset_h = p.recurrent_part_backward(2, r * h, dn)
    dr = d_reset_h * h * p.d_rec(pre_r)
    dx, dh = _sum_of_parts_backward(p, x, h, [dz, dr])
    return dx + p.input_part_backward(2, x, dn), [dh + dh_new * z + d_reset_h * r]


def _dual_state_gru(p, x, states):
    """The article's 3.2 to the letter: C = (1-z)*C' + r*tanh(..), h = (1-z)*h' + tanh(C)."""
    h, c = states
    zz, zr, zc = _sum_of_parts(p, x, h, 3)
    z, r = p.rec(zz), p.rec(zr)
    c_new = (1 - z) * c + r * p.act(zc)
    return [(1 - z) * h + p.act(c_new), c_new], (x, h, c, zz, zr, zc, c_new)


def _dual_state_gru_backward(p, saved, d_states):
    x, h, c, zz, zr, zc, c_new = saved
    dh_new, dc_new = d_states
    z, r = p.rec(zz), p.rec(zr)
    dc_new = dc_new + dh_new * p.d_act(c_new)
    dzz = -(dh_new * h + dc_new * c) * p.d_rec(zz)
    dzr = dc_new * p.act(zc) * p.d_rec(zr)
    dzc = dc_new * r * p.d_act(zc)
    dx, dh = _sum_of_parts_backward(p, x, h, [dzz, dzr, dzc])
    return dx, [dh + dh_new * (1 - z), dc_new * (1 - z)]


def _coupled_lstm(p, x, states):
    """Greff et al. 2015, CIFG: the LSTM with i = 1 - f."""
    h, c = states
    zf, zc, zo = _sum_of_parts(p, x, h, 3)
    c_new = p.rec(zf) * c + (1 - p.rec(zf)) * p.act(zc)
    return [p.rec(zo) * p.act(c_new), c_new], (x, h, c, zf, zc, zo, c_new)


def _coupled_lstm_backward(p, saved, d_states):
    x, h, c, zf, zc, zo, c_new = saved
    dh_new, dc_new = d_states
    dc_new = dc_new + dh_new * p.rec(zo) * p.d_act(c_new)
    dzo = dh_new * p.act(c_new) * p.d_rec(zo)
    dzf = dc_new * (c - p.act(zc)) * p.d_rec(zf)
    dzc = dc_new * (1 - p.rec(zf)) * p.d_act(zc)
    dx, dh = _sum_of_parts_backward(p, x, h, [dzf, dzc, dzo])
    return dx, [dh, dc_new * p.rec(zf)]


STEPS = {
    "simple_rnn": (_simple_rnn, _simple_rnn_backward),
    "lstm": (_lstm, _lstm_backward),
    "gru": (_gru, _gru_backward),
    "gru_reset_before": (_gru_reset_before, _gru_reset_before_backward),
    "dual_state_gru": (_dual_state_gru, _dual_state_gru_backward),
    "coupled_lstm": (_coupled_lstm, _coupled_lstm_backward),
}


# ----------------------------------------------------------------------------------- sequences
def forward(
    cell,
    x,
    kernel,
    recurrent_kernel,
    bias=None,
    *,
    initial_state=None,
    mask=None,
    activation="tanh",
    recurrent_activation="sigmoid",
    return_sequences=True,
    go_backwards=False,
    zero_output_for_mask=False,
    recurrent_dropout=None,
):
    """Returns (outputs, states, context); outputs in processing order, context for `backward`.

    A masked step keeps every state; its output repeats the previous output (zeros before the first
    valid step), or is zero with `zero_output_for_mask`.
    """
    x, *weights, drop = (
        None if a is None else np.asarray(a, dtype=np.float64)
        for a in (x, kernel, recurrent_kernel, bias, recurrent_dropout)
    )
    batch, time = x.shape[:2]
    p = Parameters(cell, weights, activation, recurrent_activation, drop)
    if initial_state is None:
        initial_state = [np.zeros((batch, p.units))] * p.states
    states = [np.asarray(s, dtype=np.float64) for s in initial_state]
    keep = np.ones((batch, time), dtype=bool) if mask is None else np.asarray(mask, dtype=bool)
    order = range(time - 1, -1, -1) if go_backwards else range(time)

    step = STEPS[cell][0]
    outputs = np.zeros((batch, time, p.units))
    output = np.zeros((batch, p.units))
    trace = []
    for k, t in enumerate(order):
        valid = keep[:, t, None]
        new_states, saved = step(p, x[:, t], states)
        states = [np.where(valid, new, old) for new, old in zip(new_states, states, strict=True)]
        repeated = np.zeros_like(output) if zero_output_for_mask else output
        output = np.where(valid, new_states[0], repeated)
        outputs[:, k] = output
        trace.append((t, valid, saved))
    context = (cell, p, x.shape, bias, trace, return_sequences, zero_output_for_mask)
    return (outputs if return_sequences else output), states, context


def backward(context, d_outputs=None, d_states=None):
    """Gradients of sum(outputs * d_outputs) + sum(states * d_states), as a dict.

    Keys: inputs, kernel, recurrent_kernel, bias (None without one), initial_state (a list).
    """
    cell, p, x_shape, bias, trace, return_sequences, zero_output_for_mask = context
    batch, time, _ = x_shape
    for sums in (p.dW, p.dU, p.db, p.dbr):  # a context may be used many times
        for total in sums:
            total[...] = 0
    d_every_output = np.zeros((batch, time, p.units))
    if d_outputs is not None:
        d_every_output[:, slice(None) if return_sequences else -1] = d_outputs
    d_states = [None] * p.states if d_states is None else list(d_states)
    d_states = [
        np.zeros((batch, p.units)) if d is None else np.asarray(d, dtype=np.float64)
        for d in d_states
    ]

    step_backward = STEPS[cell][1]
    dx = np.zeros(x_shape)
    d_repeated = np.zeros((batch, p.units))  # from later masked steps that repeat this output
    for k in range(time - 1, -1, -1):
        t, valid, saved = trace[k]
        d_output = d_every_output[:, k] + d_repeated
        d_repeated = np.zeros_like(d_output) if zero_output_for_mask else d_output * ~valid
        d_new = [d * valid for d in d_states]
        d_new[0] = d_new[0] + d_output * valid
        dx[:, t], d_previous = step_backward(p, saved, d_new)
        d_states = [old * ~valid + d for old, d in zip(d_states, d_previous, strict=True)]

    d_bias = None
    if bias is not None:
        rows = [np.concatenate(p.db), np.concatenate(p.dbr)][: CELLS[cell][2]]
        d_bias = np.stack(rows) if len(rows) == 2 else rows[0]
    return {
        "inputs": dx,
        "kernel": np.concatenate(p.dW, axis=1),
        "recurrent_kernel": np.concatenate(p.dU, axis=1),
        "bias": d_bias,
        "initial_state": d_states,
    }
