#include "checkpoint_gate.h"

#include <algorithm>
#include <chrono>
#include <limits>
#include <thread>
#include <utility>

namespace groupcommit {
namespace {

// A part of the frames with which automatic checkpoints begin.
constexpr uint32_t kSoon = 4;

uint32_t Add(uint32_t frames, uint32_t more) {
  constexpr uint32_t kMost = std::numeric_limits<uint32_t>::max();
  return more > kMost - frames ? kMost : frames + more;
}

}  // namespace

// SQLite tries a checkpoint after every commit from wal_autocheckpoint pages on; the first attempt
// tells us where that is. While others write it would copy some pages, again and again, and sync
// the log beside the group; so the next one waits until the log is twice as long, and then for the
// others.
CheckpointGate::Advice CheckpointGate::OnBegin(uint32_t frames, uint64_t generation,
                                               uint64_t committer, bool alone) {
  MutexLock lock(mutex_);
  if (generation != generation_ || first_ == 0) {
    generation_ = generation;
    SetFirst(committer != 0 ? frames : std::max(frames, kUsualFrames));
    committer_ = committer;
    several_ = false;
    return Advice::kAsStock;
  }
  if (committer != 0 && committer_ == 0) {
    if (frames < first_) SetFirst(frames);
    committer_ = committer;
  }
  if (committer != 0 && committer != committer_) several_ = true;
  if (frames >= due_at_) return Advice::kHoldWriters;
  if (committer == 0 || alone) return Advice::kAsStock;
  // What is skipped looks as if somebody else was at it (SQLITE_BUSY). That is no surprise where
  // several connections make checkpoints; if one alone does, its sqlite3_wal_hook() may hand the
  // error on, and then the statement ends with it that has committed.
  return several_ ? Advice::kSkip : Advice::kAsStock;
}

void CheckpointGate::SetFirst(uint32_t frames) {
  first_ = frames;
  due_at_ = Add(frames, frames);
  step_ = std::max(1u, frames / kSoon);
}

// If the log is not started over after this, somebody reads from it, perhaps for a moment, perhaps
// for long: holding writers up for each commit would help nobody.
void CheckpointGate::OnEnd(uint32_t frames, bool complete) {
  MutexLock lock(mutex_);
  due_at_ = Add(frames, complete ? std::max(1u, first_ / kSoon) : step_);
  if (!complete) step_ = std::min(first_, Add(step_, step_));
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

// Release, here and below: whoever sees a count go down sees released what was held.
void GateCounts::BeginWrite() {
  if (std::exchange(is_writer_, true)) return;
  gate_->writers().fetch_add(1, std::memory_order_relaxed);
  EndSnapshot();
}

void GateCounts::EndWrite() {
  if (!std::exchange(is_writer_, false)) return;
  is_leaving_ = true;
  gate_->leaving().fetch_add(1, std::memory_order_relaxed);
  gate_->writers().fetch_sub(1, std::memory_order_release);
}

void GateCounts::EndSnapshot() {
  if (!std::exchange(is_leaving_, false)) return;
  gate_->leaving().fetch_sub(1, std::memory_order_release);
}

void GateCounts::SetReadsLog(bool reads_log) {
  if (std::exchange(reads_log_, reads_log) == reads_log) return;
  gate_->log_readers().fetch_add(reads_log ? 1 : -1, std::memory_order_release);
}

}  // namespace groupcommit
