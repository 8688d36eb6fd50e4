#pragma once

// The library is built with hidden visibility; what is marked is its binary interface.
#define TIDEGATE_API __attribute__((visibility("default")))

// What must not wait for anything: RealtimeSanitizer (Clang 20 and newer) checks it.
#if defined(__cplusplus) && defined(__has_cpp_attribute)
#if __has_cpp_attribute(clang::nonblocking)
#define TIDEGATE_NONBLOCKING [[clang::nonblocking]]
#endif
#endif
#ifndef TIDEGATE_NONBLOCKING
#define TIDEGATE_NONBLOCKING
#endif
