// A writer that starts the log over: no checkpoint is under way meanwhile, as that of an SQLite
// before 3.51.3 does not notice, and then marks as copied what is not (wal.c: walCheckpoint()).
#include <sqlite3.h>

#include <atomic>
#include <functional>
#include <future>
#include <thread>

#include "support/checkpoint_fixture.h"

namespace groupcommit::testing {
namespace {

constexpr int kCheckpoint = 1;  // wal.c: WAL_CKPT_LOCK
constexpr int kLogReaders = 4;  // WAL_READ_LOCK(1), the first of those that read the log

class LogRestartTest : public CheckpointTest {
 protected:
  LogRestartTest() {
    writer_.ExecOk("PRAGMA wal_autocheckpoint=0");
    MakeLog();
    writer_.ExecOk("PRAGMA wal_checkpoint");  // all is copied: the next commit starts the log over
  }
  void MakeLog() {
    for (int i = 0; i < 20; i++) writer_.ExecOk("INSERT INTO t VALUES(zeroblob(3000))");
  }

  static int Checkpoint(const Db& db) {
    return sqlite3_wal_checkpoint_v2(db.get(), nullptr, SQLITE_CHECKPOINT_PASSIVE, nullptr,
                                     nullptr);
  }

  bool IsStartedOver() const { return LogFramesInHeader() < 20; }

  static bool StartsOver(const Call& call, int flag) {
    return call.op == Op::kShmLock && call.offset == kLogReaders && call.amount > 1 &&
           call.flags == (flag | SQLITE_SHM_EXCLUSIVE);
  }
  static bool Asks(const Call& call, int flag) {
    return call.op == Op::kShmLock && call.offset == kCheckpoint &&
           call.flags == (flag | SQLITE_SHM_EXCLUSIVE);
  }

  // A checkpoint copies all, and nothing of what was acknowledged is missing then.
  void ExpectCommits(int64_t n) {
    Db reader(path());
    reader.ExecOk("SELECT * FROM t");  // opens the log
    EXPECT_EQ(Checkpoint(reader), SQLITE_OK);
    EXPECT_EQ(reader.Int("SELECT count(*) FROM t WHERE x='acknowledged'"), n);
    EXPECT_EQ(reader.Text("PRAGMA integrity_check"), "ok");
    EXPECT_EQ(writer_.Int("SELECT count(*) FROM t WHERE x='acknowledged'"), n);
  }

  Db writer_ = OpenWithTable();
};

TEST_F(LogRestartTest, ACheckpointThatHasReadTheHeaderIsNotOvertaken) {
  for (const char* vfs : {"store", "gc"}) {
    Db checkpointer(path(), vfs);
    checkpointer.ExecOk("SELECT * FROM t");  // so that the header is not its first one
    MakeLog();
    writer_.ExecOk("PRAGMA wal_checkpoint");
    std::atomic<bool> began{false};
    // It has read the header, and not yet looked how much has been copied (wal.c:
    // sqlite3WalCheckpoint(), sqlite3OsUnfetch()).
    storage_.SetObserver([&](const Call& call) {
      if (call.op != Op::kUnfetch || began.exchange(true)) return;
      writer_.ExecOk("INSERT INTO t VALUES('acknowledged')");
    });
    EXPECT_EQ(Checkpoint(checkpointer), SQLITE_OK);
    storage_.SetObserver(nullptr);
    EXPECT_TRUE(began);
    EXPECT_FALSE(IsStartedOver());
    writer_.ExecOk("INSERT INTO t VALUES('acknowledged')");
    ExpectCommits(2);
    writer_.ExecOk("DELETE FROM t WHERE x='acknowledged'");
    EXPECT_TRUE(IsStartedOver()) << "no lock is left behind";
  }
}

TEST_F(LogRestartTest, NoneBeginsMeanwhile) {
  Db stranger(path(), "store");
  stranger.ExecOk("SELECT * FROM t");
  int refused = 0;
  storage_.SetObserver([&](const Call& call) {
    if (!StartsOver(call, SQLITE_SHM_LOCK) && !StartsOver(call, SQLITE_SHM_UNLOCK)) return;
    EXPECT_EQ(Checkpoint(stranger), SQLITE_BUSY);
    refused++;
  });
  writer_.ExecOk("INSERT INTO t VALUES('acknowledged')");
  storage_.SetObserver(nullptr);
  EXPECT_EQ(refused, 2);
  EXPECT_TRUE(IsStartedOver());
  EXPECT_EQ(Checkpoint(stranger), SQLITE_OK) << "but then one may";
  ExpectCommits(1);
}

// For stock SQLite the moment would be no reason for SQLITE_BUSY: from before the writer has the
// lock until after it has released it.
TEST_F(LogRestartTest, OneOfThisProcessWaitsForIt) {
  for (const bool ends : {false, true}) {
    const auto is_moment = [ends](const Call& call) {
      return ends ? Asks(call, SQLITE_SHM_UNLOCK) : StartsOver(call, SQLITE_SHM_LOCK);
    };
    Db checkpointer = OpenWal();
    std::atomic<int> asked{0};
    std::atomic<bool> seen{false};
    std::atomic<bool> is_over{false};
    std::future<int> checkpoint;
    storage_.SetObserver([&](const Call& call) {
      // It does not ask for ever; the writer may have no processor for as long.
      if (Asks(call, SQLITE_SHM_LOCK) && ++asked == 3) {
        while (!is_over) std::this_thread::yield();
      }
      if (!is_moment(call) || seen.exchange(true)) return;
      EXPECT_EQ(asked, 1) << "the writer has asked";
      checkpoint =
          std::async(std::launch::async, [&checkpointer] { return Checkpoint(checkpointer); });
      while (asked < 3 && !IsReady(checkpoint)) std::this_thread::yield();
      EXPECT_FALSE(IsReady(checkpoint)) << "it has been refused once, and asks again";
    });
    writer_.ExecOk("INSERT INTO t VALUES('acknowledged')");
    is_over = true;
    EXPECT_EQ(checkpoint.get(), SQLITE_OK);
    storage_.SetObserver(nullptr);
    EXPECT_TRUE(IsStartedOver());
    ExpectCommits(1);
    writer_.ExecOk("DELETE FROM t WHERE x='acknowledged'");
    MakeLog();
    writer_.ExecOk("PRAGMA wal_checkpoint");
  }
}

// The writer was faster, though nobody had started the log over as the checkpoint looked.
TEST_F(LogRestartTest, OneOfThisProcessIsOvertakenAsItAsks) {
  Db checkpointer = OpenWal();
  std::atomic<int> asked{0};  // by the checkpoint; it is the first to ask
  std::atomic<const sqlite3_file*> its{nullptr};
  std::atomic<bool> keeps_out{false};
  std::atomic<bool> ended{false};
  std::future<int> commit;
  storage_.SetObserver([&](const Call& call) {
    if (StartsOver(call, SQLITE_SHM_LOCK)) {
      keeps_out = true;
      while (asked < 2 && !ended) std::this_thread::yield();
    }
    if (!Asks(call, SQLITE_SHM_LOCK)) return;
    const sqlite3_file* nobody = nullptr;
    const bool is_first = its.compare_exchange_strong(nobody, call.file);
    // It does not ask for ever; the writer may have no processor for as long.
    if (call.file == its && ++asked == 2) {
      while (!IsReady(commit)) std::this_thread::yield();
    }
    if (!is_first) return;
    commit = ExecAsync(writer_, "INSERT INTO t VALUES('acknowledged')");
    while (!keeps_out && !IsReady(commit)) std::this_thread::yield();
  });
  EXPECT_EQ(Checkpoint(checkpointer), SQLITE_OK);
  ended = true;
  EXPECT_EQ(commit.get(), SQLITE_OK);
  storage_.SetObserver(nullptr);
  EXPECT_TRUE(IsStartedOver());
  ExpectCommits(1);
}

// It may be what keeps the writer from running.
TEST_F(LogRestartTest, OneOfThisProcessDoesNotWaitForEver) {
  constexpr int kEnough = 100'000;
  Db checkpointer = OpenWal();
  std::atomic<int> asked{0};
  std::future<int> checkpoint;
  storage_.SetObserver([&](const Call& call) {
    asked += Asks(call, SQLITE_SHM_LOCK);
    if (!StartsOver(call, SQLITE_SHM_LOCK)) return;
    checkpoint =
        std::async(std::launch::async, [&checkpointer] { return Checkpoint(checkpointer); });
    while (asked < kEnough && !IsReady(checkpoint)) std::this_thread::yield();
    EXPECT_TRUE(IsReady(checkpoint));
  });
  writer_.ExecOk("INSERT INTO t VALUES('acknowledged')");
  EXPECT_EQ(checkpoint.get(), SQLITE_BUSY);
  storage_.SetObserver(nullptr);
  ExpectCommits(1);
}

// Nor for anybody else: it is told so at once, whatever became of those that started the log over.
TEST_F(LogRestartTest, OneOfThisProcessDoesNotWaitForACheckpointOfAnother) {
  Db stranger(path(), "store");
  stranger.ExecOk("SELECT * FROM t");  // opens the log
  Db checkpointer = OpenWal();
  checkpointer.ExecOk("SELECT * FROM t");
  const auto expect_busy = [&] {
    MakeLog();
    storage_.HoldSyncs(FileKind::kMainDb);
    std::future<int> checkpoint = std::async(std::launch::async, Checkpoint, std::cref(stranger));
    ASSERT_TRUE(storage_.WaitForHeldSyncs(1));
    int asked = 0;
    storage_.SetObserver([&](const Call& call) { asked += Asks(call, SQLITE_SHM_LOCK); });
    EXPECT_EQ(Checkpoint(checkpointer), SQLITE_BUSY);
    EXPECT_EQ(asked, 1);
    storage_.SetObserver(nullptr);
    storage_.OpenGate();
    EXPECT_EQ(checkpoint.get(), SQLITE_OK);
  };
  writer_.ExecOk("INSERT INTO t VALUES(1)");
  ASSERT_TRUE(IsStartedOver());
  expect_busy();
  // All is copied, but nobody may start the log over.
  storage_.SetFaultHook(
      [](const Call& call) { return Asks(call, SQLITE_SHM_LOCK) ? SQLITE_BUSY : SQLITE_OK; });
  writer_.ExecOk("INSERT INTO t VALUES(1)");
  storage_.SetFaultHook(nullptr);
  ASSERT_FALSE(IsStartedOver());
  expect_busy();
}

// One that starts the log over has that lock itself, and until it ends.
TEST_F(LogRestartTest, ACheckpointThatStartsItOver) {
  Db stranger(path(), "store");
  stranger.ExecOk("SELECT * FROM t");
  bool has_started = false;
  int refused = 0;
  storage_.SetObserver([&](const Call& call) {
    if (StartsOver(call, SQLITE_SHM_UNLOCK)) has_started = true;
    const bool ends = call.op == Op::kShmLock && call.offset == 0 &&
                      call.flags == (SQLITE_SHM_UNLOCK | SQLITE_SHM_EXCLUSIVE);
    if (!has_started || !ends || refused++ > 0) return;
    EXPECT_EQ(Checkpoint(stranger), SQLITE_BUSY);
  });
  EXPECT_EQ(writer_.Int("PRAGMA wal_checkpoint(TRUNCATE)"), 0);
  storage_.SetObserver(nullptr);
  EXPECT_EQ(refused, 1);
}

// The log goes on, as beside a reader.
TEST_F(LogRestartTest, WhereACheckpointCannotBeKeptOut) {
  storage_.SetFaultHook(
      [](const Call& call) { return Asks(call, SQLITE_SHM_LOCK) ? SQLITE_BUSY : SQLITE_OK; });
  writer_.ExecOk("INSERT INTO t VALUES('acknowledged')");
  storage_.SetFaultHook(nullptr);
  EXPECT_FALSE(IsStartedOver());
  ExpectCommits(1);
}

// Nor is the lock left behind where a reader keeps the log from being started over.
TEST_F(LogRestartTest, WhereSomebodyReadsTheLog) {
  writer_.ExecOk("INSERT INTO t VALUES('acknowledged')");
  ASSERT_TRUE(IsStartedOver());
  MakeLog();
  Db reader = OpenWal();
  reader.ExecOk("BEGIN; SELECT * FROM t");
  writer_.ExecOk("PRAGMA wal_checkpoint; INSERT INTO t VALUES('acknowledged')");
  EXPECT_FALSE(IsStartedOver());
  EXPECT_EQ(Checkpoint(Db(path(), "store")), SQLITE_OK);
  reader.ExecOk("COMMIT");
  ExpectCommits(2);
}

}  // namespace
}  // namespace groupcommit::testing
