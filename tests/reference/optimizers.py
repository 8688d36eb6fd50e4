"""Every optimizer's step in NumPy, an operation at a time: the slow twin of the engine's one pass.

`RULES[name]` is the number of slots, that of coefficients and a function `(g, slots,
*coefficients)`, which writes the slots and returns what is subtracted from the weights. All its
operations are correctly rounded, so the engine's bits are these.
"""

import numpy as np


def _approach(average, target, rest):
    average[:] = average + (target - average) * rest


def _mix(average, rho, target, rest):
    average[:] = average * rho + target * rest


def _sgd(g, slots, rate):
    return g * rate


def _momentum(g, slots, rate, momentum):
    slots[0][:] = slots[0] * momentum - g * rate
    return -slots[0]


def _nesterov(g, slots, rate, momentum):
    slots[0][:] = slots[0] * momentum - g * rate
    return g * rate - slots[0] * momentum


def _rmsprop(g, slots, rate, rho, rest, epsilon, momentum=None, centered=False):
    _mix(slots[0], rho, g * g, rest)
    square = slots[0]
    if centered:
        _mix(slots[-1], rho, g, rest)
        square = square - slots[-1] * slots[-1]
    step = g * rate / np.sqrt(square + epsilon)
    if momentum is None:
        return step
    slots[1][:] = slots[1] * momentum + step
    return slots[1]


def _adam(g, slots, rate, rest_1, rest_2, epsilon):
    _approach(slots[0], g, rest_1)
    _approach(slots[1], g * g, rest_2)
    if len(slots) == 3:
        slots[2][:] = np.maximum(slots[2], slots[1])
    return slots[0] * rate / (np.sqrt(slots[-1]) + epsilon)


def _nadam(g, slots, rate, rest_1, rest_2, epsilon, u_next, rest_next, rest_u, rest_product, rest):
    _approach(slots[0], g, rest_1)
    _approach(slots[1], g * g, rest_2)
    mean = slots[0] * u_next / rest_next + g * rest_u / rest_product
    return mean * rate / (np.sqrt(slots[1] / rest) + epsilon)


def _adamax(g, slots, rate, rest_1, beta_2, epsilon, rest):
    _approach(slots[0], g, rest_1)
    slots[1][:] = np.maximum(slots[1] * beta_2, np.abs(g))
    return slots[0] * rate / ((slots[1] + epsilon) * rest)


def _adagrad(g, slots, rate, epsilon):
    slots[0][:] = slots[0] + g * g
    return g * rate / np.sqrt(slots[0] + epsilon)


def _adadelta(g, slots, rate, rho, rest, epsilon):
    _mix(slots[0], rho, g * g, rest)
    step = g * np.sqrt(slots[1] + epsilon) / np.sqrt(slots[0] + epsilon)
    _mix(slots[1], rho, step * step, rest)
    return step * rate


def _lion(g, slots, rate, beta_1, rest_1, beta_2, rest_2):
    direction = slots[0] * beta_1 + g * rest_1
    slots[0][:] = slots[0] * beta_2 + g * rest_2
    return np.sign(direction) * rate


def _centered(g, slots, *coefficients):
    return _rmsprop(g, slots, *coefficients, centered=True)


# name: slots, coefficients, step
RULES = {
    "sgd": (0, 1, _sgd),
    "sgd_momentum": (1, 2, _momentum),
    "sgd_nesterov": (1, 2, _nesterov),
    "rmsprop": (1, 4, _rmsprop),
    "rmsprop_momentum": (2, 5, _rmsprop),
    "rmsprop_centered": (2, 4, _centered),
    "rmsprop_momentum_centered": (3, 5, _centered),
    "adam": (2, 4, _adam),
    "adam_amsgrad": (3, 4, _adam),
    "nadam": (2, 9, _nadam),
    "adamax": (2, 5, _adamax),
    "adagrad": (1, 2, _adagrad),
    "adadelta": (2, 4, _adadelta),
    "lion": (1, 5, _lion),
}


def update(rule, weights, gradient, slots, coefficients, decay=0, decay_rate=0):
    """One step, in place; all in the dtype of `weights`."""
    real = weights.dtype.type
    if decay:
        weights -= weights * real(decay) * real(decay_rate)
    with np.errstate(invalid="ignore"):
        weights -= RULES[rule][2](gradient, slots, *map(real, coefficients))
