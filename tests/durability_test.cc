// COMMIT returns only once the commit is durable: each rule about log positions, with the sync held
// in the storage so that nothing depends on time.
#include <sqlite3.h>

#include <thread>

#include "support/coordinator_fixture.h"
#include "support/queue_of.h"
#include "support/shim_test.h"

namespace groupcommit::testing {
namespace {

using DurabilityTest = ShimTest;

TEST_F(DurabilityTest, CommitWaitsForItsSync) {
  Db db = OpenWithTable();
  std::future<int> commit = ExecUntilSync(db, "INSERT INTO t VALUES('x')");
  EXPECT_FALSE(IsReady(commit));
  EXPECT_EQ(RowsAfterPowerCut(), 1);
  storage_.OpenGate();
  EXPECT_EQ(commit.get(), SQLITE_OK);
  EXPECT_EQ(RowsAfterPowerCut(), 2);
}

// The commits that come while a sync runs are not covered by it, and share the next one.
TEST_F(DurabilityTest, CommitsDuringASyncShareTheNextOne) {
  constexpr int kFollowers = 6;
  Db leader = OpenWithTable();
  std::vector<Db> followers;
  for (int i = 0; i < kFollowers; i++) followers.push_back(OpenWithTable());
  const int64_t syncs = WalSyncs();
  const int64_t rows = leader.Int("SELECT count(*) FROM t");
  Db observer(path(), "gc");  // a connection that waits holds its own mutex

  storage_.HoldSyncs(FileKind::kWal);
  std::vector<std::future<int>> commits;
  commits.push_back(ExecAsync(leader, "INSERT INTO t VALUES('leader')"));
  ASSERT_TRUE(storage_.WaitForHeldSyncs(1));
  for (Db& db : followers) {
    commits.push_back(ExecAsync(db, "INSERT INTO t VALUES('follower')"));
    // The commit is visible to the next writer, and pending.
    while (Stats(observer).pending < static_cast<int64_t>(commits.size()))
      std::this_thread::yield();
  }
  storage_.ReleaseSyncs(1);
  EXPECT_EQ(commits[0].get(), SQLITE_OK);
  ASSERT_TRUE(storage_.WaitForHeldSyncs(1));
  EXPECT_EQ(RowsAfterPowerCut(), rows + 1);
  for (size_t i = 1; i < commits.size(); i++) EXPECT_FALSE(IsReady(commits[i])) << i;
  storage_.OpenGate();
  for (size_t i = 1; i < commits.size(); i++) EXPECT_EQ(commits[i].get(), SQLITE_OK) << i;
  EXPECT_EQ(RowsAfterPowerCut(), rows + 1 + kFollowers);
  EXPECT_EQ(WalSyncs() - syncs, 2);
}

// A file offset falls back when the log restarts: an old sync must not seem to cover a new commit.
TEST_F(DurabilityTest, EveryCommitAfterARestartOfTheLogIsSynced) {
  Db db = OpenWithTable();
  for (int i = 0; i < 10; i++) db.ExecOk("INSERT INTO t VALUES('long log')");
  for (const char* mode : {"RESTART", "TRUNCATE", "PASSIVE"}) {
    db.ExecOk(std::string("PRAGMA wal_checkpoint(") + mode + ")");
    for (int i = 0; i < 3; i++) {
      const int64_t rows = db.Int("SELECT count(*) FROM t");
      db.ExecOk("INSERT INTO t VALUES('low offset')");
      EXPECT_EQ(RowsAfterPowerCut(), rows + 1) << mode << i;
    }
  }
}

// The same, where another process restarted the log behind our back.
TEST_F(DurabilityTest, EveryCommitAfterAnotherProcessRestartedTheLogIsSynced) {
  if (!HaveStockShell()) GTEST_SKIP() << "the sqlite3 shell is not installed";
  Db db = OpenWithTable();
  for (int round = 0; round < 4; round++) {
    for (int i = 0; i < 10; i++) db.ExecOk("INSERT INTO t VALUES('long log')");
    const std::string out =
        StockShell(path(), "PRAGMA wal_checkpoint(RESTART);\nINSERT INTO t VALUES('other');\n");
    ASSERT_EQ(out.substr(0, 2), "0|") << out;
    for (int i = 0; i < 3; i++) {
      const int64_t syncs = WalSyncs();
      storage_.HoldSyncs(FileKind::kWal);
      std::future<int> commit = ExecAsync(db, "INSERT INTO t VALUES('ours')");
      ASSERT_TRUE(storage_.WaitForHeldSyncs(1)) << "a commit without a sync";
      EXPECT_FALSE(IsReady(commit));
      storage_.OpenGate();
      EXPECT_EQ(commit.get(), SQLITE_OK);
      EXPECT_EQ(WalSyncs() - syncs, 1);
    }
  }
}

// A checkpoint's sync settles the commits that wait, before it copies a page.
TEST_F(DurabilityTest, ACheckpointsSyncCoversPendingCommits) {
  Db db = OpenWithTable();
  Db other = OpenWithTable();
  Db checkpointer = OpenWithTable();
  Db observer(path(), "gc");
  std::future<int> leader = ExecUntilSync(db, "INSERT INTO t VALUES('x')");
  std::future<int> follower = ExecAsync(other, "INSERT INTO t VALUES('y')");
  while (Stats(observer).pending < 2) std::this_thread::yield();
  std::future<int> checkpoint = ExecAsync(checkpointer, "PRAGMA wal_checkpoint");
  ASSERT_TRUE(storage_.WaitForHeldSyncs(2));
  // The storage lets the oldest through first, so open the gate for all: the point is that the
  // follower needs no third sync.
  const int64_t syncs = WalSyncs();
  storage_.OpenGate();
  EXPECT_EQ(checkpoint.get(), SQLITE_OK);
  EXPECT_EQ(leader.get(), SQLITE_OK);
  EXPECT_EQ(follower.get(), SQLITE_OK);
  EXPECT_LE(WalSyncs() - syncs, 1);
}

// wal.c: walIndexAppend() may fail after the sync, when the shared memory has to grow. The commit
// failed: its target must not be waited for, nor may its bytes count for anything.
TEST_F(DurabilityTest, ACommitThatFailsAfterItsSyncWasDeferredLeavesNothingBehind) {
  Db db;
  ASSERT_EQ(db.Open(path(), "gc"), SQLITE_OK);
  db.ExecOk(
      "PRAGMA page_size=512; PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;"
      "PRAGMA wal_autocheckpoint=0; CREATE TABLE t(x); INSERT INTO t VALUES('first')");
  storage_.SetFaultHook([](const Call& call) {
    // The second region of the wal-index: frames from 4063 on.
    return call.op == Op::kShmMap && call.offset == 1 ? SQLITE_IOERR_SHMSIZE : SQLITE_OK;
  });
  const groupcommit_statistics before = Stats(db);
  EXPECT_EQ(db.Exec("INSERT INTO t VALUES(zeroblob(3000000))"), SQLITE_IOERR_SHMSIZE);
  EXPECT_EQ(Stats(db).deferred - before.deferred, 1) << "the test missed the point";
  EXPECT_EQ(Stats(db).syncs, before.syncs) << "a failed commit was waited for";
  storage_.SetFaultHook(nullptr);

  EXPECT_EQ(db.Int("SELECT count(*) FROM t"), 1);
  for (int i = 0; i < 3; i++) {
    db.ExecOk("INSERT INTO t VALUES('after')");
    EXPECT_EQ(RowsAfterPowerCut(), 2 + i);
  }
  db.ExecOk("INSERT INTO t VALUES(zeroblob(3000000))");
  EXPECT_EQ(RowsAfterPowerCut(), 5);
}

// synchronous=NORMAL does not wait for a sync of its own, but a roll-back of what lies beneath
// would take an acknowledged commit along.
TEST_F(DurabilityTest, ANormalCommitWaitsForThePendingOnesBeneath) {
  Db full = OpenWithTable();
  Db normal = OpenWithTable();
  Db observer(path(), "gc");
  // A table of its own, so that it reads no page of the pending commit.
  normal.ExecOk("PRAGMA synchronous=NORMAL; CREATE TABLE u(x)");
  normal.Int("SELECT count(*) FROM u");
  std::future<int> beneath = ExecUntilSync(full, "INSERT INTO t VALUES('full')");
  std::future<int> on_top = ExecAsync(normal, "INSERT INTO u VALUES('normal')");
  ExpectToWait(on_top, observer, 2);
  storage_.OpenGate();
  EXPECT_EQ(beneath.get(), SQLITE_OK);
  EXPECT_EQ(on_top.get(), SQLITE_OK);
}

// Else one that has the lock before its snapshot could load a schema that is taken back.
TEST_F(DurabilityTest, ASchemaChangeOnTopOfPendingOnesKeepsWritersOut) {
  Db full = OpenWithTable();
  Db normal = OpenWithTable();
  Db observer(path(), "gc");
  normal.ExecOk("PRAGMA synchronous=NORMAL; SELECT * FROM sqlite_schema");
  std::future<int> beneath = ExecUntilSync(full, "INSERT INTO t VALUES('full')");
  std::future<int> on_top = ExecAsync(normal, "CREATE TABLE u(x)");
  ExpectToWait(on_top, observer, 2);
  EXPECT_FALSE(QueueOf(observer).TryAcquire(kSomebody));
  FailHeldSync();
  EXPECT_EQ(beneath.get(), SQLITE_IOERR_FSYNC);
  EXPECT_EQ(on_top.get(), SQLITE_IOERR_FSYNC);
  EXPECT_EQ(observer.Exec("INSERT INTO u VALUES('of no table')"), SQLITE_ERROR);
}

// But rows are for the next one to build on: it shares the sync.
TEST_F(DurabilityTest, ANormalCommitOnTopOfPendingOnesLetsWritersIn) {
  Db full = OpenWithTable();
  Db normal = OpenWithTable();
  Db observer(path(), "gc");
  normal.ExecOk("PRAGMA synchronous=NORMAL; SELECT * FROM t");
  std::future<int> beneath = ExecUntilSync(full, "INSERT INTO t VALUES('full')");
  std::future<int> on_top = ExecAsync(normal, "INSERT INTO t VALUES('normal')");
  ExpectToWait(on_top, observer, 2);
  EXPECT_TRUE(QueueOf(observer).TryAcquire(kSomebody));
  QueueOf(observer).Release(kSomebody);
  storage_.OpenGate();
  EXPECT_EQ(beneath.get(), SQLITE_OK);
  EXPECT_EQ(on_top.get(), SQLITE_OK);
}

// Frames that are found in the log at the first open may not be durable: whoever wrote them may
// have been killed before its sync.
TEST_F(DurabilityTest, FramesFoundAtTheFirstOpenAreSyncedBeforeAReaderSeesThem) {
  {
    // A process that dies after its commit became visible: a stock one with synchronous=NORMAL.
    Db dead(path(), "store");
    dead.ExecOk(
        "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; CREATE TABLE t(x);"
        "INSERT INTO t VALUES('first'); PRAGMA wal_checkpoint; INSERT INTO t VALUES(2)");
    storage_.SetFaultHook([](const Call& call) {  // no checkpoint at close, so the log stays
      return call.op == Op::kSync || call.op == Op::kDelete ? SQLITE_IOERR : SQLITE_OK;
    });
    int persist = 1;
    sqlite3_file_control(dead.get(), "main", SQLITE_FCNTL_PERSIST_WAL, &persist);
    sqlite3_db_config(dead.get(), SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, nullptr);
    dead.Close();
    storage_.SetFaultHook(nullptr);
  }
  Db reader(path(), "gc");
  const int64_t syncs = WalSyncs();
  EXPECT_EQ(reader.Int("SELECT count(*) FROM t"), 2);
  EXPECT_EQ(WalSyncs() - syncs, 1);
  EXPECT_EQ(RowsAfterPowerCut(), 2);
}

// When the file is replaced under open connections, newcomers at the same path are another
// database.
// Whoever opens the log later finds frames of which it is known whether they are durable.
TEST_F(DurabilityTest, OnlyTheFirstToOpenTheLogFindsAnything) {
  Db first = OpenWithTable();
  const int64_t syncs = WalSyncs();
  Db second(path(), "gc");
  EXPECT_EQ(second.Int("SELECT count(*) FROM t"), 1);
  EXPECT_EQ(Stats(second).pending, 0);
  EXPECT_EQ(WalSyncs(), syncs);
}

// A newcomer's sync goes through the log of another one (Database::SyncOpenLog()).
TEST_F(DurabilityTest, ALogThatSomebodyElseSyncsIsNotClosedMeanwhile) {
  Db old = OpenWithTable();
  Db late = OpenWal();
  std::future<int> commit = ExecUntilSync(late, "INSERT INTO t VALUES('x')");
  BackgroundCall close([&old] { return old.Close(); });
  close.AwaitParked();
  EXPECT_FALSE(close.returned());
  storage_.OpenGate();
  EXPECT_EQ(commit.get(), SQLITE_OK);
  EXPECT_EQ(close.Result(), SQLITE_OK);
}

TEST_F(DurabilityTest, AFileThatReplacedAnotherOneSharesNothingWithIt) {
  Db old = OpenWithTable();
  ASSERT_EQ(rename(path().c_str(), path("moved.db").c_str()), 0);
  ASSERT_EQ(rename((path() + "-wal").c_str(), path("moved.db-wal").c_str()), 0);
  ASSERT_EQ(rename((path() + "-shm").c_str(), path("moved.db-shm").c_str()), 0);
  Db fresh = OpenWithTable();
  EXPECT_EQ(Stats(old).connections, 1);
  EXPECT_EQ(Stats(fresh).connections, 1);
}

// A shim above ours may keep SQLITE_FCNTL_COMMIT_PHASETWO to itself: then the commit is waited for
// when its snapshot ends.
class NoPhaseTwoTest : public DurabilityTest {
 protected:
  // From now on `db` is opened through such a shim.
  void Swallow(const Db& db) {
    ASSERT_EQ(sqlite3_file_control(db.get(), "main", SQLITE_FCNTL_FILE_POINTER, &file_), SQLITE_OK);
    ours_ = file_->pMethods;
    methods_ = *ours_;
    methods_.xFileControl = [](sqlite3_file* file, int op, void* arg) {
      return op == SQLITE_FCNTL_COMMIT_PHASETWO ? SQLITE_OK : ours_->xFileControl(file, op, arg);
    };
    file_->pMethods = &methods_;
  }
  ~NoPhaseTwoTest() override { ours_ = nullptr; }

  sqlite3_file* file_ = nullptr;
  sqlite3_io_methods methods_{};
  static inline const sqlite3_io_methods* ours_ = nullptr;
};

TEST_F(NoPhaseTwoTest, ACommitIsDurableWhenItsSnapshotEnds) {
  Db db = OpenWithTable();
  Swallow(db);
  const int64_t syncs = WalSyncs();
  db.ExecOk("INSERT INTO t VALUES('x')");
  EXPECT_EQ(WalSyncs(), syncs + 1);
  EXPECT_EQ(RowsAfterPowerCut(), 2);
  db.Close();
}

}  // namespace
}  // namespace groupcommit::testing
