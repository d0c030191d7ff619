// Which syncs are deferred, and which are done at once as stock SQLite does them.
#include <algorithm>
#include <mutex>

#include "support/shim_test.h"

namespace groupcommit::testing {
namespace {

constexpr int kWriteLock = 0;
constexpr int kFirstReadLock = 3;

class DeferralTest : public ShimTest {
 protected:
  // What `sql` adds to the statistics.
  struct Effect {
    int rc;
    int64_t commits;
    int64_t deferred;
    int64_t wal_syncs;
  };
  Effect EffectOf(Db& db, const std::string& sql, const char* schema = "main") {
    const groupcommit_statistics before = Stats(db, schema);
    const int64_t syncs = WalSyncs();
    const int rc = db.Exec(sql);
    const groupcommit_statistics after = Stats(db, schema);
    return {rc, after.commits - before.commits, after.deferred - before.deferred,
            WalSyncs() - syncs};
  }
  void ExpectDeferred(Db& db, const std::string& sql) {
    const Effect effect = EffectOf(db, sql);
    EXPECT_EQ(effect.rc, SQLITE_OK) << sql << ": " << db.Error();
    EXPECT_EQ(effect.commits, 1) << sql;
    EXPECT_EQ(effect.deferred, 1) << sql;
    EXPECT_EQ(effect.wal_syncs, 1) << sql;
  }
  void ExpectAtOnce(Db& db, const std::string& sql, const char* schema = "main") {
    const Effect effect = EffectOf(db, sql, schema);
    EXPECT_EQ(effect.rc, SQLITE_OK) << sql << ": " << db.Error();
    EXPECT_EQ(effect.deferred, 0) << sql;
    EXPECT_GE(effect.wal_syncs, 1) << sql;
  }
};

// The calls of one commit that reach the storage, in order.
class CallTrace {
 public:
  explicit CallTrace(TestStorage* storage) : storage_(storage) {
    storage_->SetObserver([this](const Call& call) {
      std::lock_guard<std::mutex> lock(mutex_);
      calls_.push_back(call);
    });
  }
  ~CallTrace() { storage_->SetObserver(nullptr); }

  template <class Predicate>
  long IndexOf(Predicate predicate) {
    std::lock_guard<std::mutex> lock(mutex_);
    const auto found = std::find_if(calls_.begin(), calls_.end(), predicate);
    return found == calls_.end() ? -1 : found - calls_.begin();
  }

 private:
  TestStorage* const storage_;
  std::mutex mutex_;
  std::vector<Call> calls_;
};

bool IsWalSync(const Call& call) { return call.op == Op::kSync && call.kind == FileKind::kWal; }
bool IsUnlock(const Call& call, int lock) {
  return call.op == Op::kShmLock && (call.flags & SQLITE_SHM_UNLOCK) != 0 && call.offset == lock;
}

TEST_F(DeferralTest, TheSyncComesAfterTheWriteLockAndBeforeTheSnapshotIsReleased) {
  Db db = OpenWithTable();
  CallTrace trace(&storage_);
  db.ExecOk("INSERT INTO t VALUES('x')");
  const long write_released =
      trace.IndexOf([](const Call& call) { return IsUnlock(call, kWriteLock); });
  const long synced = trace.IndexOf(IsWalSync);
  const long snapshot_released = trace.IndexOf([](const Call& call) {
    return call.op == Op::kShmLock && call.flags == (SQLITE_SHM_UNLOCK | SQLITE_SHM_SHARED) &&
           call.offset >= kFirstReadLock;
  });
  EXPECT_GE(write_released, 0);
  EXPECT_GT(synced, write_released);
  EXPECT_GT(snapshot_released, synced);
}

TEST_F(DeferralTest, CommitsOfRowsAreDeferred) {
  Db db = OpenWithTable();
  ExpectDeferred(db, "INSERT INTO t VALUES('x')");
  ExpectDeferred(db,
                 "INSERT INTO t VALUES(zeroblob(20000))");  // grows the file: page 1, sizes only
  ExpectDeferred(db, "DELETE FROM t WHERE length(x) = 20000");  // fills the freelist: page 1
  ExpectDeferred(db,
                 "BEGIN; INSERT INTO t VALUES(1); SAVEPOINT s; INSERT INTO t VALUES(2);"
                 "ROLLBACK TO s; INSERT INTO t VALUES(3); COMMIT");
  ExpectDeferred(db, "BEGIN IMMEDIATE; UPDATE t SET x = 'y'; COMMIT");
}

TEST_F(DeferralTest, ACommitWithFullSyncFlagsGetsThem) {
  Db db = OpenWithTable();
  db.ExecOk("PRAGMA fullfsync=ON");
  CallTrace trace(&storage_);
  ExpectDeferred(db, "INSERT INTO t VALUES('x')");
  EXPECT_GE(trace.IndexOf([](const Call& call) {
    return IsWalSync(call) && (call.flags & 0x0f) == SQLITE_SYNC_FULL;
  }),
            0);
}

TEST_F(DeferralTest, SoDoesOneThatIsLeftToAFlush) {
  Db db = OpenWithTable();
  db.ExecOk(
      "PRAGMA fullfsync=ON; PRAGMA groupcommit_policy='interval(max_delay_us=10000000)';"
      "INSERT INTO t VALUES('x'); PRAGMA fullfsync=OFF");
  CallTrace trace(&storage_);
  db.ExecOk("PRAGMA groupcommit_flush");
  EXPECT_GE(trace.IndexOf([](const Call& call) {
    return IsWalSync(call) && (call.flags & 0x0f) == SQLITE_SYNC_FULL;
  }),
            0);
}

TEST_F(DeferralTest, ASyncAtOnceGetsTheFlagsThatSqliteAsksFor) {
  Db db = OpenWithTable();
  db.ExecOk("PRAGMA fullfsync=ON; PRAGMA checkpoint_fullfsync=ON");
  for (const char* sql : {"CREATE TABLE u(x)", "PRAGMA wal_checkpoint"}) {
    CallTrace trace(&storage_);
    ExpectAtOnce(db, sql);
    EXPECT_GE(trace.IndexOf([](const Call& call) {
      return IsWalSync(call) && call.flags == SQLITE_SYNC_FULL;
    }),
              0)
        << sql;
  }
}

// Deferring it could corrupt the database: frames of the new generation might reach the disk first.
TEST_F(DeferralTest, TheSyncOfTheWalHeaderIsNotDeferred) {
  Db db = OpenWithTable();
  db.ExecOk("PRAGMA wal_checkpoint(RESTART)");
  CallTrace trace(&storage_);
  db.ExecOk("INSERT INTO t VALUES('x')");
  const long header = trace.IndexOf([](const Call& call) {
    return call.op == Op::kWrite && call.kind == FileKind::kWal && call.offset == 0;
  });
  const long frame = trace.IndexOf([](const Call& call) {
    return call.op == Op::kWrite && call.kind == FileKind::kWal && call.offset == 32;
  });
  const long sync = trace.IndexOf(IsWalSync);
  EXPECT_GE(header, 0);
  EXPECT_GT(sync, header);
  EXPECT_GT(frame, sync);
}

TEST_F(DeferralTest, SchemaChangesAreNotDeferred) {
  Db db = OpenWithTable();
  ExpectAtOnce(db, "CREATE TABLE u(x)");
  ExpectAtOnce(db, "CREATE INDEX ui ON u(x)");
  ExpectAtOnce(db, "DROP TABLE u");
  ExpectAtOnce(db, "PRAGMA user_version=7");
  ExpectAtOnce(db, "PRAGMA application_id=7");
  ExpectDeferred(db, "INSERT INTO t VALUES('x')");
}

TEST_F(DeferralTest, ASchemaChangeMadeByAnotherConnectionInBetweenIsNoReason) {
  Db a = OpenWithTable();
  Db b = OpenWithTable();
  a.ExecOk("CREATE TABLE u(x)");
  ExpectDeferred(b, "INSERT INTO t VALUES(zeroblob(20000))");
}

TEST_F(DeferralTest, ARolledBackSchemaChangeIsNotTakenForPage1) {
  Db db = OpenWithTable();
  db.ExecOk("BEGIN; CREATE TABLE u(x); ROLLBACK");
  ExpectDeferred(db, "INSERT INTO t VALUES(zeroblob(20000))");
  ExpectAtOnce(db, "CREATE TABLE u(x)");
}

// Several databases: SQLite makes all of them visible before the first can fail.
TEST_F(DeferralTest, TransactionsOverSeveralDatabasesAreNotDeferred) {
  Db db = OpenWithTable();
  { Db other = OpenWithTable("other.db"); }
  db.ExecOk("ATTACH '" + path("other.db") +
            "' AS other; PRAGMA other.synchronous=FULL;"
            "INSERT INTO other.t VALUES('begins the log')");
  for (const char* schema : {"main", "other"}) {
    ExpectAtOnce(db, "BEGIN; INSERT INTO main.t VALUES(1); INSERT INTO other.t VALUES(1); COMMIT",
                 schema);
  }
  ExpectDeferred(db, "INSERT INTO main.t VALUES(2)");
  const Effect other = EffectOf(db, "INSERT INTO other.t VALUES(2)", "other");
  EXPECT_EQ(other.deferred, 1);
  // A read of the other one is no reason.
  ExpectDeferred(db, "INSERT INTO main.t SELECT x FROM other.t");
}

// SQLite ends main's part of a COMMIT before that of the temporary database, and that one before
// the parts of attached ones.
TEST_F(DeferralTest, ATemporaryTableIsNoReasonBesideMain) {
  Db db = OpenWithTable();
  { Db other = OpenWithTable("other.db"); }
  db.ExecOk("ATTACH '" + path("other.db") +
            "' AS other; PRAGMA other.synchronous=FULL;"
            "INSERT INTO other.t VALUES('begins the log')");
  db.ExecOk("CREATE TEMP TABLE tmp(x)");
  ExpectDeferred(db, "BEGIN; INSERT INTO t VALUES(1); INSERT INTO tmp VALUES(1); COMMIT");
  ExpectAtOnce(db, "BEGIN; INSERT INTO other.t VALUES(1); INSERT INTO tmp VALUES(1); COMMIT",
               "other");
  ExpectAtOnce(db,
               "BEGIN; INSERT INTO t VALUES(1); INSERT INTO other.t VALUES(1); "
               "INSERT INTO tmp VALUES(1); COMMIT");
}

// As after CREATE TEMP TABLE, or what drivers do to find tables: BEGIN IMMEDIATE includes it then.
TEST_F(DeferralTest, ATemporaryDatabaseThatHasBeenUsedIsNoReason) {
  Db db = OpenWithTable();
  ExpectDeferred(db, "BEGIN IMMEDIATE; INSERT INTO t VALUES(1); COMMIT");
  db.ExecOk("PRAGMA temp.table_info(t)");
  ExpectDeferred(db, "BEGIN IMMEDIATE; INSERT INTO t VALUES(2); COMMIT");
}

// So many that the places of some in the table of MainFile are the same, and all of them open
// before the first log is.
TEST_F(DeferralTest, EachLogIsThatOfItsOwnConnection) {
  constexpr int kMany = 300;
  Db first = OpenWithTable();
  std::vector<Db> all;
  for (int i = 0; i < kMany; i++) all.emplace_back(path(), "gc");
  for (Db& db : all) {
    db.ExecOk("PRAGMA wal_autocheckpoint=0");
    ExpectDeferred(db, "INSERT INTO t VALUES(1)");
  }
}

// As where a VFS above does not pass it on.
TEST_F(DeferralTest, WhereItIsNotKnownWhatElseIsWrittenNothingIsDeferred) {
  Db db = OpenWithTable();
  sqlite3* nobody = nullptr;
  sqlite3_file_control(db.get(), "main", SQLITE_FCNTL_PDB, &nobody);
  ExpectAtOnce(db, "INSERT INTO t VALUES(1)");
}

// wal.c: walRewriteChecksums() writes frame headers again after the commit frame.
TEST_F(DeferralTest, ATransactionThatRewroteItsFramesIsNotDeferred) {
  Db db = OpenWithTable();
  db.ExecOk("PRAGMA cache_size=5; CREATE TABLE big(k INTEGER PRIMARY KEY, v)");
  const char* kFill =
      "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<200) "
      "INSERT INTO big SELECT i, zeroblob(1000) FROM n";
  db.ExecOk(kFill);
  // Goes over all pages twice, with a cache that holds five.
  ExpectAtOnce(db,
               "BEGIN; UPDATE big SET v=randomblob(1000); UPDATE big SET v=randomblob(1000);"
               "COMMIT");
  EXPECT_EQ(db.Text("PRAGMA integrity_check"), "ok");
}

// A transaction that spilled, but did not touch a spilled page again, ends like any other.
TEST_F(DeferralTest, ATransactionThatSpilledIsDeferred) {
  Db db = OpenWithTable();
  db.ExecOk("PRAGMA cache_size=10");
  ExpectDeferred(db, "INSERT INTO t VALUES(zeroblob(400000))");
}

TEST_F(DeferralTest, WithoutPowersafeOverwriteASyncInsideAFrameIsNotDeferred) {
  storage_.SetPowersafeOverwrite(false);
  Db db = OpenWithTable();
  for (int i = 0; i < 20; i++) {
    const Effect effect = EffectOf(db, "INSERT INTO t VALUES('x')");
    EXPECT_EQ(effect.rc, SQLITE_OK);
    // At most those where the frame happens to end with a sector; all are durable.
    EXPECT_GE(effect.wal_syncs, 1);
    EXPECT_EQ(RowsAfterPowerCut(), 2 + i);
  }
  EXPECT_LT(Stats(db).deferred, Stats(db).commits / 2);
}

TEST_F(DeferralTest, ExclusiveLockingModeIsNotDeferred) {
  Db db = OpenWithTable();
  db.ExecOk("PRAGMA locking_mode=EXCLUSIVE; INSERT INTO t VALUES('takes the lock')");
  ExpectAtOnce(db, "INSERT INTO t VALUES('x')");
  db.ExecOk("PRAGMA locking_mode=NORMAL; SELECT * FROM t; INSERT INTO t VALUES('back')");
  ExpectDeferred(db, "INSERT INTO t VALUES('x')");
}

TEST_F(DeferralTest, ExclusiveLockingModeFromTheStartIsNotDeferred) {
  { Db db = OpenWithTable(); }
  Db db(path(), "gc");
  db.ExecOk("PRAGMA locking_mode=EXCLUSIVE; PRAGMA synchronous=FULL; SELECT * FROM t");
  ExpectAtOnce(db, "INSERT INTO t VALUES('x')");
}

// SQLite does not ask for its locks there, so that nothing tells what it rolls back.
TEST_F(DeferralTest, ASchemaChangeThatFailedInExclusiveLockingModeIsNotTakenForPage1) {
  Db db = OpenWithTable();
  db.ExecOk("PRAGMA locking_mode=EXCLUSIVE; INSERT INTO t VALUES('takes the lock')");
  storage_.FailSyncs(FileKind::kWal, 1, 1);
  EXPECT_EQ(db.Exec("CREATE TABLE u(x)"), SQLITE_IOERR_FSYNC);
  db.ExecOk("PRAGMA locking_mode=NORMAL; SELECT * FROM t");
  ExpectAtOnce(db, "CREATE TABLE u(x)");
}

TEST_F(DeferralTest, OnEachFlushDefersNothing) {
  Db db = OpenWithTable();
  EXPECT_EQ(db.Text("PRAGMA groupcommit_policy=on_each_flush"), "on_each_flush");
  ExpectAtOnce(db, "INSERT INTO t VALUES('x')");
  EXPECT_EQ(db.Text("PRAGMA groupcommit_policy=auto"), "auto");
  ExpectDeferred(db, "INSERT INTO t VALUES('x')");
}

// Under the policy interval commits are left to the flusher, but what orders a checkpoint and the
// restart of the log is not.
TEST_F(DeferralTest, NothingButCommitsIsLeftToTheFlusher) {
  Db db = OpenWithTable();
  db.ExecOk("PRAGMA groupcommit_policy='interval(max_delay_us=10000000)'");
  db.ExecOk("INSERT INTO t VALUES('x')");
  CallTrace trace(&storage_);
  db.ExecOk("PRAGMA wal_checkpoint(RESTART)");
  const long checkpoint_synced = trace.IndexOf(IsWalSync);
  const long copied = trace.IndexOf(
      [](const Call& call) { return call.op == Op::kWrite && call.kind == FileKind::kMainDb; });
  EXPECT_GE(checkpoint_synced, 0);
  EXPECT_GT(copied, checkpoint_synced);
  const Effect restart = EffectOf(db, "INSERT INTO t VALUES('x')");
  EXPECT_GE(restart.wal_syncs, 1) << "of the header";
}

TEST_F(DeferralTest, CheckpointsSyncTheLogAlsoIfAllIsDurable) {
  Db db = OpenWithTable();
  for (const char* mode : {"PASSIVE", "FULL", "RESTART", "TRUNCATE"}) {
    db.ExecOk("INSERT INTO t VALUES('x')");
    const Effect effect = EffectOf(db, std::string("PRAGMA wal_checkpoint(") + mode + ")");
    EXPECT_EQ(effect.rc, SQLITE_OK) << mode;
    EXPECT_EQ(effect.wal_syncs, 1) << mode;
  }
}

TEST_F(DeferralTest, ACommitWithoutASyncStaysWithoutOne) {
  Db db = OpenWithTable();
  for (const char* level : {"NORMAL", "OFF"}) {
    db.ExecOk(std::string("PRAGMA synchronous=") + level);
    const Effect effect = EffectOf(db, "INSERT INTO t VALUES('x')");
    EXPECT_EQ(effect.rc, SQLITE_OK);
    EXPECT_EQ(effect.commits, 0) << level;
    EXPECT_EQ(effect.wal_syncs, 0) << level;
  }
  db.ExecOk("PRAGMA synchronous=EXTRA");
  ExpectDeferred(db, "INSERT INTO t VALUES('x')");
}

// The wal-index has several regions then; its header is in the first one.
TEST_F(DeferralTest, ALongLogIsNoReason) {
  Db(path(), "unix").ExecOk("PRAGMA page_size=512; CREATE TABLE t(x)");
  Db db = OpenWal();
  db.ExecOk("PRAGMA wal_autocheckpoint=0; INSERT INTO t VALUES(zeroblob(3000000))");
  ExpectDeferred(db, "INSERT INTO t VALUES(1)");
}

TEST_F(DeferralTest, EveryPageSize) {
  for (const int size : {512, 1024, 2048, 4096, 8192, 16384, 32768, 65536}) {
    const std::string name = "p" + std::to_string(size) + ".db";
    Db db;
    ASSERT_EQ(db.Open(path(name), "gc"), SQLITE_OK);
    db.ExecOk("PRAGMA page_size=" + std::to_string(size));
    db.ExecOk("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; CREATE TABLE t(x)");
    db.ExecOk("INSERT INTO t VALUES('first')");
    ExpectDeferred(db, "INSERT INTO t VALUES('x')");
    ExpectDeferred(db, "INSERT INTO t VALUES(zeroblob(150000))");
  }
}

}  // namespace
}  // namespace groupcommit::testing
