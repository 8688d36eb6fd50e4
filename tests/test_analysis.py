"""`tidegate.analysis`: gradients of the states against central differences."""

import numpy as np
import pytest

import tidegate as tg
from tidegate import analysis, initializers, layers

B, T, F, U = 3, 5, 2, 4
CELLS = {
    "simple_rnn": layers.SimpleRNN,
    "lstm": layers.LSTM,
    "gru": layers.GRU,
    "dual_state_gru": layers.DualStateGRU,
}


def data(seed=0):
    generator = np.random.default_rng(seed)
    return generator.standard_normal((B, T, F)), generator.standard_normal((B, 1))


def model_with(*stack, loss="mse"):
    tg.set_random_seed(1)
    model = tg.Sequential([layers.Input((T, F), dtype="float64"), *stack])
    model.compile(loss=loss)
    return model


def loss_from(layer, head, states, x, y, mask=None):
    """The loss when `layer` goes on from `states` over the steps x."""
    outputs = layer(x, initial_state=list(states), mask=mask)
    return float(np.mean((head(outputs) - y) ** 2))


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("masked", [False, True])
def test_norms_are_those_of_central_differences(cell, masked):
    x, y = data()
    layer = CELLS[cell](U, dtype="float64", name=cell)
    head = layers.Dense(1, dtype="float64")
    stack = [layer, head]
    mask = None
    if masked:
        x[0, 3:] = x[1, 0] = 0
        stack.insert(0, layers.Masking(dtype="float64"))
        mask = np.any(x != 0, axis=-1)
    model = model_with(*stack)
    flow = analysis.gradient_flow(model, x, y)[cell]
    states = layer.get_initial_state(B)
    count = len(states)
    assert flow.states.shape == flow.largest.shape == (count, T)
    run = CELLS[cell](U, dtype="float64", return_state=True)
    run.build((None, None, F))
    run.set_weights(layer.get_weights())
    step = 1e-6
    for t in range(T):
        step_mask = None if mask is None else np.ascontiguousarray(mask[:, t : t + 1])
        _, *states = run(np.ascontiguousarray(x[:, t : t + 1]), list(states), mask=step_mask)
        assert flow.largest[:, t] == pytest.approx([np.abs(s).max() for s in states], rel=1e-12)
        if t == T - 1:
            break
        rest = np.ascontiguousarray(x[:, t + 1 :])
        rest_mask = None if mask is None else np.ascontiguousarray(mask[:, t + 1 :])
        if masked and not rest_mask.any(axis=1).all():
            continue  # the output of steps that are all masked is 0 when they stand alone
        for number in range(count):
            gradient = np.zeros((B, U))
            for index in np.ndindex(B, U):
                values = []
                for sign in (1, -1):
                    moved = [s.copy() for s in states]
                    moved[number][index] += sign * step
                    values.append(loss_from(layer, head, moved, rest, y, rest_mask))
                gradient[index] = (values[0] - values[1]) / (2 * step)
            assert flow.states[number, t] == pytest.approx(np.linalg.norm(gradient), rel=1e-6)
