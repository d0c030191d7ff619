// Where in a commit a connection is, by what it writes to the log.
#include "log_writes.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <vector>

namespace groupcommit {
namespace {

constexpr int kPage = 512;
constexpr int kFrame = kFrameHeaderSize + kPage;

class LogWritesTest : public ::testing::Test {
 protected:
  void Header(uint32_t frame, uint8_t page, uint8_t database_size) {
    std::vector<uint8_t> bytes(kFrameHeaderSize);
    bytes[3] = page;
    bytes[7] = database_size;
    bytes[8] = 77;  // salts
    EXPECT_EQ(writes_.OnWrite(bytes.data(), kFrameHeaderSize, FrameOffset(frame, kPage)), 0U);
  }
  uint32_t Page(uint32_t frame, int size = kPage) {
    const std::vector<uint8_t> bytes(kPage);
    return writes_.OnWrite(bytes.data(), size, FrameOffset(frame, kPage) + kFrameHeaderSize);
  }
  void Frame(uint32_t frame, uint8_t page, uint8_t database_size = 0) {
    Header(frame, page, database_size);
    EXPECT_EQ(Page(frame), page);
  }

  LogWrites writes_;
};

TEST_F(LogWritesTest, ACommitEndsWithTheSizeOfTheDatabaseAndAPage) {
  Frame(1, 2);
  EXPECT_FALSE(writes_.EndsCommit());
  EXPECT_FALSE(writes_.has_commit());
  Header(2, 3, 9);
  EXPECT_FALSE(writes_.EndsCommit());
  EXPECT_EQ(Page(2), 3U);
  EXPECT_TRUE(writes_.EndsCommit());
  EXPECT_TRUE(writes_.EndsCommit(kPage));
  EXPECT_FALSE(writes_.EndsCommit(2 * kPage));
  EXPECT_TRUE(writes_.has_commit());
  constexpr uint8_t kSalts[8] = {77};
  const uint64_t generation = writes_.generation();
  EXPECT_EQ(std::memcmp(&generation, kSalts, sizeof(kSalts)), 0);
}

// walRewriteChecksums(), or a sync in the middle of a page.
TEST_F(LogWritesTest, WhatComesBehindIsNoEndOfACommit) {
  Frame(1, 2, 9);
  Header(1, 2, 0);
  EXPECT_FALSE(writes_.EndsCommit());
  EXPECT_TRUE(writes_.has_commit());
  Frame(2, 2, 9);
  writes_.OnSync();
  EXPECT_FALSE(writes_.EndsCommit());
  Header(3, 2, 9);
  Page(3, kPage / 2);
  EXPECT_FALSE(writes_.EndsCommit(kPage));
}

TEST_F(LogWritesTest, APageIsOneBehindItsHeader) {
  EXPECT_EQ(Page(1), 0U) << "without any";
  Header(1, 1, 9);
  EXPECT_EQ(Page(2), 0U) << "elsewhere";
  EXPECT_FALSE(writes_.EndsCommit());
  EXPECT_EQ(writes_.page1_frame(), 0U);
  const std::vector<uint8_t> header(kWalHeaderSize);
  EXPECT_EQ(writes_.OnWrite(header.data(), kFrameHeaderSize, 0), 0U) << "of the log, in part";
  EXPECT_EQ(Page(1), 0U);
}

TEST_F(LogWritesTest, TheFrameOfPage1) {
  Frame(7, 1);
  Frame(8, 2, 9);
  EXPECT_EQ(writes_.page1_frame(), 7U);
  writes_.OnEnd();
  EXPECT_EQ(writes_.page1_frame(), 7U);
  writes_.OnBegin();
  EXPECT_EQ(writes_.page1_frame(), 0U);
}

TEST_F(LogWritesTest, Empty) {
  EXPECT_TRUE(writes_.is_empty());
  Header(1, 1, 0);
  EXPECT_FALSE(writes_.is_empty());
  writes_.OnBegin();
  EXPECT_TRUE(writes_.is_empty());
}

// In exclusive locking mode nothing else tells where a transaction begins.
TEST_F(LogWritesTest, ATransactionBeginsWhereTheLastCommitHasEnded) {
  EXPECT_TRUE(writes_.BeginsTransaction(FrameOffset(1, kPage)));
  Frame(1, 2);
  EXPECT_TRUE(writes_.IsInTransaction());
  EXPECT_FALSE(writes_.BeginsTransaction(FrameOffset(2, kPage)));
  EXPECT_TRUE(writes_.BeginsTransaction(FrameOffset(1, kPage))) << "the first was rolled back";
  Frame(2, 2, 9);
  EXPECT_FALSE(writes_.BeginsTransaction(FrameOffset(1, kPage))) << "it is written again";
  writes_.OnEnd();
  EXPECT_FALSE(writes_.IsInTransaction());
  EXPECT_TRUE(writes_.BeginsTransaction(FrameOffset(3, kPage)));
}

TEST_F(LogWritesTest, ACommitThatFailedBeginsAtTheSamePlace) {
  Frame(4, 2, 9);
  writes_.OnRollBack();
  EXPECT_FALSE(writes_.has_commit());
  EXPECT_FALSE(writes_.EndsCommit());
  writes_.OnEnd();
  EXPECT_TRUE(writes_.IsInTransaction());
  EXPECT_TRUE(writes_.BeginsTransaction(FrameOffset(4, kPage)));
  EXPECT_FALSE(writes_.BeginsTransaction(FrameOffset(4, kPage) + kFrame));
}

}  // namespace
}  // namespace groupcommit
