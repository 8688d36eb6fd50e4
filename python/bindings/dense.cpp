#include "arrays.hpp"
#include "module.hpp"
#include "tidegate/layers.hpp"

namespace tidegate::python {
namespace {

struct DenseBase {
  virtual ~DenseBase() = default;
  virtual py::array forward(const py::object& x) const = 0;
};

template <class T>
py::array_t<T> bias_or_none(const py::object& bias, py::ssize_t units) {
  return bias.is_none() ? py::array_t<T>() : checked<T>("dense", "bias", bias, {units});
}

template <class T>
struct DenseOf final : DenseBase {
  DenseOf(const py::array_t<T>& kernel, const py::array_t<T>& bias, bool has_bias)
      : layer(kernel.shape(0), kernel.shape(1), kernel.data(), has_bias ? bias.data() : nullptr) {}
  py::array forward(const py::object& object) const override {
    const auto x = checked<T>("dense", "x", object, {-1, layer.features()});
    py::array_t<T> y(Shape{x.shape(0), static_cast<py::ssize_t>(layer.units())});
    const T* from = x.data();
    T* to = y.mutable_data();
    const int64_t n = x.shape(0);
    py::gil_scoped_release release;
    layer.forward(from, n, to);
    return y;
  }
  Dense<T> layer;
};

template <class T>
std::unique_ptr<DenseBase> make_dense(const py::object& kernel_object,
                                      const py::object& bias_object) {
  const auto kernel = checked<T>("dense", "kernel", kernel_object, {-1, -1});
  const auto bias = bias_or_none<T>(bias_object, kernel.shape(1));
  return std::make_unique<DenseOf<T>>(kernel, bias, !bias_object.is_none());
}

template <class T>
py::dict backward(const py::object& x_object, const py::object& kernel_object,
                  const py::object& d_object, bool inputs, bool bias) {
  const auto kernel = checked<T>("dense_backward", "kernel", kernel_object, {-1, -1});
  const auto x = checked<T>("dense_backward", "x", x_object, {-1, kernel.shape(0)});
  const auto d_y =
      checked<T>("dense_backward", "d_outputs", d_object, {x.shape(0), kernel.shape(1)});
  py::array_t<T> d_x, d_kernel(Shape{kernel.shape(0), kernel.shape(1)}), d_bias;
  if (inputs) d_x = py::array_t<T>(Shape{x.shape(0), x.shape(1)});
  if (bias) d_bias = py::array_t<T>(Shape{kernel.shape(1)});
  T *to_x = inputs ? d_x.mutable_data() : nullptr, *to_kernel = d_kernel.mutable_data(),
    *to_bias = bias ? d_bias.mutable_data() : nullptr;
  const T *from_x = x.data(), *from_kernel = kernel.data(), *from_d = d_y.data();
  const int64_t n = x.shape(0), features = kernel.shape(0), units = kernel.shape(1);
  {
    py::gil_scoped_release release;
    dense_backward<T>(from_x, from_kernel, from_d, n, features, units, to_x, to_kernel, to_bias);
  }
  py::dict result;
  result["inputs"] = inputs ? py::object(d_x) : py::none();
  result["kernel"] = d_kernel;
  result["bias"] = bias ? py::object(d_bias) : py::none();
  return result;
}

template <class T>
py::array activate(const std::string& name, const py::array_t<T>& x) {
  py::array_t<T> y(shape_of(x));
  const T* from = x.data();
  T* to = y.mutable_data();
  const int64_t n = x.size();
  py::gil_scoped_release release;
  activation<T>(name, from, n, to);
  return y;
}

// Over the last axis.
template <class T>
py::array softmax_of(const py::array_t<T>& x, bool logarithm) {
  const Shape shape = shape_of(x);
  if (shape.empty())
    throw py::value_error("softmax: expected x with at least one axis, got a scalar");
  py::array_t<T> y(shape);
  const T* from = x.data();
  T* to = y.mutable_data();
  const int64_t columns = shape.back(), rows = columns ? x.size() / columns : 0;
  py::gil_scoped_release release;
  if (logarithm)
    log_softmax(from, rows, columns, to);
  else
    softmax(from, rows, columns, to);
  return y;
}

template <class T>
py::array activate_backward(const std::string& name, const py::array_t<T>& x,
                            const py::object& d_object) {
  const auto d_y = checked<T>("activation_backward", "d_outputs", d_object, shape_of(x));
  py::array_t<T> d_x(shape_of(x));
  const T *from = x.data(), *d_from = d_y.data();
  T* to = d_x.mutable_data();
  const int64_t n = x.size();
  py::gil_scoped_release release;
  activation_backward<T>(name, from, d_from, n, to);
  return d_x;
}

template <class T>
py::array_t<T> contiguous(const py::object& x) {
  return py::array_t<T, py::array::c_style | py::array::forcecast>::ensure(x);
}

}  // namespace

void bind_dense(py::module_& m) {
  py::class_<DenseBase>(m, "Dense", "y = x @ kernel + bias, with the kernel packed for this CPU.")
      .def(py::init([](const py::object& kernel, const py::object& bias) {
             return is_float32("dense", "kernel", kernel) ? make_dense<float>(kernel, bias)
                                                          : make_dense<double>(kernel, bias);
           }),
           py::arg("kernel"), py::arg("bias") = py::none())
      .def("forward", &DenseBase::forward, py::arg("x"), "x (n, features) -> y (n, units)");
  m.def(
      "dense_backward",
      [](const py::object& x, const py::object& kernel, const py::object& d_outputs, bool inputs,
         bool bias) {
        return is_float32("dense_backward", "kernel", kernel)
                   ? backward<float>(x, kernel, d_outputs, inputs, bias)
                   : backward<double>(x, kernel, d_outputs, inputs, bias);
      },
      py::arg("x"), py::arg("kernel"), py::arg("d_outputs"), py::arg("inputs") = true,
      py::arg("bias") = true, "Gradients of a dense layer: a dict with inputs, kernel, bias.");
  m.def("activations", &activations, "Names of the elementwise activations.");
  m.def(
      "activation",
      [](const std::string& name, const py::object& x) {
        return is_float32("activation", "x", x) ? activate<float>(name, contiguous<float>(x))
                                                : activate<double>(name, contiguous<double>(x));
      },
      py::arg("name"), py::arg("x"));
  for (const bool logarithm : {false, true})
    m.def(
        logarithm ? "log_softmax" : "softmax",
        [logarithm](const py::object& x) {
          return is_float32("softmax", "x", x) ? softmax_of(contiguous<float>(x), logarithm)
                                               : softmax_of(contiguous<double>(x), logarithm);
        },
        py::arg("x"), "Over the last axis.");
  m.def(
      "activation_backward",
      [](const std::string& name, const py::object& x, const py::object& d_outputs) {
        return is_float32("activation_backward", "x", x)
                   ? activate_backward<float>(name, contiguous<float>(x), d_outputs)
                   : activate_backward<double>(name, contiguous<double>(x), d_outputs);
      },
      py::arg("name"), py::arg("x"), py::arg("d_outputs"),
      "d_inputs from x, the activation's input.");
}

}  // namespace tidegate::python
