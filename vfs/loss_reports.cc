#include "loss_reports.h"

#include "groupcommit.h"
#include "sqlite.h"

#if defined(__linux__)
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/utsname.h>

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

// Does sysfs say so of this device, or, if it is a partition, of the disk that it is on? File
// systems without a block device of their own have device numbers that it does not know.
bool WritesThrough(dev_t device, const char* disk) {
  char name[64];
  std::snprintf(name, sizeof(name), "/sys/dev/block/%u:%u/%squeue/write_cache", major(device),
                minor(device), disk);
  std::FILE* file = std::fopen(name, "re");
  if (file == nullptr) return false;
  char text[32] = "";
  const bool is_read = std::fgets(text, sizeof(text), file) != nullptr;
  std::fclose(file);
  return is_read && std::strcmp(text, "write through\n") == 0;
}

bool DeviceHasNoVolatileCache(const char* path) {
  struct stat status;
  return stat(path, &status) == 0 &&
         (WritesThrough(status.st_dev, "") || WritesThrough(status.st_dev, "../"));
}
#else
bool KernelTellsEachHandle() { return false; }
bool DeviceHasNoVolatileCache(const char* /*path*/) { return false; }
#endif

bool IsUnixVfs(const sqlite3_vfs* vfs) {
  const sqlite3_vfs* unix_vfs = sqlite3_vfs_find("unix");
  return unix_vfs != nullptr && vfs->xOpen == unix_vfs->xOpen;
}

}  // namespace

bool EachHandleIsTold(sqlite3_vfs* base, sqlite3_file* log, const char* path) {
  int is_told = 0;
  const int rc = log->pMethods->xFileControl(log, GROUPCOMMIT_FCNTL_EACH_HANDLE_IS_TOLD, &is_told);
  if (rc == SQLITE_OK) return is_told == 1;
  return rc == SQLITE_NOTFOUND && IsUnixVfs(base) && KernelTellsEachHandle() &&
         DeviceHasNoVolatileCache(path);
}

}  // namespace groupcommit
