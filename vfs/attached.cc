// Connection: transactions over several databases.
#include "connection.h"

namespace groupcommit {

// Does the transaction write to this database only? With several, SQLite publishes all of them
// before the first can fail, and vdbeaux.c: vdbeCommit() ignores an error after the super-journal
// is gone. The temporary database does not count beside main, whose COMMIT_PHASETWO comes first: if
// that fails, SQLite rolls the temporary one back. (BEGIN IMMEDIATE opens a write transaction on it
// as soon as it has been used at all.)
bool Connection::WritesOneDatabase() const {
  constexpr int kTemp = 1;
  sqlite3* const db = Db();
  if (db == nullptr) return false;
  int written = 0;
  for (int i = 0; const char* schema = sqlite3_db_name(db, i); i++) {
    if (sqlite3_txn_state(db, schema) != SQLITE_TXN_WRITE) continue;
    if (i != kTemp || written == 0) written++;
  }
  return written == 1;
}

// May the transaction span several databases? With those in WAL mode, the others are visible by the
// time that COMMIT_PHASETWO comes.
bool Connection::HasAttached() const {
  constexpr int kFirstAttached = 2;
  sqlite3* const db = Db();
  return db == nullptr || sqlite3_db_name(db, kFirstAttached) != nullptr;
}

void Connection::OnPragmaOfAll() {
  OnPragma();
  sqlite3* const db = Db();
  if (db == nullptr || !HasAttached()) return;
  for (int i = 0; const char* schema = sqlite3_db_name(db, i); i++) {
    (void)sqlite3_file_control(db, schema, kFcntlOnPragma, nullptr);
  }
}

// The page of a commit frame is about to be written; or, of a database with a rollback journal, all
// has been written but its file is not synced yet (pager.c: sqlite3PagerSync()). Without a sync
// (synchronous=NORMAL) SQLite publishes the commit next, and then those of the other databases,
// before COMMIT_PHASETWO can fail the first of them; and beside a super-journal that error is
// ignored (see WritesOneDatabase()). So nothing is published before all that any of them builds on
// is durable: SQLite holds the write locks of all, so that no more of it can come.
int Connection::BeforePublishingSeveral() {
  if (!HasAttached() || WritesOneDatabase()) return SQLITE_OK;
  sqlite3* const db = Db();
  if (db == nullptr) return WaitForBeneath();
  for (int i = 0; const char* schema = sqlite3_db_name(db, i); i++) {
    if (sqlite3_txn_state(db, schema) != SQLITE_TXN_WRITE) continue;
    const int rc = sqlite3_file_control(db, schema, kFcntlWaitForBeneath, nullptr);
    if ((rc & 0xff) == SQLITE_IOERR) return rc;  // else it has not failed, or is not ours to ask
  }
  return SQLITE_OK;
}

int Connection::WaitForBeneath() {
  Coordinator& coordinator = database_->coordinator();
  if (!Holds(kWriteLock)) return SQLITE_OK;
  if (coordinator.failure() != 0) return kCommitFailed;
  if (coordinator.AllDurable()) return SQLITE_OK;
  // Frames that were found in the log are not taken back.
  if (!database_->commits().Get(coordinator.appended()).can_undo) return SQLITE_OK;
  // At once: no company comes while we have the write lock.
  const int rc = coordinator.SyncNow(this, failures_at_lock_);
  return rc == SQLITE_OK ? rc : AsIoError(rc);
}

}  // namespace groupcommit
