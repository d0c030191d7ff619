// The queue for the write lock by itself. See contention_test.cc for threads that give way.
#include "write_queue.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <future>
#include <memory>
#include <random>
#include <thread>
#include <vector>

#include "support/scale.h"
#include "support/write_queue_fixture.h"

namespace groupcommit::testing {
namespace {

// ---- The lock ----

TEST_F(WriteQueueTest, OneAtATime) {
  EXPECT_TRUE(queue_.TryAcquire(1));
  EXPECT_FALSE(queue_.TryAcquire(2));
  EXPECT_FALSE(queue_.TryAcquire(1)) << "it is not recursive";
  clock_.Advance(kLong);
  EXPECT_FALSE(queue_.TryAcquire(2)) << "who holds it may do so for as long as it likes";
  queue_.Release(1);
  EXPECT_TRUE(queue_.TryAcquire(2));
}

TEST_F(WriteQueueTest, ATurnAtAFreeLockComesAtOnce) {
  EXPECT_TRUE(queue_.AwaitTurn(1, queue_.NewTicket(), clock_.NowNanos(), true));
  EXPECT_EQ(queue_.waiting(), 0);
  EXPECT_FALSE(queue_.TryAcquire(2)) << "it is kept";
  EXPECT_TRUE(queue_.AwaitTurn(1, queue_.NewTicket(), clock_.NowNanos(), true)) << "still";
  EXPECT_TRUE(queue_.TryAcquire(1));
}

// Looked at afterwards the lock may be nobody's, and who never waits would not come again.
TEST_F(WriteQueueTest, WhoIsRefusedIsToldWhetherItWasForATurn) {
  bool is_kept = false;
  ASSERT_TRUE(queue_.AwaitTurn(1, queue_.NewTicket(), clock_.NowNanos(), true));
  EXPECT_FALSE(queue_.TryAcquire(2, &is_kept));
  EXPECT_TRUE(is_kept);
  ASSERT_TRUE(queue_.TryAcquire(1));
  EXPECT_FALSE(queue_.TryAcquire(2, &is_kept));
  EXPECT_FALSE(is_kept);
}

TEST_F(WriteQueueTest, TheLowestTicketComesFirst) {
  ASSERT_TRUE(queue_.TryAcquire(1));
  std::future<bool> third = StartWaiter(13, 3);
  std::future<bool> first = StartWaiter(11, 1);
  std::future<bool> also_first = StartWaiter(12, 1);
  std::future<bool> checkpoint = StartWaiter(10, WriteQueue::kFirst);
  queue_.Release(1);
  std::future<bool>* turns[] = {&checkpoint, &first, &also_first, &third};
  for (WriteQueue::Writer writer = 10; writer <= 13; writer++) {
    for (WriteQueue::Writer other = 10; other <= 13; other++) {
      if (other == writer) continue;
      EXPECT_FALSE(queue_.TryAcquire(other)) << other;
    }
    EXPECT_TRUE(turns[writer - 10]->get());
    EXPECT_EQ(queue_.waiting(), static_cast<int>(13 - writer));
    EXPECT_TRUE(queue_.TryAcquire(writer));
    queue_.Release(writer);
  }
  EXPECT_TRUE(queue_.TryAcquire(1)) << "nobody is left";
}

TEST_F(WriteQueueTest, NobodyGetsBetweenTheReleaseAndTheOneThatWaited) {
  ASSERT_TRUE(queue_.TryAcquire(1));
  std::future<bool> turn = StartWaiter(2, queue_.NewTicket());
  queue_.Release(1);
  EXPECT_FALSE(queue_.TryAcquire(3));
  EXPECT_FALSE(queue_.TryAcquire(1));
  EXPECT_TRUE(turn.get());
  EXPECT_FALSE(queue_.TryAcquire(3));
  EXPECT_TRUE(queue_.TryAcquire(2));
}

TEST_F(WriteQueueTest, TicketsGrow) {
  const uint64_t first = queue_.NewTicket();
  EXPECT_GT(first, WriteQueue::kFirst);
  EXPECT_GT(queue_.NewTicket(), first);
}

// ---- A turn that is not taken ----

TEST_F(WriteQueueTest, AnUnusedTurnIsLostToANewcomer) {
  ASSERT_TRUE(queue_.TryAcquire(1));
  std::future<bool> turn = StartWaiter(2, queue_.NewTicket());
  queue_.Release(1);
  EXPECT_TRUE(turn.get());
  clock_.Advance(kTurn - 1);
  EXPECT_FALSE(queue_.TryAcquire(3));
  clock_.Advance(1);
  EXPECT_TRUE(queue_.TryAcquire(3));
  EXPECT_FALSE(queue_.TryAcquire(2)) << "too late";
  queue_.Release(3);
  EXPECT_TRUE(queue_.TryAcquire(2));
}

TEST_F(WriteQueueTest, WhoComesLateButBeforeAllOthersStillHasItsTurn) {
  EXPECT_TRUE(queue_.AwaitTurn(1, queue_.NewTicket(), clock_.NowNanos(), true));
  clock_.Advance(kLong);
  EXPECT_TRUE(queue_.TryAcquire(1));
}

TEST_F(WriteQueueTest, ATurnIsKeptFromAllOthersUntilItExpires) {
  EXPECT_FALSE(queue_.IsKeptFrom(2));
  EXPECT_TRUE(queue_.AwaitTurn(1, queue_.NewTicket(), clock_.NowNanos(), true));
  EXPECT_TRUE(queue_.IsKeptFrom(2));
  EXPECT_FALSE(queue_.IsKeptFrom(1));
  clock_.Advance(kTurn);
  EXPECT_FALSE(queue_.IsKeptFrom(2));
  EXPECT_TRUE(queue_.TryAcquire(1));
  EXPECT_FALSE(queue_.IsKeptFrom(2)) << "it is held";
}

TEST_F(WriteQueueTest, AnUnusedTurnGoesToTheNextThatWaits) {
  ASSERT_TRUE(queue_.TryAcquire(1));
  std::future<bool> absent = StartWaiter(2, queue_.NewTicket());
  std::future<bool> next = StartWaiter(3, queue_.NewTicket());
  queue_.Release(1);
  EXPECT_TRUE(absent.get());
  clock_.Advance(kPatrol);
  EXPECT_TRUE(next.get());
  EXPECT_FALSE(queue_.TryAcquire(2));
  EXPECT_TRUE(queue_.TryAcquire(3));
}

// ---- Time-out ----

TEST_F(WriteQueueTest, AWaiterLeavesAtItsDeadlineAndNotBefore) {
  ASSERT_TRUE(queue_.TryAcquire(1));
  std::future<bool> turn = StartWaiter(2, queue_.NewTicket(), 3 * kMilli);
  std::future<bool> other = StartWaiter(3, queue_.NewTicket());
  EXPECT_EQ(clock_.NanosLeft(), 3 * kMilli);
  clock_.Advance(3 * kMilli - 1);
  EXPECT_EQ(queue_.waiting(), 2);
  EXPECT_EQ(clock_.NanosLeft(), 1);
  clock_.Advance(1);
  EXPECT_FALSE(turn.get());
  EXPECT_EQ(queue_.waiting(), 1);
  queue_.Release(1);
  EXPECT_TRUE(other.get()) << "it is now the first";
  EXPECT_EQ(queue_.waiting(), 0);
  EXPECT_TRUE(queue_.TryAcquire(3));
  queue_.Release(3);
  EXPECT_TRUE(queue_.TryAcquire(4)) << "nothing is kept for the one that left";
}

TEST_F(WriteQueueTest, AWaiterThatWakesUpForNoReasonWaitsOn) {
  ASSERT_TRUE(queue_.TryAcquire(1));
  std::future<bool> turn = StartWaiter(2, queue_.NewTicket());
  for (int i = 0; i < 3; i++) {
    clock_.WakeEarly();
    ASSERT_TRUE(clock_.AwaitSleeper());
    EXPECT_EQ(queue_.waiting(), 1);
  }
  queue_.Release(1);
  EXPECT_TRUE(turn.get());
}

TEST_F(WriteQueueTest, WithoutTimeThereIsNoWait) {
  ASSERT_TRUE(queue_.TryAcquire(1));
  EXPECT_FALSE(queue_.AwaitTurn(2, queue_.NewTicket(), clock_.NowNanos(), true));
  EXPECT_EQ(queue_.waiting(), 0);
  EXPECT_EQ(clock_.waits(), 0);
}

// ---- Another process has the lock ----

TEST_F(WriteQueueTest, GivingUpWakesNobody) {
  ASSERT_TRUE(queue_.TryAcquire(1));
  std::future<bool> turn = StartWaiter(2, queue_.NewTicket());
  const int waits = clock_.waits();
  queue_.GiveUp();
  EXPECT_EQ(queue_.waiting(), 1);
  EXPECT_EQ(clock_.waits(), waits);
  EXPECT_TRUE(queue_.TryAcquire(3)) << "it is free";
  queue_.Release(3);
  EXPECT_TRUE(turn.get());
}

TEST_F(WriteQueueTest, AfterGivingUpTheOthersFindOutByThemselves) {
  ASSERT_TRUE(queue_.TryAcquire(1));
  std::future<bool> turn = StartWaiter(2, queue_.NewTicket());
  queue_.GiveUp();
  clock_.Advance(kPatrol);
  EXPECT_TRUE(turn.get());
}

TEST_F(WriteQueueTest, WhoWaitsForAnotherProcessDoesNotTakeAFreeLockForATurn) {
  std::future<bool> elsewhere = StartWaiter(2, queue_.NewTicket(), kLong, false);
  EXPECT_TRUE(queue_.AwaitTurn(3, queue_.NewTicket(), clock_.NowNanos(), true)) << "passes it";
  EXPECT_TRUE(queue_.TryAcquire(3));
  EXPECT_EQ(queue_.waiting(), 1);
  queue_.Release(3);
  EXPECT_TRUE(elsewhere.get()) << "but takes one that is handed on";
}

// ---- A long turn ----

TEST_F(WriteQueueTest, ALongTurnKeepsOthersOutUntilItsEnd) {
  EXPECT_FALSE(queue_.IsKeptForLong());
  StartLongTurn(1, 100 * kMilli);
  EXPECT_TRUE(queue_.IsKeptForLong());
  clock_.Advance(100 * kMilli - 1);
  EXPECT_FALSE(queue_.TryAcquire(2));
  clock_.Advance(1);
  EXPECT_FALSE(queue_.IsKeptForLong());
  EXPECT_TRUE(queue_.TryAcquire(2));
  queue_.EndTurn(1);
  EXPECT_FALSE(queue_.TryAcquire(3)) << "the end of a turn that is over takes nothing away";
  queue_.Release(2);
  EXPECT_TRUE(queue_.TryAcquire(3));
}

TEST_F(WriteQueueTest, AnOrdinaryTurnIsNotLong) {
  EXPECT_TRUE(queue_.AwaitTurn(1, queue_.NewTicket(), clock_.NowNanos(), true));
  EXPECT_FALSE(queue_.IsKeptForLong());
  EXPECT_TRUE(queue_.TryAcquire(1));
  EXPECT_FALSE(queue_.IsKeptForLong());
}

TEST_F(WriteQueueTest, EndingALongTurnHandsTheLockOn) {
  StartLongTurn(1, 100 * kMilli);
  std::future<bool> turn = StartWaiter(2, queue_.NewTicket());
  queue_.EndTurn(1);
  EXPECT_TRUE(turn.get());
  EXPECT_FALSE(queue_.IsKeptForLong());
  EXPECT_FALSE(queue_.TryAcquire(3));
  EXPECT_TRUE(queue_.TryAcquire(2));
}

TEST_F(WriteQueueTest, EndingALongTurnForWhichNobodyWaitsFreesTheLock) {
  StartLongTurn(1, 100 * kMilli);
  queue_.EndTurn(1);
  EXPECT_FALSE(queue_.IsKeptForLong());
  EXPECT_TRUE(queue_.TryAcquire(2));
}

// A checkpoint that needs the lock itself: FULL, RESTART, TRUNCATE.
TEST_F(WriteQueueTest, TheOwnerOfALongTurnGetsThroughItsOwnGate) {
  StartLongTurn(1, 100 * kMilli);
  std::future<bool> turn = StartWaiter(2, queue_.NewTicket());
  EXPECT_TRUE(queue_.TryAcquire(1));
  EXPECT_FALSE(queue_.IsKeptForLong()) << "the lock is held";
  queue_.Release(1);
  EXPECT_TRUE(turn.get());
  EXPECT_TRUE(queue_.TryAcquire(2));
  queue_.EndTurn(1);
  EXPECT_FALSE(queue_.TryAcquire(3)) << "the lock is another one's by now";
}

TEST_F(WriteQueueTest, ALongTurnMakesNoDeadlineLater) {
  StartLongTurn(1, 100 * kMilli);
  std::future<bool> turn = StartWaiter(2, queue_.NewTicket(), kMilli);
  EXPECT_EQ(clock_.NanosLeft(), kMilli);
  clock_.Advance(kMilli);
  EXPECT_FALSE(turn.get());
}

// Whose turn has expired must not prolong that of somebody else.
TEST_F(WriteQueueTest, ATurnThatWasLostIsNotProlonged) {
  ASSERT_TRUE(queue_.AwaitTurn(1, WriteQueue::kFirst, clock_.NowNanos(), true));
  clock_.Advance(kTurn);
  ASSERT_TRUE(queue_.AwaitTurn(2, queue_.NewTicket(), clock_.NowNanos(), true)) << "1 is late";
  EXPECT_FALSE(queue_.ProlongTurn(1, clock_.NowNanos() + kLong));
  EXPECT_FALSE(queue_.IsKeptForLong());
  clock_.Advance(kTurn);
  EXPECT_TRUE(queue_.TryAcquire(3));
}

// Nor end it.
TEST_F(WriteQueueTest, WhoHasLostItsTurnEndsNobodyElses) {
  ASSERT_TRUE(queue_.AwaitTurn(1, WriteQueue::kFirst, clock_.NowNanos(), true));
  clock_.Advance(kTurn);
  ASSERT_TRUE(queue_.AwaitTurn(2, queue_.NewTicket(), clock_.NowNanos(), true)) << "1 is late";
  queue_.EndTurn(1);
  EXPECT_FALSE(queue_.TryAcquire(3));
  EXPECT_TRUE(queue_.TryAcquire(2));
}

// ---- Many threads ----

TEST_F(WriteQueueTest, NoWakeUpIsLost) { ShareALock(&queue_, Scaled(5'000), &clock_); }

// With real time: turns that are not taken, deadlines that pass, checkpoints, other processes.
TEST(WriteQueueStressTest, WhateverTheyDoThereIsOneAtATime) {
  constexpr int kThreads = 6;
  const int rounds = Scaled(3'000);
  Clock* clock = SteadyClock::Get();
  WriteQueue queue(clock, 20'000);
  int64_t counter = 0;
  std::atomic<int64_t> acquired{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; i++) {
    threads.emplace_back([&, writer = static_cast<WriteQueue::Writer>(i + 1)] {
      std::mt19937 engine(static_cast<unsigned>(writer));
      const auto random = [&engine](int n) {
        return std::uniform_int_distribution<int>(0, n - 1)(engine);
      };
      for (int round = 0; round < rounds; round++) {
        const int chance = random(100);
        const int64_t deadline = clock->NowNanos() + random(300'000);
        if (chance == 0) {
          if (queue.AwaitTurn(writer, WriteQueue::kFirst, deadline, true)) {
            queue.ProlongTurn(writer, clock->NowNanos() + random(400'000));
            for (int n = random(200); n > 0; n--) std::this_thread::yield();
            queue.EndTurn(writer);
          }
          continue;
        }
        if (!queue.TryAcquire(writer)) {
          queue.AwaitTurn(writer, queue.NewTicket(), deadline, chance % 10 != 1);
          if (chance == 1 || !queue.TryAcquire(writer)) continue;
        }
        counter++;
        acquired.fetch_add(1, std::memory_order_relaxed);
        if (chance == 2) {
          queue.GiveUp();
        } else {
          queue.Release(writer);
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(counter, acquired);
  EXPECT_GT(counter, rounds / 2);
  EXPECT_EQ(queue.waiting(), 0);
  const int64_t deadline = clock->NowNanos() + kLong;
  EXPECT_TRUE(queue.AwaitTurn(100, queue.NewTicket(), deadline, true)) << "it can be had";
}

}  // namespace
}  // namespace groupcommit::testing
