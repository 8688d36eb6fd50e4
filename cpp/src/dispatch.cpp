#include "dispatch.hpp"

#include <cstdlib>

#include "isa_list.hpp"  // generated: TIDEGATE_FOR_EACH_ISA, best first
#include "tidegate/runtime.hpp"

namespace tidegate {

#define TIDEGATE_DECLARE(isa)                        \
  const KernelTable<float>* kernels_##isa##_float(); \
  const KernelTable<double>* kernels_##isa##_double();
TIDEGATE_FOR_EACH_ISA(TIDEGATE_DECLARE)
#undef TIDEGATE_DECLARE

namespace {

struct Isa {
  const char* name;
  const KernelTable<float>* (*single)();
  const KernelTable<double>* (*twice)();
};
constexpr Isa kIsas[] = {
#define TIDEGATE_ROW(isa) {#isa, kernels_##isa##_float, kernels_##isa##_double},
    TIDEGATE_FOR_EACH_ISA(TIDEGATE_ROW)
#undef TIDEGATE_ROW
};

// By the compiler's run-time, which asks CPUID and XGETBV: the CPU has it and the system saves its
// registers.
bool cpu_has(const std::string& isa) {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (isa == "avx512")
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("fma");
  if (isa == "avx2") return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#endif
  return isa == "sse2" || isa == "neon";  // the baselines of their architectures
}

const Isa& choose() {
  const char* wanted = std::getenv("TIDEGATE_ISA");
  std::string available;
  for (const Isa& isa : kIsas) {
    if (!cpu_has(isa.name)) continue;
    if (!wanted || !*wanted || isa.name == std::string(wanted)) return isa;
    available += (available.empty() ? "" : ", ") + std::string(isa.name);
  }
  throw Error("TIDEGATE_ISA: expected one of those this CPU has (" + available + "), got '" +
              wanted + "'");
}

const Isa& chosen() {
  static const Isa& isa = choose();
  return isa;
}

}  // namespace

template <>
const KernelTable<float>& kernels<float>() {
  static const KernelTable<float>& table = *chosen().single();
  return table;
}
template <>
const KernelTable<double>& kernels<double>() {
  static const KernelTable<double>& table = *chosen().twice();
  return table;
}

const char* isa() { return chosen().name; }

std::vector<std::string> available_isas() {
  std::vector<std::string> names;
  for (const Isa& isa : kIsas)
    if (cpu_has(isa.name)) names.push_back(isa.name);
  return names;
}

const char* version() { return TIDEGATE_VERSION; }

}  // namespace tidegate
