"""`Sequential`: a stack of layers, with Keras's training, evaluation, prediction and files."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from . import callbacks as callbacks_module
from . import losses, optimizers
from . import metrics as metrics_module
from .data import Batches, numeric, split_for_validation
from .layers.base import (
    Array,
    Layer,
    Shape,
    call_signature,
    deserialize,
    serialize,
    standard_shape,
    weights_of,
)
from .layers.basic import InputLayer
from .layers.embedding import Embedding
from .layers.recurrent import RNN

__all__ = ["Sequential", "load_model"]

Path = str | os.PathLike[str]

# Names of losses and metrics that mean one of several, depending on the shapes of the data.
_BY_SHAPE = ("accuracy", "acc", "crossentropy", "ce")


def load_model(
    filepath: Path,
    custom_objects: Mapping[str, Any] | None = None,
    compile: bool = True,
    safe_mode: bool = True,
) -> Sequential:
    """A model from a `.keras`, `.safetensors` or legacy `.h5` file.

    Args:
        filepath: Where from.
        custom_objects: Names in the file to classes and functions of the user's.
        compile: Whether to compile the model as it was saved, optimizer state included.
        safe_mode: Accepted as in Keras; nothing in a file is ever executed.

    Raises:
        ValueError: The file is damaged, or holds something unknown here, which is named.
        OSError: It cannot be opened.
    """
    from . import saving

    model: Sequential = saving.load_model(
        filepath, custom_objects, compile, safe_mode, model_class=Sequential
    )
    return model


class _Step:
    """What a training step needs to know of the model, found out once and not in every step."""

    def __init__(self, model: Sequential) -> None:
        walk = list(model._walk())
        self.all_variables, self.variables = weights_of(walk)
        self.regularized = [v for v in self.variables if v.regularizer is not None]
        for variable in self.regularized:
            if not hasattr(variable.regularizer, "gradient"):
                raise ValueError(
                    f"Variable '{variable.path}': expected a regularizer with a method "
                    f"`gradient(value)` for training, got {variable.regularizer!r}"
                )
        self.layers = [layer for layer, _ in walk]
        self.first_trainable = model._first_trainable()


class Sequential(Layer):
    """A stack of layers, each with one input and one output.

    Args:
        layers: The layers, in order; `Input` may come first, or the first has `input_shape=`.
        trainable: Whether the weights are updated in training.
        name: Defaults to "sequential", with a number.

    Raises:
        ValueError: Something is not a layer, or two have the same name.
    """

    _transient = (*Layer._transient, "_step", "_plan", "_latest_mask", "history")

    def __init__(self, layers: Any = None, trainable: bool = True, name: str | None = None) -> None:
        super().__init__(trainable=trainable, name=name)
        self._layers: list[Layer] = []
        self._plan: list[Any] | None = None
        self._step: _Step | None = None
        self._output_shape: Any = None
        self.supports_masking = True
        self.compiled = False
        self.optimizer: Any = None
        self.loss: Any = None
        self.stop_training = False
        self.stop_evaluating = False
        self.stop_predicting = False
        self.history: Any = None
        self._compile_arguments: dict[str, Any] = {}
        self._loss: losses.Loss | None = None
        self._metrics: list[_NamedMetric] | None = None
        self._loss_sum = self._loss_count = 0.0
        self._latest_mask: Any = None  # of the outputs of the latest call
        for layer in layers or ():
            self.add(layer, rebuild=False)
        self._maybe_build()

    # ---- The stack ------------------------------------------------------------------------------

    def add(self, layer: Any, rebuild: bool = True) -> None:
        """Puts `layer` on top.

        Raises:
            ValueError: It is not a layer, or its name is taken.
        """
        if not isinstance(layer, Layer):
            raise ValueError(
                "Only instances of `tidegate.layers.Layer` can be added to a Sequential model. "
                f"Received: {layer} (of type {type(layer)})"
            )
        if any(other.name == layer.name and other is not layer for other in self._layers):
            raise ValueError(
                "All layers added to a Sequential model should have unique names. Name "
                f"'{layer.name}' is already the name of a layer in this model. Update the `name` "
                "argument to pass a unique name."
            )
        if any(other is layer for other in self._layers):
            raise ValueError(
                f"Sequential model '{self.name}': expected layers that differ, "
                f"got '{layer.name}' twice"
            )
        if isinstance(layer, InputLayer) and self._layers:
            if isinstance(self._layers[0], InputLayer):
                raise ValueError(
                    f"Sequential model '{self.name}' has already been configured to use input "
                    f"shape {self._layers[0].batch_shape}. You cannot add a different Input layer "
                    "to it."
                )
            raise ValueError(
                f"Sequential model '{self.name}': expected Input as the first entry, "
                f"got it after '{self._layers[-1].name}'"
            )
        shape = getattr(layer, "_input_shape_arg", None)
        if not self._layers and shape is not None:
            self._layers.append(InputLayer(shape=shape, dtype=layer.dtype))
        self._layers.append(layer)
        self._changed()
        if rebuild:
            self._maybe_build()

    def pop(self, rebuild: bool = True) -> Layer:
        """Takes the last layer off and returns it.

        Raises:
            ValueError: There is none.
        """
        if not self.layers:
            raise ValueError(f"Sequential model '{self.name}': expected a layer to pop, got none")
        layer = self._layers.pop()
        self._changed()
        if rebuild:
            self._maybe_build()
        return layer

    @property
    def layers(self) -> list[Layer]:
        """The layers, without `Input`."""
        return [layer for layer in self._layers if not isinstance(layer, InputLayer)]

    def get_layer(self, name: str | None = None, index: int | None = None) -> Layer:
        """The layer of that name, or at that index.

        Raises:
            ValueError: There is none, or not exactly one argument is given.
        """
        if (name is None) == (index is None):
            raise ValueError(
                f"get_layer: expected either a name or an index, got name={name}, index={index}"
            )
        if index is not None:
            if not -len(self.layers) <= index < len(self.layers):
                raise ValueError(
                    f"Was asked to retrieve layer at index {index} but model only has "
                    f"{len(self.layers)} layers."
                )
            return self.layers[index]
        for layer in self.layers:
            if layer.name == name:
                return layer
        raise ValueError(
            f"No such layer: {name}. Existing layers are: {[layer.name for layer in self.layers]}."
        )

    def _sublayers(self) -> list[Layer]:
        return self.layers

    def _changed(self) -> None:
        self.built = False
        self._locked = False
        self._plan = self._step = None
        self._output_shape = None

    def _maybe_build(self) -> None:
        if len(self._layers) > 1 and isinstance(self._layers[0], InputLayer):
            self.build(self._layers[0].batch_shape)

    def build(self, input_shape: Any = None) -> None:
        """Creates all weights for inputs of this shape, whose entries may be None.

        Raises:
            ValueError: There are no layers, the shape is not that of `Input`, or a layer cannot
                take what the one before gives.
        """
        if not self.layers:
            raise ValueError(
                f"Sequential model {self.name} cannot be built because it has no layers. Call "
                "`model.add(layer)`."
            )
        if input_shape is None:
            raise ValueError(f"Sequential model '{self.name}': expected an input shape, got None")
        shape: Any = standard_shape(input_shape, f"Sequential model '{self.name}' input_shape")
        first = self._layers[0]
        if isinstance(first, InputLayer):
            if first.batch_shape != shape:
                raise ValueError(
                    f"Sequential model '{self.name}' has already been configured to use input "
                    f"shape {first.batch_shape}. You cannot build it with input_shape {shape}"
                )
        else:
            self._layers.insert(0, InputLayer(batch_shape=shape, dtype=first.dtype))
        for layer in self.layers:
            if isinstance(shape, list) or (shape and isinstance(shape[0], tuple | list)):
                raise ValueError(
                    f"Sequential model '{self.name}': expected one output from every layer, got "
                    f"several before '{layer.name}'"
                )
            layer._check_rank(shape)
            if not layer.built:
                layer.build(shape)
            shape = layer.compute_output_shape(shape)
        self._output_shape = shape

    def _build_for(self, inputs: Any) -> None:
        # Only a stateful layer is bound to the batch size of what happens to come first.
        stateful = any(getattr(layer, "stateful", False) for layer in self._flatten_layers())
        shape = np.shape(inputs)
        self.build(shape if stateful else (None, *shape[1:]))

    @property
    def input_shape(self) -> Shape:
        """(batch, ...), None where any length will do.

        Raises:
            AttributeError: The model is not built.
        """
        if not self._layers or not isinstance(self._layers[0], InputLayer):
            raise AttributeError(f"Sequential model '{self.name}' has no defined input shape yet.")
        return self._layers[0].batch_shape

    @property
    def output_shape(self) -> Any:
        """(batch, ...), None where it depends on the inputs.

        Raises:
            AttributeError: The model is not built.
        """
        if self._output_shape is None:
            raise AttributeError(f"Sequential model '{self.name}' has no defined output shape yet.")
        return self._output_shape

    def compute_output_shape(self, input_shape: Any) -> Any:
        """The shape of the outputs for inputs of this shape."""
        shape = input_shape
        for layer in self.layers:
            shape = layer.compute_output_shape(shape)
        return shape

    def compute_mask(self, inputs: Any, previous_mask: Any) -> Any:
        """The mask that the layers make of that of the inputs."""
        return self._run(inputs, previous_mask, False)[1]

    def reset_states(self) -> None:
        """Sets the states of all stateful layers to zero."""
        for layer in self._flatten_layers():
            if isinstance(layer, RNN):
                layer.reset_state()

    # ---- Forward and backward -------------------------------------------------------------------

    def _convert(self, value: Any) -> Any:
        return numeric(value, f"Sequential model '{self.name}' inputs")

    def call(self, inputs: Any, training: Any = None, mask: Any = None) -> Any:
        """The outputs of the last layer."""
        outputs, self._latest_mask = self._run(inputs, mask, bool(training))
        return outputs

    def _run(self, x: Any, mask: Any, training: bool) -> tuple[Any, Any]:
        """The outputs and their mask."""
        if self._plan is None:
            self._plan = [
                (
                    layer,
                    call_signature(type(layer)),
                    layer.supports_masking,
                    type(layer).compute_mask is Layer.compute_mask,
                )
                for layer in self.layers
            ]
        x = self._fitting(x)
        for layer, takes, masks, same_mask in self._plan:
            kwargs: dict[str, Any] = {}
            if takes.takes_training:
                kwargs["training"] = training
            if mask is not None and takes.takes_mask:
                kwargs["mask"] = mask
            y = layer(x, **kwargs)
            if isinstance(layer, Sequential):
                mask = layer._latest_mask
            elif masks and not same_mask:
                mask = layer.compute_mask(x, mask)
            elif not masks:
                mask = None
            x = y
        return x, mask

    def _fitting(self, x: Any) -> Any:
        """x with a last axis of length 1 added or dropped if that makes it fit `Input`."""
        first = self._layers[0]
        if not isinstance(first, InputLayer):
            return x
        expected = first.batch_shape
        if x.ndim != len(expected):
            if x.ndim == len(expected) + 1 and x.shape[-1] == 1:
                x = x[..., 0]
            elif x.ndim == len(expected) - 1 and expected[-1] == 1:
                x = x[..., None]
            else:
                raise ValueError(
                    f"Invalid input shape for model '{self.name}'. Expected shape {expected}, but "
                    f"input has incompatible shape {x.shape}"
                )
        if x.dtype.kind in "iub" and not isinstance(self._layers[1], Embedding):
            return x.astype(first.dtype)
        return x

    def backward(self, d_outputs: Any) -> Any:
        """The gradient of the inputs of the latest call with `training=True`."""
        if self._needs_input_gradient:
            return self._run_backward(d_outputs, -1)
        return self._run_backward(d_outputs, self._first_trainable())

    def _run_backward(self, d: Any, first_trainable: int) -> Any:
        """Backward through the layers; those below `first_trainable` are left out.

        The inputs of that one need no gradient, and what is below has nothing to learn.
        """
        layers = self.layers
        for index in range(len(layers) - 1, max(first_trainable, 0) - 1, -1):
            layer = layers[index]
            if index == first_trainable:
                layer._needs_input_gradient = False
                try:
                    layer.backward(d)
                finally:
                    layer._needs_input_gradient = True
                return None
            d = layer.backward(d)
            if d is None:  # integers, which have no gradient
                return None
        return d

    def _first_trainable(self) -> int:
        layers = self.layers
        return next((i for i, layer in enumerate(layers) if layer.trainable_weights), len(layers))

    # ---- compile --------------------------------------------------------------------------------

    def compile(
        self,
        optimizer: Any = "rmsprop",
        loss: Any = None,
        loss_weights: Any = None,
        metrics: Any = None,
        weighted_metrics: Any = None,
        run_eagerly: bool = False,
        steps_per_execution: int = 1,
        jit_compile: bool | str = "auto",
        auto_scale_loss: bool = True,
    ) -> None:
        """Says how to train.

        Args:
            optimizer: Name or object.
            loss: Name, object or function `(y_true, y_pred)`.
            loss_weights: Factor of the loss.
            metrics: List of names, objects or functions.
            weighted_metrics: The same; these take the sample weights into account.
            run_eagerly, steps_per_execution, jit_compile, auto_scale_loss: Accepted as in Keras;
                they make no difference.

        Raises:
            ValueError: A name is unknown.
        """
        for name, given in (("metrics", metrics), ("weighted_metrics", weighted_metrics)):
            if given is not None and not isinstance(given, list | tuple | dict):
                raise ValueError(
                    f"Expected `{name}` argument to be a list, tuple, or dict. Received instead: "
                    f"{name}={given} of type {type(given)}"
                )
        loss = _only(loss, "loss")
        found = optimizers.get(optimizer)
        if not isinstance(found, optimizers.Optimizer):
            raise ValueError(f"Could not interpret optimizer identifier: {optimizer}")
        if str(loss).lower() not in _BY_SHAPE:
            losses.get(loss)
        for identifier in _entries([metrics or [], weighted_metrics or []]):
            if str(identifier).lower() not in _BY_SHAPE:
                metrics_module.get(identifier)
        self.optimizer = found
        self.loss = loss
        self._compile_arguments = {
            "loss": loss,
            "loss_weights": loss_weights,
            "metrics": metrics,
            "weighted_metrics": weighted_metrics,
            "run_eagerly": run_eagerly,
            "steps_per_execution": steps_per_execution,
            "jit_compile": jit_compile,
        }
        weight = _only(loss_weights, "loss_weights")
        self._loss_weight = 1.0 if weight is None else float(weight)
        self._loss = None
        self._metrics = None
        self._step = None
        self.compiled = True

    def _check_compiled(self) -> None:
        if not self.compiled:
            raise ValueError("You must call `compile()` before using the model.")

    def get_compile_config(self) -> dict[str, Any]:
        """The arguments of `compile` as plain data; empty if it was not called."""
        if not self.compiled:
            return {}
        config = dict(self._compile_arguments)
        for name, module in (
            ("loss", losses),
            ("metrics", metrics_module),
            ("weighted_metrics", metrics_module),
        ):
            config[name] = _serialized_by(module, config[name])
        return {"optimizer": optimizers.serialize(self.optimizer), **config}

    @property
    def metrics(self) -> list[Any]:
        """The metric objects, once there have been data."""
        return [entry.metric for entry in self._metrics or ()]

    @property
    def metrics_names(self) -> list[str]:
        """As Keras 3 has it: "loss", and one name for all metrics."""
        has_metrics = any(
            self._compile_arguments.get(name) for name in ("metrics", "weighted_metrics")
        )
        return ["loss", "compile_metrics"] if has_metrics else ["loss"]

    # ---- One batch ------------------------------------------------------------------------------

    def _prepare(self, y: Any, y_pred: Array) -> None:
        """Finds loss and metrics, some of which depend on the shapes."""
        if self._loss is None and self.loss is not None:
            self._loss = losses.resolve(self.loss, y, y_pred)
        if self._metrics is None:
            taken: set[str] = set()
            self._metrics = []
            for weighted, name in ((False, "metrics"), (True, "weighted_metrics")):
                for identifier in _entries(self._compile_arguments[name] or []):
                    metric = metrics_module.resolve(identifier, y, y_pred)
                    self._metrics.append(_NamedMetric(metric, weighted, taken))

    def _penalties(self, step: _Step) -> float:
        """What layers and regularizers add to the loss."""
        total = 0.0
        for variable in step.regularized:
            total += float(variable.regularizer(variable.value))  # type: ignore[misc]
        for layer in step.layers:
            if layer._losses:
                total += sum(layer._losses)
        return total

    def _train_step(self, x: Any, y: Any, sample_weight: Any) -> None:
        """One update of the weights, and of the running loss and metrics."""
        if not self.built:
            self._build_for(x)
        step = self._step
        if step is None:
            step = self._step = _Step(self)
        for variable in step.all_variables:
            variable.gradient = None
        y_pred = self(x, training=True)
        mask, self._latest_mask = self._latest_mask, None
        if y is not None and (self._loss is None or self._metrics is None):
            self._prepare(y, y_pred)
        penalty = self._penalties(step)
        if self._loss is None or y is None:
            raise ValueError(
                "No loss to compute. Provide a `loss` argument in `compile()`, and targets `y`."
            )
        loss, gradient = self._loss.value_and_gradient(y, y_pred, sample_weight, mask)
        if self._loss_weight != 1.0:
            loss *= self._loss_weight
            gradient = gradient * gradient.dtype.type(self._loss_weight)
        optimizer = self.optimizer
        self._run_backward(gradient, step.first_trainable)
        for layer in step.layers:  # before the next step needs as much again
            layer._saved = None
        for variable in step.regularized:
            variable.add_gradient(variable.regularizer.gradient(variable.value))  # type: ignore[union-attr]
        gradients = [variable.gradient for variable in step.variables]
        if optimizer.loss_scale_factor is not None:
            gradients = [None if g is None else optimizer.scale_loss(g) for g in gradients]
        if step.variables:
            optimizer.apply(gradients, step.variables)
        for variable in step.all_variables:
            variable.gradient = None
        self._record(loss + penalty, y, y_pred, sample_weight, mask)

    def _test_step(self, x: Any, y: Any, sample_weight: Any) -> None:
        """The running loss and metrics with one more batch."""
        if not self.built:
            self._build_for(x)
        y_pred = self(x, training=False)
        mask, self._latest_mask = self._latest_mask, None
        loss = 0.0
        if y is not None:
            self._prepare(y, y_pred)
        if self._loss is not None and y is not None:
            loss = self._loss(y, y_pred, sample_weight, mask) * self._loss_weight
        step = self._step
        if step is None:
            step = self._step = _Step(self)
        self._record(loss + self._penalties(step), y, y_pred, sample_weight, mask)

    def _record(self, loss: float, y: Any, y_pred: Any, sample_weight: Any, mask: Any) -> None:
        count = len(y_pred)
        self._loss_sum += loss * count
        self._loss_count += count
        for entry in self._metrics or ():
            options = {"mask": mask} if mask is not None else {}
            if entry.weighted and sample_weight is not None:
                options["sample_weight"] = sample_weight
            entry.metric.update_state(y, y_pred, **options)

    def reset_metrics(self) -> None:
        """Starts the running loss and metrics anew."""
        self._loss_sum = self._loss_count = 0.0
        for entry in self._metrics or ():
            entry.metric.reset_state()

    def _logs(self) -> dict[str, Any]:
        """The running loss and metrics."""
        loss = self._loss_sum / self._loss_count if self._loss_count else 0.0
        logs: dict[str, Any] = {"loss": loss}
        for entry in self._metrics or ():
            result = entry.metric.result()
            logs[entry.name] = float(result) if np.ndim(result) == 0 else result
        return logs

    def train_on_batch(
        self,
        x: Any,
        y: Any = None,
        sample_weight: Any = None,
        class_weight: Any = None,
        return_dict: bool = False,
    ) -> Any:
        """One update of the weights.

        Returns:
            The loss of this batch, before the update; with metrics a list with their values, too;
            with `return_dict` a dict.

        Raises:
            ValueError, TypeError: As `fit`.
        """
        self._check_compiled()
        batch = next(iter(Batches(x, y, sample_weight, len(x), class_weight=class_weight)))
        self._step = None  # what is trainable may have changed
        self.reset_metrics()
        self._train_step(*batch)
        return _returned(self._logs(), return_dict)

    def test_on_batch(
        self, x: Any, y: Any = None, sample_weight: Any = None, return_dict: bool = False
    ) -> Any:
        """Loss and metrics of one batch, in the form of `train_on_batch`."""
        self._check_compiled()
        batch = next(iter(Batches(x, y, sample_weight, len(x))))
        self._step = None
        self.reset_metrics()
        self._test_step(*batch)
        return _returned(self._logs(), return_dict)

    def predict_on_batch(self, x: Any) -> Any:
        """The outputs for one batch."""
        return self(numeric(x, "x"), training=False)

    # ---- fit, evaluate, predict -----------------------------------------------------------------

    def fit(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        epochs: int = 1,
        verbose: int | str = "auto",
        callbacks: Any = None,
        validation_split: float = 0.0,
        validation_data: Any = None,
        shuffle: bool | str = True,
        class_weight: Any = None,
        sample_weight: Any = None,
        initial_epoch: int = 0,
        steps_per_epoch: int | None = None,
        validation_steps: int | None = None,
        validation_batch_size: int | None = None,
        validation_freq: Any = 1,
    ) -> Any:
        """Trains the model.

        Args:
            x: Inputs (samples, ...), or a generator, iterable or data set of batches (x, y) or
                (x, y, sample_weight).
            y: Targets (samples, ...).
            batch_size: Samples per update, 32 by default; the last batch may be smaller.
            epochs: Number of the last epoch; also the count, as `initial_epoch` is 0.
            verbose: 0 silent, 1 a bar, 2 a line per epoch; "auto" is 1 in a terminal, else 2.
            callbacks: A list of callbacks.
            validation_split: Fraction of the samples, the last ones, to validate with.
            validation_data: (x, y) or (x, y, sample_weight) to validate with, or what gives them.
            shuffle: Whether the samples are taken in another order every epoch.
            class_weight: Dict from class number to the weight of its samples.
            sample_weight: Weights (samples,) or (samples, time).
            initial_epoch: Number of the first epoch, to go on with an earlier training.
            steps_per_epoch: Batches per epoch, if not all.
            validation_steps, validation_batch_size: The same for validation.
            validation_freq: Validate every so many epochs, or in those of a list.

        Returns:
            The `History`: its `history` has a list of numbers, one per epoch, for "loss" and the
            metrics, and for "val_loss" and so on.

        Raises:
            ValueError: The model is not compiled, sizes do not fit, there are no samples, or a
                layer has no `backward`.
            TypeError: An array is not numeric.
        """
        self._check_compiled()
        for name, number in (("epochs", epochs), ("initial_epoch", initial_epoch)):
            if not isinstance(number, int | np.integer) or number < 0:
                raise ValueError(f"{name}: expected an integer from 0 on, got {number!r}")
        if validation_split and validation_data is None:
            (x, y, sample_weight), validation_data = split_for_validation(
                x, y, sample_weight, validation_split
            )
        batches = Batches(
            x,
            y,
            sample_weight,
            batch_size,
            steps_per_epoch,
            shuffle,
            class_weight,
            self._data_dtype(),
        )
        validation = None
        if validation_data is not None:
            validation = self._validation_batches(
                validation_data, validation_batch_size or batch_size, validation_steps
            )
        if not self.built:
            self._build_for(batches.first()[0])
        self._check_trainable()
        self.stop_training = False
        handler = self._callback_list(
            callbacks,
            add_history=True,
            verbose=verbose,
            epochs=epochs,
            steps=batches.num_batches,
        )
        handler.on_train_begin()
        logs: dict[str, Any] = {}
        try:
            for epoch in range(initial_epoch, epochs):
                self.reset_metrics()
                self._step = None  # a callback may have changed what is trainable
                handler.on_epoch_begin(epoch)
                for index, batch in enumerate(batches):
                    handler.on_train_batch_begin(index)
                    self._train_step(*batch)
                    handler.on_train_batch_end(index, self._logs())
                    if self.stop_training:
                        break
                if batches.exhausted:
                    break
                logs = self._logs()
                if validation is not None and _is_due(epoch, validation_freq):
                    found = self._evaluate(validation, handler)
                    logs.update({f"val_{name}": value for name, value in found.items()})
                handler.on_epoch_end(epoch, logs)
                if self.stop_training:
                    break
        finally:
            self._forget()
            if self.optimizer.built:
                self.optimizer.finalize_variable_values(self.trainable_weights)
        handler.on_train_end(logs)
        return self.history

    def _data_dtype(self) -> Any:
        """What floats in the data are cast to once, instead of in every batch."""
        first = self.layers[0] if self.layers else self
        return None if isinstance(first, Embedding) else first.dtype

    def _validation_batches(self, data: Any, batch_size: int | None, steps: int | None) -> Batches:
        x, y, weight = data, None, None
        if isinstance(data, tuple | list):
            if not 1 <= len(data) <= 3:
                raise ValueError(
                    "validation_data: expected (x, y) or (x, y, sample_weight), "
                    f"got {len(data)} entries"
                )
            x, y, weight = (*data, None, None)[:3]
        if not isinstance(data, tuple | list):
            batch_size = None
        return Batches(x, y, weight, batch_size, steps, dtype=self._data_dtype())

    def _check_trainable(self) -> None:
        """Raises ValueError, before anything changes, if a layer cannot be trained through."""
        for layer in self.layers[self._first_trainable() :]:
            for inner in (layer, *getattr(layer, "_sublayers", list)()):
                if type(inner).backward is Layer.backward and (
                    inner is layer or type(layer).backward is Layer.backward
                ):
                    inner.backward(None)

    def _callback_list(self, given: Any, add_history: bool, verbose: Any, **params: Any) -> Any:
        if isinstance(given, callbacks_module.CallbackList):
            return given
        return callbacks_module.CallbackList(
            given,
            add_history=add_history,
            add_progbar=verbose != 0,
            model=self,
            verbose=verbose,
            **params,
        )

    def _evaluate(self, batches: Batches, handler: Any) -> dict[str, Any]:
        self.stop_evaluating = False
        handler.on_test_begin()
        self.reset_metrics()
        logs: dict[str, Any] = {}
        for index, batch in enumerate(batches):
            handler.on_test_batch_begin(index)
            self._test_step(*batch)
            logs = self._logs()
            handler.on_test_batch_end(index, logs)
            if self.stop_evaluating:
                break
        handler.on_test_end(logs)
        return logs

    def evaluate(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        verbose: int | str = "auto",
        sample_weight: Any = None,
        steps: int | None = None,
        callbacks: Any = None,
        return_dict: bool = False,
    ) -> Any:
        """Loss and metrics over data, as in `fit`.

        Returns:
            The loss; with metrics a list with their values, too; with `return_dict` a dict.

        Raises:
            ValueError, TypeError: As `fit`.
        """
        self._check_compiled()
        batches = Batches(x, y, sample_weight, batch_size, steps, dtype=self._data_dtype())
        self._step = None
        handler = self._callback_list(
            callbacks, add_history=False, verbose=verbose, epochs=1, steps=batches.num_batches
        )
        return _returned(self._evaluate(batches, handler), return_dict)

    def predict(
        self,
        x: Any,
        batch_size: int | None = None,
        verbose: int | str = "auto",
        steps: int | None = None,
        callbacks: Any = None,
    ) -> Any:
        """The outputs for all inputs.

        Args:
            x: Inputs (samples, ...), or what gives batches, whose targets are left alone.
            batch_size: Samples per call, 32 by default.
            verbose: As in `fit`.
            steps: Batches, if not all.
            callbacks: A list of callbacks.

        Returns:
            (samples, ...); for no samples an empty array.

        Raises:
            ValueError: Shapes do not fit.
            TypeError: The inputs are not numeric.
        """
        if isinstance(x, np.ndarray) and x.ndim > 0 and len(x) == 0:
            return self(x, training=False)
        batches = Batches(x, None, None, batch_size, steps, dtype=self._data_dtype())
        handler = self._callback_list(
            callbacks, add_history=False, verbose=verbose, epochs=1, steps=batches.num_batches
        )
        self.stop_predicting = False
        handler.on_predict_begin()
        outputs: list[Any] = []
        for index, (inputs, _, _) in enumerate(batches):
            handler.on_predict_batch_begin(index)
            outputs.append(self(inputs, training=False))
            handler.on_predict_batch_end(index, {"outputs": outputs[-1]})
            if self.stop_predicting:
                break
        handler.on_predict_end()
        if isinstance(outputs[0], tuple | list):
            return type(outputs[0])(np.concatenate(parts) for parts in zip(*outputs, strict=True))
        return np.concatenate(outputs)

    def stream(self, batch_size: int = 1) -> Any:
        """A `Stream`, which takes one time step after another; see there.

        Args:
            batch_size: Sequences side by side.
        """
        from .streaming import Stream

        return Stream(self, batch_size)

    # ---- Files and configuration ----------------------------------------------------------------

    def save(self, filepath: Path, overwrite: bool = True) -> None:
        """Writes the model to a file, `.keras` or `.safetensors`.

        Raises:
            ValueError: Another extension, or something the format cannot hold.
            OSError: The file cannot be written.
        """
        from . import saving

        saving.save_model(self, filepath, overwrite)

    def save_weights(self, filepath: Path, overwrite: bool = True) -> None:
        """Writes the weights, and the optimizer's state, to a `.weights.h5` file."""
        from . import saving

        saving.save_weights(self, filepath, overwrite)

    def load_weights(
        self, filepath: Path, skip_mismatch: bool = False, by_name: bool = False
    ) -> None:
        """Reads the weights from a `.weights.h5`, `.keras` or legacy `.h5` file.

        Args:
            filepath: Where from.
            skip_mismatch: Whether layers that do not fit are left out, with a warning.
            by_name: For legacy files: whether layers are matched by name, not by order.

        Raises:
            ValueError: They do not fit, or the file is damaged; the model is unchanged then.
            OSError: The file cannot be opened.
        """
        from . import saving

        saving.load_weights(self, filepath, skip_mismatch, by_name)

    def get_config(self) -> dict[str, Any]:
        """Name and layers, as Keras writes them."""
        config = super().get_config()
        config["layers"] = [serialize(layer) for layer in self._layers]
        if self.built:
            config["build_input_shape"] = self.input_shape
        return config

    @classmethod
    def from_config(
        cls, config: Mapping[str, Any], custom_objects: Mapping[str, Any] | None = None
    ) -> Sequential:
        """A new model from what `get_config` gave.

        Raises:
            ValueError: `config` has no name or layers, or one of them is unknown.
        """
        if "name" not in config or "layers" not in config:
            raise ValueError(
                "A Sequential model configuration must be a dictionary containing the 'name' and "
                f"'layers' keys. Received: config={config}"
            )
        model = cls(name=config["name"], trainable=config.get("trainable", True))
        for layer in config["layers"]:
            model.add(deserialize(layer, custom_objects))
        shape = config.get("build_input_shape")
        if not model.built and shape and model.layers:
            model.build(tuple(shape))
        return model

    def summary(
        self,
        line_length: int | None = None,
        positions: Any = None,
        print_fn: Callable[[str], Any] | None = None,
        expand_nested: bool = False,
        show_trainable: bool = False,
        layer_range: Any = None,
    ) -> None:
        """Prints a table of the layers, their output shapes and numbers of parameters.

        Args:
            line_length: Width of the table.
            positions: Fractions of it at which the columns end.
            print_fn: Called with the text instead of printing it.
            expand_nested: Whether to list the layers inside layers, too.
            show_trainable: Whether to add a column that says what is trainable.
            layer_range: Names (or patterns) of the first and the last layer to list.

        Raises:
            ValueError: `layer_range` names no layers, or the table is too narrow.
        """
        from .summary import print_summary

        print_summary(
            self, line_length, positions, print_fn, expand_nested, show_trainable, layer_range
        )


class _NamedMetric:
    """A metric under the name it has in logs, which is its own if that is not taken."""

    def __init__(self, metric: Any, weighted: bool, taken: set[str]) -> None:
        self.metric = metric
        self.weighted = weighted
        name = metric.name
        if weighted and name in taken:
            name = f"weighted_{name}"
        stem, number = name, 0
        while name in taken:
            number += 1
            name = f"{stem}_{number}"
        taken.add(name)
        self.name = name


def _is_config(value: Any) -> bool:
    return isinstance(value, Mapping) and "class_name" in value


def _entries(value: Any) -> list[Any]:
    """What lists, and dicts by output, hold; a config, which is a dict too, is an entry."""
    if _is_config(value) or not isinstance(value, list | tuple | Mapping):
        return [value]
    inner = value.values() if isinstance(value, Mapping) else value
    return [entry for item in inner for entry in _entries(item)]


def _only(value: Any, subject: str) -> Any:
    """`value`, or the only entry where it is a list or a dict by output."""
    entries = _entries(value)
    if len(entries) != 1:
        raise ValueError(
            f"{subject}: expected one, as a Sequential has one output, got {len(entries)}"
        )
    return entries[0]


def _serialized_by(module: Any, value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_serialized_by(module, entry) for entry in value]
    if _is_config(value) or value is None or isinstance(value, str):
        return value
    if isinstance(value, Mapping):
        return {key: _serialized_by(module, entry) for key, entry in value.items()}
    return module.serialize(value)


def _returned(logs: dict[str, Any], return_dict: bool) -> Any:
    if return_dict:
        return logs
    values = list(logs.values())
    return values[0] if len(values) == 1 else values


def _is_due(epoch: int, frequency: Any) -> bool:
    """Whether `validation_freq` asks for validation after this epoch, counted from 0.

    Raises:
        ValueError: It is neither a number of epochs nor a list of them.
    """
    if isinstance(frequency, int) and frequency > 0:
        return (epoch + 1) % frequency == 0
    if isinstance(frequency, list | tuple | set):
        return epoch + 1 in frequency
    raise ValueError(
        "Expected `validation_freq` to be a list or int. "
        f"Received: validation_freq={frequency} of the type {type(frequency)}."
    )
