// groupcommit_extra_init(), as SQLite calls it when it was compiled with
// -DSQLITE_EXTRA_INIT=groupcommit_extra_init. The SQLite at hand was not, so this program's own
// sqlite3_initialize() does around SQLite's what main.c does inside it: the first call that
// initializes SQLite calls the function, after the mutex is released and with SQLite marked as
// initialized. (With an SQLite that really is compiled so: examples/, GROUPCOMMIT_AMALGAMATION.)
#include <dlfcn.h>

#include <atomic>
#include <cstdlib>
#include <functional>
#include <utility>

#include "support/log_capture.h"
#include "support/shim_test.h"

namespace {

std::atomic<bool> enabled{false};
std::atomic<bool> initialized{false};
std::atomic<int> extra_inits{0};
// What another thread does while one is about to register the VFS.
std::function<void()> meanwhile;

using Function = int (*)();
Function Real(const char* name) { return reinterpret_cast<Function>(dlsym(RTLD_NEXT, name)); }

}  // namespace

extern "C" int sqlite3_initialize() {
  static const Function real = Real("sqlite3_initialize");
  static thread_local int depth = 0;  // while it initializes, SQLite calls it again
  depth++;
  const int rc = real();
  depth--;
  if (rc != SQLITE_OK || depth > 0 || !enabled || initialized.exchange(true)) return rc;
  extra_inits++;
  return groupcommit_extra_init(nullptr);
}

extern "C" int sqlite3_shutdown() {
  static const Function real = Real("sqlite3_shutdown");
  const int rc = real();
  initialized = false;
  return rc;
}

extern "C" int sqlite3_auto_extension(void (*entry_point)()) {
  static const auto real =
      reinterpret_cast<int (*)(void (*)())>(dlsym(RTLD_NEXT, "sqlite3_auto_extension"));
  const int rc = real(entry_point);
  if (const auto act = std::exchange(meanwhile, nullptr)) act();
  return rc;
}

namespace groupcommit::testing {
namespace {

constexpr char kPolicyVariable[] = "GROUPCOMMIT_POLICY";

class ExtraInitTest : public ::testing::Test {
 protected:
  void SetUp() override {
    LogCapture::Take();
    unsetenv(kPolicyVariable);
    Restart();
    extra_inits = 0;
    sqlite3_vfs_find(nullptr);
    if (extra_inits == 0) GTEST_SKIP() << "this SQLite does not call functions of the program";
    Forget();
  }
  void TearDown() override {
    Forget();
    enabled = false;
    unsetenv(kPolicyVariable);
  }

  // SQLite is not initialized any more.
  static void Restart() {
    enabled = true;
    ASSERT_EQ(sqlite3_shutdown(), SQLITE_OK);
  }
  // As in a new process.
  static void Forget() {
    groupcommit_unregister(nullptr);
    Restart();
    extra_inits = 0;
  }

  TempDir dir_;
};

TEST_F(ExtraInitTest, AProgramThatKnowsNothingOfItCommitsThroughIt) {
  Db db(dir_.File("a.db"));
  EXPECT_EQ(extra_inits, 1);
  EXPECT_EQ(db.Text("PRAGMA groupcommit_policy"), "auto");
  EXPECT_EQ(db.Text("PRAGMA journal_mode=WAL"), "wal");
  db.ExecOk("PRAGMA synchronous=FULL; CREATE TABLE t(x); INSERT INTO t VALUES(1)");
  EXPECT_EQ(db.Int("SELECT deferred FROM groupcommit_stats"), 1);
  EXPECT_EQ(Db(":memory:").Int("SELECT count(*) FROM groupcommit_stats"), 1);
  EXPECT_EQ(extra_inits, 1);
}

TEST_F(ExtraInitTest, AgainAfterAShutdown) {
  for (int i = 1; i <= 3; i++) {
    Db db(dir_.File("a.db"));
    EXPECT_EQ(extra_inits, i);
    EXPECT_EQ(sqlite3_vfs_find(nullptr), sqlite3_vfs_find("groupcommit"));
    EXPECT_EQ(db.Int("SELECT count(*) FROM groupcommit_stats"), 1);
    EXPECT_EQ(db.Close(), SQLITE_OK);
    Restart();
  }
}

TEST_F(ExtraInitTest, ThePolicyOfTheEnvironment) {
  setenv(kPolicyVariable, "group(max_batch=3)", 1);
  EXPECT_EQ(Db(dir_.File("a.db")).Text("PRAGMA groupcommit_policy"),
            "group(max_wait_us=1000,max_batch=3)");
}

TEST_F(ExtraInitTest, ABadPolicyInTheEnvironment) {
  setenv(kPolicyVariable, "sometimes", 1);
  EXPECT_EQ(sqlite3_initialize(), SQLITE_ERROR);
  const LogEntry log = LogCapture::Take();
  EXPECT_EQ(log.code, SQLITE_ERROR);
  EXPECT_NE(log.message.find("GROUPCOMMIT_POLICY: "), std::string::npos) << log.message;
  // From then on, as without it.
  EXPECT_EQ(sqlite3_vfs_find("groupcommit"), nullptr);
  Db db(dir_.File("a.db"));
  EXPECT_EQ(db.Exec("SELECT * FROM groupcommit_stats"), SQLITE_ERROR);
  db.ExecOk("CREATE TABLE t(x)");
}

// Each of our functions may be the one that initializes SQLite, and so calls another one of ours.
TEST_F(ExtraInitTest, FromWithinOurOwnFunctions) {
  EXPECT_EQ(groupcommit_register("other", nullptr, 0, nullptr), SQLITE_OK);
  EXPECT_EQ(groupcommit_unregister(nullptr), SQLITE_OK);
  Restart();
  EXPECT_EQ(groupcommit_unregister("other"), SQLITE_OK);
  EXPECT_EQ(extra_inits, 2);
  EXPECT_NE(sqlite3_vfs_find("groupcommit"), nullptr);
  EXPECT_EQ(sqlite3_vfs_find("other"), nullptr);
  // And it says that the VFS is there already.
  EXPECT_EQ(groupcommit_register(nullptr, nullptr, 0, nullptr), SQLITE_ERROR);
}

// The extension is loaded by several threads at once, say, each into a connection of its own.
TEST_F(ExtraInitTest, AnotherThreadIsFaster) {
  enabled = false;
  int other_rc = -1;
  meanwhile = [&other_rc] { other_rc = groupcommit_extra_init(nullptr); };
  EXPECT_EQ(groupcommit_extra_init(nullptr), SQLITE_OK);
  EXPECT_EQ(other_rc, SQLITE_OK);
  EXPECT_EQ(sqlite3_vfs_find(nullptr), sqlite3_vfs_find("groupcommit"));
  EXPECT_EQ(Db(":memory:").Exec("SELECT * FROM groupcommit_stats"), SQLITE_OK);
}

}  // namespace
}  // namespace groupcommit::testing
