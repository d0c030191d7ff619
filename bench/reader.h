// Reader: a connection that reads what the others have just committed.
#ifndef GROUPCOMMIT_BENCH_READER_H_
#define GROUPCOMMIT_BENCH_READER_H_

#include <cstdint>
#include <string>
#include <vector>

#include "client.h"
#include "latency_histogram.h"
#include "sqlite_handle.h"

namespace groupcommit::bench {

// The newest row of one client after the other: the rows that are the least likely to be durable
// yet. Checks that whatever had been acknowledged before the read is there, with its own content.
class alignas(64) Reader {
 public:
  // `clients` insert into the table that is read, and must outlive the object.
  Reader(int id, Connection db, const Clients& clients);

  // Reads until the end or an error.
  void Run(const End& end);

  const LatencyHistogram& latencies() const { return latencies_; }
  const std::string& error() const { return error_; }

 private:
  bool ReadNewest(size_t writer);
  bool Check(size_t writer, int64_t acknowledged);
  void NoteError(const std::string& what);

  const int id_;
  const Connection db_;
  const Clients& clients_;
  const Statement select_;
  std::vector<unsigned char> expected_;
  LatencyHistogram latencies_;
  std::string error_;
};

}  // namespace groupcommit::bench

#endif  // GROUPCOMMIT_BENCH_READER_H_
