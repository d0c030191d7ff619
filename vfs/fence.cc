#include "fence.h"

namespace groupcommit {
namespace {

void TakeLock(std::atomic<sqlite3_file*>& holder, int index, sqlite3_file* main) {
  if (holder.load(std::memory_order_relaxed) != nullptr) return;
  const int flags = SQLITE_SHM_LOCK | SQLITE_SHM_EXCLUSIVE;
  if (main->pMethods->xShmLock(main, index, 1, flags) == SQLITE_OK) {
    holder.store(main, std::memory_order_release);
  }
}

void ReleaseLock(std::atomic<sqlite3_file*>& holder, int index, int kind = SQLITE_SHM_EXCLUSIVE) {
  sqlite3_file* main = holder.load(std::memory_order_relaxed);
  if (main == nullptr) return;
  main->pMethods->xShmLock(main, index, 1, SQLITE_SHM_UNLOCK | kind);
  holder.store(nullptr, std::memory_order_release);
}

}  // namespace

bool Fence::Take(sqlite3_file* main, const std::atomic<int>& writing) {
  TakeLock(write_holder_, kWriteIndex, main);
  // Two processes that each had one of the locks would wait for each other for ever: a disk tells
  // both of a failure. Without this one a read lock is kept.
  if (HasWriteLock() || writing.load(std::memory_order_seq_cst) != 0)
    TakeLock(checkpoint_holder_, kCheckpointIndex, main);
  if (HasCheckpointLock()) ReleaseReadLock();
  return HasWriteLock() && HasCheckpointLock();
}

void Fence::TakeOver(sqlite3_file* main) { write_holder_.store(main, std::memory_order_release); }

bool Fence::KeepReadLock(sqlite3_file* main, int index, uint32_t read_mark) {
  if (HasCheckpointLock()) return false;
  if (read_holder_.load(std::memory_order_relaxed) != nullptr) {
    if (read_mark_ <= read_mark) return false;
    ReleaseReadLock();
  }
  read_index_ = index;
  read_mark_ = read_mark;
  read_holder_.store(main, std::memory_order_release);
  return true;
}

bool Fence::GiveBackReadLock(const sqlite3_file* main, int index) {
  if (read_holder_.load(std::memory_order_relaxed) != main || read_index_ != index) return false;
  read_holder_.store(nullptr, std::memory_order_release);
  return true;
}

void Fence::ReleaseReadLock() { ReleaseLock(read_holder_, read_index_, SQLITE_SHM_SHARED); }

void Fence::Release() {
  ReleaseReadLock();
  put_back_ = hole_is_closed_ = log_is_whole_ = told_ = was_let_go_ = false;
  ReleaseLock(checkpoint_holder_, kCheckpointIndex);
  ReleaseLock(write_holder_, kWriteIndex);
}

void Fence::ReleaseThrough(sqlite3_file* main) {
  if (!IsHeldThrough(main)) return;  // somebody has released it meanwhile
  was_let_go_ = true;
  if (read_holder_.load(std::memory_order_relaxed) == main) ReleaseReadLock();
  if (checkpoint_holder_.load(std::memory_order_relaxed) == main) {
    ReleaseLock(checkpoint_holder_, kCheckpointIndex);
  }
  if (write_holder_.load(std::memory_order_relaxed) == main) {
    ReleaseLock(write_holder_, kWriteIndex);
  }
  put_back_ = hole_is_closed_ = log_is_whole_ = told_ = false;  // from here on the log may change
}

}  // namespace groupcommit
