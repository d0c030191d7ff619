// The queue for the write lock while the lock changes hands quickly: threads give way to each other
// until one of them finds it free.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <deque>
#include <future>
#include <thread>

#include "support/patience.h"
#include "support/scale.h"
#include "support/write_queue_fixture.h"

namespace groupcommit::testing {
namespace {

// Threads that give way to each other until one of them finds the lock free. Time stands still, so
// that they do not park.
class ContentionTest : public WriteQueueTest {
 protected:
  static constexpr int64_t kPatience = 10 * kMilli;  // until they park
  static constexpr int64_t kShort = kMilli / 2;      // not a long time to hold the lock
  static constexpr int64_t kStraggler = kMilli;      // longer than a round waits for one

  ContentionTest() {
    clock_.SetWhileYielding([this] {
      while (self != WriteQueue::kNobody && self == aside_) {
        stands_aside_ = true;
        std::this_thread::yield();
      }
    });
  }
  // Lets those go that a test which failed has left behind.
  ~ContentionTest() override {
    aside_ = WriteQueue::kNobody;
    clock_.Advance(2 * kLong);
  }

  // Contends in a thread of its own, and has begun to before this returns.
  std::future<bool>& StartContender(WriteQueue::Writer writer, uint64_t ticket, int64_t nanos) {
    const int before = contended_.waiting();
    const int64_t deadline = clock_.NowNanos() + nanos;
    turns_.push_back(std::async(std::launch::async, [=, this] {
      self = writer;
      return contended_.AwaitTurn(writer, ticket, deadline, true);
    }));
    while (contended_.waiting() == before) std::this_thread::yield();
    return turns_.back();
  }
  std::future<bool>& StartContender(WriteQueue::Writer writer, int64_t nanos = kLong) {
    return StartContender(writer, contended_.NewTicket(), nanos);
  }

  static bool IsThrough(std::future<bool>& turn) {
    return turn.wait_for(std::chrono::seconds(0)) == std::future_status::ready;
  }
  static bool GetsThrough(std::future<bool>& turn) {
    return turn.wait_for(kHangs) == std::future_status::ready && turn.get();
  }
  // Which of two has got through?
  static size_t FirstOf(std::future<bool>* const (&turns)[2]) {
    while (!IsThrough(*turns[0]) && !IsThrough(*turns[1])) std::this_thread::yield();
    const size_t first = IsThrough(*turns[0]) ? 0 : 1;
    EXPECT_TRUE(turns[first]->get());
    return first;
  }
  void TakeAndRelease(WriteQueue::Writer writer, int64_t nanos = 0) {
    EXPECT_TRUE(contended_.TryAcquire(writer)) << writer;
    clock_.Advance(nanos);
    contended_.Release(writer);
  }
  // A contender does not look at the lock, until nobody stands aside any more.
  void LetStandAside(WriteQueue::Writer writer) {
    stands_aside_ = false;
    aside_ = writer;
    while (!stands_aside_) std::this_thread::yield();
  }
  void LetNobodyStandAside() { aside_ = WriteQueue::kNobody; }
  // All others have looked at the lock (each gives way after each look), or one has got through.
  bool LooksInVain(std::future<bool>& turn) {
    const int64_t enough = clock_.yields() + 1'000;
    while (clock_.yields() < enough && !IsThrough(turn)) std::this_thread::yield();
    return !IsThrough(turn);
  }

  WriteQueue contended_{&clock_, kPatience, WriteQueue::kLateNanos, kOneProcessor};

 private:
  static inline thread_local WriteQueue::Writer self = WriteQueue::kNobody;
  std::atomic<WriteQueue::Writer> aside_{WriteQueue::kNobody};
  std::atomic<bool> stands_aside_{false};
  std::deque<std::future<bool>> turns_;
};

// ---- Processors ----

class ProcessorTest : public ContentionTest {
 protected:
  ~ProcessorTest() override { clock_.Advance(2 * kLong); }

  // They contend on another processor than this thread's.
  void StartContenders(int n) {
    for (int i = 0; i < n; i++) {
      const WriteQueue::Writer writer = 10 + static_cast<WriteQueue::Writer>(i);
      const uint64_t ticket = contended_.NewTicket();
      others_.push_back(std::async(std::launch::async, [=, this] {
        processor = 1;
        return contended_.AwaitTurn(writer, ticket, clock_.NowNanos() + kLong, true);
      }));
      while (contended_.waiting() <= i) std::this_thread::yield();
    }
  }
  int64_t Through() {
    return std::count_if(others_.begin(), others_.end(),
                         [](std::future<bool>& turn) { return IsThrough(turn); });
  }

  std::deque<std::future<bool>> others_;
};

TEST_F(ProcessorTest, ManyLeaveTheLockToTheOneThatReleasedIt) {
  ASSERT_TRUE(contended_.TryAcquire(1));
  StartContenders(WriteQueue::kCrowd);
  contended_.Release(1);
  clock_.Advance(WriteQueue::kWarmNanos - 1);
  EXPECT_TRUE(LooksInVain(others_.front()));
  EXPECT_EQ(Through(), 0);
  EXPECT_TRUE(contended_.TryAcquire(2)) << "is on that processor";
  contended_.Release(2);
}

TEST_F(ProcessorTest, ForAMomentOnly) {
  ASSERT_TRUE(contended_.TryAcquire(1));
  StartContenders(WriteQueue::kCrowd);
  contended_.Release(1);
  clock_.Advance(WriteQueue::kWarmNanos);
  while (Through() == 0) std::this_thread::yield();
}

TEST_F(ProcessorTest, ANewcomerDoesSoToo) {
  ASSERT_TRUE(contended_.TryAcquire(1));
  StartContenders(WriteQueue::kCrowd);
  contended_.Release(1);
  std::future<bool> newcomer = std::async(std::launch::async, [this] {
    processor = 1;
    return contended_.TryAcquire(3);
  });
  EXPECT_TRUE(LooksInVain(newcomer));
  ASSERT_TRUE(contended_.TryAcquire(2));
  EXPECT_FALSE(newcomer.get()) << "the lock is held, so it need not wait";
  contended_.Release(2);
}

TEST_F(ProcessorTest, AFewDoNot) {
  ASSERT_TRUE(contended_.TryAcquire(1));
  StartContenders(WriteQueue::kCrowd - 1);
  contended_.Release(1);
  while (Through() == 0) std::this_thread::yield();
}

TEST_F(ContentionTest, AFreeLockIsKeptForWhoFindsIt) {
  ASSERT_TRUE(contended_.TryAcquire(1));
  std::future<bool>& turn = StartContender(2);
  contended_.Release(1);
  ASSERT_TRUE(GetsThrough(turn));
  EXPECT_TRUE(contended_.IsKept());
  EXPECT_EQ(contended_.waiting(), 0);
  EXPECT_FALSE(contended_.TryAcquire(3));
  EXPECT_TRUE(contended_.TryAcquire(2));
}

TEST_F(ContentionTest, ATurnThatNobodyTakesIsForTheNextOne) {
  ASSERT_TRUE(contended_.AwaitTurn(1, contended_.NewTicket(), clock_.NowNanos() + kLong, true));
  std::future<bool>& turn = StartContender(2);
  clock_.Advance(kTurn);
  EXPECT_TRUE(GetsThrough(turn));
}

// Who comes later does not overtake those that were there at the beginning of a round.
TEST_F(ContentionTest, ARoundIsForThoseThatWaitedWhenItBegan) {
  ASSERT_TRUE(contended_.TryAcquire(1));
  std::future<bool>* const turns[] = {&StartContender(2), &StartContender(3)};
  contended_.Release(1);
  const size_t first = FirstOf(turns);
  const WriteQueue::Writer other = 3 - first;
  std::future<bool>& late = StartContender(4);
  LetStandAside(other);
  TakeAndRelease(2 + first);
  EXPECT_TRUE(LooksInVain(late)) << "the lock is free, but the round is not over";
  LetNobodyStandAside();
  EXPECT_TRUE(GetsThrough(*turns[1 - first]));
  TakeAndRelease(other);
  EXPECT_TRUE(GetsThrough(late));
  TakeAndRelease(4);
}

TEST_F(ContentionTest, WhoLeavesDoesNotHoldUpTheRound) {
  ASSERT_TRUE(contended_.TryAcquire(1));
  std::future<bool>* const turns[] = {&StartContender(2, kShort), &StartContender(3, kShort)};
  contended_.Release(1);
  const size_t first = FirstOf(turns);
  ASSERT_TRUE(contended_.TryAcquire(2 + first));
  clock_.Advance(kShort);
  EXPECT_FALSE(turns[1 - first]->get()) << "its time is over";
  std::future<bool>& late = StartContender(4);
  contended_.Release(2 + first);
  EXPECT_TRUE(GetsThrough(late));
}

TEST_F(ContentionTest, ARoundDoesNotWaitForLong) {
  ASSERT_TRUE(contended_.TryAcquire(1));
  std::future<bool>* const turns[] = {&StartContender(2), &StartContender(3)};
  contended_.Release(1);
  const size_t first = FirstOf(turns);
  const WriteQueue::Writer other = 3 - first;
  ASSERT_TRUE(contended_.TryAcquire(2 + first));
  // Its turn comes in another way, and so the round lacks one.
  contended_.Favor(other);
  contended_.Release(2 + first);
  ASSERT_TRUE(GetsThrough(*turns[1 - first]));
  TakeAndRelease(other);
  std::future<bool>& late = StartContender(4);
  clock_.Advance(kStraggler);
  EXPECT_TRUE(GetsThrough(late));
}

TEST_F(ContentionTest, TheFavoriteComesBeforeTheOthers) {
  ASSERT_TRUE(contended_.TryAcquire(1));
  std::future<bool>& turn = StartContender(2);
  contended_.Favor(3);
  contended_.Release(1);
  EXPECT_FALSE(contended_.TryAcquire(1));
  TakeAndRelease(3);
  EXPECT_TRUE(GetsThrough(turn));
}

TEST_F(WriteQueueTest, AFavoriteThatHasParkedIsWoken) {
  ASSERT_TRUE(queue_.TryAcquire(1));
  queue_.Favor(2);
  std::future<bool> turn = StartWaiter(2, queue_.NewTicket());
  queue_.Release(1);
  EXPECT_TRUE(turn.get());
  EXPECT_TRUE(queue_.TryAcquire(2));
}

TEST_F(ContentionTest, AFavoriteHasOneTurn) {
  ASSERT_TRUE(contended_.TryAcquire(1));
  contended_.Favor(3);
  contended_.Release(1);
  ASSERT_TRUE(contended_.TryAcquire(3));
  std::future<bool>& turn = StartContender(2);
  contended_.Release(3);
  EXPECT_TRUE(GetsThrough(turn));
}

TEST_F(ContentionTest, WithoutContentionThereIsNoFavorite) {
  ASSERT_TRUE(contended_.TryAcquire(1));
  contended_.Favor(3);
  contended_.Release(1);
  EXPECT_TRUE(contended_.TryAcquire(1)) << "the lock is free: it can have it whenever it likes";
}

// A transaction may last for long.
TEST_F(ContentionTest, WhoWaitsForLongParksAndIsCalledInOrder) {
  ASSERT_TRUE(contended_.TryAcquire(1));
  std::future<bool>& second = StartContender(3, 12, kLong);
  std::future<bool>& first = StartContender(2, 11, kLong);
  clock_.Advance(kPatience);
  ASSERT_TRUE(clock_.AwaitSleepers(2));
  contended_.Release(1);
  EXPECT_FALSE(contended_.TryAcquire(1));
  EXPECT_FALSE(contended_.TryAcquire(3));
  ASSERT_TRUE(first.get());
  TakeAndRelease(2);
  EXPECT_TRUE(second.get());
}

TEST_F(ContentionTest, WhereTheLockIsUsuallyHeldForLongTheyParkAtOnce) {
  for (int i = 0; i < 3; i++) TakeAndRelease(1, kMilli);
  ASSERT_TRUE(contended_.TryAcquire(1));
  std::future<bool>& turn = StartContender(2);
  ASSERT_TRUE(clock_.AwaitSleepers(1));
  contended_.Release(1);
  EXPECT_TRUE(turn.get());
}

TEST_F(ContentionTest, TheSoonerWhereItsHoldersSleep) {
  for (int i = 0; i < 30; i++) TakeAndRelease(1, kMilli / 5);
  ASSERT_TRUE(contended_.TryAcquire(1));
  std::future<bool>& gives_way = StartContender(2);
  EXPECT_TRUE(LooksInVain(gives_way));
  contended_.SetHoldersSleep(true);
  ASSERT_TRUE(clock_.AwaitSleepers(1)) << "it still gives way";
  contended_.Release(1);
  EXPECT_TRUE(gives_way.get());
}

// Those that have parked are called first: who gives way must not be left behind by them.
TEST_F(ContentionTest, WhenTheLockComesToBeHeldForLongTheyParkToo) {
  ASSERT_TRUE(contended_.TryAcquire(1));
  const uint64_t lowest = contended_.NewTicket();
  std::future<bool>& turn = StartContender(2);
  std::future<bool> parked = std::async(std::launch::async, [=, this] {
    return contended_.AwaitTurn(3, lowest, clock_.NowNanos() + kLong, false);
  });
  ASSERT_TRUE(clock_.AwaitSleepers(1));
  clock_.Advance(kPatience - kMilli);
  contended_.Release(1);
  ASSERT_TRUE(parked.get());
  ASSERT_TRUE(clock_.AwaitSleepers(1));
  TakeAndRelease(3);
  EXPECT_TRUE(GetsThrough(turn));
}

// A checkpoint's turn is not one of a round.
TEST_F(ContentionTest, ACheckpointComesFirst) {
  ASSERT_TRUE(contended_.TryAcquire(1));
  std::future<bool>& turn = StartContender(2);
  std::future<bool>& checkpoint = StartContender(3, WriteQueue::kFirst, kLong);
  ASSERT_TRUE(clock_.AwaitSleepers(1));
  contended_.Release(1);
  EXPECT_FALSE(contended_.TryAcquire(2));
  ASSERT_TRUE(checkpoint.get());
  contended_.EndTurn(3);
  EXPECT_TRUE(GetsThrough(turn));
}

// Time stands still: a round that nobody ends would never end.
TEST_F(ContentionTest, NoTurnIsLost) { ShareALock(&contended_, Scaled(5'000), &clock_); }

}  // namespace
}  // namespace groupcommit::testing
