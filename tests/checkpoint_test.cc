// Checkpoints that hold writers up, through SQLite: the log stays short, nobody is given
// SQLITE_BUSY for it, and whatever goes wrong the gate opens again.
#include <sqlite3.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <future>
#include <thread>
#include <vector>

#include "support/queue_of.h"
#include "support/scale.h"
#include "support/shim_test.h"

namespace groupcommit::testing {
namespace {

constexpr int kAutocheckpoint = 50;

class CheckpointTest : public ShimTest {
 protected:
  Db OpenOne() {
    Db db = OpenWithTable();
    db.SetBusyTimeout(120'000);
    db.ExecOk("PRAGMA wal_autocheckpoint=" + std::to_string(kAutocheckpoint));
    return db;
  }

  // `n` threads with a connection each make `commits` commits together.
  void Write(int n, int commits) {
    std::atomic<int> left{commits};
    std::vector<std::thread> threads;
    for (int i = 0; i < n; i++) {
      threads.emplace_back([&] {
        Db own = OpenOne();
        while (left.fetch_sub(1) > 0) own.ExecOk("INSERT INTO t VALUES(1)");
      });
    }
    for (std::thread& thread : threads) thread.join();
  }

  int64_t LogFrames() const {
    return (static_cast<int64_t>(std::filesystem::file_size(path() + "-wal")) - 32) / (4096 + 24);
  }

  // Frames of the log that are in use. Copies what can be copied.
  static int64_t FramesInUse(Db& db) {
    int frames = -1;
    sqlite3_wal_checkpoint_v2(db.get(), nullptr, SQLITE_CHECKPOINT_PASSIVE, &frames, nullptr);
    return frames;
  }

  static void ExpectNobodyIsCounted(const Db& db) {
    EXPECT_EQ(GateOf(db).writers(), 0);
    EXPECT_EQ(GateOf(db).leaving(), 0);
    EXPECT_EQ(GateOf(db).log_readers(), 0);
    EXPECT_EQ(QueueOf(db).waiting(), 0);
    EXPECT_FALSE(QueueOf(db).IsKeptForLong());
  }

  // Counts checkpoints, and those that held writers up.
  void CountGates(const Db& db) {
    storage_.SetObserver([this, &queue = QueueOf(db)](const Call& call) {
      if (call.op != Op::kShmLock || call.offset != 1 || call.amount != 1) return;
      if (call.flags != (SQLITE_SHM_UNLOCK | SQLITE_SHM_EXCLUSIVE)) return;
      checkpoints_++;
      if (queue.IsKeptForLong()) gates_++;
    });
  }

  // A checkpoint that has closed the gate, and stays in the middle until its sync is let go. (The
  // gate opens after some time all the same.)
  std::future<int> StartCheckpoint(Db& db) {
    const WriteQueue& queue = QueueOf(db);
    storage_.HoldSyncs(FileKind::kMainDb);
    std::future<int> result = ExecAsync(db, "PRAGMA wal_checkpoint");
    EXPECT_TRUE(storage_.WaitForHeldSyncs(1));
    EXPECT_TRUE(queue.IsKeptForLong()) << "it holds nobody back";
    return result;
  }

  // Makes the log so long that the next checkpoint holds writers back.
  void MakeCheckpointDue(Db& db) {
    Db reader = OpenOne();
    reader.ExecOk("BEGIN; SELECT * FROM t");  // and this one does not get through
    db.ExecOk("PRAGMA wal_autocheckpoint=1; INSERT INTO t VALUES(1); PRAGMA wal_autocheckpoint=0");
    reader.ExecOk("COMMIT");
    for (int i = 0; i < 20; i++) db.ExecOk("INSERT INTO t VALUES(1)");
  }

  std::atomic<int64_t> checkpoints_{0};
  std::atomic<int64_t> gates_{0};
};

// ---- The length of the log ----

class LogLengthTest : public CheckpointTest, public ::testing::WithParamInterface<int> {};

TEST_P(LogLengthTest, StaysBounded) {
  Db db = OpenOne();
  storage_.SetSyncDelay(std::chrono::microseconds(100));  // so that commits wait for durability
  Write(GetParam(), Scaled(3'000));
  // Mostly below 3 times that many; on a busy machine checkpoints give up, and the next one comes
  // later. (Without holding anybody up it is 60 times and more.)
  EXPECT_LE(LogFrames(), 20 * kAutocheckpoint);
  RecordProperty("frames", static_cast<int>(LogFrames()));
  ExpectNobodyIsCounted(db);
}

INSTANTIATE_TEST_SUITE_P(, LogLengthTest, ::testing::Values(1, 2, 8, 32));

// Nothing can be done about a long-running reader, and nobody is held up for it again and again.
TEST_F(CheckpointTest, ALongRunningReader) {
  const int commits = Scaled(2'000);
  Db db = OpenOne();
  Db reader = OpenOne();
  reader.ExecOk("INSERT INTO t VALUES(1); BEGIN; SELECT * FROM t");
  CountGates(db);
  storage_.SetSyncDelay(std::chrono::microseconds(100));  // so that none of them is alone
  Write(4, commits);
  storage_.SetObserver(nullptr);
  EXPECT_EQ(GateOf(db).log_readers(), 1);
  EXPECT_LT(checkpoints_, commits / 2) << "most are skipped";
  EXPECT_LE(gates_, LogFrames() / kAutocheckpoint + 2);
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

// Only main is told of the PRAGMA.
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
  reader.ExecOk("INSERT INTO t VALUES(1); BEGIN; SELECT * FROM t");
  for (Db& other : others) {  // so that it is not one alone that makes checkpoints
    other.ExecOk("PRAGMA wal_autocheckpoint=3; INSERT INTO t VALUES(1); INSERT INTO t VALUES(1)");
  }
  db.ExecOk("PRAGMA wal_autocheckpoint=0; INSERT INTO another.t VALUES(1)");
  GateOf(reader).writers()++;
  std::this_thread::sleep_for(
      std::chrono::milliseconds(2));  // its commit is no longer the last thing
  EXPECT_EQ(db.Int("PRAGMA wal_checkpoint"), 0);
  GateOf(reader).writers()--;
}

class ClosedGateTest : public CheckpointTest {
 protected:
  void SetUp() override {
    checkpointer_ = OpenOne();
    other_ = OpenOne();
    MakeCheckpointDue(checkpointer_);
  }
  void TearDown() override {
    storage_.OpenGate();
    EXPECT_EQ(checkpoint_.get(), SQLITE_OK);
    EXPECT_EQ(other_.Exec("INSERT INTO t VALUES(1)"), SQLITE_OK);
    ExpectNobodyIsCounted(other_);
  }

  Db checkpointer_;
  Db other_;
  std::future<int> checkpoint_;
};

// It waits for those under way, but not for ever, and then not with the gate closed.
TEST_F(CheckpointTest, AWriterThatTakesTooLong) {
  Db checkpointer = OpenOne();
  Db other = OpenOne();
  MakeCheckpointDue(checkpointer);
  GateOf(other).writers()++;
  storage_.HoldSyncs(FileKind::kMainDb);
  std::future<int> checkpoint = ExecAsync(checkpointer, "PRAGMA wal_checkpoint");
  EXPECT_TRUE(storage_.WaitForHeldSyncs(1));
  EXPECT_FALSE(QueueOf(other).IsKeptForLong());
  EXPECT_FALSE(QueueOf(other).IsKept());
  storage_.OpenGate();
  EXPECT_EQ(checkpoint.get(), SQLITE_OK);
  GateOf(other).writers()--;
  ExpectNobodyIsCounted(other);
}

TEST_F(ClosedGateTest, ABusyTimeoutThatIsLongEnough) {
  checkpoint_ = StartCheckpoint(checkpointer_);
  EXPECT_EQ(other_.Exec("INSERT INTO t VALUES(1)"), SQLITE_OK);
}

TEST_F(ClosedGateTest, WithoutABusyHandler) {
  other_.SetBusyTimeout(0);
  checkpoint_ = StartCheckpoint(checkpointer_);
  for (const char* sql :
       {"INSERT INTO t VALUES(1)", "BEGIN IMMEDIATE; INSERT INTO t VALUES(1); COMMIT",
        "BEGIN; INSERT INTO t VALUES(1); COMMIT", "CREATE TABLE u(x)"}) {
    EXPECT_EQ(other_.Exec(sql), SQLITE_OK) << sql;
  }
}

TEST_F(ClosedGateTest, ABusyHandlerThatSaysNo) {
  std::atomic<int> calls{0};
  sqlite3_busy_handler(
      other_.get(),
      [](void* n, int) { return static_cast<std::atomic<int>*>(n)->fetch_add(1) * 0; }, &calls);
  checkpoint_ = StartCheckpoint(checkpointer_);
  EXPECT_EQ(other_.Exec("INSERT INTO t VALUES(1)"), SQLITE_OK);
  EXPECT_LE(calls, 1);
  other_.SetBusyTimeout(10'000);
}

TEST_F(ClosedGateTest, AReadTransactionThatBecomesAWriter) {
  other_.ExecOk("BEGIN; SELECT * FROM t");
  checkpoint_ = StartCheckpoint(checkpointer_);
  EXPECT_EQ(other_.Exec("INSERT INTO t VALUES(1); COMMIT"), SQLITE_OK);
}

TEST_F(ClosedGateTest, ReadersGoOn) {
  checkpoint_ = StartCheckpoint(checkpointer_);
  EXPECT_EQ(other_.Int("SELECT count(*) FROM t WHERE x='none'"), 0);
}

// A handler that gives up after a while, as every timeout does.
class PatienceTest : public ClosedGateTest, public ::testing::WithParamInterface<int> {};

TEST_P(PatienceTest, ABusyHandlerThatGivesUp) {
  int calls_left = GetParam();
  sqlite3_busy_handler(
      other_.get(),
      [](void* left, int) { return static_cast<int>(--*static_cast<int*>(left) >= 0); },
      &calls_left);
  checkpoint_ = StartCheckpoint(checkpointer_);
  EXPECT_EQ(other_.Exec("INSERT INTO t VALUES(1)"), SQLITE_OK);
  other_.SetBusyTimeout(10'000);
}

TEST_P(PatienceTest, AShortBusyTimeout) {
  other_.SetBusyTimeout(GetParam());
  checkpoint_ = StartCheckpoint(checkpointer_);
  EXPECT_EQ(other_.Exec("INSERT INTO t VALUES(1)"), SQLITE_OK);
  other_.SetBusyTimeout(10'000);
}

// (A timeout of 1 ms is over before SQLite has slept in line.)
INSTANTIATE_TEST_SUITE_P(, PatienceTest, ::testing::Values(2, 3, 4, 5, 8, 20));

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

// ---- fork() ----

// The child inherits a gate that nobody there will open. (The file itself it cannot use: for SQLite
// the locks of the parent's threads are still held there.)
TEST_F(ClosedGateTest, AForkMeanwhile) {
  checkpoint_ = StartCheckpoint(checkpointer_);
  std::fflush(nullptr);
  const pid_t child = fork();
  if (child == 0) {
    alarm(60);
    storage_.OpenGate();
    int failures = 0;
    {
      Db own;
      failures += own.Open(path("childs.db"), "gc") != SQLITE_OK;
      for (const char* sql : {"PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; CREATE TABLE t(x)",
                              "INSERT INTO t VALUES(1)", "BEGIN IMMEDIATE; COMMIT"}) {
        failures += own.Exec(sql) != SQLITE_OK;
      }
    }
    _exit(failures);
  }
  ASSERT_GT(child, 0);
  int status = -1;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
}

}  // namespace
}  // namespace groupcommit::testing
