// WalFile: the log of a connection. This is where the sync of a commit is deferred, and where a
// reader waits.
#ifndef GROUPCOMMIT_WAL_FILE_H_
#define GROUPCOMMIT_WAL_FILE_H_

#include "file.h"
#include "main_file.h"

namespace groupcommit {

class WalFile final : public File {
 public:
  // `main` is the main file of the same connection; SQLite closes it after the log.
  WalFile(sqlite3_file* real, int64_t size, bool read_only, MainFile* main)
      : File(real), main_(main) {
    connection().database().AddLog(real, size);  // may throw std::bad_alloc
    connection().SetLog(real, read_only);
  }

  int Close() {
    if (!main_->inherited()) {
      connection().FlushAtClose();
      connection().database().RemoveLog(real_);
      connection().SetLog(nullptr, false);
    }
    return File::Close();
  }

  int Read(void* data, int size, sqlite3_int64 offset) {
    if (main_->inherited()) return File::Read(data, size, offset);
    int rc = connection().BeforeLogRead(size, offset);
    if (rc != SQLITE_OK) return rc;
    if (!connection().ReadFromMemory(data, size, offset)) {
      rc = connection().WriteFramesBeneath(size, offset);
      if (rc == SQLITE_OK) rc = File::Read(data, size, offset);
      if (rc != SQLITE_OK) return rc;
    }
    connection().OnPageRead(data, size);
    // The snapshot may have failed meanwhile, and its frames been overwritten.
    return connection().BeforeRead();
  }

  int Write(const void* data, int size, sqlite3_int64 offset) {
    if (main_->inherited()) return File::Write(data, size, offset);
    return connection().WriteLog(data, size, offset);
  }

  int Sync(int flags) {
    if (main_->inherited()) return File::Sync(flags);
    const int rc = connection().WriteFrames();
    return rc == SQLITE_OK ? connection().SyncLog(flags) : rc;
  }

  int Truncate(sqlite3_int64 size) {
    const int rc = WriteFrames();
    return rc == SQLITE_OK ? File::Truncate(size) : rc;
  }

  int FileSize(sqlite3_int64* size) {
    const int rc = WriteFrames();
    return rc == SQLITE_OK ? File::FileSize(size) : rc;
  }

  // What is true of our base is not of us: a shim above it has to let us see the frames.
  int FileControl(int op, void* arg) {
    if (op == GROUPCOMMIT_FCNTL_WRITES_MAY_BE_JOINED) return SQLITE_NOTFOUND;
    return File::FileControl(op, arg);
  }

 private:
  Connection& connection() { return main_->connection(); }
  // What has been gathered goes to the log before anything else is done to that.
  int WriteFrames() { return main_->inherited() ? SQLITE_OK : connection().WriteFrames(); }

  MainFile* const main_;
};

}  // namespace groupcommit

#endif  // GROUPCOMMIT_WAL_FILE_H_
