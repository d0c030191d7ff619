// Coordinator: whether a leader waits for company, for how much of it, and for how long; and how
// those wait who follow it.
#include <algorithm>
#include <limits>
#include <utility>

#include "coordinator.h"
#include "moving_average.h"

namespace groupcommit {

void Coordinator::OpenWindow(Waiter* keeper) {
  keeper_ = keeper;
  window_full_at_ = CoveredThrough() + CompanyWanted();
  next_look_at_ = NextLook();
  window_begun_at_ = clock_->NowNanos();
  window_ends_at_.store(WindowEnds(), std::memory_order_relaxed);
  keeper->Set(Waiter::kKeeping);
}

// The caller leads, as the company is complete, or is not waited for.
void Coordinator::TakeOver() {
  if (CompanyIsHere()) {
    stats_->windows_filled.Add();
    company_came_ = true;
  }
  std::exchange(keeper_, nullptr)->Set(Waiter::kFollowing);
}

// The keeper leads.
void Coordinator::EndWindow() {
  Waiter* keeper = std::exchange(keeper_, nullptr);
  appointed_ = true;
  Dequeue(keeper);
  keeper->Set(Waiter::kLeading);
  if (keeper->dozes) window_cond_.SignalAll();
}

// Somebody else has come. Under `auto` the window may have become shorter, which the keeper has to
// learn while it dozes; but not each time.
void Coordinator::OnCompany() {
  if (appended() < next_look_at_) return;
  next_look_at_ = NextLook();
  const int64_t ends_at = WindowEnds();
  if (ends_at >= window_ends_at_.load(std::memory_order_relaxed)) return;
  window_ends_at_.store(ends_at, std::memory_order_relaxed);
  if (keeper_->dozes) window_cond_.SignalAll();
}

// The keeper waits, not necessarily until the end, or ends the window. It takes no lock while it
// gives way, as those who are to come need it.
void Coordinator::KeepWindow(Waiter* self) {
  const int64_t now = clock_->NowNanos();
  const int64_t left = window_ends_at_.load(std::memory_order_relaxed) - now;
  if (left > 0 && clock_->TooShortToPark(left) && MayGiveWay(now)) {
    GiveWay(now);
    return;
  }
  MutexLock lock(mutex_);
  if (self->state.load(std::memory_order_relaxed) != Waiter::kKeeping) return;
  const int64_t ends_at = WindowEnds();  // may be later than it was: somebody has come
  window_ends_at_.store(ends_at, std::memory_order_relaxed);
  if (clock_->NowNanos() < ends_at) {
    self->dozes = true;
    clock_->ParkUntil(window_cond_, mutex_, ends_at);
    self->dozes = false;
  } else {
    stats_->windows_expired.Add();
    company_came_ = false;
    EndWindow();
  }
}

int64_t Coordinator::WindowEnds() const {
  return std::min(window_begun_at_ + WindowNanos(), PatienceEnds());
}

// When twice as many are there.
Lsn Coordinator::NextLook() const {
  const Lsn from = CoveredThrough();
  return from + 2 * std::max<Lsn>(appended() - from, 1);
}

bool Coordinator::CompanyIsHere() const {
  if (keeper_ != nullptr) return appended() >= window_full_at_;
  const Lsn wanted = CompanyWanted();
  return wanted <= 1 || appended() >= CoveredThrough() + wanted;
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
      return PaysToWait() ? GroupSize() : 1;
  }
  return 1;
}

// How many syncs may be under way at a time for those that wait.
int Coordinator::MostLeaders() const {
  if (policy_.kind != FlushPolicy::Kind::kAuto) return 1;
  return overlap_.Most();
}

// The commits in flight are in as many groups as there may be syncs under way.
Lsn Coordinator::GroupSize() const {
  const auto groups = static_cast<Lsn>(MostLeaders());
  return std::min(in_flight_, std::max<Lsn>((in_flight_ + groups - 1) / groups, 2));
}

// Without a wait, writers that were served by one sync and those that came while it ran take turns
// for ever, and every commit waits for two syncs: K writers commit once each in the time of two. If
// the leader waits until all K have come, they do so in the time of one sync and of their coming,
// one after the other. That is less if all come in less than a sync.
bool Coordinator::PaysToWait() const {
  return static_cast<int64_t>(GroupSize()) * append_nanos_ < sync_nanos_;
}

int64_t Coordinator::WindowNanos() const {
  constexpr int64_t kNanosPerMicro = 1000;
  constexpr int64_t kTimeToSleepNanos = 400'000;
  if (policy_.kind == FlushPolicy::Kind::kGroup) return policy_.max_wait_us * kNanosPerMicro;
  const int64_t usual = sync_nanos_ / 2;
  return IsForOneMore() ? std::max(usual, std::min(4 * sync_nanos_, kTimeToSleepNanos)) : usual;
}

// Does a window wait for a second writer, who came in time for the last one? Its keeper is better
// asleep, for which there is no time in a short one.
bool Coordinator::IsForOneMore() const { return in_flight_ < kFew && company_came_; }

// One more commit in the batch is spared a sync's time, and all that wait for it lose what it takes
// to come: it is worth that only if it takes less than their part of a sync.
int64_t Coordinator::PatienceEnds() const {
  if (policy_.kind != FlushPolicy::Kind::kAuto || IsForOneMore()) {
    return std::numeric_limits<int64_t>::max();
  }
  const auto pending = static_cast<int64_t>(std::max<Lsn>(appended() - CoveredThrough(), 1));
  const int64_t last = std::max(window_begun_at_, last_append_at_.load(std::memory_order_relaxed));
  return last + sync_nanos_ / pending;
}

// Those who give way find out by themselves, and keep the processors from falling asleep: the
// leader need not wake them up. A few are enough for that.
void Coordinator::GiveWayOrPark(const Waiter& self) {
  constexpr int kMostYielding = 4;
  if (self.yields_until != 0) {
    const bool gives_way = yielding_.fetch_add(1, std::memory_order_relaxed) < kMostYielding;
    int64_t now = clock_->NowNanos();
    while (gives_way && self.state.load(std::memory_order_relaxed) == Waiter::kFollowing &&
           now < self.yields_until) {
      now = GiveWay(now);
    }
    yielding_.fetch_sub(1, std::memory_order_relaxed);
  }
  self.state.wait(Waiter::kFollowing, std::memory_order_acquire);
}

// Returns what time it is after that, if it was `now` before. If it took long, somebody else needs
// the processor: who gives way to that one finds out late, while who is woken from sleep goes
// first.
int64_t Coordinator::GiveWay(int64_t now) {
  constexpr int64_t kLongNanos = 1'000'000;
  constexpr int64_t kPauseNanos = 50'000'000;
  clock_->Yield();
  const int64_t after = clock_->NowNanos();
  if (after - now > kLongNanos) {
    no_yield_until_.store(after + kPauseNanos, std::memory_order_relaxed);
  }
  return after;
}

// Until when a follower gives way to others rather than parks. An idle processor may take longer to
// wake up than a short sync takes.
int64_t Coordinator::YieldsUntil() const {
  constexpr int64_t kShortSyncNanos = 300'000;
  if (in_flight_ < kFew || sync_nanos_ > kShortSyncNanos) return 0;
  const int64_t now = clock_->NowNanos();
  return MayGiveWay(now) ? now + 2 * sync_nanos_ : 0;
}

// What a sync teaches that began when `from` was the durable tail.
void Coordinator::LearnFrom(Lsn from, int64_t sync_nanos) {
  const Lsn through = appended();
  in_flight_ = through - from;  // those it covered, and those that came while it ran
  SmoothWithin(8, &sync_nanos_, sync_nanos);
  if (in_flight_ > 1) LearnPace(through - first_since_.load(std::memory_order_relaxed) + 1);
  first_since_.store(through + 1, std::memory_order_relaxed);
  ended_at_ = clock_->NowNanos();
}

// What it teaches of syncs that are under way at a time: `leaders` were when this one had begun.
void Coordinator::LearnOverlap(int leaders, int64_t sync_nanos, bool independent) {
  if (policy_.kind != FlushPolicy::Kind::kAuto) return;
  const SyncOverlap::Load load = {.in_flight = static_cast<int64_t>(in_flight_),
                                  .apart_nanos = append_nanos_};
  overlap_.Learn(leaders, sync_nanos, load, independent);
  overlap_is_wanted_.store(overlap_.is_wanted(), std::memory_order_relaxed);
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
