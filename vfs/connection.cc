// Connection: where the sync of a commit is deferred, and where COMMIT waits for it.
#include "connection.h"

#include <algorithm>
#include <atomic>
#include <optional>
#include <utility>

#include "base_vfs.h"
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
      frames_(&database->frame_memory()),
      flusher_errors_(database->flusher().errors()) {}

// SQLite discards its page cache after an I/O error only (pager.c: pager_error()), and takes
// SQLITE_NOTFOUND from COMMIT_PHASETWO for success.
int Connection::AsIoError(int rc) { return (rc & 0xff) == SQLITE_IOERR ? rc : kCommitFailed; }

int Connection::SyncLog(int flags) {
  if (database_->coordinator().failure() != 0) {
    const bool is_closing = sole_user_ && !IsWriting();
    if (!is_closing || !RepairAtClose()) return FailCommit(kCommitFailed);
  }
  const bool is_of_commit = IsSyncOfCommit();
  const bool is_left = is_of_commit && MayLeaveToFlusher();
  // Before the commit has a number: a sync that covers that is as strong as this one.
  if (is_left) database_->AskForSync(flags);
  // The commit frame may not be the last one that was written (wal.c: walRewriteChecksums()).
  if (writes_.has_commit()) {
    database_->stats().commits.Add();
    CountCommit();
  }
  writes_.OnSync();
  if (is_left) return LeaveToFlusher();
  if (is_of_commit && MayDefer()) return DeferSync(flags);
  requested_flags_ = flags;
  // Bytes that this transaction wrote before a sync failed may be gone, and our sync may not be
  // told.
  const uint64_t failures =
      Holds(kWriteLock) ? failures_at_lock_ : database_->coordinator().failures();
  const int rc = database_->coordinator().SyncNow(this, failures);
  requested_flags_ = 0;
  if (rc != SQLITE_OK) return FailCommit(rc);
  if (Holds(kWriteLock)) database_->OnSyncedUnderWriteLock();
  return SQLITE_OK;
}

int Connection::FailCommit(int error) {
  counted_ = 0;
  writes_.OnRollBack();
  if (Holds(kCheckpointLock)) ForgetAttempt();  // it syncs before it copies (walCheckpoint())
  return Fail(error);
}

// Is the sync that SQLite asks for that of a commit, under the write lock? When unsure: no.
bool Connection::IsSyncOfCommit() const {
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
  commit.written_before = database_->newest_commit();
  commit.generation = writes_.generation();
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
  writes_may_be_joined_ = WritesMayBeJoined(database_->base(), log);
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
  const int rc = coordinator.WaitDurable(target, this);
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
