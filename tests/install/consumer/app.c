/* Uses the installed library: commits to the database argv[1]. app.cc is the same in C++. */
#include <groupcommit.h>
#include <sqlite3.h>
#include <stdio.h>

int main(int argc, char** argv) {
  sqlite3* db = NULL;
  groupcommit_statistics stats;
  int rc = argc == 2 ? groupcommit_register(NULL, NULL, 0, NULL) : SQLITE_MISUSE;
  if (rc == SQLITE_OK) {
    rc = sqlite3_open_v2(argv[1], &db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE,
                         GROUPCOMMIT_VFS_NAME);
  }
  if (rc == SQLITE_OK) {
    rc = sqlite3_exec(db,
                      "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;"
                      "CREATE TABLE t(x); INSERT INTO t VALUES(1); INSERT INTO t VALUES(2)",
                      NULL, NULL, NULL);
  }
  if (rc == SQLITE_OK) rc = groupcommit_stats(db, "main", &stats, sizeof(stats));
  if (rc == SQLITE_OK) {
    printf("groupcommit %s: %d deferred\n", groupcommit_libversion(), (int)stats.deferred);
  } else {
    fprintf(stderr, "app: %s\n", sqlite3_errstr(rc));
  }
  sqlite3_close(db);
  return rc == SQLITE_OK ? 0 : 1;
}
