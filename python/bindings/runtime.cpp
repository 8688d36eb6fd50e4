#include "tidegate/runtime.hpp"

#include <pybind11/stl.h>

#include "module.hpp"
#include "team.hpp"

namespace tidegate::python {
namespace py = pybind11;

void bind_runtime(py::module_& m) {
  m.def("get_num_threads", &get_num_threads, "Threads a call may use.");
  m.def("set_num_threads", &set_num_threads, py::arg("n"), "Set the threads a call may use, 1 to 4096.");
  m.def("isa", &isa, "The instruction set that runs.");
  m.def("available_isas", &available_isas, "The instruction sets built in that this CPU has, best first.");
  m.attr("version") = version();
  m.def("_set_parallel_threshold", &set_parallel_threshold, py::arg("flops"),
        "Operations below which a call stays on one thread; for tests.");
}

}  // namespace tidegate::python
