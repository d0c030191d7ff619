// groupcommit.so, the loadable extension: registers the VFS "groupcommit" for the process and adds
// the table groupcommit_stats to every connection.
//
//   .load ./groupcommit                                      -- the VFS is there
//   .load ./groupcommit sqlite3_groupcommit_default_init     -- and is the default from now on
//   .open file:app.db?vfs=groupcommit
//   PRAGMA journal_mode=WAL;
//
// The policy of databases for which neither URI nor pragma names one is taken from the environment
// variable GROUPCOMMIT_POLICY. Limits: it cannot be unloaded, as open files point into it.

#include "automatic.h"
#include "groupcommit.h"
#include "sqlite.h"

#if defined(_WIN32)
#define GROUPCOMMIT_EXPORT __declspec(dllexport)
#else
#define GROUPCOMMIT_EXPORT __attribute__((visibility("default")))
#endif

extern "C" {

SQLITE_EXTENSION_INIT1

static int Load(sqlite3* db, char** error, const sqlite3_api_routines* api, bool make_default) {
  // One copy of this library serves one SQLite. (Some programs contain a second one.)
  if (sqlite3_api != nullptr && sqlite3_api != api) {
    *error = api->mprintf("groupcommit is in use by another copy of SQLite in this process");
    return SQLITE_ERROR;
  }
  SQLITE_EXTENSION_INIT2(api);
  char* reason = nullptr;
  // Loading it again, into another connection, is fine.
  const int rc = groupcommit::SwitchOn(db, make_default, &reason);
  if (rc != SQLITE_OK) {
    *error = sqlite3_mprintf("groupcommit: %z", reason);
    return rc;
  }
  return SQLITE_OK_LOAD_PERMANENTLY;
}

GROUPCOMMIT_EXPORT int sqlite3_groupcommit_init(sqlite3* db, char** pzErrMsg,
                                                const sqlite3_api_routines* pApi) {
  return Load(db, pzErrMsg, pApi, false);
}

GROUPCOMMIT_EXPORT int sqlite3_groupcommit_default_init(sqlite3* db, char** pzErrMsg,
                                                        const sqlite3_api_routines* pApi) {
  return Load(db, pzErrMsg, pApi, true);
}

}  // extern "C"
