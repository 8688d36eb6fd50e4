// Streams against predict, bit for bit, and what a deadline needs: steps that allocate nothing and
// never enter the kernel.
#include <algorithm>
#include <cstdlib>
#include <memory>
#include <new>

#include "check.hpp"
#include "model_writer.hpp"
#include "tidegate/tidegate.h"

#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || \
    __has_feature(realtime_sanitizer)
#define TIDEGATE_SANITIZED 1
#endif
#endif
#if defined(__linux__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) && \
    !defined(TIDEGATE_SANITIZED)
#define TIDEGATE_CAN_FORBID_SYSTEM_CALLS 1
#include <dlfcn.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#endif

// Every allocation of this thread is counted, and every mutex it takes: malloc itself where the C
// library lets it be replaced, else operator new.
static thread_local long allocations = 0, locks = 0;

#if defined(TIDEGATE_CAN_FORBID_SYSTEM_CALLS) && defined(__GLIBC__)
extern "C" {
void* __libc_malloc(size_t);
void* __libc_calloc(size_t, size_t);
void* __libc_realloc(void*, size_t);
void __libc_free(void*);
void* __libc_memalign(size_t, size_t);
void* malloc(size_t n) { return ++allocations, __libc_malloc(n); }
void* calloc(size_t n, size_t m) { return ++allocations, __libc_calloc(n, m); }
void* realloc(void* p, size_t n) { return ++allocations, __libc_realloc(p, n); }
void free(void* p) { ++allocations, __libc_free(p); }
int posix_memalign(void** p, size_t alignment, size_t n) {
  ++allocations;
  *p = __libc_memalign(alignment, n);
  return *p ? 0 : 12;
}
#define TIDEGATE_COUNT_LOCKS(function)                                            \
  int function(pthread_mutex_t* mutex) {                                          \
    ++locks;                                                                      \
    static const auto next =                                                      \
        reinterpret_cast<int (*)(pthread_mutex_t*)>(dlsym(RTLD_NEXT, #function)); \
    return next(mutex);                                                           \
  }
TIDEGATE_COUNT_LOCKS(pthread_mutex_lock)
TIDEGATE_COUNT_LOCKS(pthread_mutex_trylock)
}
#else
void* operator new(size_t n) {
  ++allocations;
  if (void* p = std::malloc(n)) return p;
  throw std::bad_alloc();
}
void operator delete(void* p) noexcept { ++allocations, std::free(p); }
void operator delete(void* p, size_t) noexcept { ++allocations, std::free(p); }
#endif

using tidegate::Error;
using tidegate::Model;
using tidegate::Stream;
using tidegate::StreamPool;

namespace {

Model load(const std::string& file) { return Model::load(file.data(), file.size()); }

const std::vector<std::vector<writer::Layer>> kStacks = {
    {{"LSTM", 8}},
    {{"LSTM", 21}},
    {{"GRU", 40}},
    {{"SimpleRNN", 5}},
    {{"DualStateGRU", 16}},
    {{"CoupledLSTM", 11}},
    {{"Dense", 9}, {"LSTM", 17}, {"GRU", 12}, {"Dense", 3}},
};

bool same(const float* a, const float* b, int64_t n) {
  return std::memcmp(a, b, static_cast<size_t>(n) * sizeof *a) == 0;
}

}  // namespace

TEST(steps_are_predict) {
  const int64_t rows = 5, time = 6, features = 3;
  for (const auto& layers : kStacks) {
    const Model model = load(writer::stack(layers, features));
    const int64_t out = model.output_size();
    const auto x = writer::random_values(rows * time * features, 1);
    std::vector<float> y(static_cast<size_t>(rows * time * out)), step_x(rows * features),
        step_y(static_cast<size_t>(rows * out));
    model.predict(x.data(), rows, time, y.data());
    Stream alone(model), together(model, rows);
    for (int64_t t = 0; t < time; ++t) {
      for (int64_t r = 0; r < rows; ++r)
        std::copy_n(&x[(r * time + t) * features], features, &step_x[r * features]);
      together.step(step_x.data(), step_y.data());
      for (int64_t r = 0; r < rows; ++r)
        CHECK(same(&step_y[r * out], &y[(r * time + t) * out], out));
    }
    for (int64_t r = 0; r < rows; ++r) {
      alone.reset();
      for (int64_t t = 0; t < time; ++t) {
        alone.step(&x[(r * time + t) * features], step_y.data());
        CHECK(same(step_y.data(), &y[(r * time + t) * out], out));
      }
    }
  }
}

TEST(copies_and_states) {
  const Model model = load(writer::stack({{"LSTM", 5}, {"GRU", 4}}, 2));
  for (int64_t rows : {1, 3}) {
    const auto x = writer::random_values(rows * 2, 1);
    const size_t n = static_cast<size_t>(rows * 4);
    std::vector<float> a(n), b(n), c(n);
    Stream stream(model, rows);
    CHECK(stream.batch() == rows && stream.input_size() == 2 && stream.output_size() == 4 &&
          stream.layers() == 2);
    CHECK(stream.states(0) == 2 && stream.states(1) == 1 && stream.state_size(0) == 5 &&
          stream.state_size(1) == 4);
    for (int i = 0; i < 3; ++i) stream.step(x.data(), a.data());
    Stream copy = stream, other(model, 7);
    other = stream;
    Stream moved = std::move(copy);
    stream.step(x.data(), a.data());
    moved.step(x.data(), b.data());
    other.step(x.data(), c.data());
    CHECK(a == b && a == c);
    std::vector<float> h(static_cast<size_t>(rows * 5));
    std::vector<double> h2(h.size());
    stream.get_state(0, 0, h.data());
    stream.get_state(0, 0, h2.data());
    CHECK(h[3] == static_cast<float>(h2[3]) && h[3] != 0);
    for (int layer = 0; layer < 2; ++layer)
      for (int s = 0; s < stream.states(layer); ++s) {
        std::vector<float> value(static_cast<size_t>(rows * stream.state_size(layer)));
        stream.get_state(layer, s, value.data());
        other.reset();
        moved.set_state(layer, s, value.data());
      }
    stream.step(x.data(), a.data());
    moved.step(x.data(), b.data());
    CHECK(a == b);
    moved.reset(rows - 1);
    moved.get_state(0, 1, h.data());
    CHECK(h[static_cast<size_t>(rows * 5 - 1)] == 0 && (rows == 1 || h[0] != 0));
    // The other type is converted.
    std::vector<double> x2(x.begin(), x.end()), y2(n);
    moved.reset(), other.reset();
    moved.step(x.data(), a.data());
    other.step(x2.data(), y2.data());
    for (size_t i = 0; i < n; ++i) CHECK(static_cast<float>(y2[i]) == a[i]);
  }
}

TEST(a_stream_outlives_its_model) {
  auto model = std::make_unique<Model>(load(writer::stack({{"LSTM", 5}}, 2)));
  Stream stream(*model);
  StreamPool pool(*model, 2);
  model.reset();
  const float x[2] = {1, 2};
  float y[5], z[5];
  stream.step(x, y);
  const int64_t id = pool.open();
  pool.step(&id, 1, x, z);
  CHECK(same(y, z, 5));
}

TEST(what_does_not_stream) {
  CHECK_THROWS(Error, Stream(load(writer::stack({{"LSTM", 5}}, 2)), 0));
  CHECK_THROWS(Error, StreamPool(load(writer::stack({{"LSTM", 5}}, 2)), -1));
  std::string file = writer::stack({{"LSTM", 5}}, 2);
  const std::string flag = "\\\"go_backwards\\\":false", other = "\\\"go_backwards\\\":true ";
  file.replace(file.find(flag), flag.size(), other);
  CHECK_THROWS(Error, Stream(load(file)));
}

// Streams that step in changing groups, each against a stream of its own.
TEST(pools) {
  const Model model = load(writer::stack({{"LSTM", 19}, {"GRU", 8}}, 3));
  StreamPool pool(model, 300);
  std::vector<Stream> alone(300, Stream(model));
  std::vector<int64_t> ids;
  for (int i = 0; i < 300; ++i) ids.push_back(pool.open());
  CHECK_THROWS(Error, pool.open());
  std::mt19937 generator(1);
  for (int round = 0; round < 5; ++round) {
    std::shuffle(ids.begin(), ids.end(), generator);
    const int64_t count = 1 + static_cast<int64_t>(generator() % 300);
    const auto x = writer::random_values(count * 3, static_cast<uint32_t>(round));
    std::vector<float> y(static_cast<size_t>(count * 8));
    pool.step(ids.data(), count, x.data(), y.data());
    float expected[8];
    for (int64_t i = 0; i < count; ++i) {
      alone[static_cast<size_t>(ids[i])].step(&x[i * 3], expected);
      CHECK(same(&y[i * 8], expected, 8));
    }
  }
  const int64_t twice[2] = {4, 4}, none[1] = {300};
  float x[6] = {}, y[16];
  CHECK_THROWS(Error, pool.step(twice, 2, x, y));
  CHECK_THROWS(Error, pool.step(none, 1, x, y));
  pool.close(7);
  CHECK(pool.size() == 299);
  CHECK_THROWS(Error, pool.close(7));
  CHECK(pool.open() == 7);
}

TEST(steps_allocate_and_lock_nothing) {
  for (const auto& layers : kStacks)
    for (int64_t rows : {1, 4}) {
      const Model model = load(writer::stack(layers, 3));
      Stream stream(model, rows);
      const auto x = writer::random_values(rows * 3, 1);
      std::vector<float> y(static_cast<size_t>(rows * model.output_size()));
      const std::vector<double> x2(x.begin(), x.end());
      std::vector<double> y2(y.size());
      std::vector<float> state(static_cast<size_t>(rows * stream.state_size(0)));
      const long before = allocations, locks_before = locks;
      CHECK(before > 0);  // the counter counts
      for (int i = 0; i < 100000 / (10 * static_cast<int>(rows)); ++i)
        stream.step(x.data(), y.data());
      stream.step(x2.data(), y2.data());
      stream.get_state(0, 0, state.data()), stream.set_state(0, 0, state.data());
      stream.reset(0), stream.reset();
      CHECK(allocations == before);
      CHECK(locks == locks_before);
    }
}

#ifdef TIDEGATE_CAN_FORBID_SYSTEM_CALLS
// A child whose every system call but exit, read and write would kill it takes 100,000 steps.
TEST(steps_make_no_system_call) {
  const Model model =
      load(writer::stack({{"Dense", 9}, {"LSTM", 17}, {"GRU", 12}, {"Dense", 3}}, 3));
  Stream stream(model);
  const auto x = writer::random_values(3, 1);
  float y[3];
  const pid_t child = fork();
  if (child == 0) {
    if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT) != 0) _exit(77);
    const long before = allocations + locks;
    for (int i = 0; i < 100000; ++i) stream.step(x.data(), y);
    syscall(SYS_exit, allocations + locks == before ? 0 : 1);
  }
  int status = 0;
  CHECK(waitpid(child, &status, 0) == child);
  if (WIFEXITED(status) && WEXITSTATUS(status) == 77) {
    std::printf("seccomp is not to be had here\n");
    return;
  }
  CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}
#endif
