// Group commit for programs that do not call groupcommit_register() themselves.
#ifndef GROUPCOMMIT_AUTOMATIC_H_
#define GROUPCOMMIT_AUTOMATIC_H_

#include "sqlite.h"

namespace groupcommit {

// Registers the VFS "groupcommit", unless it is there already, with the policy that the environment
// names; and adds the table groupcommit_stats to `db`, unless that is null, and to every connection
// that is opened from now on.
// Returns an SQLite result code. If it is not SQLITE_OK, nothing is left behind that points here,
// as the extension is then unloaded, and *error is a message to be released with sqlite3_free().
int SwitchOn(sqlite3* db, bool make_default, char** error);

}  // namespace groupcommit

#endif  // GROUPCOMMIT_AUTOMATIC_H_
