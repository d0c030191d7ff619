// Connection: the locks of the shared memory, as SQLite asks for them and lets them go.
#include <atomic>
#include <chrono>
#include <climits>
#include <cstdint>
#include <thread>
#include <utility>

#include "connection.h"
#include "lost_race.h"

namespace groupcommit {

int Connection::ShmLock(int offset, int n, int flags) {
  const LockRequest request = {offset, n, flags};
  if ((flags & SQLITE_SHM_LOCK) == 0) return Unlock(request);
  const int rc = Lock(request);
  // A checkpoint that has its lock reads the header next. A FULL one asks for the write lock first,
  // too, and reads the header even if that is refused (wal.c: sqlite3WalCheckpoint()).
  const bool may_read_next = (request.locks() & (kCheckpointLock | kWriteLock)) != 0;
  if (request.exclusive() && may_read_next && Holds(kCheckpointLock)) NoteCheckpointedLog();
  return rc;
}

int Connection::Lock(const LockRequest& request) {
  const unsigned locks = request.locks();
  const bool exclusive = request.exclusive();
  int rc = BeforeLock(locks, exclusive);
  if (rc != SQLITE_OK) return rc;
  if (StartsLogOver(request)) rc = KeepCheckpointsOut();
  if (rc == SQLITE_OK) rc = AskBaseUntilDeadline(request);
  if (rc == SQLITE_OK && IsLogStartedOver(request)) {
    (void)AskBase({request.offset, request.n, SQLITE_SHM_UNLOCK | SQLITE_SHM_EXCLUSIVE});
    rc = SQLITE_BUSY;
  }
  if (rc == SQLITE_OK) {
    OnLocked(locks, exclusive);
  } else {
    OnRefused(locks, exclusive);
    LetCheckpointsIn();  // walRestartLog() unlocks something next, which does it too, but need not
  }
  return rc;
}

int Connection::Unlock(const LockRequest& request) {
  const unsigned locks = request.locks();
  const bool exclusive = request.exclusive();
  const unsigned released = BeforeUnlock(locks, exclusive);
  // SQLite releases the write lock and its snapshot each by itself, so that it is all or nothing.
  const int rc = released == locks ? AskBase(request) : SQLITE_OK;
  LetCheckpointsIn();
  AfterUnlock(locks, exclusive);
  return rc;
}

int Connection::BeforeLock(unsigned locks, bool exclusive) {
  const bool asks_for_turn =
      exclusive ? locks == kWriteLock && Holds(kCheckpointLock) : (locks & kReadLocks) != 0;
  const bool slept = asks_for_turn && SleepOn();
  // The header that SQLite has read is old by now. It has to look again whether it needs the log at
  // all (wal.c: walTryBeginRead()).
  if (slept && !exclusive && (locks & kLogReadLocks) != 0) {
    looks_again_ = true;
    return SQLITE_BUSY;
  }
  LostRace::Pass();
  if (lock_timeout_ms_ != 0 && !Holds(kCheckpointLock)) {  // a checkpoint has one for all its locks
    constexpr int64_t kNanosPerMilli = 1'000'000;
    const int64_t timeout_ms = lock_timeout_ms_ > 0 ? lock_timeout_ms_ : INT_MAX;
    lock_deadline_ = database_->clock().NowNanos() + timeout_ms * kNanosPerMilli;
  }
  int rc = RefuseAfterFailure(locks, exclusive);
  if (rc != SQLITE_OK || !exclusive) return rc;
  if (locks == kCheckpointLock) {
    rc = BeginCheckpoint();
  } else if ((locks & kWriteLock) != 0) {
    rc = TakeTurn();
  }
  if (rc == SQLITE_OK) CountHolder(locks, 1);  // until OnRefused() or AfterUnlock()
  return rc;
}

// Of the base VFS's locks. Release: whoever sees the count go down sees the lock released, too.
void Connection::CountHolder(unsigned locks, int one) {
  if ((locks & kWriteLock) != 0) {
    database_->write_holders().fetch_add(one, std::memory_order_release);
  }
  if ((locks & kCheckpointLock) != 0) {
    database_->checkpoint_holders().fetch_add(one, std::memory_order_release);
  }
}

// Nobody may build on a log with a hole, or see what is beyond it.
int Connection::RefuseAfterFailure(unsigned locks, bool exclusive) {
  if (database_->coordinator().failure() == 0) {
    stale_cache_ = false;
    return SQLITE_OK;
  }
  RollBackOrCloseHole();  // it may have been a sync of the flusher's: nobody else does
  if (database_->coordinator().failure() == 0) return SQLITE_OK;
  // Once the header has been put back, SQLite finds another one, and drops its cache.
  if (stale_cache_ && !exclusive && (locks & kReadLocks) != 0 && FailedIsInSight()) {
    return kCommitFailed;
  }
  const bool builds_on_log =
      exclusive && (locks & (kWriteLock | kCheckpointLock | kRecoverLock)) != 0;
  // A checkpoint that waits for readers would wait for those whose snapshot the fence keeps until
  // it gets the checkpoint lock (wal.c: walBusyLock()).
  const bool waits_for_readers = exclusive && Holds(kCheckpointLock) && (locks & kReadLocks) != 0;
  return builds_on_log || waits_for_readers ? kCommitFailed : SQLITE_OK;
}

int Connection::AskBase(const LockRequest& request) {
  const auto ask = [this, &request] {
    return main_->pMethods->xShmLock(main_, request.offset, request.n, request.flags);
  };
  Fence& fence = database_->fence();
  if (fence.IsHeldThrough(main_)) {
    MutexLock lock(fence.mutex());
    const bool is_read_lock = request.flags == (SQLITE_SHM_LOCK | SQLITE_SHM_SHARED);
    return is_read_lock && fence.GiveBackReadLock(main_, request.offset) ? SQLITE_OK : ask();
  }
  // The unix VFS has a mutex for all connections to a database (os_unix.c: unixShmLock()), and a
  // commit asks four times or more. To fall asleep for it takes longer than what it is held for.
  SpinGuard guard(&database_->shm_lock());
  return ask();
}

// The base VFS is not let wait. That of SQLite 3.40 would hold the mutex meanwhile that others need
// to release their locks (os_unix.c: unixShmLock()), so that two processes may wait for each other.
int Connection::SetLockTimeout(int* timeout_ms) {
  int none = 0;
  const int rc = main_->pMethods->xFileControl(main_, SQLITE_FCNTL_LOCK_TIMEOUT, &none);
  if (rc == SQLITE_OK) std::swap(lock_timeout_ms_, *timeout_ms);
  return rc;
}

int Connection::AskBaseUntilDeadline(const LockRequest& request) {
  constexpr std::chrono::microseconds kPoll(250);
  const unsigned locks = request.locks();
  int rc = locks == kCheckpointLock ? AskBaseForCheckpoint(request) : AskBase(request);
  if (rc != SQLITE_BUSY) return rc;
  const bool exclusive = request.exclusive();
  const int64_t until = WaitsUntil(locks, exclusive);
  while (rc == SQLITE_BUSY && database_->clock().NowNanos() < until) {
    // Who waits here passes for a writer that finds out by himself (CloseHoleBeneathStranger()),
    // and it may be the fence that has the lock.
    if (database_->coordinator().failure() != 0) {
      const int refused = RefuseAfterFailure(locks, exclusive);
      if (refused != SQLITE_OK) return refused;
      if (database_->coordinator().failure() != 0) return rc;
    }
    std::this_thread::sleep_for(kPoll);
    rc = AskBase(request);
  }
  return rc == SQLITE_BUSY && until != 0 && lock_timeout_ms_ != 0 ? SQLITE_BUSY_TIMEOUT : rc;
}

// Another process was faster: how long is it waited for in here? In ns; 0: not at all.
int64_t Connection::WaitsUntil(unsigned locks, bool exclusive) const {
  // If the busy handler's sleep was cut short for this, it goes on here.
  if (lock_timeout_ms_ == 0) {
    return exclusive && locks == kWriteLock ? LostRace::SleepsUntil(writer_) : 0;
  }
  // Not for what another connection of ours has: SQLite does not either.
  // (Who asks for a shared lock, as sqlite3_snapshot_open() does, is not counted as one of them.)
  const int others = database_->checkpoint_holders().load(std::memory_order_relaxed) - exclusive;
  const bool is_ours = locks == kCheckpointLock && others > 0;
  // Nor for readers, but if somebody has asked for that: FULL, RESTART, TRUNCATE.
  const bool is_readers =
      exclusive && (locks & kReadLocks) != 0 && !(Holds(kWriteLock) && Holds(kCheckpointLock));
  return is_ours || is_readers ? 0 : lock_deadline_;
}

void Connection::OnLocked(unsigned locks, bool exclusive) {
  (exclusive ? exclusive_ : shared_) |= locks;
  if (Holds(kWriteLock)) counts_.BeginWrite();
  counts_.SetReadsLog((shared_ & kLogReadLocks) != 0);
  if (!exclusive && (locks & kReadLocks) != 0) {
    just_committed_ = false;
    NoteSnapshot();
  }
  if (exclusive && (locks & kCheckpointLock) != 0) NoteAttempt();
  if (exclusive && locks == kCheckpointLock) CloseGate();
  if (!exclusive || (locks & kWriteLock) == 0) return;
  database_->writing().fetch_add(1, std::memory_order_relaxed);
  read_error_ = SQLITE_OK;
  NoteHeaderAtLock();
  failures_at_lock_ = database_->coordinator().failures();
  writes_.OnBegin();
  page1_.OnBegin();
  // With an old snapshot SQLite lets the lock go again, and goes on waiting with the same sleeps.
  const bool is_new = HoldsReadLock() && header_at_lock_.change() == change_at_snapshot_;
  if (is_new || Holds(kCheckpointLock)) LostRace::OnAcquired(writer_);
  const int64_t since = std::exchange(refused_since_, 0);
  const int64_t waited = since != 0 ? database_->clock().NowNanos() - since : 0;
  database_->stats().lock_wait.Record(waited);
}

void Connection::OnRefused(unsigned locks, bool exclusive) {
  if (!exclusive) return;
  CountHolder(locks, -1);
  // A checkpoint that starts the log over, and has waited for the write lock before (wal.c:
  // walBusyLock()).
  const bool restarts = Holds(kWriteLock) && Holds(kCheckpointLock);
  if ((locks & kReadLocks) != 0 && restarts) LostRace::NoteReaders(writer_);
  if ((locks & kWriteLock) == 0) return;
  if (has_turn_) database_->write_queue()->GiveUp();
  has_turn_ = false;
  LoseRace(true);
}

// Who finds no wal-index asks for the write lock first, and maps it then; others may have made it
// meanwhile, and have committed (wal.c: walIndexReadHdr()). What they did is not to pass for
// another process's commits, nor for ours.
void Connection::SetWalIndex(volatile void* wal_index, bool mapped) {
  const bool is_found = wal_index_ == nullptr && wal_index != nullptr;
  wal_index_ = wal_index;
  shm_is_open_ = mapped;
  if (is_found && Holds(kWriteLock)) NoteHeaderAtLock();
}

void Connection::NoteHeaderAtLock() {
  header_at_lock_ = Header();
  if (wal_index_ != nullptr) database_->OnWriteLocked(header_at_lock_);
}

// Returns the locks of `locks` that the base VFS is to release.
unsigned Connection::BeforeUnlock(unsigned locks, bool exclusive) {
  const unsigned ended = exclusive ? locks & exclusive_ : 0;
  // SQLite has recovered the log: its headers count from 0 again (wal.c: walIndexRecover()). If it
  // took the write lock before its snapshot, it commits next. The number that the header has then
  // may be the one from before the recovery, and the commit would not be seen.
  if ((ended & kRecoverLock) != 0) header_at_lock_ = Header();
  if ((ended & kWriteLock) != 0) {
    if (Holds(kCheckpointLock)) NoteCheckpointedLog();  // SQLite has recovered it
    OnWriteUnlocking();
    // Before we look for a failure. Otherwise the fence could take the checkpoint lock because we
    // have the write lock (Fence::Take()), and then we would let that go. (Sequentially consistent,
    // as the store of the failure: either we see that, or the fence sees that we are gone.)
    database_->writing().fetch_sub(1, std::memory_order_seq_cst);
    // Nobody may build on a log with a hole: the lock stays with us.
    const bool has_failed = database_->coordinator().failure() != 0;
    if (has_failed && KeepWriteLock()) return locks & ~kWriteLock;
  }
  if (!exclusive && (locks & kReadLocks) != 0 && !Holds(kWriteLock)) {
    // The end of the transaction. SQLite has sent COMMIT_PHASETWO before, as a rule. If not, we
    // wait here: until it is settled what becomes of the commit, the snapshot has to be held, which
    // keeps undurable frames out of the database file, and the log from restarting. (Under the
    // write lock it is no end: wal.c: walRestartLog() swaps read locks.)
    WaitForCommit();
    const unsigned held = locks & ~dropped_;
    dropped_ &= ~locks;
    return held != 0 && KeepReadLock(held) ? 0 : held;
  }
  return locks;
}

// SQLite is about to release the write lock. As it is still held, the header is ours if there was a
// commit.
void Connection::OnWriteUnlocking() {
  const WalIndexHeader header = Header();
  const bool is_commit = header.change() != header_at_lock_.change();
  if (wal_index_ != nullptr) database_->OnWriteUnlocking(header, is_commit);
  if (is_commit) {
    OnPublished(header);
  } else {
    OnNothingPublished();
  }
}

// The commit that has made `header` is in sight.
void Connection::OnPublished(const WalIndexHeader& header) {
  Coordinator& coordinator = database_->coordinator();
  just_committed_ = true;
  CountCommit();
  database_->OnCommitted(counted_);
  CacheFrames(header_at_lock_, header);
  frames_.GiveBack();
  if (deferred_) return;
  // A commit without a sync (synchronous=NORMAL or OFF) on top of pending ones is lost with them.
  // (Where all is durable, the newest one may be an old one that failed.)
  commit_ = coordinator.AllDurable() ? 0 : coordinator.appended();
  // A writer that has the lock before its snapshot does not wait when it loads the schema (btree.c:
  // sqlite3BtreeBeginTrans(), SQLITE_ENABLE_SETLK_TIMEOUT).
  if (commit_ != 0 && page1_.schema_may_change()) {
    // No company comes while we have the write lock. WaitForCommit() tells of an error.
    (void)coordinator.WaitDurable(commit_, this, /*at_once=*/true);
  }
}

// Whatever was noted did not become a commit: its bytes may be overwritten.
void Connection::OnNothingPublished() {
  if (deferred_) database_->commits().ForgetHeader(commit_);
  commit_ = 0;
  deferred_ = false;
  counted_ = 0;
  left_to_flusher_ = false;
  writes_.OnRollBack();
  frames_.GiveBack();
  if (writes_.page1_frame() != 0) page1_.Forget();
}

// Beside the one that ends a transaction just now. (Without one an interrupt would stay for the
// next checkpoint or close, sqlite3.h.in: sqlite3_interrupt().)
bool Connection::HasOpenStatements() const {
  int open = 0;
  if (Db() == nullptr) return false;
  for (sqlite3_stmt* each = sqlite3_next_stmt(Db(), nullptr); each != nullptr && open < 2;
       each = sqlite3_next_stmt(Db(), each)) {
    if (sqlite3_stmt_busy(each) != 0) open++;
  }
  return open > 1;
}

void Connection::AfterUnlock(unsigned locks, bool exclusive) {
  const unsigned ended = exclusive ? locks & exclusive_ : 0;
  const bool ended_write = (ended & kWriteLock) != 0;
  (exclusive ? exclusive_ : shared_) &= ~locks;
  if (!Holds(kWriteLock) && !HoldsReadLock()) {
    counts_.EndWrite();
    counts_.EndSnapshot();
  }
  counts_.SetReadsLog((shared_ & kLogReadLocks) != 0);
  CountHolder(ended, -1);
  if (ended_write) ReturnTurn();
  // A write transaction that changed nothing leaves the pages that it read in the cache, where the
  // next read-only statement finds them without a call to the VFS.
  if (ended_write && commit_ == 0 && undurable_read_ != 0) {
    const int rc = WaitForCommit();
    if (!HasAttached()) read_error_ = rc;
    // A SELECT that is open goes on upon that cache, and so does each that begins before it ends.
    if (rc != SQLITE_OK && HasOpenStatements()) sqlite3_interrupt(Db());
  }
  // There may be no COMMIT that waits for anything, and yet a SELECT that goes on.
  if (ended_write && commit_ == 0) counts_.EndWrite();
  if ((ended & kCheckpointLock) == 0) return;
  OpenGate();
  // A checkpoint whose sync failed: see Fail(). (Who recovers the log gives up the write lock after
  // this one, wal.c: walIndexRecover(). The fence would release it beneath SQLite.)
  RollBackOrCloseHole();
}

// As a sole user, SQLite asks for no locks: this is where its transactions begin, and where they
// end.
void Connection::SetSoleUser(bool sole) {
  if (sole_user_ == sole) return;
  // A commit without COMMIT_PHASETWO, as another database of its transaction has failed after it.
  if (!sole && writes_.has_commit()) {
    CountCommit();
    database_->OnCommitted(std::exchange(counted_, 0));
  }
  writes_.OnModeChanged();
  if (sole) {
    NoteHeaderAtLock();
    NoteAttempt();
  } else {
    page1_.Forget();  // nothing has told what was read and rolled back
    const WalIndexHeader header = Header();
    const bool is_commit = header.change() != header_at_lock_.change();
    if (wal_index_ != nullptr && is_commit) database_->OnWriteUnlocking(header, true);
  }
  sole_user_ = sole;
}

}  // namespace groupcommit
