// CommitLog: where in the log the commits lie that are appended but not yet durable.
//
// Readers ask it which commit a position belongs to; the leader asks it how strong the next sync
// has to be. It knows positions, not what is stored at them.
#ifndef GROUPCOMMIT_COMMIT_LOG_H_
#define GROUPCOMMIT_COMMIT_LOG_H_

#include <array>
#include <cstdint>

#include "coordinator.h"
#include "mutex.h"

namespace groupcommit {

using LogState = std::array<uint32_t, 12>;

// A commit occupies the positions from `first` up to the next commit's first one. What is opaque
// here means something to those who put it in.
struct LogCommit {
  uint32_t first = 0;       // position of its first entry
  uint32_t header = 0;      // and of one that may be read before it is durable; 0: there is none
  int strength = 0;         // what its owner asks of the sync, as bits; opaque
  bool can_undo = false;    // `before` is known
  LogState before{};        // how the log looked to everybody before the commit; opaque
  uint64_t generation = 0;  // of the log that it was written to; opaque
  Lsn written_before = 0;   // the number (Coordinator::CountWritten()) of the newest one beneath it
};

class CommitLog {
 public:
  // How many pending commits can be recorded at a time.
  static constexpr Lsn kCapacity = 1024;

  // Records the commit that is going to be number `lsn`. REQUIRES: the caller is the one that
  // appends it next, and does so afterwards, so that whoever sees the LSN finds the commit; and
  // fewer than kCapacity commits are pending.
  void Put(Lsn lsn, const LogCommit& commit) EXCLUDES(mutex_);

  // The commit has failed, and its positions may be written over by others: none of them may be
  // read before it is settled. REQUIRES: `lsn` was put by the caller, and nobody else has put one
  // since.
  void ForgetHeader(Lsn lsn) EXCLUDES(mutex_);

  struct Owner {
    Lsn lsn = 0;             // 0: nothing is pending at or beneath the position
    bool is_header = false;  // the position is its commit's `header`
  };

  // The newest commit after `durable`, up to `appended`, without which the entry at `position`
  // could be lost: the one it belongs to, or the nearest beneath it if it was appended by somebody
  // who does not wait.
  Owner OwnerOf(uint32_t position, Lsn durable, Lsn appended) const EXCLUDES(mutex_);

  // What was recorded. REQUIRES: `lsn` is pending.
  LogCommit Get(Lsn lsn) const EXCLUDES(mutex_);

  // All that the commits after `from`, up to `through`, ask of their sync.
  int Strength(Lsn from, Lsn through) const EXCLUDES(mutex_);

 private:
  mutable Mutex mutex_;
  std::array<LogCommit, kCapacity> commits_ GUARDED_BY(mutex_);
};

}  // namespace groupcommit

#endif  // GROUPCOMMIT_COMMIT_LOG_H_
