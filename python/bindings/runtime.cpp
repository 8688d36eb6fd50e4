#include "tidegate/runtime.hpp"

#include <pybind11/stl.h>

#include "arrays.hpp"
#include "dispatch.hpp"
#include "module.hpp"
#include "team.hpp"

namespace tidegate::python {
namespace py = pybind11;

void bind_runtime(py::module_& m) {
  m.def("get_num_threads", &get_num_threads, "Threads a call may use.");
  m.def("set_num_threads", &set_num_threads, py::arg("n"),
        "Set the threads a call may use, 1 to 4096.");
  m.def("isa", &isa, "The instruction set that runs.");
  m.def("available_isas", &available_isas,
        "The instruction sets built in that this CPU has, best first.");
  m.attr("version") = version();
  m.def(
      "config",
      [] {
        py::dict config;
        config["isa"] = isa();
        config["isas"] = available_isas();
        config["threads"] = get_num_threads();
        config["compiler"] = __VERSION__;
        return config;
      },
      "What runs here: instruction set, those this CPU could run (best first), threads, compiler.");
  // What this machine can do at most, for `tidegate bench`; the GIL is free, so Python threads can
  // add up.
  m.def(
      "probe_multiply_add",
      [](int64_t iterations) {
        float sink;
        return kernels<float>().probe_multiply_add(iterations, &sink);
      },
      py::arg("iterations"), py::call_guard<py::gil_scoped_release>(),
      "Independent float32 multiply-adds in registers; returns the operations done.");
  m.def(
      "probe_read",
      [](const py::array_t<float, py::array::c_style>& x, int64_t repeats) {
        const float* data = x.data();
        const int64_t size = x.size();
        const py::gil_scoped_release free;
        float sink;
        return kernels<float>().probe_read(data, size, repeats, &sink);
      },
      py::arg("x").noconvert(), py::arg("repeats"),
      "Reads x again and again; returns the bytes read.");
  m.def("_set_parallel_threshold", &set_parallel_threshold, py::arg("flops"),
        "Operations below which a call stays on one thread; for tests.");
}

}  // namespace tidegate::python
