// How long a test waits for what has to happen: GROUPCOMMIT_TEST_PATIENCE seconds, 10 if it is not
// set. Only a test that fails waits that long.
#ifndef GROUPCOMMIT_TESTS_SUPPORT_PATIENCE_H_
#define GROUPCOMMIT_TESTS_SUPPORT_PATIENCE_H_

#include <chrono>
#include <cstdlib>

namespace groupcommit::testing {

inline const std::chrono::seconds kPatience{[] {
  constexpr int kDefault = 10;
  const char* text = std::getenv("GROUPCOMMIT_TEST_PATIENCE");
  const long value = text != nullptr ? std::strtol(text, nullptr, 10) : kDefault;
  return value > 0 ? value : kDefault;
}()};
// After this time what a test has not foreseen is let go, so that the test fails and does not hang.
inline const std::chrono::seconds kHangs = 3 * kPatience;

}  // namespace groupcommit::testing

#endif  // GROUPCOMMIT_TESTS_SUPPORT_PATIENCE_H_
