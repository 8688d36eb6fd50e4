// The few lines of test framework that these tests need, so that a bare machine can run them.
//
//   TEST(name) { CHECK(a == b); CHECK_NEAR(x, y, 1e-6); CHECK_THROWS(Error, f()); }
//
// Every test file is a program of its own: it runs all of its tests, or those whose name contains
// its first argument, and exits with 1 if a check failed.
#pragma once

#include <cmath>
#include <cstdio>
#include <cstring>
#include <exception>
#include <sstream>
#include <string>
#include <vector>

namespace check {

struct Test {
  const char* name;
  void (*run)();
};
inline std::vector<Test>& tests() {
  static std::vector<Test> all;
  return all;
}
inline int& failures() {
  static int count = 0;
  return count;
}
struct Registration {
  Registration(const char* name, void (*run)()) { tests().push_back({name, run}); }
};
inline void fail(const char* file, int line, const std::string& what) {
  std::printf("%s:%d: %s\n", file, line, what.c_str());
  ++failures();
}

}  // namespace check

#define TEST(name)                                                          \
  static void test_##name();                                                \
  static const check::Registration registration_##name(#name, test_##name); \
  static void test_##name()

#define CHECK(...)                                                                 \
  do {                                                                             \
    if (!(__VA_ARGS__)) check::fail(__FILE__, __LINE__, "expected " #__VA_ARGS__); \
  } while (false)

// Both values, so that a failure can be judged; a NaN on one side fails.
#define CHECK_NEAR(actual, expected, tolerance)                                                   \
  do {                                                                                            \
    const double check_a = (actual), check_e = (expected), check_t = (tolerance);                 \
    if (!(std::abs(check_a - check_e) <= check_t)) {                                              \
      std::ostringstream check_s;                                                                 \
      check_s.precision(17);                                                                      \
      check_s << #actual << ": expected " << check_e << " +- " << check_t << ", got " << check_a; \
      check::fail(__FILE__, __LINE__, check_s.str());                                             \
    }                                                                                             \
  } while (false)

#define CHECK_THROWS(exception, ...)                                                 \
  do {                                                                               \
    bool check_thrown = false;                                                       \
    try {                                                                            \
      __VA_ARGS__;                                                                   \
    } catch (const exception&) {                                                     \
      check_thrown = true;                                                           \
    }                                                                                \
    if (!check_thrown)                                                               \
      check::fail(__FILE__, __LINE__, "expected " #exception " from " #__VA_ARGS__); \
  } while (false)

int main(int argc, char** argv) {
  int run = 0;
  for (const check::Test& test : check::tests()) {
    if (argc > 1 && !std::strstr(test.name, argv[1])) continue;
    const int before = check::failures();
    try {
      test.run();
    } catch (const std::exception& error) {
      check::fail(test.name, 0, std::string("unexpected exception: ") + error.what());
    }
    std::printf("%s %s\n", check::failures() == before ? "ok    " : "FAILED", test.name);
    ++run;
  }
  std::printf("%d tests, %d failed checks\n", run, check::failures());
  return check::failures() > 0 || run == 0;
}
