// The frames of a transaction are written to the log by one call, and nobody can tell.
#include <atomic>
#include <filesystem>
#include <mutex>
#include <string>
#include <vector>

#include "support/shim_test.h"

namespace groupcommit::testing {
namespace {

constexpr int kPage = 4096;
constexpr int kFrame = 24 + kPage;

class LogWriteTest : public ShimTest {
 protected:
  // What `sql` writes to logs, in bytes.
  std::vector<int64_t> WritesOf(Db& db, const std::string& sql) {
    std::mutex mutex;
    std::vector<int64_t> amounts;
    storage_.SetObserver([&](const Call& call) {
      const std::lock_guard<std::mutex> lock(mutex);
      if (call.op == Op::kWrite && call.kind == FileKind::kWal) amounts.push_back(call.amount);
    });
    db.ExecOk(sql);
    storage_.SetObserver(nullptr);
    return amounts;
  }

  // What `sql` says about the files as they are, to somebody who has to recover the log.
  int64_t Recovered(const std::string& sql) {
    const std::string copy = path("copy.db");
    for (const char* suffix : {"", "-wal"}) {
      std::filesystem::copy_file(path() + suffix, copy + suffix,
                                 std::filesystem::copy_options::overwrite_existing);
    }
    Db db(copy);
    return db.Int(sql);
  }

  static constexpr char kManyRows[] =
      "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<300)"
      " INSERT INTO t SELECT zeroblob(1000) FROM n;";
};

TEST_F(LogWriteTest, ACommitIsOneCall) {
  Db db = OpenWithTable();
  EXPECT_EQ(WritesOf(db, "UPDATE t SET x = 'y'"), std::vector<int64_t>{kFrame});
  const std::vector<int64_t> several = WritesOf(db, "INSERT INTO t VALUES(zeroblob(20000))");
  ASSERT_EQ(several.size(), 1U);
  EXPECT_EQ(several[0] % kFrame, 0);
  EXPECT_GT(several[0], 4 * kFrame);
}

TEST_F(LogWriteTest, ALongTransactionIsWrittenInPieces) {
  Db db = OpenWithTable();
  int64_t sum = 0;
  for (const int64_t amount : WritesOf(db, kManyRows)) {
    EXPECT_LE(amount, 16 * kFrame);
    sum += amount;
  }
  EXPECT_GT(sum, 60 * kFrame);
  EXPECT_EQ(RowsAfterPowerCut(), 301);
}

// Nobody is refused a frame that was said to be written, or reads an old one.
TEST_F(LogWriteTest, ATransactionReadsWhatItHasSpilled) {
  Db db = OpenWithTable();
  db.ExecOk(std::string("PRAGMA cache_size=5; BEGIN;") + kManyRows);
  EXPECT_EQ(db.Int("SELECT count(*) FROM t WHERE length(x) = 1000"), 300);
  db.ExecOk("SAVEPOINT s; UPDATE t SET x = zeroblob(1001)");
  EXPECT_EQ(db.Int("SELECT count(*) FROM t WHERE length(x) = 1001"), 301);
  db.ExecOk("ROLLBACK TO s");
  EXPECT_EQ(db.Int("SELECT count(*) FROM t WHERE length(x) = 1000"), 300);
  db.ExecOk("COMMIT");
  EXPECT_EQ(RowsAfterPowerCut(), 301);
}

// With synchronous=NORMAL nothing is called between the last write of a commit and its publication.
TEST_F(LogWriteTest, CommitsWithoutASyncAreWritten) {
  Db db = OpenWithTable();
  db.ExecOk("PRAGMA synchronous=NORMAL; INSERT INTO t VALUES('one frame')");
  EXPECT_EQ(Recovered("SELECT count(*) FROM t"), 2);
  db.ExecOk(kManyRows);
  EXPECT_EQ(Recovered("SELECT count(*) FROM t"), 302);
}

// A transaction that writes a page twice writes into frames of its own again, and the headers of
// all behind them after its commit frame (wal.c: sqlite3WalFrames(), walRewriteChecksums()).
TEST_F(LogWriteTest, FramesThatAreWrittenAgainAreTheNewOnes) {
  Db db = OpenWithTable();
  db.ExecOk("PRAGMA synchronous=NORMAL; PRAGMA cache_size=5");
  db.ExecOk(std::string("BEGIN;") + kManyRows + "UPDATE t SET x = zeroblob(900); COMMIT");
  EXPECT_EQ(Recovered("SELECT count(*) FROM t WHERE length(x) = 900"), 301);
}

TEST_F(LogWriteTest, WhatIsRolledBackIsNotWrittenOverWhatComesNext) {
  Db db = OpenWithTable();
  Db other(path(), "store");
  db.ExecOk("PRAGMA cache_size=5");
  for (int i = 0; i < 20; i++) {
    // Ends in a different place of a piece each time. Page 1 is read from the database file when
    // it is rolled back, so that nothing is read from the log.
    db.ExecOk("PRAGMA wal_checkpoint(RESTART)");
    db.ExecOk("BEGIN; WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<" +
              std::to_string(60 + i) + ") INSERT INTO t SELECT zeroblob(1000) FROM n; ROLLBACK");
    other.ExecOk("INSERT INTO t VALUES(zeroblob(100000))");
    db.ExecOk("INSERT INTO t VALUES('kept')");
    ASSERT_FALSE(HasFailure());
  }
  EXPECT_EQ(Recovered("SELECT count(*) FROM t"), 41);
  EXPECT_EQ(RowsAfterPowerCut(), 41);
}

TEST_F(LogWriteTest, AWriteThatFailsFailsTheTransaction) {
  Db db = OpenWithTable();
  storage_.SetFaultHook([](const Call& call) {
    return call.op == Op::kWrite && call.kind == FileKind::kWal ? SQLITE_FULL : SQLITE_OK;
  });
  EXPECT_EQ(db.Exec("INSERT INTO t VALUES('lost')"), SQLITE_FULL);
  storage_.SetFaultHook(nullptr);
  db.ExecOk("INSERT INTO t VALUES('kept')");
  EXPECT_EQ(RowsAfterPowerCut(), 2);
}

// A write that fails where SQLite does not end the transaction for it: what it had been told was
// written is written later, or COMMIT fails.
class LostFramesTest : public LogWriteTest {
 protected:
  // The first `failures` writes during `statement`, in a transaction that has filled t, end with
  // `code`.
  void FailDuring(const std::string& statement, int code, int failures) {
    Db db = OpenWal();
    db.ExecOk(
        "PRAGMA cache_size=5; CREATE TABLE t(k INTEGER PRIMARY KEY, u UNIQUE, x); BEGIN;"
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<140)"
        " INSERT INTO t SELECT i, i*7919%1000003, zeroblob(700) FROM n");
    std::atomic<int> left{failures};
    storage_.SetFaultHook([&](const Call& call) {
      const bool is_write = call.op == Op::kWrite && call.kind == FileKind::kWal;
      return is_write && left-- > 0 ? code : SQLITE_OK;
    });
    db.Exec(statement);
    storage_.SetFaultHook(nullptr);
    if (db.Exec("COMMIT") != SQLITE_OK) return;
    EXPECT_EQ(RowsAfterPowerCut(), 140);
    Db other(path(), "store");
    EXPECT_EQ(other.Text("PRAGMA integrity_check"), "ok");
  }
};

TEST_F(LostFramesTest, DuringAStatementThatIsRolledBackAlone) {
  for (const int code : {SQLITE_FULL, SQLITE_IOERR_WRITE, SQLITE_NOMEM}) {
    FailDuring("UPDATE t SET u = u + 2000000, x = zeroblob(701)", code, 1);
    std::filesystem::remove(path());
  }
}

TEST_F(LostFramesTest, BeforeARollbackToASavepoint) {
  FailDuring("SAVEPOINT s; INSERT INTO t SELECT k+1000, u+3000000, x FROM t; ROLLBACK TO s",
             SQLITE_FULL, 1);
}

TEST_F(LostFramesTest, DuringAnIntegrityCheckWhichGoesOn) {
  FailDuring("PRAGMA integrity_check", SQLITE_IOERR_WRITE, 1'000'000);
}

// SQLite does not do that, but a tool may.
TEST_F(LogWriteTest, AReadOfMoreThanWhatIsGathered) {
  Db db = OpenWithTable();
  db.ExecOk(std::string("PRAGMA cache_size=5; BEGIN;") + kManyRows);
  sqlite3_file* log = nullptr;
  ASSERT_EQ(sqlite3_file_control(db.get(), "main", SQLITE_FCNTL_JOURNAL_POINTER, &log), SQLITE_OK);
  std::vector<char> bytes(32);
  while (log->pMethods->xRead(log, bytes.data(), static_cast<int>(bytes.size()), 0) == SQLITE_OK) {
    bytes.resize(bytes.size() + kFrame);
  }
  sqlite3_int64 size = 0;
  ASSERT_EQ(log->pMethods->xFileSize(log, &size), SQLITE_OK);
  EXPECT_EQ(static_cast<sqlite3_int64>(bytes.size()), size + kFrame) << "the first that is missing";
  EXPECT_GT(size, 40 * kFrame);
}

TEST_F(LogWriteTest, ARollbackWritesNothing) {
  Db db = OpenWithTable();
  db.ExecOk(std::string("PRAGMA cache_size=5; BEGIN; CREATE TABLE u(x);") + kManyRows);
  EXPECT_EQ(WritesOf(db, "ROLLBACK"), std::vector<int64_t>{});
}

// A base VFS that has not said that it minds, nor that it does not: it may encrypt pages, which it
// knows by their size.
TEST_F(LogWriteTest, ABaseThatMayLookAtSizesGetsHeadersAndPages) {
  storage_.SetJoinWrites(false);
  Db db = OpenWithTable();
  Db reader = OpenWithTable();
  EXPECT_EQ(WritesOf(db, "UPDATE t SET x = 'y'"), (std::vector<int64_t>{24, kPage}));
  std::atomic<int> reads{0};
  storage_.SetObserver([&](const Call& call) {
    if (call.op == Op::kRead && call.kind == FileKind::kWal) ++reads;
  });
  EXPECT_EQ(reader.Int("SELECT count(*) FROM t WHERE x = 'y'"), 2);
  storage_.SetObserver(nullptr);
  EXPECT_GT(reads, 0);
}

// As stock SQLite does it.
TEST_F(LogWriteTest, OnEachFlushWritesHeadersAndPages) {
  Db db = OpenWithTable();
  db.ExecOk("PRAGMA groupcommit_policy=on_each_flush");
  EXPECT_EQ(WritesOf(db, "UPDATE t SET x = 'y'"), (std::vector<int64_t>{24, kPage}));
}

TEST_F(LogWriteTest, ExclusiveLockingModeWritesHeadersAndPages) {
  Db db(path(), "gc");
  db.ExecOk("PRAGMA locking_mode=EXCLUSIVE; PRAGMA journal_mode=WAL; CREATE TABLE t(x)");
  EXPECT_EQ(WritesOf(db, "INSERT INTO t VALUES(1)"), (std::vector<int64_t>{24, kPage}));
}

// There SQLite calls nothing at the end of a transaction that it rolls back.
TEST_F(LogWriteTest, AConnectionThatGoesOverToExclusiveLockingModeDoesSoToo) {
  Db db = OpenWithTable();
  db.ExecOk("PRAGMA locking_mode=EXCLUSIVE; UPDATE t SET x = 'x'");
  EXPECT_EQ(WritesOf(db, "UPDATE t SET x = 'y'"), (std::vector<int64_t>{24, kPage}));
}

}  // namespace
}  // namespace groupcommit::testing
