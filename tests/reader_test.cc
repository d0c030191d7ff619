// Durable before readable: a read-only statement returns no row that a power cut could still take
// away.
#include <sqlite3.h>

#include <memory>
#include <thread>

#include "support/shim_test.h"
#include "support/wal_index.h"

namespace groupcommit::testing {
namespace {

class ReaderTest : public ShimTest {
 protected:
  // Runs a query that must not return before the held sync ends, and returns what it reads.
  int64_t ExpectQueryToWait(Db& reader, const std::string& sql) {
    const groupcommit_statistics before = Stats(observer_);
    std::future<int64_t> result =
        std::async(std::launch::async, [&reader, &sql] { return reader.Int(sql); });
    ExpectToWait(result, observer_, before.waiting + 1);
    EXPECT_EQ(Stats(observer_).reader_waits, before.reader_waits + 1) << sql;
    storage_.OpenGate();
    return result.get();
  }

  void SetUp() override {
    writer_ = OpenWithTable();
    observer_ = Db(path(), "gc");
  }

  // A write transaction, in which a SELECT has read a row, and is open.
  using Statement = std::unique_ptr<sqlite3_stmt, decltype(&sqlite3_finalize)>;
  static Statement BeginWithASelect(Db& db) {
    db.ExecOk("BEGIN IMMEDIATE");
    sqlite3_stmt* select = nullptr;
    EXPECT_EQ(sqlite3_prepare_v2(db.get(), "SELECT x FROM t", -1, &select, nullptr), SQLITE_OK);
    EXPECT_EQ(sqlite3_step(select), SQLITE_ROW);
    return Statement(select, sqlite3_finalize);
  }

  int FramesInLog() { return static_cast<int>(WalIndexWords(path())[kLastFrameWord]); }

  Db writer_;
  Db observer_;
};

TEST_F(ReaderTest, RowsWait) {
  Db reader = OpenWithTable();
  std::future<int> commit = ExecUntilSync(writer_, "INSERT INTO t VALUES('x')");
  EXPECT_EQ(ExpectQueryToWait(reader, "SELECT max(rowid) FROM t"), 3);
  EXPECT_EQ(commit.get(), SQLITE_OK);
}

TEST_F(ReaderTest, CountsWait) {
  Db reader = OpenWithTable();
  std::future<int> commit = ExecUntilSync(writer_, "INSERT INTO t VALUES('x')");
  EXPECT_EQ(ExpectQueryToWait(reader, "SELECT count(*) FROM t"), 3);
  EXPECT_EQ(commit.get(), SQLITE_OK);
}

TEST_F(ReaderTest, AReaderWithAWarmCacheWaits) {
  Db reader = OpenWithTable();
  reader.Int("SELECT count(*) FROM t");
  std::future<int> commit = ExecUntilSync(writer_, "INSERT INTO t VALUES('x')");
  EXPECT_EQ(ExpectQueryToWait(reader, "SELECT count(*) FROM t"), 3);
  EXPECT_EQ(commit.get(), SQLITE_OK);
}

TEST_F(ReaderTest, AReadOnlyConnectionWaitsAndCanLeadTheSync) {
  Db reader(path(), "gc", SQLITE_OPEN_READONLY | SQLITE_OPEN_URI);
  reader.Int("SELECT count(*) FROM t");  // opening the log waits for a sync under way
  std::future<int> commit = ExecUntilSync(writer_, "INSERT INTO t VALUES('x')");
  EXPECT_EQ(ExpectQueryToWait(reader, "SELECT count(*) FROM t"), 2);
  EXPECT_EQ(commit.get(), SQLITE_OK);
}

TEST_F(ReaderTest, AReaderWithMmapWaits) {
  Db reader = OpenWithTable();
  reader.ExecOk("PRAGMA mmap_size=100000000");
  writer_.ExecOk("PRAGMA wal_checkpoint(TRUNCATE)");
  EXPECT_EQ(reader.Int("SELECT count(*) FROM t"), 2);
  std::future<int> commit = ExecUntilSync(writer_, "INSERT INTO t VALUES('x')");
  // The held sync is that of the new WAL header; let it go, and hold the commit's.
  storage_.ReleaseSyncs(1);
  ASSERT_TRUE(storage_.WaitForHeldSyncs(1));
  EXPECT_EQ(ExpectQueryToWait(reader, "SELECT count(*) FROM t"), 3);
  EXPECT_EQ(commit.get(), SQLITE_OK);
}

TEST_F(ReaderTest, TheLargeColumnOfAPendingRowWaits) {
  writer_.ExecOk("INSERT INTO t VALUES(zeroblob(50000))");
  Db reader = OpenWithTable();
  std::future<int> commit =
      ExecUntilSync(writer_, "UPDATE t SET x=zeroblob(60000) WHERE length(x)=50000");
  EXPECT_EQ(ExpectQueryToWait(reader, "SELECT max(length(x)) FROM t"), 60000);
  EXPECT_EQ(commit.get(), SQLITE_OK);
}

// A snapshot from before the commit has no need to wait for it.
TEST_F(ReaderTest, AnOlderSnapshotDoesNotWait) {
  Db reader = OpenWithTable();
  reader.ExecOk("BEGIN; SELECT count(*) FROM t");
  std::future<int> commit = ExecUntilSync(writer_, "INSERT INTO t VALUES('x')");
  EXPECT_EQ(reader.Int("SELECT count(*) FROM t"), 2);
  EXPECT_FALSE(IsReady(commit));
  storage_.OpenGate();
  EXPECT_EQ(commit.get(), SQLITE_OK);
}

TEST_F(ReaderTest, PagesThatThePendingCommitDidNotChangeDoNotWait) {
  writer_.ExecOk("CREATE TABLE u(x); INSERT INTO u VALUES(7)");
  Db reader = OpenWithTable();
  std::future<int> commit = ExecUntilSync(writer_, "INSERT INTO t VALUES('x')");
  EXPECT_EQ(reader.Int("SELECT x FROM u"), 7);
  EXPECT_FALSE(IsReady(commit));
  storage_.OpenGate();
  EXPECT_EQ(commit.get(), SQLITE_OK);
}

// Page 1 is in the log with new sizes. Every statement reads it first; the schema on it is durable.
TEST_F(ReaderTest, APendingPage1DoesNotWait) {
  writer_.ExecOk("CREATE TABLE u(x); INSERT INTO u VALUES(7)");
  Db reader = OpenWal();
  EXPECT_EQ(reader.Int("SELECT x FROM u"), 7);
  std::future<int> commit = ExecUntilSync(writer_, "INSERT INTO t VALUES(zeroblob(50000))");
  EXPECT_EQ(reader.Int("SELECT x FROM u"), 7);
  EXPECT_FALSE(IsReady(commit));
  storage_.OpenGate();
  EXPECT_EQ(commit.get(), SQLITE_OK);
}

// A schema change is durable before it is visible at all.
TEST_F(ReaderTest, APendingSchemaChangeIsNotVisible) {
  Db reader = OpenWithTable();
  std::future<int> commit = ExecUntilSync(writer_, "CREATE TABLE u(x)");
  EXPECT_EQ(reader.Int("SELECT count(*) FROM sqlite_schema"), 1);
  storage_.OpenGate();
  EXPECT_EQ(commit.get(), SQLITE_OK);
  EXPECT_EQ(reader.Int("SELECT count(*) FROM sqlite_schema"), 2);
}

// An application that watches data_version hears of the commit early, and then waits like any
// reader.
TEST_F(ReaderTest, AReaderThatWatchesDataVersionWaitsForTheRows) {
  Db reader = OpenWithTable();
  const int64_t version = reader.Int("PRAGMA data_version");
  std::future<int> commit = ExecUntilSync(writer_, "INSERT INTO t VALUES('x')");
  EXPECT_NE(reader.Int("PRAGMA data_version"), version);
  EXPECT_EQ(ExpectQueryToWait(reader, "SELECT count(*) FROM t"), 3);
  EXPECT_EQ(commit.get(), SQLITE_OK);
}

// Writers build on pending commits: the log is a prefix order, and their own commit covers all
// beneath.
TEST_F(ReaderTest, AWriterDoesNotWait) {
  Db other = OpenWithTable();
  std::future<int> commit = ExecUntilSync(writer_, "INSERT INTO t VALUES('x')");
  other.ExecOk("BEGIN IMMEDIATE");
  EXPECT_EQ(other.Int("SELECT count(*) FROM t"), 3);
  EXPECT_FALSE(IsReady(commit));
  std::future<int> second = ExecAsync(other, "INSERT INTO t VALUES('y'); COMMIT");
  storage_.OpenGate();
  EXPECT_EQ(commit.get(), SQLITE_OK);
  EXPECT_EQ(second.get(), SQLITE_OK);
  EXPECT_EQ(RowsAfterPowerCut(), 4);
}

// The page cache is a second way in: a write transaction that changed nothing leaves pages in it
// that the next read-only statement finds without asking the VFS.
class CacheTest : public ReaderTest, public ::testing::WithParamInterface<const char*> {};

TEST_P(CacheTest, AWriteTransactionThatChangesNothingEndsWithTheWait) {
  Db other = OpenWithTable();
  std::future<int> commit = ExecUntilSync(writer_, "INSERT INTO t VALUES('x')");
  std::future<int> ended = ExecAsync(other, GetParam());
  ExpectToWait(ended, observer_, 2);  // or else the cache holds an undurable row
  storage_.OpenGate();
  EXPECT_EQ(commit.get(), SQLITE_OK);
  EXPECT_EQ(ended.get(), SQLITE_OK);
  EXPECT_EQ(other.Int("SELECT count(*) FROM t"), 3);
}

INSTANTIATE_TEST_SUITE_P(, CacheTest,
                         ::testing::Values("BEGIN IMMEDIATE; SELECT count(*) FROM t; ROLLBACK",
                                           "BEGIN IMMEDIATE; SELECT count(*) FROM t; COMMIT",
                                           "DELETE FROM t WHERE x = 'no such row'",
                                           "BEGIN; UPDATE t SET x='z' WHERE x='no'; COMMIT",
                                           "BEGIN IMMEDIATE; INSERT INTO t VALUES('gone');"
                                           "SELECT count(*) FROM t; ROLLBACK"));

// The write transaction may end while a statement of the same connection goes on reading.
TEST_F(ReaderTest, ARollBackUnderneathAnOpenSelectWaits) {
  Db other = OpenWithTable();
  std::future<int> commit = ExecUntilSync(writer_, "INSERT INTO t VALUES('x')");
  const Statement select = BeginWithASelect(other);
  std::future<int> ended = ExecAsync(other, "ROLLBACK");
  ExpectToWait(ended, observer_, 2);
  storage_.OpenGate();
  EXPECT_EQ(commit.get(), SQLITE_OK);
  EXPECT_EQ(ended.get(), SQLITE_OK);
  EXPECT_EQ(sqlite3_step(select.get()), SQLITE_ROW);
}

// SQLite keeps the pages for it that the write transaction has read, and asks for none of them.
TEST_F(ReaderTest, ASelectThatOutlivesAWriteTransactionDoesNotReadWhatFails) {
  Db other = OpenWithTable();
  const int64_t rows = other.Int("SELECT count(*) FROM t");
  std::future<int> commit = ExecUntilSync(writer_, "INSERT INTO t VALUES('failed')");
  const Statement select = BeginWithASelect(other);
  std::future<int> ended = ExecAsync(other, "ROLLBACK");
  ExpectToWait(ended, observer_, 2);
  FailHeldSync();
  EXPECT_EQ(commit.get(), SQLITE_IOERR_FSYNC);
  EXPECT_EQ(ended.get(), SQLITE_OK);
  EXPECT_EQ(other.Exec("SELECT * FROM t"), SQLITE_INTERRUPT);
  EXPECT_EQ(sqlite3_step(select.get()), SQLITE_INTERRUPT);
  sqlite3_reset(select.get());
  EXPECT_EQ(other.Int("SELECT count(*) FROM t"), rows);
  EXPECT_EQ(other.Exec("INSERT INTO t VALUES('later')"), SQLITE_OK);
}

// SQLite would keep the interrupt for the next checkpoint, or the close.
TEST_F(ReaderTest, NothingIsInterruptedWhereNoSelectIsOpen) {
  Db other = OpenWithTable();
  const int64_t rows = other.Int("SELECT count(*) FROM t");
  std::future<int> commit = ExecUntilSync(writer_, "INSERT INTO t VALUES('failed')");
  std::future<int> ended = ExecAsync(other, "BEGIN IMMEDIATE; SELECT count(*) FROM t; ROLLBACK");
  ExpectToWait(ended, observer_, 2);
  FailHeldSync();
  EXPECT_EQ(commit.get(), SQLITE_IOERR_FSYNC);
  EXPECT_EQ(ended.get(), SQLITE_OK);
  EXPECT_EQ(
      sqlite3_wal_checkpoint_v2(other.get(), "main", SQLITE_CHECKPOINT_TRUNCATE, nullptr, nullptr),
      SQLITE_OK);
  EXPECT_EQ(other.Int("SELECT count(*) FROM t"), rows);
}

// A frame of a commit that does not wait (synchronous=NORMAL) on top of a pending one.
TEST_F(ReaderTest, AFrameOfANormalCommitWaitsForThePendingOnesBeneath) {
  Db normal = OpenWithTable();
  normal.ExecOk("PRAGMA synchronous=NORMAL; CREATE TABLE u(x)");
  Db reader = OpenWithTable();
  reader.Int("SELECT count(*) FROM u");
  std::future<int> commit = ExecUntilSync(writer_, "INSERT INTO t VALUES('x')");
  std::promise<void> released;
  storage_.SetObserver([&released](const Call& call) {
    if (call.op == Op::kShmLock && call.offset == 0 && (call.flags & SQLITE_SHM_UNLOCK) != 0) {
      released.set_value();
    }
  });
  std::future<int> on_top = ExecAsync(normal, "INSERT INTO u VALUES('normal')");
  released.get_future().wait();
  storage_.SetObserver(nullptr);
  ExpectToWait(on_top, observer_, 2);
  EXPECT_EQ(ExpectQueryToWait(reader, "SELECT count(*) FROM u"), 1);
  EXPECT_EQ(commit.get(), SQLITE_OK);
  EXPECT_EQ(on_top.get(), SQLITE_OK);
}

// And where it lies in the place of page 1 of a commit that has failed to become visible: a pending
// page 1 is read without waiting.
TEST_F(ReaderTest, AFrameInThePlaceOfTheHeaderOfAFailedCommitWaits) {
  constexpr int kFramesOfRegion = 4062;  // wal.c: HASHTABLE_NPAGE_ONE
  Db fails = OpenWithTable();
  Db normal = OpenWithTable();
  Db reader = OpenWithTable();
  for (Db* db : {&writer_, &fails, &normal}) db->ExecOk("PRAGMA wal_autocheckpoint=0");
  normal.ExecOk("PRAGMA synchronous=NORMAL; CREATE TABLE u(x); INSERT INTO u VALUES(0)");
  fails.ExecOk("CREATE TABLE v(x)");
  while (FramesInLog() < kFramesOfRegion - 2) normal.ExecOk("UPDATE u SET x=x+1");
  normal.Int("SELECT count(*) FROM t");
  const int64_t rows = reader.Int("SELECT count(*) FROM t");
  std::future<int> commit = ExecUntilSync(writer_, "INSERT INTO t VALUES('pending')");
  ASSERT_EQ(FramesInLog(), kFramesOfRegion - 1);
  storage_.SetFaultHook([](const Call& call) {
    return call.op == Op::kShmMap && call.offset == 1 ? SQLITE_IOERR_SHMMAP : SQLITE_OK;
  });
  EXPECT_EQ(fails.Exec("INSERT INTO v VALUES(zeroblob(20000))"), SQLITE_IOERR_SHMMAP);
  storage_.SetFaultHook(nullptr);
  std::future<int> on_top = ExecAsync(normal, "INSERT INTO t VALUES('normal')");
  while (FramesInLog() < kFramesOfRegion && !IsReady(on_top)) std::this_thread::yield();
  EXPECT_EQ(ExpectQueryToWait(reader, "SELECT count(*) FROM t"), rows + 2);
  EXPECT_EQ(commit.get(), SQLITE_OK);
  EXPECT_EQ(on_top.get(), SQLITE_OK);
}

// What a reader saw is there after a power cut at the very moment it saw it.
TEST_F(ReaderTest, WhatWasReadSurvivesAPowerCutAtThatMoment) {
  constexpr int kWriters = 4;
  constexpr int kCuts = 40;
  storage_.SetSyncDelay(std::chrono::microseconds(500));
  std::atomic<bool> stop{false};
  std::vector<std::thread> writers;
  for (int i = 0; i < kWriters; i++) {
    writers.emplace_back([this, &stop] {
      Db db = OpenWal();
      while (!stop) EXPECT_EQ(db.Exec("INSERT INTO t VALUES('x')"), SQLITE_OK);
    });
  }
  Db reader(path(), "gc");
  for (int i = 0; i < kCuts; i++) {
    const int64_t seen = reader.Int("SELECT count(*) FROM t");
    EXPECT_GE(RowsAfterPowerCut(), seen);
  }
  stop = true;
  for (std::thread& writer : writers) writer.join();
}

}  // namespace
}  // namespace groupcommit::testing
