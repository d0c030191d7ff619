// Mixes: what a transaction of the workload writes.
#ifndef GROUPCOMMIT_BENCH_MIX_H_
#define GROUPCOMMIT_BENCH_MIX_H_

#include <sqlite3.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "sqlite_handle.h"

namespace groupcommit::bench {

enum class Mix : uint8_t {
  kInsert,          // A row of 100 bytes, behind the writer's others in a primary key.
  kAppend,          // The same behind all others: what SQLite does with a new INTEGER PRIMARY KEY.
  kTwoTables,       // The same, and a count in another table, in one explicit transaction.
  kBlob,            // A row of 10 KB: three pages of the log and more.
  kHotRow,          // Everybody counts up the same row.
  kUneven,          // As kInsert; every other writer pauses after each commit.
  kBursts,          // As kInsert; all writers pause at the same times.
  kReaders,         // As kInsert by every tenth connection; the others read any row.
  kReadersPaced,    // The same, but the writers pause: as many commits whatever a commit takes.
  kReadersOfNewest  // The same, but they read the newest row: the least likely to be durable yet.
};

inline constexpr Mix kAllMixes[] = {
    Mix::kInsert, Mix::kAppend, Mix::kTwoTables, Mix::kBlob,         Mix::kHotRow,
    Mix::kUneven, Mix::kBursts, Mix::kReaders,   Mix::kReadersPaced, Mix::kReadersOfNewest};

const char* NameOf(Mix mix);

// How long a writer waits after a commit that ended `elapsed` after the beginning of the run.
std::chrono::nanoseconds PauseOf(Mix mix, int writer, std::chrono::nanoseconds elapsed);

// How many of the connections write, at least 1; the others read.
int WritersOf(Mix mix, int connections);

// What a client has committed: writer w commits the rows 0, 1, 2 ...
struct Row {
  int64_t writer;
  int64_t seq;
  std::span<const unsigned char> payload;
};

size_t PayloadSizeOf(Mix mix);

// A different content for each row, so that a page in the wrong place cannot go unnoticed.
void FillPayload(int64_t writer, int64_t seq, std::span<unsigned char> payload);

// Makes the tables of `mix` in an empty database. Throws std::runtime_error.
void CreateTables(Mix mix, sqlite3* db, int writers);

// The statements of a mix on one connection. Each returns SQLite's result code, and leaves no
// transaction open when it is an error; error() is SQLite's message then.
class Transaction {
 public:
  // The tables must be there. Throws std::runtime_error. `db` must outlive the object.
  Transaction(Mix mix, sqlite3* db);

  // One row, one transaction.
  int Commit(const Row& row);

  // As many rows as there are, one transaction.
  int CommitAll(std::span<const Row* const> rows);

  const std::string& error() const { return error_; }

 private:
  int Write(const Row& row);
  int End(int rc);

  sqlite3* const db_;
  const Statement begin_;
  const Statement commit_;
  const Statement roll_back_;
  const Statement write_;
  const Statement count_;  // The second statement of kTwoTables, else null.
  std::string error_;
};

}  // namespace groupcommit::bench

#endif  // GROUPCOMMIT_BENCH_MIX_H_
