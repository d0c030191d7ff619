// Coordinator: whether a leader waits for company, for how much of it, and for how long.
#include <algorithm>
#include <limits>

#include "coordinator.h"

namespace groupcommit {
namespace {

void Smooth(int64_t* average, int64_t sample) {
  constexpr int64_t kWeight = 8;
  *average = *average == 0 ? sample : *average + (sample - *average) / kWeight;
}

}  // namespace

// The leader's wait. Ends at the latest when the window runs out.
void Coordinator::AwaitCompany(const Goal& goal) {
  const Lsn wanted = CompanyWanted();
  if (wanted <= 1) return;
  const FlushPolicy policy = policy_;
  const Lsn from = durable();
  const int64_t begin = clock_->NowNanos();
  const int64_t deadline = begin + WindowNanos();
  bool full = false;
  bool expired = false;
  int error;
  while (!Settled(goal, &error) && policy_ == policy) {
    const Lsn look_at = from + std::min(wanted, NextLook(appended() - from));
    wake_leader_at_.store(look_at, std::memory_order_seq_cst);
    const Lsn tail = tails_.appended.load(std::memory_order_seq_cst);
    full = tail >= from + wanted;
    const int64_t until = std::min(deadline, PatienceEnds(begin));
    expired = !full && clock_->NowNanos() >= until;
    if (full || expired) break;
    if (tail < look_at) clock_->WaitUntil(window_cond_, mutex_, until);
  }
  wake_leader_at_.store(kNoWindow, std::memory_order_relaxed);
  if (full) stats_->windows_filled.Add();
  if (expired) stats_->windows_expired.Add();
}

// How many have to be there for the leader to look how long it still waits for more. Under `auto`
// that becomes less as they come.
Lsn Coordinator::NextLook(Lsn pending) const {
  return policy_.kind == FlushPolicy::Kind::kAuto ? 2 * std::max<Lsn>(pending, 1) : kNoWindow;
}

// With how many commits the leader would like to sync.
Lsn Coordinator::CompanyWanted() const {
  switch (policy_.kind) {
    case FlushPolicy::Kind::kOnEachFlush:
    case FlushPolicy::Kind::kInterval:
      return 1;
    case FlushPolicy::Kind::kGroup:
      return policy_.max_wait_us == 0 ? 1 : std::max<Lsn>(policy_.max_batch, 1);
    case FlushPolicy::Kind::kAuto:
      return PaysToWait() ? in_flight_ : 1;
  }
  return 1;
}

// Without a wait, writers that were served by one sync and those that came while it ran take turns
// for ever, and every commit waits for two syncs: K writers commit once each in the time of two. If
// the leader waits until all K have come, they do so in the time of one sync and of their coming,
// one after the other. That is less if all come in less than a sync.
bool Coordinator::PaysToWait() const {
  return static_cast<int64_t>(in_flight_) * append_nanos_ < sync_nanos_;
}

int64_t Coordinator::WindowNanos() const {
  constexpr int64_t kNanosPerMicro = 1000;
  if (policy_.kind == FlushPolicy::Kind::kGroup) return policy_.max_wait_us * kNanosPerMicro;
  return sync_nanos_ / 2;
}

// One more commit in the batch is spared a sync's time, and all that wait for it lose what it takes
// to come: it is worth that only if it takes less than their part of a sync. `begin` is when the
// wait began.
int64_t Coordinator::PatienceEnds(int64_t begin) const {
  if (policy_.kind != FlushPolicy::Kind::kAuto) return std::numeric_limits<int64_t>::max();
  const auto pending = static_cast<int64_t>(std::max<Lsn>(appended() - durable(), 1));
  const int64_t last = std::max(begin, last_append_at_.load(std::memory_order_relaxed));
  return last + sync_nanos_ / pending;
}

// What a sync teaches that began when `from` was the durable tail.
void Coordinator::LearnFrom(Lsn from, int64_t sync_nanos) {
  const Lsn through = appended();
  in_flight_ = through - from;  // those it covered, and those that came while it ran
  Smooth(&sync_nanos_, sync_nanos);
  if (in_flight_ > 1) LearnPace(through - first_since_.load(std::memory_order_relaxed) + 1);
  first_since_.store(through + 1, std::memory_order_relaxed);
  ended_at_ = clock_->NowNanos();
}

// How far apart did the `came` commits come that were appended since the last sync ended? What is
// more than a sync may as well be an hour.
void Coordinator::LearnPace(Lsn came) {
  if (came == 0) return;
  int64_t begin = ended_at_;
  if (came > 1) begin = std::max(begin, first_append_at_.load(std::memory_order_relaxed));
  const int64_t took = last_append_at_.load(std::memory_order_relaxed) - begin;
  const auto intervals = static_cast<int64_t>(std::max<Lsn>(came - 1, 1));
  Smooth(&append_nanos_, std::clamp<int64_t>(took / intervals, 0, sync_nanos_));
}

}  // namespace groupcommit
