// cpp_app.cc -- group commit from C++.
//
// Eight threads, each with a connection of its own, commit 100 rows each. Every COMMIT is durable
// when it returns, yet the log is synced far fewer than 800 times: threads that commit at the same
// moment share one sync.
//
//   build/examples/cpp_app          a new database in a temporary directory, removed at the end
//   build/examples/cpp_app FILE     a new database FILE, which is kept
#include <groupcommit.h>
#include <sqlite3.h>
#include <stdlib.h>

#include <array>
#include <cstdio>
#include <filesystem>
#include <future>
#include <memory>
#include <stdexcept>
#include <string>

namespace {

constexpr size_t kThreads = 8;
constexpr int kCommitsPerThread = 100;

struct Closer {
  void operator()(sqlite3* db) const { sqlite3_close(db); }
};
using Connection = std::unique_ptr<sqlite3, Closer>;

void Check(int rc, const std::string& what) {
  if (rc != SQLITE_OK) throw std::runtime_error(what + ": " + sqlite3_errstr(rc));
}

void Exec(sqlite3* db, const char* sql) {
  if (sqlite3_exec(db, sql, nullptr, nullptr, nullptr) != SQLITE_OK) {
    throw std::runtime_error(std::string(sql) + ": " + sqlite3_errmsg(db));
  }
}

// The first column of the first row, as text.
std::string QueryValue(sqlite3* db, const char* sql) {
  sqlite3_stmt* prepared = nullptr;
  Check(sqlite3_prepare_v2(db, sql, -1, &prepared, nullptr), sql);
  const std::unique_ptr<sqlite3_stmt, decltype(&sqlite3_finalize)> stmt(prepared, sqlite3_finalize);
  if (sqlite3_step(stmt.get()) != SQLITE_ROW) {
    throw std::runtime_error(std::string(sql) + ": " + sqlite3_errmsg(db));
  }
  const unsigned char* text = sqlite3_column_text(stmt.get(), 0);
  return text != nullptr ? reinterpret_cast<const char*>(text) : "";
}

Connection Open(const std::string& path) {
  sqlite3* opened = nullptr;
  // The last argument is all that an application changes.
  const int rc = sqlite3_open_v2(path.c_str(), &opened, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE,
                                 GROUPCOMMIT_VFS_NAME);
  Connection db(opened);  // to be closed even if opening it failed
  Check(rc, "open " + path);
  // Writers still take turns for the write lock, so each needs some patience.
  Check(sqlite3_busy_timeout(db.get(), 30000), "busy_timeout");
  // The database remembers journal_mode; synchronous is a setting of each connection. Only FULL (or
  // EXTRA) asks for a sync at every COMMIT, and so only then is there anything to share.
  Exec(db.get(), "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL");
  return db;
}

void CommitRows(const std::string& path, size_t writer) {
  const Connection db = Open(path);
  const std::string insert = "INSERT INTO entry(writer) VALUES(" + std::to_string(writer) + ")";
  // Outside BEGIN ... COMMIT, each statement is a transaction, and commits.
  for (int i = 0; i < kCommitsPerThread; i++) Exec(db.get(), insert.c_str());
}

void Run(const std::string& path) {
  // Once in the life of the process, before the first open.
  Check(groupcommit_register(nullptr, nullptr, /*makeDefault=*/0, nullptr), "groupcommit_register");

  // This connection stays open to the end: the statistics of a database are counted from its first
  // connection until its last one closes.
  const Connection db = Open(path);
  Exec(db.get(), "CREATE TABLE entry(id INTEGER PRIMARY KEY, writer INTEGER NOT NULL)");

  std::array<std::future<void>, kThreads> writers;
  for (size_t i = 0; i < kThreads; i++) {
    writers[i] = std::async(std::launch::async, CommitRows, path, i);
  }
  for (std::future<void>& writer : writers) writer.get();  // throws what the thread threw

  groupcommit_statistics stats = {};
  Check(groupcommit_stats(db.get(), "main", &stats, sizeof(stats)), "groupcommit_stats");
  std::printf("rows     %s\n", QueryValue(db.get(), "SELECT count(*) FROM entry").c_str());
  std::printf("commits  %lld\n", stats.commits);
  std::printf("syncs    %lld\n", stats.syncs);
  std::printf("policy   %s\n", QueryValue(db.get(), "PRAGMA groupcommit_policy").c_str());
}

// A directory that is removed, with what is in it, at the end.
class TemporaryDirectory {
 public:
  TemporaryDirectory() {
    std::string name = std::filesystem::temp_directory_path() / "groupcommit-XXXXXX";
    if (mkdtemp(name.data()) == nullptr) throw std::runtime_error("cannot create " + name);
    path_ = name;
  }
  ~TemporaryDirectory() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;

  std::string File(const char* name) const { return path_ / name; }

 private:
  std::filesystem::path path_;
};

}  // namespace

int main(int argc, char** argv) {
  try {
    if (argc > 1) {
      Run(argv[1]);
    } else {
      const TemporaryDirectory directory;
      Run(directory.File("app.db"));
    }
  } catch (const std::exception& error) {
    std::fprintf(stderr, "cpp_app: %s\n", error.what());
    return 1;
  }
  return 0;
}
