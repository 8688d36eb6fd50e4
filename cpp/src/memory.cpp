#include "memory.hpp"

#include <pthread.h>

#include <cstdlib>
#include <mutex>
#include <unordered_map>
#include <vector>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace tidegate {
namespace {

constexpr size_t kHugePage = size_t(1) << 21, kSmallest = 4096, kMostKept = size_t(512) << 20;

// Sizes are rounded up to a quarter of a power of two, so that slightly different calls share their
// memory.
size_t size_class(size_t bytes) {
  if (bytes <= kSmallest) return kSmallest;
  size_t step = kSmallest / 4;
  while (step * 8 < bytes) step *= 2;
  return (bytes + step - 1) / step * step;
}

struct Kept {
  std::mutex mutex;
  std::unordered_map<size_t, std::vector<void*>> by_size;
  size_t total = 0;
};
Kept& kept() {
  // Never destroyed: buffers may be given back during the process's exit. A fork waits for the
  // lock, so that the child finds it free.
  static Kept* all = [] {
    auto* made = new Kept;
    pthread_atfork([] { kept().mutex.lock(); }, [] { kept().mutex.unlock(); },
                   [] { kept().mutex.unlock(); });
    return made;
  }();
  return *all;
}

}  // namespace

void* take_memory(size_t bytes) {
  const size_t size = size_class(bytes);
  {
    Kept& all = kept();
    std::lock_guard<std::mutex> lock(all.mutex);
    auto& free = all.by_size[size];
    if (!free.empty()) {
      void* memory = free.back();
      free.pop_back();
      all.total -= size;
      return memory;
    }
  }
  const bool huge = size >= kHugePage;
  void* memory = nullptr;
  if (posix_memalign(&memory, huge ? kHugePage : 64, size) != 0) throw std::bad_alloc();
#if defined(__linux__)
  if (huge) madvise(memory, size, MADV_HUGEPAGE);
#endif
  return memory;
}

void give_memory(void* memory, size_t bytes) noexcept {
  const size_t size = size_class(bytes);
  Kept& all = kept();
  {
    std::lock_guard<std::mutex> lock(all.mutex);
    if (all.total + size <= kMostKept) {
      try {
        all.by_size[size].push_back(memory);
        all.total += size;
        return;
      } catch (const std::bad_alloc&) {
      }
    }
  }
  std::free(memory);
}

}  // namespace tidegate
