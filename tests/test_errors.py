"""Bad input of any kind gives an error that says what was expected and what came."""

import numpy as np
import pytest

import tidegate as tg
from tidegate import layers

X = np.zeros((2, 3, 4), "float32")
Y = np.zeros(2)


def model(*stack, **changes):
    stack = stack or (layers.Input((3, 4)), layers.LSTM(2, name="rnn"), layers.Dense(1))
    made = tg.Sequential(list(stack), name="m")
    made.compile(**{"optimizer": "sgd", "loss": "mse", **changes})
    return made


def fit(x=X, y=Y, **kwargs):
    return model().fit(x, y, **{"verbose": 0, **kwargs})


def cell(**attributes):
    return type("Cell", (), attributes)()


def called_twice(layer, first, second):
    layer(first)
    return layer(second)


def built_twice():
    layer = layers.Dense(2)
    layer.build((1, 3))
    layer.add_weight((2,))


def no_init():
    class Bad(layers.Layer):
        def __init__(self):
            pass

        def call(self, inputs):
            return inputs

    Bad()(X)


NOT_ELEMENTWISE = "LSTMCell: expected `activation` to be an elementwise activation known by name"
CONSTRUCTORS = {
    "units_zero": (lambda: layers.LSTM(0), "expected a positive integer, got 0"),
    "units_negative": (lambda: layers.GRU(-3), "expected a positive integer, got -3"),
    "units_fraction": (lambda: layers.SimpleRNN(2.5), "expected a positive integer, got 2.5"),
    "units_text": (lambda: layers.LSTM("a"), TypeError, "positive integer, got 'a'"),
    "units_none": (lambda: layers.DualStateGRU(None), TypeError, "positive integer, got None"),
    "units_huge": (lambda: layers.LSTM(2**62).build((1, 1, 1)), ""),
    "dense_units": (lambda: layers.Dense(0), "Received: units=0"),
    "dense_fraction": (lambda: layers.Dense(2.0), "Received: units=2.0"),
    "unknown": (lambda: layers.LSTM(2, foo=1), r"passed to LSTM: \{'foo': 1\}"),
    "batch_input_shape": (lambda: layers.GRU(2, batch_input_shape=(1, 2, 3)), "Unrecognized"),
    "time_major": (lambda: layers.GRU(2, time_major=True), "Unrecognized keyword arguments"),
    "implementation": (lambda: layers.SimpleRNN(2, implementation=1), "Unrecognized keyword"),
    "use_cudnn": (lambda: layers.LSTM(2, use_cudnn=3), "Expected one of {'auto', True, False}"),
    "cudnn": (lambda: layers.GRU(2, use_cudnn=True), "there is no cuDNN on a CPU, got True"),
    "activation": (lambda: layers.LSTM(2, activation="foo"), "function identifier: foo"),
    "softmax": (lambda: layers.LSTM(2, activation="softmax"), NOT_ELEMENTWISE),
    "function": (lambda: layers.LSTM(2, activation=lambda v: v), NOT_ELEMENTWISE),
    "initializer": (lambda: layers.LSTM(2, bias_initializer="foo"), "initializer identifier: foo"),
    "regularizer": (lambda: layers.GRU(2, kernel_regularizer="foo"), "identifier: foo"),
    "constraint": (lambda: layers.Dense(2, kernel_constraint="foo"), "identifier: foo"),
    "dtype": (lambda: layers.LSTM(2, dtype="int8"), "expected dtype 'float32' or 'float64', got"),
    "dtype_name": (lambda: layers.Dense(2, dtype="foo"), "'float64', got 'foo'"),
    "name": (lambda: layers.Dense(2, name=3), "Received: name=3"),
    "name_path": (lambda: layers.Dense(2, name="a/b"), "cannot contain character `/`"),
    "trainable": (lambda: layers.Dense(2, trainable="yes"), "Received: trainable=yes"),
    "dropout": (lambda: layers.LSTM(2, dropout="a"), "a number from 0 to 1, got 'a'"),
    "dropout_nan": (lambda: layers.LSTM(2, recurrent_dropout=np.nan), "number from 0 to 1, got"),
    "rate": (lambda: layers.Dropout(1.5), "Received: rate=1.5"),
    "rate_text": (lambda: layers.Dropout("a"), "Received: rate=a"),
    "no_call": (lambda: layers.RNN(3), "Argument `cell` should have a `call` method"),
    "no_state_size": (lambda: layers.RNN(cell(call=len)), "should have a `state_size` attribute"),
    "state_size": (lambda: layers.RNN(cell(call=len, state_size="a")), "must be an integer, or a"),
    "stack": (lambda: layers.StackedRNNCells([3]), "All cells must have a `call` method"),
    "empty_stack": (lambda: layers.RNN([]), "expected at least one cell, got"),
    "bidirectional": (lambda: layers.Bidirectional(3), "instance. Received: 3"),
    "not_recurrent": (lambda: layers.Bidirectional(layers.Dense(2)), "expected a recurrent layer"),
    "merge_mode": (
        lambda: layers.Bidirectional(layers.LSTM(2), merge_mode="x"),
        "Invalid merge mode. Received: x",
    ),
    "same_direction": (
        lambda: layers.Bidirectional(layers.LSTM(2), backward_layer=layers.LSTM(2)),
        "should have different `go_backwards` value",
    ),
    "different_layers": (
        lambda: layers.Bidirectional(
            layers.LSTM(2),
            backward_layer=layers.LSTM(2, go_backwards=True, return_sequences=True),
        ),
        'same value for attribute "return_sequences", got "False" for forward',
    ),
    "time_distributed": (lambda: layers.TimeDistributed(3), "instance. Received: 3"),
    "stateful_inside": (
        lambda: layers.TimeDistributed(layers.LSTM(2, stateful=True)),
        "expected a layer without states",
    ),
    "embedding": (lambda: layers.Embedding(0, 2), "`input_dim` must be a positive integer"),
    "flatten": (lambda: layers.Flatten("foo"), "'channels_first', got 'foo'"),
    "input": (lambda: layers.Input(), "You must pass a `shape` argument"),
    "input_twice": (lambda: layers.Input((3,), batch_shape=(1, 3)), "both `shape` and"),
    "input_text": (lambda: layers.Input("abc"), "Input shape: expected a shape"),
    "input_fraction": (lambda: layers.Input((2.5,)), r"got \(2.5,\)"),
    "input_negative": (lambda: layers.Input((-1,)), r"got \(-1,\)"),
    "config": (lambda: layers.deserialize(3), "expected a dict with 'class_name', got 3"),
    "config_class": (
        lambda: layers.deserialize({"class_name": "Foo", "config": {}}),
        "expected a layer known here .*, got 'Foo'",
    ),
    "config_argument": (
        lambda: layers.deserialize({"class_name": "LSTM", "config": {"units": 2, "foo": 1}}),
        r"passed to LSTM: \{'foo': 1\}",
    ),
}

CALLS = {
    "rank": (lambda: layers.LSTM(2, name="a")(X[0]), "of layer 'a' is incompatible.*ndim=3, found"),
    "rank_rnn": (lambda: layers.RNN(layers.LSTMCell(2))(X[0]), "expected min_ndim=3, found ndim=2"),
    "rank_dense": (lambda: layers.Dense(2)(X[0, 0]), "expected min_ndim=2, found ndim=1"),
    "features": (
        lambda: called_twice(layers.GRU(2, name="a"), X, X[:, :, :3]),
        r"Layer 'a' inputs: expected shape \(batch, time, 4\), got \(2, 3, 3\)",
    ),
    "features_dense": (
        lambda: called_twice(layers.Dense(2, name="a"), X, X[:, :, :3]),
        r"Layer 'a' inputs: expected shape \(batch, ..., 4\), got \(2, 3, 3\)",
    ),
    "no_steps": (lambda: layers.LSTM(2)(X[:, :0]), r"at least one time step, got \(2, 0, 4\)"),
    "no_steps_users": (
        lambda: layers.RNN(cell(call=len, state_size=2))(X[:, :0]),
        "at least one time step",
    ),
    "objects": (
        lambda: layers.LSTM(2)(np.array([[["a"]]], object)),
        TypeError,
        "expected an array of numbers, got ndarray of dtype object",
    ),
    "text": (lambda: layers.LSTM(2)([[["a"]]]), TypeError, "got list of dtype <U1"),
    "complex": (lambda: layers.LSTM(2)(X + 1j), TypeError, "of dtype complex64"),
    "ragged": (lambda: layers.LSTM(2)([[[1, 2], [3]]]), "expected an array, got"),
    "none": (lambda: layers.LSTM(2)(None), TypeError, "got NoneType"),
    "nothing": (lambda: layers.LSTM(2)(), TypeError, "expected the argument `sequences`, got none"),
    "layer": (
        lambda: layers.LSTM(2)(layers.Input((3, 4))),
        TypeError,
        "there is no functional API here",
    ),
    "few_states": (
        lambda: layers.LSTM(2)(X, initial_state=[Y]),
        r"initial_state: expected 2 state\(s\), got 1",
    ),
    "state_width": (
        lambda: layers.LSTM(2, name="a")(X, initial_state=[np.zeros((2, 3))] * 2),
        r"Layer 'a' initial_state 0: expected shape \(2, 2\), got \(2, 3\)",
    ),
    "state_batch": (
        lambda: layers.GRU(2)(X, initial_state=np.zeros((3, 2))),
        r"initial_state 0: expected shape \(2, 2\), got \(3, 2\)",
    ),
    "states_bidirectional": (
        lambda: layers.Bidirectional(layers.LSTM(2))(X, initial_state=[1]),
        "expected a list of 4 states, the forward layer's first, got 1",
    ),
    "mask": (
        lambda: layers.LSTM(2)(X, mask=np.ones((2, 4), bool)),
        r"mask: expected shape \(2, 3\), got \(2, 4\)",
    ),
    "mask_text": (lambda: layers.LSTM(2)(X, mask="a"), TypeError, "expected booleans or numbers"),
    "index": (lambda: layers.Embedding(3, 2)([[3]]), "expected indices from 0 to 2, got 3 to 3"),
    "index_negative": (lambda: layers.Embedding(3, 2)([[-1]]), "from 0 to 2, got -1 to -1"),
    "index_nan": (lambda: layers.Embedding(3, 2)([[np.nan]]), "expected indices"),
    "index_text": (lambda: layers.Embedding(3, 2)([["a"]]), TypeError, "expected an array of ind"),
    "stateful_batch": (
        lambda: called_twice(layers.LSTM(2, stateful=True), X, X[:1]),
        "Expected batch size: 2\n- Received batch size: 1",
    ),
    "reset_state": (
        lambda: layers.Bidirectional(layers.LSTM(2)).reset_state(),
        AttributeError,
        "Layer must be stateful",
    ),
    "backward_first": (lambda: layers.LSTM(2).backward(X), "expected a call with training=True"),
    "no_super_init": (no_init, TypeError, "call super"),
    "late_weight": (built_twice, "You cannot add new elements of state"),
    "count_params": (lambda: layers.LSTM(2).count_params(), "but the layer isn't built"),
    "weights_number": (lambda: model().set_weights([1]), "length 1, but the layer was expecting 5"),
    "weights_shape": (lambda: model().set_weights([Y] * 5), "is not compatible with provided"),
    "weights_text": (
        lambda: model().layers[1].set_weights([[["a"], ["b"]], ["c"]]),
        TypeError,
        "expected numbers",
    ),
    "step_shape": (lambda: layers.TimeDistributed(layers.Dense(2))(X[0]), "at least 3 dimensions"),
}

MODELS = {
    "not_a_layer": (lambda: model().add(3), "can be added to a Sequential model. Received: 3"),
    "same_name": (lambda: model().add(layers.Dense(2, name="rnn")), "should have unique names"),
    "two_inputs": (lambda: model().add(layers.Input((3,))), "already been configured"),
    "late_input": (
        lambda: tg.Sequential([layers.LSTM(2), layers.Input((3,))]),
        "expected Input as the first entry",
    ),
    "pop": (lambda: tg.Sequential().pop(), "expected a layer to pop, got none"),
    "empty": (lambda: tg.Sequential()(X), "because it has no layers"),
    "several_outputs": (
        lambda: model(layers.Input((3, 4)), layers.LSTM(2, return_state=True), layers.Dense(1)),
        "expected one output from every layer, got several before 'dense",
    ),
    "sequence_missing": (
        lambda: model(layers.Input((3, 4)), layers.LSTM(2), layers.LSTM(2, name="b")),
        r"of layer 'b' is incompatible.*expected ndim=3, found ndim=2",
    ),
    "stateful": (
        lambda: model(layers.Input((3, 4)), layers.LSTM(2, stateful=True), layers.Dense(1)),
        "the batch size must be static",
    ),
    "other_shape": (lambda: model().build((None, 9)), "You cannot build it with input_shape"),
    "no_shape": (lambda: tg.Sequential([layers.LSTM(2)]).build(), "expected an input shape, got"),
    "text_shape": (lambda: tg.Sequential([layers.LSTM(2)]).build("ab"), "expected a shape, a tupl"),
    "no_features": (
        lambda: tg.Sequential([layers.LSTM(2)]).build((None, None, None)),
        "expected a known number of features",
    ),
    "layer_name": (lambda: model().get_layer("zz"), "No such layer: zz"),
    "layer_index": (lambda: model().get_layer(index=9), "model only has 2 layers"),
    "config": (lambda: tg.Sequential.from_config({}), "the 'name' and 'layers' keys"),
    "optimizer": (lambda: model(optimizer="foo"), "optimizer identifier: foo"),
    "loss": (lambda: model(loss="foo"), "loss identifier: foo"),
    "losses": (lambda: model(loss=["mse", "mae"]), "loss: expected one, .* got 2"),
    "metrics": (lambda: model(metrics="mae"), "Expected `metrics` argument to be a list"),
    "metric": (lambda: model(metrics=["foo"]), "metric identifier: foo"),
    "not_compiled": (lambda: tg.Sequential([layers.LSTM(2)]).fit(X, Y), "You must call `compile"),
    "no_loss": (lambda: model(loss=None).fit(X, Y, verbose=0), "No loss to compute"),
    "no_targets": (lambda: fit(y=None), "No loss to compute"),
    "cardinality": (
        lambda: fit(y=np.zeros(5)),
        "Data cardinality is ambiguous.*'x' sizes: 2\n'y' sizes: 5",
    ),
    "no_samples": (lambda: fit(X[:0], Y[:0]), r"at least one sample, got shape \(0, 3, 4\)"),
    "no_x": (lambda: fit(None), "x: expected data, got None"),
    "number": (lambda: fit(3), TypeError, "x: expected an array, an iterable of batches, or"),
    "text_x": (lambda: fit(["a", "b"]), TypeError, "x: expected an array of numbers, got list"),
    "text_y": (lambda: fit(y=["a", "b"]), TypeError, "y: expected an array of numbers"),
    "objects": (lambda: fit(np.array([X, None], object)), TypeError, "of dtype object"),
    "features": (lambda: fit(np.zeros((2, 3, 9))), r"expected shape \(batch, time, 4\), got"),
    "rank": (lambda: fit(np.zeros((2, 3, 4, 5))), "incompatible shape"),
    "no_steps": (lambda: fit(X[:, :0]), "at least one time step"),
    "both_weights": (
        lambda: fit(class_weight={0: 1}, sample_weight=Y),
        "You cannot `class_weight` and `sample_weight` at the same time",
    ),
    "class_key": (lambda: fit(class_weight={"a": 1}), "expected integers as keys, got 'a'"),
    "class_list": (lambda: fit(class_weight=[1]), TypeError, "expected a dict, got list"),
    "weight_shape": (lambda: fit(sample_weight=np.zeros((2, 7))), "sample_weight"),
    "split_small": (lambda: fit(validation_split=0.99), "contains 2 samples, which is not suff"),
    "split": (lambda: fit(validation_split=2), "a number between 0 and 1, got 2"),
    "split_generator": (
        lambda: fit(iter([]), None, validation_split=0.5),
        "only supported for arrays",
    ),
    "batch_size": (lambda: fit(batch_size=0), "batch_size: expected a positive integer, got 0"),
    "batch_fraction": (lambda: fit(batch_size=2.5), "positive integer, got 2.5"),
    "epochs": (lambda: fit(epochs="a"), "epochs: expected an integer from 0 on, got 'a'"),
    "steps": (lambda: fit(steps_per_epoch=0), "steps: expected a positive integer, got 0"),
    "frequency": (
        lambda: fit(validation_data=(X, Y), validation_freq="a"),
        "Expected `validation_freq` to be a list or int",
    ),
    "verbose": (lambda: fit(verbose=7), "verbose: expected 'auto', 0, 1 or 2, got 7"),
    "callback": (lambda: fit(callbacks=[3]), TypeError, "callbacks: expected Callback objects"),
    "targets_twice": (lambda: fit(iter([(X, Y)])), "`y` should not be passed when x gives whole"),
    "no_batches": (lambda: fit(iter([]), None), "at least one batch, got an empty list_iterator"),
    "four": (lambda: fit(iter([(X, Y, Y, Y)]), None), "got a tuple of 4"),
    "predict_text": (lambda: model().predict("abc"), TypeError, "x: expected an array of numbers"),
    "predict_nothing": (lambda: model().predict(iter([]), verbose=0), "at least one batch"),
}

OTHERS = {
    "threads": (lambda: tg.set_num_threads(0), "expected at least 1 thread, got 0"),
    "threads_fraction": (lambda: tg.set_num_threads(1.5), TypeError, "an integer, got 1.5"),
    "seed": (lambda: tg.set_random_seed(-1), "got -1"),
    "name": (lambda: tg.foo, AttributeError, "has no attribute 'foo'"),
    "layer_name": (lambda: layers.LSTM(2).foo, AttributeError, "'LSTM' object has no attribute"),
}


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, id=f"{group}-{name}")
        for group, cases in (
            ("constructors", CONSTRUCTORS),
            ("calls", CALLS),
            ("models", MODELS),
            ("others", OTHERS),
        )
        for name, case in cases.items()
    ],
)
def test_refused(case):
    function, *error, message = case
    with pytest.raises(error[0] if error else ValueError, match=f"(?s){message}"):
        function()


def test_a_failed_fit_leaves_the_weights():
    made = model()
    before = made.get_weights()
    for x, y in ((np.zeros((2, 3, 9)), Y), (X, np.zeros(5)), (X, ["a", "b"])):
        with pytest.raises((ValueError, TypeError)):
            made.fit(x, y, verbose=0)
    assert all(np.array_equal(a, b) for a, b in zip(before, made.get_weights(), strict=True))
