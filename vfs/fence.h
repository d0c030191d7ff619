// Fence: what keeps everybody from building on a log that has a hole.
//
// After a failed sync the log has a hole where the lost bytes were. Until it is closed, this
// process holds the write lock and the checkpoint lock of the database, so that no other process
// appends behind the hole or copies failed commits into the database file. While another process
// has the checkpoint lock, a read lock beneath the failed commits does the latter. The locks are
// held through the main files of connections, but on behalf of all of them: whichever comes by may
// close the hole and release them.
#ifndef GROUPCOMMIT_FENCE_H_
#define GROUPCOMMIT_FENCE_H_

#include <atomic>
#include <cstdint>
#include <utility>

#include "mutex.h"
#include "sqlite.h"

namespace groupcommit {

class Fence {
 public:
  // wal.c: WAL_WRITE_LOCK and WAL_CKPT_LOCK, as xShmLock() numbers them, and as bits.
  static constexpr int kWriteIndex = 0;
  static constexpr int kCheckpointIndex = 1;
  static constexpr unsigned kWriteLock = 1u << kWriteIndex;
  static constexpr unsigned kCheckpointLock = 1u << kCheckpointIndex;

  Mutex& mutex() RETURN_CAPABILITY(mutex_) { return mutex_; }

  // Is one of the locks held through this file? Then another thread may release it through the
  // file, and its owner has to hold the mutex while it changes locks.
  bool IsHeldThrough(const sqlite3_file* main) const {
    return write_holder_.load(std::memory_order_acquire) == main ||
           checkpoint_holder_.load(std::memory_order_acquire) == main ||
           read_holder_.load(std::memory_order_acquire) == main;
  }

  bool HasWriteLock() const REQUIRES(mutex_) {
    return write_holder_.load(std::memory_order_relaxed) != nullptr;
  }
  bool HasCheckpointLock() const REQUIRES(mutex_) {
    return checkpoint_holder_.load(std::memory_order_relaxed) != nullptr;
  }

  // Takes the locks that it does not hold yet, through `main` (a file of the base VFS). But the
  // checkpoint lock only if this process has the write lock: the fence has it, or one of `writing`
  // connections. Returns true if it holds both now; false if somebody else has one.
  bool Take(sqlite3_file* main, const std::atomic<int>& writing) REQUIRES(mutex_);

  // Takes over the write lock, which SQLite holds through `main` and is about to release.
  void TakeOver(sqlite3_file* main) REQUIRES(mutex_);

  // SQLite is about to release the read lock `index` of `main`, which keeps what lies beyond
  // `read_mark` out of the database file. True if the fence keeps it instead, until it gets the
  // checkpoint lock. It keeps one at a time: that with the lowest mark.
  bool KeepReadLock(sqlite3_file* main, int index, uint32_t read_mark) REQUIRES(mutex_);

  // The bit of the read lock that is kept through `main`; 0: there is none.
  unsigned ReadLockThrough(const sqlite3_file* main) const REQUIRES(mutex_) {
    return read_holder_.load(std::memory_order_relaxed) == main ? 1u << read_index_ : 0;
  }

  // SQLite asks for the read lock `index` of `main`. True if the fence had just that, and has given
  // it back.
  bool GiveBackReadLock(const sqlite3_file* main, int index) REQUIRES(mutex_);

  // Releases all, or what is held through `main`, which is going to be closed.
  void Release() REQUIRES(mutex_);
  void ReleaseThrough(sqlite3_file* main) REQUIRES(mutex_);

  // Has a file been closed through which failed commits were kept out of the database file?
  bool was_let_go() const REQUIRES(mutex_) { return was_let_go_; }

  // Set once the failed commits are out of sight, while the hole is still there.
  bool put_back() const REQUIRES(mutex_) { return put_back_; }
  // Is all that lies beneath them known to be durable?
  bool beneath_is_durable() const REQUIRES(mutex_) { return put_back_ && beneath_is_durable_; }
  void SetPutBack(bool beneath_is_durable) REQUIRES(mutex_) {
    put_back_ = true;
    beneath_is_durable_ = beneath_is_durable;
  }

  // Set once the hole is closed while the failed commits stay in sight.
  bool hole_is_closed() const REQUIRES(mutex_) { return hole_is_closed_; }
  void SetHoleIsClosed() REQUIRES(mutex_) { hole_is_closed_ = true; }

  // Set once the log is whole, and the failed commits are cut off it, while somebody may still read
  // them.
  bool log_is_whole() const REQUIRES(mutex_) { return log_is_whole_; }
  void SetLogIsWhole() REQUIRES(mutex_) { log_is_whole_ = true; }

  // Set once all that this process has published is durable beneath another one that writes.
  // `failures` counts the failed syncs: after another one that is no longer so.
  bool IsClosedBeneath(uint64_t failures) const REQUIRES(mutex_) {
    return closed_beneath_ == failures;
  }
  void SetClosedBeneath(uint64_t failures) REQUIRES(mutex_) { closed_beneath_ = failures; }

  // True the first time since the last Release(): for what should stand in the log once.
  bool TellOnce() REQUIRES(mutex_) { return !std::exchange(told_, true); }

 private:
  void ReleaseReadLock() REQUIRES(mutex_);

  Mutex mutex_;
  // Null: not held.
  std::atomic<sqlite3_file*> write_holder_{nullptr};
  std::atomic<sqlite3_file*> checkpoint_holder_{nullptr};
  std::atomic<sqlite3_file*> read_holder_{nullptr};
  int read_index_ GUARDED_BY(mutex_) = 0;
  uint32_t read_mark_ GUARDED_BY(mutex_) = 0;
  bool was_let_go_ GUARDED_BY(mutex_) = false;
  bool put_back_ GUARDED_BY(mutex_) = false;
  bool beneath_is_durable_ GUARDED_BY(mutex_) = false;
  bool hole_is_closed_ GUARDED_BY(mutex_) = false;
  bool log_is_whole_ GUARDED_BY(mutex_) = false;
  uint64_t closed_beneath_ GUARDED_BY(mutex_) = 0;
  bool told_ GUARDED_BY(mutex_) = false;
};

}  // namespace groupcommit

#endif  // GROUPCOMMIT_FENCE_H_
