// While a checkpoint holds writers up: nobody is given SQLITE_BUSY for it, and whatever goes wrong
// the gate opens again.
#include <sqlite3.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <future>
#include <utility>

#include "support/checkpoint_fixture.h"

namespace groupcommit::testing {
namespace {

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

// It waits for its turn, and it would be in vain again for as long as that transaction is open.
TEST_F(CheckpointTest, AfterAnOpenTransactionItIsDueLater) {
  Db db = OpenOne();
  Db other = OpenOne();
  MakeCheckpointDue(db);
  EXPECT_TRUE(IsDue(db));
  other.ExecOk("BEGIN IMMEDIATE");
  EXPECT_EQ(db.Int("PRAGMA wal_checkpoint"), 0);
  EXPECT_FALSE(IsDue(db));
  other.ExecOk("COMMIT");
  ExpectNobodyIsCounted(db);
}

// Both may have to wait for a processor. (What else they do takes some time, too.)
TEST_F(CheckpointTest, ItAwaitsThoseWhoAreAboutToGiveUpTheirSnapshot) {
  Db db = OpenOne();
  MakeCheckpointDue(db);
  CheckpointGate& gate = GateOf(db);
  gate.leaving()++;
  gate.log_readers()++;
  auto from = std::chrono::steady_clock::now();
  const auto passed = [&from] {
    const auto begin = std::exchange(from, std::chrono::steady_clock::now());
    return (from - begin) / std::chrono::nanoseconds(1);
  };
  std::future<int> checkpoint = StartCheckpoint(db);
  EXPECT_GE(passed(), CheckpointGate::kLeavingNanos);
  gate.leaving()--;
  storage_.OpenGate();
  EXPECT_EQ(checkpoint.get(), SQLITE_OK);
  EXPECT_GE(passed(), CheckpointGate::kReadersNanos);
  gate.log_readers()--;
  ExpectNobodyIsCounted(db);
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
