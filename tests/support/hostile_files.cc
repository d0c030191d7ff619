#include "support/hostile_files.h"

#include <fcntl.h>
#include <sqlite3.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <string_view>
#include <utility>

#include "support/wal_image.h"

namespace groupcommit::testing {
namespace {

using GuardedPaths = std::map<std::string, FoundKind, std::less<>>;

GuardedPaths& Guarded() {
  static auto* const paths = new GuardedPaths;
  return *paths;
}

int GuardedOpen(const char* path, int flags, int mode) {
  const auto found = Guarded().find(std::string_view(path));
  if (found == Guarded().end()) return ::open(path, flags, mode);
  // SQLite would wait for ever for somebody to write to a FIFO.
  if (found->second == FoundKind::kFifo) return ::open(path, flags | O_NONBLOCK, mode);
  if (found->second == FoundKind::kReadOnly && (flags & O_ACCMODE) == O_RDONLY) {
    return ::open(path, flags, mode);
  }
  errno = EACCES;
  return -1;
}

// SQLite polls a log that makes no sense for ten seconds (wal.c: walTryBeginRead()).
int NoSleep(sqlite3_vfs* /*vfs*/, int microseconds) { return microseconds; }
int (*real_sleep)(sqlite3_vfs*, int);

void SetOpen(sqlite3_syscall_ptr open) {
  sqlite3_vfs* vfs = sqlite3_vfs_find("unix");
  if (vfs->xSetSystemCall(vfs, "open", open) == SQLITE_OK) return;
  std::fprintf(stderr, "cannot replace open() in the VFS unix\n");
  std::abort();
}

}  // namespace

const char* FoundKindName(FoundKind kind) {
  static constexpr const char* kNames[] = {"absent",    "file", "no access",     "read-only",
                                           "directory", "link", "dangling link", "fifo"};
  return kNames[static_cast<size_t>(kind)];
}

FileGuard::FileGuard() {
  SetOpen(reinterpret_cast<sqlite3_syscall_ptr>(GuardedOpen));
  real_sleep = std::exchange(sqlite3_vfs_find("unix")->xSleep, NoSleep);
}

FileGuard::~FileGuard() {
  SetOpen(nullptr);
  sqlite3_vfs_find("unix")->xSleep = real_sleep;
  Guarded().clear();
}

void FileGuard::Place(const std::string& path, const Found& found) {
  Guarded().erase(path);
  switch (found.kind) {
    case FoundKind::kAbsent:
      return;
    case FoundKind::kNoAccess:
    case FoundKind::kReadOnly:
      Guarded()[path] = found.kind;
      [[fallthrough]];
    case FoundKind::kFile:
      WriteFile(path, found.bytes);
      return;
    case FoundKind::kDirectory:
      std::filesystem::create_directory(path);
      return;
    case FoundKind::kLink:
      WriteFile(path + ".target", found.bytes);
      [[fallthrough]];
    case FoundKind::kDanglingLink:
      std::filesystem::create_symlink(path + ".target", path);
      return;
    case FoundKind::kFifo:
      Guarded()[path] = found.kind;
      if (::mkfifo(path.c_str(), 0600) != 0) std::perror(path.c_str());
      return;
  }
}

IndexUser::IndexUser(const std::string& path) : fd_(::open(path.c_str(), O_RDWR | O_CLOEXEC)) {
  constexpr off_t kDeadmansSwitch = 128;  // os_unix.c: UNIX_SHM_DMS
  struct flock lock {};
  lock.l_type = F_RDLCK;
  lock.l_whence = SEEK_SET;
  lock.l_start = kDeadmansSwitch;
  lock.l_len = 1;
  // Of this file description, not of the process, to which SQLite's own locks belong.
  if (::fcntl(fd_, F_OFD_SETLK, &lock) == 0) return;
  std::perror(path.c_str());
  std::abort();
}

IndexUser::~IndexUser() { ::close(fd_); }

MemoryDir::MemoryDir() {
  const char* tmpdir = std::getenv("TMPDIR");
  for (const std::string parent : {"/dev/shm", tmpdir != nullptr ? tmpdir : "", "/tmp"}) {
    path_ = parent + "/groupcommit_test.XXXXXX";
    if (::mkdtemp(path_.data()) == nullptr) continue;
    path_ = std::filesystem::canonical(path_).string();  // as SQLite names the files in it
    return;
  }
  std::perror("mkdtemp");
  std::abort();
}

MemoryDir::~MemoryDir() {
  std::error_code error;
  std::filesystem::remove_all(path_, error);
}

std::string DescribeFile(const std::string& path) {
  struct stat info {};
  if (::lstat(path.c_str(), &info) != 0) return "absent";
  if (!S_ISREG(info.st_mode)) return "of type " + std::to_string(info.st_mode & S_IFMT);
  const std::string text = std::to_string(info.st_size) + " bytes";
  constexpr off_t kReadable = 1 << 20;  // what is longer has a hole
  if (info.st_size > kReadable) return text;
  const Bytes bytes = ReadFile(path);
  const std::string_view view(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  return text + ", hash " + std::to_string(std::hash<std::string_view>()(view));
}

}  // namespace groupcommit::testing
