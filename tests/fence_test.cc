// The fence: where failed commits cannot be taken back, nobody may write until the log is whole.
#include <sqlite3.h>

#include <atomic>
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
    sqlite3_file* file = nullptr;
    ASSERT_EQ(sqlite3_file_control(other_.get(), "main", SQLITE_FCNTL_FILE_POINTER, &file),
              SQLITE_OK);
    other_.Int("SELECT count(*) FROM t");
    void volatile* map = nullptr;
    ASSERT_EQ(file->pMethods->xShmMap(file, 0, 32768, 0, &map), SQLITE_OK);
    auto* words = static_cast<volatile uint32_t*>(map);
    words[kBackfill] = all ? words[kLastFrame] : 0;
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
  EXPECT_NE(log.message.find(path()), std::string::npos) << log.message;
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
  EXPECT_NE(LogCapture::Take().message.find("until a transaction has ended"), std::string::npos);
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
