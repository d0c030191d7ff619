// Files that nobody should find next to a database.
#ifndef GROUPCOMMIT_TESTS_SUPPORT_HOSTILE_FILES_H_
#define GROUPCOMMIT_TESTS_SUPPORT_HOSTILE_FILES_H_

#include <string>

#include "support/file_image.h"

namespace groupcommit::testing {

// What is found at a path.
enum class FoundKind {
  kAbsent,
  kFile,
  kNoAccess,  // a file that cannot be opened
  kReadOnly,  // a file that cannot be opened for writing
  kDirectory,
  kLink,  // a symbolic link to a file
  kDanglingLink,
  kFifo,
};
inline constexpr FoundKind kAllFoundKinds[] = {
    FoundKind::kAbsent,    FoundKind::kFile, FoundKind::kNoAccess,     FoundKind::kReadOnly,
    FoundKind::kDirectory, FoundKind::kLink, FoundKind::kDanglingLink, FoundKind::kFifo};
const char* FoundKindName(FoundKind kind);

struct Found {
  FoundKind kind = FoundKind::kAbsent;
  Bytes bytes;
};

// Takes the place of open() and of sleeping in the VFS "unix" while it lives, so that "no access"
// holds for root too, and nobody sleeps. One at a time.
class FileGuard {
 public:
  FileGuard();
  ~FileGuard();
  FileGuard(const FileGuard&) = delete;
  FileGuard& operator=(const FileGuard&) = delete;

  // Puts `found` at `path`, where there is nothing yet.
  void Place(const std::string& path, const Found& found);
};

// Makes SQLite believe that another process has this wal-index open, and so that its contents mean
// something, as long as this lives.
class IndexUser {
 public:
  explicit IndexUser(const std::string& path);
  ~IndexUser();
  IndexUser(const IndexUser&) = delete;
  IndexUser& operator=(const IndexUser&) = delete;

 private:
  const int fd_;
};

// A new directory, in memory where there is a file system for that: for what is not about disks.
// Removed with all it holds at the end.
class MemoryDir {
 public:
  MemoryDir();
  ~MemoryDir();
  MemoryDir(const MemoryDir&) = delete;
  MemoryDir& operator=(const MemoryDir&) = delete;

  const std::string& path() const { return path_; }
  // The path of `name` in it.
  std::string File(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

// The kind of the file, its size, and a hash of its contents.
std::string DescribeFile(const std::string& path);

}  // namespace groupcommit::testing

#endif  // GROUPCOMMIT_TESTS_SUPPORT_HOSTILE_FILES_H_
