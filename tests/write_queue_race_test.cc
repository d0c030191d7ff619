// The queue for the write lock, where the lock changes hands at the worst moment.
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <future>
#include <thread>
#include <utility>

#include "support/patience.h"
#include "support/scale.h"
#include "support/write_queue_fixture.h"

namespace groupcommit::testing {
namespace {

// A clock that does something else at a chosen look at it.
class ClockWithHook final : public Clock {
 public:
  explicit ClockWithHook(FakeClock* clock) : clock_(clock) {}

  // Of the calling thread, the n-th look from now on (1 is the next one) calls `hook` first.
  static void SetHook(int n, std::function<void()> hook) {
    looks_left = n;
    hook_at_look = std::move(hook);
  }
  // The next wait of the calling thread ends with `hook`.
  static void SetHookAtWakeUp(std::function<void()> hook) { hook_at_wake_up = std::move(hook); }

  int64_t NowNanos() override {
    if (looks_left > 0 && --looks_left == 0) hook_at_look();
    return clock_->NowNanos();
  }
  void Yield() override { clock_->Yield(); }
  bool TooShortToPark(int64_t nanos) override { return clock_->TooShortToPark(nanos); }
  void WaitUntil(CondVar& cond, Mutex& mutex, int64_t deadline) override REQUIRES(mutex) {
    clock_->WaitUntil(cond, mutex, deadline);
    if (const auto hook = std::exchange(hook_at_wake_up, nullptr)) hook();
  }
  void ParkUntil(CondVar& cond, Mutex& mutex, int64_t deadline) override REQUIRES(mutex) {
    clock_->ParkUntil(cond, mutex, deadline);
  }

 private:
  static inline thread_local int looks_left = 0;
  static inline thread_local std::function<void()> hook_at_look;
  static inline thread_local std::function<void()> hook_at_wake_up;
  FakeClock* const clock_;
};

class WorstMomentTest : public WriteQueueTest {
 protected:
  // Of the looks at the clock of a thread that contends, the last one before it takes the mutex:
  // when it begins, when it finds a turn that has expired, and when it finds the lock warm or not.
  static constexpr int kLooks = 3;
  // Already a single thread is a crowd, and looks whether the lock is warm.
  static constexpr WriteQueue::Processors kNone{0, Processor};

  ~WorstMomentTest() override { clock_.Advance(2 * kLong); }

  // Contends in a thread of its own, where `hook` is called at the look number `look`. Has looked
  // at the lock again when this returns.
  std::future<bool>& StartContender(WriteQueue::Writer writer, int look,
                                    const std::function<void()>& hook) {
    std::atomic<bool> called{false};
    const int64_t deadline = clock_.NowNanos() + kLong;
    turns_.push_back(std::async(std::launch::async, [=, this, &called] {
      ClockWithHook::SetHook(look, [&] {
        hook();
        called = true;
      });
      return contended_.AwaitTurn(writer, contended_.NewTicket(), deadline, true);
    }));
    while (!called) std::this_thread::yield();
    const int64_t enough = clock_.yields() + 2;
    while (clock_.yields() < enough && !IsThrough(turns_.back())) std::this_thread::yield();
    return turns_.back();
  }
  static bool IsThrough(const std::future<bool>& turn) {
    return turn.wait_for(std::chrono::seconds(0)) == std::future_status::ready;
  }
  static bool GetsThrough(std::future<bool>& turn) {
    return turn.wait_for(kPatience) == std::future_status::ready && turn.get();
  }

  ClockWithHook hooked_{&clock_};
  WriteQueue contended_{&hooked_, kLong, WriteQueue::kLateNanos, kNone};

 private:
  std::deque<std::future<bool>> turns_;
};

// Who contends has found the lock free; before it takes the mutex, a newcomer takes the lock, which
// needs none.
TEST_F(WorstMomentTest, ALockThatWasFreeAMomentAgoIsNotTakenFromItsOwner) {
  for (int look = 1; look <= 2; look++) {  // there is no turn that could have expired
    ASSERT_TRUE(contended_.TryAcquire(1));
    contended_.Release(1);
    std::future<bool>& turn =
        StartContender(2, look, [this] { EXPECT_TRUE(contended_.TryAcquire(3)); });
    EXPECT_FALSE(IsThrough(turn)) << "look " << look;
    contended_.Release(3);
    EXPECT_TRUE(GetsThrough(turn));
    EXPECT_TRUE(contended_.TryAcquire(2));
    contended_.Release(2);
  }
}

// It has found a turn that nobody came for; a moment later that is a long one, of a checkpoint.
TEST_F(WorstMomentTest, ATurnThatHadExpiredAMomentAgoIsNotTakenWhenItWasProlonged) {
  for (int look = 1; look <= kLooks; look++) {
    ASSERT_TRUE(contended_.AwaitTurn(1, WriteQueue::kFirst, clock_.NowNanos(), true));
    clock_.Advance(kTurn);
    std::future<bool>& turn = StartContender(2, look, [this] {
      EXPECT_TRUE(contended_.ProlongTurn(1, clock_.NowNanos() + 100 * kMilli));
    });
    EXPECT_FALSE(IsThrough(turn)) << "look " << look;
    EXPECT_TRUE(contended_.IsKeptForLong());
    contended_.EndTurn(1);
    EXPECT_TRUE(GetsThrough(turn));
    EXPECT_TRUE(contended_.TryAcquire(2));
    contended_.Release(2);
  }
}

// It is woken, but has no processor before its turn is over, and somebody else has the lock. SQLite
// would ask for that in vain, and it counts how often it does.
TEST_F(WorstMomentTest, ATurnThatIsOverBeforeItsOwnerWakesUpIsNone) {
  ASSERT_TRUE(contended_.TryAcquire(1));
  const int64_t deadline = clock_.NowNanos() + kLong;
  std::future<bool> turn = std::async(std::launch::async, [=, this] {
    ClockWithHook::SetHookAtWakeUp([this] {
      clock_.Advance(kTurn);
      EXPECT_TRUE(contended_.TryAcquire(3));
    });
    return contended_.AwaitTurn(2, contended_.NewTicket(), deadline, false);
  });
  ASSERT_TRUE(clock_.AwaitSleeper());
  contended_.Release(1);
  while (contended_.waiting() == 0 && !IsThrough(turn)) std::this_thread::yield();
  EXPECT_FALSE(IsThrough(turn));
  contended_.Release(3);
  EXPECT_TRUE(GetsThrough(turn));
  EXPECT_TRUE(contended_.TryAcquire(2));
}

// It is favored, and is handed the lock just before it parks: nobody would wake it up for that.
TEST_F(WorstMomentTest, WhoIsHandedTheLockAsItParksHasItsTurn) {
  WriteQueue parks(&hooked_, 0, WriteQueue::kLateNanos, kNone);
  ASSERT_TRUE(parks.TryAcquire(1));
  const int64_t deadline = clock_.NowNanos() + kLong;
  std::future<bool> turn = std::async(std::launch::async, [&, deadline] {
    ClockWithHook::SetHook(1, [&parks] {
      parks.Favor(2);
      parks.Release(1);
    });
    return parks.AwaitTurn(2, parks.NewTicket(), deadline, true);
  });
  EXPECT_TRUE(GetsThrough(turn));
  clock_.Advance(2 * kLong);
}

// One thread releases the lock, and looks whether somebody waits for it, while another one queues
// up and looks whether it is free. Nobody else comes by, and time stands still.
TEST_F(WriteQueueTest, WhoQueuesUpDuringAReleaseIsNotLeftBehind) {
  constexpr int kDelays = 64;
  const int rounds = Scaled(10'000);
  std::atomic<int> begun{0};
  std::atomic<int> ended{0};
  std::atomic<bool> failed{false};
  std::thread waiter([&] {
    for (int round = 1; round <= rounds && !failed; round++) {
      while (begun < round && !failed) std::this_thread::yield();
      queue_.AwaitTurn(2, queue_.NewTicket(), clock_.NowNanos() + kLong, true);
      EXPECT_TRUE(queue_.TryAcquire(2));
      queue_.Release(2);
      ended = round;
    }
  });
  for (int round = 1; round <= rounds && !failed; round++) {
    EXPECT_TRUE(queue_.TryAcquire(1));
    begun = round;
    for (std::atomic<int> spins{10 * (round % kDelays)}; spins > 0; spins--) {
    }
    queue_.Release(1);
    const auto deadline = std::chrono::steady_clock::now() + kPatience;
    while (ended < round && std::chrono::steady_clock::now() < deadline) std::this_thread::yield();
    failed = ended < round;
  }
  EXPECT_FALSE(failed) << "somebody waits for a lock that is free";
  clock_.Advance(2 * kLong);
  waiter.join();
}

}  // namespace
}  // namespace groupcommit::testing
