// Another process with a shim of its own, at the same database, as syncs fail: each takes back its
// own commits, and writes again what may be lost of them. (Over another base VFS the shim takes the
// file for another database.)
#include <sqlite3.h>

#include <atomic>
#include <future>
#include <thread>

#include "support/plain_vfs.h"
#include "support/stranger_fixture.h"

namespace groupcommit::testing {
namespace {

class TwoShimsTest : public StrangerFixture {
 protected:
  void SetUp() override {
    Start(true);
    ASSERT_EQ(groupcommit_register("gc2", "plain", 0, nullptr), SQLITE_OK);
    for (Db* db : {&other_, &next_}) {
      *db = Db(path(), "gc2");
      db->ExecOk("PRAGMA synchronous=FULL; SELECT * FROM t");
    }
  }
  void TearDown() override {
    for (Db* db : {&other_, &next_}) EXPECT_EQ(db->Close(), SQLITE_OK);
    CloseOurs();
    stranger_ = Db();
    EXPECT_EQ(groupcommit_unregister("gc2"), SQLITE_OK);
  }

  // A commit of the other process, which waits for company.
  void StartTheirs() {
    other_.ExecOk("PRAGMA groupcommit_policy='group(max_wait_us=10000000,max_batch=2)'");
    storage_.SetObserver([this](const Call& call) {
      if (call.op == Op::kWrite && call.kind == FileKind::kWal && theirs_at_ == 0) {
        theirs_at_ = call.offset;
      }
    });
    theirs_ = ExecAsync(other_, "INSERT INTO t VALUES('failed')");
    ExpectToWait(theirs_, next_, 1);
    storage_.SetObserver(nullptr);
  }

  void FailTheirs() {
    storage_.FailSyncs(FileKind::kWal, 1, 1);
    EXPECT_EQ(next_.Exec("INSERT INTO t VALUES('failed')"), SQLITE_IOERR_FSYNC);
    EXPECT_EQ(theirs_.get(), SQLITE_IOERR_FSYNC);
    next_.ExecOk("PRAGMA groupcommit_policy=auto");
  }

  // One of ours on top of it fails, and is taken back; but as the stranger reads it the hole is
  // still there.
  void FailOursOnTopOfTheirs() {
    StartTheirs();
    FailNextSync([this] { stranger_.ExecOk("BEGIN; SELECT count(*) FROM t"); });
    EXPECT_EQ(a_.Exec("INSERT INTO t VALUES('failed')"), SQLITE_IOERR_FSYNC);
    storage_.SetFaultHook(nullptr);
  }

  // If `db`, of ours, writes to the log at their commit or behind, `go_on` happens before that,
  // else after `sql`. True if before.
  template <class GoOn>
  bool GoOnBefore(Db& db, const char* sql, GoOn go_on) {
    std::atomic<bool> seen{false};
    storage_.SetObserver([&](const Call& call) {
      if (call.op != Op::kWrite || call.kind != FileKind::kWal || call.offset < theirs_at_) return;
      if (!seen.exchange(true)) go_on();
    });
    db.Exec(sql);
    storage_.SetObserver(nullptr);
    if (!seen) go_on();
    return seen;
  }
  // Somebody of ours comes by.
  template <class GoOn>
  bool ComeBy(GoOn go_on) {
    return GoOnBefore(b_, "SELECT count(*) FROM t", go_on);
  }

  PlainVfs plain_{"plain", "store"};
  Db other_;
  Db next_;
  std::future<int> theirs_;
  std::atomic<int64_t> theirs_at_{0};  // in the log
};

TEST_F(TwoShimsTest, TwoProcessesTakeBackTheirCommitsAtATime) {
  other_.ExecOk("INSERT INTO t VALUES('acknowledged')");
  std::atomic<bool> returned{false};  // one of them
  const auto exec = [&returned](Db& db, const char* sql) {
    return std::async(std::launch::async, [&db, &returned, sql] {
      const int rc = db.Exec(sql);
      returned = true;
      return rc;
    });
  };
  storage_.HoldSyncs(FileKind::kWal);
  std::future<int> ours = exec(a_, "INSERT INTO t VALUES('failed')");
  ASSERT_TRUE(storage_.WaitForHeldSyncs(1));
  std::future<int> theirs = exec(other_, "PRAGMA groupcommit_flush");
  ASSERT_TRUE(storage_.WaitForHeldSyncs(2));
  // The one has got the write lock, and before it asks for the other one somebody else does.
  std::atomic<const sqlite3_file*> first{nullptr};
  std::atomic<bool> first_has_got_it{false};
  std::atomic<int> requests{0};
  storage_.SetObserver([&](const Call& call) {
    constexpr int kRequest = SQLITE_SHM_LOCK | SQLITE_SHM_EXCLUSIVE;
    constexpr int kEnough = 3;  // for both, and once more
    if (call.op != Op::kShmLock || call.offset > 1 || call.flags != kRequest) return;
    const sqlite3_file* nobody = nullptr;
    const bool is_first = first.compare_exchange_strong(nobody, call.file) || nobody == call.file;
    if (!is_first) {
      while (!first_has_got_it) std::this_thread::yield();
      requests++;
    } else if (call.offset == 1 && !first_has_got_it.exchange(true)) {
      while (requests < kEnough && !returned) std::this_thread::yield();
    }
  });
  // Ours comes first: the other one has nothing to take back, and would not wait.
  EXPECT_EQ(storage_.ReleaseSyncs(1, SQLITE_IOERR_FSYNC), 1);
  while (first == nullptr && !IsReady(ours)) std::this_thread::yield();
  EXPECT_EQ(storage_.ReleaseSyncs(1, SQLITE_IOERR_FSYNC), 1);
  storage_.OpenGate();
  EXPECT_EQ(ours.get(), SQLITE_IOERR_FSYNC);
  EXPECT_EQ(theirs.get(), SQLITE_IOERR_FSYNC);
  storage_.SetObserver(nullptr);
  int acknowledged = 1;
  for (int i = 0; i < 3; i++) {
    for (Db* db : {&a_, &other_}) {
      acknowledged += db->Exec("INSERT INTO t VALUES('acknowledged')") == SQLITE_OK;
    }
  }
  EXPECT_GT(acknowledged, 1) << "they keep each other out";
  EXPECT_EQ(AfterPowerCut("acknowledged"), acknowledged);
}

// The other one takes back what it has committed on top of the commit that fails next.
TEST_F(TwoShimsTest, ItHasTakenBackItsOwnOnTopOfTheCommitThatFails) {
  a_.ExecOk("PRAGMA groupcommit_policy='group(max_wait_us=10000000,max_batch=2)'");
  std::future<int> ours = ExecAsync(a_, "INSERT INTO t VALUES('failed')");
  ExpectToWait(ours, observer_, 1);  // for company
  storage_.FailSyncs(FileKind::kWal, 1, 1);
  EXPECT_EQ(other_.Exec("INSERT INTO t VALUES('failed')"), SQLITE_IOERR_FSYNC);
  EXPECT_EQ(Stats(other_).fenced, 0);
  EXPECT_EQ(b_.Exec("INSERT INTO t VALUES('failed')"), SQLITE_IOERR_FSYNC);
  EXPECT_EQ(ours.get(), SQLITE_IOERR_FSYNC);
  EXPECT_EQ(Stats(observer_).fenced, 0);
  for (Db* db : {&b_, &other_, &stranger_}) {
    EXPECT_EQ(db->Int("SELECT count(*) FROM t WHERE x='failed'"), 0);
  }
  other_.ExecOk("INSERT INTO t VALUES('acknowledged')");
  EXPECT_EQ(AfterPowerCut("acknowledged"), 1);
  EXPECT_EQ(AfterPowerCut("failed"), 0);
}

// The other one takes back what it has committed on top of us, as soon as nobody reads that any
// more, and its next commit has the same place in the log. So what we write again ends before it,
// though we have seen it there.
TEST_F(TwoShimsTest, WhatAnotherProcessMayTakeBackIsNotWrittenAgain) {
  a_.ExecOk("PRAGMA synchronous=NORMAL; INSERT INTO t VALUES('ours')");
  StartTheirs();
  b_.ExecOk("BEGIN IMMEDIATE; ROLLBACK");
  stranger_.ExecOk("BEGIN IMMEDIATE");
  storage_.FailSyncs(FileKind::kWal, 1, 1);
  int acknowledged = 0;
  EXPECT_FALSE(GoOnBefore(a_, "PRAGMA groupcommit_flush", [&] {
    stranger_.ExecOk("ROLLBACK");
    FailTheirs();
    acknowledged += next_.Exec("INSERT INTO t VALUES('acknowledged')") == SQLITE_OK;
  }));
  EXPECT_EQ(acknowledged, 1);
  EXPECT_EQ(AfterPowerCut("acknowledged"), acknowledged);
}

// The same beneath what we have taken back ourselves: nothing of ours lies on top of that any more.
TEST_F(TwoShimsTest, WhatAnotherProcessHasTakenBackBeneathOursIsNotWrittenAgain) {
  FailOursOnTopOfTheirs();
  FailWritesToTheLog();
  a_.Close();  // keeps nobody out any longer, nor makes anything whole
  storage_.SetFaultHook(nullptr);
  EXPECT_EQ(Stats(observer_).fenced, 1);
  stranger_.ExecOk("COMMIT");
  FailTheirs();
  EXPECT_EQ(Stats(next_).fenced, 0);
  next_.ExecOk("PRAGMA cache_size=5; BEGIN IMMEDIATE; INSERT INTO t VALUES(zeroblob(200000))");
  ComeBy([&] { next_.ExecOk("ROLLBACK; INSERT INTO t VALUES('acknowledged')"); });
  EXPECT_EQ(AfterPowerCut("acknowledged"), 1);
}

// Nor is it while it does so: what was left is whole since we have let it go.
TEST_F(TwoShimsTest, WhatAnotherProcessTakesBackBeneathOursMeanwhile) {
  FailOursOnTopOfTheirs();
  a_.Close();
  EXPECT_EQ(Stats(observer_).fenced, 1);
  stranger_.ExecOk("COMMIT; BEGIN IMMEDIATE");
  int acknowledged = 0;
  EXPECT_FALSE(ComeBy([&] {
    stranger_.ExecOk("ROLLBACK");
    FailTheirs();
    acknowledged += next_.Exec("INSERT INTO t VALUES('acknowledged')") == SQLITE_OK;
  }));
  EXPECT_EQ(AfterPowerCut("acknowledged"), acknowledged);
  EXPECT_EQ(AfterPowerCut("failed"), 0);
}

}  // namespace
}  // namespace groupcommit::testing
