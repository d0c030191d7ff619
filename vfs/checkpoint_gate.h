// CheckpointGate: when a checkpoint should hold writers up, and for how long.
//
// The log starts over only when all of it is in the database file and nobody reads from it. With
// several writers that moment does not come by itself: each holds a snapshot while it waits for its
// commit to become durable, so that a checkpoint copies no further than the oldest of them, and by
// its end there are new frames. The log would grow without end, and each sync takes longer while a
// file grows. So once the log has become long, a checkpoint lets the writers under way finish and
// holds new ones back (a long turn in the write queue) until it is through.
//
// Knows numbers of frames and of threads, nothing of SQLite.
#ifndef GROUPCOMMIT_CHECKPOINT_GATE_H_
#define GROUPCOMMIT_CHECKPOINT_GATE_H_

#include <algorithm>
#include <atomic>
#include <cstdint>

#include "clock.h"
#include "mutex.h"

namespace groupcommit {

class CheckpointGate {
 public:
  // How long a checkpoint waits for the write lock, which an open transaction may have for long.
  static constexpr int64_t kTurnNanos = 10'000'000;
  // The longest that it holds writers up, from then on, where a sync takes so long lately. What
  // takes longer goes on beside them, as stock SQLite's.
  static constexpr int64_t kClosedNanos = 100'000'000;
  static constexpr int64_t kMostClosedNanos = 1'000'000'000;
  static constexpr int64_t ClosedNanos(int64_t sync_nanos) {
    // Those under way wait for two, the one that runs and their own; then come the checkpoint's, of
    // the log and of the database file; and some may be slower than usual.
    constexpr int64_t kSyncs = 6;
    return std::clamp(kSyncs * sync_nanos, kClosedNanos, kMostClosedNanos);
  }
  // Of this, how long it waits for the writers under way.
  static constexpr int64_t DrainNanos(int64_t sync_nanos) { return ClosedNanos(sync_nanos) / 2; }
  // And how long for those whose commit has ended to give up their snapshot: they may have to wait
  // for a processor.
  static constexpr int64_t kLeavingNanos = 10'000'000;
  // And, once it is through, for readers to leave the log.
  static constexpr int64_t kReadersNanos = 2'000'000;

  explicit CheckpointGate(Clock* clock) : clock_(clock) {}
  CheckpointGate(const CheckpointGate&) = delete;
  CheckpointGate& operator=(const CheckpointGate&) = delete;

  // Connections from taking the write lock to the end of the wait for their commit; those that have
  // still to give up their snapshot after that, which a SELECT may keep open for long; and those
  // whose snapshot includes frames of the log. See GateCounts.
  std::atomic<int>& writers() { return writers_; }
  std::atomic<int>& leaving() { return leaving_; }
  std::atomic<int>& log_readers() { return log_readers_; }

  // A log that is shorter says nothing of where automatic checkpoints begin, until there is one.
  static constexpr uint32_t kUsualFrames = 1000;  // SQLITE_DEFAULT_WAL_AUTOCHECKPOINT

  enum class Advice : uint8_t {
    kAsStock,      // let it run beside the writers
    kSkip,         // it would come to nothing, and nobody has asked for it
    kHoldWriters,  // and it will copy everything
  };
  // For a checkpoint that begins with `frames` in the log, which `generation` names. `committer` is
  // the connection that begins it because it has just committed; 0 if somebody has asked for it.
  // `alone` if nobody writes meanwhile. Any thread.
  Advice OnBegin(uint32_t frames, uint64_t generation, uint64_t committer, bool alone)
      EXCLUDES(mutex_);

  // Such a checkpoint has ended, with so many frames in the log. `complete` if it copied all.
  void OnEnd(uint32_t frames, bool complete) EXCLUDES(mutex_);

  // Waits until `count` has come down to `rest`; false at the deadline.
  bool Await(const std::atomic<int>& count, int rest, int64_t deadline) const;

 private:
  void SetFirst(uint32_t frames) REQUIRES(mutex_);

  Clock* const clock_;
  std::atomic<int> writers_{0};
  std::atomic<int> leaving_{0};
  std::atomic<int> log_readers_{0};

  Mutex mutex_;
  uint64_t generation_ GUARDED_BY(mutex_) = 0;
  uint32_t first_ GUARDED_BY(mutex_) = 0;      // frames at the first automatic one of this log
  uint32_t due_at_ GUARDED_BY(mutex_) = 0;     // frames
  uint32_t step_ GUARDED_BY(mutex_) = 0;       // frames from one that did not copy all to the next
  uint64_t committer_ GUARDED_BY(mutex_) = 0;  // of one of them, 0 if there was none
  bool several_ GUARDED_BY(mutex_) = false;    // committers
};

// What one connection is counted as. Used by one thread at a time.
class GateCounts {
 public:
  explicit GateCounts(CheckpointGate* gate) : gate_(gate) {}
  GateCounts(const GateCounts&) = delete;
  GateCounts& operator=(const GateCounts&) = delete;

  // It has taken the write lock; does nothing if it is counted already.
  void BeginWrite();
  // It has released that, and its commit is settled: only the snapshot is left, perhaps not for
  // long.
  void EndWrite();
  // That is gone, too.
  void EndSnapshot();
  // Its snapshot includes frames of the log, or no longer does.
  void SetReadsLog(bool reads_log);

  // Its part of the gate's.
  int writers() const { return is_writer_; }
  int leaving() const { return is_leaving_; }
  int log_readers() const { return reads_log_; }

 private:
  CheckpointGate* const gate_;
  bool is_writer_ = false;
  bool is_leaving_ = false;
  bool reads_log_ = false;
};

}  // namespace groupcommit

#endif  // GROUPCOMMIT_CHECKPOINT_GATE_H_
