// PassthroughTest: a fixture that runs a script on the test storage and through the shim over it,
// and compares what SQLite answers, which calls reach the storage, and the files that are left.
#ifndef GROUPCOMMIT_TESTS_SUPPORT_PASSTHROUGH_FIXTURE_H_
#define GROUPCOMMIT_TESTS_SUPPORT_PASSTHROUGH_FIXTURE_H_

#include <gtest/gtest.h>

#include <algorithm>
#include <cinttypes>
#include <cstdio>
#include <functional>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "groupcommit.h"
#include "support/recorded_session.h"
#include "support/test_storage.h"

namespace groupcommit::testing {

using Script = std::function<void(RecordedSession&)>;

// What the calls of the shim have to be, compared with stock's.
enum class Calls {
  kSame,
  // A commit's sync comes later; frames of the log are written together, not read if they are in
  // memory, and not written if they are rolled back: else the same calls, in another order.
  kSameButLater,
  // As kSameButLater, and one more sync of a log.
  kSameButOneSyncMore,
  kNotCompared,
};

class PassthroughTest : public ::testing::Test {
 protected:
  // The storage lies over `base` and has a sqlite3_vfs of that version.
  explicit PassthroughTest(const char* base = "unix", int vfs_version = 3)
      : storage_("store", base) {
    storage_.SetVfsVersion(vfs_version);
    const groupcommit_policy each_flush{};
    EXPECT_EQ(groupcommit_register("each", "store", 0, &each_flush), SQLITE_OK);
    EXPECT_EQ(groupcommit_register("auto", "store", 0, nullptr), SQLITE_OK);
  }
  ~PassthroughTest() override {
    EXPECT_EQ(groupcommit_unregister("each"), SQLITE_OK) << "a file is still open";
    EXPECT_EQ(groupcommit_unregister("auto"), SQLITE_OK) << "a file is still open";
  }

  void Compare(const Script& script, Calls under_auto = Calls::kSame,
               Calls under_each_flush = Calls::kSame) {
    RecordedSession stock(&storage_, "store");
    Run(script, stock);
    ASSERT_FALSE(stock.calls().empty());
    CompareWith(stock, script, "each", under_each_flush);
    CompareWith(stock, script, "auto", under_auto);
  }
  void CompareVia(const char* vfs, const Script& script, Calls calls,
                  const char* stock_vfs = "store") {
    RecordedSession stock(&storage_, stock_vfs);
    Run(script, stock);
    CompareWith(stock, script, vfs, calls);
  }
  void CompareWal(const Script& script) { Compare(script, Calls::kSameButLater); }

 private:
  struct LogWrite {
    std::string file;
    int64_t offset = 0;
    int size = 0;
  };
  static constexpr int kHeader = 24;  // of a frame

  static std::optional<LogWrite> AsLogWrite(const std::string& call) {
    char file[200];
    LogWrite write;
    if (std::sscanf(call.c_str(), "xWrite wal %199s at %" SCNd64 ", %d, flags 0", file,
                    &write.offset, &write.size) != 3) {
      return {};
    }
    write.file = file;
    return write;
  }
  static std::string AsCall(const LogWrite& write) {
    return "xWrite wal " + write.file + " at " + std::to_string(write.offset) + ", " +
           std::to_string(write.size) + ", flags 0";
  }

  // `calls`, with those that write several frames replaced by those for each header and page that
  // SQLite makes. Of what size pages are is seen in `others`.
  static std::vector<std::string> WithFramesApart(const std::vector<std::string>& calls,
                                                  const std::vector<std::string>& others) {
    std::set<int> page_sizes;
    for (const std::string& call : others) {
      const std::optional<LogWrite> write = AsLogWrite(call);
      if (write && write->size >= 512) page_sizes.insert(write->size);
    }
    std::vector<std::string> apart;
    for (const std::string& call : calls) {
      const std::optional<LogWrite> write = AsLogWrite(call);
      const auto page = std::find_if(page_sizes.begin(), page_sizes.end(), [&](int size) {
        return write && write->size > size && write->size % (size + kHeader) % kHeader == 0;
      });
      if (page == page_sizes.end()) {
        apart.push_back(call);
        continue;
      }
      bool is_header = true;
      for (int done = 0; done < write->size; is_header = !is_header) {
        const int size = is_header ? kHeader : *page;
        apart.push_back(AsCall({write->file, write->offset + done, size}));
        done += size;
      }
    }
    return apart;
  }

  // `calls` without those that read or write a log and are not among `others`: what is in memory is
  // not read, and what is rolled back not written. Both are sorted.
  static std::vector<std::string> WithoutNeedless(const std::vector<std::string>& calls,
                                                  const std::vector<std::string>& others) {
    std::vector<std::string> needed;
    auto other = others.begin();
    for (const std::string& call : calls) {
      while (other != others.end() && *other < call) ++other;
      const bool is_there = other != others.end() && *other == call;
      if (is_there) ++other;
      const bool is_needless = call.starts_with("xRead wal") || call.starts_with("xWrite wal");
      if (is_there || !is_needless) needed.push_back(call);
    }
    return needed;
  }

  // `calls` without those that give up what there was to have of an exclusive lock, right after it
  // has been refused: the shim makes one when a connection closes its log, for others to open the
  // database; and SQLite where it does not close.
  static std::vector<std::string> WithoutUnlocks(const std::vector<std::string>& calls) {
    std::vector<std::string> others;
    for (const std::string& call : calls) {
      const bool is_unlock = call.starts_with("xUnlock db") && call.ends_with(" at 0, 0, flags 1");
      const bool lock_came = !others.empty() && others.back().starts_with("xLock db") &&
                             others.back().ends_with(" at 0, 0, flags 4");
      if (!is_unlock || !lock_came) others.push_back(call);
    }
    return others;
  }

  static void Run(const Script& script, RecordedSession& session) {
    script(session);
    for (int i = 0; i < 4; i++) session.Close(i);
  }

  void CompareWith(const RecordedSession& stock, const Script& script, const char* vfs,
                   Calls calls) {
    SCOPED_TRACE(std::string("through ") + vfs);
    RecordedSession shim(&storage_, vfs);
    Run(script, shim);
    const std::string answers = FirstDifference(stock.outcome(), shim.outcome());
    EXPECT_TRUE(answers.empty()) << "answers, " << answers;
    EXPECT_TRUE(stock.Databases() == shim.Databases()) << "the files differ";
    if (calls == Calls::kNotCompared) return;
    std::vector<std::string> expected = stock.calls();
    std::vector<std::string> actual = shim.calls();
    // A request for the write lock that the shim knows to be in vain does not reach the storage.
    // One that is granted still shows by its end.
    for (std::vector<std::string>* list : {&expected, &actual}) {
      std::erase_if(*list, [](const std::string& call) {
        return call.starts_with("xShmLock") && call.ends_with(" at 0, 1, flags 10");
      });
    }
    expected = WithoutUnlocks(expected);
    actual = WithoutUnlocks(actual);
    if (calls != Calls::kSame) {
      actual = WithFramesApart(actual, expected);
      std::sort(expected.begin(), expected.end());
      std::sort(actual.begin(), actual.end());
      expected = WithoutNeedless(expected, actual);
    }
    if (calls == Calls::kSameButOneSyncMore) {
      const auto more =
          std::mismatch(actual.begin(), actual.end(), expected.begin(), expected.end()).first;
      ASSERT_TRUE(more != actual.end() && more->starts_with("xSync wal"));
      actual.erase(more);
    }
    const std::string difference = FirstDifference(expected, actual);
    EXPECT_TRUE(difference.empty()) << "calls, " << difference;
  }

 protected:
  TestStorage storage_;
};

// Statements of every kind. Reads and writes back what spilled, too.
inline constexpr char kWork[] = R"sql(
  CREATE TABLE t(k INTEGER PRIMARY KEY, v UNIQUE);
  WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<60)
    INSERT INTO t SELECT i, i || substr(hex(zeroblob(300)), 1, 400) FROM n;
  UPDATE t SET v = v || 'x' WHERE k % 7 = 0;
  DELETE FROM t WHERE k % 5 = 0;
  SELECT count(*), sum(length(v)) FROM t;
  BEGIN; INSERT INTO t VALUES(1001, 'a'); INSERT INTO t VALUES(1002, 'b'); COMMIT;
  BEGIN; DELETE FROM t; ROLLBACK;
  BEGIN; INSERT INTO t VALUES(1003, 'c'); SAVEPOINT s; DELETE FROM t; ROLLBACK TO s;
  INSERT INTO t VALUES(1004, 'd'); SAVEPOINT r; UPDATE t SET v = v || 'y'; RELEASE r; COMMIT;
  SAVEPOINT outer_one; INSERT INTO t VALUES(1005, 'e'); RELEASE outer_one;
  INSERT INTO t SELECT k + 2000, v FROM t;
  BEGIN IMMEDIATE; CREATE INDEX i ON t(v); COMMIT;
  BEGIN EXCLUSIVE; UPDATE t SET v = v || 'z' WHERE k > 40; COMMIT;
  BEGIN DEFERRED; SELECT count(*) FROM t; INSERT INTO t VALUES(1006, 'f'); COMMIT;
  BEGIN IMMEDIATE; ROLLBACK;
  BEGIN IMMEDIATE; SELECT max(k) FROM t; COMMIT;
  INSERT INTO t VALUES(1006, 'again');
  ALTER TABLE t ADD COLUMN w DEFAULT 7;
  PRAGMA user_version=5; PRAGMA user_version;
  DROP INDEX i;
  SELECT count(*), max(k), sum(length(v)), sum(w) FROM t;
  PRAGMA integrity_check;
)sql";

// In rollback mode, then WAL, then exclusive locking mode, as far as the base can.
inline void UseAll(RecordedSession& s) {
  s.Open(0, s.path("test.db"));
  s.Sql(0, std::string("PRAGMA mmap_size=100000;") + kWork);
  s.Sql(0, "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; INSERT INTO t VALUES(7001, 1, 1);");
  s.Open(1, s.path("test.db"));
  s.Sql(1, "SELECT count(*) FROM t; INSERT INTO t VALUES(7002, 2, 2); PRAGMA wal_checkpoint;");
  s.Sql(0, "SELECT count(*) FROM t; INSERT INTO t VALUES(7003, 3, 3);");
  s.Close(1);
  s.Sql(0, "PRAGMA locking_mode=EXCLUSIVE; PRAGMA journal_mode=WAL;");
  s.Sql(0, "INSERT INTO t VALUES(7004, datetime('now') > '2020', 4);");
}

inline std::string Pragma(const std::string& name, const std::string& value) {
  return "PRAGMA " + name + "=" + value + ";";
}

// Makes a database with a table, in DELETE or WAL mode, by connection 0 and closes it.
inline void Prepare(RecordedSession& s, const std::string& journal_mode,
                    const std::string& name = "test.db") {
  s.Open(0, s.path(name));
  s.Sql(0, Pragma("journal_mode", journal_mode) + "CREATE TABLE t(x); INSERT INTO t VALUES(1);");
  s.Close(0);
}

}  // namespace groupcommit::testing

#endif  // GROUPCOMMIT_TESTS_SUPPORT_PASSTHROUGH_FIXTURE_H_
