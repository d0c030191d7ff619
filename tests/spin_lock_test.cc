#include "spin_lock.h"

#include <gtest/gtest.h>

#include <thread>
#include <vector>

namespace groupcommit::testing {
namespace {

TEST(SpinLockTest, OneAtATime) {
  SpinLock lock;
  int64_t count = 0;  // ThreadSanitizer watches it
  int64_t without = 0;
  constexpr size_t kThreads = 4;
  constexpr int kTurns = 20'000;
  std::vector<std::thread> threads;
  std::vector<int64_t> given_up(kThreads);
  for (size_t i = 0; i < kThreads; i++) {
    threads.emplace_back([&, i] {
      for (int turn = 0; turn < kTurns; turn++) {
        if (lock.LockSoon()) {
          count++;
          lock.Unlock();
        } else {
          given_up[i]++;
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const int64_t n : given_up) without += n;
  EXPECT_EQ(count + without, int64_t{kThreads} * kTurns);
  EXPECT_GT(count, 0);
}

// Its owner may wait for whoever asks.
TEST(SpinLockTest, GoesOnWithoutItIfItIsHeldForLong) {
  SpinLock lock;
  SpinGuard owner(&lock);
  EXPECT_FALSE(lock.LockSoon());
  { SpinGuard other(&lock); }
  EXPECT_FALSE(lock.LockSoon()) << "somebody else's lock was released";
}

TEST(SpinLockTest, TheGuardReleasesIt) {
  SpinLock lock;
  { SpinGuard owner(&lock); }
  EXPECT_TRUE(lock.LockSoon());
}

}  // namespace
}  // namespace groupcommit::testing
