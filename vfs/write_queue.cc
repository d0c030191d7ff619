#include "write_queue.h"

#include <algorithm>

namespace groupcommit {

// ---- The lock ----

bool WriteQueue::TryAcquire(Writer writer, bool* is_kept) {
  uint64_t lock = lock_.load(std::memory_order_acquire);
  while (lock == 0 && IsWarmElsewhere()) lock = lock_.load(std::memory_order_acquire);
  do {
    if (lock != KeptFor(writer) && !IsFree(lock)) {
      if (is_kept != nullptr) *is_kept = IsKept(lock);
      return false;
    }
  } while (!lock_.compare_exchange_weak(lock, HeldBy(writer), std::memory_order_acq_rel,
                                        std::memory_order_acquire));
  changed_hands_at_.store(clock_->NowNanos(), std::memory_order_relaxed);
  // What it is favored for has come about.
  if (favored_.load(std::memory_order_relaxed) == writer) Disfavor(writer);
  return true;
}

bool WriteQueue::IsKeptFrom(Writer writer) const {
  const uint64_t lock = lock_.load(std::memory_order_acquire);
  return IsKept(lock) && lock != KeptFor(writer) && !IsUnclaimed(lock);
}

bool WriteQueue::IsWarmElsewhere() const {
  if (waiting() < kCrowd * processors_.count) return false;
  const int64_t free_for = clock_->NowNanos() - changed_hands_at_.load(std::memory_order_relaxed);
  return free_for < kWarmNanos &&
         released_on_.load(std::memory_order_relaxed) != processors_.current();
}

void WriteQueue::Release(Writer writer) {
  constexpr int64_t kWeight = 8;
  const int64_t usual = hold_nanos_.load(std::memory_order_relaxed);
  const int64_t now = clock_->NowNanos();
  const int64_t held = now - changed_hands_at_.load(std::memory_order_relaxed);
  changed_hands_at_.store(now, std::memory_order_relaxed);
  released_on_.store(processors_.current(), std::memory_order_relaxed);
  hold_nanos_.store(usual + (held - usual) / kWeight, std::memory_order_relaxed);
  const bool favors = waiting() != 0 && favored_.load(std::memory_order_relaxed) != kNobody;
  // Sequentially consistent: a thread that queues up counts itself before it looks at the lock.
  if (!favors && queued_.load(std::memory_order_seq_cst) == 0) {
    lock_.store(0, std::memory_order_seq_cst);
    if (queued_.load(std::memory_order_seq_cst) == 0) return;
    MutexLock lock(mutex_);
    LetThroughIfFree();
    return;
  }
  MutexLock lock(mutex_);
  const Writer favored = favored_.exchange(kNobody, std::memory_order_relaxed);
  if (favored != kNobody) {
    LetThroughOrKeep(favored, HeldBy(writer));
  } else if (first_ != nullptr) {
    LetThrough(&first_, HeldBy(writer));
  } else {
    lock_.store(0, std::memory_order_seq_cst);
  }
}

// Keeps the lock for `writer`, unless it is no longer as it was.
bool WriteQueue::Keep(Writer writer, uint64_t lock) {
  const int64_t now = clock_->NowNanos();
  changed_hands_at_.store(now, std::memory_order_relaxed);
  kept_until_.store(now + kTurnNanos, std::memory_order_relaxed);
  return lock_.compare_exchange_strong(lock, KeptFor(writer), std::memory_order_acq_rel);
}

bool WriteQueue::ProlongTurn(Writer writer, int64_t until) {
  MutexLock lock(mutex_);
  // With the mutex held, nobody but a newcomer can take it, and only if it has expired.
  if (lock_.load(std::memory_order_acquire) != KeptFor(writer)) return false;
  kept_until_.store(until, std::memory_order_relaxed);
  return lock_.load(std::memory_order_acquire) == KeptFor(writer);
}

void WriteQueue::EndTurn(Writer writer) {
  MutexLock lock(mutex_);
  uint64_t kept = KeptFor(writer);
  if (lock_.load(std::memory_order_relaxed) != kept) return;
  if (first_ != nullptr) {
    LetThrough(&first_, kept);
  } else {
    lock_.compare_exchange_strong(kept, 0, std::memory_order_seq_cst);
  }
}

// Is it kept for a writer that has not come for it in time?
bool WriteQueue::IsUnclaimed(uint64_t lock) const {
  return IsKept(lock) && clock_->NowNanos() >= kept_until_.load(std::memory_order_relaxed);
}

void WriteQueue::LetThroughIfFree() {
  const uint64_t lock = lock_.load(std::memory_order_seq_cst);
  if (!IsFree(lock)) return;
  Waiter** link = &first_;
  while (*link != nullptr && !(*link)->free_is_enough) link = &(*link)->next;
  if (*link != nullptr) LetThrough(link, lock);
}

// `writer` may have parked since it was favored.
void WriteQueue::LetThroughOrKeep(Writer writer, uint64_t lock) {
  Waiter** link = &first_;
  while (*link != nullptr && (*link)->writer != writer) link = &(*link)->next;
  if (*link != nullptr) {
    LetThrough(link, lock);
  } else {
    Keep(writer, lock);
  }
}

// Keeps the lock for a waiter, unless it is no longer as it was.
void WriteQueue::LetThrough(Waiter** link, uint64_t lock) {
  Waiter* waiter = *link;
  if (!Keep(waiter->writer, lock)) return;
  *link = waiter->next;
  queued_.fetch_sub(1, std::memory_order_seq_cst);
  waiter->granted = true;
  waiter->unparked.SignalAll();
}

// ---- Waiting ----

bool WriteQueue::AwaitTurn(Writer writer, uint64_t ticket, int64_t deadline, bool free_is_enough) {
  if (lock_.load(std::memory_order_acquire) == KeptFor(writer)) return true;
  if (free_is_enough && ticket != kFirst && Contend(writer, ticket, deadline)) return true;
  Waiter self;
  self.writer = writer;
  self.ticket = ticket;
  self.free_is_enough = free_is_enough;
  MutexLock lock(mutex_);
  // Who is favored may just have been handed the lock, without having been here to be told.
  if (lock_.load(std::memory_order_acquire) == KeptFor(writer)) return true;
  Enqueue(&self);
  LetThroughIfFree();
  return Park(&self, deadline);
}

// Gives way to others until the lock is free. False at the deadline, or when it is time to park.
bool WriteQueue::Contend(Writer writer, uint64_t ticket, int64_t deadline) {
  contending_.fetch_add(1, std::memory_order_relaxed);
  bool kept = false;
  while (!kept) {
    const int64_t now = clock_->NowNanos();
    const int64_t unchanged = now - changed_hands_at_.load(std::memory_order_relaxed);
    if (now >= deadline || unchanged >= yield_nanos_ || IsHeldForLong()) break;
    kept = Claim(writer, ticket, now);
    if (!kept) clock_->Yield();
  }
  contending_.fetch_sub(1, std::memory_order_relaxed);
  if (!kept && ticket <= round_through_.load(std::memory_order_relaxed)) {
    round_left_.fetch_sub(1, std::memory_order_relaxed);
  }
  return kept;
}

bool WriteQueue::IsHeldForLong() const {
  const int64_t is_long = holders_sleep() ? kLongSleepNanos : kLongHoldNanos;
  return hold_nanos_.load(std::memory_order_relaxed) > is_long;
}

bool WriteQueue::IsOfThisRound(uint64_t ticket, int64_t now) const {
  return ticket <= round_through_.load(std::memory_order_relaxed) ||
         round_left_.load(std::memory_order_relaxed) <= 0 ||
         now - changed_hands_at_.load(std::memory_order_relaxed) >= kStragglerNanos;
}

// Keeps the lock for `writer` if it is free, and if nobody is to be let through first.
bool WriteQueue::Claim(Writer writer, uint64_t ticket, int64_t now) {
  uint64_t seen = lock_.load(std::memory_order_acquire);
  if (seen == KeptFor(writer)) return true;
  if (!IsFree(seen) || !IsOfThisRound(ticket, now) || IsWarmElsewhere()) return false;
  if (!mutex_.TryLock()) return false;  // somebody is just getting it
  // Again: what was seen without the mutex may since have become a turn that was prolonged.
  seen = lock_.load(std::memory_order_acquire);
  const bool kept = IsFree(seen) && Keep(writer, seen);
  if (kept) CountTurn(ticket);
  mutex_.Unlock();
  return kept;
}

// Begins a round, if the turn is not one of the last.
void WriteQueue::CountTurn(uint64_t ticket) {
  if (ticket > round_through_.load(std::memory_order_relaxed)) {
    round_through_.store(tickets_.load(std::memory_order_relaxed), std::memory_order_relaxed);
    round_left_.store(contending_.load(std::memory_order_relaxed), std::memory_order_relaxed);
  }
  round_left_.fetch_sub(1, std::memory_order_relaxed);
}

bool WriteQueue::Park(Waiter* waiter, int64_t deadline) {
  while (true) {
    if (waiter->granted) {
      if (lock_.load(std::memory_order_acquire) == KeptFor(waiter->writer)) return true;
      // It has woken up so late that the turn is somebody else's.
      waiter->granted = false;
      Enqueue(waiter);
      LetThroughIfFree();
      if (waiter->granted) continue;
    }
    const int64_t now = clock_->NowNanos();
    if (now >= deadline) {
      Dequeue(waiter);
      return false;
    }
    // Nobody tells of a turn that is not taken.
    clock_->WaitUntil(waiter->unparked, mutex_, std::min(deadline, now + kPatrolNanos));
    LetThroughIfFree();
  }
}

void WriteQueue::Enqueue(Waiter* waiter) {
  Waiter** link = &first_;
  while (*link != nullptr && (*link)->ticket <= waiter->ticket) link = &(*link)->next;
  waiter->next = *link;
  *link = waiter;
  queued_.fetch_add(1, std::memory_order_seq_cst);
}

void WriteQueue::Dequeue(Waiter* waiter) {
  Waiter** link = &first_;
  while (*link != waiter) link = &(*link)->next;
  *link = waiter->next;
  queued_.fetch_sub(1, std::memory_order_seq_cst);
}

}  // namespace groupcommit
