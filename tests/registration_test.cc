// The functions of groupcommit.h: every result code that they document.
#include <cstring>
#include <string>

#include "support/log_capture.h"
#include "support/shim_test.h"

namespace groupcommit::testing {
namespace {

bool Exists(const std::string& vfs) { return sqlite3_vfs_find(vfs.c_str()) != nullptr; }

// ---- groupcommit_register() ----

class RegistrationTest : public ::testing::Test {
 protected:
  RegistrationTest() { LogCapture::Take(); }

  // The reason is told, and nothing is changed.
  void ExpectRefused(int expected, const char* name, const char* base,
                     const groupcommit_policy* policy, const std::string& reason) {
    const bool existed = name != nullptr && *name != '\0' && Exists(name);
    const sqlite3_vfs* const usual = sqlite3_vfs_find(nullptr);
    EXPECT_EQ(groupcommit_register(name, base, 1, policy), expected) << reason;
    const LogEntry log = LogCapture::Take();
    EXPECT_EQ(log.code, expected) << reason;
    EXPECT_NE(log.message.find(reason), std::string::npos) << log.message;
    EXPECT_EQ(sqlite3_vfs_find(nullptr), usual) << reason;
    if (name != nullptr && *name != '\0') {
      EXPECT_EQ(Exists(name), existed) << reason;
    }
  }
  void ExpectRefusedPolicy(const groupcommit_policy& policy, const std::string& reason) {
    ExpectRefused(SQLITE_MISUSE, "new", nullptr, &policy, reason);
  }

  TempDir dir_;
};

TEST_F(RegistrationTest, ItsUsualName) {
  EXPECT_STREQ(GROUPCOMMIT_VFS_NAME, "groupcommit");
  EXPECT_EQ(groupcommit_unregister(nullptr), SQLITE_NOTFOUND);
  EXPECT_EQ(groupcommit_register(nullptr, nullptr, 0, nullptr), SQLITE_OK);
  EXPECT_TRUE(Exists("groupcommit"));
  EXPECT_NE(sqlite3_vfs_find(nullptr), sqlite3_vfs_find("groupcommit"));
  Db(dir_.File("a.db"), "groupcommit").ExecOk("PRAGMA journal_mode=WAL; CREATE TABLE t(x)");
  Db("file:" + dir_.File("a.db") + "?vfs=groupcommit").ExecOk("INSERT INTO t VALUES(1)");
  EXPECT_EQ(groupcommit_unregister(nullptr), SQLITE_OK);
  EXPECT_FALSE(Exists("groupcommit"));
  EXPECT_EQ(groupcommit_unregister("groupcommit"), SQLITE_NOTFOUND);
}

TEST_F(RegistrationTest, AsTheDefaultAndBack) {
  sqlite3_vfs* const usual = sqlite3_vfs_find(nullptr);
  ASSERT_EQ(groupcommit_register("gc", nullptr, 1, nullptr), SQLITE_OK);
  EXPECT_EQ(sqlite3_vfs_find(nullptr), sqlite3_vfs_find("gc"));
  {
    Db db(dir_.File("a.db"));
    EXPECT_EQ(db.Text("PRAGMA groupcommit_policy"), "auto");
    Db stock(dir_.File("a.db"), "unix");
    stock.ExecOk("CREATE TABLE t(x)");
    EXPECT_EQ(db.Int("SELECT count(*) FROM t"), 0);
  }
  EXPECT_EQ(groupcommit_unregister("gc"), SQLITE_OK);
  EXPECT_EQ(sqlite3_vfs_find(nullptr), usual);
  EXPECT_EQ(Db(dir_.File("a.db")).Int("SELECT count(*) FROM t"), 0);
}

TEST_F(RegistrationTest, SeveralAtATime) {
  TestStorage storage("store");
  const groupcommit_policy group = {GROUPCOMMIT_GROUP, 7, 8, 0};
  ASSERT_EQ(groupcommit_register("one", "store", 0, &group), SQLITE_OK);
  ASSERT_EQ(groupcommit_register("two", "store", 0, nullptr), SQLITE_OK);
  ASSERT_EQ(groupcommit_register("three", "unix-dotfile", 0, nullptr), SQLITE_OK);
  Db one(dir_.File("a.db"), "one");
  Db two(dir_.File("b.db"), "two");
  EXPECT_EQ(one.Text("PRAGMA groupcommit_policy"), "group(max_wait_us=7,max_batch=8)");
  EXPECT_EQ(two.Text("PRAGMA groupcommit_policy"), "auto");
  EXPECT_EQ(groupcommit_unregister("one"), SQLITE_BUSY);
  EXPECT_EQ(groupcommit_unregister("three"), SQLITE_OK);
  EXPECT_EQ(one.Close(), SQLITE_OK);
  EXPECT_EQ(groupcommit_unregister("one"), SQLITE_OK);
  EXPECT_EQ(groupcommit_unregister("two"), SQLITE_BUSY);
  EXPECT_EQ(two.Close(), SQLITE_OK);
  EXPECT_EQ(groupcommit_unregister("two"), SQLITE_OK);
}

TEST_F(RegistrationTest, BadNames) {
  ExpectRefused(SQLITE_MISUSE, "", nullptr, nullptr, "empty");
  const std::string longest(GROUPCOMMIT_MAX_NAME, 'n');
  ExpectRefused(SQLITE_MISUSE, (longest + "n").c_str(), nullptr, nullptr, "63 bytes");
  ExpectRefused(SQLITE_MISUSE, std::string(100'000, 'n').c_str(), nullptr, nullptr, "63 bytes");
  ExpectRefused(SQLITE_ERROR, "unix", nullptr, nullptr, "registered already");
  // The name is copied.
  std::string copied = longest;
  ASSERT_EQ(groupcommit_register(copied.c_str(), nullptr, 0, nullptr), SQLITE_OK);
  copied.assign(copied.size(), 'x');
  EXPECT_TRUE(Exists(longest));
  ExpectRefused(SQLITE_ERROR, longest.c_str(), nullptr, nullptr, "registered already");
  EXPECT_EQ(groupcommit_unregister(longest.c_str()), SQLITE_OK);
}

TEST_F(RegistrationTest, AMissingBase) {
  ExpectRefused(SQLITE_NOTFOUND, "new", "no such VFS", nullptr, "\"no such VFS\"");
  ExpectRefused(SQLITE_NOTFOUND, "new", "", nullptr, "\"\" to wrap");
  ExpectRefused(SQLITE_NOTFOUND, "new", "new", nullptr, "\"new\" to wrap");
}

TEST_F(RegistrationTest, PoliciesOutOfRange) {
  ExpectRefusedPolicy({-1, 0, 0, 0}, "kind");
  ExpectRefusedPolicy({4, 0, 0, 0}, "not 4");
  ExpectRefusedPolicy({GROUPCOMMIT_GROUP, GROUPCOMMIT_MAX_WAIT_US_LIMIT + 1, 0, 0}, "max_wait_us");
  ExpectRefusedPolicy({GROUPCOMMIT_GROUP, 0, GROUPCOMMIT_MAX_BATCH_LIMIT + 1, 0}, "not 1000001");
  ExpectRefusedPolicy({GROUPCOMMIT_GROUP, ~0u, ~0u, 0}, "max_wait_us");
  ExpectRefusedPolicy({GROUPCOMMIT_INTERVAL, 0, 0, GROUPCOMMIT_MAX_DELAY_US_LIMIT + 1},
                      "max_delay_us");
  groupcommit_policy limit = {GROUPCOMMIT_GROUP, GROUPCOMMIT_MAX_WAIT_US_LIMIT,
                              GROUPCOMMIT_MAX_BATCH_LIMIT, 0};
  ASSERT_EQ(groupcommit_register("new", nullptr, 0, &limit), SQLITE_OK);
  limit = {};  // it was copied
  EXPECT_EQ(Db(dir_.File("a.db"), "new").Text("PRAGMA groupcommit_policy"),
            "group(max_wait_us=10000000,max_batch=1000000)");
  EXPECT_EQ(groupcommit_unregister("new"), SQLITE_OK);
}

// ---- groupcommit_unregister() ----

TEST_F(RegistrationTest, OnlyOurOwnAreUnregistered) {
  EXPECT_EQ(groupcommit_unregister("unix"), SQLITE_NOTFOUND);
  EXPECT_EQ(groupcommit_unregister("no such VFS"), SQLITE_NOTFOUND);
  EXPECT_EQ(groupcommit_unregister(""), SQLITE_NOTFOUND);
  EXPECT_TRUE(Exists("unix"));
}

TEST_F(RegistrationTest, NotWhileADatabaseIsOpen) {
  ASSERT_EQ(groupcommit_register("gc", nullptr, 0, nullptr), SQLITE_OK);
  Db attached(":memory:", "gc");
  attached.ExecOk("ATTACH '" + dir_.File("a.db") + "' AS a; CREATE TABLE a.t(x)");
  EXPECT_EQ(groupcommit_unregister("gc"), SQLITE_BUSY);
  Db db(dir_.File("a.db"), "gc");
  attached.ExecOk("DETACH a");
  EXPECT_EQ(groupcommit_unregister("gc"), SQLITE_BUSY);
  db.ExecOk("PRAGMA journal_mode=WAL; INSERT INTO t VALUES(1)");
  EXPECT_TRUE(Exists("gc"));
  EXPECT_EQ(db.Close(), SQLITE_OK);
  EXPECT_EQ(groupcommit_unregister("gc"), SQLITE_OK);
}

TEST_F(RegistrationTest, AnOpenThatFailsDoesNotCount) {
  ASSERT_EQ(groupcommit_register("gc", nullptr, 0, nullptr), SQLITE_OK);
  Db db;
  EXPECT_EQ(db.Open(dir_.File("no/such/dir.db"), "gc"), SQLITE_CANTOPEN);
  EXPECT_EQ(db.Open("file:" + dir_.File("a.db") + "?max_batch=x", "gc"), SQLITE_MISUSE);
  EXPECT_EQ(groupcommit_unregister("gc"), SQLITE_OK);
}

// A connection to an in-memory database has no file that would keep its VFS registered.
TEST_F(RegistrationTest, AnInMemoryConnectionOutlivesTheVfs) {
  ASSERT_EQ(groupcommit_register("gc", nullptr, 0, nullptr), SQLITE_OK);
  Db db(":memory:", "gc");
  db.ExecOk("CREATE TABLE t(x)");
  ASSERT_EQ(groupcommit_unregister("gc"), SQLITE_OK);
  db.ExecOk("INSERT INTO t VALUES(datetime('now')); SELECT random() FROM t");
  // Temporary files are opened through it.
  db.ExecOk(
      "PRAGMA temp_store=FILE; PRAGMA temp.cache_size=2; CREATE TEMP TABLE big(x);"
      "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<500)"
      " INSERT INTO big SELECT zeroblob(1000) FROM n");
  EXPECT_EQ(db.Int("SELECT count(*) FROM big"), 500);
  // The name is free again.
  ASSERT_EQ(groupcommit_register("gc", nullptr, 0, nullptr), SQLITE_OK);
  EXPECT_EQ(db.Int("SELECT count(*) FROM t"), 1);
  EXPECT_EQ(db.Close(), SQLITE_OK);
  EXPECT_EQ(groupcommit_unregister("gc"), SQLITE_OK);
}

// ---- groupcommit_stats() ----

using StatsTest = ShimTest;

TEST_F(StatsTest, ResultCodes) {
  Db db = OpenWithTable();
  groupcommit_statistics stats{};
  EXPECT_EQ(groupcommit_stats(nullptr, "main", &stats, sizeof(stats)), SQLITE_MISUSE);
  EXPECT_EQ(groupcommit_stats_table(nullptr), SQLITE_MISUSE);
  EXPECT_EQ(groupcommit_stats(db.get(), "main", nullptr, sizeof(stats)), SQLITE_MISUSE);
  EXPECT_EQ(groupcommit_stats(db.get(), "elsewhere", &stats, sizeof(stats)), SQLITE_ERROR);
  EXPECT_EQ(groupcommit_stats(db.get(), nullptr, &stats, sizeof(stats)), SQLITE_OK);
  EXPECT_EQ(stats.connections, 1);
  EXPECT_GT(stats.commits, 0);

  db.ExecOk("ATTACH ':memory:' AS m; ATTACH '" + path("b.db") +
            "' AS b;"
            "ATTACH 'file:" +
            path("c.db") + "?vfs=unix' AS c; CREATE TEMP TABLE tmp(x)");
  EXPECT_EQ(groupcommit_stats(db.get(), "m", &stats, sizeof(stats)), SQLITE_NOTFOUND);
  EXPECT_EQ(groupcommit_stats(db.get(), "c", &stats, sizeof(stats)), SQLITE_NOTFOUND);
  EXPECT_EQ(groupcommit_stats(db.get(), "temp", &stats, sizeof(stats)), SQLITE_NOTFOUND);
  EXPECT_EQ(groupcommit_stats(db.get(), "b", &stats, sizeof(stats)), SQLITE_OK);
  EXPECT_EQ(stats.connections, 1);
  EXPECT_EQ(stats.commits, 0);

  Db stock(path("d.db"), "unix");
  EXPECT_EQ(groupcommit_stats(stock.get(), "main", &stats, sizeof(stats)), SQLITE_NOTFOUND);
}

// Programs that were built with an older or a newer header.
TEST_F(StatsTest, NoMoreBytesThanAskedFor) {
  Db db = OpenWithTable();
  constexpr unsigned char kUntouched = 0xa5;
  for (const size_t size : {size_t{0}, size_t{1}, sizeof(sqlite3_int64), 3 * sizeof(sqlite3_int64),
                            sizeof(groupcommit_statistics) - 1, sizeof(groupcommit_statistics),
                            sizeof(groupcommit_statistics) + 100}) {
    union {
      groupcommit_statistics stats;
      unsigned char bytes[sizeof(groupcommit_statistics) + 200];
    } out;
    std::memset(out.bytes, kUntouched, sizeof(out.bytes));
    EXPECT_EQ(groupcommit_stats(db.get(), "main", &out.stats, size), SQLITE_OK);
    for (size_t i = std::min(size, sizeof(groupcommit_statistics)); i < sizeof(out.bytes); i++) {
      ASSERT_EQ(out.bytes[i], kUntouched) << "byte " << i << " of " << size;
    }
    if (size >= sizeof(sqlite3_int64)) {
      EXPECT_EQ(out.stats.connections, 1);
    }
  }
}

TEST_F(StatsTest, CommitsAreCountedAndCheckpointsAreNot) {
  Db db = OpenWithTable();
  db.ExecOk("PRAGMA wal_autocheckpoint=1");
  const groupcommit_statistics before = Stats(db);
  for (int i = 0; i < 10; i++) db.ExecOk("INSERT INTO t VALUES('x'); PRAGMA wal_checkpoint");
  const groupcommit_statistics after = Stats(db);
  EXPECT_EQ(after.commits - before.commits, 10);
  EXPECT_EQ(after.deferred - before.deferred, 10);
  EXPECT_GE(after.syncs - before.syncs, 20);
}

// ---- Values ----

TEST(PolicyTextTest, ResultCodes) {
  groupcommit_policy policy = {GROUPCOMMIT_GROUP, 1, 2, 0};
  char nothing;
  char* error = &nothing;  // which nobody is to release
  EXPECT_EQ(groupcommit_policy_parse(nullptr, &policy, &error), SQLITE_MISUSE);
  EXPECT_EQ(groupcommit_policy_parse("auto", nullptr, &error), SQLITE_MISUSE);
  EXPECT_EQ(error, nullptr);
  EXPECT_EQ(groupcommit_policy_parse("sometimes", &policy, nullptr), SQLITE_ERROR);
  EXPECT_EQ(groupcommit_policy_parse("sometimes", &policy, &error), SQLITE_ERROR);
  ASSERT_NE(error, nullptr);
  EXPECT_NE(std::string(error).find("'sometimes'"), std::string::npos) << error;
  sqlite3_free(error);
  EXPECT_EQ(policy.max_batch, 2u) << "it was to be left alone";
  EXPECT_EQ(groupcommit_policy_parse(" Group ( MAX_BATCH = 5 ) ", &policy, &error), SQLITE_OK);
  EXPECT_EQ(policy.kind, GROUPCOMMIT_GROUP);
  EXPECT_EQ(policy.max_wait_us, GROUPCOMMIT_MAX_WAIT_US_DEFAULT);
  EXPECT_EQ(policy.max_batch, 5u);

  char text[64];
  const std::string full = "group(max_wait_us=1000,max_batch=5)";
  EXPECT_EQ(groupcommit_policy_format(&policy, text, sizeof(text)), static_cast<int>(full.size()));
  EXPECT_EQ(text, full);
  EXPECT_EQ(groupcommit_policy_format(&policy, text, 6), static_cast<int>(full.size()));
  EXPECT_STREQ(text, "group");
  EXPECT_EQ(groupcommit_policy_format(&policy, nullptr, 0), static_cast<int>(full.size()));
  EXPECT_EQ(groupcommit_policy_format(nullptr, text, sizeof(text)), -1);
  policy.kind = 17;
  EXPECT_EQ(groupcommit_policy_format(&policy, text, sizeof(text)), -1);
}

TEST(VersionTest, OfHeaderAndLibrary) {
  EXPECT_STREQ(groupcommit_libversion(), GROUPCOMMIT_VERSION);
  EXPECT_EQ(groupcommit_libversion_number(), GROUPCOMMIT_VERSION_NUMBER);
  const int number = GROUPCOMMIT_VERSION_NUMBER;
  EXPECT_EQ(std::to_string(number / 1'000'000) + "." + std::to_string(number / 1000 % 1000) + "." +
                std::to_string(number % 1000),
            GROUPCOMMIT_VERSION);
}

}  // namespace
}  // namespace groupcommit::testing
