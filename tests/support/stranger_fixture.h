// StrangerFixture: three connections of ours, and one of which the shim does not know, as of
// another process: stock SQLite over the same storage.
#ifndef GROUPCOMMIT_TESTS_SUPPORT_STRANGER_FIXTURE_H_
#define GROUPCOMMIT_TESTS_SUPPORT_STRANGER_FIXTURE_H_

#include <sqlite3.h>

#include <atomic>
#include <cstdint>
#include <future>
#include <string>
#include <thread>

#include "support/shim_test.h"

namespace groupcommit::testing {

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

  // A flush of ours fails. If anything is written to the log at `from` or behind, `meanwhile`
  // happens before that. True if it has.
  template <class Meanwhile>
  bool FailAFlush(int64_t from, Meanwhile meanwhile) {
    std::atomic<bool> seen{false};
    storage_.SetObserver([&](const Call& call) {
      if (call.op != Op::kWrite || call.kind != FileKind::kWal || call.offset < from) return;
      if (!seen.exchange(true)) meanwhile();
    });
    storage_.FailSyncs(FileKind::kWal, 1, 1);
    EXPECT_EQ(a_.Exec("PRAGMA groupcommit_flush"), SQLITE_IOERR_FSYNC);
    storage_.SetObserver(nullptr);
    return seen;
  }

  // A commit of a_ whose sync fails, while that is under way `meanwhile` happens.
  template <class Meanwhile>
  void FailACommit(Meanwhile meanwhile) {
    std::future<int> commit = ExecUntilSync(a_, "INSERT INTO t VALUES('failed')");
    meanwhile();
    FailHeldSync();
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

  // In the transaction that it has begun, or in another one if it is told of the failure.
  void CommitOrTryAgain() {
    if (stranger_.Exec("INSERT INTO t VALUES('acknowledged'); COMMIT") == SQLITE_OK) return;
    stranger_.Exec("ROLLBACK");
    stranger_.ExecOk("INSERT INTO t VALUES('acknowledged')");
  }

  // As a process leaves it that dies while it writes the header. Nobody has the write lock.
  void DamageWalIndex() {
    constexpr int kChecksum = 10;  // wal.c: WalIndexHdr.aCksum
    sqlite3_file* file = nullptr;
    void volatile* map = nullptr;
    sqlite3_file_control(stranger_.get(), "main", SQLITE_FCNTL_FILE_POINTER, &file);
    ASSERT_EQ(file->pMethods->xShmMap(file, 0, 32768, 0, &map), SQLITE_OK);
    auto* words = static_cast<volatile uint32_t*>(map);
    words[kChecksum] = ~words[kChecksum];
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

  // A checkpoint of the stranger, which lasts until the gate is opened.
  std::future<int> StartItsCheckpoint() {
    storage_.HoldSyncs(FileKind::kMainDb);
    std::future<int> checkpoint = ExecAsync(stranger_, "PRAGMA wal_checkpoint(PASSIVE)");
    EXPECT_TRUE(storage_.WaitForHeldSyncs(1));
    return checkpoint;
  }

  // The next sync of the log fails, and `meanwhile` happens before that.
  template <class Meanwhile>
  void FailNextSync(Meanwhile meanwhile) {
    storage_.SetFaultHook([this, meanwhile](const Call& call) {
      if (call.op != Op::kSync || call.kind != FileKind::kWal || has_failed_.exchange(true)) {
        return SQLITE_OK;
      }
      meanwhile();
      return SQLITE_IOERR_FSYNC;
    });
  }

  // That checkpoint ends, another one of it follows, and only then somebody of ours comes by.
  void ExpectItsNextCheckpointCopiesNothingThatFailed(std::future<int>& checkpoint) {
    Db another = OpenStranger();
    storage_.OpenGate();
    EXPECT_EQ(checkpoint.get(), SQLITE_OK);
    for (int i = 0; i < 2; i++) another.Exec("PRAGMA wal_checkpoint(PASSIVE)");  // one may be told
    observer_.Exec("BEGIN IMMEDIATE; ROLLBACK");
    EXPECT_EQ(Stats(observer_).fenced, 0);
    EXPECT_EQ(a_.Exec("INSERT INTO t VALUES('after')"), SQLITE_OK);
    EXPECT_EQ(another.Int("SELECT count(*) FROM t WHERE x='failed'"), 0);
    EXPECT_EQ(another.Int("PRAGMA wal_checkpoint(RESTART)"), 0) << "a lock is left behind";
    CloseOurs();
    EXPECT_EQ(another.Int("SELECT count(*) FROM t WHERE x='failed'"), 0);
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

  // The sync of FailNextSync(). Before the connections, which sync as they are closed.
  std::atomic<bool> has_failed_{false};
  Db a_, b_, observer_, stranger_;
};

class StrangerTest : public StrangerFixture, public ::testing::WithParamInterface<bool> {
 protected:
  void SetUp() override { Start(GetParam()); }
};

}  // namespace groupcommit::testing

#endif  // GROUPCOMMIT_TESTS_SUPPORT_STRANGER_FIXTURE_H_
