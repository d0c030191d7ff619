// Flushes, LSNs and the policy interval where they are easily forgotten: exclusive locking mode,
// policies that change in the middle of a commit, connections that have not read anything yet,
// errors that another process was told of.
#include <sqlite3.h>

#include <atomic>
#include <cstdio>
#include <memory>

#include "support/barrier_test.h"
#include "support/patience.h"

namespace groupcommit::testing {
namespace {

class FlushCornerTest : public BarrierTest {
 protected:
  static constexpr int kLongMillis = 1'000'000;

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

  // Calls `act` when a connection lets go of the write lock, once.
  template <class Act>
  void AtUnlockOfWrite(Act act) {
    auto done = std::make_shared<std::atomic<bool>>(false);
    storage_.SetObserver([act, done](const Call& call) {
      constexpr int kUnlock = SQLITE_SHM_UNLOCK | SQLITE_SHM_EXCLUSIVE;
      if (call.op != Op::kShmLock || call.offset != 0 || call.flags != kUnlock) return;
      if (!done->exchange(true)) act();
    });
  }
};

// ---- Exclusive locking mode, where there are no locks to go by ----

// The frames' headers are written again behind the commit frame (wal.c: walRewriteChecksums()).
TEST_F(FlushCornerTest, ExclusiveCommitsThatRewroteTheirFramesHaveAnLsn) {
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

TEST_F(FlushCornerTest, ExclusiveCommitsDoNotTakeTheNumberOfOneThatFailed) {
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
TEST_F(FlushCornerTest, ExclusiveACommitThatFailedIsNotTheLastOne) {
  Db db = OpenWithTable();
  db.ExecOk("PRAGMA locking_mode=EXCLUSIVE; INSERT INTO t VALUES('x')");
  const sqlite3_int64 before = CommitLsn(db);
  storage_.FailSyncs(FileKind::kWal, 1, 1);
  EXPECT_EQ(db.Exec("INSERT INTO t VALUES('failed')"), SQLITE_IOERR_FSYNC);
  db.Exec("BEGIN IMMEDIATE; COMMIT");
  EXPECT_EQ(CommitLsn(db), before);
}

TEST_F(FlushCornerTest, ExclusiveFromTheStartAFailedFlushIsNotTheEnd) {
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

TEST_F(FlushCornerTest, ExclusiveFromTheStartAFailedCommitIsNotTheEnd) {
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
TEST_F(FlushCornerTest, ExclusiveFromTheStartClosingLeavesNothingBehind) {
  Db db(path(), "gc");
  db.ExecOk(
      "PRAGMA locking_mode=EXCLUSIVE; PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;"
      "CREATE TABLE t(x); PRAGMA groupcommit_policy='interval(max_delay_us=10000000)'");
  Insert(db);
  ASSERT_EQ(sqlite3_db_config(db.get(), SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, nullptr), SQLITE_OK);
  EXPECT_EQ(db.Close(), SQLITE_OK);
  EXPECT_EQ(RowsAfterPowerCut(), 1);
}

TEST_F(FlushCornerTest, ExclusiveAFailureInTheBackgroundIsNotTheEnd) {
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
TEST_F(FlushCornerTest, ExclusiveAFailedFlushLeavesTheTransactionWhole) {
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

// ---- Policies that change in the middle of a commit ----

TEST_F(FlushCornerTest, WhatWasLeftToTheBackgroundIsSyncedUnderAnotherPolicyToo) {
  Db db = OpenWithTable();
  Db other = OpenWal();
  db.ExecOk(kSoon);
  AtUnlockOfWrite([&] { other.ExecOk("PRAGMA groupcommit_policy=auto"); });
  Insert(db);
  storage_.SetObserver({});
  for (int i = 0; i < 10'000 && DurableLsn(db) < CommitLsn(db); i++) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  EXPECT_GE(DurableLsn(db), CommitLsn(db)) << "nobody syncs it";
}

// ---- Connections that have not read anything yet ----

// "Wait through a second connection" is what the manual says.
TEST_F(FlushCornerTest, AWaitWithALimitEndsOnAnIdleConnectionToo) {
  Db db = OpenWithTable();
  db.ExecOk("PRAGMA synchronous=NORMAL");
  Db idle(path(), "gc");
  Insert(db);
  const sqlite3_int64 lsn = CommitLsn(db);
  storage_.HoldSyncs(FileKind::kWal);
  std::future<int> wait = std::async(std::launch::async, [&] { return Wait(idle, lsn, 1); });
  ASSERT_TRUE(storage_.WaitForHeldSyncs(1));
  EXPECT_EQ(wait.wait_for(kPatience), std::future_status::ready);
  storage_.OpenGate();
  EXPECT_EQ(wait.get(), SQLITE_BUSY);
  EXPECT_EQ(Wait(idle, lsn, kLongMillis), SQLITE_OK);
  EXPECT_EQ(RowsAfterPowerCut(), 2);
}

// cksumvfs is one.
TEST_F(FlushCornerTest, ABaseVfsMayAskForTheDatabaseOfALog) {
  Db db = OpenWithTable();
  Db idle(path(), "gc");
  std::atomic<int> found = 0;
  storage_.SetObserver([&](const Call& call) {
    if (call.op != Op::kOpen || call.kind != FileKind::kWal) return;
    if (sqlite3_database_file_object(call.path)->pMethods != nullptr) found++;
  });
  db.ExecOk("PRAGMA synchronous=NORMAL");
  Insert(db);
  EXPECT_EQ(Flush(idle), SQLITE_OK);
  Insert(db);
  EXPECT_EQ(Wait(db, CommitLsn(db), kLongMillis), SQLITE_OK);
  storage_.SetObserver({});
}

// ---- Failures ----

// Another process was told first; who opens the log afterwards is not told any more.
TEST_F(FlushCornerTest, AnErrorThatAStrangerWasToldOfIsHeardByEachWait) {
  storage_.SetErrorPerHandle(true);
  Db db = OpenWithTable();
  db.ExecOk("PRAGMA synchronous=NORMAL");
  Db stranger(path(), "store");
  stranger.ExecOk("PRAGMA synchronous=FULL; SELECT * FROM t");
  Insert(db);
  storage_.FailSyncs(FileKind::kWal, 1, 1);
  EXPECT_EQ(stranger.Exec("INSERT INTO t VALUES('failed')"), SQLITE_IOERR_FSYNC);
  EXPECT_EQ(Wait(db, CommitLsn(db), kLongMillis), SQLITE_IOERR_FSYNC);
  EXPECT_EQ(Flush(db), SQLITE_OK);
  EXPECT_EQ(RowsAfterPowerCut(), 2);
}

TEST_F(FlushCornerTest, AWaitThatFailedIsToldOnce) {
  Db db = OpenWithTable();
  db.ExecOk("PRAGMA synchronous=NORMAL");
  Insert(db);
  storage_.FailSyncs(FileKind::kWal, 1, 1);
  EXPECT_EQ(Wait(db, CommitLsn(db), kLongMillis), SQLITE_IOERR_FSYNC);
  EXPECT_EQ(Wait(db, CommitLsn(db), kLongMillis), SQLITE_OK);
  EXPECT_EQ(RowsAfterPowerCut(), 2);
}

// Nothing of theirs was at stake.
TEST_F(FlushCornerTest, AWaitThatFailedFailsNoCommitOfOthers) {
  Db db = OpenWithTable();
  Db full = OpenWal();
  db.ExecOk("PRAGMA synchronous=NORMAL");
  Insert(db);
  storage_.FailSyncs(FileKind::kWal, 1, 1);
  EXPECT_EQ(Wait(db, CommitLsn(db), kLongMillis), SQLITE_IOERR_FSYNC);
  EXPECT_EQ(full.Exec("INSERT INTO t VALUES('x')"), SQLITE_OK);
  EXPECT_EQ(RowsAfterPowerCut(), 3);
}

// They are not taken back.
TEST_F(FlushCornerTest, ANormalCommitOnTopOfFramesThatWereFoundDoesNotFailWithThem) {
  Db stranger(path(), "store");
  stranger.ExecOk("PRAGMA journal_mode=WAL; CREATE TABLE t(x); INSERT INTO t VALUES('first')");
  stranger.ExecOk("BEGIN; SELECT * FROM t");            // so that the log is not restarted
  Db(path(), "store").ExecOk("PRAGMA wal_checkpoint");  // nor do reads wait for the frames
  Db db(path(), "gc");
  db.ExecOk("PRAGMA synchronous=NORMAL");
  storage_.FailSyncs(FileKind::kWal, 1, 1);
  const int rc = db.Exec("INSERT INTO t VALUES('x')");
  stranger.ExecOk("COMMIT");
  // Nor is it a hole, for another process to build on.
  stranger.ExecOk("PRAGMA synchronous=FULL; INSERT INTO t VALUES('on top')");
  const int rows = rc == SQLITE_OK ? 3 : 2;
  EXPECT_EQ(RowsAfterPowerCut(), rows);
  EXPECT_EQ(db.Int("SELECT count(*) FROM t"), rows) << rc;
  EXPECT_EQ(Stats(db).failed_syncs, 1);
}

// Nor does a transaction that has read them under the write lock, and changes nothing, say that
// they are durable.
TEST_F(FlushCornerTest, FramesThatWereFoundAndFailAreToldToWhoHasReadThem) {
  Db stranger(path(), "store");
  stranger.ExecOk(
      "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; CREATE TABLE t(x);"
      "PRAGMA wal_checkpoint; INSERT INTO t VALUES('first')");
  Db db(path(), "gc");
  storage_.FailSyncs(FileKind::kWal, 1, 1);
  EXPECT_EQ(db.Exec("BEGIN IMMEDIATE; SELECT * FROM t; COMMIT"), SQLITE_IOERR_FSYNC);
  EXPECT_EQ(db.Int("SELECT count(*) FROM t"), 1);
  EXPECT_EQ(RowsAfterPowerCut(), 1);
}

// All of the log has been copied into the database file, and a writer restarts it.
TEST_F(FlushCornerTest, AFailedFlushOfALogThatIsRestartedBringsNothingBack) {
  Db db = OpenWithTable();
  Db other = OpenWal();
  other.ExecOk("SELECT * FROM t");
  db.ExecOk("PRAGMA synchronous=NORMAL");
  for (int i = 0; i < 8; i++) Insert(db);
  db.ExecOk("PRAGMA wal_checkpoint; BEGIN IMMEDIATE; INSERT INTO t VALUES('refused')");
  storage_.FailSyncs(FileKind::kWal, 1, 1);
  EXPECT_EQ(Flush(other), SQLITE_IOERR_FSYNC);
  int cuts = 0;
  storage_.SetObserver([&](const Call& call) {
    if (call.op != Op::kSync || storage_.UnsyncedChanges(FileKind::kWal) == 0) return;
    for (uint64_t seed = 0; seed < 10; seed++) {
      const std::string cut = dir_.path() + "/cut";
      storage_.CutInto(cut, CutMode::kKeepRandom, seed);
      ExpectIntact(cut + "/test.db");
      EXPECT_EQ(Db(cut + "/test.db").Int("SELECT count(*) FROM t"), 9);
      cuts++;
    }
  });
  EXPECT_EQ(db.Exec("COMMIT"), SQLITE_IOERR_FSYNC);
  if (sqlite3_get_autocommit(db.get()) == 0) db.ExecOk("ROLLBACK");
  storage_.SetObserver({});
  EXPECT_GT(cuts, 0);
  Insert(db);
  EXPECT_EQ(Flush(db), SQLITE_OK);
  EXPECT_EQ(RowsAfterPowerCut(), 10);
}

TEST_F(FlushCornerTest, ClosingWritesALogAgainThatHasAHole) {
  Db stays = OpenWithTable();
  Db db = OpenWal();
  db.ExecOk(kSoon);
  storage_.FailSyncs(FileKind::kWal, 1, 1);
  Insert(db);
  while (Stats(stays).background_errors == 0) std::this_thread::yield();
  db = Db();
  EXPECT_EQ(RowsAfterPowerCut(), 2);
}

// ---- Files that are replaced ----

TEST_F(FlushCornerTest, TheLogOfAnotherDatabaseIsNotSyncedInstead) {
  Db db = OpenWithTable();
  db.ExecOk("PRAGMA synchronous=NORMAL");
  for (const char* end : {"", "-wal", "-shm"}) {
    std::rename((path() + end).c_str(), (path("moved.db") + end).c_str());
  }
  Db other = OpenWithTable();
  const sqlite3_file* synced = nullptr;
  storage_.SetObserver([&synced](const Call& call) {
    if (call.op == Op::kSync && call.kind == FileKind::kWal) synced = call.file;
  });
  Insert(db);
  EXPECT_EQ(Flush(db), SQLITE_OK);
  const sqlite3_file* own = synced;
  synced = nullptr;
  Insert(db);
  EXPECT_EQ(Wait(db, CommitLsn(db), kLongMillis), SQLITE_OK);
  EXPECT_EQ(synced, own);
  storage_.SetObserver({});
}

}  // namespace
}  // namespace groupcommit::testing
