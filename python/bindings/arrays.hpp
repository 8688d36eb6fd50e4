// NumPy arrays as checked views: the only place that asks about shapes and dtypes of what a caller
// passed.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <initializer_list>
#include <string>
#include <vector>

namespace tidegate::python {

namespace py = pybind11;
using Shape = std::vector<py::ssize_t>;

inline std::string to_string(const Shape& shape) {  // -1: any
  std::string text = "(";
  for (size_t i = 0; i < shape.size(); ++i)
    text += (i ? ", " : "") + (shape[i] < 0 ? std::string("any") : std::to_string(shape[i]));
  return text + (shape.size() == 1 ? ",)" : ")");
}
inline Shape shape_of(const py::array& array) {
  return {array.shape(), array.shape() + array.ndim()};
}

template <class T>
constexpr const char* dtype_name() {
  return sizeof(T) == 4 ? "float32" : "float64";
}

// `object` as a C-contiguous array of T (copied where its strides are others) with the shape
// wanted.
template <class T>
py::array_t<T> checked(const std::string& subject, const char* what, const py::handle& object,
                       const Shape& wanted) {
  if (!py::isinstance<py::array>(object))
    throw py::type_error(subject + ": expected " + what + " to be a NumPy array, got " +
                         std::string(py::str(py::type::of(object).attr("__name__"))));
  const auto array = py::reinterpret_borrow<py::array>(object);
  if (!array.dtype().is(py::dtype::of<T>()) && !array.dtype().equal(py::dtype::of<T>()))
    throw py::type_error(subject + ": expected " + what + " of dtype " +
                         std::string(py::str(py::dtype::of<T>())) + ", got " +
                         std::string(py::str(array.dtype())));
  const Shape shape = shape_of(array);
  bool fits = shape.size() == wanted.size();
  for (size_t i = 0; fits && i < shape.size(); ++i) fits = wanted[i] < 0 || wanted[i] == shape[i];
  if (!fits)
    throw py::value_error(subject + ": expected " + what + " with shape " + to_string(wanted) +
                          ", got " + to_string(shape));
  return py::array_t<T, py::array::c_style | py::array::forcecast>::ensure(array);
}

inline bool is_float32(const std::string& subject, const char* what, const py::handle& object) {
  if (!py::isinstance<py::array>(object))
    throw py::type_error(subject + ": expected " + what + " to be a NumPy array, got " +
                         std::string(py::str(py::type::of(object).attr("__name__"))));
  const auto dtype = py::reinterpret_borrow<py::array>(object).dtype();
  if (dtype.equal(py::dtype::of<float>())) return true;
  if (dtype.equal(py::dtype::of<double>())) return false;
  throw py::type_error(subject + ": expected " + what + " of dtype float32 or float64, got " +
                       std::string(py::str(dtype)));
}

}  // namespace tidegate::python
