// Reader: a connection that reads what the others have just committed.
#ifndef GROUPCOMMIT_BENCH_READER_H_
#define GROUPCOMMIT_BENCH_READER_H_

#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "client.h"
#include "latency_histogram.h"
#include "sqlite_handle.h"

namespace groupcommit::bench {

// Reads a row of one client after the other: of those that were acknowledged before, or the newest
// there is, which may not be durable yet. Checks that what had been acknowledged before the read is
// there, with its own content.
class alignas(64) Reader {
 public:
  // `clients` insert into the table that is read, and must outlive the object.
  Reader(Mix mix, int id, Connection db, const Clients& clients);

  // Reads until the end or an error.
  void Run(const End& end);

  const LatencyHistogram& latencies() const { return latencies_; }
  const std::string& error() const { return error_; }

 private:
  bool ReadOne(size_t writer);
  bool Check(size_t writer, int64_t at_least);
  void NoteError(const std::string& what);

  const Mix mix_;
  const int id_;
  const Connection db_;
  const Clients& clients_;
  std::minstd_rand random_;
  const Statement select_;
  std::vector<unsigned char> expected_;
  LatencyHistogram latencies_;
  std::string error_;
};

}  // namespace groupcommit::bench

#endif  // GROUPCOMMIT_BENCH_READER_H_
