// Memory runs out: the n-th allocation fails, once or from then on, for every n. SQLite's
// allocations fail through its memory methods; those of the shim, by operator new.
#include <sqlite3.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdlib>
#include <filesystem>
#include <new>
#include <string>
#include <system_error>

#include "support/fault_test.h"
#include "support/scale.h"

namespace {

// The allocations of one thread, while it asks for failures.
struct Shortage {
  bool on = false;
  int calls = 0;
  int fail_at = 0;
  bool for_good = false;

  bool FailsNow() {
    if (!on) return false;
    calls++;
    return for_good ? calls >= fail_at : calls == fail_at;
  }
  void Begin(int n, bool until_the_end) { *this = {true, 0, n, until_the_end}; }
  // Has anything failed?
  bool End() {
    on = false;
    return calls >= fail_at;
  }
};
thread_local Shortage of_sqlite;
thread_local Shortage of_shim;
// The shim's share is what is allocated while a call of SQLite is under way.
thread_local bool in_sqlite = false;

sqlite3_mem_methods real_methods;

// Each so manieth sync fails; 0: none.
thread_local int failing_syncs = 0;
thread_local int syncs = 0;

void* Malloc(int size) { return of_sqlite.FailsNow() ? nullptr : real_methods.xMalloc(size); }
void* Realloc(void* old, int size) {
  return of_sqlite.FailsNow() ? nullptr : real_methods.xRealloc(old, size);
}

void* NewOrNull(size_t size) {
  if (in_sqlite && of_shim.FailsNow()) return nullptr;
  return std::malloc(size != 0 ? size : 1);
}

}  // namespace

// SQLite's unix VFS calls this one, as it comes before that of the C library.
extern "C" int fdatasync(int) {
  if (failing_syncs == 0 || ++syncs % failing_syncs != 0) return 0;
  errno = EIO;
  return -1;
}

// Not inlined: GCC would take free() for the wrong way to release what operator new returned.
#define NOT_INLINED __attribute__((noinline))
NOT_INLINED void* operator new(size_t size) {
  void* memory = NewOrNull(size);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}
NOT_INLINED void* operator new(size_t size, const std::nothrow_t&) noexcept {
  return NewOrNull(size);
}
NOT_INLINED void* operator new[](size_t size) { return operator new(size); }
NOT_INLINED void* operator new[](size_t size, const std::nothrow_t& tag) noexcept {
  return operator new(size, tag);
}
NOT_INLINED void operator delete(void* memory) noexcept { std::free(memory); }
NOT_INLINED void operator delete(void* memory, size_t) noexcept { std::free(memory); }
NOT_INLINED void operator delete[](void* memory) noexcept { std::free(memory); }
NOT_INLINED void operator delete[](void* memory, size_t) noexcept { std::free(memory); }

namespace groupcommit::testing {
namespace {

class Environment : public ::testing::Environment {
 public:
  // Before anything uses SQLite.
  void SetUp() override {
    ASSERT_EQ(sqlite3_config(SQLITE_CONFIG_GETMALLOC, &real_methods), SQLITE_OK);
    sqlite3_mem_methods methods = real_methods;
    methods.xMalloc = Malloc;
    methods.xRealloc = Realloc;
    ASSERT_EQ(sqlite3_config(SQLITE_CONFIG_MALLOC, &methods), SQLITE_OK);
    // Every allocation should be one that can fail.
    ASSERT_EQ(sqlite3_config(SQLITE_CONFIG_LOOKASIDE, 0, 0), SQLITE_OK);
  }
};
::testing::Environment* const environment = ::testing::AddGlobalTestEnvironment(new Environment);

// Uses a database without allocating anything itself; what it does is decided before.
class Session {
 public:
  explicit Session(std::string file) : file_(std::move(file)) {
    for (size_t i = 0; i < inserts_.size(); i++) {
      inserts_[i] = Ledger::InsertOf(static_cast<int>(i) + 1);
      results_[i] = SQLITE_EMPTY;  // not tried
    }
  }

  // Opens, creates, commits, reads, checkpoints, restarts the log, closes, opens again, commits.
  void Run() {
    in_sqlite = true;
    sqlite3* a = Open();
    Exec(a, "CREATE TABLE IF NOT EXISTS t(n)");
    Insert(a, 0);
    sqlite3* b = Open();
    Insert(b, 1);
    Exec(b, "BEGIN; SELECT n FROM t; COMMIT");
    Exec(a, "PRAGMA groupcommit_stats");
    Exec(a, "PRAGMA groupcommit_policy=group");
    Insert(a, 2);
    Exec(b, "PRAGMA wal_checkpoint(RESTART)");
    Insert(a, 3);
    Insert(b, 4);
    Close(a);
    Close(b);
    a = Open();
    Exec(a, "PRAGMA groupcommit_policy=auto");
    Insert(a, 5);
    Close(a);
    in_sqlite = false;
  }

  bool misused() const { return misused_; }
  void NoteIn(Ledger* ledger) const {
    for (const int rc : results_) {
      const int n = ledger->Next();
      if (rc != SQLITE_EMPTY) ledger->Note(n, rc);
    }
  }

 private:
  void Check(int rc) {
    if ((rc & 0xff) == SQLITE_MISUSE) misused_ = true;
  }
  sqlite3* Open() {
    sqlite3* db = nullptr;
    const int rc = sqlite3_open_v2(file_.c_str(), &db, kOpenCreate, "gc");
    Check(rc);
    if (rc != SQLITE_OK) {
      sqlite3_close(db);
      return nullptr;
    }
    sqlite3_extended_result_codes(db, 1);
    Exec(db, "PRAGMA journal_mode=WAL");
    Exec(db, "PRAGMA synchronous=FULL");
    return db;
  }
  void Close(sqlite3* db) {
    if (db != nullptr) Check(sqlite3_close(db));
  }
  int Exec(sqlite3* db, const char* sql) {
    if (db == nullptr) return SQLITE_EMPTY;
    const int rc = sqlite3_exec(db, sql, nullptr, nullptr, nullptr);
    Check(rc);
    if (sqlite3_get_autocommit(db) == 0) sqlite3_exec(db, "ROLLBACK", nullptr, nullptr, nullptr);
    return rc;
  }
  void Insert(sqlite3* db, size_t i) { results_[i] = Exec(db, inserts_[i].c_str()); }

  const std::string file_;
  std::array<std::string, 6> inserts_;
  std::array<int, 6> results_;
  bool misused_ = false;
};

struct Case {
  const char* name;
  Shortage* shortage;
  const char* base;  // what is below the shim: the test storage allocates with operator new, too
  bool for_good;
  int failing_syncs = 0;
};

class OutOfMemoryTest : public ::testing::TestWithParam<Case> {
 protected:
  static constexpr unsigned kHangSeconds = 1000;

  void SetUp() override { alarm(kHangSeconds); }
  void TearDown() override { alarm(0); }

  // The n-th allocation fails. Returns false if there were fewer.
  bool Run(int n) {
    const sqlite3_int64 memory = sqlite3_memory_used();
    TempDir dir;
    bool failed = false;
    {
      TestStorage storage("store");
      storage.SetRealSync(true);  // to fdatasync() above
      EXPECT_EQ(groupcommit_register("gc", GetParam().base, 0, nullptr), SQLITE_OK);
      Session session(dir.File("test.db"));
      failing_syncs = GetParam().failing_syncs;
      syncs = 0;
      GetParam().shortage->Begin(n, GetParam().for_good);
      session.Run();
      failed = GetParam().shortage->End();
      failing_syncs = 0;
      EXPECT_FALSE(session.misused());
      Ledger ledger;
      session.NoteIn(&ledger);
      ExpectWorks(&storage, dir, &ledger);
      EXPECT_EQ(groupcommit_unregister("gc"), SQLITE_OK) << "something is still open";
    }
    EXPECT_EQ(sqlite3_memory_used(), memory);
    return failed;
  }

 private:
  static void ExpectWorks(TestStorage* storage, const TempDir& dir, Ledger* ledger) {
    Db db(dir.File("test.db"), "gc");
    db.ExecOk("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; CREATE TABLE IF NOT EXISTS t(n)");
    const int n = ledger->Next();
    EXPECT_EQ(ledger->Note(n, db.Exec(Ledger::InsertOf(n))), SQLITE_OK) << db.Error();
    ledger->ExpectIn(db);
    EXPECT_EQ(db.Text("PRAGMA integrity_check"), "ok");
    if (std::string(GetParam().base) != storage->name()) return;
    const std::string cut = dir.path() + "/cut";
    storage->CutInto(cut);
    ledger->ExpectSurvivedIn(cut + "/test.db", true);
  }
};

TEST_P(OutOfMemoryTest, TheNthAllocationFails) {
  const int stride = std::max(1, 10 / Scaled(10));
  int runs = 0;
  for (int n = 1;; n += stride, runs++) {
    SCOPED_TRACE("allocation " + std::to_string(n));
    if (!Run(n) || HasFailure()) break;
  }
  EXPECT_GT(runs, 0);
  RecordProperty("runs", runs);
}

std::string NameOf(const ::testing::TestParamInfo<Case>& test) { return test.param.name; }

INSTANTIATE_TEST_SUITE_P(Calls, OutOfMemoryTest,
                         ::testing::Values(Case{"SqliteOnce", &of_sqlite, "store", false},
                                           Case{"SqliteForGood", &of_sqlite, "store", true},
                                           Case{"ShimOnce", &of_shim, "unix", false},
                                           Case{"ShimForGood", &of_shim, "unix", true}),
                         NameOf);

INSTANTIATE_TEST_SUITE_P(BesideFailedSyncs, OutOfMemoryTest,
                         ::testing::Values(Case{"SqliteOnce", &of_sqlite, "store", false, 5},
                                           Case{"ShimOnce", &of_shim, "unix", false, 5},
                                           Case{"ShimForGood", &of_shim, "unix", true, 5}),
                         NameOf);

// The base VFS's file is closed again, and nobody uses it any more.
TEST(OutOfMemoryTest, WhenALogIsOpened) {
  const TempDir dir;
  const std::string path = dir.File("test.db");
  ASSERT_EQ(groupcommit_register("gc", "unix", 0, nullptr), SQLITE_OK);
  Db(path, "unix").ExecOk("PRAGMA journal_mode=WAL; CREATE TABLE t(x); INSERT INTO t VALUES(1)");
  const auto open_logs = [&path] {
    const auto is_log = [&path](const std::filesystem::directory_entry& entry) {
      std::error_code gone;
      return std::filesystem::read_symlink(entry.path(), gone) == path + "-wal";
    };
    return std::ranges::count_if(std::filesystem::directory_iterator("/proc/self/fd"), is_log);
  };
  int refusals = 0;
  for (int n = 1, failed = 1; failed != 0; n++) {
    Db db(path, "gc");
    of_shim.Begin(n, true);
    in_sqlite = true;
    const int rc = sqlite3_exec(db.get(), "SELECT * FROM t", nullptr, nullptr, nullptr) & 0xff;
    in_sqlite = false;
    failed = of_shim.End() ? 1 : 0;
    EXPECT_TRUE(rc == SQLITE_OK || (rc == SQLITE_NOMEM && failed != 0)) << n << ": " << rc;
    EXPECT_EQ(open_logs(), rc == SQLITE_OK ? 1 : 0) << n;
    EXPECT_EQ(groupcommit_flush(db.get(), "main"), SQLITE_OK) << n;
    if (rc != SQLITE_OK) refusals++;
  }
  EXPECT_GT(refusals, 0);
  EXPECT_EQ(open_logs(), 0);
  EXPECT_EQ(groupcommit_unregister("gc"), SQLITE_OK);
}

// Without a row it would pass for one that nobody knows.
TEST(OutOfMemoryTest, APragmaAnswersOrFails) {
  const TempDir dir;
  ASSERT_EQ(groupcommit_register("gc", "unix", 0, nullptr), SQLITE_OK);
  for (Shortage* shortage : {&of_sqlite, &of_shim}) {
    for (const char* sql : {"PRAGMA groupcommit_policy", "PRAGMA groupcommit_stats",
                            "PRAGMA groupcommit_flush", "PRAGMA groupcommit_policy='no policy'"}) {
      const bool is_wrong = std::string(sql).find('=') != std::string::npos;
      Db db(dir.File("test.db"), "gc");
      db.ExecOk("PRAGMA journal_mode=WAL; SELECT * FROM sqlite_schema");
      for (int n = 1, failed = 1; failed != 0; n++) {
        int rows = 0;
        shortage->Begin(n, false);
        in_sqlite = true;
        const auto count = [](void* out, int, char**, char**) {
          ++*static_cast<int*>(out);
          return 0;
        };
        const int rc = sqlite3_exec(db.get(), sql, count, &rows, nullptr) & 0xff;
        in_sqlite = false;
        failed = shortage->End() ? 1 : 0;
        const int expected = is_wrong ? SQLITE_ERROR : SQLITE_OK;
        EXPECT_TRUE(rc == expected || (rc == SQLITE_NOMEM && failed != 0))
            << sql << n << ": " << rc;
        EXPECT_EQ(rows, rc == SQLITE_OK ? 1 : 0) << sql << n;
      }
    }
  }
  EXPECT_EQ(groupcommit_unregister("gc"), SQLITE_OK);
}

}  // namespace
}  // namespace groupcommit::testing
