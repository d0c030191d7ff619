// What is known of a base VFS.
#ifndef GROUPCOMMIT_BASE_VFS_H_
#define GROUPCOMMIT_BASE_VFS_H_

#include "groupcommit.h"
#include "sqlite.h"

namespace groupcommit {

// Is it SQLite's own for unix, in one of its variants? A shim over it is not.
inline bool IsUnixVfs(const sqlite3_vfs* vfs) {
  const sqlite3_vfs* unix_vfs = sqlite3_vfs_find("unix");
  return unix_vfs != nullptr && vfs->xOpen == unix_vfs->xOpen;
}

// See GROUPCOMMIT_FCNTL_WRITES_MAY_BE_JOINED. When unsure: no.
inline bool WritesMayBeJoined(const sqlite3_vfs* base, sqlite3_file* log) {
  const int op = GROUPCOMMIT_FCNTL_WRITES_MAY_BE_JOINED;
  return IsUnixVfs(base) || log->pMethods->xFileControl(log, op, nullptr) == SQLITE_OK;
}

}  // namespace groupcommit

#endif  // GROUPCOMMIT_BASE_VFS_H_
