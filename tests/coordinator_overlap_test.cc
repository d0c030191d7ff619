// A sync that fails beside others: what becomes of the ones that succeed.
#include <gtest/gtest.h>

#include <cstddef>
#include <deque>

#include "coordinator.h"
#include "support/coordinator_fixture.h"

namespace groupcommit::testing {
namespace {

constexpr int kError = 1034;
constexpr int kOtherError = 10;

class CoordinatorOverlapTest : public CoordinatorFixture {
 protected:
  BackgroundCall& StartAwaitRunningSyncs() {
    return calls_.emplace_back([this] {
      coordinator_.AwaitRunningSyncs();
      return 0;
    });
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

TEST_F(CoordinatorOverlapTest, ASuccessThatOverlapsAFailurePublishesNothing) {
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

TEST_F(CoordinatorOverlapTest, NorDoesOneThatEndsAfterResume) {
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

// Nor when nothing is pending: it may be the caller's own bytes that are lost, a header's.
TEST_F(CoordinatorOverlapTest, NorDoesOneForWhichNothingWasPending) {
  log_.HoldSyncs();
  BackgroundCall& good = StartSyncNow();
  ASSERT_TRUE(log_.AwaitCalls(1));
  BackgroundCall& bad = StartSyncNow();
  ASSERT_TRUE(log_.AwaitCalls(2));
  log_.Finish(1, kError);
  EXPECT_EQ(bad.Result(), kError);
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
  BackgroundCall& old = StartSyncNow();
  ASSERT_TRUE(log_.AwaitCalls(1));
  BackgroundCall& bad = StartSyncNow();
  ASSERT_TRUE(log_.AwaitCalls(2));
  log_.Finish(1, kError);
  EXPECT_EQ(bad.Result(), kError);
  Recover();
  BackgroundCall& leader = StartWait(Commit());
  ASSERT_TRUE(log_.AwaitCalls(3));
  log_.Finish(0);
  EXPECT_EQ(old.Result(), kError);
  const bool has_failed = coordinator_.failure() != 0;
  const Lsn tail = coordinator_.durable();
  if (has_failed) {
    EXPECT_TRUE(log_.RollBack(tail));
  }
  log_.Finish(2);
  EXPECT_EQ(leader.Result(), has_failed ? kError : 0);
  EXPECT_EQ(coordinator_.durable(), has_failed ? tail : tail + 1);
}

TEST_F(CoordinatorOverlapTest, ASuccessThatOverlapsAFailureIsNoBatch) {
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
  EXPECT_EQ(stats_.syncs.Get(), 2);
  EXPECT_EQ(stats_.failed_syncs.Get(), 1);
  EXPECT_EQ(stats_.batch[0].Get(), 0) << "nothing became durable";
}

TEST_F(CoordinatorOverlapTest, ASuccessThatEndedBeforeTheFailureStands) {
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

TEST_F(CoordinatorOverlapTest, AwaitRunningSyncsWaitsForAllThatHaveBegun) {
  coordinator_.AwaitRunningSyncs();  // there is none
  log_.HoldSyncs();
  StartSyncNow();
  ASSERT_TRUE(log_.AwaitCalls(1));
  BackgroundCall& leader = StartWait(Commit());
  ASSERT_TRUE(log_.AwaitCalls(2));
  BackgroundCall& await = StartAwaitRunningSyncs();
  await.AwaitParked();
  EXPECT_FALSE(await.returned());
  log_.Finish(1);
  EXPECT_EQ(leader.Result(), 0);
  await.AwaitParked();
  EXPECT_FALSE(await.returned()) << "one of the two is still under way";
  log_.Finish(0);
  EXPECT_EQ(await.Result(), 0);
}

// At any moment one is under way, but each of them ends.
TEST_F(CoordinatorOverlapTest, AwaitRunningSyncsDoesNotWaitForLaterOnes) {
  log_.HoldSyncs();
  StartSyncNow();
  ASSERT_TRUE(log_.AwaitCalls(1));
  BackgroundCall& await = StartAwaitRunningSyncs();
  await.AwaitParked();
  constexpr size_t kMostSyncs = 2000;
  std::deque<BackgroundCall> syncs;
  for (size_t ended = 0; ended < kMostSyncs && !await.returned(); ended++) {
    syncs.emplace_back([this] { return SyncNow(); });
    if (!log_.AwaitCalls(ended + 2)) break;
    log_.Finish(ended);
    if (syncs.size() > 1) syncs.pop_front();
  }
  EXPECT_TRUE(await.returned());
  log_.ReleaseAll();
}

// Though the device has long failed.
TEST_F(CoordinatorOverlapTest, AwaitRunningSyncsReturnsWhenTheirFailureIsKnown) {
  log_.HoldSyncs();
  BackgroundCall& leader = StartWait(Commit());
  ASSERT_TRUE(log_.AwaitCalls(1));
  log_.EndOnDevice(0, kError);
  BackgroundCall& await = StartAwaitRunningSyncs();
  await.AwaitParked();
  EXPECT_FALSE(await.returned());
  log_.Finish(0, kError);
  EXPECT_EQ(await.Result(), 0);
  EXPECT_EQ(coordinator_.failure(), kError);
  EXPECT_EQ(coordinator_.failures(), 1u);
  EXPECT_EQ(leader.Result(), kError);
}

TEST_F(CoordinatorOverlapTest, TheFirstErrorCountsUntilResume) {
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

}  // namespace
}  // namespace groupcommit::testing
