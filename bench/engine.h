// Engine: what is measured. It makes rows durable for a number of clients.
#ifndef GROUPCOMMIT_BENCH_ENGINE_H_
#define GROUPCOMMIT_BENCH_ENGINE_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "mix.h"

namespace groupcommit::bench {

// What one client commits through. Used by one thread at a time.
class Committer {
 public:
  virtual ~Committer() = default;

  // Returns once `row` is durable: SQLITE_OK; SQLITE_BUSY if it may be tried again; or an error,
  // described by error(). Nothing is left of a row that was not committed.
  virtual int Commit(const Row& row) = 0;
  virtual std::string error() const = 0;
};

class Engine {
 public:
  virtual ~Engine() = default;

  // For the client number `writer`: 0, 1, 2 ..., created in this order, each destroyed before the
  // engine. Throws std::runtime_error.
  virtual std::unique_ptr<Committer> NewCommitter(int writer) = 0;

  // Syncs of the log so far; empty if nobody counts them.
  virtual std::optional<int64_t> CountSyncs() = 0;

  // How large the log has become, in bytes; 0 if that is not known.
  virtual int64_t LogBytes() = 0;
};

struct WorkloadOptions;
using EngineFactory = std::unique_ptr<Engine> (*)(const WorkloadOptions&);

// SQLite as an application uses it: every client has a connection of its own.
std::unique_ptr<Engine> NewConnectionEngine(const WorkloadOptions& options);

// SQLite behind a queue; see writer_queue.h.
std::unique_ptr<Engine> NewWriterQueueEngine(const WorkloadOptions& options);

}  // namespace groupcommit::bench

#endif  // GROUPCOMMIT_BENCH_ENGINE_H_
