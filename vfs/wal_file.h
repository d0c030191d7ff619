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
    main_->connection().database().AddLog(real, size);  // may throw std::bad_alloc
    main_->connection().SetLog(real, read_only);
  }

  int Close() {
    if (!main_->inherited()) {
      main_->connection().FlushAtClose();
      main_->connection().database().RemoveLog(real_);
      main_->connection().SetLog(nullptr, false);
    }
    return File::Close();
  }

  int Read(void* data, int size, sqlite3_int64 offset) {
    if (main_->inherited()) return File::Read(data, size, offset);
    int rc = main_->connection().BeforeLogRead(size, offset);
    if (rc != SQLITE_OK) return rc;
    if (!main_->connection().ReadFromMemory(data, size, offset)) {
      rc = main_->connection().WriteFramesBeneath(size, offset);
      if (rc == SQLITE_OK) rc = File::Read(data, size, offset);
      if (rc != SQLITE_OK) return rc;
    }
    main_->connection().OnPageRead(data, size);
    // The snapshot may have failed meanwhile, and its frames been overwritten.
    return main_->connection().BeforeRead();
  }

  int Write(const void* data, int size, sqlite3_int64 offset) {
    if (main_->inherited()) return File::Write(data, size, offset);
    return main_->connection().WriteLog(data, size, offset);
  }

  int Sync(int flags) {
    if (main_->inherited()) return File::Sync(flags);
    const int rc = main_->connection().WriteFrames();
    return rc == SQLITE_OK ? main_->connection().SyncLog(flags) : rc;
  }

  int Truncate(sqlite3_int64 size) {
    const int rc = main_->inherited() ? SQLITE_OK : main_->connection().WriteFrames();
    return rc == SQLITE_OK ? File::Truncate(size) : rc;
  }

  // What is true of our base is not of us: a shim above it has to let us see the frames.
  int FileControl(int op, void* arg) {
    if (op == GROUPCOMMIT_FCNTL_WRITES_MAY_BE_JOINED) return SQLITE_NOTFOUND;
    return File::FileControl(op, arg);
  }

  int FileSize(sqlite3_int64* size) {
    const int rc = main_->inherited() ? SQLITE_OK : main_->connection().WriteFrames();
    return rc == SQLITE_OK ? File::FileSize(size) : rc;
  }

 private:
  MainFile* const main_;
};

}  // namespace groupcommit

#endif  // GROUPCOMMIT_WAL_FILE_H_
