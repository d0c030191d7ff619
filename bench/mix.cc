#include "mix.h"

#include <algorithm>
#include <cstring>

namespace groupcommit::bench {
namespace {

const char* WriteSql(Mix mix) {
  return mix == Mix::kHotRow ? "UPDATE hot SET n = n + 1 WHERE id = 0"
                             : "INSERT INTO t(writer, seq, payload) VALUES(?1, ?2, ?3)";
}

}  // namespace

const char* NameOf(Mix mix) {
  switch (mix) {
    case Mix::kInsert:
      return "insert";
    case Mix::kAppend:
      return "append";
    case Mix::kTwoTables:
      return "two_tables";
    case Mix::kBlob:
      return "blob_10kb";
    case Mix::kHotRow:
      return "hot_row";
    case Mix::kUneven:
      return "uneven";
    case Mix::kBursts:
      return "bursts";
    case Mix::kReaders:
      return "readers_90";
    case Mix::kReadersPaced:
      return "readers_90_paced";
    case Mix::kReadersOfNewest:
      return "readers_90_newest";
  }
  return "";
}

std::chrono::nanoseconds PauseOf(Mix mix, int writer, std::chrono::nanoseconds elapsed) {
  using std::chrono::milliseconds;
  constexpr milliseconds kBurst(20);
  switch (mix) {
    case Mix::kReadersPaced:
      return milliseconds(10);
    case Mix::kUneven:
      return milliseconds(writer % 2 == 0 ? 0 : 2);
    case Mix::kBursts: {
      const std::chrono::nanoseconds time = elapsed % (2 * kBurst);
      return time < kBurst ? std::chrono::nanoseconds(0) : 2 * kBurst - time;
    }
    default:
      return milliseconds(0);
  }
}

int WritersOf(Mix mix, int connections) {
  const bool some_read =
      mix == Mix::kReaders || mix == Mix::kReadersPaced || mix == Mix::kReadersOfNewest;
  return some_read ? std::max(connections / 10, 1) : connections;
}

size_t PayloadSizeOf(Mix mix) { return mix == Mix::kBlob ? 10'000 : 100; }

void FillPayload(int64_t writer, int64_t seq, std::span<unsigned char> payload) {
  auto state = (static_cast<uint64_t>(writer) << 40) ^ static_cast<uint64_t>(seq);
  for (size_t i = 0; i < payload.size(); i += sizeof(state)) {
    // SplitMix64.
    state += 0x9e3779b97f4a7c15;
    uint64_t mixed = (state ^ (state >> 30)) * 0xbf58476d1ce4e5b9;
    mixed = (mixed ^ (mixed >> 27)) * 0x94d049bb133111eb;
    mixed ^= mixed >> 31;
    std::memcpy(&payload[i], &mixed, std::min(sizeof(mixed), payload.size() - i));
  }
}

void CreateTables(Mix mix, sqlite3* db, int writers) {
  if (mix == Mix::kHotRow) {
    Execute(db, "CREATE TABLE hot(id INTEGER PRIMARY KEY, n INTEGER)");
    Execute(db, "INSERT INTO hot VALUES(0, 0)");
    return;
  }
  if (mix == Mix::kAppend) {
    Execute(db,
            "CREATE TABLE t(id INTEGER PRIMARY KEY, writer INTEGER, seq INTEGER, payload BLOB)");
    return;
  }
  Execute(db,
          "CREATE TABLE t(writer INTEGER, seq INTEGER, payload BLOB,"
          " PRIMARY KEY(writer, seq)) WITHOUT ROWID");
  if (mix == Mix::kTwoTables) {
    Execute(db, "CREATE TABLE totals(writer INTEGER PRIMARY KEY, n INTEGER)");
    Execute(db, "WITH RECURSIVE w(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM w WHERE i + 1 < " +
                    std::to_string(writers) + ") INSERT INTO totals SELECT i, 0 FROM w");
  }
}

Transaction::Transaction(Mix mix, sqlite3* db)
    : db_(db),
      // Not the plain BEGIN: a transaction that takes the write lock late has to be repeated by the
      // application whenever another one came in between.
      begin_(Prepare(db, "BEGIN IMMEDIATE")),
      commit_(Prepare(db, "COMMIT")),
      roll_back_(Prepare(db, "ROLLBACK")),
      write_(Prepare(db, WriteSql(mix))),
      count_(mix == Mix::kTwoTables ? Prepare(db, "UPDATE totals SET n = n + 1 WHERE writer = ?1")
                                    : nullptr) {}

int Transaction::Commit(const Row& row) {
  if (count_ != nullptr) {
    const Row* const rows[] = {&row};
    return CommitAll(rows);
  }
  return End(Write(row));
}

int Transaction::CommitAll(std::span<const Row* const> rows) {
  int rc = Run(begin_.get());
  for (const Row* row : rows) {
    if (rc != SQLITE_OK) break;
    rc = Write(*row);
  }
  if (rc == SQLITE_OK) rc = Run(commit_.get());
  return End(rc);
}

int Transaction::Write(const Row& row) {
  if (sqlite3_bind_parameter_count(write_.get()) > 0) {
    sqlite3_bind_int64(write_.get(), 1, row.writer);
    sqlite3_bind_int64(write_.get(), 2, row.seq);
    sqlite3_bind_blob(write_.get(), 3, row.payload.data(), static_cast<int>(row.payload.size()),
                      SQLITE_STATIC);
  }
  const int rc = Run(write_.get());
  if (rc != SQLITE_OK || count_ == nullptr) return rc;
  sqlite3_bind_int64(count_.get(), 1, row.writer);
  return Run(count_.get());
}

int Transaction::End(int rc) {
  if (rc == SQLITE_OK) return rc;
  error_ = sqlite3_errmsg(db_);
  if (sqlite3_get_autocommit(db_) == 0) Run(roll_back_.get());
  return rc;
}

}  // namespace groupcommit::bench
