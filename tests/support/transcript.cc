#include "support/transcript.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <sstream>

namespace groupcommit::testing {
namespace {

sqlite3_mem_methods real_memory;

void* ZeroedMalloc(int size) {
  void* memory = real_memory.xMalloc(size);
  if (memory != nullptr) std::memset(memory, 0, static_cast<size_t>(real_memory.xSize(memory)));
  return memory;
}

}  // namespace

void TranscribedDb::Open(const std::string& file, int flags, const char* vfs) {
  Close();
  const int rc = sqlite3_open_v2(file.c_str(), &db_, flags, vfs);
  WriteDown("open", rc == SQLITE_OK ? rc : sqlite3_extended_errcode(db_));
  if (rc == SQLITE_OK) {
    sqlite3_extended_result_codes(db_, 1);
  } else {
    sqlite3_close(db_);
    db_ = nullptr;
  }
}

void TranscribedDb::Run(const char* sql) {
  if (db_ == nullptr) return;
  sqlite3_stmt* statement = nullptr;
  int rc = sqlite3_prepare_v2(db_, sql, -1, &statement, nullptr);
  if (rc != SQLITE_OK || statement == nullptr) {
    WriteDown(sql, rc);
    return;
  }
  std::string rows;
  while ((rc = sqlite3_step(statement)) == SQLITE_ROW) {
    rows += " |";
    for (int i = 0; i < sqlite3_column_count(statement); i++) {
      const auto* value = static_cast<const char*>(sqlite3_column_blob(statement, i));
      rows += ' ';
      if (value != nullptr) {
        rows.append(value, static_cast<size_t>(sqlite3_column_bytes(statement, i)));
      }
    }
  }
  WriteDown(sql, rc);
  *transcript_ += rows;
  rc = sqlite3_finalize(statement);
  if (rc != SQLITE_OK) *transcript_ += " finalize " + std::to_string(rc);
}

void TranscribedDb::Close() {
  if (db_ == nullptr) return;
  WriteDown("close", sqlite3_close(db_));
  db_ = nullptr;
}

void TranscribedDb::WriteDown(const char* what, int rc) {
  *transcript_ += "\n" + name_ + ": " + what + ": " + std::to_string(rc);
  const bool fine = rc == SQLITE_OK || rc == SQLITE_ROW || rc == SQLITE_DONE;
  if (!fine) *transcript_ += std::string(" ") + sqlite3_errmsg(db_);
}

std::string TranscriptDifference(const std::string& stock, const std::string& shim) {
  std::istringstream stock_lines(stock);
  std::istringstream shim_lines(shim);
  std::string text;
  while (stock_lines || shim_lines) {
    std::string expected;
    std::string actual;
    std::getline(stock_lines, expected);
    std::getline(shim_lines, actual);
    if (expected != actual) text += "  stock " + expected + "\n  shim  " + actual + "\n";
  }
  return text;
}

void UseZeroedMemory() {
  sqlite3_shutdown();
  if (sqlite3_config(SQLITE_CONFIG_GETMALLOC, &real_memory) == SQLITE_OK) {
    sqlite3_mem_methods zeroed = real_memory;
    zeroed.xMalloc = ZeroedMalloc;
    if (sqlite3_config(SQLITE_CONFIG_MALLOC, &zeroed) == SQLITE_OK) return;
  }
  std::fprintf(stderr, "cannot replace SQLite's memory functions\n");
  std::abort();
}

}  // namespace groupcommit::testing
