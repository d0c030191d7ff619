// SQLite on a disk that serves several syncs at a time.
#include <sqlite3.h>

#include <atomic>
#include <chrono>
#include <string>
#include <thread>
#include <vector>

#include "support/coordinator_fixture.h"
#include "support/shim_test.h"
#include "sync_overlap.h"

namespace groupcommit::testing {
namespace {

class OverlapTest : public ShimTest {
 protected:
  static constexpr int kWriters = 8;

  void SetUp() override {
    storage_.SetErrorPerHandle(true);
    observer_ = OpenWithTable();
    for (int i = 0; i < kWriters; i++) dbs_.push_back(OpenWal());
    rows_ = observer_.Int("SELECT count(*) FROM t");
  }

  void TearDown() override {
    storage_.OpenGate();
    StopWriters();
  }

  // Every writer commits until it is told to stop, or fails.
  void StartWriters() {
    stop_ = false;
    for (Db& db : dbs_) {
      writers_.emplace_back([&] {
        while (!stop_ && db.Exec("INSERT INTO t VALUES('row')") == SQLITE_OK) rows_++;
        stopped_++;
      });
    }
  }
  void StopWriters() {
    stop_ = true;
    for (std::thread& writer : writers_) writer.join();
    writers_.clear();
    stopped_ = 0;
  }
  // Until it has found out what the disk is like. Where the processors are so slow or busy that a
  // sync takes no longer than a commit of each writer, there is nothing to gain: then it takes
  // longer from now on. (Not by the time: between two trials there are up to so many syncs.)
  void AwaitOverlap() {
    constexpr int kTries = 8;
    constexpr int kEnough = SyncOverlap::kLongestPause + 2 * SyncOverlap::kTrial;
    const int64_t enough = Stats(observer_).overlapped_syncs + 50;
    const auto overlaps = [&] { return Stats(observer_).overlapped_syncs >= enough; };
    for (int i = 0; i < kTries && !overlaps() && stopped_ == 0; i++) {
      if (i > 0) storage_.SetSyncDelay(sync_ *= 2);
      const int64_t last = Stats(observer_).syncs + kEnough;
      while (!overlaps() && Stats(observer_).syncs < last && stopped_ == 0) {
        std::this_thread::yield();
      }
    }
    ASSERT_TRUE(overlaps()) << "though a sync takes " << sync_.count() << " ms";
  }
  // Until two syncs are held, and every writer waits for one of those that are. None is under way
  // when the gate closes: it would let its writers go, later than the test says.
  void HoldSeveral() {
    do {
      storage_.OpenGate();
      AwaitOverlap();
      StopWriters();
      if (HasFatalFailure()) return;
      storage_.HoldSyncs(FileKind::kWal);
      StartWriters();
      while (Stats(observer_).waiting < kWriters) std::this_thread::yield();
    } while (storage_.HeldSyncs() < 2);
  }

  // Fails the first-th sync from now on. If no writer has lost anything by it, another one: SQLite
  // ignores what becomes of an automatic checkpoint; and where one that began later has succeeded,
  // and nobody has committed since, a failed sync takes nothing away.
  void FailUntilAWriterIsTold(int first) {
    while (stopped_ == 0) {
      const int64_t last = WalSyncs() + first + 100;
      storage_.FailSyncs(FileKind::kWal, first, 1);
      while (stopped_ == 0 && WalSyncs() < last) std::this_thread::yield();
    }
    storage_.FailSyncs(FileKind::kWal, first, 0);
  }

  // Longer than all writers usually need for a commit each, also in a sanitizer.
  std::chrono::milliseconds sync_{2};
  Db observer_;
  std::vector<Db> dbs_;
  std::vector<std::thread> writers_;
  std::atomic<int64_t> rows_{0};  // acknowledged
  std::atomic<bool> stop_{false};
  std::atomic<int> stopped_{0};
};

TEST_F(OverlapTest, NothingThatIsAcknowledgedIsLost) {
  storage_.SetSyncDelay(sync_);
  StartWriters();
  AwaitOverlap();
  for (int i = 0; i < 20 && !HasFatalFailure(); i++) {
    const int64_t acknowledged = rows_;
    EXPECT_GE(RowsAfterPowerCut(), acknowledged);
  }
  StopWriters();
  EXPECT_EQ(RowsAfterPowerCut(), rows_);
  EXPECT_EQ(Stats(observer_).failed_syncs, 0);
}

// A sync that succeeds there proves nothing until the others have ended: there is nothing to gain.
TEST_F(OverlapTest, NotOnADiskThatTellsOneHandleOnly) {
  storage_.SetErrorPerHandle(false);
  storage_.SetSyncDelay(sync_);
  dbs_.clear();
  observer_ = Db();
  observer_ = OpenWithTable();
  for (int i = 0; i < kWriters; i++) dbs_.push_back(OpenWal());
  StartWriters();
  while (Stats(observer_).syncs < 250) std::this_thread::yield();
  StopWriters();
  EXPECT_EQ(Stats(observer_).overlapped_syncs, 0);
}

// All of them are told of it; none of them may take it for another one when the log is whole again.
TEST_F(OverlapTest, OneFailureThatAllUnderWayAreToldOf) {
  storage_.SetSyncDelay(sync_);
  for (Db& db : dbs_) db.ExecOk("PRAGMA wal_autocheckpoint=0");
  StartWriters();
  HoldSeveral();
  ASSERT_FALSE(HasFatalFailure());
  EXPECT_EQ(storage_.ReleaseSyncs(1, SQLITE_IOERR_FSYNC), 1);
  while (Stats(observer_).fenced == 0) std::this_thread::yield();
  storage_.OpenGate();
  while (stopped_ < kWriters) std::this_thread::yield();
  StopWriters();
  EXPECT_EQ(RowsAfterPowerCut(), rows_);

  const int64_t failed = Stats(observer_).failed_syncs;
  EXPECT_GE(failed, 2);
  StartWriters();
  AwaitOverlap();
  StopWriters();
  EXPECT_EQ(Stats(observer_).failed_syncs, failed);
  EXPECT_EQ(RowsAfterPowerCut(), rows_);
  EXPECT_EQ(observer_.Int("SELECT count(*) FROM t"), rows_);
}

// Its handle need not be told of what was lost before it was opened, so that its sync goes through
// an older one: and that one's owner may be told instead.
TEST_F(OverlapTest, ANewcomersSyncIsNoneBeforeTheOthersHaveEnded) {
  for (Db& db : dbs_) db.ExecOk("PRAGMA wal_autocheckpoint=0");
  storage_.SetSyncDelay(sync_);
  StartWriters();
  AwaitOverlap();
  StopWriters();
  storage_.SetSyncDelay(std::chrono::microseconds(0));
  const int64_t syncs = WalSyncs();
  std::future<int> commit = ExecUntilSync(dbs_[0], "INSERT INTO t VALUES('row')");
  Db late = OpenWal();
  BackgroundCall checkpoint([this] { return observer_.Exec("PRAGMA wal_checkpoint"); });
  ASSERT_TRUE(storage_.WaitForHeldSyncs(2));
  storage_.StopHolding();
  BackgroundCall create([&late] { return late.Exec("CREATE TABLE u(x)"); });
  while (WalSyncs() < syncs + 3) std::this_thread::yield();
  EXPECT_EQ(storage_.ReleaseSyncs(1), 1);
  EXPECT_EQ(commit.get(), SQLITE_OK);
  create.AwaitParked();
  EXPECT_EQ(storage_.ReleaseSyncs(1, SQLITE_IOERR_FSYNC), 1);
  EXPECT_EQ(create.Result(), SQLITE_IOERR_FSYNC);
  EXPECT_EQ(checkpoint.Result(), SQLITE_IOERR_FSYNC);
}

TEST_F(OverlapTest, ADiskThatFailsNowAndThen) {
  storage_.SetSyncDelay(sync_);
  StartWriters();
  AwaitOverlap();
  for (int i = 0; i < 10 && !HasFatalFailure(); i++) {
    FailUntilAWriterIsTold(1 + i % 4);
    StopWriters();
    EXPECT_EQ(observer_.Int("SELECT count(*) FROM t"), rows_);
    EXPECT_EQ(Stats(observer_).fenced, 0);
    EXPECT_EQ(RowsAfterPowerCut(), rows_);
    StartWriters();
    const int64_t before = rows_;
    while (rows_ < before + 10 * kWriters) std::this_thread::yield();
  }
  AwaitOverlap();
  StopWriters();
  EXPECT_EQ(RowsAfterPowerCut(), rows_);
}

}  // namespace
}  // namespace groupcommit::testing
