// What each file of the binding adds to the module.
#pragma once

#include <pybind11/pybind11.h>

namespace tidegate::python {

void bind_runtime(pybind11::module_& m);
void bind_recurrent(pybind11::module_& m);
void bind_dense(pybind11::module_& m);
void bind_optimizer(pybind11::module_& m);
void bind_stream(pybind11::module_& m);

}  // namespace tidegate::python
