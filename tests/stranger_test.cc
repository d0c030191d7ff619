// A sync of the log fails while another process is at the same database: it knows nothing of the
// hole, and what it commits must not be lost. With "each told", every open handle learns of a
// failed sync, as on Linux; else only the first that asks.
#include <sqlite3.h>

#include <atomic>
#include <future>
#include <string>
#include <thread>

#include "support/stranger_fixture.h"

namespace groupcommit::testing {
namespace {

INSTANTIATE_TEST_SUITE_P(, StrangerTest, ::testing::Values(false, true), [](const auto& test) {
  return std::string(test.param ? "EachTold" : "OneTold");
});

// ---- It commits on top ----

TEST_P(StrangerTest, InTheMiddleOfItsTransaction) {
  FailACommit([this] { stranger_.ExecOk("BEGIN IMMEDIATE"); });
  ExpectNothingItCommitsIsLost();
}

// One of us has asked for the lock that it has, in vain: that is no writer of ours.
TEST_P(StrangerTest, InTheMiddleOfItsTransactionThatOneOfUsWasRefusedFor) {
  b_.SetBusyTimeout(0);
  FailACommit([this] {
    stranger_.ExecOk("BEGIN IMMEDIATE");
    EXPECT_EQ(b_.Exec("INSERT INTO t VALUES('x')"), SQLITE_BUSY);
  });
  ExpectNothingItCommitsIsLost();
}

// That the hole was closed beneath an earlier one says nothing of the next. Each is closed once.
TEST_P(StrangerTest, InTheMiddleOfItsTransactionOnceMore) {
  std::atomic<int> writes{0};  // of the log's header
  for (int i = 0; i < 2; i++) {
    writes = 0;
    FailACommit([&] {
      stranger_.ExecOk("BEGIN IMMEDIATE");
      storage_.SetObserver([&writes](const Call& call) {
        const bool is_log = call.op == Op::kWrite && call.kind == FileKind::kWal;
        if (is_log && call.offset == 0) ++writes;
      });
    });
    storage_.SetObserver(nullptr);
    EXPECT_EQ(writes, 1) << i;
    if (i > 0) break;
    stranger_.ExecOk("ROLLBACK");
    observer_.Exec("BEGIN IMMEDIATE; ROLLBACK");  // somebody of ours comes by
    EXPECT_EQ(Stats(observer_).fenced, 0);
  }
  ExpectNothingItCommitsIsLost();
}

// What makes the hole beneath it whole fails at first.
TEST_P(StrangerTest, TheHoleBeneathItIsNotClosedAtOnce) {
  for (const Op failing : {Op::kWrite, Op::kSync}) {
    std::atomic<bool> is_read{false};
    std::atomic<int> failures{0};
    FailACommit([&] {
      stranger_.ExecOk("BEGIN IMMEDIATE");
      storage_.SetFaultHook([&](const Call& call) {
        if (call.kind != FileKind::kWal) return SQLITE_OK;
        if (call.op == Op::kRead && call.offset > 0) is_read = true;
        const bool fails = is_read && call.op == failing && failures == 0;
        failures += fails;
        return fails ? SQLITE_IOERR : SQLITE_OK;
      });
    });
    EXPECT_EQ(failures, 1);
    storage_.SetFaultHook(nullptr);
    ExpectNothingItCommitsIsLost();
    CloseOurs();
    for (Db* db : {&a_, &b_, &observer_}) *db = OpenWal();
    stranger_.ExecOk("DELETE FROM t");
  }
}

// Nothing is written again that is its own, and may change meanwhile: neither while we try to take
// back what failed, nor as we close.
TEST_P(StrangerTest, WhatItHasWrittenIsLeftAlone) {
  stranger_.ExecOk("PRAGMA cache_size=5");
  std::atomic<int64_t> end{0};
  std::atomic<bool> seen{false};
  std::atomic<bool> closing{false};
  const std::thread::id self = std::this_thread::get_id();
  int acknowledged = 0;
  const auto write_something_else = [&] {
    stranger_.Exec("ROLLBACK");
    acknowledged += Insert();
  };
  FailACommit([&] {
    stranger_.ExecOk("BEGIN IMMEDIATE");
    storage_.SetObserver([&](const Call& call) {
      constexpr int kFrameHeader = 24;  // which is written by itself where what failed is cut off
      if (call.op != Op::kWrite || call.kind != FileKind::kWal) return;
      if (end == 0) end = call.offset;  // the stranger's
      const bool is_ours = std::this_thread::get_id() != self || closing;
      const bool is_again = is_ours && call.offset >= end && call.amount > kFrameHeader;
      if (is_again && !seen.exchange(true)) write_something_else();
    });
    stranger_.ExecOk("INSERT INTO t VALUES(zeroblob(200000))");
  });
  closing = true;
  CloseOurs();
  EXPECT_FALSE(seen);
  storage_.SetObserver(nullptr);
  write_something_else();
  EXPECT_EQ(AfterPowerCut("acknowledged"), acknowledged);
}

// Nor is it started over beneath what is written again, though all of it is in the database file,
// and nobody of ours has a snapshot.
TEST_P(StrangerTest, ALogThatItMayStartOverIsKeptUntilItIsWhole) {
  stranger_.ExecOk("PRAGMA wal_checkpoint; BEGIN IMMEDIATE");
  EXPECT_TRUE(FailAFlush(1, [this] { CommitOrTryAgain(); }));
  EXPECT_EQ(AfterPowerCut("acknowledged"), 1);
  EXPECT_EQ(stranger_.Int("PRAGMA wal_checkpoint(RESTART)"), 0) << "a lock is left behind";
}

// So nothing is written again where it cannot be kept, as while somebody starts it over.
TEST_P(StrangerTest, ALogThatCannotBeKeptIsLeftAlone) {
  stranger_.ExecOk("PRAGMA wal_checkpoint; BEGIN IMMEDIATE");
  storage_.SetFaultHook([](const Call& call) {
    constexpr int kLogReaders = 4;  // WAL_READ_LOCK(1), the first of those that read the log
    const bool keeps = call.op == Op::kShmLock && call.offset >= kLogReaders &&
                       call.flags == (SQLITE_SHM_LOCK | SQLITE_SHM_SHARED);
    return keeps ? SQLITE_BUSY : SQLITE_OK;
  });
  EXPECT_FALSE(FailAFlush(1, [] {}));
  storage_.SetFaultHook(nullptr);
  stranger_.Exec("ROLLBACK");
}

// Not every snapshot keeps the log by itself: not one that goes by the database file alone, as all
// of the log is in there (wal.c: WAL_READ_LOCK(0), walRestartLog()).
TEST_P(StrangerTest, ALogThatItMayStartOverUnderASnapshotOfOursIsKeptUntilItIsWhole) {
  stranger_.ExecOk("PRAGMA wal_checkpoint; BEGIN IMMEDIATE");
  a_.ExecOk("BEGIN; SELECT count(*) FROM t");
  EXPECT_TRUE(FailAFlush(1, [this] { CommitOrTryAgain(); }));
  EXPECT_EQ(AfterPowerCut("acknowledged"), 1);
  // That snapshot is still SQLite's: what it reads is not copied over. (One may be told.)
  const int64_t copied = storage_.Counters(FileKind::kMainDb).writes;
  for (int i = 0; i < 2; i++) stranger_.Exec("PRAGMA wal_checkpoint");
  EXPECT_EQ(storage_.Counters(FileKind::kMainDb).writes, copied);
  a_.ExecOk("COMMIT");
  EXPECT_EQ(stranger_.Int("PRAGMA wal_checkpoint(RESTART)"), 0) << "a lock is left behind";
}

// Nor is what it writes to a log that it has started over: ours was longer.
TEST_P(StrangerTest, WhatItHasWrittenToALogOfItsOwnIsLeftAlone) {
  a_.ExecOk("INSERT INTO t VALUES(zeroblob(400000))");
  stranger_.ExecOk("PRAGMA wal_checkpoint; INSERT INTO t VALUES('its'); PRAGMA cache_size=5");
  a_.ExecOk("BEGIN; SELECT count(*) FROM t");
  std::atomic<int64_t> end{0};
  storage_.SetObserver([&](const Call& call) {
    if (call.op == Op::kWrite && call.kind == FileKind::kWal && end == 0) end = call.offset;
  });
  stranger_.ExecOk("BEGIN IMMEDIATE; INSERT INTO t VALUES(zeroblob(200000))");
  ASSERT_GT(end, 0);
  EXPECT_FALSE(FailAFlush(
      end, [this] { stranger_.Exec("ROLLBACK; INSERT INTO t VALUES('acknowledged')"); }));
  a_.Exec("ROLLBACK");
  EXPECT_EQ(AfterPowerCut("acknowledged"),
            stranger_.Int("SELECT count(*) FROM t WHERE x='acknowledged'"));
  stranger_.Exec("ROLLBACK");
}

// Nor is the header of a log of which nothing is left: it writes one of its own.
TEST_P(StrangerTest, TheHeaderThatItWritesToAnEmptyLogIsLeftAlone) {
  a_.ExecOk("PRAGMA wal_checkpoint");
  Db reader = OpenStranger();
  std::future<int> commit = ExecUntilSync(a_, "INSERT INTO t VALUES('failed')");
  EXPECT_EQ(storage_.ReleaseSyncs(1), 1);  // that of a new log's header
  ASSERT_TRUE(storage_.WaitForHeldSyncs(1));
  reader.ExecOk("BEGIN; SELECT count(*) FROM t");
  FailHeldSync();
  EXPECT_EQ(commit.get(), SQLITE_IOERR_FSYNC);
  FailWritesToTheLog();
  a_.Close();  // keeps it out no longer, nor makes anything whole
  storage_.SetFaultHook(nullptr);
  ASSERT_EQ(Stats(observer_).fenced, 1);
  reader.ExecOk("COMMIT");
  stranger_.ExecOk("BEGIN IMMEDIATE");
  std::atomic<bool> seen{false};
  const auto go_on = [&] {
    if (!seen.exchange(true)) CommitOrTryAgain();
  };
  storage_.SetObserver([&](const Call& call) {
    if (call.op == Op::kWrite && call.kind == FileKind::kWal) go_on();
  });
  b_.Exec("SELECT count(*) FROM t");
  storage_.SetObserver(nullptr);
  go_on();
  EXPECT_EQ(AfterPowerCut("acknowledged"), 1);
}

// It ends its transaction just as somebody of ours comes by, who finds it over at the second look:
// then nobody is kept out.
TEST_P(StrangerTest, ItsTransactionEndsAsSomebodyOfOursComesBy) {
  a_.ExecOk("PRAGMA groupcommit_policy='interval(max_delay_us=1)'");
  stranger_.ExecOk("BEGIN; SELECT count(*) FROM t");
  storage_.HoldSyncs(FileKind::kWal);
  a_.ExecOk("INSERT INTO t VALUES('ours')");
  ASSERT_TRUE(storage_.WaitForHeldSyncs(1));
  stranger_.ExecOk("COMMIT; BEGIN IMMEDIATE");
  FailHeldSync();
  while (Stats(observer_).fenced == 0) std::this_thread::yield();
  int requests = 0;
  storage_.SetObserver([&](const Call& call) {
    constexpr int kRequest = SQLITE_SHM_LOCK | SQLITE_SHM_EXCLUSIVE;
    if (call.op != Op::kShmLock || call.offset != 0 || call.flags != kRequest) return;
    if (++requests == 2) stranger_.ExecOk("ROLLBACK");
  });
  b_.Exec("SELECT count(*) FROM t");
  storage_.SetObserver(nullptr);
  EXPECT_GE(requests, 2);
  EXPECT_EQ(Stats(observer_).fenced, 0);
  EXPECT_GT(Insert(), 0);
}

TEST_P(StrangerTest, TheLastOfUsClosesMeanwhile) {
  FailACommit([this] { stranger_.ExecOk("BEGIN IMMEDIATE"); });
  CloseOurs();
  ExpectNothingItCommitsIsLost();
}

// It has the write lock: the log is its own, also to start over.
TEST_P(StrangerTest, TheLogIsLeftAloneAsTheLastOfUsCloses) {
  FailACommit([this] { stranger_.ExecOk("BEGIN IMMEDIATE"); });
  std::atomic<int> writes{0};
  storage_.SetObserver([&writes](const Call& call) {
    if (call.op == Op::kWrite && call.kind == FileKind::kWal) writes++;
  });
  CloseOurs();
  EXPECT_EQ(writes, 0);
  storage_.SetObserver(nullptr);
  ExpectNothingItCommitsIsLost();
}

TEST_P(StrangerTest, TheOneOfUsClosesThatKeepsItOut) {
  stranger_.ExecOk("PRAGMA synchronous=NORMAL");
  FailACommit([this] { stranger_.ExecOk("INSERT INTO t VALUES('on top, and not durable')"); });
  EXPECT_EQ(Stats(observer_).fenced, 1);
  stranger_.ExecOk("PRAGMA synchronous=FULL");
  EXPECT_EQ(stranger_.Exec("INSERT INTO t VALUES('acknowledged')"), SQLITE_BUSY);
  a_.Close();
  const int acknowledged = Insert();
  EXPECT_GT(acknowledged, 0);
  EXPECT_EQ(AfterPowerCut("acknowledged"), acknowledged);
  EXPECT_EQ(Stats(observer_).fenced, 0) << "the others may go on";
}

// It cannot be taken back before the checkpoint ends.
TEST_P(StrangerTest, TheOneOfUsClosesThatKeepsItOutDuringACheckpointOfOurs) {
  for (const bool on_top : {false, true}) {
    storage_.HoldSyncs(FileKind::kMainDb);
    std::future<int> checkpoint = ExecAsync(b_, "PRAGMA wal_checkpoint(PASSIVE)");
    ASSERT_TRUE(storage_.WaitForHeldSyncs(1));
    Db closing = OpenWal();
    storage_.FailSyncs(FileKind::kWal, 1, 1);
    EXPECT_EQ(closing.Exec("INSERT INTO t VALUES('failed')"), SQLITE_IOERR_FSYNC);
    EXPECT_EQ(stranger_.Exec("INSERT INTO t VALUES('acknowledged')"), SQLITE_BUSY);
    closing.Close();
    const int acknowledged = on_top ? Insert() : 0;
    EXPECT_EQ(acknowledged > 0, on_top);
    EXPECT_EQ(AfterPowerCut("acknowledged"), acknowledged);
    storage_.OpenGate();
    EXPECT_EQ(checkpoint.get(), SQLITE_OK);
    EXPECT_EQ(AfterPowerCut("acknowledged"), acknowledged);
    EXPECT_EQ(Stats(observer_).fenced, 0) << "what it has built upon stays, and we go on";
    EXPECT_EQ(stranger_.Int("SELECT count(*) FROM t WHERE x='failed'"), on_top);
    if (!on_top) a_.ExecOk("INSERT INTO t VALUES('x')");  // for the next checkpoint
  }
}

// What it committed before that, it would lose.
TEST_P(StrangerTest, TheOneOfUsThatClosesKeepsItOutUntilTheHoleIsClosed) {
  storage_.HoldSyncs(FileKind::kMainDb);
  std::future<int> checkpoint = ExecAsync(b_, "PRAGMA wal_checkpoint(PASSIVE)");
  ASSERT_TRUE(storage_.WaitForHeldSyncs(1));
  Db closing = OpenWal();
  storage_.FailSyncs(FileKind::kWal, 1, 1);
  EXPECT_EQ(closing.Exec("INSERT INTO t VALUES('failed')"), SQLITE_IOERR_FSYNC);
  int writes = 0;
  storage_.SetObserver([&](const Call& call) {
    if (call.op != Op::kWrite || call.kind != FileKind::kWal || writes++ != 0) return;
    EXPECT_EQ(stranger_.Exec("INSERT INTO t VALUES('its')"), SQLITE_BUSY);
  });
  closing.Close();
  EXPECT_GT(writes, 0);
  storage_.SetObserver(nullptr);
  storage_.OpenGate();
  checkpoint.get();
}

// Nor before the transaction ends.
TEST_P(StrangerTest, TheOneOfUsClosesThatKeepsItOutWhileAnotherOneWrites) {
  FillBig();
  std::future<int> commit = ExecUntilSync(a_, InsertIntoBig(2'001));
  b_.ExecOk("BEGIN IMMEDIATE");
  FailHeldSync();
  EXPECT_EQ(commit.get(), SQLITE_IOERR_FSYNC);
  EXPECT_EQ(stranger_.Int("PRAGMA wal_checkpoint(PASSIVE)"), 1) << "it is not busy";
  a_.Close();
  CutDuringACheckpoint(stranger_);
  b_.Exec("ROLLBACK");
  for (Db* db : {&b_, &observer_}) EXPECT_EQ(db->Close(), SQLITE_OK);
  AfterPowerCut("x");
}

// Its checkpoint is kept out no longer, and fails in the middle: half of what failed may be in the
// database file.
TEST_P(StrangerTest, ItsCheckpointHasBegunToCopyWhatFailed) {
  FillBig();
  std::future<int> commit = ExecUntilSync(a_, InsertIntoBig(2'001));
  b_.ExecOk("BEGIN IMMEDIATE");
  FailHeldSync();
  EXPECT_EQ(commit.get(), SQLITE_IOERR_FSYNC);
  a_.Close();
  storage_.FailSyncs(FileKind::kMainDb, 1, 2);
  for (int i = 0; i < 2; i++)
    EXPECT_EQ(stranger_.Exec("PRAGMA wal_checkpoint"), SQLITE_IOERR_FSYNC);
  b_.Exec("ROLLBACK");
  EXPECT_EQ(Stats(observer_).fenced, 0) << "it stays, and we go on";
  EXPECT_EQ(b_.Text("PRAGMA integrity_check"), "ok");
  for (Db* db : {&b_, &observer_}) EXPECT_EQ(db->Close(), SQLITE_OK);
  EXPECT_EQ(stranger_.Text("PRAGMA integrity_check"), "ok");
  AfterPowerCut("x");
}

}  // namespace
}  // namespace groupcommit::testing
