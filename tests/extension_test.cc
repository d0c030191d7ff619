// groupcommit.so as others load it: in the sqlite3 shell, a process that knows nothing of the
// library, and by sqlite3_load_extension().
#include <cstdlib>
#include <filesystem>

#include "support/sanitizers.h"
#include "support/shim_test.h"

namespace groupcommit::testing {
namespace {

constexpr char kPolicyVariable[] = "GROUPCOMMIT_POLICY";

class ExtensionTest : public ::testing::Test {
 protected:
  void SetUp() override {
#if defined(GROUPCOMMIT_TEST_ADDRESS_SANITIZER) || defined(GROUPCOMMIT_TEST_THREAD_SANITIZER)
    GTEST_SKIP() << "the shell cannot load a library that was built with a sanitizer";
#endif
    // This program is BUILD/tests/extension_test.
    std::error_code error;
    const auto program = std::filesystem::read_symlink("/proc/self/exe", error);
    extension_ = program.parent_path().parent_path() / "groupcommit.so";
    if (!std::filesystem::exists(extension_)) GTEST_SKIP() << extension_ << " is not there";
    unsetenv(kPolicyVariable);
  }
  void TearDown() override { unsetenv(kPolicyVariable); }

  // A line for the shell that loads the extension. (Quoted, as below: there may be a space in it.)
  std::string Load(const char* entry_point = "") const {
    return ".load '" + extension_.string() + "' " + entry_point + "\n";
  }
  std::string LoadAsDefault() const { return Load("sqlite3_groupcommit_default_init"); }

  static std::string InShell(const std::string& script, int* status = nullptr) {
    return StockShell(":memory:", script, status);
  }

  std::string OpenWithVfs(const std::string& parameters = "", const char* file = "a.db") const {
    return ".open 'file:" + dir_.File(file) + "?vfs=groupcommit" + parameters + "'\n";
  }
  std::string OpenPlain() const { return ".open '" + dir_.File("plain.db") + "'\n"; }

  std::filesystem::path extension_;
  TempDir dir_;
};

class ExtensionInShellTest : public ExtensionTest {
 protected:
  void SetUp() override {
    ExtensionTest::SetUp();
    if (!HaveStockShell()) GTEST_SKIP() << "the sqlite3 shell is not installed";
  }
};

TEST_F(ExtensionInShellTest, RegistersTheVfsAndNotAsTheDefault) {
  EXPECT_EQ(InShell(Load() + OpenWithVfs() + ".vfsname\n" + OpenPlain() + ".vfsname\n"),
            "groupcommit/unix\nunix\n");
}

TEST_F(ExtensionInShellTest, TheOtherEntryPointMakesItTheDefault) {
  EXPECT_EQ(InShell(LoadAsDefault() + OpenPlain() + ".vfsname\nPRAGMA groupcommit_policy;\n" +
                    ".open 'file:" + dir_.File("b.db") + "?vfs=unix'\n.vfsname\n"),
            "groupcommit/unix\nauto\nunix\n");
}

TEST_F(ExtensionInShellTest, LoadedSeveralTimes) {
  EXPECT_EQ(InShell(Load() + Load() + OpenPlain() + ".vfsname\n" + LoadAsDefault() + Load() +
                    OpenPlain() + ".vfsname\n" + LoadAsDefault() + OpenWithVfs() + ".vfsname\n"),
            "unix\ngroupcommit/unix\ngroupcommit/unix\n");
}

TEST_F(ExtensionInShellTest, CommitsThroughIt) {
  int status = -1;
  EXPECT_EQ(InShell(Load() + OpenWithVfs() +
                        "PRAGMA journal_mode=WAL;\nPRAGMA synchronous=FULL;\n"
                        "CREATE TABLE t(x);\nINSERT INTO t VALUES(1);\nINSERT INTO t VALUES(2);\n"
                        "SELECT deferred, pending FROM groupcommit_stats;\n"
                        "PRAGMA integrity_check;\n",
                    &status),
            "wal\n2|0\nok\n");
  EXPECT_EQ(status, 0);
  EXPECT_EQ(StockShell(dir_.File("a.db"), "SELECT sum(x) FROM t;"), "3\n");
}

TEST_F(ExtensionInShellTest, TheTableIsThereInEveryLaterConnection) {
  EXPECT_EQ(InShell(Load() + "SELECT count(*) FROM groupcommit_stats;\n" + OpenPlain() +
                    "SELECT count(*) FROM groupcommit_stats;\n" + OpenWithVfs() +
                    "PRAGMA journal_mode=WAL;\nCREATE TABLE t(x);\nINSERT INTO t VALUES(1);\n"
                    "SELECT path, policy, connections, deferred FROM groupcommit_stats;\n"),
            "0\n0\nwal\n" + dir_.File("a.db") + "|auto|1|1\n");
}

TEST_F(ExtensionInShellTest, ThePolicyOfTheEnvironment) {
  setenv(kPolicyVariable, " GROUP( max_wait_us=5, max_batch=2 ) ", 1);
  EXPECT_EQ(InShell(Load() + OpenWithVfs() + "PRAGMA groupcommit_policy;\n" +
                    OpenWithVfs("&flush_policy=on_each_flush", "b.db") +
                    "PRAGMA groupcommit_policy;\nPRAGMA groupcommit_policy=auto;\n"),
            "group(max_wait_us=5,max_batch=2)\non_each_flush\nauto\n");
  setenv(kPolicyVariable, "on_each_flush", 1);
  EXPECT_EQ(InShell(LoadAsDefault() + OpenPlain() + "PRAGMA groupcommit_policy;\n"),
            "on_each_flush\n");
  setenv(kPolicyVariable, "", 1);  // as if there was none
  EXPECT_EQ(InShell(LoadAsDefault() + OpenPlain() + "PRAGMA groupcommit_policy;\n"), "auto\n");
}

TEST_F(ExtensionInShellTest, ABadPolicyInTheEnvironment) {
  for (const char* bad : {"sometimes", "group(max_batch=-1)", "auto(1)", "7"}) {
    setenv(kPolicyVariable, bad, 1);
    const std::string output = InShell(Load() + LoadAsDefault() + OpenPlain() + ".vfsname\n");
    EXPECT_NE(output.find(kPolicyVariable), std::string::npos) << output;
    EXPECT_TRUE(output.ends_with("\nunix\n")) << "it was registered: " << output;
  }
}

// The first one's table goes on telling of the databases.
TEST_F(ExtensionInShellTest, ASecondCopy) {
  const std::string copy = dir_.File("copy.so");
  std::filesystem::copy_file(extension_, copy);
  const std::string load_copy = ".load '" + copy + "' sqlite3_groupcommit_init\n";
  EXPECT_EQ(InShell(Load() + load_copy + OpenWithVfs() + load_copy +
                    "SELECT count(*) FROM groupcommit_stats;\n"),
            "1\n");
}

// ---- By sqlite3_load_extension() ----

// The library is unloaded then, and nothing may be left that points into it.
TEST_F(ExtensionTest, ThatCannotRegisterTheVfsLeavesNothingBehind) {
  if (sqlite3_vfs_find("groupcommit") != nullptr) GTEST_SKIP() << "it is loaded already";
  Db db(":memory:");
  EXPECT_EQ(sqlite3_db_config(db.get(), SQLITE_DBCONFIG_ENABLE_LOAD_EXTENSION, 1, nullptr),
            SQLITE_OK);
  std::vector<sqlite3_vfs*> all;
  while (sqlite3_vfs* vfs = sqlite3_vfs_find(nullptr)) {
    all.push_back(vfs);
    ASSERT_EQ(sqlite3_vfs_unregister(vfs), SQLITE_OK);
  }
  char* error = nullptr;
  EXPECT_EQ(sqlite3_load_extension(db.get(), extension_.c_str(), nullptr, &error), SQLITE_ERROR);
  EXPECT_NE(std::string(error).find("cannot register the VFS"), std::string::npos) << error;
  sqlite3_free(error);
  for (sqlite3_vfs* vfs : all) sqlite3_vfs_register(vfs, vfs == all.front() ? 1 : 0);
  EXPECT_EQ(db.Exec("SELECT * FROM groupcommit_stats"), SQLITE_ERROR);
  EXPECT_EQ(Db(":memory:").Exec("SELECT * FROM groupcommit_stats"), SQLITE_ERROR);
}

// The library that this program is linked with is another copy: the extension's is found by name.
TEST_F(ExtensionTest, StaysWhenTheConnectionThatLoadedItIsClosed) {
  {
    Db db(":memory:");
    EXPECT_EQ(sqlite3_db_config(db.get(), SQLITE_DBCONFIG_ENABLE_LOAD_EXTENSION, 1, nullptr),
              SQLITE_OK);
    char* error = nullptr;
    EXPECT_EQ(sqlite3_load_extension(db.get(), extension_.c_str(), nullptr, &error), SQLITE_OK)
        << error;
    EXPECT_EQ(db.Int("SELECT count(*) FROM groupcommit_stats"), 0);
    EXPECT_EQ(sqlite3_load_extension(db.get(), extension_.c_str(), "no_such_function", &error),
              SQLITE_ERROR);
    sqlite3_free(error);
    EXPECT_NE(sqlite3_vfs_find("groupcommit"), sqlite3_vfs_find(nullptr));
  }
  Db db(dir_.File("a.db"), "groupcommit");
  EXPECT_EQ(db.Text("PRAGMA journal_mode=WAL"), "wal");
  db.ExecOk("PRAGMA synchronous=FULL; CREATE TABLE t(x); INSERT INTO t VALUES(1)");
  Db other(":memory:");
  EXPECT_EQ(other.Int("SELECT deferred FROM groupcommit_stats"), 1);
  EXPECT_EQ(other.Text("SELECT path FROM groupcommit_stats"), dir_.File("a.db"));

  // Loading it again fails, and that does not matter to anybody.
  Db again(":memory:");
  EXPECT_EQ(sqlite3_db_config(again.get(), SQLITE_DBCONFIG_ENABLE_LOAD_EXTENSION, 1, nullptr),
            SQLITE_OK);
  const sqlite3_int64 limit = sqlite3_hard_heap_limit64(sqlite3_memory_used());
  EXPECT_EQ(
      sqlite3_load_extension(again.get(), extension_.c_str(), "sqlite3_groupcommit_init", nullptr),
      SQLITE_ERROR);
  sqlite3_hard_heap_limit64(limit);
  EXPECT_EQ(Db(":memory:").Int("SELECT deferred FROM groupcommit_stats"), 1);
  EXPECT_EQ(again.Int("SELECT deferred FROM groupcommit_stats"), 1);

  // The other copy leaves it alone.
  EXPECT_EQ(groupcommit_register(nullptr, nullptr, 0, nullptr), SQLITE_ERROR);
  EXPECT_EQ(groupcommit_unregister(nullptr), SQLITE_NOTFOUND);
  groupcommit_statistics stats{};
  EXPECT_EQ(groupcommit_register("linked", "groupcommit", 0, nullptr), SQLITE_OK);
  {
    Db both(dir_.File("b.db"), "linked");
    EXPECT_EQ(groupcommit_stats(both.get(), "main", &stats, sizeof(stats)), SQLITE_OK);
    EXPECT_EQ(both.Text("PRAGMA journal_mode=WAL"), "wal");
    both.ExecOk("PRAGMA synchronous=FULL; CREATE TABLE t(x); INSERT INTO t VALUES(1)");
    EXPECT_EQ(both.Int("SELECT count(*) FROM t"), 1);
    EXPECT_EQ(other.Int("SELECT deferred FROM groupcommit_stats WHERE path LIKE '%b.db'"), 1)
        << "the lower one of two does the work";
  }
  EXPECT_EQ(groupcommit_unregister("linked"), SQLITE_OK);
}

}  // namespace
}  // namespace groupcommit::testing
