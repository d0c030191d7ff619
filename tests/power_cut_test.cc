// The power goes at many moments while connections commit through the shim: inside calls of the
// storage, right after an acknowledgement, right after a read. Stock SQLite then has to find every
// commit that was acknowledged and every one that was read, and nothing that is not whole.
//
// A run takes some 80 cuts; the environment variable GROUPCOMMIT_TEST_SCALE multiplies the work.
#include <atomic>
#include <cstdio>
#include <mutex>
#include <ostream>
#include <random>
#include <thread>

#include "support/scale.h"
#include "support/shim_test.h"

namespace groupcommit::testing {
namespace {

struct Mode {
  const char* policy;
  int writers;
  int page_size;
  bool mixed;  // every other writer has synchronous=NORMAL
  int sync_us = 100;
  int commits = 800;

  // Long enough for several syncs to be under way at a time.
  bool overlaps() const { return sync_us > 500; }
};

// Found by GoogleTest.
void PrintTo(const Mode& mode, std::ostream* out) {
  *out << mode.policy << ", " << mode.writers << " writers, page size " << mode.page_size
       << (mode.mixed ? ", FULL and NORMAL" : "") << ", a sync of " << mode.sync_us << " us";
}

std::atomic<int> all_cuts{0};

class CountCuts : public ::testing::Environment {
 public:
  void TearDown() override { std::printf("%d power cuts checked\n", all_cuts.load()); }
};
const ::testing::Environment* const count_cuts = ::testing::AddGlobalTestEnvironment(new CountCuts);

// What the outside world knows: of each writer the last commit that was acknowledged, of all the
// last one that somebody read.
struct Knowledge {
  explicit Knowledge(int writers) : acknowledged(static_cast<size_t>(writers)) {}
  std::vector<std::atomic<int64_t>> acknowledged;  // the commit's n
  std::atomic<int64_t> seen{0};                    // the commit's seq
  std::atomic<int64_t> commits{0};                 // acknowledged, of all writers
};

struct Cut {
  std::string path;  // of the database after the cut
  std::string how;
  std::vector<int64_t> acknowledged;  // before it
  int64_t seen = 0;
};

// Takes the cuts, spread evenly over the run.
class Cutter {
 public:
  // A kind of moment, and how many cuts are to be taken at such ones.
  struct Moment {
    const char* name;
    int wanted;
    int taken = 0;
  };
  Moment in_call{"in a call", Scaled(40)};
  Moment after_commit{"after a commit", Scaled(20)};
  Moment after_read{"after a read", Scaled(16)};

  Cutter(TestStorage* storage, const TempDir* dir, const Knowledge* known, int64_t total_commits)
      : storage_(storage), dir_(dir), known_(known), total_commits_(total_commits) {}

  // The storage's observer.
  void OnCall(const Call& call) {
    switch (call.op) {
      case Op::kWrite:
      case Op::kTruncate:
      case Op::kSync:
      case Op::kShmLock:
      case Op::kFileControl:
        break;
      default:
        return;
    }
    constexpr uint64_t kOneIn = 16;
    std::minstd_rand hash(static_cast<unsigned>(calls_.fetch_add(1) + 1));
    hash.discard(1);
    if (hash() % kOneIn == 0) TakeIfDue(in_call, OpName(call.op));
  }

  void TakeIfDue(Moment& moment, const char* detail = "") {
    std::unique_lock<std::mutex> lock(mutex_, std::try_to_lock);
    if (!lock.owns_lock()) return;  // somebody else's cut is just as good
    if (moment.taken * total_commits_ >= moment.wanted * known_->commits.load()) return;
    moment.taken++;
    Take(std::string(moment.name) + " " + detail);
  }

  void TakeNow(const char* how) {
    std::lock_guard<std::mutex> lock(mutex_);
    for (int i = 0; i < 4; i++) Take(how);
  }

  // REQUIRES: the run is over.
  const std::vector<Cut>& cuts() const { return cuts_; }

 private:
  void Take(const std::string& how) {
    // Most of all the cut that leaves least.
    static constexpr CutMode kModes[] = {CutMode::kDropUnsynced, CutMode::kKeepRandom,
                                         CutMode::kDropUnsynced, CutMode::kKeepAll};
    static constexpr const char* kNames[] = {"drop", "random", "drop", "keep"};
    const size_t number = cuts_.size();
    Cut cut;
    cut.how = how + ", " + kNames[number % 4];
    // First what is known, then the cut: it must not be the smaller.
    cut.seen = known_->seen;
    for (const auto& acknowledged : known_->acknowledged) cut.acknowledged.push_back(acknowledged);
    const std::string dir = dir_->File("cut" + std::to_string(number));
    storage_->CutInto(dir, kModes[number % 4], number);
    cut.path = dir + "/test.db";
    cuts_.push_back(std::move(cut));
  }

  TestStorage* const storage_;
  const TempDir* const dir_;
  const Knowledge* const known_;
  const int64_t total_commits_;
  std::atomic<uint64_t> calls_{0};
  std::mutex mutex_;
  std::vector<Cut> cuts_;
};

class PowerCutTest : public ShimTest, public ::testing::WithParamInterface<Mode> {
 protected:
  PowerCutTest() {
    storage_.SetSyncDelay(std::chrono::microseconds(GetParam().sync_us));
    storage_.SetErrorPerHandle(GetParam().overlaps());
  }

  bool IsFull(int writer) const { return !GetParam().mixed || writer % 2 == 0; }

  Db OpenOne() {
    Db db;
    EXPECT_EQ(db.Open(path(), "gc"), SQLITE_OK);
    db.SetBusyTimeout(60'000);
    db.ExecOk("PRAGMA page_size=" + std::to_string(GetParam().page_size) +
              "; PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA wal_autocheckpoint=20");
    return db;
  }

  // A transaction has one seq, the next after its predecessor's, and `parts` rows.
  Db OpenFirst() {
    Db db = OpenOne();
    EXPECT_EQ(db.Text("PRAGMA groupcommit_policy='" + std::string(GetParam().policy) + "'"),
              GetParam().policy);
    db.ExecOk(
        "CREATE TABLE t(seq, writer, n, part, parts, filler);"
        "CREATE INDEX by_seq ON t(seq); CREATE INDEX by_writer ON t(writer, n)");
    return db;
  }

  void Write(Db& db, int writer, int64_t commits) {
    if (!IsFull(writer)) db.ExecOk("PRAGMA synchronous=NORMAL");
    // Spills, and rewrites frames. Without savepoints: SQLite 3.40 writes a log that recovery
    // cannot read if frames are rewritten inside a savepoint that is rolled back (wal.c:
    // Wal.iReCksum).
    const bool spills = writer % 4 == 3;
    if (spills) db.ExecOk("PRAGMA cache_size=8");
    std::minstd_rand random(static_cast<unsigned>(writer) + 1);
    random.discard(10);
    const std::string head = "INSERT INTO t SELECT ";
    const std::string who = "," + std::to_string(writer) + ",";
    const std::string undone = head + "-1" + who + "-1,0,0,hex(randomblob(600));";
    const size_t filler = static_cast<size_t>(GetParam().page_size) / 20;
    for (int64_t n = 1; n <= commits; n++) {
      if (random() % 8 == 0) db.ExecOk("BEGIN IMMEDIATE;" + undone + "ROLLBACK");
      const auto parts = static_cast<int>(random() % 4) + 1;
      std::string sql;
      for (int part = 0; part < parts; part++) {
        sql += head + "ifnull(max(seq),0)" + (part == 0 ? "+1" : "") + who + std::to_string(n) +
               "," + std::to_string(part) + "," + std::to_string(parts) + ",hex(randomblob(" +
               std::to_string(random() % filler) + ")) FROM t;";
        if (!spills && random() % 8 == 0)
          sql += "SAVEPOINT s;" + undone + "ROLLBACK TO s; RELEASE s;";
      }
      const bool alone = parts == 1 && sql.find("SAVEPOINT") == std::string::npos;
      if (!alone || random() % 2 == 0) {
        sql = (random() % 2 == 0 ? "BEGIN IMMEDIATE;" : "BEGIN;") + sql + "COMMIT";
      }
      db.ExecOk(sql);
      if (::testing::Test::HasFailure()) return;
      known_.acknowledged[static_cast<size_t>(writer)] = n;
      known_.commits++;
      cutter_.TakeIfDue(cutter_.after_commit);
      if (writer == 0 && n == commits / 2) FinishTheLog(db);
    }
  }

  // The next commit begins a new log. The other checkpoints, which wait for 20 ms, may fail each.
  // (Not by RESTART: a writer goes on with the log if another checkpoint is under way just then.)
  void FinishTheLog(Db& db) {
    int rc;
    do {  // SQLite does not wait for another's checkpoint
      rc = sqlite3_wal_checkpoint_v2(db.get(), nullptr, SQLITE_CHECKPOINT_TRUNCATE, nullptr,
                                     nullptr);
    } while (rc == SQLITE_BUSY);
    EXPECT_EQ(rc, SQLITE_OK) << db.Error();
  }

  void ReadUntil(const std::atomic<bool>& stop) {
    Db db = OpenOne();
    while (!stop) {
      known_.seen = db.Int("SELECT ifnull(max(seq),0) FROM t");
      cutter_.TakeIfDue(cutter_.after_read);
    }
  }

  void CheckpointUntil(const std::atomic<bool>& stop) {
    Db db = OpenOne();
    db.SetBusyTimeout(20);
    std::minstd_rand random(1);
    random.discard(10);
    static constexpr const char* kModes[] = {"PASSIVE", "FULL", "RESTART", "TRUNCATE"};
    for (int64_t next = 0; !stop; next = known_.commits + 2 * GetParam().writers) {
      const int rc = db.Exec(std::string("PRAGMA wal_checkpoint(") + kModes[random() % 4] + ")");
      EXPECT_TRUE(rc == SQLITE_OK || (rc & 0xff) == SQLITE_BUSY) << rc << " " << db.Error();
      while (!stop && known_.commits < next) std::this_thread::yield();
    }
  }

  void Check(const Cut& cut) const {
    SCOPED_TRACE(cut.path + ": " + cut.how);
    ExpectIntact(cut.path);
    Db db(cut.path, "unix");
    EXPECT_EQ(db.Int("SELECT count(*) FROM t WHERE seq < 1"), 0) << "rolled back";
    EXPECT_EQ(db.Int("SELECT count(*) FROM (SELECT seq FROM t GROUP BY seq HAVING"
                     " count(*) <> max(parts) OR count(DISTINCT part) <> max(parts)"
                     " OR min(writer) <> max(writer) OR min(n) <> max(n))"),
              0)
        << "transactions that are not whole";
    const int64_t last = db.Int("SELECT ifnull(max(seq),0) FROM t");
    EXPECT_EQ(db.Int("SELECT count(DISTINCT seq) FROM t"), last) << "not a prefix";
    if (!GetParam().mixed) {
      EXPECT_GE(last, cut.seen) << "a commit that was read is gone";
    }
    for (int i = 0; i < GetParam().writers; i++) {
      const std::string of = " FROM t WHERE writer=" + std::to_string(i);
      const int64_t rows = db.Int("SELECT ifnull(max(n),0)" + of);
      EXPECT_EQ(db.Int("SELECT count(DISTINCT n)" + of), rows) << "writer " << i;
      if (!IsFull(i)) continue;
      EXPECT_GE(rows, cut.acknowledged[static_cast<size_t>(i)]) << "writer " << i;
    }
  }

  // Of each writer, two at the least: there is one after FinishTheLog().
  const int64_t commits_ = Scaled(GetParam().commits) / GetParam().writers + 2;
  const int64_t total_ = commits_ * GetParam().writers;
  Knowledge known_{GetParam().writers};
  Cutter cutter_{&storage_, &dir_, &known_, total_};
};

TEST_P(PowerCutTest, LosesNothingThatWasAcknowledgedOrRead) {
  std::vector<Db> dbs;
  dbs.push_back(OpenFirst());
  while (dbs.size() < known_.acknowledged.size()) dbs.push_back(OpenOne());
  std::atomic<int> logs{0};
  storage_.SetObserver([&](const Call& call) {
    logs += call.op == Op::kWrite && call.kind == FileKind::kWal && call.offset == 0;
    cutter_.OnCall(call);
  });

  std::atomic<bool> stop{false};
  std::vector<std::thread> others;
  others.emplace_back([&] { CheckpointUntil(stop); });
  if (!GetParam().mixed) others.emplace_back([&] { ReadUntil(stop); });
  std::vector<std::thread> writers;
  for (int i = 0; i < GetParam().writers; i++) {
    writers.emplace_back([&, i] { Write(dbs[static_cast<size_t>(i)], i, commits_); });
  }
  for (std::thread& thread : writers) thread.join();
  stop = true;
  for (std::thread& thread : others) thread.join();

  // The first commit in a new log, for certain.
  cutter_.TakeNow("at the end");
  dbs[0].ExecOk("PRAGMA wal_checkpoint(TRUNCATE)");
  cutter_.TakeNow("after a checkpoint");
  Write(dbs[0], 0, 1);
  storage_.SetObserver(nullptr);
  cutter_.TakeNow("in a new log");
  EXPECT_GE(logs, 2) << "the log was not restarted";
  const groupcommit_statistics stats = Stats(dbs[0]);
  EXPECT_EQ(stats.deferred > 0, std::string(GetParam().policy) != "on_each_flush");
  EXPECT_EQ(stats.pending, 0);

  EXPECT_EQ(dbs[0].Int("SELECT count(DISTINCT seq) FROM t"), total_ + 1);
  if (HaveStockShell()) {
    EXPECT_EQ(StockShell(path(), "PRAGMA integrity_check; SELECT count(DISTINCT seq) FROM t;"),
              "ok\n" + std::to_string(total_ + 1) + "\n");
  }
  dbs.clear();
  ExpectIntact(path());
  for (const Cut& cut : cutter_.cuts()) Check(cut);
  const auto checked = static_cast<int>(cutter_.cuts().size());
  all_cuts += checked;
  RecordProperty("cuts", checked);
  std::printf(
      "%d cuts: %d in calls, %d after commits, %d after reads; %d logs, %lld of %lld"
      " commits deferred, %lld syncs, %lld overlapped\n",
      checked, cutter_.in_call.taken, cutter_.after_commit.taken, cutter_.after_read.taken,
      logs.load(), static_cast<long long>(stats.deferred), static_cast<long long>(stats.commits),
      static_cast<long long>(stats.syncs), static_cast<long long>(stats.overlapped_syncs));
}

std::string NameOf(const ::testing::TestParamInfo<Mode>& info) {
  const std::string policy = info.param.policy;
  return policy.substr(0, policy.find('(')) + "_" + std::to_string(info.param.writers) +
         "_writers_" + std::to_string(info.param.page_size) + (info.param.mixed ? "_mixed" : "") +
         (info.param.overlaps() ? "_overlapping" : "");
}

constexpr char kEachFlush[] = "on_each_flush";
constexpr char kGroup[] = "group(max_wait_us=300,max_batch=8)";
constexpr char kAuto[] = "auto";

INSTANTIATE_TEST_SUITE_P(
    Full, PowerCutTest,
    ::testing::Values(Mode{kEachFlush, 1, 512, false}, Mode{kEachFlush, 1, 4096, false},
                      Mode{kEachFlush, 4, 512, false}, Mode{kEachFlush, 4, 4096, false},
                      Mode{kEachFlush, 16, 512, false}, Mode{kEachFlush, 16, 4096, false},
                      Mode{kGroup, 1, 512, false}, Mode{kGroup, 1, 4096, false},
                      Mode{kGroup, 4, 512, false}, Mode{kGroup, 4, 4096, false},
                      Mode{kGroup, 16, 512, false}, Mode{kGroup, 16, 4096, false},
                      Mode{kAuto, 1, 512, false}, Mode{kAuto, 1, 4096, false},
                      Mode{kAuto, 4, 512, false}, Mode{kAuto, 4, 4096, false},
                      Mode{kAuto, 16, 512, false}, Mode{kAuto, 16, 4096, false}),
    NameOf);
INSTANTIATE_TEST_SUITE_P(Overlapping, PowerCutTest,
                         ::testing::Values(Mode{kAuto, 12, 4096, false, 700, 2400},
                                           Mode{kAuto, 24, 512, false, 700, 2400}),
                         NameOf);
INSTANTIATE_TEST_SUITE_P(Mixed, PowerCutTest,
                         ::testing::Values(Mode{kEachFlush, 4, 4096, true},
                                           Mode{kGroup, 4, 512, true}, Mode{kGroup, 16, 4096, true},
                                           Mode{kAuto, 4, 4096, true}, Mode{kAuto, 16, 512, true}),
                         NameOf);

}  // namespace
}  // namespace groupcommit::testing
