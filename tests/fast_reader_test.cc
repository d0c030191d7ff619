// Readers that read as fast as they can while every sync takes 20 ms: whatever they return is there
// if the power goes at that very moment. A sample of the reads is followed by a cut at once, long
// before the next sync can have made durable what was not.
//
// The rows count upwards, each by itself, so that a row must not be older after the cut than it was
// when it was read.
#include <algorithm>
#include <array>
#include <atomic>
#include <cstdio>
#include <random>
#include <thread>

#include "support/scale.h"
#include "support/shim_test.h"

namespace groupcommit::testing {
namespace {

constexpr int kRows = 64;  // on some 20 pages
constexpr int kWriters = 6;

std::string RowOf(int id) { return "SELECT id, v FROM t WHERE id=" + std::to_string(id); }
constexpr char kAllRows[] = "SELECT id, v FROM t";

class Statement {
 public:
  Statement(const Db& db, const std::string& sql) {
    EXPECT_EQ(sqlite3_prepare_v2(db.get(), sql.c_str(), -1, &statement_, nullptr), SQLITE_OK);
  }
  ~Statement() { sqlite3_finalize(statement_); }
  Statement(const Statement&) = delete;
  Statement& operator=(const Statement&) = delete;

  void Bind(int value) { EXPECT_EQ(sqlite3_bind_int(statement_, 1, value), SQLITE_OK); }

  // Steps through all rows and makes the statement ready for the next time.
  template <class OnRow>
  void Run(OnRow on_row) {
    while (sqlite3_step(statement_) == SQLITE_ROW) {
      on_row(sqlite3_column_int(statement_, 0), sqlite3_column_int64(statement_, 1));
    }
    EXPECT_EQ(sqlite3_reset(statement_), SQLITE_OK);
  }

 private:
  sqlite3_stmt* statement_ = nullptr;
};

class FastReaderTest : public ShimTest {
 protected:
  class Reader;

  FastReaderTest() { storage_.SetSyncDelay(std::chrono::milliseconds(20)); }

  void SetUp() override {
    Db db = OpenWal();
    db.ExecOk("CREATE TABLE t(id INTEGER PRIMARY KEY, v INT NOT NULL, filler); BEGIN");
    for (int id = 0; id < kRows; id++) {
      db.ExecOk("INSERT INTO t VALUES(" + std::to_string(id) + ",0,zeroblob(1200))");
    }
    db.ExecOk("COMMIT");
  }

  void Write(Db& db, int writer) {
    std::minstd_rand random(static_cast<unsigned>(writer) + 1);
    random.discard(10);
    while (!stop_ && !HasFailure()) {
      std::string sql = "BEGIN IMMEDIATE;";
      for (auto rows = random() % 3 + 1; rows > 0; rows--) {
        sql += "UPDATE t SET v=v+1 WHERE id=" + std::to_string(random() % kRows) + ";";
      }
      db.ExecOk(sql + "COMMIT");
      commits_++;
    }
  }

  // Keeps the log short, so that it restarts under the readers.
  void Checkpoint(Db& db) {
    db.SetBusyTimeout(100);
    while (!stop_) {
      const int64_t next = commits_ + 30;
      while (!stop_ && commits_ < next) std::this_thread::yield();
      db.Exec("PRAGMA wal_checkpoint(TRUNCATE)");
    }
  }

  // Runs a reader of each kind beside the writers until each has seen enough cuts.
  template <class... Kinds>
  void Run(Kinds... kinds) {
    std::vector<Db> dbs;
    for (int i = 0; i <= kWriters; i++) dbs.push_back(OpenWal());
    for (Db& db : dbs) db.SetBusyTimeout(60'000);
    // Two batches are pending as a rule: one that is being synced, and those who came too late.
    dbs[0].Text("PRAGMA groupcommit_policy='group(max_wait_us=0,max_batch=1)'");
    std::vector<std::thread> others;
    for (int i = 0; i < kWriters; i++) {
      others.emplace_back([&, i] { Write(dbs[static_cast<size_t>(i)], i); });
    }
    others.emplace_back([&] { Checkpoint(dbs.back()); });
    std::array<std::thread, sizeof...(kinds)> readers{std::thread(kinds)...};
    for (std::thread& reader : readers) reader.join();
    stop_ = true;
    for (std::thread& other : others) other.join();
    const groupcommit_statistics stats = Stats(dbs[0]);
    EXPECT_GT(stats.reader_waits, 0);
    std::printf("%lld commits, %lld rows read, %d cuts, %lld waits of readers\n",
                static_cast<long long>(commits_), static_cast<long long>(rows_read_), cuts_.load(),
                static_cast<long long>(stats.reader_waits));
    RecordProperty("cuts", cuts_);
  }

  std::atomic<bool> stop_{false};
  std::atomic<int64_t> commits_{0};
  std::atomic<int64_t> rows_read_{0};
  std::atomic<int> cuts_{0};
};

// One reader's connection, what it has read, and the cuts.
class FastReaderTest::Reader {
 public:
  explicit Reader(FastReaderTest* test, const std::string& pragmas = "", int flags = kOpenCreate)
      : test_(test), dir_(test->dir_.File("cut" + std::to_string(number_of_reader++))) {
    EXPECT_EQ(db_.Open(test->path(), "gc", flags), SQLITE_OK);
    db_.SetBusyTimeout(60'000);
    db_.ExecOk(pragmas);
    random_.discard(10);
  }

  Db& db() { return db_; }
  // Some reader has to have waited, which may take a while on a busy machine. (None ever does where
  // they do not wait: but then they have seen by now what was not durable.)
  bool HasEnough() const {
    constexpr int kMost = 10'000;
    if (HasFailure() || cuts_ >= kMost) return true;
    return cuts_ >= Scaled(40) && Stats(db_).reader_waits > 0;
  }
  int RandomRow() { return static_cast<int>(random_() % kRows); }

  void Saw(int id, int64_t v) {
    int64_t& seen = seen_[static_cast<size_t>(id)];
    if (v > seen) news_ = true;
    seen = std::max(seen, v);
    test_->rows_read_++;
  }
  // Most of all after a read of what has just been written.
  void CutAtTimes() {
    const unsigned one_in = news_ ? 2 : 64;
    news_ = false;
    if (random_() % one_in == 0) Cut();
  }
  void Read(Statement& statement) {
    statement.Run([this](int id, int64_t v) {
      Saw(id, v);
      CutAtTimes();
    });
  }
  void Read(const std::string& sql) {
    Statement statement(db_, sql);
    Read(statement);
  }

 private:
  void Cut() {
    // At once. What the check costs is time for the writers, not for the cut.
    test_->storage_.CutInto(dir_);
    Db cut(dir_ + "/test.db", "unix");
    Statement all(cut, kAllRows);
    int rows = 0;
    all.Run([this, &rows](int id, int64_t v) {
      EXPECT_GE(v, seen_[static_cast<size_t>(id)]) << "row " << id;
      rows++;
    });
    EXPECT_EQ(rows, kRows);
    cuts_++;
    test_->cuts_++;
  }

  static inline std::atomic<int> number_of_reader{0};
  FastReaderTest* const test_;
  const std::string dir_;
  Db db_;
  std::minstd_rand random_{static_cast<unsigned>(number_of_reader)};
  std::array<int64_t, kRows> seen_{};
  bool news_ = false;
  int cuts_ = 0;
};

TEST_F(FastReaderTest, Statements) {
  Run(
      [this] {  // a new one each time
        Reader reader(this);
        while (!reader.HasEnough()) reader.Read(RowOf(reader.RandomRow()));
      },
      [this] {  // one for all
        Reader reader(this);
        Statement statement(reader.db(), "SELECT id, v FROM t WHERE id=?");
        while (!reader.HasEnough()) {
          statement.Bind(reader.RandomRow());
          reader.Read(statement);
        }
      },
      [this] {  // of many pages, with a cut between two rows
        Reader reader(this);
        Statement statement(reader.db(), kAllRows);
        while (!reader.HasEnough()) reader.Read(statement);
      },
      [this] {  // by a connection that could not sync by itself
        Reader reader(this, "", SQLITE_OPEN_READONLY);
        while (!reader.HasEnough()) reader.Read(RowOf(reader.RandomRow()));
      });
}

TEST_F(FastReaderTest, Caches) {
  Run(
      [this] {
        Reader reader(this, "PRAGMA mmap_size=100000000");
        Statement statement(reader.db(), kAllRows);
        while (!reader.HasEnough()) reader.Read(statement);
      },
      [this] {
        Reader reader(this, "PRAGMA mmap_size=100000000");
        while (!reader.HasEnough()) reader.Read(RowOf(reader.RandomRow()));
      },
      [this] {  // hardly any
        Reader reader(this, "PRAGMA cache_size=1");
        while (!reader.HasEnough()) reader.Read(RowOf(reader.RandomRow()));
      });
}

TEST_F(FastReaderTest, Transactions) {
  Run(
      [this] {
        Reader reader(this);
        while (!reader.HasEnough()) {
          reader.db().ExecOk("BEGIN");
          reader.Read(RowOf(reader.RandomRow()));
          reader.Read(kAllRows);
          reader.db().ExecOk("COMMIT");
          reader.CutAtTimes();
        }
      },
      [this] {  // the snapshot is older than the reads
        Reader reader(this);
        while (!reader.HasEnough()) {
          reader.db().ExecOk("BEGIN");
          const int64_t next = commits_ + 2;
          reader.Read(RowOf(reader.RandomRow()));
          while (commits_ < next && !HasFailure()) std::this_thread::yield();
          reader.Read(kAllRows);
          reader.db().ExecOk("COMMIT");
        }
      });
}

// A write transaction may read what is not durable, as its own commit would come after it. Once it
// has ended without one, that is in the page cache, and the application has it in hand.
TEST_F(FastReaderTest, WritersAtTimes) {
  const auto write = [this](const char* begin, const char* end) {
    Reader reader(this);
    while (!reader.HasEnough()) {
      const int id = reader.RandomRow();
      reader.db().ExecOk(begin);
      int64_t value = 0;
      // Less what this transaction has added itself, and will take back.
      Statement(reader.db(), RowOf(id)).Run([&value](int, int64_t v) { value = v % 1'000'000; });
      reader.db().ExecOk(end);
      reader.Saw(id, value);
      reader.CutAtTimes();
      reader.Read(RowOf(id));
      for (int i = 0; i < 3; i++) reader.Read(RowOf(reader.RandomRow()));
    }
  };
  Run([&] { write("BEGIN IMMEDIATE", "ROLLBACK"); }, [&] { write("BEGIN IMMEDIATE", "COMMIT"); },
      [&] { write("BEGIN IMMEDIATE; UPDATE t SET v=v+1000000 WHERE id=1", "ROLLBACK"); },
      [this] {
        Reader reader(this);
        while (!reader.HasEnough()) {
          const int id = reader.RandomRow();
          reader.db().ExecOk("UPDATE t SET v=v+1 WHERE v<0 AND id=" + std::to_string(id));
          reader.Read(RowOf(id));
        }
      });
}

}  // namespace
}  // namespace groupcommit::testing
