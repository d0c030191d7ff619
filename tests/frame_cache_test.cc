#include "frame_cache.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <random>
#include <thread>
#include <vector>

namespace groupcommit {
namespace {

constexpr int kPage = 512;
constexpr int kHeader = 24;
constexpr uint64_t kSalts = 77;

class FrameCacheTest : public ::testing::Test {
 protected:
  FrameCacheTest() { cache_.Reserve(); }

  // Commit number `change` writes `count` frames from `first` on, whose pages are filled with
  // `fill`, `fill` + 1 ...
  void Commit(uint32_t change, uint32_t first, int count, uint8_t fill, uint64_t salts = kSalts,
              uint64_t salts_before = kSalts) {
    std::vector<uint8_t> bytes;
    for (int i = 0; i < count; i++) {
      bytes.insert(bytes.end(), kHeader, 0xee);
      bytes.insert(bytes.end(), kPage, static_cast<uint8_t>(fill + i));
    }
    cache_.OnCommit({salts_before, change - 1}, {salts, change},
                    {first, count, bytes.data(), kHeader}, kPage);
  }

  // What a page in the cache is filled with; -1 if it is not there.
  int Read(FrameCache::Chain chain, uint32_t frame) const {
    std::vector<uint8_t> page(kPage);
    if (!cache_.Read(chain, frame, page.data(), kPage)) return -1;
    EXPECT_EQ(page, std::vector<uint8_t>(kPage, page[0])) << "a mixture";
    return page[0];
  }

  FrameCache cache_;
};

TEST_F(FrameCacheTest, HasWhatWasCommitted) {
  Commit(5, 10, 2, 1);
  const FrameCache::Chain chain = cache_.ChainOf({kSalts, 5});
  ASSERT_NE(chain, 0U);
  EXPECT_EQ(Read(chain, 10), 1);
  EXPECT_EQ(Read(chain, 11), 2);
  EXPECT_EQ(Read(chain, 12), -1);
  Commit(6, 12, 1, 3);
  EXPECT_EQ(cache_.ChainOf({kSalts, 6}), chain);
  EXPECT_EQ(Read(chain, 10), 1) << "an older snapshot reads on";
  EXPECT_EQ(Read(chain, 12), 3);
}

TEST_F(FrameCacheTest, IsNotForSnapshotsOfOtherHeaders) {
  Commit(5, 1, 1, 1);
  Commit(6, 2, 1, 2);
  EXPECT_NE(cache_.ChainOf({kSalts, 5}), 0U);
  EXPECT_NE(cache_.ChainOf({kSalts, 6}), 0U);
  EXPECT_EQ(cache_.ChainOf({kSalts, 4}), 0U) << "from before the chain";
  EXPECT_EQ(cache_.ChainOf({kSalts, 7}), 0U) << "of another process";
  EXPECT_EQ(cache_.ChainOf({kSalts + 1, 6}), 0U) << "of another log";
  EXPECT_EQ(Read(0, 1), -1);
}

// Another process has committed in between, or has started the log over.
TEST_F(FrameCacheTest, AChainEndsWhereAHeaderIsNotOurs) {
  Commit(5, 1, 1, 1);
  const FrameCache::Chain first = cache_.ChainOf({kSalts, 5});
  Commit(7, 3, 1, 3);
  const FrameCache::Chain second = cache_.ChainOf({kSalts, 7});
  EXPECT_NE(second, first);
  EXPECT_EQ(Read(second, 1), -1);
  EXPECT_EQ(Read(second, 3), 3);
  EXPECT_EQ(cache_.ChainOf({kSalts, 5}), 0U);
  Commit(8, 1, 1, 9, kSalts + 1);
  const FrameCache::Chain third = cache_.ChainOf({kSalts + 1, 8});
  EXPECT_EQ(Read(third, 3), -1);
  EXPECT_EQ(Read(third, 1), 9);
}

// Another process has recovered the log: its headers have the salts, and numbers that were there.
TEST_F(FrameCacheTest, AHeaderIsNotToldByItsNumberAlone) {
  const std::vector<uint8_t> bytes(kHeader + kPage, 1);
  const auto commit = [&](const FrameCache::State& before, const FrameCache::State& after) {
    cache_.OnCommit(before, after, {after.change, 1, bytes.data(), kHeader}, kPage);
  };
  commit({kSalts, 4, 40}, {kSalts, 5, 50});
  commit({kSalts, 5, 50}, {kSalts, 6, 60});
  const FrameCache::Chain chain = cache_.ChainOf({kSalts, 5, 50});
  ASSERT_NE(chain, 0U);
  EXPECT_EQ(cache_.ChainOf({kSalts, 6, 60}), chain);
  EXPECT_EQ(cache_.ChainOf({kSalts, 5, 51}), 0U);
  EXPECT_EQ(cache_.ChainOf({kSalts, 6, 61}), 0U);
  commit({kSalts, 6, 61}, {kSalts, 7, 70});
  EXPECT_EQ(cache_.ChainOf({kSalts, 6, 60}), 0U);
  EXPECT_NE(cache_.ChainOf({kSalts, 7, 70}), chain);
}

// A snapshot may be older than what is remembered of the headers.
TEST_F(FrameCacheTest, AnOldSnapshotReadsTheLog) {
  constexpr uint32_t kMany = 1000;
  for (uint32_t change = 1; change <= kMany; change++) Commit(change, change, 1, 1);
  EXPECT_NE(cache_.ChainOf({kSalts, kMany - 1}), 0U);
  EXPECT_EQ(cache_.ChainOf({kSalts, 1}), 0U);
}

TEST_F(FrameCacheTest, AChainHasNoGaps) {
  Commit(5, 1, 1, 1);
  const FrameCache::Chain chain = cache_.ChainOf({kSalts, 5});
  cache_.OnCommit({kSalts, 4}, {kSalts, 6}, {}, kPage);
  EXPECT_NE(cache_.ChainOf({kSalts, 6}), chain) << "it does not follow upon ours";
  Commit(7, 1, 1, 1);
  const FrameCache::Chain second = cache_.ChainOf({kSalts, 7});
  cache_.OnCommit({kSalts, 7}, {kSalts, 9}, {}, kPage);
  EXPECT_NE(cache_.ChainOf({kSalts, 9}), second) << "there may have been another one in between";
}

TEST_F(FrameCacheTest, WhatIsForgottenIsForNoSnapshotThatIsTakenLater) {
  Commit(5, 1, 1, 1);
  const FrameCache::Chain chain = cache_.ChainOf({kSalts, 5});
  cache_.Forget();
  EXPECT_EQ(cache_.ChainOf({kSalts, 5}), 0U);
  EXPECT_EQ(Read(chain, 1), 1) << "a snapshot from before keeps its frames as they are";
  Commit(6, 1, 1, 2);
  EXPECT_EQ(Read(chain, 1), -1);
  EXPECT_EQ(Read(cache_.ChainOf({kSalts, 6}), 1), 2);
}

TEST_F(FrameCacheTest, ACommitOfWhichNoFrameIsAtHandKeepsTheChain) {
  Commit(5, 1, 1, 1);
  Commit(6, 2, 0, 0);
  Commit(7, 90, 1, 3);
  const FrameCache::Chain chain = cache_.ChainOf({kSalts, 7});
  EXPECT_EQ(Read(chain, 1), 1);
  EXPECT_EQ(Read(chain, 2), -1);
  EXPECT_EQ(Read(chain, 90), 3);
}

TEST_F(FrameCacheTest, TheOldestFramesMakeRoom) {
  constexpr uint32_t kSlots = FrameCache::kBytes / kPage;
  Commit(1, 1, 1, 1);
  Commit(2, 1 + kSlots, 1, 2);
  const FrameCache::Chain chain = cache_.ChainOf({kSalts, 2});
  EXPECT_EQ(Read(chain, 1), -1);
  EXPECT_EQ(Read(chain, 1 + kSlots), 2);
}

TEST_F(FrameCacheTest, PagesHaveOneSize) {
  Commit(5, 1, 1, 1);
  std::vector<uint8_t> page(2 * kPage);
  EXPECT_FALSE(cache_.Read(cache_.ChainOf({kSalts, 5}), 1, page.data(), 2 * kPage));
  cache_.OnCommit({kSalts, 5}, {kSalts, 6}, {}, 2 * kPage);
  EXPECT_EQ(cache_.ChainOf({kSalts, 6}), 0U);
}

TEST_F(FrameCacheTest, PagesThatAreTooSmallAreNotKept) {
  for (const int size : {0, kPage / 2}) {
    cache_.OnCommit({kSalts, 4}, {kSalts, 5}, {}, size);
    EXPECT_EQ(cache_.ChainOf({kSalts, 5}), 0U) << size;
  }
  Commit(5, 1, 1, 1);
  EXPECT_EQ(Read(cache_.ChainOf({kSalts, 5}), 1), 1);
}

// Each connection makes room, also while others read.
TEST_F(FrameCacheTest, MakingRoomAgainChangesNothing) {
  Commit(5, 1, 1, 1);
  cache_.Reserve();
  EXPECT_EQ(Read(cache_.ChainOf({kSalts, 5}), 1), 1);
}

TEST(FrameCacheWithoutRoomTest, KeepsNothing) {
  FrameCache cache;
  cache.OnCommit({kSalts, 1}, {kSalts, 2}, {}, kPage);
  EXPECT_EQ(cache.ChainOf({kSalts, 2}), 0U);
}

// Readers of all slots beside a writer that makes them anew: no page is a mixture, nor another one.
TEST_F(FrameCacheTest, ReadersBesideAWriter) {
  constexpr uint32_t kSlots = FrameCache::kBytes / kPage;
  constexpr int64_t kEnough = 10'000;
  const auto fill_of = [](uint32_t frame) {
    return static_cast<uint8_t>(frame * 37 + frame / 251);
  };
  std::atomic<uint32_t> committed{0};
  std::atomic<int64_t> found{0};
  std::vector<std::thread> readers;
  for (unsigned seed = 0; seed < 3; seed++) {
    readers.emplace_back([&, seed] {
      std::minstd_rand random(seed);
      while (found.load() < kEnough) {
        const uint32_t last = committed.load();
        if (last == 0) continue;
        const FrameCache::Chain chain = cache_.ChainOf({kSalts, last});
        const auto back = static_cast<uint32_t>(random()) % std::min(last, 2 * kSlots);
        const int page = Read(chain, last - back);
        if (page < 0) continue;
        found.fetch_add(1);
        EXPECT_EQ(page, fill_of(last - back));
      }
    });
  }
  for (uint32_t i = 1; found.load() < kEnough; i++) {
    Commit(i, i, 1, fill_of(i));
    committed.store(i);
  }
  for (std::thread& reader : readers) reader.join();
}

}  // namespace
}  // namespace groupcommit
