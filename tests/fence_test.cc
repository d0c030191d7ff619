// The fence: where failed commits cannot be taken back, nobody may write until the log is whole.
#include <sqlite3.h>

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <string>
#include <thread>

#include "support/fault_test.h"
#include "support/log_capture.h"

namespace groupcommit::testing {
namespace {

// Somebody of whom the shim does not know is a stock connection over the same storage.
class FenceTest : public FaultTest {
 protected:
  void SetUp() override {
    Start("gc");
    other_ = Db(path(), "store");
    other_.SetBusyTimeout(0);
    for (Db* db : {&a_, &b_, &c_}) db->SetBusyTimeout(0);
    LogCapture::Take();
  }

  // Nobody writes, here or elsewhere; nobody copies anything to the database file.
  void ExpectFenced() {
    EXPECT_EQ(Stats(observer_).fenced, 1);
    for (Db* db : {&a_, &b_, &c_}) EXPECT_EQ(Insert(*db), SQLITE_IOERR_FSYNC);
    EXPECT_EQ(Insert(other_), SQLITE_BUSY);
    EXPECT_EQ(other_.Int("PRAGMA wal_checkpoint(PASSIVE)"), 1) << "it is not busy";
    EXPECT_EQ(b_.Exec("PRAGMA wal_checkpoint"), SQLITE_IOERR_FSYNC);
    EXPECT_EQ(b_.Exec("CREATE TABLE v(x)"), SQLITE_IOERR_FSYNC);
    b_.Exec("ROLLBACK");
  }

  void CloseAll() {
    for (Db* db : {&a_, &b_, &c_, &observer_}) EXPECT_EQ(db->Close(), SQLITE_OK);
  }
  void OpenAll() {
    for (Db* db : {&a_, &b_, &c_, &observer_}) *db = Open();
  }

  // As if a checkpoint had copied all that is in the log, what failed included; or nothing.
  void SetBackfill(bool all) {
    constexpr int kLastFrame = 4;  // wal.c: WalIndexHdr.mxFrame, WalCkptInfo.nBackfill
    constexpr int kBackfill = 24;
    volatile uint32_t* words = WalIndex();
    words[kBackfill] = all ? words[kLastFrame] : 0;
  }

  // As a process leaves it that dies while it writes the header: the next one recovers the log.
  void DamageWalIndex() {
    constexpr int kChecksum = 10;  // wal.c: WalIndexHdr.aCksum
    volatile uint32_t* words = WalIndex();
    words[kChecksum] = ~words[kChecksum];
  }

  volatile uint32_t* WalIndex() {
    sqlite3_file* file = nullptr;
    EXPECT_EQ(sqlite3_file_control(other_.get(), "main", SQLITE_FCNTL_FILE_POINTER, &file),
              SQLITE_OK);
    other_.Int("SELECT count(*) FROM t");
    void volatile* map = nullptr;
    EXPECT_EQ(file->pMethods->xShmMap(file, 0, 32768, 0, &map), SQLITE_OK);
    return static_cast<volatile uint32_t*>(map);
  }

  Db other_;
};

// A checkpoint that waits for a commit of ours to end, which then fails: it must not wait for the
// snapshot that the fence keeps, nor the fence for its lock.
TEST_F(FenceTest, AFullCheckpointOfOursIsWaiting) {
  c_.SetBusyTimeout(60'000);
  const int failed = ledger_.Next();
  std::future<int> commit = ExecUntilSync(a_, Ledger::InsertOf(failed));
  std::atomic<int> refused{0};
  storage_.SetObserver([&refused](const Call& call) {
    constexpr int kFirstReadLock = 3;
    if (call.op == Op::kShmLock && call.offset > kFirstReadLock &&
        call.flags == (SQLITE_SHM_LOCK | SQLITE_SHM_EXCLUSIVE)) {
      ++refused;
    }
  });
  std::future<int> checkpoint = ExecAsync(c_, "PRAGMA wal_checkpoint(FULL)");
  while (refused == 0) std::this_thread::yield();
  FailHeldSync();
  EXPECT_EQ(ledger_.Note(failed, commit.get()), SQLITE_IOERR_FSYNC);
  EXPECT_NE(checkpoint.get(), SQLITE_OK);
  storage_.SetObserver(nullptr);
  c_.SetBusyTimeout(0);
  ExpectLedger();
  ExpectWorkGoesOn();
}

// No snapshot of ours lets it, but then the failed commits may be in the database file as a half.
TEST_F(FenceTest, ACheckpointHasCopiedWhatFailed) {
  const int failed = ledger_.Next();
  std::future<int> commit = ExecUntilSync(a_, Ledger::InsertOf(failed));
  SetBackfill(true);
  FailHeldSync();
  EXPECT_EQ(commit.get(), SQLITE_IOERR_FSYNC);

  EXPECT_NE(LogCapture::Take().message.find("a checkpoint has copied"), std::string::npos);
  EXPECT_EQ(Stats(observer_).fenced, 1);
  EXPECT_EQ(Insert(b_), SQLITE_IOERR_FSYNC);
  EXPECT_EQ(Insert(other_), SQLITE_BUSY);
  SetBackfill(false);  // so it may be taken back
  ExpectWorkGoesOn();
  ExpectLedger();
}

// Nothing is done behind the backs of our connections.
TEST_F(FenceTest, TheDiskFailsAgainAndThenAllAreIdle) {
  const int failed = ledger_.Next();
  constexpr int kForGood = 1'000'000;
  storage_.FailSyncs(FileKind::kWal, 1, kForGood);
  EXPECT_EQ(ledger_.Note(failed, a_.Exec(Ledger::InsertOf(failed))), SQLITE_IOERR_FSYNC);
  storage_.FailSyncs(FileKind::kWal, 1, 0);
  EXPECT_EQ(Insert(other_), SQLITE_BUSY);
  b_.ExecOk("SELECT * FROM t");
  EXPECT_EQ(Insert(other_), SQLITE_OK);
  ExpectLedger();
  ExpectWorkGoesOn();
}

// The last connection closes, and makes a checkpoint of the header that it has read. Then it takes
// back what failed, as it can by now: so the checkpoint must not go on.
TEST_F(FenceTest, TheCheckpointAtCloseCopiesNothingThatFailed) {
  const int failed = ledger_.Next();
  for (Db* db : {&b_, &c_, &observer_}) EXPECT_EQ(db->Close(), SQLITE_OK);
  std::future<int> commit = ExecUntilSync(a_, Ledger::InsertOf(failed));
  SetBackfill(true);
  FailHeldSync();
  EXPECT_EQ(ledger_.Note(failed, commit.get()), SQLITE_IOERR_FSYNC);
  EXPECT_EQ(Stats(a_).fenced, 1);
  SetBackfill(false);
  EXPECT_EQ(other_.Close(), SQLITE_OK);
  EXPECT_EQ(a_.Close(), SQLITE_OK);
  OpenAll();
  ExpectLedger();
  ExpectWorkGoesOn();
}

// While they are in sight, the cache of a connection that has read them under the write lock would
// pass for good: the header is still the same.
TEST_F(FenceTest, ACacheWithPagesOfAFailedCommitIsNotUsed) {
  const int failed = ledger_.Next();
  std::future<int> commit = ExecUntilSync(a_, Ledger::InsertOf(failed));
  b_.ExecOk("BEGIN IMMEDIATE; SELECT * FROM t");
  std::future<int> rollback = ExecAsync(b_, "ROLLBACK");
  ExpectToWait(rollback, observer_, 2);
  SetBackfill(true);
  FailHeldSync();
  EXPECT_EQ(ledger_.Note(failed, commit.get()), SQLITE_IOERR_FSYNC);
  rollback.get();
  EXPECT_EQ(Stats(observer_).fenced, 1);
  EXPECT_EQ(b_.Exec("SELECT count(*) FROM t"), SQLITE_IOERR_FSYNC);
  SetBackfill(false);
  ExpectWorkGoesOn();
}

// A commit of theirs lies on top of the failed one: they would lose it.
TEST_F(FenceTest, AnotherProcessHasCommittedOnTop) {
  const int failed = ledger_.Next();
  std::future<int> commit = ExecUntilSync(a_, Ledger::InsertOf(failed));
  const int theirs = ledger_.Next();
  std::future<int> on_top = ExecAsync(other_, Ledger::InsertOf(theirs));
  ASSERT_TRUE(storage_.WaitForHeldSyncs(2));
  FailHeldSync();
  EXPECT_EQ(commit.get(), SQLITE_IOERR_FSYNC);
  EXPECT_EQ(ledger_.Note(theirs, on_top.get()), SQLITE_OK);

  const LogEntry log = LogCapture::Take();
  EXPECT_EQ(log.code, SQLITE_IOERR_FSYNC);
  EXPECT_NE(log.message.find("another process has committed on top"), std::string::npos)
      << log.message;
  EXPECT_TRUE(log.message.ends_with(": " + path()))
      << "a long path would hide the reason: " << log.message;
  ExpectFenced();
  EXPECT_EQ(LogCapture::Ours(), 0) << "it is told once";

  CloseAll();
  // It is theirs to write now. What failed has become durable beneath their commit.
  ledger_.Note(failed, SQLITE_OK);
  ledger_.ExpectIn(other_);
  EXPECT_EQ(Insert(other_), SQLITE_OK);
  OpenAll();
  ExpectLedger();
  ExpectWorkGoesOn();
}

// Nothing of an earlier failure is left behind: that hole is closed, too, and the reason told
// again.
TEST_F(FenceTest, AnotherProcessHasCommittedOnTopAfterAFailureThatHasEnded) {
  storage_.SetErrorPerHandle(true);
  const int first = ledger_.Next();
  std::future<int> commit = ExecUntilSync(a_, Ledger::InsertOf(first));
  SetBackfill(true);
  FailHeldSync();
  EXPECT_EQ(ledger_.Note(first, commit.get()), SQLITE_IOERR_FSYNC);
  EXPECT_EQ(Stats(observer_).fenced, 1);
  SetBackfill(false);
  ExpectWorkGoesOn();
  EXPECT_EQ(Stats(observer_).fenced, 0);
  LogCapture::Take();

  const int failed = ledger_.Next();
  commit = ExecUntilSync(a_, Ledger::InsertOf(failed));
  std::atomic<bool> seen{false};
  storage_.SetObserver([&](const Call& call) {
    constexpr int kRequest = SQLITE_SHM_LOCK | SQLITE_SHM_EXCLUSIVE;
    if (call.op != Op::kShmLock || call.offset != 0 || call.flags != kRequest) return;
    if (seen.exchange(true)) return;
    Db late(path(), "store");  // which is not told
    late.ExecOk("PRAGMA synchronous=FULL");
    EXPECT_EQ(Insert(late), SQLITE_OK);
  });
  FailHeldSync();
  EXPECT_EQ(commit.get(), SQLITE_IOERR_FSYNC);
  storage_.SetObserver(nullptr);
  EXPECT_TRUE(seen);
  EXPECT_NE(LogCapture::Take().message.find("another process has committed on top"),
            std::string::npos);
  const std::string cut = dir_.path() + "/cut";
  storage_.CutInto(cut);
  ledger_.Note(failed, SQLITE_OK);  // beneath theirs
  ledger_.ExpectSurvivedIn(cut + "/test.db", false);
}

// And one of ours on top of theirs, so that the newest header is ours again.
TEST_F(FenceTest, AnotherProcessHasCommittedInBetween) {
  const int failed = ledger_.Next();
  const int theirs = ledger_.Next();
  const int on_top = ledger_.Next();
  std::future<int> commit = ExecUntilSync(a_, Ledger::InsertOf(failed));
  other_.ExecOk("PRAGMA synchronous=NORMAL");
  EXPECT_EQ(ledger_.Note(theirs, other_.Exec(Ledger::InsertOf(theirs)), false), SQLITE_OK);
  std::future<int> last = ExecAsync(b_, Ledger::InsertOf(on_top));
  ExpectToWait(last, observer_, 2);
  FailHeldSync();
  EXPECT_EQ(commit.get(), SQLITE_IOERR_FSYNC);
  EXPECT_EQ(last.get(), SQLITE_IOERR_FSYNC);
  EXPECT_NE(LogCapture::Take().message.find("another process has committed on top"),
            std::string::npos);
  EXPECT_EQ(Stats(observer_).fenced, 1);
  CloseAll();
  for (const int n : {failed, on_top}) ledger_.Note(n, SQLITE_OK);  // beneath theirs, and above
  ledger_.ExpectIn(other_);
  EXPECT_EQ(Insert(other_, false), SQLITE_OK);
}

// A reader elsewhere sees the failed commit. Its frames must not change under it.
TEST_F(FenceTest, AnotherProcessReadsTheFailedCommit) {
  FailingInsert(a_, [&] { other_.ExecOk("BEGIN; SELECT x FROM u"); });
  EXPECT_EQ(Stats(observer_).fenced, 1);
  const std::string why = LogCapture::Take().message;
  EXPECT_NE(why.find("until a transaction has ended"), std::string::npos) << why;
  EXPECT_TRUE(why.ends_with(": " + path())) << "a long path would hide the rest: " << why;
  for (Db* db : {&a_, &b_, &c_}) EXPECT_EQ(Insert(*db), SQLITE_IOERR_FSYNC);
  EXPECT_EQ(b_.Exec("PRAGMA wal_checkpoint"), SQLITE_IOERR_FSYNC);
  for (Db* db : {&a_, &b_, &c_}) ledger_.ExpectIn(*db);  // ours can read, and see no failed row
  EXPECT_EQ(other_.Int("SELECT count(*) FROM t"), 4) << "its snapshot stays";
  other_.ExecOk("COMMIT");
  ledger_.ExpectIn(other_);
  ExpectLedger();
  ExpectWorkGoesOn();  // the log is repaired by whoever comes by
  EXPECT_EQ(Insert(other_), SQLITE_OK);
  ExpectLedger();
}

// The log is whole at once: neither a power cut nor our death brings back what it reads.
TEST_F(FenceTest, TheLogIsWholeWhileAnotherProcessReadsTheFailedCommit) {
  EXPECT_EQ(b_.Exec("PRAGMA synchronous=NORMAL"), SQLITE_OK);
  EXPECT_EQ(Insert(b_, false), SQLITE_OK);  // whose pages the failed sync loses
  EXPECT_EQ(b_.Exec("PRAGMA synchronous=FULL"), SQLITE_OK);
  FailingInsert(a_, [&] { other_.ExecOk("BEGIN; SELECT x FROM u"); });
  EXPECT_EQ(Stats(observer_).fenced, 1);
  const std::string cut = dir_.path() + "/cut";
  storage_.CutInto(cut);
  ledger_.ExpectSurvivedIn(cut + "/test.db", true);
  Db copy(cut + "/test.db");
  ledger_.ExpectIn(copy);
  EXPECT_EQ(other_.Int("SELECT count(*) FROM t"), 5) << "its snapshot stays";
  other_.ExecOk("COMMIT");
  ExpectLedger();
  ExpectWorkGoesOn();
}

// Where it has taken nothing from the cache that it may not: ours, too, as it has been taken back.
TEST_F(FenceTest, ACacheIsUsedAgainOnceAllIsTakenBack) {
  const int failed = ledger_.Next();
  std::future<int> commit = ExecUntilSync(a_, Ledger::InsertOf(failed));
  b_.ExecOk("BEGIN IMMEDIATE; SELECT * FROM t");
  std::future<int> rollback = ExecAsync(b_, "ROLLBACK");
  ExpectToWait(rollback, observer_, 2);
  other_.ExecOk("BEGIN; SELECT x FROM u");
  FailHeldSync();
  EXPECT_EQ(ledger_.Note(failed, commit.get()), SQLITE_IOERR_FSYNC);
  rollback.get();
  EXPECT_EQ(Stats(observer_).fenced, 1);
  ledger_.ExpectIn(b_);
  other_.ExecOk("COMMIT");
  ExpectWorkGoesOn();
}

// What its snapshot did not include then says nothing of the next one.
TEST_F(FenceTest, OneThatHasReadMeanwhileWaitsForLaterCommits) {
  FailingInsert(a_, [&] { other_.ExecOk("BEGIN; SELECT x FROM u"); });
  ledger_.ExpectIn(b_);
  other_.ExecOk("COMMIT");
  EXPECT_EQ(Insert(c_), SQLITE_OK);
  EXPECT_EQ(Stats(observer_).fenced, 0);
  const int pending = ledger_.Next();
  std::future<int> commit = ExecUntilSync(a_, Ledger::InsertOf(pending));
  std::future<int> read = ExecAsync(b_, "SELECT * FROM t");
  ExpectToWait(read, observer_, 2);
  storage_.OpenGate();
  EXPECT_EQ(read.get(), SQLITE_OK);
  EXPECT_EQ(ledger_.Note(pending, commit.get()), SQLITE_OK);
  ExpectLedger();
}

// It ends with the last connection of this process, too, whatever the reader does.
TEST_F(FenceTest, ClosingWhileAnotherProcessReadsTheFailedCommit) {
  FailingInsert(a_, [&] { other_.ExecOk("BEGIN; SELECT x FROM u"); });
  EXPECT_EQ(Stats(observer_).fenced, 1);
  CloseAll();
  EXPECT_EQ(other_.Int("SELECT count(*) FROM t"), 4);
  other_.ExecOk("COMMIT");
  EXPECT_EQ(Insert(other_), SQLITE_OK);
  ledger_.ExpectIn(other_);
  OpenAll();
  ExpectLedger();
  ExpectWorkGoesOn();
}

// The one of ours closes through which writers are kept out. The others keep them out again, before
// they could change what the reader sees.
TEST_F(FenceTest, TheOneThatHoldsItClosesWhileAnotherProcessReadsTheFailedCommit) {
  FailingInsert(a_, [&] { other_.ExecOk("BEGIN; SELECT x FROM u"); });
  EXPECT_EQ(a_.Close(), SQLITE_OK);
  for (Db* db : {&b_, &c_}) EXPECT_EQ(Insert(*db), SQLITE_IOERR_FSYNC);
  EXPECT_EQ(other_.Int("SELECT count(*) FROM t"), 4) << "its snapshot stays";
  other_.ExecOk("COMMIT");
  a_ = Open();
  ExpectLedger();
  ExpectWorkGoesOn();
}

// It has got the write lock then, and commits on top of the header that was put back: where the
// failed frames were there are its own now, for ours to read.
TEST_F(FenceTest, WhatAnotherProcessCommitsWhereTheFailedCommitWasIsRead) {
  FailingInsert(a_, [&] { other_.ExecOk("BEGIN; SELECT x FROM u"); });
  EXPECT_EQ(a_.Close(), SQLITE_OK);
  other_.ExecOk("COMMIT; PRAGMA synchronous=FULL");
  for (int i = 0; i < 3; i++) EXPECT_EQ(Insert(other_), SQLITE_OK);
  other_.ExecOk("BEGIN IMMEDIATE");
  EXPECT_EQ(Stats(observer_).fenced, 1);
  for (Db* db : {&b_, &c_, &observer_}) ledger_.ExpectIn(*db);
  EXPECT_EQ(Insert(b_), SQLITE_IOERR_FSYNC);
  other_.ExecOk("COMMIT");
  a_ = Open();
  ExpectLedger();
  ExpectWorkGoesOn();
}

// What it writes there is not written again either: it may change meanwhile. (What was left is not
// whole: the connection that let it go could not write.)
TEST_F(FenceTest, WhatAnotherProcessWritesWhereTheFailedCommitWasIsLeftAlone) {
  FailingInsert(a_, [&] { other_.ExecOk("BEGIN; SELECT x FROM u"); });
  FailWritesToTheLog();
  EXPECT_EQ(a_.Close(), SQLITE_OK);
  storage_.SetFaultHook(nullptr);
  other_.ExecOk("COMMIT; PRAGMA cache_size=5");
  std::atomic<int64_t> end{0};
  std::atomic<bool> is_ours{false};
  std::atomic<int> again{0};
  std::atomic<int> beneath{0};
  storage_.SetObserver([&](const Call& call) {
    if (call.op != Op::kWrite || call.kind != FileKind::kWal) return;
    if (end == 0) end = call.offset;
    if (is_ours) ++(call.offset >= end ? again : beneath);
  });
  other_.ExecOk("BEGIN IMMEDIATE; INSERT INTO u VALUES(zeroblob(200000))");
  is_ours = true;
  EXPECT_EQ(Insert(b_), SQLITE_IOERR_FSYNC);
  storage_.SetObserver(nullptr);
  EXPECT_EQ(again, 0);
  EXPECT_GT(beneath, 0);
  other_.ExecOk("ROLLBACK");
  a_ = Open();
  ExpectLedger();
  ExpectWorkGoesOn();
}

// It recovers the log, and finds in it what failed, and could not be cut off. We do not read that.
TEST_F(FenceTest, WhatAnotherProcessFindsOfTheFailedCommitIsNotRead) {
  const int64_t rows = b_.Int("SELECT count(*) FROM t");
  FailingInsert(a_, [&] {
    other_.ExecOk("BEGIN; SELECT x FROM u");
    FailWritesToTheLog();
  });
  EXPECT_EQ(a_.Close(), SQLITE_OK);
  storage_.SetFaultHook(nullptr);
  other_.ExecOk("COMMIT");
  DamageWalIndex();
  other_.ExecOk("BEGIN IMMEDIATE");
  EXPECT_EQ(other_.Int("SELECT count(*) FROM t"), rows + 1);
  for (Db* db : {&b_, &c_, &observer_}) {
    EXPECT_EQ(db->Exec("SELECT count(*) FROM t"), SQLITE_IOERR_FSYNC);
  }
  other_.ExecOk("ROLLBACK");
}

// Or the last but one; and whoever writes next builds on no hole, though it is not of ours.
TEST_F(FenceTest, TheOneOfTwoThatHoldsItClosesWhileAnotherProcessReadsTheFailedCommit) {
  enum class Next : uint8_t { kOurs, kTheirs, kTheirsInANewLog };
  for (const Next next : {Next::kOurs, Next::kTheirs, Next::kTheirsInANewLog}) {
    b_.ExecOk("PRAGMA synchronous=NORMAL");
    EXPECT_EQ(Insert(b_, false), SQLITE_OK);
    b_.ExecOk("PRAGMA synchronous=FULL");
    const int64_t rows = b_.Int("SELECT count(*) FROM t");
    EXPECT_EQ(c_.Close(), SQLITE_OK);
    FailingInsert(a_, [&] { other_.ExecOk("BEGIN; SELECT x FROM u"); });
    EXPECT_EQ(observer_.Close(), SQLITE_OK);
    EXPECT_EQ(a_.Close(), SQLITE_OK);
    EXPECT_EQ(other_.Int("SELECT count(*) FROM t"), rows + 1) << "its snapshot stays";
    if (next == Next::kOurs) {
      EXPECT_EQ(Insert(b_), SQLITE_IOERR_FSYNC);
    }
    EXPECT_EQ(other_.Int("SELECT count(*) FROM t"), rows + 1) << "its snapshot stays";
    other_.ExecOk("COMMIT; PRAGMA synchronous=FULL");
    if (next == Next::kTheirsInANewLog) {
      EXPECT_EQ(other_.Int("PRAGMA wal_checkpoint(TRUNCATE)"), 0) << "busy";
    }
    if (next != Next::kOurs) {
      EXPECT_EQ(Insert(other_), SQLITE_OK);
    }
    const std::string cut = dir_.path() + "/cut";
    storage_.CutInto(cut);
    ledger_.ExpectSurvivedIn(cut + "/test.db", false);
    for (Db* db : {&a_, &c_, &observer_}) *db = Open();
    ExpectLedger();
    ExpectWorkGoesOn();
  }
}

// The header that was put back is that of the log before (wal.c: sqlite3WalFrames() draws new salts
// if Wal.nCkpt is 0). The log has not been started over since.
TEST_F(FenceTest, TheOneThatHoldsItClosesWhoseCommitWasTheFirstOfALog) {
  b_.ExecOk("PRAGMA wal_checkpoint(TRUNCATE)");
  const int failed = ledger_.Next();
  std::future<int> commit = ExecUntilSync(a_, Ledger::InsertOf(failed));
  EXPECT_EQ(storage_.ReleaseSyncs(1), 1) << "that of the log's header";
  ASSERT_TRUE(storage_.WaitForHeldSyncs(1));
  other_.ExecOk("BEGIN; SELECT x FROM u");
  FailHeldSync();
  EXPECT_EQ(ledger_.Note(failed, commit.get()), SQLITE_IOERR_FSYNC);
  EXPECT_EQ(a_.Close(), SQLITE_OK);
  for (Db* db : {&b_, &c_}) EXPECT_EQ(Insert(*db), SQLITE_IOERR_FSYNC);
  other_.ExecOk("COMMIT");
  a_ = Open();
  ExpectLedger();
  ExpectWorkGoesOn();
}

// Beneath what failed is a commit that was never synced. Another process builds on it, once the
// last connection of ours has closed.
TEST_F(FenceTest, ClosingLeavesNoHoleBeneathWhatFailed) {
  b_.ExecOk("PRAGMA synchronous=NORMAL");
  EXPECT_EQ(Insert(b_, false), SQLITE_OK);
  FailingInsert(a_, [&] { other_.ExecOk("BEGIN; SELECT x FROM u"); });
  EXPECT_EQ(Stats(observer_).fenced, 1);
  CloseAll();
  other_.ExecOk("COMMIT; PRAGMA synchronous=FULL");
  EXPECT_EQ(Insert(other_), SQLITE_OK);
  const std::string cut = dir_.path() + "/cut";
  storage_.CutInto(cut);
  ledger_.ExpectSurvivedIn(cut + "/test.db", false);
}

// Once the other process has gone, the last one to close copies all that is in the log, as ever.
TEST_F(FenceTest, TheLastOneToCloseLeavesNoLogBehind) {
  FailingInsert(a_, [&] {
    other_.ExecOk("PRAGMA synchronous=NORMAL");
    EXPECT_EQ(Insert(other_, false), SQLITE_OK);
  });
  EXPECT_EQ(Stats(observer_).fenced, 1);
  for (Db* db : {&other_, &observer_, &c_, &b_, &a_}) EXPECT_EQ(db->Close(), SQLITE_OK);
  EXPECT_FALSE(std::filesystem::exists(path() + "-wal"));
  EXPECT_EQ(Db(path(), "store").Int("SELECT count(*) FROM t"), 5);  // the failed one beneath
}

}  // namespace
}  // namespace groupcommit::testing
