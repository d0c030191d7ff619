// Any bytes in place of the log of a small database, opened through the shim and without it: the
// same results and the same database afterwards.
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
  FileGuard guard;  // nobody sleeps
  DatabaseImage image;

  Environment() {
    UseFreshMemory();
    sqlite3_hard_heap_limit64(16 << 20);  // an absurd database size must not take the memory
    image = MakeDatabase(dir.path(), 512, 6);
    const int rc = groupcommit_register("gc", "unix", 0, nullptr);
    FUZZ_CHECK(rc == SQLITE_OK, "register: %d", rc);
    std::filesystem::create_directory(dir.File("gc"));
    std::filesystem::create_directory(dir.File("unix"));
  }
};

Environment& Shared() {
  static Environment environment;
  return environment;
}

std::string Play(const char* vfs, const Bytes& log, unsigned flags) {
  const std::string path = Shared().dir.File(vfs) + "/test.db";
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
  const std::string stock = Play("unix", log, flags);
  const std::string shim = Play("gc", log, flags);
  // A log with right checksums and corrupt pages: in which words SQLite says so, as a row or as an
  // error, has differed once.
  constexpr const char* kCorrupt = "malformed";
  if (stock.find(kCorrupt) != std::string::npos && shim.find(kCorrupt) != std::string::npos) return;
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
