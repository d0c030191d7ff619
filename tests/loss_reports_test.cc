// Where two syncs that overlap are taken for independent.
#include "loss_reports.h"

#include <gtest/gtest.h>
#include <linux/magic.h>
#include <sqlite3.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>

#include <fstream>
#include <string>

#include "groupcommit.h"
#include "support/sqlite_helpers.h"

namespace groupcommit {
namespace {

// An open file that answers the one question.
class Answering {
 public:
  Answering(int rc, int value) : rc_(rc), value_(value) {
    methods_.iVersion = 1;
    methods_.xFileControl = [](sqlite3_file* file, int op, void* arg) {
      EXPECT_EQ(op, GROUPCOMMIT_FCNTL_EACH_HANDLE_IS_TOLD);
      const Answering* self = reinterpret_cast<Handle*>(file)->self;
      if (self->rc_ == SQLITE_OK) *static_cast<int*>(arg) = self->value_;
      return self->rc_;
    };
    handle_ = {{&methods_}, this};
  }
  sqlite3_file* file() { return &handle_.file; }

 private:
  struct Handle {
    sqlite3_file file;
    Answering* self;
  };
  const int rc_;
  const int value_;
  sqlite3_io_methods methods_{};
  Handle handle_{};
};

sqlite3_vfs* Unix() { return sqlite3_vfs_find("unix"); }

// As an administrator would find out.
bool SysfsSaysWriteThrough(const std::string& path) {
  struct stat status {};
  EXPECT_EQ(stat(path.c_str(), &status), 0);
  const std::string device =
      std::to_string(major(status.st_dev)) + ":" + std::to_string(minor(status.st_dev));
  for (const char* disk : {"", "../"}) {
    std::ifstream file("/sys/dev/block/" + device + "/" + disk + "queue/write_cache");
    std::string text;
    if (std::getline(file, text)) return text == "write through";
  }
  return false;
}

TEST(LossReportsTest, TheBaseVfsHasTheSay) {
  EXPECT_TRUE(EachHandleIsTold(Unix(), Answering(SQLITE_OK, 1).file(), "/proc/self/stat"));
  for (int no : {0, 2, -1}) {
    EXPECT_FALSE(EachHandleIsTold(Unix(), Answering(SQLITE_OK, no).file(), "/")) << no;
  }
  EXPECT_FALSE(EachHandleIsTold(Unix(), Answering(SQLITE_IOERR, 1).file(), "/"));
}

TEST(LossReportsTest, ADiskWithoutAVolatileCacheBeneathTheUnixVfs) {
  const testing::TempDir dir;
  struct statfs system {};
  ASSERT_EQ(statfs(dir.path().c_str(), &system), 0);
  const bool is_known = system.f_type == EXT4_SUPER_MAGIC || system.f_type == XFS_SUPER_MAGIC;
  const bool expected = is_known && SysfsSaysWriteThrough(dir.path());
  Answering silent(SQLITE_NOTFOUND, 1);
  EXPECT_EQ(EachHandleIsTold(Unix(), silent.file(), dir.path().c_str()), expected);
  EXPECT_EQ(EachHandleIsTold(sqlite3_vfs_find("unix-excl"), silent.file(), dir.path().c_str()),
            expected);
}

TEST(LossReportsTest, NotWithoutADisk) {
  Answering silent(SQLITE_NOTFOUND, 1);
  EXPECT_FALSE(EachHandleIsTold(Unix(), silent.file(), "/proc/self/stat"));
  EXPECT_FALSE(EachHandleIsTold(Unix(), silent.file(), "/there is no such file"));
}

// It may share a descriptor among its handles, whatever the disk is.
TEST(LossReportsTest, NotBeneathAnotherVfs) {
  sqlite3_vfs other = *Unix();
  other.xOpen = [](sqlite3_vfs*, const char*, sqlite3_file*, int, int*) { return SQLITE_CANTOPEN; };
  const testing::TempDir dir;
  EXPECT_FALSE(EachHandleIsTold(&other, Answering(SQLITE_NOTFOUND, 1).file(), dir.path().c_str()));
}

}  // namespace
}  // namespace groupcommit
