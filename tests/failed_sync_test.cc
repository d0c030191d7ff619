// A sync of the log that fails: its commits fail, and nothing is acknowledged on top of the hole.
#include <thread>

#include "support/shim_test.h"

namespace groupcommit::testing {
namespace {

using FailedSyncTest = ShimTest;

TEST_F(FailedSyncTest, EveryCommitThatItCoversFails) {
  constexpr int kFollowers = 4;
  Db observer(path(), "gc");
  Db leader = OpenWithTable();
  std::vector<Db> followers;
  for (int i = 0; i < kFollowers; i++) followers.push_back(OpenWithTable());
  const int64_t rows = leader.Int("SELECT count(*) FROM t");

  storage_.HoldSyncs(FileKind::kWal);
  std::vector<std::future<int>> commits;
  commits.push_back(ExecAsync(leader, "INSERT INTO t VALUES('durable')"));
  ASSERT_TRUE(storage_.WaitForHeldSyncs(1));
  for (Db& db : followers) {
    commits.push_back(ExecAsync(db, "INSERT INTO t VALUES('failed')"));
    while (Stats(observer).pending < static_cast<int64_t>(commits.size())) {
      std::this_thread::yield();
    }
  }
  EXPECT_EQ(storage_.ReleaseSyncs(1), 1);
  ASSERT_TRUE(storage_.WaitForHeldSyncs(1));
  EXPECT_EQ(storage_.ReleaseSyncs(1, SQLITE_IOERR_FSYNC), 1);
  EXPECT_EQ(commits[0].get(), SQLITE_OK) << "it was durable before";
  for (size_t i = 1; i < commits.size(); i++) {
    EXPECT_EQ(commits[i].get(), SQLITE_IOERR_FSYNC) << i;
  }
  storage_.OpenGate();
  EXPECT_EQ(RowsAfterPowerCut(), rows + 1);
  EXPECT_EQ(Stats(observer).fenced, 1);
  EXPECT_EQ(Stats(observer).failed_syncs, 1);
}

// fsyncgate: the kernel drops the pages and the next sync succeeds. What would be committed on top
// of the hole is lost with it, so it must not be acknowledged.
TEST_F(FailedSyncTest, NothingIsAcknowledgedOnTopOfTheHole) {
  Db a = OpenWithTable();
  Db b = OpenWithTable();
  const int64_t rows = a.Int("SELECT count(*) FROM t");
  storage_.FailSyncs(FileKind::kWal, 1, 1);
  EXPECT_EQ(a.Exec("INSERT INTO t VALUES('failed')"), SQLITE_IOERR_FSYNC);
  for (int i = 0; i < 3; i++) {
    EXPECT_NE(a.Exec("INSERT INTO t VALUES('on top')"), SQLITE_OK);
    EXPECT_NE(b.Exec("INSERT INTO t VALUES('on top')"), SQLITE_OK);
    EXPECT_NE(b.Exec("PRAGMA wal_checkpoint(TRUNCATE)"), SQLITE_OK);
  }
  EXPECT_EQ(RowsAfterPowerCut(), rows);
}

TEST_F(FailedSyncTest, AWriterInTheMiddleOfItsTransactionFailsToo) {
  Db a = OpenWithTable();
  Db b = OpenWithTable();
  Db checkpointer = OpenWithTable();
  const int64_t rows = a.Int("SELECT count(*) FROM t");
  storage_.HoldSyncs(FileKind::kWal);
  std::future<int> failing = ExecAsync(a, "INSERT INTO t VALUES('failed')");
  ASSERT_TRUE(storage_.WaitForHeldSyncs(1));
  b.ExecOk("BEGIN IMMEDIATE; INSERT INTO t VALUES('in the middle')");
  storage_.ReleaseSyncs(1, SQLITE_IOERR_FSYNC);
  EXPECT_EQ(failing.get(), SQLITE_IOERR_FSYNC);
  storage_.OpenGate();
  EXPECT_NE(b.Exec("COMMIT"), SQLITE_OK);
  b.Exec("ROLLBACK");
  EXPECT_EQ(RowsAfterPowerCut(), rows);
}

// Bytes in the log that a failed sync of somebody else may have dropped: the writer's own sync need
// not hear of it.
TEST_F(FailedSyncTest, AWriterWhoseBytesAFailedCheckpointMayHaveDroppedFails) {
  Db writer = OpenWithTable();
  Db checkpointer = OpenWithTable();
  const int64_t rows = writer.Int("SELECT count(*) FROM t");
  writer.ExecOk("PRAGMA cache_size=5; BEGIN; INSERT INTO t VALUES(zeroblob(200000))");  // spills
  storage_.FailSyncs(FileKind::kWal, 1, 1);
  EXPECT_NE(checkpointer.Exec("PRAGMA wal_checkpoint"), SQLITE_OK);
  EXPECT_EQ(writer.Exec("COMMIT"), SQLITE_IOERR_FSYNC);
  EXPECT_EQ(RowsAfterPowerCut(), rows);
  // Nothing was pending, so there is no hole: work goes on, as with stock SQLite.
  writer.Exec("ROLLBACK");
  writer.ExecOk("INSERT INTO t VALUES('again')");
  EXPECT_EQ(RowsAfterPowerCut(), rows + 1);
  EXPECT_EQ(Stats(writer).fenced, 0);
}

// A sync at once that fails with nothing pending is stock SQLite's case: the commit is not
// published.
TEST_F(FailedSyncTest, AFailedSyncAtOnceFencesNothing) {
  Db db = OpenWithTable();
  db.ExecOk("PRAGMA groupcommit_policy=on_each_flush");
  const int64_t rows = db.Int("SELECT count(*) FROM t");
  storage_.FailSyncs(FileKind::kWal, 1, 1);
  EXPECT_EQ(db.Exec("INSERT INTO t VALUES('failed')"), SQLITE_IOERR_FSYNC);
  EXPECT_EQ(db.Int("SELECT count(*) FROM t"), rows);
  db.ExecOk("INSERT INTO t VALUES('again')");
  EXPECT_EQ(RowsAfterPowerCut(), rows + 1);
}

TEST_F(FailedSyncTest, ReadersOfAFailedCommitGetAnErrorAndNoRow) {
  Db a = OpenWithTable();
  Db reader = OpenWithTable();
  a.ExecOk("CREATE TABLE u(x); INSERT INTO u VALUES(7)");
  storage_.FailSyncs(FileKind::kWal, 1, 1);
  EXPECT_EQ(a.Exec("INSERT INTO t VALUES('failed')"), SQLITE_IOERR_FSYNC);
  EXPECT_NE(reader.Exec("SELECT count(*) FROM t"), SQLITE_OK);
  EXPECT_NE(a.Exec("SELECT count(*) FROM t"), SQLITE_OK);
}

// A cache that was filled inside a write transaction which was then rolled back.
TEST_F(FailedSyncTest, ACacheWithPagesOfAFailedCommitIsNotUsed) {
  Db a = OpenWithTable();
  Db b = OpenWithTable();
  storage_.HoldSyncs(FileKind::kWal);
  std::future<int> failing = ExecAsync(a, "INSERT INTO t VALUES('failed')");
  ASSERT_TRUE(storage_.WaitForHeldSyncs(1));
  b.ExecOk("BEGIN IMMEDIATE; SELECT * FROM t");
  std::future<int> rollback = ExecAsync(b, "ROLLBACK");
  storage_.ReleaseSyncs(1, SQLITE_IOERR_FSYNC);
  EXPECT_EQ(failing.get(), SQLITE_IOERR_FSYNC);
  rollback.get();
  storage_.OpenGate();
  EXPECT_NE(b.Exec("SELECT * FROM t"), SQLITE_OK);
}

// The fence keeps other processes out as well.
TEST_F(FailedSyncTest, OtherProcessesCannotBuildOnTheHole) {
  if (!HaveStockShell()) GTEST_SKIP() << "the sqlite3 shell is not installed";
  Db a = OpenWithTable();
  storage_.FailSyncs(FileKind::kWal, 1, 1);
  EXPECT_EQ(a.Exec("INSERT INTO t VALUES('failed')"), SQLITE_IOERR_FSYNC);
  EXPECT_NE(StockShell(path(), "INSERT INTO t VALUES('other');\n").find("locked"),
            std::string::npos);
}

TEST_F(FailedSyncTest, TheConnectionsCanBeClosedAndTheDatabaseOpenedAgain) {
  int64_t rows;
  {
    Db a = OpenWithTable();
    Db b = OpenWithTable();
    rows = a.Int("SELECT count(*) FROM t");
    storage_.FailSyncs(FileKind::kWal, 1, 1);
    EXPECT_EQ(a.Exec("INSERT INTO t VALUES('failed')"), SQLITE_IOERR_FSYNC);
    EXPECT_NE(b.Exec("INSERT INTO t VALUES('on top')"), SQLITE_OK);
  }
  Db db = OpenWal();
  EXPECT_EQ(Stats(db).fenced, 0);
  // The commit that failed may be there or not; what is acknowledged from now on has to stay.
  db.ExecOk("INSERT INTO t VALUES('after')");
  EXPECT_GE(RowsAfterPowerCut(), rows + 1);
  EXPECT_EQ(RowsAfterPowerCut(), db.Int("SELECT count(*) FROM t"));
}

}  // namespace
}  // namespace groupcommit::testing
