// Commits that are not durable when COMMIT returns, and the barriers that make them so:
// groupcommit_flush(), LSNs, and the policy interval.
#include <sqlite3.h>

#include <atomic>
#include <chrono>
#include <thread>

#include "support/barrier_test.h"
#include "support/log_capture.h"

namespace groupcommit::testing {
namespace {

class FlushTest : public BarrierTest {
 protected:
  // With a row that is durable.
  Db OpenNormal(const std::string& file = "test.db") {
    Db db = OpenWithTable(file);
    db.ExecOk("PRAGMA synchronous=NORMAL");
    return db;
  }
  static std::future<int> FlushAsync(const Db& db) {
    return std::async(std::launch::async, [&db] { return Flush(db); });
  }
};

TEST_F(FlushTest, MakesNormalCommitsDurable) {
  Db db = OpenNormal();
  Insert(db);
  Insert(db);
  EXPECT_EQ(RowsAfterPowerCut(), 1);
  const int64_t syncs = WalSyncs();
  EXPECT_EQ(Flush(db), SQLITE_OK);
  EXPECT_EQ(RowsAfterPowerCut(), 3);
  EXPECT_EQ(WalSyncs(), syncs + 1);
}

TEST_F(FlushTest, ThePragmaDoesTheSameEachTime) {
  Db db = OpenNormal();
  for (int rows = 2; rows < 5; rows++) {
    Insert(db);
    const int64_t durable = db.Int("PRAGMA groupcommit_flush");
    EXPECT_EQ(durable, DurableLsn(db));
    EXPECT_EQ(RowsAfterPowerCut(), rows);
  }
  EXPECT_EQ(db.Exec("PRAGMA groupcommit_flush = 1"), SQLITE_ERROR);
  EXPECT_GT(db.Int("PRAGMA main.groupcommit_flush"), 0);
}

// Drivers keep statements for the next time.
TEST_F(FlushTest, AStatementThatIsKeptFlushesEachTime) {
  Db db = OpenNormal();
  sqlite3_stmt* flush = nullptr;
  for (int rows = 2; rows < 5; rows++) {
    Insert(db);
    if (flush == nullptr) {
      ASSERT_EQ(sqlite3_prepare_v2(db.get(), "PRAGMA groupcommit_flush", -1, &flush, nullptr),
                SQLITE_OK);
    }
    EXPECT_EQ(sqlite3_step(flush), SQLITE_ROW);
    EXPECT_EQ(RowsAfterPowerCut(), rows);
    sqlite3_reset(flush);
  }
  sqlite3_finalize(flush);
}

TEST_F(FlushTest, CoversTheCommitsOfOtherConnections) {
  Db writer = OpenNormal();
  Db flusher = OpenNormal();
  Db idle(path(), "gc");  // has not read anything yet
  Insert(writer);
  EXPECT_EQ(Flush(flusher), SQLITE_OK);
  EXPECT_EQ(RowsAfterPowerCut(), 3);
  Insert(writer);
  EXPECT_EQ(Flush(idle), SQLITE_OK);
  EXPECT_EQ(RowsAfterPowerCut(), 4);
}

// Also of those without the shim.
TEST_F(FlushTest, CoversTheCommitsOfStrangers) {
  Db db = OpenNormal();
  Db stranger(path(), "store");
  stranger.ExecOk("PRAGMA synchronous=NORMAL");
  Insert(stranger);
  EXPECT_EQ(RowsAfterPowerCut(), 1);
  EXPECT_EQ(Flush(db), SQLITE_OK);
  EXPECT_EQ(RowsAfterPowerCut(), 2);
}

TEST_F(FlushTest, SharesItsSyncWithCommitsAndFlushes) {
  Db normal = OpenNormal();
  Db full = OpenWal();
  Db other = OpenWal();
  Insert(normal);
  storage_.HoldSyncs(FileKind::kWal);
  std::future<int> leader = FlushAsync(normal);
  ASSERT_TRUE(storage_.WaitForHeldSyncs(1));
  std::future<int> commit = ExecAsync(full, "INSERT INTO t VALUES('x')");
  Db observer(path(), "gc");
  ExpectToWait(commit, observer, 2);
  std::future<int> flush = FlushAsync(other);
  ExpectToWait(flush, observer, 3);
  const int64_t syncs = Stats(observer).syncs;
  storage_.OpenGate();
  EXPECT_EQ(leader.get(), SQLITE_OK);
  EXPECT_EQ(commit.get(), SQLITE_OK);
  EXPECT_EQ(flush.get(), SQLITE_OK);
  EXPECT_EQ(Stats(observer).syncs, syncs + 2);
}

TEST_F(FlushTest, WithoutWalItIsRefused) {
  Db db(path(), "gc");
  EXPECT_EQ(Flush(db), SQLITE_OK) << "nothing was ever committed";
  db.ExecOk("PRAGMA journal_mode=DELETE; CREATE TABLE t(x)");
  EXPECT_EQ(Flush(db), SQLITE_ERROR);
  EXPECT_EQ(Stats(db).lsn, 0) << "it has counted a commit that never was";
  EXPECT_EQ(db.Exec("PRAGMA groupcommit_flush"), SQLITE_ERROR);
  EXPECT_NE(std::string(sqlite3_errmsg(db.get())).find("not in WAL mode"), std::string::npos);
  Db memory(":memory:", "gc");
  EXPECT_EQ(Flush(memory), SQLITE_NOTFOUND);
  EXPECT_EQ(groupcommit_flush(nullptr, nullptr), SQLITE_MISUSE);
  sqlite3_int64 lsn = 0;
  for (const auto read : {groupcommit_commit_lsn, groupcommit_durable_lsn}) {
    EXPECT_EQ(read(nullptr, nullptr, &lsn), SQLITE_MISUSE);
    EXPECT_EQ(read(db.get(), nullptr, nullptr), SQLITE_MISUSE);
  }
  EXPECT_EQ(groupcommit_flush(db.get(), "nowhere"), SQLITE_ERROR);
}

// A number would say that something is still to be made durable.
TEST_F(FlushTest, WithoutALogThereIsNothingToNumber) {
  OpenWithTable();  // and closes it, so that there is no log
  Db db(path(), "gc");
  EXPECT_EQ(Flush(db), SQLITE_OK);
  EXPECT_EQ(db.Text("PRAGMA groupcommit_flush"), "0");
  EXPECT_EQ(Stats(db).lsn, Stats(db).durable_lsn);
}

TEST_F(FlushTest, InExclusiveLockingModeToo) {
  Db db = OpenNormal();
  db.ExecOk("PRAGMA locking_mode=EXCLUSIVE");
  Insert(db);
  Insert(db);
  const sqlite3_int64 lsn = CommitLsn(db);
  EXPECT_GT(lsn, DurableLsn(db));
  EXPECT_EQ(RowsAfterPowerCut(), 1);
  EXPECT_EQ(Wait(db, lsn, -1), SQLITE_OK);
  EXPECT_EQ(RowsAfterPowerCut(), 3);
}

TEST_F(FlushTest, AFailureIsToldAndTheCommitIsNotLost) {
  Db db = OpenNormal();
  Insert(db);
  storage_.FailSyncs(FileKind::kWal, 1, 1);
  EXPECT_EQ(Flush(db), SQLITE_IOERR_FSYNC);
  EXPECT_EQ(db.Int("SELECT count(*) FROM t"), 2) << "it had been acknowledged";
  EXPECT_EQ(Flush(db), SQLITE_OK);
  EXPECT_EQ(RowsAfterPowerCut(), 2) << "though the kernel has dropped its pages";
  storage_.FailSyncs(FileKind::kWal, 1, 1);
  Insert(db);
  EXPECT_EQ(db.Exec("PRAGMA groupcommit_flush"), SQLITE_IOERR_FSYNC);
  EXPECT_EQ(Flush(db), SQLITE_OK);
}

// ---- LSNs ----

TEST_F(FlushTest, EveryKindOfCommitHasAnLsn) {
  Db db = OpenWal();
  sqlite3_int64 last = CommitLsn(db);
  const auto expect_new = [&](bool durable) {
    EXPECT_GT(CommitLsn(db), last);
    last = CommitLsn(db);
    EXPECT_EQ(DurableLsn(db) >= last, durable);
  };
  db.ExecOk("CREATE TABLE t(x)");
  expect_new(true);
  Insert(db);
  expect_new(true);
  db.ExecOk("PRAGMA groupcommit_policy=on_each_flush");
  Insert(db);
  expect_new(true);
  db.ExecOk("PRAGMA synchronous=NORMAL");
  Insert(db);
  expect_new(false);
  EXPECT_EQ(Stats(db).pending, 0) << "nobody waits for it";
  db.ExecOk("BEGIN; INSERT INTO t VALUES('y')");
  EXPECT_EQ(CommitLsn(db), last);
  db.ExecOk("ROLLBACK; BEGIN IMMEDIATE; COMMIT; SELECT * FROM t");
  EXPECT_EQ(CommitLsn(db), last) << "there was no commit";
  db.ExecOk("PRAGMA wal_checkpoint");
  EXPECT_GE(DurableLsn(db), last) << "a checkpoint syncs the log";
}

TEST_F(FlushTest, AFailedCommitHasNoLsn) {
  Db db = OpenWithTable();
  const sqlite3_int64 lsn = CommitLsn(db);
  storage_.FailSyncs(FileKind::kWal, 1, 1);
  EXPECT_EQ(db.Exec("INSERT INTO t VALUES('failed')"), SQLITE_IOERR_FSYNC);
  EXPECT_EQ(CommitLsn(db), lsn);
}

TEST_F(FlushTest, AWaitEndsWhenTheCommitIsDurable) {
  Db db = OpenNormal();
  Insert(db);
  const sqlite3_int64 first = CommitLsn(db);
  Insert(db);
  const sqlite3_int64 second = CommitLsn(db);
  EXPECT_EQ(Wait(db, first, 0), SQLITE_BUSY);
  const int64_t syncs = WalSyncs();
  EXPECT_EQ(Wait(db, first, -1), SQLITE_OK);
  EXPECT_EQ(Wait(db, second, 0), SQLITE_OK) << "the sync began after both";
  EXPECT_EQ(WalSyncs(), syncs + 1);
  EXPECT_EQ(RowsAfterPowerCut(), 3);
  EXPECT_EQ(Wait(db, second + 1, -1), SQLITE_MISUSE);
  EXPECT_EQ(Wait(db, -1, -1), SQLITE_MISUSE);
  EXPECT_EQ(Wait(db, 0, 0), SQLITE_OK);
}

TEST_F(FlushTest, AWaitWithALimitEndsThoughTheSyncDoesNot) {
  Db db = OpenNormal();
  Insert(db);
  storage_.HoldSyncs(FileKind::kWal);
  EXPECT_EQ(Wait(db, CommitLsn(db), 1), SQLITE_BUSY);
  ASSERT_TRUE(storage_.WaitForHeldSyncs(1));
  storage_.OpenGate();
  EXPECT_EQ(Wait(db, CommitLsn(db), 1'000'000), SQLITE_OK);
  EXPECT_EQ(RowsAfterPowerCut(), 2);
}

// A window is for as many commits as others have appended, and those have their own.
TEST_F(FlushTest, NobodyWaitsForCompany) {
  Db db = OpenNormal();
  db.ExecOk("PRAGMA groupcommit_policy='group(max_wait_us=1000,max_batch=64)'");
  Insert(db);
  EXPECT_EQ(Wait(db, CommitLsn(db), -1), SQLITE_OK);
  Insert(db);
  EXPECT_EQ(groupcommit_flush(db.get(), "main"), SQLITE_OK);
  EXPECT_EQ(Stats(db).windows_filled + Stats(db).windows_expired, 0);
}

// Nor by what is done about a failure, for which somebody else's lock is in the way.
TEST_F(FlushTest, AWaitWithALimitEndsAsTheSyncFails) {
  Db db = OpenNormal();
  Insert(db);
  Db stranger(path(), "store");
  stranger.ExecOk("BEGIN IMMEDIATE");
  std::atomic<int> asked{0};
  storage_.SetObserver([&asked](const Call& call) {
    const bool is_request = (call.flags & SQLITE_SHM_LOCK) != 0;
    if (call.op == Op::kShmLock && call.offset == 0 && is_request) asked++;
  });
  storage_.FailSyncs(FileKind::kWal, 1, 1);
  EXPECT_EQ(Wait(db, CommitLsn(db), 60'000), SQLITE_IOERR_FSYNC);
  storage_.SetObserver(nullptr);
  EXPECT_LT(asked, 10) << "it has asked for the write lock again and again";
  stranger.ExecOk("ROLLBACK");
}

// The commit frame is not the last thing that is written.
TEST_F(FlushTest, ACommitThatRewroteItsFramesIsDurable) {
  Db db = OpenWithTable();
  db.ExecOk("PRAGMA cache_size=5; CREATE TABLE big(k INTEGER PRIMARY KEY, v)");
  db.ExecOk(
      "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<200) "
      "INSERT INTO big SELECT i, zeroblob(1000) FROM n");
  const int64_t commits = Stats(db).commits;
  db.ExecOk("BEGIN; UPDATE big SET v=randomblob(1000); UPDATE big SET v=randomblob(1000); COMMIT");
  EXPECT_EQ(Stats(db).commits, commits + 1);
  EXPECT_EQ(Wait(db, CommitLsn(db), 0), SQLITE_OK);
}

// Without a log that is open there is nothing that the library's thread could sync.
TEST_F(FlushTest, WaitingForAWhileOnAConnectionThatHasReadNothing) {
  Db idle(path(), "gc");
  Db db = OpenWithTable();
  sqlite3_db_config(db.get(), SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, nullptr);
  db.ExecOk("PRAGMA synchronous=NORMAL");
  Insert(db);
  const sqlite3_int64 lsn = CommitLsn(db);
  EXPECT_EQ(db.Close(), SQLITE_OK);
  EXPECT_LT(DurableLsn(idle), lsn);
  EXPECT_EQ(Wait(idle, lsn, 30'000), SQLITE_OK);
  EXPECT_EQ(RowsAfterPowerCut(), 2);
}

// ---- The policy interval ----

class IntervalTest : public FlushTest {
 protected:
  static constexpr const char* kLater =
      "PRAGMA groupcommit_policy='interval(max_delay_us=10000000)'";
  static constexpr std::chrono::seconds kTillLater{10};
};

TEST_F(IntervalTest, ACommitReturnsBeforeItsSync) {
  Db db = OpenWithTable();
  db.ExecOk(kSoon);
  storage_.HoldSyncs(FileKind::kWal);
  Insert(db);
  EXPECT_EQ(db.Int("SELECT count(*) FROM t"), 2) << "readable before it is durable";
  ASSERT_TRUE(storage_.WaitForHeldSyncs(1)) << "by another thread";
  EXPECT_EQ(RowsAfterPowerCut(), 1);
  storage_.OpenGate();
  EXPECT_EQ(Wait(db, CommitLsn(db), -1), SQLITE_OK);
  EXPECT_EQ(RowsAfterPowerCut(), 2);
}

// One of synchronous=NORMAL too, and one in exclusive locking mode.
TEST_F(IntervalTest, EachCommitIsSyncedInTheEnd) {
  Db db = OpenWithTable();
  db.ExecOk(kSoon);
  for (const char* set :
       {"PRAGMA synchronous=FULL", "PRAGMA synchronous=NORMAL", "PRAGMA locking_mode=EXCLUSIVE"}) {
    db.ExecOk(set);
    Insert(db);
    Insert(db);
    const sqlite3_int64 lsn = CommitLsn(db);
    while (DurableLsn(db) < lsn) std::this_thread::yield();
    EXPECT_EQ(RowsAfterPowerCut(), db.Int("SELECT count(*) FROM t")) << set;
  }
}

// The library's thread goes on for as long as anybody has the log open.
TEST_F(IntervalTest, AlsoIfAnotherConnectionCloses) {
  Db db = OpenWithTable();
  Db other = OpenWithTable();
  db.ExecOk("PRAGMA groupcommit_policy='interval(max_delay_us=200000)'");
  Insert(db);
  EXPECT_EQ(other.Close(), SQLITE_OK);
  const sqlite3_int64 lsn = CommitLsn(db);
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(30);
  while (DurableLsn(db) < lsn && std::chrono::steady_clock::now() < deadline) {
    std::this_thread::yield();
  }
  EXPECT_GE(DurableLsn(db), lsn);
}

TEST_F(IntervalTest, OneSyncForAllThatIsDue) {
  Db db = OpenWithTable();
  db.ExecOk(kLater);
  const auto start = std::chrono::steady_clock::now();
  const int64_t syncs = WalSyncs();
  for (int i = 0; i < 100; i++) Insert(db);
  const int64_t before = WalSyncs();
  EXPECT_EQ(Flush(db), SQLITE_OK);
  const int64_t after = WalSyncs();
  EXPECT_EQ(RowsAfterPowerCut(), 101);
  if (std::chrono::steady_clock::now() - start >= kTillLater) GTEST_SKIP() << "it took too long";
  EXPECT_EQ(before, syncs);
  EXPECT_EQ(after, syncs + 1);
}

TEST_F(IntervalTest, ClosingLeavesNothingBehind) {
  Db db = OpenWithTable();
  db.ExecOk(kLater);
  {
    Db closes = OpenWal();
    Insert(closes);
  }
  EXPECT_EQ(RowsAfterPowerCut(), 2);
  Db stranger(path(), "store");  // so that the log stays
  stranger.ExecOk("PRAGMA synchronous=NORMAL; BEGIN; SELECT * FROM t");
  Insert(db);
  db = Db();
  EXPECT_EQ(RowsAfterPowerCut(), 3);
  stranger.ExecOk("COMMIT");
}

// It has asked for an exclusive lock before, in vain, as there is another connection.
TEST_F(IntervalTest, NobodyIsKeptFromOpeningByOneThatSyncsAsItCloses) {
  Db db = OpenWithTable();
  db.ExecOk(kLater);
  Db closes = OpenWal();
  Insert(closes);
  storage_.HoldSyncs(FileKind::kWal);
  std::future<int> closed = std::async(std::launch::async, [&closes] { return closes.Close(); });
  ASSERT_TRUE(storage_.WaitForHeldSyncs(1));
  Db opens(path(), "gc");
  opens.SetBusyTimeout(0);
  EXPECT_EQ(opens.Exec("SELECT * FROM t"), SQLITE_OK);
  storage_.OpenGate();
  EXPECT_EQ(closed.get(), SQLITE_OK);
}

TEST_F(IntervalTest, NorDoesAnotherPolicy) {
  Db db = OpenWithTable();
  db.ExecOk(kLater);
  Insert(db);
  db.ExecOk("PRAGMA groupcommit_policy=auto");
  EXPECT_EQ(RowsAfterPowerCut(), 1);
  Db stranger(path(), "store");
  stranger.ExecOk("BEGIN; SELECT * FROM t");
  db = Db();
  EXPECT_EQ(RowsAfterPowerCut(), 2);
  stranger.ExecOk("COMMIT");
}

// Whose commit waits for it covers those beneath.
TEST_F(IntervalTest, ACommitOfAnotherPolicyCoversThem) {
  Db db = OpenWithTable();
  db.ExecOk(kLater);
  Insert(db);
  db.ExecOk("PRAGMA groupcommit_policy=auto");
  Insert(db);
  EXPECT_EQ(RowsAfterPowerCut(), 3);
}

TEST_F(IntervalTest, AFailureInTheBackgroundIsToldToEachConnectionOnce) {
  Db a = OpenWithTable();
  Db b = OpenWithTable();
  a.ExecOk(kSoon);
  const int64_t rows = a.Int("SELECT count(*) FROM t");
  storage_.FailSyncs(FileKind::kWal, 1, 1);
  Insert(a);
  while (Stats(b).background_errors == 0) std::this_thread::yield();
  EXPECT_EQ(a.Exec("INSERT INTO t VALUES('refused')"), SQLITE_IOERR_FSYNC);
  EXPECT_EQ(Flush(b), SQLITE_IOERR_FSYNC);
  EXPECT_NE(LogCapture::Take().message.find("could not be made durable in time: " + path()),
            std::string::npos);
  Db late = OpenWal();
  Insert(late);
  Insert(a);
  Insert(b);
  EXPECT_EQ(Flush(b), SQLITE_OK);
  EXPECT_EQ(RowsAfterPowerCut(), rows + 4) << "the first one was written to the log again";
}

// Each handle on the log hears of a failure once, and the background's has to hear of it at once.
TEST_F(IntervalTest, AFailureElsewhereIsNotToldAgainLater) {
  storage_.SetErrorPerHandle(true);
  Db db = OpenWithTable();
  db.ExecOk(
      kLater);  // with the other one, the background might be late, and its sync the one to fail
  Insert(db);
  EXPECT_EQ(Wait(db, CommitLsn(db), -1), SQLITE_OK);
  db.ExecOk("PRAGMA groupcommit_policy=auto");
  storage_.FailSyncs(FileKind::kWal, 1, 1);
  EXPECT_EQ(db.Exec("INSERT INTO t VALUES('failed')"), SQLITE_IOERR_FSYNC);
  db.ExecOk(kSoon);
  Insert(db);
  EXPECT_EQ(Wait(db, CommitLsn(db), 1'000'000), SQLITE_OK);
  EXPECT_EQ(Stats(db).background_errors, 0);
}

// As strong as SQLite would have asked for, of whoever does it.
TEST_F(IntervalTest, TheSyncHasTheFlagsOfTheCommit) {
  Db db = OpenWithTable();
  db.ExecOk(kLater);
  db.ExecOk("PRAGMA fullfsync=1");
  Insert(db);
  std::atomic<int> flags{0};
  storage_.SetObserver([&flags](const Call& call) {
    if (call.op == Op::kSync && call.kind == FileKind::kWal) flags = call.flags;
  });
  EXPECT_EQ(Wait(db, CommitLsn(db), 1'000'000), SQLITE_OK);
  EXPECT_EQ(flags & 0x0f, SQLITE_SYNC_FULL);
  storage_.SetObserver(nullptr);
}

TEST_F(IntervalTest, TheUriSetsIt) {
  Db db = OpenWalUri("file:" + path() + "?flush_policy=interval&max_delay_us=7");
  EXPECT_EQ(db.Text("PRAGMA groupcommit_policy"), "interval(max_delay_us=7)");
}

}  // namespace
}  // namespace groupcommit::testing
