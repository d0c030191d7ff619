#include "loss_reports.h"

#include "base_vfs.h"
#include "groupcommit.h"
#include "sqlite.h"

#if defined(__linux__)
#include <limits.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/utsname.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#endif

namespace groupcommit {
namespace {

#if defined(__linux__)
bool KernelTellsEachHandle() {
  constexpr long kFirstMajor = 5;
  utsname system;
  return uname(&system) == 0 && std::strtol(system.release, nullptr, 10) >= kFirstMajor;
}

// The line in a file of sysfs; "" if there is none.
struct Line {
  explicit Line(const char* path) {
    std::FILE* file = std::fopen(path, "re");
    if (file == nullptr) return;
    if (std::fgets(text, sizeof(text), file) == nullptr) text[0] = '\0';
    std::fclose(file);
  }
  char text[32] = "";
};

// What sysfs, mounted at `sys`, knows about a block device. File systems without one of their own
// have numbers that it does not know.
struct DeviceName {
  DeviceName(const char* sys, dev_t device, const char* file) {
    std::snprintf(path, sizeof(path), "%s/dev/block/%u:%u%s", sys, major(device), minor(device),
                  file);
  }
  char path[PATH_MAX];
};

// Of a partition, its disk is asked.
bool HasNoVolatileCache(const char* sys, dev_t device) {
  Line line(DeviceName(sys, device, "/queue/write_cache").path);
  if (line.text[0] == '\0') line = Line(DeviceName(sys, device, "/../queue/write_cache").path);
  return std::strcmp(line.text, "write through\n") == 0;
}

// ext2, ext3 and ext4 have one magic number, and a driver. If there is a journal a task writes it,
// whose number is told; else "<none>".
bool HasExt4Journal(const char* sys, dev_t device) {
  char target[PATH_MAX];
  const ssize_t length = readlink(DeviceName(sys, device, "").path, target, sizeof(target) - 1);
  if (length <= 0) return false;
  target[length] = '\0';
  const char* name = std::strrchr(target, '/');
  if (name == nullptr) return false;
  char task[PATH_MAX];
  const int size = std::snprintf(task, sizeof(task), "%s/fs/ext4%s/journal_task", sys, name);
  if (size >= static_cast<int>(sizeof(task))) return false;
  return std::strtol(Line(task).text, nullptr, 10) > 0;
}

bool DiskBeneathTellsEachHandle(const char* path) {
  struct stat status;
  struct statfs system;
  if (stat(path, &status) != 0 || statfs(path, &system) != 0) return false;
  return DiskTellsEachHandle(static_cast<long>(system.f_type), status.st_dev, "/sys");
}
#else
bool KernelTellsEachHandle() { return false; }
bool DiskBeneathTellsEachHandle(const char* /*path*/) { return false; }
#endif

}  // namespace

#if defined(__linux__)
bool DiskTellsEachHandle(long type, dev_t device, const char* sys) {
  const bool is_known =
      type == XFS_SUPER_MAGIC || (type == EXT4_SUPER_MAGIC && HasExt4Journal(sys, device));
  return is_known && HasNoVolatileCache(sys, device);
}
#endif

bool EachHandleIsTold(sqlite3_vfs* base, sqlite3_file* log, const char* path) {
  int is_told = 0;
  const int rc = log->pMethods->xFileControl(log, GROUPCOMMIT_FCNTL_EACH_HANDLE_IS_TOLD, &is_told);
  if (rc == SQLITE_OK) return is_told == 1;
  return rc == SQLITE_NOTFOUND && IsUnixVfs(base) && KernelTellsEachHandle() &&
         DiskBeneathTellsEachHandle(path);
}

}  // namespace groupcommit
