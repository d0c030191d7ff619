// Coordinator: those that wait for their commit, a list by age, and where they are kept when they
// do not: a wait allocates only where there were never as many at a time.
#include <memory>
#include <new>

#include "coordinator.h"

namespace groupcommit {

void Coordinator::Enqueue(Waiter* waiter) {
  waiter->next = nullptr;
  (newest_ == nullptr ? oldest_ : newest_->next) = waiter;
  newest_ = waiter;
}

// Takes the waiters whose outcome is known out of the queue and returns them as a list. Notes
// whether one of the others is in a hurry.
Coordinator::Waiter* Coordinator::TakeSettled() {
  Waiter* settled = nullptr;
  Waiter** settled_end = &settled;
  Waiter** link = &oldest_;
  newest_ = nullptr;
  somebody_hurries_ = false;
  while (Waiter* waiter = *link) {
    if (Settled(waiter->goal, &waiter->error)) {
      *link = waiter->next;
      if (waiter == keeper_ || waiter->dozes) {  // which looks at its state with the mutex held
        if (waiter == keeper_) keeper_ = nullptr;
        waiter->Set(Waiter::kSettled);
        window_cond_.SignalAll();
      } else {
        *settled_end = waiter;
        settled_end = &waiter->next;
      }
    } else {
      somebody_hurries_ = somebody_hurries_ || waiter->goal.at_once;
      newest_ = waiter;
      link = &waiter->next;
    }
  }
  *settled_end = nullptr;
  return settled;
}

void Coordinator::Dequeue(Waiter* waiter) {
  Waiter** link = &oldest_;
  Waiter* before = nullptr;
  while (*link != waiter) {
    before = *link;
    link = &before->next;
  }
  *link = waiter->next;
  if (newest_ == waiter) newest_ = before;
}

Coordinator::Waiter* Coordinator::NewWaiter() {
  // Acquire: pairs with the release in ReturnWaiter().
  if (free_ == nullptr) free_ = returned_.exchange(nullptr, std::memory_order_acquire);
  Waiter* waiter = free_;
  if (waiter != nullptr) {
    free_ = waiter->next;
  } else {
    try {
      waiters_.push_back(std::make_unique<Waiter>());
      waiter = waiters_.back().get();
    } catch (const std::bad_alloc&) {
      return nullptr;
    }
  }
  waiter->state.store(Waiter::kFollowing, std::memory_order_relaxed);
  waiter->error = 0;
  return waiter;
}

// Takes no lock: all that are woken come here at once, while others begin to wait.
void Coordinator::ReturnWaiter(Waiter* waiter) {
  waiter->next = returned_.load(std::memory_order_relaxed);
  while (!returned_.compare_exchange_weak(waiter->next, waiter, std::memory_order_release,
                                          std::memory_order_relaxed)) {
  }
}

// Each on a word of its own: nobody wakes up to find that it was not meant.
void Coordinator::WakeAll(Waiter* list) {
  while (list != nullptr) {
    Waiter* next = list->next;  // the waiter may be reused as soon as it is woken
    list->Set(Waiter::kSettled);
    list->Notify();
    list = next;
  }
}

}  // namespace groupcommit
