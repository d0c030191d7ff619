// What a disk holds of one file: the bytes that a sync has made durable, and
// the writes and truncations since, which a power cut may take away.
//
// A plain value; whoever shares one between threads brings the lock.
#ifndef GROUPCOMMIT_TESTS_SUPPORT_FILE_IMAGE_H_
#define GROUPCOMMIT_TESTS_SUPPORT_FILE_IMAGE_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <random>
#include <vector>

namespace groupcommit::testing {

using Bytes = std::vector<uint8_t>;

// What a power cut leaves of the writes that no sync has covered.  SQLite has
// to survive every one of these: a disk may write what it likes before a sync.
enum class CutMode {
  kDropUnsynced,  // none of them
  kKeepRandom,    // each of them with probability 1/2, independently
  kKeepAll,       // all of them, in order
};

// How a sync ended, for the writes that it covers.
enum class SyncEnd {
  kDurable,  // they are on disk
  kLost,     // it failed and their pages count as clean (Linux, "fsyncgate"):
             // no later sync writes them unless they are written again
  kPending,  // it failed and a later sync tries them again
};

class FileImage {
 public:
  // A sync in progress: everything recorded before BeginSync() returned it.
  using Mark = uint64_t;

  explicit FileImage(Bytes durable = {}) : durable_(std::move(durable)) {}

  // Record a change of the file, after it was made.
  void Write(int64_t offset, const void* data, size_t size);
  void Truncate(int64_t size);

  // A sync covers what was recorded before it began, however many others run
  // at the same time and in whatever order they end.  Each BeginSync() is
  // followed by exactly one EndSync() with its mark.
  Mark BeginSync();
  void EndSync(Mark mark, SyncEnd end);

  const Bytes& durable() const { return durable_; }
  size_t unsynced_changes() const { return pending_.size(); }
  size_t unsynced_bytes() const { return pending_bytes_; }

  // What is left of the file if the power goes now.
  Bytes AfterCut(CutMode mode, std::mt19937_64& random) const;

 private:
  struct Change {
    uint64_t number;
    bool truncation;
    int64_t offset;  // of the first byte; a truncation's new size
    Bytes bytes;
  };

  static void Apply(const Change& change, Bytes& image);
  void Append(Change change);
  void Compact();

  Bytes durable_;
  std::deque<Change> pending_;  // ascending numbers
  uint64_t next_number_ = 0;
  size_t pending_bytes_ = 0;
  size_t compact_at_bytes_ = kCompactAtBytes;
  int syncs_running_ = 0;

  // Unsynced bytes from which overwritten ones are thrown away.
  static constexpr size_t kCompactAtBytes = size_t{16} << 20;
};

}  // namespace groupcommit::testing

#endif  // GROUPCOMMIT_TESTS_SUPPORT_FILE_IMAGE_H_
