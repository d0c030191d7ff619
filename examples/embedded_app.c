/*
** embedded_app.c -- group commit in a program that compiles SQLite in and
** whose code knows nothing of it.
**
** Two things are different from the same program without it: sqlite3.c is
** compiled with -DSQLITE_EXTRA_INIT=groupcommit_extra_init, and the program is
** linked with libgroupcommit.a.  SQLite then makes the VFS its default one.
**
**     cc -c -DSQLITE_EXTRA_INIT=groupcommit_extra_init sqlite3.c
**     cc embedded_app.c sqlite3.o libgroupcommit.a -lstdc++ -lm -pthread
**
**   embedded_app          a new database in a temporary directory, removed at
**                         the end
**   embedded_app FILE     a new database FILE, which is kept
*/
#include <pthread.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define THREADS 8
#define COMMITS_PER_THREAD 100

static int print_row(void* unused, int n, char** values, char** names) {
  (void)unused;
  for (int i = 0; i < n; i++) printf("%-8s %s\n", names[i], values[i]);
  return 0;
}

static int run(sqlite3* db, const char* sql) {
  char* error = NULL;
  int rc = sqlite3_exec(db, sql, print_row, NULL, &error);
  if (rc != SQLITE_OK) fprintf(stderr, "embedded_app: %s: %s\n", sql, error);
  sqlite3_free(error);
  return rc;
}

/* Opens the database at path. The caller closes *db, whatever is returned. */
static int open_database(const char* path, sqlite3** db) {
  int rc = sqlite3_open(path, db);
  if (rc != SQLITE_OK) {
    fprintf(stderr, "embedded_app: open %s: %s\n", path, sqlite3_errstr(rc));
    return rc;
  }
  sqlite3_busy_timeout(*db, 30000); /* writers still take turns */
  return run(*db, "PRAGMA synchronous=FULL");
}

struct writer {
  pthread_t thread;
  const char* path;
  int rc;
};

static void* commit_rows(void* arg) {
  struct writer* writer = arg;
  sqlite3* db = NULL;
  int rc = open_database(writer->path, &db);
  for (int i = 0; i < COMMITS_PER_THREAD && rc == SQLITE_OK; i++) {
    rc = run(db, "INSERT INTO entry(note) VALUES('hello')");
  }
  sqlite3_close(db);
  writer->rc = rc;
  return NULL;
}

static int run_writers(const char* path) {
  struct writer writers[THREADS];
  int started = 0;
  int rc = SQLITE_OK;
  for (; started < THREADS; started++) {
    writers[started].path = path;
    if (pthread_create(&writers[started].thread, NULL, commit_rows, &writers[started]) != 0) {
      fprintf(stderr, "embedded_app: cannot start a thread\n");
      rc = SQLITE_ERROR;
      break;
    }
  }
  for (int i = 0; i < started; i++) {
    pthread_join(writers[i].thread, NULL);
    if (writers[i].rc != SQLITE_OK) rc = writers[i].rc;
  }
  return rc;
}

static int run_on_file(const char* path) {
  sqlite3* db = NULL;
  int rc = open_database(path, &db);
  if (rc == SQLITE_OK) {
    rc = run(db, "PRAGMA journal_mode=WAL; CREATE TABLE entry(id INTEGER PRIMARY KEY, note TEXT)");
  }
  if (rc == SQLITE_OK) rc = run_writers(path);
  if (rc == SQLITE_OK) rc = run(db, "SELECT count(*) AS rows FROM entry");
  /* Only to show it: without group commit there is no such table. */
  if (rc == SQLITE_OK) rc = run(db, "SELECT commits, syncs, policy FROM groupcommit_stats");
  sqlite3_close(db);
  return rc;
}

int main(int argc, char** argv) {
  int rc;
  if (argc > 1) {
    rc = run_on_file(argv[1]);
  } else {
    char directory[] = "/tmp/groupcommit-XXXXXX";
    char path[sizeof(directory) + sizeof("/app.db")];
    if (mkdtemp(directory) == NULL) {
      perror("embedded_app: mkdtemp");
      return 1;
    }
    snprintf(path, sizeof(path), "%s/app.db", directory);
    rc = run_on_file(path);
    unlink(path); /* the last connection to close has removed -wal and -shm */
    rmdir(directory);
  }
  return rc == SQLITE_OK ? 0 : 1;
}
