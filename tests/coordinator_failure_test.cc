// Failed syncs: which commits of the coordinator they take away, and which they leave. Failures
// that overlap other syncs are in coordinator_overlap_test.cc.
#include <gtest/gtest.h>

#include <cstdint>
#include <vector>

#include "coordinator.h"
#include "support/coordinator_fixture.h"

namespace groupcommit::testing {
namespace {

constexpr int kError = 1034;

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

// Bytes that somebody appended without waiting may be lost, and lie beneath whatever comes next.
TEST_F(CoordinatorFailureTest, AFailedSyncNowWithNothingPendingEndsAcknowledgementsToo) {
  EXPECT_EQ(Wait(Commit()), 0);
  const uint64_t failures_before = coordinator_.failures();
  log_.FailNext(kError);
  EXPECT_EQ(SyncNow(), kError);
  EXPECT_EQ(coordinator_.failure(), kError);
  EXPECT_EQ(coordinator_.failures(), 1u);
  EXPECT_TRUE(coordinator_.IsDurable(1));
  EXPECT_EQ(Wait(1), 0);
  EXPECT_EQ(SyncNow(), kError);
  Recover();
  EXPECT_EQ(Wait(Commit()), 0);
  EXPECT_EQ(SyncNow(), 0);
  EXPECT_EQ(coordinator_.failure(), 0);
  log_.Write();
  EXPECT_EQ(coordinator_.Append(failures_before), 0u);
}

TEST_F(CoordinatorFailureTest, SyncNowFailsIfASyncFailedSinceItsFirstByte) {
  const uint64_t failures_before = coordinator_.failures();
  log_.FailNext(kError);
  EXPECT_EQ(coordinator_.SyncNow(&log_, failures_before), kError);
  Recover();
  EXPECT_EQ(coordinator_.SyncNow(&log_, failures_before), kError);
  EXPECT_EQ(coordinator_.SyncNow(&log_, coordinator_.failures()), 0);
  EXPECT_EQ(Wait(Commit()), 0);
}

TEST_F(CoordinatorFailureTest, KnowsWhichCommitsHaveFailed) {
  const Lsn durable = Commit();
  EXPECT_FALSE(coordinator_.HasFailed(durable)) << "it is pending";
  EXPECT_EQ(Wait(durable), 0);
  EXPECT_FALSE(coordinator_.HasFailed(durable));
  const Lsn unasked = Commit();
  const Lsn failed = FailedCommit();
  for (int resumed = 0; resumed <= 1; resumed++) {
    EXPECT_FALSE(coordinator_.HasFailed(durable));
    EXPECT_TRUE(coordinator_.HasFailed(unasked));
    EXPECT_TRUE(coordinator_.HasFailed(failed));
    if (resumed == 0) Recover();
  }
  const Lsn later = Commit();
  EXPECT_FALSE(coordinator_.HasFailed(later));
  EXPECT_EQ(Wait(later), 0);
  EXPECT_FALSE(coordinator_.HasFailed(later));
  EXPECT_TRUE(coordinator_.HasFailed(failed));
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
