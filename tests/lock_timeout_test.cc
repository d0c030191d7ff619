// SQLite built with SQLITE_ENABLE_SETLK_TIMEOUT: it asks for the write lock before it takes its
// snapshot, and waits for it inside of xShmLock(). The calls of such a build, made by hand.
#include <sqlite3.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <future>
#include <thread>
#include <vector>

#include "support/queue_of.h"
#include "support/shim_test.h"

namespace groupcommit::testing {
namespace {

using std::chrono::milliseconds;

constexpr int kWrite = 0;
constexpr int kCheckpoint = 1;
constexpr int kRead = 4;
constexpr int kRequest = SQLITE_SHM_LOCK | SQLITE_SHM_EXCLUSIVE;

class LockTimeoutTest : public ShimTest {
 protected:
  void SetUp() override {
    storage_.SetLockTimeouts(true);
    holder_ = OpenWithTable();
    by_hand_ = OpenWithTable();  // its shared memory is open now
    sqlite3_file_control(by_hand_.get(), "main", SQLITE_FCNTL_FILE_POINTER, &file_);
    queue_ = &QueueOf(holder_);
  }

  // wal.c: walEnableBlocking(), walDisableBlocking().
  int SetTimeout(int ms) {
    return file_->pMethods->xFileControl(file_, SQLITE_FCNTL_LOCK_TIMEOUT, &ms);
  }
  int Lock(int lock, int kind) {
    return file_->pMethods->xShmLock(file_, lock, 1, SQLITE_SHM_LOCK | kind);
  }
  int Unlock(int lock, int kind) {
    return file_->pMethods->xShmLock(file_, lock, 1, SQLITE_SHM_UNLOCK | kind);
  }

  // wal.c: sqlite3WalWriteLock().
  int WriteLock(int timeout_ms) {
    EXPECT_EQ(SetTimeout(timeout_ms), SQLITE_OK);
    const int rc = Lock(kWrite, SQLITE_SHM_EXCLUSIVE);
    EXPECT_EQ(SetTimeout(0), SQLITE_OK);
    return rc;
  }

  // btree.c: sqlite3BtreeBeginTrans(), and the end of a transaction that wrote nothing.
  int Transaction(int timeout_ms) {
    const int rc = WriteLock(timeout_ms);
    if (rc != SQLITE_OK) return rc;
    EXPECT_EQ(Lock(kRead, SQLITE_SHM_SHARED), SQLITE_OK);
    EXPECT_EQ(Unlock(kWrite, SQLITE_SHM_EXCLUSIVE), SQLITE_OK);
    EXPECT_EQ(Unlock(kRead, SQLITE_SHM_SHARED), SQLITE_OK);
    return rc;
  }

  Db holder_;
  Db by_hand_;
  sqlite3_file* file_ = nullptr;
  WriteQueue* queue_ = nullptr;
};

TEST_F(LockTimeoutTest, ItWaitsInLineForItsTurn) {
  holder_.ExecOk("BEGIN IMMEDIATE");
  std::future<int> rc = std::async(std::launch::async, [this] { return Transaction(60'000); });
  while (queue_->waiting() == 0) std::this_thread::yield();
  holder_.ExecOk("COMMIT");
  EXPECT_EQ(rc.get(), SQLITE_OK);
  EXPECT_EQ(GateOf(holder_).writers(), 0);
  EXPECT_EQ(holder_.Exec("INSERT INTO t VALUES(1)"), SQLITE_OK);
}

// Before its snapshot it ends the one before, and the write lock with it (wal.c:
// sqlite3WalEndReadTransaction()). Then it asks without waiting.
TEST_F(LockTimeoutTest, ItsTurnIsStillItsOwnWhenItHasASnapshot) {
  Db waiter = OpenWithTable();
  waiter.SetBusyTimeout(60'000);
  // Once more if the thread had no processor for as long as a turn is kept.
  for (bool in_time = false; !in_time;) {
    EXPECT_EQ(WriteLock(60'000), SQLITE_OK);
    std::future<int> result = ExecAsync(waiter, "INSERT INTO t VALUES(1)");
    while (queue_->waiting() == 0) std::this_thread::yield();
    const int64_t end = queue_->clock().NowNanos() + WriteQueue::kTurnNanos;
    EXPECT_EQ(Unlock(kWrite, SQLITE_SHM_EXCLUSIVE), SQLITE_OK);
    const bool is_kept = queue_->IsKept();
    EXPECT_EQ(Lock(kRead, SQLITE_SHM_SHARED), SQLITE_OK);
    const bool is_first = !IsReady(result);
    const int rc = Lock(kWrite, SQLITE_SHM_EXCLUSIVE);
    in_time = queue_->clock().NowNanos() < end;
    if (in_time) {
      EXPECT_TRUE(is_kept);
      EXPECT_TRUE(is_first);
      EXPECT_EQ(rc, SQLITE_OK);
    }
    if (rc == SQLITE_OK) {
      EXPECT_EQ(Unlock(kWrite, SQLITE_SHM_EXCLUSIVE), SQLITE_OK);
    }
    EXPECT_EQ(Unlock(kRead, SQLITE_SHM_SHARED), SQLITE_OK);
    EXPECT_EQ(result.get(), SQLITE_OK);
  }
}

TEST_F(LockTimeoutTest, WithoutContentionItDoesNotWait) {
  for (int i = 0; i < 3; i++) EXPECT_EQ(Transaction(60'000), SQLITE_OK);
}

TEST_F(LockTimeoutTest, ItsTimeRunsOut) {
  holder_.ExecOk("BEGIN IMMEDIATE");
  const auto start = std::chrono::steady_clock::now();
  EXPECT_EQ(Transaction(20), SQLITE_BUSY_TIMEOUT);
  EXPECT_GE(std::chrono::steady_clock::now() - start, milliseconds(20));
  EXPECT_EQ(queue_->waiting(), 0);
  holder_.ExecOk("COMMIT");
  EXPECT_EQ(Transaction(20), SQLITE_OK);
}

// A checkpoint has closed the gate: the lock is free, and stock SQLite would let it have it.
class LongTurnTest : public LockTimeoutTest {
 protected:
  void KeepTurn() { ASSERT_TRUE(KeepForSomebody(queue_)); }
  void TearDown() override {
    EXPECT_TRUE(queue_->IsKeptForLong()) << "somebody has waited until its end";
    queue_->EndTurn(kSomebody);
  }
};

TEST_F(LongTurnTest, ItsTimeRunsOut) {
  KeepTurn();
  EXPECT_EQ(Transaction(20), SQLITE_OK);
}

// Some give the lock up before they take their snapshot, and ask again without waiting.
TEST_F(LongTurnTest, WhoWasLetThroughAndComesBackIsNotRefused) {
  KeepTurn();
  EXPECT_EQ(WriteLock(20), SQLITE_OK);
  EXPECT_EQ(Unlock(kWrite, SQLITE_SHM_EXCLUSIVE), SQLITE_OK);
  EXPECT_EQ(Lock(kRead, SQLITE_SHM_SHARED), SQLITE_OK);
  EXPECT_EQ(Lock(kWrite, SQLITE_SHM_EXCLUSIVE), SQLITE_OK);
  EXPECT_EQ(Unlock(kWrite, SQLITE_SHM_EXCLUSIVE), SQLITE_OK);
  EXPECT_EQ(Lock(kWrite, SQLITE_SHM_EXCLUSIVE), SQLITE_BUSY) << "once";
  EXPECT_EQ(Unlock(kRead, SQLITE_SHM_SHARED), SQLITE_OK);
}

TEST_F(LongTurnTest, ButNoLaterRequestIsLetThrough) {
  KeepTurn();
  EXPECT_EQ(Transaction(20), SQLITE_OK);
  EXPECT_EQ(Lock(kRead, SQLITE_SHM_SHARED), SQLITE_OK);
  EXPECT_EQ(Lock(kWrite, SQLITE_SHM_EXCLUSIVE), SQLITE_BUSY);
  EXPECT_EQ(Unlock(kRead, SQLITE_SHM_SHARED), SQLITE_OK);
}

// It has slept for a lock of another process. What it has got since is not waited for.
TEST_F(LongTurnTest, WhoWasLetThroughDoesNotSleepForItsSnapshot) {
  Db stranger(path(), "store");
  stranger.ExecOk("BEGIN IMMEDIATE");
  EXPECT_EQ(Lock(kWrite, SQLITE_SHM_EXCLUSIVE), SQLITE_BUSY);
  const auto handler = [](void* calls, int) {
    SleepInShim(2'000);
    constexpr int kEnough = 5;
    return static_cast<int>(++*static_cast<int*>(calls) < kEnough);
  };
  int calls = 0;
  handler(&calls, 0);
  stranger.ExecOk("COMMIT");
  KeepTurn();
  sqlite3_busy_handler(by_hand_.get(), handler, &calls);
  EXPECT_EQ(Transaction(20), SQLITE_OK);
  EXPECT_EQ(calls, 1);
}

// An open read transaction that becomes a writer does not wait.
TEST_F(LockTimeoutTest, WithoutATimeoutItIsBusyAtOnce) {
  holder_.ExecOk("BEGIN IMMEDIATE");
  EXPECT_EQ(SetTimeout(60'000), SQLITE_OK);
  EXPECT_EQ(SetTimeout(0), SQLITE_OK);
  EXPECT_EQ(Lock(kWrite, SQLITE_SHM_EXCLUSIVE), SQLITE_BUSY);
  holder_.ExecOk("COMMIT");
}

TEST_F(LockTimeoutTest, WithABaseThatCannotWaitItIsBusyAtOnce) {
  if (SqliteWaitsInside()) GTEST_SKIP() << "the unix VFS can";
  storage_.SetLockTimeouts(false);
  holder_.ExecOk("BEGIN IMMEDIATE");
  EXPECT_EQ(SetTimeout(60'000), SQLITE_NOTFOUND);
  EXPECT_EQ(Lock(kWrite, SQLITE_SHM_EXCLUSIVE), SQLITE_BUSY);
  holder_.ExecOk("COMMIT");
}

// Another process has the lock. The base VFS is not let wait for it, as it may do so with a mutex
// held that others need.
class OtherProcessTest : public LockTimeoutTest {
 protected:
  void SetUp() override {
    LockTimeoutTest::SetUp();
    storage_.SetFaultHook([this](const Call& call) {
      const bool is_request =
          call.op == Op::kShmLock && call.offset == refused_ && call.flags == kRequest;
      if (!is_request) return SQLITE_OK;
      requests_++;
      return refusals_-- > 0 ? SQLITE_BUSY : SQLITE_OK;
    });
    storage_.SetObserver([this](const Call& call) {
      if (call.op == Op::kFileControl && call.flags == SQLITE_FCNTL_LOCK_TIMEOUT) {
        told_.push_back(call.amount);
      }
    });
  }

  // An SQLite that waits inside tells the base VFS when it closes a database, too.
  void TearDown() override {
    storage_.SetFaultHook(nullptr);
    storage_.SetObserver(nullptr);
  }

  std::atomic<int64_t> refused_{kWrite};  // the lock
  std::atomic<int> refusals_{0};
  std::atomic<int> requests_{0};
  std::vector<int64_t> told_;
};

TEST_F(OtherProcessTest, ItIsAskedAgainUntilItHasReleasedTheLock) {
  refusals_ = 5;
  EXPECT_EQ(WriteLock(60'000), SQLITE_OK);
  EXPECT_EQ(requests_, 6);
  EXPECT_EQ(told_, (std::vector<int64_t>{0, 0})) << "the base VFS might wait";
  EXPECT_EQ(Unlock(kWrite, SQLITE_SHM_EXCLUSIVE), SQLITE_OK);
}

TEST_F(OtherProcessTest, TheTimeRunsOut) {
  refusals_ = 1'000'000;
  const auto start = std::chrono::steady_clock::now();
  EXPECT_EQ(WriteLock(20), SQLITE_BUSY_TIMEOUT);
  EXPECT_GE(std::chrono::steady_clock::now() - start, milliseconds(20));
  refusals_ = 0;
  EXPECT_EQ(Transaction(60'000), SQLITE_OK);
  EXPECT_EQ(holder_.Exec("INSERT INTO t VALUES(1)"), SQLITE_OK);
}

// wal.c: sqlite3WalCheckpoint(). Not so if it is a connection of ours, which SQLite does not wait
// for either.
TEST_F(OtherProcessTest, ACheckpointIsWaitedFor) {
  refused_ = kCheckpoint;
  refusals_ = 3;
  EXPECT_EQ(SetTimeout(60'000), SQLITE_OK);
  EXPECT_EQ(Lock(kCheckpoint, SQLITE_SHM_EXCLUSIVE), SQLITE_OK);
  EXPECT_EQ(requests_, 4);
  EXPECT_EQ(Unlock(kCheckpoint, SQLITE_SHM_EXCLUSIVE), SQLITE_OK);

  std::future<int> checkpoint = ExecUntilSync(holder_, "PRAGMA wal_checkpoint");
  requests_ = 0;
  EXPECT_EQ(Lock(kCheckpoint, SQLITE_SHM_EXCLUSIVE), SQLITE_BUSY);
  EXPECT_EQ(requests_, 1);
  EXPECT_EQ(Lock(kCheckpoint, SQLITE_SHM_SHARED), SQLITE_BUSY) << "sqlite3_snapshot_open()";
  storage_.OpenGate();
  EXPECT_EQ(checkpoint.get(), SQLITE_OK);
}

// A passive checkpoint leaves readers alone, whosever they are; the others wait (wal.c:
// walCheckpoint(), walBusyLock()).
TEST_F(OtherProcessTest, ReadersAreWaitedForOnlyIfSomebodyHasAskedForThat) {
  refused_ = kRead;
  EXPECT_EQ(SetTimeout(60'000), SQLITE_OK);
  EXPECT_EQ(Lock(kCheckpoint, SQLITE_SHM_EXCLUSIVE), SQLITE_OK);
  refusals_ = 3;
  EXPECT_EQ(Lock(kRead, SQLITE_SHM_EXCLUSIVE), SQLITE_BUSY);
  EXPECT_EQ(requests_, 1);
  EXPECT_EQ(Lock(kWrite, SQLITE_SHM_EXCLUSIVE), SQLITE_OK);
  EXPECT_EQ(Lock(kRead, SQLITE_SHM_EXCLUSIVE), SQLITE_OK);
  EXPECT_EQ(requests_, 4);
  for (const int lock : {kRead, kWrite, kCheckpoint}) {
    EXPECT_EQ(Unlock(lock, SQLITE_SHM_EXCLUSIVE), SQLITE_OK);
  }
}

// FULL, RESTART and TRUNCATE ask for one lock after the other.
TEST_F(OtherProcessTest, ACheckpointWaitsOnceForAllItsLocks) {
  EXPECT_EQ(SetTimeout(20), SQLITE_OK);
  EXPECT_EQ(Lock(kCheckpoint, SQLITE_SHM_EXCLUSIVE), SQLITE_OK);
  const int64_t end = queue_->clock().NowNanos() + 20'000'000;
  while (queue_->clock().NowNanos() < end) std::this_thread::yield();
  refusals_ = 1'000'000;
  EXPECT_EQ(Lock(kWrite, SQLITE_SHM_EXCLUSIVE), SQLITE_BUSY_TIMEOUT);
  EXPECT_EQ(requests_, 1);
  refusals_ = 0;
  EXPECT_EQ(Unlock(kCheckpoint, SQLITE_SHM_EXCLUSIVE), SQLITE_OK);
}

// It is no writer, and must not keep others from closing the hole beneath the process that is one.
TEST_F(OtherProcessTest, AFailedSyncEndsTheWait) {
  std::future<int> commit = ExecUntilSync(holder_, "INSERT INTO t VALUES('failed')");
  requests_ = 0;
  refusals_ = 1'000'000;
  std::future<int> rc = std::async(std::launch::async, [this] { return WriteLock(60'000); });
  while (requests_ < 2) std::this_thread::yield();
  FailHeldSync();
  EXPECT_EQ(rc.get(), SQLITE_IOERR_FSYNC);
  refusals_ = 0;
  EXPECT_EQ(commit.get(), SQLITE_IOERR_FSYNC);
  EXPECT_EQ(Transaction(60'000), SQLITE_OK);
  EXPECT_EQ(holder_.Exec("INSERT INTO t VALUES(1)"), SQLITE_OK);
}

TEST_F(OtherProcessTest, AnErrorIsHandedOn) {
  storage_.SetFaultHook([](const Call& call) {
    return call.op == Op::kShmLock && call.offset == kWrite && call.flags == kRequest
               ? SQLITE_IOERR_SHMLOCK
               : SQLITE_OK;
  });
  EXPECT_EQ(WriteLock(60'000), SQLITE_IOERR_SHMLOCK);
  storage_.SetFaultHook(nullptr);
  EXPECT_EQ(Transaction(60'000), SQLITE_OK);
}

// wal.c: walIndexReadHdr() recovers the log under the lock with which the transaction then goes on.
// That sets the number of changes back: it may come to what it was when the lock was taken.
TEST_F(LockTimeoutTest, ACommitAfterARecoveryUnderItsLockIsNoticed) {
  constexpr int kIndexSize = 32768;
  constexpr int kChange = 2;  // wal.c: WalIndexHdr.iChange
  void volatile* index = nullptr;
  ASSERT_EQ(file_->pMethods->xShmMap(file_, 0, kIndexSize, 0, &index), SQLITE_OK);
  uint32_t volatile* change = static_cast<uint32_t volatile*>(index) + kChange;
  by_hand_.ExecOk("BEGIN IMMEDIATE");
  EXPECT_EQ(Unlock(kWrite, SQLITE_SHM_EXCLUSIVE), SQLITE_OK);
  const uint32_t recovered = *change;
  *change = recovered + 1;
  EXPECT_EQ(Lock(kWrite, SQLITE_SHM_EXCLUSIVE), SQLITE_OK);
  *change = recovered;
  const int64_t syncs = WalSyncs();
  by_hand_.ExecOk("INSERT INTO t VALUES('recovered'); COMMIT");
  EXPECT_EQ(*change, recovered + 1);
  EXPECT_EQ(WalSyncs(), syncs + 1);
  EXPECT_EQ(RowsAfterPowerCut(), 3);
}

// One thread with two connections: the wait ends.
TEST_F(LockTimeoutTest, TwoOfThemInOneThread) {
  holder_.ExecOk("BEGIN IMMEDIATE");
  EXPECT_EQ(WriteLock(1), SQLITE_BUSY_TIMEOUT);
  holder_.ExecOk("COMMIT");
}

}  // namespace
}  // namespace groupcommit::testing
