#include "sqlite_handle.h"

#include <stdexcept>
#include <string_view>

namespace groupcommit::bench {

void ThrowError(sqlite3* db, const std::string& what) {
  throw std::runtime_error(what + ": " + sqlite3_errmsg(db));
}

Connection Open(const std::string& uri, int flags) {
  sqlite3* db = nullptr;
  const int rc =
      sqlite3_open_v2(uri.c_str(), &db, flags | SQLITE_OPEN_URI | SQLITE_OPEN_NOMUTEX, nullptr);
  Connection connection(db);
  if (rc != SQLITE_OK) ThrowError(db, "cannot open " + uri);
  return connection;
}

void Execute(sqlite3* db, const std::string& sql) {
  if (sqlite3_exec(db, sql.c_str(), nullptr, nullptr, nullptr) != SQLITE_OK) ThrowError(db, sql);
}

Statement Prepare(sqlite3* db, const std::string& sql) {
  sqlite3_stmt* statement = nullptr;
  if (sqlite3_prepare_v2(db, sql.c_str(), -1, &statement, nullptr) != SQLITE_OK) {
    ThrowError(db, sql);
  }
  return Statement(statement);
}

int Run(sqlite3_stmt* statement) {
  sqlite3_step(statement);
  return sqlite3_reset(statement);
}

std::string UriOf(const std::string& path, const std::string& vfs, const std::string& parameters) {
  constexpr std::string_view kHex = "0123456789ABCDEF";
  std::string uri = "file://";
  for (const char c : path) {
    if (c == '%' || c == '?' || c == '#') {
      const auto byte = static_cast<unsigned char>(c);
      uri += {'%', kHex[byte >> 4], kHex[byte & 15]};
    } else {
      uri += c;
    }
  }
  char separator = '?';
  if (!vfs.empty()) {
    uri += separator + ("vfs=" + vfs);
    separator = '&';
  }
  if (!parameters.empty()) uri += separator + parameters;
  return uri;
}

}  // namespace groupcommit::bench
