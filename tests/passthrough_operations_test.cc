// As passthrough_test.cc: what one does with databases beyond reading and writing rows.
#include "support/passthrough_fixture.h"

namespace groupcommit::testing {
namespace {

using PassthroughOperationsTest = PassthroughTest;

std::string InsertMany(const std::string& table, int rows) {
  return "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<" +
         std::to_string(rows) + ") INSERT INTO " + table + " SELECT zeroblob(i*10) FROM n;";
}

TEST_F(PassthroughOperationsTest, JournalModeBackAndForth) {
  CompareWal([](RecordedSession& s) {
    s.Open(0, s.path("test.db"));
    s.Sql(0, "CREATE TABLE t(x); INSERT INTO t VALUES(0);");
    for (const char* mode : {"WAL", "DELETE", "WAL", "TRUNCATE", "WAL", "PERSIST", "WAL"}) {
      s.Sql(0, Pragma("journal_mode", mode) + "INSERT INTO t VALUES('" + mode + "');");
      s.Open(1, s.path("test.db"));
      s.Sql(1, "SELECT * FROM t; PRAGMA journal_mode; INSERT INTO t VALUES(1);");
      s.Sql(0, Pragma("journal_mode", "DELETE"));  // refused in WAL mode: there are two
      s.Close(1);
    }
    s.Sql(0, "BEGIN; INSERT INTO t VALUES(2); PRAGMA journal_mode=DELETE; COMMIT;");
    s.Sql(0, "PRAGMA journal_mode=MEMORY; INSERT INTO t VALUES(3); PRAGMA journal_mode=WAL;");
    s.Sql(0, "PRAGMA journal_mode=OFF; INSERT INTO t VALUES(4); PRAGMA integrity_check;");
  });
}

TEST_F(PassthroughOperationsTest, ExclusiveLockingModeBeforeAndAfterWal) {
  CompareWal([](RecordedSession& s) {
    s.Open(0, s.path("before.db"));
    s.Sql(0, "PRAGMA locking_mode=EXCLUSIVE; PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;");
    s.Sql(0, std::string(kWork) + "PRAGMA wal_checkpoint;");
    s.Open(1, s.path("before.db"));
    s.Sql(1, "SELECT * FROM t;");
    s.Sql(0, "PRAGMA locking_mode=NORMAL; SELECT count(*) FROM t; INSERT INTO t(v) VALUES('n');");
    s.Sql(1, "SELECT count(*) FROM t; INSERT INTO t(v) VALUES('m');");

    s.Open(2, s.path("after.db"));
    s.Sql(2, "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; CREATE TABLE t(x);");
    s.Sql(2, "INSERT INTO t VALUES(1); PRAGMA locking_mode=EXCLUSIVE; INSERT INTO t VALUES(2);");
    s.Open(3, s.path("after.db"));
    s.Sql(3, "SELECT * FROM t;");
    s.Sql(2, "INSERT INTO t VALUES(3); PRAGMA wal_checkpoint(TRUNCATE); INSERT INTO t VALUES(4);");
    s.Sql(2, "PRAGMA locking_mode=NORMAL; INSERT INTO t VALUES(5); INSERT INTO t VALUES(6);");
    s.Sql(3, "SELECT * FROM t; INSERT INTO t VALUES(7);");
    s.Sql(2, "PRAGMA locking_mode=EXCLUSIVE; INSERT INTO t VALUES(8); PRAGMA journal_mode=DELETE;");
  });
}

TEST_F(PassthroughOperationsTest, SynchronousChangesAtRunTime) {
  CompareWal([](RecordedSession& s) {
    for (const char* mode : {"WAL", "DELETE"}) {
      const std::string name = std::string(mode) + ".db";
      s.Open(0, s.path(name));
      s.Sql(0, Pragma("journal_mode", mode) + "CREATE TABLE t(x);");
      s.Open(1, s.path(name));
      for (const char* level : {"OFF", "FULL", "NORMAL", "EXTRA", "OFF", "EXTRA"}) {
        s.Sql(0, Pragma("synchronous", level) + "INSERT INTO t VALUES(1);");
        s.Sql(1, "INSERT INTO t VALUES(2);");  // has a level of its own
        s.Sql(0, "BEGIN; INSERT INTO t VALUES(3); PRAGMA synchronous=OFF; COMMIT;");
      }
      s.Sql(0, "PRAGMA fullfsync=1; PRAGMA checkpoint_fullfsync=1; PRAGMA synchronous=FULL;");
      s.Sql(0, "INSERT INTO t VALUES(4); PRAGMA wal_checkpoint; INSERT INTO t VALUES(5);");
    }
  });
}

TEST_F(PassthroughOperationsTest, CheckpointsOfEveryMode) {
  CompareWal([](RecordedSession& s) {
    s.Open(0, s.path("test.db"));
    s.Sql(0, "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; CREATE TABLE t(x);");
    s.Open(1, s.path("test.db"));
    for (const char* mode : {"PASSIVE", "FULL", "RESTART", "TRUNCATE"}) {
      const std::string checkpoint = "PRAGMA wal_checkpoint(" + std::string(mode) + ");";
      s.Sql(0, InsertMany("t", 20) + checkpoint + "INSERT INTO t VALUES(1);" + checkpoint);
      s.Sql(1, "BEGIN; SELECT count(*) FROM t;");
      s.Sql(0, "INSERT INTO t VALUES(2);" + checkpoint);
      s.Sql(1, "COMMIT; BEGIN IMMEDIATE; INSERT INTO t VALUES(3);");
      s.Sql(0, checkpoint);
      s.Sql(1, checkpoint + "COMMIT;" + checkpoint);
      s.Sql(0, "BEGIN; INSERT INTO t VALUES(4);" + checkpoint + "COMMIT;" + checkpoint);
    }
    s.Sql(0, "PRAGMA wal_autocheckpoint=5;");
    for (int i = 0; i < 8; i++) s.Sql(0, InsertMany("t", 30) + "DELETE FROM t WHERE rowid % 2;");
    int in_log = 0;
    int copied = 0;
    const int rc =
        sqlite3_wal_checkpoint_v2(s.db(0), "main", SQLITE_CHECKPOINT_RESTART, &in_log, &copied);
    s.Note(std::to_string(rc) + " " + std::to_string(in_log) + " " + std::to_string(copied));
    s.Sql(0, "PRAGMA journal_size_limit=0;" + InsertMany("t", 90) + InsertMany("t", 3));
  });
}

TEST_F(PassthroughOperationsTest, ALogThatStaysWhenTheLastConnectionCloses) {
  CompareWal([](RecordedSession& s) {
    s.Open(0, s.path("test.db"));
    s.Sql(0, "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA journal_size_limit=0;");
    int persist = 1;
    s.Note(
        std::to_string(sqlite3_file_control(s.db(0), "main", SQLITE_FCNTL_PERSIST_WAL, &persist)));
    s.Sql(0, "CREATE TABLE t(x); INSERT INTO t VALUES(1);");
    s.Close(0);
    s.Open(0, s.path("test.db"));
    s.Sql(0, "SELECT * FROM t; INSERT INTO t VALUES(2); SELECT * FROM t;");
  });
}

// Nobody here knows whether frames that are found in the log are durable: the first to read one
// syncs. That is documented, and all there is.
TEST_F(PassthroughOperationsTest, ALogThatWasNotCheckpointed) {
  const Script script = [](RecordedSession& s) {
    s.Open(0, s.path("test.db"));
    s.Sql(0, "PRAGMA journal_mode=WAL; CREATE TABLE t(x); INSERT INTO t VALUES(1);");
    sqlite3_db_config(s.db(0), SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, nullptr);
    s.Close(0);
    s.Open(0, s.path("test.db"), SQLITE_OPEN_READONLY);
    s.Sql(0, "SELECT * FROM t;");
    s.Open(1, s.path("test.db"));
    s.Sql(1, "SELECT * FROM t; INSERT INTO t VALUES(2);");
    s.Sql(0, "SELECT * FROM t;");
  };
  Compare(script, Calls::kSameButOneSyncMore, Calls::kSameButOneSyncMore);
}

TEST_F(PassthroughOperationsTest, Vacuum) {
  CompareWal([](RecordedSession& s) {
    for (const char* mode : {"DELETE", "WAL"}) {
      const std::string name = std::string(mode) + ".db";
      s.Open(0, s.path(name));
      s.Sql(0, Pragma("journal_mode", mode) + "CREATE TABLE t(x);" + InsertMany("t", 200));
      s.Sql(0, "DELETE FROM t WHERE rowid % 3; VACUUM; PRAGMA page_count; SELECT count(*) FROM t;");
      s.Sql(0, "PRAGMA auto_vacuum=INCREMENTAL; VACUUM; DELETE FROM t WHERE rowid % 2;");
      s.Sql(0, "PRAGMA incremental_vacuum; PRAGMA page_count;");
      s.Sql(0, "PRAGMA auto_vacuum=FULL; VACUUM; DELETE FROM t WHERE rowid % 5; VACUUM;");
      s.Sql(0, "VACUUM INTO '" + s.path("copy_of_" + name) + "';");
      s.Open(1, s.path("copy_of_" + name));
      s.Sql(1, "SELECT count(*) FROM t; PRAGMA integrity_check; PRAGMA journal_mode;");
      s.Close(1);
    }
  });
}

TEST_F(PassthroughOperationsTest, Backup) {
  CompareWal([](RecordedSession& s) {
    const auto copy = [&s](int to, int from, int pages) {
      sqlite3_backup* backup = sqlite3_backup_init(s.db(to), "main", s.db(from), "main");
      if (backup == nullptr) return s.Note("no backup");
      for (int rc = SQLITE_OK; rc == SQLITE_OK;) {
        rc = sqlite3_backup_step(backup, pages);
        s.Note("step " + std::to_string(rc) + " " +
               std::to_string(sqlite3_backup_remaining(backup)));
        s.Sql(from, "INSERT INTO t VALUES('meanwhile');");
        if (sqlite3_backup_remaining(backup) > 1000) break;
      }
      s.Note("end " + std::to_string(sqlite3_backup_finish(backup)));
    };
    int number = 0;
    for (const char* from : {"DELETE", "WAL"}) {
      for (const char* to : {"DELETE", "WAL"}) {
        const std::string pair = std::to_string(number++);
        s.Open(0, s.path("from" + pair + ".db"));
        s.Sql(0, Pragma("journal_mode", from) + "CREATE TABLE t(x);" + InsertMany("t", 100));
        s.Open(1, s.path("to" + pair + ".db"));
        s.Sql(1, Pragma("journal_mode", to) + "CREATE TABLE u(x); INSERT INTO u VALUES(1);");
        copy(1, 0, 10);
        s.Sql(1, "SELECT count(*) FROM t; PRAGMA integrity_check;");
        s.Open(2, ":memory:");
        copy(2, 0, -1);
        s.Sql(2, "SELECT count(*) FROM t; INSERT INTO t VALUES('in memory');");
        s.Open(3, s.path("back" + pair + ".db"));
        s.Sql(3, Pragma("journal_mode", to));
        copy(3, 2, -1);
        s.Sql(3, "SELECT count(*) FROM t; PRAGMA integrity_check;");
      }
    }
  });
}

// Super-journals, and commits of which a database is in WAL mode and another one is not.
TEST_F(PassthroughOperationsTest, CommitsOverSeveralDatabases) {
  CompareWal([](RecordedSession& s) {
    int number = 0;
    for (const char* second : {"DELETE", "PERSIST", "WAL", "MEMORY"}) {
      for (const char* first : {"DELETE", "TRUNCATE", "WAL"}) {
        const std::string pair = std::to_string(number++);
        s.Open(0, s.path("a" + pair + ".db"));
        s.Sql(0, Pragma("journal_mode", first) + "CREATE TABLE t(x);");
        s.Sql(0, "ATTACH '" + s.path("b" + pair + ".db") + "' AS b;");
        s.Sql(0, Pragma("b.journal_mode", second) + "CREATE TABLE b.t(x);");
        s.Sql(0, "ATTACH ':memory:' AS m; CREATE TABLE m.t(x); CREATE TEMP TABLE tmp(x);");
        s.Sql(0, "BEGIN; INSERT INTO t VALUES(1); INSERT INTO b.t VALUES(1); COMMIT;");
        s.Sql(0, "BEGIN; INSERT INTO t VALUES(2); INSERT INTO b.t VALUES(2); ROLLBACK;");
        s.Sql(0, "BEGIN; INSERT INTO t VALUES(3); INSERT INTO m.t VALUES(3); COMMIT;");
        s.Sql(0, "BEGIN; INSERT INTO b.t VALUES(4); INSERT INTO tmp VALUES(4); COMMIT;");
        s.Sql(0, "BEGIN; INSERT INTO t VALUES(5); SELECT * FROM b.t; COMMIT;");
        s.Sql(0,
              "BEGIN; SAVEPOINT s; INSERT INTO b.t VALUES(6); ROLLBACK TO s;"
              "INSERT INTO t VALUES(6); COMMIT; INSERT INTO t SELECT x+10 FROM b.t;");
        s.Sql(0, "DETACH b; SELECT * FROM t; BEGIN; INSERT INTO t VALUES(7); COMMIT;");
      }
    }
  });
}

TEST_F(PassthroughOperationsTest, SharedCache) {
  CompareWal([](RecordedSession& s) {
    for (const char* mode : {"DELETE", "WAL"}) {
      const std::string uri = s.Uri(std::string(mode) + ".db", "cache=shared");
      s.Open(0, uri);
      s.Open(1, uri);
      s.Sql(0, Pragma("journal_mode", mode) + "CREATE TABLE t(x); INSERT INTO t VALUES(1);");
      s.Sql(1, "SELECT * FROM t; BEGIN; INSERT INTO t VALUES(2);");
      s.Sql(0, "SELECT * FROM t; INSERT INTO t VALUES(3);");
      s.Sql(1, "COMMIT;");
      s.Sql(0, "SELECT * FROM t;");
      s.Close(0);
      s.Close(1);
    }
  });
}

TEST_F(PassthroughOperationsTest, FileControls) {
  CompareWal([](RecordedSession& s) {
    s.Open(0, s.path("test.db"));
    s.Sql(0, "PRAGMA journal_mode=WAL; CREATE TABLE t(x);");
    const auto control = [&s](int op, int64_t value) {
      const int rc = sqlite3_file_control(s.db(0), "main", op, &value);
      s.Note("control " + std::to_string(op) + ": " + std::to_string(rc) + " " +
             std::to_string(value));
    };
    control(SQLITE_FCNTL_CHUNK_SIZE, 1 << 16);
    control(SQLITE_FCNTL_SIZE_HINT, 1 << 17);
    control(SQLITE_FCNTL_POWERSAFE_OVERWRITE, -1);
    control(SQLITE_FCNTL_PERSIST_WAL, -1);
    control(SQLITE_FCNTL_HAS_MOVED, 0);
    control(SQLITE_FCNTL_LOCKSTATE, 0);
    control(SQLITE_FCNTL_MMAP_SIZE, -1);
    control(SQLITE_FCNTL_DATA_VERSION, 0);
    control(SQLITE_FCNTL_EXTERNAL_READER, 0);
    control(12345678, 0);  // nobody's
    s.Sql(0, InsertMany("t", 100) + "PRAGMA mmap_size; PRAGMA unknown_to_everybody=1;");
  });
}

}  // namespace
}  // namespace groupcommit::testing
