/*
** c_app.c -- group commit from C, for a program that calls plain sqlite3_open().
**
** The VFS becomes the process's default, so code that knows nothing of it (a
** library, an ORM) uses it too, and the policy comes with the file name:
** "file:app.db?flush_policy=group&max_wait_us=500&max_batch=8".
** Eight threads, each with a connection of its own, commit 100 rows each.
**
**   build/examples/c_app          a new database in a temporary directory,
**                                 removed at the end
**   build/examples/c_app FILE     a new database FILE, which is kept
*/
#include <groupcommit.h>
#include <pthread.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define THREADS 8
#define COMMITS_PER_THREAD 100

/* A batch is as large as the number of threads: more cannot come together. The
** first of them to commit waits for the others half a millisecond at most. */
#define POLICY "flush_policy=group&max_wait_us=500&max_batch=8"

/* Each function below returns an SQLite result code and has printed why if it
** is not SQLITE_OK. */

static int exec(sqlite3* db, const char* sql) {
  int rc = sqlite3_exec(db, sql, NULL, NULL, NULL);
  if (rc != SQLITE_OK) fprintf(stderr, "c_app: %s: %s\n", sql, sqlite3_errmsg(db));
  return rc;
}

/* Prints label and the first column of each row. */
static int print_value(sqlite3* db, const char* label, const char* sql) {
  sqlite3_stmt* stmt = NULL;
  int rc = sqlite3_prepare_v2(db, sql, -1, &stmt, NULL);
  if (rc == SQLITE_OK) {
    while (sqlite3_step(stmt) == SQLITE_ROW) {
      printf("%s%s\n", label, (const char*)sqlite3_column_text(stmt, 0));
    }
    rc = sqlite3_finalize(stmt); /* repeats the error of the step, if any */
  }
  if (rc != SQLITE_OK) fprintf(stderr, "c_app: %s: %s\n", sql, sqlite3_errmsg(db));
  return rc;
}

/* Opens the database at uri. The caller closes *db, whatever is returned. */
static int open_database(const char* uri, sqlite3** db) {
  int rc = sqlite3_open(uri, db);
  if (rc != SQLITE_OK) {
    fprintf(stderr, "c_app: open %s: %s\n", uri, sqlite3_errmsg(*db));
    return rc;
  }
  sqlite3_busy_timeout(*db, 30000); /* writers still take turns */
  return exec(*db, "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL");
}

struct writer {
  pthread_t thread;
  const char* uri;
  int rc;
};

static void* commit_rows(void* arg) {
  struct writer* writer = arg;
  sqlite3* db = NULL;
  writer->rc = open_database(writer->uri, &db);
  for (int i = 0; i < COMMITS_PER_THREAD && writer->rc == SQLITE_OK; i++) {
    /* Outside BEGIN ... COMMIT, each statement is a transaction, and commits. */
    writer->rc = exec(db, "INSERT INTO entry(note) VALUES('hello')");
  }
  sqlite3_close(db);
  return NULL;
}

static int run_writers(const char* uri) {
  struct writer writers[THREADS];
  int started = 0;
  int rc = SQLITE_OK;
  for (; started < THREADS; started++) {
    writers[started].uri = uri;
    if (pthread_create(&writers[started].thread, NULL, commit_rows, &writers[started]) != 0) {
      fprintf(stderr, "c_app: cannot start a thread\n");
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

static int run(const char* uri) {
  /* This connection stays open to the end: the statistics of a database are
  ** counted from its first connection until its last one closes. */
  sqlite3* db = NULL;
  groupcommit_statistics stats;
  int rc = open_database(uri, &db);
  if (rc == SQLITE_OK) rc = exec(db, "CREATE TABLE entry(id INTEGER PRIMARY KEY, note TEXT)");
  if (rc == SQLITE_OK) rc = run_writers(uri);
  if (rc == SQLITE_OK) rc = print_value(db, "rows     ", "SELECT count(*) FROM entry");
  if (rc == SQLITE_OK) {
    rc = groupcommit_stats(db, "main", &stats, sizeof(stats));
    if (rc != SQLITE_OK) fprintf(stderr, "c_app: groupcommit_stats: %s\n", sqlite3_errstr(rc));
  }
  if (rc == SQLITE_OK) {
    printf("commits  %lld\nsyncs    %lld\n", stats.commits, stats.syncs);
    rc = print_value(db, "policy   ", "PRAGMA groupcommit_policy");
  }
  sqlite3_close(db);
  return rc;
}

/* Runs on the file at path. In a URI, '?', '#' and '%' would have to be
** written as %3F, %23 and %25; this example's paths have none. */
static int run_on_file(const char* path) {
  char* uri = sqlite3_mprintf("file:%s?" POLICY, path);
  int rc = uri != NULL ? run(uri) : SQLITE_NOMEM;
  sqlite3_free(uri);
  return rc;
}

int main(int argc, char** argv) {
  /* So that sqlite3_open() understands URIs. Some builds of SQLite do so anyway.
  ** Like every sqlite3_config() it comes before SQLite is used at all. */
  sqlite3_config(SQLITE_CONFIG_URI, 1);

  /* NULL, NULL: call the VFS "groupcommit" and wrap the default one; 1: become
  ** the default in its place; NULL: policy auto where the URI names none. */
  int rc = groupcommit_register(NULL, NULL, 1, NULL);
  if (rc != SQLITE_OK) {
    fprintf(stderr, "c_app: groupcommit_register: %s\n", sqlite3_errstr(rc));
    return 1;
  }

  if (argc > 1) {
    rc = run_on_file(argv[1]);
  } else {
    char directory[] = "/tmp/groupcommit-XXXXXX";
    if (mkdtemp(directory) == NULL) {
      perror("c_app: mkdtemp");
      return 1;
    }
    char path[sizeof(directory) + sizeof("/app.db")];
    snprintf(path, sizeof(path), "%s/app.db", directory);
    rc = run_on_file(path);
    unlink(path); /* the last connection to close has removed -wal and -shm */
    rmdir(directory);
  }
  return rc == SQLITE_OK ? 0 : 1;
}
