// The frames of a transaction are written to the log by one call, and nobody can tell.
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

}  // namespace
}  // namespace groupcommit::testing
