// A sync of another process at the same database fails, and takes what is ours along, or it is in
// the way of what we do after a failure of our own. Every open handle learns of it, as on Linux.
// (Where only the first that asks is told, nobody of ours can know, with stock SQLite neither.)
#include <sqlite3.h>

#include <atomic>
#include <future>

#include "support/stranger_fixture.h"

namespace groupcommit::testing {
namespace {

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

// It opens the log only after the failure, so that nothing tells it, and commits before we have the
// write lock. What it commits lies on top of the hole from then on.
TEST_F(StrangersErrorTest, ItCommitsOnTopBeforeWeKeepItOut) {
  Start(true);
  int acknowledged = 0;
  std::future<int> commit = ExecUntilSync(a_, "INSERT INTO t VALUES('failed')");
  std::atomic<bool> seen{false};
  storage_.SetObserver([&](const Call& call) {
    constexpr int kRequest = SQLITE_SHM_LOCK | SQLITE_SHM_EXCLUSIVE;
    if (call.op != Op::kShmLock || call.offset != 0 || call.flags != kRequest) return;
    if (seen.exchange(true)) return;
    Db late = OpenStranger();
    acknowledged += late.Exec("INSERT INTO t VALUES('acknowledged')") == SQLITE_OK;
  });
  FailHeldSync();
  EXPECT_EQ(commit.get(), SQLITE_IOERR_FSYNC);
  storage_.SetObserver(nullptr);
  EXPECT_TRUE(seen);
  EXPECT_EQ(acknowledged, 1);
  EXPECT_EQ(Stats(observer_).fenced, 1);
  EXPECT_EQ(AfterPowerCut("acknowledged"), acknowledged);
}

// It recovers the log meanwhile: some process has died as it wrote the header of the wal-index. It
// has committed nothing on top, and copied nothing.
TEST_F(StrangersErrorTest, ItRecoversTheLogBeneathTheCommitThatFails) {
  for (const bool ours_too : {false, true}) {
    FailACommit([&] {
      DamageWalIndex();
      stranger_.ExecOk("SELECT count(*) FROM t");
      if (ours_too) b_.ExecOk("BEGIN IMMEDIATE; ROLLBACK");
    });
    EXPECT_EQ(Stats(observer_).fenced, 0);
    EXPECT_EQ(stranger_.Int("SELECT count(*) FROM t WHERE x='failed'"), 0);
    b_.ExecOk("INSERT INTO t VALUES('after')");
    EXPECT_EQ(AfterPowerCut("after"), 1 + ours_too);
    EXPECT_EQ(AfterPowerCut("failed"), 0);
  }
}

// Also where what failed before that was let go of by a connection that closed.
TEST_F(StrangersErrorTest, ItRecoversTheLogBeneathACommitThatFailsAfterAnother) {
  Db closing = OpenWal();
  std::future<int> commit = ExecUntilSync(closing, "INSERT INTO t VALUES('failed')");
  stranger_.ExecOk("BEGIN; SELECT * FROM t");
  FailHeldSync();
  EXPECT_EQ(commit.get(), SQLITE_IOERR_FSYNC);
  EXPECT_EQ(Stats(observer_).fenced, 1);
  EXPECT_EQ(closing.Close(), SQLITE_OK);
  stranger_.ExecOk("COMMIT");
  observer_.Exec("BEGIN IMMEDIATE; ROLLBACK");  // somebody of ours comes by
  EXPECT_EQ(Stats(observer_).fenced, 0);
  FailACommit([&] {
    DamageWalIndex();
    stranger_.ExecOk("SELECT count(*) FROM t");
  });
  EXPECT_EQ(Stats(observer_).fenced, 0);
  EXPECT_EQ(AfterPowerCut("failed"), 0);
}

// One of us recovers the log as that fails: SQLite has the write lock until it gives it up.
TEST_F(StrangersErrorTest, WhoRecoversTheLogMeanwhileHasTheWriteLockUntilItsEnd) {
  sqlite3_file* file = nullptr;
  sqlite3_file_control(b_.get(), "main", SQLITE_FCNTL_FILE_POINTER, &file);
  const auto request = [file](int first, int n, int flags) {
    return file->pMethods->xShmLock(file, first, n, flags | SQLITE_SHM_EXCLUSIVE);
  };
  FailACommit([&] {  // wal.c: walIndexReadHdr(), walIndexRecover()
    EXPECT_EQ(request(0, 1, SQLITE_SHM_LOCK), SQLITE_OK);
    EXPECT_EQ(request(1, 2, SQLITE_SHM_LOCK), SQLITE_OK);
  });
  EXPECT_EQ(request(1, 2, SQLITE_SHM_UNLOCK), SQLITE_OK);
  EXPECT_EQ(stranger_.Exec("BEGIN IMMEDIATE"), SQLITE_BUSY);
  EXPECT_EQ(request(0, 1, SQLITE_SHM_UNLOCK), SQLITE_OK);
  EXPECT_EQ(Stats(observer_).fenced, 0);
  EXPECT_GT(Insert(), 0);
}

}  // namespace
}  // namespace groupcommit::testing
