// Pages that this process has just written to the log are read from memory, and are those of the
// log.
#include <sqlite3.h>

#include <atomic>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>

#include "support/fault_test.h"

namespace groupcommit::testing {
namespace {

class CachedFrameTest : public FaultTest {
 protected:
  explicit CachedFrameTest(int page_size = 4096) : page_size_(page_size) {}
  void SetUp() override {
    Start("gc", page_size_);
    a_.ExecOk("CREATE TABLE v(x)");  // writes page 1
    other_ = Db(path(), "store");
  }

  // How often the log is read for it.
  int64_t ReadsOf(Db& db, const std::string& sql) {
    std::atomic<int64_t> reads{0};
    storage_.SetObserver([&](const Call& call) {
      if (call.op == Op::kRead && call.kind == FileKind::kWal) ++reads;
    });
    db.ExecOk(sql);
    storage_.SetObserver(nullptr);
    return reads;
  }

  // Everybody sees the same as who reads the files.
  void ExpectSameEverywhere(const std::string& sql) {
    const std::string expected = other_.Text(sql);
    for (Db* db : {&a_, &b_, &c_}) EXPECT_EQ(db->Text(sql), expected) << sql;
  }

  static constexpr char kSum[] = "SELECT count(*) || ' ' || total(n) FROM t";

  const int page_size_;
  Db other_;
};

// Where a header fits into what is gathered, but not the page behind it.
class SmallPageTest : public CachedFrameTest {
 protected:
  SmallPageTest() : CachedFrameTest(512) {}
};

TEST_F(CachedFrameTest, WhatAnotherConnectionHasCommittedIsReadFromMemory) {
  InsertOk(a_);
  EXPECT_EQ(ReadsOf(b_, kSum), 0);
  InsertOk(b_);
  EXPECT_EQ(ReadsOf(a_, kSum), 0);
  EXPECT_GT(ReadsOf(other_, kSum), 0) << "the log holds it as ever";
}

TEST_F(CachedFrameTest, WhatWasFoundInTheLogIsReadFromThere) {
  InsertOk(other_);
  EXPECT_GT(ReadsOf(b_, kSum), 0);
}

// The frames of the commit that failed are those of the next one: of ours, of somebody else, of one
// that is too long to be kept.
TEST_F(CachedFrameTest, NothingIsLeftOfCommitsThatWereTakenBack) {
  constexpr char kLong[] =
      "BEGIN; WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<100)"
      " INSERT INTO v SELECT zeroblob(3000) FROM n; UPDATE t SET n = n + 1000; COMMIT";
  for (int i = 0; i < 3; i++) {
    FailingInsert(b_);
    ExpectSameEverywhere(kSum);
    Db* next[] = {&c_, &other_, &c_};
    next[i]->ExecOk(i == 2 ? kLong : "UPDATE t SET n = n + 1000");
    ExpectSameEverywhere(kSum);
    a_.ExecOk("UPDATE t SET n = n - 1000");
    ExpectSameEverywhere(kSum);
  }
  ExpectLedger();
}

TEST_F(CachedFrameTest, ALogThatHasStartedOverIsAnotherOne) {
  for (Db* by : {&a_, &other_}) {
    InsertOk(a_);
    ExpectSameEverywhere(kSum);
    by->ExecOk("PRAGMA wal_checkpoint(RESTART)");
    by->ExecOk("UPDATE t SET n = n + 1000");
    ExpectSameEverywhere(kSum);
    by->ExecOk("UPDATE t SET n = n - 1000");
    ExpectSameEverywhere(kSum);
  }
}

TEST_F(CachedFrameTest, CommitsOfOthersInBetween) {
  for (int i = 0; i < 20; i++) {
    for (Db* by : {&a_, &other_, &b_, &other_, &other_}) {
      by->ExecOk("INSERT INTO t VALUES(0); UPDATE t SET n = n + 1");
      ExpectSameEverywhere(kSum);
    }
  }
}

// It has no snapshot, but may have had one, of a log whose frames were others.
TEST_F(CachedFrameTest, ACheckpointReadsTheLogItself) {
  for (int i = 0; i < 30; i++) InsertOk(a_);
  ExpectSameEverywhere(kSum);
  a_.ExecOk("PRAGMA wal_checkpoint(RESTART)");
  for (int i = 0; i < 20; i++) other_.ExecOk("UPDATE t SET n = n + 1000");
  const std::string expected = other_.Text(kSum);
  for (const char* mode : {"PASSIVE", "TRUNCATE"}) {
    b_.ExecOk(std::string("PRAGMA wal_checkpoint(") + mode + ")");
    EXPECT_EQ(Db(path(), "store").Text(kSum), expected) << mode;
  }
  EXPECT_EQ(Db(path(), "store").Text("PRAGMA integrity_check"), "ok");
}

// A tool may ask for as many bytes as a page has, but from elsewhere.
TEST_F(CachedFrameTest, NothingButAPageIsReadFromMemory) {
  InsertOk(a_);
  b_.ExecOk("BEGIN");
  EXPECT_EQ(ReadsOf(b_, kSum), 0);
  sqlite3_file* log = nullptr;
  ASSERT_EQ(sqlite3_file_control(b_.get(), "main", SQLITE_FCNTL_JOURNAL_POINTER, &log), SQLITE_OK);
  constexpr int kFrameHeader = 24;
  std::string bytes(static_cast<size_t>(page_size_), '\0');
  std::string expected = bytes;
  const auto size = static_cast<int64_t>(std::filesystem::file_size(path() + "-wal"));
  for (int64_t offset = size - page_size_ - kFrameHeader; offset <= size - page_size_; offset++) {
    std::ifstream(path() + "-wal", std::ios::binary)
        .seekg(offset)
        .read(expected.data(), page_size_);
    ASSERT_EQ(log->pMethods->xRead(log, bytes.data(), page_size_, offset), SQLITE_OK);
    EXPECT_TRUE(bytes == expected) << offset;
  }
  b_.ExecOk("COMMIT");
}

// Pages that were written twice, and rolled back to a savepoint: what others read are the last
// ones.
TEST_F(CachedFrameTest, TransactionsThatSpill) {
  a_.ExecOk("PRAGMA cache_size=5; CREATE TABLE w(k INTEGER PRIMARY KEY, x)");
  for (int i = 0; i < 10; i++) {
    a_.ExecOk(
        "BEGIN; DELETE FROM w; WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE"
        " i<" +
        std::to_string(20 + 17 * i) +
        ") INSERT INTO w SELECT i, zeroblob(700) FROM n;"
        "UPDATE w SET x = zeroblob(k); UPDATE w SET x = zeroblob(2 * k) WHERE k % 3 = 0; COMMIT");
    ExpectSameEverywhere("SELECT count(*) || ' ' || total(length(x)) FROM w");
  }
}

TEST_F(SmallPageTest, TransactionsOfEveryLength) {
  a_.ExecOk("CREATE TABLE w(k INTEGER PRIMARY KEY, x)");
  for (int rows = 100; rows < 130; rows++) {
    const std::string n = std::to_string(rows);
    a_.ExecOk("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<" + n +
              ") REPLACE INTO w SELECT i, hex(zeroblob(200)) || (" + n + " * i) FROM n");
    ExpectSameEverywhere("SELECT count(*) || ' ' || total(substr(x, 401)) FROM w");
  }
}

// The page cache of a statement that writes has what it read under the write lock.
TEST_F(CachedFrameTest, AWriterReadsWhatOthersHaveWritten) {
  for (int i = 0; i < 10; i++) {
    a_.ExecOk("INSERT INTO t VALUES(1)");
    EXPECT_EQ(ReadsOf(b_, "UPDATE t SET n = n + (SELECT count(*) FROM t)"), 0);
    ExpectSameEverywhere(kSum);
  }
}

}  // namespace
}  // namespace groupcommit::testing
