// What several processes share in the wal-index, as values. (What is read of a log, on any bytes:
// fuzz/fuzz_wal.cc.)
#include "wal_format.h"

#include <gtest/gtest.h>

#include <array>
#include <cstdint>

namespace groupcommit {
namespace {

using Words = std::array<uint32_t, 64>;

// wal.c: WalCkptInfo, behind two headers.
constexpr size_t kBackfill = 24;
constexpr size_t kBackfillAttempted = 32;

TEST(CheckpointInfoTest, AnAttemptThatCopiedNothingIsForgotten) {
  Words words{};
  words[kBackfill] = 3;
  words[kBackfillAttempted] = 9;
  CheckpointInfo::ForgetAttempt(words.data(), 3);
  EXPECT_EQ(words[kBackfillAttempted], 3U);
}

// Half of what that has announced may be in the database file.
TEST(CheckpointInfoTest, TheOneBeforeIsNot) {
  Words words{};
  words[kBackfill] = 3;
  words[kBackfillAttempted] = 9;
  CheckpointInfo::ForgetAttempt(words.data(), 7);
  EXPECT_EQ(words[kBackfillAttempted], 7U);
}

// The log has started over since, or all of it has been copied.
TEST(CheckpointInfoTest, WhatIsKnownNowCountsForMore) {
  Words words{};
  words[kBackfillAttempted] = 2;
  CheckpointInfo::ForgetAttempt(words.data(), 7);
  EXPECT_EQ(words[kBackfillAttempted], 2U);
  words[kBackfill] = 8;
  CheckpointInfo::ForgetAttempt(words.data(), 7);
  EXPECT_EQ(words[kBackfillAttempted], 8U);
}

TEST(WalIndexHeaderTest, IsWholeOnceSomebodyHasMadeIt) {
  constexpr size_t kInit = 3;  // the word with WalIndexHdr.isInit
  EXPECT_FALSE(WalIndexHeader().IsWhole()) << "nobody has";
  WalIndexHeader::Words words{};
  words[kInit] = 0x01010101;  // in either byte order
  const WalIndexHeader made = WalIndexHeader(words).WithChange(5);
  EXPECT_TRUE(made.IsWhole());
  words = made.words();
  words[4]++;
  EXPECT_FALSE(WalIndexHeader(words).IsWhole()) << "half of another one";
}

}  // namespace
}  // namespace groupcommit
