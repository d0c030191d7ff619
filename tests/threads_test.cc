// Any number of threads and connections, in every combination: two connections of one thread, one
// connection of several threads, one each. Nothing deadlocks, and SQLITE_BUSY comes when stock
// SQLite gives it.
#include <atomic>
#include <future>
#include <thread>

#include "support/passthrough_fixture.h"
#include "support/scale.h"
#include "support/shim_test.h"

namespace groupcommit::testing {
namespace {

// ---- Two connections of one thread ----

using TwoConnectionsTest = PassthroughTest;

constexpr char kWal[] = "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;";

TEST_F(TwoConnectionsTest, InterleavedTransactions) {
  CompareWal([](RecordedSession& s) {
    for (int i = 0; i < 3; i++) {
      s.Open(i, s.path("test.db"));
      s.Sql(i, kWal);
    }
    s.Sql(0, "CREATE TABLE t(x); INSERT INTO t VALUES(1);");
    s.Sql(1, "BEGIN; SELECT * FROM t;");  // an open reader, from here on
    for (int round = 0; round < 10; round++) {
      s.Sql(0, "BEGIN IMMEDIATE; INSERT INTO t VALUES(2);");
      s.Sql(2, "INSERT INTO t VALUES(3); BEGIN IMMEDIATE; SELECT count(*) FROM t;");
      s.Sql(0, "COMMIT;");
      s.Sql(2, "INSERT INTO t VALUES(4);");
      s.Sql(1, "SELECT count(*) FROM t; INSERT INTO t VALUES(5);");  // its snapshot is too old
      s.Sql(2, "PRAGMA wal_checkpoint(TRUNCATE);");
    }
    s.Sql(1, "COMMIT; SELECT count(*) FROM t; INSERT INTO t VALUES(6);");
    s.Sql(2, "PRAGMA wal_checkpoint(TRUNCATE); INSERT INTO t VALUES(7);");
    s.Sql(1, "SELECT count(*) FROM t;");
  });
}

// With a busy handler that sleeps: the other connection of the thread cannot let go meanwhile.
TEST_F(TwoConnectionsTest, ABusyTimeoutRunsOut) {
  CompareVia(
      "auto",
      [](RecordedSession& s) {
        for (int i = 0; i < 2; i++) {
          s.Open(i, s.path("test.db"));
          s.Sql(i, kWal);
        }
        s.Sql(0, "CREATE TABLE t(x); BEGIN IMMEDIATE; INSERT INTO t VALUES(1);");
        sqlite3_busy_timeout(s.db(1), 20);
        s.Sql(1, "INSERT INTO t VALUES(2); BEGIN IMMEDIATE; PRAGMA wal_checkpoint(FULL);");
        s.Sql(0, "COMMIT; BEGIN; SELECT * FROM t;");
        s.Sql(1, "INSERT INTO t VALUES(3); PRAGMA wal_checkpoint(RESTART);");
        s.Sql(0, "COMMIT;");
        s.Sql(1, "PRAGMA wal_checkpoint(RESTART); INSERT INTO t VALUES(4);");
      },
      Calls::kNotCompared);
}

class ThreadsTest : public ShimTest {
 protected:
  Db OpenOne() {
    Db db = OpenWal();
    db.SetBusyTimeout(120'000);
    db.ExecOk("CREATE TABLE IF NOT EXISTS t(x); PRAGMA wal_autocheckpoint=100");
    return db;
  }

  template <class Work>
  static void InThreads(int n, Work work) {
    std::vector<std::thread> threads;
    for (int i = 0; i < n; i++) threads.emplace_back([&work, i] { work(i); });
    for (std::thread& thread : threads) thread.join();
  }

  void ExpectRows(Db& db, int64_t rows) {
    EXPECT_EQ(db.Int("SELECT count(*) FROM t"), rows);
    EXPECT_EQ(Stats(db).pending, 0);
    EXPECT_EQ(RowsAfterPowerCut(), rows);
    if (!HaveStockShell()) return;
    EXPECT_EQ(StockShell(path(), "PRAGMA integrity_check; SELECT count(*) FROM t;"),
              "ok\n" + std::to_string(rows) + "\n");
  }
};

// The commit of another thread is pending: whatever this thread's two connections do then, the sync
// that ends it does not depend on them.
TEST_F(ThreadsTest, TwoConnectionsOfAThreadOnTopOfAPendingCommit) {
  Db other = OpenOne();
  Db a = OpenOne();
  Db b = OpenOne();
  std::future<int> pending = ExecUntilSync(other, "INSERT INTO t VALUES('pending')");
  std::promise<void> refused;
  std::future<void> both = std::async(std::launch::async, [&] {
    a.ExecOk("BEGIN IMMEDIATE; INSERT INTO t VALUES('on top')");  // reads what is pending
    b.SetBusyTimeout(0);
    EXPECT_EQ(b.Exec("INSERT INTO t VALUES('too early')"), SQLITE_BUSY);
    refused.set_value();
    a.ExecOk("ROLLBACK");
    EXPECT_EQ(b.Int("SELECT count(*) FROM t"), 1);
    b.ExecOk("INSERT INTO t VALUES('then')");
    EXPECT_EQ(a.Int("SELECT count(*) FROM t"), 2);
  });
  refused.get_future().wait();
  EXPECT_EQ(storage_.HeldSyncs(), 1);
  storage_.OpenGate();
  EXPECT_EQ(pending.get(), SQLITE_OK);
  both.get();
  ExpectRows(a, 2);
}

// Each thread has two connections and moves rows from one transaction to the other.
TEST_F(ThreadsTest, TwoConnectionsInEachThread) {
  constexpr int kThreads = 8;
  const int rounds = Scaled(30);
  Db db = OpenOne();
  InThreads(kThreads, [&](int) {
    Db reader = OpenOne();
    Db writer = OpenOne();
    for (int i = 0; i < rounds; i++) {
      reader.ExecOk("BEGIN");
      const int64_t before = reader.Int("SELECT count(*) FROM t");
      writer.ExecOk("INSERT INTO t VALUES(1)");
      EXPECT_GT(writer.Int("SELECT count(*) FROM t"), before);
      EXPECT_EQ(reader.Int("SELECT count(*) FROM t"), before);
      reader.ExecOk("COMMIT");
      EXPECT_GT(reader.Int("SELECT count(*) FROM t"), before);
    }
  });
  ExpectRows(db, int64_t{kThreads} * rounds);
}

// ---- Many threads ----

TEST_F(ThreadsTest, SixtyFourThreadsWithAConnectionEach) {
  constexpr int kThreads = 64;
  const int commits = Scaled(10);
  Db db = OpenOne();
  for (const char* policy : {"auto", "group(max_wait_us=200,max_batch=16)", "on_each_flush"}) {
    db.Text("PRAGMA groupcommit_policy='" + std::string(policy) + "'");
    db.ExecOk("DELETE FROM t");
    InThreads(kThreads, [&](int) {
      Db own = OpenOne();
      for (int i = 0; i < commits; i++) own.ExecOk("INSERT INTO t VALUES(1)");
    });
    ExpectRows(db, int64_t{kThreads} * commits);
  }
}

TEST_F(ThreadsTest, OneConnectionOfSeveralThreads) {
  constexpr int kThreads = 8;
  const int commits = Scaled(50);
  Db db = OpenOne();
  Db second = OpenOne();
  InThreads(kThreads, [&](int i) {
    for (int n = 0; n < commits; n++) (i % 4 == 0 ? second : db).ExecOk("INSERT INTO t VALUES(1)");
  });
  ExpectRows(db, int64_t{kThreads} * commits);
}

// The database comes and goes with its connections.
TEST_F(ThreadsTest, ThreadsThatOpenCommitAndClose) {
  constexpr int kThreads = 8;
  const int rounds = Scaled(20);
  { Db make = OpenOne(); }
  InThreads(kThreads, [&](int) {
    for (int i = 0; i < rounds; i++) {
      Db own;
      ASSERT_EQ(own.Open(path(), "gc"), SQLITE_OK);
      own.SetBusyTimeout(120'000);
      own.ExecOk("PRAGMA synchronous=FULL; INSERT INTO t VALUES(1)");
    }
  });
  Db db = OpenOne();
  EXPECT_EQ(Stats(db).connections, 1);
  ExpectRows(db, int64_t{kThreads} * rounds);
}

// SQLite tells of the same again for each connection that joins a shared cache, while others use it
// (btree.c: sqlite3BtreeOpen()). For ThreadSanitizer.
TEST_F(ThreadsTest, ConnectionsThatJoinASharedCache) {
  const int rounds = Scaled(200);
  const std::string uri = "file:" + path() + "?cache=shared";
  { Db make = OpenOne(); }
  Db db(uri, "gc");
  std::thread joins([&uri, rounds] {
    for (int i = 0; i < rounds; i++) Db(uri, "gc");
  });
  for (int i = 0; i < rounds; i++) db.ExecOk("INSERT INTO t VALUES(1)");
  joins.join();
  ExpectRows(db, rounds);
}

// What a program may do at any time while others commit.
TEST_F(ThreadsTest, PoliciesAndStatisticsAtTheSameTime) {
  constexpr int kThreads = 4;
  const int commits = Scaled(100);
  Db db = OpenOne();
  std::atomic<bool> stop{false};
  std::thread changer([&] {
    Db own = OpenOne();
    EXPECT_EQ(groupcommit_stats_table(own.get()), SQLITE_OK);
    while (!stop) {
      for (const char* policy : {"on_each_flush", "group(max_wait_us=50,max_batch=3)", "auto"}) {
        EXPECT_EQ(own.Text("PRAGMA groupcommit_policy='" + std::string(policy) + "'"), policy);
        EXPECT_GE(own.Int("SELECT sum(connections) FROM groupcommit_stats"), 1);
        EXPECT_GE(Stats(own).syncs, 0);
      }
    }
  });
  InThreads(kThreads, [&](int) {
    Db own = OpenOne();
    for (int n = 0; n < commits; n++) own.ExecOk("INSERT INTO t VALUES(1)");
  });
  stop = true;
  changer.join();
  ExpectRows(db, int64_t{kThreads} * commits);
}

}  // namespace
}  // namespace groupcommit::testing
