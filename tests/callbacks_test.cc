// The functions of groupcommit.h, called from within SQLite's callbacks, and by several threads on
// one connection, while others commit.
#include <functional>
#include <random>

#include "support/shim_test.h"

namespace groupcommit::testing {
namespace {

constexpr int kThreads = 6;
constexpr int kCommits = 40;
constexpr const char* kInsert = "INSERT INTO t VALUES('x')";

bool IsIoError(int rc) { return (rc & 0xff) == SQLITE_IOERR; }

// A connection and what its callbacks call.
struct Caller {
  Caller(sqlite3* connection, unsigned seed) : db(connection), random(seed) {}

  void Call() {
    if (is_calling) return;
    is_calling = true;
    groupcommit_statistics stats{};
    EXPECT_EQ(groupcommit_stats(db, nullptr, &stats, sizeof(stats)), SQLITE_OK);
    sqlite3_int64 lsn = -1;
    EXPECT_EQ(groupcommit_durable_lsn(db, nullptr, &lsn), SQLITE_OK);
    EXPECT_EQ(groupcommit_commit_lsn(db, nullptr, &lsn), SQLITE_OK);
    const unsigned what = random() % 4;
    int rc = SQLITE_OK;
    if (what == 0) rc = groupcommit_flush(db, nullptr);
    if (what == 1) rc = groupcommit_wait(db, nullptr, lsn, -1);
    if (what == 2) rc = groupcommit_wait(db, nullptr, lsn, 60'000);
    if (what == 3) rc = groupcommit_wait(db, nullptr, stats.lsn, 0);
    const bool is_expected =
        rc == SQLITE_OK || (what == 3 && rc == SQLITE_BUSY) || (syncs_fail && IsIoError(rc));
    EXPECT_TRUE(is_expected) << what << ": " << rc;
    is_calling = false;
  }
  static void Call(void* caller) { static_cast<Caller*>(caller)->Call(); }

  sqlite3* const db;
  std::mt19937 random;
  bool syncs_fail = false;
  bool is_calling = false;
};

class CallbacksTest : public ShimTest, public ::testing::WithParamInterface<const char*> {
 protected:
  void SetUp() override {
    db_ = OpenWal();
    db_.ExecOk("CREATE TABLE t(x); CREATE TABLE contended(x)");
    db_.ExecOk(std::string("PRAGMA groupcommit_policy='") + GetParam() + "'");
  }
  void InThreads(const std::function<void(int)>& work) {
    std::vector<std::thread> threads;
    for (int i = 0; i < kThreads; i++) threads.emplace_back(work, i);
    for (std::thread& thread : threads) thread.join();
  }
  void ExpectDurable() {
    if (std::string(GetParam()).starts_with("interval")) {
      EXPECT_EQ(groupcommit_flush(db_.get(), nullptr), SQLITE_OK);
    }
    EXPECT_EQ(RowsAfterPowerCut(), rows_);
    EXPECT_EQ(Stats(db_).fenced, 0);
  }

  // Registers `caller` with a callback of one kind.
  static void Register(int kind, Caller* caller) {
    sqlite3* db = caller->db;
    if (kind == 0) {
      sqlite3_commit_hook(
          db, [](void* c) { return Caller::Call(c), 0; }, caller);
    } else if (kind == 1) {
      const auto hook = [](void* c, int, const char*, const char*, sqlite3_int64) {
        Caller::Call(c);
      };
      sqlite3_update_hook(db, hook, caller);
    } else if (kind == 2) {
      const auto hook = [](void* c, sqlite3* of, const char* schema, int frames) {
        Caller::Call(c);
        const int mode = frames % (SQLITE_CHECKPOINT_TRUNCATE + 1);
        const int rc = sqlite3_wal_checkpoint_v2(of, schema, mode, nullptr, nullptr);
        const bool may_fail = static_cast<Caller*>(c)->syncs_fail;
        EXPECT_TRUE(rc == SQLITE_OK || rc == SQLITE_BUSY || (may_fail && IsIoError(rc))) << rc;
        return SQLITE_OK;
      };
      sqlite3_wal_hook(db, hook, caller);
    } else if (kind == 3) {
      sqlite3_progress_handler(
          db, 5, [](void* c) { return Caller::Call(c), 0; }, caller);
    } else if (kind == 4) {
      const auto trace = [](unsigned, void* c, void*, void*) { return Caller::Call(c), 0; };
      sqlite3_trace_v2(db, SQLITE_TRACE_STMT | SQLITE_TRACE_PROFILE, trace, caller);
    } else {
      const auto authorizer = [](void* c, int, const char*, const char*, const char*, const char*) {
        return Caller::Call(c), SQLITE_OK;
      };
      sqlite3_set_authorizer(db, authorizer, caller);
    }
  }
  void CommitWithCallbacks(bool syncs_fail) {
    // Opened before the first sync fails: opening reads, and reports what it has read that failed.
    std::vector<Db> connections;
    for (int i = 0; i < kThreads; i++) connections.push_back(OpenWal());
    InThreads([&](int kind) {
      Db& db = connections[static_cast<size_t>(kind)];
      Caller caller(db.get(), static_cast<unsigned>(kind));
      caller.syncs_fail = syncs_fail;
      Register(kind, &caller);
      for (int i = 0; i < kCommits; i++) {
        if (syncs_fail && caller.random() % 12 == 0) storage_.FailSyncs(FileKind::kWal, 1, 1);
        const int rc = db.Exec(kInsert);
        EXPECT_TRUE(rc == SQLITE_OK || (syncs_fail && (IsIoError(rc) || rc == SQLITE_BUSY))) << rc;
        if (rc == SQLITE_OK) rows_++;
      }
    });
  }

  Db db_;
  std::atomic<int64_t> rows_{0};
};

TEST_P(CallbacksTest, OfEveryKind) {
  CommitWithCallbacks(false);
  ExpectDurable();
}

TEST_P(CallbacksTest, WhileSyncsFail) {
  CommitWithCallbacks(true);
  storage_.FailSyncs(FileKind::kWal, 1, 0);
  while (db_.Exec(kInsert) != SQLITE_OK) std::this_thread::yield();
  rows_++;
  // What fails behind the back of a commit leaves it there (groupcommit.h: interval).
  if (!std::string(GetParam()).starts_with("interval")) ExpectDurable();
}

// A busy handler may do what it likes with another connection.
TEST_P(CallbacksTest, ABusyHandlerThatWrites) {
  std::atomic<int64_t> noted{0};
  struct Handler {
    Caller caller;
    Db other;
    std::atomic<int64_t>* noted;
  };
  InThreads([&](int i) {
    Db db = OpenWal();
    Handler handler{Caller(db.get(), static_cast<unsigned>(i)), OpenWal(), &noted};
    handler.other.SetBusyTimeout(3);
    const auto on_busy = [](void* argument, int) {
      auto* h = static_cast<Handler*>(argument);
      const unsigned what = h->caller.random() % 4;
      if (what == 0) h->caller.Call();
      if (what == 1 && h->other.Exec("INSERT INTO contended VALUES(1)") == SQLITE_OK) ++*h->noted;
      if (what == 2) h->other.Int("SELECT count(*) FROM t");
      if (what == 3) SleepInShim(1000);
      return 1;
    };
    sqlite3_busy_handler(db.get(), on_busy, &handler);
    for (int n = 0; n < kCommits; n++) {
      db.ExecOk(kInsert);
      rows_++;
    }
  });
  ExpectDurable();
  EXPECT_EQ(db_.Int("SELECT count(*) FROM contended"), noted);
}

TEST_P(CallbacksTest, ThreadsOnOneConnection) {
  InThreads([&](int i) {
    for (int n = 0; n < kCommits; n++) {
      db_.ExecOk(kInsert);
      rows_++;
      Caller(db_.get(), static_cast<unsigned>(i * kCommits + n)).Call();
    }
  });
  ExpectDurable();
}

INSTANTIATE_TEST_SUITE_P(Policies, CallbacksTest,
                         ::testing::Values("auto", "group(max_wait_us=1000,max_batch=4)",
                                           "on_each_flush", "interval(max_delay_us=1000)"));

}  // namespace
}  // namespace groupcommit::testing
