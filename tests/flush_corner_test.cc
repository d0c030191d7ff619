// Flushes, LSNs and the policy interval where they are easily forgotten: policies that change in
// the middle of a commit, logs that are closed, deleted or recovered, connections that have not
// read anything yet.
#include <sqlite3.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <future>
#include <memory>
#include <thread>
#include <vector>

#include "support/barrier_test.h"
#include "support/patience.h"

namespace groupcommit::testing {
namespace {

class FlushCornerTest : public BarrierTest {
 protected:
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

// Its frames are written by then, so that it has not asked for the thread that is to sync them.
TEST_F(FlushCornerTest, ACommitIsNotLeftToABackgroundThatDoesNotRun) {
  Db db = OpenWithTable();
  Db other = OpenWal();
  bool is_set = false;
  storage_.SetObserver([&](const Call& call) {
    if (call.op != Op::kWrite || call.kind != FileKind::kWal || is_set) return;
    is_set = true;
    other.ExecOk("PRAGMA groupcommit_policy=interval");
  });
  Insert(db);
  storage_.SetObserver({});
  EXPECT_TRUE(is_set);
  EXPECT_EQ(RowsAfterPowerCut(), 2);
}

// ---- A log that is closed, and the connection is not ----

TEST_F(FlushCornerTest, ADatabaseThatLeavesWalMode) {
  Db db = OpenWithTable();
  db.ExecOk("PRAGMA synchronous=NORMAL");
  Insert(db);
  const sqlite3_int64 lsn = CommitLsn(db);
  EXPECT_EQ(db.Text("PRAGMA journal_mode=DELETE"), "delete");
  EXPECT_EQ(Flush(db), SQLITE_ERROR);
  EXPECT_EQ(Wait(db, lsn, -1), SQLITE_OK) << "it was synced by the checkpoint";
  Insert(db);
  EXPECT_EQ(CommitLsn(db), lsn) << "commits of other modes have none";
  EXPECT_EQ(db.Text("PRAGMA journal_mode=WAL"), "wal");
  Insert(db);
  EXPECT_GT(CommitLsn(db), lsn);
  EXPECT_EQ(Flush(db), SQLITE_OK);
  EXPECT_EQ(RowsAfterPowerCut(), 4);
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

// So that the directory is synced, too (os_unix.c: UNIXFILE_DIRSYNC).
TEST_F(FlushCornerTest, AnIdleConnectionOpensTheLogAsSqliteDoes) {
  Db stranger(path(), "store");
  stranger.ExecOk("PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; CREATE TABLE t(x)");
  Db idle(path(), "gc");
  std::vector<int> flags;
  storage_.SetObserver([&flags](const Call& call) {
    if (call.op == Op::kOpen && call.kind == FileKind::kWal) flags.push_back(call.flags);
  });
  EXPECT_EQ(Flush(idle), SQLITE_OK);
  EXPECT_EQ(idle.Int("SELECT count(*) FROM t"), 0);
  storage_.SetObserver({});
  ASSERT_GE(flags.size(), 2u) << "the flush, and SQLite";
  EXPECT_EQ(flags, std::vector<int>(flags.size(), flags.back()));
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

// ---- Others that are at the log ----

// Another connection closes: it leaves the log, as it would for any other one.
TEST_F(FlushCornerTest, ALogIsNotDeletedWhileAFlushOpensIt) {
  Db db = OpenWithTable();
  db.ExecOk("PRAGMA synchronous=NORMAL");
  Insert(db);
  Db idle(path(), "gc");
  bool closed = false;
  storage_.SetObserver([&](const Call& call) {
    if (call.op != Op::kOpen || call.kind != FileKind::kWal || closed) return;
    closed = true;
    EXPECT_EQ(db.Close(), SQLITE_OK);
  });
  EXPECT_EQ(Flush(idle), SQLITE_OK);
  storage_.SetObserver({});
  EXPECT_TRUE(closed);
  EXPECT_EQ(RowsAfterPowerCut(), 2);
}

// Or else it would find a log, as soon as it has none any more.
TEST_F(FlushCornerTest, NobodyLeavesWalModeWhileAFlushOpensTheLog) {
  OpenWithTable().Close();
  Db stranger(path(), "store");
  stranger.ExecOk("INSERT INTO t VALUES('row')");
  Db idle(path(), "gc");
  int refused = -1;
  storage_.SetObserver([&](const Call& call) {
    if (call.op != Op::kOpen || call.kind != FileKind::kWal || refused >= 0) return;
    refused = stranger.Exec("PRAGMA journal_mode=DELETE");
  });
  EXPECT_EQ(Flush(idle), SQLITE_OK);
  storage_.SetObserver({});
  EXPECT_EQ(refused, SQLITE_BUSY);
  EXPECT_EQ(stranger.Text("PRAGMA journal_mode=DELETE"), "delete") << "it goes on keeping it out";
  EXPECT_FALSE(std::filesystem::exists(path() + "-wal"));
  EXPECT_EQ(idle.Int("SELECT count(*) FROM t"), 2);
}

TEST_F(FlushCornerTest, AFlushWhileSomebodyHasTheFileForHimself) {
  OpenWithTable().Close();
  Db alone(path(), "store");
  alone.ExecOk("PRAGMA locking_mode=EXCLUSIVE; INSERT INTO t VALUES('row')");
  Db idle(path(), "gc");
  EXPECT_EQ(Flush(idle), SQLITE_BUSY);
  alone.Close();
  EXPECT_EQ(Flush(idle), SQLITE_OK);
}

TEST_F(FlushCornerTest, ALogThatCannotBeOpenedByAFlush) {
  Db db = OpenWithTable();
  db.ExecOk("PRAGMA synchronous=NORMAL");
  Insert(db);
  Db idle(path(), "gc");
  storage_.SetFaultHook([](const Call& call) {
    return call.op == Op::kOpen && call.kind == FileKind::kWal ? SQLITE_CANTOPEN : SQLITE_OK;
  });
  EXPECT_EQ(Flush(idle), SQLITE_CANTOPEN);
  storage_.SetFaultHook(nullptr);
  EXPECT_EQ(Flush(idle), SQLITE_OK);
  EXPECT_EQ(RowsAfterPowerCut(), 2);
}

// The sync is as strong as those that were asked for before the last of us closed the log.
TEST_F(FlushCornerTest, AFlushThroughALogThatOnlyAnotherProcessHasOpen) {
  Db db = OpenWithTable();
  Db idle(path(), "gc");
  Db stranger(path(), "store");
  stranger.ExecOk("PRAGMA synchronous=NORMAL; SELECT * FROM t");
  db.ExecOk("PRAGMA fullfsync=ON");
  db.ExecOk("PRAGMA groupcommit_policy='interval(max_delay_us=10000000)'");
  Insert(db);
  EXPECT_EQ(db.Close(), SQLITE_OK);
  Insert(stranger);
  std::vector<int> flags;
  storage_.SetObserver([&flags](const Call& call) {
    if (call.op == Op::kSync && call.kind == FileKind::kWal) flags.push_back(call.flags & 0x0f);
  });
  EXPECT_EQ(Flush(idle), SQLITE_OK);
  storage_.SetObserver({});
  EXPECT_EQ(flags, std::vector<int>{SQLITE_SYNC_FULL});
}

// Another process was killed in the middle of the header of its commit (wal.c: walIndexWriteHdr()).
// An SQLite with SQLITE_ENABLE_SETLK_TIMEOUT recovers the log when it has the write lock already,
// and headers count from 0 again: the commit's may have the number that was there before.
TEST_F(FlushCornerTest, ACommitBehindARecoveryUnderTheWriteLockHasAnLsn) {
  Db db = OpenWal();
  db.ExecOk("CREATE TABLE t(x)");
  db.ExecOk("PRAGMA synchronous=NORMAL");
  const sqlite3_int64 lsn = CommitLsn(db);
  {
    std::fstream shm(path() + "-shm", std::ios::binary | std::ios::in | std::ios::out);
    constexpr int kSecondHeader = 48;
    shm.seekp(kSecondHeader + 8);
    shm.put('x');
  }
  Insert(db);
  EXPECT_GT(CommitLsn(db), lsn);
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
