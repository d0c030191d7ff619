// Several processes at one database, and fork() at every point of a connection's life.
#include <pthread.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <thread>

#include "support/processes.h"
#include "support/sanitizers.h"
#include "support/scale.h"
#include "support/shim_test.h"

namespace groupcommit::testing {
namespace {

// fork() in a program whose other threads use SQLite needs this, with or without the shim: else the
// child inherits mutexes of SQLite that nobody there will ever release.
class SqlitesMutexes {
 public:
  // Makes every fork() hold them while an instance exists.
  SqlitesMutexes() { wanted = true; }
  ~SqlitesMutexes() { wanted = false; }

 private:
  // In the order in which SQLite nests them.
  static constexpr int kMutexes[] = {SQLITE_MUTEX_STATIC_VFS1, SQLITE_MUTEX_STATIC_PRNG,
                                     SQLITE_MUTEX_STATIC_MAIN, SQLITE_MUTEX_STATIC_OPEN,
                                     SQLITE_MUTEX_STATIC_LRU,  SQLITE_MUTEX_STATIC_PMEM,
                                     SQLITE_MUTEX_STATIC_MEM};
  static void Enter() {
    if (!wanted) return;
    for (const int mutex : kMutexes) sqlite3_mutex_enter(sqlite3_mutex_alloc(mutex));
  }
  static void Leave() {
    if (!wanted) return;
    for (const int mutex : kMutexes) sqlite3_mutex_leave(sqlite3_mutex_alloc(mutex));
  }

  static inline bool wanted = false;
  // Before the library's own: of such handlers, the one that was registered last runs first.
  static inline const int registered = pthread_atfork(Enter, Leave, Leave);
};

std::string InsertOf(int writer, int n) {
  return "INSERT INTO t VALUES(" + std::to_string(writer) + "," + std::to_string(n) + ")";
}

class ProcessTest : public ShimTest {
 protected:
  static constexpr char kTable[] = "CREATE TABLE IF NOT EXISTS t(writer, n)";

  Db Open(const std::string& file = "test.db", const char* vfs = "gc") {
    Db db;
    EXPECT_EQ(db.Open(path(file), vfs), SQLITE_OK);
    db.SetBusyTimeout(60'000);
    db.ExecOk("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL");
    db.ExecOk(kTable);
    return db;
  }

  void Write(int writer, int commits) {
    Db db = Open();
    for (int n = 1; n <= commits; n++) db.ExecOk(InsertOf(writer, n));
  }

  // Stock SQLite finds the rows 1 to `commits` of the writers 0 to `writers`-1.
  void ExpectRows(int writers, int commits, const std::string& file = "test.db") {
    ExpectIntact(path(file));
    Db db(path(file), "unix");
    for (int writer = 0; writer < writers; writer++) {
      const std::string where = " FROM t WHERE writer=" + std::to_string(writer);
      EXPECT_EQ(db.Int("SELECT count(DISTINCT n)" + where), commits) << writer;
      EXPECT_EQ(db.Int("SELECT count(*)" + where), commits) << writer;
    }
    if (!HaveStockShell()) return;
    EXPECT_EQ(StockShell(path(file), "PRAGMA integrity_check; SELECT count(*) FROM t;"),
              "ok\n" + std::to_string(writers * commits) + "\n");
  }
};

TEST_F(ProcessTest, ForkBeforeOpening) {
  // Two processes cannot switch to WAL at the same time: SQLite does not call the busy handler for
  // it.
  Db(path(), "unix").ExecOk("PRAGMA journal_mode=WAL");
  storage_.ForgetClosedFiles();
  const pid_t child = StartChild([&] { Write(1, 100); });
  Write(0, 100);
  ExpectSuccess(child);
  ExpectRows(2, 100);
}

TEST_F(ProcessTest, ForkAfterClosing) {
  Write(0, 20);
  const pid_t child = StartChild([&] { Write(1, 100); });
  Write(0, 0);
  ExpectSuccess(child);
  Db db = Open();
  EXPECT_EQ(db.Int("SELECT count(*) FROM t"), 120);
}

TEST_F(ProcessTest, ForkAfterOpening) {
  Db db = Open();
  db.ExecOk(InsertOf(0, 1));
  EXPECT_EQ(db.Text("PRAGMA groupcommit_policy='group(max_wait_us=100,max_batch=4)'"),
            "group(max_wait_us=100,max_batch=4)");
  const pid_t child = StartChild([&] {
    Write(1, 100);
    Db own = Open();
    // It starts afresh.
    EXPECT_EQ(Stats(own).connections, 1);
    EXPECT_EQ(own.Text("PRAGMA groupcommit_policy"), "auto");
    EXPECT_EQ(groupcommit_stats_table(own.get()), SQLITE_OK);
    EXPECT_EQ(own.Int("SELECT count(*) FROM groupcommit_stats"), 1);
  });
  for (int n = 2; n <= 100; n++) db.ExecOk(InsertOf(0, n));
  ExpectSuccess(child);
  EXPECT_EQ(Stats(db).connections, 1);
  EXPECT_EQ(db.Int("SELECT count(*) FROM t"), 200);
  ASSERT_EQ(db.Close(), SQLITE_OK);
  ExpectRows(2, 100);
}

// Grandchildren, too.
TEST_F(ProcessTest, ForkInAChild) {
  Db db = Open();
  db.ExecOk(InsertOf(0, 1));
  ExpectSuccess(StartChild([&] {
    Db own = Open();
    own.ExecOk(InsertOf(1, 1));
    ExpectSuccess(StartChild([&] { Write(2, 1); }));
    EXPECT_EQ(own.Int("SELECT count(*) FROM t"), 3);
    EXPECT_EQ(Stats(own).connections, 1);
  }));
  EXPECT_EQ(db.Int("SELECT count(*) FROM t"), 3);
  ASSERT_EQ(db.Close(), SQLITE_OK);
  ExpectRows(3, 1);
}

// The child finds every lock of the shim as some thread left it that does not exist there. It stays
// away from the file that the other threads write: for that one stock SQLite is not safe either.
TEST_F(ProcessTest, ForkWhileOtherThreadsCommitOpenAndClose) {
#ifdef GROUPCOMMIT_TEST_ADDRESS_SANITIZER
  GTEST_SKIP() << "malloc() of AddressSanitizer does not expect fork(): where another thread is in "
                  "it the child waits for ever, now and then";
#endif
  constexpr int kWriters = 6;
  constexpr int kRounds = 10;
  ASSERT_EQ(groupcommit_register("gc_unix", "unix", 0, nullptr), SQLITE_OK);
  {
    Db idle = Open("idle.db", "gc_unix");
    std::vector<Db> dbs;
    for (int i = 0; i < kWriters; i++) dbs.push_back(Open("busy.db", "gc_unix"));
    std::atomic<bool> stop{false};
    std::array<std::atomic<int>, kWriters> commits{};
    std::vector<std::thread> threads;
    for (size_t i = 0; i < kWriters; i++) {
      threads.emplace_back([&, i] {
        while (!stop) dbs[i].ExecOk(InsertOf(static_cast<int>(i), ++commits[i]));
      });
    }
    threads.emplace_back([&] {
      while (!stop) EXPECT_EQ(Stats(idle).pending, 0);
    });
    threads.emplace_back([&] {
      while (!stop) Open("opened_and_closed.db", "gc_unix");
    });

    const auto total = [&commits] {
      int64_t sum = 0;
      for (const auto& of_one : commits) sum += of_one;
      return sum;
    };
    const SqlitesMutexes held_by_fork;
    for (int round = 0; round < kRounds; round++) {
      while (total() < 100 * (round + 1)) std::this_thread::yield();
      ExpectSuccess(StartChild([&] {
        Db same = Open("idle.db", "gc_unix");
        for (int n = 1; n <= 5; n++) same.ExecOk(InsertOf(round, n));
        EXPECT_EQ(Stats(same).connections, 1);
        Db fresh = Open("fresh.db", "gc_unix");
        for (int n = 1; n <= 5; n++) fresh.ExecOk(InsertOf(round, n));
        EXPECT_EQ(groupcommit_stats_table(fresh.get()), SQLITE_OK);
        EXPECT_EQ(fresh.Int("SELECT count(*) FROM groupcommit_stats"), 2);
      }));
    }
    stop = true;
    for (std::thread& thread : threads) thread.join();
    EXPECT_EQ(dbs[0].Int("SELECT count(*) FROM t"), total());
    EXPECT_EQ(Stats(dbs[0]).pending, 0);
    EXPECT_EQ(Stats(idle).connections, 1);
    EXPECT_EQ(idle.Int("SELECT count(*) FROM t"), 5 * kRounds);
  }
  EXPECT_EQ(groupcommit_unregister("gc_unix"), SQLITE_OK);
  ExpectRows(kRounds, 5, "idle.db");
  ExpectRows(kRounds, 5, "fresh.db");
  ExpectIntact(path("busy.db"));
}

// ---- Processes at one file ----

std::atomic<int64_t> syncs_begun{0};
thread_local int64_t syncs_before_last_byte = 0;

// Whatever others do to the log, every commit waits for a sync that began after its last byte. One
// that is acknowledged without waits for nothing, and a test of the time would see it only if the
// sync took long.
void CommitWithSyncs(Db& db, int writer, int n) {
  db.ExecOk("BEGIN IMMEDIATE; " + InsertOf(writer, n) + "; COMMIT");
  EXPECT_GT(syncs_begun, syncs_before_last_byte) << writer << ", " << n;
}

TEST_F(ProcessTest, ThreeWithTheShimAndOneWithout) {
  constexpr int kProcesses = 3;
  constexpr int kThreads = 2;
  const int commits = Scaled(100);
  storage_.SetObserver([](const Call& call) {
    if (call.kind != FileKind::kWal) return;
    if (call.op == Op::kSync) syncs_begun++;
    if (call.op == Op::kWrite) syncs_before_last_byte = syncs_begun;
  });
  storage_.SetSyncDelay(std::chrono::milliseconds(1));
  { Db make = Open(); }
  std::vector<pid_t> children;
  for (int process = 0; process < kProcesses; process++) {
    children.push_back(StartChild([&] {
      std::vector<std::thread> threads;
      for (int i = 0; i < kThreads; i++) {
        threads.emplace_back([&, writer = process * kThreads + i] {
          Db db = Open();
          db.ExecOk("PRAGMA wal_autocheckpoint=7");
          for (int n = 1; n <= commits; n++) {
            CommitWithSyncs(db, writer, n);
            if (n % 10 == writer) db.ExecOk("PRAGMA wal_checkpoint(RESTART)");
          }
        });
      }
      for (std::thread& thread : threads) thread.join();
    }));
  }
  children.push_back(StartChild([&] {
    Db db = Open("test.db", "unix");
    db.ExecOk("PRAGMA wal_autocheckpoint=3");
    for (int n = 1; n <= commits; n++) {
      db.ExecOk(InsertOf(kProcesses * kThreads, n));
      if (n % 10 == 0) db.ExecOk("PRAGMA wal_checkpoint(TRUNCATE)");
    }
  }));
  for (const pid_t child : children) ExpectSuccess(child);
  ExpectRows(kProcesses * kThreads + 1, commits);
}

// A process that is killed between any two instructions leaves a database that others go on with.
TEST_F(ProcessTest, AKilledProcessTakesNothingAlong) {
  Db db = Open();
  for (int round = 0; round < 5; round++) {
    int ends[2];
    ASSERT_EQ(pipe(ends), 0);
    const pid_t child = StartChild([&] {
      Db own = Open();
      for (int n = 1;; n++) {
        own.ExecOk(InsertOf(round, n));
        if (write(ends[1], "x", 1) != 1) break;
      }
    });
    close(ends[1]);
    char told[256];
    int64_t acknowledged = 0;
    for (ssize_t n = 1; acknowledged < 40 && n > 0; acknowledged += n) {
      db.ExecOk(InsertOf(100, round));
      n = read(ends[0], told, sizeof(told));
    }
    Kill(child);
    for (ssize_t n = 0; (n = read(ends[0], told, sizeof(told))) > 0;) acknowledged += n;
    close(ends[0]);
    const std::string of_it = " FROM t WHERE writer=" + std::to_string(round);
    EXPECT_GE(db.Int("SELECT count(*)" + of_it), acknowledged);
    EXPECT_LE(db.Int("SELECT count(*)" + of_it), acknowledged + 1);
    db.ExecOk(InsertOf(100, round));
  }
  ASSERT_EQ(db.Close(), SQLITE_OK);
  ExpectIntact(path());
}

}  // namespace
}  // namespace groupcommit::testing
