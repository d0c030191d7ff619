// How connections of one process take turns at the write lock, whatever their busy handlers do.
// (How long they wait: busy_timeout_test.cc.)
#include <sqlite3.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <future>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "support/passthrough_fixture.h"
#include "support/scale.h"
#include "support/write_lock_fixture.h"

namespace groupcommit::testing {
namespace {

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

// It would find the schema changed again, where others change it each time before its next turn,
// and SQLite gives up in the end (SQLITE_SCHEMA).
TEST_F(WriteLockTest, AStatementThatIsPreparedAnewKeepsItsTurn) {
  Db writer = OpenWithTable();
  Db other = OpenWithTable();
  other.ExecOk("CREATE TABLE u(x)");
  WriteQueue& queue = QueueOf(writer);
  std::future<bool> next;
  std::atomic<bool> has_written{false};
  storage_.SetObserver([&](const Call& call) {
    if (call.kind == FileKind::kWal && call.op == Op::kWrite) has_written = true;
    const bool takes_lock = call.op == Op::kShmLock && call.offset == 0 &&
                            call.flags == (SQLITE_SHM_LOCK | SQLITE_SHM_EXCLUSIVE);
    if (!takes_lock || next.valid()) return;
    next = std::async(std::launch::async, [&queue, &has_written] {
      constexpr int64_t kMinuteNanos = 60'000'000'000;
      const int64_t deadline = queue.clock().NowNanos() + kMinuteNanos;
      const bool has_turn = queue.AwaitTurn(kSomebody, queue.NewTicket(), deadline, false);
      const bool is_second = has_written;
      queue.EndTurn(kSomebody);
      return has_turn && is_second;
    });
    AwaitWaiting(queue, 1);
  });
  writer.ExecOk("INSERT INTO t VALUES(1)");
  storage_.SetObserver(nullptr);
  ASSERT_TRUE(next.valid());
  EXPECT_TRUE(next.get()) << "somebody else came first";
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

// Where somebody always waits in line, the lock is never free when it asks: it must not starve.
TEST_F(WriteLockTest, AHandlerThatDoesNotSleepInLineGetsItsTurnInACrowd) {
  // Refused for 50 ms, without a pause of 250 ms, it has the next turn; what is between a request
  // and the call of its handler is no part of that.
  constexpr milliseconds kTooLong(150);
  constexpr milliseconds kPause(100);
  Db holder = OpenWithTable();
  Db in_line = OpenWithTable();
  Db db = OpenWithTable();
  Clock& clock = QueueOf(db).clock();
  std::atomic<bool> was_refused_for_long{false};
  std::atomic<bool> is_released{false};
  std::chrono::steady_clock::time_point first, last;
  SetHandler(db, [&](int n) {
    const auto now = std::chrono::steady_clock::now();
    if (n == 0 || now - last > kPause) first = now;
    if (std::exchange(last, now) - first > kTooLong && !is_released) {
      was_refused_for_long = true;
      while (!is_released) std::this_thread::yield();
    } else {
      std::this_thread::sleep_for(milliseconds(1));
    }
    return true;
  });
  std::atomic<int64_t> taken_at{0};
  storage_.SetObserver([&](const Call& call) {
    const bool takes_lock = call.op == Op::kShmLock && call.offset == 0 &&
                            call.flags == (SQLITE_SHM_LOCK | SQLITE_SHM_EXCLUSIVE);
    if (takes_lock && taken_at == 0) taken_at = clock.NowNanos();
  });
  // Once more if its thread had no processor for as long as the turn is kept.
  for (bool in_time = false; !in_time;) {
    was_refused_for_long = is_released = false;
    holder.ExecOk("DELETE FROM t; BEGIN IMMEDIATE");
    std::future<int> other = StartWaiting(in_line, "INSERT INTO t VALUES('in line')");
    std::future<int> result = ExecAsync(db, "INSERT INTO t VALUES('by itself')");
    while (!was_refused_for_long && !IsReady(result)) std::this_thread::yield();
    EXPECT_TRUE(was_refused_for_long);
    taken_at = 0;
    const int64_t end = clock.NowNanos() + WriteQueue::kTurnNanos;
    holder.ExecOk("COMMIT");
    is_released = true;
    EXPECT_EQ(result.get(), SQLITE_OK);
    EXPECT_EQ(other.get(), SQLITE_OK);
    const std::string first_row = holder.Text("SELECT x FROM t ORDER BY rowid");
    in_time = first_row == "by itself" || taken_at < end;
    if (in_time) {
      EXPECT_EQ(first_row, "by itself");
    }
  }
  storage_.SetObserver(nullptr);
}

// `group` may wait for company, but not while it has the write lock: nobody could come.
TEST_F(WriteLockTest, TheLockIsNotKeptThroughAWindow) {
  for (const char* sql : {"CREATE TABLE u(x); DROP TABLE u", "PRAGMA groupcommit_flush; COMMIT"}) {
    SCOPED_TRACE(sql);
    Db first = OpenWithTable();
    Db second = OpenWithTable();
    Db observer = OpenWithTable();
    second.ExecOk("PRAGMA synchronous=NORMAL");
    observer.ExecOk("PRAGMA groupcommit_policy='group(max_wait_us=10000000,max_batch=100)'");
    storage_.HoldSyncs(FileKind::kWal);
    std::future<int> window = ExecAsync(first, "INSERT INTO t VALUES('waits for company')");
    ExpectToWait(window, observer, 1);
    if (std::string(sql).ends_with("COMMIT")) second.ExecOk("BEGIN IMMEDIATE");
    std::future<int> under_lock = ExecAsync(second, sql);
    EXPECT_TRUE(storage_.WaitForHeldSyncs(1));
    EXPECT_EQ(Stats(observer).windows_expired, 0) << "it has waited for company, too";
    storage_.OpenGate();
    observer.ExecOk("PRAGMA groupcommit_policy=auto");
    EXPECT_EQ(window.get(), SQLITE_OK);
    EXPECT_EQ(under_lock.get(), SQLITE_OK);
  }
}

}  // namespace
}  // namespace groupcommit::testing
