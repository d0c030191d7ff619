#include "coordinator.h"

#include <algorithm>
#include <memory>
#include <new>

namespace groupcommit {

Coordinator::Coordinator(Clock* clock, Statistics* stats, const SyncOverlap& overlap)
    : clock_(clock), stats_(stats), overlap_(overlap) {}

Coordinator::~Coordinator() = default;

void Coordinator::SetPolicy(const FlushPolicy& policy) {
  MutexLock lock(mutex_);
  if (policy_ == policy) return;
  policy_ = policy;
  if (keeper_ != nullptr) EndWindow();
}

void Coordinator::Reserve(size_t waiters) {
  MutexLock lock(mutex_);
  while (waiters_.size() < waiters) {
    waiters_.push_back(std::make_unique<Waiter>());
    waiters_.back()->next = free_;
    free_ = waiters_.back().get();
  }
  running_.reserve(waiters);
}

uint64_t Coordinator::SyncsBegun() const {
  MutexLock lock(mutex_);
  return begun_;
}

int64_t Coordinator::SyncNanos() const {
  MutexLock lock(mutex_);
  return sync_nanos_;
}

Lsn Coordinator::Append(uint64_t failures_before) {
  const int64_t now = clock_->NowNanos();
  last_append_at_.store(now, std::memory_order_relaxed);
  const Lsn lsn = tails_.appended.fetch_add(1, std::memory_order_seq_cst) + 1;
  if (lsn == first_since_.load(std::memory_order_relaxed)) {
    first_append_at_.store(now, std::memory_order_relaxed);
  }
  // Either a sync that fails now sees this commit and takes it away (Finish), or it is seen
  // here.
  if (tails_.failures.load(std::memory_order_seq_cst) != failures_before) return 0;
  return lsn;
}

int Coordinator::WaitDurable(Lsn target, Log* log, bool at_once) {
  return IsDurable(target) ? 0 : WaitInLine({.durable = target, .at_once = at_once}, log);
}

int Coordinator::WaitSynced(Lsn target, Log* log) {
  return synced() >= target ? 0 : WaitInLine({.synced = target, .at_once = true}, log);
}

std::optional<int> Coordinator::WaitSyncedUntil(Lsn target, uint64_t failures_before,
                                                int64_t deadline_nanos) {
  MutexLock lock(mutex_);
  int error;
  while (!Settled({.synced = target}, &error)) {
    if (failures() != failures_before) return last_error_;  // and the log has been repaired since
    if (clock_->NowNanos() >= deadline_nanos) return std::nullopt;
    clock_->WaitUntil(ended_cond_, mutex_, deadline_nanos);
  }
  return error;
}

int Coordinator::WaitInLine(const Goal& goal, Log* log) {
  waiting_.fetch_add(1, std::memory_order_relaxed);
  const int error = LeadOrFollow(goal, log);
  waiting_.fetch_sub(1, std::memory_order_relaxed);
  return error;
}

int Coordinator::LeadOrFollow(const Goal& goal, Log* log) NO_THREAD_SAFETY_ANALYSIS {
  mutex_.Lock();
  int error;
  if (Settled(goal, &error)) {
    mutex_.Unlock();
    return error;
  }
  const bool under_way = IsUnderWay(goal);
  if (!under_way && (keeper_ != nullptr || MayLead()) && (goal.at_once || CompanyIsHere())) {
    if (keeper_ != nullptr) TakeOver();
    return Lead(goal, log);
  }
  Waiter* self = NewWaiter();
  if (self == nullptr) {  // out of memory: do without the others
    mutex_.Unlock();
    const int sync_error = SyncNow(log, failures());
    MutexLock lock(mutex_);
    return Settled(goal, &error) ? error : sync_error;
  }
  self->goal = goal;
  self->yields_until = YieldsUntil();
  Enqueue(self);
  if (keeper_ != nullptr) {
    OnCompany();
  } else if (!under_way && MayLead()) {
    OpenWindow(self);
  }
  mutex_.Unlock();
  return Follow(self, log);
}

int Coordinator::Follow(Waiter* self, Log* log) NO_THREAD_SAFETY_ANALYSIS {
  while (true) {
    switch (self->state.load(std::memory_order_acquire)) {
      case Waiter::kKeeping:
        KeepWindow(self);
        break;
      case Waiter::kLeading: {
        const Goal goal = self->goal;
        ReturnWaiter(self);
        mutex_.Lock();
        appointed_ = false;
        return Lead(goal, log);
      }
      case Waiter::kSettled: {
        const int error = self->error;
        ReturnWaiter(self);
        return error;
      }
      default:
        GiveWayOrPark(*self);
    }
  }
}

// May one more sync begin beside those that are under way?
bool Coordinator::MayLead() const { return !appointed_ && leaders_ < MostLeaders(); }

// The leader's part: one sync, then the leadership goes to a waiter that no sync covers, if any.
int Coordinator::Lead(const Goal& goal, Log* log) {
  int error = 0;
  // Another sync may have settled everything in the meantime.
  if (!Settled(goal, &error)) {
    const Lsn from = durable();
    Running sync = Begin(*log, failures());
    const int leaders = ++leaders_;
    if (leaders > 1) stats_->overlapped_syncs.Add();
    mutex_.Unlock();
    int sync_error;
    const int64_t nanos = TimedSync(log, from, sync.through, &sync_error);
    mutex_.Lock();
    const int outcome = Finish(&sync, sync_error);
    leaders_--;
    if (outcome == 0 && sync.through > sync.tail) {
      LearnFrom(sync.tail, nanos);
      LearnOverlap(leaders, nanos, sync.sees_after != Log::kSeesNone);
    }
    // A commit is settled either way, as the sync went through it.
    if (!Settled(goal, &error)) error = outcome;
  }
  Waiter* settled = TakeSettled();
  Waiter* successor = AppointSuccessor();
  mutex_.Unlock();
  // The next sync should start before anybody else runs.
  if (successor != nullptr) successor->Notify();
  WakeAll(settled);
  return error;
}

// The oldest waiter that no sync covers leads the next one, or waits for company. It does not doze:
// who did is covered by the sync that ended its window. REQUIRES: TakeSettled() has just been
// called.
Coordinator::Waiter* Coordinator::AppointSuccessor() {
  if (keeper_ != nullptr || !MayLead()) return nullptr;
  Waiter* successor = oldest_;
  while (successor != nullptr && IsUnderWay(successor->goal)) successor = successor->next;
  if (successor == nullptr) return nullptr;
  if (somebody_hurries_ || CompanyIsHere()) {
    appointed_ = true;
    Dequeue(successor);
    successor->Set(Waiter::kLeading);
  } else {
    OpenWindow(successor);
  }
  return successor;
}

int Coordinator::SyncNow(Log* log, uint64_t failures_before) {
  Lsn from;
  Running sync;
  {
    MutexLock lock(mutex_);
    const int error = failure();
    if (error != 0) return error;
    if (failures() != failures_before) return last_error_;
    from = durable();
    sync = Begin(*log, failures_before);
  }
  int error;
  TimedSync(log, from, sync.through, &error);
  Waiter* settled;
  Waiter* successor;
  {
    MutexLock lock(mutex_);
    error = Finish(&sync, error);
    settled = TakeSettled();
    successor = AppointSuccessor();
  }
  if (successor != nullptr) successor->Notify();
  WakeAll(settled);
  return error;
}

// The tail is read here, after the wait for company and before the sync begins: the sync covers
// just the bytes that were in the log when it began.
Coordinator::Running Coordinator::Begin(const Log& log, uint64_t failures_before) {
  Running sync;
  sync.number = ++begun_;
  sync.through = appended();  // acquire: pairs with Append()
  sync.written = written();   // and with CountWritten()
  sync.failures_before = failures_before;
  sync.sees_after = log.SeesFailuresAfter();
  running_.push_back(sync);
  return sync;
}

// Returns how long it took, ns.
int64_t Coordinator::TimedSync(Log* log, Lsn from, Lsn through, int* error) {
  const int64_t start = clock_->NowNanos();
  *error = log->Sync(from, through);
  const int64_t nanos = clock_->NowNanos() - start;
  stats_->syncs.Add();
  stats_->sync.Record(nanos);
  if (*error != 0) stats_->failed_syncs.Add();
  return nanos;
}

// Settles what the sync has settled. Returns the error that it counts as: it counts as failed if
// another one has failed since it began, as the kernel may have told that one alone of the bytes
// that it lost.
int Coordinator::Finish(Running* sync, int error) {
  const auto self = [this, sync]() REQUIRES(mutex_) {
    return std::find_if(running_.begin(), running_.end(),
                        [sync](const Running& other) { return other.number == sync->number; });
  };
  self()->has_ended = true;
  ended_cond_.SignalAll();
  if (error != 0) {
    tails_.failures.fetch_add(1, std::memory_order_seq_cst);
    last_error_ = error;
  } else {
    AwaitOverlapping(*sync);
  }
  running_.erase(self());
  if (error == 0 && failures() != sync->failures_before) {
    error = last_error_;
    int settled;
    if (Settled({.durable = sync->through}, &settled)) return error;  // it has nothing to add
  }
  if (error == 0) {
    sync->tail = durable();
    AdvanceTails(*sync);
  } else if (failure() == 0) {
    // All that is not durable lies on top of the lost bytes, whenever it was appended.
    failure_.store(error, std::memory_order_seq_cst);
  }
  return error;
}

// Waits for those of the syncs that have begun by now of whose failure `sync` would not have been
// told: one of them may have failed already, without our knowing, and have lost what `sync` was to
// make durable. That is not so where each was told through a log of its own.
void Coordinator::AwaitOverlapping(const Running& sync) {
  const auto conceals = [&sync, last = begun_](const Running& other) {
    return !other.has_ended && other.number <= last &&
           (other.number <= sync.sees_after || other.sees_after == Log::kSeesNone);
  };
  while (std::any_of(running_.begin(), running_.end(), conceals)) ended_cond_.Wait(mutex_);
}

// The tails move by maximum: syncs may end in another order than they began.
void Coordinator::AdvanceTails(const Running& sync) {
  if (sync.through > sync.tail) {
    stats_->RecordBatch(sync.through - sync.tail);
    tails_.durable.store(sync.through, std::memory_order_release);
  }
  if (sync.written > synced()) {
    tails_.synced.store(sync.written, std::memory_order_release);
    ended_cond_.SignalAll();
  }
}

void Coordinator::AwaitSyncs() {
  MutexLock lock(mutex_);
  while (!std::all_of(running_.begin(), running_.end(),
                      [](const Running& sync) { return sync.has_ended; })) {
    ended_cond_.Wait(mutex_);
  }
}

bool Coordinator::Resume() {
  MutexLock lock(mutex_);
  const int error = failure();
  if (error == 0) return true;
  const Lsn after = tails_.durable.load(std::memory_order_relaxed);
  const Lsn through = appended();
  try {
    history_.push_back({after, through, error});
  } catch (const std::bad_alloc&) {
    return false;
  }
  // `failed` before `durable`: see IsDurable().
  tails_.failed.store(through, std::memory_order_relaxed);
  tails_.durable.store(through, std::memory_order_release);
  failure_.store(0, std::memory_order_release);
  return true;
}

bool Coordinator::FindFailure(Lsn target) const {
  MutexLock lock(mutex_);
  int error;
  return Settled({.durable = target}, &error) && error != 0;
}

// Is it decided what becomes of the goal? The failure of a commit is remembered for as long as
// anybody may ask.
bool Coordinator::Settled(const Goal& goal, int* error) const {
  *error = 0;
  if (durable() >= goal.durable && synced() >= goal.synced) {
    if (tails_.failed.load(std::memory_order_relaxed) < goal.durable) return true;
    for (const Failure& failure : history_) {
      if (failure.after < goal.durable && goal.durable <= failure.through) *error = failure.error;
    }
    return true;
  }
  *error = failure();
  return *error != 0;
}

// Is a sync under way that settles the goal when it ends?
bool Coordinator::IsUnderWay(const Goal& goal) const {
  return std::any_of(running_.begin(), running_.end(), [&](const Running& sync) {
    return sync.failures_before == failures() && sync.through >= goal.durable &&
           sync.written >= goal.synced;
  });
}

// The newest commit that is durable, or that a sync is under way for.
Lsn Coordinator::CoveredThrough() const {
  Lsn through = durable();
  for (const Running& sync : running_) through = std::max(through, sync.through);
  return through;
}

}  // namespace groupcommit
