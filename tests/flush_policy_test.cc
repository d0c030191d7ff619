// Flush policies as text, as parts of a URI, and through the C functions.
#include "flush_policy.h"

#include <gtest/gtest.h>
#include <sqlite3.h>

#include <array>
#include <cstring>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

namespace groupcommit::testing {
namespace {

constexpr FlushPolicy kUntouched = FlushPolicy::Group(4711, 42);
constexpr FlushPolicy kDefaultGroup =
    FlushPolicy::Group(GROUPCOMMIT_MAX_WAIT_US_DEFAULT, GROUPCOMMIT_MAX_BATCH_DEFAULT);

void ExpectParses(std::string_view text, const FlushPolicy& expected) {
  FlushPolicy policy = kUntouched;
  std::string error;
  EXPECT_TRUE(ParsePolicy(text, &policy, &error)) << text << ": " << error;
  EXPECT_TRUE(policy == expected) << text << " was read as " << FormatPolicy(policy);
}

// Expects an error that contains each of `mentions`, which may have a value quoted.
void ExpectFails(std::string_view text, const std::vector<std::string>& mentions) {
  FlushPolicy policy = kUntouched;
  std::string error;
  EXPECT_FALSE(ParsePolicy(text, &policy, &error))
      << text.substr(0, 200) << " was read as " << FormatPolicy(policy);
  EXPECT_TRUE(policy == kUntouched) << text.substr(0, 200);
  for (const std::string& mention : mentions) {
    EXPECT_NE(error.find(mention), std::string::npos)
        << "'" << error << "' does not mention " << mention;
  }
  EXPECT_LT(error.size(), 300u) << "a value must not flood the log";
}

const std::vector<std::string> kKinds{"policy must be", "on_each_flush", "group", "auto"};
const std::vector<std::string> kParameters{"max_wait_us", "max_batch"};
const std::vector<std::string> kWait{"max_wait_us", "0", "10000000"};
const std::vector<std::string> kBatch{"max_batch", "0", "1000000"};

TEST(FlushPolicy, DefaultIsOnEachFlush) {
  EXPECT_EQ(FlushPolicy{}.kind, FlushPolicy::Kind::kOnEachFlush);
  EXPECT_EQ(FormatPolicy(FlushPolicy{}), "on_each_flush");
  const groupcommit_policy zeroed{};
  FlushPolicy policy = kUntouched;
  std::string error;
  EXPECT_TRUE(PolicyFromC(zeroed, &policy, &error));
  EXPECT_TRUE(policy == FlushPolicy{});
}

TEST(FlushPolicy, ReadsWhatIsDocumented) {
  ExpectParses("on_each_flush", FlushPolicy{});
  ExpectParses("auto", FlushPolicy::Auto());
  ExpectParses("group", kDefaultGroup);
  ExpectParses("group(max_wait_us=500,max_batch=8)", FlushPolicy::Group(500, 8));
  ExpectParses("group(max_batch=8,max_wait_us=500)", FlushPolicy::Group(500, 8));
  ExpectParses("group(max_wait_us=500)", FlushPolicy::Group(500, GROUPCOMMIT_MAX_BATCH_DEFAULT));
  ExpectParses("group(max_batch=8)", FlushPolicy::Group(GROUPCOMMIT_MAX_WAIT_US_DEFAULT, 8));
  ExpectParses("group(max_wait_us=0,max_batch=0)", FlushPolicy::Group(0, 0));
  ExpectParses("group(max_wait_us=10000000,max_batch=1000000)",
               FlushPolicy::Group(10'000'000, 1'000'000));
  ExpectParses("interval", FlushPolicy::Interval(GROUPCOMMIT_MAX_DELAY_US_DEFAULT));
  ExpectParses("interval(max_delay_us=0)", FlushPolicy::Interval(0));
  ExpectParses("Interval ( max_delay_us = 10000000 )", FlushPolicy::Interval(10'000'000));
}

TEST(FlushPolicy, CaseDoesNotMatterAndSpacesMayStandBetween) {
  ExpectParses("AUTO", FlushPolicy::Auto());
  ExpectParses("On_Each_Flush", FlushPolicy{});
  ExpectParses("GROUP(MAX_WAIT_US=500,Max_Batch=8)", FlushPolicy::Group(500, 8));
  ExpectParses("  auto\t", FlushPolicy::Auto());
  ExpectParses(" group ( max_wait_us = 500 , max_batch = 8 ) ", FlushPolicy::Group(500, 8));
}

TEST(FlushPolicy, UnknownNames) {
  for (const char* text : {"", " ", "always", "on_each_flus", "on_each_flushx", "on each flush",
                           "autos", "grou", "groups", "none", "0", "(", ")", "group)", "auto,group",
                           "group;auto", "group max_batch=8", "groupmax_batch=8)"}) {
    SCOPED_TRACE(text);
    ExpectFails(text, {});
  }
  ExpectFails("always", kKinds);
  ExpectFails("always", {"'always'"});
  ExpectFails("", kKinds);
  ExpectFails("(max_batch=8)", kKinds);
  ExpectFails("sometimes(max_batch=8)", kKinds);
  ExpectFails("group(max_wait=5)", kParameters);
  ExpectFails("group(max_batches=5)", kParameters);
  ExpectFails("group(flush_policy=auto)", kParameters);
  ExpectFails("group(5)", kParameters);
  ExpectFails("group(max_batch)", kParameters);
  ExpectFails("group(=5)", kParameters);
  ExpectFails("group(max_batch=5,)", kParameters);
  ExpectFails("group(,max_batch=5)", kParameters);
  ExpectFails("group(,)", kParameters);
  ExpectFails("group(max_batch=5;max_wait_us=6)", {"max_batch"});
}

TEST(FlushPolicy, NumbersThatAreNone) {
  for (const char* number : {"",
                             " ",
                             "-1",
                             "-0",
                             "+1",
                             "x",
                             "1x",
                             "x1",
                             "0x10",
                             "1e3",
                             "1.5",
                             "1 2",
                             "1us",
                             "'1'",
                             "--",
                             "1=2",
                             "1)",
                             "(1",
                             "10000001",
                             "4294967295",
                             "4294967296",
                             "4294967297",
                             "18446744073709551615",
                             "18446744073709551616",
                             "-18446744073709551615",
                             "99999999999999999999999999999999"}) {
    SCOPED_TRACE(number);
    ExpectFails("group(max_wait_us=" + std::string(number) + ")", kWait);
    ExpectFails("group(max_batch=" + std::string(number) + ")", kBatch);
    ExpectFails("group(max_batch=1,max_wait_us=" + std::string(number) + ")", kWait);
    ExpectFails("group(max_batch=" + std::string(number) + ",max_wait_us=1)", kBatch);
  }
  ExpectFails("group(max_batch=1000001)", kBatch);
  ExpectFails("interval(max_delay_us=10000001)", {"max_delay_us", "0", "10000000"});
  ExpectFails("interval(max_delay_us=)", {"max_delay_us", "0", "10000000"});
  ExpectFails("group(max_wait_us=10000001)", kWait);
  ExpectFails(std::string_view("group(max_batch=1\0)", 19), kBatch);
}

TEST(FlushPolicy, GivenTwice) {
  ExpectFails("group(max_wait_us=1,max_wait_us=1)", {"max_wait_us", "twice"});
  ExpectFails("group(max_batch=1,max_wait_us=1,max_batch=2)", {"max_batch", "twice"});
  ExpectFails("group(max_batch=1,MAX_BATCH=2)", {"twice"});
}

TEST(FlushPolicy, Parentheses) {
  ExpectFails("group(", {"')'"});
  ExpectFails("group(max_batch=8", {"')'"});
  ExpectFails("group(max_batch=8) x", {"')'"});
  ExpectFails("group(max_batch=8)x", {"')'"});
  ExpectFails("group)max_batch=8(", {});
  ExpectFails("group(max_batch=8))", kBatch);
  ExpectFails("group((max_batch=8)", kParameters);
  ExpectFails("group(max_batch=8)(max_wait_us=1)", kBatch);
}

TEST(FlushPolicy, ParametersOfOtherPolicies) {
  ExpectFails("auto(max_wait_us=1)", {"max_wait_us", "group"});
  ExpectFails("auto(max_batch=1)", {"max_batch", "group"});
  ExpectFails("on_each_flush(max_wait_us=1,max_batch=1)", {"group"});
  ExpectFails("interval(max_wait_us=1)", {"max_wait_us", "group"});
  ExpectFails("group(max_delay_us=1)", {"max_delay_us", "interval"});
}

TEST(FlushPolicy, HugeStrings) {
  const std::string huge(1'000'000, '9');
  ExpectFails(huge, kKinds);
  ExpectFails("group(max_batch=" + huge + ")", kBatch);
  ExpectFails("group(max_wait_us=" + huge + ")", kWait);
  ExpectFails("group(" + huge + "=1)", kParameters);
  ExpectFails("group(" + huge, {"')'"});
  ExpectFails(huge + "(max_batch=1)", kKinds);
  ExpectFails("group(" + std::string(100'000, ',') + ")", kParameters);
  ExpectFails(std::string(100'000, '('), {"')'"});
  ExpectParses(std::string(100'000, ' ') + "auto" + std::string(100'000, ' '), FlushPolicy::Auto());
}

TEST(FlushPolicy, FormatIsReadBack) {
  for (const FlushPolicy& policy :
       {FlushPolicy{}, FlushPolicy::Auto(), kDefaultGroup, FlushPolicy::Group(0, 0),
        FlushPolicy::Group(1, 2), FlushPolicy::Group(10'000'000, 1'000'000),
        FlushPolicy::Interval(0), FlushPolicy::Interval(10'000'000)}) {
    ExpectParses(FormatPolicy(policy), policy);
    EXPECT_LT(FormatPolicy(policy).size(), 64u) << "64 bytes are always enough";
  }
  EXPECT_EQ(FormatPolicy(FlushPolicy::Auto()), "auto");
  EXPECT_EQ(FormatPolicy(FlushPolicy::Interval(5)), "interval(max_delay_us=5)");
  EXPECT_EQ(FormatPolicy(FlushPolicy::Group(500, 8)), "group(max_wait_us=500,max_batch=8)");
}

TEST(FlushPolicy, Parts) {
  const auto parse = [](const PolicyParts& parts) {
    FlushPolicy policy = kUntouched;
    std::string error;
    EXPECT_TRUE(ParsePolicyParts(parts, &policy, &error)) << error;
    return policy;
  };
  EXPECT_TRUE(PolicyParts{}.empty());
  EXPECT_FALSE((PolicyParts{{}, {}, "", {}}.empty()));
  EXPECT_TRUE(parse({"auto", {}, {}, {}}) == FlushPolicy::Auto());
  EXPECT_TRUE(parse({"on_each_flush", {}, {}, {}}) == FlushPolicy{});
  EXPECT_TRUE(parse({"group", {}, {}, {}}) == kDefaultGroup);
  EXPECT_TRUE(parse({"group", "500", "8", {}}) == FlushPolicy::Group(500, 8));
  EXPECT_TRUE(parse({{}, "500", {}, {}}) == FlushPolicy::Group(500, GROUPCOMMIT_MAX_BATCH_DEFAULT))
      << "a number implies its policy";
  EXPECT_TRUE(parse({{}, {}, {}, "7"}) == FlushPolicy::Interval(7));
  EXPECT_TRUE(parse({"interval", {}, {}, {}}) ==
              FlushPolicy::Interval(GROUPCOMMIT_MAX_DELAY_US_DEFAULT));
  EXPECT_TRUE(parse({{}, {}, "8", {}}) == FlushPolicy::Group(GROUPCOMMIT_MAX_WAIT_US_DEFAULT, 8));
}

TEST(FlushPolicy, BadParts) {
  struct Case {
    PolicyParts parts;
    std::vector<std::string> mentions;
  };
  for (const Case& bad :
       std::vector<Case>{{{"", {}, {}, {}}, kKinds},
                         {{"always", {}, {}, {}}, kKinds},
                         {{"group(max_batch=1)", {}, {}, {}}, kKinds},
                         {{"group(max_batch=1)", {}, {}, {}}, {"&max_batch=8"}},
                         {{"group", "", {}, {}}, kWait},
                         {{{}, "-1", {}, {}}, kWait},
                         {{{}, "10000001", {}, {}}, kWait},
                         {{{}, {}, "1e3", {}}, kBatch},
                         {{{}, {}, "1000001", {}}, kBatch},
                         {{{}, "1", "x", {}}, kBatch},
                         {{"auto", "1", {}, {}}, {"max_wait_us", "group"}},
                         {{"on_each_flush", {}, "1", {}}, {"max_batch", "group"}},
                         {{"interval", {}, {}, "10000001"}, {"max_delay_us", "10000000"}},
                         {{"interval", "1", {}, {}}, {"max_wait_us", "group"}},
                         {{"auto", {}, {}, "1"}, {"max_delay_us", "interval"}},
                         {{{}, "1", {}, "1"}, {"max_delay_us", "interval"}}}) {
    FlushPolicy policy = kUntouched;
    std::string error;
    EXPECT_FALSE(ParsePolicyParts(bad.parts, &policy, &error));
    EXPECT_TRUE(policy == kUntouched);
    for (const std::string& mention : bad.mentions) {
      EXPECT_NE(error.find(mention), std::string::npos) << error << " / " << mention;
    }
  }
}

TEST(FlushPolicy, FromCAndBack) {
  for (const groupcommit_policy& given :
       {groupcommit_policy{GROUPCOMMIT_GROUP, 0, 0, 0},
        groupcommit_policy{GROUPCOMMIT_GROUP, 500, 8, 0},
        groupcommit_policy{GROUPCOMMIT_GROUP, GROUPCOMMIT_MAX_WAIT_US_LIMIT,
                           GROUPCOMMIT_MAX_BATCH_LIMIT, 0},
        groupcommit_policy{GROUPCOMMIT_INTERVAL, 0, 0, GROUPCOMMIT_MAX_DELAY_US_LIMIT},
        groupcommit_policy{GROUPCOMMIT_AUTO, 0, 0, 0}, groupcommit_policy{}}) {
    FlushPolicy policy;
    std::string error;
    ASSERT_TRUE(PolicyFromC(given, &policy, &error)) << error;
    const groupcommit_policy back = PolicyToC(policy);
    EXPECT_EQ(back.kind, given.kind);
    EXPECT_EQ(back.max_wait_us, given.max_wait_us);
    EXPECT_EQ(back.max_batch, given.max_batch);
    EXPECT_EQ(back.max_delay_us, given.max_delay_us);
  }
}

TEST(FlushPolicy, BadFromC) {
  struct Case {
    groupcommit_policy policy;
    std::string mention;
  };
  constexpr unsigned kMost = std::numeric_limits<unsigned>::max();
  for (const Case& bad : std::vector<Case>{
           {{4, 0, 0, 0}, "kind"},
           {{-1, 0, 0, 0}, "kind"},
           {{256 + GROUPCOMMIT_GROUP, 0, 0, 0}, "kind"},
           {{GROUPCOMMIT_GROUP, GROUPCOMMIT_MAX_WAIT_US_LIMIT + 1, 0, 0}, "max_wait_us"},
           {{GROUPCOMMIT_GROUP, kMost, 0, 0}, "max_wait_us"},
           {{GROUPCOMMIT_GROUP, 0, GROUPCOMMIT_MAX_BATCH_LIMIT + 1, 0}, "max_batch"},
           {{GROUPCOMMIT_GROUP, 0, kMost, 0}, "max_batch"},
           {{GROUPCOMMIT_INTERVAL, 0, 0, kMost}, "max_delay_us"}}) {
    FlushPolicy policy = kUntouched;
    std::string error;
    EXPECT_FALSE(PolicyFromC(bad.policy, &policy, &error)) << bad.mention;
    EXPECT_TRUE(policy == kUntouched);
    EXPECT_NE(error.find(bad.mention), std::string::npos) << error;
    EXPECT_EQ(groupcommit_policy_format(&bad.policy, nullptr, 0), -1);
  }
}

TEST(PolicyInC, Parse) {
  groupcommit_policy policy{GROUPCOMMIT_AUTO, 1, 2, 3};
  char* error = nullptr;
  EXPECT_EQ(groupcommit_policy_parse("group(max_wait_us=500)", &policy, &error), SQLITE_OK);
  EXPECT_EQ(error, nullptr);
  EXPECT_EQ(policy.kind, GROUPCOMMIT_GROUP);
  EXPECT_EQ(policy.max_wait_us, 500u);
  EXPECT_EQ(policy.max_batch, GROUPCOMMIT_MAX_BATCH_DEFAULT);
  EXPECT_EQ(groupcommit_policy_parse("auto", &policy, nullptr), SQLITE_OK);
  EXPECT_EQ(policy.kind, GROUPCOMMIT_AUTO);
}

TEST(PolicyInC, ParseErrors) {
  groupcommit_policy policy{GROUPCOMMIT_GROUP, 500, 8, 0};
  char* error = nullptr;
  EXPECT_EQ(groupcommit_policy_parse("group(max_batch=-1)", &policy, &error), SQLITE_ERROR);
  ASSERT_NE(error, nullptr);
  EXPECT_NE(std::strstr(error, "max_batch"), nullptr) << error;
  EXPECT_NE(std::strstr(error, "1000000"), nullptr) << error;
  sqlite3_free(error);
  error = nullptr;
  EXPECT_EQ(groupcommit_policy_parse("%d%%", &policy, &error), SQLITE_ERROR);
  ASSERT_NE(error, nullptr);
  EXPECT_NE(std::strstr(error, "'%d%%'"), nullptr) << error;
  sqlite3_free(error);
  EXPECT_EQ(groupcommit_policy_parse("always", &policy, nullptr), SQLITE_ERROR);
  EXPECT_EQ(groupcommit_policy_parse(nullptr, &policy, nullptr), SQLITE_MISUSE);
  EXPECT_EQ(groupcommit_policy_parse("auto", nullptr, nullptr), SQLITE_MISUSE);
  EXPECT_EQ(policy.kind, GROUPCOMMIT_GROUP) << "left alone";
  EXPECT_EQ(policy.max_wait_us, 500u);
  EXPECT_EQ(policy.max_batch, 8u);
}

TEST(PolicyInC, FormatIntoBuffersOfAnySize) {
  const groupcommit_policy policy{GROUPCOMMIT_GROUP, 10'000'000, 1'000'000, 0};
  const std::string whole = "group(max_wait_us=10000000,max_batch=1000000)";
  const int length = static_cast<int>(whole.size());
  EXPECT_EQ(groupcommit_policy_format(&policy, nullptr, 0), length);
  EXPECT_EQ(groupcommit_policy_format(&policy, nullptr, 64), length);
  char untouched = '#';
  EXPECT_EQ(groupcommit_policy_format(&policy, &untouched, -1), length);
  EXPECT_EQ(untouched, '#');
  for (size_t room = 0; room <= 64; room++) {
    std::array<char, 65> buffer;
    buffer.fill('#');
    EXPECT_EQ(groupcommit_policy_format(&policy, buffer.data(), static_cast<int>(room)), length);
    if (room > 0) {
      EXPECT_EQ(std::string(buffer.data()), whole.substr(0, room - 1));
    }
    for (size_t i = room; i < buffer.size(); i++) ASSERT_EQ(buffer[i], '#') << "beyond the end";
  }
  EXPECT_EQ(groupcommit_policy_format(nullptr, nullptr, 0), -1);
}

}  // namespace
}  // namespace groupcommit::testing
