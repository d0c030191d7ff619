// How connections of one process take turns at the write lock, whatever their busy handlers do.
#include <sqlite3.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <future>
#include <memory>
#include <thread>
#include <vector>

#include "support/passthrough_fixture.h"
#include "support/queue_of.h"
#include "support/scale.h"
#include "support/shim_test.h"

namespace groupcommit::testing {
namespace {

using std::chrono::milliseconds;

class WriteLockTest : public ShimTest {
 protected:
  using Handler = std::function<bool(int)>;

  // As busy handler; it outlives the connection.
  void SetHandler(Db& db, Handler handler) {
    handlers_.push_back(std::make_unique<Handler>(std::move(handler)));
    sqlite3_busy_handler(
        db.get(), [](void* f, int n) { return static_cast<int>((*static_cast<Handler*>(f))(n)); },
        handlers_.back().get());
  }

  // Sleeps as SQLite's own handler does, but for longer.
  static bool SleepInLine(int) {
    constexpr int kMinute = 60'000'000;
    SleepInShim(kMinute);
    return true;
  }

  // Sleeps three times, and gives up then.
  static constexpr milliseconds kEachSleep{50};
  static bool SleepThreeTimes(int count) {
    if (count < 3) SleepInShim(static_cast<int>(std::chrono::microseconds(kEachSleep).count()));
    return count < 3;
  }

  static void AwaitWaiting(const WriteQueue& queue, int n) {
    while (queue.waiting() != n) std::this_thread::yield();
  }

  // A commit of `db` in a thread of its own, which waits in the queue for the lock when this
  // returns. REQUIRES: somebody holds it; nobody leaves the queue.
  std::future<int> StartWaiting(Db& db, const std::string& sql) {
    const WriteQueue& queue = QueueOf(db);
    const int before = queue.waiting();
    SetHandler(db, SleepInLine);
    std::future<int> result = ExecAsync(db, sql);
    AwaitWaiting(queue, before + 1);
    return result;
  }

  std::vector<std::unique_ptr<Handler>> handlers_;
};

// ---- Busy handlers ----

TEST_F(WriteLockTest, ABusyTimeoutIsEnough) {
  Db holder = OpenWithTable();
  Db waiter = OpenWithTable();
  waiter.SetBusyTimeout(60'000);
  for (const char* sql :
       {"INSERT INTO t VALUES(1)", "BEGIN IMMEDIATE; INSERT INTO t VALUES(1); END",
        "BEGIN; INSERT INTO t VALUES(1); END", "CREATE TABLE u(x)"}) {
    holder.ExecOk("BEGIN IMMEDIATE; INSERT INTO t VALUES(0)");
    std::future<int> result = ExecAsync(waiter, sql);
    while (QueueOf(holder).waiting() == 0) std::this_thread::yield();
    holder.ExecOk("COMMIT");
    EXPECT_EQ(result.get(), SQLITE_OK) << sql;
  }
  EXPECT_EQ(holder.Int("SELECT sum(x) FROM t"), 3);
}

// Drivers bring handlers of their own, which never call the VFS.
TEST_F(WriteLockTest, HandlersThatDoNotSleepInLine) {
  Db holder = OpenWithTable();
  Db waiter = OpenWithTable();
  std::atomic<int> calls{0};
  const Handler handlers[] = {
      [&calls](int) { return ++calls != 0; },
      [&calls](int) {
        std::this_thread::sleep_for(milliseconds(1));
        return ++calls != 0;
      },
  };
  for (const Handler& handler : handlers) {
    SetHandler(waiter, handler);
    calls = 0;
    holder.ExecOk("BEGIN IMMEDIATE; INSERT INTO t VALUES(0)");
    std::future<int> result = ExecAsync(waiter, "INSERT INTO t VALUES(1)");
    while (calls < 5) std::this_thread::yield();
    holder.ExecOk("COMMIT");
    EXPECT_EQ(result.get(), SQLITE_OK);
  }
}

TEST_F(WriteLockTest, AHandlerIsToldHowOftenItWasCalled) {
  Db holder = OpenWithTable();
  Db waiter = OpenWithTable();
  std::vector<int> counts;
  SetHandler(waiter, [&counts](int n) {
    counts.push_back(n);
    return n < 3;
  });
  holder.ExecOk("BEGIN IMMEDIATE");
  EXPECT_EQ(waiter.Exec("INSERT INTO t VALUES(1)"), SQLITE_BUSY);
  EXPECT_EQ(counts, std::vector<int>({0, 1, 2, 3}));
}

TEST_F(WriteLockTest, WithoutAHandlerItIsBusyAtOnce) {
  Db holder = OpenWithTable();
  Db other = OpenWithTable();
  other.SetBusyTimeout(0);
  holder.ExecOk("BEGIN IMMEDIATE");
  for (const char* sql : {"BEGIN IMMEDIATE", "INSERT INTO t VALUES(1)", "CREATE TABLE u(x)"}) {
    EXPECT_EQ(other.Exec(sql), SQLITE_BUSY) << sql;
  }
  holder.ExecOk("ROLLBACK");
  EXPECT_EQ(other.Exec("INSERT INTO t VALUES(1)"), SQLITE_OK);
}

using UpgradeTest = PassthroughTest;

TEST_F(UpgradeTest, AReadTransactionThatBecomesAWriter) {
  CompareWal([](RecordedSession& s) {
    for (int i = 0; i < 2; i++) {
      s.Open(i, s.path("test.db"));
      s.Sql(i, "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;");
    }
    s.Sql(0, "CREATE TABLE t(x); INSERT INTO t VALUES(1);");
    s.Sql(1, "BEGIN; SELECT * FROM t;");
    s.Sql(0, "BEGIN IMMEDIATE;");
    s.Sql(1, "INSERT INTO t VALUES(2);");  // SQLITE_BUSY
    s.Sql(0, "COMMIT;");
    s.Sql(1, "INSERT INTO t VALUES(3); COMMIT;");
    s.Sql(1, "BEGIN; SELECT * FROM t;");
    s.Sql(0, "INSERT INTO t VALUES(4);");
    s.Sql(1, "INSERT INTO t VALUES(5);");  // SQLITE_BUSY_SNAPSHOT
    s.Sql(0, "BEGIN IMMEDIATE;");
    s.Sql(1, "INSERT INTO t VALUES(6); COMMIT;");
    s.Sql(0, "COMMIT;");
    s.Sql(1, "INSERT INTO t VALUES(7); SELECT * FROM t;");
  });
}

// ---- Many ----

TEST_F(WriteLockTest, EachGetsItsTurn) {
  constexpr int kWaiters = 8;
  Db holder = OpenWithTable();
  std::vector<Db> waiters;
  for (int i = 0; i < kWaiters; i++) waiters.push_back(OpenWithTable());
  holder.ExecOk("DELETE FROM t; BEGIN IMMEDIATE");
  std::vector<std::future<int>> results;
  for (int i = 0; i < kWaiters; i++) {
    const auto n = static_cast<size_t>((i * 3 + 1) % kWaiters);
    results.push_back(StartWaiting(waiters[n], "INSERT INTO t VALUES(" + std::to_string(i) + ")"));
  }
  holder.ExecOk("COMMIT");
  for (std::future<int>& result : results) EXPECT_EQ(result.get(), SQLITE_OK);
  EXPECT_EQ(holder.Text("SELECT group_concat(x) FROM (SELECT x FROM t ORDER BY x)"),
            "0,1,2,3,4,5,6,7");
}

// Transactions that write nothing look like a writer whose snapshot was too old.
TEST_F(WriteLockTest, TransactionsThatWriteNothingLockNobodyOut) {
  const int commits = Scaled(50);
  for (const char* idle : {"BEGIN IMMEDIATE; COMMIT", "BEGIN IMMEDIATE; SELECT * FROM t; ROLLBACK",
                           "DELETE FROM t WHERE x='none'"}) {
    Db looping = OpenWithTable();
    Db other = OpenWithTable();
    std::atomic<bool> stop{false};
    std::thread thread([&] {
      while (!stop) looping.ExecOk(idle);
    });
    for (int i = 0; i < commits; i++) other.ExecOk("INSERT INTO t VALUES(1)");
    stop = true;
    thread.join();
  }
}

// ---- Several locks at a time ----

TEST_F(WriteLockTest, AThreadThatWaitsForItself) {
  Db holder = OpenWithTable();
  Db waiter = OpenWithTable();
  waiter.SetBusyTimeout(50);
  holder.ExecOk("BEGIN IMMEDIATE; INSERT INTO t VALUES(0)");
  const auto start = std::chrono::steady_clock::now();
  EXPECT_EQ(waiter.Exec("INSERT INTO t VALUES(1)"), SQLITE_BUSY);
  EXPECT_GE(std::chrono::steady_clock::now() - start, milliseconds(50));
  holder.ExecOk("COMMIT");
  EXPECT_EQ(waiter.Exec("INSERT INTO t VALUES(1)"), SQLITE_OK);
}

TEST_F(WriteLockTest, TwoDatabasesInOppositeOrder) {
  Db a[] = {OpenWithTable("a.db"), OpenWithTable("b.db")};
  Db b[] = {OpenWithTable("b.db"), OpenWithTable("a.db")};
  std::future<int> results[2];
  a[0].ExecOk("BEGIN IMMEDIATE");
  b[0].ExecOk("BEGIN IMMEDIATE");
  a[1].SetBusyTimeout(30);
  b[1].SetBusyTimeout(30);
  results[0] = ExecAsync(a[1], "INSERT INTO t VALUES(1)");
  results[1] = ExecAsync(b[1], "INSERT INTO t VALUES(1)");
  for (std::future<int>& result : results) EXPECT_EQ(result.get(), SQLITE_BUSY);
  a[0].ExecOk("COMMIT");
  b[0].ExecOk("COMMIT");
  EXPECT_EQ(a[1].Exec("INSERT INTO t VALUES(1)"), SQLITE_OK);
  EXPECT_EQ(b[1].Exec("INSERT INTO t VALUES(1)"), SQLITE_OK);
}

TEST_F(WriteLockTest, AttachedDatabases) {
  { Db make = OpenWithTable("b.db"); }
  Db both = OpenWithTable("a.db");
  both.ExecOk("ATTACH '" + path("b.db") + "' AS b");
  Db a = OpenWithTable("a.db");
  Db b = OpenWithTable("b.db");
  both.ExecOk("BEGIN IMMEDIATE");
  std::future<int> waits_for_a = StartWaiting(a, "INSERT INTO t VALUES('a')");
  std::future<int> waits_for_b = StartWaiting(b, "INSERT INTO t VALUES('b')");
  both.ExecOk("INSERT INTO main.t VALUES(1); INSERT INTO b.t VALUES(1); COMMIT");
  EXPECT_EQ(waits_for_a.get(), SQLITE_OK);
  EXPECT_EQ(waits_for_b.get(), SQLITE_OK);
  // It gets both, one after the other.
  a.ExecOk("BEGIN IMMEDIATE");
  std::future<int> waits = StartWaiting(both, "BEGIN IMMEDIATE");  // in the queue of a
  b.ExecOk("BEGIN IMMEDIATE");
  a.ExecOk("COMMIT");
  AwaitWaiting(QueueOf(b), 1);
  b.ExecOk("COMMIT");
  EXPECT_EQ(waits.get(), SQLITE_OK);
  both.ExecOk("COMMIT");
}

// ---- How long ----

// Turns that come to nothing must not use the time up: SQLite counts its sleeps.
TEST_F(WriteLockTest, ABusyTimeoutIsNotShortenedByTurnsInVain) {
  constexpr milliseconds kTimeout(150);
  constexpr WriteQueue::Writer kAnother = ~WriteQueue::Writer{0} >> 1;
  Db waiter = OpenWithTable();
  Db holder = OpenWithTable();
  waiter.SetBusyTimeout(static_cast<int>(kTimeout.count()));
  // As another process would.
  std::atomic<int> in_vain{0};
  storage_.SetFaultHook([&](const Call& call) {
    const bool wanted = call.op == Op::kShmLock && call.offset == 0 &&
                        call.flags == (SQLITE_SHM_LOCK | SQLITE_SHM_EXCLUSIVE);
    if (wanted) in_vain++;
    return wanted ? SQLITE_BUSY : SQLITE_OK;
  });
  const auto start = std::chrono::steady_clock::now();
  std::future<int> result = ExecAsync(waiter, "INSERT INTO t VALUES(1)");
  WriteQueue& queue = QueueOf(holder);
  while (!IsReady(result)) {
    if (!queue.TryAcquire(kAnother)) continue;
    for (int i = 0; i < 1000 && queue.waiting() == 0 && !IsReady(result); i++) {
      std::this_thread::yield();
    }
    queue.Release(kAnother);
  }
  EXPECT_EQ(result.get(), SQLITE_BUSY);
  EXPECT_GE(std::chrono::steady_clock::now() - start, kTimeout);
  EXPECT_GT(in_vain, 3);
  RecordProperty("milliseconds", std::to_string((std::chrono::steady_clock::now() - start) /
                                                std::chrono::milliseconds(1)));
  storage_.SetFaultHook(nullptr);
  EXPECT_EQ(waiter.Exec("INSERT INTO t VALUES(1)"), SQLITE_OK);
}

// The first sleep ends with the turn, and two are left for the other lock.
TEST_F(WriteLockTest, ATimeoutOverTwoLocksIsNotShortenedByTheFirst) {
  Db a = OpenWithTable("a.db");
  Db b = OpenWithTable("b.db");
  Db both = OpenWithTable("a.db");
  both.ExecOk("ATTACH '" + path("b.db") + "' AS b");
  SetHandler(both, SleepThreeTimes);
  a.ExecOk("BEGIN IMMEDIATE");
  b.ExecOk("BEGIN IMMEDIATE");
  const auto start = std::chrono::steady_clock::now();
  std::future<int> waits = ExecAsync(both, "BEGIN IMMEDIATE");
  while (QueueOf(a).waiting() == 0 && !IsReady(waits)) std::this_thread::yield();
  a.ExecOk("COMMIT");
  EXPECT_EQ(waits.get(), SQLITE_BUSY);
  EXPECT_GE(std::chrono::steady_clock::now() - start, 3 * kEachSleep);
  b.ExecOk("COMMIT");
}

TEST_F(WriteLockTest, ATimeoutForReadersIsNotShortenedByTheWriteLock) {
  Db writer = OpenWithTable();
  Db reader = OpenWithTable();
  Db checkpoint = OpenWithTable();
  writer.ExecOk("INSERT INTO t VALUES(1)");
  reader.ExecOk("BEGIN; SELECT * FROM t");
  SetHandler(checkpoint, SleepThreeTimes);
  writer.ExecOk("BEGIN IMMEDIATE");
  const auto start = std::chrono::steady_clock::now();
  std::future<int> waits = ExecAsync(checkpoint, "PRAGMA wal_checkpoint(RESTART)");
  while (QueueOf(writer).waiting() == 0 && !IsReady(waits)) std::this_thread::yield();
  writer.ExecOk("COMMIT");
  EXPECT_EQ(waits.get(), SQLITE_OK) << "it says by a row that it was busy";
  EXPECT_GE(std::chrono::steady_clock::now() - start, 3 * kEachSleep);
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

TEST_F(WriteLockTest, ClosingWhileOthersWait) {
  Db holder = OpenWithTable();
  std::vector<Db> waiters;
  for (int i = 0; i < 3; i++) waiters.push_back(OpenWithTable());
  holder.ExecOk("BEGIN IMMEDIATE; INSERT INTO t VALUES('rolled back')");
  std::vector<std::future<int>> results;
  for (Db& db : waiters) results.push_back(StartWaiting(db, "INSERT INTO t VALUES(1)"));
  EXPECT_EQ(holder.Close(), SQLITE_OK);
  for (std::future<int>& result : results) EXPECT_EQ(result.get(), SQLITE_OK);
  EXPECT_EQ(waiters[0].Int("SELECT count(*) FROM t WHERE x='rolled back'"), 0);
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

// ---- A turn that is kept for somebody who has not come yet ----

// Stock SQLite knows no such thing: the lock is free.
TEST_F(WriteLockTest, ATurnIsNoReasonForBusy) {
  Db holder = OpenWithTable();
  Db granted = OpenWithTable();
  Db other = OpenWithTable();
  Db reader = OpenWithTable();
  other.SetBusyTimeout(0);
  reader.SetBusyTimeout(0);
  std::promise<void> slept;
  std::promise<void> go_on;
  SetHandler(granted, [&](int n) {
    SleepInLine(n);
    slept.set_value();
    go_on.get_future().wait();
    return true;
  });
  holder.ExecOk("BEGIN IMMEDIATE");
  std::future<int> result = ExecAsync(granted, "INSERT INTO t VALUES('granted')");
  AwaitWaiting(QueueOf(holder), 1);
  reader.ExecOk("BEGIN; SELECT * FROM t");
  holder.ExecOk("COMMIT");
  slept.get_future().wait();
  EXPECT_EQ(reader.Exec("INSERT INTO t VALUES('upgrade')"), SQLITE_OK);
  EXPECT_EQ(reader.Exec("COMMIT"), SQLITE_OK);
  EXPECT_EQ(other.Exec("INSERT INTO t VALUES('no handler')"), SQLITE_OK);
  go_on.set_value();
  EXPECT_EQ(result.get(), SQLITE_OK);
}

TEST_F(WriteLockTest, TheQueueKnowsWhetherItsHoldersSync) {
  Db db = OpenWithTable();
  EXPECT_FALSE(QueueOf(db).holders_sleep());
  EXPECT_EQ(db.Text("PRAGMA groupcommit_policy=on_each_flush"), "on_each_flush");
  EXPECT_TRUE(QueueOf(db).holders_sleep());
  EXPECT_EQ(db.Text("PRAGMA groupcommit_policy=auto"), "auto");
  EXPECT_FALSE(QueueOf(db).holders_sleep());
}

// With syncs at once the queue is never empty, and a thread that sleeps by itself must not starve.
TEST_F(WriteLockTest, AHandlerThatDoesNotSleepInLineGetsItsTurnInACrowd) {
  constexpr int kCrowd = 4;
  constexpr int kManyRounds = 400;  // usually some 50; without its turn some 500
  Db db = OpenWithTable();
  EXPECT_EQ(db.Text("PRAGMA groupcommit_policy=on_each_flush"), "on_each_flush");
  storage_.SetSyncDelay(milliseconds(1));
  std::atomic<bool> stop{false};
  std::atomic<int64_t> commits{0};
  std::vector<std::thread> crowd;
  for (int i = 0; i < kCrowd; i++) {
    crowd.emplace_back([&] {
      Db own = OpenWithTable();
      own.SetBusyTimeout(60'000);
      while (!stop) {
        own.ExecOk("INSERT INTO t VALUES(1)");
        commits++;
      }
    });
  }
  while (commits < 2 * kCrowd) std::this_thread::yield();
  SetHandler(db, [](int) {
    std::this_thread::sleep_for(milliseconds(1));
    return true;
  });
  for (int i = 0; i < 10; i++) {
    const int64_t before = commits;
    std::future<int> result = ExecAsync(db, "INSERT INTO t VALUES('by itself')");
    while (!IsReady(result) && commits < before + kManyRounds * kCrowd) std::this_thread::yield();
    EXPECT_TRUE(IsReady(result)) << "while others made " << commits - before << " commits";
    if (!IsReady(result)) stop = true;
    EXPECT_EQ(result.get(), SQLITE_OK);
    if (stop) break;
  }
  stop = true;
  for (std::thread& thread : crowd) thread.join();
}

}  // namespace
}  // namespace groupcommit::testing
