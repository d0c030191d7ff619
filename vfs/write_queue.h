// WriteQueue: the turns of this process's writers at one database.
//
// SQLite asks for the write lock, is refused while somebody else has it, and sleeps in its busy
// handler before it asks again: 1, 2, 5 ... 100 ms, for a lock that is held for some microseconds.
// Here a writer that was refused waits for its turn instead (LostRace::Sleep), and the lock is then
// kept for it: nobody else is let through until it has come back for it, or has had enough time to.
//
// While the lock changes hands quickly, those that wait give way to each other, and whichever of
// them has the processor when the lock is free takes its turn: a thread that had to be scheduled
// first would leave the lock idle for longer than it is held. A round of turns is for those that
// waited when it began, so that no waiter is overtaken twice by the same one. Where the lock is
// held for long they park instead, and are called in the order of their first attempt.
//
// What a commit needs is in the cache of the processor that made the last one. Where many wait, and
// so others are about to run there, those on other processors leave them the lock for a moment.
//
// Knows threads and numbers, nothing of SQLite.
#ifndef GROUPCOMMIT_WRITE_QUEUE_H_
#define GROUPCOMMIT_WRITE_QUEUE_H_

#include <atomic>
#include <cstdint>

#include "clock.h"
#include "mutex.h"
#include "process.h"

namespace groupcommit {

class WriteQueue {
 public:
  // A connection, by a number that no other connection of this process ever has.
  using Writer = uint64_t;
  static constexpr Writer kNobody = 0;

  // A ticket before all others.
  static constexpr uint64_t kFirst = 0;

  // Who is let through, but does not come, loses the turn after this time.
  static constexpr int64_t kTurnNanos = 5'000'000;

  // For so long the lock is left to threads on the processor that released it, if so many wait for
  // each of the processors.
  static constexpr int64_t kWarmNanos = 12'000;
  static constexpr int kCrowd = 4;

  // See the constructor, and late_nanos().
  static constexpr int64_t kYieldNanos = 10'000'000;
  static constexpr int64_t kLateNanos = 4'000'000;

  // The processors, as a test may want to have them.
  struct Processors {
    int count;
    int (*current)();  // the one that the calling thread runs on, or kUnknownProcessor
  };

  // `clock` is never destroyed: a thread may sleep in a queue whose database has been closed.
  // A thread that waits parks when the lock has been with somebody for `yield_nanos`.
  explicit WriteQueue(Clock* clock, int64_t yield_nanos = kYieldNanos,
                      int64_t late_nanos = kLateNanos,
                      const Processors& processors = {ProcessorCount(), CurrentProcessor})
      : clock_(clock),
        yield_nanos_(yield_nanos),
        late_nanos_(late_nanos),
        processors_(processors) {}
  WriteQueue(const WriteQueue&) = delete;
  WriteQueue& operator=(const WriteQueue&) = delete;

  // True if the lock is `writer`'s now; else `*is_kept` tells whether it was kept for somebody who
  // had not come for it yet. Takes no mutex, and waits for kWarmNanos at most. Any thread.
  bool TryAcquire(Writer writer, bool* is_kept = nullptr);

  // Hands the lock on to whoever waits for it. REQUIRES: it is `writer`'s. Any thread.
  void Release(Writer writer) EXCLUDES(mutex_);

  // The same, but wakes nobody up: there is nothing to be had, as another process has the lock.
  void GiveUp() { lock_.store(0, std::memory_order_release); }

  // The next turn is `writer`'s, unless it gets the lock before.
  void Favor(Writer writer) { favored_.store(writer, std::memory_order_relaxed); }
  // It does not come any more.
  void Disfavor(Writer writer) {
    favored_.compare_exchange_strong(writer, kNobody, std::memory_order_relaxed);
  }

  // Waits for a turn, until `deadline`. True if the lock is kept for `writer` now. The lower the
  // `ticket`, the earlier the turn. If `free_is_enough`, the turn may be one that nobody hands on,
  // because the lock is free. REQUIRES: `writer` neither has the lock nor waits for it.
  bool AwaitTurn(Writer writer, uint64_t ticket, int64_t deadline, bool free_is_enough)
      EXCLUDES(mutex_);

  // Keeps a turn until `until`. False if the turn has been lost meanwhile.
  bool ProlongTurn(Writer writer, int64_t until) EXCLUDES(mutex_);
  // Ends it, unless it ended by itself. The writer may have taken and released the lock in between.
  void EndTurn(Writer writer) EXCLUDES(mutex_);
  // Is the lock kept for somebody who has not come for it yet?
  bool IsKept() const { return IsKept(lock_.load(std::memory_order_acquire)); }
  // For somebody else than `writer`, who still has time to come?
  bool IsKeptFrom(Writer writer) const;
  // For longer than an ordinary turn, one that was not prolonged?
  bool IsKeptForLong() const { return IsKept() && kept_until() - clock_->NowNanos() > kTurnNanos; }
  int64_t kept_until() const { return kept_until_.load(std::memory_order_relaxed); }

  uint64_t NewTicket() { return tickets_.fetch_add(1, std::memory_order_relaxed) + 1; }
  Clock& clock() { return *clock_; }

  // A sleep in line may end so much late. SQLite's first sleeps are short. Where many wait, most of
  // those would end before the turn comes, and each of them cost a snapshot and a request in vain.
  int64_t late_nanos() const { return late_nanos_; }

  // Do those that have the lock sleep meanwhile, since they sync? Any thread.
  void SetHoldersSleep(bool sleep) { holders_sleep_.store(sleep, std::memory_order_relaxed); }
  bool holders_sleep() const { return holders_sleep_.load(std::memory_order_relaxed); }

  // How many threads wait for a turn.
  int waiting() const {
    return contending_.load(std::memory_order_relaxed) + queued_.load(std::memory_order_relaxed);
  }

 private:
  // Where the lock is held for longer than this, giving way is only a waste: what it saves is the
  // time that a parked thread takes to wake up. The sooner if the holder sleeps: then those that
  // give way would keep the processors busy for nobody.
  static constexpr int64_t kLongHoldNanos = 300'000;
  static constexpr int64_t kLongSleepNanos = 100'000;
  // A round is over if the lock has been free for so long, and nobody of it has come.
  static constexpr int64_t kStragglerNanos = 50'000;
  static constexpr int64_t kPatrolNanos = 4 * kTurnNanos;

  // A thread that parks in AwaitTurn(), on its stack. Guarded by the mutex.
  struct Waiter {
    Writer writer = kNobody;
    uint64_t ticket = 0;
    bool free_is_enough = false;
    bool granted = false;
    CondVar unparked;
    Waiter* next = nullptr;
  };

  // The lock: whose it is, and whether its owner has still to come for it.
  static uint64_t HeldBy(Writer writer) { return writer << 1; }
  static uint64_t KeptFor(Writer writer) { return writer << 1 | 1; }
  static bool IsKept(uint64_t lock) { return (lock & 1) != 0; }

  bool IsWarmElsewhere() const;
  bool IsUnclaimed(uint64_t lock) const;
  bool IsFree(uint64_t lock) const { return lock == 0 || IsUnclaimed(lock); }
  bool Keep(Writer writer, uint64_t lock) REQUIRES(mutex_);
  bool Contend(Writer writer, uint64_t ticket, int64_t deadline) EXCLUDES(mutex_);
  bool IsHeldForLong() const;
  bool IsOfThisRound(uint64_t ticket, int64_t now) const;
  bool Claim(Writer writer, uint64_t ticket, int64_t now) EXCLUDES(mutex_);
  void CountTurn(uint64_t ticket) REQUIRES(mutex_);
  void LetThroughIfFree() REQUIRES(mutex_);
  void LetThrough(Waiter** link, uint64_t lock) REQUIRES(mutex_);
  void LetThroughOrKeep(Writer writer, uint64_t lock) REQUIRES(mutex_);
  bool Park(Waiter* waiter, int64_t deadline) REQUIRES(mutex_);
  void Enqueue(Waiter* waiter) REQUIRES(mutex_);
  void Dequeue(Waiter* waiter) REQUIRES(mutex_);

  Clock* const clock_;
  const int64_t yield_nanos_;
  const int64_t late_nanos_;
  const Processors processors_;
  std::atomic<uint64_t> lock_{0};       // 0: free
  std::atomic<int64_t> kept_until_{0};  // stored before lock_ says that it is kept
  std::atomic<int> contending_{0};      // how many give way to each other
  std::atomic<int> queued_{0};          // how many are parked
  std::atomic<Writer> favored_{kNobody};
  std::atomic<int64_t> changed_hands_at_{0};  // kept, taken or released
  std::atomic<int> released_on_{kUnknownProcessor};
  std::atomic<int64_t> hold_nanos_{0};  // how long it was held lately, smoothed
  std::atomic<bool> holders_sleep_{false};
  std::atomic<uint64_t> tickets_{0};
  // The round: the newest ticket that it is for, and how many turns of it there are still to be.
  // Not exact, as threads come and go meanwhile; nothing but fairness depends on it.
  std::atomic<uint64_t> round_through_{0};
  std::atomic<int> round_left_{0};

  Mutex mutex_;
  Waiter* first_ GUARDED_BY(mutex_) = nullptr;  // by ticket
};

}  // namespace groupcommit

#endif  // GROUPCOMMIT_WRITE_QUEUE_H_
