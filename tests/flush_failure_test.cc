// Flushes that fail, or of which an earlier failure is not known to everybody: errors that another
// process was told of, frames that were found in the log, failures in the background.
#include <sqlite3.h>

#include <string>
#include <thread>

#include "support/barrier_test.h"

namespace groupcommit::testing {
namespace {

using FlushFailureTest = BarrierTest;

// Who has the write lock keeps it, though nothing is written yet. The log is made whole by whoever
// gets it next.
TEST_F(FlushFailureTest, AFailedFlushInAWriteTransactionLeavesItsLockAlone) {
  Db db = OpenWithTable();
  Db other = OpenWal();
  db.ExecOk("PRAGMA synchronous=NORMAL");
  Insert(db);
  db.ExecOk("BEGIN IMMEDIATE");
  storage_.FailSyncs(FileKind::kWal, 1, 1);
  EXPECT_EQ(Flush(db), SQLITE_IOERR_FSYNC);
  EXPECT_EQ(Flush(db), SQLITE_IOERR_FSYNC);
  Db stranger(path(), "store");
  stranger.SetBusyTimeout(0);
  EXPECT_EQ(stranger.Exec("INSERT INTO t VALUES('refused')"), SQLITE_BUSY);
  EXPECT_EQ(db.Exec("INSERT INTO t VALUES('refused'); COMMIT"), SQLITE_IOERR_FSYNC);
  if (sqlite3_get_autocommit(db.get()) == 0) db.ExecOk("ROLLBACK");
  Insert(other);
  EXPECT_EQ(Flush(db), SQLITE_OK);
  EXPECT_EQ(RowsAfterPowerCut(), 3);
}

// Another process was told first; who opens the log afterwards is not told any more.
TEST_F(FlushFailureTest, AnErrorThatAStrangerWasToldOfIsHeardByEachWait) {
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

// Who opens the log to wait is not told, but the connection is whose log was open then.
TEST_F(FlushFailureTest, AnErrorThatAStrangerWasToldOfIsHeardByAnIdleConnection) {
  storage_.SetErrorPerHandle(true);
  Db db = OpenWithTable();
  db.ExecOk("PRAGMA synchronous=NORMAL");
  Db idle(path(), "gc");
  Db stranger(path(), "store");
  stranger.ExecOk("PRAGMA synchronous=FULL; SELECT * FROM t");
  Insert(db);
  storage_.FailSyncs(FileKind::kWal, 1, 1);
  EXPECT_EQ(stranger.Exec("INSERT INTO t VALUES('failed')"), SQLITE_IOERR_FSYNC);
  EXPECT_EQ(Flush(idle), SQLITE_IOERR_FSYNC);
  EXPECT_EQ(Flush(db), SQLITE_OK);
  EXPECT_EQ(RowsAfterPowerCut(), 2);
}

TEST_F(FlushFailureTest, AWaitThatFailedIsToldOnce) {
  Db db = OpenWithTable();
  db.ExecOk("PRAGMA synchronous=NORMAL");
  Insert(db);
  storage_.FailSyncs(FileKind::kWal, 1, 1);
  EXPECT_EQ(Wait(db, CommitLsn(db), kLongMillis), SQLITE_IOERR_FSYNC);
  EXPECT_EQ(Wait(db, CommitLsn(db), kLongMillis), SQLITE_OK);
  EXPECT_EQ(RowsAfterPowerCut(), 2);
}

// As COMMIT reports it, whatever the base VFS says: through a connection that has the log open, or
// none, and with a limit.
TEST_F(FlushFailureTest, AFailureIsReportedAsAnIoError) {
  Db db = OpenWithTable();
  db.ExecOk("PRAGMA synchronous=NORMAL");
  Db idle(path(), "gc");
  for (const Db* waits : {&db, &idle}) {
    for (const int limit : {-1, kLongMillis}) {
      Insert(db);
      storage_.FailSyncs(FileKind::kWal, 1, 1, SQLITE_FULL);
      EXPECT_EQ(Wait(*waits, CommitLsn(db), limit), SQLITE_IOERR_FSYNC) << limit;
    }
  }
  EXPECT_EQ(Flush(db), SQLITE_OK);
  EXPECT_EQ(RowsAfterPowerCut(), 5);
}

// Nothing of theirs was at stake.
TEST_F(FlushFailureTest, AWaitThatFailedFailsNoCommitOfOthers) {
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
TEST_F(FlushFailureTest, ANormalCommitOnTopOfFramesThatWereFoundDoesNotFailWithThem) {
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
TEST_F(FlushFailureTest, FramesThatWereFoundAndFailAreToldToWhoHasReadThem) {
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
TEST_F(FlushFailureTest, AFailedFlushOfALogThatIsRestartedBringsNothingBack) {
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

TEST_F(FlushFailureTest, ClosingWritesALogAgainThatHasAHole) {
  Db stays = OpenWithTable();
  Db db = OpenWal();
  db.ExecOk(kSoon);
  storage_.FailSyncs(FileKind::kWal, 1, 1);
  Insert(db);
  while (Stats(stays).background_errors == 0) std::this_thread::yield();
  db = Db();
  EXPECT_EQ(RowsAfterPowerCut(), 2);
}

// The log is gone by then, and so is what was lost of it: but not that it was not durable in time.
TEST_F(FlushFailureTest, AFailureInTheBackgroundIsToldWithoutALogToo) {
  Db idle(path(), "gc");
  Db db = OpenWithTable();
  db.ExecOk(kSoon);
  storage_.FailSyncs(FileKind::kWal, 1, 1);
  Insert(db);
  while (Stats(idle).background_errors == 0) std::this_thread::yield();
  EXPECT_EQ(db.Exec("INSERT INTO t VALUES('told')"), SQLITE_IOERR_FSYNC);
  Insert(db);
  db = Db();
  EXPECT_EQ(Flush(idle), SQLITE_IOERR_FSYNC);
  EXPECT_EQ(Flush(idle), SQLITE_OK);
  EXPECT_EQ(RowsAfterPowerCut(), 3);
}

}  // namespace
}  // namespace groupcommit::testing
