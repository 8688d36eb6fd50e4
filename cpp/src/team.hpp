// The library's own threads: persistent, asleep when idle.
#pragma once

#include <atomic>

#include "kernel_api.hpp"

namespace tidegate {

// Where the threads of one call meet. Spins for a bounded time, then yields: it also makes progress
// when there are more threads than cores.
struct Barrier {
  explicit Barrier(int threads) : threads(threads) {}
  const int threads;
  alignas(64) std::atomic<int> arrived{0};
  alignas(64) std::atomic<unsigned> generation{0};
  std::atomic<long long> stalled{0};  // nanoseconds that threads waited beyond the spinning
};

// Where a thread works in a call: as one of `threads` that share a barrier, in one of `groups`.
struct Place {
  int group, groups, thread, threads;
  Barrier* barrier;
};
using Task = void (*)(void* data, const Place& place);
constexpr int kMostGroups = 2;  // the directions of a bidirectional layer

// Runs the task on the calling thread as the first of group 0 and on up to max_threads - 1 others,
// in as many as max_groups groups that meet only at the end, and returns when all have ended.
// Others that do not show up within some part of the time that `flops` operations take (the machine
// is busy, or they have to be woken for a small task) are not waited for, and when another call has
// the team already (many Python threads at once share the machine, they do not multiply teams) the
// caller runs alone: the task must give the same result for any number of threads. Denormals are
// flushed to zero inside; the caller's mode comes back. Safe after fork: the child makes a team of
// its own.
void team_run(int max_threads, int max_groups, double flops, Task task, void* data);

// F is called as f(thread, threads, barrier).
template <class F>
void parallel(int max_threads, double flops, F&& f) {
  team_run(
      max_threads, 1, flops,
      [](void* data, const Place& place) {
        (*static_cast<F*>(data))(place.thread, place.threads, place.barrier);
      },
      &f);
}

// Jobs that do not depend on each other, side by side. F is called as f(job, place) by every thread
// of a group for every job of the group: for all of them, where nobody helps.
template <class F>
void side_by_side(int jobs, int max_threads, double flops, F&& f) {
  auto all = [&](const Place& place) {
    for (int job = place.group; job < jobs; job += place.groups) f(job, place);
  };
  team_run(
      max_threads, jobs, flops,
      [](void* data, const Place& place) { (*static_cast<decltype(all)*>(data))(place); }, &all);
}

// Flushes denormals to zero on this thread while it lives, and restores the mode found.
class FlushDenormals {
 public:
  FlushDenormals() noexcept;
  ~FlushDenormals();
  FlushDenormals(const FlushDenormals&) = delete;
  FlushDenormals& operator=(const FlushDenormals&) = delete;

 private:
  unsigned long long mode_;
};

// How many threads a call of so many operations may use, given the process's setting: small work
// stays on one.
int threads_for(double flops);
// Operations below which a call stays on one thread. Tests set it to 0: small shapes run on many
// threads, and every thread is waited for.
void set_parallel_threshold(double flops);

}  // namespace tidegate
