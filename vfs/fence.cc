#include "fence.h"

namespace groupcommit {
namespace {

// wal.c: WAL_WRITE_LOCK and WAL_CKPT_LOCK, as xShmLock() numbers them.
constexpr int kWriteIndex = 0;
constexpr int kCheckpointIndex = 1;

void Take(std::atomic<sqlite3_file*>& holder, int index, sqlite3_file* main) {
  if (holder.load(std::memory_order_relaxed) != nullptr) return;
  const int flags = SQLITE_SHM_LOCK | SQLITE_SHM_EXCLUSIVE;
  if (main->pMethods->xShmLock(main, index, 1, flags) == SQLITE_OK) {
    holder.store(main, std::memory_order_release);
  }
}

void Release(std::atomic<sqlite3_file*>& holder, int index) {
  sqlite3_file* main = holder.load(std::memory_order_relaxed);
  if (main == nullptr) return;
  main->pMethods->xShmLock(main, index, 1, SQLITE_SHM_UNLOCK | SQLITE_SHM_EXCLUSIVE);
  holder.store(nullptr, std::memory_order_release);
}

}  // namespace

bool Fence::Take(sqlite3_file* main) {
  groupcommit::Take(write_holder_, kWriteIndex, main);
  groupcommit::Take(checkpoint_holder_, kCheckpointIndex, main);
  return write_holder_.load(std::memory_order_relaxed) != nullptr &&
         checkpoint_holder_.load(std::memory_order_relaxed) != nullptr;
}

void Fence::TakeOver(sqlite3_file* main) { write_holder_.store(main, std::memory_order_release); }

void Fence::Release() {
  put_back_ = told_ = false;
  groupcommit::Release(checkpoint_holder_, kCheckpointIndex);
  groupcommit::Release(write_holder_, kWriteIndex);
}

void Fence::ReleaseThrough(sqlite3_file* main) {
  if (checkpoint_holder_.load(std::memory_order_relaxed) == main) {
    groupcommit::Release(checkpoint_holder_, kCheckpointIndex);
  }
  if (write_holder_.load(std::memory_order_relaxed) == main) {
    groupcommit::Release(write_holder_, kWriteIndex);
  }
  put_back_ = told_ = false;  // from here on the log may change
}

}  // namespace groupcommit
