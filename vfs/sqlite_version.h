// Which SQLite this library works with: the headers that it is compiled with, and the library that
// it meets at run time, which may be an older one.
#ifndef GROUPCOMMIT_SQLITE_VERSION_H_
#define GROUPCOMMIT_SQLITE_VERSION_H_

#include <sqlite3.h>

namespace groupcommit {

// sqlite3_db_name(), the newest function that is called, came with this version.
constexpr int kOldestSqlite = 3039000;
static_assert(SQLITE_VERSION_NUMBER >= kOldestSqlite, "groupcommit needs SQLite 3.39.0 or newer");

// Why SQLite `version`, a sqlite3_libversion_number(), will not do; null if it will.
constexpr const char* WhyTooOld(int version) {
  return version < kOldestSqlite ? "SQLite 3.39.0 or newer is needed" : nullptr;
}

}  // namespace groupcommit

#endif  // GROUPCOMMIT_SQLITE_VERSION_H_
