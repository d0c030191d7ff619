// LogHandle: a handle on the log of a database for a connection that has not opened it, for as long
// as it waits for commits of others.
#ifndef GROUPCOMMIT_LOG_HANDLE_H_
#define GROUPCOMMIT_LOG_HANDLE_H_

#include <memory>
#include <utility>

#include "coordinator.h"
#include "database.h"
#include "sqlite.h"

namespace groupcommit {

// The lock of who reads the database file, without which nobody may open the log: another process
// could leave WAL mode meanwhile, and others would take the log that is made for theirs (wal.c:
// sqlite3WalOpen()).
class SharedFileLock {
 public:
  SharedFileLock() = default;
  ~SharedFileLock() {
    if (main_ != nullptr) main_->pMethods->xUnlock(main_, SQLITE_LOCK_NONE);
  }
  SharedFileLock(SharedFileLock&& other) noexcept : main_(std::exchange(other.main_, nullptr)) {}
  SharedFileLock& operator=(SharedFileLock&&) = delete;

  // REQUIRES: nobody has a lock through `main`. SQLITE_BUSY: somebody has it for himself, for
  // longer than it takes to close.
  int Take(sqlite3_file* main);

 private:
  sqlite3_file* main_ = nullptr;
};

class LogHandle final : public Coordinator::Log {
 public:
  // Opens the log of `database` through its base VFS. `name` is the database's, as SQLite passed it
  // to xOpen. (Not a copy: with it, the base VFS finds the main file, see
  // sqlite3_database_file_object().) Returns SQLITE_OK, and null in *handle if there is no log; or
  // an error.
  static int Open(const char* name, Database* database, SharedFileLock lock,
                  std::unique_ptr<LogHandle>* handle);
  ~LogHandle();
  LogHandle(const LogHandle&) = delete;
  LogHandle& operator=(const LogHandle&) = delete;

  // Through this handle only if no connection of the process has the log open.
  int Sync(Lsn from, Lsn through) override;

 private:
  LogHandle(Database* database, SharedFileLock lock, int file_size)
      : database_(database),
        lock_(std::move(lock)),
        file_(std::make_unique<char[]>(static_cast<size_t>(file_size))) {}
  sqlite3_file* file() const { return reinterpret_cast<sqlite3_file*>(file_.get()); }

  Database* const database_;
  const SharedFileLock lock_;
  const std::unique_ptr<char[]> file_;  // the base VFS's sqlite3_file
};

}  // namespace groupcommit

#endif  // GROUPCOMMIT_LOG_HANDLE_H_
