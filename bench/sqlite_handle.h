// SQLite's handles with an owner, and its errors as exceptions.
#ifndef GROUPCOMMIT_BENCH_SQLITE_HANDLE_H_
#define GROUPCOMMIT_BENCH_SQLITE_HANDLE_H_

#include <sqlite3.h>

#include <memory>
#include <string>

namespace groupcommit::bench {

struct CloseConnection {
  void operator()(sqlite3* db) const { sqlite3_close_v2(db); }
};
using Connection = std::unique_ptr<sqlite3, CloseConnection>;

struct FinalizeStatement {
  void operator()(sqlite3_stmt* statement) const { sqlite3_finalize(statement); }
};
using Statement = std::unique_ptr<sqlite3_stmt, FinalizeStatement>;

// Throws std::runtime_error: `what`, and SQLite's message.
[[noreturn]] void ThrowError(sqlite3* db, const std::string& what);

// These throw it if SQLite refuses. `uri` as SQLite reads it, `flags` as for sqlite3_open_v2().
Connection Open(const std::string& uri, int flags);
void Execute(sqlite3* db, const std::string& sql);
Statement Prepare(sqlite3* db, const std::string& sql);

// Steps once and resets. For a statement that returns no rows; the result is the transaction's.
int Run(sqlite3_stmt* statement);

// The URI of the file `path`; `vfs` and `parameters` ("a=1&b=2") may be empty.
std::string UriOf(const std::string& path, const std::string& vfs = "",
                  const std::string& parameters = "");

}  // namespace groupcommit::bench

#endif  // GROUPCOMMIT_BENCH_SQLITE_HANDLE_H_
