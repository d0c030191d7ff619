// fork() and exec() while a commit is on its way, and while a failed one is being taken back. A
// thread stands still at the chosen call, so that the moment is certain.
//
// A child that opens the very file that its parent has open finds what the unix VFS noted of the
// parent's locks, as with stock SQLite: it must not do so while another thread of the parent holds
// the write lock, and its own snapshot may be no real lock. exec() is free of that.
#include <pthread.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cstdlib>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "mutex.h"
#include "process.h"
#include "support/patience.h"
#include "support/processes.h"
#include "support/sanitizers.h"
#include "support/shim_test.h"

extern "C" char** environ;  // which not every system declares

namespace groupcommit::testing {
namespace {

constexpr int kCommits = 5;

void Commit(Db& db, int writer) {
  for (int n = 1; n <= kCommits; n++) {
    db.ExecOk("INSERT INTO t VALUES(" + std::to_string(writer) + "," + std::to_string(n) + ")");
  }
}

// This program, executed by one of its tests, with a database to work on.
constexpr char kExeced[] = "GROUPCOMMIT_TEST_EXECED";

class Execed : public ::testing::Environment {
 public:
  void SetUp() override {
    const char* path = std::getenv(kExeced);
    if (path == nullptr) return;
    EXPECT_EQ(groupcommit_register("gc", nullptr, 0, nullptr), SQLITE_OK);
    {
      Db db(path, "gc");
      TryLocksEachMillisecond(db);  // the threads of its parent never pause
      db.ExecOk("PRAGMA synchronous=FULL; PRAGMA wal_autocheckpoint=2");
      Commit(db, 1);
      db.SetBusyTimeout(1);
      db.ExecOk("PRAGMA wal_checkpoint(TRUNCATE)");
      EXPECT_EQ(Stats(db).connections, 1);
    }
    std::fflush(nullptr);
    _exit(HasFailure() ? 1 : 0);
  }

 private:
  static bool HasFailure() { return ::testing::Test::HasFailure(); }
  static groupcommit_statistics Stats(const Db& db) {
    groupcommit_statistics stats{};
    EXPECT_EQ(groupcommit_stats(db.get(), "main", &stats, sizeof(stats)), SQLITE_OK);
    return stats;
  }
};
const ::testing::Environment* const execed = ::testing::AddGlobalTestEnvironment(new Execed);

// A child that is this program, with `path` to work on. It calls nothing that may wait for a thread
// that it has not inherited: malloc() of AddressSanitizer, say, does not expect fork().
pid_t StartOneself(const std::string& path) {
  std::string name_and_path = std::string(kExeced) + "=" + path;
  std::vector<char*> environment = {name_and_path.data()};
  for (char** each = environ; *each != nullptr; each++) environment.push_back(*each);
  environment.push_back(nullptr);
  return StartChild([&environment] {
    execle("/proc/self/exe", "execed", "--gtest_brief=1", static_cast<char*>(nullptr),
           environment.data());
    _exit(2);
  });
}

class ForkTest : public ShimTest {
 protected:
  void SetUp() override {
    Db(path(), "unix").ExecOk("PRAGMA journal_mode=WAL; CREATE TABLE t(writer, n)");
    storage_.ForgetClosedFiles();
    a_ = OpenWal();
    b_ = OpenWal();
    Commit(a_, 0);
  }

  // Starts a commit that stands still at the first call of which `here` says so. (A gate of the
  // storage would not do: the child would inherit it closed.)
  template <class Here>
  std::future<int> CommitAndStandStill(Here here) {
    storage_.SetObserver([this, here, parent = getpid()](const Call& call) {
      if (getpid() != parent || call.kind != FileKind::kWal || stands_still_ || !here(call)) return;
      stands_still_ = true;
      while (!go_on_) std::this_thread::yield();
    });
    std::future<int> commit = ExecAsync(a_, "INSERT INTO t VALUES(0,'on its way')");
    while (!stands_still_ && !IsReady(commit)) std::this_thread::yield();
    EXPECT_TRUE(stands_still_);
    return commit;
  }

  // One whose sync fails, and that stands still while the handles of the log tell of that.
  std::future<int> FailAndStandStill() {
    storage_.FailSyncs(FileKind::kWal, 1, 1);
    return CommitAndStandStill(
        [this](const Call& call) { return call.op == Op::kSync && ++syncs_ == 2; });
  }

  void GoOn() { go_on_ = true; }

  // The parent's connections go on working, and so does a process that starts now.
  void ExpectRows(int64_t rows) {
    storage_.SetObserver(nullptr);
    Commit(a_, 8);
    Commit(b_, 9);
    ExpectSuccess(StartChild([this] {
      Db db = OpenWal();
      Commit(db, 7);
    }));
    rows += 3 * kCommits;
    EXPECT_EQ(a_.Int("SELECT count(*) FROM t"), rows);
    EXPECT_EQ(Stats(b_).pending, 0);
    EXPECT_EQ(Stats(b_).connections, 2);
    ASSERT_EQ(a_.Close(), SQLITE_OK);
    ASSERT_EQ(b_.Close(), SQLITE_OK);
    ExpectIntact(path());
    EXPECT_EQ(Db(path(), "unix").Int("SELECT count(*) FROM t"), rows);
  }

  // A child that knows nothing of the parent's commits and syncs.
  void WorkAfresh(const std::string& file) {
    Db db = OpenWal(file);
    db.ExecOk("CREATE TABLE IF NOT EXISTS t(writer, n)");
    Commit(db, 1);
    EXPECT_EQ(Stats(db).connections, 1);
    EXPECT_EQ(Stats(db).pending, 0);
    EXPECT_EQ(Stats(db).fenced, 0);
    EXPECT_EQ(groupcommit_stats_table(db.get()), SQLITE_OK);
    EXPECT_EQ(db.Int("SELECT count(*) FROM groupcommit_stats"), 1);
  }

  Db a_;
  Db b_;
  std::atomic<bool> stands_still_{false};
  std::atomic<bool> go_on_{false};
  std::atomic<int> syncs_{0};
};

TEST_F(ForkTest, WhileASyncIsInFlight) {
  std::future<int> commit =
      CommitAndStandStill([](const Call& call) { return call.op == Op::kSync; });
  ExpectSuccess(StartChild([this] {
    WorkAfresh("test.db");
    WorkAfresh("other.db");
  }));
  EXPECT_FALSE(IsReady(commit));
  GoOn();
  EXPECT_EQ(commit.get(), SQLITE_OK);
  ExpectRows(2 * kCommits + 1);
}

TEST_F(ForkTest, AndExecWhileASyncIsInFlight) {
  std::future<int> commit =
      CommitAndStandStill([](const Call& call) { return call.op == Op::kSync; });
  ExpectSuccess(StartOneself(path()));
  EXPECT_FALSE(IsReady(commit));
  GoOn();
  EXPECT_EQ(commit.get(), SQLITE_OK);
  ExpectRows(2 * kCommits + 1);
}

// The thread that forks, from its handler on, which comes before that of the library.
std::atomic<pid_t> forking{0};
std::atomic<bool> forked{false};

void NoteForks() {
  [[maybe_unused]] static const int noted = pthread_atfork(
      [] { forking = static_cast<pid_t>(syscall(SYS_gettid)); }, [] { forked = true; }, nullptr);
  forking = 0;
  forked = false;
}

bool Sleeps(pid_t thread) {
  std::ifstream file("/proc/self/task/" + std::to_string(thread) + "/stat");
  std::string stat;
  std::getline(file, stat);
  const size_t name_end = stat.rfind(')');
  return name_end != std::string::npos && stat.compare(name_end, 3, ") S") == 0;
}

// The thread that opens one has the list of all databases locked. Who forks waits for that. (The
// child leaves SQLite alone: that thread has gone on, and may be inside of one of SQLite's
// mutexes.)
TEST_F(ForkTest, WhileADatabaseIsBeingOpened) {
#ifdef GROUPCOMMIT_TEST_THREAD_SANITIZER
  GTEST_SKIP() << "its fork() has locks of its own when it calls the handlers";
#endif
  NoteForks();
  storage_.SetObserver([this, parent = getpid()](const Call& call) {
    const bool is_here = call.op == Op::kFileControl && call.flags == SQLITE_FCNTL_HAS_MOVED;
    if (getpid() != parent || !is_here || stands_still_) return;
    stands_still_ = true;
    while (!forked && (forking == 0 || !Sleeps(forking))) std::this_thread::yield();
  });
  std::future<int> opened =
      std::async(std::launch::async, [this] { return Db().Open(path(), "gc"); });
  while (!stands_still_ && !IsReady(opened)) std::this_thread::yield();
  ASSERT_TRUE(stands_still_);
  ExpectSuccess(StartChild([] {
    alarm(static_cast<unsigned>(kHangs.count()));
    MutexLock lock(ProcessMutex());
  }));
  EXPECT_EQ(opened.get(), SQLITE_OK);
  ExpectRows(kCommits);
}

// The first write after the failed sync is that of the thread that takes the commit back. It holds
// the fence, and with it the write lock.
TEST_F(ForkTest, WhileAFailedCommitIsTakenBack) {
  storage_.FailSyncs(FileKind::kWal, 1, 1);
  std::atomic<bool> synced{false};
  std::future<int> commit = CommitAndStandStill([&synced](const Call& call) {
    if (call.op == Op::kSync) synced = true;
    return synced && call.op == Op::kWrite;
  });
  ExpectSuccess(StartChild([this] {
    WorkAfresh("other.db");
    Db same = OpenWal();
    same.SetBusyTimeout(0);
    EXPECT_EQ(same.Int("SELECT count(*) FROM t"), kCommits);
    EXPECT_EQ(same.Exec("INSERT INTO t VALUES(1,1)"), SQLITE_BUSY);
  }));
  EXPECT_FALSE(IsReady(commit));
  GoOn();
  EXPECT_EQ(commit.get(), SQLITE_IOERR_FSYNC);
  ExpectRows(kCommits);
}

// It must not use a connection that it inherited, and yet is not to hang in a mutex that a thread
// of the parent held: here, that of the list of logs.
TEST_F(ForkTest, AChildThatReadsThroughAConnectionOfItsParent) {
  Db idle(path(), "gc");  // it opens the log in the child
  std::future<int> commit = FailAndStandStill();
  ExpectSuccess(StartChild([&idle] {
    EXPECT_EQ(idle.Int("SELECT count(*) FROM t"), kCommits);
    std::fflush(nullptr);
    _exit(::testing::Test::HasFailure() ? 1 : 0);
  }));
  GoOn();
  EXPECT_EQ(commit.get(), SQLITE_IOERR_FSYNC);
  EXPECT_EQ(idle.Close(), SQLITE_OK);
  ExpectRows(kCommits);
}

// Nor is it to close one; and yet it does not hang then either, nor does what it forks off.
TEST_F(ForkTest, AChildThatClosesConnectionsOfItsParent) {
  Db idle(path(), "gc");
  std::future<int> commit = FailAndStandStill();
  ExpectSuccess(StartChild([this, &idle] {
    WorkAfresh("other.db");
    EXPECT_EQ(idle.Close(), SQLITE_OK);
    EXPECT_EQ(b_.Close(), SQLITE_OK);
    Db db = OpenWal("other.db");
    ExpectSuccess(StartChild([this, &db] {
      EXPECT_EQ(db.Close(), SQLITE_OK);
      WorkAfresh("third.db");
    }));
    Commit(db, 2);
    EXPECT_EQ(Stats(db).connections, 1);
    std::fflush(nullptr);
    _exit(::testing::Test::HasFailure() ? 1 : 0);
  }));
  GoOn();
  EXPECT_EQ(commit.get(), SQLITE_IOERR_FSYNC);
  EXPECT_EQ(idle.Close(), SQLITE_OK);
  ExpectRows(kCommits);
}

// The child is gone in the middle of a transaction that has written to the log, and of a commit
// that is visible and not durable.
TEST_F(ForkTest, AChildThatEndsWithoutClosing) {
  ExpectSuccess(StartChild([this] {
    Db waits = OpenWal();
    Db writes = OpenWal();
    std::future<int> commit = ExecUntilSync(waits, "INSERT INTO t VALUES(1,'visible')");
    const int64_t frames = storage_.Counters(FileKind::kWal).writes;
    writes.ExecOk("PRAGMA cache_size=2; BEGIN IMMEDIATE");
    for (int i = 0; i < 20; i++) writes.ExecOk("INSERT INTO t VALUES(1,zeroblob(9000))");
    EXPECT_GT(storage_.Counters(FileKind::kWal).writes, frames) << "nothing spilled";
    _exit(::testing::Test::HasFailure() ? 1 : 0);
  }));
  EXPECT_EQ(a_.Int("SELECT count(*) FROM t"), kCommits + 1);
  ExpectRows(kCommits + 1);
}

// The child inherits whatever the threads leave, and takes nothing of it along.
TEST_F(ForkTest, AndExecWhileThreadsCommit) {
  constexpr int kRounds = 10;
  std::vector<Db> dbs;
  for (int i = 0; i < 4; i++) dbs.push_back(OpenWal());
  std::atomic<bool> stop{false};
  std::atomic<int64_t> commits{0};
  std::vector<std::thread> threads;
  for (Db& db : dbs) {
    TryLocksEachMillisecond(db);
    threads.emplace_back([&] {
      while (!stop && !HasFailure()) {
        db.ExecOk("INSERT INTO t VALUES(3,0)");
        commits++;
      }
    });
  }
  for (int round = 0; round < kRounds; round++) {
    ExpectSuccess(StartOneself(path()));
  }
  stop = true;
  for (std::thread& thread : threads) thread.join();
  dbs.clear();
  EXPECT_GT(commits, 0);
  ExpectRows(kCommits + commits + kRounds * kCommits);
}

}  // namespace
}  // namespace groupcommit::testing
