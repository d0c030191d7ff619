// A sync has failed, and then SQLite has the database to itself: it asks for no locks any more, and
// perhaps for no sync.
#include <sqlite3.h>

#include <future>
#include <string>

#include "support/stranger_fixture.h"

namespace groupcommit::testing {
namespace {

class SoleUserTest : public StrangerFixture {
 protected:
  void SetUp() override { Start(false); }
};

// The commit could not be taken back while a checkpoint of another process was under way. The last
// one to close would copy all of the log, and delete it.
TEST_F(SoleUserTest, WhatFailedIsNotCopiedByTheLastOneToCloseWhichDoesNotSync) {
  b_.Close();
  observer_.Close();
  std::future<int> checkpoint = StartItsCheckpoint();
  storage_.FailSyncs(FileKind::kWal, 1, 1);
  EXPECT_EQ(a_.Exec("INSERT INTO t VALUES('failed')"), SQLITE_IOERR_FSYNC);
  EXPECT_EQ(Stats(a_).fenced, 1);
  a_.ExecOk("PRAGMA synchronous=OFF");
  storage_.OpenGate();
  EXPECT_EQ(checkpoint.get(), SQLITE_OK);
  stranger_.Close();
  a_.Close();
  stranger_ = OpenStranger();
  EXPECT_EQ(stranger_.Int("SELECT count(*) FROM t WHERE x='failed'"), 0);
  EXPECT_EQ(stranger_.Text("PRAGMA integrity_check"), "ok");
}

// Nor while the disk is broken. The log stays then, for the next one to open the database.
TEST_F(SoleUserTest, ALogWithAHoleIsKept) {
  b_.Close();
  observer_.Close();
  stranger_.Close();
  storage_.FailSyncs(FileKind::kWal, 1, 1'000);
  EXPECT_EQ(a_.Exec("INSERT INTO t VALUES('failed')"), SQLITE_IOERR_FSYNC);
  a_.ExecOk("PRAGMA synchronous=OFF");
  a_.Close();
  storage_.FailSyncs(FileKind::kWal, 1, 0);
  a_ = OpenWal();
  EXPECT_EQ(a_.Exec("INSERT INTO t VALUES('after')"), SQLITE_OK);
  EXPECT_EQ(Stats(a_).fenced, 0);
  EXPECT_EQ(a_.Int("SELECT count(*) FROM t WHERE x='failed'"), 0);
}

// It has read what failed, and would write on top of that.
TEST_F(SoleUserTest, WhoBeginsToWriteAloneUponASnapshotOfWhatFailed) {
  a_.ExecOk("CREATE TABLE u(x); INSERT INTO u VALUES(1)");
  observer_.Close();
  b_.ExecOk("PRAGMA locking_mode=EXCLUSIVE");
  std::future<int> checkpoint = StartItsCheckpoint();
  FailNextSync([this] { b_.ExecOk("BEGIN; SELECT x FROM u"); });
  EXPECT_EQ(a_.Exec("INSERT INTO t VALUES('failed')"), SQLITE_IOERR_FSYNC);
  storage_.OpenGate();
  EXPECT_EQ(checkpoint.get(), SQLITE_OK);
  stranger_.Close();
  a_.Close();
  EXPECT_NE(b_.Exec("INSERT INTO t VALUES('on top')"), SQLITE_OK);
  b_.Exec("ROLLBACK");
  EXPECT_EQ(b_.Exec("INSERT INTO t VALUES('after')"), SQLITE_OK);
  EXPECT_EQ(b_.Int("SELECT count(*) FROM t WHERE x='failed'"), 0);
  EXPECT_EQ(b_.Text("PRAGMA integrity_check"), "ok");
}

// SQLite asks for the file lock once more, which it has, and goes on with it whatever comes of
// that.
TEST_F(SoleUserTest, TheFileLockOfExclusiveLockingModeIsKept) {
  b_.Close();
  observer_.Close();
  stranger_.Close();
  a_.ExecOk("PRAGMA locking_mode=EXCLUSIVE; INSERT INTO t VALUES('x')");
  storage_.FailSyncs(FileKind::kWal, 1, 1'000);
  EXPECT_EQ(a_.Exec("INSERT INTO t VALUES('failed')"), SQLITE_IOERR_FSYNC);
  EXPECT_NE(a_.Exec("PRAGMA journal_mode=DELETE"), SQLITE_OK);
  storage_.FailSyncs(FileKind::kWal, 1, 0);
  Db other(path(), "store");
  other.SetBusyTimeout(0);
  EXPECT_EQ(other.Exec("SELECT * FROM t"), SQLITE_BUSY);
  EXPECT_EQ(a_.Exec("INSERT INTO t VALUES('after')"), SQLITE_OK);
  EXPECT_EQ(a_.Int("SELECT count(*) FROM t WHERE x='failed'"), 0);
  EXPECT_EQ(a_.Text("PRAGMA integrity_check"), "ok");
}

}  // namespace
}  // namespace groupcommit::testing
