#define SQLITE_CORE  // as the library that the tests link: see sqlite.h
#include "support/queue_of.h"

#include "main_file.h"

namespace groupcommit::testing {
namespace {

Database& DatabaseOf(const Db& db) {
  sqlite3_file* file = nullptr;
  sqlite3_file_control(db.get(), "main", SQLITE_FCNTL_FILE_POINTER, &file);
  return static_cast<MainFile*>(file)->connection().database();
}

}  // namespace

WriteQueue& QueueOf(const Db& db) { return *DatabaseOf(db).write_queue(); }
CheckpointGate& GateOf(const Db& db) { return DatabaseOf(db).gate(); }

}  // namespace groupcommit::testing
