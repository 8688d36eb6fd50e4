#include <atomic>
#include <chrono>
#include <memory>

#include "arrays.hpp"
#include "module.hpp"
#include "tidegate/layers.hpp"

namespace tidegate::python {
namespace {

// Lets Ctrl-C end a long call: Python's signal handlers run between chunks of work, at most some
// times a second.
class Signals {
 public:
  Poll poll() { return {ask, this}; }

 private:
  static bool ask(void* data) {
    auto& self = *static_cast<Signals*>(data);
    const auto now = std::chrono::steady_clock::now();
    if (now < self.next_) return false;
    self.next_ = now + std::chrono::milliseconds(100);
    py::gil_scoped_acquire acquire;
    return PyErr_CheckSignals() != 0;
  }
  std::chrono::steady_clock::time_point next_ =
      std::chrono::steady_clock::now() + std::chrono::milliseconds(100);
};

// Runs f without the GIL; an interrupt surfaces as the exception that its handler raised.
template <class F>
void without_gil(F f) {
  try {
    py::gil_scoped_release release;
    f();
  } catch (const Interrupted&) {
    if (PyErr_Occurred()) throw py::error_already_set();
    throw;
  }
}

struct CallOptions {
  py::object initial_state, mask;
  bool return_sequences, go_backwards, zero_output_for_mask;
  py::object input_dropout, recurrent_dropout;
};

// A call with its arguments checked and its results allocated. Runs once.
struct CallBase {
  virtual ~CallBase() = default;
  virtual py::object run() = 0;
  virtual py::tuple run_with(CallBase& other) = 0;
};

struct ContextBase : std::enable_shared_from_this<ContextBase> {
  virtual ~ContextBase() = default;
  virtual std::unique_ptr<CallBase> backward(const py::object& d_outputs,
                                             const py::object& d_states, bool inputs) const = 0;
};

struct RecurrentBase : std::enable_shared_from_this<RecurrentBase> {
  virtual ~RecurrentBase() = default;
  virtual std::unique_ptr<CallBase> forward(const py::object& x, const CallOptions& options,
                                            bool training) = 0;
  virtual std::string cell() const = 0;
  virtual int64_t features() const = 0;
  virtual int64_t units() const = 0;
  virtual py::dtype dtype() const = 0;
};

CellDescription cell_named(const std::string& name) {
  std::string all;
  for (const auto& cell : cells()) {
    if (cell.name == name) return cell;
    all += (all.empty() ? "" : ", ") + cell.name;
  }
  throw py::value_error("cell: expected one of " + all + ", got '" + name + "'");
}

// A list of `count` arrays (batch, units), or None in their places.
template <class T>
std::vector<py::array_t<T>> state_list(const std::string& subject, const char* what,
                                       const py::object& object, int count, const Shape& shape,
                                       const T** pointers) {
  std::vector<py::array_t<T>> arrays;
  if (object.is_none()) return arrays;
  if (!py::isinstance<py::sequence>(object) || py::isinstance<py::array>(object) ||
      py::isinstance<py::str>(object))
    throw py::type_error(subject + ": expected " + what + " to be a list of " +
                         std::to_string(count) + " arrays, got " +
                         std::string(py::str(py::type::of(object).attr("__name__"))));
  const auto list = py::reinterpret_borrow<py::sequence>(object);
  if (static_cast<int>(list.size()) != count)
    throw py::value_error(subject + ": expected " + what + " to hold " + std::to_string(count) +
                          " arrays, got " + std::to_string(list.size()));
  for (int s = 0; s < count; ++s) {
    const py::object item = list[s];
    if (item.is_none()) continue;
    arrays.push_back(checked<T>(subject, what, item, shape));
    pointers[s] = arrays.back().data();
  }
  return arrays;
}

// What derives from this has call(poll) and call_both(other, poll), without the GIL, and result().
template <class Self>
struct CallOf : CallBase {
  py::object run() final {
    start();
    Signals signals;
    without_gil([&] { self().call(signals.poll()); });
    return self().result();
  }
  py::tuple run_with(CallBase& other_call) final {
    auto* other = dynamic_cast<Self*>(&other_call);
    if (!other)
      throw py::type_error("run_both: expected calls of the same kind and dtype, got others");
    start();
    other->start();
    Signals signals;
    without_gil([&] { self().call_both(*other, signals.poll()); });
    return py::make_tuple(self().result(), other->result());
  }

 private:
  Self& self() { return static_cast<Self&>(*this); }
  void start() {
    if (started.exchange(true))
      throw py::value_error("call: expected one that has not run, got one that has");
  }
  std::atomic<bool> started{false};
};

template <class T>
struct RecurrentOf;

template <class T>
struct ContextOf final : ContextBase {
  std::shared_ptr<RecurrentOf<T>> layer;
  py::object x, mask, input_dropout, recurrent_dropout;
  Context<T> context;
  py::ssize_t batch = 0, time = 0;
  bool return_sequences = true;

  std::unique_ptr<CallBase> backward(const py::object& d_outputs, const py::object& d_states,
                                     bool inputs) const override;
};

template <class T>
struct BackwardCallOf final : CallOf<BackwardCallOf<T>> {
  std::shared_ptr<const ContextBase> context;
  std::vector<py::array_t<T>> keeps;  // what comes in
  BackwardCall<T> core;
  py::dict results;

  void call(Poll poll) { core.layer->backward(*core.context, core.d_output, core.gradients, poll); }
  void call_both(BackwardCallOf& other, Poll poll) {
    Recurrent<T>::backward_both(core, other.core, poll);
  }
  py::object result() { return results; }
};

template <class T>
std::unique_ptr<CallBase> ContextOf<T>::backward(const py::object& d_outputs_object,
                                                 const py::object& d_states, bool inputs) const {
  const auto& core = layer->layer;
  const std::string subject = core.cell().name + " backward";
  const py::ssize_t units = core.units(), features = core.features();
  const py::ssize_t columns = core.cell().gates * units;
  const int states = core.cell().states;
  auto call = std::make_unique<BackwardCallOf<T>>();
  call->context = shared_from_this();
  call->core.layer = &core, call->core.context = &context;
  SequenceGradients<T>& d_out = call->core.d_output;
  LayerGradients<T>& gradients = call->core.gradients;
  call->keeps =
      state_list<T>(subject, "d_states", d_states, states, {batch, units}, d_out.final_state);
  if (!d_outputs_object.is_none()) {
    call->keeps.push_back(
        checked<T>(subject, "d_outputs", d_outputs_object,
                   return_sequences ? Shape{batch, time, units} : Shape{batch, units}));
    (return_sequences ? d_out.outputs : d_out.last_output) = call->keeps.back().data();
  }
  const auto result = [&](const char* name, const Shape& shape) {
    py::array_t<T> array(shape);
    call->results[name] = array;
    return array.mutable_data();
  };
  for (const char* name : {"inputs", "bias"}) call->results[name] = py::none();
  if (inputs) gradients.x = result("inputs", {batch, time, features});
  gradients.kernel = result("kernel", {features, columns});
  gradients.recurrent_kernel = result("recurrent_kernel", {units, columns});
  if (layer->has_bias)
    gradients.bias =
        result("bias", core.cell().bias_rows == 2 ? Shape{2, columns} : Shape{columns});
  py::list d_initial;
  for (int s = 0; s < states; ++s) {
    py::array_t<T> d(Shape{batch, units});
    gradients.initial_state[s] = d.mutable_data();
    d_initial.append(d);
  }
  call->results["initial_state"] = d_initial;
  return call;
}

template <class T>
struct ForwardCallOf final : CallOf<ForwardCallOf<T>> {
  std::shared_ptr<RecurrentOf<T>> layer;
  std::vector<py::array_t<T>> keeps;  // the initial states
  py::object x, mask, input_dropout, recurrent_dropout, outputs;
  ForwardCall<T> core;
  py::list final_states;
  std::unique_ptr<ContextOf<T>> context;

  void pack() {
    if (context)
      layer->layer.prepare_training(layer->kernel.data(), layer->recurrent_kernel.data());
  }
  void call(Poll poll) {
    pack();
    core.layer->forward(core.input, core.output, core.context, poll);
  }
  void call_both(ForwardCallOf& other, Poll poll) {
    pack();
    other.pack();
    Recurrent<T>::forward_both(core, other.core, poll);
  }
  py::object result() {
    if (!context) return py::make_tuple(outputs, final_states);
    return py::make_tuple(outputs, final_states, std::shared_ptr<ContextBase>(std::move(context)));
  }
};

template <class T>
struct RecurrentOf final : RecurrentBase {
  RecurrentOf(const CellDescription& cell, const py::array_t<T>& kernel,
              const py::array_t<T>& recurrent_kernel, const py::array_t<T>& bias, bool has_bias,
              const std::string& activation, const std::string& recurrent_activation)
      : has_bias(has_bias),
        kernel(kernel),
        recurrent_kernel(recurrent_kernel),
        layer(cell.name, kernel.shape(0), recurrent_kernel.shape(0), kernel.data(),
              recurrent_kernel.data(), has_bias ? bias.data() : nullptr, activation,
              recurrent_activation) {}

  std::unique_ptr<CallBase> forward(const py::object& x_object, const CallOptions& options,
                                    bool training) override {
    const std::string& subject = layer.cell().name;
    const py::ssize_t units = layer.units();
    const int states = layer.cell().states, gates = layer.cell().gates;
    auto call = std::make_unique<ForwardCallOf<T>>();
    call->layer = std::static_pointer_cast<RecurrentOf<T>>(shared_from_this());
    const auto x = checked<T>(subject, "x", x_object, {-1, -1, layer.features()});
    const py::ssize_t batch = x.shape(0), time = x.shape(1);
    if (time == 0)
      throw py::value_error(subject + ": expected at least one time step, got x with shape " +
                            to_string(shape_of(x)));
    call->x = x;
    call->core.layer = &layer;
    SequenceInput<T>& in = call->core.input;
    in.batch = batch, in.time = time;
    in.x = x.data();
    in.go_backwards = options.go_backwards, in.zero_output_for_mask = options.zero_output_for_mask;
    call->keeps = state_list<T>(subject, "initial_state", options.initial_state, states,
                                {batch, units}, in.initial_state);
    if (!options.mask.is_none()) {
      if (!py::isinstance<py::array_t<bool>>(options.mask))
        throw py::type_error(subject + ": expected mask to be a NumPy array of dtype bool, got " +
                             std::string(py::str(py::type::of(options.mask).attr("__name__"))));
      const auto flags = checked<bool>(subject, "mask", options.mask, {batch, time});
      in.mask = reinterpret_cast<const uint8_t*>(flags.data());
      call->mask = flags;
    }
    if (!options.input_dropout.is_none()) {
      const auto factors = checked<T>(subject, "input_dropout", options.input_dropout,
                                      {gates, batch, static_cast<py::ssize_t>(layer.features())});
      in.input_dropout = factors.data();
      call->input_dropout = factors;
    }
    if (!options.recurrent_dropout.is_none()) {
      const auto factors = checked<T>(subject, "recurrent_dropout", options.recurrent_dropout,
                                      {gates, batch, units});
      in.recurrent_dropout = factors.data();
      call->recurrent_dropout = factors;
    }
    py::array_t<T> outputs(options.return_sequences ? Shape{batch, time, units}
                                                    : Shape{batch, units});
    SequenceOutput<T>& out = call->core.output;
    (options.return_sequences ? out.outputs : out.last_output) = outputs.mutable_data();
    call->outputs = outputs;
    for (int s = 0; s < states; ++s) {
      py::array_t<T> state(Shape{batch, units});
      out.final_state[s] = state.mutable_data();
      call->final_states.append(state);
    }
    if (training) {
      call->context = std::make_unique<ContextOf<T>>();
      ContextOf<T>& context = *call->context;
      context.layer = call->layer, context.x = call->x, context.mask = call->mask,
      context.input_dropout = call->input_dropout,
      context.recurrent_dropout = call->recurrent_dropout;
      context.batch = batch, context.time = time;
      context.return_sequences = options.return_sequences;
      call->core.context = &context.context;
    }
    return call;
  }
  std::string cell() const override { return layer.cell().name; }
  int64_t features() const override { return layer.features(); }
  int64_t units() const override { return layer.units(); }
  py::dtype dtype() const override { return py::dtype::of<T>(); }

  const bool has_bias;
  const py::array_t<T> kernel, recurrent_kernel;  // for prepare_training
  Recurrent<T> layer;
};

template <class T>
std::shared_ptr<RecurrentBase> make(const std::string& name, const py::object& kernel_object,
                                    const py::object& recurrent_object,
                                    const py::object& bias_object, const std::string& activation,
                                    const std::string& recurrent_activation) {
  const CellDescription cell = cell_named(name);
  const auto recurrent = checked<T>(name, "recurrent_kernel", recurrent_object, {-1, -1});
  const py::ssize_t units = recurrent.shape(0), columns = cell.gates * units;
  if (units < 1 || recurrent.shape(1) != columns)
    throw py::value_error(name + ": expected recurrent_kernel with shape (units, " +
                          std::to_string(cell.gates) + " * units), got " +
                          to_string(shape_of(recurrent)));
  const auto kernel = checked<T>(name, "kernel", kernel_object, {-1, columns});
  if (kernel.shape(0) < 1)
    throw py::value_error(name + ": expected kernel with at least one row, got shape " +
                          to_string(shape_of(kernel)));
  py::array_t<T> bias;
  if (!bias_object.is_none())
    bias = checked<T>(name, "bias", bias_object,
                      cell.bias_rows == 2 ? Shape{2, columns} : Shape{columns});
  return std::make_shared<RecurrentOf<T>>(cell, kernel, recurrent, bias, !bias_object.is_none(),
                                          activation, recurrent_activation);
}

}  // namespace

void bind_recurrent(py::module_& m) {
  m.def("cells", [] {
    py::dict all;
    for (const auto& cell : cells())
      all[py::str(cell.name)] =
          py::dict(py::arg("gates") = cell.gates, py::arg("states") = cell.states,
                   py::arg("bias_rows") = cell.bias_rows);
    return all;
  });
  py::class_<CallBase>(m, "Call", "A call made ready for run_both. Runs once.");
  m.def(
      "run_both", [](CallBase& one, CallBase& other) { return one.run_with(other); },
      py::arg("one"), py::arg("other"),
      "The results of two calls, side by side where that is faster; the same bits as by "
      "themselves.");
  py::class_<ContextBase, std::shared_ptr<ContextBase>> context(
      m, "Context", "What a forward call leaves for backward; may be used many times.");
  const auto bind_backward = [&](const char* name, auto call) {
    context.def(
        name,
        [call](const ContextBase& self, const py::object& d_outputs, const py::object& d_states,
               bool inputs) { return call(self.backward(d_outputs, d_states, inputs)); },
        py::arg("d_outputs") = py::none(), py::arg("d_states") = py::none(),
        py::arg("inputs") = true,
        "A dict with the gradients: inputs, kernel, recurrent_kernel, bias, initial_state.");
  };
  const auto now = [](std::unique_ptr<CallBase> call) { return call->run(); };
  const auto later = [](std::unique_ptr<CallBase> call) { return call; };
  bind_backward("backward", now);
  bind_backward("prepare_backward", later);
  auto recurrent =
      py::class_<RecurrentBase, std::shared_ptr<RecurrentBase>>(
          m, "Recurrent", "A recurrent layer's weights, packed for this CPU. Immutable.")
          .def(py::init([](const std::string& cell, const py::object& kernel,
                           const py::object& recurrent_kernel, const py::object& bias,
                           const std::string& activation, const std::string& recurrent_activation) {
                 return is_float32(cell, "kernel", kernel)
                            ? make<float>(cell, kernel, recurrent_kernel, bias, activation,
                                          recurrent_activation)
                            : make<double>(cell, kernel, recurrent_kernel, bias, activation,
                                           recurrent_activation);
               }),
               py::arg("cell"), py::arg("kernel"), py::arg("recurrent_kernel"),
               py::arg("bias") = py::none(), py::arg("activation") = "tanh",
               py::arg("recurrent_activation") = "sigmoid")
          .def_property_readonly("cell", &RecurrentBase::cell)
          .def_property_readonly("features", &RecurrentBase::features)
          .def_property_readonly("units", &RecurrentBase::units)
          .def_property_readonly("dtype", &RecurrentBase::dtype);
  const auto bind_forward = [&](const char* name, bool training, auto call) {
    recurrent.def(
        name,
        [training, call](RecurrentBase& self, const py::object& x, const py::object& initial_state,
                         const py::object& mask, bool return_sequences, bool go_backwards,
                         bool zero_output_for_mask, const py::object& input_dropout,
                         const py::object& recurrent_dropout) {
          return call(self.forward(x,
                                   {initial_state, mask, return_sequences, go_backwards,
                                    zero_output_for_mask, input_dropout, recurrent_dropout},
                                   training));
        },
        py::arg("x"), py::arg("initial_state") = py::none(), py::arg("mask") = py::none(),
        py::arg("return_sequences") = true, py::arg("go_backwards") = false,
        py::arg("zero_output_for_mask") = false, py::arg("input_dropout") = py::none(),
        py::arg("recurrent_dropout") = py::none());
  };
  bind_forward("forward", false, now);
  bind_forward("forward_training", true, now);
  bind_forward("prepare_forward", false, later);
  bind_forward("prepare_forward_training", true, later);
}

}  // namespace tidegate::python
