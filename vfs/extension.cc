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
#include <cstdlib>

#include "groupcommit.h"
#include "sqlite.h"

#if defined(_WIN32)
#define GROUPCOMMIT_EXPORT __declspec(dllexport)
#else
#define GROUPCOMMIT_EXPORT __attribute__((visibility("default")))
#endif

extern "C" {

SQLITE_EXTENSION_INIT1

static int AddStatsTable(sqlite3* db, char** error, const sqlite3_api_routines* api) {
  (void)error;
  (void)api;
  return groupcommit_stats_table(db);
}

static int Load(sqlite3* db, char** error, const sqlite3_api_routines* api, bool make_default) {
  // One copy of this library serves one SQLite. (Some programs contain a second one.)
  if (sqlite3_api != nullptr && sqlite3_api != api) {
    *error = api->mprintf("groupcommit is in use by another copy of SQLite in this process");
    return SQLITE_ERROR;
  }
  SQLITE_EXTENSION_INIT2(api);
  // sqlite3_db_name(), the newest function that is called, came with this version.
  constexpr int kOldestSqlite = 3039000;
  if (sqlite3_libversion_number() < kOldestSqlite) {
    *error = sqlite3_mprintf("groupcommit needs SQLite 3.39.0, not %s", sqlite3_libversion());
    return SQLITE_ERROR;
  }
  groupcommit_policy policy = {GROUPCOMMIT_AUTO, 0, 0, 0};
  const char* text = std::getenv("GROUPCOMMIT_POLICY");
  char* reason = nullptr;
  if (text != nullptr && groupcommit_policy_parse(text, &policy, &reason) != SQLITE_OK) {
    *error = sqlite3_mprintf("GROUPCOMMIT_POLICY: %z", reason);
    return SQLITE_ERROR;
  }
  const auto add_table = reinterpret_cast<void (*)()>(AddStatsTable);
  int rc = sqlite3_auto_extension(add_table);
  if (rc == SQLITE_OK) rc = groupcommit_stats_table(db);
  // Loading it again, into another connection, is fine.
  sqlite3_vfs* vfs = sqlite3_vfs_find(GROUPCOMMIT_VFS_NAME);
  if (rc == SQLITE_OK && vfs == nullptr) {
    rc = groupcommit_register(GROUPCOMMIT_VFS_NAME, nullptr, make_default ? 1 : 0, &policy);
  } else if (rc == SQLITE_OK && make_default) {
    rc = sqlite3_vfs_register(vfs, 1);
  }
  if (rc != SQLITE_OK) {
    // SQLite unloads us now: leave nothing behind that points here.
    sqlite3_cancel_auto_extension(add_table);
    sqlite3_create_module_v2(db, "groupcommit_stats", nullptr, nullptr, nullptr);
    *error = sqlite3_mprintf("groupcommit: cannot register the VFS: %s", sqlite3_errstr(rc));
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
