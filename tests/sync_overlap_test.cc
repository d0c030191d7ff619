// Whether several syncs at a time pay, by what they take.
#include "sync_overlap.h"

#include <gtest/gtest.h>

#include <cstdint>

namespace groupcommit {
namespace {

constexpr int64_t kMicro = 1'000;
constexpr int64_t kMilli = 1'000'000;

// A device of which a sync takes `alone`, or `beside` others.
struct Device {
  int64_t alone;
  int64_t beside;
};
constexpr Device kParallel{2 * kMilli, 2 * kMilli};
constexpr Device kSerial{2 * kMilli, 8 * kMilli};

class SyncOverlapTest : public ::testing::Test {
 protected:
  // Of all syncs, as many are under way as may be.
  void Run(int syncs, const Device& device, const SyncOverlap::Load& load) {
    for (int i = 0; i < syncs; i++) {
      const int most = overlap_.Most();
      const bool before = Overlaps();
      overlap_.Learn(most, most > 1 ? device.beside : device.alone, load, true);
      switches_ += Overlaps() != before;
      overlapped_ += before;
    }
  }
  bool Overlaps() const { return overlap_.Most() > 1; }

  static constexpr SyncOverlap::Load kMany{.in_flight = 32, .apart_nanos = 20 * kMicro};

  SyncOverlap overlap_;
  int switches_ = 0;
  int overlapped_ = 0;  // how many syncs were allowed company
};

TEST_F(SyncOverlapTest, OneAtATimeUntilItIsKnown) {
  EXPECT_EQ(overlap_.Most(), 1);
  Run(SyncOverlap::kShortestPause - 1, kParallel, kMany);
  EXPECT_EQ(overlap_.Most(), 1);
}

TEST_F(SyncOverlapTest, ADeviceThatServesSeveral) {
  Run(SyncOverlap::kShortestPause + SyncOverlap::kTrial, kParallel, kMany);
  EXPECT_EQ(overlap_.Most(), SyncOverlap::kMost);
  overlapped_ = 0;
  Run(100'000, kParallel, kMany);
  EXPECT_GT(overlapped_, 97'000) << "trials of the other way are rare";
  EXPECT_LT(overlapped_, 99'990) << "and do not end";
}

TEST_F(SyncOverlapTest, ADeviceThatServesOneAfterTheOther) {
  Run(SyncOverlap::kShortestPause + SyncOverlap::kTrial, kSerial, kMany);
  EXPECT_EQ(switches_, 2) << "it was tried";
  EXPECT_EQ(overlap_.Most(), 1);
  overlapped_ = 0;
  Run(100'000, kSerial, kMany);
  EXPECT_LT(overlapped_, 3'000);
  EXPECT_GT(overlapped_, 10);
}

TEST_F(SyncOverlapTest, AHopelessTrialEndsSoon) {
  Run(SyncOverlap::kShortestPause + SyncOverlap::kFewest, kSerial, kMany);
  EXPECT_EQ(switches_, 2);
  overlapped_ = 0;
  Run(100'000, kSerial, kMany);
  EXPECT_LT(overlapped_, 100'000 / SyncOverlap::kLongestPause * SyncOverlap::kFewest + 50);
}

// One fewer takes long than would end it.
TEST_F(SyncOverlapTest, AFewSlowSyncsDoNotEndATrial) {
  Run(SyncOverlap::kShortestPause, kParallel, kMany);
  ASSERT_TRUE(Overlaps());
  for (int i = 1; i < SyncOverlap::kFewest; i++) {
    Run(1, kParallel, kMany);
    Run(1, kSerial, kMany);
  }
  EXPECT_TRUE(Overlaps());
  Run(SyncOverlap::kTrial, kParallel, kMany);
  EXPECT_TRUE(Overlaps());
  EXPECT_EQ(switches_, 1);
}

// They would share their syncs with nobody.
TEST_F(SyncOverlapTest, NotForAFew) {
  Run(1000, kParallel, {.in_flight = 5, .apart_nanos = 200 * kMicro});
  EXPECT_EQ(switches_, 0);
  Run(2000, kParallel, kMany);
  EXPECT_EQ(overlap_.Most(), SyncOverlap::kMost);
  Run(50, kParallel, {.in_flight = 5, .apart_nanos = 200 * kMicro});
  EXPECT_EQ(overlap_.Most(), 1);
}

TEST_F(SyncOverlapTest, ThatThereAreFewForAMomentChangesNothing) {
  constexpr SyncOverlap::Load kEight{.in_flight = 8, .apart_nanos = 100 * kMicro};
  constexpr SyncOverlap::Load kThree{.in_flight = 3, .apart_nanos = 100 * kMicro};
  Run(5000, kParallel, kEight);
  ASSERT_TRUE(Overlaps());
  Run(1, kParallel, kThree);
  EXPECT_TRUE(Overlaps());
  const int switches = switches_;
  for (int i = 0; i < 5000; i++) {
    Run(1, kParallel, kThree);
    Run(2, kParallel, kEight);
  }
  EXPECT_TRUE(Overlaps());
  EXPECT_LE(switches_ - switches, 2 * 15'000 / SyncOverlap::kLongestPause + 2) << "only trials";
}

TEST_F(SyncOverlapTest, NotForShortSyncs) {
  Run(1000, {499 * kMicro, 499 * kMicro}, kMany);
  EXPECT_EQ(switches_, 0);
}

// All are there in a hundredth of a sync's time.
TEST_F(SyncOverlapTest, NotWithoutAGain) {
  Run(1000, {20 * kMilli, 20 * kMilli}, {.in_flight = 10, .apart_nanos = 20 * kMicro});
  EXPECT_EQ(switches_, 0);
}

// The processors are what there is too little of.
TEST_F(SyncOverlapTest, NotWhereCommitsTakeLongerThanTheirSyncs) {
  Run(1000, kParallel, {.in_flight = 32, .apart_nanos = 200 * kMicro});
  EXPECT_EQ(switches_, 0);
}

TEST_F(SyncOverlapTest, NoticesThatTheDeviceHasChanged) {
  Run(5000, kParallel, kMany);
  ASSERT_TRUE(Overlaps());
  constexpr int kSoon = SyncOverlap::kLongestPause + 2 * SyncOverlap::kTrial;
  Run(kSoon, kSerial, kMany);
  EXPECT_FALSE(Overlaps());
  Run(5000, kSerial, kMany);
  Run(kSoon, kParallel, kMany);
  EXPECT_TRUE(Overlaps());
  Run(40, {100 * kMicro, 100 * kMicro}, kMany);
  EXPECT_FALSE(Overlaps()) << "short syncs need no trial";
}

// What has changed once may do so again: it is not as long until the next trial as it was.
TEST_F(SyncOverlapTest, AfterAChangeTheNextTrialComesSoon) {
  constexpr int kSoon = SyncOverlap::kShortestPause + SyncOverlap::kTrial;
  Run(5000, kParallel, kMany);
  while (Overlaps()) Run(1, kSerial, kMany);
  Run(SyncOverlap::kTrial, kSerial, kMany);
  ASSERT_FALSE(Overlaps());
  Run(kSoon, kParallel, kMany);
  EXPECT_TRUE(Overlaps());
  Run(5000, kParallel, kMany);
  while (Overlaps()) Run(1, {100 * kMicro, 100 * kMicro}, kMany);
  Run(kSoon, kParallel, kMany);
  EXPECT_TRUE(Overlaps()) << "syncs were short for a while";
}

// The device is what it was, but now the processors are what there is too little of.
TEST_F(SyncOverlapTest, NoticesThatTheLoadHasChanged) {
  Run(5000, kParallel, kMany);
  ASSERT_TRUE(Overlaps());
  Run(SyncOverlap::kLongestPause + 2 * SyncOverlap::kTrial, kParallel,
      {.in_flight = 32, .apart_nanos = 200 * kMicro});
  EXPECT_FALSE(Overlaps());
}

TEST_F(SyncOverlapTest, OneLongSyncChangesNothing) {
  Run(5000, kParallel, kMany);
  ASSERT_TRUE(Overlaps());
  const int switches = switches_;
  for (int i = 0; i < 20; i++) {
    Run(500, kParallel, kMany);
    Run(1, {8'000 * kMilli, 8'000 * kMilli}, kMany);
  }
  EXPECT_TRUE(Overlaps());
  EXPECT_LE(switches_ - switches, 2 * 10'000 / SyncOverlap::kLongestPause + 2) << "only trials";
}

// A trial in which no two syncs met says nothing.
TEST_F(SyncOverlapTest, ATrialWithoutCompanyIsNone) {
  for (int i = 0; i < 5000; i++) {
    overlapped_ += Overlaps();
    overlap_.Learn(1, 2 * kMilli, kMany, true);
  }
  EXPECT_LT(overlapped_, 10 * SyncOverlap::kTrial) << "it ends all the same";
  Run(SyncOverlap::kTrial, kSerial, kMany);
  EXPECT_FALSE(Overlaps());
}

// Nor does one in which next to none did, however fast those were.
TEST_F(SyncOverlapTest, ATrialTakesAFewThatMet) {
  for (const int met : {SyncOverlap::kFewest - 1, SyncOverlap::kFewest}) {
    overlap_ = SyncOverlap();
    Run(SyncOverlap::kShortestPause, kParallel, kMany);
    ASSERT_TRUE(Overlaps());
    for (int i = 0; i < SyncOverlap::kTrial; i++) {
      overlap_.Learn(i < met ? 2 : 1, kParallel.beside, kMany, true);
    }
    EXPECT_EQ(Overlaps(), met == SyncOverlap::kFewest) << met;
  }
}

// Then it is the one way of which it is known that it is slow: nothing is gained by an early end.
TEST_F(SyncOverlapTest, AFewSlowSyncsDoNotEndATrialOfOneAtATime) {
  Run(5000, kParallel, kMany);
  ASSERT_TRUE(Overlaps());
  while (Overlaps()) Run(1, kSerial, kMany);
  for (int i = 0; i < SyncOverlap::kTrial; i++) {
    overlap_.Learn(1, i % 4 == 3 ? 4 * kSerial.alone : kSerial.alone, kMany, true);
  }
  EXPECT_FALSE(Overlaps());
}

TEST_F(SyncOverlapTest, NotWhereTheyAreNotIndependent) {
  EXPECT_FALSE(overlap_.is_wanted());
  for (int i = 0; i < SyncOverlap::kShortestPause; i++) {
    EXPECT_FALSE(overlap_.is_wanted());
    overlap_.Learn(1, 2 * kMilli, kMany, false);
  }
  EXPECT_TRUE(overlap_.is_wanted());
  EXPECT_FALSE(Overlaps());
  overlap_.Learn(1, 2 * kMilli, kMany, true);
  EXPECT_TRUE(Overlaps()) << "as soon as they are";
  EXPECT_TRUE(overlap_.is_wanted());
  Run(SyncOverlap::kTrial, kSerial, kMany);
  EXPECT_FALSE(overlap_.is_wanted()) << "it does not pay";
}

TEST_F(SyncOverlapTest, Always) {
  overlap_ = SyncOverlap::Always();
  EXPECT_EQ(overlap_.Most(), SyncOverlap::kMost);
  Run(5000, kSerial, kMany);
  EXPECT_EQ(overlap_.Most(), SyncOverlap::kMost);
}

}  // namespace
}  // namespace groupcommit
