// Small helpers for tests that use SQLite.
#ifndef GROUPCOMMIT_TESTS_SUPPORT_SQLITE_HELPERS_H_
#define GROUPCOMMIT_TESTS_SUPPORT_SQLITE_HELPERS_H_

#include <sqlite3.h>

#include <cstdint>
#include <memory>
#include <string>

namespace groupcommit::testing {

inline constexpr int kOpenCreate = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_URI;

// A connection.  What fails in a call that cannot return it is reported as a
// failure of the test, at the caller's line.
class Db {
 public:
  // No connection yet.
  Db() = default;

  // Opens `path` (or a file: URI) and expects success.  `vfs` null is the default
  // VFS.  Waits 10 s for locks; see SetBusyTimeout().
  explicit Db(const std::string& path, const char* vfs = nullptr, int flags = kOpenCreate,
              const char* file = __builtin_FILE(), int line = __builtin_LINE());

  // Opens and returns the result code; closes what was open.
  int Open(const std::string& path, const char* vfs = nullptr, int flags = kOpenCreate);

  // Closes and returns the result code; SQLITE_OK if there was nothing to close.
  int Close();

  // Runs all statements of `sql`, without their rows, up to the first that fails.
  int Exec(const std::string& sql);
  void ExecOk(const std::string& sql, const char* file = __builtin_FILE(),
              int line = __builtin_LINE());

  // The first column of the first row; -1 or "" and a failure if there is none.
  int64_t Int(const std::string& sql, const char* file = __builtin_FILE(),
              int line = __builtin_LINE());
  std::string Text(const std::string& sql, const char* file = __builtin_FILE(),
                   int line = __builtin_LINE());

  void SetBusyTimeout(int milliseconds);

  // Of the last call that failed.
  std::string Error() const;

  sqlite3* get() const { return db_.get(); }

 private:
  struct Closer {
    void operator()(sqlite3* db) const;
  };

  bool First(const std::string& sql, std::string* text, int64_t* number);

  std::unique_ptr<sqlite3, Closer> db_;
};

// A new directory on a real disk: in $TMPDIR if that is set, else in the current
// directory, else in /tmp.  Removed with all it holds at the end.
class TempDir {
 public:
  TempDir();
  ~TempDir();
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;

  const std::string& path() const { return path_; }
  // The path of `name` in it.
  std::string File(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

// Expects that stock SQLite opens the database and finds nothing wrong with it.
void ExpectIntact(const std::string& path, const char* file = __builtin_FILE(),
                  int line = __builtin_LINE());

// Was SQLite built with SQLITE_ENABLE_SETLK_TIMEOUT? Then it waits for locks in the VFS.
bool SqliteWaitsInside();

// False where the sqlite3 command-line shell is not installed.
bool HaveStockShell();

// Runs `sql` (statements and dot commands, a line each) with the sqlite3 shell on
// the database, in a process of its own, and returns what it prints, errors
// included.  `exit_status`, if not null, receives the shell's.
std::string StockShell(const std::string& path, const std::string& sql, int* exit_status = nullptr);

}  // namespace groupcommit::testing

#endif  // GROUPCOMMIT_TESTS_SUPPORT_SQLITE_HELPERS_H_
