#include "support/sqlite_helpers.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>

namespace groupcommit::testing {
namespace {

// In single quotes for the shell.
std::string Quoted(const std::string& text) {
  std::string quoted = "'";
  for (char c : text) {
    if (c == '\'') {
      quoted += "'\\''";
    } else {
      quoted += c;
    }
  }
  return quoted + "'";
}

std::string MakeTempDir() {
  std::string parents[] = {"", "/tmp"};
  const char* tmpdir = std::getenv("TMPDIR");
  std::error_code error;
  parents[0] =
      tmpdir && *tmpdir ? std::string(tmpdir) : std::filesystem::current_path(error).string();
  for (const std::string& parent : parents) {
    std::string path = parent + "/groupcommit_test.XXXXXX";
    if (::mkdtemp(path.data()) == nullptr) continue;
    // As SQLite names the files in it.
    return std::filesystem::canonical(path, error).string();
  }
  std::perror("mkdtemp");
  std::abort();
}

}  // namespace

void Db::Closer::operator()(sqlite3* db) const {
  EXPECT_EQ(sqlite3_close(db), SQLITE_OK) << sqlite3_errmsg(db);
}

Db::Db(const std::string& path, const char* vfs, int flags, const char* file, int line) {
  const int rc = Open(path, vfs, flags);
  if (rc != SQLITE_OK) {
    ADD_FAILURE_AT(file, line) << "cannot open " << path << ": " << rc << " " << Error();
  }
}

int Db::Open(const std::string& path, const char* vfs, int flags) {
  db_.reset();
  sqlite3* db = nullptr;
  const int rc = sqlite3_open_v2(path.c_str(), &db, flags, vfs);
  db_.reset(db);
  if (rc != SQLITE_OK) return rc;
  sqlite3_extended_result_codes(db, 1);
  SetBusyTimeout(10'000);
  return SQLITE_OK;
}

int Db::Close() {
  const int rc = sqlite3_close(db_.get());
  if (rc == SQLITE_OK) (void)db_.release();
  return rc;
}

int Db::Exec(const std::string& sql) {
  return sqlite3_exec(db_.get(), sql.c_str(), nullptr, nullptr, nullptr);
}

void Db::ExecOk(const std::string& sql, const char* file, int line) {
  const int rc = Exec(sql);
  if (rc != SQLITE_OK) ADD_FAILURE_AT(file, line) << sql << ": " << rc << " " << Error();
}

bool Db::First(const std::string& sql, std::string* text, int64_t* number) {
  sqlite3_stmt* statement = nullptr;
  const char* rest = nullptr;
  if (sqlite3_prepare_v2(db_.get(), sql.c_str(), -1, &statement, &rest) != SQLITE_OK) return false;
  const bool found = sqlite3_step(statement) == SQLITE_ROW;
  if (found && number != nullptr) *number = sqlite3_column_int64(statement, 0);
  if (found && text != nullptr) {
    const auto* value = reinterpret_cast<const char*>(sqlite3_column_text(statement, 0));
    *text = value ? value : "";
  }
  return sqlite3_finalize(statement) == SQLITE_OK && found;
}

int64_t Db::Int(const std::string& sql, const char* file, int line) {
  int64_t number = -1;
  if (!First(sql, nullptr, &number)) ADD_FAILURE_AT(file, line) << sql << ": " << Error();
  return number;
}

std::string Db::Text(const std::string& sql, const char* file, int line) {
  std::string text;
  if (!First(sql, &text, nullptr)) ADD_FAILURE_AT(file, line) << sql << ": " << Error();
  return text;
}

void Db::SetBusyTimeout(int milliseconds) { sqlite3_busy_timeout(db_.get(), milliseconds); }

std::string Db::Error() const { return db_ ? sqlite3_errmsg(db_.get()) : "no connection"; }

TempDir::TempDir() : path_(MakeTempDir()) {}

TempDir::~TempDir() {
  std::error_code error;
  std::filesystem::remove_all(path_, error);
}

void ExpectIntact(const std::string& path, const char* file, int line) {
  Db db;
  const int rc = db.Open(path, "unix", SQLITE_OPEN_READWRITE);
  if (rc != SQLITE_OK) {
    ADD_FAILURE_AT(file, line) << "cannot open " << path << ": " << rc << " " << db.Error();
    return;
  }
  const std::string result = db.Text("PRAGMA integrity_check", file, line);
  if (result != "ok") ADD_FAILURE_AT(file, line) << path << ": " << result;
}

// Only newer ones tell by sqlite3_compileoption_used(); but their unix VFS has to know timeouts.
bool SqliteWaitsInside() {
  TempDir dir;
  Db db(dir.File("waits.db"), "unix");
  int none = 0;
  return sqlite3_file_control(db.get(), "main", SQLITE_FCNTL_LOCK_TIMEOUT, &none) == SQLITE_OK;
}

bool HaveStockShell() {
  static const bool have = std::system("sqlite3 -version >/dev/null 2>&1") == 0;
  return have;
}

std::string StockShell(const std::string& path, const std::string& sql, int* exit_status) {
  // The statements go in through a file: as an argument they could not hold dot
  // commands, and a pipe each way could fill up.
  TempDir dir;
  const std::string script = dir.File("script.sql");
  std::ofstream(script) << sql << "\n";
  const std::string command =
      "sqlite3 -batch -init /dev/null " + Quoted(path) + " <" + Quoted(script) + " 2>&1";
  std::FILE* pipe = ::popen(command.c_str(), "r");
  if (pipe == nullptr) {
    ADD_FAILURE() << "cannot run " << command;
    return "";
  }
  std::string output;
  char piece[4096];
  for (size_t n = 0; (n = std::fread(piece, 1, sizeof(piece), pipe)) > 0;) output.append(piece, n);
  const int status = ::pclose(pipe);
  if (exit_status != nullptr) *exit_status = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  return output;
}

}  // namespace groupcommit::testing
