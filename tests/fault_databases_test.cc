// Syncs that fail while a transaction writes several databases, or while two databases have commits
// of their own under way.
#include <sqlite3.h>

#include <chrono>
#include <fstream>
#include <string>
#include <vector>

#include "support/queue_of.h"
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

  // Returns once `result` is there, or waits for the commit whose sync is held, or has a sync of
  // its own that is.
  void AwaitOnTop(const std::future<int>& result, const std::string& schema) {
    const auto waits = [&] { return Stats(observer_, schema.c_str()).waiting == 2; };
    while (!waits() && storage_.HeldSyncs() < 2 && !IsReady(result)) std::this_thread::yield();
  }

  // A commit of a_ to the one fails, and takes along a transaction of b_ that is on top of it.
  void ExpectToFailOnTop(const std::string& failing_schema, const std::string& sql) {
    std::future<int> failing =
        ExecUntilSync(a_, "INSERT INTO " + failing_schema + ".t VALUES('failed')");
    std::future<int> on_top = ExecAsync(b_, sql);
    AwaitOnTop(on_top, failing_schema);
    FailHeldSync();
    EXPECT_EQ(failing.get(), SQLITE_IOERR_FSYNC);
    EXPECT_EQ(on_top.get(), SQLITE_IOERR_FSYNC);
    b_.Exec("ROLLBACK");
  }

  // It writes to both.
  void ExpectBothToFail(const std::string& failing_schema) {
    ExpectToFailOnTop(failing_schema,
                      "BEGIN; INSERT INTO main.t VALUES('both'); INSERT INTO other.t "
                      "VALUES('both'); COMMIT");
    EXPECT_EQ(a_.Int("SELECT count(*) FROM main.t"), 0);
    EXPECT_EQ(a_.Int("SELECT count(*) FROM other.t"), 0);
  }

  // It copies the row of the pending commit into the other database.
  void ExpectCopyToFail(const std::string& failing_schema, const std::string& written_schema) {
    ExpectToFailOnTop(failing_schema, "BEGIN IMMEDIATE; INSERT INTO " + written_schema +
                                          ".t SELECT x FROM " + failing_schema + ".t; COMMIT");
    EXPECT_EQ(a_.Int("SELECT count(*) FROM " + written_schema + ".t"), 0);
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
  // SQLite publishes main before it writes to the log of the other one.
  EXPECT_EQ(a_.Int("SELECT count(*) FROM main.t"), 0);
  EXPECT_EQ(a_.Int("SELECT count(*) FROM other.t"), 0);
  b_.ExecOk("BEGIN; INSERT INTO main.t VALUES(1); INSERT INTO other.t VALUES(1); COMMIT");
  EXPECT_EQ(RowsAfterPowerCut(), 1);
  EXPECT_EQ(RowsAfterPowerCut("other.db"), 1);
  EXPECT_EQ(Fenced("main"), 0);
  EXPECT_EQ(Fenced("other"), 0);
}

// The same without a sync of its own: it is not published before what lies beneath is durable. By
// the time that COMMIT_PHASETWO fails for the one database, SQLite has published the other one.
TEST_P(BothOnTopTest, WithoutASyncOfItsOwn) {
  b_.ExecOk("PRAGMA main.synchronous=NORMAL; PRAGMA other.synchronous=NORMAL");
  ExpectBothToFail(GetParam());
  b_.ExecOk("BEGIN; INSERT INTO main.t VALUES(1); INSERT INTO other.t VALUES(1); COMMIT");
}

// Nor where SQLite has not told us which connection it is, as where a VFS above does not pass it
// on.
TEST_F(TwoDatabasesTest, WithoutASyncOfItsOwnByNobodyKnowsWhom) {
  b_.ExecOk("PRAGMA main.synchronous=NORMAL; PRAGMA other.synchronous=NORMAL");
  sqlite3* nobody = nullptr;
  for (const char* schema : {"main", "other"}) {
    sqlite3_file_control(b_.get(), schema, SQLITE_FCNTL_PDB, &nobody);
  }
  ExpectBothToFail("main");
}

// And where it has only read what fails, and written to the other one.
TEST_P(BothOnTopTest, AfterReadingOneAndWritingTheOther) {
  const std::string failing_schema = GetParam();
  const std::string written_schema = failing_schema == "main" ? "other" : "main";
  ExpectCopyToFail(failing_schema, written_schema);
}

// The other one has a journal of its own: what is written to it is never seen as a frame.
TEST_P(BothOnTopTest, AfterReadingOneAndWritingOneWithAJournal) {
  const std::string failing_schema = GetParam();
  const std::string written_schema = failing_schema == "main" ? "other" : "main";
  for (Db* db : {&b_, &observer_}) db->Close();
  ASSERT_EQ(a_.Text("PRAGMA " + written_schema + ".journal_mode=DELETE"), "delete");
  for (Db* db : {&b_, &observer_}) {
    *db = Db(path(), "gc");
    db->ExecOk("ATTACH '" + path("other.db") + "' AS other; SELECT * FROM t, other.t");
  }
  ExpectCopyToFail(failing_schema, written_schema);
}

// It has changed nothing. Its COMMIT may come after those of other databases, so that it is not
// told (vfs/README.md, "When a sync fails"); but it waits, and does not read the row again.
TEST_P(BothOnTopTest, WhoHasOnlyReadUnderTheWriteLockIsNotTold) {
  const std::string read = std::string("SELECT count(*) FROM ") + GetParam() + ".t";
  std::future<int> failing =
      ExecUntilSync(a_, std::string("INSERT INTO ") + GetParam() + ".t VALUES('failed')");
  b_.ExecOk("BEGIN IMMEDIATE");
  EXPECT_EQ(b_.Int(read), 1);
  std::future<int> ended = ExecAsync(b_, "COMMIT");
  AwaitOnTop(ended, GetParam());
  EXPECT_FALSE(IsReady(ended));
  FailHeldSync();
  EXPECT_EQ(failing.get(), SQLITE_IOERR_FSYNC);
  EXPECT_EQ(ended.get(), SQLITE_OK);
  EXPECT_EQ(b_.Int(read), 0);
}

// It has the write lock meanwhile, so that no company comes.
TEST_P(BothOnTopTest, WaitsForNoCompany) {
  b_.ExecOk("PRAGMA main.synchronous=NORMAL; PRAGMA other.synchronous=NORMAL");
  for (const char* schema : {"main", "other"}) {
    b_.ExecOk(std::string("PRAGMA ") + schema +
              ".groupcommit_policy='group(max_wait_us=10000000,max_batch=3)'");
  }
  // A machine may stand still for long, but not each time.
  constexpr std::chrono::seconds kLong(9);
  std::chrono::nanoseconds took = kLong;
  for (int attempt = 0; attempt < 3 && took >= kLong; attempt++) {
    const auto start = std::chrono::steady_clock::now();
    std::future<int> beneath =
        ExecAsync(a_, std::string("INSERT INTO ") + GetParam() + ".t VALUES('beneath')");
    while (Stats(observer_, GetParam()).waiting < 1 && !IsReady(beneath)) std::this_thread::yield();
    b_.ExecOk(
        "BEGIN; INSERT INTO main.t VALUES('both'); INSERT INTO other.t VALUES('both'); COMMIT");
    EXPECT_EQ(beneath.get(), SQLITE_OK);
    took = std::chrono::steady_clock::now() - start;
  }
  EXPECT_LT(took, kLong);
}

INSTANTIATE_TEST_SUITE_P(, BothOnTopTest, ::testing::Values("main", "other"),
                         [](const auto& test) { return std::string(test.param); });

// A transaction that writes to one of them only shares its sync as ever.
TEST_P(BothOnTopTest, WhoWritesOneLetsWritersInMeanwhile) {
  const std::string schema = GetParam();
  Db alone(path(schema == "main" ? "test.db" : "other.db"), "gc");
  std::future<int> beneath = ExecUntilSync(a_, "INSERT INTO " + schema + ".t VALUES('beneath')");
  std::future<int> on_top = ExecAsync(b_, "INSERT INTO " + schema + ".t VALUES('on top')");
  AwaitOnTop(on_top, schema);
  EXPECT_EQ(Stats(observer_, schema.c_str()).waiting, 2);
  EXPECT_TRUE(QueueOf(alone).TryAcquire(kSomebody));
  QueueOf(alone).Release(kSomebody);
  storage_.OpenGate();
  EXPECT_EQ(beneath.get(), SQLITE_OK);
  EXPECT_EQ(on_top.get(), SQLITE_OK);
}

// A base VFS may call the error something that is no SQLITE_IOERR.
TEST_P(BothOnTopTest, WithoutASyncOfItsOwnAndWithAnErrorOfAnotherKind) {
  const std::string schema = GetParam();
  b_.ExecOk("PRAGMA main.synchronous=NORMAL; PRAGMA other.synchronous=NORMAL");
  std::future<int> failing = ExecUntilSync(a_, "INSERT INTO " + schema + ".t VALUES('failed')");
  std::future<int> both = ExecAsync(
      b_, "BEGIN; INSERT INTO main.t VALUES('both'); INSERT INTO other.t VALUES('both'); COMMIT");
  AwaitOnTop(both, schema);
  EXPECT_EQ(storage_.ReleaseSyncs(1, SQLITE_FULL), 1);
  storage_.OpenGate();
  EXPECT_EQ(failing.get() & 0xff, SQLITE_IOERR);
  EXPECT_EQ(both.get() & 0xff, SQLITE_IOERR);
  b_.Exec("ROLLBACK");
  EXPECT_EQ(a_.Int("SELECT count(*) FROM main.t"), 0);
  EXPECT_EQ(a_.Int("SELECT count(*) FROM other.t"), 0);
}

// What was found in a log is not taken back if its sync fails. Nor does SQLite sync it.
TEST_F(TwoDatabasesTest, WithoutASyncOfItsOwnOnTopOfWhatWasFound) {
  a_.ExecOk("PRAGMA main.wal_checkpoint(TRUNCATE); PRAGMA other.wal_checkpoint(TRUNCATE)");
  Db stranger(path(), "store");
  stranger.ExecOk("ATTACH '" + path("other.db") + "' AS other");
  for (Db* db : {&a_, &b_, &observer_}) EXPECT_EQ(db->Close(), SQLITE_OK);
  // Not to the page of the schema: who reads that from the log has it synced.
  stranger.ExecOk("INSERT INTO main.t VALUES('found'); INSERT INTO other.t VALUES('found')");
  Db db(path(), "gc");
  db.ExecOk("ATTACH '" + path("other.db") + "' AS other");
  db.ExecOk("PRAGMA main.synchronous=NORMAL; PRAGMA other.synchronous=NORMAL");
  storage_.FailSyncs(FileKind::kWal, 1, 1);
  EXPECT_EQ(db.Exec("BEGIN IMMEDIATE; INSERT INTO main.t VALUES('x'); "
                    "INSERT INTO other.t VALUES('x'); COMMIT"),
            SQLITE_OK);
  EXPECT_EQ(db.Int("SELECT count(*) FROM main.t"), 2);
  EXPECT_EQ(db.Int("SELECT count(*) FROM other.t"), 2);
}

// A transaction with a super-journal beside the log: once that is deleted, SQLite takes no error
// for one (vdbeaux.c: vdbeCommit()).
TEST_F(TwoDatabasesTest, WithASuperJournalOnTopOfAPendingCommit) {
  b_.ExecOk("PRAGMA main.synchronous=NORMAL");
  for (const char* schema : {"one", "two"}) {
    b_.ExecOk(std::string("ATTACH '") + path(std::string(schema) + ".db") + "' AS " + schema +
              "; CREATE TABLE " + schema + ".u(x)");
  }
  std::future<int> failing = ExecUntilSync(a_, "INSERT INTO t VALUES('failed')");
  std::future<int> all =
      ExecAsync(b_,
                "BEGIN; INSERT INTO main.t VALUES('all'); INSERT INTO one.u VALUES('all');"
                "INSERT INTO two.u VALUES('all'); COMMIT");
  AwaitOnTop(all, "main");
  FailHeldSync();
  EXPECT_EQ(failing.get(), SQLITE_IOERR_FSYNC);
  const int rows = all.get() == SQLITE_OK ? 1 : 0;
  b_.Exec("ROLLBACK");
  EXPECT_EQ(b_.Int("SELECT count(*) FROM main.t"), rows);
  EXPECT_EQ(b_.Int("SELECT count(*) FROM one.u"), rows);
  EXPECT_EQ(b_.Int("SELECT count(*) FROM two.u"), rows);
}

}  // namespace
}  // namespace groupcommit::testing
