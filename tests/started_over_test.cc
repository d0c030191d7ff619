// A writer without the shim starts the log over just when a checkpoint begins, which is the
// WAL-reset bug of SQLite before 3.51.3; and other logs of which a checkpoint finds another
// generation.
#include <sqlite3.h>

#include <atomic>
#include <fstream>
#include <functional>
#include <string>

#include "support/checkpoint_fixture.h"

namespace groupcommit::testing {
namespace {

// Before 3.51.3 SQLite takes no notice of it, marks as copied what is not, and nobody reads that
// any more (wal.c: walCheckpoint()).
class StartedOverTest : public CheckpointTest {};

TEST_F(StartedOverTest, AStrangerStartsTheLogOverAsACheckpointBegins) {
  Db checkpointer = OpenOne();
  Db writer(path(), "store");
  writer.ExecOk("PRAGMA wal_autocheckpoint=0");
  for (int i = 0; i < 20; i++) writer.ExecOk("INSERT INTO t VALUES(zeroblob(3000))");
  OpenOne().ExecOk("PRAGMA wal_checkpoint");  // all is copied
  // SQLite has read the header, and not yet looked how much has been copied (wal.c:
  // sqlite3WalCheckpoint(), sqlite3OsUnfetch()).
  std::atomic<bool> began{false};
  storage_.SetObserver([&](const Call& call) {
    if (call.op != Op::kUnfetch || began.exchange(true)) return;
    writer.ExecOk("INSERT INTO t VALUES('acknowledged')");
  });
  int rc = sqlite3_wal_checkpoint_v2(checkpointer.get(), nullptr, SQLITE_CHECKPOINT_PASSIVE,
                                     nullptr, nullptr);
  storage_.SetObserver(nullptr);
  EXPECT_EQ(rc, SQLITE_OK);
  EXPECT_TRUE(began);
  EXPECT_LT(LogFramesInHeader(), 20u) << "the log was not started over";
  writer.ExecOk("INSERT INTO t VALUES('acknowledged')");
  Db reader = OpenOne();
  EXPECT_EQ(reader.Int("SELECT count(*) FROM t WHERE x='acknowledged'"), 2);
  // The next checkpoint is an ordinary one, also that of another connection: no lock is left
  // behind.
  int frames = -1;
  int copied = -1;
  rc =
      sqlite3_wal_checkpoint_v2(reader.get(), nullptr, SQLITE_CHECKPOINT_PASSIVE, &frames, &copied);
  EXPECT_EQ(rc, SQLITE_OK);
  EXPECT_GT(frames, 0);
  EXPECT_EQ(copied, frames);
  EXPECT_EQ(reader.Text("PRAGMA integrity_check"), "ok");
}

// While a FULL checkpoint waits for the write lock, before it reads the header. If it does not get
// the lock it copies what it can all the same.
TEST_F(StartedOverTest, AStrangerStartsTheLogOverAsACheckpointWaitsForTheWriteLock) {
  Db checkpointer = OpenOne();
  Db writer(path(), "store");
  for (const bool gets_lock : {true, false}) {
    writer.ExecOk("INSERT INTO t VALUES(zeroblob(100000)); PRAGMA wal_checkpoint");
    const uint32_t frames_before = LogFramesInHeader();
    writer.ExecOk("BEGIN IMMEDIATE");
    std::function<int(int)> handler = [&](int call) {
      if (call > 0) return 0;
      writer.ExecOk("INSERT INTO t VALUES('acknowledged'); COMMIT");
      if (!gets_lock) writer.ExecOk("BEGIN IMMEDIATE");
      return 1;
    };
    sqlite3_busy_handler(
        checkpointer.get(),
        [](void* f, int call) { return (*static_cast<std::function<int(int)>*>(f))(call); },
        &handler);
    int frames = -1;
    int copied = -1;
    const int rc = sqlite3_wal_checkpoint_v2(checkpointer.get(), nullptr, SQLITE_CHECKPOINT_FULL,
                                             &frames, &copied);
    EXPECT_EQ(rc, gets_lock ? SQLITE_OK : SQLITE_BUSY);
    EXPECT_LT(LogFramesInHeader(), frames_before) << "the log was not started over";
    EXPECT_GT(frames, 0);
    EXPECT_EQ(copied, frames);
    writer.Exec("ROLLBACK");
  }
}

// It has another generation of the log in hand, but one that it has read itself; also where it has
// waited for the write lock before that.
TEST_F(CheckpointTest, OneThatRecoversTheLog) {
  Db db = OpenOne();
  db.SetBusyTimeout(0);
  for (const int mode : {SQLITE_CHECKPOINT_PASSIVE, SQLITE_CHECKPOINT_FULL}) {
    for (int i = 0; i < 5; i++) db.ExecOk("INSERT INTO t VALUES(1)");
    std::fstream index(path() + "-shm", std::ios::in | std::ios::out | std::ios::binary);
    index.write(std::string(96, '\0').data(), 96);  // both headers
    index.close();
    int frames = -1;
    int copied = -1;
    const int rc = sqlite3_wal_checkpoint_v2(db.get(), nullptr, mode, &frames, &copied);
    EXPECT_EQ(rc, SQLITE_OK) << mode;
    EXPECT_GT(frames, 0) << mode;
    EXPECT_EQ(copied, frames) << mode;
  }
}

}  // namespace
}  // namespace groupcommit::testing
