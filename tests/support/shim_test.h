// ShimTest: a fixture with the shim, called "gc", over a test storage.
#ifndef GROUPCOMMIT_TESTS_SUPPORT_SHIM_TEST_H_
#define GROUPCOMMIT_TESTS_SUPPORT_SHIM_TEST_H_

#include <gtest/gtest.h>

#include <future>
#include <string>
#include <thread>
#include <vector>

#include "groupcommit.h"
#include "support/sqlite_helpers.h"
#include "support/test_storage.h"

namespace groupcommit::testing {

class ShimTest : public ::testing::Test {
 protected:
  ShimTest() { EXPECT_EQ(groupcommit_register("gc", "store", 0, nullptr), SQLITE_OK); }
  ~ShimTest() override {
    storage_.OpenGate();
    EXPECT_EQ(groupcommit_unregister("gc"), SQLITE_OK) << "a connection is still open";
  }

  std::string path(const std::string& name = "test.db") const { return dir_.File(name); }

  // A connection through the shim, in WAL mode with synchronous=FULL.
  Db OpenWal(const std::string& file = "test.db") { return OpenWalUri(path(file)); }
  Db OpenWalUri(const std::string& uri) {
    Db db(uri, "gc");
    EXPECT_EQ(db.Text("PRAGMA journal_mode=WAL"), "wal");
    db.ExecOk("PRAGMA synchronous=FULL");
    return db;
  }

  // The same with a table t(x) that holds one row, all of it durable, and page 1 in the log.
  Db OpenWithTable(const std::string& file = "test.db") {
    Db db = OpenWal(file);
    db.ExecOk("CREATE TABLE IF NOT EXISTS t(x); INSERT INTO t VALUES('first')");
    return db;
  }

  static groupcommit_statistics Stats(const Db& db, const char* schema = "main") {
    groupcommit_statistics stats{};
    EXPECT_EQ(groupcommit_stats(db.get(), schema, &stats, sizeof(stats)), SQLITE_OK);
    return stats;
  }

  int64_t WalSyncs() { return storage_.Counters(FileKind::kWal).syncs; }

  // Until the hook is taken away.
  void FailWritesToTheLog() {
    storage_.SetFaultHook([](const Call& call) {
      return call.op == Op::kWrite && call.kind == FileKind::kWal ? SQLITE_IOERR : SQLITE_OK;
    });
  }

  // Runs `sql` in a thread of its own.
  static std::future<int> ExecAsync(Db& db, const std::string& sql) {
    return std::async(std::launch::async, [&db, sql] { return db.Exec(sql); });
  }

  // The same. Returns once its sync of the log is held.
  std::future<int> ExecUntilSync(Db& db, const std::string& sql) {
    storage_.HoldSyncs(FileKind::kWal);
    std::future<int> result = ExecAsync(db, sql);
    EXPECT_TRUE(storage_.WaitForHeldSyncs(1));
    return result;
  }

  template <class T>
  static bool IsReady(const std::future<T>& result) {
    return result.wait_for(std::chrono::seconds(0)) == std::future_status::ready;
  }

  // Returns once `result` is there, or `n` threads wait for a sync of the database that `observer`
  // has open. The latter is expected; it cannot be both.
  template <class T>
  static void ExpectToWait(const std::future<T>& result, const Db& observer, int64_t n) {
    while (Stats(observer).waiting < n && !IsReady(result)) std::this_thread::yield();
    EXPECT_FALSE(IsReady(result)) << "it did not wait";
  }

  // The sync that is held fails, and no other one is held.
  void FailHeldSync() {
    EXPECT_EQ(storage_.ReleaseSyncs(1, SQLITE_IOERR_FSYNC), 1);
    storage_.OpenGate();
  }

  // What sqlite3_sleep() does where the shim is the default VFS. In us.
  static void SleepInShim(int micros) {
    sqlite3_vfs* vfs = sqlite3_vfs_find("gc");
    vfs->xSleep(vfs, micros);
  }

  // Number of rows that stock SQLite finds after a power cut at this moment.
  int64_t RowsAfterPowerCut(const std::string& file = "test.db") {
    const std::string cut = dir_.path() + "/cut";
    storage_.CutInto(cut);
    ExpectIntact(cut + "/" + file);
    Db db(cut + "/" + file);
    return db.Int("SELECT count(*) FROM t");
  }

  TempDir dir_;
  TestStorage storage_{"store"};
};

}  // namespace groupcommit::testing

#endif  // GROUPCOMMIT_TESTS_SUPPORT_SHIM_TEST_H_
