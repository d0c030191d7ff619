#include "checkpoint_gate.h"

#include <algorithm>
#include <chrono>
#include <limits>
#include <thread>

namespace groupcommit {
namespace {

uint32_t Add(uint32_t frames, uint32_t more) {
  constexpr uint32_t kMost = std::numeric_limits<uint32_t>::max();
  return more > kMost - frames ? kMost : frames + more;
}

}  // namespace

// SQLite checkpoints after every commit from wal_autocheckpoint pages on; the first attempt tells
// us where that is. To hold n writers up for some syncs costs n times as much as to let one of them
// try in vain, again and again, so the more there are the later it is due.
bool CheckpointGate::IsDue(uint32_t frames, uint64_t generation, int writers) {
  constexpr uint32_t kMany = 32;
  MutexLock lock(mutex_);
  if (generation != generation_ || first_ == 0) {
    generation_ = generation;
    first_ = frames;
    const uint32_t n = std::min(kMany, static_cast<uint32_t>(std::max(writers, 0)));
    due_at_ = Add(frames, static_cast<uint32_t>(uint64_t{frames} * n / kMany));
  }
  return frames >= due_at_;
}

// If the log is not started over after this, somebody reads from it, perhaps for long: holding
// writers up for each commit would help nobody.
void CheckpointGate::OnEnd(uint32_t frames, bool complete) {
  MutexLock lock(mutex_);
  due_at_ = Add(frames, std::max(1u, complete ? first_ / 4 : first_));
}

bool CheckpointGate::Await(const std::atomic<int>& count, int rest, int64_t deadline) const {
  constexpr int64_t kYieldNanos = 200'000;
  constexpr std::chrono::microseconds kPoll(50);
  const int64_t yield_until = clock_->NowNanos() + kYieldNanos;
  while (count.load(std::memory_order_acquire) > rest) {
    const int64_t now = clock_->NowNanos();
    if (now >= deadline) return false;
    if (now < yield_until) {
      std::this_thread::yield();
    } else {
      std::this_thread::sleep_for(kPoll);
    }
  }
  return true;
}

}  // namespace groupcommit
