// Which pending commit a position in the log belongs to, and how strong the next sync has to be.
#include "commit_log.h"

#include <gtest/gtest.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <thread>

namespace groupcommit::testing {
namespace {

class CommitLogTest : public ::testing::Test {
 protected:
  Lsn OwnerOf(uint32_t position, Lsn durable, Lsn appended) {
    return log_->OwnerOf(position, durable, appended).lsn;
  }

  std::unique_ptr<CommitLog> log_ = std::make_unique<CommitLog>();
};

TEST_F(CommitLogTest, NothingIsPendingAtFirst) {
  EXPECT_EQ(OwnerOf(1, 0, 0), 0u);
  EXPECT_EQ(OwnerOf(1000, 7, 7), 0u);
  EXPECT_EQ(log_->Strength(0, 0), 0);
  EXPECT_EQ(log_->Strength(7, 7), 0);
}

TEST_F(CommitLogTest, ACommitReachesUpToTheNext) {
  log_->Put(1, {1, 0, 0});
  log_->Put(2, {5, 0, 0});
  log_->Put(3, {6, 0, 0});
  EXPECT_EQ(OwnerOf(0, 0, 3), 0u) << "beneath all of them";
  EXPECT_EQ(OwnerOf(1, 0, 3), 1u);
  EXPECT_EQ(OwnerOf(4, 0, 3), 1u);
  EXPECT_EQ(OwnerOf(5, 0, 3), 2u);
  EXPECT_EQ(OwnerOf(6, 0, 3), 3u);
  EXPECT_EQ(OwnerOf(9999, 0, 3), 3u) << "what others appended on top needs it";
}

TEST_F(CommitLogTest, OnlyPendingCommitsOwnAnything) {
  log_->Put(1, {1, 2, 1});
  log_->Put(2, {5, 6, 2});
  log_->Put(3, {9, 10, 4});
  EXPECT_EQ(OwnerOf(3, 1, 3), 0u) << "1 is durable";
  EXPECT_EQ(OwnerOf(6, 1, 3), 2u);
  EXPECT_EQ(OwnerOf(6, 2, 3), 0u);
  EXPECT_EQ(OwnerOf(9999, 3, 3), 0u);
  EXPECT_EQ(OwnerOf(9999, 0, 2), 2u) << "3 is not appended yet";
  EXPECT_FALSE(log_->OwnerOf(2, 1, 3).is_header);
}

TEST_F(CommitLogTest, TheHeaderIsOnePositionOfItsCommit) {
  log_->Put(1, {10, 12, 0});
  log_->Put(2, {20, 0, 0});
  EXPECT_EQ(log_->OwnerOf(12, 0, 2).lsn, 1u);
  EXPECT_TRUE(log_->OwnerOf(12, 0, 2).is_header);
  EXPECT_FALSE(log_->OwnerOf(11, 0, 2).is_header);
  EXPECT_FALSE(log_->OwnerOf(13, 0, 2).is_header);
  for (uint32_t position = 20; position < 30; position++) {
    EXPECT_FALSE(log_->OwnerOf(position, 0, 2).is_header) << position;
  }
}

// The log restarts: positions begin again, commits before that may still be pending.
TEST_F(CommitLogTest, TheNewestCommitOwnsAPositionUsedAgain) {
  log_->Put(1, {100, 101, 0});
  log_->Put(2, {105, 106, 0});
  log_->Put(3, {1, 2, 0});
  log_->Put(4, {4, 5, 0});
  EXPECT_EQ(OwnerOf(1, 0, 4), 3u);
  EXPECT_EQ(OwnerOf(3, 0, 4), 3u);
  EXPECT_EQ(OwnerOf(4, 0, 4), 4u);
  EXPECT_EQ(OwnerOf(101, 0, 4), 4u);
  EXPECT_FALSE(log_->OwnerOf(101, 0, 4).is_header);
}

TEST_F(CommitLogTest, StrengthIsAllThatAnybodyAsks) {
  log_->Put(1, {1, 0, 1});
  log_->Put(2, {2, 0, 2});
  log_->Put(3, {3, 0, 0});
  log_->Put(4, {4, 0, 16});
  EXPECT_EQ(log_->Strength(0, 4), 19);
  EXPECT_EQ(log_->Strength(0, 1), 1);
  EXPECT_EQ(log_->Strength(1, 2), 2);
  EXPECT_EQ(log_->Strength(1, 3), 2);
  EXPECT_EQ(log_->Strength(2, 3), 0);
  EXPECT_EQ(log_->Strength(3, 4), 16);
  EXPECT_EQ(log_->Strength(4, 4), 0);
}

TEST_F(CommitLogTest, GivesBackWhatWasRecorded) {
  LogCommit commit{7, 8, 3, true, {}};
  for (uint32_t i = 0; i < commit.before.size(); i++) commit.before[i] = 100 + i;
  log_->Put(1, commit);
  log_->Put(2, {9, 0, 0, false, {}});
  const LogCommit first = log_->Get(1);
  EXPECT_EQ(first.first, 7u);
  EXPECT_EQ(first.header, 8u);
  EXPECT_EQ(first.strength, 3);
  EXPECT_TRUE(first.can_undo);
  EXPECT_EQ(first.before, commit.before);
  EXPECT_EQ(log_->Get(2).first, 9u);
  EXPECT_FALSE(log_->Get(2).can_undo);
}

TEST_F(CommitLogTest, HoldsAsManyAsItSays) {
  // From a number at which any ring of a power of two is in the middle of itself.
  constexpr Lsn kDurable = 123'456;
  constexpr Lsn kAppended = kDurable + CommitLog::kCapacity;
  for (Lsn lsn = kDurable + 1; lsn <= kAppended; lsn++) {
    const auto first = static_cast<uint32_t>(10 * (lsn - kDurable));
    log_->Put(lsn, {first, first + 1, lsn == kDurable + 1 ? 1 : 2});
  }
  for (Lsn lsn = kDurable + 1; lsn <= kAppended; lsn++) {
    const auto first = static_cast<uint32_t>(10 * (lsn - kDurable));
    ASSERT_EQ(OwnerOf(first, kDurable, kAppended), lsn);
    ASSERT_TRUE(log_->OwnerOf(first + 1, kDurable, kAppended).is_header);
    ASSERT_EQ(OwnerOf(first + 9, kDurable, kAppended), lsn);
  }
  EXPECT_EQ(log_->Strength(kDurable, kAppended), 3);
  EXPECT_EQ(log_->Strength(kDurable + 1, kAppended), 2);
}

TEST_F(CommitLogTest, APlaceIsUsedAgainWhenItsCommitIsDurable) {
  for (Lsn lsn = 1; lsn <= 5 * CommitLog::kCapacity; lsn++) {
    log_->Put(lsn, {static_cast<uint32_t>(lsn), 0, 1 << (lsn % 3)});
    ASSERT_EQ(OwnerOf(static_cast<uint32_t>(lsn), lsn - 1, lsn), lsn);
    ASSERT_EQ(log_->Strength(lsn - 1, lsn), 1 << (lsn % 3));
  }
}

TEST_F(CommitLogTest, WhoSeesTheNumberFindsTheCommit) {
  constexpr Lsn kCommits = 20'000;
  std::atomic<Lsn> appended{0};
  std::atomic<Lsn> durable{0};
  std::thread writer([&] {
    for (Lsn lsn = 1; lsn <= kCommits; lsn++) {
      while (lsn - durable.load() >= CommitLog::kCapacity) std::this_thread::yield();
      log_->Put(lsn, {static_cast<uint32_t>(lsn), 0, 1});
      appended.store(lsn);
    }
  });
  for (Lsn seen = 0; seen < kCommits;) {
    const Lsn newest = appended.load();
    if (newest == seen) {
      std::this_thread::yield();
      continue;
    }
    // Not ASSERT_*: the writer has to be joined.
    EXPECT_EQ(OwnerOf(static_cast<uint32_t>(newest), seen, newest), newest);
    EXPECT_EQ(log_->Strength(seen, newest), 1);
    durable.store(seen = newest);
  }
  writer.join();
}

}  // namespace
}  // namespace groupcommit::testing
