// A commit whose sync fails, and what others do at that moment: the same scenario with stock SQLite
// and with the shim, checked by the same ledger.
#include <sqlite3.h>

#include <tuple>

#include "support/fault_test.h"

namespace groupcommit::testing {
namespace {

class ScenarioTest : public FaultTest, public ::testing::WithParamInterface<const char*> {
 protected:
  void SetUp() override { Start(GetParam()); }
};

// ---- A checkpoint beside the failed commit ----

class CheckpointTest : public FaultTest,
                       public ::testing::WithParamInterface<std::tuple<const char*, const char*>> {
 protected:
  void SetUp() override { Start(std::get<0>(GetParam())); }
  std::string Checkpoint() const {
    return std::string("PRAGMA wal_checkpoint(") + std::get<1>(GetParam()) + ")";
  }
};

TEST_P(CheckpointTest, RightAfterTheFailedCommit) {
  FailingInsert(a_);
  EXPECT_EQ(b_.Int(Checkpoint()), 0) << "busy";
  ExpectLedger();
  ExpectWorkGoesOn();
}

// The roll-back cannot be done yet: somebody holds the write lock.
TEST_P(CheckpointTest, BetweenTheFailureAndTheRollBack) {
  c_.SetBusyTimeout(0);
  FailingInsert(a_, [&] { b_.ExecOk("BEGIN IMMEDIATE"); });
  const int rc = c_.Exec(Checkpoint());
  if (with_shim()) {
    EXPECT_EQ(rc, SQLITE_IOERR_FSYNC);
  } else {
    EXPECT_EQ(rc, SQLITE_OK);
  }
  b_.Exec("ROLLBACK");
  ExpectLedger();
  EXPECT_EQ(c_.Int(Checkpoint()), 0) << "busy";
  ExpectLedger();
  ExpectWorkGoesOn();
}

// It copies pages into the database file while a commit appends and fails.
TEST_P(CheckpointTest, ThatRunsWhileTheCommitFails) {
  storage_.HoldSyncs(FileKind::kMainDb);
  std::future<int> checkpoint = ExecAsync(c_, Checkpoint());
  ASSERT_TRUE(storage_.WaitForHeldSyncs(1));
  storage_.FailSyncs(FileKind::kWal, 1, 1);
  // A FULL checkpoint keeps writers out.
  a_.SetBusyTimeout(0);
  const int rc = Insert(a_);
  const bool passive = std::get<1>(GetParam()) == std::string("PASSIVE");
  EXPECT_EQ(rc, passive ? SQLITE_IOERR_FSYNC : SQLITE_BUSY);
  storage_.OpenGate();
  checkpoint.get();
  storage_.FailSyncs(FileKind::kWal, 1, 0);
  ExpectLedger();
  ExpectWorkGoesOn();
}

// Whatever the checkpoint does to the database file fails.
TEST_P(CheckpointTest, ThatFailsInTheDatabaseFile) {
  storage_.FailSyncs(FileKind::kMainDb, 1, 1);
  EXPECT_EQ(b_.Exec(Checkpoint()), SQLITE_IOERR_FSYNC);
  ExpectLedger();
  InsertOk(a_);
  storage_.SetFaultHook([](const Call& call) {
    return call.op == Op::kWrite && call.kind == FileKind::kMainDb ? SQLITE_FULL : SQLITE_OK;
  });
  EXPECT_EQ(b_.Exec(Checkpoint()), SQLITE_FULL);
  ExpectLedger();
  InsertOk(a_);
  storage_.SetFaultHook(nullptr);
  ExpectWorkGoesOn();
}

INSTANTIATE_TEST_SUITE_P(
    , CheckpointTest,
    ::testing::Combine(::testing::Values("store", "gc"),
                       ::testing::Values("PASSIVE", "FULL", "RESTART", "TRUNCATE")),
    [](const auto& test) { return NameOfVfs(std::get<0>(test.param)) + std::get<1>(test.param); });

// ---- Schema ----

// Its root page and its schema cookie are given out again; a cache that had seen the failed table
// would put rows into the wrong one.
TEST_P(ScenarioTest, TheSchemaOfAFailedCreateTableStaysInNobodysCache) {
  std::future<int> create = ExecUntilSync(a_, "CREATE TABLE lost(x, y, z)");
  for (Db* db : {&b_, &c_}) EXPECT_EQ(db->Int("SELECT count(*) FROM sqlite_schema"), 2);
  FailHeldSync();
  EXPECT_EQ(create.get(), SQLITE_IOERR_FSYNC);
  b_.ExecOk("CREATE TABLE found(x)");
  for (Db* db : {&a_, &b_, &c_}) {
    EXPECT_EQ(db->Exec("INSERT INTO lost VALUES(1, 2, 3)"), SQLITE_ERROR);
    db->ExecOk("INSERT INTO found VALUES(7)");
  }
  for (Db* db : {&a_, &b_, &c_}) {
    EXPECT_EQ(db->Int("SELECT count(*) FROM found WHERE x=7"), 3);
    EXPECT_EQ(db->Text("SELECT group_concat(name) FROM sqlite_schema"), "t,u,found");
  }
  ExpectWorkGoesOn();
}

// The same by a transaction that changes rows, too.
TEST_P(ScenarioTest, ASchemaChangeOnTopOfAFailingCommit) {
  std::future<int> create;
  FailingInsert(a_, [&] {
    create = ExecAsync(b_, "BEGIN; INSERT INTO u VALUES(2); CREATE TABLE lost(x); COMMIT");
    if (with_shim()) {
      EXPECT_TRUE(storage_.WaitForHeldSyncs(2));  // at once, beside the pending one
    }
  });
  // With the shim its own sync succeeds, and yet it may have lost pages to the one that failed.
  if (create.get() != SQLITE_OK) {
    b_.Exec("ROLLBACK");
    EXPECT_EQ(c_.Int("SELECT count(*) FROM sqlite_schema"), 2);
  } else {
    EXPECT_FALSE(with_shim());
    EXPECT_EQ(c_.Int("SELECT count(*) FROM sqlite_schema"), 3);
    c_.ExecOk("DELETE FROM u WHERE x=2");
  }
  ExpectLedger();
  ExpectWorkGoesOn();
}

// ---- Commits without a sync ----

class UnsyncedTest : public FaultTest,
                     public ::testing::WithParamInterface<std::tuple<const char*, const char*>> {
 protected:
  void SetUp() override {
    Start(std::get<0>(GetParam()));
    b_.ExecOk("PRAGMA synchronous=" + Level());
  }
  static std::string Level() { return std::get<1>(GetParam()); }
};

TEST_P(UnsyncedTest, OnTopOfAFailingCommit) {
  const int first = ledger_.Next();
  const int second = ledger_.Next();
  std::future<int> on_top;
  c_.ExecOk("PRAGMA synchronous=" + Level());
  std::future<int> on_top_of_that;
  FailingInsert(a_, [&] {
    on_top = StartToWait(b_, Ledger::InsertOf(first));
    on_top_of_that = StartToWait(c_, Ledger::InsertOf(second));
  });
  const int rc = with_shim() ? SQLITE_IOERR_FSYNC : SQLITE_OK;
  EXPECT_EQ(ledger_.Note(first, on_top.get(), false), rc);
  EXPECT_EQ(ledger_.Note(second, on_top_of_that.get(), false), rc);
  ExpectLedger();
  EXPECT_EQ(Insert(b_, false), SQLITE_OK);
  b_.ExecOk("PRAGMA synchronous=FULL");
  c_.ExecOk("PRAGMA synchronous=FULL");
  ExpectWorkGoesOn();
}

TEST_P(UnsyncedTest, AfterAFailedCommit) {
  FailingInsert(a_);
  EXPECT_EQ(Insert(b_, false), SQLITE_OK);
  ExpectLedger();
  b_.ExecOk("PRAGMA synchronous=FULL");
  ExpectWorkGoesOn();
}

// Stock SQLite loses commits here: the failed sync drops the frame of the unsynced commit, and
// what is committed and synced on top of that is not found after a power cut.
TEST_P(UnsyncedTest, BeneathAFailingCommit) {
  if (!with_shim()) GTEST_SKIP() << "stock SQLite loses acknowledged commits";
  EXPECT_EQ(Insert(b_, false), SQLITE_OK);
  FailingInsert(a_);
  InsertOk(a_);
  ExpectLedger();
  b_.ExecOk("PRAGMA synchronous=FULL");
  ExpectWorkGoesOn();
}

INSTANTIATE_TEST_SUITE_P(, UnsyncedTest,
                         ::testing::Combine(::testing::Values("store", "gc"),
                                            ::testing::Values("NORMAL", "OFF")),
                         [](const auto& test) {
                           return NameOfVfs(std::get<0>(test.param)) + std::get<1>(test.param);
                         });

// ---- Caches ----

// Write transactions that change nothing, over undurable commits: each leaves the pages that it
// read in its cache.
TEST_P(ScenarioTest, ACacheFilledWhileWritingHoldsNoFailedRow) {
  const char* const kTransactions[] = {
      "BEGIN IMMEDIATE; SELECT n FROM t; ROLLBACK", "BEGIN IMMEDIATE; SELECT n FROM t; COMMIT",
      "DELETE FROM t WHERE n < 0", "BEGIN; UPDATE t SET n=0 WHERE n<0; ROLLBACK"};
  for (const char* transaction : kTransactions) {
    SCOPED_TRACE(transaction);
    std::future<int> ended;
    FailingInsert(a_, [&] { ended = StartToWait(b_, transaction); });
    // A ROLLBACK reports no error.
    const int rc = ended.get();
    EXPECT_TRUE(rc == SQLITE_OK || (with_shim() && rc == SQLITE_IOERR_FSYNC)) << rc;
    b_.Exec("ROLLBACK");
    ledger_.ExpectIn(b_);  // right away, with no other statement in between
    ExpectLedger();
  }
  ExpectWorkGoesOn();
}

// The same cache while the roll-back cannot be done yet: no answer, rather than a wrong one.
TEST_P(ScenarioTest, ACacheFilledWhileWritingHoldsNoFailedRowBeforeTheRollBack) {
  std::future<int> ended;
  FailingInsert(a_, [&] {
    ended = StartToWait(b_, "BEGIN IMMEDIATE; SELECT n FROM t; ROLLBACK");
    c_.ExecOk("BEGIN IMMEDIATE");
  });
  ended.get();
  if (with_shim()) {
    EXPECT_EQ(b_.Exec("SELECT n FROM t"), SQLITE_IOERR_FSYNC);
  } else {
    ledger_.ExpectIn(b_);
  }
  c_.Exec("ROLLBACK");
  ledger_.ExpectIn(b_);
  ExpectWorkGoesOn();
}

// ---- Several writers and readers ----

TEST_P(ScenarioTest, AWriterInTheMiddleOfItsTransaction) {
  const int n = ledger_.Next();
  FailingInsert(a_, [&] { b_.ExecOk("BEGIN IMMEDIATE; " + Ledger::InsertOf(n)); });
  ledger_.Note(n, b_.Exec("COMMIT"));
  b_.Exec("ROLLBACK");
  ExpectLedger();
  ExpectWorkGoesOn();
}

TEST_P(ScenarioTest, AWriterThatHasSpilled) {
  b_.ExecOk("PRAGMA cache_size=5");
  const int n = ledger_.Next();
  FailingInsert(a_, [&] {
    b_.ExecOk("BEGIN IMMEDIATE; INSERT INTO u VALUES(zeroblob(200000)); " + Ledger::InsertOf(n));
  });
  ledger_.Note(n, b_.Exec("COMMIT"));
  b_.Exec("ROLLBACK");
  b_.ExecOk("DELETE FROM u WHERE typeof(x)='blob'");
  ExpectLedger();
  ExpectWorkGoesOn();
}

TEST_P(ScenarioTest, ReadersOnSnapshotsAboveTheDurableTail) {
  FailingInsert(a_, [&] {
    for (Db* db : {&b_, &c_}) db->ExecOk("BEGIN; SELECT x FROM u");
  });
  for (Db* db : {&b_, &c_}) {
    const int rc = db->Exec("SELECT n FROM t");
    EXPECT_TRUE(rc == SQLITE_OK || (with_shim() && rc == SQLITE_IOERR_FSYNC)) << rc;
    // No transaction of SQLite survives an I/O error with its snapshot: but the user's does.
    db->Exec("ROLLBACK");
  }
  ExpectLedger();
  ExpectWorkGoesOn();
}

// A failure, and then another one while the roll-back of the first is under way or not yet
// possible.
TEST_P(ScenarioTest, ASecondFailureBeforeTheRollBackOfTheFirst) {
  FailingInsert(a_, [&] { b_.ExecOk("BEGIN IMMEDIATE; INSERT INTO u VALUES(2)"); });
  storage_.FailSyncs(FileKind::kWal, 1, 2);
  EXPECT_NE(b_.Exec("COMMIT"), SQLITE_OK);
  b_.Exec("ROLLBACK");
  ExpectLedger();
  storage_.FailSyncs(FileKind::kWal, 1, 0);
  ExpectWorkGoesOn();
}

INSTANTIATE_TEST_SUITE_P(, ScenarioTest, ::testing::Values("store", "gc"),
                         [](const auto& test) { return NameOfVfs(test.param); });

}  // namespace
}  // namespace groupcommit::testing
