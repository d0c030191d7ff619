#include "main_file.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>

#include "pragma.h"

namespace groupcommit {
namespace {

// All main files that are open through this library, by the address of the name that SQLite has
// passed: a log finds the one of its own connection among them. (sqlite3_database_file_object()
// would find the file of a shim above us instead.) This is the first one of those that share a
// place in a table, as there may be thousands.
MainFile*& FirstMainFile(const char* name) REQUIRES(ProcessMutex()) {
  constexpr int kBits = 8;
  static std::array<MainFile*, 1 << kBits> first{};
  constexpr uint64_t kGoldenRatio = 0x9E3779B97F4A7C15;  // spreads what is a multiple of something
  const uint64_t hash = reinterpret_cast<uintptr_t>(name) * kGoldenRatio;
  return first[hash >> (64 - kBits)];
}

}  // namespace

MainFile::MainFile(sqlite3_file* real, const sqlite3_vfs* vfs, const char* name, Database* database,
                   std::atomic<int>* open_files)
    : File(real),
      vfs_(vfs),
      name_(name),
      open_files_(open_files),
      connection_(database, real, name) {
  open_files_->fetch_add(1, std::memory_order_relaxed);
  MutexLock lock(ProcessMutex());
  MainFile*& first = FirstMainFile(name_);
  next_ = first;
  first = this;
}

MainFile::~MainFile() {
  open_files_->fetch_sub(1, std::memory_order_relaxed);
  MutexLock lock(ProcessMutex());
  MainFile** link = &FirstMainFile(name_);
  while (*link != this) link = &(*link)->next_;
  *link = next_;
}

MainFile* MainFile::OfLog(const sqlite3_vfs* vfs, const char* wal_name) {
  // pager.c: sqlite3PagerOpen() keeps the names of a database and of its log in one allocation, so
  // that the pointer itself identifies the connection.
  const char* database_name = sqlite3_filename_database(wal_name);
  MutexLock lock(ProcessMutex());
  MainFile* file = FirstMainFile(database_name);
  // Where a shim lies over another one, by way of a VFS that is none, it leaves the log to that.
  while (file != nullptr && (file->name_ != database_name || file->vfs_ != vfs)) file = file->next_;
  return file;
}

int MainFile::Close() {
  if (!inherited()) {
    connection_.LeaveQueue();
    connection_.database().Leave(real_);
  }
  return File::Close();
}

int MainFile::Read(void* data, int size, sqlite3_int64 offset) {
  if (!inherited()) {
    const int refused = connection_.BeforeRead();
    if (refused != SQLITE_OK) return refused;
  }
  const int rc = File::Read(data, size, offset);
  if (rc == SQLITE_OK && offset == 0 && !inherited()) connection_.OnPageRead(data, size);
  return rc;
}

int MainFile::Lock(int level) {
  const int rc = File::Lock(level);
  if (rc == SQLITE_OK) connection_.SetHasFileLock(true);
  // SQLite closes the log, and others have the database open (wal.c: sqlite3WalClose()). What the
  // unix VFS of 3.40 has got instead, SQLITE_LOCK_PENDING, lets nobody open it until this file is
  // closed, too. With stock SQLite that is a moment; but we may have a sync to wait for, and those
  // who share one close, and open again, all at once.
  if (rc == SQLITE_BUSY && level == SQLITE_LOCK_EXCLUSIVE && connection_.has_log()) {
    (void)File::Unlock(SQLITE_LOCK_SHARED);
  }
  if (rc != SQLITE_OK || level != SQLITE_LOCK_EXCLUSIVE || inherited()) return rc;
  const bool had_it = connection_.is_sole_user();
  connection_.SetSoleUser(true);
  const int refused = connection_.RepairForSoleUser();
  // In exclusive locking mode SQLite asks for it once more as it closes the log, and keeps it.
  if (refused != SQLITE_OK && !had_it) (void)Unlock(SQLITE_LOCK_SHARED);
  return refused;
}

int MainFile::Unlock(int level) {
  if (!inherited()) connection_.SetSoleUser(false);
  if (level == SQLITE_LOCK_NONE) connection_.SetHasFileLock(false);
  return File::Unlock(level);
}

int MainFile::FileControl(int op, void* arg) {
  if (inherited()) return File::FileControl(op, arg);
  switch (op) {
    case SQLITE_FCNTL_COMMIT_PHASETWO: {
      // The write lock is released, the commit is visible, COMMIT has not returned: here we wait.
      // An error fails the COMMIT (pager.c: pager_end_transaction()).
      const int waited = connection_.WaitForCommit();
      const int rc = File::FileControl(op, arg);
      return waited != SQLITE_OK ? waited : rc;
    }
    case SQLITE_FCNTL_SYNC: {
      const int rc = connection_.BeforePublishingSeveral();
      return rc != SQLITE_OK ? rc : File::FileControl(op, arg);
    }
    case SQLITE_FCNTL_PDB:
      connection_.SetDb(static_cast<sqlite3**>(arg));
      return File::FileControl(op, arg);
    case SQLITE_FCNTL_BUSYHANDLER: {
      void** handler = static_cast<void**>(arg);
      connection_.SetBusyHandler(reinterpret_cast<int (*)(void*)>(handler[0]), handler[1]);
      return File::FileControl(op, arg);
    }
    case SQLITE_FCNTL_LOCK_TIMEOUT:
      return connection_.SetLockTimeout(static_cast<int*>(arg));
    case kFcntlOnPragma:
      connection_.OnPragma();
      return SQLITE_OK;
    case SQLITE_FCNTL_PRAGMA: {
      connection_.OnPragmaOfAll();
      const int rc = RunPragma(&connection_, static_cast<char**>(arg));
      return rc != SQLITE_NOTFOUND ? rc : File::FileControl(op, arg);
    }
    case SQLITE_FCNTL_VFSNAME: {
      const int rc = File::FileControl(op, arg);
      char** name = static_cast<char**>(arg);
      if (rc == SQLITE_OK) *name = sqlite3_mprintf("%s/%z", GROUPCOMMIT_VFS_NAME, *name);
      return rc;
    }
    case kFcntlStatistics: {
      const auto* request = static_cast<const StatisticsRequest*>(arg);
      const groupcommit_statistics stats = connection_.database().ReadStatistics();
      std::memcpy(request->out, &stats, std::min(request->size, sizeof(stats)));
      return SQLITE_OK;
    }
    case kFcntlWaitForBeneath:
      return connection_.WaitForBeneath();
    case kFcntlFlush:
      return connection_.Flush();
    case kFcntlWait: {
      const auto* request = static_cast<const WaitRequest*>(arg);
      return connection_.WaitSynced(request->lsn, request->timeout_ms);
    }
    case kFcntlLsns: {
      auto* lsns = static_cast<Lsns*>(arg);
      lsns->commit = connection_.last_commit();
      lsns->durable = connection_.database().coordinator().synced();
      return SQLITE_OK;
    }
    default:
      return File::FileControl(op, arg);
  }
}

int MainFile::ShmMap(int region, int size, int extend, void volatile** out) {
  const int rc = File::ShmMap(region, size, extend, out);
  // The first region begins with the wal-index header. A null pointer is not an error: the region
  // does not exist yet, and SQLite asked not to create it.
  if (region == 0 && rc == SQLITE_OK) connection_.SetWalIndex(*out, true);
  return rc;
}

int MainFile::ShmLock(int offset, int n, int flags) {
  // SQLite opens the log before it asks for a lock (wal.c: sqlite3WalOpen()). If we have not seen
  // that, a VFS above us has opened it by a name that is another than that of our file, and the
  // connection commits as one that does not use this VFS.
  if (inherited() || !connection_.has_log()) return File::ShmLock(offset, n, flags);
  return connection_.ShmLock(offset, n, flags);
}

int MainFile::Fetch(sqlite3_int64 offset, int size, void** out) {
  const int refused = inherited() ? SQLITE_OK : connection_.BeforeRead();
  if (refused == SQLITE_OK) return File::Fetch(offset, size, out);
  *out = nullptr;
  return refused;
}

int MainFile::ShmUnmap(int delete_it) {
  if (!inherited()) {
    connection_.FlushAtClose();
    connection_.LeaveFence();
    connection_.SetWalIndex(nullptr, false);
  }
  return File::ShmUnmap(delete_it);
}

}  // namespace groupcommit
