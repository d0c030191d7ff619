#include "reader.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <thread>

namespace groupcommit::bench {
namespace {

// Between two reads. Readers that never pause would leave the writers no processor, and the result
// would tell about the scheduler.
constexpr auto kPause = std::chrono::milliseconds(1);

}  // namespace

Reader::Reader(Mix mix, int id, Connection db, const Clients& clients)
    : mix_(mix),
      id_(id),
      db_(std::move(db)),
      clients_(clients),
      random_(static_cast<unsigned>(id)),
      select_(Prepare(db_.get(),
                      "SELECT seq, payload FROM t WHERE writer = ?1 AND seq <= ?2"
                      " ORDER BY seq DESC LIMIT 1")),
      expected_(PayloadSizeOf(mix)) {}

void Reader::Run(const End& end) {
  auto writer = static_cast<size_t>(id_);
  while (!end.IsHere()) {
    if (!ReadOne(writer++ % clients_.size())) return;
    std::this_thread::sleep_for(kPause);
  }
}

bool Reader::ReadOne(size_t writer) {
  const int64_t acknowledged = clients_[writer]->live_commits();
  // The last of these rows that there is.
  int64_t through = std::numeric_limits<int64_t>::max();
  if (mix_ != Mix::kReadersOfNewest && acknowledged > 0) {
    through = static_cast<int64_t>(random_()) % acknowledged;
  }
  const int64_t at_least = std::min(through, acknowledged - 1);
  const auto start = Clock::now();
  sqlite3_bind_int64(select_.get(), 1, static_cast<int64_t>(writer));
  sqlite3_bind_int64(select_.get(), 2, through);
  const int rc = sqlite3_step(select_.get());
  const bool ok = rc == SQLITE_ROW ? Check(writer, at_least) : acknowledged == 0;
  if (rc == SQLITE_DONE && !ok) NoteError("no row of writer " + std::to_string(writer));
  const int end = sqlite3_reset(select_.get());
  latencies_.Record(Clock::now() - start);
  if (end != SQLITE_OK) NoteError(sqlite3_errmsg(db_.get()));
  return error_.empty();
}

bool Reader::Check(size_t writer, int64_t at_least) {
  const int64_t seq = sqlite3_column_int64(select_.get(), 0);
  FillPayload(static_cast<int64_t>(writer), seq, expected_);
  const void* payload = sqlite3_column_blob(select_.get(), 1);
  if (seq < at_least) {
    NoteError("an acknowledged row of writer " + std::to_string(writer) + " cannot be read");
  } else if (sqlite3_column_bytes(select_.get(), 1) != static_cast<int>(expected_.size()) ||
             std::memcmp(payload, expected_.data(), expected_.size()) != 0) {
    NoteError("a row of writer " + std::to_string(writer) + " has a wrong content");
  }
  return error_.empty();
}

void Reader::NoteError(const std::string& what) {
  if (error_.empty()) error_ = "reader " + std::to_string(id_) + ": " + what;
}

}  // namespace groupcommit::bench
