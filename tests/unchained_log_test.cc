// SQLite 3.40 may leave a log whose checksums do not follow one another: Wal.iReCksum outlives a
// savepoint in which frames were written again, and which is rolled back. To everybody who has the
// wal-index that is no matter. Then a sync fails.
#include <filesystem>
#include <fstream>
#include <string>

#include "support/shim_test.h"
#include "support/wal_index.h"
#include "wal_format.h"

namespace groupcommit::testing {
namespace {

class UnchainedLogTest : public ShimTest, public ::testing::WithParamInterface<const char*> {
 protected:
  UnchainedLogTest() {
    Db(path(), "store").ExecOk("PRAGMA page_size=512; PRAGMA journal_mode=WAL");
  }

  Db Open() {
    Db db(path(), GetParam());
    EXPECT_EQ(db.Text("PRAGMA journal_mode=WAL"), "wal");
    db.ExecOk("PRAGMA synchronous=FULL");
    db.SetBusyTimeout(500);
    db.ExecOk("PRAGMA wal_autocheckpoint=0");
    return db;
  }
  // Would recovery find all that the wal-index says is there?
  bool ChainHolds() {
    std::ifstream in(path() + "-wal", std::ios::binary);
    const std::string wal(std::istreambuf_iterator<char>(in), {});
    WalChecksum sum;
    const auto* bytes = reinterpret_cast<const uint8_t*>(wal.data());
    if (!sum.StartsWith(bytes)) return false;
    size_t at = kWalHeaderSize;
    const uint32_t frames = WalIndexWords(path())[kLastFrameWord];
    for (uint32_t i = 0; i < frames; i++) {
      const size_t size = kFrameHeaderSize + static_cast<size_t>(sum.page_size());
      if (at + size > wal.size() || !sum.Continues(bytes + at)) return false;
      at += size;
    }
    return true;
  }

  // Leaves such a log, in which three commits are durable. False if this SQLite has no such fault.
  bool BreakChain(Db& a, Db& b) {
    a.ExecOk("CREATE TABLE t(x); INSERT INTO t VALUES('first')");
    b.Int("SELECT count(*) FROM t");
    a.ExecOk("PRAGMA cache_size=5; CREATE TABLE w(k, x); CREATE INDEX i ON w(k)");
    for (int i = 0; i < 300; i++) {
      a.ExecOk("INSERT INTO w VALUES(" + std::to_string(i * 7919 % 1000) + ", zeroblob(300))");
    }
    // With most numbers nothing is written twice; with 337 it is, in 3.40.
    for (int number = 330; ChainHolds(); number++) {
      if (number == 1330) return false;
      const std::string n = std::to_string(number);
      if (number % 20 == 0) {
        a.ExecOk("PRAGMA wal_checkpoint(TRUNCATE); UPDATE w SET k=k WHERE rowid=1");
      }
      a.ExecOk(
          "BEGIN; UPDATE w SET x = zeroblob(301) WHERE rowid = 10; SAVEPOINT s;"
          "UPDATE w SET k = (rowid * 7919 + 31 * " +
          n +
          ") % 1000 WHERE rowid % 40 = 3;"
          "UPDATE w SET k = (rowid * 104729 + 17 * " +
          n +
          ") % 1000 WHERE rowid % 40 = 5;"
          "ROLLBACK TO s; RELEASE s; UPDATE w SET x = zeroblob(302) WHERE rowid = 10; COMMIT");
      b.ExecOk("UPDATE w SET x = zeroblob(302) WHERE rowid = 12");
    }
    for (int i = 0; i < 3; i++) b.ExecOk("INSERT INTO t VALUES('acknowledged')");
    return true;
  }
  void ExpectWorkGoesOn(Db& a, Db& b) {
    EXPECT_EQ(b.Exec("INSERT INTO t VALUES('acknowledged')"), SQLITE_OK);
    EXPECT_EQ(a.Exec("INSERT INTO t VALUES('acknowledged')"), SQLITE_OK);
    EXPECT_EQ(a.Int("SELECT count(*) FROM t WHERE x='acknowledged'"), 5);
  }
  void ExpectAcknowledged(int rows) {
    Db after(path(), "store");
    EXPECT_EQ(after.Int("SELECT count(*) FROM t WHERE x='acknowledged'"), rows);
  }
  void FailAFlush(Db& db) {
    storage_.FailSyncs(FileKind::kWal, 1, 1);
    EXPECT_NE(db.Exec("PRAGMA groupcommit_flush"), SQLITE_OK);
  }
  void FailACommit(Db& db) {
    storage_.FailSyncs(FileKind::kWal, 1, 1);
    EXPECT_EQ(db.Exec("INSERT INTO t VALUES('failed')"), SQLITE_IOERR_FSYNC);
  }
};

TEST_P(UnchainedLogTest, AFailedSyncFailsOneCommitOnly) {
  {
    Db a = Open();
    Db b = Open();
    if (!BreakChain(a, b)) GTEST_SKIP() << "this SQLite has no such fault";
    FailACommit(b);
    ExpectWorkGoesOn(a, b);
  }
  ExpectAcknowledged(5);
}

// What fails has a number, and is no commit: all commits are durable.
TEST_P(UnchainedLogTest, AFailedSchemaChangeFailsAlone) {
  {
    Db a = Open();
    Db b = Open();
    if (!BreakChain(a, b)) GTEST_SKIP() << "this SQLite has no such fault";
    storage_.FailSyncs(FileKind::kWal, 1, 1);
    EXPECT_EQ(b.Exec("CREATE TABLE z(x)"), SQLITE_IOERR_FSYNC);
    ExpectWorkGoesOn(a, b);
  }
  ExpectAcknowledged(5);
}

TEST_P(UnchainedLogTest, AFailedFlushTakesNothingAlong) {
  {
    Db a = Open();
    Db b = Open();
    if (!BreakChain(a, b)) GTEST_SKIP() << "this SQLite has no such fault";
    storage_.FailSyncs(FileKind::kWal, 1, 1);
    b.Exec("PRAGMA groupcommit_flush");  // unknown to stock SQLite
    storage_.FailSyncs(FileKind::kWal, 1, 0);
    ExpectWorkGoesOn(a, b);
  }
  ExpectAcknowledged(5);
}

// Nothing is ever deferred there.
TEST_P(UnchainedLogTest, AFailedCommitFailsAloneWhereEachHasASyncOfItsOwn) {
  {
    Db a = Open();
    a.Exec("PRAGMA groupcommit_policy = on_each_flush");
    Db b = Open();
    if (!BreakChain(a, b)) GTEST_SKIP() << "this SQLite has no such fault";
    FailACommit(b);
    ExpectWorkGoesOn(a, b);
  }
  ExpectAcknowledged(5);
}

// A process is killed in the middle of a header (wal.c: walIndexWriteHdr()), and the next one
// recovers the log as far as its checksums hold. That loses commits with stock SQLite, too. But
// what is written behind that end is another log under the salts of the old one, whose headers
// count from 0 again (walIndexRecover()).
TEST_P(UnchainedLogTest, WhatIsWrittenAfterARecoveryIsNotReadFromMemory) {
  Db a = Open();
  Db b = Open();
  if (!BreakChain(a, b)) GTEST_SKIP() << "this SQLite has no such fault";
  {
    std::fstream shm(path() + "-shm", std::ios::binary | std::ios::in | std::ios::out);
    constexpr int kSecondHeader = 48;
    shm.seekp(kSecondHeader + 8);
    shm.put('x');
  }
  Db stranger(path(), "store");
  stranger.ExecOk("PRAGMA wal_autocheckpoint=0; PRAGMA synchronous=OFF");
  stranger.ExecOk("UPDATE w SET k=k+1000000");
  const std::string all = "SELECT sum(k) || ',' || sum(length(x)) FROM w NOT INDEXED";
  const std::string expected = stranger.Text(all);
  for (int i = 0; i < 1'500; i++) {
    stranger.ExecOk("UPDATE t SET x='" + std::to_string(i) + "'");
    ASSERT_EQ(a.Text(all), expected) << i;
  }
  ExpectIntact(path());
}

INSTANTIATE_TEST_SUITE_P(, UnchainedLogTest, ::testing::Values("gc", "store"));

// Then the chain is all that tells whether their pages are still there.
class UnsyncedBeneathTest : public UnchainedLogTest {};

TEST_P(UnsyncedBeneathTest, OfOurs) {
  Db a = Open();
  Db b = Open();
  if (!BreakChain(a, b)) GTEST_SKIP() << "this SQLite has no such fault";
  b.ExecOk("PRAGMA synchronous=NORMAL; INSERT INTO t VALUES('normal'); PRAGMA synchronous=FULL");
  FailACommit(b);
  EXPECT_EQ(b.Exec("INSERT INTO t VALUES('on top')"), SQLITE_IOERR_FSYNC);
}

TEST_P(UnsyncedBeneathTest, OfAnotherProcess) {
  Db a = Open();
  Db b = Open();
  if (!BreakChain(a, b)) GTEST_SKIP() << "this SQLite has no such fault";
  Db stranger(path(), "store");
  stranger.ExecOk("PRAGMA wal_autocheckpoint=0; PRAGMA synchronous=NORMAL");
  stranger.ExecOk("INSERT INTO t VALUES('normal')");
  FailACommit(b);
  EXPECT_EQ(b.Exec("INSERT INTO t VALUES('on top')"), SQLITE_IOERR_FSYNC);
}

// Nothing is to be taken back then.
TEST_P(UnsyncedBeneathTest, OfOursWhenAFlushFails) {
  Db a = Open();
  Db b = Open();
  if (!BreakChain(a, b)) GTEST_SKIP() << "this SQLite has no such fault";
  b.ExecOk("PRAGMA synchronous=NORMAL; INSERT INTO t VALUES('normal'); PRAGMA synchronous=FULL");
  FailAFlush(b);
  EXPECT_EQ(b.Exec("INSERT INTO t VALUES('on top')"), SQLITE_IOERR_FSYNC);
}

// A flush counts, too, and is no commit.
TEST_P(UnsyncedBeneathTest, NoneWhereAFlushFailsAlong) {
  Db a = Open();
  Db b = Open();
  const Db observer(path(), "gc");
  if (!BreakChain(a, b)) GTEST_SKIP() << "this SQLite has no such fault";
  std::future<int> flush = ExecUntilSync(a, "PRAGMA groupcommit_flush");
  std::future<int> commit = ExecAsync(b, "INSERT INTO t VALUES('failed')");
  ExpectToWait(commit, observer, 2);
  FailHeldSync();
  EXPECT_NE(flush.get(), SQLITE_OK);
  EXPECT_EQ(commit.get(), SQLITE_IOERR_FSYNC);
  ExpectWorkGoesOn(a, b);
}

// Nor is what has been taken back.
TEST_P(UnsyncedBeneathTest, NoneWhereAFlushFailsAfterACommit) {
  Db a = Open();
  Db b = Open();
  if (!BreakChain(a, b)) GTEST_SKIP() << "this SQLite has no such fault";
  FailACommit(b);
  EXPECT_EQ(Stats(b).fenced, 0);
  FailAFlush(a);
  ExpectWorkGoesOn(a, b);
}

TEST_P(UnsyncedBeneathTest, OfOursInExclusiveLockingMode) {
  Db b = Open();
  {
    Db a = Open();
    if (!BreakChain(a, b)) GTEST_SKIP() << "this SQLite has no such fault";
  }
  b.ExecOk(
      "PRAGMA synchronous=NORMAL; PRAGMA locking_mode=EXCLUSIVE; INSERT INTO t VALUES('normal');"
      "PRAGMA locking_mode=NORMAL; PRAGMA synchronous=FULL; SELECT * FROM t");
  FailAFlush(b);
  EXPECT_EQ(b.Exec("INSERT INTO t VALUES('on top')"), SQLITE_IOERR_FSYNC);
}

// It is in sight, but COMMIT has failed, and tells nothing of it.
TEST_P(UnsyncedBeneathTest, OfATransactionWhoseOtherDatabaseFailed) {
  Db b = Open();
  {
    Db a = Open();
    if (!BreakChain(a, b)) GTEST_SKIP() << "this SQLite has no such fault";
  }
  Db(path("other.db"), "store").ExecOk("CREATE TABLE o(x)");
  b.ExecOk("ATTACH '" + path("other.db") + "' AS other");
  b.ExecOk("PRAGMA main.locking_mode=EXCLUSIVE; PRAGMA main.synchronous=NORMAL");
  storage_.SetFaultHook([](const Call& call) {
    const bool is_other = std::string(call.path).ends_with("other.db");
    return is_other && call.op == Op::kWrite ? SQLITE_FULL : SQLITE_OK;
  });
  EXPECT_EQ(b.Exec("BEGIN; INSERT INTO t VALUES('normal'); INSERT INTO o VALUES(1); COMMIT"),
            SQLITE_FULL);
  storage_.SetFaultHook(nullptr);
  b.Exec("ROLLBACK");
  b.ExecOk("PRAGMA main.locking_mode=NORMAL; PRAGMA main.synchronous=FULL");
  EXPECT_EQ(b.Int("SELECT count(*) FROM t WHERE x='normal'"), 1);
  FailAFlush(b);
  EXPECT_EQ(b.Exec("INSERT INTO t VALUES('on top')"), SQLITE_IOERR_FSYNC);
}

// And none of ours is durable yet, that could lie on top of it.
TEST_P(UnsyncedBeneathTest, OfAnotherProcessBeforeOurFirst) {
  Db ours = Open();
  ours.Int("SELECT count(*) FROM sqlite_schema");
  Db a(path(), "store");
  Db b(path(), "store");
  for (Db* db : {&a, &b}) db->ExecOk("PRAGMA wal_autocheckpoint=0");
  if (!BreakChain(a, b)) GTEST_SKIP() << "this SQLite has no such fault";
  b.ExecOk("PRAGMA synchronous=NORMAL; INSERT INTO t VALUES('normal')");
  FailACommit(ours);
  EXPECT_EQ(ours.Exec("INSERT INTO t VALUES('on top')"), SQLITE_IOERR_FSYNC);
}

// Nor if what is durable is what we found in the log, and it has committed since.
TEST_P(UnsyncedBeneathTest, OfAnotherProcessSinceWeFoundTheLog) {
  Db a(path(), "store");
  Db b(path(), "store");
  for (Db* db : {&a, &b}) db->ExecOk("PRAGMA wal_autocheckpoint=0");
  if (!BreakChain(a, b)) GTEST_SKIP() << "this SQLite has no such fault";
  Db ours = Open();
  ours.ExecOk("PRAGMA groupcommit_flush");
  b.ExecOk("PRAGMA synchronous=NORMAL; INSERT INTO t VALUES('normal')");
  FailACommit(ours);
  EXPECT_EQ(ours.Exec("INSERT INTO t VALUES('on top')"), SQLITE_IOERR_FSYNC);
}

INSTANTIATE_TEST_SUITE_P(, UnsyncedBeneathTest, ::testing::Values("gc"));

}  // namespace
}  // namespace groupcommit::testing
