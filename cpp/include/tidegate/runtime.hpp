// Threads and instruction sets of the process.
#pragma once

#include <string>
#include <vector>

#include "tidegate/error.hpp"

namespace tidegate {

// How many threads a call may use. Default: TIDEGATE_NUM_THREADS, else what affinity and the
// cgroup's quota allow. n may be above the number of cores; small calls use fewer, and so do calls
// on a machine whose cores are busy. Results do not depend on it, bit for bit.
TIDEGATE_API int get_num_threads();
TIDEGATE_API void set_num_threads(int n);

// The instruction set that runs ("avx512", "avx2", "sse2", "neon"): the best this CPU has, or
// TIDEGATE_ISA. Throws Error where that names one that is unknown or that this CPU lacks.
TIDEGATE_API const char* isa();
TIDEGATE_API std::vector<std::string> available_isas();

TIDEGATE_API const char* version();

}  // namespace tidegate
