// The coordinator: who syncs, what a sync covers, and who is served by it. When a leader waits for
// company is in coordinator_policy_test.cc, failed syncs are in coordinator_failure_test.cc.
#include "coordinator.h"

#include <gtest/gtest.h>

#include <array>
#include <cstdint>
#include <thread>
#include <vector>

#include "support/coordinator_fixture.h"

namespace groupcommit::testing {
namespace {

class CoordinatorTest : public CoordinatorFixture {};

TEST_F(CoordinatorTest, NumbersCommitsFromOne) {
  EXPECT_EQ(coordinator_.appended(), 0u);
  EXPECT_EQ(coordinator_.durable(), 0u);
  EXPECT_TRUE(coordinator_.AllDurable());
  EXPECT_EQ(Commit(), 1u);
  EXPECT_EQ(Commit(), 2u);
  EXPECT_EQ(coordinator_.appended(), 2u);
  EXPECT_EQ(coordinator_.durable(), 0u);
  EXPECT_FALSE(coordinator_.AllDurable());
  EXPECT_FALSE(coordinator_.IsDurable(1));
  EXPECT_EQ(log_.calls(), 0u) << "to append is not to sync";
}

TEST_F(CoordinatorTest, ALoneCommitterSyncsOnceForEachCommit) {
  for (Lsn lsn = 1; lsn <= 5; lsn++) {
    ASSERT_EQ(Commit(), lsn);
    EXPECT_EQ(Wait(lsn), 0);
    ASSERT_EQ(log_.calls(), lsn);
    EXPECT_EQ(log_.call(lsn - 1).from, lsn - 1);
    EXPECT_EQ(log_.call(lsn - 1).through, lsn);
    EXPECT_EQ(log_.call(lsn - 1).thread, std::this_thread::get_id());
    EXPECT_EQ(coordinator_.durable(), lsn);
    EXPECT_TRUE(coordinator_.IsDurable(lsn));
    EXPECT_TRUE(coordinator_.AllDurable());
  }
}

TEST_F(CoordinatorTest, ACoveredTargetDoesNotSync) {
  Commit();
  Commit();
  EXPECT_EQ(Wait(2), 0);
  EXPECT_EQ(Wait(1), 0);
  EXPECT_EQ(Wait(2), 0);
  EXPECT_EQ(Wait(0), 0);
  EXPECT_EQ(log_.calls(), 1u);
}

TEST_F(CoordinatorTest, ACoveredTargetDoesNotWaitForASync) {
  Commit();
  EXPECT_EQ(Wait(1), 0);
  log_.HoldSyncs();
  BackgroundCall& leader = StartWait(Commit());
  ASSERT_TRUE(log_.AwaitCalls(2));
  EXPECT_EQ(StartWait(1).Result(), 0);
  EXPECT_FALSE(leader.returned());
}

// The clock is asked to wait with the coordinator's mutex held, and keeps it.
TEST_F(CoordinatorTest, ACoveredTargetTakesNoLock) {
  Commit();
  EXPECT_EQ(Wait(1), 0);
  coordinator_.SetPolicy(FlushPolicy::Group(1000, 8));
  clock_.StallNextWait();
  BackgroundCall& leader = StartWait(Commit());
  ASSERT_TRUE(clock_.AwaitStalled());
  EXPECT_EQ(StartWait(1).Result(), 0);
  EXPECT_TRUE(coordinator_.IsDurable(1));
  EXPECT_FALSE(coordinator_.IsDurable(2));
  EXPECT_FALSE(leader.returned());
  clock_.EndStall();
}

TEST_F(CoordinatorTest, CommitsDuringASyncShareTheNextOne) {
  log_.HoldSyncs();
  BackgroundCall& leader = StartWait(Commit());
  ASSERT_TRUE(log_.AwaitCalls(1));
  std::vector<BackgroundCall*> followers;
  for (int i = 0; i < 6; i++) {
    followers.push_back(&StartWait(Commit()));
    followers.back()->AwaitParked();
  }
  log_.Finish(0);
  EXPECT_EQ(leader.Result(), 0);
  ASSERT_TRUE(log_.AwaitCalls(2));
  EXPECT_EQ(log_.call(1).from, 1u);
  EXPECT_EQ(log_.call(1).through, 7u);
  for (BackgroundCall* follower : followers) EXPECT_FALSE(follower->returned());
  log_.Finish(1);
  for (BackgroundCall* follower : followers) EXPECT_EQ(follower->Result(), 0);
  EXPECT_EQ(log_.calls(), 2u);
}

TEST_F(CoordinatorTest, SeveralMayWaitForOneCommit) {
  log_.HoldSyncs();
  StartWait(Commit());
  ASSERT_TRUE(log_.AwaitCalls(1));
  for (int i = 0; i < 4; i++) StartWait(1).AwaitParked();
  log_.Finish(0);
  for (BackgroundCall& call : calls_) EXPECT_EQ(call.Result(), 0);
  EXPECT_EQ(log_.calls(), 1u);
}

TEST_F(CoordinatorTest, ACommitAppendedDuringASyncIsNotCovered) {
  log_.SetDuringSync([this] {
    if (coordinator_.appended() == 1) Commit();
  });
  Commit();
  EXPECT_EQ(Wait(1), 0);
  EXPECT_EQ(coordinator_.durable(), 1u);
  EXPECT_FALSE(coordinator_.IsDurable(2));
  EXPECT_EQ(Wait(2), 0);
  EXPECT_EQ(log_.calls(), 2u);
}

TEST_F(CoordinatorTest, ACommitAppendedDuringASyncNowIsNotCovered) {
  log_.SetDuringSync([this] {
    if (coordinator_.appended() == 1) Commit();
  });
  Commit();
  EXPECT_EQ(SyncNow(), 0);
  EXPECT_EQ(coordinator_.durable(), 1u);
  EXPECT_EQ(Wait(2), 0);
  EXPECT_EQ(log_.calls(), 2u);
}

// A leader syncs once; whoever it has not covered syncs in its own thread.
TEST_F(CoordinatorTest, LeadershipIsPassedOn) {
  log_.HoldSyncs();
  std::vector<BackgroundCall*> leaders;
  leaders.push_back(&StartWait(Commit()));
  for (size_t i = 0; i < 8; i++) {
    ASSERT_TRUE(log_.AwaitCalls(i + 1));
    leaders.push_back(&StartWait(Commit()));
    leaders.back()->AwaitParked();
    log_.Finish(i);
    EXPECT_EQ(leaders[i]->Result(), 0);
    EXPECT_EQ(log_.call(i).thread, leaders[i]->thread_id());
    EXPECT_EQ(log_.call(i).through, i + 1);
  }
}

TEST_F(CoordinatorTest, AFollowerMayWaitForLessThanWasAppended) {
  log_.HoldSyncs();
  StartWait(Commit());
  ASSERT_TRUE(log_.AwaitCalls(1));
  Commit();
  Commit();
  BackgroundCall& reader = StartWait(2);
  reader.AwaitParked();
  log_.Finish(0);
  ASSERT_TRUE(log_.AwaitCalls(2));
  EXPECT_EQ(log_.call(1).through, 3u) << "a sync covers all there is";
  log_.Finish(1);
  EXPECT_EQ(reader.Result(), 0);
  EXPECT_EQ(Wait(3), 0);
  EXPECT_EQ(log_.calls(), 2u);
}

TEST_F(CoordinatorTest, CountsThoseWhoWait) {
  EXPECT_EQ(Wait(Commit()), 0);
  EXPECT_EQ(coordinator_.waiting(), 0);
  log_.HoldSyncs();
  BackgroundCall& leader = StartWait(Commit());
  ASSERT_TRUE(log_.AwaitCalls(2));
  EXPECT_EQ(coordinator_.waiting(), 1);
  for (int others = 1; others <= 3; others++) {
    BackgroundCall& follower = StartWait(2);
    while (coordinator_.waiting() == others && !follower.returned()) std::this_thread::yield();
    EXPECT_EQ(coordinator_.waiting(), others + 1);
  }
  EXPECT_EQ(Wait(1), 0);
  EXPECT_EQ(coordinator_.waiting(), 4) << "who is served already does not wait";
  log_.Finish(1);
  EXPECT_EQ(leader.Result(), 0);
  for (BackgroundCall& call : calls_) EXPECT_EQ(call.Result(), 0);
  EXPECT_EQ(coordinator_.waiting(), 0);
}

TEST_F(CoordinatorTest, WorksWithRoomReservedAndBeyondIt) {
  coordinator_.Reserve(4);
  coordinator_.Reserve(2);
  log_.HoldSyncs();
  StartWait(Commit());
  ASSERT_TRUE(log_.AwaitCalls(1));
  for (int i = 0; i < 9; i++) StartWait(Commit()).AwaitParked();
  log_.Finish(0);
  ASSERT_TRUE(log_.AwaitCalls(2));
  log_.Finish(1);
  for (BackgroundCall& call : calls_) EXPECT_EQ(call.Result(), 0);
}

TEST_F(CoordinatorTest, SyncNowMovesTheTail) {
  Commit();
  Commit();
  EXPECT_EQ(SyncNow(), 0);
  EXPECT_EQ(coordinator_.durable(), 2u);
  EXPECT_EQ(log_.call(0).from, 0u);
  EXPECT_EQ(log_.call(0).through, 2u);
  EXPECT_EQ(log_.call(0).thread, std::this_thread::get_id());
  EXPECT_EQ(Wait(2), 0);
  EXPECT_EQ(log_.calls(), 1u);
}

TEST_F(CoordinatorTest, SyncNowSyncsThoughNothingIsPending) {
  EXPECT_EQ(SyncNow(), 0);
  EXPECT_EQ(log_.calls(), 1u);
  Commit();
  EXPECT_EQ(SyncNow(), 0);
  EXPECT_EQ(SyncNow(), 0);
  EXPECT_EQ(log_.calls(), 3u);
}

TEST_F(CoordinatorTest, SyncNowBeginsBesideALeadersSync) {
  log_.HoldSyncs();
  BackgroundCall& leader = StartWait(Commit());
  ASSERT_TRUE(log_.AwaitCalls(1));
  BackgroundCall& sync_now = StartSyncNow();
  ASSERT_TRUE(log_.AwaitCalls(2));
  log_.ReleaseAll();
  EXPECT_EQ(sync_now.Result(), 0);
  EXPECT_EQ(leader.Result(), 0);
}

TEST_F(CoordinatorTest, SyncNowReleasesFollowers) {
  log_.HoldSyncs();
  BackgroundCall& leader = StartWait(Commit());
  ASSERT_TRUE(log_.AwaitCalls(1));
  BackgroundCall& covered = StartWait(Commit());
  covered.AwaitParked();
  BackgroundCall& sync_now = StartSyncNow();
  ASSERT_TRUE(log_.AwaitCalls(2));
  BackgroundCall& late = StartWait(Commit());
  late.AwaitParked();
  log_.Finish(0);
  AwaitOverlapping(leader, 1);  // else `covered` would lead the next sync
  log_.Finish(1);
  EXPECT_EQ(sync_now.Result(), 0);
  EXPECT_EQ(covered.Result(), 0);
  EXPECT_EQ(leader.Result(), 0);
  ASSERT_TRUE(log_.AwaitCalls(3));
  EXPECT_FALSE(late.returned());
  EXPECT_EQ(log_.call(2).through, 3u);
  log_.Finish(2);
  EXPECT_EQ(late.Result(), 0);
}

TEST_F(CoordinatorTest, TheTailMovesByMaximum) {
  log_.HoldSyncs();
  BackgroundCall& older = StartWait(Commit());
  ASSERT_TRUE(log_.AwaitCalls(1));
  Commit();
  BackgroundCall& newer = StartSyncNow();
  ASSERT_TRUE(log_.AwaitCalls(2));
  log_.Finish(0);
  AwaitOverlapping(older, 1);
  log_.Finish(1);
  EXPECT_EQ(newer.Result(), 0);
  EXPECT_EQ(older.Result(), 0);
  EXPECT_EQ(coordinator_.durable(), 2u) << "the tail fell back";
  EXPECT_EQ(Wait(2), 0);
  EXPECT_EQ(log_.calls(), 2u);
}

TEST_F(CoordinatorTest, OverlappingSyncNowsInEitherOrder) {
  for (size_t first_to_end : {0u, 1u}) {
    const size_t calls_before = log_.calls();
    log_.HoldSyncs();
    Commit();
    BackgroundCall& a = StartSyncNow();
    ASSERT_TRUE(log_.AwaitCalls(calls_before + 1));
    const Lsn second = Commit();
    BackgroundCall& b = StartSyncNow();
    ASSERT_TRUE(log_.AwaitCalls(calls_before + 2));
    log_.Finish(calls_before + first_to_end);
    (first_to_end == 0 ? a : b).AwaitParked();
    log_.Finish(calls_before + 1 - first_to_end);
    EXPECT_EQ(a.Result(), 0);
    EXPECT_EQ(b.Result(), 0);
    EXPECT_EQ(coordinator_.durable(), second);
  }
}

TEST_F(CoordinatorTest, CountsSyncsAndTheirTime) {
  log_.SetDuringSync([this] { clock_.Advance(3 * kMillisecond); });
  for (int i = 0; i < 4; i++) {
    Commit();
    EXPECT_EQ(Wait(coordinator_.appended()), 0);
  }
  EXPECT_EQ(SyncNow(), 0);
  EXPECT_EQ(stats_.syncs.Get(), 5);
  EXPECT_EQ(stats_.failed_syncs.Get(), 0);
  EXPECT_EQ(stats_.sync.Summary().count, 5);
  EXPECT_EQ(stats_.sync.Summary().max_us, 3000);
}

TEST_F(CoordinatorTest, CountsCommitsForEachSync) {
  // In the order of the buckets: 1, 2, 3-4, 5-8, 9-16, 17-32, 33-64, more.
  for (int commits : {1, 2, 3, 4, 5, 8, 9, 16, 17, 32, 33, 64, 65, 500}) {
    for (int i = 0; i < commits; i++) Commit();
    EXPECT_EQ(Wait(coordinator_.appended()), 0);
  }
  EXPECT_EQ(SyncNow(), 0);  // makes nothing durable, so it is in none
  constexpr std::array<int64_t, GROUPCOMMIT_BATCH_BUCKETS> kExpected{1, 1, 2, 2, 2, 2, 2, 2};
  for (size_t i = 0; i < kExpected.size(); i++) EXPECT_EQ(stats_.batch[i].Get(), kExpected[i]) << i;
}

TEST_F(CoordinatorTest, ACommitIsCountedForOneSync) {
  log_.HoldSyncs();
  BackgroundCall& leader = StartWait(Commit());
  ASSERT_TRUE(log_.AwaitCalls(1));
  BackgroundCall& sync_now = StartSyncNow();
  ASSERT_TRUE(log_.AwaitCalls(2));
  log_.Finish(0);
  log_.Finish(1);
  EXPECT_EQ(leader.Result(), 0);
  EXPECT_EQ(sync_now.Result(), 0);
  EXPECT_EQ(stats_.syncs.Get(), 2);
  EXPECT_EQ(stats_.batch[0].Get(), 1) << "the second made nothing durable";
}

}  // namespace
}  // namespace groupcommit::testing
