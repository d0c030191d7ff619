// Beside a process that copies the log, as Litestream does: it has no shim, keeps the log from
// starting over by a read transaction, and checkpoints by itself.
#include <algorithm>
#include <atomic>
#include <chrono>
#include <filesystem>
#include <string>
#include <thread>
#include <tuple>
#include <vector>

#include "support/log_replica.h"
#include "support/processes.h"
#include "support/queue_of.h"
#include "support/scale.h"
#include "support/shim_test.h"

namespace groupcommit::testing {
namespace {

constexpr int kWriters = 4;
// A few rows fill a page: a missing frame must not be made good by a later one of the same page.
constexpr char kTable[] =
    "CREATE TABLE t(id INTEGER PRIMARY KEY, writer INTEGER, n INTEGER,"
    " filling DEFAULT(zeroblob(900)))";

// What the two processes tell each other.
struct Progress {
  std::atomic<bool> replica_is_ready{false};
  std::atomic<bool> replica_may_end{false};
  // The writers pause at so many commits, or else the log would grow as long as a checkpoint finds
  // no moment without them.
  std::atomic<int> limit{0};
  std::atomic<int> acknowledged[kWriters]{};
  int copied[kWriters]{};  // acknowledged before the last copy began
  std::atomic<int> generations{0};
  std::atomic<int> logs{0};

  int Sum() const {
    int sum = 0;
    for (const auto& of_one : acknowledged) sum += of_one;
    return sum;
  }
};

void Pause() { std::this_thread::sleep_for(std::chrono::microseconds(200)); }

class LitestreamTest : public ShimTest {
 protected:
  void SetUp() override { storage_.SetSyncDelay(std::chrono::microseconds(200)); }

  // Before the other process starts: a child that inherits an open database has its locks wrong.
  void Make(const std::string& file) {
    Db(path(file), "unix").ExecOk("PRAGMA journal_mode=WAL; " + std::string(kTable));
    storage_.ForgetClosedFiles();
    std::filesystem::create_directory(copies(file));
  }

  std::string copies(const std::string& file) const { return path(file) + "-copies"; }

  Db Open(const std::string& file, const char* vfs, int autocheckpoint) {
    Db db(path(file), vfs);
    db.SetBusyTimeout(100'000);
    db.ExecOk("PRAGMA synchronous=FULL; PRAGMA wal_autocheckpoint=" +
              std::to_string(autocheckpoint));
    return db;
  }
};

// ---- What it copies ----

// In its process: copies, and checkpoints now and then, while the others commit, and ends in the
// midst.
void Replicate(const std::string& path, const std::string& into, bool others_checkpoint,
               const std::vector<std::string>& modes, Progress& progress) {
  constexpr int kRounds = 4;
  constexpr int kCopiesEach = 5;
  const int commits_between = Scaled(12);
  int commits = 0;
  const auto let_them_commit = [&] {
    commits += commits_between;
    // Of fewer commits than a copy is behind when the log starts over, or else they write over the
    // frame by which the copy knows that log, before it can check whether it has missed any.
    progress.limit = commits + commits_between;
    while (progress.Sum() < commits) Pause();
  };
  LogReplica replica(path, into, others_checkpoint);
  progress.replica_is_ready = true;
  for (int round = 0; round < kRounds; round++) {
    for (const std::string& mode : modes) {
      for (int i = 0; i < kCopiesEach; i++) {
        let_them_commit();
        replica.Copy();
      }
      while (!replica.Checkpoint(mode) && mode != "PASSIVE") {
      }
    }
  }
  let_them_commit();
  for (int i = 0; i < kWriters; i++) progress.copied[i] = progress.acknowledged[i];
  replica.Copy();
  progress.generations = replica.generations();
  progress.logs = replica.logs();
}

// The VFS of the writers, their automatic checkpoints (0: none), the modes of the replica's.
using CopyParam = std::tuple<const char*, int, std::vector<std::string>>;

class LitestreamCopyTest : public LitestreamTest, public ::testing::WithParamInterface<CopyParam> {
 protected:
  void Write(Db& db, int writer, const std::atomic<bool>& stop) {
    for (int n = 1; !stop && !HasFailure(); n++) {
      while (progress_->Sum() >= progress_->limit && !stop) Pause();
      db.ExecOk("INSERT INTO t(writer, n) VALUES(" + std::to_string(writer) + "," +
                std::to_string(n) + ")");
      progress_->acknowledged[writer] = n;
    }
  }

  void WriteUntilItEnds(const std::string& file, pid_t replica) {
    const auto& [vfs, autocheckpoint, modes] = GetParam();
    while (!progress_->replica_is_ready && IsRunning(replica)) Pause();
    std::atomic<bool> stop{false};
    std::vector<Db> dbs;
    for (int i = 0; i < kWriters; i++) dbs.push_back(Open(file, vfs, autocheckpoint));
    std::vector<std::thread> threads;
    for (size_t i = 0; i < kWriters; i++) {
      threads.emplace_back([&, i] { Write(dbs[i], static_cast<int>(i), stop); });
    }
    ExpectSuccess(replica);
    stop = true;
    for (std::thread& thread : threads) thread.join();
  }

  // The commits 1 to k of each writer, for some k that is not below what was acknowledged to it.
  void ExpectPrefix(const std::string& restored) {
    ExpectIntact(restored);
    Db db(restored, "unix");
    EXPECT_EQ(db.Int("SELECT count(*) FROM t"), db.Int("SELECT max(id) FROM t"))
        << "in their order";
    for (int writer = 0; writer < kWriters; writer++) {
      const std::string of_it = " FROM t WHERE writer=" + std::to_string(writer);
      const int64_t rows = db.Int("SELECT count(*)" + of_it);
      EXPECT_EQ(db.Int("SELECT count(DISTINCT n)" + of_it), rows);
      EXPECT_EQ(db.Int("SELECT ifnull(max(n), 0)" + of_it), rows);
      EXPECT_GE(rows, progress_->copied[writer]) << "writer " << writer;
      EXPECT_LE(rows, progress_->acknowledged[writer]) << "writer " << writer;
    }
  }

  Shared<Progress> progress_;
};

TEST_P(LitestreamCopyTest, HasWhatWasAcknowledged) {
  const auto& [vfs, autocheckpoint, modes] = GetParam();
  const std::string file = "test.db";
  Make(file);
  const bool others_checkpoint = autocheckpoint > 0;
  const pid_t replica = StartChild([&, modes = modes] {
    Replicate(path(file), copies(file), others_checkpoint, modes, *progress_);
  });
  WriteUntilItEnds(file, replica);
  Restore(copies(file), path("restored.db"));
  ExpectPrefix(path("restored.db"));
  const auto has = [&modes = modes](const char* mode) {
    return std::find(modes.begin(), modes.end(), mode) != modes.end();
  };
  const bool truncates = has("TRUNCATE");
  if (truncates || has("RESTART")) {
    EXPECT_GE(progress_->generations + progress_->logs, 4) << "the log did not start over";
  }
  if (!others_checkpoint && !truncates) {
    EXPECT_EQ(progress_->generations, 1) << "it lost track of the log";
  }
  RecordProperty("generations", progress_->generations);
  RecordProperty("logs", progress_->logs);
  RecordProperty("commits", progress_->Sum());
}

std::string NameOfCopyParam(const ::testing::TestParamInfo<CopyParam>& info) {
  const auto& [vfs, autocheckpoint, modes] = info.param;
  std::string name = vfs;
  name += autocheckpoint > 0 ? "_autocheckpoint" : "";
  for (const std::string& mode : modes) name += "_" + mode;
  return name;
}

INSTANTIATE_TEST_SUITE_P(
    , LitestreamCopyTest,
    ::testing::Values(CopyParam{"gc", 0, {"PASSIVE", "RESTART"}}, CopyParam{"gc", 0, {"TRUNCATE"}},
                      CopyParam{"gc", 20, {"PASSIVE"}},
                      CopyParam{"gc", 20, {"PASSIVE", "RESTART", "TRUNCATE"}},
                      CopyParam{"store", 0, {"PASSIVE", "RESTART"}}),  // stock SQLite
    NameOfCopyParam);

// ---- While it holds its read transaction ----

// Nothing can be copied beyond its snapshot, and the log cannot start over. The checkpoints of the
// shim do not hold writers up again and again for that, and the log becomes no longer than stock's.
class LitestreamReaderTest : public LitestreamTest {
 protected:
  static constexpr int kAutocheckpoint = 20;

  // Frames of the log after `commits` commits beside a replica that does not let go.
  int64_t FramesBesideReplica(const std::string& file, const char* vfs, int commits) {
    Make(file);
    Shared<Progress> progress;
    const pid_t replica = StartChild([&] {
      const LogReplica holds_its_lock(path(file), copies(file), true);
      progress->replica_is_ready = true;
      while (!progress->replica_may_end) Pause();
    });
    while (!progress->replica_is_ready && IsRunning(replica)) Pause();
    const int64_t frames = Write(file, vfs, commits);
    progress->replica_may_end = true;
    ExpectSuccess(replica);
    return frames;
  }

  int64_t Write(const std::string& file, const char* vfs, int commits) {
    Db db = Open(file, vfs, kAutocheckpoint);
    if (std::string(vfs) == "gc") CountGates(db);
    std::atomic<int> left{commits};
    std::vector<std::thread> threads;
    for (int i = 0; i < kWriters; i++) {
      threads.emplace_back([&] {
        Db own = Open(file, vfs, kAutocheckpoint);
        while (left.fetch_sub(1) > 0) own.ExecOk("INSERT INTO t(writer, n) VALUES(1, 1)");
      });
    }
    for (std::thread& thread : threads) thread.join();
    storage_.SetObserver(nullptr);
    int frames = -1;
    EXPECT_EQ(
        sqlite3_wal_checkpoint_v2(db.get(), nullptr, SQLITE_CHECKPOINT_PASSIVE, &frames, nullptr),
        SQLITE_OK);
    return frames;
  }

  // Counts the checkpoints that held writers up.
  void CountGates(const Db& db) {
    storage_.SetObserver([this, &queue = QueueOf(db)](const Call& call) {
      if (call.op != Op::kShmLock || call.offset != 1 || call.amount != 1) return;
      if (call.flags != (SQLITE_SHM_UNLOCK | SQLITE_SHM_EXCLUSIVE)) return;
      if (queue.IsKeptForLong()) gates_++;
    });
  }

  std::atomic<int64_t> gates_{0};
};

TEST_F(LitestreamReaderTest, NobodyIsHeldUpAgainAndAgain) {
  const int commits = Scaled(1'000);
  const int64_t frames = FramesBesideReplica("test.db", "gc", commits);
  EXPECT_GE(frames, commits);
  // Each of them lets the log grow by as much as there was when the first automatic one began. (But
  // others may have been told to hold writers up by then, and had no processor.)
  EXPECT_LE(gates_, kWriters * (frames / kAutocheckpoint + 2));
  RecordProperty("gates", static_cast<int>(gates_));
}

TEST_F(LitestreamReaderTest, TheLogIsNoLongerThanWithStockSqlite) {
  if (SqliteWaitsInside()) GTEST_SKIP() << "a checkpoint of stock SQLite waits for the reader";
  constexpr int kCommits = 200;
  const int64_t frames = FramesBesideReplica("test.db", "gc", kCommits);
  EXPECT_LE(frames, FramesBesideReplica("stock.db", "store", kCommits));
}

}  // namespace
}  // namespace groupcommit::testing
