"""docs/keras.md: each row of its tables has a check here, and each check a row.

Keras computes with its NumPy back-end, which cannot train: what `fit` reports is compared with
Keras's `evaluate` at a learning rate of zero, and updates with those of Keras's optimizers.
"""

import inspect
import re
from pathlib import Path

import numpy as np
import pytest
from reference.configurations import Spec, build, flatten, weights_for

import tidegate as tg

keras = pytest.importorskip("keras")
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

PAGE = (Path(__file__).parent.parent / "docs" / "keras.md").read_text()
RECURRENT = ("LSTM", "GRU", "SimpleRNN")
CELLS = ("LSTMCell", "GRUCell", "SimpleRNNCell")

_rng = np.random.default_rng(5)
X = _rng.normal(size=(4, 3, 2)).astype("float32")
STATE = _rng.normal(size=(4, 2)).astype("float32")
INDICES = np.array([[0, 1, 2], [3, 0, 0], [1, 1, 1], [2, 3, 0]])
MASK = np.array([[1, 1, 0], [1, 0, 1], [1, 1, 1], [1, 0, 0]], bool)
INPUTS = _rng.normal(size=(10, 3, 2)).astype("float32")
TARGETS = _rng.integers(0, 2, (10, 1)).astype("float32")
WEIGHTS = _rng.random(10).astype("float32")


# ---- Layers beside Keras's ----------------------------------------------------------------------


def states(name):
    return [STATE] * (2 if name.startswith("LSTM") else 1)


def input_of(name):
    return {"Embedding": INDICES}.get(name, X[:, 0] if name in CELLS else X)


def made(layers, name, kwargs, x, seed=1):
    """A built layer of either package, with weights that depend on their shapes only."""
    layer = build(layers, Spec((name, kwargs)))
    layer.build(np.shape(x))
    layer.set_weights(weights_for([w.shape for w in layer.get_weights()], seed, "float32"))
    return layer


def called(layer, name, x, *args, **call):
    if name in CELLS:
        args = (states(name),)
    return [np.asarray(y) for y in flatten(layer(x, *args, **call))]


def close(ours, theirs):
    return [o.shape for o in ours] == [t.shape for t in theirs] and all(
        np.allclose(o, t, rtol=3e-6, atol=3e-6) for o, t in zip(ours, theirs, strict=True)
    )


def alike(name, kwargs, x=None, **call):
    """Our outputs, which are those of Keras."""
    x = input_of(name) if x is None else x
    ours, theirs = (
        called(made(layers, name, kwargs, x), name, x, **call)
        for layers in (tg.layers, keras.layers)
    )
    assert close(ours, theirs)
    return ours


def taking(argument):
    return [
        name
        for name in (*RECURRENT, *CELLS)
        if argument in inspect.signature(getattr(keras.layers, name).__init__).parameters
    ]


def matters(argument, value, names=None, x=None, rest=(), **call):
    """The argument changes the outputs, to those of Keras."""
    for name in names or taking(argument):
        kwargs = {"units": 2, **dict(rest)}
        changed = alike(name, {**kwargs, argument: value}, x, **call)
        assert not close(changed, alike(name, kwargs, x, **call))


def harmless(argument, *values, names):
    """The argument is taken, and changes nothing."""
    for name in names:
        for value in values:
            assert close(alike(name, {"units": 2, argument: value}), alike(name, {"units": 2}))


def initializer(argument, index, names, **others):
    """Given ones, weights are as Keras's; the default gives numbers spread as Keras's."""
    for name in names:
        x = input_of(name)
        for value in ({argument: "ones"}, {}):
            kwargs = others if value else dict.fromkeys(others, 80)
            ours, theirs = (
                build(layers, Spec((name, {**kwargs, **value})))
                for layers in (tg.layers, keras.layers)
            )
            shape = (*np.shape(x)[:-1], 80)
            for layer in (ours, theirs):
                layer.build(np.shape(x) if value else shape)
            one, other = ours.get_weights()[index], theirs.get_weights()[index]
            assert one.shape == other.shape
            if value:
                assert np.array_equal(one, other)
            else:
                assert np.isclose(one.std(), other.std(), rtol=0.06)
                assert np.isclose(np.abs(one).max(), np.abs(other).max(), rtol=0.3)


def step(name, kwargs):
    """Our weights before and after one update of rate 1."""
    x = input_of(name)
    model = tg.Sequential([tg.layers.Input(x.shape[1:]), build(tg.layers, Spec((name, kwargs)))])
    model.compile(optimizer=tg.optimizers.SGD(1.0), loss="mse")
    before = weights_for([w.shape for w in model.get_weights()], 1, "float32")
    model.set_weights(before)
    model.train_on_batch(x, np.zeros(model(x).shape))
    return before, model.get_weights()


def forget_biases():
    for name in ("LSTM", "LSTMCell"):
        for flag in (True, False):
            kwargs = {"units": 2, "unit_forget_bias": flag, "bias_initializer": "zeros"}
            both = [build(layers, Spec((name, kwargs))) for layers in (tg.layers, keras.layers)]
            for layer in both:
                layer.build(input_of(name).shape)
            ours, theirs = (layer.get_weights()[2] for layer in both)
            assert np.array_equal(ours, theirs)
            assert ours.any() == flag


def regularizer(argument, index, names, **kwargs):
    """The penalty is Keras's, and its gradient enters the update."""
    for name in names:
        ours, theirs = (
            made(layers, name, {**kwargs, argument: "l2"}, input_of(name)).losses
            for layers in (tg.layers, keras.layers)
        )
        assert len(ours) == 1
        assert np.allclose(ours, np.asarray(theirs), rtol=1e-6)
        if name not in CELLS:
            before, without = step(name, kwargs)
            _, changed = step(name, {**kwargs, argument: "l2"})
            without[index] = without[index] - 0.02 * before[index]
            assert close(changed, without)


def activity(name, kwargs):
    """The penalty on outputs is Keras's, and has a gradient."""
    x = input_of(name)
    losses = []
    for layers in (tg.layers, keras.layers):
        layer = made(layers, name, {**kwargs, "activity_regularizer": "l2"}, x)
        layer(x)
        losses.append(np.asarray(layer.losses))
    assert np.allclose(*losses, rtol=1e-5)
    _, without = step(name, kwargs)
    assert not close(step(name, {**kwargs, "activity_regularizer": "l2"})[1], without)


def constraint(argument, index, names, **kwargs):
    """After an update, the weights are what Keras's constraint makes of them."""
    for name in names:
        _, expected = step(name, kwargs)
        expected[index] = np.asarray(keras.constraints.get("unit_norm")(expected[index]))
        assert close(step(name, {**kwargs, argument: "unit_norm"})[1], expected)


def outcomes(layers, name, kwargs, x):
    layer = made(layers, name, kwargs, x)
    return np.asarray(layer(x, training=True)).reshape(len(x), -1)


def same_choices(name, kwargs, x):
    """What dropout may give, and how often, is what it may give in Keras."""
    ours, theirs = (outcomes(layers, name, kwargs, x) for layers in (tg.layers, keras.layers))
    distances = np.abs(ours[:, None] - theirs[None]).max(-1)
    assert distances.min(0).max() < 1e-5
    assert distances.min(1).max() < 1e-5
    assert np.abs(ours.mean(0) - theirs.mean(0)).max() < 6 * theirs.std() / np.sqrt(len(x) / 2)
    return ours


def dropout(argument):
    x = np.ones((500, 3, 1), "float32")
    for name in RECURRENT:
        found = same_choices(name, {"units": 1, argument: 0.4}, x)
        assert len(np.unique(found.round(5))) > 1


def dropout_of_all(argument):
    """As if the inputs, or the recurrent kernel, were zero; Keras's gates see no dropout at all."""
    for name in ("LSTM", "GRU"):
        layer = made(tg.layers, name, {"units": 2, argument: 1.0}, X)
        found = called(layer, name, X, training=True)
        assert close(alike(name, {"units": 2}), [np.asarray(outcomes_in_keras(name, argument))])
        x = X
        if argument == "dropout":
            x = np.zeros_like(X)
        else:
            kernel, recurrent, bias = layer.get_weights()
            layer.set_weights([kernel, 0 * recurrent, bias])
        assert close(found, called(layer, name, x))


def outcomes_in_keras(name, argument):
    return made(keras.layers, name, {"units": 2, argument: 1.0}, X)(X, training=True)


def repeats(name, kwargs, argument="seed"):
    first, again, other = (
        outcomes(tg.layers, name, {**kwargs, argument: seed}, INPUTS) for seed in (3, 3, 4)
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def stateful():
    for name in RECURRENT:
        both = [
            made(layers, name, {"units": 2, "stateful": True}, X)
            for layers in (tg.layers, keras.layers)
        ]
        first, second = ([called(layer, name, X) for layer in both] for _ in range(2))
        assert close(*first)
        assert close(*second)
        assert not close(first[0], second[0])
        for layer in both:
            layer.reset_state()
        assert close(called(both[0], name, X), first[0])


def activations(argument):
    no_cell = {"glu", "sparsemax", "threshold", "softmax", "log_softmax", "squareplus"}
    no_cell |= {"soft_shrink", "hard_shrink", "sparse_plus", "sparse_sigmoid"}
    for name in keras.activations.__dict__:
        function = getattr(keras.activations, name)
        if inspect.isfunction(function) and name not in {"get", "serialize", "deserialize"}:
            if name in no_cell:
                with pytest.raises(ValueError, match=name):
                    tg.layers.LSTM(2, **{argument: name})
            else:
                for value in (name, function):
                    alike("LSTM", {"units": 2, argument: value}, X[:, :2] / 10)  # exponential
    matters(argument, "hard_sigmoid")


def dtypes():
    for dtype in ("float32", "float64"):
        ours = made(tg.layers, "LSTM", {"units": 2, "dtype": dtype}, X)(X.astype("float64"))
        assert ours.dtype == dtype
        assert close([ours], alike("LSTM", {"units": 2}))


def cell_states():
    for name in CELLS:
        given = alike(name, {"units": 2})
        made_here = made(tg.layers, name, {"units": 2}, X[:, 0])
        zeros = flatten(made_here(X[:, 0], [0 * state for state in states(name)]))
        assert not close(given, zeros)


def masked():
    for name in RECURRENT:
        for mask in (MASK, MASK.astype("int32")):
            given = alike(name, {"units": 2}, mask=mask)
            assert not close(given, alike(name, {"units": 2}))
            alike(name, {"units": 2, "return_sequences": True}, mask=mask)


def initial_state():
    for name in RECURRENT:
        given = alike(name, {"units": 2}, initial_state=states(name))
        assert not close(given, alike(name, {"units": 2}))


def mask_with_state():
    """Zeros here, the initial state in Keras; later steps agree."""
    mask = np.array([[0, 1, 1]] * 4, bool)
    ours, theirs = (
        called(
            made(layers, "GRU", {"units": 2, "return_sequences": True}, X),
            "GRU",
            X,
            initial_state=[STATE],
            mask=mask,
        )[0]
        for layers in (tg.layers, keras.layers)
    )
    assert not ours[:, 0].any()
    assert close([theirs[:, 0]], [STATE])
    assert close([ours[:, 1:]], [theirs[:, 1:]])


def masked_zeros(unroll):
    kwargs = {"units": 2, "return_sequences": True, "zero_output_for_mask": True, "unroll": unroll}
    ours = called(made(tg.layers, "LSTM", kwargs, X), "LSTM", X, mask=MASK)
    theirs = called(made(keras.layers, "LSTM", kwargs, X), "LSTM", X, mask=MASK)
    assert not ours[0][~MASK].any()
    assert close(ours, theirs) is not unroll


def warned(function, text):
    with pytest.warns(UserWarning, match=text):
        return function()


def silent_simple_rnn():
    kwargs = {"units": 2, "activity_regularizer": "l2"}
    layer = warned(lambda: made(tg.layers, "SimpleRNN", kwargs, X), "no effect, as in Keras")
    theirs = made(keras.layers, "SimpleRNN", kwargs, X)
    layer(X), theirs(X)
    assert layer.losses == theirs.losses == []


def input_shapes(argument, value):
    for module in (tg, keras):
        layer = warned(lambda m=module: m.layers.Dense(2, **{argument: value}), "`input_shape`")
        assert module.Sequential([layer]).input_shape == (None, 3)


def autocast():
    assert tg.layers.Dense(2, autocast=False)(X.astype("float64")).dtype == "float32"


def trainable():
    for layers in (tg.layers, keras.layers):
        layer = made(layers, "LSTM", {"units": 2, "trainable": False}, X)
        assert (len(layer.trainable_weights), len(layer.weights)) == (0, 3)
    before, after = step("GRU", {"units": 2, "trainable": False})
    assert close(before, after)


def named():
    for layers in (tg.layers, keras.layers):
        assert layers.LSTM(2, name="mine").name == "mine"


# ---- Cells and wrappers -------------------------------------------------------------------------


class Plain:
    """The same cell for both packages: arrays are NumPy's in both."""

    state_size = 2

    def call(self, x, states):
        h = x + np.float32(0.5) * np.asarray(states[0])
        return h, [h]


class Trained(Plain):
    def backward(self, d_output, d_states):
        d = d_output + d_states[0]
        return d, [0.5 * d]


def users_cell():
    class Cell(Plain, keras.layers.Layer):
        pass

    assert close([tg.layers.RNN(Plain())(X)], [np.asarray(keras.layers.RNN(Cell())(X))])
    fit_users_cell(Trained())


def fit_users_cell(cell):
    model = tg.Sequential([tg.layers.Input((3, 2)), tg.layers.Dense(2), tg.layers.RNN(cell)])
    model.compile("sgd", "mse")
    model.train_on_batch(X, STATE)


def cells_in_layers():
    for name in RECURRENT:
        inside = alike("RNN", {"cell": Spec((f"{name}Cell", {"units": 2}))}, X)
        assert close(inside, alike(name, {"units": 2}))


def stacked():
    cells = [Spec(("LSTMCell", {"units": 3})), Spec(("GRUCell", {"units": 2}))]
    alike("RNN", {"cell": cells, "return_sequences": True}, X)
    return alike("RNN", {"cell": Spec(("StackedRNNCells", {"cells": cells}))}, X)


def both_ways(name="LSTM", x=X, layer=(), call=(), **kwargs):
    inner = Spec((name, {"units": 2, **dict(layer)}))
    return alike("Bidirectional", {"layer": inner, **kwargs}, x, **dict(call))


def backward_layer():
    other = Spec(("GRU", {"units": 3, "go_backwards": True}))
    assert both_ways(backward_layer=other)[0].shape == (4, 5)


def merge_modes():
    for mode in ("concat", "sum", "mul", "ave", None):
        both_ways(merge_mode=mode)
        both_ways("GRU", layer={"return_sequences": True}, merge_mode=mode)


def preset_weights():
    given = weights_for([(2, 8), (2, 8), (8,)] * 2, 1, "float32")
    ours, theirs = (
        layers.Bidirectional(layers.LSTM(2), weights=given) for layers in (tg.layers, keras.layers)
    )
    ours.build(X.shape), theirs.build(X.shape)
    assert close(ours.get_weights(), given)
    assert not close(theirs.get_weights(), given)


def every_way(kind, **kwargs):
    """Wrapped dropout acts in training only."""
    spec = {"layer": Spec(kind), **kwargs}
    name = "TimeDistributed" if kind[0] == "Dropout" else "Bidirectional"
    x = np.ones((400, 2, 1), "float32")
    same_choices(name, spec, x)
    alike(name, spec, x, training=False)


def distributed_mask():
    inner = Spec(("LSTM", {"units": 2}))
    x = np.stack([X, 2 * X], axis=1)
    mask = np.stack([MASK, ~MASK | MASK], axis=1)
    masked = alike("TimeDistributed", {"layer": inner}, x, mask=mask)
    assert not close(masked, alike("TimeDistributed", {"layer": inner}, x))


# ---- Other layers -------------------------------------------------------------------------------


def users_activation():
    kwargs = {"units": 2, "activation": np.tanh}
    assert close(alike("Dense", kwargs), alike("Dense", {"units": 2, "activation": "tanh"}))
    with pytest.raises(ValueError, match=r"a method `backward\(x, d_outputs\)`"):
        step("Dense", kwargs)
    with pytest.raises(ValueError, match="one of Keras's named activations in a config"):
        tg.layers.Dense(**kwargs).get_config()


def dense_activations():
    for name in tg.activations._KNOWN:
        if hasattr(keras.activations, name):
            alike("Dense", {"units": 2, "activation": name})


def sizes_of_embedding():
    for x in (INDICES, INDICES[:, 0], INDICES.astype("float32")):
        alike("Embedding", {"input_dim": 5, "output_dim": 3}, x)


def masks_from(*first):
    """A recurrent layer after one that makes a mask."""
    x = INDICES if first[0] == "Embedding" else np.where(X > 1, X, np.float32(0.5))
    stack = [Spec(("Input", {"shape": x.shape[1:]})), Spec(first), Spec(("GRU", {"units": 2}))]
    ours, theirs = (
        module.Sequential([build(module.layers, spec) for spec in stack]) for module in (tg, keras)
    )
    weights = weights_for([w.shape for w in ours.weights], 1, "float32")
    ours.set_weights(weights), theirs.set_weights(weights)
    assert close([ours(x)], [np.asarray(theirs(x))])
    mask, other = (m.layers[0].compute_mask(x) for m in (ours, theirs))
    assert np.array_equal(mask, np.asarray(other))
    assert not mask.all()


def preset_embedding():
    table = weights_for([(4, 2)], 1, "float32")
    for layers in (tg.layers, keras.layers):
        layer = layers.Embedding(4, 2, weights=table)
        assert close([np.asarray(layer(INDICES))], [table[0][INDICES]])


def input_attribute(attribute, expected, **kwargs):
    for layers in (tg.layers, keras.layers):
        entry = layers.InputLayer(**kwargs)
        found = getattr(entry, attribute)
        assert (tuple(found) if isinstance(found, list) else found) == expected
        layers.Input(**kwargs)


def of(name, **kwargs):
    return lambda: getattr(tg.layers, name)(**kwargs)


# ---- Models -------------------------------------------------------------------------------------


def model(module=tg, **settings):
    """An LSTM and a sigmoid; at rate 0 it stays what it is."""
    layers = module.layers
    stack = [layers.Input((3, 2)), layers.LSTM(3), layers.Dense(1, activation="sigmoid")]
    made = module.Sequential(stack)
    made.set_weights(weights_for([w.shape for w in made.get_weights()], 1, "float32"))
    made.compile(**{"optimizer": module.optimizers.SGD(0.0), "loss": "mse", **settings})
    return made


def equal(ours, theirs):
    assert sorted(ours) == sorted(theirs)
    for name, value in theirs.items():
        assert np.isclose(ours[name], np.asarray(value), rtol=1e-5), name


def judged(part=slice(None), weights=None, settings=(), **kwargs):
    """Keras's loss and metrics."""
    weights = None if weights is None else weights[part]
    return model(keras, **dict(settings)).evaluate(
        INPUTS[part], TARGETS[part], sample_weight=weights, verbose=0, return_dict=True, **kwargs
    )


def compiled(*, weights=None, **settings):
    """With these settings, evaluation and a training at rate 0 give Keras's numbers."""
    options = {"sample_weight": weights, "verbose": 0}
    ours = model(**settings).evaluate(INPUTS, TARGETS, return_dict=True, **options)
    equal(ours, judged(weights=weights, settings=settings))
    trained = model(**settings).fit(INPUTS, TARGETS, **options).history
    equal({name: values[0] for name, values in trained.items()}, ours)
    return ours


def optimizers():
    names = [name for name in keras.optimizers.__dict__ if hasattr(tg.optimizers, name)]
    classes = [n for n in names if n[0].isupper() and n != "Optimizer"]
    assert len(classes) == 9
    start = model().get_weights()
    exact = model(optimizer=tg.optimizers.SGD(1.0))
    exact.train_on_batch(INPUTS, TARGETS)
    gradients = [a - b for a, b in zip(start, exact.get_weights(), strict=True)]
    for name in classes:
        ours = model(optimizer=name.lower())
        ours.train_on_batch(INPUTS, TARGETS)
        variables = [keras.Variable(w) for w in start]
        keras.optimizers.get(name.lower()).apply(gradients, variables)
        for w, v in zip(ours.get_weights(), variables, strict=True):
            assert np.allclose(w, v.numpy(), atol=2e-5), name


def losses():
    for name in ("mse", "mae", "binary_crossentropy", "huber", "log_cosh", "hinge"):
        compiled(loss=name)


def own_loss():
    def half(y_true, y_pred):
        return (y_true - y_pred)[..., 0] ** 2 / 2

    ours = model(loss=half)
    equal({"loss": ours.evaluate(INPUTS, TARGETS, verbose=0)}, judged(settings={"loss": half}))
    with pytest.raises(TypeError, match="training needs its gradient"):
        ours.fit(INPUTS, TARGETS, verbose=0)


def ignored(*settings):
    assert len({str(compiled(**{name: value})) for name, value in settings}) == 1


def executions():
    for module, calls in ((tg, 4), (keras, 2)):
        seen = []
        watch = module.callbacks.LambdaCallback(
            on_test_batch_end=lambda batch, logs, seen=seen: seen.append(batch)
        )
        made = model(module, steps_per_execution=2)
        loss = made.evaluate(INPUTS[:8], TARGETS[:8], 2, verbose=0, callbacks=[watch])
        equal({"loss": loss}, judged(slice(8)))
        assert len(seen) == calls


def counted(**kwargs):
    """Batches of training and validation, and logs, of a training."""
    seen = []
    watch = tg.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: seen.append("train"),
        on_test_batch_end=lambda batch, logs: seen.append("test"),
    )
    options = {"x": INPUTS, "y": TARGETS, "verbose": 0, "callbacks": [watch], **kwargs}
    history = model().fit(**options)
    return seen.count("train"), seen.count("test"), history


def trained(part=slice(None), validation=None, weights=None, batches=None, **kwargs):
    """`fit` at rate 0 reports what Keras finds for those parts of the data."""
    train, test, history = counted(**kwargs)
    assert batches in (None, (train, test))
    expected = dict(judged(part, weights))
    if validation is not None:
        expected |= {f"val_{k}": v for k, v in judged(validation, weights).items()}
    equal({name: values[-1] for name, values in history.history.items()}, expected)
    return history


def sources():
    trained(batches=(1, 0))
    for source in (iter([(INPUTS, TARGETS)]), [(INPUTS, TARGETS)].__iter__()):
        trained(x=source, y=None)


def shuffled():
    orders = []
    for shuffle in (False, True, True):
        tg.set_random_seed(1)
        one = model(optimizer=tg.optimizers.SGD(0.5))
        one.fit(INPUTS, TARGETS, batch_size=4, shuffle=shuffle, verbose=0)
        orders.append(one.get_weights())
    steps = model(optimizer=tg.optimizers.SGD(0.5))
    for start in (0, 4, 8):
        steps.train_on_batch(INPUTS[start : start + 4], TARGETS[start : start + 4])
    assert close(orders[0], steps.get_weights())
    assert not close(orders[0], orders[1])
    assert close(orders[1], orders[2])


def by_class():
    weights = np.where(TARGETS[:, 0] == 1, 3, 0.5)
    trained(weights=weights, class_weight={0: 0.5, 1: 3})


def shown(capsys):
    for verbose, lines in ((0, 0), (2, 4)):
        model().fit(INPUTS, TARGETS, epochs=2, verbose=verbose)
        assert len(capsys.readouterr().out.splitlines()) == lines
    model().fit(INPUTS, TARGETS, verbose=1)
    assert "loss" in capsys.readouterr().out


def shown_elsewhere(capsys):
    for method, args in (("evaluate", (INPUTS, TARGETS)), ("predict", (INPUTS,))):
        for verbose in (0, 1):
            getattr(model(), method)(*args, verbose=verbose)
            assert bool(capsys.readouterr().out) == bool(verbose)


def answers(*args, **kwargs):
    """evaluate, and test_on_batch and train_on_batch with what they take, as Keras's evaluate."""
    settings = {"metrics": ["mae"], "weighted_metrics": ["mse"]}
    expected = model(keras, **settings).evaluate(*args, **kwargs, verbose=0)
    assert np.allclose(model(**settings).evaluate(*args, **kwargs, verbose=0), expected, rtol=1e-5)
    if not {"batch_size", "steps", "callbacks"} & set(kwargs):
        for method in ("test_on_batch", "train_on_batch"):
            found = getattr(model(**settings), method)(*args, **kwargs)
            assert np.allclose(found, expected, rtol=1e-5)


def predictions(**kwargs):
    expected = model(keras).predict(INPUTS, verbose=0, **kwargs)
    assert close([model().predict(INPUTS, verbose=0, **kwargs)], [expected])
    if not kwargs:
        assert close([model().predict_on_batch(INPUTS)], [expected])


def class_of_batch():
    weights = np.where(TARGETS[:, 0] == 1, 3, 0.5)
    found = model().train_on_batch(INPUTS, TARGETS, class_weight={0: 0.5, 1: 3})
    equal({"loss": found}, judged(weights=weights))


def noted():
    seen = []
    watch = tg.callbacks.LambdaCallback(
        on_test_batch_end=lambda batch, logs: seen.append("test"),
        on_predict_batch_end=lambda batch, logs: seen.append("predict"),
    )
    model().evaluate(INPUTS, TARGETS, batch_size=5, callbacks=[watch], verbose=0)
    model().predict(INPUTS, batch_size=4, callbacks=[watch], verbose=0)
    assert seen == ["test"] * 2 + ["predict"] * 3


def dicts():
    for method in ("evaluate", "test_on_batch", "train_on_batch"):
        options = {"verbose": 0} if method == "evaluate" else {}
        equal(
            getattr(model(), method)(INPUTS, TARGETS, return_dict=True, **options),
            judged(),
        )


# ---- Files --------------------------------------------------------------------------------------


def round_trip(folder):
    theirs, path = model(keras), str(folder / "a.keras")
    theirs.save(path)
    ours = tg.load_model(path)
    ours.save(str(folder / "b.keras"))
    again = keras.models.load_model(str(folder / "b.keras"))
    expected = theirs.predict(INPUTS, verbose=0)
    for found in (ours, again):
        assert close([found.predict(INPUTS, verbose=0)], [expected])
    weights = str(folder / "a.weights.h5")
    again.save_weights(weights)
    other = model()
    other.set_weights([0 * w for w in other.get_weights()])
    other.load_weights(weights)
    assert close([other.predict(INPUTS, verbose=0)], [expected])


def overwritten(folder):
    for save, path in ((model().save, "a.keras"), (model().save_weights, "a.weights.h5")):
        save(folder / path)
        save(folder / path, overwrite=True)
        with pytest.raises(ValueError, match="overwrite=False"):
            save(folder / path, overwrite=False)


def existing(folder):
    model().save(folder / "a.keras")
    model().save(folder / "a.keras", overwrite=False)


def mismatched(folder):
    path = str(folder / "a.weights.h5")
    model(keras).save_weights(path)
    other = tg.Sequential([tg.layers.Input((3, 2)), tg.layers.LSTM(3), tg.layers.Dense(7)])
    with pytest.raises(ValueError):
        other.load_weights(path)
    with pytest.warns(UserWarning, match="dense"):
        other.load_weights(path, skip_mismatch=True)
    assert close(other.layers[0].get_weights(), model().layers[0].get_weights())


class Twice(tg.layers.Layer):
    def call(self, inputs):
        return 2 * inputs


def customs(folder):
    own = tg.Sequential([tg.layers.Input((3, 2)), Twice()])
    own.save(folder / "a.keras")
    with pytest.raises(ValueError, match="Twice"):
        tg.load_model(folder / "a.keras")
    again = tg.load_model(folder / "a.keras", custom_objects={"Twice": Twice})
    assert np.array_equal(again(X), 2 * X)


def loaded(folder, **kwargs):
    model(keras, metrics=["mae"]).save(str(folder / "a.keras"))
    return tg.load_model(folder / "a.keras", **kwargs)


def recompiled(folder):
    assert not loaded(folder, compile=False).compiled
    found = loaded(folder).evaluate(INPUTS, TARGETS, verbose=0, return_dict=True)
    equal(found, judged(settings={"metrics": ["mae"]}))


# ---- Callbacks ----------------------------------------------------------------------------------


def callback(name, *args, **kwargs):
    """The arguments of Keras's, and a training with it."""

    def check():
        ours, theirs = (
            inspect.signature(getattr(module.callbacks, name).__init__).parameters
            for module in (tg, keras)
        )
        plain = {n: p.default for n, p in ours.items() if p.kind is not p.VAR_KEYWORD}
        expected = {n: p.default for n, p in theirs.items() if p.kind is not p.VAR_KEYWORD}
        assert list(plain.items()) == list(expected.items())
        if name != "CallbackList":
            made = getattr(tg.callbacks, name)(*args, **kwargs)
            history = model().fit(INPUTS, TARGETS, epochs=3, verbose=0, callbacks=[made])
            epochs = 2 if name == "EarlyStopping" else 3
            assert len(history.history["loss"]) == epochs

    return check


def missing(name):
    return lambda: getattr(tg.callbacks, name)


# ---- The rows -----------------------------------------------------------------------------------

TWO = {"units": 2}
TABLE = {"input_dim": 4, "output_dim": 2}
NOISE = ("Dropout", {"rate": 0.4})

LAYER = {
    "`name`": named,
    "`trainable`": trainable,
    "`dtype`": dtypes,
    '`dtype="float16"`': of("LSTM", units=2, dtype="float16"),
    "`activity_regularizer`": lambda: [activity(n, TWO) for n in ("LSTM", "GRU", "Dense")],
    "`activity_regularizer` of SimpleRNN": silent_simple_rnn,
    "`autocast`": autocast,
    "`input_shape`": lambda: input_shapes("input_shape", (3,)),
    "`input_dim`": lambda: input_shapes("input_dim", 3),
    "`batch_input_shape`": of("LSTM", units=2, batch_input_shape=(1, 2, 3)),
}
CELL_AND_LAYER = {
    "`units`": lambda: [alike(name, {"units": n}) for n in (1, 2, 9) for name in RECURRENT],
    "`units=2.5`": of("LSTM", units=2.5),
    "`activation`": lambda: activations("activation"),
    '`activation="softmax"`': of("LSTM", units=2, activation="softmax"),
    "`activation=` a function": of("LSTM", units=2, activation=np.sin),
    "`recurrent_activation`": lambda: activations("recurrent_activation"),
    "`use_bias`": lambda: matters("use_bias", False),
    "`kernel_initializer`": lambda: initializer(
        "kernel_initializer", 0, (*RECURRENT, *CELLS), units=2
    ),
    "`recurrent_initializer`": lambda: initializer(
        "recurrent_initializer", 1, (*RECURRENT, *CELLS), units=2
    ),
    "`bias_initializer`": lambda: initializer("bias_initializer", 2, (*RECURRENT, *CELLS), units=2),
    "`unit_forget_bias`": forget_biases,
    "`kernel_regularizer`": lambda: regularizer("kernel_regularizer", 0, RECURRENT + CELLS, **TWO),
    "`recurrent_regularizer`": lambda: regularizer(
        "recurrent_regularizer", 1, RECURRENT + CELLS, **TWO
    ),
    "`bias_regularizer`": lambda: regularizer("bias_regularizer", 2, RECURRENT + CELLS, **TWO),
    "`kernel_constraint`": lambda: constraint("kernel_constraint", 0, RECURRENT, **TWO),
    "`recurrent_constraint`": lambda: constraint("recurrent_constraint", 1, RECURRENT, **TWO),
    "`bias_constraint`": lambda: constraint("bias_constraint", 2, RECURRENT, **TWO),
    "`dropout`": lambda: dropout("dropout"),
    "`dropout=1.0`": lambda: dropout_of_all("dropout"),
    "`recurrent_dropout`": lambda: dropout("recurrent_dropout"),
    "`recurrent_dropout=1.0`": lambda: dropout_of_all("recurrent_dropout"),
    "`seed`": lambda: [repeats(name, {"units": 2, "dropout": 0.5}) for name in RECURRENT],
    "`return_sequences`": lambda: matters("return_sequences", True),
    "`return_state`": lambda: matters("return_state", True),
    "`go_backwards`": lambda: matters("go_backwards", True, rest={"return_sequences": True}),
    "`stateful`": stateful,
    "`unroll`": lambda: harmless("unroll", True, names=RECURRENT),
    "`zero_output_for_mask`": lambda: [
        masked_zeros(False),
        matters(
            "zero_output_for_mask", True, RECURRENT, rest={"return_sequences": True}, mask=MASK
        ),
    ],
    "`zero_output_for_mask` with `unroll`": lambda: masked_zeros(True),
    "`reset_after`": lambda: [
        alike(n, {**TWO, "reset_after": r}) for n in ("GRU", "GRUCell") for r in (True, False)
    ],
    "`use_cudnn`": lambda: harmless("use_cudnn", "auto", False, names=("LSTM", "GRU")),
    "`use_cudnn=True`": of("LSTM", units=2, use_cudnn=True),
    "`implementation`": lambda: harmless("implementation", 0, 1, 2, names=("LSTM", "GRU")),
    "`implementation` of SimpleRNN": of("SimpleRNN", units=2, implementation=1),
}
CELL_AND_LAYER_CALLS = {
    "call: `sequences`": lambda: [alike(name, TWO, X.astype("float64")) for name in RECURRENT],
    "call: `sequences` of another width": lambda: made(tg.layers, "LSTM", TWO, X)(X[..., :1]),
    "call: `initial_state`": initial_state,
    "call: `initial_state` with too few states": lambda: tg.layers.LSTM(2)(
        X, initial_state=[STATE]
    ),
    "call: `mask`": masked,
    "call: `mask` with `initial_state`": mask_with_state,
    "call: `training`": lambda: [
        alike(name, {"units": 2, "dropout": 0.5}, training=False) for name in RECURRENT
    ],
    "call: `inputs` of a cell": lambda: [alike(name, TWO) for name in CELLS],
    "call: `states` of a cell": cell_states,
    "call: `sequence=` of SimpleRNNCell": lambda: tg.layers.SimpleRNNCell(2)(
        sequence=X[:, 0], states=[STATE]
    ),
}
RNN = {
    "`cell`": cells_in_layers,
    "`cell=` a list": stacked,
    "`cell=` a user's own": users_cell,
    "`cell=` a user's own without `backward`, in `fit`": lambda: fit_users_cell(Plain()),
    "`cell=3`": of("RNN", cell=3),
    "`cells`": stacked,
}
BIDIRECTIONAL = {
    "`layer`": lambda: [both_ways(name) for name in RECURRENT],
    "`layer` that is not recurrent": lambda: tg.layers.Bidirectional(tg.layers.Dense(2)),
    "`merge_mode`": merge_modes,
    '`merge_mode="max"`': lambda: tg.layers.Bidirectional(tg.layers.LSTM(2), merge_mode="max"),
    "`weights`": preset_weights,
    "`backward_layer`": backward_layer,
    "call: `sequences`": both_ways,
    "call: `initial_state`": lambda: both_ways(call={"initial_state": [STATE] * 4}),
    "call: `mask`": lambda: both_ways(layer={"return_sequences": True}, call={"mask": MASK}),
    "call: `training`": lambda: every_way(("GRU", {"units": 1, "dropout": 0.4})),
}
TIME_DISTRIBUTED = {
    "`layer`": lambda: alike("TimeDistributed", {"layer": Spec(("Dense", TWO))}, X),
    "`layer` that is stateful": lambda: tg.layers.TimeDistributed(tg.layers.LSTM(2, stateful=True)),
    "call: `inputs`": lambda: alike("TimeDistributed", {"layer": Spec(("Dense", TWO))}, X[..., :1]),
    "call: `mask`": distributed_mask,
    "call: `training`": lambda: every_way(NOISE),
}
DENSE = {
    "`units`": lambda: [alike("Dense", {"units": n}) for n in (1, 7)],
    "`activation`": dense_activations,
    '`activation="glu"`': of("Dense", units=2, activation="glu"),
    "`activation=` a function": users_activation,
    "`use_bias`": lambda: matters("use_bias", False, ["Dense"]),
    "`kernel_initializer`": lambda: initializer("kernel_initializer", 0, ["Dense"], **TWO),
    "`bias_initializer`": lambda: initializer("bias_initializer", 1, ["Dense"], **TWO),
    "`kernel_regularizer`": lambda: regularizer("kernel_regularizer", 0, ["Dense"], **TWO),
    "`bias_regularizer`": lambda: regularizer("bias_regularizer", 1, ["Dense"], **TWO),
    "`activity_regularizer`": lambda: activity("Dense", TWO),
    "`kernel_constraint`": lambda: constraint("kernel_constraint", 0, ["Dense"], **TWO),
    "`bias_constraint`": lambda: constraint("bias_constraint", 1, ["Dense"], **TWO),
    "`lora_rank`": of("Dense", units=2, lora_rank=2),
    "`lora_alpha`": of("Dense", units=2, lora_alpha=2),
    "`quantization_config`": of("Dense", units=2, quantization_config="int8"),
    "call: `inputs`": lambda: [alike("Dense", TWO, x) for x in (X, X[:, 0], X[None])],
    "call: `training`": lambda: alike("Dense", TWO, training=True),
}
EMBEDDING = {
    "`input_dim`": sizes_of_embedding,
    "`output_dim`": sizes_of_embedding,
    "`embeddings_initializer`": lambda: initializer(
        "embeddings_initializer", 0, ["Embedding"], **TABLE
    ),
    "`embeddings_regularizer`": lambda: regularizer(
        "embeddings_regularizer", 0, ["Embedding"], **TABLE
    ),
    "`embeddings_constraint`": lambda: constraint(
        "embeddings_constraint", 0, ["Embedding"], **TABLE
    ),
    "`mask_zero`": lambda: masks_from("Embedding", {**TABLE, "mask_zero": True}),
    "`weights`": preset_embedding,
    "`input_length`": lambda: [
        warned(lambda m=m: m.layers.Embedding(2, 2, input_length=3), "`input_length` is deprecated")
        for m in (tg, keras)
    ],
    "`lora_rank`": of("Embedding", **TABLE, lora_rank=2),
    "`lora_alpha`": of("Embedding", **TABLE, lora_alpha=2),
    "`quantization_config`": of("Embedding", **TABLE, quantization_config="int8"),
    "call: `inputs`": sizes_of_embedding,
    "call: `inputs` out of range": lambda: tg.layers.Embedding(4, 2)([[0, 9]]),
}
SMALL = {
    "`mask_value`": lambda: masks_from("Masking", {"mask_value": 0.5}),
    "`rate`": lambda: same_choices("Dropout", {"rate": 0.3}, np.ones((500, 2), "float32")),
    "`rate=1.5`": of("Dropout", rate=1.5),
    "`noise_shape`": lambda: same_choices(
        "Dropout", {"rate": 0.3, "noise_shape": (None, 1)}, np.ones((500, 9), "float32")
    ),
    "`seed`": lambda: repeats("Dropout", {"rate": 0.5}),
    "`activation`": lambda: alike("Activation", {"activation": "softmax"}, X),
    "`data_format`": lambda: [
        alike("Flatten", {"data_format": f}, X) for f in ("channels_last", "channels_first")
    ],
    "call: `inputs`": lambda: [
        alike(*layer, X) for layer in (("Masking", {}), NOISE, ("Flatten", {}))
    ],
    "call: `training`": lambda: alike(*NOISE, X, training=False),
}
INPUT = {
    "`shape`": lambda: input_attribute("batch_shape", (None, 3, 2), shape=(3, 2)),
    "`batch_size`": lambda: input_attribute("batch_shape", (4, 3), shape=(3,), batch_size=4),
    "`batch_shape`": lambda: input_attribute("batch_shape", (4, None), batch_shape=(4, None)),
    "`dtype`": lambda: input_attribute("dtype", "int32", shape=(3,), dtype="int32"),
    "`name`": lambda: input_attribute("name", "mine", shape=(3,), name="mine"),
    "`sparse`": of("Input", shape=(3,), sparse=True),
    "`ragged`": of("Input", shape=(3,), ragged=True),
    "`optional`": of("Input", shape=(3,), optional=True),
    "`tensor`": of("Input", shape=(3,), tensor=X),
}
COMPILE = {
    "`optimizer`": optimizers,
    '`optimizer="muon"`': lambda: model(optimizer="muon"),
    "`loss`": losses,
    "`loss=` a list of several": lambda: model(loss=["mse", "mae"]),
    "`loss=` a function": own_loss,
    "`loss_weights`": lambda: compiled(loss_weights=[3.0]),
    "`metrics`": lambda: compiled(metrics=["mae", "accuracy"], weights=WEIGHTS),
    "`weighted_metrics`": lambda: compiled(weighted_metrics=["mae", "accuracy"], weights=WEIGHTS),
    "`run_eagerly`": lambda: ignored(("run_eagerly", True), ("run_eagerly", False)),
    "`steps_per_execution`": executions,
    "`jit_compile`": lambda: ignored(("jit_compile", "auto"), ("jit_compile", False)),
    "`auto_scale_loss`": lambda: ignored(("auto_scale_loss", True), ("auto_scale_loss", False)),
}
FIT = {
    "`x`": sources,
    "`x=` a dict, of several inputs": lambda: model().fit({"a": INPUTS}, TARGETS),
    "`y`": trained,
    "`batch_size`": lambda: trained(batches=(3, 0), batch_size=4),
    "`epochs`": lambda: trained(batches=(3, 0), epochs=3),
    "`verbose`": shown,
    "`verbose=3`": lambda: model().fit(INPUTS, TARGETS, verbose=3),
    "`callbacks`": lambda: trained(batches=(1, 0)),
    "`validation_split`": lambda: trained(slice(7), slice(7, 10), validation_split=0.3),
    "`validation_data`": lambda: [
        trained(validation=slice(4), validation_data=(INPUTS[:4], TARGETS[:4])),
        trained(
            weights=WEIGHTS,
            sample_weight=WEIGHTS,
            validation=slice(4),
            validation_data=(INPUTS[:4], TARGETS[:4], WEIGHTS[:4]),
        ),
    ],
    "`shuffle`": shuffled,
    "`class_weight`": by_class,
    "`sample_weight`": lambda: trained(weights=WEIGHTS, sample_weight=WEIGHTS),
    "`sample_weight` and `class_weight` together": lambda: model().fit(
        INPUTS, TARGETS, sample_weight=WEIGHTS, class_weight={0: 1}
    ),
    "`initial_epoch`": lambda: np.testing.assert_equal(
        trained(batches=(2, 0), initial_epoch=3, epochs=5).epoch, [3, 4]
    ),
    "`steps_per_epoch`": lambda: trained(
        slice(8), batches=(2, 0), batch_size=4, steps_per_epoch=2, shuffle=False
    ),
    "`validation_steps`": lambda: trained(
        validation=slice(8),
        batches=(3, 2),
        batch_size=4,
        validation_data=(INPUTS, TARGETS),
        validation_steps=2,
    ),
    "`validation_batch_size`": lambda: trained(
        validation=slice(10),
        batches=(1, 2),
        validation_data=(INPUTS, TARGETS),
        validation_batch_size=5,
    ),
    "`validation_freq`": lambda: [
        trained(
            validation=slice(10),
            batches=(4, count),
            epochs=4,
            validation_data=(INPUTS, TARGETS),
            validation_freq=frequency,
        )
        for frequency, count in ((2, 2), ([1, 2, 4], 3))
    ],
}
EVALUATE = {
    "`x`": lambda: [answers(INPUTS, TARGETS), predictions()],
    "`y`": lambda: answers(INPUTS, TARGETS[::-1]),
    "`batch_size`": lambda: [answers(INPUTS, TARGETS, batch_size=4), predictions(batch_size=3)],
    "`verbose`": shown_elsewhere,
    "`sample_weight`": lambda: answers(INPUTS, TARGETS, sample_weight=WEIGHTS),
    "`class_weight`": class_of_batch,
    "`steps`": lambda: [
        answers(INPUTS, TARGETS, steps=2, batch_size=3),
        predictions(steps=2, batch_size=3),
    ],
    "`callbacks`": noted,
    "`return_dict`": dicts,
}
FILES = {
    "`filepath`": round_trip,
    '`filepath="model.h5"` in `save`': lambda: model().save("model.h5"),
    "`overwrite`": overwritten,
    "`overwrite=False` for a file that exists": existing,
    "`zipped`": lambda: model().save("model.keras", zipped=True),
    "`max_shard_size`": lambda: model().save_weights("model.weights.h5", max_shard_size=1),
    "`skip_mismatch`": mismatched,
    "`custom_objects`": customs,
    "`compile`": recompiled,
    "`safe_mode`": lambda folder: [loaded(folder, safe_mode=flag) for flag in (True, False)],
}
CALLBACKS = {
    "`Callback`": callback("Callback"),
    "`CallbackList`": callback("CallbackList"),
    "`CSVLogger`": lambda folder: callback("CSVLogger", folder / "log.csv")(),
    "`EarlyStopping`": callback("EarlyStopping", monitor="loss"),
    "`History`": callback("History"),
    "`LambdaCallback`": callback("LambdaCallback"),
    "`LearningRateScheduler`": callback("LearningRateScheduler", lambda epoch, rate: rate / 2),
    "`ModelCheckpoint`": lambda folder: callback("ModelCheckpoint", folder / "a.keras")(),
    "`ProgbarLogger`": callback("ProgbarLogger"),
    "`ReduceLROnPlateau`": callback("ReduceLROnPlateau", monitor="loss"),
    "`TerminateOnNaN`": callback("TerminateOnNaN"),
    "`BackupAndRestore`": missing("BackupAndRestore"),
    "`OrbaxCheckpoint`": missing("OrbaxCheckpoint"),
    "`RemoteMonitor`": missing("RemoteMonitor"),
    "`SwapEMAWeights`": missing("SwapEMAWeights"),
    "`TensorBoard`": missing("TensorBoard"),
}
NOT_OFFERED = {
    "functional API": lambda: tg.layers.LSTM(2)(tg.layers.Input((3, 2))),
    "`Model`, also to subclass": lambda: tg.models.Model,
    "`clone_model`": lambda: tg.models.clone_model,
    "`Sequential.export`": lambda: model().export("folder"),
    "`Sequential.quantize`": lambda: model().quantize("int8"),
    "`Sequential.to_json`": lambda: model().to_json(),
    "`keras.ops`": lambda: tg.ops.matmul,
    "`keras.backend`": lambda: tg.backend,
    "`keras.Input`, `keras.Layer` and other classes by a short name": lambda: tg.Input,
    "`models.save_model`": lambda: tg.models.save_model,
    "`utils.pad_sequences`": lambda: tg.utils.pad_sequences,
    "`utils.PyDataset`": lambda: tg.utils.PyDataset,
    "several outputs of a layer in a model": lambda: tg.Sequential(
        [tg.layers.Input((3, 2)), tg.layers.LSTM(2, return_state=True), tg.layers.Dense(1)]
    ),
}
CHECKS = {
    "Every layer": LAYER,
    "LSTM, GRU, SimpleRNN and their cells": CELL_AND_LAYER | CELL_AND_LAYER_CALLS,
    "RNN and StackedRNNCells": RNN,
    "Bidirectional": BIDIRECTIONAL,
    "TimeDistributed": TIME_DISTRIBUTED,
    "Dense": DENSE,
    "Embedding": EMBEDDING,
    "Masking, Dropout, Activation, Flatten": SMALL,
    "Input": INPUT,
    "compile": COMPILE,
    "fit": FIT,
    "evaluate, predict, train_on_batch, test_on_batch, predict_on_batch": EVALUATE,
    "Files: save, save_weights, load_weights, load_model": FILES,
    "callbacks": CALLBACKS,
    "What is not offered": NOT_OFFERED,
}


# A later Keras may have more than the page knows of.
VERSION = re.search(r"Every argument of Keras (\S+) ", PAGE)[1]
of_this_version = pytest.mark.skipif(
    not keras.__version__.startswith(f"{VERSION}."), reason=f"the page is about Keras {VERSION}"
)


def read_rows():
    """(section, first cell) to (state, remark)."""
    found, section = {}, None
    for line in PAGE.splitlines():
        if line.startswith("#"):
            section = line.lstrip("# ")
        elif line.startswith("|") and not line.startswith(
            ("| ---", "| argument |", "| class |", "| what |")
        ):
            name, state, remark = (cell.strip() for cell in line.strip("|").split("|"))
            assert (section, name) not in found, f"twice: {name}"
            found[section, name] = (state, remark)
    return found


ROWS = read_rows()


def test_rows_and_checks_belong_together():
    assert set(ROWS) == {(section, name) for section, checks in CHECKS.items() for name in checks}
    assert {state for state, _ in ROWS.values()} == {"works", "differs", "refused"}


def arguments(section):
    """The arguments that the rows of a section name."""
    names = [re.match(r"(call: )?`(\w+)", name) for s, name in ROWS if s == section]
    return {name[2] for name in names if name}


def parameters(*functions):
    kinds = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    return {
        name
        for function in functions
        for name, parameter in inspect.signature(function).parameters.items()
        if name != "self" and parameter.kind not in kinds
    }


SECTIONS = {
    "Every layer": ["Layer"],
    "LSTM, GRU, SimpleRNN and their cells": [*RECURRENT, *CELLS],
    "RNN and StackedRNNCells": ["RNN", "StackedRNNCells"],
    "Bidirectional": ["Bidirectional"],
    "TimeDistributed": ["TimeDistributed"],
    "Dense": ["Dense"],
    "Embedding": ["Embedding"],
    "Masking, Dropout, Activation, Flatten": ["Masking", "Dropout", "Activation", "Flatten"],
}


@of_this_version
def test_no_argument_of_keras_is_left_out():
    shared = arguments("Every layer")
    for section, names in SECTIONS.items():
        known = arguments(section) | shared
        if section.startswith("RNN"):
            known |= arguments("LSTM, GRU, SimpleRNN and their cells")
        for name in names:
            layer = getattr(keras.layers, name)
            assert parameters(layer.__init__, layer.call) <= known, name
    whole = keras.Sequential
    for section, functions in {
        "Input": [keras.layers.Input],
        "compile": [whole.compile],
        "fit": [whole.fit],
        "evaluate, predict, train_on_batch, test_on_batch, predict_on_batch": [
            *(whole.evaluate, whole.predict, whole.predict_on_batch),
            *(whole.train_on_batch, whole.test_on_batch),
        ],
        "Files: save, save_weights, load_weights, load_model": [
            *(whole.save, whole.save_weights, whole.load_weights, keras.models.load_model)
        ],
    }.items():
        assert parameters(*functions) <= arguments(section)
    assert arguments("callbacks") == {n for n in keras.callbacks.__dict__ if n[0].isupper()}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row[0].split(',')[0]}: {row[1]}")
def test_row(row, tmp_path, capsys):
    state, remark = ROWS[row]
    check = CHECKS[row[0]][row[1]]
    tg.set_random_seed(1)
    keras.utils.set_random_seed(1)
    taken = inspect.signature(check).parameters
    given = {"folder": tmp_path, "capsys": capsys}
    given = {name: given[name] for name in taken if name in given}
    if state != "refused":
        check(**given)
        return
    kind, message = re.search(r"`(\w+Error): ([^`]*)`", remark).groups()
    pattern = ".*".join(re.escape(part) for part in message.split("..."))
    with pytest.raises(Exception, match=f"(?s)^{pattern}$") as caught:
        check(**given)
    assert caught.type.__name__ == kind


@of_this_version
def test_lists_of_names_that_are_not_offered():
    """Each list is all that Keras has and this package has not."""
    listed = dict(re.findall(r"^- `keras\.([\w.]+)`: (.*?)\.$", PAGE, re.MULTILINE | re.DOTALL))
    for name in listed:
        theirs, ours = keras, tg
        for part in name.split("."):
            theirs, ours = getattr(theirs, part), getattr(ours, part)
        public = {n for n in theirs.__dict__ if not n.startswith("_")}
        if name != "activations":
            public = {n for n in public if n[0].isupper()}
        absent = {n for n in public if not hasattr(ours, n)}
        assert set(re.findall(r"`(\w+)`", listed[name])) == absent, name
    assert len(listed) == 8
    offered = re.search(r"^- Layers: all but (.*?)\.$", PAGE, re.MULTILINE | re.DOTALL)[1]
    both = {n for n in keras.layers.__dict__ if hasattr(tg.layers, n) and n in tg.layers.__all__}
    assert set(re.findall(r"`(\w+)`", offered)) == both - {"deserialize", "serialize"}


def test_porting_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    theirs = model(keras)
    theirs.save("model.keras")
    (example,) = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    scope = {"x": INPUTS}
    exec(example, scope)
    expected = theirs.predict(INPUTS, verbose=0)
    assert close([scope["predictions"]], [expected])
    again = keras.models.load_model("model.keras")
    assert close([again.predict(INPUTS, verbose=0)], [expected])
