// Checkpoints that hold writers up, through SQLite: the log stays short, and each mode ends as it
// does with stock SQLite. (While they do: closed_gate_test.cc.)
#include <sqlite3.h>

#include <atomic>
#include <chrono>
#include <future>
#include <string>
#include <thread>
#include <vector>

#include "support/checkpoint_fixture.h"
#include "support/scale.h"

namespace groupcommit::testing {
namespace {

// ---- The length of the log ----

class LogLengthTest : public CheckpointTest, public ::testing::WithParamInterface<int> {};

TEST_P(LogLengthTest, StaysBounded) {
  // Mostly it is below 3 times that many. On a busy machine checkpoints give up, and the next one
  // comes later: then it may be longer for once. (Without holding anybody up it is 60 times and
  // more, each time.)
  constexpr int kMost = 20 * kAutocheckpoint;
  constexpr int kAttempts = 10;
  Db db = OpenOne();
  storage_.SetSyncDelay(std::chrono::microseconds(100));  // so that commits wait for durability
  int64_t frames = kMost + 1;
  for (int i = 0; i < kAttempts && frames > kMost; i++) {
    db.ExecOk("PRAGMA wal_checkpoint(TRUNCATE)");
    Write(GetParam(), Scaled(3'000));
    frames = LogFrames();
  }
  EXPECT_LE(frames, kMost);
  RecordProperty("frames", static_cast<int>(frames));
  ExpectNobodyIsCounted(db);
}

INSTANTIATE_TEST_SUITE_P(, LogLengthTest, ::testing::Values(1, 2, 8, 32));

// Nothing can be done about a long-running reader, and nobody is held up for it again and again.
TEST_F(CheckpointTest, ALongRunningReader) {
  constexpr int kWriters = 4;
  const int commits = Scaled(2'000);
  Db db = OpenOne();
  Db reader = OpenOne();
  reader.ExecOk("INSERT INTO t VALUES(1); BEGIN; SELECT * FROM t");
  CountGates(db);
  storage_.SetSyncDelay(std::chrono::microseconds(100));  // so that none of them is alone
  Write(kWriters, commits);
  storage_.SetObserver(nullptr);
  EXPECT_EQ(GateOf(db).log_readers(), 1);
  EXPECT_LT(checkpoints_, commits / 2) << "most are skipped";
  // One each time that the log is longer by so much, as a rule. But each of the others may have
  // been advised to hold writers up, too, and had no processor until the first one was through.
  EXPECT_LE(gates_, kWriters * (LogFrames() / kAutocheckpoint + 2));
  const int64_t frames = FramesInUse(db);
  EXPECT_GT(frames, commits);
  reader.ExecOk("COMMIT");
  db.ExecOk("INSERT INTO t VALUES(1); INSERT INTO t VALUES(1)");
  EXPECT_LT(FramesInUse(db), kAutocheckpoint) << "the log starts over";
  ExpectNobodyIsCounted(db);
}

// It holds nobody up who waits for the writers under way.
TEST_F(CheckpointTest, AWriterThatGoesOnReading) {
  Db db = OpenOne();
  Db other = OpenOne();
  sqlite3_stmt* select = nullptr;
  ASSERT_EQ(sqlite3_prepare_v2(db.get(), "SELECT 1 FROM t", -1, &select, nullptr), SQLITE_OK);
  for (int i = 0; i < 2; i++) {
    db.ExecOk("INSERT INTO t VALUES(1)");
    EXPECT_EQ(sqlite3_step(select), SQLITE_ROW);
    EXPECT_EQ(GateOf(db).leaving(), 0);
    db.ExecOk("BEGIN; INSERT INTO t VALUES(1)");
    EXPECT_EQ(GateOf(db).writers(), 1);
    EXPECT_EQ(GateOf(db).leaving(), 0);
    db.ExecOk("COMMIT; INSERT INTO t VALUES(1)");
    EXPECT_EQ(GateOf(db).writers(), 0);
    EXPECT_EQ(GateOf(db).leaving(), 1);
    sqlite3_reset(select);
    ExpectNobodyIsCounted(db);
  }
  sqlite3_finalize(select);
}

// Nor does one that has written nothing, as it was rolled back or its snapshot is old: no COMMIT
// tells that it is through.
TEST_F(CheckpointTest, AWriterThatGoesOnReadingAfterWritingNothing) {
  Db db = OpenOne();
  Db other = OpenOne();
  sqlite3_stmt* select = nullptr;
  ASSERT_EQ(sqlite3_prepare_v2(db.get(), "SELECT 1 FROM t", -1, &select, nullptr), SQLITE_OK);
  EXPECT_EQ(sqlite3_step(select), SQLITE_ROW);
  db.ExecOk("BEGIN; INSERT INTO t VALUES(1); ROLLBACK");
  EXPECT_EQ(GateOf(db).writers(), 0);
  EXPECT_EQ(GateOf(db).leaving(), 1);
  sqlite3_finalize(select);
  ExpectNobodyIsCounted(db);

  db.ExecOk("BEGIN; SELECT * FROM t");
  other.ExecOk("INSERT INTO t VALUES(1)");
  EXPECT_EQ(db.Exec("INSERT INTO t VALUES(1)"), SQLITE_BUSY_SNAPSHOT);
  EXPECT_EQ(GateOf(db).writers(), 0);
  EXPECT_EQ(GateOf(db).leaving(), 1);
  db.ExecOk("COMMIT");
  ExpectNobodyIsCounted(db);
}

// ---- Nobody gets SQLITE_BUSY for it ----

// What its hook returns is what the INSERT returns, though it has committed.
TEST_F(CheckpointTest, AWalHookOfTheApplication) {
  Db db = OpenOne();
  Db reader = OpenOne();
  reader.ExecOk("INSERT INTO t VALUES(1); BEGIN; SELECT * FROM t");
  const auto hook = [](void* calls, sqlite3* handle, const char* schema, int) {
    ++*static_cast<int*>(calls);
    return sqlite3_wal_checkpoint_v2(handle, schema, SQLITE_CHECKPOINT_PASSIVE, nullptr, nullptr);
  };
  int calls = 0;
  db.ExecOk("INSERT INTO t VALUES(0)");
  sqlite3_wal_hook(db.get(), hook, &calls);
  GateOf(db).writers()++;  // others write, too
  for (int i = 0; i < 3; i++) EXPECT_EQ(db.Exec("INSERT INTO t VALUES(1)"), SQLITE_OK);
  GateOf(db).writers()--;
  EXPECT_EQ(calls, 3);
}

// A checkpoint that somebody asks for is no automatic one, however soon it follows upon a commit.
TEST_F(CheckpointTest, APragmaRightAfterACommit) {
  Db db = OpenOne();
  Db reader = OpenOne();
  Db others[] = {OpenOne(), OpenOne()};
  reader.ExecOk("INSERT INTO t VALUES(1); BEGIN; SELECT * FROM t");
  for (Db& other : others) {  // so that it is not one alone that makes checkpoints
    other.ExecOk("PRAGMA wal_autocheckpoint=3; INSERT INTO t VALUES(1); INSERT INTO t VALUES(1)");
  }
  db.ExecOk("PRAGMA wal_autocheckpoint=0");
  GateOf(reader).writers()++;
  db.ExecOk("INSERT INTO t VALUES(1)");
  EXPECT_EQ(db.Int("PRAGMA wal_checkpoint"), 0);
  GateOf(reader).writers()--;
}

// Only main is told of the PRAGMA, and tells the others.
TEST_F(CheckpointTest, OnePragmaForAllDatabases) {
  const auto make_another = [this] {
    Db db(path("another.db"), "gc");
    db.ExecOk("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; CREATE TABLE IF NOT EXISTS t(x)");
    return db;
  };
  Db reader = make_another();
  Db others[] = {make_another(), make_another()};
  Db db = OpenWithTable();
  db.ExecOk("ATTACH '" + path("another.db") + "' AS another; PRAGMA another.synchronous=FULL");
  for (int i = 0; i < 20; i++) reader.ExecOk("INSERT INTO t VALUES(1)");  // none is due soon
  reader.ExecOk("BEGIN; SELECT * FROM t");
  for (Db& other : others) {  // so that it is not one alone that makes checkpoints
    other.ExecOk("PRAGMA wal_autocheckpoint=3; INSERT INTO t VALUES(1); INSERT INTO t VALUES(1)");
  }
  db.ExecOk("PRAGMA wal_autocheckpoint=0; INSERT INTO another.t VALUES(1)");
  GateOf(reader).writers()++;
  EXPECT_EQ(db.Int("PRAGMA wal_checkpoint"), 0);
  GateOf(reader).writers()--;
}

// Where that is skipped, the commit is no longer the last thing. (Unless it takes long to come.)
TEST_F(CheckpointTest, OneByHandAfterAnAutomaticOne) {
  Db db = OpenOne();
  Db other = OpenOne();
  for (int i = 0; i < 20; i++) db.ExecOk("INSERT INTO t VALUES(1)");  // none is due soon
  Db reader = OpenOne();
  reader.ExecOk("BEGIN; SELECT * FROM t");
  for (Db* one : {&db, &other}) one->ExecOk("PRAGMA wal_autocheckpoint=1");
  const std::string insert = "INSERT INTO t VALUES(1)";
  for (Db* one : {&other, &db}) one->ExecOk(insert);
  GateOf(db).writers()++;  // others write, too
  for (int i = 0; i < 10; i++) {
    db.ExecOk(insert);
    const int mode = SQLITE_CHECKPOINT_PASSIVE;
    EXPECT_EQ(sqlite3_wal_checkpoint_v2(db.get(), nullptr, mode, nullptr, nullptr), SQLITE_OK);
  }
  GateOf(db).writers()--;
}

// ---- All four modes ----

class ModeTest : public CheckpointTest, public ::testing::WithParamInterface<int> {
 protected:
  struct Result {
    int rc;
    int frames = -1;
    int copied = -1;
  };
  static Result Checkpoint(Db& db) {
    Result result;
    result.rc =
        sqlite3_wal_checkpoint_v2(db.get(), nullptr, GetParam(), &result.frames, &result.copied);
    return result;
  }
};

TEST_P(ModeTest, UnderLoadItEndsAsItDoesWhenAllIsQuiet) {
  const int rounds = Scaled(30);
  Db db = OpenOne();
  std::atomic<bool> stop{false};
  std::vector<std::thread> writers;
  for (int i = 0; i < 4; i++) {
    writers.emplace_back([&] {
      Db own = OpenOne();
      while (!stop) own.ExecOk("INSERT INTO t VALUES(1)");
    });
  }
  for (int i = 0; i < rounds; i++) {
    db.ExecOk("INSERT INTO t VALUES(1)");
    const Result result = Checkpoint(db);
    // SQLite does not call the busy handler for another checkpoint.
    EXPECT_TRUE(result.rc == SQLITE_OK || result.rc == SQLITE_BUSY) << result.rc;
    if (result.rc == SQLITE_OK && GetParam() != SQLITE_CHECKPOINT_PASSIVE) {
      EXPECT_EQ(result.frames, result.copied);
    }
  }
  stop = true;
  for (std::thread& thread : writers) thread.join();
  const Result quiet = Checkpoint(db);
  EXPECT_EQ(quiet.rc, SQLITE_OK);
  EXPECT_EQ(quiet.frames, quiet.copied);
  ExpectNobodyIsCounted(db);
}

TEST_P(ModeTest, ACheckpointGetsThroughItsOwnGate) {
  Db db = OpenOne();
  Db other = OpenOne();
  for (int i = 0; i < 3; i++) {
    db.ExecOk("INSERT INTO t VALUES(1)");
    CountGates(db);
    const Result result = Checkpoint(db);
    storage_.SetObserver(nullptr);
    EXPECT_EQ(result.rc, SQLITE_OK);
    EXPECT_EQ(result.frames, result.copied);
    EXPECT_FALSE(QueueOf(db).IsKeptForLong());
    other.ExecOk("INSERT INTO t VALUES(1)");
  }
}

TEST_P(ModeTest, AFailedSyncOpensTheGate) {
  Db db = OpenOne();
  Db other = OpenOne();
  Db patient = OpenOne();
  other.SetBusyTimeout(0);
  for (const FileKind kind : {FileKind::kWal, FileKind::kMainDb}) {
    db.ExecOk("INSERT INTO t VALUES(1)");
    storage_.FailSyncs(kind, 1, 1);
    EXPECT_EQ(Checkpoint(db).rc, SQLITE_IOERR_FSYNC);
    EXPECT_FALSE(QueueOf(patient).IsKeptForLong());
    EXPECT_EQ(other.Exec("INSERT INTO t VALUES(1)"), SQLITE_OK);
    EXPECT_EQ(patient.Exec("INSERT INTO t VALUES(1)"), SQLITE_OK);
    EXPECT_EQ(Checkpoint(db).rc, SQLITE_OK);
    ExpectNobodyIsCounted(db);
  }
}

// Writers that wait at the gate while the checkpoint fails.
TEST_P(ModeTest, AFailedSyncStrandsNobody) {
  Db db = OpenOne();
  Db others[] = {OpenOne(), OpenOne(), OpenOne()};
  for (const FileKind kind : {FileKind::kWal, FileKind::kMainDb}) {
    db.ExecOk("INSERT INTO t VALUES(1)");
    storage_.HoldSyncs(kind);
    std::future<int> checkpoint = std::async(std::launch::async, [&] { return Checkpoint(db).rc; });
    ASSERT_TRUE(storage_.WaitForHeldSyncs(1));
    std::vector<std::future<int>> commits;
    for (Db& other : others) commits.push_back(ExecAsync(other, "INSERT INTO t VALUES(1)"));
    FailHeldSync();
    EXPECT_EQ(checkpoint.get(), SQLITE_IOERR_FSYNC);
    for (std::future<int>& commit : commits) {
      const int rc = commit.get();
      EXPECT_TRUE(rc == SQLITE_OK || rc == SQLITE_IOERR_FSYNC) << rc;
    }
    EXPECT_EQ(others[0].Exec("INSERT INTO t VALUES(1)"), SQLITE_OK);
    EXPECT_EQ(Checkpoint(db).rc, SQLITE_OK);
    ExpectNobodyIsCounted(db);
    EXPECT_EQ(RowsAfterPowerCut(), db.Int("SELECT count(*) FROM t"));
  }
}

INSTANTIATE_TEST_SUITE_P(, ModeTest,
                         ::testing::Values(SQLITE_CHECKPOINT_PASSIVE, SQLITE_CHECKPOINT_FULL,
                                           SQLITE_CHECKPOINT_RESTART, SQLITE_CHECKPOINT_TRUNCATE));

}  // namespace
}  // namespace groupcommit::testing
