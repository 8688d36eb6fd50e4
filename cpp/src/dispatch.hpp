// Which kernels run: chosen once per process.
#pragma once

#include "kernel_api.hpp"

namespace tidegate {

template <class T>
const KernelTable<T>& kernels();  // throws Error where TIDEGATE_ISA cannot be had

}  // namespace tidegate
