// A thread that sleeps after it was refused the write lock, and what it owes of that sleep.
#include "lost_race.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <climits>
#include <cstdio>
#include <future>
#include <memory>
#include <thread>

#include "process.h"
#include "support/fake_clock.h"

namespace groupcommit::testing {
namespace {

constexpr int64_t kMilli = 1'000'000;
constexpr int64_t kMicro = 1'000;
constexpr bool kHere = false;
constexpr bool kElsewhere = true;

class LostRaceTest : public ::testing::Test {
 protected:
  static constexpr WriteQueue::Writer kHolder = 1;
  static constexpr WriteQueue::Writer kLoser = 2;

  LostRaceTest() { EXPECT_TRUE(queue_->TryAcquire(kHolder)); }
  // This thread runs the other tests, too.
  ~LostRaceTest() override {
    constexpr WriteQueue::Writer kAnother = 1000;
    LostRace::Note(std::make_shared<WriteQueue>(&clock_), kAnother, kHere);
    LostRace::OnAcquired(kAnother);
    LostRace::OnReleased(kAnother);
  }

  FakeClock clock_;
  std::shared_ptr<WriteQueue> queue_ = std::make_shared<WriteQueue>(&clock_, 0, 0);
};

TEST_F(LostRaceTest, WithoutARefusalItIsAnOrdinarySleep) { EXPECT_FALSE(LostRace::Sleep(1)); }

TEST_F(LostRaceTest, OneRefusalIsOneSleep) {
  LostRace::Note(queue_, kLoser, kHere);
  EXPECT_TRUE(LostRace::Sleep(0));
  EXPECT_FALSE(LostRace::Sleep(0));
}

TEST_F(LostRaceTest, ASleepEndsWithTheTurn) {
  std::future<int64_t> slept = std::async(std::launch::async, [this] {
    LostRace::Note(queue_, kLoser, kHere);
    const int64_t until = clock_.NowNanos() + 50 * kMilli;
    EXPECT_TRUE(LostRace::Sleep(50'000));
    EXPECT_EQ(LostRace::SleepsUntil(kLoser), until);
    EXPECT_EQ(LostRace::SleepsUntil(kHolder), 0);
    return clock_.NowNanos();
  });
  ASSERT_TRUE(clock_.AwaitSleeper());
  const int64_t now = clock_.NowNanos();
  queue_->Release(kHolder);
  EXPECT_EQ(slept.get(), now);
  EXPECT_FALSE(queue_->TryAcquire(3));
  EXPECT_TRUE(queue_->TryAcquire(kLoser));
}

TEST_F(LostRaceTest, ASleepWithoutATurnTakesItsTime) {
  std::future<bool> slept = std::async(std::launch::async, [this] {
    LostRace::Note(queue_, kLoser, kHere);
    return LostRace::Sleep(7);
  });
  ASSERT_TRUE(clock_.AwaitSleeper());
  EXPECT_EQ(clock_.NanosLeft(), 7 * kMicro);
  clock_.Advance(7 * kMicro);
  EXPECT_TRUE(slept.get());
  EXPECT_EQ(queue_->waiting(), 0);
}

// Rather than to ask in vain. All in all, and not for another process.
TEST_F(LostRaceTest, ASleepInLineMayEndLate) {
  const auto patient = std::make_shared<WriteQueue>(&clock_, 0, 4 * kMilli);
  ASSERT_TRUE(patient->TryAcquire(kHolder));
  std::future<void> slept = std::async(std::launch::async, [&] {
    const int64_t start = clock_.NowNanos();
    LostRace::Note(patient, kLoser, kHere);
    EXPECT_TRUE(LostRace::Sleep(1'000));
    EXPECT_EQ(clock_.NowNanos(), start + 5 * kMilli);
    EXPECT_EQ(LostRace::SleepsUntil(kLoser), start + 1 * kMilli);
    LostRace::Note(patient, kLoser, kHere);
    EXPECT_TRUE(LostRace::Sleep(2'000));
    EXPECT_EQ(clock_.NowNanos(), start + 7 * kMilli);
    LostRace::Note(patient, kLoser, kElsewhere);
    EXPECT_TRUE(LostRace::Sleep(2'000));
    EXPECT_EQ(clock_.NowNanos(), start + 7 * kMilli);
  });
  for (const int64_t left : {5, 2}) {
    ASSERT_TRUE(clock_.AwaitSleeper());
    EXPECT_EQ(clock_.NanosLeft(), left * kMilli);
    clock_.Advance(left * kMilli);
  }
  slept.get();
}

// Its busy handler had slept, and then said that it would not wait any longer.
TEST_F(LostRaceTest, ASleepOfAnotherStatementTakesItsTime) {
  const auto patient = std::make_shared<WriteQueue>(&clock_, 0, 4 * kMilli);
  ASSERT_TRUE(patient->TryAcquire(kHolder));
  std::future<void> slept = std::async(std::launch::async, [&] {
    LostRace::Note(patient, kLoser, kElsewhere);
    EXPECT_TRUE(LostRace::Sleep(1'000));
    clock_.Advance(1'000 * kMilli);  // the other statement
    LostRace::Pass();
    const int64_t start = clock_.NowNanos();
    LostRace::Note(patient, kLoser, kElsewhere);
    EXPECT_TRUE(LostRace::Sleep(10'000));
    EXPECT_GE(clock_.NowNanos(), start + 6 * kMilli);
    LostRace::Note(patient, kLoser, kElsewhere);
    EXPECT_TRUE(LostRace::Sleep(10'000));
    EXPECT_EQ(clock_.NowNanos(), start + 16 * kMilli) << "only the first one may end early";
  });
  for (int sleeps = 0; sleeps < 3; sleeps++) {
    ASSERT_TRUE(clock_.AwaitSleeper());
    clock_.Advance(clock_.NanosLeft());
  }
  slept.get();
}

TEST_F(LostRaceTest, WhoAsksForALockIsNotAboutToSleep) {
  LostRace::Note(queue_, kLoser, kHere);
  LostRace::Pass();
  EXPECT_FALSE(LostRace::Sleep(1));
}

TEST_F(LostRaceTest, WhoHasTheLockIsNotAboutToSleepForIt) {
  LostRace::Note(queue_, kLoser, kHere);
  LostRace::OnAcquired(kHolder);
  EXPECT_TRUE(LostRace::Sleep(0)) << "that was another connection";
  LostRace::Note(queue_, kLoser, kHere);
  LostRace::OnAcquired(kLoser);
  EXPECT_FALSE(LostRace::Sleep(0));
  EXPECT_EQ(LostRace::SleepsUntil(kLoser), 0);
}

// SQLite's busy handler counts its sleeps, so what one of them fell short is made up for later.
TEST_F(LostRaceTest, WhatASleepOwesIsAddedToTheNext) {
  queue_->Release(kHolder);
  const int64_t start = clock_.NowNanos();
  std::future<void> slept = std::async(std::launch::async, [this, start] {
    LostRace::Note(queue_, kLoser, kHere);
    EXPECT_TRUE(LostRace::Sleep(1'000)) << "at once, as the lock is free";
    EXPECT_EQ(LostRace::SleepsUntil(kLoser), start + 1 * kMilli);
    LostRace::Pass();  // the next request
    EXPECT_EQ(LostRace::SleepsUntil(kLoser), start + 1 * kMilli);
    EXPECT_TRUE(queue_->TryAcquire(kLoser));
    queue_->GiveUp();  // another process was faster
    LostRace::Note(queue_, kLoser, kElsewhere);
    EXPECT_EQ(LostRace::SleepsUntil(kLoser), 0) << "the sleep was in vain, and is not cut short";
    EXPECT_TRUE(LostRace::Sleep(2'000));
  });
  ASSERT_TRUE(clock_.AwaitSleeper());
  EXPECT_EQ(clock_.NowNanos(), start);
  EXPECT_EQ(clock_.NanosLeft(), 3 * kMilli);
  clock_.Advance(3 * kMilli);
  slept.get();
}

TEST_F(LostRaceTest, AfterTheLockWasHadNothingIsOwed) {
  queue_->Release(kHolder);
  LostRace::Note(queue_, kLoser, kHere);
  EXPECT_TRUE(LostRace::Sleep(1'000'000));
  EXPECT_TRUE(queue_->TryAcquire(kLoser));
  LostRace::OnAcquired(kLoser);
  queue_->Release(kLoser);
  LostRace::Note(queue_, kLoser, kHere);
  EXPECT_TRUE(LostRace::Sleep(1));
  EXPECT_EQ(LostRace::SleepsUntil(kLoser), clock_.NowNanos() + kMicro);
}

// BEGIN IMMEDIATE over two databases: SQLite goes on counting where it was.
class SecondLockTest : public LostRaceTest {
 protected:
  static constexpr WriteQueue::Writer kOther = 3;  // the same connection, at another database

  SecondLockTest() { queue_->Release(kHolder); }

  // The first lock is had at once, and the sleep for it cut short by 8 ms.
  void AcquireFirst() {
    LostRace::Note(queue_, kLoser, kHere);
    EXPECT_TRUE(LostRace::Sleep(8'000));
    LostRace::Pass();
    EXPECT_TRUE(queue_->TryAcquire(kLoser));
    LostRace::OnAcquired(kLoser);
  }
  void ReleaseFirst() {
    LostRace::OnReleased(kLoser);
    queue_->Release(kLoser);
  }
  // How long a sleep for the other lock may last, ns.
  int64_t SleepForOther(int micros) {
    const int64_t start = clock_.NowNanos();
    LostRace::Note(other_, kOther, kHere);
    EXPECT_TRUE(LostRace::Sleep(micros));
    other_->GiveUp();
    return LostRace::SleepsUntil(kOther) - start;
  }

  std::shared_ptr<WriteQueue> other_ = std::make_shared<WriteQueue>(&clock_, 0, 0);
};

TEST_F(SecondLockTest, IsWaitedForAsMuchLonger) {
  AcquireFirst();
  EXPECT_EQ(SleepForOther(5'000), 13 * kMilli);
  clock_.Advance(13 * kMilli);
  LostRace::Pass();
  EXPECT_EQ(SleepForOther(5'000), 5 * kMilli) << "once";
}

TEST_F(SecondLockTest, ButNotByAnotherStatement) {
  AcquireFirst();
  EXPECT_EQ(SleepForOther(1'000), kMilli) << "the first sleep of one";
}

TEST_F(SecondLockTest, NorInAnotherTransaction) {
  AcquireFirst();
  ReleaseFirst();
  EXPECT_EQ(SleepForOther(5'000), 5 * kMilli);
}

TEST_F(SecondLockTest, NorAfterThatTime) {
  AcquireFirst();
  clock_.Advance(1'000 * kMilli);
  EXPECT_EQ(SleepForOther(5'000), 5 * kMilli) << "nor as much shorter";
}

// A RESTART checkpoint waits for the write lock, and then for readers, outside of the queue.
TEST_F(LostRaceTest, WhatASleepOwesIsAddedToThatForReaders) {
  queue_->Release(kHolder);
  LostRace::Note(queue_, kLoser, kHere);
  EXPECT_TRUE(LostRace::Sleep(25'000));
  EXPECT_EQ(LostRace::OwedMicros(5'000), 0) << "not for readers";
  LostRace::OnAcquired(kLoser);
  LostRace::NoteReaders(kHolder);
  EXPECT_EQ(LostRace::OwedMicros(5'000), 0) << "another connection";
  LostRace::NoteReaders(kLoser);
  LostRace::Pass();
  EXPECT_EQ(LostRace::OwedMicros(5'000), 0) << "it has asked for something else";
  LostRace::NoteReaders(kLoser);
  EXPECT_FALSE(LostRace::Sleep(5'000));
  EXPECT_EQ(LostRace::OwedMicros(5'000), 25'000);
  LostRace::NoteReaders(kLoser);
  EXPECT_EQ(LostRace::OwedMicros(5'000), 0) << "once";
}

TEST_F(LostRaceTest, ASleepForReadersIsNoLongerThanItMayBe) {
  queue_->Release(kHolder);
  LostRace::Note(queue_, kLoser, kHere);
  EXPECT_TRUE(LostRace::Sleep(INT_MAX));
  LostRace::OnAcquired(kLoser);
  LostRace::NoteReaders(kLoser);
  EXPECT_EQ(LostRace::OwedMicros(INT_MAX - 7), 7);
  LostRace::OnReleased(kLoser);
  LostRace::NoteReaders(kLoser);
  EXPECT_EQ(LostRace::OwedMicros(5'000), 0);
}

TEST_F(LostRaceTest, ASleepThatIsPutOffTakesNoTimeButIsMadeUpFor) {
  std::future<void> slept = std::async(std::launch::async, [this] {
    const int64_t start = clock_.NowNanos();
    LostRace::Note(queue_, kLoser, kHere);
    LostRace::PutOffSleep();
    EXPECT_TRUE(LostRace::Sleep(1'000));
    EXPECT_EQ(clock_.waits(), 0);
    LostRace::Note(queue_, kLoser, kHere);
    EXPECT_TRUE(LostRace::Sleep(2'000));
    EXPECT_EQ(clock_.NowNanos(), start + 3 * kMilli);
  });
  ASSERT_TRUE(clock_.AwaitSleeper());
  EXPECT_EQ(clock_.NanosLeft(), 3 * kMilli);
  clock_.Advance(3 * kMilli);
  slept.get();
}

TEST_F(LostRaceTest, SeveralSleepsThatWerePutOffAreMadeUpForByOne) {
  clock_.RunFree();
  const int64_t start = clock_.NowNanos();
  for (const int millis : {1, 2, 5}) {
    LostRace::Note(queue_, kLoser, kHere);
    LostRace::PutOffSleep();
    EXPECT_TRUE(LostRace::Sleep(millis * 1'000));
    EXPECT_TRUE(LostRace::HasPutOffSleep());
    EXPECT_EQ(LostRace::IsFirstSleep(), millis == 1);
  }
  EXPECT_EQ(clock_.NowNanos(), start);
  LostRace::MakeUpForSleep();
  EXPECT_EQ(clock_.NowNanos(), start + 8 * kMilli);
}

// SQLite's own, which is cut to what is left of the timeout. That of another statement tells
// nothing.
TEST_F(LostRaceTest, TheFinalSleepIsShorterThanTheOneBefore) {
  const auto is_final = [this](int micros) {
    LostRace::Note(queue_, kLoser, kHere);
    LostRace::PutOffSleep();
    EXPECT_TRUE(LostRace::Sleep(micros));
    EXPECT_TRUE(LostRace::HasPutOffSleep());
    return LostRace::IsFinalSleep();
  };
  EXPECT_FALSE(is_final(1'000));
  EXPECT_FALSE(is_final(25'000));
  EXPECT_FALSE(is_final(25'000));
  EXPECT_TRUE(is_final(24'000));
  LostRace::OnAcquired(kLoser);
  LostRace::OnReleased(kLoser);
  EXPECT_FALSE(is_final(1'000));
}

TEST_F(LostRaceTest, ASleepThatNeverCameIsNotPutOffForEver) {
  LostRace::Note(queue_, kLoser, kHere);
  LostRace::PutOffSleep();
  LostRace::Pass();
  std::future<void> slept;
  LostRace::Note(queue_, kLoser, kHere);
  EXPECT_TRUE(LostRace::Sleep(0));
  EXPECT_EQ(queue_->waiting(), 0);
  slept = std::async(std::launch::async, [this] {
    LostRace::Note(queue_, kLoser, kHere);
    LostRace::PutOffSleep();
    LostRace::Pass();
    LostRace::Note(queue_, kLoser, kHere);
    EXPECT_TRUE(LostRace::Sleep(5));
  });
  ASSERT_TRUE(clock_.AwaitSleeper());
  clock_.Advance(5 * kMicro);
  slept.get();
}

TEST_F(LostRaceTest, TheTicketIsThatOfTheFirstRefusal) {
  LostRace::Note(queue_, kLoser, kHere);
  EXPECT_TRUE(LostRace::Sleep(0));  // in vain
  LostRace::Pass();
  std::future<bool> later = std::async(
      std::launch::async, [this, ticket = queue_->NewTicket(), until = clock_.NowNanos() + kMilli] {
        return queue_->AwaitTurn(3, ticket, until, true);
      });
  ASSERT_TRUE(clock_.AwaitSleeper());
  LostRace::Note(queue_, kLoser, kHere);
  // The other waiter came before this sleep but after the first refusal.
  std::thread holder([this] {
    while (queue_->waiting() < 2) std::this_thread::yield();
    queue_->Release(kHolder);
  });
  EXPECT_TRUE(LostRace::Sleep(1'000));
  holder.join();
  EXPECT_FALSE(queue_->TryAcquire(3));
  EXPECT_TRUE(queue_->TryAcquire(kLoser));
  LostRace::OnAcquired(kLoser);
  queue_->Release(kLoser);
  EXPECT_TRUE(later.get());
}

TEST_F(LostRaceTest, WhoLostToAnotherProcessSleepsThoughTheLockIsFreeHere) {
  queue_->GiveUp();
  std::future<bool> slept = std::async(std::launch::async, [this] {
    LostRace::Note(queue_, kLoser, kElsewhere);
    return LostRace::Sleep(1'000);
  });
  ASSERT_TRUE(clock_.AwaitSleeper());
  EXPECT_EQ(clock_.NanosLeft(), kMilli);
  clock_.Advance(kMilli);
  EXPECT_TRUE(slept.get());
}

TEST_F(LostRaceTest, AnotherThreadsRefusalIsNotOurs) {
  LostRace::Note(queue_, kLoser, kHere);
  EXPECT_FALSE(std::async(std::launch::async, [] { return LostRace::Sleep(1); }).get());
  EXPECT_TRUE(LostRace::Sleep(0));
}

TEST_F(LostRaceTest, AChildDoesNotSleepInItsParentsQueue) {
  ProcessMutex();  // as any database does: from now on forks are counted
  LostRace::Note(queue_, kLoser, kHere);
  std::fflush(nullptr);
  const pid_t child = fork();
  if (child == 0) {
    alarm(60);
    _exit(LostRace::Sleep(1'000'000) ? 1 : 0);
  }
  ASSERT_GT(child, 0);
  int status = -1;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
  EXPECT_TRUE(LostRace::Sleep(0)) << "the parent does";
}

// The database was closed while a thread that it had refused was about to sleep, or slept.
TEST_F(LostRaceTest, AQueueOutlivesItsDatabase) {
  LostRace::Note(queue_, kLoser, kHere);
  std::weak_ptr<WriteQueue> queue = queue_;
  queue_.reset();
  ASSERT_FALSE(queue.expired());
  EXPECT_TRUE(LostRace::Sleep(0));
  // The thread lets it go when it is refused another lock.
  auto another = std::make_shared<WriteQueue>(&clock_, 0, 0);
  LostRace::Note(another, kLoser + 1, kHere);
  EXPECT_TRUE(queue.expired());
}

TEST_F(LostRaceTest, AThreadThatEndsLetsTheQueueGo) {
  std::thread([this] { LostRace::Note(queue_, kLoser, kHere); }).join();
  EXPECT_EQ(queue_.use_count(), 1);
}

}  // namespace
}  // namespace groupcommit::testing
