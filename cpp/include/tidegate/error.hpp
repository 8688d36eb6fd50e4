#pragma once

#include <stdexcept>
#include <string>

#include "tidegate/export.hpp"

namespace tidegate {

// What every function of the library throws on bad input: `subject: what was expected, what came`.
// Nothing has changed when it is thrown.
class TIDEGATE_API Error : public std::runtime_error {
 public:
  explicit Error(const std::string& what) : std::runtime_error(what) {}
};

// A call that was asked to stop (runtime.hpp) did.
class TIDEGATE_API Interrupted : public Error {
 public:
  Interrupted() : Error("tidegate: the call was interrupted") {}
};

}  // namespace tidegate
