#include "log_handle.h"

#include <chrono>
#include <new>
#include <optional>
#include <thread>
#include <utility>

namespace groupcommit {

int SharedFileLock::Take(sqlite3_file* main) {
  constexpr std::chrono::milliseconds kPatience(1000);
  constexpr std::chrono::milliseconds kPoll(1);
  const auto deadline = std::chrono::steady_clock::now() + kPatience;
  int rc;
  while ((rc = main->pMethods->xLock(main, SQLITE_LOCK_SHARED)) == SQLITE_BUSY &&
         std::chrono::steady_clock::now() < deadline) {
    std::this_thread::sleep_for(kPoll);
  }
  if (rc == SQLITE_OK) main_ = main;
  return rc;
}

int LogHandle::Open(const char* name, Database* database, SharedFileLock lock,
                    std::unique_ptr<LogHandle>* handle) {
  sqlite3_vfs* base = database->base();
  const char* log_name = sqlite3_filename_wal(name);
  int exists = 0;
  int rc = base->xAccess(base, log_name, SQLITE_ACCESS_EXISTS, &exists);
  if (rc != SQLITE_OK || exists == 0) return rc;
  std::unique_ptr<LogHandle> opened;
  try {
    opened.reset(new LogHandle(database, std::move(lock), base->szOsFile));
  } catch (const std::bad_alloc&) {
    return SQLITE_NOMEM;
  }
  int opened_as = 0;
  // As wal.c: sqlite3WalOpen() does: only then xSync is one of the directory, too, as it has to be
  // if another process has made the log, and not synced it (os_unix.c: UNIXFILE_DIRSYNC).
  rc = base->xOpen(base, log_name, opened->file(),
                   SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_WAL, &opened_as);
  if (rc == SQLITE_OK) *handle = std::move(opened);
  return rc;
}

LogHandle::~LogHandle() {
  if (file()->pMethods != nullptr) file()->pMethods->xClose(file());
}

int LogHandle::Sync(Lsn from, Lsn through) {
  const std::optional<int> synced = database_->SyncOpenLog(from, through, 0);
  return synced ? *synced : file()->pMethods->xSync(file(), database_->SyncFlags(from, through, 0));
}

}  // namespace groupcommit
