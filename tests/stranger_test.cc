// A sync of the log fails while another process is at the same database: it knows nothing of the
// hole, and what it commits must not be lost. With "each told", every open handle learns of a
// failed sync, as on Linux; else only the first that asks.
#include <sqlite3.h>

#include <atomic>
#include <future>
#include <string>
#include <thread>

#include "support/shim_test.h"

namespace groupcommit::testing {
namespace {

class StrangerFixture : public ShimTest {
 protected:
  // Longer than a connection tries to take back what failed.
  static constexpr int kLongMillis = 1'500;

  void Start(bool each_told) {
    storage_.SetErrorPerHandle(each_told);
    a_ = OpenWithTable();
    b_ = OpenWal();
    observer_ = OpenWal();
    observer_.Int("SELECT count(*) FROM t");
    stranger_ = OpenStranger();
  }

  Db OpenStranger() {
    Db db(path(), "store");
    db.SetBusyTimeout(0);
    db.ExecOk("PRAGMA synchronous=FULL");
    db.Int("SELECT count(*) FROM t");
    return db;
  }

  // A commit of a_ whose sync fails, while that is under way `meanwhile` happens.
  template <class Meanwhile>
  void FailACommit(Meanwhile meanwhile) {
    std::future<int> commit = ExecUntilSync(a_, "INSERT INTO t VALUES('failed')");
    meanwhile();
    EXPECT_EQ(storage_.ReleaseSyncs(1, SQLITE_IOERR_FSYNC), 1);
    storage_.OpenGate();
    EXPECT_EQ(commit.get(), SQLITE_IOERR_FSYNC);
  }

  // The stranger commits; if it is told of the failure, it tries again.
  int Insert() {
    int acknowledged = 0;
    for (int i = 0; i < 2; i++) {
      acknowledged += stranger_.Exec("INSERT INTO t VALUES('acknowledged')") == SQLITE_OK;
    }
    return acknowledged;
  }

  // Ends the transaction that it has begun, and makes others.
  void ExpectNothingItCommitsIsLost() {
    stranger_.ExecOk("INSERT INTO t VALUES('acknowledged')");
    int acknowledged = stranger_.Exec("COMMIT") == SQLITE_OK;
    stranger_.Exec("ROLLBACK");
    acknowledged += Insert();
    EXPECT_GT(acknowledged, 0);
    EXPECT_EQ(AfterPowerCut("acknowledged"), acknowledged);
  }

  // How many such rows a power cut leaves.
  int64_t AfterPowerCut(const std::string& row, CutMode mode = CutMode::kDropUnsynced,
                        uint64_t seed = 0) {
    const std::string cut = dir_.path() + "/cut";
    storage_.CutInto(cut, mode, seed);
    ExpectIntact(cut + "/test.db");
    return Db(cut + "/test.db").Int("SELECT count(*) FROM t WHERE x='" + row + "'");
  }

  // So much that a power cut may leave half of it in the database file.
  void FillBig() {
    a_.ExecOk("CREATE TABLE big(k INTEGER PRIMARY KEY, v); CREATE INDEX i ON big(v)");
    a_.ExecOk(InsertIntoBig(1) + "; PRAGMA wal_checkpoint(TRUNCATE); INSERT INTO t VALUES('x')");
  }
  static std::string InsertIntoBig(int first) {
    const std::string begin = std::to_string(first);
    const std::string last = std::to_string(first + 1'999);
    return "WITH RECURSIVE n(k) AS (SELECT " + begin + " UNION ALL SELECT k+1 FROM n WHERE k<" +
           last + ") INSERT INTO big SELECT k, hex(randomblob(20)) FROM n";
  }

  // The power goes while `db` makes a checkpoint, and has copied what it wants to.
  void CutDuringACheckpoint(Db& db) {
    storage_.HoldSyncs(FileKind::kMainDb);
    std::future<int> checkpoint;
    for (int i = 0; i < 2 && storage_.HeldSyncs() == 0; i++) {  // one may be told of the failure
      checkpoint = ExecAsync(db, "PRAGMA wal_checkpoint(PASSIVE)");
      while (storage_.HeldSyncs() == 0 && !IsReady(checkpoint)) std::this_thread::yield();
    }
    for (uint64_t seed = 1; seed <= 10; seed++) AfterPowerCut("x", CutMode::kKeepRandom, seed);
    storage_.OpenGate();
    checkpoint.get();
  }

  void CloseOurs() {
    for (Db* db : {&a_, &b_, &observer_}) EXPECT_EQ(db->Close(), SQLITE_OK);
  }

  // The commit fails while a FULL checkpoint of `db` waits for its snapshot, and may be told of it.
  void FailACommitUnderFullCheckpoint(Db& db) {
    std::atomic<int> asked{0};
    std::future<int> checkpoint;
    FailACommit([&] {
      storage_.SetObserver([&](const Call& call) {
        if (call.op == Op::kShmLock && call.offset > 3 &&
            call.flags == (SQLITE_SHM_LOCK | SQLITE_SHM_EXCLUSIVE)) {
          asked++;
        }
      });
      checkpoint = ExecAsync(db, "PRAGMA wal_checkpoint(FULL)");
      while (asked < 3 && !IsReady(checkpoint)) std::this_thread::yield();
      EXPECT_FALSE(IsReady(checkpoint));
    });
    const int rc = checkpoint.get();
    EXPECT_TRUE(rc == SQLITE_OK || rc == SQLITE_IOERR_FSYNC) << rc;
    storage_.SetObserver(nullptr);
    observer_.Exec("BEGIN IMMEDIATE; ROLLBACK");  // somebody of ours comes by
    EXPECT_EQ(Stats(observer_).fenced, 0);
    EXPECT_EQ(stranger_.Int("SELECT count(*) FROM t WHERE x='failed'"), 0);
  }

  Db a_, b_, observer_, stranger_;
};

class StrangerTest : public StrangerFixture, public ::testing::WithParamInterface<bool> {
 protected:
  void SetUp() override { Start(GetParam()); }
};

INSTANTIATE_TEST_SUITE_P(, StrangerTest, ::testing::Values(false, true), [](const auto& test) {
  return std::string(test.param ? "EachTold" : "OneTold");
});

// ---- It commits on top ----

TEST_P(StrangerTest, InTheMiddleOfItsTransaction) {
  FailACommit([this] { stranger_.ExecOk("BEGIN IMMEDIATE"); });
  ExpectNothingItCommitsIsLost();
}

TEST_P(StrangerTest, TheLastOfUsClosesMeanwhile) {
  FailACommit([this] { stranger_.ExecOk("BEGIN IMMEDIATE"); });
  CloseOurs();
  ExpectNothingItCommitsIsLost();
}

TEST_P(StrangerTest, TheOneOfUsClosesThatKeepsItOut) {
  stranger_.ExecOk("PRAGMA synchronous=NORMAL");
  FailACommit([this] { stranger_.ExecOk("INSERT INTO t VALUES('on top, and not durable')"); });
  EXPECT_EQ(Stats(observer_).fenced, 1);
  stranger_.ExecOk("PRAGMA synchronous=FULL");
  EXPECT_EQ(stranger_.Exec("INSERT INTO t VALUES('acknowledged')"), SQLITE_BUSY);
  a_.Close();
  const int acknowledged = Insert();
  EXPECT_GT(acknowledged, 0);
  EXPECT_EQ(AfterPowerCut("acknowledged"), acknowledged);
  EXPECT_EQ(Stats(observer_).fenced, 0) << "the others may go on";
}

// It cannot be taken back before the checkpoint ends.
TEST_P(StrangerTest, TheOneOfUsClosesThatKeepsItOutDuringACheckpointOfOurs) {
  for (const bool on_top : {false, true}) {
    storage_.HoldSyncs(FileKind::kMainDb);
    std::future<int> checkpoint = ExecAsync(b_, "PRAGMA wal_checkpoint(PASSIVE)");
    ASSERT_TRUE(storage_.WaitForHeldSyncs(1));
    Db closing = OpenWal();
    storage_.FailSyncs(FileKind::kWal, 1, 1);
    EXPECT_EQ(closing.Exec("INSERT INTO t VALUES('failed')"), SQLITE_IOERR_FSYNC);
    EXPECT_EQ(stranger_.Exec("INSERT INTO t VALUES('acknowledged')"), SQLITE_BUSY);
    closing.Close();
    const int acknowledged = on_top ? Insert() : 0;
    EXPECT_EQ(acknowledged > 0, on_top);
    EXPECT_EQ(AfterPowerCut("acknowledged"), acknowledged);
    storage_.OpenGate();
    EXPECT_EQ(checkpoint.get(), SQLITE_OK);
    EXPECT_EQ(AfterPowerCut("acknowledged"), acknowledged);
    EXPECT_EQ(Stats(observer_).fenced, on_top);
    EXPECT_EQ(stranger_.Int("SELECT count(*) FROM t WHERE x='failed'"), on_top);
    if (!on_top) a_.ExecOk("INSERT INTO t VALUES('x')");  // for the next checkpoint
  }
}

// Nor before the transaction ends.
TEST_P(StrangerTest, TheOneOfUsClosesThatKeepsItOutWhileAnotherOneWrites) {
  FillBig();
  std::future<int> commit = ExecUntilSync(a_, InsertIntoBig(2'001));
  b_.ExecOk("BEGIN IMMEDIATE");
  FailHeldSync();
  EXPECT_EQ(commit.get(), SQLITE_IOERR_FSYNC);
  EXPECT_EQ(stranger_.Int("PRAGMA wal_checkpoint(PASSIVE)"), 1) << "it is not busy";
  a_.Close();
  CutDuringACheckpoint(stranger_);
  b_.Exec("ROLLBACK");
  for (Db* db : {&b_, &observer_}) EXPECT_EQ(db->Close(), SQLITE_OK);
  AfterPowerCut("x");
}

// ---- Its own sync fails, and loses what is ours ----

// (Where only the first that asks is told, nobody of ours can know, with stock SQLite neither.)
class StrangersErrorTest : public StrangerFixture {
 protected:
  void SetUp() override { Start(true); }
};

// The next of ours to sync has opened the log after that, and is not told.
TEST_F(StrangersErrorTest, TheLeadersHandleIsNewerThanTheError) {
  a_.ExecOk("PRAGMA groupcommit_policy='group(max_wait_us=10000000,max_batch=2)'");
  std::future<int> first = ExecAsync(a_, "INSERT INTO t VALUES('ours')");
  ExpectToWait(first, observer_, 1);  // for company
  storage_.FailSyncs(FileKind::kWal, 1, 1);
  EXPECT_EQ(stranger_.Exec("INSERT INTO t VALUES('its')"), SQLITE_IOERR_FSYNC);
  Db late = OpenWal();
  const int second = late.Exec("INSERT INTO t VALUES('ours')");
  EXPECT_EQ(AfterPowerCut("ours"), (first.get() == SQLITE_OK) + (second == SQLITE_OK));
}

TEST_F(StrangersErrorTest, TheHandleOfASyncThatIsNotSharedIsNewerThanTheError) {
  a_.ExecOk("PRAGMA groupcommit_policy='group(max_wait_us=10000000,max_batch=100)'");
  std::future<int> commit = ExecAsync(a_, "INSERT INTO t VALUES('ours')");
  ExpectToWait(commit, observer_, 1);
  storage_.FailSyncs(FileKind::kWal, 1, 1);
  EXPECT_EQ(stranger_.Exec("INSERT INTO t VALUES('its')"), SQLITE_IOERR_FSYNC);
  Db late = OpenWal();
  late.Exec("CREATE TABLE u(x)");
  EXPECT_EQ(AfterPowerCut("ours"), commit.get() == SQLITE_OK);
}

// ---- It makes a checkpoint ----

// Longer than we try; and nobody of ours comes by when it is over.
TEST_P(StrangerTest, ItsCheckpointOutlastsOurPatience) {
  Db another = OpenStranger();
  storage_.HoldSyncs(FileKind::kMainDb);
  std::future<int> checkpoint = ExecAsync(stranger_, "PRAGMA wal_checkpoint(PASSIVE)");
  ASSERT_TRUE(storage_.WaitForHeldSyncs(1));
  storage_.FailSyncs(FileKind::kWal, 1, 1);
  EXPECT_EQ(a_.Exec("INSERT INTO t VALUES('failed')"), SQLITE_IOERR_FSYNC);
  storage_.OpenGate();
  EXPECT_EQ(checkpoint.get(), SQLITE_OK);
  for (int i = 0; i < 2; i++) another.Exec("PRAGMA wal_checkpoint(PASSIVE)");  // one may be told
  observer_.Exec("BEGIN IMMEDIATE; ROLLBACK");
  EXPECT_EQ(Stats(observer_).fenced, 0);
  EXPECT_EQ(a_.Exec("INSERT INTO t VALUES('after')"), SQLITE_OK);
  EXPECT_EQ(another.Int("SELECT count(*) FROM t WHERE x='failed'"), 0);
  CloseOurs();
  EXPECT_EQ(another.Int("SELECT count(*) FROM t WHERE x='failed'"), 0);
}

// The power goes while the next one copies.
TEST_P(StrangerTest, ItsNextCheckpointCopiesNothingThatFailed) {
  FillBig();
  Db another = OpenStranger();
  storage_.HoldSyncs(FileKind::kMainDb);
  std::future<int> checkpoint = ExecAsync(stranger_, "PRAGMA wal_checkpoint(PASSIVE)");
  ASSERT_TRUE(storage_.WaitForHeldSyncs(1));
  storage_.FailSyncs(FileKind::kWal, 1, 1);
  EXPECT_EQ(a_.Exec(InsertIntoBig(2'001)), SQLITE_IOERR_FSYNC);
  storage_.OpenGate();
  EXPECT_EQ(checkpoint.get(), SQLITE_OK);
  CutDuringACheckpoint(another);
}

// A FULL one waits for the snapshot of the commit that fails, for longer than we try.
TEST_P(StrangerTest, ItsFullCheckpointWaitsForTheCommitThatFails) {
  if (SqliteWaitsInside())
    GTEST_SKIP() << "with a mutex held that we need: os_unix.c, unixShmLock()";
  stranger_.SetBusyTimeout(kLongMillis);
  FailACommitUnderFullCheckpoint(stranger_);
}

// The same of a connection of ours, which asks for no sync that could be refused.
TEST_P(StrangerTest, OurCheckpointWithoutSyncsWaitsForTheCommitThatFails) {
  b_.SetBusyTimeout(kLongMillis);
  b_.ExecOk("PRAGMA synchronous=OFF");
  FailACommitUnderFullCheckpoint(b_);
  EXPECT_EQ(a_.Exec("INSERT INTO t VALUES('after')"), SQLITE_OK);
  CloseOurs();
  EXPECT_EQ(stranger_.Int("SELECT count(*) FROM t WHERE x='failed'"), 0);
}

}  // namespace
}  // namespace groupcommit::testing
