// Any bytes in place of the log of a small database, opened through the shim and without it: the
// same results and the same database afterwards.
//
// Given a cell that extends off its page, SQLite reads on in what follows the page in memory: its
// page cache's headers, which hold addresses. What it then says of a corrupt database depends on
// them. So both have the same addresses: the same path, and for stock SQLite a VFS whose files take
// as much memory as the shim's.
#include <sqlite3.h>

#include <filesystem>
#include <string>

#include "fuzz.h"
#include "groupcommit.h"
#include "log_mutator.h"
#include "support/hostile_files.h"
#include "support/transcript.h"
#include "support/wal_image.h"

namespace groupcommit::testing {
namespace {

struct Environment {
  MemoryDir dir;
  FileGuard guard;    // nobody sleeps
  sqlite3_vfs stock;  // "unix", with room for the shim's files
  DatabaseImage image;

  Environment() {
    UseFreshMemory();
    sqlite3_hard_heap_limit64(16 << 20);  // an absurd database size must not take the memory
    image = MakeDatabase(dir.path(), 512, 6);
    const int rc = groupcommit_register("shim", "unix", 0, nullptr);
    FUZZ_CHECK(rc == SQLITE_OK, "register: %d", rc);
    stock = *sqlite3_vfs_find("unix");
    stock.zName = "stock";
    stock.szOsFile = sqlite3_vfs_find("shim")->szOsFile;
    FUZZ_CHECK(sqlite3_vfs_register(&stock, 0) == SQLITE_OK, "register");
  }
};

Environment& Shared() {
  static Environment environment;
  return environment;
}

std::string Play(const char* vfs, const Bytes& log, unsigned flags) {
  const std::string path = Shared().dir.File("played.db");
  WriteFile(path, Shared().image.database);
  WriteFile(path + "-wal", log);
  std::filesystem::remove(path + "-shm");
  RenewMemory();
  std::string seen;
  TranscribedDb db(&seen, "db");
  db.Open(path, SQLITE_OPEN_READWRITE, vfs);
  if ((flags & kExclusive) != 0) db.Run("PRAGMA locking_mode=EXCLUSIVE");
  db.Run("PRAGMA integrity_check");
  db.Run("SELECT count(*) FROM t");
  if ((flags & kWrite) != 0) {
    db.Run("INSERT INTO t(x) VALUES('new')");
    db.Run("UPDATE t SET x='changed' WHERE id=2");
    db.Run("PRAGMA integrity_check");
    db.Run("SELECT count(*) FROM t");
  }
  db.Close();
  return seen + "\n" + DescribeFile(path);
}

void CheckFiles(const Bytes& log, unsigned flags) {
  const std::string stock = Play("stock", log, flags);
  const std::string shim = Play("shim", log, flags);
  FUZZ_CHECK(stock == shim, "%s", TranscriptDifference(stock, shim).c_str());
}

}  // namespace
}  // namespace groupcommit::testing

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace groupcommit::testing;  // NOLINT(google-build-using-namespace)
  if (size != 0) CheckFiles(LogOf(data, size), data[0]);
  return 0;
}

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size,
                                          unsigned seed) {
  using namespace groupcommit::testing;  // NOLINT(google-build-using-namespace)
  return MutateLog(Shared().image.log, data, size, max_size, seed);
}
