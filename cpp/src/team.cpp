#include "team.hpp"

#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "tidegate/runtime.hpp"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace tidegate {
namespace {

inline void pause() {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Between two calls of a training loop lie tens of microseconds, and to wake a sleeper takes up to
// 200: a worker looks out for work this long before it sleeps, and calls that follow each other in
// less are a burst.
constexpr auto kIdleSpin = std::chrono::microseconds(200);
// Some tens of microseconds, then the core is offered to others.
constexpr int kBarrierSpins = 4000;

using Clock = std::chrono::steady_clock;

// Waits until done() holds. Adds to `stalled` what it took beyond the spinning.
template <class F>
void wait_until(F done, std::atomic<long long>& stalled) {
  for (int spins = 0; spins < kBarrierSpins; ++spins) {
    if (done()) return;
    pause();
  }
  const auto start = Clock::now();
  while (!done()) std::this_thread::yield();
  stalled.fetch_add(std::chrono::nanoseconds(Clock::now() - start).count(),
                    std::memory_order_relaxed);
}

// One worker and its mailbox. A job is offered; a worker that takes it before the caller takes it
// back waits for `started` and runs it. The plain fields are written by the caller only while the
// worker has nothing or waits for `started`, those behind the mutex with it. A worker that is woken
// looks out for work again, even where the offer is gone: the next one finds it awake.
struct Worker {
  enum Offer : int { none, offered, taken };
  Task task = nullptr;
  void* data = nullptr;
  Place place{};
  std::atomic<int>* pending = nullptr;
  alignas(64) std::atomic<int> offer{none};
  std::atomic<bool> started{false};
  std::atomic<bool> asleep{true};                     // its thread does not run yet
  std::atomic<Clock::duration> wake_time{kIdleSpin};  // what it took to wake it the last time
  std::mutex mutex;
  std::condition_variable wake;
  bool called = false;  // woken, and not there yet
  Clock::time_point called_at{};

  void call() {
    std::lock_guard<std::mutex> lock(mutex);
    if (called) return;
    called = true;
    called_at = Clock::now();
    wake.notify_one();
  }
  void make_offer() {
    offer.store(offered);  // sequentially consistent, like the load of `asleep`: one of the two
                           // sides sees the other
    if (asleep.load()) call();
  }
  bool take_back() {  // false: it was taken
    int expected = offered;
    return offer.compare_exchange_strong(expected, none);
  }

  void wait_for_offer() {
    const auto until = Clock::now() + kIdleSpin;
    do {
      for (int i = 0; i < 64; ++i) {
        if (offer.load(std::memory_order_acquire) == offered) return;
        pause();
      }
      std::this_thread::yield();
    } while (Clock::now() < until);
    std::unique_lock<std::mutex> lock(mutex);
    asleep.store(true);
    wake.wait(lock, [&] { return called || offer.load() == offered; });
    be_awake();
  }
  void be_awake() {  // with the mutex
    if (called) wake_time.store(Clock::now() - called_at, std::memory_order_relaxed);
    called = false;
    asleep.store(false);
  }

  void loop() {
    FlushDenormals flush;
    {
      std::lock_guard<std::mutex> lock(mutex);
      be_awake();
    }
    for (;;) {
      wait_for_offer();
      int expected = offered;
      if (!offer.compare_exchange_strong(expected, taken)) continue;
      for (int spins = 0; !started.load(std::memory_order_acquire);)
        if (++spins < kBarrierSpins)
          pause();
        else
          std::this_thread::yield();
      started.store(false, std::memory_order_relaxed);
      offer.store(none, std::memory_order_relaxed);
      task(data, place);
      pending->fetch_sub(1, std::memory_order_acq_rel);
    }
  }
};

// Where another process takes a core, threads that meet wait for the one without: milliseconds, a
// hundred times the work of a small call. Such calls make the next ones run alone, for longer each
// time, until a call in between goes well. So do calls that a worker awake did not come to, in
// proportion to the time that was lost on it.
class Crowding {
 public:
  bool alone(Clock::time_point now) const { return now < until_; }
  void learn(Clock::time_point start, Clock::time_point end, int threads, long long stalled) {
    const auto elapsed = std::chrono::nanoseconds(end - start).count();
    if (stalled * 2 > elapsed * (threads - 1)) {
      until_ = end + pause_;
      pause_ = std::min(pause_ * 2, std::chrono::milliseconds(500));
    } else {
      pause_ = kFirst;
    }
  }
  void learn_absence(Clock::time_point now, Clock::duration waited) {
    until_ = std::max(until_, now + 32 * waited);
  }

 private:
  static constexpr std::chrono::milliseconds kFirst{10};
  Clock::time_point until_{};
  std::chrono::milliseconds pause_ = kFirst;
};

struct Team {
  std::mutex busy;
  std::vector<std::unique_ptr<Worker>> workers;
  std::vector<Worker*> taken;  // by the call that is running
  Crowding crowding;
  Clock::time_point last_end{};  // of a call

  void grow(int count) {
    while (static_cast<int>(workers.size()) < count) {
      auto worker = std::make_unique<Worker>();
      std::thread([w = worker.get()] { w->loop(); }).detach();
      workers.push_back(std::move(worker));
    }
    taken.resize(workers.size());
  }
};

// Never destroyed: its workers may outlive main. A forked child has none of the threads, so it
// leaves the parent's team alone and makes its own.
std::atomic<Team*> the_team{nullptr};

Team& team() {
  Team* current = the_team.load();
  if (!current) {
    static std::once_flag once;
    std::call_once(once, [] { pthread_atfork(nullptr, nullptr, [] { the_team.store(nullptr); }); });
    auto made = std::make_unique<Team>();
    if (the_team.compare_exchange_strong(current, made.get())) current = made.release();
  }
  return *current;
}

int cores_allowed() {
  int cores = static_cast<int>(std::thread::hardware_concurrency());
#if defined(__linux__)
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) cores = CPU_COUNT(&set);
  double quota = 0, period = 0;
  std::ifstream v2("/sys/fs/cgroup/cpu.max");
  if (!(v2 >> quota >> period)) {
    std::ifstream q("/sys/fs/cgroup/cpu/cpu.cfs_quota_us"),
        p("/sys/fs/cgroup/cpu/cpu.cfs_period_us");
    if (!(q >> quota && p >> period)) quota = 0;
  }
  if (quota > 0 && period > 0) {
    const int share = static_cast<int>(quota / period + 0.5);
    if (share < cores) cores = share;
  }
#endif
  return cores < 1 ? 1 : cores;
}

int initial_threads() {
  const char* text = std::getenv("TIDEGATE_NUM_THREADS");
  if (!text || !*text) return cores_allowed();
  char* end = nullptr;
  const long n = std::strtol(text, &end, 10);
  if (*end || n < 1 || n > 4096)
    throw Error("TIDEGATE_NUM_THREADS: expected a number from 1 to 4096, got '" +
                std::string(text) + "'");
  return static_cast<int>(n);
}

std::atomic<int>& thread_setting() {
  static std::atomic<int> setting{initial_threads()};
  return setting;
}

// A call is handed to another thread in some hundred nanoseconds to a few microseconds.
std::atomic<double> parallel_threshold{400e3};

}  // namespace

void barrier_wait(Barrier* barrier) {
  const unsigned generation = barrier->generation.load(std::memory_order_relaxed);
  if (barrier->arrived.fetch_add(1, std::memory_order_acq_rel) == barrier->threads - 1) {
    barrier->arrived.store(0, std::memory_order_relaxed);
    barrier->generation.store(generation + 1, std::memory_order_release);
    return;
  }
  wait_until([&] { return barrier->generation.load(std::memory_order_acquire) != generation; },
             barrier->stalled);
}

namespace {

bool waits_for_everybody() { return parallel_threshold.load(std::memory_order_relaxed) <= 0; }

// How long a call waits for the others to show up: an eighth of what it takes alone, at some 100
// operations a nanosecond (with AVX-512 88 to 220 are measured).
std::chrono::nanoseconds patience(double flops) {
  if (waits_for_everybody()) return std::chrono::hours(1);
  return std::chrono::nanoseconds(
      static_cast<int64_t>(std::min(5e6, std::max(3e3, flops / 100 / 8))));
}

// Offers the work to `count` workers and returns those that took it in time. Who sleeps is waited
// for longer where the call still gains from it, and otherwise woken for the calls to come, if
// calls follow each other: a lone small call does not even pay for that.
int gather(Team& crew, int count, double flops, Worker** taken) {
  const auto start = Clock::now(), polite = start + std::chrono::microseconds(20);
  const auto most = patience(flops);
  const bool burst = start - crew.last_end < kIdleSpin;
  int offers = 0, n = 0;
  auto until = start + most;
  for (int i = 0; i < count; ++i) {
    Worker& worker = *crew.workers[i];
    if (worker.asleep.load()) {
      if (3 * most < worker.wake_time.load(std::memory_order_relaxed)) {
        if (burst) worker.call();
        continue;
      }
      until = start + 4 * most;
    }
    worker.make_offer();
    taken[offers++] = &worker;
  }
  for (int i = 0; i < offers; ++i) {
    Worker& worker = *taken[i];
    while (worker.offer.load(std::memory_order_acquire) == Worker::offered) {
      const auto now = Clock::now();
      if (now > until && worker.take_back()) break;
      if (now > polite)
        std::this_thread::yield();
      else
        pause();
    }
    if (worker.offer.load(std::memory_order_acquire) == Worker::taken) taken[n++] = &worker;
  }
  if (n < offers) {
    const auto now = Clock::now();
    crew.crowding.learn_absence(now, now - start);
  }
  return n;
}

}  // namespace

void team_run(int max_threads, int max_groups, double flops, Task task, void* data) {
  FlushDenormals flush;
  if (max_threads > 1) {
    Team& crew = team();
    std::unique_lock<std::mutex> lock(crew.busy, std::try_to_lock);
    const bool everybody = waits_for_everybody();
    const auto start = Clock::now();
    if (lock.owns_lock() && (everybody || !crew.crowding.alone(start))) {
      crew.grow(max_threads - 1);
      const int helpers = gather(crew, max_threads - 1, flops, crew.taken.data());
      const int threads = helpers + 1, groups = std::min({max_groups, threads, kMostGroups});
      const auto size = [&](int group) { return (threads - group + groups - 1) / groups; };
      Barrier barriers[kMostGroups] = {Barrier(size(0)), Barrier(size(1))};
      const auto place = [&](int thread) {
        const int group = thread % groups;
        return Place{group, groups, thread / groups, size(group), &barriers[group]};
      };
      std::atomic<int> pending{helpers};
      for (int i = 0; i < helpers; ++i) {
        Worker& worker = *crew.taken[i];
        worker.task = task, worker.data = data, worker.place = place(i + 1);
        worker.pending = &pending;
        worker.started.store(true, std::memory_order_release);
      }
      task(data, place(0));
      wait_until([&] { return pending.load(std::memory_order_acquire) == 0; }, barriers[0].stalled);
      crew.last_end = Clock::now();
      if (helpers > 0)
        crew.crowding.learn(start, crew.last_end, threads,
                            barriers[0].stalled.load() + barriers[1].stalled.load());
      return;
    }
  }
  Barrier alone(1);
  task(data, Place{0, 1, 0, 1, &alone});
}

int threads_for(double flops) {
  const int limit = thread_setting().load(std::memory_order_relaxed);
  const double threshold = parallel_threshold.load(std::memory_order_relaxed);
  if (limit <= 1 || flops < threshold) return 1;
  // Every thread gets at least half the threshold's work.
  const double most = threshold > 0 ? flops / (threshold / 2) : limit;
  return most < limit ? static_cast<int>(most) : limit;
}

void set_parallel_threshold(double flops) { parallel_threshold.store(flops); }

int get_num_threads() { return thread_setting().load(); }

void set_num_threads(int n) {
  if (n < 1 || n > 4096)
    throw Error("set_num_threads: expected a number from 1 to 4096, got " + std::to_string(n));
  thread_setting().store(n);
}

#if defined(__x86_64__)
// Bits of MXCSR: flush results to zero, take denormal inputs as zero.
constexpr unsigned kFlush = 0x8040;
FlushDenormals::FlushDenormals() noexcept : mode_(_mm_getcsr()) {
  if ((mode_ & kFlush) != kFlush) _mm_setcsr(static_cast<unsigned>(mode_) | kFlush);
}
FlushDenormals::~FlushDenormals() {
  if ((mode_ & kFlush) != kFlush)
    _mm_setcsr((_mm_getcsr() & ~kFlush) | (static_cast<unsigned>(mode_) & kFlush));
}
#elif defined(__aarch64__)
constexpr unsigned long long kFlush = 1ull << 24;  // FPCR.FZ
FlushDenormals::FlushDenormals() noexcept {
  asm volatile("mrs %0, fpcr" : "=r"(mode_));
  if (!(mode_ & kFlush)) asm volatile("msr fpcr, %0" ::"r"(mode_ | kFlush));
}
FlushDenormals::~FlushDenormals() {
  if (!(mode_ & kFlush)) asm volatile("msr fpcr, %0" ::"r"(mode_));
}
#else
FlushDenormals::FlushDenormals() noexcept : mode_(0) {}
FlushDenormals::~FlushDenormals() = default;
#endif

}  // namespace tidegate
