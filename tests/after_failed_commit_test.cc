// What a connection whose COMMIT has failed does next without a new snapshot: its failed one is of
// no account, and all is as with stock SQLite.
#include <fcntl.h>
#include <unistd.h>

#include <filesystem>
#include <string>

#include "support/shim_test.h"

namespace groupcommit::testing {
namespace {

class AfterAFailedCommitTest : public ShimTest, public ::testing::WithParamInterface<const char*> {
 protected:
  Db Open() {
    Db db(path(), GetParam());
    EXPECT_EQ(db.Text("PRAGMA journal_mode=WAL"), "wal");
    db.ExecOk("PRAGMA synchronous=FULL; CREATE TABLE IF NOT EXISTS t(x)");
    db.ExecOk("INSERT INTO t VALUES('kept')");
    return db;
  }
  void Fail(Db& a) {
    storage_.FailSyncs(FileKind::kWal, 1, 1);
    EXPECT_EQ(a.Exec("INSERT INTO t VALUES('failed')"), SQLITE_IOERR_FSYNC);
  }
};

TEST_P(AfterAFailedCommitTest, Checkpoints) {
  Db a = Open();
  Fail(a);
  for (const char* mode : {"PASSIVE", "FULL", "RESTART", "TRUNCATE"}) {
    EXPECT_EQ(a.Exec(std::string("PRAGMA wal_checkpoint(") + mode + ")"), SQLITE_OK) << mode;
  }
  EXPECT_EQ(a.Int("SELECT count(*) FROM t"), 1);
  EXPECT_EQ(a.Exec("PRAGMA wal_checkpoint"), SQLITE_OK);
}

TEST_P(AfterAFailedCommitTest, ItIsTheLastOneToClose) {
  {
    Db a = Open();
    Fail(a);
  }
  EXPECT_FALSE(std::filesystem::exists(path() + "-wal")) << "the log is left behind";
  EXPECT_EQ(Db(path(), "store").Int("SELECT count(*) FROM t"), 1);
}

TEST_P(AfterAFailedCommitTest, AnotherJournalMode) {
  Db a = Open();
  Fail(a);
  EXPECT_EQ(a.Exec("PRAGMA journal_mode=DELETE"), SQLITE_OK) << a.Error();
  EXPECT_EQ(a.Exec("INSERT INTO t VALUES('kept')"), SQLITE_OK) << a.Error();
  EXPECT_EQ(a.Int("SELECT count(*) FROM t"), 2);
}

TEST_P(AfterAFailedCommitTest, ExclusiveLockingMode) {
  Db a = Open();
  Fail(a);
  EXPECT_EQ(a.Exec("PRAGMA locking_mode=EXCLUSIVE; INSERT INTO t VALUES('kept')"), SQLITE_OK);
  EXPECT_EQ(a.Int("SELECT count(*) FROM t"), 2);
}

TEST_P(AfterAFailedCommitTest, ItHasToRecoverTheLog) {
  Db a = Open();
  Db other(path(), "store");
  other.Int("SELECT count(*) FROM t");
  Fail(a);
  // A process has been killed while it wrote the header.
  const int fd = ::open((path() + "-shm").c_str(), O_RDWR);
  ASSERT_GE(fd, 0);
  char byte = 0;
  EXPECT_EQ(::pread(fd, &byte, 1, 41), 1);
  byte = static_cast<char>(byte ^ 0x55);
  EXPECT_EQ(::pwrite(fd, &byte, 1, 41), 1);
  ::close(fd);
  for (int i = 0; i < 3; i++) {
    EXPECT_EQ(a.Exec("SELECT count(*) FROM t"), SQLITE_OK) << a.Error();
  }
}

INSTANTIATE_TEST_SUITE_P(, AfterAFailedCommitTest, ::testing::Values("gc", "store"));

}  // namespace
}  // namespace groupcommit::testing
