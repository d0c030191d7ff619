// How much work the tests that choose at random do: GROUPCOMMIT_TEST_SCALE, 1 if it is not set.
#ifndef GROUPCOMMIT_TESTS_SUPPORT_SCALE_H_
#define GROUPCOMMIT_TESTS_SUPPORT_SCALE_H_

#include <algorithm>
#include <cstdio>
#include <cstdlib>

namespace groupcommit::testing {

// `n` times the scale, at least 1.
inline int Scaled(int n) {
  static const double scale = [] {
    const char* text = std::getenv("GROUPCOMMIT_TEST_SCALE");
    const double value = text != nullptr ? std::strtod(text, nullptr) : 1.0;
    if (!(value > 0)) {
      std::fprintf(stderr, "GROUPCOMMIT_TEST_SCALE must be a number above 0, not '%s'\n", text);
      std::exit(2);
    }
    return value;
  }();
  return std::max(1, static_cast<int>(n * scale));
}

}  // namespace groupcommit::testing

#endif  // GROUPCOMMIT_TESTS_SUPPORT_SCALE_H_
