// BarrierTest: a fixture for commits that are not durable when COMMIT returns, and for what makes
// them so.
#ifndef GROUPCOMMIT_TESTS_SUPPORT_BARRIER_TEST_H_
#define GROUPCOMMIT_TESTS_SUPPORT_BARRIER_TEST_H_

#include "support/shim_test.h"

namespace groupcommit::testing {

class BarrierTest : public ShimTest {
 protected:
  static constexpr const char* kSoon = "PRAGMA groupcommit_policy='interval(max_delay_us=0)'";
  static constexpr int kLongMillis = 1'000'000;

  static sqlite3_int64 CommitLsn(const Db& db) {
    sqlite3_int64 lsn = -1;
    EXPECT_EQ(groupcommit_commit_lsn(db.get(), nullptr, &lsn), SQLITE_OK);
    return lsn;
  }
  static sqlite3_int64 DurableLsn(const Db& db) {
    sqlite3_int64 lsn = -1;
    EXPECT_EQ(groupcommit_durable_lsn(db.get(), nullptr, &lsn), SQLITE_OK);
    return lsn;
  }
  static int Flush(const Db& db) { return groupcommit_flush(db.get(), nullptr); }
  static int Wait(const Db& db, sqlite3_int64 lsn, int timeout_ms) {
    return groupcommit_wait(db.get(), nullptr, lsn, timeout_ms);
  }
  static void Insert(Db& db) { db.ExecOk("INSERT INTO t VALUES('x')"); }
};

}  // namespace groupcommit::testing

#endif  // GROUPCOMMIT_TESTS_SUPPORT_BARRIER_TEST_H_
