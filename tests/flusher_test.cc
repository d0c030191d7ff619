// The flusher: when it syncs, and what it tells of failures. The test holds the clock and the log.
#include "flusher.h"

#include <gtest/gtest.h>
#include <pthread.h>
#include <signal.h>

#include <atomic>

#include "support/coordinator_fixture.h"

namespace groupcommit::testing {
namespace {

constexpr int kError = 1034;

class FlusherTest : public CoordinatorFixture {
 protected:
  void SetUp() override { flusher_.Start(); }
  void TearDown() override {
    log_.ReleaseAll();
    flusher_.Stop();
  }

  Lsn Write() {
    log_.Write();
    return coordinator_.CountWritten();
  }
  Lsn Commit(int64_t delay) {
    const Lsn lsn = Write();
    flusher_.Schedule(delay);
    return lsn;
  }
  // Waits until the commit is durable, without a sync of our own.
  bool BecomesDurable(Lsn lsn) {
    return calls_.emplace_back([this, lsn] { return AwaitSynced(lsn); }).Result() == 0;
  }

  Flusher flusher_{&clock_, &coordinator_, &log_};

 private:
  int AwaitSynced(Lsn lsn) {
    // The clock of the test stands still.
    while (coordinator_.synced() < lsn && coordinator_.failure() == 0) std::this_thread::yield();
    return coordinator_.failure();
  }
};

TEST_F(FlusherTest, ACommitIsSyncedWhenItIsDue) {
  const Lsn lsn = Commit(kMillisecond);
  ASSERT_TRUE(clock_.AwaitSleeper());
  EXPECT_EQ(clock_.NanosLeft(), kMillisecond);
  EXPECT_EQ(log_.calls(), 0u);
  clock_.Advance(kMillisecond);
  EXPECT_TRUE(BecomesDurable(lsn));
  EXPECT_EQ(log_.calls(), 1u);
}

TEST_F(FlusherTest, TheOldestDecidesWhen) {
  Commit(kMillisecond);
  ASSERT_TRUE(clock_.AwaitSleeper());
  clock_.Advance(kMillisecond / 2);
  const Lsn last = Commit(kMillisecond);
  clock_.WakeEarly();
  ASSERT_TRUE(clock_.AwaitSleeper());
  EXPECT_EQ(clock_.NanosLeft(), kMillisecond / 2);
  clock_.Advance(kMillisecond / 2);
  EXPECT_TRUE(BecomesDurable(last)) << "one sync for both";
  EXPECT_EQ(log_.calls(), 1u);
}

TEST_F(FlusherTest, AShorterDelayComesFirst) {
  Commit(1000 * kMillisecond);
  ASSERT_TRUE(clock_.AwaitSleeper());
  EXPECT_TRUE(BecomesDurable(Commit(0)));
}

// A sync covers nothing that is written while it runs.
TEST_F(FlusherTest, ACommitDuringTheSyncIsDueAgain) {
  log_.HoldSyncs();
  const Lsn first = Commit(0);
  ASSERT_TRUE(log_.AwaitCalls(1));
  const Lsn second = Commit(kMillisecond);
  log_.Finish(0);
  EXPECT_TRUE(BecomesDurable(first));
  EXPECT_LT(coordinator_.synced(), second);
  ASSERT_TRUE(clock_.AwaitSleeper());
  clock_.Advance(kMillisecond);
  ASSERT_TRUE(log_.AwaitCalls(2));
  log_.Finish(1);
  EXPECT_TRUE(BecomesDurable(second));
}

TEST_F(FlusherTest, WhatSomebodyElseHasSyncedIsNotSyncedAgain) {
  const Lsn lsn = Commit(kMillisecond);
  ASSERT_TRUE(clock_.AwaitSleeper());
  EXPECT_EQ(coordinator_.WaitSynced(lsn, &log_), 0);
  clock_.Advance(kMillisecond);
  EXPECT_TRUE(BecomesDurable(Commit(0)));
  EXPECT_EQ(log_.calls(), 2u);
}

TEST_F(FlusherTest, AFailureIsCounted) {
  EXPECT_EQ(flusher_.errors(), 0u);
  log_.FailNext(kError);
  Commit(0);
  const auto counted = [this] {
    while (flusher_.errors() == 0) std::this_thread::yield();
    return 0;
  };
  EXPECT_EQ(calls_.emplace_back(counted).Result(), 0);
  EXPECT_TRUE(log_.RollBack(0));
  EXPECT_TRUE(coordinator_.Resume());
  EXPECT_TRUE(BecomesDurable(Commit(0))) << "it goes on";
  EXPECT_EQ(flusher_.errors(), 1u);
}

TEST_F(FlusherTest, AfterAnAwaitedSyncItWaitsForTheNextThatIsDue) {
  const Lsn lsn = Write();
  EXPECT_TRUE(flusher_.SyncNow());
  EXPECT_TRUE(BecomesDurable(lsn));
  Commit(kMillisecond);
  ASSERT_TRUE(clock_.AwaitSleeper());
  EXPECT_EQ(log_.calls(), 1u);
}

// Somebody waits, and hears of it.
TEST_F(FlusherTest, AFailureOfAnAwaitedSyncIsNotCounted) {
  log_.FailNext(kError);
  const Lsn lsn = Write();
  EXPECT_TRUE(flusher_.SyncNow());
  EXPECT_FALSE(BecomesDurable(lsn));
  flusher_.Stop();
  EXPECT_EQ(flusher_.errors(), 0u);
}

TEST_F(FlusherTest, AFailureIsCountedOnce) {
  log_.FailNext(kError);
  Commit(0);
  const auto failed = [this] {
    while (flusher_.errors() == 0) std::this_thread::yield();
    return 0;
  };
  EXPECT_EQ(calls_.emplace_back(failed).Result(), 0);
  // Commits that were counted before the sync, and ended after it.
  for (int i = 0; i < 1000; i++) {
    flusher_.Schedule(0);
    std::this_thread::yield();
  }
  flusher_.Stop();
  EXPECT_EQ(flusher_.errors(), 1u);
}

TEST_F(FlusherTest, ItCanBeStoppedAndStartedAgain) {
  Commit(kMillisecond);
  ASSERT_TRUE(clock_.AwaitSleeper());
  flusher_.Stop();
  EXPECT_FALSE(flusher_.is_running());
  EXPECT_EQ(log_.calls(), 0u) << "what is due is the business of who stops it";
  flusher_.Stop();
  flusher_.Start();
  EXPECT_TRUE(BecomesDurable(Commit(0)));
}

// They are the application's, and so is the mask of the thread that starts ours.
TEST_F(FlusherTest, ItHandlesNoSignals) {
  class Mask final : public Coordinator::Log {
   public:
    int Sync(Lsn, Lsn) override {
      sigset_t blocked;
      pthread_sigmask(SIG_SETMASK, nullptr, &blocked);
      blocks_sigterm = sigismember(&blocked, SIGTERM) == 1;
      return 0;
    }
    std::atomic<bool> blocks_sigterm{false};
  } mask;
  sigset_t sigterm;  // which whoever runs this test may have blocked
  sigset_t before;
  sigemptyset(&sigterm);
  sigaddset(&sigterm, SIGTERM);
  pthread_sigmask(SIG_UNBLOCK, &sigterm, &before);
  Flusher flusher(&clock_, &coordinator_, &mask);
  flusher.Start();
  const Lsn lsn = Write();
  EXPECT_TRUE(flusher.SyncNow());
  EXPECT_TRUE(BecomesDurable(lsn));
  EXPECT_TRUE(mask.blocks_sigterm);
  EXPECT_EQ(mask.Sync(0, 0), 0);
  EXPECT_FALSE(mask.blocks_sigterm);
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

// Who waits has a limit, and would wait for nobody until then.
TEST_F(FlusherTest, WhatSomebodyWaitsForIsSyncedBeforeItStops) {
  log_.HoldSyncs();
  Commit(0);
  ASSERT_TRUE(log_.AwaitCalls(1));
  const Lsn lsn = Write();
  EXPECT_TRUE(flusher_.SyncNow());
  BackgroundCall& stop = calls_.emplace_back([this] {
    flusher_.Stop();
    return 0;
  });
  stop.AwaitParked();
  log_.ReleaseAll();
  EXPECT_EQ(stop.Result(), 0);
  EXPECT_EQ(coordinator_.synced(), lsn);
  EXPECT_FALSE(flusher_.SyncNow()) << "nobody is there any more";
}

}  // namespace
}  // namespace groupcommit::testing
