// For everything that is not a commit in WAL mode the shim behaves as the VFS beneath it: each
// script runs on the test storage and through the shim, and SQLite has to answer the same, make the
// same calls of the storage and leave the same files.
#include <tuple>

#include "support/passthrough_fixture.h"

namespace groupcommit::testing {
namespace {

// ---- Every journal mode, every synchronous level, both locking modes ----

constexpr const char* kSynchronous[] = {"OFF", "NORMAL", "FULL", "EXTRA"};

class PassthroughModeTest
    : public PassthroughTest,
      public ::testing::WithParamInterface<std::tuple<const char*, const char*>> {
 protected:
  using ScriptWith = std::function<void(RecordedSession&, const std::string& pragmas)>;

  void CompareAtEachLevel(const ScriptWith& script) {
    const std::string journal = std::get<0>(GetParam());
    const std::string locking = std::get<1>(GetParam());
    for (const char* synchronous : kSynchronous) {
      SCOPED_TRACE(synchronous);
      const std::string pragmas = Pragma("locking_mode", locking) +
                                  Pragma("journal_mode", journal) +
                                  Pragma("synchronous", synchronous);
      Compare([&](RecordedSession& s) { script(s, pragmas); },
              journal == "WAL" ? Calls::kSameButLater : Calls::kSame);
    }
  }
};

TEST_P(PassthroughModeTest, OneConnection) {
  CompareAtEachLevel([](RecordedSession& s, const std::string& pragmas) {
    s.Open(0, s.path("test.db"));
    s.Sql(0, pragmas + kWork);
  });
}

TEST_P(PassthroughModeTest, SmallCacheAndPages) {
  CompareAtEachLevel([](RecordedSession& s, const std::string& pragmas) {
    s.Open(0, s.path("test.db"));
    s.Sql(0, "PRAGMA page_size=512; PRAGMA cache_size=5;" + pragmas + kWork);
    s.Sql(0, "BEGIN; UPDATE t SET v = v || '1'; UPDATE t SET v = v || '2'; COMMIT;" +
                 std::string("BEGIN; UPDATE t SET v = v || '3'; ROLLBACK;"));
  });
}

TEST_P(PassthroughModeTest, TwoConnections) {
  CompareAtEachLevel([](RecordedSession& s, const std::string& pragmas) {
    s.Open(0, s.path("test.db"));
    s.Sql(0, pragmas + "CREATE TABLE t(x); INSERT INTO t VALUES(1);");
    s.Open(1, s.path("test.db"));
    s.Sql(1, pragmas + "SELECT * FROM t; INSERT INTO t VALUES(2);");
    s.Sql(0, "BEGIN IMMEDIATE; INSERT INTO t VALUES(3);");
    s.Sql(1, "SELECT * FROM t; INSERT INTO t VALUES(4); BEGIN IMMEDIATE; BEGIN EXCLUSIVE;");
    s.Sql(0, "COMMIT; BEGIN; SELECT count(*) FROM t;");
    s.Sql(1, "INSERT INTO t VALUES(5); BEGIN EXCLUSIVE; INSERT INTO t VALUES(6); COMMIT;");
    s.Sql(0, "SELECT count(*) FROM t; INSERT INTO t VALUES(7); COMMIT; INSERT INTO t VALUES(8);");
    s.Close(1);
    s.Sql(0, "INSERT INTO t VALUES(9); SELECT * FROM t;");
  });
}

INSTANTIATE_TEST_SUITE_P(Modes, PassthroughModeTest,
                         ::testing::Combine(::testing::Values("DELETE", "TRUNCATE", "PERSIST",
                                                              "MEMORY", "OFF", "WAL"),
                                            ::testing::Values("NORMAL", "EXCLUSIVE")),
                         [](const auto& test) {
                           return std::string(std::get<0>(test.param)) + "_" +
                                  std::get<1>(test.param);
                         });

// ---- Temporary and in-memory databases ----

TEST_F(PassthroughTest, TemporaryTablesInFiles) {
  Compare([](RecordedSession& s) {
    s.Open(0, s.path("test.db"));
    s.Sql(0,
          "PRAGMA temp_store=FILE; PRAGMA temp.cache_size=5; PRAGMA cache_size=5;"
          "CREATE TABLE t(x); CREATE TEMP TABLE tmp(x);"
          "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<3000)"
          " INSERT INTO tmp SELECT hex(zeroblob(i % 50)) FROM n;"
          "BEGIN; INSERT INTO t SELECT * FROM tmp; DELETE FROM tmp; COMMIT;"
          "SELECT count(*), sum(length(x)) FROM (SELECT x FROM t ORDER BY x DESC);"
          "CREATE INDEX ti ON t(x); DROP TABLE tmp;");
  });
}

TEST_F(PassthroughTest, DatabasesWithoutAName) {
  Compare([](RecordedSession& s) {
    s.Open(0, "");
    s.Sql(0, std::string("PRAGMA cache_size=5;") + kWork + "PRAGMA journal_mode=WAL;");
  });
}

TEST_F(PassthroughTest, InMemoryDatabases) {
  Compare([](RecordedSession& s) {
    s.Open(0, ":memory:");
    s.Sql(0, kWork);
    s.Open(1, "file:shared?mode=memory&cache=shared");
    s.Open(2, "file:shared?mode=memory&cache=shared");
    s.Sql(1, "CREATE TABLE t(x); INSERT INTO t VALUES(1); PRAGMA journal_mode=WAL;");
    s.Sql(2, "SELECT * FROM t;");
    s.Open(3, s.path("test.db"));  // for the comparison: the others call nothing
    s.Sql(3,
          "ATTACH ':memory:' AS m; CREATE TABLE m.t(x); CREATE TABLE t(x);"
          "BEGIN; INSERT INTO t VALUES(1); INSERT INTO m.t VALUES(1); COMMIT;");
  });
}

// ---- Ways to open ----

TEST_F(PassthroughTest, ReadOnly) {
  Compare([](RecordedSession& s) {
    Prepare(s, "DELETE");
    s.Open(1, s.path("test.db"), SQLITE_OPEN_READONLY);
    s.Sql(1, "SELECT * FROM t; INSERT INTO t VALUES(2);");
    s.Open(2, s.Uri("test.db", "mode=ro"));
    s.Sql(2, "SELECT * FROM t; INSERT INTO t VALUES(2);");
    s.Open(3, s.path("missing.db"), SQLITE_OPEN_READONLY);
  });
}

TEST_F(PassthroughTest, ReadingAWalDatabaseReadOnly) {
  CompareWal([](RecordedSession& s) {
    Prepare(s, "WAL");
    s.Open(1, s.path("test.db"), SQLITE_OPEN_READONLY);
    s.Sql(1, "SELECT * FROM t; INSERT INTO t VALUES(2); PRAGMA wal_checkpoint;");
    s.Open(0, s.path("test.db"));
    s.Sql(0, "INSERT INTO t VALUES(3);");
    s.Sql(1, "SELECT * FROM t;");
    s.Open(2, s.Uri("test.db", "readonly_shm=1"));
    s.Sql(2, "SELECT * FROM t; INSERT INTO t VALUES(4); PRAGMA wal_checkpoint;");
    s.Close(0);
    s.Sql(1, "SELECT * FROM t;");
  });
}

TEST_F(PassthroughTest, Immutable) {
  Compare([](RecordedSession& s) {
    Prepare(s, "DELETE");
    s.Open(1, s.Uri("test.db", "immutable=1"));
    s.Sql(1, "SELECT * FROM t; INSERT INTO t VALUES(2);");
    s.Open(2, s.Uri("test.db", "mode=ro&immutable=1"));
    s.Sql(2, "SELECT * FROM t; INSERT INTO t VALUES(2);");
  });
  Compare(
      [](RecordedSession& s) {
        Prepare(s, "WAL");
        s.Open(1, s.Uri("test.db", "mode=ro&immutable=1"));
        s.Sql(1, "SELECT * FROM t; PRAGMA journal_mode;");
      },
      Calls::kSameButLater);
}

TEST_F(PassthroughTest, NoLock) {
  Compare([](RecordedSession& s) {
    s.Open(0, s.Uri("test.db", "nolock=1"));
    s.Sql(0, kWork);
    s.Sql(0, "PRAGMA journal_mode=WAL; INSERT INTO t VALUES(5000, 5, 5);");
  });
}

TEST_F(PassthroughTest, ModesOfOpening) {
  Compare([](RecordedSession& s) {
    s.Open(0, s.path("missing.db"), SQLITE_OPEN_READWRITE);
    s.Open(0, s.path("no/such/directory.db"));
    s.Open(0, s.Uri("test.db", "mode=rwc&psow=0"));
    s.Sql(0, kWork);
    s.Open(1, s.Uri("test.db", "mode=rw&cache=private&unknown=1"));
    s.Sql(1, "SELECT count(*) FROM t;");
    s.Open(2, s.path("test.db"), kOpenCreate | SQLITE_OPEN_NOFOLLOW);
    s.Sql(2, "SELECT count(*) FROM t;");
  });
}

TEST_F(PassthroughTest, MemoryMapping) {
  for (const char* mode : {"DELETE", "WAL"}) {
    SCOPED_TRACE(mode);
    Compare(
        [mode](RecordedSession& s) {
          s.Open(0, s.path("test.db"));
          s.Sql(0, "PRAGMA mmap_size=100000;" + Pragma("journal_mode", mode) + kWork);
          s.Sql(0, "PRAGMA wal_checkpoint; INSERT INTO t VALUES(9000, zeroblob(200000), 1);");
          s.Open(1, s.path("test.db"));
          s.Sql(1, "PRAGMA mmap_size=100000; SELECT count(*), sum(length(v)) FROM t;");
          s.Sql(0, "PRAGMA mmap_size=0; DELETE FROM t WHERE k % 2; PRAGMA mmap_size=1000000;");
          s.Sql(1, "SELECT count(*), sum(length(v)) FROM t;");
        },
        mode[0] == 'W' ? Calls::kSameButLater : Calls::kSame);
  }
}

}  // namespace
}  // namespace groupcommit::testing
