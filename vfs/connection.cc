#include "connection.h"

#include <algorithm>
#include <climits>
#include <cstring>
#include <new>

#include "sync_strength.h"

namespace groupcommit {

// SQLite discards its page cache after an I/O error only (pager.c: pager_error()), and takes
// SQLITE_NOTFOUND from COMMIT_PHASETWO for success.
int Connection::AsIoError(int rc) { return (rc & 0xff) == SQLITE_IOERR ? rc : kCommitFailed; }

bool Connection::HoldsReadLock() const { return (shared_ & kReadLocks) != 0; }

WalIndexHeader Connection::Header() const {
  return wal_index_ != nullptr ? WalIndexHeader::Load(wal_index_) : WalIndexHeader{};
}

// ---- Locks ----

int Connection::BeforeLock(unsigned locks, bool exclusive) {
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
  if (!Holds(kWriteLock)) TryRollBack();
  if (database_->coordinator().failure() == 0) return SQLITE_OK;
  if (stale_cache_ && !exclusive && (locks & kReadLocks) != 0) return kCommitFailed;
  const bool builds_on_log =
      exclusive && (locks & (kWriteLock | kCheckpointLock | kRecoverLock)) != 0;
  // A checkpoint that waits for readers would wait for those whose snapshot the fence keeps until
  // it gets the checkpoint lock (wal.c: walBusyLock()).
  const bool waits_for_readers = exclusive && Holds(kCheckpointLock) && (locks & kReadLocks) != 0;
  return builds_on_log || waits_for_readers ? kCommitFailed : SQLITE_OK;
}

int Connection::BaseShmLock(int offset, int n, int flags) {
  const auto lock_or_unlock = [=, this] {
    return main_->pMethods->xShmLock(main_, offset, n, flags);
  };
  Fence& fence = database_->fence();
  if (fence.IsHeldThrough(main_)) {
    MutexLock lock(fence.mutex());
    if (flags == (SQLITE_SHM_LOCK | SQLITE_SHM_SHARED) && fence.GiveBackReadLock(main_, offset)) {
      return SQLITE_OK;
    }
    return lock_or_unlock();
  }
  // The unix VFS has a mutex for all connections to a database (os_unix.c: unixShmLock()), and a
  // commit asks four times or more. To fall asleep for it takes longer than what it is held for.
  SpinGuard guard(&database_->shm_lock());
  return lock_or_unlock();
}

void Connection::OnLocked(unsigned locks, bool exclusive) {
  (exclusive ? exclusive_ : shared_) |= locks;
  CountIn();
  if (!exclusive && (locks & kReadLocks) != 0) {
    just_committed_ = false;
    NoteSnapshot();
  }
  if (exclusive && locks == kCheckpointLock) CloseGate();
  if (!exclusive || (locks & kWriteLock) == 0) return;
  const WalIndexHeader header = Header();
  database_->OnWriteLocked(header.words());
  header_at_lock_ = header;
  change_at_lock_ = header.change();
  failures_at_lock_ = database_->coordinator().failures();
  log_written_ = false;
  last_write_ = LastWrite::kOther;
  page1_frame_ = 0;
  schema_may_change_ = false;
  // With an old snapshot SQLite lets it go again, and what was slept too little is still owed.
  const bool is_new = HoldsReadLock() && change_at_lock_ == change_at_snapshot_;
  if (is_new || Holds(kCheckpointLock)) LostRace::Forget(writer_);
  if (refused_since_ != 0) {
    database_->stats().lock_wait.Record(database_->clock().NowNanos() - refused_since_);
    refused_since_ = 0;
  } else {
    database_->stats().lock_wait.Record(0);
  }
}

unsigned Connection::BeforeUnlock(unsigned locks, bool exclusive) {
  Coordinator& coordinator = database_->coordinator();
  if (exclusive && (locks & exclusive_ & kWriteLock) != 0) {
    // Still under the write lock, so that the header is ours if there was a commit.
    const WalIndexHeader header = Header();
    database_->OnWriteUnlocking(header.words());
    if (header.change() == change_at_lock_) {
      commit_ = 0;  // whatever was noted did not become a commit; its bytes may be overwritten
      deferred_ = false;
      counted_ = 0;
      commit_written_ = false;
      left_to_flusher_ = false;
      last_write_ = LastWrite::kOther;
      frames_.Clear();
      if (page1_frame_ != 0) page1_known_ = false;
    } else {
      just_committed_ = true;
      CountCommit();
      CacheFrames(header_at_lock_, header);
      frames_.Clear();
      // A commit without a sync (synchronous=NORMAL or OFF) on top of pending ones is lost with
      // them. (Where all is durable, the newest one may be an old one that failed.)
      if (!deferred_) commit_ = coordinator.AllDurable() ? 0 : coordinator.appended();
    }
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
  CountOut();
  CountHolder(ended, -1);
  if (ended_write) ReturnTurn();
  // A write transaction that changed nothing leaves the pages that it read in the cache, where the
  // next read-only statement finds them without a call to the VFS.
  if (ended_write && commit_ == 0 && undurable_read_ != 0) WaitForCommit();
  if (exclusive && (locks & kCheckpointLock) != 0) OpenGate();
  // A checkpoint whose sync failed: see Fail().
  if (exclusive && (locks & kCheckpointLock) != 0 && database_->coordinator().failure() != 0) {
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
  if (last_write_ == LastWrite::kCommitFrame) {
    database_->stats().commits.Add();
    CountCommit();
  }
  last_write_ = LastWrite::kOther;
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
  commit_written_ = false;
  return Fail(error);
}

// Is the sync that SQLite asks for that of a commit, under the write lock? When unsure: no.
bool Connection::EndsCommit() const {
  // A commit ends with its last frame's header and the full page behind it. Not so: the WAL header,
  // whose sync orders a restart (wal.c: walFrames(), syncHeader); frames rewritten by
  // walRewriteChecksums() after the commit frame; a sync in the middle of a page, without powersafe
  // overwrite.
  if (last_write_ != LastWrite::kCommitFrame || page_size_written_ != Header().page_size())
    return false;
  // Without the lock SQLite is in exclusive locking mode, or closing; with the checkpoint lock too
  // it runs a FULL, RESTART or TRUNCATE checkpoint.
  return Holds(kWriteLock) && !Holds(kCheckpointLock);
}

// May the sync of a commit wait until the write lock is released? When unsure: no.
bool Connection::MayDefer() const {
  // A schema that is taken back would stay in the caches of other connections.
  if (schema_may_change_) return false;
  if (database_->syncs_on_each_flush()) return false;
  if (database_->coordinator().appended() - database_->coordinator().durable() >=
      CommitLog::kCapacity) {
    return false;
  }
  return WritesOneDatabase();
}

// Does the transaction write to this database only? With several, SQLite publishes all of them
// before the first can fail, and vdbeaux.c: vdbeCommit() ignores an error after the super-journal
// is gone. The temporary database does not count beside main, whose COMMIT_PHASETWO comes first: if
// that fails, SQLite rolls the temporary one back. (BEGIN IMMEDIATE opens a write transaction on it
// as soon as it has been used at all.)
bool Connection::WritesOneDatabase() const {
  constexpr int kTemp = 1;
  sqlite3* db = db_ != nullptr ? *db_ : nullptr;
  if (db == nullptr) return false;
  int written = 0;
  for (int i = 0; const char* schema = sqlite3_db_name(db, i); i++) {
    if (sqlite3_txn_state(db, schema) != SQLITE_TXN_WRITE) continue;
    if (i != kTemp || written == 0) written++;
  }
  return written == 1;
}

// Notes the commit, for WaitForCommit().
int Connection::DeferSync(int flags) {
  Coordinator& coordinator = database_->coordinator();
  if (coordinator.overlap_is_wanted()) {
    database_->AskForLossReports(log_, sqlite3_filename_wal(name_));
  }
  // The header is that of the commit before this one, or of the empty log that was just restarted.
  const WalIndexHeader before = Header();
  change_at_lock_ = before.change();  // recovery may have changed it since the lock was taken
  LogCommit commit;
  commit.first = before.last_frame() + 1;
  commit.can_undo = true;
  commit.before = before.words();
  commit.header = page1_frame_;
  commit.strength = StrengthOf(flags);
  std::memcpy(commit.salts, frame_header_.salts, sizeof(commit.salts));
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
  const int rc = WaitForDurable();
  if (just_committed_) committed_at_ = database_->clock().NowNanos();
  EndCommit(rc == SQLITE_OK);
  CountLeaving();
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

// ---- Readers ----

// Which pending commits does the snapshot include that SQLite has just taken? It reads the header
// before and compares it after it has the lock (wal.c: walTryBeginRead()), so that both see the
// same.
void Connection::NoteSnapshot() {
  Coordinator& coordinator = database_->coordinator();
  snapshot_ = 0;
  chain_ = 0;
  if (wal_index_ == nullptr) return;
  const Lsn durable = coordinator.durable();
  const Lsn appended = coordinator.appended();
  const WalIndexHeader header = Header();
  change_at_snapshot_ = header.change();
  NoteFrames(header);
  if (durable >= appended) return;
  snapshot_ = database_->commits().OwnerOf(header.last_frame(), durable, appended).lsn;
}

// A snapshot that includes failed commits shows what never was; nor does the log keep it as it is.
int Connection::BeforeRead() {
  if (snapshot_ == 0 || !database_->coordinator().HasFailed(snapshot_)) return SQLITE_OK;
  if (!Holds(kWriteLock)) DropSnapshot();
  return kCommitFailed;
}

int Connection::BeforeLogRead(int size, int64_t offset) {
  Coordinator& coordinator = database_->coordinator();
  // In this order: a commit that is visible to this read has been appended before; and one that is
  // taken back moves `durable` past it, so that the snapshot is looked at afterwards.
  const Lsn durable = coordinator.durable();
  const Lsn appended = coordinator.appended();
  const int refused = BeforeRead();
  if (refused != SQLITE_OK) return refused;
  if (Holds(kCheckpointLock) && coordinator.failure() != 0) return Fail(kCommitFailed);
  if (durable >= appended) return SQLITE_OK;
  // Checkpoints read what they have synced themselves; recovery reads under the write lock; the
  // header tells nothing.
  if (!HoldsReadLock() || Holds(kCheckpointLock) || offset < kWalHeaderSize) return SQLITE_OK;
  const int page_size = Header().page_size();
  const uint32_t frame = FrameAt(offset, page_size != 0 ? page_size : size);
  const CommitLog::Owner owner = database_->commits().OwnerOf(frame, durable, appended);
  // A pending page 1 tells nothing but sizes; every writer reads it before it asks for the write
  // lock.
  if (owner.lsn == 0 || (owner.is_header && coordinator.failure() == 0)) return SQLITE_OK;
  if (Holds(kWriteLock)) {
    // A writer may build on pending commits: its own commit is durable only after them.
    undurable_read_ = std::max(undurable_read_, owner.lsn);
    return SQLITE_OK;
  }
  // Frames that were found in the log: nobody else will sync them, and a read-only connection need
  // not be able to.
  if (log_is_read_only_ && !database_->commits().Get(owner.lsn).can_undo) return SQLITE_OK;
  return WaitForReader(owner.lsn);
}

int Connection::WaitForReader(Lsn lsn) {
  database_->stats().reader_waits.Add();
  const int64_t start = database_->clock().NowNanos();
  const int rc = database_->coordinator().WaitDurable(lsn, this);
  database_->stats().reader_wait.Record(database_->clock().NowNanos() - start);
  if (rc == SQLITE_OK) return SQLITE_OK;
  DropSnapshot();
  return AsIoError(rc);
}

// ---- Page 1 ----

void Connection::OnPageRead(const void* data, int size) {
  // Only what goes to the page cache: not a checkpoint's or recovery's reads, which may be of an
  // old one.
  if (!HoldsReadLock() || Holds(kCheckpointLock) || !LooksLikePage1(data, size)) return;
  if (size != page1_size_) {
    page1_.reset(new (std::nothrow) uint8_t[static_cast<size_t>(size)]);
    page1_size_ = page1_ != nullptr ? size : 0;
  }
  page1_known_ = page1_ != nullptr;
  if (page1_known_) std::memcpy(page1_.get(), data, static_cast<size_t>(size));
}

void Connection::OnPage1Written(const uint8_t* page, int size) {
  if (page1_known_ && size == page1_size_) {
    if (!SamePage1ButSizes(page1_.get(), page, size)) schema_may_change_ = true;
    std::memcpy(page1_.get(), page, static_cast<size_t>(size));
  } else {
    schema_may_change_ = true;
    page1_known_ = false;
  }
}

}  // namespace groupcommit
