// kill -9 of processes that share a database, at any moment of their lives. The others go on,
// nothing that was acknowledged is lost, and stock SQLite finds it all.
//
// The page cache of the machine outlives a process, so the files here are real ones and no power is
// cut. What a killed process leaves behind is locks, half a header in the shared memory, and
// commits that are visible and that nobody has synced.
#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <ostream>
#include <random>
#include <thread>

#include "support/processes.h"
#include "support/scale.h"
#include "support/shim_test.h"

namespace groupcommit::testing {
namespace {

constexpr size_t kMaxWriters = 4096;

struct Board {
  std::array<std::atomic<int64_t>, kMaxWriters> acknowledged{};  // the last n of each writer
  std::atomic<int> survivors{0};                                 // that are at work
  std::atomic<bool> stop{false};
  std::atomic<int64_t> beats{0};
  std::atomic<int64_t> longest_us{0};     // a survivor's longest commit
  std::atomic<int64_t> longest_beats{0};  // the same, by the heart's clock
};

void RaiseTo(std::atomic<int64_t>& maximum, int64_t value) {
  int64_t now = maximum;
  while (now < value && !maximum.compare_exchange_weak(now, value)) continue;
}

// How survivors measure time: a beat takes a process 10 ms and a sync of the same disk, at least.
// On a machine or disk that has other things to do a beat takes longer, as everything else; but a
// survivor has to get a processor several times for a commit, the heart twice for a beat. So it may
// take as many beats as are four seconds at the least: usually it takes less than ten. What stands
// still for good does so for longer.
constexpr int64_t kInnocentBeats = 400;

void Beat(Board& board, const std::string& file) {
  const int fd = open(file.c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
  ASSERT_GE(fd, 0);
  while (!::testing::Test::HasFailure()) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
    EXPECT_EQ(pwrite(fd, "x", 1, 0), 1);
    EXPECT_EQ(fdatasync(fd), 0);
    board.beats++;
  }
}

class KillTest : public ShimTest {
 protected:
  static constexpr int kVictimThreads = 2;

  KillTest() { EXPECT_EQ(groupcommit_register("gc_unix", "unix", 0, nullptr), SQLITE_OK); }
  ~KillTest() override { EXPECT_EQ(groupcommit_unregister("gc_unix"), SQLITE_OK); }

  void SetUp() override {
    Db(path(), "unix").ExecOk("PRAGMA journal_mode=WAL; CREATE TABLE t(writer, n, part, filler)");
  }

  Db Open(const char* vfs) {
    Db db;
    EXPECT_EQ(db.Open(path(), vfs), SQLITE_OK);
    TryLocksEachMillisecond(db);
    db.ExecOk("PRAGMA synchronous=FULL; PRAGMA wal_autocheckpoint=20");
    return db;
  }

  // A transaction of two rows, one of which may need pages of its own. Seldom where there are many:
  // with the database grows what it costs the storage of a victim to note a checkpoint's writes,
  // for which everybody waits.
  void Commit(Db& db, int writer, int64_t n) {
    const bool is_large = n % (n < 200 ? 5 : 100) == 0;
    const std::string row =
        "INSERT INTO t VALUES(" + std::to_string(writer) + "," + std::to_string(n) + ",";
    db.ExecOk("BEGIN IMMEDIATE;" + row + "0,zeroblob(" + std::to_string(is_large ? 9000 : 10) +
              "));" + row + "1,0); COMMIT");
    if (!HasFailure()) board_->acknowledged[static_cast<size_t>(writer)] = n;
  }

  // The pauses leave room for the others: nobody hands the lock over to another process.
  void Survive(const char* vfs, int writer) {
    Db db = Open(vfs);
    int64_t n = 0;
    do {
      n++;
      const int64_t beats = board_->beats;
      const auto begin = std::chrono::steady_clock::now();
      Commit(db, writer, n);
      const auto took = std::chrono::steady_clock::now() - begin;
      RaiseTo(board_->longest_beats, board_->beats - beats);
      RaiseTo(board_->longest_us,
              std::chrono::duration_cast<std::chrono::microseconds>(took).count());
      if (n == 1) board_->survivors++;
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    } while (!board_->stop && !HasFailure());
  }

  void CommitUntilKilled(const char* vfs, int writer) {
    Db db = Open(vfs);
    for (int64_t n = 1; !HasFailure(); n++) {
      Commit(db, writer, n);
      if (n % 16 == writer % 16) db.ExecOk("PRAGMA wal_checkpoint(TRUNCATE)");
      std::this_thread::sleep_for(std::chrono::microseconds(500));
    }
  }

  // A process whose threads commit until it is killed.
  pid_t StartVictim(const char* vfs) {
    const int first = NewWriters(kVictimThreads);
    return StartChild([=, this] {
      std::vector<std::thread> threads;
      for (int i = 0; i < kVictimThreads; i++) {
        threads.emplace_back([=, this] { CommitUntilKilled(vfs, first + i); });
      }
      for (std::thread& thread : threads) thread.join();
    });
  }

  int NewWriters(int n) {
    writers_ += n;
    EXPECT_LE(static_cast<size_t>(writers_), kMaxWriters);
    return writers_ - n;
  }

  void SleepSomeTime(std::minstd_rand& random) {
    std::this_thread::sleep_for(std::chrono::microseconds(random() % 40'000));
  }

  void StartSurvivors(const std::array<const char*, 2>& vfses) {
    heart_ = StartChild([this] { Beat(*board_, path("heart")); });
    for (const char* vfs : vfses) {
      const int writer = NewWriters(1);
      survivors_.push_back(StartChild([=, this] { Survive(vfs, writer); }));
    }
    while (board_->survivors < static_cast<int>(vfses.size())) {
      for (const pid_t survivor : survivors_) ASSERT_TRUE(IsRunning(survivor));
      std::this_thread::yield();
    }
  }

  void StopSurvivors(int kills) {
    board_->stop = true;
    for (const pid_t survivor : survivors_) ExpectSuccess(survivor);
    Kill(heart_);
    EXPECT_LE(board_->longest_beats, kInnocentBeats)
        << "a survivor stood still: " << board_->longest_us << " us";
    int64_t of_all = 0;
    for (const auto& of_one : board_->acknowledged) of_all += of_one;
    std::printf("%d kills, %lld commits; the longest commit of a survivor: %.1f ms, %lld beats\n",
                kills, static_cast<long long>(of_all),
                static_cast<double>(board_->longest_us) / 1e3,
                static_cast<long long>(board_->longest_beats));
    RecordProperty("kills", kills);
    RecordProperty("longest_commit_us", std::to_string(board_->longest_us));
  }

  // Of each writer, at most the one commit is there that it was told nothing of.
  void ExpectNothingLost() {
    ExpectIntact(path());
    Db db(path(), "unix");
    EXPECT_EQ(db.Int("SELECT count(*) FROM (SELECT 1 FROM t GROUP BY writer, n"
                     " HAVING count(*) <> 2 OR count(DISTINCT part) <> 2)"),
              0)
        << "transactions that are not whole";
    db.ExecOk("CREATE INDEX by_writer ON t(writer, n)");
    for (int writer = 0; writer < writers_; writer++) {
      const std::string where = " FROM t WHERE writer=" + std::to_string(writer);
      const int64_t last = db.Int("SELECT ifnull(max(n),0)" + where);
      const int64_t acknowledged = board_->acknowledged[static_cast<size_t>(writer)];
      EXPECT_EQ(db.Int("SELECT count(DISTINCT n)" + where), last) << "writer " << writer;
      EXPECT_GE(last, acknowledged) << "writer " << writer;
      EXPECT_LE(last, acknowledged + 1) << "writer " << writer;
    }
    if (!HaveStockShell()) return;
    EXPECT_EQ(StockShell(path(), "PRAGMA integrity_check; SELECT count(*) FROM t;"),
              "ok\n" + std::to_string(db.Int("SELECT count(*) FROM t")) + "\n");
  }

  Shared<Board> board_;
  int writers_ = 0;
  pid_t heart_ = 0;
  std::vector<pid_t> survivors_;
};

struct Mode {
  const char* name;
  std::array<const char*, 2> survivors;
  std::array<const char*, 2> victims;  // by turns
};

constexpr char kShim[] = "gc_unix";
constexpr char kStock[] = "unix";

// Found by GoogleTest.
void PrintTo(const Mode& mode, std::ostream* out) { *out << mode.name; }

class RandomKillTest : public KillTest, public ::testing::WithParamInterface<Mode> {};

TEST_P(RandomKillTest, SurvivorsGoOn) {
  const int kills = Scaled(100);
  StartSurvivors(GetParam().survivors);
  std::minstd_rand random(1);
  random.discard(10);
  pid_t older = 0;
  // Two of them live at a time.
  for (int i = 0; i < kills && !HasFailure(); i++) {
    const pid_t younger = StartVictim(GetParam().victims[static_cast<size_t>(i % 2)]);
    SleepSomeTime(random);
    if (older != 0) Kill(older);
    older = younger;
  }
  Kill(older);
  StopSurvivors(kills);
  ExpectNothingLost();
}

INSTANTIATE_TEST_SUITE_P(, RandomKillTest,
                         ::testing::Values(Mode{"AllWithTheShim", {kShim, kShim}, {kShim, kShim}},
                                           Mode{"Mixed", {kShim, kStock}, {kShim, kStock}}),
                         [](const auto& mode) { return std::string(mode.param.name); });

// Not at a time, but at each call to the VFS by turns: the moments between them are all there are,
// as others see it, but for those inside the shared memory.
TEST_F(KillTest, AtEachCall) {
  const int kills = Scaled(100);
  StartSurvivors({kShim, kStock});
  std::atomic<int64_t> calls_left{0};
  storage_.SetObserver([&calls_left](const Call& call) {
    const bool counts = call.op == Op::kWrite || call.op == Op::kSync || call.op == Op::kShmLock ||
                        call.op == Op::kTruncate || call.op == Op::kFileControl ||
                        call.op == Op::kShmMap || call.op == Op::kOpen;
    if (counts && calls_left.fetch_sub(1) == 1) raise(SIGKILL);
  });
  constexpr int kStep = 7;  // no divisor of the number of calls of a commit
  for (int i = 0; i < kills; i++) {
    calls_left = 1 + kStep * i % 401;
    const int writer = NewWriters(1);
    const pid_t victim = StartChild([&, this] { CommitUntilKilled("gc", writer); });
    ExpectKilled(victim);
  }
  storage_.SetObserver(nullptr);
  StopSurvivors(kills);
  ExpectNothingLost();
}

// Nobody survives who could have put anything right.
TEST_F(KillTest, AllAtOnce) {
  constexpr int kProcesses = 3;
  const int rounds = Scaled(20);
  std::minstd_rand random(2);
  random.discard(10);
  for (int round = 0; round < rounds; round++) {
    std::vector<pid_t> all;
    for (int i = 0; i < kProcesses; i++) all.push_back(StartVictim(kShim));
    SleepSomeTime(random);
    for (const pid_t child : all) kill(child, SIGSTOP);
    for (const pid_t child : all) Kill(child);
    if (round % 4 == 0) ExpectIntact(path());
  }
  RecordProperty("kills", rounds * kProcesses);
  ExpectNothingLost();
}

}  // namespace
}  // namespace groupcommit::testing
