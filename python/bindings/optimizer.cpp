#include "tidegate/optimizer.hpp"

#include <memory>

#include "arrays.hpp"
#include "module.hpp"

namespace tidegate::python {
namespace {

struct UpdaterBase {
  virtual ~UpdaterBase() = default;
  virtual void step(const py::sequence& gradients, const std::vector<double>& coefficients,
                    double decay, double decay_rate) const = 0;
};

RuleDescription rule_named(const std::string& name) {
  std::string all;
  for (const auto& rule : update_rules()) {
    if (rule.name == name) return rule;
    all += (all.empty() ? "" : ", ") + rule.name;
  }
  throw py::value_error("rule: expected one of " + all + ", got '" + name + "'");
}

void check_count(const std::string& subject, const char* what, size_t expected, size_t got) {
  if (expected != got)
    throw py::value_error(subject + ": expected " + std::to_string(expected) + " " + what +
                          ", got " + std::to_string(got));
}

// An array that will be written into, so it must not be copied.
template <class T>
py::array_t<T> writable(const std::string& subject, const char* what, const py::handle& object,
                        const Shape& shape) {
  auto array = checked<T>(subject, what, object, shape);
  if (!array.is(object) || !array.writeable())
    throw py::value_error(subject + ": expected " + what +
                          " to be a contiguous array that may be written to, got another");
  return array;
}

template <class T>
struct UpdaterOf final : UpdaterBase {
  UpdaterOf(const RuleDescription& rule, const py::sequence& weights, const py::sequence& slots,
            const std::vector<bool>& decays)
      : rule(rule) {
    check_count(rule.name, "lists of slots", weights.size(), slots.size());
    check_count(rule.name, "decays", weights.size(), decays.size());
    for (size_t i = 0; i < weights.size(); ++i) {
      VariableUpdate<T> variable;
      const auto array = py::reinterpret_borrow<py::object>(weights[i]);
      if (!py::isinstance<py::array>(array))
        throw py::type_error(rule.name + ": expected weights to be NumPy arrays");
      const Shape shape = shape_of(py::reinterpret_borrow<py::array>(array));
      kept.push_back(writable<T>(rule.name, "weights", array, shape));
      shapes.push_back(shape);
      variable.size = kept.back().size();
      variable.weights = kept.back().mutable_data();
      variable.decays = decays[i];
      const auto own = py::reinterpret_borrow<py::sequence>(slots[i]);
      check_count(rule.name, "slots", static_cast<size_t>(rule.slots), own.size());
      for (int s = 0; s < rule.slots; ++s) {
        const py::object slot = own[static_cast<size_t>(s)];
        kept.push_back(writable<T>(rule.name, "a slot", slot, shape));
        variable.slots[s] = kept.back().mutable_data();
      }
      variables.push_back(variable);
    }
  }

  void step(const py::sequence& gradients, const std::vector<double>& coefficients, double decay,
            double decay_rate) const override {
    check_count(rule.name, "gradients", variables.size(), gradients.size());
    check_count(rule.name, "coefficients", static_cast<size_t>(rule.coefficients),
                coefficients.size());
    std::vector<VariableUpdate<T>> used;
    std::vector<py::array_t<T>> arrays;
    used.reserve(variables.size()), arrays.reserve(variables.size());
    for (size_t i = 0; i < variables.size(); ++i) {
      const py::object gradient = gradients[i];
      if (gradient.is_none()) continue;
      arrays.push_back(checked<T>(rule.name, "a gradient", gradient, shapes[i]));
      used.push_back(variables[i]);
      used.back().gradient = arrays.back().data();
    }
    const std::vector<T> numbers(coefficients.begin(), coefficients.end());
    const UpdateStep<T> step{numbers.data(), static_cast<T>(decay), static_cast<T>(decay_rate)};
    py::gil_scoped_release release;
    update(rule.name, step, used.data(), static_cast<int64_t>(used.size()));
  }

  const RuleDescription rule;
  std::vector<py::array_t<T>> kept;  // weights and slots, whose memory is written to
  std::vector<Shape> shapes;
  std::vector<VariableUpdate<T>> variables;
};

}  // namespace

void bind_optimizer(py::module_& m) {
  m.def("update_rules", [] {
    py::dict all;
    for (const auto& rule : update_rules())
      all[py::str(rule.name)] =
          py::dict(py::arg("slots") = rule.slots, py::arg("coefficients") = rule.coefficients);
    return all;
  });
  py::class_<UpdaterBase>(m, "Updater",
                          "Variables of one dtype and their slots, written into by every step.")
      .def(py::init([](const std::string& rule_name, const py::sequence& weights,
                       const py::sequence& slots,
                       const std::vector<bool>& decays) -> std::unique_ptr<UpdaterBase> {
             const RuleDescription rule = rule_named(rule_name);
             if (weights.size() == 0 || is_float32(rule_name, "weights", py::object(weights[0])))
               return std::make_unique<UpdaterOf<float>>(rule, weights, slots, decays);
             return std::make_unique<UpdaterOf<double>>(rule, weights, slots, decays);
           }),
           py::arg("rule"), py::arg("weights"), py::arg("slots"), py::arg("decays"))
      .def("step", &UpdaterBase::step, py::arg("gradients"), py::arg("coefficients"),
           py::arg("decay") = 0.0, py::arg("decay_rate") = 0.0,
           "One step; a gradient that is None leaves its variable alone.");
}

}  // namespace tidegate::python
