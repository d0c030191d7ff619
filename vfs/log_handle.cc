#include "log_handle.h"

#include <cstddef>
#include <vector>

namespace groupcommit {
namespace {

// A copy of the names of database and log that outlives the connection's, or null.
const char* CopyNames(const char* name) {
  std::vector<const char*> parameters;
  for (int i = 0; const char* key = sqlite3_uri_key(name, i); i++) {
    parameters.push_back(key);
    parameters.push_back(sqlite3_uri_parameter(name, key));
  }
  return sqlite3_create_filename(name, sqlite3_filename_journal(name), sqlite3_filename_wal(name),
                                 static_cast<int>(parameters.size() / 2), parameters.data());
}

sqlite3_file* AsFile(const std::unique_ptr<char[]>& memory) {
  return reinterpret_cast<sqlite3_file*>(memory.get());
}

}  // namespace

int LogHandle::Open(sqlite3_vfs* base, const char* name, Database* database,
                    std::unique_ptr<LogHandle>* handle) {
  int exists = 0;
  int rc = base->xAccess(base, sqlite3_filename_wal(name), SQLITE_ACCESS_EXISTS, &exists);
  if (rc != SQLITE_OK || exists == 0) return rc;
  std::unique_ptr<LogHandle> opened(new LogHandle(database));
  opened->name_ = CopyNames(name);
  if (opened->name_ == nullptr) return SQLITE_NOMEM;
  opened->file_ = std::make_unique<char[]>(static_cast<size_t>(base->szOsFile));
  int opened_as = 0;
  rc = base->xOpen(base, sqlite3_filename_wal(opened->name_), AsFile(opened->file_),
                   SQLITE_OPEN_READWRITE | SQLITE_OPEN_WAL, &opened_as);
  if (rc == SQLITE_OK) *handle = std::move(opened);
  return rc;
}

LogHandle::~LogHandle() {
  sqlite3_file* file = AsFile(file_);
  if (file != nullptr && file->pMethods != nullptr) file->pMethods->xClose(file);
  sqlite3_free_filename(name_);
}

int LogHandle::Sync(Lsn from, Lsn through) {
  sqlite3_file* file = AsFile(file_);
  MutexLock lock(mutex_);
  return file->pMethods->xSync(file, database_->SyncFlags(from, through, 0));
}

void LogHandle::Drain() {
  sqlite3_file* file = AsFile(file_);
  MutexLock lock(mutex_);
  (void)file->pMethods->xSync(file, SQLITE_SYNC_NORMAL);
}

}  // namespace groupcommit
