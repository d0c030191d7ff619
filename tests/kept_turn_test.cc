// The write lock is free, but kept for somebody who has not come for it yet: who is no worse off
// for it than with stock SQLite, which knows no such thing.
#include <sqlite3.h>

#include <chrono>
#include <cstdint>
#include <functional>
#include <future>
#include <thread>
#include <utility>

#include "support/patience.h"
#include "support/queue_of.h"
#include "support/shim_test.h"

namespace groupcommit::testing {
namespace {

class KeptTurnTest : public ShimTest {
 protected:
  void SetUp() override {
    db_ = OpenWithTable();
    queue_ = &QueueOf(db_);
  }
  void KeepTurn() { ASSERT_TRUE(KeepForSomebody(queue_)); }

  // Each longer than the one before, as SQLite's; no later one lasts 1 ms.
  static int SleepMicros(int call) { return (call + 1) * 1'000; }
  void SetBusyHandler(std::function<int(int)>* handler) {
    sqlite3_busy_handler(
        db_.get(),
        [](void* f, int call) { return (*static_cast<std::function<int(int)>*>(f))(call); },
        handler);
  }

  Db db_;
  WriteQueue* queue_ = nullptr;
};

// SQLite does not call the busy handler for it (btree.c: sqlite3BtreeBeginTrans()): refused once,
// it is refused for good.
TEST_F(KeptTurnTest, AReadTransactionWithABusyTimeoutBecomesAWriter) {
  db_.ExecOk("BEGIN; SELECT * FROM t");
  KeepTurn();
  EXPECT_EQ(db_.Exec("INSERT INTO t VALUES('upgrade')"), SQLITE_OK);
  queue_->EndTurn(kSomebody);
  EXPECT_EQ(db_.Exec("COMMIT"), SQLITE_OK);
}

// It has slept in line, but does not want to any longer.
TEST_F(KeptTurnTest, ABusyHandlerThatGivesUp) {
  int calls = 0;
  sqlite3_busy_handler(
      db_.get(),
      [](void* count, int) {
        ++*static_cast<int*>(count);
        SleepInShim(1);
        return 0;
      },
      &calls);
  KeepTurn();
  EXPECT_EQ(db_.Exec("INSERT INTO t VALUES('x')"), SQLITE_OK);
  EXPECT_EQ(calls, 1);
  queue_->EndTurn(kSomebody);
}

// It sleeps by itself, and nothing tells how often it will.
TEST_F(KeptTurnTest, ABusyHandlerThatDoesNotSleepInLine) {
  int calls = 0;
  std::function<int(int)> handler = [&calls](int call) {
    calls++;
    return static_cast<int>(call < 100);
  };
  SetBusyHandler(&handler);
  KeepTurn();
  EXPECT_EQ(db_.Exec("INSERT INTO t VALUES('x')"), SQLITE_OK);
  EXPECT_EQ(calls, 1);
  queue_->EndTurn(kSomebody);
}

// Neither late, by the rest of that turn, nor refused what stock SQLite would let it have.
class EndingTimeoutTest : public KeptTurnTest, public ::testing::WithParamInterface<int> {
 protected:
  void ExpectThroughAtOnce(const char* sql) {
    KeepTurn();
    EXPECT_EQ(db_.Exec(sql), SQLITE_OK) << sql;
    EXPECT_TRUE(queue_->IsKeptForLong()) << "it has waited until its end";
    queue_->EndTurn(kSomebody);
  }
};

TEST_P(EndingTimeoutTest, OfSqlites) {
  db_.SetBusyTimeout(GetParam());
  const auto start = std::chrono::steady_clock::now();
  ExpectThroughAtOnce("INSERT INTO t VALUES('x')");
  // A last sleep of 1 ms is taken for the first one of another statement.
  const std::chrono::milliseconds at_least(GetParam() - 1);
  EXPECT_GE(std::chrono::steady_clock::now() - start, at_least);
  ExpectThroughAtOnce("BEGIN IMMEDIATE; INSERT INTO t VALUES('y'); COMMIT");
}

// It sleeps 1 ms each time, as SQLite does the first time only.
TEST_P(EndingTimeoutTest, OfAHandlerOfOnesOwn) {
  int calls_left = GetParam();
  sqlite3_busy_handler(
      db_.get(),
      [](void* left, int) {
        if (*static_cast<int*>(left) > 0) SleepInShim(1'000);
        return static_cast<int>(--*static_cast<int*>(left) >= 0);
      },
      &calls_left);
  ExpectThroughAtOnce("INSERT INTO t VALUES('x')");
}

// (1 ms is over before SQLite has slept in line.)
INSTANTIATE_TEST_SUITE_P(, EndingTimeoutTest, ::testing::Values(2, 3, 4, 5, 6, 8, 20, 53, 100));

// Refused for another writer, it sleeps; when it has slept, the lock is kept for a third one.
class KeptAfterASleepTest : public KeptTurnTest {
 protected:
  void SetUp() override {
    KeptTurnTest::SetUp();
    holder_.ExecOk("BEGIN IMMEDIATE");
    handler_ = [this](int call) {
      calls_++;
      if (call == sleeps_) return 0;
      SleepInShim(sleep_micros_ != 0 ? sleep_micros_ : SleepMicros(call));
      if (call == 0) holder_.ExecOk("COMMIT");
      call == 0 ? after_sleep_() : on_second_sleep_();
      return 1;
    };
    SetBusyHandler(&handler_);
  }
  void TearDown() override { queue_->EndTurn(kSomebody); }

  int sleeps_ = 2;        // until it gives up
  int sleep_micros_ = 0;  // SleepMicros()
  Db holder_ = OpenWithTable();
  std::function<int(int)> handler_;
  std::function<void()> after_sleep_ = [this] { KeepTurn(); };
  std::function<void()> on_second_sleep_ = [] {};
  int calls_ = 0;
};

TEST_F(KeptAfterASleepTest, ABusyHandlerIsAskedOnceForEachSleep) {
  EXPECT_EQ(db_.Exec("INSERT INTO t VALUES('x')"), SQLITE_OK);
  EXPECT_EQ(calls_, sleeps_ + 1);
  EXPECT_TRUE(queue_->IsKeptForLong());
}

TEST_F(KeptAfterASleepTest, AlsoByACheckpoint) {
  const int mode = SQLITE_CHECKPOINT_FULL;
  EXPECT_EQ(sqlite3_wal_checkpoint_v2(db_.get(), nullptr, mode, nullptr, nullptr), SQLITE_OK);
  EXPECT_EQ(calls_, sleeps_ + 1);
  EXPECT_TRUE(queue_->IsKeptForLong());
}

// Its snapshot is as new as if it had slept before; else it would write behind what is in the
// database file.
TEST_F(KeptAfterASleepTest, ItStartsTheLogOverThatHasBeenCopiedMeanwhile) {
  constexpr int kPassive = SQLITE_CHECKPOINT_PASSIVE;
  int before = 0;
  int after = 0;
  int copied = 0;
  on_second_sleep_ = [&] {
    std::thread([&] {
      sqlite3_wal_checkpoint_v2(holder_.get(), nullptr, kPassive, &before, &copied);
    }).join();
    queue_->EndTurn(kSomebody);
  };
  EXPECT_EQ(db_.Exec("INSERT INTO t VALUES('x')"), SQLITE_OK);
  EXPECT_EQ(before, copied);
  sqlite3_wal_checkpoint_v2(holder_.get(), nullptr, kPassive, &after, nullptr);
  EXPECT_LT(after, before);
}

// For an ordinary turn, of 5 ms, which nobody comes for. (And not at all, where the thread has had
// no processor for so long.)
TEST_F(KeptAfterASleepTest, ItSleepsNoLongerThanTheLockIsKept) {
  after_sleep_ = [this] {
    const int64_t now = queue_->clock().NowNanos();
    EXPECT_TRUE(queue_->AwaitTurn(kSomebody, WriteQueue::kFirst, now, true));
  };
  sleep_micros_ = 10'000;
  sleeps_ = 100;
  EXPECT_EQ(db_.Exec("INSERT INTO t VALUES('x')"), SQLITE_OK);
  EXPECT_LE(calls_, 2);
}

// It has seen the lock free; to be asked now would be once too often.
TEST_F(KeptAfterASleepTest, KeptAMomentLaterItIsNotAskedAgain) {
  after_sleep_ = [this] {
    storage_.SetObserver([this](const Call& call) {
      constexpr int kFirstReadLock = 3;
      if (call.op != Op::kShmLock || call.offset < kFirstReadLock || queue_->IsKept()) return;
      KeepTurn();
    });
  };
  EXPECT_EQ(db_.Exec("INSERT INTO t VALUES('x')"), SQLITE_OK);
  storage_.SetObserver(nullptr);
  EXPECT_EQ(calls_, 1);
  EXPECT_TRUE(queue_->IsKeptForLong());
}

TEST_F(KeptTurnTest, AWriterThatHasSleptIsStillHeldBack) {
  int calls = 0;
  std::function<int(int)> handler = [&](int call) {
    constexpr int kSleeps = 7;
    SleepInShim(SleepMicros(call));
    if (call == kSleeps) queue_->EndTurn(kSomebody);
    return ++calls;
  };
  SetBusyHandler(&handler);
  KeepTurn();
  EXPECT_EQ(db_.Exec("INSERT INTO t VALUES('x')"), SQLITE_OK);
  EXPECT_EQ(calls, 8);
}

TEST_F(KeptTurnTest, NobodySleepsOnWhenASyncHasFailed) {
  Db failing = OpenWithTable();
  Db holder = OpenWithTable();
  std::future<int> failed = ExecUntilSync(failing, "INSERT INTO t VALUES('failed')");
  holder.ExecOk("BEGIN IMMEDIATE");
  int calls = 0;
  std::function<int(int)> handler = [&](int call) {
    calls++;
    if (call == 0) {
      FailHeldSync();
      EXPECT_EQ(failed.get(), SQLITE_IOERR_FSYNC);
    }
    SleepInShim(SleepMicros(call));
    return static_cast<int>(call < 100);
  };
  SetBusyHandler(&handler);
  EXPECT_EQ(db_.Exec("INSERT INTO t VALUES('x')"), SQLITE_IOERR_FSYNC);
  EXPECT_EQ(calls, 1);
  holder.ExecOk("ROLLBACK");
}

// What its last sleep was cut short by, for a turn that has come to nothing, is slept all the same.
class LateTurnTest : public KeptTurnTest {
 protected:
  // Much longer than a turn, and than a thread may have to wait for a processor.
  static constexpr std::chrono::milliseconds kEachSleep{200};

  void SetUp() override {
    KeptTurnTest::SetUp();
    handler_ = [this](int call) {
      if (call == sleeps_) return 0;
      if (somebody_has_it_) queue_->Release(kSomebody);
      somebody_has_it_ = false;
      before_sleep_();
      slept_++;
      const auto sleep = call + 1 == sleeps_ ? final_sleep_ : kEachSleep;
      SleepInShim(static_cast<int>(std::chrono::microseconds(sleep).count()));
      return 1;
    };
    SetBusyHandler(&handler_);
    other_ = OpenWithTable();
    ASSERT_TRUE(queue_->TryAcquire(kSomebody));
    somebody_has_it_ = true;
    storage_.SetObserver([this](const Call& call) {
      const bool is_snapshot = call.flags == (SQLITE_SHM_LOCK | SQLITE_SHM_SHARED);
      if (call.op != moment_ || (call.op == Op::kShmLock && !is_snapshot)) return;
      if (queue_->IsKept() && !std::exchange(is_interfering_, true)) {
        interfere_();
        is_interfering_ = false;
      }
    });
  }
  void TearDown() override {
    storage_.SetObserver(nullptr);
    if (somebody_has_it_) queue_->Release(kSomebody);
  }
  // As if its thread had had no processor until then.
  void TakeTurnWhenItIsOver() {
    while (!queue_->TryAcquire(kSomebody)) std::this_thread::yield();
    somebody_has_it_ = true;
  }
  void ExecInThread(const char* sql) { EXPECT_EQ(ExecAsync(other_, sql).get(), SQLITE_OK); }
  void ExpectBusyInTime(const char* sql) {
    const auto start = std::chrono::steady_clock::now();
    EXPECT_EQ(db_.Exec(sql), SQLITE_BUSY);
    const auto took = std::chrono::steady_clock::now() - start;
    EXPECT_GE(took, (sleeps_ - 1) * kEachSleep + final_sleep_);
    EXPECT_EQ(slept_, sleeps_);
  }

  int sleeps_ = 3;  // until it gives up
  std::chrono::milliseconds final_sleep_ = kEachSleep;
  Db other_;
  std::function<int(int)> handler_;
  std::function<void()> before_sleep_ = [] {};
  // When it has its turn, and asks for a snapshot, or reads page 1.
  std::function<void()> interfere_ = [this] { TakeTurnWhenItIsOver(); };
  Op moment_ = Op::kShmLock;
  bool is_interfering_ = false;
  bool somebody_has_it_ = false;
  int slept_ = 0;
};

// (Its final sleep is the shorter one, as SQLite's. Which of them SQLite asks for, and which the
// shim, depends on whether the thread has had a processor in time.)
TEST_F(LateTurnTest, SomebodyElseHasTheLock) {
  final_sleep_ = kEachSleep / 2;
  ExpectBusyInTime("INSERT INTO t VALUES('x')");
}

// It is asked for the final one, as long as is left of the timeout, before SQLite asks once more.
TEST_F(LateTurnTest, BeforeTheFinalSleep) {
  sleeps_ = 2;
  final_sleep_ = kEachSleep / 2;
  ExpectBusyInTime("INSERT INTO t VALUES('x')");
}

TEST_F(LateTurnTest, SomebodyElseHasCommitted) {
  sleeps_ = 1;
  moment_ = Op::kRead;
  other_.SetBusyTimeout(0);  // it does not wait for a turn
  before_sleep_ = [this] {
    ExecInThread("INSERT INTO t VALUES('before'); PRAGMA wal_checkpoint(TRUNCATE)");
  };
  interfere_ = [this] { ExecInThread("INSERT INTO t VALUES('meanwhile')"); };
  ExpectBusyInTime("INSERT INTO t VALUES('x')");
}

// SQLite does not ask its busy handler for a read transaction that becomes a write transaction, and
// the application may have slept by itself.
TEST_F(LateTurnTest, AnUpgradeDoesNotAskTheBusyHandler) {
  db_.ExecOk("BEGIN; SELECT * FROM t");
  EXPECT_EQ(db_.Exec("INSERT INTO t VALUES('x')"), SQLITE_BUSY);
  queue_->Release(kSomebody);
  SleepInShim(static_cast<int>(std::chrono::microseconds(kPatience).count()));
  ASSERT_TRUE(queue_->IsKept()) << "it has no turn";
  TakeTurnWhenItIsOver();
  EXPECT_EQ(db_.Exec("INSERT INTO t VALUES('x')"), SQLITE_BUSY);
  EXPECT_EQ(slept_, 0);
}

// What it is asked for then is slept when SQLite has let go of its snapshot.
TEST_F(LateTurnTest, NobodySleepsWithASnapshot) {
  handler_ = [this](int call) {
    if (call != 1) queue_->Release(kSomebody);
    const auto start = std::chrono::steady_clock::now();
    SleepInShim(static_cast<int>(std::chrono::microseconds(kPatience).count()));
    EXPECT_LT(std::chrono::steady_clock::now() - start, kPatience) << call;
    slept_++;
    somebody_has_it_ = false;
    if (call == 1) interfere_ = [] {};
    return 1;
  };
  EXPECT_EQ(db_.Exec("INSERT INTO t VALUES('x')"), SQLITE_OK);
  EXPECT_EQ(slept_, 3);
}

// An application that is refused the lock, sleeps, and reads something before it tries again.
TEST_F(KeptTurnTest, AStatementThatReadsIsNotTakenForTheWriterBeforeIt) {
  Db holder = OpenWithTable();
  db_.ExecOk("CREATE TEMP TABLE copy(x)");
  for (const char* sql : {"SELECT * FROM t", "INSERT INTO copy SELECT * FROM t"}) {
    std::future<int> result = std::async(std::launch::async, [&] {
      holder.ExecOk("BEGIN IMMEDIATE");
      db_.SetBusyTimeout(1);
      EXPECT_EQ(db_.Exec("INSERT INTO t VALUES('x')"), SQLITE_BUSY);
      SleepInShim(1'000);
      holder.ExecOk("COMMIT");
      KeepTurn();
      db_.SetBusyTimeout(1'000'000);
      return db_.Exec(sql);
    });
    EXPECT_EQ(result.wait_for(kPatience), std::future_status::ready);
    queue_->EndTurn(kSomebody);
    EXPECT_EQ(result.get(), SQLITE_OK);
  }
}

// Each time that it is about to take a snapshot the lock is kept, and when it has slept, somebody
// has it: SQLite would have to look at the log again for each sleep, and gives up after the
// hundredth time (wal.c: walTryBeginRead()).
TEST_F(KeptTurnTest, ASnapshotIsPutOffOnce) {
  int calls = 0;
  std::function<int(int)> handler = [&](int call) {
    calls++;
    SleepInShim(SleepMicros(call));
    if (call > 0) {
      queue_->EndTurn(kSomebody);
      EXPECT_TRUE(queue_->TryAcquire(kSomebody));
    }
    return static_cast<int>(call < 10);
  };
  SetBusyHandler(&handler);
  KeepTurn();
  storage_.SetObserver([&](const Call& call) {
    if (call.op != Op::kShmBarrier || calls < 2 || queue_->IsKept()) return;
    queue_->Release(kSomebody);
    KeepTurn();
  });
  EXPECT_EQ(db_.Exec("INSERT INTO t VALUES('x')"), SQLITE_OK);
  storage_.SetObserver(nullptr);
  EXPECT_EQ(calls, 3) << "two for the refusal, one for the snapshot";
  queue_->EndTurn(kSomebody);
}

}  // namespace
}  // namespace groupcommit::testing
