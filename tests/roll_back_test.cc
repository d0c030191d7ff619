// What may happen around the roll-back of failed commits: sequences that a model of the protocol
// found.
#include <sqlite3.h>

#include <atomic>
#include <chrono>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <tuple>
#include <utility>

#include "support/patience.h"
#include "support/shim_test.h"
#include "support/wal_index.h"

namespace groupcommit::testing {
namespace {

using RollBackTest = ShimTest;

// The newest LSN is one that failed long ago; a commit without one of its own must not wait for it.
TEST_F(RollBackTest, ASchemaChangeAfterwardsIsNotFailedForTheOldOnes) {
  Db db = OpenWithTable();
  storage_.FailSyncs(FileKind::kWal, 1, 1);
  EXPECT_EQ(db.Exec("INSERT INTO t VALUES('failed')"), SQLITE_IOERR_FSYNC);
  EXPECT_EQ(db.Exec("CREATE TABLE u(x)"), SQLITE_OK);
}

TEST_F(RollBackTest, ANormalCommitAfterwardsIsNotFailedForTheOldOnes) {
  Db full = OpenWithTable();
  Db normal = OpenWithTable();
  normal.ExecOk("PRAGMA synchronous=NORMAL");
  storage_.FailSyncs(FileKind::kWal, 1, 1);
  EXPECT_EQ(full.Exec("INSERT INTO t VALUES('failed')"), SQLITE_IOERR_FSYNC);
  EXPECT_EQ(normal.Exec("INSERT INTO t VALUES('normal')"), SQLITE_OK);
}

// A reader that has read the header from before a failed commit, and then how far a checkpoint has
// come, must notice the roll-back: both headers differ (wal.c: walTryBeginRead()).
TEST_F(RollBackTest, TheHeaderThatIsPutBackIsANewOne) {
  Db db = OpenWithTable();
  const auto before = WalIndexWords(path());
  storage_.FailSyncs(FileKind::kWal, 1, 1);
  EXPECT_EQ(db.Exec("INSERT INTO t VALUES('failed')"), SQLITE_IOERR_FSYNC);
  const auto after = WalIndexWords(path());
  EXPECT_EQ(after[kLastFrameWord], before[kLastFrameWord]);
  EXPECT_EQ(after[kChangeWord], before[kChangeWord] + 2);
  // And SQLite takes it for valid, without a recovery.
  Db other = OpenWal();
  EXPECT_EQ(other.Int("SELECT count(*) FROM t"), 1);
  EXPECT_EQ(WalIndexWords(path()), after);
}

// A failed sync for which nobody waited: does each handle report the error, and is the next commit
// made by a connection that was opened since?
class NobodyWaitedTest : public ShimTest,
                         public ::testing::WithParamInterface<std::tuple<bool, bool>> {};

TEST_P(NobodyWaitedTest, ACommitOnTopOfANormalCommitIsNotAcknowledgedOnAHole) {
  const auto [error_per_handle, newcomer] = GetParam();
  Db full = OpenWithTable();
  Db normal = OpenWithTable();
  normal.ExecOk("PRAGMA synchronous=NORMAL");
  storage_.SetErrorPerHandle(error_per_handle);
  normal.ExecOk("INSERT INTO t VALUES('normal')");
  storage_.FailSyncs(FileKind::kWal, 1, 1);
  EXPECT_NE(full.Exec("CREATE TABLE u(x)"), SQLITE_OK);
  Db late = OpenWal();
  Db& writer = newcomer ? late : normal;
  writer.ExecOk("PRAGMA synchronous=FULL; INSERT INTO t VALUES('acknowledged')");
  EXPECT_EQ(RowsAfterPowerCut(), writer.Int("SELECT count(*) FROM t"));
}

INSTANTIATE_TEST_SUITE_P(, NobodyWaitedTest,
                         ::testing::Combine(::testing::Bool(), ::testing::Bool()));

// A snapshot taken after the failure and before the header is back. With all read marks in use, its
// own one is lower than it is.
class LateSnapshotTest : public ShimTest, public ::testing::WithParamInterface<bool> {};

TEST_P(LateSnapshotTest, IsRefusedAfterTheRollBack) {
  const bool all_marks_in_use = GetParam();
  Db a = OpenWithTable();
  a.ExecOk("CREATE TABLE u(x); INSERT INTO u VALUES(1)");
  Db writer = OpenWal();
  Db reader = OpenWal();
  reader.Int("SELECT count(*) FROM u");
  std::vector<Db> others;
  for (int i = 0; i < 6 && all_marks_in_use; i++) {
    a.ExecOk("INSERT INTO t VALUES('x')");
    others.push_back(OpenWal());
    others.back().ExecOk("BEGIN; SELECT count(*) FROM u");
  }
  std::future<int> failing = ExecUntilSync(a, "INSERT INTO t VALUES('failed')");
  writer.ExecOk("BEGIN IMMEDIATE");  // keeps the roll-back off
  FailHeldSync();
  while (Stats(writer).fenced == 0) std::this_thread::yield();
  const int begun = reader.Exec("BEGIN; SELECT count(*) FROM u");
  writer.Exec("ROLLBACK");
  EXPECT_EQ(failing.get(), SQLITE_IOERR_FSYNC);
  writer.Exec("INSERT INTO t VALUES('after')");
  if (begun == SQLITE_OK) {
    EXPECT_NE(reader.Exec("SELECT * FROM t"), SQLITE_OK);
  }
  reader.Exec("ROLLBACK");
  EXPECT_EQ(reader.Int("SELECT count(*) FROM t WHERE x='failed'"), 0);
  EXPECT_EQ(writer.Exec("INSERT INTO t VALUES('after')"), SQLITE_OK);
}

INSTANTIATE_TEST_SUITE_P(, LateSnapshotTest, ::testing::Bool());

// A pending page 1 is read without waiting. With all read marks in use, the snapshot does not keep
// others from overwriting it meanwhile, once it has failed.
TEST_F(RollBackTest, WhatIsOverwrittenWhileItIsReadIsRefused) {
  storage_.SetJoinWrites(false);  // or else it is read from memory
  Db failing = OpenWithTable();
  failing.ExecOk("CREATE TABLE u(x)");
  Db reader = OpenWal();
  Db writer = OpenWal();
  reader.Int("SELECT count(*) FROM u");
  std::vector<Db> others;
  for (int i = 0; i < 6; i++) {
    failing.ExecOk("INSERT INTO t VALUES('x')");
    others.push_back(OpenWal());
    others.back().ExecOk("BEGIN; SELECT count(*) FROM u");
  }
  std::future<int> commit = ExecUntilSync(failing, "INSERT INTO t VALUES(zeroblob(50000))");
  const std::thread::id self = std::this_thread::get_id();
  std::atomic<bool> has_failed{false};
  storage_.SetObserver([&](const Call& call) {
    if (call.op != Op::kRead || call.kind != FileKind::kWal) return;
    if (std::this_thread::get_id() != self || has_failed.exchange(true)) return;
    FailHeldSync();
    EXPECT_EQ(commit.get(), SQLITE_IOERR_FSYNC);
    writer.ExecOk("UPDATE t SET x = zeroblob(60000)");
  });
  EXPECT_EQ(reader.Exec("SELECT * FROM u"), SQLITE_IOERR_FSYNC);
  storage_.SetObserver(nullptr);
  EXPECT_TRUE(has_failed);
}

// A writer whose snapshot includes the failed commit keeps the roll-back off, by its write lock and
// then by its snapshot. It lets both go as it ends, and need not wait for anybody to come by.
TEST_F(RollBackTest, AWriterOnTopOfAFailedCommitTakesItBackAsItEnds) {
  Db failing = OpenWithTable();
  Db writer = OpenWithTable();
  std::future<int> commit = ExecUntilSync(failing, "INSERT INTO t VALUES('failed')");
  writer.ExecOk("BEGIN IMMEDIATE");
  FailHeldSync();
  while (Stats(writer).fenced == 0) std::this_thread::yield();
  const std::thread::id self = std::this_thread::get_id();
  bool has_cut = false;
  storage_.SetObserver([&](const Call& call) {
    if (std::this_thread::get_id() != self) return;  // the other one tries, too
    if (call.op == Op::kWrite && call.kind == FileKind::kWal) has_cut = true;
  });
  writer.Exec("ROLLBACK");
  storage_.SetObserver(nullptr);
  EXPECT_TRUE(has_cut);
  EXPECT_EQ(Stats(writer).fenced, 0);
  EXPECT_EQ(commit.get(), SQLITE_IOERR_FSYNC);
  EXPECT_EQ(writer.Int("SELECT count(*) FROM t"), 2);
}

// A cache that may hold pages of a failed commit is not used until that was taken back; later
// failures are none of its business.
TEST_F(RollBackTest, ACacheWithPagesOfAFailedCommitIsGoodAgainAfterwards) {
  Db failing = OpenWithTable();
  Db reader = OpenWithTable();
  Db observer = OpenWal();
  std::future<int> commit = ExecUntilSync(failing, "INSERT INTO t VALUES('failed')");
  reader.ExecOk("BEGIN IMMEDIATE; SELECT * FROM t");
  std::future<int> rollback = ExecAsync(reader, "ROLLBACK");
  ExpectToWait(rollback, observer, 2);
  FailHeldSync();
  EXPECT_EQ(commit.get(), SQLITE_IOERR_FSYNC);
  rollback.get();
  EXPECT_EQ(reader.Int("SELECT count(*) FROM t"), 2);
  storage_.FailSyncs(FileKind::kWal, 1, 1'000'000);
  EXPECT_EQ(failing.Exec("INSERT INTO t VALUES('failed')"), SQLITE_IOERR_FSYNC);
  EXPECT_EQ(Stats(observer).fenced, 1);
  EXPECT_EQ(reader.Int("SELECT count(*) FROM t"), 2);
  storage_.FailSyncs(FileKind::kWal, 1, 0);
}

TEST_F(RollBackTest, ACacheWithPagesOfAFailedCommitIsNotUsedBefore) {
  Db failing = OpenWithTable();
  Db reader = OpenWithTable();
  Db writer = OpenWithTable();
  Db observer = OpenWal();
  std::future<int> commit = ExecUntilSync(failing, "INSERT INTO t VALUES('failed')");
  reader.ExecOk("BEGIN IMMEDIATE; SELECT * FROM t");
  std::future<int> rollback = ExecAsync(reader, "ROLLBACK");
  ExpectToWait(rollback, observer, 2);
  writer.ExecOk("BEGIN IMMEDIATE");  // keeps the roll-back off
  FailHeldSync();
  EXPECT_EQ(commit.get(), SQLITE_IOERR_FSYNC);
  rollback.get();
  EXPECT_EQ(reader.Exec("SELECT * FROM t"), SQLITE_IOERR_FSYNC);
  writer.Exec("ROLLBACK");
  EXPECT_EQ(reader.Int("SELECT count(*) FROM t"), 3);
}

// What it has not read yet is refused, too, where it is in the database file: the snapshot may be
// given up by then, and a checkpoint write there.
class FailedSnapshotTest : public ShimTest, public ::testing::WithParamInterface<int64_t> {};

TEST_P(FailedSnapshotTest, ReadsNothingOfTheDatabaseFile) {
  Db failing = OpenWithTable();
  failing.ExecOk("CREATE TABLE u(x); INSERT INTO u VALUES(1); PRAGMA wal_checkpoint(TRUNCATE)");
  failing.ExecOk("INSERT INTO t VALUES('begins the log')");
  Db reader = OpenWal();
  reader.ExecOk("PRAGMA mmap_size=" + std::to_string(GetParam()) + "; SELECT * FROM t");
  std::future<int> commit = ExecUntilSync(failing, "INSERT INTO t VALUES('failed')");
  reader.ExecOk("BEGIN; SELECT 1 FROM sqlite_schema");
  FailHeldSync();
  while (Stats(reader).fenced == 0) std::this_thread::yield();
  EXPECT_EQ(reader.Exec("SELECT * FROM u"), SQLITE_IOERR_FSYNC);
  EXPECT_EQ(commit.get(), SQLITE_IOERR_FSYNC);
}

INSTANTIATE_TEST_SUITE_P(, FailedSnapshotTest, ::testing::Values(0, 100'000'000));

// A statement that is still open keeps a snapshot of what failed, long after another one of its
// connection was refused. All that it would read is refused, too: so it is in nobody's way.
TEST_F(RollBackTest, AStatementThatIsLeftOpenDoesNotKeepWritersOut) {
  Db failing = OpenWithTable();
  failing.ExecOk("CREATE TABLE u(x); INSERT INTO u VALUES(1)");
  Db reader = OpenWithTable();
  Db observer = OpenWal();
  std::future<int> commit = ExecUntilSync(failing, "INSERT INTO t VALUES('failed')");
  sqlite3_stmt* open = nullptr;
  ASSERT_EQ(sqlite3_prepare_v2(reader.get(), "SELECT x FROM u", -1, &open, nullptr), SQLITE_OK);
  ASSERT_EQ(sqlite3_step(open), SQLITE_ROW);
  // The fence is up when it is asked who reads what failed.
  std::atomic<bool> is_fenced{false};
  storage_.SetObserver([&](const Call& call) {
    constexpr int kFirstReadLock = 3;
    if (call.op == Op::kShmLock && call.offset > kFirstReadLock &&
        call.flags == (SQLITE_SHM_LOCK | SQLITE_SHM_EXCLUSIVE)) {
      is_fenced = true;
    }
  });
  FailHeldSync();
  while (!is_fenced) std::this_thread::yield();
  EXPECT_EQ(reader.Exec("SELECT * FROM t"), SQLITE_IOERR_FSYNC);
  EXPECT_EQ(commit.get(), SQLITE_IOERR_FSYNC);
  storage_.SetObserver(nullptr);
  // (It may be the next one that takes it back, if nobody has read for as long as COMMIT tries.)
  EXPECT_EQ(failing.Exec("INSERT INTO t VALUES('after')"), SQLITE_OK);
  EXPECT_EQ(Stats(observer).fenced, 0);
  sqlite3_finalize(open);
}

// A snapshot of what failed is given up before SQLite does so, whose unlock then must not reach the
// base VFS: by that time the lock may be somebody else's.
TEST_F(RollBackTest, ASnapshotIsGivenUpOnce) {
  Db failing = OpenWithTable();
  failing.ExecOk("CREATE TABLE u(x)");
  Db reader = OpenWithTable();
  std::map<std::pair<const sqlite3_file*, int64_t>, bool> held;
  std::mutex mutex;
  storage_.SetObserver([&](const Call& call) {
    constexpr int kFirstReadLock = 3;
    if (call.op != Op::kShmLock || (call.flags & SQLITE_SHM_SHARED) == 0) return;
    if (call.offset < kFirstReadLock) return;
    const std::lock_guard<std::mutex> lock(mutex);
    bool& is_held = held[{call.file, call.offset}];
    const bool unlocks = (call.flags & SQLITE_SHM_UNLOCK) != 0;
    if (unlocks) {
      EXPECT_TRUE(is_held) << call.offset;
    }
    is_held = !unlocks;
  });
  std::future<int> commit = ExecUntilSync(failing, "INSERT INTO t VALUES('failed')");
  reader.ExecOk("BEGIN; SELECT * FROM u");
  FailHeldSync();
  while (reader.Exec("SELECT * FROM t") == SQLITE_OK) std::this_thread::yield();
  reader.Exec("ROLLBACK");
  EXPECT_EQ(commit.get(), SQLITE_IOERR_FSYNC);
  for (int i = 0; i < 2; i++) {
    EXPECT_EQ(reader.Int("SELECT count(*) FROM t"), 2);
    EXPECT_EQ(reader.Int("PRAGMA wal_checkpoint(TRUNCATE)"), 0) << "a lock is left behind";
  }
  storage_.SetObserver(nullptr);
}

// A snapshot of a commit that was pending then, and is durable by now, is none of what failed: it
// goes on keeping the log as it is.
TEST_F(RollBackTest, ASnapshotOfWhatIsDurableByNowIsKept) {
  Db failing = OpenWithTable();
  failing.SetBusyTimeout(0);
  failing.ExecOk("CREATE TABLE u(x)");
  Db reader = OpenWal();
  std::future<int> commit = ExecUntilSync(failing, "INSERT INTO t VALUES('durable')");
  reader.ExecOk("BEGIN; SELECT * FROM u");
  storage_.OpenGate();
  EXPECT_EQ(commit.get(), SQLITE_OK);
  storage_.FailSyncs(FileKind::kWal, 1, 1'000'000);
  EXPECT_EQ(failing.Exec("INSERT INTO t VALUES('failed')"), SQLITE_IOERR_FSYNC);
  EXPECT_NE(reader.Exec("PRAGMA groupcommit_flush"), SQLITE_OK);  // tries to take it back
  storage_.FailSyncs(FileKind::kWal, 1, 0);
  failing.ExecOk("INSERT INTO t VALUES('after')");
  EXPECT_EQ(failing.Int("PRAGMA wal_checkpoint(TRUNCATE)"), 1) << "it is not busy";
  EXPECT_EQ(reader.Int("SELECT count(*) FROM t"), 2);
}

// Who has taken what failed back hears of it once more, as it has read it. But that is over, and
// another process may have the write lock by now.
TEST_F(RollBackTest, WhatIsOverIsNotTakenBackAgain) {
  Db failing = OpenWithTable();
  Db writer = OpenWithTable();
  Db stranger(path(), "store");
  stranger.SetBusyTimeout(0);
  stranger.Int("SELECT count(*) FROM t");
  std::future<int> commit = ExecUntilSync(failing, "INSERT INTO t VALUES('failed')");
  writer.ExecOk("BEGIN IMMEDIATE; SELECT * FROM t");
  FailHeldSync();
  EXPECT_EQ(commit.get(), SQLITE_IOERR_FSYNC);
  std::atomic<bool> asks{false};
  storage_.SetObserver([&](const Call& call) {
    const bool for_write_lock = call.op == Op::kShmLock && call.offset == 0 &&
                                call.flags == (SQLITE_SHM_LOCK | SQLITE_SHM_EXCLUSIVE);
    if (!for_write_lock || Stats(writer).fenced != 0 || asks.exchange(true)) return;
    stranger.Exec("BEGIN IMMEDIATE");
  });
  writer.Exec("ROLLBACK");
  storage_.SetObserver(nullptr);
  stranger.Exec("ROLLBACK");
  EXPECT_EQ(stranger.Int("PRAGMA wal_checkpoint"), 0) << "a lock is left behind";
}

// What SQLite holds is not let go of before it says so, though the fence needs the same locks.
class LockOfOursTest : public ShimTest {
 protected:
  void SetUp() override {
    a_ = OpenWithTable();
    b_ = OpenWithTable();
    stranger_ = Db(path(), "store");
    stranger_.SetBusyTimeout(0);
    stranger_.Int("SELECT count(*) FROM t");
  }
  // Whenever the base VFS is asked to release that lock, a stranger must not have got it before.
  void Watch(int lock) {
    storage_.SetObserver([this, lock](const Call& call) {
      if (call.op != Op::kShmLock || watching_) return;
      const bool unlocks = (call.flags & SQLITE_SHM_UNLOCK) != 0;
      if (call.offset > kFirstReadLock && !unlocks) asked_for_readers_++;
      if (call.offset != lock || !unlocks || watching_.exchange(true)) return;
      if (lock == kWriteLock) {
        EXPECT_EQ(stranger_.Exec("BEGIN IMMEDIATE"), SQLITE_BUSY);
      } else {
        EXPECT_EQ(stranger_.Int("PRAGMA wal_checkpoint"), 1) << "it is not busy";
      }
      released_++;
      watching_ = false;
    });
  }
  void ExpectReleasedOnce() {
    storage_.SetObserver(nullptr);
    EXPECT_EQ(released_, 1);
    stranger_.Exec("ROLLBACK");
    EXPECT_EQ(Stats(b_).fenced, 0);
    EXPECT_EQ(stranger_.Exec("INSERT INTO t VALUES('x')"), SQLITE_OK);
  }

  static constexpr int kWriteLock = 0;  // as xShmLock() numbers them
  static constexpr int kCheckpointLock = 1;
  static constexpr int kFirstReadLock = 3;
  Db a_, b_, stranger_;
  std::atomic<bool> watching_{false};
  std::atomic<int> released_{0};
  std::atomic<int> asked_for_readers_{0};
};

TEST_F(LockOfOursTest, ACommitWhoseOwnSyncFails) {
  a_.ExecOk("PRAGMA groupcommit_policy=on_each_flush");
  Watch(kWriteLock);
  storage_.FailSyncs(FileKind::kWal, 1, 1);
  EXPECT_EQ(a_.Exec("INSERT INTO t VALUES('failed')"), SQLITE_IOERR_FSYNC);
  ExpectReleasedOnce();
}

TEST_F(LockOfOursTest, AWriterThatFlushes) {
  a_.ExecOk("BEGIN IMMEDIATE; INSERT INTO t VALUES('x')");
  storage_.FailSyncs(FileKind::kWal, 1, 1);
  Watch(kWriteLock);
  for (int i = 0; i < 2; i++) EXPECT_NE(a_.Exec("PRAGMA groupcommit_flush"), SQLITE_OK);
  a_.Exec("ROLLBACK");
  ExpectReleasedOnce();
}

// It asks for the locks of readers, under the write lock (wal.c: walRestartLog()).
TEST_F(LockOfOursTest, AWriterThatStartsTheLogOver) {
  a_.ExecOk("PRAGMA wal_checkpoint; BEGIN IMMEDIATE");
  storage_.FailSyncs(FileKind::kWal, 1, 1);
  EXPECT_NE(b_.Exec("PRAGMA groupcommit_flush"), SQLITE_OK);
  Watch(kWriteLock);
  EXPECT_EQ(a_.Exec("INSERT INTO t VALUES('x'); COMMIT"), SQLITE_IOERR_FSYNC);
  EXPECT_GT(asked_for_readers_, 0);
  a_.Exec("ROLLBACK");
  ExpectReleasedOnce();
}

TEST_F(LockOfOursTest, ACheckpointThatWaitsForReaders) {
  b_.ExecOk("PRAGMA synchronous=OFF");
  std::atomic<bool> is_patient{true};
  sqlite3_busy_handler(
      b_.get(),
      [](void* patient, int) {
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
        return static_cast<int>(*static_cast<std::atomic<bool>*>(patient));
      },
      &is_patient);
  std::future<int> commit = ExecUntilSync(a_, "INSERT INTO t VALUES('failed')");
  Watch(kCheckpointLock);
  std::future<int> checkpoint = ExecAsync(b_, "PRAGMA wal_checkpoint(FULL)");
  while (asked_for_readers_ == 0) std::this_thread::yield();
  FailHeldSync();
  EXPECT_EQ(commit.get(), SQLITE_IOERR_FSYNC);
  EXPECT_EQ(checkpoint.wait_for(kPatience), std::future_status::ready)
      << "it waits for the snapshot that the fence keeps";
  is_patient = false;
  EXPECT_EQ(checkpoint.get(), SQLITE_IOERR_FSYNC);
  EXPECT_EQ(Stats(a_).fenced, 0);
  storage_.SetObserver(nullptr);
  EXPECT_GT(released_, 0);
}

}  // namespace
}  // namespace groupcommit::testing
