// What the crash laboratory found about repair after a failed sync, as single steps.
#include <sqlite3.h>

#include <atomic>

#include "support/shim_test.h"

namespace groupcommit::testing {
namespace {

class RepairTest : public ShimTest {
 protected:
  // Whatever the sync has failed for: nothing of it is there, and work goes on.
  void ExpectTakenBack(Db& db, int64_t rows) {
    EXPECT_EQ(Stats(db).fenced, 0);
    EXPECT_EQ(db.Int("SELECT count(*) FROM t"), rows);
    EXPECT_EQ(RowsAfterPowerCut(), rows);
    db.ExecOk("INSERT INTO t VALUES('after')");
    EXPECT_EQ(RowsAfterPowerCut(), rows + 1);
  }

  // A commit fails, the disk stays broken, and nobody has the database open any more.
  void CloseWithAHole() {
    Db db = OpenWithTable();
    sqlite3_db_config(db.get(), SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, nullptr);
    storage_.FailSyncs(FileKind::kWal, 1, 100);
    EXPECT_EQ(db.Exec("INSERT INTO t VALUES('failed')"), SQLITE_IOERR_FSYNC);
  }

  // The disk works again, and the database is opened. One commit later another one fails; returns
  // how many rows there were before that.
  int64_t ReopenAndFail(Db& db) {
    storage_.FailSyncs(FileKind::kWal, 1, 0);
    db = OpenWal();
    db.ExecOk("INSERT INTO t VALUES('after')");
    const int64_t rows = db.Int("SELECT count(*) FROM t");
    storage_.FailSyncs(FileKind::kWal, 1, 1);
    EXPECT_EQ(db.Exec("INSERT INTO t VALUES('failed')"), SQLITE_IOERR_FSYNC);
    return rows;
  }
};

// A connection that has neither restarted nor recovered a log draws new salts when it begins one
// (wal.c: sqlite3WalFrames(), Wal.nCkpt). Until it has committed they are in the log alone.
TEST_F(RepairTest, TheFirstCommitOfALogWithSaltsOfItsOwn) {
  Db a = OpenWithTable();
  Db b = OpenWal();
  for (const char* policy : {"on_each_flush", "auto"}) {
    SCOPED_TRACE(policy);
    a.ExecOk("PRAGMA groupcommit_policy='" + std::string(policy) + "'");
    const int64_t rows = b.Int("SELECT count(*) FROM t");
    a.ExecOk("PRAGMA wal_checkpoint(TRUNCATE)");
    storage_.FailSyncs(FileKind::kWal, 2, 1);  // the first one is that of the header
    EXPECT_EQ(b.Exec("INSERT INTO t VALUES('failed')"), SQLITE_IOERR_FSYNC);
    ExpectTakenBack(b, rows);
  }
}

// The wal-index does not know the page size either before the first commit.
TEST_F(RepairTest, TheFirstCommitAfterOpening) {
  OpenWithTable();
  Db a = OpenWal();
  a.ExecOk("PRAGMA groupcommit_policy='on_each_flush'");
  storage_.FailSyncs(FileKind::kWal, 2, 1);
  EXPECT_EQ(a.Exec("INSERT INTO t VALUES('failed')"), SQLITE_IOERR_FSYNC);
  ExpectTakenBack(a, 1);
}

// What was found in the log is still to be synced, as nobody but the writer has read any of it.
TEST_F(RepairTest, TheFirstCommitOnTopOfWhatWasFound) {
  Db a = OpenWithTable();
  sqlite3_db_config(a.get(), SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, nullptr);
  a.ExecOk("PRAGMA wal_checkpoint(TRUNCATE); UPDATE t SET x='found'");
  Db stranger(path(), "store");
  EXPECT_EQ(stranger.Text("SELECT x FROM t"), "found");  // so that nobody recovers the log
  a.Close();
  Db b = OpenWal();
  EXPECT_EQ(Stats(b).pending, 1);
  storage_.FailSyncs(FileKind::kWal, 1, 1);
  EXPECT_EQ(b.Exec("UPDATE t SET x='failed'"), SQLITE_IOERR_FSYNC);
  EXPECT_EQ(b.Int("SELECT count(*) FROM t WHERE x='found'"), 1);
  ExpectTakenBack(b, 1);
}

// With synchronous=OFF nobody has synced the header either, and it is lost with the commit.
TEST_F(RepairTest, TheHeaderOfALogThatWasNotSynced) {
  Db a = OpenWithTable();
  Db b = OpenWal();
  b.ExecOk("PRAGMA wal_checkpoint(TRUNCATE); PRAGMA synchronous=OFF; INSERT INTO t VALUES('off')");
  const int64_t rows = a.Int("SELECT count(*) FROM t");
  storage_.FailSyncs(FileKind::kWal, 1, 1);
  EXPECT_EQ(a.Exec("INSERT INTO t VALUES('failed')"), SQLITE_IOERR_FSYNC);
  ExpectTakenBack(a, rows);
}

// A checkpoint that does not reach the end of the log does not sync the database file (wal.c:
// walCheckpoint()). If the end then comes to it, because commits are taken back, the next writer
// restarts the log: what the checkpoint has copied must be durable by then.
TEST_F(RepairTest, ALogThatIsTakenBackToWhereACheckpointStopped) {
  Db a = OpenWithTable();
  Db b = OpenWal();
  Db c = OpenWal();
  const int64_t rows = c.Int("SELECT count(*) FROM t");
  c.ExecOk("PRAGMA groupcommit_policy='group(max_wait_us=10000000,max_batch=2)'");
  std::future<int> checkpoint = ExecUntilSync(b, "PRAGMA wal_checkpoint");
  // The checkpoint's sync does not cover it, nor does its own overlap that one.
  std::future<int> commit = ExecAsync(a, "INSERT INTO t VALUES('failed')");
  ExpectToWait(commit, c, 1);
  EXPECT_EQ(storage_.ReleaseSyncs(1), 1);
  EXPECT_EQ(checkpoint.get(), SQLITE_OK);
  c.ExecOk("PRAGMA groupcommit_policy=auto");
  ASSERT_TRUE(storage_.WaitForHeldSyncs(1));
  FailHeldSync();
  EXPECT_EQ(commit.get(), SQLITE_IOERR_FSYNC);
  ExpectTakenBack(c, rows);
}

// Whoever opens the database next has to know of the hole: a sync of its own would succeed.
TEST_F(RepairTest, ALogThatWasClosedWithAHole) {
  Db a = OpenWithTable();
  sqlite3_db_config(a.get(), SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, nullptr);
  a.ExecOk("PRAGMA synchronous=NORMAL; INSERT INTO t VALUES('normal'); PRAGMA synchronous=FULL");
  storage_.FailSyncs(FileKind::kWal, 1, 100);
  EXPECT_EQ(a.Exec("INSERT INTO t VALUES('failed')"), SQLITE_IOERR_FSYNC);
  a.Close();
  storage_.FailSyncs(FileKind::kWal, 1, 0);
  a = OpenWal();
  EXPECT_EQ(Stats(a).fenced, 0);
  ExpectTakenBack(a, a.Int("SELECT count(*) FROM t"));
}

// The repair of what an earlier opening of the database left behind is over with the first success.
TEST_F(RepairTest, AFailureAfterTheOneFromBeforeReopening) {
  CloseWithAHole();
  Db a;
  const int64_t rows = ReopenAndFail(a);
  ExpectTakenBack(a, rows);
}

// What cannot be read back is not the end of the log.
TEST_F(RepairTest, AReadThatFailsWhileTheLogIsWrittenAgain) {
  CloseWithAHole();
  Db a;
  storage_.FailSyncs(FileKind::kWal, 1, 0);
  std::atomic<int> reads{0};
  for (const int first : {0, 1}) {  // the header, a frame
    reads = 0;
    storage_.SetFaultHook([&, first](const Call& call) {
      const bool is_log = call.op == Op::kRead && call.kind == FileKind::kWal;
      return is_log && reads++ == first ? SQLITE_IOERR_READ : SQLITE_OK;
    });
    Db b(path(), "gc");
    EXPECT_EQ(b.Exec("SELECT * FROM t"), SQLITE_IOERR_FSYNC) << first;
    EXPECT_EQ(reads, first + 1) << "it is SQLite that has read it";
    EXPECT_EQ(Stats(b).fenced, 1);
    storage_.SetFaultHook(nullptr);
    sqlite3_db_config(b.get(), SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, nullptr);
    storage_.FailSyncs(FileKind::kWal, 1, 100);
    b.Close();
    storage_.FailSyncs(FileKind::kWal, 1, 0);
  }
  a = OpenWal();
  ExpectTakenBack(a, a.Int("SELECT count(*) FROM t"));
}

// Each handle is told of a failed sync, of that of an earlier attempt to repair the log, too. That
// is no news, and no reason for another failure once the disk works again.
TEST_F(RepairTest, TheErrorOfAnEarlierAttemptIsNoNews) {
  storage_.SetErrorPerHandle(true);
  CloseWithAHole();
  Db b(path(), "gc");
  Db c(path(), "gc");
  for (Db* db : {&b, &c}) EXPECT_EQ(db->Exec("SELECT * FROM t"), SQLITE_IOERR_FSYNC);
  storage_.FailSyncs(FileKind::kWal, 1, 0);
  EXPECT_EQ(b.Exec("SELECT * FROM t"), SQLITE_OK) << "c's attempt has failed last";
  EXPECT_EQ(Stats(b).fenced, 0);
}

TEST_F(RepairTest, TheErrorOfAnEarlierAttemptIsNoNewsToWhoCommitsNext) {
  storage_.SetErrorPerHandle(true);
  CloseWithAHole();
  Db b(path(), "gc");
  Db c(path(), "gc");
  for (Db* db : {&b, &c}) EXPECT_EQ(db->Exec("SELECT * FROM t"), SQLITE_IOERR_FSYNC);
  storage_.FailSyncs(FileKind::kWal, 1, 0);
  EXPECT_EQ(c.Exec("SELECT * FROM t"), SQLITE_OK);
  EXPECT_EQ(b.Exec("PRAGMA synchronous=FULL; INSERT INTO t VALUES('x')"), SQLITE_OK);
}

// Nor is that of a commit that failed through one handle to any of the others, older or newer.
TEST_F(RepairTest, TheErrorOfACommitIsNoNewsToOtherHandles) {
  storage_.SetErrorPerHandle(true);
  Db oldest = OpenWithTable();
  Db db = OpenWal();
  db.ExecOk("INSERT INTO t VALUES('x')");  // from now on it syncs through its own handle
  Db newest = OpenWal();
  int64_t rows = newest.Int("SELECT count(*) FROM t");
  storage_.FailSyncs(FileKind::kWal, 1, 1);
  EXPECT_EQ(db.Exec("INSERT INTO t VALUES('failed')"), SQLITE_IOERR_FSYNC);
  for (Db* other : {&oldest, &newest}) ExpectTakenBack(*other, rows++);
}

// The log with the hole may have gone away with the last connection, which does not sync.
TEST_F(RepairTest, AFailureAfterTheLogWithTheHoleWasDeleted) {
  Db a = OpenWithTable();
  Db b = OpenWal();
  b.ExecOk("PRAGMA synchronous=OFF");
  storage_.FailSyncs(FileKind::kWal, 1, 1000);
  EXPECT_EQ(a.Exec("INSERT INTO t VALUES('failed')"), SQLITE_IOERR_FSYNC);
  EXPECT_EQ(Stats(b).fenced, 1);
  a.Close();
  b.Close();
  const int64_t rows = ReopenAndFail(a);
  // (What synchronous=OFF has left for a power cut to take is another matter.)
  EXPECT_EQ(a.Int("SELECT count(*) FROM t"), rows);
  EXPECT_EQ(Stats(a).fenced, 0);
}

// Who opens a log without frames finds no hole in it, but others are kept out for one all the same.
TEST_F(RepairTest, ALogThatIsOpenedWhenNothingButItsHeaderWasWritten) {
  Db a = OpenWithTable();
  const int64_t rows = a.Int("SELECT count(*) FROM t");
  a.ExecOk("PRAGMA wal_checkpoint(TRUNCATE)");
  storage_.FailSyncs(FileKind::kWal, 1, 100);
  EXPECT_EQ(a.Exec("INSERT INTO t VALUES('failed')"), SQLITE_IOERR_FSYNC);
  Db b(path(), "gc");
  b.SetBusyTimeout(0);
  EXPECT_EQ(b.Int("SELECT count(*) FROM t"), rows);
  EXPECT_EQ(Stats(b).fenced, 1);
  storage_.FailSyncs(FileKind::kWal, 1, 0);
  b.ExecOk("PRAGMA synchronous=FULL; BEGIN IMMEDIATE; ROLLBACK");
  ExpectTakenBack(b, rows);
}

// What could not be cut off the log must not pass for cut off.
TEST_F(RepairTest, ACallThatFailsBeforeWhatFailedIsCutOff) {
  constexpr int kLogHeader = 32;
  constexpr int kFrameHeader = 24;
  const struct {
    Op op;
    int64_t amount;
  } cases[] = {{Op::kRead, kLogHeader}, {Op::kRead, kFrameHeader}, {Op::kWrite, kFrameHeader}};
  Db a = OpenWithTable();
  for (const auto& [op, amount] : cases) {
    const std::string what = std::string(OpName(op)) + " of " + std::to_string(amount);
    SCOPED_TRACE(what);
    const int64_t rows = a.Int("SELECT count(*) FROM t");
    std::atomic<bool> has_failed{false};  // the commit
    std::atomic<int> calls{0};
    storage_.SetFaultHook([&, op = op, amount = amount](const Call& call) {
      if (call.kind != FileKind::kWal) return SQLITE_OK;
      if (call.op == Op::kSync && !has_failed.exchange(true)) return SQLITE_IOERR_FSYNC;
      const bool cuts = has_failed && call.op == op && call.amount == amount;
      return cuts && calls++ == 0 ? SQLITE_IOERR : SQLITE_OK;
    });
    EXPECT_EQ(a.Exec("INSERT INTO t VALUES('failed')"), SQLITE_IOERR_FSYNC);
    EXPECT_EQ(calls, 1);
    EXPECT_EQ(Stats(a).fenced, 1);
    EXPECT_EQ(a.Exec("BEGIN IMMEDIATE; ROLLBACK"), SQLITE_OK) << "the next attempt succeeds";
    storage_.SetFaultHook(nullptr);
    ExpectTakenBack(a, rows);
  }
}

// Where a log is to be started over, its header is what is cut off. The sync that follows loses
// that, after an earlier one has left the failed commit on the disk.
TEST_F(RepairTest, AHeaderThatIsCutOffAgain) {
  Db a = OpenWithTable();
  Db b = OpenWal();
  const int64_t rows = b.Int("SELECT count(*) FROM t");
  a.ExecOk("PRAGMA wal_checkpoint(TRUNCATE)");
  std::atomic<int> syncs{0};
  storage_.SetFaultHook([&](const Call& call) {
    if (call.op != Op::kSync || call.kind != FileKind::kWal) return SQLITE_OK;
    const int number = ++syncs;  // 1: the header's, 2: the commit's, 3 and 4: of each handle
    storage_.SetFailedSyncEnd(number == 2 ? SyncEnd::kPending : SyncEnd::kLost);
    return number == 2 || number == 5 ? SQLITE_IOERR_FSYNC : SQLITE_OK;
  });
  EXPECT_EQ(b.Exec("INSERT INTO t VALUES('failed')"), SQLITE_IOERR_FSYNC);
  EXPECT_EQ(syncs, 5);
  EXPECT_EQ(Stats(b).fenced, 1);
  EXPECT_EQ(RowsAfterPowerCut(), rows + 1) << "which is nothing that the test is about";
  EXPECT_EQ(b.Exec("BEGIN IMMEDIATE; ROLLBACK"), SQLITE_OK);
  storage_.SetFaultHook(nullptr);
  ExpectTakenBack(b, rows);
}

// It is only remembered until it is opened again.
TEST_F(RepairTest, AClosedDatabaseIsNotInTheTable) {
  Db a = OpenWithTable();
  sqlite3_db_config(a.get(), SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, nullptr);
  Db memory(":memory:");
  EXPECT_EQ(groupcommit_stats_table(memory.get()), SQLITE_OK);
  EXPECT_EQ(memory.Int("SELECT count(*) FROM groupcommit_stats"), 1);
  storage_.FailSyncs(FileKind::kWal, 1, 100);
  EXPECT_EQ(a.Exec("INSERT INTO t VALUES('failed')"), SQLITE_IOERR_FSYNC);
  a.Close();
  EXPECT_EQ(memory.Int("SELECT count(*) FROM groupcommit_stats"), 0);
  storage_.FailSyncs(FileKind::kWal, 1, 0);
  a = OpenWal();
  EXPECT_EQ(memory.Int("SELECT count(*) FROM groupcommit_stats"), 1);
  ExpectTakenBack(a, a.Int("SELECT count(*) FROM t"));
}

// Whoever comes by next goes on with what is left to do.
TEST_F(RepairTest, TheOneThatHasTakenItBackClosesWhileTheDiskIsBroken) {
  Db a = OpenWithTable();
  Db b = OpenWal();
  b.Int("SELECT count(*) FROM t");
  storage_.FailSyncs(FileKind::kWal, 1, 1000);
  EXPECT_EQ(a.Exec("INSERT INTO t VALUES('failed')"), SQLITE_IOERR_FSYNC);
  EXPECT_EQ(a.Close(), SQLITE_OK);
  EXPECT_EQ(Stats(b).fenced, 1);
  storage_.FailSyncs(FileKind::kWal, 1, 0);
  b.Exec("BEGIN IMMEDIATE; ROLLBACK");
  ExpectTakenBack(b, 1);
}

// Nothing that is out of sight is made durable as the last one closes, if it cannot be cut off.
TEST_F(RepairTest, WhatCouldNotBeCutOffIsNotBroughtBackByTheLastOneToClose) {
  Db a = OpenWithTable();
  Db stranger(path(), "store");
  stranger.Int("SELECT count(*) FROM t");
  std::atomic<bool> is_broken{false};
  std::atomic<int> writes{0};
  storage_.SetFaultHook([&](const Call& call) {
    if (call.kind != FileKind::kWal) return SQLITE_OK;
    if (call.op == Op::kSync) return is_broken.exchange(true) ? SQLITE_OK : SQLITE_IOERR_FSYNC;
    const bool fails = is_broken && call.op == Op::kWrite && writes++ < 3;
    return fails ? SQLITE_IOERR_WRITE : SQLITE_OK;
  });
  storage_.SetFailedSyncEnd(SyncEnd::kPending);
  EXPECT_EQ(a.Exec("INSERT INTO t VALUES('failed')"), SQLITE_IOERR_FSYNC);
  EXPECT_EQ(writes, 1);
  a.Close();
  storage_.SetFaultHook(nullptr);
  EXPECT_EQ(stranger.Int("SELECT count(*) FROM t"), 1);
  a = OpenWal();
  EXPECT_EQ(a.Exec("BEGIN IMMEDIATE; ROLLBACK"), SQLITE_OK);
  EXPECT_EQ(Stats(a).fenced, 0);
  EXPECT_EQ(RowsAfterPowerCut(), 1);
}

// Where nobody else sees the log, there is no fence, and the next commit repairs it.
TEST_F(RepairTest, ExclusiveFromTheStart) {
  OpenWithTable();
  Db a(path(), "gc");
  a.ExecOk("PRAGMA locking_mode=EXCLUSIVE; PRAGMA synchronous=FULL; INSERT INTO t VALUES('x')");
  for (const int failures : {1, 3}) {  // of the commit alone; of the repair at once, too
    storage_.FailSyncs(FileKind::kWal, 1, failures);
    EXPECT_EQ(a.Exec("INSERT INTO t VALUES('failed')"), SQLITE_IOERR_FSYNC);
    EXPECT_EQ(Stats(a).fenced, failures > 1);
    const int64_t rows = a.Int("SELECT count(*) FROM t");
    a.ExecOk("INSERT INTO t VALUES('after')");
    EXPECT_EQ(RowsAfterPowerCut(), rows + 1);
  }
}

}  // namespace
}  // namespace groupcommit::testing
