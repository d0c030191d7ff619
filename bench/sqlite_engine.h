// What the engines that use SQLite have in common.
#ifndef GROUPCOMMIT_BENCH_SQLITE_ENGINE_H_
#define GROUPCOMMIT_BENCH_SQLITE_ENGINE_H_

#include "engine.h"
#include "sqlite_handle.h"
#include "workload.h"

namespace groupcommit::bench {

class SqliteEngine : public Engine {
 public:
  // Creates the database with its tables. Throws std::runtime_error. `options` must outlive the
  // object.
  explicit SqliteEngine(const WorkloadOptions& options);

  std::optional<int64_t> CountSyncs() override;
  int64_t LogBytes() override;

 protected:
  // Another connection, ready to write.
  Connection Connect() const;

  const WorkloadOptions& options_;

 private:
  const Connection db_;  // Open until the end: with the last connection the log would go.
};

}  // namespace groupcommit::bench

#endif  // GROUPCOMMIT_BENCH_SQLITE_ENGINE_H_
