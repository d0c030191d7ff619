// The one place that decides how SQLite is reached. The loadable extension calls it through the
// table of functions that it is handed at load time; the static library (SQLITE_CORE) links with
// it.
#ifndef GROUPCOMMIT_SQLITE_H_
#define GROUPCOMMIT_SQLITE_H_

#include <sqlite3ext.h>

#ifndef SQLITE_CORE
extern "C" {
SQLITE_EXTENSION_INIT3  // extern const sqlite3_api_routines* sqlite3_api; see extension.cc
}
#endif

#endif  // GROUPCOMMIT_SQLITE_H_
