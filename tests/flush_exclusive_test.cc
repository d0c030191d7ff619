// Flushes and LSNs in exclusive locking mode, where there are no locks to go by.
#include <sqlite3.h>

#include <algorithm>
#include <thread>

#include "support/barrier_test.h"

namespace groupcommit::testing {
namespace {

class ExclusiveFlushTest : public BarrierTest {
 protected:
  // In exclusive locking mode, with a table big(k, v) that does not fit into the cache.
  Db OpenExclusiveWithBig() {
    Db db = OpenWithTable();
    db.ExecOk(
        "PRAGMA cache_size=5; CREATE TABLE big(k INTEGER PRIMARY KEY, v);"
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<200) "
        "INSERT INTO big SELECT i, zeroblob(1000) FROM n;"
        "PRAGMA synchronous=NORMAL; PRAGMA locking_mode=EXCLUSIVE");
    return db;
  }
};

// The frames' headers are written again behind the commit frame (wal.c: walRewriteChecksums()).
TEST_F(ExclusiveFlushTest, CommitsThatRewroteTheirFramesHaveAnLsn) {
  Db db = OpenExclusiveWithBig();
  Insert(db);
  ASSERT_EQ(Flush(db), SQLITE_OK);
  const sqlite3_int64 before = CommitLsn(db);
  db.ExecOk(
      "BEGIN; UPDATE big SET v=randomblob(1000); UPDATE big SET v=randomblob(1000);"
      "INSERT INTO t VALUES('x'); COMMIT");
  EXPECT_GT(CommitLsn(db), before);
  EXPECT_GT(CommitLsn(db), DurableLsn(db));
  EXPECT_EQ(Wait(db, CommitLsn(db), -1), SQLITE_OK);
  EXPECT_EQ(RowsAfterPowerCut(), 3);
}

TEST_F(ExclusiveFlushTest, CommitsDoNotTakeTheNumberOfOneThatFailed) {
  Db db = OpenWithTable();
  db.ExecOk("PRAGMA locking_mode=EXCLUSIVE");
  Insert(db);
  storage_.FailSyncs(FileKind::kWal, 1, 1);
  EXPECT_EQ(db.Exec("INSERT INTO t VALUES('failed')"), SQLITE_IOERR_FSYNC);
  ASSERT_EQ(Flush(db), SQLITE_OK);
  db.ExecOk("PRAGMA synchronous=NORMAL");
  Insert(db);
  EXPECT_GT(CommitLsn(db), DurableLsn(db));
  EXPECT_EQ(Wait(db, CommitLsn(db), 0), SQLITE_BUSY);
  EXPECT_EQ(RowsAfterPowerCut(), 2);
  EXPECT_EQ(Wait(db, CommitLsn(db), -1), SQLITE_OK);
  EXPECT_EQ(RowsAfterPowerCut(), 3);
}

// Neither does a transaction that writes nothing, but ends as one that does.
TEST_F(ExclusiveFlushTest, ACommitThatFailedIsNotTheLastOne) {
  Db db = OpenWithTable();
  db.ExecOk("PRAGMA locking_mode=EXCLUSIVE; INSERT INTO t VALUES('x')");
  const sqlite3_int64 before = CommitLsn(db);
  storage_.FailSyncs(FileKind::kWal, 1, 1);
  EXPECT_EQ(db.Exec("INSERT INTO t VALUES('failed')"), SQLITE_IOERR_FSYNC);
  db.Exec("BEGIN IMMEDIATE; COMMIT");
  EXPECT_EQ(CommitLsn(db), before);
}

// Nor if it failed as its frame headers were written again.
TEST_F(ExclusiveFlushTest, ACommitThatFailedBehindItsCommitFrameIsNotTheLastOne) {
  Db db = OpenExclusiveWithBig();
  Insert(db);
  const sqlite3_int64 before = CommitLsn(db);
  int64_t end = 0;
  bool has_failed = false;
  storage_.SetFaultHook([&](const Call& call) {
    constexpr int kFrameHeader = 24;
    if (call.op != Op::kWrite || call.kind != FileKind::kWal) return SQLITE_OK;
    const bool is_again = call.offset < end && call.amount == kFrameHeader;
    end = std::max(end, call.offset);
    has_failed = has_failed || is_again;
    return is_again ? SQLITE_IOERR_WRITE : SQLITE_OK;
  });
  EXPECT_EQ(db.Exec("BEGIN; UPDATE big SET v=randomblob(1000); UPDATE big SET v=randomblob(1000);"
                    "COMMIT"),
            SQLITE_IOERR_WRITE);
  storage_.SetFaultHook(nullptr);
  EXPECT_TRUE(has_failed);
  db.Exec("ROLLBACK");
  db.ExecOk("BEGIN IMMEDIATE; COMMIT");
  EXPECT_EQ(CommitLsn(db), before);
}

// What was rolled back before does not tell where a transaction begins.
TEST_F(ExclusiveFlushTest, AFailedCommitIsNotTheEndAfterARollBackInNormalMode) {
  Db db = OpenWithTable();
  Db other = OpenWithTable();
  FailWritesToTheLog();
  EXPECT_NE(db.Exec("INSERT INTO t VALUES('rolled back')"), SQLITE_OK);
  storage_.SetFaultHook(nullptr);
  for (int i = 0; i < 3; i++) Insert(other);
  other.Close();
  db.ExecOk("PRAGMA locking_mode=EXCLUSIVE");
  storage_.FailSyncs(FileKind::kWal, 1, 3);
  EXPECT_EQ(db.Exec("INSERT INTO t VALUES('failed')"), SQLITE_IOERR_FSYNC);
  EXPECT_EQ(Stats(db).fenced, 1);
  EXPECT_EQ(db.Exec("INSERT INTO t VALUES('after')"), SQLITE_OK);
}

TEST_F(ExclusiveFlushTest, FromTheStartAFailedFlushIsNotTheEnd) {
  Db db(path(), "gc");
  db.ExecOk(
      "PRAGMA locking_mode=EXCLUSIVE; PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;"
      "CREATE TABLE t(x)");
  Insert(db);
  storage_.FailSyncs(FileKind::kWal, 1, 1);
  EXPECT_EQ(Flush(db), SQLITE_IOERR_FSYNC);
  EXPECT_EQ(Flush(db), SQLITE_OK);
  EXPECT_EQ(RowsAfterPowerCut(), 1);
  Insert(db);
  EXPECT_EQ(Flush(db), SQLITE_OK);
  EXPECT_EQ(RowsAfterPowerCut(), 2);
}

TEST_F(ExclusiveFlushTest, FromTheStartAFailedCommitIsNotTheEnd) {
  Db db(path(), "gc");
  db.ExecOk(
      "PRAGMA locking_mode=EXCLUSIVE; PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;"
      "CREATE TABLE t(x)");
  storage_.FailSyncs(FileKind::kWal, 1, 1);
  EXPECT_EQ(db.Exec("INSERT INTO t VALUES('failed')"), SQLITE_IOERR_FSYNC);
  Insert(db);
  EXPECT_EQ(RowsAfterPowerCut(), 1);
}

// It has no shared memory to let go of, and no checkpoint makes its commits durable.
TEST_F(ExclusiveFlushTest, FromTheStartClosingLeavesNothingBehind) {
  Db db(path(), "gc");
  db.ExecOk(
      "PRAGMA locking_mode=EXCLUSIVE; PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;"
      "CREATE TABLE t(x); PRAGMA groupcommit_policy='interval(max_delay_us=10000000)'");
  Insert(db);
  ASSERT_EQ(sqlite3_db_config(db.get(), SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, nullptr), SQLITE_OK);
  EXPECT_EQ(db.Close(), SQLITE_OK);
  EXPECT_EQ(RowsAfterPowerCut(), 1);
}

TEST_F(ExclusiveFlushTest, AFailureInTheBackgroundIsNotTheEnd) {
  Db db = OpenWithTable();
  db.ExecOk(kSoon);
  db.ExecOk("PRAGMA synchronous=NORMAL; PRAGMA locking_mode=EXCLUSIVE");
  Insert(db);
  EXPECT_EQ(Flush(db), SQLITE_OK);
  storage_.FailSyncs(FileKind::kWal, 1, 1);
  Insert(db);
  while (Stats(db).background_errors == 0) std::this_thread::yield();
  EXPECT_EQ(db.Exec("INSERT INTO t VALUES('told')"), SQLITE_IOERR_FSYNC);
  Insert(db);
  EXPECT_EQ(Flush(db), SQLITE_OK);
  EXPECT_EQ(RowsAfterPowerCut(), 4);
}

// The frames of a transaction that is under way are behind the end of the log.
TEST_F(ExclusiveFlushTest, AFailedFlushLeavesTheTransactionWhole) {
  Db db = OpenExclusiveWithBig();
  Insert(db);
  db.ExecOk("BEGIN; INSERT INTO t VALUES('y'); UPDATE big SET v=randomblob(1000)");
  storage_.FailSyncs(FileKind::kWal, 1, 1);
  EXPECT_EQ(Flush(db), SQLITE_IOERR_FSYNC);
  const int rc = db.Exec("COMMIT");
  if (sqlite3_get_autocommit(db.get()) == 0) db.ExecOk("ROLLBACK");
  EXPECT_EQ(db.Text("PRAGMA integrity_check"), "ok") << rc;
  EXPECT_EQ(Flush(db), SQLITE_OK);
  EXPECT_EQ(RowsAfterPowerCut(), rc == SQLITE_OK ? 3 : 2) << rc;
}

}  // namespace
}  // namespace groupcommit::testing
