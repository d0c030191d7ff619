// A pass-through VFS that counts the syncs of WAL files and can make each of them slower.
//
// It goes below everything that is compared, stock SQLite and the shim alike: syncs are counted at
// the same place for all of them, by somebody who has no interest in the result.
#ifndef GROUPCOMMIT_BENCH_DELAY_VFS_H_
#define GROUPCOMMIT_BENCH_DELAY_VFS_H_

#include <sqlite3.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <mutex>
#include <string>

namespace groupcommit::bench {

// Registered with SQLite while the object lives, which must be longer than any file opened through
// it. Only WAL files are wrapped; all others are the base's own, at no cost.
class DelayVfs {
 public:
  // A delay that stands for no sync at all: what is left is the cost of everything else.
  static constexpr std::chrono::microseconds kSkipSync{-1};

  enum class Kind : uint8_t {
    kParallel,  // syncs overlap in time: a network disk that writes through
    kSerial,    // one after the other: a disk that empties its cache for each of them
    kChanging,  // as kParallel for kPhase, and then no delay, by turns
  };
  static constexpr std::chrono::milliseconds kPhase{100};

  // Wraps the default VFS. Each sync of a WAL takes `delay` longer than the base's own. Throws
  // std::runtime_error when SQLite refuses to register it.
  explicit DelayVfs(const std::string& name,
                    std::chrono::microseconds delay = std::chrono::microseconds{0},
                    Kind kind = Kind::kParallel);
  ~DelayVfs();

  DelayVfs(const DelayVfs&) = delete;
  DelayVfs& operator=(const DelayVfs&) = delete;

  const std::string& name() const { return name_; }

  // Syncs of WAL files passed to the base so far, by all connections. Any thread.
  int64_t wal_syncs() const { return wal_syncs_.load(std::memory_order_relaxed); }

  // The base's sync of `wal`, counted and delayed. Any thread.
  int SyncWal(sqlite3_file* wal, int flags);

  // Are the syncs of `wal`, at `path`, independent? Those of a disk that is made up here are; else
  // the shim's own judgement of the disk beneath.
  bool EachHandleIsTold(sqlite3_file* wal, const char* path) const;

  // While it is on, nobody sleeps longer than a millisecond at a time. SQLite's busy handler sleeps
  // through its connection's VFS, counts its calls, not the time, and cannot be interrupted: this
  // is how a run ends promptly whose connections sleep 100 ms between two attempts. Any thread.
  void SetHurry(bool hurry) { hurry_.store(hurry, std::memory_order_relaxed); }

  // The base's sleep, shortened when in a hurry. Any thread.
  int Sleep(int microseconds);

  sqlite3_vfs* base() const { return base_; }

 private:
  const std::string name_;
  const std::chrono::microseconds delay_;
  const Kind kind_;
  sqlite3_vfs* const base_;
  sqlite3_vfs vfs_{};
  std::mutex one_by_one_;              // Held for a delay of kSerial.
  std::atomic<int64_t> wal_syncs_{0};  // A statistic: orders nothing.
  std::atomic<bool> hurry_{false};     // Alone in what it says: orders nothing.
};

}  // namespace groupcommit::bench

#endif  // GROUPCOMMIT_BENCH_DELAY_VFS_H_
