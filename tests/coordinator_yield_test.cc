// How those wait who follow a leader of the coordinator: whether they give way to others or park.
#include <gtest/gtest.h>

#include <chrono>
#include <cstdint>
#include <thread>

#include "coordinator.h"
#include "support/coordinator_fixture.h"

namespace groupcommit::testing {
namespace {

class CoordinatorYieldTest : public CoordinatorFixture {
 protected:
  // So many commits are in flight, and a sync takes so long.
  void Learn(int in_flight, int64_t sync_nanos) {
    log_.SetDuringSync([this, sync_nanos] { clock_.Advance(sync_nanos); });
    for (int i = 1; i < in_flight; i++) Commit();
    EXPECT_EQ(Wait(Commit()), 0);
    log_.SetDuringSync(nullptr);
    log_.HoldSyncs();
    StartWait(Commit());
    ASSERT_TRUE(log_.AwaitCalls(2));
  }
  bool AwaitYielding(int followers) {
    return Await([&] { return coordinator_.yielding() == followers; });
  }
  // One follower gives way, and has looked at the clock before that: time that passes from here on
  // is what giving way takes.
  bool AwaitGivingWay() {
    const int64_t yields = clock_.yields();
    return AwaitYielding(1) && Await([&] { return clock_.yields() > yields; });
  }
  template <class Condition>
  static bool Await(Condition condition) {
    const auto deadline = std::chrono::steady_clock::now() + kPatience;
    while (!condition()) {
      if (std::chrono::steady_clock::now() > deadline) return false;
      std::this_thread::yield();
    }
    return true;
  }

  static constexpr int64_t kShort = 100 * kMicrosecond;
};

TEST_F(CoordinatorYieldTest, FollowersOfAShortSyncGiveWayForTwice) {
  Learn(3, kShort);
  BackgroundCall& follower = StartWait(Commit());
  ASSERT_TRUE(AwaitYielding(1));
  clock_.Advance(2 * kShort - 1);
  const int64_t yields = clock_.yields();
  while (clock_.yields() < yields + 10) std::this_thread::yield();
  clock_.Advance(1);
  EXPECT_TRUE(AwaitYielding(0));
  EXPECT_TRUE(follower.AwaitParked());
  log_.ReleaseAll();
  EXPECT_EQ(follower.Result(), 0);
}

TEST_F(CoordinatorYieldTest, TheyNoticeWithoutBeingWoken) {
  Learn(3, kShort);
  BackgroundCall& follower = StartWait(Commit());
  ASSERT_TRUE(AwaitYielding(1));
  log_.ReleaseAll();
  EXPECT_EQ(follower.Result(), 0);
  EXPECT_TRUE(AwaitYielding(0));
}

// That would keep processors busy for nothing.
TEST_F(CoordinatorYieldTest, AFewAreEnough) {
  Learn(8, kShort);
  for (int i = 0; i < 4; i++) StartWait(Commit());
  ASSERT_TRUE(AwaitYielding(4));
  for (int i = 0; i < 2; i++) EXPECT_TRUE(StartWait(Commit()).AwaitParked());
  EXPECT_TRUE(AwaitYielding(4));
}

// Somebody else needs the processor, and would be let through first.
TEST_F(CoordinatorYieldTest, WhereGivingWayTakesLongTheyPark) {
  Learn(8, kShort);
  BackgroundCall& follower = StartWait(Commit());
  ASSERT_TRUE(AwaitGivingWay());
  clock_.Advance(2 * kMillisecond);
  ASSERT_TRUE(AwaitYielding(0));
  EXPECT_TRUE(follower.AwaitParked());
  const int64_t yields = clock_.yields();
  clock_.Advance(50 * kMillisecond - 1);
  EXPECT_TRUE(StartWait(Commit()).AwaitParked());
  EXPECT_EQ(clock_.yields(), yields);
  clock_.Advance(1);
  StartWait(Commit());
  EXPECT_TRUE(AwaitYielding(1)) << "they try again";
}

TEST_F(CoordinatorYieldTest, WhoKeepsAShortWindowGivesWayToo) {
  clock_.SetTooShortToPark(kMillisecond);
  coordinator_.SetPolicy(FlushPolicy::Group(10'000, 8));
  BackgroundCall& keeper = StartWait(Commit());
  ASSERT_TRUE(KeepsWaiting());
  EXPECT_EQ(clock_.yields(), 0);
  clock_.Advance(9 * kMillisecond + 1);
  clock_.WakeEarly();
  while (clock_.yields() < 10) std::this_thread::yield();
  clock_.Advance(kMillisecond);
  EXPECT_EQ(keeper.Result(), 0);
}

TEST_F(CoordinatorYieldTest, ButNotWhereThatTakesLong) {
  Learn(3, kShort);
  StartWait(Commit());
  ASSERT_TRUE(AwaitGivingWay());
  clock_.Advance(2 * kMillisecond);
  ASSERT_TRUE(AwaitYielding(0));
  log_.ReleaseAll();
  for (BackgroundCall& call : calls_) EXPECT_EQ(call.Result(), 0);
  const int64_t yields = clock_.yields();
  clock_.SetTooShortToPark(kMillisecond);
  coordinator_.SetPolicy(FlushPolicy::Group(500, 8));
  BackgroundCall& keeper = StartWait(Commit());
  EXPECT_TRUE(KeepsWaiting());
  EXPECT_EQ(clock_.yields(), yields);
  clock_.Advance(500 * kMicrosecond);
  EXPECT_EQ(keeper.Result(), 0);
}

TEST_F(CoordinatorYieldTest, FollowersOfALongSyncPark) {
  Learn(8, 400 * kMicrosecond);
  EXPECT_TRUE(StartWait(Commit()).AwaitParked());
  EXPECT_EQ(clock_.yields(), 0);
}

TEST_F(CoordinatorYieldTest, OneOfTwoParks) {
  Learn(2, kShort);
  EXPECT_TRUE(StartWait(Commit()).AwaitParked());
  EXPECT_EQ(clock_.yields(), 0);
}

}  // namespace
}  // namespace groupcommit::testing
