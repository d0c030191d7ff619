#include "automatic.h"

#include <cstdlib>

#include "groupcommit.h"
#include "shim.h"
#include "sqlite_version.h"

namespace groupcommit {
namespace {

constexpr char kPolicyVariable[] = "GROUPCOMMIT_POLICY";

int AddStatsTable(sqlite3* db, char** error, const sqlite3_api_routines* api) {
  (void)error;
  (void)api;
  return groupcommit_stats_table(db);
}

int PolicyFromEnvironment(groupcommit_policy* policy, char** error) {
  const char* text = std::getenv(kPolicyVariable);
  if (text == nullptr || text[0] == '\0') return SQLITE_OK;
  char* reason = nullptr;
  const int rc = groupcommit_policy_parse(text, policy, &reason);
  if (rc != SQLITE_OK) *error = sqlite3_mprintf("%s: %z", kPolicyVariable, reason);
  return rc;
}

}  // namespace

int SwitchOn(sqlite3* db, bool make_default, char** error) {
  if (const char* reason = WhyTooOld(sqlite3_libversion_number())) {
    *error = sqlite3_mprintf("%s, not %s", reason, sqlite3_libversion());
    return SQLITE_ERROR;
  }
  groupcommit_policy policy = {GROUPCOMMIT_AUTO, 0, 0, 0};
  int rc = PolicyFromEnvironment(&policy, error);
  if (rc != SQLITE_OK) return rc;

  // It is there when this is called again. sqlite3_shutdown() keeps it, but lets another one become
  // the default.
  sqlite3_vfs* vfs = sqlite3_vfs_find(GROUPCOMMIT_VFS_NAME);
  const bool was_on = vfs != nullptr;
  // Our table knows nothing of the databases of another copy.
  const bool has_table = vfs == nullptr || IsShim(*vfs);
  const auto add_table = reinterpret_cast<void (*)()>(AddStatsTable);
  if (has_table) rc = sqlite3_auto_extension(add_table);
  if (has_table && rc == SQLITE_OK && db != nullptr) rc = groupcommit_stats_table(db);
  if (rc == SQLITE_OK && vfs == nullptr) {
    rc = groupcommit_register(GROUPCOMMIT_VFS_NAME, nullptr, make_default ? 1 : 0, &policy);
    // Another thread may have done so meanwhile.
    if (rc == SQLITE_ERROR) vfs = sqlite3_vfs_find(GROUPCOMMIT_VFS_NAME);
    if (vfs != nullptr) rc = SQLITE_OK;
  }
  if (rc == SQLITE_OK && vfs != nullptr && make_default) rc = sqlite3_vfs_register(vfs, 1);
  if (rc != SQLITE_OK) {
    // What an earlier call has left stays, as does the extension that it was of.
    if (!was_on) {
      sqlite3_cancel_auto_extension(add_table);
      if (db != nullptr) {
        sqlite3_create_module_v2(db, "groupcommit_stats", nullptr, nullptr, nullptr);
      }
    }
    *error = sqlite3_mprintf("cannot register the VFS: %s", sqlite3_errstr(rc));
  }
  return rc;
}

}  // namespace groupcommit

// main.c: sqlite3_initialize() calls this when it is through, outside its mutex and marked as
// initialized: what is called here may call sqlite3_initialize() again.
int groupcommit_extra_init(const char* zUnused) {
  (void)zUnused;
  char* error = nullptr;
  const int rc = groupcommit::SwitchOn(nullptr, /*make_default=*/true, &error);
  if (rc != SQLITE_OK) sqlite3_log(rc, "groupcommit: %s", error);
  sqlite3_free(error);
  return rc;
}
