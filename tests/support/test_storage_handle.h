// The sqlite3_file of the test storage; see test_storage.h.
#ifndef GROUPCOMMIT_TESTS_SUPPORT_TEST_STORAGE_HANDLE_H_
#define GROUPCOMMIT_TESTS_SUPPORT_TEST_STORAGE_HANDLE_H_

#include <memory>

#include "support/test_storage.h"

namespace groupcommit::testing {

struct TestStorage::Handle {
  sqlite3_file file;  // must be first: SQLite's pointer is to it
  TestStorage* storage;
  FileKind kind;
  const char* path;                      // lives as long as the handle, or ""
  std::shared_ptr<TrackedFile> tracked;  // null for a temporary file
  uint64_t sync_errors_told;             // of tracked->sync_errors; guarded by mutex_

  // The base VFS's file lies right behind ours.
  sqlite3_file* base() { return reinterpret_cast<sqlite3_file*>(this + 1); }
};

}  // namespace groupcommit::testing

#endif  // GROUPCOMMIT_TESTS_SUPPORT_TEST_STORAGE_HANDLE_H_
