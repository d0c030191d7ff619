// A sync fails for which nobody waits that would see to it, while another process may build on the
// hole: whoever is told closes it. Told once or to each handle, as in stranger_test.cc.
#include <sqlite3.h>

#include <atomic>
#include <filesystem>
#include <future>
#include <string>
#include <thread>

#include "support/queue_of.h"
#include "support/stranger_fixture.h"

namespace groupcommit::testing {
namespace {

class UnclosedHoleTest : public StrangerTest {
 protected:
  // A commit of ours without a sync, which the next failure loses.
  void CommitUnsynced(Db& db) {
    db.ExecOk("PRAGMA synchronous=NORMAL; INSERT INTO t VALUES('unsynced')");
  }
  void FailSyncOnce() { storage_.FailSyncs(FileKind::kWal, 1, 1); }

  // Nobody of ours has the database open any more.
  void LeaveFramesInTheLog() {
    for (Db* db : {&a_, &b_, &observer_}) {
      sqlite3_db_config(db->get(), SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, nullptr);
    }
    stranger_.ExecOk("PRAGMA wal_checkpoint(TRUNCATE); PRAGMA synchronous=NORMAL");
    stranger_.ExecOk("UPDATE t SET x='found'; PRAGMA synchronous=FULL");
    CloseOurs();
  }
};

INSTANTIATE_TEST_SUITE_P(, UnclosedHoleTest, ::testing::Values(false, true), [](const auto& test) {
  return std::string(test.param ? "EachTold" : "OneTold");
});

TEST_P(UnclosedHoleTest, ACheckpointOfOursFailsToSyncTheLog) {
  CommitUnsynced(a_);
  stranger_.ExecOk("BEGIN IMMEDIATE");
  FailSyncOnce();
  EXPECT_EQ(a_.Exec("PRAGMA wal_checkpoint(PASSIVE)"), SQLITE_IOERR_FSYNC);
  ExpectNothingItCommitsIsLost();
}

// It syncs frames of which nobody of ours knows whether they are durable.
TEST_P(UnclosedHoleTest, AReaderFails) {
  LeaveFramesInTheLog();
  a_ = OpenWal();
  ASSERT_EQ(Stats(a_).pending, 1);
  FailSyncOnce();
  EXPECT_EQ(a_.Exec("SELECT * FROM t"), SQLITE_IOERR_FSYNC);
  EXPECT_EQ(Stats(a_).fenced, 0);
  const int acknowledged = Insert();
  EXPECT_GT(acknowledged, 0);
  EXPECT_EQ(AfterPowerCut("acknowledged"), acknowledged);
}

// The others do not hear of it.
TEST_P(UnclosedHoleTest, OneOfUsFailsToSyncAsItCloses) {
  a_.ExecOk("PRAGMA groupcommit_policy='interval(max_delay_us=10000000)'");
  a_.ExecOk("INSERT INTO t VALUES('left to the background')");
  stranger_.ExecOk("BEGIN IMMEDIATE");
  FailSyncOnce();
  a_.Close();
  ExpectNothingItCommitsIsLost();
}

// What was written alone is written again, too.
TEST_P(UnclosedHoleTest, AFlushFailsAfterExclusiveLockingMode) {
  stranger_.Close();
  b_.Close();
  observer_.Close();
  a_.ExecOk("PRAGMA locking_mode=EXCLUSIVE");
  CommitUnsynced(a_);
  a_.ExecOk("PRAGMA locking_mode=NORMAL; SELECT * FROM t");
  stranger_ = OpenStranger();
  stranger_.ExecOk("BEGIN IMMEDIATE");
  FailSyncOnce();
  EXPECT_EQ(a_.Exec("PRAGMA groupcommit_flush"), SQLITE_IOERR_FSYNC);
  ExpectNothingItCommitsIsLost();
}

// The hole was closed beneath its transaction. That is over, and nobody of ours has come by since.
TEST_P(UnclosedHoleTest, TheLastOfUsClosesAfterItsTransaction) {
  FailACommit([this] { stranger_.ExecOk("BEGIN IMMEDIATE"); });
  a_.Close();
  stranger_.ExecOk("ROLLBACK");
  b_.Close();
  observer_.Close();
  EXPECT_EQ(stranger_.Int("SELECT count(*) FROM t WHERE x='failed'"), 0);
  EXPECT_EQ(AfterPowerCut("failed"), 0);
}

// A connection that has not opened the log does not see to anything.
TEST_P(UnclosedHoleTest, TheLastOfUsClosesThatHasTheLog) {
  Db idle(path(), "gc");
  FailACommit([this] { stranger_.ExecOk("BEGIN IMMEDIATE"); });
  a_.Close();
  stranger_.ExecOk("ROLLBACK");
  b_.Close();
  observer_.Close();
  EXPECT_EQ(Stats(idle).fenced, 0);
  EXPECT_EQ(stranger_.Int("SELECT count(*) FROM t WHERE x='failed'"), 0);
}

// Nor is it a reason to think that the log has been open all the time.
TEST_P(UnclosedHoleTest, TheDiskIsBrokenUntilAllHaveClosedThatHaveTheLog) {
  Db idle(path(), "gc");
  storage_.FailSyncs(FileKind::kWal, 1, 1'000);
  EXPECT_EQ(a_.Exec("INSERT INTO t VALUES('failed')"), SQLITE_IOERR_FSYNC);
  CloseOurs();
  EXPECT_EQ(Stats(idle).fenced, 1);
  storage_.FailSyncs(FileKind::kWal, 1, 0);
  EXPECT_GT(Insert(), 0);
  for (Db* db : {&a_, &b_, &observer_}) *db = OpenWal();
  EXPECT_EQ(a_.Exec("INSERT INTO t VALUES('after')"), SQLITE_OK);
  EXPECT_EQ(Stats(idle).fenced, 0);
  FailSyncOnce();
  EXPECT_EQ(a_.Exec("INSERT INTO t VALUES('failed')"), SQLITE_IOERR_FSYNC);
  EXPECT_EQ(b_.Int("SELECT count(*) FROM t WHERE x='failed'"), 0);
}

// Another log is there by now, and those that keep others out of the one with the hole let go.
TEST_P(UnclosedHoleTest, TheLogWithTheHoleIsGone) {
  storage_.FailSyncs(FileKind::kWal, 1, 1'000);
  EXPECT_EQ(a_.Exec("INSERT INTO t VALUES('failed')"), SQLITE_IOERR_FSYNC);
  CloseOurs();
  Db keeper(path(), "gc");
  EXPECT_EQ(keeper.Exec("SELECT * FROM t"), SQLITE_IOERR_FSYNC);
  EXPECT_EQ(stranger_.Exec("BEGIN IMMEDIATE"), SQLITE_BUSY);
  storage_.FailSyncs(FileKind::kWal, 1, 0);
  std::filesystem::resize_file(path() + "-wal", 0);
  Db next(path(), "gc");
  next.Exec("SELECT * FROM t");
  EXPECT_EQ(Stats(next).fenced, 0);
  EXPECT_EQ(stranger_.Exec("BEGIN IMMEDIATE"), SQLITE_OK);
  stranger_.ExecOk("ROLLBACK");
  storage_.ForgetClosedFiles();
}

// ---- There is no wal-index ----

class NoWalIndexTest : public UnclosedHoleTest {
 protected:
  // As after a crash: a log, all of which was acknowledged, and nobody who has recovered it.
  void Crash() {
    a_.ExecOk("INSERT INTO t VALUES('acknowledged')");
    for (Db* db : {&a_, &b_, &observer_, &stranger_}) {
      sqlite3_db_config(db->get(), SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, nullptr);
      db->Close();
    }
    std::filesystem::remove(path() + "-shm");  // with it there would be three bytes (os_unix.c)
  }
};

INSTANTIATE_TEST_SUITE_P(, NoWalIndexTest, ::testing::Values(false, true), [](const auto& test) {
  return std::string(test.param ? "EachTold" : "OneTold");
});

// It is there, and empty: that says nothing of the log.
TEST_P(NoWalIndexTest, AFlushFailsAfterARecovery) {
  Crash();
  Db db(path(), "gc");
  storage_.SetFaultHook([](const Call& call) {
    return call.op == Op::kRead && call.kind == FileKind::kWal ? SQLITE_IOERR_READ : SQLITE_OK;
  });
  EXPECT_EQ(db.Exec("SELECT * FROM t"), SQLITE_IOERR_READ);
  storage_.SetFaultHook(nullptr);
  FailSyncOnce();
  EXPECT_EQ(db.Exec("PRAGMA groupcommit_flush"), SQLITE_IOERR_FSYNC);
  EXPECT_EQ(AfterPowerCut("acknowledged"), 1);
  EXPECT_EQ(db.Int("SELECT count(*) FROM t WHERE x='acknowledged'"), 1);
  EXPECT_EQ(Stats(db).fenced, 0);
}

// Nor is somebody who has not read the database in a position to make it.
TEST_P(NoWalIndexTest, AFlushFailsBeforeAnybodyHasReadTheDatabase) {
  for (const bool closes : {false, true}) {
    Crash();
    Db db(path(), "gc");
    FailSyncOnce();
    EXPECT_EQ(db.Exec("PRAGMA groupcommit_flush"), SQLITE_IOERR_FSYNC);
    if (closes) db = Db(path(), "gc");
    EXPECT_EQ(db.Exec("SELECT * FROM t"), SQLITE_OK);
    EXPECT_EQ(db.Exec("PRAGMA synchronous=FULL; INSERT INTO t VALUES('after')"), SQLITE_OK);
    EXPECT_EQ(Stats(db).fenced, 0);
    a_ = OpenWal();
    b_ = OpenWal();
    observer_ = OpenWal();
    stranger_ = OpenStranger();
  }
}

// What had been taken out of sight before all of ours were closed stays there: another process has
// kept the wal-index.
TEST_P(UnclosedHoleTest, WhatWasTakenBackIsNotBroughtBackByTheNextToOpen) {
  std::atomic<bool> is_broken{false};
  storage_.SetFaultHook([&](const Call& call) {
    if (call.kind != FileKind::kWal) return SQLITE_OK;
    if (call.op == Op::kSync) is_broken = true;
    const bool fails = is_broken && (call.op == Op::kSync || call.op == Op::kWrite);
    return fails ? SQLITE_IOERR_FSYNC : SQLITE_OK;
  });
  storage_.SetFailedSyncEnd(SyncEnd::kPending);
  EXPECT_EQ(a_.Exec("INSERT INTO t VALUES('failed')"), SQLITE_IOERR_FSYNC);
  EXPECT_EQ(stranger_.Int("SELECT count(*) FROM t WHERE x='failed'"), 0);
  CloseOurs();
  storage_.SetFaultHook(nullptr);
  a_ = OpenWal();
  EXPECT_EQ(a_.Exec("BEGIN IMMEDIATE; ROLLBACK"), SQLITE_OK);
  EXPECT_EQ(Stats(a_).fenced, 0);
  EXPECT_EQ(AfterPowerCut("failed"), 0);
  EXPECT_EQ(a_.Int("SELECT count(*) FROM t WHERE x='failed'"), 0);
}

// A checkpoint that waits for the writers under way has the lock that is needed.
TEST_P(UnclosedHoleTest, WhoFailsIsNoWriterUnderWay) {
  CheckpointGate& gate = GateOf(observer_);
  std::atomic<bool> has_failed{false};
  std::atomic<int> writers{-1};  // when it asks for the locks for the first time
  FailNextSync([&] {
    stranger_.ExecOk("BEGIN IMMEDIATE");
    has_failed = true;
  });
  storage_.SetObserver([&](const Call& call) {
    const bool asks =
        call.op == Op::kShmLock && call.flags == (SQLITE_SHM_LOCK | SQLITE_SHM_EXCLUSIVE);
    if (has_failed && asks && writers < 0) writers = gate.writers().load();
  });
  std::future<int> commit = ExecAsync(a_, "INSERT INTO t VALUES('failed')");
  while (writers < 0 && !IsReady(commit)) std::this_thread::yield();
  EXPECT_EQ(writers, 0);
  stranger_.ExecOk("ROLLBACK");
  EXPECT_EQ(commit.get(), SQLITE_IOERR_FSYNC);
  EXPECT_EQ(gate.leaving(), 0);
  storage_.SetObserver(nullptr);
  storage_.SetFaultHook(nullptr);
}

// ---- What lies beneath ----

// The commit is on top of all that was there: of what was found, and of what has come since.
TEST_P(UnclosedHoleTest, AnotherProcessHasCommittedOnTopOfWhatWasFound) {
  LeaveFramesInTheLog();
  a_ = OpenWal();
  b_ = OpenWal();
  a_.ExecOk("BEGIN IMMEDIATE; ROLLBACK");
  ASSERT_EQ(Stats(a_).pending, 1);
  stranger_.ExecOk("UPDATE t SET x='its'");
  FailSyncOnce();
  EXPECT_EQ(a_.Exec("UPDATE t SET x='failed'"), SQLITE_IOERR_FSYNC);
  EXPECT_EQ(Stats(b_).fenced, 0);
  EXPECT_EQ(b_.Int("SELECT count(*) FROM t WHERE x='its'"), 1);
  EXPECT_EQ(AfterPowerCut("its"), 1);
}

// It has died over the header: nobody can tell what of its commits is in sight.
TEST_P(UnclosedHoleTest, AnotherProcessHasDiedWhileItPublished) {
  FailACommit([this] { DamageWalIndex(); });
  EXPECT_EQ(a_.Exec("INSERT INTO t VALUES('after')"), SQLITE_OK) << "the log can be recovered";
  EXPECT_EQ(Stats(observer_).fenced, 0);
  EXPECT_GT(Insert(), 0);
  EXPECT_EQ(AfterPowerCut("after"), 1);
}

}  // namespace
}  // namespace groupcommit::testing
