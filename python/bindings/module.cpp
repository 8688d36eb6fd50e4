// tidegate._core: a list of what it offers.
#include "module.hpp"

#include "tidegate/runtime.hpp"

namespace py = pybind11;

// No function here keeps state of its own: the library takes care of many threads calling at once.
PYBIND11_MODULE(_core, m, py::mod_gil_not_used()) {
  m.doc() = "The compiled engine of tidegate.";
  try {
    tidegate::isa();
    tidegate::get_num_threads();
  } catch (const tidegate::Error& error) {
    throw py::import_error(error.what());
  }
  py::register_exception_translator([](std::exception_ptr pending) {
    try {
      if (pending) std::rethrow_exception(pending);
    } catch (const tidegate::Error& error) {
      PyErr_SetString(PyExc_ValueError, error.what());
    }
  });
  tidegate::python::bind_runtime(m);
  tidegate::python::bind_recurrent(m);
  tidegate::python::bind_dense(m);
  tidegate::python::bind_optimizer(m);
  tidegate::python::bind_stream(m);
}
