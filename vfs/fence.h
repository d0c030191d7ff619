// Fence: what keeps everybody from building on a log that has a hole.
//
// After a failed sync the log has a hole where the lost bytes were. Until it is closed, this
// process holds the write lock and the checkpoint lock of the database, so that no other process
// appends behind the hole or copies failed commits into the database file. The locks are held
// through the main file of one of the connections, but on behalf of all of them: whichever comes by
// may close the hole and release them.
#ifndef GROUPCOMMIT_FENCE_H_
#define GROUPCOMMIT_FENCE_H_

#include <atomic>
#include <utility>

#include "mutex.h"
#include "sqlite.h"

namespace groupcommit {

class Fence {
 public:
  static constexpr unsigned kWriteLock = 1u << 0;       // wal.c: WAL_WRITE_LOCK
  static constexpr unsigned kCheckpointLock = 1u << 1;  // wal.c: WAL_CKPT_LOCK

  Mutex& mutex() RETURN_CAPABILITY(mutex_) { return mutex_; }

  // Is one of the locks held through this file? Then another thread may release it through the
  // file, and its owner has to hold the mutex while it changes locks.
  bool IsHeldThrough(const sqlite3_file* main) const {
    return write_holder_.load(std::memory_order_acquire) == main ||
           checkpoint_holder_.load(std::memory_order_acquire) == main;
  }

  // Takes what is still missing, through `main` (a file of the base VFS). Returns true if both
  // locks are held now; false if somebody else has one.
  bool Take(sqlite3_file* main) REQUIRES(mutex_);

  // Takes over the write lock, which SQLite holds through `main` and is about to release.
  void TakeOver(sqlite3_file* main) REQUIRES(mutex_);

  // Releases both, or what is held through `main`, which is going to be closed.
  void Release() REQUIRES(mutex_);
  void ReleaseThrough(sqlite3_file* main) REQUIRES(mutex_);

  // Set once the failed commits are out of sight, while the hole is still there.
  bool put_back() const REQUIRES(mutex_) { return put_back_; }
  void set_put_back(bool put_back) REQUIRES(mutex_) { put_back_ = put_back; }

  // True the first time since the last Release(): for what should stand in the log once.
  bool TellOnce() REQUIRES(mutex_) { return !std::exchange(told_, true); }

 private:
  Mutex mutex_;
  // Null: not held.
  std::atomic<sqlite3_file*> write_holder_{nullptr};
  std::atomic<sqlite3_file*> checkpoint_holder_{nullptr};
  bool put_back_ GUARDED_BY(mutex_) = false;
  bool told_ GUARDED_BY(mutex_) = false;
};

}  // namespace groupcommit

#endif  // GROUPCOMMIT_FENCE_H_
