#include "flush_policy.h"

#include <algorithm>
#include <charconv>
#include <system_error>

namespace groupcommit {
namespace {

constexpr std::string_view kOnEachFlushName = "on_each_flush";
constexpr std::string_view kGroupName = "group";
constexpr std::string_view kAutoName = "auto";
constexpr std::string_view kMaxWaitName = "max_wait_us";
constexpr std::string_view kMaxBatchName = "max_batch";

char ToLower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }

bool EqualsIgnoringCase(std::string_view a, std::string_view b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [](char x, char y) { return ToLower(x) == ToLower(y); });
}

std::string_view Trim(std::string_view text) {
  constexpr std::string_view kSpace = " \t\r\n";
  const size_t first = text.find_first_not_of(kSpace);
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(kSpace) - first + 1);
}

std::string Quoted(std::string_view text) {
  // A hostile value must not flood the log.
  constexpr size_t kShown = 80;
  std::string quoted("'");
  quoted.append(text.substr(0, kShown));
  if (text.size() > kShown) quoted += "...";
  quoted += '\'';
  return quoted;
}

bool ParseNumber(std::string_view name, std::string_view text, uint32_t limit, uint32_t* number,
                 std::string* error) {
  uint32_t value = 0;
  const auto [end, status] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (status == std::errc() && end == text.data() + text.size() && value <= limit) {
    *number = value;
    return true;
  }
  *error = std::string(name) + " must be a whole number from 0 to " + std::to_string(limit) +
           ", not " + Quoted(text);
  return false;
}

bool ParseKind(std::string_view text, FlushPolicy::Kind* kind, std::string* error) {
  if (EqualsIgnoringCase(text, kOnEachFlushName)) {
    *kind = FlushPolicy::Kind::kOnEachFlush;
  } else if (EqualsIgnoringCase(text, kGroupName)) {
    *kind = FlushPolicy::Kind::kGroup;
  } else if (EqualsIgnoringCase(text, kAutoName)) {
    *kind = FlushPolicy::Kind::kAuto;
  } else {
    *error = "flush_policy must be on_each_flush, group or auto, not " + Quoted(text);
    return false;
  }
  return true;
}

// Splits "max_wait_us=1, max_batch=2" into *parts.
bool ParseParameters(std::string_view text, PolicyParts* parts, std::string* error) {
  if (Trim(text).empty()) return true;
  for (bool more = true; more;) {
    const size_t comma = text.find(',');
    const std::string_view part = Trim(text.substr(0, comma));
    more = comma != std::string_view::npos;
    if (more) text.remove_prefix(comma + 1);

    const size_t equals = part.find('=');
    const std::string_view name = Trim(part.substr(0, equals));
    std::optional<std::string_view>* slot = nullptr;
    if (EqualsIgnoringCase(name, kMaxWaitName)) slot = &parts->max_wait_us;
    if (EqualsIgnoringCase(name, kMaxBatchName)) slot = &parts->max_batch;
    if (slot == nullptr || equals == std::string_view::npos) {
      *error = "group takes max_wait_us=N and max_batch=N, not " + Quoted(part);
      return false;
    }
    if (slot->has_value()) {
      *error = std::string(name) + " is given twice";
      return false;
    }
    *slot = Trim(part.substr(equals + 1));
  }
  return true;
}

}  // namespace

bool ParsePolicyParts(const PolicyParts& parts, FlushPolicy* policy, std::string* error) {
  // The two numbers belong to no other policy than group, so they imply it.
  FlushPolicy parsed =
      FlushPolicy::Group(GROUPCOMMIT_MAX_WAIT_US_DEFAULT, GROUPCOMMIT_MAX_BATCH_DEFAULT);
  if (parts.flush_policy && !ParseKind(*parts.flush_policy, &parsed.kind, error)) return false;
  if (parsed.kind != FlushPolicy::Kind::kGroup) {
    if (parts.max_wait_us || parts.max_batch) {
      *error = std::string(parts.max_wait_us ? kMaxWaitName : kMaxBatchName) +
               " is allowed with flush_policy=group only";
      return false;
    }
    *policy = {parsed.kind, 0, 0};
    return true;
  }
  if (parts.max_wait_us &&
      !ParseNumber(kMaxWaitName, *parts.max_wait_us, GROUPCOMMIT_MAX_WAIT_US_LIMIT,
                   &parsed.max_wait_us, error)) {
    return false;
  }
  if (parts.max_batch && !ParseNumber(kMaxBatchName, *parts.max_batch, GROUPCOMMIT_MAX_BATCH_LIMIT,
                                      &parsed.max_batch, error)) {
    return false;
  }
  *policy = parsed;
  return true;
}

bool ParsePolicy(std::string_view text, FlushPolicy* policy, std::string* error) {
  text = Trim(text);
  PolicyParts parts;
  const size_t open = text.find('(');
  if (open != std::string_view::npos) {
    if (text.back() != ')') {
      *error = "a policy's parameters must end with ')': " + Quoted(text);
      return false;
    }
    if (!ParseParameters(text.substr(open + 1, text.size() - open - 2), &parts, error))
      return false;
    text = Trim(text.substr(0, open));
  }
  parts.flush_policy = text;
  return ParsePolicyParts(parts, policy, error);
}

bool PolicyFromC(const groupcommit_policy& from, FlushPolicy* policy, std::string* error) {
  switch (from.kind) {
    case GROUPCOMMIT_ON_EACH_FLUSH:
    case GROUPCOMMIT_AUTO:
      *policy = {static_cast<FlushPolicy::Kind>(from.kind), 0, 0};
      return true;
    case GROUPCOMMIT_GROUP:
      if (from.max_wait_us > GROUPCOMMIT_MAX_WAIT_US_LIMIT) {
        *error = "max_wait_us must be at most " + std::to_string(GROUPCOMMIT_MAX_WAIT_US_LIMIT);
        return false;
      }
      if (from.max_batch > GROUPCOMMIT_MAX_BATCH_LIMIT) {
        *error = "max_batch must be at most " + std::to_string(GROUPCOMMIT_MAX_BATCH_LIMIT);
        return false;
      }
      *policy = FlushPolicy::Group(from.max_wait_us, from.max_batch);
      return true;
    default:
      *error = "kind must be GROUPCOMMIT_ON_EACH_FLUSH, GROUPCOMMIT_GROUP or GROUPCOMMIT_AUTO";
      return false;
  }
}

groupcommit_policy PolicyToC(const FlushPolicy& policy) {
  return {static_cast<int>(policy.kind), policy.max_wait_us, policy.max_batch};
}

std::string FormatPolicy(const FlushPolicy& policy) {
  switch (policy.kind) {
    case FlushPolicy::Kind::kOnEachFlush:
      return std::string(kOnEachFlushName);
    case FlushPolicy::Kind::kAuto:
      return std::string(kAutoName);
    case FlushPolicy::Kind::kGroup:
      break;
  }
  return "group(max_wait_us=" + std::to_string(policy.max_wait_us) +
         ",max_batch=" + std::to_string(policy.max_batch) + ")";
}

}  // namespace groupcommit
