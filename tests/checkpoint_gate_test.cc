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

class CheckpointGateTest : public ::testing::Test {
 protected:
  // At how many frames it is due first, after the first attempt at `frames`.
  uint32_t DueAt(uint32_t frames, uint64_t generation, int writers) {
    EXPECT_EQ(gate_.IsDue(frames, generation, writers), writers <= 0);
    while (!gate_.IsDue(frames, generation, writers)) frames++;
    return frames;
  }

  FakeClock clock_;
  CheckpointGate gate_{&clock_};
};

TEST_F(CheckpointGateTest, ALoneWriterIsNotInTheWay) {
  EXPECT_TRUE(gate_.IsDue(1000, kLog, 0));
  EXPECT_TRUE(gate_.IsDue(1001, kLog, 0));
}

TEST_F(CheckpointGateTest, TheMoreWritersTheLater) {
  uint64_t log = kLog;
  EXPECT_EQ(DueAt(1000, log++, 1), 1031u);
  EXPECT_EQ(DueAt(1000, log++, 2), 1062u);
  EXPECT_EQ(DueAt(1000, log++, 8), 1250u);
  EXPECT_EQ(DueAt(1000, log++, 32), 2000u);
  EXPECT_EQ(DueAt(1000, log++, 1000), 2000u);
}

// A count that is off by some must not make it never due, nor crash.
TEST_F(CheckpointGateTest, FewerThanNobodyIsNobody) { EXPECT_TRUE(gate_.IsDue(1000, kLog, -1)); }

TEST_F(CheckpointGateTest, TheNumberOfWritersCountsWhenTheLogIsNew) {
  EXPECT_FALSE(gate_.IsDue(1000, kLog, 32));
  EXPECT_FALSE(gate_.IsDue(1999, kLog, 0));
  EXPECT_TRUE(gate_.IsDue(2000, kLog, 64));
}

TEST_F(CheckpointGateTest, ANewLogBeginsAnew) {
  EXPECT_FALSE(gate_.IsDue(1000, kLog, 32));
  gate_.OnEnd(5000, false);
  EXPECT_FALSE(gate_.IsDue(5999, kLog, 0));
  EXPECT_TRUE(gate_.IsDue(10, kNextLog, 0));
  gate_.OnEnd(10, true);
  EXPECT_FALSE(gate_.IsDue(11, kNextLog, 0));
  EXPECT_TRUE(gate_.IsDue(12, kNextLog, 0));
  EXPECT_TRUE(gate_.IsDue(7, kLog, 0)) << "generations are compared, not ordered";
}

// Whoever reads the log may do so for long: not for each commit again.
TEST_F(CheckpointGateTest, AfterAnAttemptInVainItIsDueMuchLater) {
  ASSERT_TRUE(gate_.IsDue(1000, kLog, 0));
  gate_.OnEnd(1000, false);
  EXPECT_FALSE(gate_.IsDue(1999, kLog, 0));
  EXPECT_TRUE(gate_.IsDue(2000, kLog, 0));
  gate_.OnEnd(2300, false);
  EXPECT_FALSE(gate_.IsDue(3299, kLog, 0));
  EXPECT_TRUE(gate_.IsDue(3300, kLog, 0));
}

TEST_F(CheckpointGateTest, AfterOneThatCopiedAllItIsDueSooner) {
  ASSERT_TRUE(gate_.IsDue(1000, kLog, 0));
  gate_.OnEnd(1010, true);
  EXPECT_FALSE(gate_.IsDue(1259, kLog, 0));
  EXPECT_TRUE(gate_.IsDue(1260, kLog, 0));
}

TEST_F(CheckpointGateTest, OfAShortLogItIsNotDueForTheSameFramesAgain) {
  for (const bool complete : {false, true}) {
    ASSERT_TRUE(gate_.IsDue(1, complete ? kLog : kNextLog, 0));
    gate_.OnEnd(1, complete);
    EXPECT_FALSE(gate_.IsDue(1, complete ? kLog : kNextLog, 0));
    EXPECT_TRUE(gate_.IsDue(2, complete ? kLog : kNextLog, 0));
  }
}

TEST_F(CheckpointGateTest, AnEmptyLog) {
  EXPECT_TRUE(gate_.IsDue(0, kLog, 8));
  gate_.OnEnd(0, true);
  EXPECT_FALSE(gate_.IsDue(1000, kLog, 32)) << "the first frames tell where checkpoints begin";
  EXPECT_TRUE(gate_.IsDue(2000, kLog, 32));
}

TEST_F(CheckpointGateTest, TheLongestLog) {
  EXPECT_FALSE(gate_.IsDue(kMost - 10, kLog, 32));
  EXPECT_FALSE(gate_.IsDue(kMost - 1, kLog, 32));
  EXPECT_TRUE(gate_.IsDue(kMost, kLog, 32)) << "it does not wrap around";
  gate_.OnEnd(kMost - 5, false);
  EXPECT_FALSE(gate_.IsDue(kMost - 4, kLog, 32));
  EXPECT_TRUE(gate_.IsDue(kMost, kLog, 32));
  gate_.OnEnd(kMost, true);
  EXPECT_TRUE(gate_.IsDue(kMost, kLog, 32));
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
  const int64_t deadline = clock_.NowNanos() + CheckpointGate::kDrainNanos;
  std::thread waiter([&] {
    EXPECT_FALSE(gate_.Await(gate_.writers(), 0, deadline));
    EXPECT_GE(clock_.NowNanos(), deadline);
  });
  clock_.Advance(CheckpointGate::kDrainNanos / 2);
  clock_.Advance(CheckpointGate::kDrainNanos / 2);
  waiter.join();
}

}  // namespace
}  // namespace groupcommit::testing
