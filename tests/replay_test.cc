// The laboratory's replay: what a power cut leaves, by the record of a few writes and syncs.
#include "laboratory/replay.h"

#include <gtest/gtest.h>

#include <set>
#include <string>

#include "support/sqlite_helpers.h"

namespace groupcommit::testing {
namespace {

constexpr size_t kSector = 512;

class ReplayTest : public ::testing::Test {
 protected:
  ReplayTest() {
    record_.Reset(1);
    const std::string created = std::string("file") + '\0' + std::string(4 * kSector, 'a');
    record_.Append(Event::kCreate, 0, 0, 0, created);
  }

  void Write(size_t offset, size_t size, char c) {
    record_.Append(Event::kWrite, 0, static_cast<int64_t>(offset), 0, std::string(size, c));
  }
  void BeginSync(int number) { record_.Append(Event::kSyncBegin, 0, number); }
  void EndSync(int number, bool good) { record_.Append(Event::kSyncEnd, 0, number, good); }

  // The first byte of each sector of what is left.
  std::string Left(Survivors survivors, uint64_t seed = 0) const {
    Replay replay(&record_);
    replay.AdvanceTo(record_.count());
    const Bytes bytes = replay.Disk(survivors, seed).at("file");
    std::string left;
    for (size_t i = 0; i < bytes.size(); i += kSector) {
      left += static_cast<char>(bytes[i]);
      for (size_t j = i; j < i + kSector; j++) EXPECT_EQ(bytes[j], bytes[i]) << "half a sector";
    }
    return left;
  }
  std::set<std::string> AllLeft(Survivors survivors) const {
    std::set<std::string> all;
    for (uint64_t seed = 0; seed < 2000; seed++) all.insert(Left(survivors, seed));
    return all;
  }

  Record record_;
};

TEST_F(ReplayTest, ASyncCoversWhatWasWrittenBeforeItBegan) {
  Write(0, kSector, 'b');
  EXPECT_EQ(Left(Survivors::kNone), "aaaa");
  EXPECT_EQ(Left(Survivors::kAll), "baaa");
  BeginSync(1);
  Write(kSector, kSector, 'c');
  EXPECT_EQ(Left(Survivors::kNone), "aaaa") << "the sync has not ended";
  EndSync(1, true);
  EXPECT_EQ(Left(Survivors::kNone), "baaa");
  EXPECT_EQ(Left(Survivors::kAll), "bcaa");
}

TEST_F(ReplayTest, SectorsSurviveInAnyCombinationOfTheirVersions) {
  Write(0, 2 * kSector, 'b');
  Write(0, kSector, 'c');
  const std::set<std::string> expected = {"aaaa", "baaa", "caaa", "abaa", "bbaa", "cbaa"};
  EXPECT_EQ(AllLeft(Survivors::kSectors512), expected);
  EXPECT_EQ(Left(Survivors::kSectors512, 5), Left(Survivors::kSectors512, 5));
}

TEST_F(ReplayTest, APrefixEndsInTheMiddleOfAWrite) {
  Write(0, kSector, 'b');
  Write(kSector, 2 * kSector, 'c');
  // Of the last write all, none, the first or the last sectors; of the one before, the same if it
  // is the last one that survives.
  const std::set<std::string> expected = {"aaaa", "baaa", "bcca", "bcaa", "baca"};
  EXPECT_EQ(AllLeft(Survivors::kPrefix), expected);
}

TEST_F(ReplayTest, SizesSurviveOrNot) {
  record_.Append(Event::kTruncate, 0, kSector);
  Write(kSector, kSector, 'b');
  EXPECT_EQ(Left(Survivors::kAll), "ab");
  for (const std::string& left : AllLeft(Survivors::kSectors512)) {
    EXPECT_TRUE(left.size() == 4 || left.size() == 1 || left.size() == 2) << left;
  }
}

TEST_F(ReplayTest, WhatAFailedSyncLostComesBackOnlyIfItIsWrittenAgain) {
  Write(0, kSector, 'b');
  // Some failed syncs lose all they covered, others a part.
  BeginSync(1);
  EndSync(1, false);
  const std::string lost = Left(Survivors::kAll);
  BeginSync(2);
  EndSync(2, true);
  EXPECT_EQ(Left(Survivors::kAll), lost);
  // The kernel writes whole pages: this one takes the rest along.
  Write(kSector, kSector, 'c');
  BeginSync(3);
  EndSync(3, true);
  EXPECT_EQ(Left(Survivors::kNone), "bcaa");
}

TEST_F(ReplayTest, AFileThatWasDeletedIsGoneAtOnce) {
  record_.Append(Event::kDelete, 0);
  Replay replay(&record_);
  replay.AdvanceTo(record_.count());
  EXPECT_TRUE(replay.Disk(Survivors::kNone, 0).empty());
}

TEST_F(ReplayTest, ARecordCanBeSavedAndRead) {
  Write(0, kSector, 'b');
  const TempDir dir;
  const std::string path = dir.File("record");
  ASSERT_TRUE(record_.Save(path));
  const std::string left = Left(Survivors::kAll);
  record_.Reset(2);
  ASSERT_TRUE(record_.Load(path));
  EXPECT_EQ(Left(Survivors::kAll), left);
  EXPECT_EQ(record_.seed(), 1u);
}

}  // namespace
}  // namespace groupcommit::testing
