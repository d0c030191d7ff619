// When a leader of the coordinator waits for company, and for how long.
#include <gtest/gtest.h>

#include <cstdint>
#include <vector>

#include "coordinator.h"
#include "support/coordinator_fixture.h"

namespace groupcommit::testing {
namespace {

using CoordinatorPolicyTest = CoordinatorFixture;

TEST_F(CoordinatorPolicyTest, OnEachFlushNeverWaits) {
  coordinator_.SetPolicy(FlushPolicy{});
  log_.HoldSyncs();
  StartWait(Commit());
  ASSERT_TRUE(log_.AwaitCalls(1));
  for (int i = 0; i < 3; i++) StartWait(Commit()).AwaitParked();
  clock_.Advance(kMillisecond);
  log_.Finish(0);
  ASSERT_TRUE(log_.AwaitCalls(2));
  EXPECT_EQ(log_.call(1).through, 4u);
  EXPECT_EQ(clock_.waits(), 0);
}

TEST_F(CoordinatorPolicyTest, GroupWindowEndsWhenTheBatchIsFull) {
  coordinator_.SetPolicy(FlushPolicy::Group(1000, 3));
  for (Lsn last : {3u, 6u}) {
    BackgroundCall& keeper = StartWait(Commit());
    EXPECT_TRUE(KeepsWaiting());
    BackgroundCall& follower = StartWait(Commit());
    follower.AwaitParked();
    EXPECT_TRUE(KeepsWaiting());
    EXPECT_EQ(log_.calls(), last / 3 - 1);
    EXPECT_EQ(Wait(Commit()), 0);
    EXPECT_EQ(keeper.Result(), 0);
    EXPECT_EQ(follower.Result(), 0);
    EXPECT_EQ(log_.call(last / 3 - 1).through, last);
  }
  EXPECT_EQ(log_.calls(), 2u);
  EXPECT_EQ(stats_.windows_filled.Get(), 2);
  EXPECT_EQ(stats_.windows_expired.Get(), 0);
  EXPECT_EQ(stats_.batch[2].Get(), 2);
}

TEST_F(CoordinatorPolicyTest, GroupWindowEndsWhenTheTimeIsUp) {
  coordinator_.SetPolicy(FlushPolicy::Group(1000, 8));
  BackgroundCall& leader = StartWait(Commit());
  ASSERT_TRUE(KeepsWaiting());
  EXPECT_EQ(clock_.NanosLeft(), 1000 * kMicrosecond);
  Commit();
  clock_.Advance(1000 * kMicrosecond - 1);
  EXPECT_TRUE(KeepsWaiting()) << "a wake-up does not end the window";
  EXPECT_EQ(clock_.NanosLeft(), 1) << "nor does it begin again";
  EXPECT_EQ(log_.calls(), 0u);
  clock_.Advance(1);
  EXPECT_EQ(leader.Result(), 0);
  EXPECT_EQ(log_.call(0).through, 2u);
  EXPECT_EQ(stats_.windows_filled.Get(), 0);
  EXPECT_EQ(stats_.windows_expired.Get(), 1);
}

TEST_F(CoordinatorPolicyTest, ALateLeaderHasAWindowOfItsOwn) {
  coordinator_.SetPolicy(FlushPolicy::Group(1000, 8));
  log_.HoldSyncs();
  StartWait(Commit());
  ASSERT_TRUE(clock_.AwaitSleeper());
  clock_.Advance(1000 * kMicrosecond);
  ASSERT_TRUE(log_.AwaitCalls(1));
  BackgroundCall& second = StartWait(Commit());
  second.AwaitParked();
  clock_.Advance(300 * kMicrosecond);
  log_.Finish(0);
  ASSERT_TRUE(clock_.AwaitSleeper());
  EXPECT_EQ(clock_.NanosLeft(), 1000 * kMicrosecond);
  clock_.Advance(1000 * kMicrosecond);
  ASSERT_TRUE(log_.AwaitCalls(2));
  log_.Finish(1);
  EXPECT_EQ(second.Result(), 0);
}

TEST_F(CoordinatorPolicyTest, GroupWindowIsNotNeededForAFullBatch) {
  coordinator_.SetPolicy(FlushPolicy::Group(1000, 3));
  for (int i = 0; i < 5; i++) Commit();
  EXPECT_EQ(Wait(1), 0);
  EXPECT_EQ(log_.call(0).through, 5u) << "max_batch ends a wait, it does not limit a sync";
  EXPECT_EQ(clock_.waits(), 0);
}

// Its thread is running; the one that keeps the window open would have to wake up.
TEST_F(CoordinatorPolicyTest, WhoMakesTheCompanyCompleteLeads) {
  coordinator_.SetPolicy(FlushPolicy::Group(1000, 3));
  StartWait(Commit());
  ASSERT_TRUE(clock_.AwaitSleeper());
  for (int i = 0; i < 2; i++) StartWait(Commit()).AwaitParked();
  for (BackgroundCall& call : calls_) EXPECT_EQ(call.Result(), 0);
  EXPECT_EQ(log_.calls(), 1u);
  EXPECT_EQ(log_.call(0).thread, calls_[2].thread_id());
  EXPECT_EQ(stats_.windows_filled.Get(), 1);
}

// Who is in a hurry does not wait for the company of somebody who came before.
TEST_F(CoordinatorPolicyTest, NoWindowIsOpenedBeforeOneWhoIsInAHurry) {
  coordinator_.SetPolicy(FlushPolicy::Group(1'000'000, 8));
  log_.HoldSyncs();
  BackgroundCall& first = StartSyncNow();
  ASSERT_TRUE(log_.AwaitCalls(1));
  BackgroundCall& follower = StartWait(Commit());
  ASSERT_TRUE(KeepsWaiting());  // ... for company, which it is not to have
  BackgroundCall& hurries = calls_.emplace_back(
      [this] { return coordinator_.WaitDurable(coordinator_.appended(), &log_, true); });
  ASSERT_TRUE(log_.AwaitCalls(2));
  log_.ReleaseAll();
  EXPECT_EQ(first.Result(), 0);
  EXPECT_EQ(follower.Result(), 0);
  EXPECT_EQ(hurries.Result(), 0);
  EXPECT_EQ(stats_.windows_filled.Get() + stats_.windows_expired.Get(), 0);
}

// Nor if it cannot lead as it comes, since a sync is under way.
TEST_F(CoordinatorPolicyTest, NoWindowIsOpenedBeforeOneWhoHasCome) {
  coordinator_.SetPolicy(FlushPolicy::Group(1'000'000, 2));
  log_.HoldSyncs();
  StartWait(Commit());
  ASSERT_TRUE(KeepsWaiting());
  StartWait(Commit());
  ASSERT_TRUE(log_.AwaitCalls(1));
  BackgroundCall& follower = StartWait(Commit());
  ASSERT_TRUE(follower.AwaitParked());
  BackgroundCall& hurries = calls_.emplace_back(
      [this] { return coordinator_.WaitDurable(coordinator_.appended(), &log_, true); });
  ASSERT_TRUE(hurries.AwaitParked());
  log_.Finish(0);
  ASSERT_TRUE(log_.AwaitCalls(2)) << "it waits for company";
  log_.ReleaseAll();
  EXPECT_EQ(follower.Result(), 0);
  EXPECT_EQ(hurries.Result(), 0);
  EXPECT_EQ(stats_.windows_expired.Get(), 0);
}

TEST_F(CoordinatorPolicyTest, WhoHasKeptTheWindowFollows) {
  coordinator_.SetPolicy(FlushPolicy::Group(1000, 2));
  log_.HoldSyncs();
  BackgroundCall& keeper = StartWait(Commit());
  ASSERT_TRUE(KeepsWaiting());
  BackgroundCall& leader = StartWait(Commit());
  ASSERT_TRUE(log_.AwaitCalls(1));
  clock_.Advance(1000 * kMicrosecond);  // when the window would have ended
  keeper.AwaitParked();
  EXPECT_EQ(log_.calls(), 1u);
  EXPECT_FALSE(keeper.returned());
  log_.Finish(0);
  EXPECT_EQ(leader.Result(), 0);
  EXPECT_EQ(keeper.Result(), 0);
  EXPECT_EQ(log_.calls(), 1u);
  EXPECT_EQ(stats_.windows_expired.Get(), 0);
}

// It is told while it still dozes until the end of a window that is none any more.
// Somebody completes the company, or the time is up, just when the keeper is about to look.
TEST_F(CoordinatorPolicyTest, WhoIsServedBeforeTakingTheMutexKeepsNoWindow) {
  coordinator_.SetPolicy(FlushPolicy::Group(1000, 2));
  clock_.SetMeanwhile([this] {
    EXPECT_EQ(Wait(Commit()), 0);
    clock_.Advance(1000 * kMicrosecond);
  });
  EXPECT_EQ(Wait(Commit()), 0);
  EXPECT_EQ(log_.calls(), 1u);
  EXPECT_EQ(stats_.windows_filled.Get(), 1);
  EXPECT_EQ(stats_.windows_expired.Get(), 0);
}

TEST_F(CoordinatorPolicyTest, WhoHasKeptTheWindowIsServedBeforeItsEnd) {
  coordinator_.SetPolicy(FlushPolicy::Group(1000, 2));
  for (int error : {0, 5}) {
    log_.HoldSyncs();
    BackgroundCall& keeper = StartWait(Commit());
    ASSERT_TRUE(KeepsWaiting());
    BackgroundCall& leader = StartWait(Commit());
    const size_t call = error == 0 ? 0 : 1;
    ASSERT_TRUE(log_.AwaitCalls(call + 1));
    log_.Finish(call, error);
    EXPECT_EQ(leader.Result(), error);
    EXPECT_EQ(keeper.Result(), error);
  }
}

// The tail is read after the window and before the sync.
TEST_F(CoordinatorPolicyTest, CommitsInTheWindowAreCoveredAndLaterOnesAreNot) {
  coordinator_.SetPolicy(FlushPolicy::Group(1000, 8));
  log_.HoldSyncs();
  BackgroundCall& leader = StartWait(Commit());
  ASSERT_TRUE(KeepsWaiting());
  BackgroundCall& in_window = StartWait(Commit());
  in_window.AwaitParked();
  clock_.Advance(1000 * kMicrosecond);
  ASSERT_TRUE(log_.AwaitCalls(1));
  BackgroundCall& in_sync = StartWait(Commit());
  in_sync.AwaitParked();
  log_.Finish(0);
  EXPECT_EQ(leader.Result(), 0);
  EXPECT_EQ(in_window.Result(), 0);
  EXPECT_EQ(log_.call(0).through, 2u);
  EXPECT_EQ(coordinator_.durable(), 2u);
  ASSERT_TRUE(clock_.AwaitSleeper());
  EXPECT_FALSE(in_sync.returned());
}

TEST_F(CoordinatorPolicyTest, NoWindowForABatchOfOneOrATimeOfNone) {
  Lsn last = 0;
  for (const FlushPolicy& policy :
       {FlushPolicy::Group(1000, 0), FlushPolicy::Group(1000, 1), FlushPolicy::Group(0, 64),
        FlushPolicy::Group(0, 0), FlushPolicy::Group(0, GROUPCOMMIT_MAX_BATCH_LIMIT)}) {
    coordinator_.SetPolicy(policy);
    EXPECT_EQ(Wait(last = Commit()), 0);
  }
  EXPECT_EQ(log_.calls(), last);
  EXPECT_EQ(clock_.waits(), 0);
  EXPECT_EQ(stats_.windows_expired.Get(), 0);
}

TEST_F(CoordinatorPolicyTest, TheLongestWindow) {
  coordinator_.SetPolicy(
      FlushPolicy::Group(GROUPCOMMIT_MAX_WAIT_US_LIMIT, GROUPCOMMIT_MAX_BATCH_LIMIT));
  BackgroundCall& leader = StartWait(Commit());
  ASSERT_TRUE(clock_.AwaitSleeper());
  EXPECT_EQ(clock_.NanosLeft(), int64_t{GROUPCOMMIT_MAX_WAIT_US_LIMIT} * kMicrosecond);
  clock_.Advance(int64_t{GROUPCOMMIT_MAX_WAIT_US_LIMIT} * kMicrosecond);
  EXPECT_EQ(leader.Result(), 0);
}

TEST_F(CoordinatorPolicyTest, ANewPolicyTakesEffectInAWindow) {
  Lsn last = 0;
  for (const FlushPolicy& policy : {FlushPolicy{}, FlushPolicy::Group(0, 64),
                                    FlushPolicy::Group(1'000'000, 2), FlushPolicy::Auto()}) {
    coordinator_.SetPolicy(FlushPolicy::Group(1'000'000, 64));
    BackgroundCall& leader = StartWait(Commit());
    ASSERT_TRUE(KeepsWaiting());
    last = Commit();
    coordinator_.SetPolicy(policy);
    EXPECT_EQ(leader.Result(), 0) << "policy " << static_cast<int>(policy.kind);
    EXPECT_EQ(coordinator_.durable(), last);
  }
}

// Who has kept the window is to lead, and may take its time to wake up.
TEST_F(CoordinatorPolicyTest, ANewPolicyAppointsOneLeader) {
  for (size_t round = 0; round < 20; round++) {
    coordinator_.SetPolicy(FlushPolicy::Group(1'000'000, 64));
    log_.StopHolding();
    BackgroundCall& keeper = StartWait(Commit());
    ASSERT_TRUE(KeepsWaiting());
    log_.HoldSyncs();
    const Lsn last = Commit();
    BackgroundCall& next = calls_.emplace_back([this, last] {
      coordinator_.SetPolicy(FlushPolicy{});
      return Wait(last);
    });
    ASSERT_TRUE(log_.AwaitCalls(round + 1));
    next.AwaitParked();
    keeper.AwaitParked();
    ASSERT_EQ(log_.calls(), round + 1) << "one leads";
    log_.Finish(round);
    EXPECT_EQ(keeper.Result(), 0);
    EXPECT_EQ(next.Result(), 0);
  }
}

TEST_F(CoordinatorPolicyTest, SettingTheSamePolicyDoesNotEndAWindow) {
  coordinator_.SetPolicy(FlushPolicy::Group(1000, 64));
  StartWait(Commit());
  ASSERT_TRUE(clock_.AwaitSleeper());
  const int waits = clock_.waits();
  coordinator_.SetPolicy(FlushPolicy::Group(1000, 64));
  ASSERT_TRUE(KeepsWaiting());
  EXPECT_GT(clock_.waits(), waits);
  EXPECT_EQ(log_.calls(), 0u);
}

TEST_F(CoordinatorPolicyTest, SyncNowEndsTheWindowOfALeaderItServes) {
  coordinator_.SetPolicy(FlushPolicy::Group(1'000'000, 64));
  BackgroundCall& leader = StartWait(Commit());
  ASSERT_TRUE(KeepsWaiting());
  EXPECT_EQ(SyncNow(), 0);
  EXPECT_EQ(leader.Result(), 0);
  EXPECT_EQ(log_.calls(), 1u) << "a leader with nothing left to do does not sync";
  BackgroundCall& next = StartWait(Commit());
  ASSERT_TRUE(clock_.AwaitSleeper()) << "somebody leads again";
  clock_.Advance(1'000'000 * kMicrosecond);
  EXPECT_EQ(next.Result(), 0);
}

TEST_F(CoordinatorPolicyTest, ALeaderServedInItsWindowPassesTheLeadershipOn) {
  coordinator_.SetPolicy(FlushPolicy::Group(1'000'000, 64));
  BackgroundCall& leader = StartWait(Commit());
  ASSERT_TRUE(KeepsWaiting());
  log_.HoldSyncs();
  StartSyncNow();
  ASSERT_TRUE(log_.AwaitCalls(1));
  BackgroundCall& follower = StartWait(Commit());
  follower.AwaitParked();
  log_.Finish(0);
  EXPECT_EQ(leader.Result(), 0);
  ASSERT_TRUE(clock_.AwaitSleeper());
  clock_.Advance(1'000'000 * kMicrosecond);
  ASSERT_TRUE(log_.AwaitCalls(2));
  EXPECT_EQ(log_.call(1).thread, follower.thread_id());
  log_.Finish(1);
  EXPECT_EQ(follower.Result(), 0);
}

// "Filled" is a full batch, "expired" is out of time; this is neither.
TEST_F(CoordinatorPolicyTest, AWindowCutShortHasNotExpired) {
  coordinator_.SetPolicy(FlushPolicy::Group(1'000'000, 64));
  BackgroundCall& leader = StartWait(Commit());
  ASSERT_TRUE(KeepsWaiting());
  EXPECT_EQ(SyncNow(), 0);
  EXPECT_EQ(leader.Result(), 0);
  EXPECT_EQ(stats_.windows_filled.Get(), 0);
  EXPECT_EQ(stats_.windows_expired.Get(), 0);
}

}  // namespace
}  // namespace groupcommit::testing
