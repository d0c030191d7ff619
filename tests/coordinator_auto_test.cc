// How long a leader of the coordinator waits for company under the policy auto.
#include <gtest/gtest.h>

#include <cstdint>
#include <thread>
#include <vector>

#include "coordinator.h"
#include "support/coordinator_fixture.h"

namespace groupcommit::testing {
namespace {

class CoordinatorAutoTest : public CoordinatorFixture {
 protected:
  void SetUp() override { coordinator_.SetPolicy(FlushPolicy::Auto()); }

  // Nobody else commits during its sync.
  void LoneCommit(int64_t sync_nanos = kMillisecond) {
    log_.SetDuringSync([this, sync_nanos] { clock_.Advance(sync_nanos); });
    EXPECT_EQ(Wait(Commit()), 0);
    log_.SetDuringSync(nullptr);
  }

  // Somebody comes into the window, which is complete by that, and leads a sync of `sync_nanos`.
  // REQUIRES: log_ is holding.
  void FillWindow(int64_t sync_nanos) {
    const size_t calls_before = log_.calls();
    BackgroundCall& leader = StartWait(Commit());
    ASSERT_TRUE(log_.AwaitCalls(calls_before + 1));
    clock_.Advance(sync_nanos);
    log_.Finish(calls_before);
    ASSERT_EQ(leader.Result(), 0);
  }

  // Leads a sync of `sync_nanos` while which all of `commits` are in flight: one that it covers and
  // those that come while it runs, `apart` from each other, and wait for the next. Leaves log_
  // holding.
  void Flight(int commits, int64_t sync_nanos, int64_t apart = 0) {
    log_.HoldSyncs();
    const size_t calls_before = log_.calls();
    BackgroundCall& leader = StartWait(Commit());
    ASSERT_TRUE(log_.AwaitCalls(calls_before + 1));
    for (int i = 1; i < commits; i++) {
      clock_.Advance(apart);
      StartWait(Commit()).AwaitParked();
    }
    clock_.Advance(sync_nanos - apart * (commits - 1));
    log_.Finish(calls_before);
    ASSERT_EQ(leader.Result(), 0);
  }
};

TEST_F(CoordinatorAutoTest, NeverWaitsForALoneCommitter) {
  log_.SetDuringSync([this] { clock_.Advance(kMillisecond); });
  for (int i = 0; i < 10; i++) EXPECT_EQ(Wait(Commit()), 0);
  EXPECT_EQ(clock_.waits(), 0);
  EXPECT_EQ(log_.calls(), 10u);
}

TEST_F(CoordinatorAutoTest, WaitsForAsManyAsWereInFlight) {
  Flight(5, kMillisecond);
  // Four wait; the one that was just served may come back.
  EXPECT_TRUE(KeepsWaiting());
  EXPECT_EQ(log_.calls(), 1u);
  BackgroundCall& back = StartWait(Commit());
  ASSERT_TRUE(log_.AwaitCalls(2));
  EXPECT_EQ(log_.call(1).through, 6u);
  log_.Finish(1);
  EXPECT_EQ(back.Result(), 0);
  EXPECT_EQ(stats_.windows_filled.Get(), 1);
  EXPECT_EQ(stats_.windows_expired.Get(), 0);
}

TEST_F(CoordinatorAutoTest, GivesUpAfterAFractionOfASync) {
  Flight(5, kMillisecond);
  ASSERT_TRUE(KeepsWaiting());
  const int64_t window = clock_.NanosLeft();
  EXPECT_GT(window, 0);
  EXPECT_LT(window, kMillisecond);
  clock_.Advance(window - 1);
  EXPECT_TRUE(KeepsWaiting());
  EXPECT_EQ(log_.calls(), 1u);
  clock_.Advance(1);
  ASSERT_TRUE(log_.AwaitCalls(2));
  EXPECT_EQ(log_.call(1).through, 5u);
  EXPECT_EQ(stats_.windows_filled.Get(), 0);
  EXPECT_EQ(stats_.windows_expired.Get(), 1);
}

// Two groups that take turns serve them better: while one syncs, the other writes.
TEST_F(CoordinatorAutoTest, DoesNotWaitForWritersThatTakeLongerThanASync) {
  LoneCommit();
  Flight(5, 2 * kMillisecond, kMillisecond / 3);
  ASSERT_TRUE(log_.AwaitCalls(3));
  EXPECT_EQ(log_.call(2).through, 6u);
  EXPECT_EQ(clock_.waits(), 0);
}

TEST_F(CoordinatorAutoTest, WaitsForWritersThatTakeLessThanASync) {
  LoneCommit();
  Flight(5, 2 * kMillisecond, kMillisecond / 6);
  EXPECT_TRUE(KeepsWaiting());
  EXPECT_EQ(log_.calls(), 2u);
}

// Pauses are no measure of how fast writers come.
TEST_F(CoordinatorAutoTest, MakesNothingOfAPause) {
  constexpr int64_t kHour = int64_t{3600} * 1'000 * kMillisecond;
  LoneCommit();
  clock_.Advance(kHour);
  LoneCommit();
  clock_.Advance(kHour);
  Flight(5, 2 * kMillisecond, kMillisecond / 10);
  EXPECT_TRUE(KeepsWaiting());
}

// Some writers take their time. The others do not wait for them, as soon as that costs them more
// than it is worth.
TEST_F(CoordinatorAutoTest, IsTheLessPatientTheMoreWait) {
  Commit();
  Flight(4, kMillisecond);  // five in flight, of which three wait
  ASSERT_TRUE(KeepsWaiting());
  EXPECT_EQ(clock_.NanosLeft(), kMillisecond / 3);
  clock_.Advance(kMillisecond / 5);
  Commit();
  clock_.Advance(kMillisecond / 3 - kMillisecond / 5);
  ASSERT_TRUE(KeepsWaiting());
  EXPECT_EQ(clock_.NanosLeft(), kMillisecond / 5 + kMillisecond / 4 - kMillisecond / 3);
  clock_.Advance(clock_.NanosLeft());
  ASSERT_TRUE(log_.AwaitCalls(2));
  EXPECT_EQ(log_.call(1).through, 6u);
  EXPECT_EQ(stats_.windows_expired.Get(), 1);
}

// Who keeps the window has to learn of it while it sleeps.
TEST_F(CoordinatorAutoTest, LosesPatienceWhileMoreCome) {
  for (int i = 0; i < 7; i++) Commit();
  Flight(2, kMillisecond);  // nine in flight, of which one waits
  ASSERT_TRUE(KeepsWaiting());
  EXPECT_EQ(clock_.NanosLeft(), kMillisecond / 2) << "all that there may be";
  for (int i = 0; i < 6; i++) Commit();
  StartWait(Commit()).AwaitParked();
  clock_.Advance(kMillisecond / 4);
  ASSERT_TRUE(log_.AwaitCalls(2));
  EXPECT_EQ(log_.call(1).through, 16u);
}

TEST_F(CoordinatorAutoTest, LosesPatienceWhileItGivesWay) {
  clock_.SetTooShortToPark(kMillisecond);
  for (int i = 0; i < 7; i++) Commit();
  Flight(2, kMillisecond);  // nine in flight, of which one waits
  const int64_t yields = clock_.yields();
  while (clock_.yields() < yields + 10) std::this_thread::yield();
  for (int i = 0; i < 6; i++) Commit();
  StartWait(Commit()).AwaitParked();
  clock_.Advance(kMillisecond / 4);
  ASSERT_TRUE(log_.AwaitCalls(2));
  EXPECT_EQ(log_.call(1).through, 16u);
}

TEST_F(CoordinatorAutoTest, StopsWaitingWhenTheOthersHaveGone) {
  Flight(8, kMillisecond);
  clock_.RunFree();
  log_.ReleaseAll();
  for (BackgroundCall& call : calls_) EXPECT_EQ(call.Result(), 0);
  for (int i = 0; i < 4; i++) EXPECT_EQ(Wait(Commit()), 0);
  const int waits = clock_.waits();
  for (int i = 0; i < 10; i++) EXPECT_EQ(Wait(Commit()), 0);
  EXPECT_EQ(clock_.waits(), waits);
}

// Two writers, in step: who waits for the other one is better asleep, for which half a sync may be
// too short. But only as long as the other one comes.
TEST_F(CoordinatorAutoTest, WaitsLongerForOneMoreWhoCameLastTime) {
  constexpr int64_t kSync = 80 * kMicrosecond;
  LoneCommit(kSync);
  Flight(2, kSync, kMicrosecond);
  ASSERT_TRUE(KeepsWaiting());
  EXPECT_EQ(clock_.NanosLeft(), kSync / 2) << "nobody has come so far";
  FillWindow(kSync);

  BackgroundCall& keeper = StartWait(Commit());
  ASSERT_TRUE(KeepsWaiting());
  EXPECT_EQ(clock_.NanosLeft(), 4 * kSync);
  clock_.Advance(4 * kSync);
  ASSERT_TRUE(log_.AwaitCalls(4));
  StartWait(Commit()).AwaitParked();
  clock_.Advance(kSync);
  log_.Finish(3);
  EXPECT_EQ(keeper.Result(), 0);
  ASSERT_TRUE(KeepsWaiting());
  EXPECT_EQ(clock_.NanosLeft(), kSync / 2) << "nobody came into the last one";
}

TEST_F(CoordinatorAutoTest, WaitsNoLongerThanItTakesToSleep) {
  LoneCommit(300 * kMicrosecond);
  Flight(2, 300 * kMicrosecond, kMicrosecond);
  ASSERT_TRUE(KeepsWaiting());
  FillWindow(300 * kMicrosecond);
  StartWait(Commit());
  ASSERT_TRUE(KeepsWaiting());
  EXPECT_EQ(clock_.NanosLeft(), 400 * kMicrosecond);
}

TEST_F(CoordinatorAutoTest, HasTimeToSleepInTheWindowOfALongSync) {
  LoneCommit(10 * kMillisecond);
  Flight(2, 10 * kMillisecond, kMicrosecond);
  ASSERT_TRUE(KeepsWaiting());
  FillWindow(10 * kMillisecond);
  StartWait(Commit());
  ASSERT_TRUE(KeepsWaiting());
  EXPECT_EQ(clock_.NanosLeft(), 5 * kMillisecond);
}

TEST_F(CoordinatorAutoTest, WaitsNoLongerForMoreThanOne) {
  constexpr int64_t kSync = 80 * kMicrosecond;
  LoneCommit(kSync);
  Flight(3, kSync, kMicrosecond);
  ASSERT_TRUE(KeepsWaiting());
  FillWindow(kSync);
  StartWait(Commit());
  ASSERT_TRUE(KeepsWaiting());
  EXPECT_LE(clock_.NanosLeft(), kSync / 2);
}

// What one sync took lately counts, not what syncs took long ago.
TEST_F(CoordinatorAutoTest, FollowsTheTimeOfASync) {
  int64_t sync_nanos = 20 * kMillisecond;
  log_.SetDuringSync([&] { clock_.Advance(sync_nanos); });
  EXPECT_EQ(Wait(Commit()), 0);
  sync_nanos = 100 * kMicrosecond;
  for (int i = 0; i < 100; i++) EXPECT_EQ(Wait(Commit()), 0);
  Flight(3, sync_nanos);
  ASSERT_TRUE(clock_.AwaitSleeper());
  EXPECT_LE(clock_.NanosLeft(), sync_nanos);
  log_.SetDuringSync(nullptr);
}

TEST_F(CoordinatorAutoTest, MakesNothingOfOneLongSync) {
  for (int i = 0; i < 10; i++) LoneCommit(100 * kMicrosecond);
  LoneCommit(10'000 * kMillisecond);
  Flight(3, 100 * kMicrosecond);
  ASSERT_TRUE(clock_.AwaitSleeper());
  EXPECT_LE(clock_.NanosLeft(), 100 * kMicrosecond);
}

}  // namespace
}  // namespace groupcommit::testing
