// The n-th call of each kind fails, for every n: whatever SQLite or the shim was doing, nothing is
// acknowledged falsely, damaged, left hanging or left behind, and the connections go on.
#include <sqlite3.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <mutex>
#include <thread>
#include <tuple>

#include "support/fault_test.h"
#include "support/scale.h"

namespace groupcommit::testing {
namespace {

struct Fault {
  const char* name;
  Op op;
  int code;
  int short_bytes = 0;  // so many bytes of a failed xWrite are written
};
constexpr Fault kFaults[] = {
    {"WriteFull", Op::kWrite, SQLITE_FULL},
    {"WriteError", Op::kWrite, SQLITE_IOERR_WRITE},
    {"WriteShort", Op::kWrite, SQLITE_IOERR_WRITE, 100},
    {"Truncate", Op::kTruncate, SQLITE_IOERR_TRUNCATE},
    {"ShmMap", Op::kShmMap, SQLITE_IOERR_SHMMAP},
    {"ShmLock", Op::kShmLock, SQLITE_IOERR_SHMLOCK},
    {"ShmLockBusy", Op::kShmLock, SQLITE_BUSY},
    {"Open", Op::kOpen, SQLITE_CANTOPEN},
    {"Read", Op::kRead, SQLITE_IOERR_READ},
    {"FileSize", Op::kFileSize, SQLITE_IOERR_FSTAT},
    {"Delete", Op::kDelete, SQLITE_IOERR_DELETE},
};

constexpr Fault kFailedSync = {"Sync", Op::kSync, SQLITE_IOERR_FSYNC};

struct Setting {
  const char* name;
  const char* policy;  // null: stock SQLite
  int writers;
};
constexpr Setting kSettings[] = {
    {"Stock", nullptr, 1},
    {"Auto", "auto", 1},
    {"AutoTwoWriters", "auto", 2},
    {"Group", "group(max_wait_us=200,max_batch=2)", 1},
    {"GroupTwoWriters", "group(max_wait_us=200,max_batch=2)", 2},
};

class NthCallTest : public ShimTest,
                    public ::testing::WithParamInterface<std::tuple<Setting, Fault>> {
 protected:
  static constexpr unsigned kHangSeconds = 1000;  // one test: all of its runs

  void SetUp() override { alarm(kHangSeconds); }
  void TearDown() override { alarm(0); }

  static const Setting& setting() { return std::get<0>(GetParam()); }
  static const Fault& fault() { return std::get<1>(GetParam()); }

  // One session whose n-th call fails. Returns false if there were fewer.
  bool Run(int n) {
    ledger_ = Ledger();
    misused_ = false;
    calls_ = 0;
    fail_at_ = n;
    groupcommit_unregister("gc");
    const sqlite3_int64 memory = sqlite3_memory_used();
    Register();
    storage_.SetShortWriteBytes(fault().short_bytes);
    storage_.SetFaultHook([this](const Call& call) { return FaultOf(call); });
    UseDatabase();
    storage_.SetFaultHook(nullptr);
    ExpectUnharmed();
    EXPECT_EQ(groupcommit_unregister("gc"), SQLITE_OK) << "a connection is still known";
    EXPECT_EQ(sqlite3_memory_used(), memory);
    EXPECT_FALSE(misused_);
    Register();
    for (const char* suffix : {"", "-wal", "-shm", "-journal"}) {
      std::filesystem::remove(path() + suffix);
    }
    storage_.ForgetClosedFiles();
    return calls_ >= n;
  }

 private:
  static const char* Vfs() { return setting().policy != nullptr ? "gc" : "store"; }

  static void Register() {
    groupcommit_policy policy{};
    const char* text = setting().policy != nullptr ? setting().policy : "auto";
    ASSERT_EQ(groupcommit_policy_parse(text, &policy, nullptr), SQLITE_OK);
    ASSERT_EQ(groupcommit_register("gc", "store", 0, &policy), SQLITE_OK);
  }

  int FaultOf(const Call& call) {
    const bool is_unlock = call.op == Op::kShmLock && (call.flags & SQLITE_SHM_UNLOCK) != 0;
    if (call.op != fault().op || is_unlock) return SQLITE_OK;
    return ++calls_ == fail_at_ ? fault().code : SQLITE_OK;
  }

  // An attempt that fails is followed by one that does not: a call fails but once.
  Db OpenConnection() {
    Db db;
    for (int i = 0; i < 2 && Try(db.Open(path(), Vfs())) != SQLITE_OK; i++) db.Close();
    Exec(db, "PRAGMA journal_mode=WAL");
    Exec(db, "PRAGMA synchronous=FULL");
    return db;
  }

  int Try(int rc) {
    if ((rc & 0xff) == SQLITE_MISUSE) misused_ = true;
    return rc;
  }
  int Exec(Db& db, const std::string& sql) {
    const int rc = Try(db.Exec(sql));
    if (sqlite3_get_autocommit(db.get()) == 0) Try(db.Exec("ROLLBACK"));
    return rc;
  }
  void Insert(Db& db) {
    int n;
    {
      std::lock_guard<std::mutex> lock(ledger_mutex_);
      n = ledger_.Next();
    }
    const int rc = Exec(db, Ledger::InsertOf(n));
    std::lock_guard<std::mutex> lock(ledger_mutex_);
    ledger_.Note(n, rc);
  }
  void Read(Db& db) { Exec(db, "BEGIN; SELECT n FROM t; SELECT count(*) FROM t; COMMIT"); }

  // A few commits of each writer, beside one another.
  void Write(std::vector<Db>& writers) {
    constexpr int kCommits = 3;
    const auto write = [this](Db& db) {
      for (int i = 0; i < kCommits; i++) Insert(db);
    };
    std::vector<std::thread> others;
    for (size_t i = 1; i < writers.size(); i++) others.emplace_back(write, std::ref(writers[i]));
    write(writers[0]);
    for (std::thread& other : others) other.join();
  }

  std::vector<Db> OpenWriters() {
    std::vector<Db> writers;
    for (int i = 0; i < setting().writers; i++) writers.push_back(OpenConnection());
    return writers;
  }

  // Opens, creates, commits, reads, checkpoints, restarts the log, closes and opens again.
  void UseDatabase() {
    {
      std::vector<Db> writers = OpenWriters();
      Exec(writers[0], "CREATE TABLE t(n)");
      Write(writers);
      Db reader = OpenConnection();
      Read(reader);
      Insert(reader);
      Exec(reader, "PRAGMA wal_checkpoint(RESTART)");
      Write(writers);
      Read(reader);
      Exec(writers[0], "PRAGMA wal_checkpoint(TRUNCATE)");
      Insert(reader);
    }
    // Closed; what the last one leaves is for the next.
    std::vector<Db> writers = OpenWriters();
    Write(writers);
    Read(writers[0]);
    // Nothing fails any longer, and these very connections work.
    storage_.SetFaultHook(nullptr);
    EXPECT_EQ(Exec(writers[0], "CREATE TABLE IF NOT EXISTS t(n)"), SQLITE_OK);
    for (Db& db : writers) {
      const int n = ledger_.Next();
      EXPECT_EQ(ledger_.Note(n, Exec(db, Ledger::InsertOf(n))), SQLITE_OK) << db.Error();
      ledger_.ExpectIn(db);
      EXPECT_EQ(db.Text("PRAGMA integrity_check"), "ok");
    }
    for (const CutMode mode : {CutMode::kDropUnsynced, CutMode::kKeepRandom, CutMode::kKeepAll}) {
      const std::string cut = dir_.path() + "/cut";
      storage_.CutInto(cut, mode, 1);
      ledger_.ExpectSurvivedIn(cut + "/test.db", true);
    }
  }

  void ExpectUnharmed() {
    ExpectIntact(path());
    Db db(path());
    ledger_.ExpectIn(db);
  }

  Ledger ledger_;
  std::mutex ledger_mutex_;
  std::atomic<bool> misused_{false};
  std::atomic<int> calls_{0};
  int fail_at_ = 0;
};

TEST_P(NthCallTest, LosesNothingAndLeavesNothingBehind) {
  // Every n where there is time, else every few.
  const int stride = std::max(1, 10 / Scaled(10));
  int runs = 0;
  for (int n = 1;; n += stride, runs++) {
    SCOPED_TRACE("call " + std::to_string(n));
    if (!Run(n) || HasFailure()) break;
  }
  EXPECT_GT(runs, 0);
  RecordProperty("runs", runs);
}

std::string NameOf(const ::testing::TestParamInfo<std::tuple<Setting, Fault>>& test) {
  return std::string(std::get<0>(test.param).name) + "_" + std::get<1>(test.param).name;
}

INSTANTIATE_TEST_SUITE_P(Calls, NthCallTest,
                         ::testing::Combine(::testing::ValuesIn(kSettings),
                                            ::testing::ValuesIn(kFaults)),
                         NameOf);

INSTANTIATE_TEST_SUITE_P(Syncs, NthCallTest,
                         ::testing::Combine(::testing::ValuesIn(kSettings),
                                            ::testing::Values(kFailedSync)),
                         NameOf);

}  // namespace
}  // namespace groupcommit::testing
