// A sync of the log that fails: its commits fail and vanish, nothing is acknowledged on top of the
// hole, and the same connections go on working. The storage drops what a failed sync covered, as
// Linux does: a later sync succeeds without it.
#include <sqlite3.h>

#include <atomic>
#include <thread>

#include "support/coordinator_fixture.h"
#include "support/shim_test.h"

namespace groupcommit::testing {
namespace {

class FailedSyncTest : public ShimTest {
 protected:
  void SetUp() override {
    a_ = OpenWithTable();
    b_ = OpenWithTable();
    observer_ = Db(path(), "gc");
    rows_ = a_.Int("SELECT count(*) FROM t");
  }

  // Both connections find `rows` rows, commit, and find their commits after a power cut.
  void ExpectWorkGoesOn(int64_t rows) {
    for (Db* db : {&a_, &b_}) {
      EXPECT_EQ(db->Int("SELECT count(*) FROM t"), rows);
      db->ExecOk("INSERT INTO t VALUES('after')");
      rows++;
      EXPECT_EQ(RowsAfterPowerCut(), rows);
      EXPECT_EQ(db->Text("PRAGMA integrity_check"), "ok");
    }
    EXPECT_EQ(Stats(observer_).fenced, 0);
    a_.ExecOk("PRAGMA wal_checkpoint(TRUNCATE)");
    EXPECT_EQ(RowsAfterPowerCut(), rows);
    EXPECT_EQ(b_.Int("SELECT count(*) FROM t WHERE x LIKE 'failed%'"), 0);
  }

  Db a_;
  Db b_;
  Db observer_;
  int64_t rows_ = 0;
};

TEST_F(FailedSyncTest, OneCommitFailsAndVanishes) {
  storage_.FailSyncs(FileKind::kWal, 1, 1);
  EXPECT_EQ(a_.Exec("INSERT INTO t VALUES('failed')"), SQLITE_IOERR_FSYNC);
  ExpectWorkGoesOn(rows_);
}

// It has found no wal-index, as we have just begun to make it, and maps it under the write lock.
TEST_F(FailedSyncTest, SomebodyHasHadTheWriteLockWithoutAWalIndex) {
  std::future<int> commit = ExecUntilSync(a_, "INSERT INTO t VALUES('failed')");
  const sqlite3_int64 lsn = Stats(observer_).lsn;
  std::atomic<int> maps{0};
  storage_.SetFaultHook([&](const Call& call) {
    const bool is_first = call.op == Op::kShmMap && call.offset == 0 && maps++ == 0;
    return is_first ? SQLITE_NOTFOUND : SQLITE_OK;
  });
  Db other(path(), "gc");
  std::future<int> opened = ExecAsync(other, "PRAGMA schema_version");
  while (!IsReady(opened) && Stats(observer_).waiting < 2) std::this_thread::yield();
  EXPECT_TRUE(IsReady(opened)) << "it has no commit to wait for";
  EXPECT_EQ(maps, 2);
  EXPECT_EQ(Stats(observer_).lsn, lsn);
  FailHeldSync();
  EXPECT_EQ(commit.get(), SQLITE_IOERR_FSYNC);
  ExpectWorkGoesOn(rows_);
}

TEST_F(FailedSyncTest, ATemporaryTableIsRolledBackWithIt) {
  a_.ExecOk("CREATE TEMP TABLE tmp(x)");
  storage_.FailSyncs(FileKind::kWal, 1, 1);
  EXPECT_EQ(a_.Exec("BEGIN; INSERT INTO t VALUES('failed'); INSERT INTO tmp VALUES(1); COMMIT"),
            SQLITE_IOERR_FSYNC);
  a_.Exec("ROLLBACK");  // if COMMIT has left the transaction open, as any failed one may
  EXPECT_EQ(a_.Int("SELECT count(*) FROM tmp"), 0);
  ExpectWorkGoesOn(rows_);
}

TEST_F(FailedSyncTest, EveryCommitThatItCoversFailsAndNoOther) {
  constexpr int kFollowers = 4;
  std::vector<Db> followers;
  for (int i = 0; i < kFollowers; i++) followers.push_back(OpenWal());
  std::vector<std::future<int>> commits;
  commits.push_back(ExecUntilSync(a_, "INSERT INTO t VALUES('durable')"));
  for (Db& db : followers) {
    commits.push_back(ExecAsync(db, "INSERT INTO t VALUES('failed')"));
    ExpectToWait(commits.back(), observer_, static_cast<int64_t>(commits.size()));
  }
  EXPECT_EQ(storage_.ReleaseSyncs(1), 1);
  ASSERT_TRUE(storage_.WaitForHeldSyncs(1));
  FailHeldSync();
  EXPECT_EQ(commits[0].get(), SQLITE_OK) << "it was durable before";
  for (size_t i = 1; i < commits.size(); i++) {
    EXPECT_EQ(commits[i].get(), SQLITE_IOERR_FSYNC) << i;
  }
  EXPECT_EQ(Stats(observer_).failed_syncs, 1);
  for (Db& db : followers) EXPECT_EQ(db.Int("SELECT count(*) FROM t"), rows_ + 1);
  ExpectWorkGoesOn(rows_ + 1);
}

// A transaction that began on top of a pending commit ends with an error once that has failed, as
// SQLite ends one after an I/O error (vdbeaux.c: sqlite3VdbeHalt()).
TEST_F(FailedSyncTest, ATransactionOnASnapshotThatFailedEndsWithAnError) {
  std::future<int> commit = ExecUntilSync(a_, "INSERT INTO t VALUES('failed')");
  b_.ExecOk("BEGIN; SELECT 1 FROM sqlite_schema");
  FailHeldSync();
  EXPECT_EQ(b_.Exec("SELECT count(*) FROM t") & 0xff, SQLITE_IOERR);
  EXPECT_EQ(commit.get(), SQLITE_IOERR_FSYNC);
  EXPECT_NE(sqlite3_get_autocommit(b_.get()), 0);
  ExpectWorkGoesOn(rows_);
}

// A COMMIT covers what the transaction has read, though it may have changed nothing.
TEST_F(FailedSyncTest, AWriterThatHasFoundNothingBecauseOfAFailedCommitFailsToo) {
  for (const char* sql :
       {"UPDATE t SET x = 'y' WHERE x = 'first'", "BEGIN IMMEDIATE; SELECT count(*) FROM t; COMMIT",
        "BEGIN IMMEDIATE; SELECT count(*) FROM t; ROLLBACK"}) {
    std::future<int> commit = ExecUntilSync(a_, "DELETE FROM t");
    std::future<int> ended = ExecAsync(b_, sql);
    ExpectToWait(ended, observer_, 2);
    FailHeldSync();
    EXPECT_EQ(commit.get(), SQLITE_IOERR_FSYNC);
    const bool rolls_back = std::string(sql).find("ROLLBACK") != std::string::npos;
    EXPECT_EQ(ended.get(), rolls_back ? SQLITE_OK : SQLITE_IOERR_FSYNC) << sql;
  }
  ExpectWorkGoesOn(rows_);
}

TEST_F(FailedSyncTest, SeveralInARow) {
  for (int i = 0; i < 5; i++) {
    storage_.FailSyncs(FileKind::kWal, 1, 1);
    EXPECT_EQ((i % 2 == 0 ? a_ : b_).Exec("INSERT INTO t VALUES('failed')"), SQLITE_IOERR_FSYNC);
  }
  ExpectWorkGoesOn(rows_);
}

// Until the disk works again nothing is acknowledged, also not by a sync that happens to succeed
// while the log still has its hole.
TEST_F(FailedSyncTest, ADiskThatStaysBroken) {
  storage_.FailSyncs(FileKind::kWal, 1, 1000000);
  for (int i = 0; i < 4; i++) {
    EXPECT_EQ(a_.Exec("INSERT INTO t VALUES('failed')"), SQLITE_IOERR_FSYNC);
    EXPECT_EQ(b_.Exec("INSERT INTO t VALUES('failed')"), SQLITE_IOERR_FSYNC);
    EXPECT_NE(b_.Exec("PRAGMA wal_checkpoint(TRUNCATE)"), SQLITE_OK);
    EXPECT_EQ(a_.Int("SELECT count(*) FROM t"), rows_);
    EXPECT_EQ(Stats(observer_).fenced, 1);
    EXPECT_EQ(RowsAfterPowerCut(), rows_);
  }
  storage_.FailSyncs(FileKind::kWal, 1, 0);
  ExpectWorkGoesOn(rows_);
}

TEST_F(FailedSyncTest, EveryThirdSync) {
  int64_t rows = rows_;
  for (int i = 0; i < 30; i++) {
    storage_.FailSyncs(FileKind::kWal, 3, 1);
    for (int j = 0; j < 4; j++) {
      if ((j % 2 == 0 ? a_ : b_).Exec("INSERT INTO t VALUES('x')") == SQLITE_OK) rows++;
      EXPECT_EQ(RowsAfterPowerCut(), rows);
    }
  }
  EXPECT_GT(rows, rows_ + 30);
  storage_.FailSyncs(FileKind::kWal, 1, 0);
  ExpectWorkGoesOn(rows);
}

// Linux tells of a failed sync once for each file handle. Work must not fail again and again for
// it.
TEST_F(FailedSyncTest, AnErrorThatEachHandleReportsOnce) {
  storage_.SetErrorPerHandle(true);
  std::vector<Db> more;
  for (int i = 0; i < 4; i++) more.push_back(OpenWal());
  storage_.FailSyncs(FileKind::kWal, 1, 1);
  EXPECT_EQ(a_.Exec("INSERT INTO t VALUES('failed')"), SQLITE_IOERR_FSYNC);
  int64_t rows = rows_;
  for (Db& db : more) {
    db.ExecOk("INSERT INTO t VALUES('x')");
    EXPECT_EQ(RowsAfterPowerCut(), ++rows);
  }
  ExpectWorkGoesOn(rows);
}

TEST_F(FailedSyncTest, AWriterInTheMiddleOfItsTransactionFailsToo) {
  std::future<int> failing = ExecUntilSync(a_, "INSERT INTO t VALUES('failed')");
  b_.ExecOk("BEGIN IMMEDIATE; INSERT INTO t VALUES('failed, in the middle')");
  FailHeldSync();
  // The failed commit cannot be taken back yet, and must not wait for ever: its thread may be the
  // one that would end the transaction.
  EXPECT_EQ(failing.get(), SQLITE_IOERR_FSYNC);
  EXPECT_NE(b_.Exec("COMMIT"), SQLITE_OK);
  b_.Exec("ROLLBACK");
  ExpectWorkGoesOn(rows_);
}

// A schema that is taken back must not have been seen: others would go on writing to its tables,
// where there are other ones by then.
TEST_F(FailedSyncTest, ATableThatFailedTwiceIsNobodysInBetween) {
  for (Db* db : {&b_, &observer_}) db->Close();
  a_.ExecOk("PRAGMA locking_mode=EXCLUSIVE; INSERT INTO t VALUES('takes the lock')");
  storage_.FailSyncs(FileKind::kWal, 1, 1);
  EXPECT_EQ(a_.Exec("CREATE TABLE u(x)"), SQLITE_IOERR_FSYNC);
  a_.ExecOk("PRAGMA locking_mode=NORMAL; SELECT * FROM t");
  b_ = OpenWal();
  std::future<int> commit = ExecUntilSync(a_, "CREATE TABLE u(x)");
  EXPECT_EQ(b_.Int("SELECT count(*) FROM sqlite_schema"), 1);
  FailHeldSync();
  EXPECT_EQ(commit.get(), SQLITE_IOERR_FSYNC);
  a_.ExecOk("CREATE TABLE v(x)");
  EXPECT_EQ(b_.Exec("INSERT INTO u VALUES('of no table')"), SQLITE_ERROR);
  EXPECT_EQ(a_.Int("SELECT count(*) FROM v"), 0);
}

// Bytes in the log that a failed sync of somebody else may have dropped: the writer's own sync need
// not hear of it.
class DroppedBytesTest : public FailedSyncTest,
                         public ::testing::WithParamInterface<const char*> {};

TEST_P(DroppedBytesTest, AWriterWhoseBytesAFailedCheckpointMayHaveDroppedFails) {
  a_.ExecOk(std::string("PRAGMA groupcommit_policy=") + GetParam());
  a_.ExecOk("PRAGMA cache_size=5; BEGIN; INSERT INTO t VALUES(zeroblob(200000))");  // spills
  storage_.FailSyncs(FileKind::kWal, 1, 1);
  EXPECT_NE(b_.Exec("PRAGMA wal_checkpoint"), SQLITE_OK);
  EXPECT_EQ(a_.Exec("COMMIT"), SQLITE_IOERR_FSYNC);
  a_.Exec("ROLLBACK");
  // Nothing was pending, so there is no hole: as with stock SQLite.
  EXPECT_EQ(Stats(observer_).fenced, 0);
  ExpectWorkGoesOn(rows_);
}

INSTANTIATE_TEST_SUITE_P(, DroppedBytesTest, ::testing::Values("auto", "on_each_flush"));

// A sync at once that fails with nothing pending is stock SQLite's case: the commit is not
// published.
TEST_F(FailedSyncTest, AFailedSyncAtOnce) {
  a_.ExecOk("PRAGMA groupcommit_policy=on_each_flush");
  storage_.FailSyncs(FileKind::kWal, 1, 1);
  EXPECT_EQ(a_.Exec("INSERT INTO t VALUES('failed')"), SQLITE_IOERR_FSYNC);
  ExpectWorkGoesOn(rows_);
}

// The commit's own sync succeeds, but it overlapped one that failed: its bytes may be lost.
// The log is not repaired while a sync is under way: that one may be told of the same failure, and
// what was committed after the repair must not fail for it.
TEST_F(FailedSyncTest, AFailedCheckpointTakesThePendingCommitsAlong) {
  storage_.SetErrorPerHandle(true);
  storage_.HoldSyncs(FileKind::kWal);
  BackgroundCall checkpoint([this] { return b_.Exec("PRAGMA wal_checkpoint"); });
  ASSERT_TRUE(storage_.WaitForHeldSyncs(1));
  std::future<int> commit = ExecAsync(a_, "INSERT INTO t VALUES('failed')");
  ASSERT_TRUE(storage_.WaitForHeldSyncs(2));
  EXPECT_EQ(storage_.ReleaseSyncs(1, SQLITE_IOERR_FSYNC), 1);
  while (Stats(observer_).fenced == 0 && !checkpoint.returned()) std::this_thread::yield();
  checkpoint.AwaitParked();
  EXPECT_EQ(storage_.HeldSyncs(), 1);
  storage_.OpenGate();
  EXPECT_NE(checkpoint.Result(), SQLITE_OK);
  EXPECT_EQ(commit.get(), SQLITE_IOERR_FSYNC);
  EXPECT_EQ(Stats(observer_).failed_syncs, 2) << "of one failure";
  EXPECT_EQ(Stats(observer_).fenced, 0);
  ExpectWorkGoesOn(rows_);
}

// Its own sync had succeeded, but another one beside it failed; and so does the first one of the
// repair that could make durable that it was cut off. That one must not be taken for old news.
TEST_F(FailedSyncTest, AFailureDuringTheRepairBringsNothingBack) {
  std::future<int> commit = ExecUntilSync(a_, "CREATE TABLE failed(x)");
  std::future<int> flush = ExecAsync(b_, "PRAGMA groupcommit_flush");
  ASSERT_TRUE(storage_.WaitForHeldSyncs(2));
  std::atomic<bool> is_cut{false};
  std::atomic<int> failures{0};
  storage_.SetFaultHook([&](const Call& call) {
    if (call.kind != FileKind::kWal) return SQLITE_OK;
    if (call.op == Op::kWrite) is_cut = true;
    const bool fails = call.op == Op::kSync && is_cut && failures == 0;
    failures += fails;
    return fails ? SQLITE_IOERR_FSYNC : SQLITE_OK;
  });
  EXPECT_EQ(storage_.ReleaseSyncs(1), 1);
  while (storage_.UnsyncedChanges(FileKind::kWal) > 0) std::this_thread::yield();
  FailHeldSync();
  EXPECT_EQ(commit.get(), SQLITE_IOERR_FSYNC);
  EXPECT_NE(flush.get(), SQLITE_OK);
  EXPECT_EQ(failures, 1);
  while (Stats(observer_).fenced != 0) b_.Exec("BEGIN IMMEDIATE; ROLLBACK");
  storage_.SetFaultHook(nullptr);
  const std::string cut = dir_.path() + "/cut";
  storage_.CutInto(cut);
  Db stock(cut + "/test.db");
  EXPECT_EQ(stock.Int("SELECT count(*) FROM sqlite_schema WHERE name='failed'"), 0);
}

// Nobody comes by later: who repairs the log waits for it.
TEST_F(FailedSyncTest, TheFlushersSyncIsTheLastThatIsUnderWay) {
  a_.ExecOk("PRAGMA groupcommit_policy='interval(max_delay_us=0)'");
  storage_.HoldSyncs(FileKind::kWal);
  BackgroundCall checkpoint([this] { return b_.Exec("PRAGMA wal_checkpoint"); });
  ASSERT_TRUE(storage_.WaitForHeldSyncs(1));
  a_.ExecOk("INSERT INTO t VALUES('failed')");
  ASSERT_TRUE(storage_.WaitForHeldSyncs(2));
  EXPECT_EQ(storage_.ReleaseSyncs(1, SQLITE_IOERR_FSYNC), 1);
  while (Stats(observer_).fenced == 0 && !checkpoint.returned()) std::this_thread::yield();
  checkpoint.AwaitParked();
  storage_.OpenGate();
  EXPECT_NE(checkpoint.Result(), SQLITE_OK);
  EXPECT_EQ(Stats(observer_).fenced, 0);
  Db foreign(path(), "store");
  foreign.ExecOk("INSERT INTO t VALUES('foreign')");
}

TEST_F(FailedSyncTest, AReaderThatWaitsGetsAnErrorAndNoRow) {
  std::future<int> failing = ExecUntilSync(a_, "INSERT INTO t VALUES('failed')");
  std::future<int> reader = ExecAsync(b_, "SELECT count(*) FROM t");
  ExpectToWait(reader, observer_, 2);
  FailHeldSync();
  EXPECT_EQ(failing.get(), SQLITE_IOERR_FSYNC);
  EXPECT_EQ(reader.get(), SQLITE_IOERR_FSYNC);
  ExpectWorkGoesOn(rows_);
}

// A snapshot above the durable tail that reads nothing while the sync fails, and then again.
TEST_F(FailedSyncTest, ASnapshotThatIncludesAFailedCommitIsRefused) {
  a_.ExecOk("CREATE TABLE u(x); INSERT INTO u VALUES(1)");
  std::future<int> failing = ExecUntilSync(a_, "INSERT INTO t VALUES('failed')");
  b_.ExecOk("BEGIN; SELECT x FROM u");  // a page that the pending commit did not change
  FailHeldSync();
  EXPECT_EQ(failing.get(), SQLITE_IOERR_FSYNC);
  EXPECT_EQ(b_.Exec("SELECT count(*) FROM t"), SQLITE_IOERR_FSYNC);
  b_.Exec("ROLLBACK");
  ExpectWorkGoesOn(rows_);
}

// Whose read lock is gone by then: others change the database file meanwhile.
TEST_F(FailedSyncTest, ASnapshotThatFailedIsRefusedInTheDatabaseFileToo) {
  for (const char* mmap : {"PRAGMA mmap_size=0", "PRAGMA mmap_size=1000000"}) {
    a_.ExecOk(
        "CREATE TABLE IF NOT EXISTS u(x); DELETE FROM u; INSERT INTO u VALUES('old');"
        "PRAGMA wal_checkpoint(TRUNCATE); INSERT INTO t VALUES('x')");
    Db reader = OpenWal();
    reader.ExecOk(mmap);
    std::future<int> failing = ExecUntilSync(a_, "INSERT INTO t VALUES('failed')");
    reader.ExecOk("BEGIN; SELECT 1 FROM sqlite_schema");
    FailHeldSync();
    EXPECT_EQ(failing.get(), SQLITE_IOERR_FSYNC);
    reader.SetBusyTimeout(0);
    EXPECT_EQ(reader.Exec("INSERT INTO t VALUES('refused')"), SQLITE_BUSY_SNAPSHOT);
    a_.ExecOk("INSERT INTO t VALUES('x'); UPDATE u SET x='new'; PRAGMA wal_checkpoint");
    EXPECT_EQ(reader.Exec("SELECT x FROM u WHERE x='new'"), SQLITE_IOERR_FSYNC) << mmap;
    EXPECT_EQ(reader.Text("SELECT x FROM u"), "new") << "that has ended the transaction";
  }
}

TEST_F(FailedSyncTest, ASnapshotFromBeforeTheFailedCommitIsNotDisturbed) {
  b_.ExecOk("BEGIN; SELECT count(*) FROM t");
  storage_.FailSyncs(FileKind::kWal, 1, 1);
  EXPECT_EQ(a_.Exec("INSERT INTO t VALUES('failed')"), SQLITE_IOERR_FSYNC);
  a_.ExecOk("INSERT INTO t VALUES('x')");
  EXPECT_EQ(b_.Int("SELECT count(*) FROM t"), rows_);
  b_.ExecOk("COMMIT");
  ExpectWorkGoesOn(rows_ + 1);
}

// A cache that was filled inside a write transaction which was then rolled back.
TEST_F(FailedSyncTest, ACacheWithPagesOfAFailedCommitIsNotUsed) {
  std::future<int> failing = ExecUntilSync(a_, "INSERT INTO t VALUES('failed')");
  b_.ExecOk("BEGIN IMMEDIATE; SELECT * FROM t");
  std::future<int> rollback = ExecAsync(b_, "ROLLBACK");
  ExpectToWait(rollback, observer_, 2);
  FailHeldSync();
  EXPECT_EQ(failing.get(), SQLITE_IOERR_FSYNC);
  rollback.get();
  ExpectWorkGoesOn(rows_);
}

TEST_F(FailedSyncTest, ANormalCommitOnTopFailsWithTheOnesBeneath) {
  b_.ExecOk("PRAGMA synchronous=NORMAL");
  std::future<int> failing = ExecUntilSync(a_, "INSERT INTO t VALUES('failed')");
  std::future<int> on_top = ExecAsync(b_, "INSERT INTO t VALUES('failed, on top')");
  ExpectToWait(on_top, observer_, 2);
  FailHeldSync();
  EXPECT_EQ(failing.get(), SQLITE_IOERR_FSYNC);
  EXPECT_EQ(on_top.get(), SQLITE_IOERR_FSYNC);
  b_.ExecOk("PRAGMA synchronous=FULL");
  ExpectWorkGoesOn(rows_);
}

// It was acknowledged without a sync. Its pages are lost with those of the failed commit, but it is
// not, nor is what is committed on top of it later.
TEST_F(FailedSyncTest, ANormalCommitBeneathSurvives) {
  b_.ExecOk("PRAGMA synchronous=NORMAL; INSERT INTO t VALUES('beneath'); PRAGMA synchronous=FULL");
  storage_.FailSyncs(FileKind::kWal, 1, 1);
  EXPECT_EQ(a_.Exec("INSERT INTO t VALUES('failed')"), SQLITE_IOERR_FSYNC);
  ExpectWorkGoesOn(rows_ + 1);
}

// With the frames of the failed commits still in the log, the same bytes again would make them
// valid.
TEST_F(FailedSyncTest, ARetryWithTheSameBytesDoesNotReviveWhatCameAfterIt) {
  Db c = OpenWal();
  for (const bool begins_log : {false, true}) {
    const std::string same = begins_log ? "'same again'" : "'same'";
    const std::string retried = "UPDATE t SET x=" + same + " WHERE rowid=1";
    if (begins_log) a_.ExecOk("PRAGMA wal_checkpoint(TRUNCATE)");  // its header is the same, too
    std::future<int> first = ExecUntilSync(a_, retried);
    if (begins_log) {
      EXPECT_EQ(storage_.ReleaseSyncs(1), 1) << "that of the log's header";
      ASSERT_TRUE(storage_.WaitForHeldSyncs(1));
    }
    std::future<int> second = ExecAsync(c, "UPDATE t SET x='failed' WHERE rowid=2");
    ExpectToWait(second, observer_, 2);
    // The first sync covers the first commit only; let it fail, and with it both.
    FailHeldSync();
    EXPECT_EQ(first.get(), SQLITE_IOERR_FSYNC);
    EXPECT_EQ(second.get(), SQLITE_IOERR_FSYNC);
    a_.ExecOk(retried);
    const std::string cut = dir_.path() + "/cut";
    storage_.CutInto(cut, CutMode::kKeepAll);
    Db db(cut + "/test.db");
    EXPECT_EQ(db.Int("SELECT count(*) FROM t WHERE x='failed'"), 0);
    EXPECT_EQ(db.Int("SELECT count(*) FROM t WHERE x=" + same), 1);
  }
}

// After the log was restarted, what there was before must never come back.
TEST_F(FailedSyncTest, TheFirstCommitAfterARestartOfTheLog) {
  a_.ExecOk("PRAGMA wal_checkpoint(RESTART)");
  storage_.FailSyncs(FileKind::kWal, 2, 1);  // the first one is that of the header
  EXPECT_EQ(a_.Exec("INSERT INTO t VALUES('failed')"), SQLITE_IOERR_FSYNC);
  ExpectWorkGoesOn(rows_);
  a_.ExecOk("PRAGMA wal_checkpoint(RESTART)");
  storage_.FailSyncs(FileKind::kWal, 1, 1);
  EXPECT_EQ(a_.Exec("INSERT INTO t VALUES('failed')"), SQLITE_IOERR_FSYNC);
  ExpectWorkGoesOn(rows_ + 2);
}

// Another process has committed on top of the pending commit: taking that back would take its
// commit, which it acknowledged, along. So the fence holds.
TEST_F(FailedSyncTest, WithACommitOfAnotherProcessOnTopTheFenceHoldsUntilTheEnd) {
  if (!HaveStockShell()) GTEST_SKIP() << "the sqlite3 shell is not installed";
  std::future<int> failing = ExecUntilSync(a_, "INSERT INTO t VALUES('failed')");
  int status = -1;
  StockShell(path(), "INSERT INTO t VALUES('other process');\n", &status);
  ASSERT_EQ(status, 0);
  FailHeldSync();
  EXPECT_EQ(failing.get(), SQLITE_IOERR_FSYNC);
  EXPECT_EQ(Stats(observer_).fenced, 1);
  EXPECT_EQ(a_.Exec("INSERT INTO t VALUES('on top')"), SQLITE_IOERR_FSYNC);
  EXPECT_EQ(b_.Exec("INSERT INTO t VALUES('on top')"), SQLITE_IOERR_FSYNC);
  // Other processes are kept out as well.
  EXPECT_NE(StockShell(path(), "INSERT INTO t VALUES('other');\n").find("locked"),
            std::string::npos);
  for (Db* db : {&a_, &b_, &observer_}) {
    sqlite3_db_config(db->get(), SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, nullptr);
    db->Close();
  }
  storage_.ForgetClosedFiles();
  a_ = OpenWal();
  EXPECT_EQ(a_.Int("SELECT count(*) FROM t WHERE x='other process'"), 1);
  a_.ExecOk("INSERT INTO t VALUES('after')");
}

// The hole is closed before the database is let go, also if no checkpoint does so in passing.
TEST_F(FailedSyncTest, ClosingWhileTheDiskIsBrokenAndOpeningAgain) {
  storage_.FailSyncs(FileKind::kWal, 1, 2);
  EXPECT_EQ(a_.Exec("INSERT INTO t VALUES('failed')"), SQLITE_IOERR_FSYNC);
  for (Db* db : {&a_, &b_, &observer_}) {
    sqlite3_db_config(db->get(), SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, nullptr);
    db->Close();
  }
  a_ = OpenWal();
  b_ = OpenWal();
  observer_ = Db(path(), "gc");
  ExpectWorkGoesOn(rows_);
}

}  // namespace
}  // namespace groupcommit::testing
