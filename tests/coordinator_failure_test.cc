// Failed syncs: which commits of the coordinator they take away, and which they leave.
#include <gtest/gtest.h>

#include <vector>

#include "coordinator.h"
#include "support/coordinator_fixture.h"

namespace groupcommit::testing {
namespace {

constexpr int kError = 1034;
constexpr int kOtherError = 10;

class CoordinatorFailureTest : public CoordinatorFixture {
 protected:
  // A commit whose own sync fails.
  Lsn FailedCommit(int error = kError) {
    const Lsn lsn = Commit();
    log_.FailNext(error);
    EXPECT_EQ(Wait(lsn), error);
    return lsn;
  }
};

TEST_F(CoordinatorFailureTest, ItsCommitterGetsTheError) {
  EXPECT_EQ(coordinator_.failure(), 0);
  EXPECT_EQ(coordinator_.failures(), 0u);
  const Lsn lsn = FailedCommit();
  EXPECT_FALSE(coordinator_.IsDurable(lsn));
  EXPECT_FALSE(coordinator_.AllDurable());
  EXPECT_EQ(coordinator_.durable(), 0u);
  EXPECT_EQ(coordinator_.failure(), kError);
  EXPECT_EQ(coordinator_.failures(), 1u);
  EXPECT_EQ(stats_.syncs.Get(), 1);
  EXPECT_EQ(stats_.failed_syncs.Get(), 1);
  EXPECT_EQ(stats_.batch[0].Get(), 0) << "it made nothing durable";
}

TEST_F(CoordinatorFailureTest, SoDoAllWhoWaitForIt) {
  coordinator_.SetPolicy(FlushPolicy::Group(1000, 4));
  for (int i = 0; i < 3; i++) StartWait(Commit()).AwaitParked();
  log_.FailNext(kError);
  EXPECT_EQ(StartWait(Commit()).Result(), kError);
  for (BackgroundCall& call : calls_) EXPECT_EQ(call.Result(), kError);
  EXPECT_EQ(log_.calls(), 1u);
  EXPECT_EQ(coordinator_.failures(), 1u);
}

// They lie on top of the lost bytes.
TEST_F(CoordinatorFailureTest, SoDoThoseAppendedDuringTheSync) {
  log_.HoldSyncs();
  BackgroundCall& leader = StartWait(Commit());
  ASSERT_TRUE(log_.AwaitCalls(1));
  BackgroundCall& later = StartWait(Commit());
  later.AwaitParked();
  const Lsn nobody_waits_yet = Commit();
  log_.Finish(0, kError);
  EXPECT_EQ(leader.Result(), kError);
  EXPECT_EQ(later.Result(), kError);
  EXPECT_EQ(Wait(nobody_waits_yet), kError);
  EXPECT_EQ(log_.calls(), 1u) << "no sync is tried again";
}

TEST_F(CoordinatorFailureTest, AFailedSyncNowFailsWhatIsPending) {
  log_.HoldSyncs();
  BackgroundCall& leader = StartWait(Commit());
  ASSERT_TRUE(log_.AwaitCalls(1));
  BackgroundCall& follower = StartWait(Commit());
  follower.AwaitParked();
  BackgroundCall& sync_now = StartSyncNow();
  ASSERT_TRUE(log_.AwaitCalls(2));
  log_.Finish(1, kError);
  EXPECT_EQ(sync_now.Result(), kError);
  EXPECT_EQ(follower.Result(), kError) << "does not wait for the leader's sync";
  EXPECT_EQ(coordinator_.failure(), kError);
  log_.Finish(0);
  EXPECT_EQ(leader.Result(), kError) << "its success overlaps the failure";
  EXPECT_EQ(coordinator_.durable(), 0u);
}

TEST_F(CoordinatorFailureTest, AFailedSyncNowEndsTheWindowOfALeader) {
  coordinator_.SetPolicy(FlushPolicy::Group(1'000'000, 64));
  BackgroundCall& leader = StartWait(Commit());
  ASSERT_TRUE(KeepsWaiting());
  log_.FailNext(kError);
  EXPECT_EQ(SyncNow(), kError);
  EXPECT_EQ(leader.Result(), kError);
  EXPECT_EQ(log_.calls(), 1u) << "the leader has nothing to sync for";
}

TEST_F(CoordinatorFailureTest, NothingIsSyncedOrAcknowledgedUntilResume) {
  FailedCommit();
  EXPECT_EQ(SyncNow(), kError);
  // One that began after the failure, and built on the lost bytes all the same.
  const Lsn lsn = Commit();
  EXPECT_NE(lsn, 0u);
  EXPECT_EQ(Wait(lsn), kError);
  EXPECT_FALSE(coordinator_.IsDurable(lsn));
  EXPECT_EQ(log_.calls(), 1u);
  Recover();
  EXPECT_EQ(Wait(lsn), kError);
}

TEST_F(CoordinatorFailureTest, AfterResumeNewCommitsSucceed) {
  FailedCommit();
  Recover();
  EXPECT_EQ(coordinator_.failure(), 0);
  EXPECT_EQ(coordinator_.failures(), 1u) << "the count is not reset";
  EXPECT_TRUE(coordinator_.AllDurable()) << "nothing is pending";
  for (int i = 0; i < 3; i++) {
    const Lsn lsn = Commit();
    EXPECT_FALSE(coordinator_.IsDurable(lsn));
    EXPECT_EQ(Wait(lsn), 0);
    EXPECT_TRUE(coordinator_.IsDurable(lsn));
  }
  EXPECT_EQ(log_.calls(), 4u);
}

TEST_F(CoordinatorFailureTest, AFailedCommitStaysFailedForEver) {
  log_.HoldSyncs();
  StartWait(Commit());
  ASSERT_TRUE(log_.AwaitCalls(1));
  const Lsn asked_late = Commit();
  log_.Finish(0, kError);
  ASSERT_EQ(calls_[0].Result(), kError);
  log_.ReleaseAll();
  Recover();
  EXPECT_EQ(Wait(asked_late), kError);
  EXPECT_EQ(Wait(1), kError);
  EXPECT_EQ(Wait(Commit()), 0);
  EXPECT_EQ(SyncNow(), 0);
  for (Lsn lsn : {Lsn{1}, asked_late}) {
    EXPECT_EQ(Wait(lsn), kError) << "a later success brings nothing back";
    EXPECT_FALSE(coordinator_.IsDurable(lsn));
  }
}

TEST_F(CoordinatorFailureTest, ACommitDurableBeforeTheFailureSucceeds) {
  Commit();
  const Lsn before = Commit();
  EXPECT_EQ(SyncNow(), 0);
  FailedCommit();
  EXPECT_EQ(Wait(before), 0);
  EXPECT_EQ(Wait(1), 0);
  EXPECT_EQ(coordinator_.durable(), before);
  Recover();
  EXPECT_EQ(Wait(before), 0);
  EXPECT_EQ(Wait(1), 0);
  EXPECT_EQ(Wait(Commit()), 0);
  EXPECT_EQ(Wait(before), 0);
}

// The leader's sync serves nobody, as another one has failed meanwhile, but a follower that came
// after Resume() must neither be failed with the old ones nor be served by the old sync.
TEST_F(CoordinatorFailureTest, ANewWaiterBehindAnOldSync) {
  for (int outcome : {0, kOtherError}) {
    const size_t calls = log_.calls();
    log_.HoldSyncs();
    BackgroundCall& old_leader = StartWait(Commit());
    ASSERT_TRUE(log_.AwaitCalls(calls + 1));
    BackgroundCall& old_follower = StartWait(Commit());
    old_follower.AwaitParked();
    BackgroundCall& sync_now = StartSyncNow();
    ASSERT_TRUE(log_.AwaitCalls(calls + 2));
    log_.Finish(calls + 1, kError);
    EXPECT_EQ(sync_now.Result(), kError);
    EXPECT_EQ(old_follower.Result(), kError);
    Recover();

    const Lsn lsn = Commit();
    BackgroundCall& follower = StartWait(lsn);
    follower.AwaitParked();
    log_.Finish(calls, outcome);
    EXPECT_EQ(old_leader.Result(), kError);
    if (outcome == 0) {
      ASSERT_TRUE(log_.AwaitCalls(calls + 3));
      EXPECT_FALSE(coordinator_.IsDurable(lsn));
      EXPECT_FALSE(follower.returned());
      log_.Finish(calls + 2);
      EXPECT_EQ(follower.Result(), 0);
    } else {
      // Its bytes were written when the sync failed.
      EXPECT_EQ(follower.Result(), kOtherError);
      Recover();
      EXPECT_EQ(Wait(lsn), kOtherError);
    }
  }
}

TEST_F(CoordinatorFailureTest, ASuccessThatOverlapsAFailurePublishesNothing) {
  log_.HoldSyncs();
  Commit();
  BackgroundCall& good = StartSyncNow();
  ASSERT_TRUE(log_.AwaitCalls(1));
  BackgroundCall& bad = StartSyncNow();
  ASSERT_TRUE(log_.AwaitCalls(2));
  log_.Finish(1, kError);
  EXPECT_EQ(bad.Result(), kError);
  log_.Finish(0);
  EXPECT_EQ(good.Result(), kError);
  EXPECT_EQ(coordinator_.durable(), 0u);
  EXPECT_EQ(Wait(1), kError);
}

TEST_F(CoordinatorFailureTest, NorDoesOneThatEndsAfterResume) {
  log_.HoldSyncs();
  Commit();
  BackgroundCall& good = StartSyncNow();
  ASSERT_TRUE(log_.AwaitCalls(1));
  BackgroundCall& bad = StartSyncNow();
  ASSERT_TRUE(log_.AwaitCalls(2));
  log_.Finish(1, kError);
  EXPECT_EQ(bad.Result(), kError);
  Recover();
  const Lsn lsn = Commit();
  log_.Finish(0);
  EXPECT_EQ(good.Result(), kError);
  EXPECT_FALSE(coordinator_.IsDurable(lsn));
  EXPECT_EQ(coordinator_.failure(), 0) << "what it could not save had failed already";
  EXPECT_EQ(Wait(1), kError);
  log_.ReleaseAll();
  EXPECT_EQ(Wait(lsn), 0);
}

TEST_F(CoordinatorFailureTest, ASuccessThatEndedBeforeTheFailureStands) {
  log_.HoldSyncs();
  const Lsn first = Commit();
  BackgroundCall& good = StartSyncNow();
  ASSERT_TRUE(log_.AwaitCalls(1));
  const Lsn second = Commit();
  BackgroundCall& bad = StartSyncNow();
  ASSERT_TRUE(log_.AwaitCalls(2));
  log_.Finish(0);
  EXPECT_EQ(good.Result(), 0);
  log_.Finish(1, kError);
  EXPECT_EQ(bad.Result(), kError);
  EXPECT_EQ(Wait(first), 0);
  EXPECT_EQ(Wait(second), kError);
  Recover();
  EXPECT_EQ(Wait(first), 0);
  EXPECT_EQ(Wait(second), kError);
}

TEST_F(CoordinatorFailureTest, AppendFailsIfASyncFailedSinceItsFirstByte) {
  const uint64_t failures_before = coordinator_.failures();
  log_.Write();
  log_.FailNext(kError);
  EXPECT_EQ(SyncNow(), kError);
  EXPECT_EQ(coordinator_.Append(failures_before), 0u);
  Recover();
  EXPECT_EQ(Wait(Commit()), 0);
}

TEST_F(CoordinatorFailureTest, AppendFailsAlsoAfterResume) {
  const uint64_t failures_before = coordinator_.failures();
  FailedCommit();
  log_.Write();
  EXPECT_EQ(coordinator_.Append(failures_before), 0u);
  Recover();
  log_.Write();
  EXPECT_EQ(coordinator_.Append(failures_before), 0u);
  EXPECT_TRUE(log_.RollBack(coordinator_.durable()));
  EXPECT_EQ(Wait(Commit()), 0);
}

// There is nobody to tell but the caller; still, bytes that were being written may be lost.
TEST_F(CoordinatorFailureTest, AFailedSyncNowWithNothingPendingFailsNobodyElse) {
  EXPECT_EQ(Wait(Commit()), 0);
  const uint64_t failures_before = coordinator_.failures();
  log_.FailNext(kError);
  EXPECT_EQ(SyncNow(), kError);
  EXPECT_EQ(coordinator_.failure(), 0);
  EXPECT_EQ(coordinator_.failures(), 1u);
  EXPECT_TRUE(coordinator_.IsDurable(1));
  EXPECT_EQ(Wait(1), 0);
  EXPECT_EQ(Wait(Commit()), 0);
  EXPECT_EQ(SyncNow(), 0);
  EXPECT_EQ(coordinator_.failure(), 0);
  log_.Write();
  EXPECT_EQ(coordinator_.Append(failures_before), 0u);
}

TEST_F(CoordinatorFailureTest, TheFirstErrorCountsUntilResume) {
  log_.HoldSyncs();
  BackgroundCall& leader = StartWait(Commit());
  ASSERT_TRUE(log_.AwaitCalls(1));
  BackgroundCall& sync_now = StartSyncNow();
  ASSERT_TRUE(log_.AwaitCalls(2));
  log_.Finish(1, kError);
  EXPECT_EQ(sync_now.Result(), kError);
  log_.Finish(0, kOtherError);
  EXPECT_EQ(leader.Result(), kError);
  EXPECT_EQ(coordinator_.failure(), kError);
  EXPECT_EQ(coordinator_.failures(), 2u);
  EXPECT_EQ(stats_.failed_syncs.Get(), 2);
  Recover();
  EXPECT_EQ(Wait(1), kError);
}

TEST_F(CoordinatorFailureTest, EveryFailureIsRemembered) {
  struct Outcome {
    Lsn lsn;
    int error;
  };
  std::vector<Outcome> outcomes;
  for (int round = 1; round <= 20; round++) {
    // Two that are durable, three that are not, one of them without anybody who waits.
    outcomes.push_back({Commit(), 0});
    outcomes.push_back({Commit(), 0});
    EXPECT_EQ(Wait(coordinator_.appended()), 0);
    const int error = 100 + round;
    outcomes.push_back({Commit(), error});
    outcomes.push_back({Commit(), error});
    outcomes.push_back({FailedCommit(error), error});
    Recover();
    for (const Outcome& outcome : outcomes) {
      ASSERT_EQ(Wait(outcome.lsn), outcome.error) << outcome.lsn << " in round " << round;
    }
  }
  for (const Outcome& outcome : outcomes) {
    if (outcome.error == 0) continue;
    EXPECT_FALSE(coordinator_.IsDurable(outcome.lsn));
  }
  EXPECT_EQ(coordinator_.failures(), 20u);
}

TEST_F(CoordinatorFailureTest, ResumeWithoutAFailureDoesNothing) {
  const Lsn lsn = Commit();
  coordinator_.Resume();
  EXPECT_EQ(coordinator_.durable(), 0u);
  EXPECT_EQ(Wait(lsn), 0);
  coordinator_.Resume();
  EXPECT_TRUE(coordinator_.IsDurable(lsn));
}

}  // namespace
}  // namespace groupcommit::testing
