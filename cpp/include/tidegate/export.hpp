#pragma once

// The library is built with hidden visibility; what is marked is its binary interface.
#define TIDEGATE_API __attribute__((visibility("default")))
