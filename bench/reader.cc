#include "reader.h"

#include <cstring>
#include <thread>

namespace groupcommit::bench {
namespace {

// Between two reads. Readers that never pause would leave the writers no processor, and the result
// would tell about the scheduler.
constexpr auto kPause = std::chrono::milliseconds(1);

}  // namespace

Reader::Reader(int id, Connection db, const Clients& clients)
    : id_(id),
      db_(std::move(db)),
      clients_(clients),
      select_(Prepare(db_.get(),
                      "SELECT seq, payload FROM t WHERE writer = ?1 ORDER BY seq DESC LIMIT 1")),
      expected_(PayloadSizeOf(Mix::kReaders)) {}

void Reader::Run(const End& end) {
  auto writer = static_cast<size_t>(id_);
  while (!end.IsHere()) {
    if (!ReadNewest(writer++ % clients_.size())) return;
    std::this_thread::sleep_for(kPause);
  }
}

bool Reader::ReadNewest(size_t writer) {
  const int64_t acknowledged = clients_[writer]->live_commits();
  const auto start = Clock::now();
  sqlite3_bind_int64(select_.get(), 1, static_cast<int64_t>(writer));
  const int rc = sqlite3_step(select_.get());
  const bool ok = rc == SQLITE_ROW ? Check(writer, acknowledged) : acknowledged == 0;
  if (rc == SQLITE_DONE && !ok) NoteError("no row of writer " + std::to_string(writer));
  const int end = sqlite3_reset(select_.get());
  latencies_.Record(Clock::now() - start);
  if (end != SQLITE_OK) NoteError(sqlite3_errmsg(db_.get()));
  return error_.empty();
}

bool Reader::Check(size_t writer, int64_t acknowledged) {
  const int64_t seq = sqlite3_column_int64(select_.get(), 0);
  FillPayload(static_cast<int64_t>(writer), seq, expected_);
  const void* payload = sqlite3_column_blob(select_.get(), 1);
  if (seq < acknowledged - 1) {
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
