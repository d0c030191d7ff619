// SIGSTOP of a process that waits for its commit to become durable: it leads a sync, or it waits
// for company, and in neither case it holds the write lock. Others commit on top, with the shim and
// without, and checkpoints do what they can. After SIGCONT it goes on as if nothing had been.
#include <atomic>
#include <thread>

#include "support/processes.h"
#include "support/shim_test.h"

namespace groupcommit::testing {
namespace {

struct Board {
  std::atomic<bool> waiting{false};  // the child is where it is to be stopped
  std::atomic<bool> go_on{false};
};

class StopTest : public ShimTest {
 protected:
  static constexpr int kChildCommits = 10;

  void SetUp() override {
    if (SqliteWaitsInside()) GTEST_SKIP() << "3.40's unix VFS holds a mutex while it waits";
    Db(path(), "unix").ExecOk("PRAGMA journal_mode=WAL; CREATE TABLE t(writer, n)");
    storage_.ForgetClosedFiles();
  }

  static std::string InsertOf(const std::string& writer, int n) {
    return "INSERT INTO t VALUES('" + writer + "'," + std::to_string(n) + ")";
  }

  // In the child.
  void TellAndAwaitTheOthers() {
    board_->waiting = true;
    while (!board_->go_on) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }

  // Everybody else, while the child stands still and after.
  void ExpectOthersToGoOn(pid_t child) {
    while (!board_->waiting && IsRunning(child)) std::this_thread::yield();
    Stop(child);
    constexpr int kCommits = 50;
    {
      std::vector<Db> dbs;
      for (const char* vfs : {"gc", "gc", "unix"}) {
        dbs.emplace_back(path(), vfs);
        dbs.back().ExecOk("PRAGMA synchronous=FULL; PRAGMA wal_autocheckpoint=5");
      }
      std::vector<std::thread> threads;
      for (size_t i = 0; i < dbs.size(); i++) {
        threads.emplace_back([&, i] {
          for (int n = 1; n <= kCommits && !HasFailure(); n++)
            dbs[i].ExecOk(InsertOf(std::to_string(i), n));
        });
      }
      for (std::thread& thread : threads) thread.join();
      EXPECT_EQ(dbs[0].Int("SELECT count(*) FROM t WHERE writer<>'child'"), 3 * kCommits);
      for (const char* vfs : {"gc", "store"}) ExpectCheckpointsToEnd(vfs);
      for (Db& db : dbs) db.ExecOk(InsertOf("after the checkpoints", 1));
    }
    board_->go_on = true;
    Continue(child);
    ExpectSuccess(child);

    Db db(path(), "gc");
    EXPECT_EQ(db.Int("PRAGMA wal_checkpoint(TRUNCATE)"), 0);
    EXPECT_EQ(db.Int("SELECT count(*) FROM t"), 3 * kCommits + 3 + kChildCommits);
    EXPECT_EQ(db.Int("SELECT count(DISTINCT n) FROM t WHERE writer='child'"), kChildCommits);
    ASSERT_EQ(db.Close(), SQLITE_OK);
    ExpectIntact(path());
  }

  // The child keeps its snapshot, so that the log cannot restart. Those that would have to wait for
  // it sleep no longer than they may.
  void ExpectCheckpointsToEnd(const char* vfs) {
    constexpr int kTimeoutMs = 50;
    Db db(path(), vfs);
    db.SetBusyTimeout(kTimeoutMs);
    std::atomic<int64_t> slept_us{0};
    storage_.SetObserver([&slept_us](const Call& call) {
      if (call.op == Op::kSleep) slept_us += call.amount;
    });
    EXPECT_EQ(db.Int("PRAGMA wal_checkpoint(PASSIVE)"), 0) << vfs;
    EXPECT_EQ(slept_us, 0) << vfs;
    for (const char* mode : {"FULL", "RESTART", "TRUNCATE"}) {
      SCOPED_TRACE(std::string(vfs) + " " + mode);
      slept_us = 0;
      const int64_t busy = db.Int("PRAGMA wal_checkpoint(" + std::string(mode) + ")");
      EXPECT_EQ(busy, 1);
      EXPECT_LE(slept_us, kTimeoutMs * 1000);
    }
    storage_.SetObserver(nullptr);
  }

  Shared<Board> board_;
};

TEST_F(StopTest, AProcessThatLeadsASync) {
  const pid_t child = StartChild([this] {
    Db leader = OpenWal();
    Db follower = OpenWal();
    Db observer = OpenWal();
    leader.ExecOk(InsertOf("child", 1));  // a new log's first sync is done under the write lock
    std::future<int> first = ExecUntilSync(leader, InsertOf("child", 2));
    std::future<int> second = ExecAsync(follower, InsertOf("child", 3));
    ExpectToWait(second, observer, 2);
    EXPECT_EQ(storage_.HeldSyncs(), 1);
    TellAndAwaitTheOthers();
    storage_.OpenGate();
    EXPECT_EQ(first.get(), SQLITE_OK);
    EXPECT_EQ(second.get(), SQLITE_OK);
    for (int n = 4; n <= kChildCommits; n++) leader.ExecOk(InsertOf("child", n));
  });
  ExpectOthersToGoOn(child);
}

TEST_F(StopTest, AProcessThatWaitsForCompany) {
  const pid_t child = StartChild([this] {
    Db leader = OpenWal();
    Db observer = OpenWal();
    leader.ExecOk(InsertOf("child", 1));
    observer.Text("PRAGMA groupcommit_policy='group(max_wait_us=10000000,max_batch=1000)'");
    const int64_t syncs = WalSyncs();
    std::future<int> second = ExecAsync(leader, InsertOf("child", 2));
    ExpectToWait(second, observer, 1);
    EXPECT_EQ(WalSyncs(), syncs);
    TellAndAwaitTheOthers();
    observer.Text("PRAGMA groupcommit_policy='auto'");  // ends the wait
    EXPECT_EQ(second.get(), SQLITE_OK);
    for (int n = 3; n <= kChildCommits; n++) leader.ExecOk(InsertOf("child", n));
  });
  ExpectOthersToGoOn(child);
}

}  // namespace
}  // namespace groupcommit::testing
