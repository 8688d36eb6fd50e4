// Activations by number, as steps need them: finding a name may throw, applying one does not.
#pragma once

#include <string>

#include "kernel_api.hpp"

namespace tidegate {

Activation find_activation(const std::string& name);  // throws Error
template <class T>
void activate(Activation kind, const T* x, int64_t n, T* y) noexcept;

}  // namespace tidegate
