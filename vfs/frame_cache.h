// FrameCache: the pages of the log that this process has written last, in memory.
//
// When another connection has committed, SQLite drops its page cache and reads again what it needs:
// for the most part pages that somebody in this process has just written. Copying one from here
// takes a fraction of a call of the file system, and a writer does it under the write lock.
//
// What makes a copy as good as the log: a frame does not change any more once its commit is
// published, for as long as all headers that follow are ours, one after the other. Such a series is
// a chain. It ends with the log (new salts), when another process has committed, and when commits
// are taken back; entries of a chain that has ended are shown to nobody who takes a snapshot later.
//
// Salts and change counter alone do not tell that a header is of the chain: another process that
// recovers the log keeps the salts, counts from 0 again (wal.c: walIndexRecover()), and may have
// found less than there was.
//
// Knows frames and headers by number, nothing of SQLite.
#ifndef GROUPCOMMIT_FRAME_CACHE_H_
#define GROUPCOMMIT_FRAME_CACHE_H_

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "mutex.h"

namespace groupcommit {

class FrameCache {
 public:
  static constexpr size_t kBytes = size_t{1} << 20;  // of pages

  // What the header of the log's index says.
  struct State {
    uint64_t salts = 0;   // the generation of the log
    uint32_t change = 0;  // one more with each header, but for a recovery
    uint64_t sum = 0;     // of the whole header
    friend bool operator==(const State&, const State&) = default;
  };

  // Names a chain; 0 is none.
  using Chain = uint64_t;

  // Frames as they lie in the log, each a header and a page. May be none.
  struct Frames {
    uint32_t first = 0;
    int count = 0;
    const uint8_t* bytes = nullptr;
    int header_size = 0;
  };

  FrameCache() = default;
  FrameCache(const FrameCache&) = delete;
  FrameCache& operator=(const FrameCache&) = delete;

  // Makes room. Until then, and without memory, nothing is kept. Any thread.
  void Reserve() EXCLUDES(mutex_);

  // A commit of this process has made the header `after` of the header `before`, and has written
  // `frames`, perhaps after others. REQUIRES: the write lock, so that nobody else commits.
  void OnCommit(const State& before, const State& after, const Frames& frames, int page_size)
      EXCLUDES(mutex_);

  // The chain ends.
  void Forget() EXCLUDES(mutex_);

  // The chain that a snapshot belongs to which has just been taken, or 0. Does not wait. Any
  // thread.
  Chain ChainOf(const State& snapshot) EXCLUDES(mutex_);

  // Copies the page of a frame; false if it is not here. REQUIRES: the frame is part of a snapshot
  // that belongs to `chain` and keeps the log from being started over. Does not wait. Any thread.
  bool Read(Chain chain, uint32_t frame, void* page, int size) const;

 private:
  struct alignas(64) Slot {
    std::atomic<int> users{0};  // who read it; -1: it is being written
    Chain chain = 0;
    uint32_t frame = 0;
  };
  static constexpr size_t kSmallestPage = 512;
  static constexpr size_t kMostSlots = kBytes / kSmallestPage;
  // How many of the newest headers are known. Whose snapshot is older reads the log itself.
  static constexpr uint32_t kSums = 256;

  Chain Continue(const State& before, const State& after, size_t page_size) EXCLUDES(mutex_);
  void Store(Chain chain, uint32_t frame, const uint8_t* page);
  Slot& SlotOf(uint32_t frame) const { return slots_[frame % slot_count_]; }
  uint8_t* PageOf(uint32_t frame) const { return &pages_[frame % slot_count_ * page_size_]; }

  Mutex mutex_;
  Chain newest_ GUARDED_BY(mutex_) = 0;  // chain that there was
  // The chain goes on: newest_, with these headers.
  bool is_alive_ GUARDED_BY(mutex_) = false;
  uint64_t salts_ GUARDED_BY(mutex_) = 0;
  uint32_t first_change_ GUARDED_BY(mutex_) = 0;
  uint32_t last_change_ GUARDED_BY(mutex_) = 0;
  std::array<uint64_t, kSums> sums_ GUARDED_BY(mutex_){};  // of the header `change`, modulo kSums

  // Written once, before there is a chain.
  std::unique_ptr<Slot[]> slots_;
  std::unique_ptr<uint8_t[]> pages_;
  size_t slot_count_ = 0;
  size_t page_size_ = 0;
};

}  // namespace groupcommit

#endif  // GROUPCOMMIT_FRAME_CACHE_H_
