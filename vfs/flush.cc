// Connection: commits for which nobody waits, and those who want them durable later.
//
// A commit with synchronous=NORMAL, or under the policy interval, returns without a sync. It has a
// number all the same (Coordinator::CountWritten), under which a flush, the flusher or
// groupcommit_wait() finds out whether a sync has covered it. Nobody takes such a commit back: a
// failed sync leads to the log being written again (hole.cc), and the error is told to those who
// ask.
#include <algorithm>
#include <memory>
#include <utility>

#include "connection.h"
#include "log_handle.h"

namespace groupcommit {
namespace {

constexpr int64_t kNanosPerMilli = 1'000'000;

}  // namespace

// A transaction writes to the log: it can still fail as a whole.
int Connection::PrepareFlusher() {
  if (database_->max_delay_nanos() >= 0) {
    const int rc = database_->StartFlusher();
    if (rc != SQLITE_OK) return rc;
  }
  return TakeFlusherError();
}

// What went wrong behind our back is told to each connection once, as the kernel tells each open
// file of a failed write.
int Connection::TakeFlusherError() {
  const uint64_t errors = database_->flusher().errors();
  if (errors == flusher_errors_) return SQLITE_OK;
  flusher_errors_ = errors;
  sqlite3_log(kCommitFailed, "groupcommit: earlier commits could not be made durable in time: %s",
              database_->path().c_str());
  return kCommitFailed;
}

bool Connection::MayLeaveToFlusher() const {
  return database_->max_delay_nanos() >= 0 && database_->flusher().is_running();
}

// SQLite asks for the sync of a commit, under the policy interval.
int Connection::LeaveToFlusher() {
  left_to_flusher_ = true;
  return SQLITE_OK;
}

// The commit whose bytes are in the log gets its number, unless it has one.
void Connection::CountCommit() {
  if (counted_ == 0) counted_ = database_->coordinator().CountWritten();
}

// COMMIT is about to return, with success or not.
void Connection::EndCommit(bool success) {
  // In exclusive locking mode there is no other sign of a commit that was not synced.
  if (writes_.has_commit()) CountCommit();
  writes_.OnEnd();
  // The policy may be another one by now.
  const bool left_to_flusher = std::exchange(left_to_flusher_, false);
  if (counted_ == 0) return;
  if (success) {
    last_commit_ = counted_;
    if (sole_user_) database_->OnCommitted(counted_);
    if (left_to_flusher || MayLeaveToFlusher()) {
      database_->flusher().Schedule(std::max<int64_t>(0, database_->max_delay_nanos()));
    }
  }
  counted_ = 0;
}

int Connection::Flush() {
  if (log_ == nullptr) {
    std::unique_ptr<LogHandle> log;
    int rc = OpenUnreadLog(&log);
    if (rc == SQLITE_OK && log == nullptr) rc = TakeFlusherError();
    if (rc != SQLITE_OK || log == nullptr) return rc;  // there is nothing to sync, and no number
  }
  return WaitSynced(database_->coordinator().CountWritten(), -1);
}

int Connection::WaitSynced(Lsn target, int timeout_ms) {
  Coordinator& coordinator = database_->coordinator();
  if (target > coordinator.written()) return SQLITE_MISUSE;
  if (coordinator.synced() >= target) return SQLITE_OK;
  int rc = TakeFlusherError();
  if (rc != SQLITE_OK) return rc;
  if (timeout_ms == 0) return SQLITE_BUSY;
  RepairIfPossible();
  if (timeout_ms >= 0) {
    rc = database_->StartFlusher();
    if (rc != SQLITE_OK) return rc;
    if (database_->flusher().is_running()) return AwaitFlusher(target, timeout_ms);
  }
  if (log_ == nullptr) return SyncWithoutLog(target);
  rc = coordinator.WaitSynced(target, this);
  return rc == SQLITE_OK ? rc : FailFlush(rc, kPatience);
}

// Is a transaction under way that writes? Its frames are behind the end of the log, and must stay.
bool Connection::IsWriting() const {
  if (!sole_user_) return Holds(kWriteLock);
  // Exclusive locking mode.
  return writes_.IsInTransaction() &&
         (Db() == nullptr || sqlite3_txn_state(Db(), nullptr) == SQLITE_TXN_WRITE);
}

void Connection::RepairIfPossible() {
  if (database_->coordinator().failure() != 0 && !IsWriting()) TryRollBack();
}

int Connection::FailFlush(int error, std::chrono::milliseconds patience) {
  return IsWriting() ? AsIoError(error) : Fail(AsIoError(error), patience);
}

int Connection::AwaitFlusher(Lsn target, int timeout_ms) {
  const int64_t deadline = database_->clock().NowNanos() + timeout_ms * kNanosPerMilli;
  Coordinator& coordinator = database_->coordinator();
  const uint64_t failures = coordinator.failures();
  // It is stopped as the last log is closed: by another connection, and so we have none.
  if (!database_->flusher().SyncNow()) return SyncWithoutLog(target);
  const std::optional<int> outcome = coordinator.WaitSyncedUntil(target, failures, deadline);
  if (!outcome) return SQLITE_BUSY;
  return *outcome == SQLITE_OK ? SQLITE_OK : FailFlush(*outcome, std::chrono::milliseconds(0));
}

// This connection has not yet read anything, and so not opened the log; others may have written to
// it, of this process or another one.
int Connection::SyncWithoutLog(Lsn target) {
  std::unique_ptr<LogHandle> log;
  int rc = OpenUnreadLog(&log);
  if (rc != SQLITE_OK || log == nullptr) return rc;
  rc = database_->coordinator().WaitSynced(target, log.get());
  log.reset();
  return rc == SQLITE_OK ? rc : FailFlush(rc, kPatience);
}

// Leaves *log empty if there is none, as all that was committed is in the database, and synced.
int Connection::OpenUnreadLog(std::unique_ptr<LogHandle>* log) {
  // The file format, of which 2 means WAL (fileformat2.html, 1.3).
  constexpr int kFormatOffset = 18;
  constexpr uint8_t kWalFormat = 2;
  uint8_t format[2] = {};
  SharedFileLock lock;
  int rc = has_file_lock_ ? SQLITE_OK : lock.Take(main_);
  if (rc != SQLITE_OK) return rc;
  rc = main_->pMethods->xRead(main_, format, sizeof(format), kFormatOffset);
  if (rc == SQLITE_IOERR_SHORT_READ) return SQLITE_OK;  // nothing was ever committed
  if (rc != SQLITE_OK) return rc;
  if (format[0] != kWalFormat) return SQLITE_ERROR;
  return LogHandle::Open(name_, database_, std::move(lock), log);
}

// What was left to the flusher does not stay behind.
void Connection::FlushAtClose() {
  Coordinator& coordinator = database_->coordinator();
  if (log_ == nullptr || !database_->flusher().is_running()) return;
  (void)TakeFlusherError();
  RepairIfPossible();
  const int rc = coordinator.WaitSynced(last_commit_, this);
  if (rc == SQLITE_OK) return;
  if (!IsWriting()) RollBackOrCloseHole();
  sqlite3_log(rc, "groupcommit: the last commits could not be made durable: %s",
              database_->path().c_str());
}

}  // namespace groupcommit
