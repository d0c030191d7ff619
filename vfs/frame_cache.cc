#include "frame_cache.h"

#include <cstring>
#include <new>
#include <utility>

namespace groupcommit {

void FrameCache::Reserve() {
  MutexLock lock(mutex_);
  if (slots_ != nullptr) return;
  std::unique_ptr<Slot[]> slots(new (std::nothrow) Slot[kMostSlots]);
  pages_.reset(new (std::nothrow) uint8_t[kBytes]);
  if (pages_ != nullptr) slots_ = std::move(slots);
}

void FrameCache::OnCommit(const State& before, const State& after, const Frames& frames,
                          int page_size) {
  const Chain chain = Continue(before, after, static_cast<size_t>(page_size));
  if (chain == 0) return;
  const int frame_size = frames.header_size + page_size;
  for (int i = 0; i < frames.count; i++) {
    Store(chain, frames.first + static_cast<uint32_t>(i),
          frames.bytes + static_cast<ptrdiff_t>(i) * frame_size + frames.header_size);
  }
}

// Returns the chain that `after` belongs to: a new one, if it does not follow upon `before` there.
FrameCache::Chain FrameCache::Continue(const State& before, const State& after, size_t page_size) {
  MutexLock lock(mutex_);
  if (slots_ == nullptr || page_size < kSmallestPage) return 0;
  if (page_size_ == 0) {
    page_size_ = page_size;
    slot_count_ = kBytes / page_size;
  }
  if (page_size_ != page_size) {
    is_alive_ = false;
    return 0;
  }
  const State last = {salts_, last_change_, sums_[last_change_ % kSums]};
  const bool follows =
      is_alive_ && before == last && after.salts == salts_ && after.change == last_change_ + 1;
  if (!follows) {
    newest_++;
    salts_ = after.salts;
    first_change_ = after.change;
    is_alive_ = true;
  }
  last_change_ = after.change;
  sums_[last_change_ % kSums] = after.sum;
  return newest_;
}

void FrameCache::Store(Chain chain, uint32_t frame, const uint8_t* page) {
  constexpr int kTries = 50;
  Slot& slot = SlotOf(frame);
  int nobody = 0;
  // Acquire: pairs with the release of the last reader.
  for (int i = 0; !slot.users.compare_exchange_strong(nobody, -1, std::memory_order_acquire); i++) {
    if (i == kTries) return;  // what is there stays as good as it was
    nobody = 0;
  }
  slot.chain = chain;
  slot.frame = frame;
  std::memcpy(PageOf(frame), page, page_size_);
  slot.users.store(0, std::memory_order_release);
}

void FrameCache::Forget() {
  MutexLock lock(mutex_);
  is_alive_ = false;
}

FrameCache::Chain FrameCache::ChainOf(const State& snapshot) NO_THREAD_SAFETY_ANALYSIS {
  if (!mutex_.TryLock()) return 0;
  const bool is_ours = is_alive_ && snapshot.salts == salts_ &&
                       snapshot.change - first_change_ <= last_change_ - first_change_ &&
                       last_change_ - snapshot.change < kSums &&
                       snapshot.sum == sums_[snapshot.change % kSums];
  const Chain chain = is_ours ? newest_ : 0;
  mutex_.Unlock();
  return chain;
}

bool FrameCache::Read(Chain chain, uint32_t frame, void* page, int size) const {
  if (chain == 0 || static_cast<size_t>(size) != page_size_) return false;
  Slot& slot = SlotOf(frame);
  int users = slot.users.load(std::memory_order_relaxed);
  do {
    if (users < 0) return false;
    // Acquire: pairs with the release in Store().
  } while (!slot.users.compare_exchange_weak(users, users + 1, std::memory_order_acquire,
                                             std::memory_order_relaxed));
  const bool found = slot.chain == chain && slot.frame == frame;
  if (found) std::memcpy(page, PageOf(frame), page_size_);
  slot.users.fetch_sub(1, std::memory_order_release);
  return found;
}

}  // namespace groupcommit
