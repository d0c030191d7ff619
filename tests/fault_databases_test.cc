// Syncs that fail while a transaction writes several databases, or while two databases have commits
// of their own under way.
#include <sqlite3.h>

#include <fstream>
#include <string>
#include <vector>

#include "support/shim_test.h"

namespace groupcommit::testing {
namespace {

// The journal modes of main and of the two that are attached.
struct Modes {
  const char* name;
  const char* journal[3];
};
constexpr Modes kModes[] = {
    {"AllInWal", {"WAL", "WAL", "WAL"}},
    {"AllWithASuperJournal", {"DELETE", "DELETE", "DELETE"}},
    {"WalBesideASuperJournal", {"WAL", "DELETE", "DELETE"}},
    {"ASuperJournalBesideWal", {"DELETE", "WAL", "DELETE"}},
};
constexpr const char* kSchemas[] = {"main", "one", "two"};

std::string FileOf(const std::string& prefix, const char* schema) {
  return prefix + "-" + schema + ".db";
}

class SeveralDatabasesTest : public ShimTest, public ::testing::WithParamInterface<Modes> {
 protected:
  // One transaction over all three, whose n-th sync of any file fails. Returns what a user sees of
  // it, at once and after a power cut. `n` becomes 0 if there were fewer syncs.
  std::string RunWithFailure(const char* vfs, int* n) {
    const std::string prefix = std::string(vfs) + std::to_string(*n);
    Db db(path(FileOf(prefix, "main")), vfs);
    Prepare(db, prefix, 0);
    for (int i = 1; i < 3; i++) {
      db.ExecOk("ATTACH '" + path(FileOf(prefix, kSchemas[i])) + "' AS " + kSchemas[i]);
      Prepare(db, prefix, i);
    }
    int syncs = 0;
    storage_.SetFaultHook([&syncs, n](const Call& call) {
      return call.op == Op::kSync && ++syncs == *n ? SQLITE_IOERR_FSYNC : SQLITE_OK;
    });
    std::string seen = "COMMIT " + std::to_string(Write(db, 1));
    storage_.SetFaultHook(nullptr);
    if (syncs < *n) *n = 0;
    db.Exec("ROLLBACK");
    seen += RowsOf(db);
    seen += AfterPowerCut(prefix);
    seen += "\nagain " + std::to_string(Write(db, 2));
    seen += RowsOf(db);
    seen += AfterPowerCut(prefix);
    return seen;
  }

 private:
  void Prepare(Db& db, const std::string& prefix, int i) const {
    const std::string schema = kSchemas[i];
    db.ExecOk("PRAGMA " + schema + ".journal_mode=" + GetParam().journal[i] + ";PRAGMA " + schema +
              ".synchronous=FULL; CREATE TABLE " + schema + ".t(x); INSERT INTO " + schema +
              ".t VALUES(0)");
    EXPECT_TRUE(std::ifstream(path(FileOf(prefix, kSchemas[i]))).good());
  }

  static int Write(Db& db, int x) {
    std::string sql = "BEGIN;";
    for (const char* schema : kSchemas) {
      sql += std::string("INSERT INTO ") + schema + ".t VALUES(" + std::to_string(x) + ");";
    }
    return db.Exec(sql + "COMMIT");
  }

  static std::string RowsOf(Db& db) {
    std::string rows;
    for (const char* schema : kSchemas) {
      rows += std::string(" ") + schema + ":" +
              db.Text(std::string("SELECT group_concat(x) FROM ") + schema + ".t");
    }
    return rows;
  }

  std::string AfterPowerCut(const std::string& prefix) {
    const std::string cut = dir_.path() + "/cut";
    storage_.CutInto(cut);
    std::string rows = " | after a power cut";
    for (const char* schema : kSchemas) {
      const std::string file = cut + "/" + FileOf(prefix, schema);
      ExpectIntact(file);
      Db db(file);
      rows += std::string(" ") + schema + ":" + db.Text("SELECT group_concat(x) FROM t");
    }
    return rows;
  }
};

// No sync of such a transaction is deferred, so that each failure has to end as with stock SQLite.
TEST_P(SeveralDatabasesTest, AFailedSyncEndsAsWithStockSqlite) {
  int failures = 0;
  for (int n = 1;; n++) {
    SCOPED_TRACE("sync " + std::to_string(n));
    int stock_n = n;
    int shim_n = n;
    const std::string stock = RunWithFailure("store", &stock_n);
    EXPECT_EQ(RunWithFailure("gc", &shim_n), stock);
    EXPECT_EQ(shim_n, stock_n);
    if (stock_n == 0 || HasFailure()) break;
    failures++;
  }
  EXPECT_GE(failures, 3);
}

INSTANTIATE_TEST_SUITE_P(, SeveralDatabasesTest, ::testing::ValuesIn(kModes),
                         [](const auto& test) { return test.param.name; });

// ---- Two databases of one connection, each with commits of its own ----

class TwoDatabasesTest : public ShimTest {
 protected:
  void SetUp() override {
    { Db other = OpenWithTable("other.db"); }
    a_ = Open();
    b_ = Open();
    observer_ = Open();
  }

  Db Open() {
    Db db = OpenWithTable();
    db.ExecOk("ATTACH '" + path("other.db") + "' AS other; PRAGMA other.synchronous=FULL");
    db.ExecOk("DELETE FROM t; DELETE FROM other.t; SELECT * FROM t, other.t");
    return db;
  }

  int64_t Fenced(const char* schema) { return Stats(observer_, schema).fenced; }

  Db a_;
  Db b_;
  Db observer_;
};

// The one fails, the other goes on as if nothing had happened.
TEST_F(TwoDatabasesTest, TheFailureOfTheOneIsNotThatOfTheOther) {
  std::future<int> failing = ExecUntilSync(a_, "INSERT INTO main.t VALUES('failed')");
  std::future<int> passing = ExecAsync(b_, "INSERT INTO other.t VALUES('x')");
  ASSERT_TRUE(storage_.WaitForHeldSyncs(2));
  FailHeldSync();
  EXPECT_EQ(failing.get(), SQLITE_IOERR_FSYNC);
  EXPECT_EQ(passing.get(), SQLITE_OK);
  for (Db* db : {&a_, &b_}) {
    EXPECT_EQ(db->Int("SELECT count(*) FROM main.t"), 0);
    EXPECT_EQ(db->Int("SELECT count(*) FROM other.t"), 1);
  }
  EXPECT_EQ(RowsAfterPowerCut("other.db"), 1);
  EXPECT_EQ(Fenced("main"), 0);
  EXPECT_EQ(Fenced("other"), 0);
  a_.ExecOk("BEGIN; INSERT INTO main.t VALUES(1); INSERT INTO other.t VALUES(1); COMMIT");
  EXPECT_EQ(RowsAfterPowerCut(), 1);
  EXPECT_EQ(RowsAfterPowerCut("other.db"), 2);
}

// A transaction over both builds on a commit of one of them that fails.
class BothOnTopTest : public TwoDatabasesTest, public ::testing::WithParamInterface<const char*> {};

TEST_P(BothOnTopTest, ATransactionOverBothOnTopOfAPendingCommit) {
  const std::string failing_schema = GetParam();
  std::future<int> failing =
      ExecUntilSync(a_, "INSERT INTO " + failing_schema + ".t VALUES('failed')");
  b_.ExecOk("BEGIN; INSERT INTO main.t VALUES('both'); INSERT INTO other.t VALUES('both')");
  FailHeldSync();
  EXPECT_EQ(failing.get(), SQLITE_IOERR_FSYNC);
  const int rc = b_.Exec("COMMIT");
  EXPECT_NE(rc, SQLITE_OK) << "it was written on top of lost bytes";
  b_.Exec("ROLLBACK");
  EXPECT_EQ(b_.Int("SELECT count(*) FROM " + failing_schema + ".t"), 0);
  EXPECT_EQ(RowsAfterPowerCut(failing_schema == "main" ? "test.db" : "other.db"), 0);
  // SQLite publishes main before it syncs the other one: two logs are not atomic.
  const int64_t main_rows = failing_schema == "main" ? 0 : 1;
  const int64_t other_rows = 0;
  EXPECT_EQ(a_.Int("SELECT count(*) FROM main.t"), main_rows);
  EXPECT_EQ(a_.Int("SELECT count(*) FROM other.t"), other_rows);
  b_.ExecOk("BEGIN; INSERT INTO main.t VALUES(1); INSERT INTO other.t VALUES(1); COMMIT");
  EXPECT_EQ(RowsAfterPowerCut(), main_rows + 1);
  EXPECT_EQ(RowsAfterPowerCut("other.db"), other_rows + 1);
  EXPECT_EQ(Fenced("main"), 0);
  EXPECT_EQ(Fenced("other"), 0);
}

INSTANTIATE_TEST_SUITE_P(, BothOnTopTest, ::testing::Values("main", "other"),
                         [](const auto& test) { return std::string(test.param); });

}  // namespace
}  // namespace groupcommit::testing
