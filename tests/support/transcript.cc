#include "support/transcript.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <sstream>

namespace groupcommit::testing {
namespace {

constexpr size_t kMemory = size_t{256} << 20;
constexpr size_t kAlignment = 16;
uint8_t* memory;  // kMemory bytes
size_t in_use;    // of them, from the start; each piece is preceded by its size
size_t in_use_at_start;
sqlite3_int64 allocated_at_start;

int Round(int size) { return (size + int{kAlignment} - 1) / int{kAlignment} * int{kAlignment}; }

int SizeOf(void* piece) {
  int size;
  std::memcpy(&size, static_cast<uint8_t*>(piece) - kAlignment, sizeof(size));
  return size;
}

void* Allocate(int size) {
  const size_t total = static_cast<size_t>(Round(size)) + kAlignment;
  if (total > kMemory - in_use) return nullptr;
  uint8_t* piece = memory + in_use + kAlignment;
  std::memcpy(piece - kAlignment, &size, sizeof(size));
  in_use += total;
  return piece;
}

void Free(void* /*piece*/) {}

void* Reallocate(void* piece, int size) {
  if (size <= SizeOf(piece)) return piece;
  void* larger = Allocate(size);
  if (larger != nullptr) std::memcpy(larger, piece, static_cast<size_t>(SizeOf(piece)));
  return larger;
}

int Init(void* /*data*/) { return SQLITE_OK; }
void Shutdown(void* /*data*/) {}

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

void UseFreshMemory() {
  memory = static_cast<uint8_t*>(::mmap(nullptr, kMemory, PROT_READ | PROT_WRITE,
                                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
  static constexpr sqlite3_mem_methods kMethods = {Allocate, Free, Reallocate, SizeOf,
                                                   Round,    Init, Shutdown,   nullptr};
  sqlite3_shutdown();
  if (memory == MAP_FAILED || sqlite3_config(SQLITE_CONFIG_MALLOC, &kMethods) != SQLITE_OK ||
      sqlite3_config(SQLITE_CONFIG_LOOKASIDE, 0, 0) != SQLITE_OK ||
      sqlite3_initialize() != SQLITE_OK) {
    std::fprintf(stderr, "cannot replace SQLite's memory functions\n");
    std::abort();
  }
  in_use_at_start = in_use;
  allocated_at_start = sqlite3_memory_used();
}

void RenewMemory() {
  if (sqlite3_memory_used() != allocated_at_start) {
    std::fprintf(stderr, "SQLite still holds memory\n");
    std::abort();
  }
  constexpr size_t kWorthACall = size_t{1} << 20;
  const size_t used = in_use - in_use_at_start;
  if (used < kWorthACall) {
    std::memset(memory + in_use_at_start, 0, used);
  } else {
    const size_t page = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
    const size_t next_page = (in_use_at_start + page - 1) / page * page;
    std::memset(memory + in_use_at_start, 0, next_page - in_use_at_start);
    ::madvise(memory + next_page, kMemory - next_page, MADV_DONTNEED);
  }
  in_use = in_use_at_start;
}

}  // namespace groupcommit::testing
