// A sync that fails while SQLite has just been told that the frames of another commit are written.
// Where nothing of the storage is called, SQLite's mutexes tell the test what it does.
#include <sqlite3.h>

#include <atomic>
#include <functional>
#include <string>
#include <thread>
#include <utility>

#include "support/shim_test.h"

namespace groupcommit::testing {
namespace {

sqlite3_mutex_methods real_methods;

// Called once, when the thread enters a mutex next.
thread_local std::function<void()> at_next_mutex;

void Enter(sqlite3_mutex* mutex) {
  if (at_next_mutex) std::exchange(at_next_mutex, nullptr)();
  real_methods.xMutexEnter(mutex);
}

class Environment : public ::testing::Environment {
 public:
  // Before anything uses SQLite, which chooses its mutexes when it is initialized.
  void SetUp() override {
    ASSERT_EQ(sqlite3_initialize(), SQLITE_OK);
    ASSERT_EQ(sqlite3_shutdown(), SQLITE_OK);
    ASSERT_EQ(sqlite3_config(SQLITE_CONFIG_GETMUTEX, &real_methods), SQLITE_OK);
    sqlite3_mutex_methods methods = real_methods;
    methods.xMutexEnter = Enter;
    ASSERT_EQ(sqlite3_config(SQLITE_CONFIG_MUTEX, &methods), SQLITE_OK);
  }
};
::testing::Environment* const environment = ::testing::AddGlobalTestEnvironment(new Environment);

using LateFailureTest = ShimTest;

// The commit on top is looked at (sqlite3_txn_state()), and not numbered yet: it is not among those
// that the failure takes away, but lies on top of them.
TEST_F(LateFailureTest, WhileACommitIsBeingNumbered) {
  Db beneath = OpenWithTable();
  Db on_top = OpenWithTable();
  Db observer = OpenWal();
  std::future<int> failing = ExecUntilSync(beneath, "INSERT INTO t VALUES('beneath')");
  on_top.ExecOk("BEGIN IMMEDIATE; INSERT INTO t VALUES('on top')");
  std::atomic<bool> armed{false};
  std::atomic<bool> failed{false};
  storage_.SetObserver([&](const Call& call) {
    if (call.op != Op::kWrite || call.kind != FileKind::kWal || armed.exchange(true)) return;
    at_next_mutex = [&] {
      FailHeldSync();
      while (Stats(observer).fenced == 0) std::this_thread::yield();
      failed = true;
    };
  });
  std::future<int> commit = ExecAsync(on_top, "COMMIT");
  while (!failed && Stats(observer).waiting < 2) std::this_thread::yield();
  EXPECT_TRUE(failed);
  storage_.OpenGate();
  EXPECT_EQ(commit.get(), SQLITE_IOERR_FSYNC);
  storage_.SetObserver(nullptr);
  on_top.Exec("ROLLBACK");
  EXPECT_EQ(failing.get(), SQLITE_IOERR_FSYNC);
  EXPECT_EQ(on_top.Int("SELECT count(*) FROM t"), 2);
  on_top.ExecOk("INSERT INTO t VALUES('after')");
  EXPECT_EQ(RowsAfterPowerCut(), 3);
}

}  // namespace
}  // namespace groupcommit::testing
