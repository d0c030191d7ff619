// A log whose syncs the test holds, releases and fails, and a model of what survives a power cut.
#ifndef GROUPCOMMIT_TESTS_SUPPORT_FAKE_LOG_H_
#define GROUPCOMMIT_TESTS_SUPPORT_FAKE_LOG_H_

#include <gtest/gtest.h>

#include <condition_variable>
#include <cstddef>
#include <functional>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "coordinator.h"
#include "support/fake_clock.h"

namespace groupcommit::testing {

// What a device keeps of the commits written to it. A commit is durable once a sync that began
// after its last byte was written has succeeded. A failed sync loses all that is not durable by
// then, and no later sync brings it back. Not thread-safe.
class DurabilityModel {
 public:
  // The bytes of the commit that is going to be number `lsn`. In order, without gaps.
  void Write() { states_.push_back(kWritten); }

  // What the sync that begins now is going to cover.
  size_t BeginSync() const { return states_.size(); }

  void EndSync(size_t begin, bool ok) {
    const size_t end = ok ? begin : states_.size();
    for (size_t lsn = intact_ + 1; lsn < end; lsn++) {
      if (states_[lsn] == kWritten) states_[lsn] = ok ? kDurable : kLost;
    }
    MoveIntact();
  }

  // The log is put back to the commit `last`: what was written after it counts no longer.
  // False if that would not leave a whole log.
  bool RollBack(Lsn last) {
    for (size_t lsn = last + 1; lsn < states_.size(); lsn++) states_[lsn] = kRolledBack;
    MoveIntact();
    return intact_ + 1 == states_.size();
  }

  // The commit, the newest, is given up by its writer and counts no longer.
  void RollBackOne(Lsn lsn) {
    states_[lsn] = kRolledBack;
    MoveIntact();
  }

  // Would the commit be there after a power cut? A hole beneath it hides it.
  bool Survives(Lsn lsn) const { return lsn <= intact_ && states_[lsn] == kDurable; }
  // Would all commits up to it, but for those rolled back?
  bool AllSurviveThrough(Lsn lsn) const { return lsn <= intact_; }

 private:
  enum State : uint8_t { kWritten, kDurable, kLost, kRolledBack };

  void MoveIntact() {
    while (intact_ + 1 < states_.size() &&
           (states_[intact_ + 1] == kDurable || states_[intact_ + 1] == kRolledBack)) {
      intact_++;
    }
  }

  std::vector<State> states_{kDurable};  // by LSN; 0 is before every commit
  size_t intact_ = 0;                    // up to here there is no hole
};

class FakeLog final : public Coordinator::Log {
 public:
  struct Call {
    Lsn from;
    Lsn through;
    std::thread::id thread;
    size_t begin;  // what it covers, for the model
    bool ended_on_device = false;
  };

  // Syncs that begin from now on do not end before Finish().
  void HoldSyncs() {
    std::lock_guard lock(mutex_);
    holding_ = true;
  }
  // Ends the sync number `call`, counted from 0, with `error`. REQUIRES: it is held.
  void Finish(size_t call, int error = 0) {
    std::lock_guard lock(mutex_);
    outcomes_.at(call) = error;
    changed_.notify_all();
  }
  // It has ended with `error` on the device, but nobody knows yet: Sync() does not return before
  // Finish(), to be called with the same error. REQUIRES: it is held.
  void EndOnDevice(size_t call, int error) {
    std::lock_guard lock(mutex_);
    model_.EndSync(calls_.at(call).begin, error == 0);
    calls_.at(call).ended_on_device = true;
  }
  // Syncs that begin from now on end at once; those that are held stay so.
  void StopHolding() {
    std::lock_guard lock(mutex_);
    holding_ = false;
  }
  // Nothing is held any longer.
  void ReleaseAll() {
    std::lock_guard lock(mutex_);
    holding_ = false;
    for (std::optional<int>& outcome : outcomes_) outcome = outcome.value_or(0);
    changed_.notify_all();
  }
  // Of the syncs that are not held, the next one ends with `error`.
  void FailNext(int error) {
    std::lock_guard lock(mutex_);
    next_error_ = error;
  }
  // Called in each sync that is not held, after it has begun.
  void SetDuringSync(std::function<void()> during_sync) { during_sync_ = std::move(during_sync); }

  int Sync(Lsn from, Lsn through) override {
    std::unique_lock lock(mutex_);
    const size_t number = calls_.size();
    calls_.push_back({from, through, std::this_thread::get_id(), model_.BeginSync()});
    outcomes_.emplace_back();
    changed_.notify_all();
    if (holding_) {
      if (!changed_.wait_for(lock, kHangs, [&] { return outcomes_[number].has_value(); })) {
        ADD_FAILURE() << "nobody ends the sync number " << number;
        outcomes_[number] = 0;
      }
    } else {
      lock.unlock();
      if (during_sync_) during_sync_();
      lock.lock();
      outcomes_[number] = std::exchange(next_error_, 0);
    }
    const int error = *outcomes_[number];
    if (!calls_[number].ended_on_device) model_.EndSync(calls_[number].begin, error == 0);
    return error;
  }

  // Returns when so many syncs have begun; false if they do not.
  bool AwaitCalls(size_t count) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, kPatience, [&] { return calls_.size() >= count; });
  }
  size_t calls() {
    std::lock_guard lock(mutex_);
    return calls_.size();
  }
  Call call(size_t number) {
    std::lock_guard lock(mutex_);
    return calls_.at(number);
  }

  void Write() {
    std::lock_guard lock(mutex_);
    model_.Write();
  }
  bool RollBack(Lsn last) {
    std::lock_guard lock(mutex_);
    return model_.RollBack(last);
  }
  bool Survives(Lsn lsn) {
    std::lock_guard lock(mutex_);
    return model_.Survives(lsn);
  }
  bool AllSurviveThrough(Lsn lsn) {
    std::lock_guard lock(mutex_);
    return model_.AllSurviveThrough(lsn);
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  DurabilityModel model_;
  std::vector<Call> calls_;
  std::vector<std::optional<int>> outcomes_;  // of each call, once it is decided
  bool holding_ = false;
  int next_error_ = 0;
  std::function<void()> during_sync_;
};

}  // namespace groupcommit::testing

#endif  // GROUPCOMMIT_TESTS_SUPPORT_FAKE_LOG_H_
