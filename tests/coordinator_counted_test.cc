// Commits that are only counted: who waits for them, and which syncs cover them.
#include <gtest/gtest.h>

#include <optional>

#include "coordinator.h"
#include "support/coordinator_fixture.h"
#include "support/scale.h"

namespace groupcommit::testing {
namespace {

constexpr int kError = 1034;

class CoordinatorCountedTest : public CoordinatorFixture {
 protected:
  // Writes a commit that nobody has to wait for.
  Lsn Count() {
    log_.Write();
    return coordinator_.CountWritten();
  }
  // `position` is its number among all that was written to the log.
  int WaitSynced(Lsn counted, Lsn position) {
    const int error = coordinator_.WaitSynced(counted, &log_);
    if (error == 0) {
      EXPECT_TRUE(log_.AllSurviveThrough(position));
    }
    return error;
  }
  int WaitSynced(Lsn counted) { return WaitSynced(counted, counted); }
  BackgroundCall& StartWaitSynced(Lsn counted) {
    return calls_.emplace_back([this, counted] { return WaitSynced(counted); });
  }
  static constexpr int kTimeIsUp = -2;
  BackgroundCall& StartWaitUntil(Lsn counted, int64_t deadline) {
    return calls_.emplace_back([this, counted, deadline] {
      return coordinator_.WaitSyncedUntil(counted, coordinator_.failures(), deadline)
          .value_or(kTimeIsUp);
    });
  }
};

TEST_F(CoordinatorCountedTest, OneSyncCoversAllThatWereWrittenBefore) {
  const Lsn first = Count();
  const Lsn last = Count();
  EXPECT_EQ(last, coordinator_.written());
  EXPECT_EQ(coordinator_.synced(), 0u);
  EXPECT_EQ(WaitSynced(last), 0);
  EXPECT_EQ(coordinator_.synced(), last);
  EXPECT_EQ(WaitSynced(first), 0);
  EXPECT_EQ(WaitSynced(last), 0);
  EXPECT_EQ(log_.calls(), 1u);
  EXPECT_EQ(coordinator_.appended(), 0u) << "nobody else waits for them";
}

// Nor is there anybody to wait for, where no commit is under way.
TEST_F(CoordinatorCountedTest, TheyHaveNoWindowOfTheirOwn) {
  log_.SetDuringSync([this] { clock_.Advance(kMillisecond); });
  Lsn written = 0;
  for (const FlushPolicy& policy :
       {FlushPolicy{}, FlushPolicy::Interval(1000), FlushPolicy::Auto()}) {
    coordinator_.SetPolicy(policy);
    EXPECT_EQ(Wait(Commit()), 0);  // which tells how long a sync takes
    written++;
    const Lsn counted = Count();
    EXPECT_EQ(WaitSynced(counted, ++written), 0);
  }
  EXPECT_EQ(log_.calls(), 6u);
  EXPECT_EQ(clock_.waits(), 0);
}

TEST_F(CoordinatorCountedTest, ASyncDoesNotCoverWhatIsWrittenWhileItRuns) {
  log_.HoldSyncs();
  BackgroundCall& leader = StartWaitSynced(Count());
  ASSERT_TRUE(log_.AwaitCalls(1));
  BackgroundCall& follower = StartWaitSynced(Count());
  follower.AwaitParked();
  log_.Finish(0);
  EXPECT_EQ(leader.Result(), 0);
  ASSERT_TRUE(log_.AwaitCalls(2));
  EXPECT_FALSE(follower.returned());
  log_.Finish(1);
  EXPECT_EQ(follower.Result(), 0);
}

TEST_F(CoordinatorCountedTest, TheySyncTogetherWithEachOtherAndWithCommits) {
  log_.HoldSyncs();
  BackgroundCall& leader = StartWaitSynced(Count());
  ASSERT_TRUE(log_.AwaitCalls(1));
  BackgroundCall& counted = StartWaitSynced(Count());
  counted.AwaitParked();
  log_.Write();
  const Lsn lsn = coordinator_.Append(coordinator_.failures());
  coordinator_.CountWritten();
  BackgroundCall& commit =
      calls_.emplace_back([this, lsn] { return coordinator_.WaitDurable(lsn, &log_); });
  commit.AwaitParked();
  BackgroundCall& last = StartWaitSynced(Count());
  last.AwaitParked();
  log_.Finish(0);
  EXPECT_EQ(leader.Result(), 0);
  ASSERT_TRUE(log_.AwaitCalls(2));
  log_.Finish(1);
  EXPECT_EQ(counted.Result(), 0);
  EXPECT_EQ(commit.Result(), 0);
  EXPECT_EQ(last.Result(), 0);
  EXPECT_EQ(log_.calls(), 2u);
  EXPECT_TRUE(coordinator_.AllDurable());
}

TEST_F(CoordinatorCountedTest, ASyncAtOnceCoversThem) {
  const Lsn counted = Count();
  EXPECT_EQ(coordinator_.SyncNow(&log_, coordinator_.failures()), 0);
  EXPECT_EQ(coordinator_.synced(), counted);
  EXPECT_EQ(WaitSynced(counted), 0);
  EXPECT_EQ(log_.calls(), 1u);
}

// Syncs may end in another order than they began.
TEST_F(CoordinatorCountedTest, TheTailMovesByMaximum) {
  log_.HoldSyncs();
  Count();
  BackgroundCall& early = StartSyncNow();
  ASSERT_TRUE(log_.AwaitCalls(1));
  const Lsn last = Count();
  BackgroundCall& late = StartSyncNow();
  ASSERT_TRUE(log_.AwaitCalls(2));
  log_.Finish(0);
  AwaitOverlapping(early, 1);
  log_.Finish(1);
  EXPECT_EQ(late.Result(), 0);
  EXPECT_EQ(early.Result(), 0);
  EXPECT_EQ(coordinator_.synced(), last);
}

TEST_F(CoordinatorCountedTest, AFailedSyncIsToldToAllWhoWait) {
  log_.HoldSyncs();
  BackgroundCall& leader = StartWaitSynced(Count());
  ASSERT_TRUE(log_.AwaitCalls(1));
  BackgroundCall& follower = StartWaitSynced(Count());
  follower.AwaitParked();
  log_.Finish(0, kError);
  EXPECT_EQ(leader.Result(), kError);
  EXPECT_EQ(follower.Result(), kError);
  EXPECT_EQ(WaitSynced(1), kError) << "nothing is known before the log is whole again";
  EXPECT_EQ(coordinator_.synced(), 0u);
  EXPECT_TRUE(log_.RollBack(0));
  EXPECT_TRUE(coordinator_.Resume());
  log_.ReleaseAll();
  EXPECT_EQ(WaitSynced(Count()), 0);
}

// Its own sync has succeeded, but says nothing, and the failure is history.
TEST_F(CoordinatorCountedTest, ALeaderWhoseSyncOverlappedAFailureIsTold) {
  log_.HoldSyncs();
  const Lsn counted = Count();
  BackgroundCall& leader = StartWaitSynced(counted);
  ASSERT_TRUE(log_.AwaitCalls(1));
  BackgroundCall& bad = StartSyncNow();
  ASSERT_TRUE(log_.AwaitCalls(2));
  log_.Finish(1, kError);
  EXPECT_EQ(bad.Result(), kError);
  EXPECT_TRUE(log_.RollBack(0));
  EXPECT_TRUE(coordinator_.Resume());
  log_.Finish(0);
  EXPECT_EQ(leader.Result(), kError);
  EXPECT_EQ(coordinator_.synced(), 0u);
  EXPECT_EQ(coordinator_.failure(), 0);
}

TEST_F(CoordinatorCountedTest, AWaitWithALimitLeavesTheSyncToOthers) {
  const int64_t now = clock_.NowNanos();
  const Lsn counted = Count();
  EXPECT_EQ(coordinator_.WaitSyncedUntil(counted, coordinator_.failures(), now), std::nullopt);
  BackgroundCall& served = StartWaitUntil(counted, now + kMillisecond);
  ASSERT_TRUE(clock_.AwaitSleeper());
  EXPECT_EQ(log_.calls(), 0u);
  EXPECT_EQ(coordinator_.SyncNow(&log_, coordinator_.failures()), 0);
  EXPECT_EQ(served.Result(), 0);
  EXPECT_EQ(coordinator_.WaitSyncedUntil(counted, coordinator_.failures(), now), 0)
      << "it need not wait";

  const Lsn next = Count();
  BackgroundCall& late = StartWaitUntil(next, now + kMillisecond);
  ASSERT_TRUE(clock_.AwaitSleeper());
  clock_.Advance(kMillisecond);
  EXPECT_EQ(late.Result(), kTimeIsUp);

  BackgroundCall& failed = StartWaitUntil(next, clock_.NowNanos() + kMillisecond);
  ASSERT_TRUE(clock_.AwaitSleeper());
  log_.FailNext(kError);
  EXPECT_EQ(coordinator_.SyncNow(&log_, coordinator_.failures()), kError);
  EXPECT_EQ(failed.Result(), kError);
}

// The sync that serves it has to wait for another one that it overlaps, and for that both are woken
// at once: whoever comes first.
TEST_F(CoordinatorCountedTest, AWaitWithALimitDoesNotMissASuccessThatComesLate) {
  for (int round = 0; round < Scaled(100); round++) {
    const size_t calls = log_.calls();
    log_.HoldSyncs();
    BackgroundCall& other = StartSyncNow();
    ASSERT_TRUE(log_.AwaitCalls(calls + 1));
    const Lsn counted = Count();
    BackgroundCall& serving = StartSyncNow();
    ASSERT_TRUE(log_.AwaitCalls(calls + 2));
    BackgroundCall& served = StartWaitUntil(counted, clock_.NowNanos() + kMillisecond);
    ASSERT_TRUE(clock_.AwaitSleeper());
    log_.Finish(calls + 1);
    serving.AwaitParked();
    log_.Finish(calls);
    ASSERT_EQ(served.Result(), 0);
    EXPECT_EQ(other.Result(), 0);
    EXPECT_EQ(serving.Result(), 0);
    calls_.clear();
  }
}

// Nobody syncs for it any more, so that it would last until its limit.
TEST_F(CoordinatorCountedTest, AWaitWithALimitDoesNotMissAFailureThatIsOver) {
  const uint64_t before = coordinator_.failures();
  const Lsn counted = Count();
  log_.FailNext(kError);
  EXPECT_EQ(coordinator_.SyncNow(&log_, before), kError);
  EXPECT_TRUE(log_.RollBack(0));
  EXPECT_TRUE(coordinator_.Resume());
  EXPECT_EQ(coordinator_.WaitSyncedUntil(counted, before, clock_.NowNanos()), kError);
}

}  // namespace
}  // namespace groupcommit::testing
