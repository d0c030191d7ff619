// A queue for the write lock. Time stands still, so that nothing but a hand-over wakes a thread
// that waits: one that is lost makes the test fail.
#ifndef GROUPCOMMIT_TESTS_SUPPORT_WRITE_QUEUE_FIXTURE_H_
#define GROUPCOMMIT_TESTS_SUPPORT_WRITE_QUEUE_FIXTURE_H_

#include <gtest/gtest.h>

#include <future>
#include <thread>
#include <vector>

#include "support/fake_clock.h"
#include "write_queue.h"

namespace groupcommit::testing {

inline constexpr int64_t kMilli = 1'000'000;
inline constexpr int64_t kTurn = WriteQueue::kTurnNanos;
// When at the latest a waiter finds out that a turn was not taken.
inline constexpr int64_t kPatrol = 4 * kTurn;
inline constexpr int64_t kLong = 1'000 * kMilli;

class WriteQueueTest : public ::testing::Test {
 protected:
  // Waits in a thread of its own, and parks before this returns.
  std::future<bool> StartWaiter(WriteQueue::Writer writer, uint64_t ticket, int64_t nanos = kLong,
                                bool free_is_enough = true) {
    const auto parked = static_cast<size_t>(queue_.waiting());
    const int64_t deadline = clock_.NowNanos() + nanos;
    std::future<bool> turn = std::async(std::launch::async, [=, this] {
      return queue_.AwaitTurn(writer, ticket, deadline, free_is_enough);
    });
    EXPECT_TRUE(clock_.AwaitSleepers(parked + 1));
    return turn;
  }

  // A turn that nobody waits for and that is kept until `nanos` from now.
  void StartLongTurn(WriteQueue::Writer writer, int64_t nanos) {
    ASSERT_TRUE(queue_.AwaitTurn(writer, WriteQueue::kFirst, clock_.NowNanos(), true));
    EXPECT_TRUE(queue_.ProlongTurn(writer, clock_.NowNanos() + nanos));
  }

  // Where nothing is said, all threads run on one processor.
  static int Processor() { return processor; }
  static constexpr WriteQueue::Processors kOneProcessor{1, Processor};

  static inline thread_local int processor = 0;

  FakeClock clock_;
  WriteQueue queue_{&clock_, 0, WriteQueue::kLateNanos, kOneProcessor};
};

// Releasing races with queueing up. The counter is not atomic: mutual exclusion is what makes it
// right.
inline void ShareALock(WriteQueue* queue, int rounds, FakeClock* clock) {
  constexpr int kThreads = 6;
  int64_t counter = 0;
  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; i++) {
    threads.emplace_back([&, writer = static_cast<WriteQueue::Writer>(i + 1)] {
      for (int round = 0; round < rounds; round++) {
        const uint64_t ticket = queue->NewTicket();
        while (!queue->TryAcquire(writer)) {
          queue->AwaitTurn(writer, ticket, clock->NowNanos() + kLong, true);
        }
        counter++;
        queue->Release(writer);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(counter, int64_t{kThreads} * rounds);
  EXPECT_EQ(queue->waiting(), 0);
  EXPECT_TRUE(queue->TryAcquire(100));
}

}  // namespace groupcommit::testing

#endif  // GROUPCOMMIT_TESTS_SUPPORT_WRITE_QUEUE_FIXTURE_H_
