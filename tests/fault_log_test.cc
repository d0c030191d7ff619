// Failures around the positions in the log: a wal-index that cannot grow, a log that another
// process restarts, errors that each handle reports by itself. With stock SQLite and with the shim.
#include <sqlite3.h>

#include <atomic>
#include <string>
#include <tuple>

#include "support/fault_test.h"
#include "support/scale.h"
#include "support/wal_index_growth.h"

namespace groupcommit::testing {
namespace {

class LogTest : public FaultTest, public ::testing::WithParamInterface<const char*> {
 protected:
  void SetUp() override { Start(GetParam()); }
};

// ---- The wal-index cannot grow ----

class WalIndexGrowthTest
    : public WalIndexGrowthFixture,
      public ::testing::WithParamInterface<std::tuple<const char*, int, SyncEnd>> {
 protected:
  void SetUp() override {
    storage_.SetFailedSyncEnd(std::get<2>(GetParam()));
    StartToGrow(std::get<0>(GetParam()));
    FillLog(kFramesOfRegion[region() - 1] - 3);
  }
  static int region() { return std::get<1>(GetParam()); }

  // Inserts until one fails for that.
  void InsertUntilGrowthFails(Db& db) {
    for (int i = 0; i < 10 && refused_ == 0; i++) Insert(db);
    EXPECT_GT(refused_, 0);
  }
};

// Its sync may have succeeded or not; its frames are overwritten by the next commit.
TEST_P(WalIndexGrowthTest, ACommitThatFailsAfterItsSyncIsNoCommit) {
  BreakGrowth(region());
  InsertUntilGrowthFails(a_);
  for (Db* db : {&a_, &b_, &c_}) ledger_.ExpectIn(*db);
  for (int i = 0; i < 3; i++) EXPECT_EQ(Insert(b_), SQLITE_IOERR_SHMMAP);
  MendGrowth();
  // Its LSN or its offset must not make the next commit pass for synced.
  const int64_t syncs = WalSyncs();
  InsertOk(b_);
  EXPECT_GT(WalSyncs(), syncs);
  ExpectLedger();
  ExpectWorkGoesOn();
}

// Then the sync of the commit in its place fails.
TEST_P(WalIndexGrowthTest, ThenASyncFails) {
  BreakGrowth(region());
  InsertUntilGrowthFails(a_);
  MendGrowth();
  FailingInsert(b_);
  for (Db* db : {&a_, &b_, &c_}) ledger_.ExpectIn(*db);
  ExpectWorkGoesOn();
}

// It happens on top of a commit whose sync is under way and fails.
TEST_P(WalIndexGrowthTest, OnTopOfAFailingCommit) {
  FillLog(kFramesOfRegion[region() - 1] - 1);  // room for one frame
  BreakGrowth(region());
  const int n = ledger_.Next();
  std::future<int> on_top;
  // It has read the pending row by then, and so ends when that is settled.
  FailingInsert(a_, [&] { on_top = StartToWait(b_, Ledger::InsertOf(n)); });
  // With stock SQLite the failed commit has left the room to this one.
  EXPECT_EQ(ledger_.Note(n, on_top.get()), with_shim() ? SQLITE_IOERR_SHMMAP : SQLITE_OK);
  EXPECT_EQ(refused_ > 0, with_shim());
  MendGrowth();
  ExpectLedger();
  ExpectWorkGoesOn();
}

INSTANTIATE_TEST_SUITE_P(, WalIndexGrowthTest,
                         ::testing::Combine(::testing::Values("store", "gc"),
                                            ::testing::Range(1, 1 + Scaled(2)),
                                            ::testing::Values(SyncEnd::kLost, SyncEnd::kPending)),
                         [](const auto& test) {
                           return NameOfVfs(std::get<0>(test.param)) + "Region" +
                                  std::to_string(std::get<1>(test.param)) +
                                  (std::get<2>(test.param) == SyncEnd::kLost ? "Lost" : "Kept");
                         });

// ---- The log is restarted ----

// By somebody of whom the shim does not know: stock SQLite over the same storage.
TEST_P(LogTest, AnotherProcessRestartsTheLogBetweenTwoCommits) {
  Db other(path(), "store");
  for (int i = 0; i < 4; i++) {
    InsertOk(a_);
    InsertOk(a_);
    EXPECT_EQ(other.Int("PRAGMA wal_checkpoint(RESTART)"), 0) << "busy";
    if (i % 2 == 0) InsertOk(other);  // and begins it anew
    // The offset is one that was synced before, under other salts.
    const int64_t syncs = WalSyncs();
    InsertOk(b_);
    EXPECT_GT(WalSyncs(), syncs);
    ExpectLedger();
  }
  ExpectWorkGoesOn();
}

TEST_P(LogTest, TheCommitAfterAnotherProcessHasRestartedTheLogFails) {
  Db other(path(), "store");
  for (const bool begun_anew : {false, true}) {
    InsertOk(a_);
    EXPECT_EQ(other.Int("PRAGMA wal_checkpoint(RESTART)"), 0) << "busy";
    if (begun_anew) InsertOk(other);
    // Where the failing commit begins the log, its first sync is that of the header.
    storage_.FailSyncs(FileKind::kWal, begun_anew ? 1 : 2, 1);
    EXPECT_EQ(Insert(a_), SQLITE_IOERR_FSYNC);
    ExpectLedger();
    EXPECT_EQ(Insert(other), SQLITE_OK);
    InsertOk(b_);
    ExpectLedger();
  }
  ExpectWorkGoesOn();
}

// Also the sync of the header, which comes first.
TEST_P(LogTest, EachSyncOfTheFirstCommitAfterARestart) {
  for (const char* mode : {"RESTART", "TRUNCATE"}) {
    for (int failing = 1; failing <= 2; failing++) {
      SCOPED_TRACE(std::string(mode) + " sync " + std::to_string(failing));
      EXPECT_EQ(a_.Int(std::string("PRAGMA wal_checkpoint(") + mode + ")"), 0);
      storage_.FailSyncs(FileKind::kWal, failing, 1);
      EXPECT_EQ(Insert(b_), SQLITE_IOERR_FSYNC);
      ExpectLedger();
      // The header may have to be written again.
      InsertOk(c_);
      ExpectLedger();
    }
  }
  ExpectWorkGoesOn();
}

// Another process wants to restart the log while a commit is pending. It does not get through: the
// snapshot of the committer keeps the frames of the pending commit in the log, and out of the
// database file.
TEST_P(LogTest, ARestartByAnotherProcessUnderAPendingCommit) {
  Db other(path(), "store");
  other.SetBusyTimeout(0);
  std::future<int64_t> busy;
  FailingInsert(a_, [&] {
    busy = std::async(std::launch::async,
                      [&other] { return other.Int("PRAGMA wal_checkpoint(RESTART)"); });
    if (with_shim()) {
      EXPECT_TRUE(storage_.WaitForHeldSyncs(2));
    } else {
      busy.wait();
    }
  });
  EXPECT_EQ(busy.get(), with_shim() ? 1 : 0);
  ExpectLedger();
  ExpectWorkGoesOn();
}

// The same by a connection of ours that does not sync (synchronous=OFF). What a power cut leaves is
// then another matter, with stock SQLite too.
TEST_P(LogTest, ACheckpointWithoutASyncUnderAPendingCommit) {
  b_.ExecOk("PRAGMA synchronous=OFF");
  FailingInsert(a_, [&] { b_.ExecOk("PRAGMA wal_checkpoint"); });
  for (int i = 0; i < 2; i++) {
    for (Db* db : {&a_, &b_, &c_, &observer_}) {
      ledger_.ExpectIn(*db);
      EXPECT_EQ(db->Text("PRAGMA integrity_check"), "ok");
    }
    InsertOk(a_);
  }
}

// The log is empty when the database is opened. A connection that has not restarted the log itself
// then chooses new salts (wal.c: sqlite3WalFrames(), nCkpt), unlike those in the wal-index.
TEST_P(LogTest, TheFirstCommitAfterOpeningFails) {
  for (Db* db : {&a_, &b_, &c_, &observer_}) db->Close();
  for (Db* db : {&a_, &b_, &c_, &observer_}) *db = Open();
  storage_.FailSyncs(FileKind::kWal, 2, 1);  // the first one is that of the header
  EXPECT_EQ(Insert(a_), SQLITE_IOERR_FSYNC);
  ExpectLedger();
  ExpectWorkGoesOn();
}

TEST_P(LogTest, TheFirstCommitAfterAnotherConnectionHasTruncatedTheLogFails) {
  EXPECT_EQ(a_.Int("PRAGMA wal_checkpoint(TRUNCATE)"), 0);
  Db late = Open();
  storage_.FailSyncs(FileKind::kWal, 2, 1);
  EXPECT_EQ(Insert(late), SQLITE_IOERR_FSYNC);
  ExpectLedger();
  ExpectWorkGoesOn();
}

// ---- Which syncs fail, and how often they tell ----

// An error of the device is told to each file handle once.
TEST_P(LogTest, AnErrorThatEachHandleReportsOnce) {
  storage_.SetErrorPerHandle(true);
  for (int round = 0; round < 3; round++) {
    FailingInsert(a_);
    // Stock SQLite hears of it in each connection; a commit may fail and have reached the disk.
    int failed = 0;
    for (Db* db : {&b_, &c_, &a_, &b_, &c_}) failed += Insert(*db) != SQLITE_OK;
    EXPECT_EQ(failed, with_shim() ? 0 : 2);
    ExpectLedger();
  }
  ExpectWorkGoesOn();
}

TEST_P(LogTest, AnErrorPerHandleThatACheckpointMeetsFirst) {
  storage_.SetErrorPerHandle(true);
  FailingInsert(a_);
  Db late = Open();
  const int rc = b_.Exec("PRAGMA wal_checkpoint(PASSIVE)");
  EXPECT_EQ(rc, with_shim() ? SQLITE_OK : SQLITE_IOERR_FSYNC);
  EXPECT_EQ(Insert(late), SQLITE_OK);
  Insert(c_);
  InsertOk(c_);
  ExpectLedger();
  ExpectWorkGoesOn();
}

// The disk breaks for a while; whoever commits meanwhile fails, nobody else does.
TEST_P(LogTest, ManyFailuresInARow) {
  for (const int failures : {1, 2, 7}) {
    storage_.FailSyncs(FileKind::kWal, 1, 1'000'000);
    for (int i = 0; i < failures; i++) {
      EXPECT_EQ(Insert(i % 2 == 0 ? a_ : b_), SQLITE_IOERR_FSYNC);
      ledger_.ExpectIn(c_);
    }
    storage_.FailSyncs(FileKind::kWal, 1, 0);
    ExpectLedger();
    InsertOk(c_);
    InsertOk(b_);
  }
  ExpectWorkGoesOn();
}

TEST_P(LogTest, EveryThirdSyncOfTheLog) {
  std::atomic<int> syncs{0};
  storage_.SetFaultHook([&syncs](const Call& call) {
    return call.op == Op::kSync && call.kind == FileKind::kWal && ++syncs % 3 == 0
               ? SQLITE_IOERR_FSYNC
               : SQLITE_OK;
  });
  int acknowledged = 0;
  for (int i = 0; i < 30; i++) {
    Db& db = i % 3 == 0 ? a_ : i % 3 == 1 ? b_ : c_;
    acknowledged += Insert(db) == SQLITE_OK;
    if (i % 10 == 9) db.Exec("PRAGMA wal_checkpoint(RESTART)");
    ExpectLedger();
  }
  EXPECT_GT(acknowledged, 0);  // the repair of a log takes syncs, too
  storage_.SetFaultHook(nullptr);
  ExpectWorkGoesOn();
}

// Whatever code the base VFS gives to its failed sync: COMMIT has failed.
TEST_P(LogTest, OtherCodesOfAFailedSync) {
  for (const int code : {SQLITE_IOERR, SQLITE_IOERR_DIR_FSYNC, SQLITE_FULL, SQLITE_NOTFOUND,
                         SQLITE_BUSY, SQLITE_NOMEM, SQLITE_READONLY, SQLITE_CORRUPT}) {
    SCOPED_TRACE(code);
    storage_.FailSyncs(FileKind::kWal, 1, 1, code);
    a_.SetBusyTimeout(0);
    EXPECT_NE(Insert(a_), SQLITE_OK);
    ledger_.ExpectIn(a_);
    ExpectLedger();
    InsertOk(b_);
  }
  ExpectWorkGoesOn();
}

INSTANTIATE_TEST_SUITE_P(, LogTest, ::testing::Values("store", "gc"),
                         [](const auto& test) { return NameOfVfs(test.param); });

}  // namespace
}  // namespace groupcommit::testing
