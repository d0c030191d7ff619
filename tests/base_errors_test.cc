// Errors of the base VFS: every call of a script fails once, one in each run, and the shim passes
// the error on as the base gave it.
#include <cstdlib>
#include <string_view>

#include "support/passthrough_fixture.h"
#include "support/scale.h"

namespace groupcommit::testing {
namespace {

// Autocommit inserts of 1, 2, ... among other things; two connections, two openings.
void UseBriefly(RecordedSession& s, const std::string& pragmas) {
  s.Open(0, s.path("test.db"));
  s.Sql(0, pragmas + "CREATE TABLE t(x);");
  s.Sql(0, "INSERT INTO t VALUES(1);");
  s.Open(1, s.path("test.db"));
  s.Sql(1, pragmas + "INSERT INTO t VALUES(2);");
  s.Sql(0, "BEGIN; INSERT INTO t VALUES(-1); ROLLBACK;");
  s.Sql(0, "SELECT * FROM t;");
  s.Sql(1, "INSERT INTO t VALUES(3);");
  s.Sql(0, "PRAGMA wal_checkpoint(RESTART);");
  s.Sql(0, "INSERT INTO t VALUES(4);");
  s.Close(1);
  s.Sql(0, "INSERT INTO t VALUES(5);");
  s.Close(0);
  s.Open(0, s.path("test.db"));
  s.Sql(0, pragmas + "INSERT INTO t VALUES(6);");
  s.Sql(0, "SELECT * FROM t;");
}

class BaseErrorsTest : public PassthroughTest, public ::testing::WithParamInterface<const char*> {
 protected:
  std::string Pragmas() const {
    return "PRAGMA synchronous=FULL;" + Pragma("journal_mode", GetParam());
  }

  // Runs `check` with the number of each call in turn that may fail, or of some of them.
  template <class Check>
  void ForEachCall(Check check) {
    int calls = 0;
    {
      RecordedSession stock(&storage_, "store");
      UseBriefly(stock, Pragmas());
      calls = stock.countable_calls();
    }
    ASSERT_GT(calls, 100);
    const int runs = std::min(calls, Scaled(150));
    for (int i = 0; i < runs; i++) {
      const int call = calls * i / runs + 1;
      SCOPED_TRACE("call " + std::to_string(call));
      check(call);
      if (HasFatalFailure()) return;
    }
  }
};

TEST_P(BaseErrorsTest, ArePassedOn) {
  ForEachCall([&](int call) {
    const Script script = [&](RecordedSession& s) {
      s.FailCall(call);
      UseBriefly(s, Pragmas());
      EXPECT_TRUE(s.failed_a_call());
    };
    // After a failed sync of the log, the shim writes and syncs it again.
    const bool is_wal = std::string_view(GetParam()) == "WAL";
    CompareVia("each", script, is_wal ? Calls::kNotCompared : Calls::kSame);
  });
}

// With deferred syncs the calls come in another order, so that another one fails; but what was
// acknowledged is there.
TEST_P(BaseErrorsTest, LoseNothing) {
  ForEachCall([&](int call) {
    RecordedSession s(&storage_, "auto");
    s.FailCall(call);
    UseBriefly(s, Pragmas());
    for (int i = 0; i < 2; i++) s.Close(i);
    s.FailCall(0);
    ExpectIntact(s.path("test.db"));
    Db db(s.path("test.db"));
    constexpr std::string_view kInsert = "INSERT INTO t VALUES(";
    for (const std::string& line : s.outcome()) {
      const size_t insert = line.find(kInsert);
      if (insert == std::string::npos || !line.ends_with(" => 101")) continue;
      const int x = std::atoi(line.c_str() + insert + kInsert.size());
      if (x < 0) continue;  // rolled back
      EXPECT_EQ(db.Int("SELECT count(*) FROM t WHERE x=" + std::to_string(x)), 1) << x;
    }
  });
}

INSTANTIATE_TEST_SUITE_P(All, BaseErrorsTest,
                         ::testing::Values("DELETE", "TRUNCATE", "PERSIST", "WAL"),
                         [](const auto& test) { return std::string(test.param); });

}  // namespace
}  // namespace groupcommit::testing
