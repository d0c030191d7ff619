// A sync of the log fails while another process makes a checkpoint: nothing that failed may get
// into the database file. Told once or to each handle, as in stranger_test.cc.
#include <sqlite3.h>

#include <atomic>
#include <future>
#include <string>
#include <thread>
#include <vector>

#include "support/stranger_fixture.h"

namespace groupcommit::testing {
namespace {

class StrangersCheckpointTest : public StrangerTest {
 protected:
  // All that are closed, or may be told of the failure as `told` may be, begin anew.
  void BeginAnew(Db& told) {
    for (int i = 0; i < 2; i++) told.Exec("INSERT INTO t VALUES('x')");
    for (Db* db : {&a_, &b_, &observer_}) *db = OpenWal();
    EXPECT_EQ(a_.Exec("INSERT INTO t VALUES('after')"), SQLITE_OK);
    observer_.Int("SELECT count(*) FROM t");
    stranger_ = OpenStranger();
  }

  // The write lock is kept through b_, and a snapshot through a_. One closes, then b_.
  void ExpectNothingIsLeftBehind(Db& first) {
    std::future<int> checkpoint = StartItsCheckpoint();
    FailNextSync([this] { b_.ExecOk("BEGIN IMMEDIATE"); });
    EXPECT_EQ(a_.Exec("INSERT INTO t VALUES('failed')"), SQLITE_IOERR_FSYNC);
    if (&first == &a_) a_.Close();
    b_.Exec("ROLLBACK");
    Db another = OpenStranger();
    EXPECT_EQ(another.Exec("BEGIN IMMEDIATE"), SQLITE_BUSY);
    b_.Close();
    EXPECT_EQ(Stats(observer_).fenced, 0);
    storage_.OpenGate();
    EXPECT_EQ(checkpoint.get(), SQLITE_OK);
    another.Exec("PRAGMA wal_checkpoint");  // is told, perhaps
    EXPECT_EQ(another.Int("PRAGMA wal_checkpoint(RESTART)"), 0) << "a lock is left behind";
  }
};

INSTANTIATE_TEST_SUITE_P(, StrangersCheckpointTest, ::testing::Values(false, true),
                         [](const auto& test) {
                           return std::string(test.param ? "EachTold" : "OneTold");
                         });

// Longer than we try; and nobody of ours comes by when it is over. One that closes keeps nothing.
TEST_P(StrangersCheckpointTest, ItsCheckpointOutlastsOurPatience) {
  std::future<int> checkpoint = StartItsCheckpoint();
  storage_.FailSyncs(FileKind::kWal, 1, 1);
  EXPECT_EQ(a_.Exec("INSERT INTO t VALUES('failed')"), SQLITE_IOERR_FSYNC);
  EXPECT_EQ(a_.Exec("SELECT * FROM t"), SQLITE_IOERR_FSYNC);
  b_.Close();
  ExpectItsNextCheckpointCopiesNothingThatFailed(checkpoint);
}

// The snapshot from before the failed commit keeps it out. SQLite comes back for the read lock: all
// others are in use.
TEST_P(StrangersCheckpointTest, TheSnapshotThatKeepsItsCheckpointOutIsTakenAgain) {
  std::future<int> checkpoint = StartItsCheckpoint();
  std::vector<Db> readers;
  for (int i = 0; i < 3; i++) {
    b_.ExecOk("INSERT INTO t VALUES('x')");
    readers.push_back(OpenStranger());
    readers.back().ExecOk("BEGIN; SELECT * FROM t");
  }
  b_.ExecOk("INSERT INTO t VALUES('x')");
  storage_.FailSyncs(FileKind::kWal, 1, 1);
  EXPECT_EQ(a_.Exec("INSERT INTO t VALUES('failed')"), SQLITE_IOERR_FSYNC);
  EXPECT_EQ(a_.Exec("SELECT * FROM t"), SQLITE_IOERR_FSYNC);
  for (Db& reader : readers) reader.ExecOk("COMMIT");
  ExpectItsNextCheckpointCopiesNothingThatFailed(checkpoint);
}

// It is kept, too, as the log is written again beneath a writer: that could not be done before.
TEST_P(StrangersCheckpointTest, TheSnapshotThatKeepsItsCheckpointOutIsStillThereAsTheLogIsWhole) {
  std::future<int> checkpoint = StartItsCheckpoint();
  Db writer = OpenStranger();
  storage_.SetFaultHook([&](const Call& call) {
    if (call.kind != FileKind::kWal) return SQLITE_OK;
    if (call.op == Op::kWrite) return has_failed_ ? SQLITE_IOERR : SQLITE_OK;
    if (call.op != Op::kSync || has_failed_.exchange(true)) return SQLITE_OK;
    writer.ExecOk("BEGIN IMMEDIATE");
    return SQLITE_IOERR_FSYNC;
  });
  EXPECT_EQ(a_.Exec("INSERT INTO t VALUES('failed')"), SQLITE_IOERR_FSYNC);
  storage_.SetFaultHook(nullptr);
  const int64_t writes = storage_.Counters(FileKind::kWal).writes;
  EXPECT_EQ(a_.Exec("SELECT * FROM t"), SQLITE_IOERR_FSYNC);
  EXPECT_GT(storage_.Counters(FileKind::kWal).writes, writes) << "it was not written again";
  writer.ExecOk("ROLLBACK");
  ExpectItsNextCheckpointCopiesNothingThatFailed(checkpoint);
}

// A snapshot that includes the failed commit does not keep it out, whether it ends before that of
// the commit itself or after it.
TEST_P(StrangersCheckpointTest, AnotherSnapshotDoesNotKeepItsCheckpointOut) {
  a_.ExecOk("CREATE TABLE u(x); INSERT INTO u VALUES(1)");
  for (const bool before : {true, false}) {
    b_ = OpenWal();
    b_.ExecOk("INSERT INTO t VALUES('x')");
    std::future<int> checkpoint = StartItsCheckpoint();
    has_failed_ = false;
    FailNextSync([this] { b_.ExecOk("BEGIN; SELECT x FROM u"); });
    std::future<int> commit = ExecAsync(a_, "INSERT INTO t VALUES('failed')");
    while (Stats(observer_).fenced == 0) std::this_thread::yield();
    if (before) b_.ExecOk("COMMIT");
    EXPECT_EQ(commit.get(), SQLITE_IOERR_FSYNC);
    if (!before) b_.ExecOk("COMMIT");
    ExpectItsNextCheckpointCopiesNothingThatFailed(checkpoint);
    a_ = OpenWal();
    observer_ = OpenWal();
    stranger_ = OpenStranger();
  }
}

// Where it ends, that snapshot is in nobody's way either.
TEST_P(StrangersCheckpointTest, ASnapshotOfWhatFailedIsLetGoOf) {
  a_.ExecOk("CREATE TABLE u(x); INSERT INTO u VALUES(1)");
  std::future<int> checkpoint = StartItsCheckpoint();
  FailNextSync([this] { b_.ExecOk("BEGIN; SELECT x FROM u"); });
  std::future<int> commit = ExecAsync(a_, "INSERT INTO t VALUES('failed')");
  while (Stats(observer_).fenced == 0) std::this_thread::yield();
  b_.ExecOk("COMMIT");
  storage_.OpenGate();
  EXPECT_EQ(checkpoint.get(), SQLITE_OK);
  EXPECT_EQ(commit.get(), SQLITE_IOERR_FSYNC);
  observer_.Exec("BEGIN IMMEDIATE; ROLLBACK");
  EXPECT_EQ(Stats(observer_).fenced, 0);
}

TEST_P(StrangersCheckpointTest, TheOneOfUsClosesThatKeepsTheWriteLock) {
  ExpectNothingIsLeftBehind(b_);
}
TEST_P(StrangersCheckpointTest, TheOneOfUsClosesThatKeepsASnapshot) {
  ExpectNothingIsLeftBehind(a_);
}

// The COMMIT has waited for long enough by then, but the checkpoint is over in a moment.
TEST_P(StrangersCheckpointTest, TheOneOfUsClosesThatHasWaitedForItsCheckpoint) {
  for (const bool is_last : {false, true}) {
    std::future<int> checkpoint = StartItsCheckpoint();
    storage_.FailSyncs(FileKind::kWal, 1, 1);
    EXPECT_EQ(a_.Exec("INSERT INTO t VALUES('failed')"), SQLITE_IOERR_FSYNC);
    std::atomic<int> asked{0};
    storage_.SetObserver([&](const Call& call) {
      // The checkpoint lock, again and again.
      if (call.op == Op::kShmLock && call.offset == 1) asked++;
    });
    if (is_last) {
      b_.Close();
      observer_.Close();
    }
    asked = 0;
    std::future<int> close = std::async(std::launch::async, [this] { return a_.Close(); });
    while (asked < 10 && !IsReady(close)) std::this_thread::yield();
    storage_.OpenGate();
    EXPECT_EQ(close.get(), SQLITE_OK);
    EXPECT_EQ(checkpoint.get(), SQLITE_OK);
    storage_.SetObserver(nullptr);
    Db another = OpenStranger();
    EXPECT_EQ(another.Int("SELECT count(*) FROM t WHERE x='failed'"), 0);
    EXPECT_EQ(AfterPowerCut("failed"), 0);
    BeginAnew(another);
  }
}

// A FULL one has the write lock, too: all that keeps it out is a snapshot of the one that closes.
TEST_P(StrangersCheckpointTest, TheOneOfUsClosesThatItsFullCheckpointWaitsFor) {
  if (SqliteWaitsInside())
    GTEST_SKIP() << "with a mutex held that we need: os_unix.c, unixShmLock()";
  for (const bool is_last : {false, true}) {
    std::atomic<bool> waits{true};
    std::atomic<int> asked{0};
    struct Handler {
      std::atomic<bool>& waits;
      std::atomic<int>& asked;
    } handler{waits, asked};
    sqlite3_busy_handler(
        stranger_.get(),
        [](void* h, int) {
          std::this_thread::sleep_for(std::chrono::milliseconds(1));
          static_cast<Handler*>(h)->asked++;
          return static_cast<int>(static_cast<Handler*>(h)->waits);
        },
        &handler);
    std::future<int> checkpoint;
    FailACommit([&] {
      checkpoint = ExecAsync(stranger_, "PRAGMA wal_checkpoint(FULL)");
      while (asked < 3) std::this_thread::yield();
    });
    if (is_last) {
      b_.Close();
      observer_.Close();
    }
    std::future<int> close = std::async(std::launch::async, [this] { return a_.Close(); });
    const auto ask = [&](int times) {
      const int before = asked;
      while (asked < before + times && !IsReady(checkpoint)) std::this_thread::yield();
    };
    for (int i = 0; i < 10 && !IsReady(close); i++) ask(1);
    if (IsReady(close)) ask(2);
    EXPECT_FALSE(IsReady(checkpoint)) << "nothing keeps it out any more";
    waits = false;
    checkpoint.get();
    EXPECT_EQ(close.get(), SQLITE_OK);
    sqlite3_busy_handler(stranger_.get(), nullptr, nullptr);
    if (!is_last) observer_.Exec("BEGIN IMMEDIATE; ROLLBACK");  // somebody of ours comes by
    EXPECT_EQ(stranger_.Int("SELECT count(*) FROM t WHERE x='failed'"), 0);
    EXPECT_EQ(AfterPowerCut("failed"), 0);
    BeginAnew(stranger_);
  }
}

// It waits for longer than the one that closes. What failed may be in the database file then; so
// it stays, and the others of ours go on.
TEST_P(StrangersCheckpointTest, TheOneOfUsClosesBeforeItsFullCheckpointEnds) {
  if (SqliteWaitsInside())
    GTEST_SKIP() << "with a mutex held that we need: os_unix.c, unixShmLock()";
  stranger_.SetBusyTimeout(600'000);
  std::atomic<int> asked{0};
  std::future<int> checkpoint;
  FailACommit([&] {
    storage_.SetObserver([&](const Call& call) {
      asked += call.op == Op::kShmLock && call.offset > 3 &&
               call.flags == (SQLITE_SHM_LOCK | SQLITE_SHM_EXCLUSIVE);
    });
    checkpoint = ExecAsync(stranger_, "PRAGMA wal_checkpoint(FULL)");
    while (asked < 3) std::this_thread::yield();
    storage_.SetObserver(nullptr);
  });
  a_.Close();
  checkpoint.get();  // is told, perhaps
  b_.Exec("SELECT * FROM t");
  EXPECT_EQ(b_.Exec("INSERT INTO t VALUES('after')"), SQLITE_OK);
  EXPECT_EQ(Stats(observer_).fenced, 0);
  EXPECT_EQ(b_.Text("PRAGMA integrity_check"), "ok");
  EXPECT_EQ(AfterPowerCut("after"), 1);
}

// The power goes while the next one copies.
TEST_P(StrangersCheckpointTest, ItsNextCheckpointCopiesNothingThatFailed) {
  FillBig();
  Db another = OpenStranger();
  storage_.HoldSyncs(FileKind::kMainDb);
  std::future<int> checkpoint = ExecAsync(stranger_, "PRAGMA wal_checkpoint(PASSIVE)");
  ASSERT_TRUE(storage_.WaitForHeldSyncs(1));
  storage_.FailSyncs(FileKind::kWal, 1, 1);
  EXPECT_EQ(a_.Exec(InsertIntoBig(2'001)), SQLITE_IOERR_FSYNC);
  storage_.OpenGate();
  EXPECT_EQ(checkpoint.get(), SQLITE_OK);
  CutDuringACheckpoint(another);
}

// A FULL one waits for the snapshot of the commit that fails, for longer than we try.
TEST_P(StrangersCheckpointTest, ItsFullCheckpointWaitsForTheCommitThatFails) {
  if (SqliteWaitsInside())
    GTEST_SKIP() << "with a mutex held that we need: os_unix.c, unixShmLock()";
  stranger_.SetBusyTimeout(kLongMillis);
  FailACommitUnderFullCheckpoint(stranger_);
}

// The same of a connection of ours, which asks for no sync that could be refused.
TEST_P(StrangersCheckpointTest, OurCheckpointWithoutSyncsWaitsForTheCommitThatFails) {
  b_.SetBusyTimeout(kLongMillis);
  b_.ExecOk("PRAGMA synchronous=OFF");
  FailACommitUnderFullCheckpoint(b_);
  EXPECT_EQ(a_.Exec("INSERT INTO t VALUES('after')"), SQLITE_OK);
  CloseOurs();
  EXPECT_EQ(stranger_.Int("SELECT count(*) FROM t WHERE x='failed'"), 0);
}

// ---- Nobody waited for what is lost ----

// A schema change fails before it is published: nothing is to be taken back, and the log is written
// again at once. What has failed is in it all the same, and must not become durable.
TEST_P(StrangersCheckpointTest, WhatHasFailedUnpublishedIsCutOff) {
  Db watch = OpenStranger();
  std::future<int> checkpoint = StartItsCheckpoint();
  storage_.FailSyncs(FileKind::kWal, 1, 1);
  EXPECT_EQ(a_.Exec("CREATE TABLE failed(x)"), SQLITE_IOERR_FSYNC);
  EXPECT_EQ(Stats(observer_).fenced, 0);
  const std::string cut = dir_.path() + "/cut";
  storage_.CutInto(cut, CutMode::kDropUnsynced, 0);
  EXPECT_EQ(Db(cut + "/test.db").Int("SELECT count(*) FROM sqlite_schema WHERE name='failed'"), 0);
  storage_.OpenGate();
  EXPECT_EQ(checkpoint.get(), SQLITE_OK);
  for (int i = 0; i < 2; i++) watch.Exec("INSERT INTO t VALUES('x')");  // one may be told
  EXPECT_EQ(watch.Int("SELECT count(*) FROM sqlite_schema WHERE name='failed'"), 0);
}

class StrangersCheckpointAfterAFlushTest : public StrangerTest {
 protected:
  void SetUp() override {
    StrangerTest::SetUp();
    FillBig();
    b_.ExecOk("PRAGMA synchronous=NORMAL");
  }
};

INSTANTIATE_TEST_SUITE_P(, StrangersCheckpointAfterAFlushTest, ::testing::Values(false, true),
                         [](const auto& test) {
                           return std::string(test.param ? "EachTold" : "OneTold");
                         });

// It has the write lock, so that its checkpoint cannot be kept out for long.
TEST_P(StrangersCheckpointAfterAFlushTest, CopiesNothingThatIsLost) {
  b_.ExecOk(InsertIntoBig(2'001));
  stranger_.ExecOk("BEGIN IMMEDIATE");
  storage_.FailSyncs(FileKind::kWal, 1, 1);
  EXPECT_EQ(a_.Exec("PRAGMA groupcommit_flush"), SQLITE_IOERR_FSYNC);
  Db another = OpenStranger();
  CutDuringACheckpoint(another);
  stranger_.Exec("ROLLBACK");
}

// Nor if they lie beneath a commit that fails, and the checkpoint has begun, and not been told.
TEST_P(StrangersCheckpointAfterAFlushTest, CopiesNothingThatIsLostBeneathACommit) {
  b_.ExecOk(InsertIntoBig(2'001));
  std::future<int> commit = ExecUntilSync(a_, "INSERT INTO t VALUES('failed')");
  std::future<int> checkpoint = ExecAsync(stranger_, "PRAGMA wal_checkpoint(PASSIVE)");
  ASSERT_TRUE(storage_.WaitForHeldSyncs(2));
  storage_.StopHolding();
  storage_.HoldSyncs(FileKind::kMainDb);
  EXPECT_EQ(storage_.ReleaseSyncs(1, SQLITE_IOERR_FSYNC), 1);
  EXPECT_EQ(commit.get(), SQLITE_IOERR_FSYNC);
  EXPECT_EQ(storage_.ReleaseSyncs(1), 1);
  while (storage_.HeldSyncs() == 0 && !IsReady(checkpoint)) std::this_thread::yield();
  for (uint64_t seed = 1; seed <= 10; seed++) AfterPowerCut("x", CutMode::kKeepRandom, seed);
  storage_.OpenGate();
  checkpoint.get();
  observer_.Exec("BEGIN IMMEDIATE; ROLLBACK");  // somebody of ours comes by
  EXPECT_EQ(Stats(observer_).fenced, 0);
  EXPECT_EQ(b_.Int("SELECT count(*) FROM t WHERE x='failed'"), 0);
}

// Nor does one that begins while the log is written again.
TEST_P(StrangersCheckpointAfterAFlushTest, WaitsUntilTheLogIsWhole) {
  b_.ExecOk(InsertIntoBig(2'001));
  Db another = OpenStranger();
  stranger_.ExecOk("BEGIN IMMEDIATE");
  const auto copied = [this] { return storage_.Counters(FileKind::kMainDb).writes; };
  const int64_t before = copied();
  EXPECT_TRUE(FailAFlush(1, [&] {
    another.Exec("PRAGMA wal_checkpoint(PASSIVE)");
    EXPECT_EQ(copied(), before);
  }));
  stranger_.Exec("ROLLBACK");
  another.Exec("PRAGMA wal_checkpoint");  // is told, perhaps
  EXPECT_EQ(another.Int("PRAGMA wal_checkpoint(RESTART)"), 0) << "a lock is left behind";
}

// It was a sync of the flusher's: whoever of ours comes by closes the hole, whatever he wants.
TEST_P(StrangersCheckpointAfterAFlushTest, TheFlusherHasFailed) {
  b_.ExecOk("PRAGMA groupcommit_policy='interval(max_delay_us=1000)'");
  stranger_.ExecOk("BEGIN");
  storage_.FailSyncs(FileKind::kWal, 1, 1);
  storage_.HoldSyncs(FileKind::kWal);
  b_.ExecOk(InsertIntoBig(2'001));
  ASSERT_TRUE(storage_.WaitForHeldSyncs(1));
  stranger_.ExecOk("COMMIT; BEGIN IMMEDIATE");
  storage_.OpenGate();
  while (Stats(observer_).background_errors == 0) std::this_thread::yield();
  EXPECT_EQ(Stats(observer_).fenced, 1);
  observer_.Exec("SELECT count(*) FROM t");
  Db another = OpenStranger();
  CutDuringACheckpoint(another);
  stranger_.ExecOk("ROLLBACK");
}

// And if its checkpoint is under way by then, that one does not have to end first.
TEST_P(StrangersCheckpointAfterAFlushTest, TheFlusherHasFailedAndItIsUnderWay) {
  b_.ExecOk("PRAGMA groupcommit_policy='interval(max_delay_us=1000)'");
  storage_.FailSyncs(FileKind::kWal, 1, 1);
  b_.ExecOk(InsertIntoBig(2'001));
  while (Stats(observer_).background_errors == 0) std::this_thread::yield();
  Db another = OpenStranger();
  storage_.HoldSyncs(FileKind::kMainDb);
  std::future<int> checkpoint = ExecAsync(another, "PRAGMA wal_checkpoint(PASSIVE)");
  ASSERT_TRUE(storage_.WaitForHeldSyncs(1));
  observer_.Exec("SELECT count(*) FROM t");
  for (uint64_t seed = 1; seed <= 10; seed++) AfterPowerCut("x", CutMode::kKeepRandom, seed);
  storage_.OpenGate();
  EXPECT_EQ(checkpoint.get(), SQLITE_OK);
  EXPECT_EQ(Stats(observer_).fenced, 0);
  EXPECT_GT(Insert(), 0) << "it is kept out for as long as nobody else of ours comes by";
}

}  // namespace
}  // namespace groupcommit::testing
