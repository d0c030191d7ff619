#include "flush_policy.h"

#include <algorithm>
#include <charconv>
#include <iterator>
#include <system_error>

namespace groupcommit {
namespace {

using Kind = FlushPolicy::Kind;

// By Kind.
constexpr std::string_view kKindNames[] = {"on_each_flush", "group", "auto", "interval"};

// A number that a policy takes: its name, the policy that it belongs to, where it is kept, and what
// is allowed.
struct Parameter {
  std::string_view name;
  Kind kind;
  uint32_t FlushPolicy::*member;
  std::optional<std::string_view> PolicyParts::*part;
  uint32_t limit;
  uint32_t preset;
};

constexpr Parameter kParameters[] = {
    {"max_wait_us", Kind::kGroup, &FlushPolicy::max_wait_us, &PolicyParts::max_wait_us,
     GROUPCOMMIT_MAX_WAIT_US_LIMIT, GROUPCOMMIT_MAX_WAIT_US_DEFAULT},
    {"max_batch", Kind::kGroup, &FlushPolicy::max_batch, &PolicyParts::max_batch,
     GROUPCOMMIT_MAX_BATCH_LIMIT, GROUPCOMMIT_MAX_BATCH_DEFAULT},
    {"max_delay_us", Kind::kInterval, &FlushPolicy::max_delay_us, &PolicyParts::max_delay_us,
     GROUPCOMMIT_MAX_DELAY_US_LIMIT, GROUPCOMMIT_MAX_DELAY_US_DEFAULT},
};

std::string_view NameOf(Kind kind) { return kKindNames[static_cast<size_t>(kind)]; }

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

bool ParseKind(std::string_view name, std::string_view text, Kind* kind, std::string* error) {
  for (size_t i = 0; i < std::size(kKindNames); i++) {
    if (!EqualsIgnoringCase(text, kKindNames[i])) continue;
    *kind = static_cast<Kind>(i);
    return true;
  }
  *error =
      std::string(name) + " must be on_each_flush, group, auto or interval, not " + Quoted(text);
  return false;
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
    for (const Parameter& parameter : kParameters) {
      if (EqualsIgnoringCase(name, parameter.name)) slot = &(parts->*parameter.part);
    }
    if (slot == nullptr || equals == std::string_view::npos) {
      *error =
          "a policy takes max_wait_us=N and max_batch=N (group) or max_delay_us=N (interval), "
          "not " +
          Quoted(part);
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

// `name` is what the kind of policy is called where it was given.
bool ParseParts(std::string_view name, const PolicyParts& parts, FlushPolicy* policy,
                std::string* error) {
  FlushPolicy parsed;
  bool named = parts.flush_policy.has_value();
  if (named && !ParseKind(name, *parts.flush_policy, &parsed.kind, error)) return false;
  for (const Parameter& parameter : kParameters) {
    const std::optional<std::string_view>& part = parts.*parameter.part;
    // A number belongs to one policy only, so it implies that one.
    if (part && !named) parsed.kind = parameter.kind;
    named = named || part;
    if (part && parsed.kind != parameter.kind) {
      *error = std::string(parameter.name) + " is allowed with the policy " +
               std::string(NameOf(parameter.kind)) + " only";
      return false;
    }
  }
  for (const Parameter& parameter : kParameters) {
    if (parsed.kind != parameter.kind) continue;
    const std::optional<std::string_view>& part = parts.*parameter.part;
    parsed.*parameter.member = parameter.preset;
    if (part &&
        !ParseNumber(parameter.name, *part, parameter.limit, &(parsed.*parameter.member), error)) {
      return false;
    }
  }
  *policy = parsed;
  return true;
}

}  // namespace

bool ParsePolicyParts(const PolicyParts& parts, FlushPolicy* policy, std::string* error) {
  if (ParseParts("flush_policy", parts, policy, error)) return true;
  // As the pragma and the environment take it.
  if (parts.flush_policy && parts.flush_policy->find('(') != std::string_view::npos) {
    *error += "; in a URI numbers are parameters of their own, such as &max_batch=8";
  }
  return false;
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
  return ParseParts("the policy", parts, policy, error);
}

bool PolicyFromC(const groupcommit_policy& from, FlushPolicy* policy, std::string* error) {
  if (from.kind < 0 || static_cast<size_t>(from.kind) >= std::size(kKindNames)) {
    *error =
        "kind must be GROUPCOMMIT_ON_EACH_FLUSH, GROUPCOMMIT_GROUP, GROUPCOMMIT_AUTO or "
        "GROUPCOMMIT_INTERVAL, not " +
        std::to_string(from.kind);
    return false;
  }
  const FlushPolicy all{static_cast<Kind>(from.kind), from.max_wait_us, from.max_batch,
                        from.max_delay_us};
  FlushPolicy checked{.kind = all.kind};  // without what belongs to other policies
  for (const Parameter& parameter : kParameters) {
    if (parameter.kind != all.kind) continue;
    checked.*parameter.member = all.*parameter.member;
    if (checked.*parameter.member <= parameter.limit) continue;
    *error = std::string(parameter.name) + " must be at most " + std::to_string(parameter.limit) +
             ", not " + std::to_string(checked.*parameter.member);
    return false;
  }
  *policy = checked;
  return true;
}

groupcommit_policy PolicyToC(const FlushPolicy& policy) {
  return {static_cast<int>(policy.kind), policy.max_wait_us, policy.max_batch, policy.max_delay_us};
}

std::string FormatPolicy(const FlushPolicy& policy) {
  std::string text(NameOf(policy.kind));
  char before = '(';
  for (const Parameter& parameter : kParameters) {
    if (parameter.kind != policy.kind) continue;
    text += before + std::string(parameter.name) + '=' + std::to_string(policy.*parameter.member);
    before = ',';
  }
  return before == ',' ? text + ')' : text;
}

}  // namespace groupcommit
