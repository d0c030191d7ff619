// Replay: from a record, the disk as a power cut leaves it.
#ifndef GROUPCOMMIT_TESTS_LABORATORY_REPLAY_H_
#define GROUPCOMMIT_TESTS_LABORATORY_REPLAY_H_

#include <array>
#include <cstdint>
#include <deque>
#include <map>
#include <set>
#include <string>
#include <unordered_set>
#include <vector>

#include "laboratory/record.h"

namespace groupcommit::testing {

using Bytes = std::vector<uint8_t>;

// What is left of the changes that no sync has covered. A sector is as it was after one of the
// changes or as it was on the disk; never anything else (SQLITE_IOCAP_POWERSAFE_OVERWRITE).
enum class Survivors {
  kNone,
  kAll,
  kPrefix,       // those up to one, of which only the first or the last sectors were written
  kSectors512,   // of each sector an old, the newest or any version; the size as well
  kSectors4096,  // the same, with larger sectors
};
inline constexpr int kSurvivorKinds = 5;

struct Cut {
  int64_t point = 0;  // so many events have happened
  Survivors survivors = Survivors::kNone;
  uint64_t seed = 0;
};

// What must be in a database after the power cut, and what must not.
struct Knowledge {
  std::unordered_set<CommitId> acknowledged;
  std::unordered_set<CommitId> seen;
  std::unordered_set<CommitId> gone;
  // Acknowledged without having to survive a power cut (synchronous=NORMAL or OFF).
  std::unordered_set<CommitId> without_sync;
  std::vector<CommitId> in_turn;      // the same, in the order of their acknowledgements
  std::map<int64_t, size_t> flushes;  // how many of them each flush found
};
inline constexpr int kDatabases = 2;

class Replay {
 public:
  // `record` is finished, and outlives the replay. Begins before the first event.
  explicit Replay(const Record* record) : record_(record) {}

  // Goes on until `point` events have happened. REQUIRES: not back.
  void AdvanceTo(int64_t point);

  // The disk after a power cut now: path -> content.
  std::map<std::string, Bytes> Disk(Survivors survivors, uint64_t seed) const;
  // The files as the machine itself sees them: what a failed sync has dropped is there.
  std::map<std::string, Bytes> Files() const;

  const Knowledge& knowledge(int database) const {
    return knowledge_[static_cast<size_t>(database)];
  }

 private:
  struct Change {
    int64_t number;  // of the event
    bool truncation;
    int64_t offset;  // a truncation's size
    const uint8_t* data;
    size_t size;
    Bytes own;  // where `data` is not in the record
  };
  using Changes = std::deque<Change>;
  struct File {
    std::string path;
    bool exists = true;
    Bytes durable;
    Bytes cache;  // as the machine sees it
    Changes pending;
    std::set<int64_t> lost_pages;      // not as in `durable`, and yet clean
    std::map<int64_t, int64_t> syncs;  // under way: number -> the event with which it began
  };

  void Apply(const Event& event);
  static void Acknowledge(Knowledge& known, CommitId id, bool survives);
  void Write(File& file, const Event& event);
  void EndSync(File& file, const Event& event);
  static void ApplyTo(Bytes& image, const Change& change);
  static Bytes Left(const Bytes& durable, const Changes& pending, Survivors survivors,
                    Random& random);
  static Bytes LeftSectors(const Bytes& durable, const Changes& pending, size_t sector,
                           Random& random);

  const Record* const record_;
  const Event* last_ = nullptr;
  int64_t point_ = 0;
  std::map<uint32_t, File> files_;
  std::array<Knowledge, kDatabases> knowledge_;
};

}  // namespace groupcommit::testing

#endif  // GROUPCOMMIT_TESTS_LABORATORY_REPLAY_H_
