// Commits that fail behind their xSync, which was put off: each has a number that nobody waits for,
// and was never visible.
#include <sqlite3.h>

#include <cstdint>
#include <string>

#include "commit_log.h"
#include "support/log_capture.h"
#include "support/wal_index_growth.h"

namespace groupcommit::testing {
namespace {

class UnpublishedCommitTest : public WalIndexGrowthFixture {
 protected:
  static constexpr int kRoom = kFramesOfRegion[0];

  void SetUp() override { StartToGrow("gc"); }

  // As FaultTest::ExpectWorkGoesOn(), but for power cuts: copying so long a log takes time.
  void ExpectAllIsWell() {
    for (Db* db : {&a_, &b_, &c_}) InsertOk(*db);
    for (Db* db : {&a_, &b_, &c_}) ledger_.ExpectIn(*db);
    EXPECT_EQ(a_.Text("PRAGMA integrity_check"), "ok");
    EXPECT_EQ(Stats(observer_).fenced, 0);
    EXPECT_EQ(Stats(observer_).pending, 0);
  }

  void FailToPublish(Db& db) { ASSERT_EQ(db.Exec(kOneFrame), SQLITE_IOERR_SHMMAP); }
};

// There is room for so many; what is recorded of the oldest one is needed if a sync fails.
TEST_F(UnpublishedCommitTest, NoMoreArePendingThanCanBeRecorded) {
  constexpr auto kCapacity = static_cast<int64_t>(CommitLog::kCapacity);
  FillLog(kRoom);
  BreakGrowth(1);
  for (int64_t i = 0; i < kCapacity; i++) FailToPublish(b_);
  EXPECT_EQ(Stats(observer_).pending, kCapacity);
  const int64_t deferred = Stats(observer_).deferred;
  const int64_t syncs = WalSyncs();
  FailToPublish(b_);
  EXPECT_EQ(Stats(observer_).deferred, deferred) << "its sync is done at once";
  EXPECT_EQ(WalSyncs(), syncs + 1);
  EXPECT_EQ(Stats(observer_).pending, 0);
  MendGrowth();
  ExpectAllIsWell();
}

// The next commit starts the log over, and does not sync (synchronous=OFF): so it waits for the one
// that was not published. When that fails, the header from before it is one of a log that is gone:
// with the frames that have taken the place of the old ones, it would show half a transaction.
TEST_F(UnpublishedCommitTest, TheHeaderOfALogThatHasStartedOverDoesNotComeBack) {
  FillLog(kRoom);
  c_.ExecOk("BEGIN; SELECT count(*) FROM t");  // the log cannot start over yet
  EXPECT_EQ(a_.Int("PRAGMA wal_checkpoint"), 0);
  BreakGrowth(1);
  FailToPublish(b_);
  MendGrowth();
  c_.ExecOk("COMMIT");
  LogCapture::Take();
  storage_.FailSyncs(FileKind::kWal, 1, 1);
  const std::string longer_than_the_log = std::to_string(2 * kRoom * kPageSize);
  a_.ExecOk("PRAGMA synchronous=OFF; PRAGMA cache_size=20000");
  EXPECT_EQ(a_.Exec("INSERT INTO filler VALUES(zeroblob(" + longer_than_the_log + "))"),
            SQLITE_IOERR_FSYNC);
  EXPECT_NE(LogCapture::Take().message.find("the log was restarted"), std::string::npos);
  EXPECT_EQ(Stats(observer_).fenced, 1);
  for (Db* db : {&a_, &b_, &c_, &observer_}) EXPECT_EQ(db->Close(), SQLITE_OK);
  for (Db* db : {&a_, &b_, &c_, &observer_}) *db = Open();
  ExpectAllIsWell();
}

TEST_F(UnpublishedCommitTest, IsNotTheLastOneOfItsConnection) {
  const auto last = [this] {
    sqlite3_int64 lsn = -1;
    EXPECT_EQ(groupcommit_commit_lsn(b_.get(), nullptr, &lsn), SQLITE_OK);
    return lsn;
  };
  FillLog(kRoom);
  const sqlite3_int64 before = last();
  BreakGrowth(1);
  for (const char* synchronous : {"FULL", "NORMAL"}) {
    b_.ExecOk(std::string("PRAGMA synchronous=") + synchronous);
    FailToPublish(b_);
    EXPECT_EQ(last(), before) << synchronous;
  }
}

// In exclusive locking mode its sync is done at once, and would seem to cover the next one.
TEST_F(UnpublishedCommitTest, ExclusiveTheNextOneIsNotTakenForDurable) {
  FillLog(kRoom);
  for (Db* db : {&a_, &c_, &observer_}) EXPECT_EQ(db->Close(), SQLITE_OK);
  BreakGrowth(1);
  b_.ExecOk("PRAGMA locking_mode=EXCLUSIVE");
  FailToPublish(b_);
  MendGrowth();
  b_.ExecOk(std::string("PRAGMA synchronous=NORMAL;") + kOneFrame);
  sqlite3_int64 commit = -1, durable = -1;
  EXPECT_EQ(groupcommit_commit_lsn(b_.get(), nullptr, &commit), SQLITE_OK);
  EXPECT_EQ(groupcommit_durable_lsn(b_.get(), nullptr, &durable), SQLITE_OK);
  EXPECT_GT(commit, durable);
}

// A SELECT that is open keeps the snapshot, and so the connection's transaction goes on. What is
// committed next without a sync waits for the pending commit beneath it all the same.
TEST_F(UnpublishedCommitTest, TheNextOneOfItsConnectionWaitsForThoseBeneath) {
  FillLog(kRoom - 1);
  std::future<int> beneath = ExecUntilSync(a_, kOneFrame);
  sqlite3_stmt* select = nullptr;
  ASSERT_EQ(sqlite3_prepare_v2(b_.get(), "SELECT x FROM u", -1, &select, nullptr), SQLITE_OK);
  ASSERT_EQ(sqlite3_step(select), SQLITE_ROW);
  BreakGrowth(1, SQLITE_NOMEM);  // no I/O error: that would end the transaction
  EXPECT_EQ(Insert(b_), SQLITE_NOMEM);
  MendGrowth();
  b_.ExecOk("PRAGMA synchronous=NORMAL");
  const int n = ledger_.Next();
  std::future<int> on_top = ExecAsync(b_, Ledger::InsertOf(n));
  ExpectToWait(on_top, observer_, 2);
  FailHeldSync();
  EXPECT_EQ(beneath.get(), SQLITE_IOERR_FSYNC);
  EXPECT_EQ(ledger_.Note(n, on_top.get()), SQLITE_IOERR_FSYNC);
  sqlite3_finalize(select);
  b_.ExecOk("PRAGMA synchronous=FULL");
  ExpectAllIsWell();
}

}  // namespace
}  // namespace groupcommit::testing
