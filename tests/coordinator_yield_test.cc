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
    const auto deadline = std::chrono::steady_clock::now() + kPatience;
    while (coordinator_.yielding() != followers) {
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
