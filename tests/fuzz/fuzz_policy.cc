// The policy parser. Whatever it accepts can be written and read again, and is within the limits;
// whatever it refuses, it refuses with a sentence.
#include <cstring>
#include <string>
#include <string_view>

#include "flush_policy.h"
#include "fuzz.h"

namespace groupcommit {
namespace {

// Not a policy that anything parses to, so that a change is seen.
constexpr FlushPolicy kUntouched = {FlushPolicy::Kind::kGroup, UINT32_MAX, UINT32_MAX};

void CheckAccepted(const FlushPolicy& policy) {
  FUZZ_CHECK(policy.max_wait_us <= GROUPCOMMIT_MAX_WAIT_US_LIMIT, "%u", policy.max_wait_us);
  FUZZ_CHECK(policy.max_batch <= GROUPCOMMIT_MAX_BATCH_LIMIT, "%u", policy.max_batch);
  if (policy.kind != FlushPolicy::Kind::kGroup) {
    FUZZ_CHECK(policy.max_wait_us == 0 && policy.max_batch == 0, "numbers without group");
  }
  const std::string text = FormatPolicy(policy);
  FlushPolicy again = kUntouched;
  std::string error;
  FUZZ_CHECK(ParsePolicy(text, &again, &error), "%s: %s", text.c_str(), error.c_str());
  FUZZ_CHECK(again == policy && error.empty(), "%s: %s", text.c_str(), error.c_str());
  again = kUntouched;
  FUZZ_CHECK(PolicyFromC(PolicyToC(policy), &again, &error), "%s", error.c_str());
  FUZZ_CHECK(again == policy && error.empty(), "%s: %s", text.c_str(), error.c_str());
}

void CheckRefused(const FlushPolicy& policy, const std::string& error) {
  constexpr size_t kLongest = 300;
  FUZZ_CHECK(policy == kUntouched, "refused, but written");
  FUZZ_CHECK(!error.empty() && error.size() <= kLongest, "%s", error.c_str());
}

void CheckText(std::string_view text) {
  FlushPolicy policy = kUntouched;
  std::string error;
  if (ParsePolicy(text, &policy, &error)) {
    FUZZ_CHECK(error.empty(), "accepted, but: %s", error.c_str());
    CheckAccepted(policy);
  } else {
    CheckRefused(policy, error);
  }
}

void CheckStruct(const groupcommit_policy& from) {
  FlushPolicy policy = kUntouched;
  std::string error;
  if (PolicyFromC(from, &policy, &error)) {
    CheckAccepted(policy);
  } else {
    CheckRefused(policy, error);
  }
}

}  // namespace
}  // namespace groupcommit

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  groupcommit::CheckText({reinterpret_cast<const char*>(data), size});
  groupcommit_policy policy{};
  if (size >= sizeof(policy)) {
    std::memcpy(&policy, data, sizeof(policy));
    groupcommit::CheckStruct(policy);
    policy.kind &= 3;
    groupcommit::CheckStruct(policy);
  }
  return 0;
}
