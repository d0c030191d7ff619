// A sync of the log fails while another process makes a checkpoint: nothing that failed may get
// into the database file. Told once or to each handle, as in stranger_test.cc.
#include <sqlite3.h>

#include <future>
#include <string>
#include <thread>
#include <vector>

#include "support/stranger_fixture.h"

namespace groupcommit::testing {
namespace {

class StrangersCheckpointTest : public StrangerTest {
 protected:
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

}  // namespace
}  // namespace groupcommit::testing
