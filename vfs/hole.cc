// Connection: closing the hole that a failed sync has left in the log.
//
// The kernel may have thrown away what was to be written: a later sync succeeds, and the bytes are
// still not on the disk. So the log is written again before anybody builds on it. For good once
// the failed commits are out of sight (roll_back.cc); for now where another process may commit, or
// make a checkpoint, before that.
#include <algorithm>

#include "connection.h"
#include "log_repair.h"

namespace groupcommit {

// What failed is out of sight, if it ever was in sight. The log begins anew behind what stays.
Connection::RollBack Connection::CloseHoleForGood() {
  const WalIndexHeader header = Header();
  // There is none, or what has been published, if anything, is not known: a process has died over
  // it. Whoever comes next recovers the log, and what there is to be found has to be durable.
  if (!header.IsWhole()) return RewriteWholeLog(0);
  if (!database_->fence().log_is_whole()) {
    database_->DrainSyncErrors();
    int rc = CutLog(log_, header.last_frame(), header.generation());
    // Commits without a sync (synchronous=NORMAL) beneath the failed ones stay; their pages may be
    // lost. No sync is discarded from here on: it might lose the zeros of CutLog().
    if (rc == SQLITE_OK) rc = RewriteLog(log_, header.last_frame());
    // The chain of checksums need not hold where nothing is to be written again: SQLite may break
    // it when a savepoint is rolled back (Wal.iReCksum in 3.40).
    if (rc == SQLITE_CORRUPT && database_->fence().beneath_is_durable()) rc = SQLITE_OK;
    if (rc != SQLITE_OK) return EndFailure(rc);
    database_->fence().SetLogIsWhole();
  }
  // Those readers would see the frames change that the next writer overwrites. (They do not look at
  // frame headers, which are all that has been cut.) Ours are refused every read by now, and let go
  // of their snapshots.
  return SomebodyReadsBeyond(header.last_frame()) ? RollBack::kNotYet : EndFailure(SQLITE_OK);
}

// What the log holds is made durable, and nothing is taken back.
Connection::RollBack Connection::RewriteWholeLog(uint32_t last_frame) {
  database_->DrainSyncErrors();
  return EndFailure(RewriteLog(log_, last_frame));
}

// `rc` tells whether the hole is closed.
Connection::RollBack Connection::EndFailure(int rc) {
  if (rc == SQLITE_OK && !database_->coordinator().Resume()) rc = SQLITE_NOMEM;
  if (rc != SQLITE_OK) {
    sqlite3_log(rc, "groupcommit: cannot write the log again after a failed sync: %s",
                database_->path().c_str());
    return RollBack::kNotSafe;  // for now; whoever comes by tries again
  }
  database_->EndReopened();
  database_->fence().Release();
  return RollBack::kDone;
}

// Does anybody hold a snapshot that ends beyond `frame`?
bool Connection::SomebodyReadsBeyond(uint32_t frame) {
  constexpr uint32_t kNotUsed = 0xffffffff;  // wal.c: READMARK_NOT_USED
  const CheckpointInfo info = CheckpointInfo::Load(wal_index_);
  for (int i = 1; i < CheckpointInfo::kReadMarks; i++) {
    if (info.read_marks[i] == kNotUsed || info.read_marks[i] <= frame) continue;
    const int lock = kFirstReadLock + i;
    if (main_->pMethods->xShmLock(main_, lock, 1, SQLITE_SHM_LOCK | SQLITE_SHM_EXCLUSIVE) !=
        SQLITE_OK) {
      return true;
    }
    main_->pMethods->xShmLock(main_, lock, 1, SQLITE_SHM_UNLOCK | SQLITE_SHM_EXCLUSIVE);
  }
  return false;
}

// Makes all durable up to a frame, while others may write behind it. False if that fails. Where
// there is no frame, they begin with the header of the log, which must not be written over.
bool Connection::CloseHole(uint32_t last_frame) {
  // Where ours have been taken back, so may have been by now what another process has beneath them.
  last_frame = std::min(last_frame, Header().last_frame());
  if (last_frame == 0) return true;
  database_->DrainSyncErrors();
  return RewriteLog(log_, 0, last_frame) == SQLITE_OK;
}

// For a hole beneath failed commits that stay in sight. Another process may have committed on top
// of them before the fence had the write lock. Its sync succeeds, on Linux, if it has been told of
// the failure before, or has opened the log since. Until the hole is closed, a power cut would take
// that commit along; and of a failed one it would leave just what a checkpoint has copied. (A
// checkpoint of another process may go on: it reads what is written again as it was.)
void Connection::CloseHoleOfFence() {
  if (!database_->fence().HasWriteLock() || database_->fence().hole_is_closed()) return;
  database_->DrainSyncErrors();
  // Where the chain of checksums is broken, another attempt comes no further.
  const int rc = RewriteLog(log_, Header().last_frame());
  if (rc == SQLITE_OK || rc == SQLITE_CORRUPT) database_->fence().SetHoleIsClosed();
}

// Another process has the write lock. It may commit on top of the hole, and its checkpoints may
// copy half of what lies beneath; we cannot keep it from either. So what failed is made durable for
// now, and is taken back later if nobody has built on it. A read lock keeps the log from being
// started over meanwhile: if it is still the one that we have written to, our frames stay as they
// are.
void Connection::CloseHoleBeneathStranger() {
  MutexLock lock(database_->fence().mutex());
  const uint64_t failures = database_->coordinator().failures();
  if (database_->coordinator().failure() == 0) return;
  if (database_->fence().IsClosedBeneath(failures)) return;
  if (log_ == nullptr || wal_index_ == nullptr) return;
  // Not so if a writer of ours has the lock, who fails by himself, or the fence by now. Acquire: a
  // writer who is gone has released the lock.
  const auto has_writer = [this] {
    return database_->write_holders().load(std::memory_order_acquire) != 0;
  };
  if (has_writer() || database_->fence().HasWriteLock()) return;
  (void)TakeFence();
  // It has ended its transaction meanwhile. Perhaps nobody of ours comes by again.
  if (database_->fence().HasWriteLock()) {
    (void)RollBackUnderFence();
    return;
  }
  if (has_writer()) return;
  const unsigned taken = HoldLog();
  const WalIndexHeader ours = database_->committed();
  const bool is_same_log = ours.generation() == Header().generation();
  const bool is_held = ((ReadLocksInUse() | taken) & kLogReadLocks) != 0;
  const bool is_closed = is_held && is_same_log && CloseHole(ours.last_frame());
  if (is_closed) database_->fence().SetClosedBeneath(failures);
  ReleaseReadLocks(taken);
}

// Those that SQLite, or the fence, has through our file.
unsigned Connection::ReadLocksInUse() {
  return (shared_ & ~dropped_ & kReadLocks) | database_->fence().ReadLockThrough(main_);
}

// Read locks for as long as the log is written again. With one on the log nobody starts it over
// (wal.c: walRestartLog(), which does not mind WAL_READ_LOCK(0)), and with the first one nobody
// copies pages of it (walCheckpoint()). They are shared: two processes may do so at a time, while
// each has something that the other one waits for. Returns those that were to be had, of those that
// were missing.
unsigned Connection::HoldLog() {
  unsigned taken = 0;
  const unsigned in_use = ReadLocksInUse();
  for (int i = kFirstReadLock; i < SQLITE_SHM_NLOCK; i++) {
    const unsigned lock = 1u << i;
    if ((in_use & lock) != 0) continue;
    if ((lock & kLogReadLocks) != 0 && ((in_use | taken) & kLogReadLocks) != 0) break;
    const int flags = SQLITE_SHM_LOCK | SQLITE_SHM_SHARED;
    if (main_->pMethods->xShmLock(main_, i, 1, flags) == SQLITE_OK) taken |= lock;
  }
  return taken;
}

void Connection::ReleaseReadLocks(unsigned locks) {
  for (int i = kFirstReadLock; i < SQLITE_SHM_NLOCK; i++) {
    if ((locks >> i & 1) == 0) continue;
    main_->pMethods->xShmLock(main_, i, 1, SQLITE_SHM_UNLOCK | SQLITE_SHM_SHARED);
  }
}

}  // namespace groupcommit
