// LogHandle: a handle of our own on the log of a database, for whoever has no connection to sync
// it through. (On the log only: closing one on the database file or on the shared memory would drop
// all POSIX locks that the process has on it.)
#ifndef GROUPCOMMIT_LOG_HANDLE_H_
#define GROUPCOMMIT_LOG_HANDLE_H_

#include <memory>

#include "database.h"
#include "flusher.h"
#include "mutex.h"
#include "sqlite.h"

namespace groupcommit {

class LogHandle final : public Flusher::Log {
 public:
  // Opens the log of `database` through the VFS `base`. `name` is the database's, as SQLite passed
  // it to xOpen; its URI parameters are handed on. Returns SQLITE_OK, and null in *handle if there
  // is no log; or an error. May throw std::bad_alloc.
  static int Open(sqlite3_vfs* base, const char* name, Database* database,
                  std::unique_ptr<LogHandle>* handle);
  ~LogHandle() override;
  LogHandle(const LogHandle&) = delete;
  LogHandle& operator=(const LogHandle&) = delete;

  int Sync(Lsn from, Lsn through) override EXCLUDES(mutex_);
  void Drain() override EXCLUDES(mutex_);

 private:
  explicit LogHandle(Database* database) : database_(database) {}

  Database* const database_;
  Mutex mutex_;                   // one thread at a time uses the file
  const char* name_ = nullptr;    // the base VFS goes on using it
  std::unique_ptr<char[]> file_;  // the base VFS's sqlite3_file
};

}  // namespace groupcommit

#endif  // GROUPCOMMIT_LOG_HANDLE_H_
