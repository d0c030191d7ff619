// Record: what happened to the files of a database, and what the world was told of it, in one
// order.
//
// It lies in shared memory, so that a process and those that it forks write into the same record.
// When all of them are done, replay.h makes of it the disk as a power cut at any point leaves it.
#ifndef GROUPCOMMIT_TESTS_LABORATORY_RECORD_H_
#define GROUPCOMMIT_TESTS_LABORATORY_RECORD_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace groupcommit::testing {

// Commits are known by a number of their own: of the writer, and its how-manieth attempt.
using CommitId = int64_t;
constexpr CommitId IdOf(int writer, int attempt) { return writer * CommitId{1'000'000} + attempt; }

struct Event {
  enum Kind : uint32_t {
    kCreate,     // `file` came into being, or was first opened; data: its path, a zero, its content
    kWrite,      // data at offset `a`; recorded when it was over
    kTruncate,   // to size `a`
    kDelete,     // at once durable, as is creation
    kSyncBegin,  // sync number `a`
    kSyncEnd,    // sync number `a`; `b`: it succeeded
    kAcknowledged,  // COMMIT of `a` returned SQLITE_OK; in database `file`, `b`: it must survive
    kGone,          // attempt `a` at database `file` ended with an error, or was rolled back
    kFlushBegin,    // flush number `a` of database `file` is asked for
    kFlushed,       // it succeeded: what had been acknowledged when it began must survive
    kSeen,          // a reader saw commit `a` of database `file`, which therefore must survive
    kMistake,       // something that must not happen; data: text
  };
  Kind kind;
  uint32_t file;
  int64_t a;
  int64_t b;
  uint64_t size;  // of the data that follows

  std::string_view data() const { return {reinterpret_cast<const char*>(this + 1), size}; }
};

class Record {
 public:
  Record();
  ~Record();
  Record(const Record&) = delete;
  Record& operator=(const Record&) = delete;

  // Forgets everything. `seed` decides what syncs do; see the setters. REQUIRES: no file is open.
  void Reset(uint64_t seed);
  uint64_t seed() const;
  // How long a sync takes, at most.
  void SetSyncMicros(int longest);
  // How many syncs of a log out of 1000 fail. Those of a database file do not: SQLite itself loses
  // commits if one does, since the next checkpoint goes on after what an earlier one has copied.
  void SetFailures(int of_log);
  // How many writes to a log out of 1000 fail, as the disk is full.
  void SetWriteFailures(int of_log);
  // Whether processes die. Then nothing happens between a change of a file and its record.
  void SetDeaths(bool deaths);
  // This process dies at once after it has had to do with the record so many times more.
  void DieAfter(int steps) { steps_left_ = steps; }

  // ---- While it is written; any thread of any of the processes ----

  void Append(Event::Kind kind, uint32_t file, int64_t a = 0, int64_t b = 0,
              std::string_view data = {});
  void Mistake(const std::string& text) { Append(Event::kMistake, 0, 0, 0, text); }

  // Calls `change()`, which returns an SQLite result code, and records what it did if it succeeded.
  template <class Change>
  int ChangeFile(Event::Kind kind, uint32_t file, int64_t a, std::string_view data, Change change) {
    // Only afterwards: a sync that begins in between need not cover it.
    const bool deaths = HasDeaths();
    if (deaths) Lock();
    const int rc = change();
    if (!deaths) Lock();
    if (rc == 0) AppendLocked(kind, file, a, 0, data, {});
    Unlock();
    return rc;
  }
  // Calls `open()`, which returns an SQLite result code, and makes `path` known if that opened it.
  template <class Open>
  int OpenFile(const char* path, Open open, uint32_t* file, uint32_t* errors) {
    Lock();
    const int rc = open();
    if (rc == 0) Known(path, file, errors);
    Unlock();
    return rc;
  }
  template <class Delete>
  int DeleteFile(const char* path, Delete remove) {
    Lock();
    const int rc = remove();
    if (rc == 0) Forget(path);
    Unlock();
    return rc;
  }

  // A sync of `file`, through a handle that has been told of `*errors` failed ones. Takes its time.
  // False if it fails: as with Linux, each handle that was open then is told of it, once.
  bool Sync(uint32_t file, bool is_log, uint32_t* errors);

  // How many of the `size` bytes of a write find room on the disk.
  int Room(bool is_log, int size);

  // Tells those who do something only while others work that these are done.
  void SetOver();
  bool IsOver() const;

  // ---- When it is finished ----

  // The events from the first one on; null after the last.
  const Event* First() const { return Next(nullptr); }
  const Event* Next(const Event* event) const;
  int64_t count() const;

  // To and from a file, to look at a state once more.
  bool Save(const std::string& path) const;
  bool Load(const std::string& path);

 private:
  struct Shared;

  bool HasDeaths() const;
  void Lock();
  void Unlock();
  void AppendLocked(Event::Kind kind, uint32_t file, int64_t a, int64_t b, std::string_view first,
                    std::string_view second);
  void Known(const char* path, uint32_t* file, uint32_t* errors);
  void Forget(const char* path);

  Shared* const shared_;
  char* const events_;
  int steps_left_ = 0;  // of this process; 0: any number. Guarded by the lock.
};

// A hash that makes good random numbers of counters (splitmix64).
constexpr uint64_t Mix(uint64_t x) {
  x += 0x9e3779b97f4a7c15u;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

// Random numbers that are the same with every standard library.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  uint64_t Next() { return Mix(state_++); }
  // 0 to n-1.
  int Below(int n) { return static_cast<int>(Next() % static_cast<uint64_t>(n)); }
  int Between(int low, int high) { return low + Below(high - low + 1); }
  bool OneIn(int n) { return Below(n) == 0; }

 private:
  uint64_t state_;
};

}  // namespace groupcommit::testing

#endif  // GROUPCOMMIT_TESTS_LABORATORY_RECORD_H_
