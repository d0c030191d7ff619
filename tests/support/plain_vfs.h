// PlainVfs: somebody else's shim, which only passes on; to be put over or under ours.
#ifndef GROUPCOMMIT_TESTS_SUPPORT_PLAIN_VFS_H_
#define GROUPCOMMIT_TESTS_SUPPORT_PLAIN_VFS_H_

#include <sqlite3.h>

#include <string>

namespace groupcommit::testing {

class PlainVfs {
 public:
  // Registers a VFS called `name` over the one called `base`, which must stay and have version 2 or
  // later; not the default. Its files keep their version, also without shared memory.
  PlainVfs(std::string name, const char* base, bool shared_memory = true);
  // From now on databases and logs are opened by names that it makes itself, one for each, as a VFS
  // that renames them would.
  void SetMakesNames() { makes_names_ = true; }
  // REQUIRES: every file is closed.
  ~PlainVfs();
  PlainVfs(const PlainVfs&) = delete;
  PlainVfs& operator=(const PlainVfs&) = delete;

 private:
  struct File;

  static int Open(sqlite3_vfs* vfs, const char* name, sqlite3_file* file, int flags,
                  int* out_flags);

  const std::string name_;
  sqlite3_vfs* const base_;
  const bool shared_memory_;
  bool makes_names_ = false;
  sqlite3_vfs vfs_;
};

}  // namespace groupcommit::testing

#endif  // GROUPCOMMIT_TESTS_SUPPORT_PLAIN_VFS_H_
