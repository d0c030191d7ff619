// Stock SQLite over the test storage: it loses nothing that it promises to keep,
// and the storage shows the loss where it promises nothing.
#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <memory>
#include <mutex>
#include <ostream>
#include <string>
#include <thread>
#include <vector>

#include "support/sqlite_helpers.h"
#include "support/test_storage.h"

namespace groupcommit::testing {
namespace {

constexpr int kWriters = 4;

// The rows of `writer` that a database has; expects them to be 1, 2, ... without
// a gap.
int64_t RowsOf(Db& db, int writer) {
  const std::string where = " FROM t WHERE writer = " + std::to_string(writer);
  const int64_t rows = db.Int("SELECT count(*)" + where);
  EXPECT_EQ(db.Int("SELECT ifnull(max(n), 0)" + where), rows);
  return rows;
}

struct Mode {
  const char* name;
  const char* pragmas;
  CutMode cut;
  bool keeps_commits;
};

// Found by GoogleTest.
void PrintTo(const Mode& mode, std::ostream* out) { *out << mode.name; }

class PowerCutTest : public ::testing::TestWithParam<Mode> {
 protected:
  struct Cut {
    std::string path;  // of the database after the cut
    std::array<int64_t, kWriters> acknowledged;
  };

  // Each writer commits `commits` rows; on every `stride`-th write, truncation or
  // sync, of whatever thread, the power goes, at most 40 times.
  std::vector<Cut> WriteAndCut(int commits, int stride) {
    TestStorage storage("cut_storage");
    const std::string path = dir_.File("live.db");
    std::array<std::atomic<int64_t>, kWriters> acknowledged{};
    std::vector<std::unique_ptr<Db>> dbs;
    for (int i = 0; i < kWriters; ++i) {
      dbs.push_back(std::make_unique<Db>(path, "cut_storage"));
      dbs.back()->SetBusyTimeout(120'000);  // nobody hands the lock on, and others take cuts
      dbs.back()->ExecOk(GetParam().pragmas);
      if (i == 0) dbs.back()->ExecOk("CREATE TABLE t(writer, n, filler)");
      if (i == 0) dbs.back()->ExecOk("CREATE INDEX i ON t(writer, n)");
    }
    // Whether the schema is durable is not the question here.
    if (!GetParam().keeps_commits) {
      dbs.clear();
      storage.ForgetClosedFiles();
      for (int i = 0; i < kWriters; ++i) {
        dbs.push_back(std::make_unique<Db>(path, "cut_storage"));
        dbs.back()->SetBusyTimeout(120'000);
        dbs.back()->ExecOk(GetParam().pragmas);
      }
    }

    std::mutex mutex;
    int calls = 0;
    std::vector<Cut> cuts;
    storage.SetObserver([&](const Call& call) {
      if (call.op != Op::kWrite && call.op != Op::kTruncate && call.op != Op::kSync) return;
      std::lock_guard lock(mutex);
      if (++calls % stride != 0 || cuts.size() == 40) return;
      Cut cut;
      // First what was acknowledged, then the cut: it must not be the smaller.
      for (size_t i = 0; i < kWriters; ++i) cut.acknowledged[i] = acknowledged[i];
      const std::string dir = dir_.File("cut" + std::to_string(cuts.size()));
      storage.CutInto(dir, GetParam().cut, cuts.size());
      cut.path = dir + "/live.db";
      cuts.push_back(cut);
    });
    std::vector<std::thread> threads;
    for (int i = 0; i < kWriters; ++i) {
      threads.emplace_back([&, i] {
        Db& db = *dbs[static_cast<size_t>(i)];
        for (int n = 1; n <= commits; ++n) {
          db.ExecOk("BEGIN IMMEDIATE; INSERT INTO t VALUES(" + std::to_string(i) + "," +
                    std::to_string(n) + ", hex(randomblob(1000))); COMMIT");
          acknowledged[static_cast<size_t>(i)] = n;
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
    dbs.clear();
    return cuts;
  }

  TempDir dir_;
};

TEST_P(PowerCutTest, AcknowledgedCommits) {
  const std::vector<Cut> cuts = WriteAndCut(/*commits=*/40, /*stride=*/23);
  EXPECT_GE(cuts.size(), 20u);
  int64_t lost = 0;
  for (const Cut& cut : cuts) {
    SCOPED_TRACE(cut.path);
    ExpectIntact(cut.path);
    Db db(cut.path, "unix");
    for (int i = 0; i < kWriters; ++i) {
      const int64_t acknowledged = cut.acknowledged[static_cast<size_t>(i)];
      const int64_t rows = RowsOf(db, i);
      if (rows < acknowledged) lost += acknowledged - rows;
    }
  }
  if (GetParam().keeps_commits) {
    EXPECT_EQ(lost, 0);
  } else {
    EXPECT_GT(lost, 0) << "a storage that loses nothing proves nothing";
  }
}

// A small WAL, so that it is checkpointed and restarted between the cuts.
#define WAL "PRAGMA journal_mode=WAL; PRAGMA wal_autocheckpoint=20;"
INSTANTIATE_TEST_SUITE_P(
    Stock, PowerCutTest,
    ::testing::Values(
        Mode{"WalFull", WAL "PRAGMA synchronous=FULL", CutMode::kDropUnsynced, true},
        Mode{"WalFullRandom", WAL "PRAGMA synchronous=FULL", CutMode::kKeepRandom, true},
        Mode{"WalNormal", WAL "PRAGMA synchronous=NORMAL", CutMode::kDropUnsynced, false},
        Mode{"WalNormalRandom", WAL "PRAGMA synchronous=NORMAL", CutMode::kKeepRandom, false},
        Mode{"Delete", "PRAGMA synchronous=FULL", CutMode::kDropUnsynced, true},
        Mode{"DeleteRandom", "PRAGMA synchronous=FULL", CutMode::kKeepRandom, true},
        Mode{"Persist", "PRAGMA journal_mode=PERSIST; PRAGMA synchronous=FULL",
             CutMode::kDropUnsynced, true},
        Mode{"Truncate", "PRAGMA journal_mode=TRUNCATE; PRAGMA synchronous=FULL",
             CutMode::kDropUnsynced, true}),
    [](const auto& test) { return std::string(test.param.name); });

class StockTest : public ::testing::Test {
 protected:
  // The rows of t after a power cut at this moment.
  int64_t RowsAfterCut() {
    storage_.CutInto(dir_.File("cut"));
    Db db(dir_.File("cut") + "/live.db", "unix");
    return db.Int("SELECT count(*) FROM t");
  }

  TempDir dir_;
  TestStorage storage_{"stock_storage"};
  const std::string path_ = dir_.File("live.db");
};

TEST_F(StockTest, WithoutSyncsCommitsAreSeenToBeLost) {
  for (const char* journal : {"WAL", "DELETE"}) {
    Db db(path_, "stock_storage");
    db.ExecOk("PRAGMA synchronous=FULL; PRAGMA journal_mode=" + std::string(journal));
    db.ExecOk("DROP TABLE IF EXISTS t; CREATE TABLE t(x); INSERT INTO t VALUES(1)");
    EXPECT_EQ(RowsAfterCut(), 1);
    db.ExecOk("PRAGMA synchronous=OFF; INSERT INTO t VALUES(2)");
    EXPECT_EQ(db.Int("SELECT count(*) FROM t"), 2);
    EXPECT_EQ(RowsAfterCut(), 1) << journal;
  }
}

TEST_F(StockTest, ACommitWhoseSyncIsHeldIsNotDurable) {
  Db db(path_, "stock_storage");
  db.ExecOk("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; CREATE TABLE t(x)");
  storage_.HoldSyncs(FileKind::kWal);
  std::thread committer([&] { db.ExecOk("INSERT INTO t VALUES(1)"); });
  EXPECT_TRUE(storage_.WaitForHeldSyncs(1));
  EXPECT_EQ(RowsAfterCut(), 0);
  EXPECT_EQ(storage_.ReleaseSyncs(1), 1);
  committer.join();
  EXPECT_EQ(RowsAfterCut(), 1);
  storage_.OpenGate();
}

TEST_F(StockTest, AFailedSyncFailsTheCommitAndNoOther) {
  Db db(path_, "stock_storage");
  db.ExecOk("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; CREATE TABLE t(x)");
  storage_.FailSyncs(FileKind::kWal, 1, 1);
  EXPECT_EQ(db.Exec("INSERT INTO t VALUES('lost')"), SQLITE_IOERR_FSYNC);
  EXPECT_EQ(db.Int("SELECT count(*) FROM t"), 0);
  db.ExecOk("INSERT INTO t VALUES('kept')");
  EXPECT_EQ(RowsAfterCut(), 1);
  ExpectIntact(dir_.File("cut") + "/live.db");
}

TEST_F(StockTest, TheShellReadsTheLiveFile) {
  if (!HaveStockShell()) GTEST_SKIP() << "no sqlite3 shell";
  Db db(path_, "stock_storage");
  db.ExecOk("PRAGMA journal_mode=WAL; CREATE TABLE t(x); INSERT INTO t VALUES('it''s')");
  EXPECT_EQ(StockShell(path_, "SELECT x FROM t;\n.print done"), "it's\ndone\n");
  int status = 0;
  EXPECT_NE(StockShell(path_, "SELECT y FROM t;", &status).find("no such column"),
            std::string::npos);
  EXPECT_NE(status, 0);
}

TEST_F(StockTest, OldVersionsOfTheMethodsHaveNoSharedMemory) {
  storage_.SetVfsVersion(1);
  storage_.SetIoVersion(1);
  Db db(path_, "stock_storage");
  EXPECT_EQ(db.Text("PRAGMA journal_mode=WAL"), "delete");
  db.ExecOk("PRAGMA locking_mode=EXCLUSIVE");
  EXPECT_EQ(db.Text("PRAGMA journal_mode=WAL"), "wal");
  db.ExecOk("CREATE TABLE t(x); INSERT INTO t VALUES(strftime('%s'))");
  EXPECT_EQ(RowsAfterCut(), 1);
}

TEST_F(StockTest, MemoryMappedReadsPassThrough) {
  Db db(path_, "stock_storage");
  db.ExecOk("PRAGMA mmap_size=1000000; CREATE TABLE t(x); INSERT INTO t VALUES(1)");
  std::atomic<int> fetches = 0;
  storage_.SetObserver([&](const Call& call) { fetches += call.op == Op::kFetch; });
  Db other(path_, "stock_storage");
  other.ExecOk("PRAGMA mmap_size=1000000");
  EXPECT_EQ(other.Int("SELECT count(*) FROM t"), 1);
  EXPECT_GT(fetches, 0);
  storage_.SetObserver(nullptr);
}

}  // namespace
}  // namespace groupcommit::testing
