// When a checkpoint holds writers up, and for how long.
#include "checkpoint_gate.h"

#include <gtest/gtest.h>

#include <atomic>
#include <limits>
#include <thread>

#include "support/fake_clock.h"

namespace groupcommit::testing {
namespace {

constexpr uint64_t kLog = 0x1234;
constexpr uint64_t kNextLog = 0x1235;
constexpr uint32_t kMost = std::numeric_limits<uint32_t>::max();

using Advice = CheckpointGate::Advice;

class CheckpointGateTest : public ::testing::Test {
 protected:
  // One after the other's commit.
  Advice Begin(uint32_t frames, uint64_t log = kLog) {
    return gate_.OnBegin(frames, log, ++committer_, false);
  }
  Advice BeginAlone(uint32_t frames, uint64_t log = kLog) {
    return gate_.OnBegin(frames, log, ++committer_, true);
  }
  Advice BeginByHand(uint32_t frames, uint64_t log = kLog) {
    return gate_.OnBegin(frames, log, 0, false);
  }

  uint64_t committer_ = 0;

  FakeClock clock_;
  CheckpointGate gate_{&clock_};
};

TEST_F(CheckpointGateTest, TheFirstAttemptIsAsStock) {
  EXPECT_EQ(Begin(1000), Advice::kAsStock);
  EXPECT_EQ(BeginAlone(1000, kNextLog), Advice::kAsStock);
}

// A commit under way waits for two syncs, and the checkpoint does two of its own.
TEST_F(CheckpointGateTest, SlowSyncsHoldWritersUpForLonger) {
  constexpr int64_t kMilli = 1'000'000;
  EXPECT_EQ(CheckpointGate::ClosedNanos(0), 100 * kMilli);
  EXPECT_EQ(CheckpointGate::ClosedNanos(kMilli), 100 * kMilli);
  EXPECT_EQ(CheckpointGate::DrainNanos(kMilli), 50 * kMilli);
  EXPECT_GE(CheckpointGate::DrainNanos(30 * kMilli), 2 * 30 * kMilli);
  EXPECT_GE(CheckpointGate::ClosedNanos(30 * kMilli), 4 * 30 * kMilli);
  EXPECT_EQ(CheckpointGate::ClosedNanos(1'000 * kMilli), 1'000 * kMilli) << "but no longer";
}

TEST_F(CheckpointGateTest, ThenItIsDueWhenTheLogIsTwiceAsLong) {
  Begin(1000);
  EXPECT_EQ(Begin(1001), Advice::kSkip);
  EXPECT_EQ(Begin(1999), Advice::kSkip);
  EXPECT_EQ(Begin(2000), Advice::kHoldWriters);
  EXPECT_EQ(Begin(2500), Advice::kHoldWriters) << "until one has ended";
}

TEST_F(CheckpointGateTest, WithoutOthersItGetsThroughByItself) {
  Begin(1000);
  EXPECT_EQ(BeginAlone(1001), Advice::kAsStock);
  EXPECT_EQ(BeginAlone(2000), Advice::kHoldWriters) << "or there are readers";
}

TEST_F(CheckpointGateTest, OneByHandIsNotSkipped) {
  Begin(1000);
  Begin(1001);
  EXPECT_EQ(BeginByHand(1500), Advice::kAsStock);
  EXPECT_EQ(BeginByHand(2000), Advice::kHoldWriters);
}

// It may be of a log of three frames.
TEST_F(CheckpointGateTest, OneByHandDoesNotTellWhereAutomaticOnesBegin) {
  EXPECT_EQ(BeginByHand(3), Advice::kAsStock);
  EXPECT_EQ(BeginByHand(1999), Advice::kAsStock);
  EXPECT_EQ(BeginByHand(2000), Advice::kHoldWriters);
  EXPECT_EQ(Begin(2000), Advice::kHoldWriters);
  EXPECT_EQ(BeginByHand(5000, kNextLog), Advice::kAsStock);
  EXPECT_EQ(BeginByHand(9999, kNextLog), Advice::kAsStock);
  EXPECT_EQ(BeginByHand(10000, kNextLog), Advice::kHoldWriters);
}

TEST_F(CheckpointGateTest, TheFirstAutomaticOneTellsAfterOnesByHand) {
  EXPECT_EQ(BeginByHand(3), Advice::kAsStock);
  EXPECT_EQ(Begin(100), Advice::kAsStock);
  EXPECT_EQ(Begin(199), Advice::kSkip);
  EXPECT_EQ(BeginByHand(199), Advice::kAsStock);
  EXPECT_EQ(Begin(200), Advice::kHoldWriters);
  gate_.OnEnd(200, false);
  EXPECT_EQ(Begin(224), Advice::kSkip) << "a quarter of it";
  EXPECT_EQ(Begin(225), Advice::kHoldWriters);
}

// With stock SQLite nothing would be in its way.
TEST_F(CheckpointGateTest, WhereOneConnectionMakesThemAllNoneIsSkipped) {
  constexpr uint64_t kOne = 77;
  gate_.OnBegin(1000, kLog, kOne, false);
  EXPECT_EQ(gate_.OnBegin(1001, kLog, kOne, false), Advice::kAsStock);
  BeginByHand(1002);
  EXPECT_EQ(gate_.OnBegin(1003, kLog, kOne, false), Advice::kAsStock);
  EXPECT_EQ(gate_.OnBegin(1004, kLog, kOne + 1, false), Advice::kSkip);
  EXPECT_EQ(gate_.OnBegin(1005, kLog, kOne, false), Advice::kSkip);
  EXPECT_EQ(gate_.OnBegin(2000, kLog, kOne, false), Advice::kHoldWriters);
  gate_.OnBegin(1000, kNextLog, kOne, false);
  EXPECT_EQ(gate_.OnBegin(1001, kNextLog, kOne, false), Advice::kAsStock);
  BeginByHand(1000);
  EXPECT_EQ(gate_.OnBegin(1001, kLog, kOne, false), Advice::kAsStock) << "the first was by hand";
  EXPECT_EQ(gate_.OnBegin(1002, kLog, kOne, false), Advice::kAsStock);
  EXPECT_EQ(gate_.OnBegin(1003, kLog, kOne + 1, false), Advice::kSkip);
}

TEST_F(CheckpointGateTest, ANewLogBeginsAnew) {
  Begin(1000);
  gate_.OnEnd(5000, false);
  EXPECT_EQ(Begin(5249), Advice::kSkip);
  EXPECT_EQ(Begin(10, kNextLog), Advice::kAsStock);
  EXPECT_EQ(Begin(19, kNextLog), Advice::kSkip);
  EXPECT_EQ(Begin(20, kNextLog), Advice::kHoldWriters);
  EXPECT_EQ(Begin(7), Advice::kAsStock) << "generations are compared, not ordered";
}

// Whoever reads the log may do so for a moment, or for long: not for each commit again.
TEST_F(CheckpointGateTest, AfterEachAttemptInVainItIsDueLater) {
  Begin(1000);
  uint32_t frames = 2010;
  for (const uint32_t step : {250u, 500u, 1000u, 1000u}) {
    gate_.OnEnd(frames, false);
    EXPECT_EQ(Begin(frames + step - 1), Advice::kSkip);
    frames += step;
    EXPECT_EQ(Begin(frames), Advice::kHoldWriters) << step;
  }
  Begin(1000, kNextLog);
  gate_.OnEnd(2010, false);
  EXPECT_EQ(Begin(2260, kNextLog), Advice::kHoldWriters) << "which begins anew";
}

TEST_F(CheckpointGateTest, AfterOneThatCopiedAllItIsDueSooner) {
  Begin(1000);
  gate_.OnEnd(2010, true);
  EXPECT_EQ(Begin(2259), Advice::kSkip);
  EXPECT_EQ(Begin(2260), Advice::kHoldWriters);
  gate_.OnEnd(2270, false);
  gate_.OnEnd(2530, true);
  EXPECT_EQ(Begin(2779), Advice::kSkip);
  EXPECT_EQ(Begin(2780), Advice::kHoldWriters) << "though others were in vain";
}

TEST_F(CheckpointGateTest, OfAShortLogItIsNotDueForTheSameFramesAgain) {
  for (const bool complete : {false, true}) {
    const uint64_t log = complete ? kLog : kNextLog;
    Begin(1, log);
    gate_.OnEnd(2, complete);
    EXPECT_EQ(Begin(2, log), Advice::kSkip);
    EXPECT_EQ(Begin(3, log), Advice::kHoldWriters);
  }
}

TEST_F(CheckpointGateTest, TheFirstFramesTellWhereCheckpointsBegin) {
  EXPECT_EQ(Begin(0), Advice::kAsStock);
  EXPECT_EQ(Begin(1000), Advice::kAsStock);
  EXPECT_EQ(Begin(1999), Advice::kSkip);
  EXPECT_EQ(Begin(2000), Advice::kHoldWriters);
}

TEST_F(CheckpointGateTest, TheLongestLog) {
  Begin(kMost - 10);
  EXPECT_EQ(Begin(kMost - 1), Advice::kSkip);
  EXPECT_EQ(Begin(kMost), Advice::kHoldWriters) << "it does not wrap around";
  gate_.OnEnd(kMost - 5, false);
  EXPECT_EQ(Begin(kMost - 4), Advice::kSkip);
  EXPECT_EQ(Begin(kMost), Advice::kHoldWriters);
}

TEST_F(CheckpointGateTest, NobodyIsAwaitedWhoIsNotThere) {
  EXPECT_TRUE(gate_.Await(gate_.writers(), 0, clock_.NowNanos()));
  gate_.writers() = 3;
  EXPECT_TRUE(gate_.Await(gate_.writers(), 3, clock_.NowNanos()));
  EXPECT_TRUE(gate_.Await(gate_.writers(), 4, clock_.NowNanos()));
  EXPECT_FALSE(gate_.Await(gate_.writers(), 2, clock_.NowNanos())) << "there is no time";
}

TEST_F(CheckpointGateTest, TheLastOneToLeaveEndsTheWait) {
  gate_.log_readers() = 3;
  int seen = -1;
  const int64_t deadline = clock_.NowNanos() + 1;  // it never comes
  std::thread waiter([&] {
    EXPECT_TRUE(gate_.Await(gate_.log_readers(), 1, deadline));
    seen = gate_.log_readers();
  });
  gate_.log_readers().fetch_sub(1, std::memory_order_release);
  gate_.log_readers().fetch_sub(1, std::memory_order_release);
  waiter.join();
  EXPECT_EQ(seen, 1);
}

TEST_F(CheckpointGateTest, AtTheDeadlineTheWaitIsOver) {
  gate_.writers() = 1;
  const int64_t deadline = clock_.NowNanos() + CheckpointGate::DrainNanos(0);
  std::thread waiter([&] {
    EXPECT_FALSE(gate_.Await(gate_.writers(), 0, deadline));
    EXPECT_GE(clock_.NowNanos(), deadline);
  });
  clock_.Advance(CheckpointGate::DrainNanos(0) / 2);
  clock_.Advance(CheckpointGate::DrainNanos(0) / 2);
  waiter.join();
}

}  // namespace
}  // namespace groupcommit::testing
