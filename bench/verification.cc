#include "verification.h"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <stdexcept>

#include "sqlite_handle.h"

namespace groupcommit::bench {
namespace {

std::string RowName(size_t writer, int64_t seq) {
  return "row " + std::to_string(seq) + " of writer " + std::to_string(writer);
}

// Each of these throws std::runtime_error at the first thing that is wrong.

void VerifyRows(sqlite3* db, Mix mix, const std::vector<int64_t>& acknowledged, int64_t* found) {
  const Statement select = Prepare(db, "SELECT writer, seq, payload FROM t ORDER BY writer, seq");
  std::vector<unsigned char> expected(PayloadSizeOf(mix));
  for (size_t writer = 0; writer < acknowledged.size(); ++writer) {
    for (int64_t seq = 0; seq < acknowledged[writer]; ++seq) {
      const int rc = sqlite3_step(select.get());
      if (rc != SQLITE_ROW && rc != SQLITE_DONE) ThrowError(db, "reading the rows");
      if (rc == SQLITE_DONE ||
          sqlite3_column_int64(select.get(), 0) != static_cast<int64_t>(writer) ||
          sqlite3_column_int64(select.get(), 1) != seq) {
        throw std::runtime_error(RowName(writer, seq) + " was acknowledged and is not there");
      }
      ++*found;
      FillPayload(static_cast<int64_t>(writer), seq, expected);
      const void* payload = sqlite3_column_blob(select.get(), 2);
      if (sqlite3_column_bytes(select.get(), 2) != static_cast<int>(expected.size()) ||
          std::memcmp(payload, expected.data(), expected.size()) != 0) {
        throw std::runtime_error(RowName(writer, seq) + " has a content that was never written");
      }
    }
  }
  const int rc = sqlite3_step(select.get());
  if (rc == SQLITE_ROW) throw std::runtime_error("there is a row that was never acknowledged");
  if (rc != SQLITE_DONE) ThrowError(db, "reading the rows");
}

int64_t ReadCount(sqlite3* db, const std::string& sql) {
  const Statement select = Prepare(db, sql);
  if (sqlite3_step(select.get()) != SQLITE_ROW) ThrowError(db, sql);
  return sqlite3_column_int64(select.get(), 0);
}

void VerifyCount(sqlite3* db, const std::string& sql, int64_t expected) {
  const int64_t found = ReadCount(db, sql);
  if (found == expected) return;
  throw std::runtime_error(sql + " is " + std::to_string(found) + ", but " +
                           std::to_string(expected) + " transactions were acknowledged");
}

void VerifyTotals(sqlite3* db, const std::vector<int64_t>& acknowledged) {
  for (size_t writer = 0; writer < acknowledged.size(); ++writer) {
    VerifyCount(db, "SELECT n FROM totals WHERE writer = " + std::to_string(writer),
                acknowledged[writer]);
  }
}

void VerifyIntegrity(sqlite3* db) {
  const Statement check = Prepare(db, "PRAGMA integrity_check");
  if (sqlite3_step(check.get()) != SQLITE_ROW) ThrowError(db, "integrity_check");
  const std::string answer = reinterpret_cast<const char*>(sqlite3_column_text(check.get(), 0));
  if (answer != "ok") throw std::runtime_error("integrity_check: " + answer);
}

}  // namespace

Verification VerifyDatabase(const std::string& path, const std::vector<int64_t>& acknowledged,
                            Mix mix) {
  Verification result;
  result.acknowledged = std::accumulate(acknowledged.begin(), acknowledged.end(), int64_t{0});
  try {
    const Connection db = Open(UriOf(path), SQLITE_OPEN_READWRITE);
    if (mix == Mix::kHotRow) {
      const std::string count = "SELECT n FROM hot WHERE id = 0";
      result.found = ReadCount(db.get(), count);
      VerifyCount(db.get(), count, result.acknowledged);
    } else {
      VerifyRows(db.get(), mix, acknowledged, &result.found);
    }
    if (mix == Mix::kTwoTables) VerifyTotals(db.get(), acknowledged);
    VerifyIntegrity(db.get());
  } catch (const std::runtime_error& e) {
    result.problem = e.what();
  }
  return result;
}

}  // namespace groupcommit::bench
