#include "connection.h"

#include <algorithm>
#include <atomic>
#include <climits>
#include <cstring>
#include <utility>

#include "lost_race.h"
#include "sync_strength.h"

namespace groupcommit {
namespace {

WriteQueue::Writer NewWriter() {
  static std::atomic<WriteQueue::Writer> last{WriteQueue::kNobody};
  return last.fetch_add(1, std::memory_order_relaxed) + 1;
}

}  // namespace

Connection::Connection(Database* database, sqlite3_file* main, const char* name)
    : database_(database),
      main_(main),
      name_(name),
      writer_(NewWriter()),
      counts_(&database->gate()),
      flusher_errors_(database->flusher().errors()) {}

// SQLite discards its page cache after an I/O error only (pager.c: pager_error()), and takes
// SQLITE_NOTFOUND from COMMIT_PHASETWO for success.
int Connection::AsIoError(int rc) { return (rc & 0xff) == SQLITE_IOERR ? rc : kCommitFailed; }

// ---- Locks ----

int Connection::ShmLock(int offset, int n, int flags) {
  const LockRequest request = {offset, n, flags};
  if ((flags & SQLITE_SHM_LOCK) == 0) return Unlock(request);
  const int rc = Lock(request);
  // A checkpoint that has got its lock reads the header next; a FULL one when it has waited for the
  // write lock, too, be it in vain (wal.c: sqlite3WalCheckpoint()).
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
    LetCheckpointsIn();
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
  // What SQLite has seen is old by now, so it has to look again whether it needs the log at all.
  // (wal.c: walTryBeginRead())
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

// Nobody may build on a log with a hole, or see what is beyond it.
int Connection::RefuseAfterFailure(unsigned locks, bool exclusive) {
  if (database_->coordinator().failure() == 0) {
    stale_cache_ = false;
    return SQLITE_OK;
  }
  // It may have been a sync of the flusher's, so that nobody else closes the hole.
  if (!Holds(kWriteLock) && TryRollBack() == RollBack::kNotYet && !Holds(kCheckpointLock)) {
    CloseHoleBeneathStranger();
  }
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

void Connection::OnLocked(unsigned locks, bool exclusive) {
  (exclusive ? exclusive_ : shared_) |= locks;
  if (Holds(kWriteLock)) counts_.BeginWrite();
  counts_.SetReadsLog((shared_ & kLogReadLocks) != 0);
  if (!exclusive && (locks & kReadLocks) != 0) {
    just_committed_ = false;
    NoteSnapshot();
  }
  if (exclusive && locks == kCheckpointLock) CloseGate();
  if (!exclusive || (locks & kWriteLock) == 0) return;
  database_->writing().fetch_add(1, std::memory_order_relaxed);
  read_error_ = SQLITE_OK;
  const WalIndexHeader header = Header();
  database_->OnWriteLocked(header.words());
  header_at_lock_ = header;
  failures_at_lock_ = database_->coordinator().failures();
  writes_.OnBegin();
  page1_.OnBegin();
  // With an old snapshot SQLite lets it go again, and what was slept too little is still owed.
  const bool is_new = HoldsReadLock() && header.change() == change_at_snapshot_;
  if (is_new || Holds(kCheckpointLock)) LostRace::OnAcquired(writer_);
  if (refused_since_ != 0) {
    database_->stats().lock_wait.Record(database_->clock().NowNanos() - refused_since_);
    refused_since_ = 0;
  } else {
    database_->stats().lock_wait.Record(0);
  }
}

// Returns the locks of `locks` that the base VFS is to release.
unsigned Connection::BeforeUnlock(unsigned locks, bool exclusive) {
  Coordinator& coordinator = database_->coordinator();
  // SQLite has recovered the log: its headers count from 0 again (wal.c: walIndexRecover()). One
  // that has the write lock before its snapshot commits next, and may do so under the old number.
  if (exclusive && (locks & exclusive_ & kRecoverLock) != 0) header_at_lock_ = Header();
  if (exclusive && (locks & exclusive_ & kWriteLock) != 0) {
    if (Holds(kCheckpointLock)) NoteCheckpointedLog();  // SQLite has recovered it
    // Still under the write lock, so that the header is ours if there was a commit.
    const WalIndexHeader header = Header();
    const bool is_commit = header.change() != header_at_lock_.change();
    database_->OnWriteUnlocking(header.words(), is_commit);
    if (!is_commit) {
      commit_ = 0;  // whatever was noted did not become a commit; its bytes may be overwritten
      deferred_ = false;
      counted_ = 0;
      left_to_flusher_ = false;
      writes_.OnRollBack();
      frames_.Clear();
      if (writes_.page1_frame() != 0) page1_.Forget();
    } else {
      just_committed_ = true;
      CountCommit();
      CacheFrames(header_at_lock_, header);
      frames_.Clear();
      // A commit without a sync (synchronous=NORMAL or OFF) on top of pending ones is lost with
      // them. (Where all is durable, the newest one may be an old one that failed.)
      if (!deferred_) commit_ = coordinator.AllDurable() ? 0 : coordinator.appended();
      // A writer that has the lock before its snapshot does not wait when it loads the schema
      // (btree.c: sqlite3BtreeBeginTrans(), SQLITE_ENABLE_SETLK_TIMEOUT).
      if (!deferred_ && commit_ != 0 && page1_.schema_may_change()) {
        (void)coordinator.WaitDurable(commit_, this);  // WaitForCommit() tells of an error
      }
    }
    // Before we look for a failure: so that the fence does not take its other lock because we have
    // this one, and then we give it up; see Fence::Take(). (Sequentially consistent, as the failure
    // is: of us and of who fails one sees what the other has stored.)
    database_->writing().fetch_sub(1, std::memory_order_seq_cst);
    // Nobody may build on a log with a hole: the lock stays with us.
    if (coordinator.failure() != 0 && KeepWriteLock()) return locks & ~kWriteLock;
  }
  if (!exclusive && (locks & kReadLocks) != 0 && !Holds(kWriteLock)) {
    // SQLite sends COMMIT_PHASETWO before it gives up its snapshot. Where it did not, the snapshot
    // still has to be held until the end is settled: it keeps undurable frames out of the database
    // file and the log from restarting. (wal.c: walRestartLog() swaps read locks under the write
    // lock; not an end.)
    WaitForCommit();
    const unsigned held = locks & ~dropped_;
    dropped_ &= ~locks;
    return held != 0 && KeepReadLock(held) ? 0 : held;
  }
  return locks;
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
  }
  // There may be no COMMIT that waits for anything, and yet a SELECT that goes on.
  if (ended_write && commit_ == 0) counts_.EndWrite();
  if (exclusive && (locks & kCheckpointLock) != 0) OpenGate();
  // A checkpoint whose sync failed: see Fail(). (Who recovers the log gives up the write lock after
  // this one, wal.c: walIndexRecover(). The fence would release it beneath SQLite.)
  if (exclusive && (locks & kCheckpointLock) != 0 && !Holds(kWriteLock) &&
      database_->coordinator().failure() != 0) {
    TryRollBack();
  }
}

// ---- The log ----

int Connection::SyncLog(int flags) {
  if (database_->coordinator().failure() != 0 && !(sole_user_ && RepairAtClose())) {
    return FailCommit(kCommitFailed);
  }
  const bool ends_commit = EndsCommit();
  const bool defer = ends_commit && MayDefer();
  if (writes_.EndsCommit()) {
    database_->stats().commits.Add();
    CountCommit();
  }
  writes_.OnSync();
  if (ends_commit && MayLeaveToFlusher()) return LeaveToFlusher(flags);
  if (defer) return DeferSync(flags);
  requested_flags_ = flags;
  // Bytes that this transaction wrote before a sync failed may be gone, and our sync may not be
  // told.
  const uint64_t failures =
      Holds(kWriteLock) ? failures_at_lock_ : database_->coordinator().failures();
  const int rc = database_->coordinator().SyncNow(this, failures);
  requested_flags_ = 0;
  return rc == SQLITE_OK ? rc : FailCommit(rc);
}

int Connection::FailCommit(int error) {
  counted_ = 0;
  writes_.OnRollBack();
  // A checkpoint that fails to sync the log has copied nothing (wal.c: walCheckpoint()).
  if (Holds(kCheckpointLock) && wal_index_ != nullptr) CheckpointInfo::ForgetAttempt(wal_index_);
  return Fail(error);
}

// Is the sync that SQLite asks for that of a commit, under the write lock? When unsure: no.
bool Connection::EndsCommit() const {
  // A commit ends with its last frame's header and the full page behind it. Not so: the WAL header,
  // whose sync orders a restart (wal.c: walFrames(), syncHeader); frames rewritten by
  // walRewriteChecksums() after the commit frame; a sync in the middle of a page, without powersafe
  // overwrite.
  if (!writes_.EndsCommit(Header().page_size())) return false;
  // Without the lock SQLite is in exclusive locking mode, or closing; with the checkpoint lock too
  // it runs a FULL, RESTART or TRUNCATE checkpoint.
  return Holds(kWriteLock) && !Holds(kCheckpointLock);
}

// May the sync of a commit wait until the write lock is released? When unsure: no.
bool Connection::MayDefer() const {
  // A schema that is taken back would stay in the caches of other connections.
  if (page1_.schema_may_change()) return false;
  if (database_->syncs_on_each_flush()) return false;
  if (database_->coordinator().appended() - database_->coordinator().durable() >=
      CommitLog::kCapacity) {
    return false;
  }
  return WritesOneDatabase();
}

// Notes the commit, for WaitForCommit().
int Connection::DeferSync(int flags) {
  Coordinator& coordinator = database_->coordinator();
  if (coordinator.overlap_is_wanted()) {
    database_->AskForLossReports(log_, sqlite3_filename_wal(name_));
  }
  // The header is that of the commit before this one, or of the empty log that was just restarted.
  const WalIndexHeader before = Header();
  header_at_lock_ = before;  // recovery may have changed it since
  LogCommit commit;
  commit.first = before.last_frame() + 1;
  commit.can_undo = true;
  commit.before = before.words();
  commit.header = writes_.page1_frame();
  commit.strength = StrengthOf(flags);
  commit.written_before = counted_ - 1;
  std::memcpy(&commit.generation, writes_.salts(), sizeof(commit.generation));
  database_->commits().Put(coordinator.appended() + 1, commit);
  const Lsn lsn = coordinator.Append(failures_at_lock_);
  if (lsn == 0) return kCommitFailed;
  commit_ = lsn;
  deferred_ = true;
  database_->stats().deferred.Add();
  return SQLITE_OK;
}

void Connection::SetLog(sqlite3_file* log, bool read_only) {
  log_ = log;
  log_is_read_only_ = read_only;
  if (log == nullptr) return;
  writes_may_be_joined_ = database_->WritesMayBeJoined(log);
  syncs_before_ = database_->coordinator().SyncsBegun();
  appended_before_ = database_->coordinator().appended() + 1;
  written_before_ = database_->coordinator().written();
}

uint64_t Connection::SeesFailuresAfter() const {
  const bool is_told =
      database_->each_handle_is_told() && !LogIsNewerThan(database_->coordinator().durable());
  return is_told ? syncs_before_ : kSeesNone;
}

// Was our log opened after something had been written that is to become durable, of the commits
// after `from`? Another process may have been told by then that it is lost: our handle never is.
bool Connection::LogIsNewerThan(Lsn from) const {
  return from < appended_before_ || database_->coordinator().synced() < written_before_;
}

// The coordinator's sync: in this thread, through this connection's own handle on the log.
int Connection::Sync(Lsn from, Lsn through) {
  const int requested = requested_flags_ != 0 ? StrengthOf(requested_flags_) : 0;
  if (LogIsNewerThan(from)) {
    const std::optional<int> synced = database_->SyncOpenLog(from, through, requested);
    if (synced) return *synced;
  }
  return log_->pMethods->xSync(log_, database_->SyncFlags(from, through, requested));
}

int Connection::WaitForCommit() {
  int rc = WaitForDurable();
  const int read_error = std::exchange(read_error_, SQLITE_OK);
  if (rc == SQLITE_OK) rc = read_error;
  if (just_committed_) committed_at_ = database_->clock().NowNanos();
  EndCommit(rc == SQLITE_OK);
  if (!Holds(kWriteLock)) counts_.EndWrite();
  return rc;
}

int Connection::WaitForDurable() {
  const Lsn target = std::max(commit_, undurable_read_);
  const bool own = deferred_;
  const bool cached = undurable_read_ != 0;
  commit_ = undurable_read_ = 0;
  deferred_ = false;
  if (target == 0) return SQLITE_OK;

  Coordinator& coordinator = database_->coordinator();
  const int64_t start = own ? database_->clock().NowNanos() : 0;
  const int rc = coordinator.IsDurable(target) ? SQLITE_OK : coordinator.WaitDurable(target, this);
  if (own) database_->stats().commit_wait.Record(database_->clock().NowNanos() - start);
  if (rc == SQLITE_OK) return SQLITE_OK;
  // Frames that were found in the log are not taken back, nor is a commit without a sync on top of
  // nothing else: to fail it would be a lie.
  if (counted_ != 0 && !database_->commits().Get(target).can_undo) {
    (void)Fail(AsIoError(rc));
    return SQLITE_OK;
  }
  if (cached) stale_cache_ = true;
  snapshot_ = std::max(snapshot_, target);  // what SQLite sees is no more
  return Fail(AsIoError(rc));
}

}  // namespace groupcommit
