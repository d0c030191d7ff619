// MainFile: the database file of a connection. Locks, the end of a commit, pragmas.
#ifndef GROUPCOMMIT_MAIN_FILE_H_
#define GROUPCOMMIT_MAIN_FILE_H_

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "connection.h"
#include "database.h"
#include "file.h"
#include "process.h"

namespace groupcommit {

// A file control of our own; SQLite's are below 100. The one who asks may have been built with
// another version of the library than the one who answers.
inline constexpr int kFcntlStatistics = 0x47430001;
struct StatisticsRequest {
  void* out;
  size_t size;  // bytes at `out`
};

inline constexpr int kFcntlFlush = 0x47430002;  // no argument
inline constexpr int kFcntlWait = 0x47430003;
struct WaitRequest {
  Lsn lsn;
  int timeout_ms;
};
inline constexpr int kFcntlLsns = 0x47430004;  // the next ones: groupcommit.h, connection.h
struct Lsns {
  Lsn commit;   // the connection's last one
  Lsn durable;  // the database's
};

class MainFile final : public File {
 public:
  // `name` is what SQLite passed to xOpen; `open_files` counts the files that are open through the
  // VFS.
  MainFile(sqlite3_file* real, const sqlite3_vfs* vfs, const char* name, Database* database,
           std::atomic<int>* open_files);
  ~MainFile();

  // The main file of the connection whose log `vfs` opens as `wal_name`, or null: the main file was
  // opened through another VFS, say.
  static MainFile* OfLog(const sqlite3_vfs* vfs, const char* wal_name);
  Connection& connection() { return connection_; }

  // Was this file opened before a fork(), in the parent? Then its connection's state is the
  // parent's.
  bool inherited() const { return fork_generation_ != ForkGeneration(); }

  // Hidden functions of File.
  int Close();
  int Read(void* data, int size, sqlite3_int64 offset);
  int Lock(int level);
  int Unlock(int level);
  int FileControl(int op, void* arg);
  int ShmMap(int region, int size, int extend, void volatile** out);
  int ShmLock(int offset, int n, int flags);
  int ShmUnmap(int delete_it);
  int Fetch(sqlite3_int64 offset, int size, void** out);

 private:
  const sqlite3_vfs* const vfs_;
  const char* const name_;
  std::atomic<int>* const open_files_;
  const uint64_t fork_generation_ = ForkGeneration();
  Connection connection_;
  MainFile* next_ = nullptr;  // in the table of all main files
};

}  // namespace groupcommit

#endif  // GROUPCOMMIT_MAIN_FILE_H_
