// FlushPolicy: when the log is synced for waiting commits. A value; reading and writing it as text.
#ifndef GROUPCOMMIT_FLUSH_POLICY_H_
#define GROUPCOMMIT_FLUSH_POLICY_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "groupcommit.h"

namespace groupcommit {

struct FlushPolicy {
  enum class Kind : uint8_t {
    kOnEachFlush = GROUPCOMMIT_ON_EACH_FLUSH,
    kGroup = GROUPCOMMIT_GROUP,
    kAuto = GROUPCOMMIT_AUTO,
    kInterval = GROUPCOMMIT_INTERVAL,
  };

  Kind kind = Kind::kOnEachFlush;
  uint32_t max_wait_us = 0;   // kGroup only, else 0
  uint32_t max_batch = 0;     // kGroup only, else 0; 0 counts as 1
  uint32_t max_delay_us = 0;  // kInterval only, else 0

  // Does COMMIT return after the sync?
  bool waits() const { return kind != Kind::kInterval; }

  static constexpr FlushPolicy Auto() { return {.kind = Kind::kAuto}; }
  static constexpr FlushPolicy Group(uint32_t max_wait_us, uint32_t max_batch) {
    return {.kind = Kind::kGroup, .max_wait_us = max_wait_us, .max_batch = max_batch};
  }
  static constexpr FlushPolicy Interval(uint32_t max_delay_us) {
    return {.kind = Kind::kInterval, .max_delay_us = max_delay_us};
  }

  friend bool operator==(const FlushPolicy&, const FlushPolicy&) = default;
};

// The parts of a policy as a user gives them; a part that was not given is absent.
struct PolicyParts {
  std::optional<std::string_view> flush_policy;
  std::optional<std::string_view> max_wait_us;
  std::optional<std::string_view> max_batch;
  std::optional<std::string_view> max_delay_us;

  bool empty() const { return !flush_policy && !max_wait_us && !max_batch && !max_delay_us; }
};

// Each returns true and fills *policy, or returns false, leaves *policy alone and fills *error with
// a sentence that names the part at fault and what is allowed.
bool ParsePolicy(std::string_view text, FlushPolicy* policy, std::string* error);
bool ParsePolicyParts(const PolicyParts& parts, FlushPolicy* policy, std::string* error);
bool PolicyFromC(const groupcommit_policy& from, FlushPolicy* policy, std::string* error);

groupcommit_policy PolicyToC(const FlushPolicy& policy);

// Text that ParsePolicy() reads back.
std::string FormatPolicy(const FlushPolicy& policy);

}  // namespace groupcommit

#endif  // GROUPCOMMIT_FLUSH_POLICY_H_
