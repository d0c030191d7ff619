// How long who waits for the write lock waits: as long as the busy timeout says. And the sleeps of
// a thread that does not wait for it.
#include <sqlite3.h>

#include <atomic>
#include <chrono>
#include <future>
#include <string>
#include <thread>

#include "support/write_lock_fixture.h"

namespace groupcommit::testing {
namespace {

// ---- How long ----

// Turns that come to nothing must not use the time up: SQLite counts its sleeps.
class TurnsInVainTest : public WriteLockTest {
 protected:
  // How many turns a commit has before it is refused after `timeout`, all of them in vain.
  int TurnsUntilBusy(milliseconds timeout) {
    constexpr WriteQueue::Writer kAnother = ~WriteQueue::Writer{0} >> 1;
    waiter_.SetBusyTimeout(static_cast<int>(timeout.count()));
    // As another process would.
    std::atomic<int> in_vain{0};
    storage_.SetFaultHook([&](const Call& call) {
      const bool wanted = call.op == Op::kShmLock && call.offset == 0 &&
                          call.flags == (SQLITE_SHM_LOCK | SQLITE_SHM_EXCLUSIVE);
      if (wanted) in_vain++;
      return wanted ? SQLITE_BUSY : SQLITE_OK;
    });
    const auto start = std::chrono::steady_clock::now();
    std::future<int> result = ExecAsync(waiter_, "INSERT INTO t VALUES(1)");
    WriteQueue& queue = QueueOf(holder_);
    while (!IsReady(result)) {
      if (!queue.TryAcquire(kAnother)) continue;
      for (int i = 0; i < 1000 && queue.waiting() == 0 && !IsReady(result); i++) {
        std::this_thread::yield();
      }
      const int before = in_vain;
      queue.Release(kAnother);
      // Who waits gives way as well, and would never find the lock free.
      for (int i = 0; i < 1000 && in_vain == before && !IsReady(result); i++) {
        std::this_thread::yield();
      }
    }
    EXPECT_EQ(result.get(), SQLITE_BUSY);
    const auto took = std::chrono::steady_clock::now() - start;
    EXPECT_GE(took, timeout);
    RecordProperty("milliseconds", std::to_string(took / milliseconds(1)));
    storage_.SetFaultHook(nullptr);
    return in_vain;
  }

  Db waiter_ = OpenWithTable();
  Db holder_ = OpenWithTable();
};

TEST_F(TurnsInVainTest, ABusyTimeoutIsNotShortenedByThem) {
  // With these SQLite's last sleep is shorter than the one before, as with 300 ms it is not: then
  // who has no processor when its turn comes may give up early (vfs/README.md, Limits).
  milliseconds timeout(150);
  // Once is enough, unless the processors are busy with something else.
  while (TurnsUntilBusy(timeout) <= 3 && !HasFailure()) {
    timeout *= 4;
    ASSERT_LT(timeout, std::chrono::minutes(1)) << "it has no turns";
  }
  EXPECT_EQ(waiter_.Exec("INSERT INTO t VALUES(1)"), SQLITE_OK);
}

// A sleep ends with the turn, and others are left for the other lock.
class TwoLocksTest : public WriteLockTest {
 protected:
  // Of a statement that waits for two locks.
  struct Wait {
    int rc;
    milliseconds took;
  };
  // Runs `sql` with a handler that sleeps three times. `holder` commits as soon as that waits for
  // it: but again if it had no processor before the last sleep, as nothing is left then.
  Wait WaitForBoth(Db& db, const std::string& sql, Db& holder) {
    std::atomic<int> sleeps{0};
    SetHandler(db, [&sleeps](int count) {
      sleeps = count + 1;
      return SleepThreeTimes(count);
    });
    while (true) {
      sleeps = 0;
      holder.ExecOk("BEGIN IMMEDIATE");
      const auto start = std::chrono::steady_clock::now();
      std::future<int> waits = ExecAsync(db, sql);
      while (QueueOf(holder).waiting() == 0 && !IsReady(waits)) std::this_thread::yield();
      holder.ExecOk("COMMIT");
      const bool in_time = sleeps < 3;
      const int rc = waits.get();
      const auto took = std::chrono::steady_clock::now() - start;
      if (in_time) return {rc, std::chrono::duration_cast<milliseconds>(took)};
    }
  }
};

TEST_F(TwoLocksTest, ATimeoutIsNotShortenedByTheFirst) {
  Db a = OpenWithTable("a.db");
  Db b = OpenWithTable("b.db");
  Db both = OpenWithTable("a.db");
  both.ExecOk("ATTACH '" + path("b.db") + "' AS b");
  b.ExecOk("BEGIN IMMEDIATE");
  const Wait wait = WaitForBoth(both, "BEGIN IMMEDIATE", a);
  EXPECT_EQ(wait.rc, SQLITE_BUSY);
  EXPECT_GE(wait.took, 3 * kEachSleep);
  b.ExecOk("COMMIT");
}

TEST_F(TwoLocksTest, ATimeoutForReadersIsNotShortenedByTheWriteLock) {
  Db writer = OpenWithTable();
  Db reader = OpenWithTable();
  Db checkpoint = OpenWithTable();
  writer.ExecOk("INSERT INTO t VALUES(1)");
  reader.ExecOk("BEGIN; SELECT * FROM t");
  const Wait wait = WaitForBoth(checkpoint, "PRAGMA wal_checkpoint(RESTART)", writer);
  EXPECT_EQ(wait.rc, SQLITE_OK) << "it says by a row that it was busy";
  EXPECT_GE(wait.took, 3 * kEachSleep);
  reader.ExecOk("COMMIT");
}

// Another process commits between each snapshot and the request for the lock.
TEST_F(WriteLockTest, ABusyTimeoutIsNotShortenedByOldSnapshots) {
  if (SqliteWaitsInside()) GTEST_SKIP() << "SQLite does not call the busy handler for this";
  constexpr milliseconds kTimeout(100);
  Db waiter = OpenWithTable();
  Db foreign(path(), "unix");
  foreign.ExecOk("PRAGMA synchronous=OFF");
  waiter.SetBusyTimeout(static_cast<int>(kTimeout.count()));
  storage_.SetFaultHook([&foreign](const Call& call) {
    if (call.op == Op::kShmLock && call.offset == 0 && (call.flags & SQLITE_SHM_LOCK) != 0) {
      foreign.ExecOk("INSERT INTO t VALUES('foreign')");
    }
    return SQLITE_OK;
  });
  const auto start = std::chrono::steady_clock::now();
  EXPECT_EQ(waiter.Exec("INSERT INTO t VALUES(1)"), SQLITE_BUSY);
  EXPECT_GE(std::chrono::steady_clock::now() - start, kTimeout);
  storage_.SetFaultHook(nullptr);
}

// A connection through the same base VFS, as of a process without the shim.
TEST_F(WriteLockTest, AConnectionThatDoesNotQueueUp) {
  if (SqliteWaitsInside()) GTEST_SKIP() << "SQLite does not call the busy handler for this";
  Db waiter = OpenWithTable();
  const WriteQueue& queue = QueueOf(waiter);
  Db foreign(path(), "store");
  foreign.ExecOk("BEGIN IMMEDIATE; INSERT INTO t VALUES('foreign')");
  waiter.SetBusyTimeout(20);
  const auto start = std::chrono::steady_clock::now();
  EXPECT_EQ(waiter.Exec("INSERT INTO t VALUES(1)"), SQLITE_BUSY);
  EXPECT_GE(std::chrono::steady_clock::now() - start, milliseconds(20));
  waiter.SetBusyTimeout(60'000);
  std::future<int> result = ExecAsync(waiter, "INSERT INTO t VALUES(1)");
  while (queue.waiting() == 0) std::this_thread::yield();
  foreign.ExecOk("COMMIT");
  EXPECT_EQ(result.get(), SQLITE_OK);
}

// ---- Sleeps that are not for the lock ----

class SleepTest : public WriteLockTest {
 protected:
  // How much of a sleep of this thread reaches the base VFS.
  int64_t SleepReaches(int micros) {
    std::atomic<int64_t> slept{0};
    storage_.SetObserver([&slept](const Call& call) {
      if (call.op == Op::kSleep) slept += call.amount;
    });
    SleepInShim(micros);
    storage_.SetObserver(nullptr);
    return slept;
  }
};

TEST_F(SleepTest, OfAThreadThatWasNotRefused) {
  Db db = OpenWithTable();
  EXPECT_EQ(SleepReaches(5), 5);
  db.ExecOk("INSERT INTO t VALUES(1)");
  EXPECT_EQ(SleepReaches(5), 5);
  db.ExecOk("BEGIN IMMEDIATE; INSERT INTO t VALUES(1)");
  EXPECT_EQ(SleepReaches(5), 5);
  db.ExecOk("ROLLBACK");
}

TEST_F(SleepTest, OfAThreadThatWasRefusedAndThenReadSomething) {
  Db holder = OpenWithTable();
  Db db = OpenWithTable();
  db.SetBusyTimeout(0);
  holder.ExecOk("BEGIN IMMEDIATE");
  EXPECT_EQ(db.Exec("INSERT INTO t VALUES(1)"), SQLITE_BUSY);
  EXPECT_EQ(db.Int("SELECT count(*) FROM t WHERE x='none'"), 0);
  EXPECT_EQ(SleepReaches(5), 5);
}

// It cannot be told from a busy handler; it ends by itself.
TEST_F(SleepTest, OfAThreadThatWasJustRefused) {
  Db holder = OpenWithTable();
  Db db = OpenWithTable();
  db.SetBusyTimeout(0);
  holder.ExecOk("BEGIN IMMEDIATE");
  EXPECT_EQ(db.Exec("INSERT INTO t VALUES(1)"), SQLITE_BUSY);
  const auto start = std::chrono::steady_clock::now();
  EXPECT_EQ(SleepReaches(5'000), 0);
  EXPECT_GE(std::chrono::steady_clock::now() - start, milliseconds(5));
  EXPECT_EQ(SleepReaches(5), 5) << "once";
}

// A program that polls: BEGIN IMMEDIATE, nothing to do, COMMIT, sqlite3_sleep().
TEST_F(SleepTest, AfterATransactionThatWroteNothing) {
  Db db = OpenWithTable();
  for (const char* sql : {"BEGIN IMMEDIATE; COMMIT", "BEGIN IMMEDIATE; SELECT * FROM t; ROLLBACK",
                          "DELETE FROM t WHERE x='none'"}) {
    db.ExecOk(sql);
    EXPECT_EQ(SleepReaches(5), 5) << sql;
  }
}

// It takes the write lock, and not for its snapshot, which is an old one.
TEST_F(SleepTest, AfterACheckpoint) {
  Db db = OpenWithTable();
  Db other = OpenWithTable();
  for (const char* mode : {"FULL", "RESTART", "TRUNCATE"}) {
    db.ExecOk("SELECT * FROM t");
    other.ExecOk("INSERT INTO t VALUES(1)");
    db.ExecOk(std::string("PRAGMA wal_checkpoint(") + mode + ")");
    EXPECT_EQ(SleepReaches(5), 5) << mode;
    EXPECT_FALSE(QueueOf(db).IsKept()) << mode << ": for nobody";
  }
}

}  // namespace
}  // namespace groupcommit::testing
