/*
** Makes groupcommit the default VFS of SQLite's testfixture if the environment
** has UNDER_TEST, so that the same program runs with and without it.
**
** SQLite is compiled with -DSQLITE_EXTRA_INIT=default_vfs: main.c calls this
** at the end of each sqlite3_initialize(), as tests call sqlite3_shutdown(),
** after which another VFS is the default.
*/
#include <stdlib.h>

#include "groupcommit.h"

int default_vfs(const char* unused);

int default_vfs(const char* unused) {
  return getenv("UNDER_TEST") == NULL ? SQLITE_OK : groupcommit_extra_init(unused);
}
