// A sync that fails beside others: what becomes of the ones that succeed.
#include <gtest/gtest.h>

#include <cstddef>

#include "coordinator.h"
#include "support/coordinator_fixture.h"

namespace groupcommit::testing {
namespace {

constexpr int kError = 1034;
constexpr int kOtherError = 10;

class CoordinatorOverlapTest : public CoordinatorFixture {
 protected:
  // It is under way when this returns. REQUIRES: syncs are held.
  BackgroundCall& BeginSyncNow() {
    const size_t calls = log_.calls();
    BackgroundCall& call = StartSyncNow();
    EXPECT_TRUE(log_.AwaitCalls(calls + 1));
    return call;
  }
  // Two syncs, of which the second one fails. Returns the first one, number 0, which is still held.
  BackgroundCall& BeginSyncBesideAFailure() {
    BackgroundCall& good = BeginSyncNow();
    BackgroundCall& bad = BeginSyncNow();
    log_.Finish(1, kError);
    EXPECT_EQ(bad.Result(), kError);
    return good;
  }
};

// The leader's sync serves nobody, as another one has failed meanwhile, but a follower that came
// after Resume() must neither be failed with the old ones nor be served by the old sync.
TEST_F(CoordinatorOverlapTest, ANewWaiterBehindAnOldSync) {
  for (int outcome : {0, kOtherError}) {
    const size_t calls = log_.calls();
    log_.HoldSyncs();
    BackgroundCall& old_leader = StartWait(Commit());
    ASSERT_TRUE(log_.AwaitCalls(calls + 1));
    BackgroundCall& old_follower = StartWait(Commit());
    old_follower.AwaitParked();
    BackgroundCall& sync_now = BeginSyncNow();
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

TEST_F(CoordinatorOverlapTest, ASuccessThatOverlapsAFailurePublishesNothing) {
  log_.HoldSyncs();
  Commit();
  BackgroundCall& good = BeginSyncBesideAFailure();
  log_.Finish(0);
  EXPECT_EQ(good.Result(), kError);
  EXPECT_EQ(coordinator_.durable(), 0u);
  EXPECT_EQ(Wait(1), kError);
}

TEST_F(CoordinatorOverlapTest, NorDoesOneThatEndsAfterResume) {
  log_.HoldSyncs();
  Commit();
  BackgroundCall& good = BeginSyncBesideAFailure();
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

// Nor when nothing is pending: it may be the caller's own bytes that are lost, a header's.
TEST_F(CoordinatorOverlapTest, NorDoesOneForWhichNothingWasPending) {
  log_.HoldSyncs();
  BackgroundCall& good = BeginSyncBesideAFailure();
  Recover();
  const Lsn lsn = Commit();  // begun after the failure
  log_.Finish(0);
  EXPECT_EQ(good.Result(), kError);
  EXPECT_EQ(coordinator_.failure(), 0) << "nobody else has lost anything";
  log_.ReleaseAll();
  EXPECT_EQ(Wait(lsn), 0);
}

// Whoever puts the log back to the durable tail relies on it.
TEST_F(CoordinatorOverlapTest, TheTailStandsStillInTheStateOfFailure) {
  log_.HoldSyncs();
  Commit();
  BackgroundCall& old = BeginSyncBesideAFailure();
  Recover();
  BackgroundCall& leader = StartWait(Commit());
  ASSERT_TRUE(log_.AwaitCalls(3));
  const Lsn tail = coordinator_.durable();
  log_.Finish(0);
  old.AwaitParked();
  EXPECT_EQ(coordinator_.durable(), tail);
  log_.Finish(2);
  EXPECT_EQ(old.Result(), kError);
  EXPECT_EQ(leader.Result(), 0);
  EXPECT_EQ(coordinator_.durable(), tail + 1);
}

TEST_F(CoordinatorOverlapTest, ASuccessThatOverlapsAFailureIsNoBatch) {
  log_.HoldSyncs();
  Commit();
  BackgroundCall& good = BeginSyncBesideAFailure();
  log_.Finish(0);
  EXPECT_EQ(good.Result(), kError);
  EXPECT_EQ(stats_.syncs.Get(), 2);
  EXPECT_EQ(stats_.failed_syncs.Get(), 1);
  EXPECT_EQ(stats_.batch[0].Get(), 0) << "nothing became durable";
}

TEST_F(CoordinatorOverlapTest, ASuccessThatEndedBeforeTheOtherBeganStands) {
  log_.HoldSyncs();
  const Lsn first = Commit();
  BackgroundCall& good = BeginSyncNow();
  log_.Finish(0);
  EXPECT_EQ(good.Result(), 0);
  const Lsn second = Commit();
  BackgroundCall& bad = BeginSyncNow();
  log_.Finish(1, kError);
  EXPECT_EQ(bad.Result(), kError);
  EXPECT_EQ(Wait(first), 0);
  EXPECT_EQ(Wait(second), kError);
  Recover();
  EXPECT_EQ(Wait(first), 0);
  EXPECT_EQ(Wait(second), kError);
}

// The other one may have failed on the device already, and its error told to its caller alone.
TEST_F(CoordinatorOverlapTest, ASuccessIsNoneBeforeTheOthersHaveEnded) {
  for (int outcome : {0, kError}) {
    const size_t calls = log_.calls();
    log_.HoldSyncs();
    BackgroundCall& other = BeginSyncNow();
    const Lsn lsn = Commit();
    BackgroundCall& leader = StartWait(lsn);
    ASSERT_TRUE(log_.AwaitCalls(calls + 2));
    log_.EndOnDevice(calls, outcome);
    log_.Finish(calls + 1);
    leader.AwaitParked();
    EXPECT_FALSE(leader.returned());
    EXPECT_FALSE(coordinator_.IsDurable(lsn));
    log_.Finish(calls, outcome);
    EXPECT_EQ(other.Result(), outcome);
    EXPECT_EQ(leader.Result(), outcome);
    EXPECT_EQ(coordinator_.failure(), outcome);
  }
}

// At any moment one may be under way.
TEST_F(CoordinatorOverlapTest, ASuccessDoesNotWaitForSyncsThatBeginLater) {
  log_.HoldSyncs();
  BackgroundCall& other = BeginSyncNow();
  BackgroundCall& good = BeginSyncNow();
  log_.Finish(1);
  AwaitOverlapping(good, 1);
  BeginSyncNow();
  log_.Finish(0);
  EXPECT_EQ(good.Result(), 0);
  EXPECT_FALSE(other.returned()) << "it overlaps the last one";
}

TEST_F(CoordinatorOverlapTest, TheFirstErrorCountsUntilResume) {
  log_.HoldSyncs();
  BackgroundCall& leader = StartWait(Commit());
  ASSERT_TRUE(log_.AwaitCalls(1));
  BackgroundCall& sync_now = BeginSyncNow();
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

}  // namespace
}  // namespace groupcommit::testing
