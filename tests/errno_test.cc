// Real errors of the operating system: system calls below SQLite's own unix VFS fail with an errno.
// The whole of that VFS is in play, and what it makes of the errno (os_unix.c: unixWrite(),
// unixSync()).
#include <sqlite3.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <string_view>
#include <tuple>

#include "support/fault_test.h"

namespace {

// Which calls fail, and how. Those of one kind are counted from 1.
struct Plan {
  std::atomic<int> error{0};
  std::atomic<int> calls{0};
  std::atomic<int> first{0};
  std::atomic<int> count{0};
  std::atomic<int> every{1};  // of these, each so manieth

  void Fail(int with, int from, int how_many, int each = 1) {
    calls = 0;
    error = with;
    first = from;
    count = how_many;
    every = each;
  }
  void Clear() { count = 0; }
  bool FailsNow() {
    const int call = ++calls - first;
    if (call < 0 || call >= count || call % every != 0) return false;
    errno = error;
    return true;
  }
};
Plan syncs;
Plan writes;
Plan truncations;

using WriteCall = ssize_t (*)(int, const void*, size_t, off_t);
using TruncateCall = int (*)(int, off_t);
WriteCall real_write = nullptr;
TruncateCall real_ftruncate = nullptr;

ssize_t Write(int fd, const void* data, size_t size, off_t offset) {
  return writes.FailsNow() ? -1 : real_write(fd, data, size, offset);
}
int Ftruncate(int fd, off_t size) { return truncations.FailsNow() ? -1 : real_ftruncate(fd, size); }

}  // namespace

// SQLite calls it directly, not through its table of system calls; the program's definition comes
// before that of the C library. What it says is what counts here, not that it reaches the disk.
extern "C" int fdatasync(int) { return syncs.FailsNow() ? -1 : 0; }

namespace groupcommit::testing {
namespace {

// Overrides system calls in the table of the unix VFS.
class ErrnoTest : public FaultTest,
                  public ::testing::WithParamInterface<std::tuple<const char*, int>> {
 protected:
  void SetUp() override {
    unix_ = sqlite3_vfs_find("unix");
    for (const char* name : {"pwrite64", "pwrite"}) Override(name, Write, &real_write);
    Override("ftruncate", Ftruncate, &real_ftruncate);
    ASSERT_NE(real_write, nullptr);
    storage_.SetRealSync(true);
    Start(std::get<0>(GetParam()));
  }
  void TearDown() override {
    for (Plan* plan : {&syncs, &writes, &truncations}) plan->Clear();
    unix_->xSetSystemCall(unix_, nullptr, nullptr);
  }

  static int error() { return std::get<1>(GetParam()); }

 private:
  template <class Call>
  void Override(const char* name, Call ours, Call* real) {
    sqlite3_syscall_ptr found = unix_->xGetSystemCall(unix_, name);
    if (found == nullptr) return;  // another one is in use
    *real = reinterpret_cast<Call>(found);
    ASSERT_EQ(unix_->xSetSystemCall(unix_, name, reinterpret_cast<sqlite3_syscall_ptr>(ours)),
              SQLITE_OK);
  }

  sqlite3_vfs* unix_ = nullptr;
};

TEST_P(ErrnoTest, OneSync) {
  syncs.Fail(error(), 1, 1);
  EXPECT_EQ(Insert(a_), SQLITE_IOERR_FSYNC);
  ExpectLedger();
  ExpectWorkGoesOn();
}

TEST_P(ErrnoTest, SyncsInARowAndForAsLongAsTheDiskIsBroken) {
  for (const int failures : {2, 5}) {
    syncs.Fail(error(), 1, 1'000'000);
    for (int i = 0; i < failures; i++) {
      EXPECT_EQ(Insert(i % 2 == 0 ? a_ : b_), SQLITE_IOERR_FSYNC);
      EXPECT_NE(c_.Exec("PRAGMA wal_checkpoint"), SQLITE_OK);
      ledger_.ExpectIn(c_);
    }
    syncs.Clear();
    ExpectLedger();
    InsertOk(c_);
  }
  ExpectWorkGoesOn();
}

TEST_P(ErrnoTest, EveryThirdSync) {
  syncs.Fail(error(), 3, 1'000'000, 3);
  for (int i = 0; i < 12; i++) {
    Insert(i % 2 == 0 ? a_ : b_);
    ledger_.ExpectIn(c_);
  }
  syncs.Clear();
  ExpectLedger();
  ExpectWorkGoesOn();
}

// The write of a commit's frames; SQLite alone writes a frame header, then a page.
TEST_P(ErrnoTest, OneWrite) {
  for (int n = 1; n <= 4; n++) {
    SCOPED_TRACE(n);
    writes.Fail(error(), n, 1);
    const int rc = Insert(a_);
    const int in_a_commit = std::string_view(std::get<0>(GetParam())) == "store" ? 2 : 1;
    const int failed = error() == ENOSPC ? SQLITE_FULL : SQLITE_IOERR_WRITE;
    EXPECT_EQ(rc, n > in_a_commit ? SQLITE_OK : failed);
    writes.Clear();
    ledger_.ExpectIn(b_);
    InsertOk(b_);
    ExpectLedger();
  }
  ExpectWorkGoesOn();
}

// The disk is full: neither the log nor the database file takes a byte, and what is there is read.
TEST_P(ErrnoTest, NoWriteAtAll) {
  writes.Fail(error(), 1, 1'000'000);
  for (int i = 0; i < 3; i++) {
    for (Db* db : {&a_, &b_, &c_}) {
      EXPECT_NE(Insert(*db), SQLITE_OK);
      ledger_.ExpectIn(*db);
    }
    EXPECT_NE(a_.Exec("PRAGMA wal_checkpoint"), SQLITE_OK);
  }
  writes.Clear();
  ExpectLedger();
  ExpectWorkGoesOn();
}

// A sync fails, and the repair of the log finds the disk full.
TEST_P(ErrnoTest, WritesOfTheRepair) {
  for (int n = 1; n <= 8; n++) {
    SCOPED_TRACE(n);
    // The commit writes a frame header and a page; what comes then is the repair's.
    writes.Fail(error(), 2 + n, 1);
    syncs.Fail(EIO, 1, 1);
    EXPECT_EQ(Insert(a_), SQLITE_IOERR_FSYNC);
    writes.Clear();
    ledger_.ExpectIn(b_);
    InsertOk(b_);
    ExpectLedger();
  }
  ExpectWorkGoesOn();
}

// TRUNCATE of a checkpoint.
TEST_P(ErrnoTest, Truncation) {
  truncations.Fail(error(), 1, 1'000'000);
  EXPECT_NE(a_.Exec("PRAGMA wal_checkpoint(TRUNCATE)"), SQLITE_OK);
  InsertOk(b_);
  ledger_.ExpectIn(c_);
  truncations.Clear();
  ExpectLedger();
  ExpectWorkGoesOn();
}

std::string NameOf(const ::testing::TestParamInfo<std::tuple<const char*, int>>& test) {
  const int error = std::get<1>(test.param);
  return NameOfVfs(std::get<0>(test.param)) + (error == EIO      ? "EIO"
                                               : error == ENOSPC ? "ENOSPC"
                                                                 : "EDQUOT");
}

INSTANTIATE_TEST_SUITE_P(, ErrnoTest,
                         ::testing::Combine(::testing::Values("store", "gc"),
                                            ::testing::Values(EIO, ENOSPC, EDQUOT)),
                         NameOf);

}  // namespace
}  // namespace groupcommit::testing
