// Where two syncs that overlap are taken for independent.
#include "loss_reports.h"

#include <gtest/gtest.h>
#include <linux/magic.h>
#include <sqlite3.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/utsname.h>
#include <sys/vfs.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <system_error>

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

// As an administrator would find out. A line of a file, or "".
std::string Read(const std::string& path) {
  std::ifstream file(path);
  std::string text;
  std::getline(file, text);
  return text;
}

std::string SysfsNameOf(const std::string& path) {
  struct stat status {};
  EXPECT_EQ(stat(path.c_str(), &status), 0);
  return "/sys/dev/block/" + std::to_string(major(status.st_dev)) + ":" +
         std::to_string(minor(status.st_dev));
}

bool SysfsSaysWriteThrough(const std::string& path) {
  for (const char* disk : {"", "../"}) {
    const std::string text = Read(SysfsNameOf(path) + "/" + disk + "queue/write_cache");
    if (!text.empty()) return text == "write through";
  }
  return false;
}

// The number of a task, which is there if there is a journal.
bool SysfsSaysJournal(const std::string& path) {
  std::error_code error;
  const auto device = std::filesystem::read_symlink(SysfsNameOf(path), error).filename();
  const std::string task = Read("/sys/fs/ext4/" + device.string() + "/journal_task");
  return !task.empty() && task.find_first_not_of("0123456789") == std::string::npos;
}

bool KernelIsNewEnough() {
  utsname system{};
  return uname(&system) == 0 && std::stoi(system.release) >= 5;
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
  const bool is_known = system.f_type == XFS_SUPER_MAGIC ||
                        (system.f_type == EXT4_SUPER_MAGIC && SysfsSaysJournal(dir.path()));
  const bool expected = KernelIsNewEnough() && is_known && SysfsSaysWriteThrough(dir.path());
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

// A sysfs with a disk, sda, and a partition of it, sda1.
class SysfsTest : public ::testing::Test {
 protected:
  static constexpr long kBtrfs = BTRFS_SUPER_MAGIC;
  static constexpr long kExt4 = EXT4_SUPER_MAGIC;
  static constexpr long kXfs = XFS_SUPER_MAGIC;
  const dev_t disk_ = makedev(8, 0);
  const dev_t partition_ = makedev(8, 1);

  void SetUp() override {
    std::filesystem::create_directories(dir_.path() + "/devices/sda/sda1");
    std::filesystem::create_directories(dir_.path() + "/dev/block");
    std::filesystem::create_symlink("../../devices/sda", dir_.path() + "/dev/block/8:0");
    std::filesystem::create_symlink("../../devices/sda/sda1", dir_.path() + "/dev/block/8:1");
  }
  void Put(const std::string& file, const std::string& text) const {
    const std::filesystem::path path(dir_.path() + file);
    std::filesystem::create_directories(path.parent_path());
    std::ofstream(path) << text << "\n";
  }
  void SetCache(const std::string& text) const { Put("/devices/sda/queue/write_cache", text); }
  bool IsTold(long type, dev_t device) const {
    return DiskTellsEachHandle(type, device, dir_.path().c_str());
  }

  testing::TempDir dir_;
};

TEST_F(SysfsTest, OnADiskWithoutAVolatileCache) {
  EXPECT_FALSE(IsTold(kXfs, disk_)) << "nothing is known";
  SetCache("write through");
  EXPECT_TRUE(IsTold(kXfs, disk_));
  EXPECT_TRUE(IsTold(kXfs, partition_));
  EXPECT_FALSE(IsTold(kBtrfs, disk_));
  EXPECT_FALSE(IsTold(kXfs, makedev(8, 2)));
  SetCache("write back");
  EXPECT_FALSE(IsTold(kXfs, disk_));
  EXPECT_FALSE(IsTold(kXfs, partition_));
}

// The cache that matters is that of the device itself, if it has a queue.
TEST_F(SysfsTest, OnADiskWithinAnotherOne) {
  SetCache("write through");
  Put("/devices/sda/sda1/queue/write_cache", "write back");
  EXPECT_FALSE(IsTold(kXfs, partition_));
}

TEST_F(SysfsTest, OnExt4WithAJournal) {
  SetCache("write through");
  EXPECT_FALSE(IsTold(kExt4, disk_)) << "ext2, with its own driver";
  Put("/fs/ext4/sda/journal_task", "<none>");
  EXPECT_FALSE(IsTold(kExt4, disk_));
  Put("/fs/ext4/sda/journal_task", "217");
  EXPECT_TRUE(IsTold(kExt4, disk_));
  EXPECT_FALSE(IsTold(kExt4, partition_)) << "another file system";
  Put("/fs/ext4/sda1/journal_task", "218");
  EXPECT_TRUE(IsTold(kExt4, partition_));
  SetCache("write back");
  EXPECT_FALSE(IsTold(kExt4, disk_));
}

}  // namespace
}  // namespace groupcommit
