// The write lock is free, but kept for somebody who has not come for it yet: who is no worse off
// for it than with stock SQLite, which knows no such thing.
#include <sqlite3.h>

#include <cstdint>

#include "support/queue_of.h"
#include "support/shim_test.h"

namespace groupcommit::testing {
namespace {

class KeptTurnTest : public ShimTest {
 protected:
  static constexpr WriteQueue::Writer kSomebody = 1'000'000;
  static constexpr int64_t kLongNanos = 60'000'000'000;

  void SetUp() override {
    db_ = OpenWithTable();
    queue_ = &QueueOf(db_);
  }
  void KeepTurn() {
    const int64_t now = queue_->clock().NowNanos();
    ASSERT_TRUE(queue_->AwaitTurn(kSomebody, WriteQueue::kFirst, now, true));
    ASSERT_TRUE(queue_->ProlongTurn(kSomebody, now + kLongNanos));
  }

  Db db_;
  WriteQueue* queue_ = nullptr;
};

// SQLite does not call the busy handler for it (btree.c: sqlite3BtreeBeginTrans()): refused once,
// it is refused for good.
TEST_F(KeptTurnTest, AReadTransactionWithABusyTimeoutBecomesAWriter) {
  db_.ExecOk("BEGIN; SELECT * FROM t");
  KeepTurn();
  EXPECT_EQ(db_.Exec("INSERT INTO t VALUES('upgrade')"), SQLITE_OK);
  queue_->EndTurn(kSomebody);
  EXPECT_EQ(db_.Exec("COMMIT"), SQLITE_OK);
}

// It has slept in line, but does not want to any longer.
TEST_F(KeptTurnTest, ABusyHandlerThatGivesUp) {
  int calls = 0;
  sqlite3_busy_handler(
      db_.get(),
      [](void* count, int) {
        ++*static_cast<int*>(count);
        sqlite3_vfs* vfs = sqlite3_vfs_find("gc");
        vfs->xSleep(vfs, 1);
        return 0;
      },
      &calls);
  KeepTurn();
  EXPECT_EQ(db_.Exec("INSERT INTO t VALUES('x')"), SQLITE_OK);
  EXPECT_EQ(calls, 1);
  queue_->EndTurn(kSomebody);
}

}  // namespace
}  // namespace groupcommit::testing
