// Processes that restart the log under each other. None of them sees another one write the log's
// header, only its own next frames at a lower offset than before: whoever measures durability in
// bytes takes them for synced already, and acknowledges commits at once.
//
// So every sync is made to take its time, and no commit may take less. That is a lower bound, which
// holds on any machine.
#include <atomic>
#include <chrono>
#include <ostream>
#include <thread>

#include "support/processes.h"
#include "support/shim_test.h"

namespace groupcommit::testing {
namespace {

constexpr std::chrono::milliseconds kSyncTime(3);
constexpr int kMaxProcesses = 3;

struct Mode {
  int with_shim;
  int without;
  int threads;  // of a process with the shim
  const char* policy;
  const char* checkpoint;
};

// Found by GoogleTest.
void PrintTo(const Mode& mode, std::ostream* out) {
  *out << mode.with_shim << " processes with the shim, " << mode.without << " without, "
       << mode.threads << " threads, " << mode.policy << ", " << mode.checkpoint;
}

struct Board {
  std::atomic<int> ready{0};
  std::atomic<int> restarts[kMaxProcesses]{};  // new log headers and truncations, by whose they are
};

class WalRestartTest : public ShimTest, public ::testing::WithParamInterface<Mode> {
 protected:
  WalRestartTest() { storage_.SetSyncDelay(kSyncTime); }

  int processes() const { return GetParam().with_shim + GetParam().without; }

  void Write(const char* vfs, int writer) {
    Db db;
    ASSERT_EQ(db.Open(path(), vfs), SQLITE_OK);
    TryLocksEachMillisecond(db);
    db.ExecOk("PRAGMA synchronous=FULL; PRAGMA wal_autocheckpoint=3");
    for (int n = 1; n <= kCommits; n++) {
      db.ExecOk("BEGIN IMMEDIATE; INSERT INTO t VALUES(" + std::to_string(writer) + "," +
                std::to_string(n) + ",zeroblob(" + std::to_string(n * 997 % 20'000) + "))");
      const auto begin = std::chrono::steady_clock::now();
      db.ExecOk("COMMIT");
      const auto took = std::chrono::steady_clock::now() - begin;
      EXPECT_GE(took, kSyncTime) << "writer " << writer << ", commit " << n << " of " << kCommits;
      if (n % 4 == 0) db.ExecOk(GetParam().checkpoint);
      // Leaves room for the others, so that they all work at the same time.
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  }

  // A child process. They begin together.
  void Run(int process) {
    storage_.SetObserver([this, process](const Call& call) {
      if (call.kind != FileKind::kWal || call.offset != 0) return;
      if (call.op == Op::kWrite || call.op == Op::kTruncate) board_->restarts[process]++;
    });
    board_->ready++;
    while (board_->ready < processes()) std::this_thread::yield();
    const bool with_shim = process < GetParam().with_shim;
    std::vector<std::thread> threads;
    for (int i = 0; i < (with_shim ? GetParam().threads : 1); i++) {
      threads.emplace_back([=, this] { Write(with_shim ? "gc" : "store", 10 * process + i); });
    }
    for (std::thread& thread : threads) thread.join();
  }

  static constexpr int kCommits = 40;  // of each writer
  Shared<Board> board_;
};

TEST_P(WalRestartTest, NoCommitIsFasterThanASync) {
  {
    Db make(path(), "unix");
    make.ExecOk("PRAGMA journal_mode=WAL; CREATE TABLE t(writer, n, filler)");
  }
  if (std::string(GetParam().policy) != "auto") {
    ASSERT_EQ(groupcommit_unregister("gc"), SQLITE_OK);
    groupcommit_policy policy;
    ASSERT_EQ(groupcommit_policy_parse(GetParam().policy, &policy, nullptr), SQLITE_OK);
    ASSERT_EQ(groupcommit_register("gc", "store", 0, &policy), SQLITE_OK);
  }
  std::vector<pid_t> children;
  for (int process = 0; process < processes(); process++) {
    children.push_back(StartChild([this, process] { Run(process); }));
  }
  for (const pid_t child : children) ExpectSuccess(child);

  int restarts = 0;
  for (const std::atomic<int>& of_one : board_->restarts) restarts += of_one;
  int under_the_shim = 0;  // under a process with the shim, by another one
  for (int i = 0; i < GetParam().with_shim; i++) under_the_shim += restarts - board_->restarts[i];
  EXPECT_GT(under_the_shim, 0) << "of " << restarts << " restarts";

  ExpectIntact(path());
  Db db(path(), "unix");
  const int writers = GetParam().with_shim * GetParam().threads + GetParam().without;
  EXPECT_EQ(db.Int("SELECT count(*) FROM t"), writers * kCommits);
  EXPECT_EQ(db.Int("SELECT count(*) FROM (SELECT DISTINCT writer, n FROM t)"), writers * kCommits);
}

constexpr char kAuto[] = "auto";
constexpr char kGroup[] = "group(max_wait_us=500,max_batch=4)";
constexpr char kRestart[] = "PRAGMA wal_checkpoint(RESTART)";
constexpr char kTruncate[] = "PRAGMA wal_checkpoint(TRUNCATE)";

INSTANTIATE_TEST_SUITE_P(
    , WalRestartTest,
    ::testing::Values(Mode{2, 0, 1, kAuto, kRestart}, Mode{2, 0, 2, kGroup, kTruncate},
                      Mode{3, 0, 1, kAuto, kTruncate}, Mode{3, 0, 2, kAuto, kRestart},
                      Mode{2, 1, 1, kGroup, kRestart}, Mode{2, 1, 2, kAuto, kTruncate},
                      Mode{1, 1, 1, kAuto, kTruncate}));

}  // namespace
}  // namespace groupcommit::testing
