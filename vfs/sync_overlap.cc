#include "sync_overlap.h"

#include <algorithm>

#include "moving_average.h"

namespace groupcommit {
namespace {

// In what time all that are in flight commit once, if up to `most` syncs are under way at a time:
// the members of a group come, one after the other, and then are synced. (If they come so slowly
// that no sync waits for all of its group, the next of the syncs begins sooner than that.) It is
// never less than the time in which all come.
int64_t Round(int64_t sync_nanos, int most, const SyncOverlap::Load& load) {
  const int64_t all_come = load.in_flight * load.apart_nanos;
  return std::max(all_come, sync_nanos + std::min(all_come, sync_nanos) / most);
}

// With syncs that take so many times as long it does not pay, whatever the load: see Round().
constexpr int64_t kHopeless = 2;

// More than groups of one, which would share their syncs with nobody.
constexpr int64_t kFewestInFlight = 6;

// Is it worth the processor's time that more syncs cost, and more than noise?
bool Pays(int64_t nanos_alone, int64_t nanos_beside, const SyncOverlap::Load& load) {
  const int64_t alone = Round(nanos_alone, 1, load);
  return nanos_beside >= SyncOverlap::kShortestNanos && load.in_flight >= kFewestInFlight &&
         Round(nanos_beside, SyncOverlap::kMost, load) < alone - alone / 16;
}

}  // namespace

int SyncOverlap::Most() const {
  return always_ || (overlaps_ && in_flight_ >= kFewestInFlight) ? kMost : 1;
}

void SyncOverlap::Learn(int under_way, int64_t nanos, const Load& now, bool independent) {
  constexpr int64_t kForgets = 8;
  if (always_) return;
  // Where groups of two sync, there are fewer in flight now and then, by chance.
  in_flight_ = std::max(now.in_flight, in_flight_ - (in_flight_ + kForgets - 1) / kForgets);
  const Load load = {.in_flight = in_flight_, .apart_nanos = now.apart_nanos};
  syncs_ = std::min(syncs_ + 1, kLongestPause);
  if ((under_way > 1) == overlaps_) {
    samples_ = std::min(samples_ + 1, kTrial);
    if (tries_ && overlaps_ && nanos >= kHopeless * nanos_alone_) slow_++;
    SmoothWithin(2, overlaps_ ? &nanos_beside_ : &nanos_alone_, nanos);
  }
  if (tries_) {
    if (syncs_ >= kTrial || IsHopeless()) EndTrial(load);
  } else if (overlaps_ && nanos_beside_ < kShortestNanos) {
    SwitchTo(false);
    pause_ = kShortestPause;
  } else if (syncs_ >= pause_ && (overlaps_ || Pays(nanos_alone_, nanos_alone_, load))) {
    is_wanted_ = true;
    if (!independent) return;
    SwitchTo(!overlaps_);
    (overlaps_ ? nanos_beside_ : nanos_alone_) = 0;
    tries_ = true;
  }
}

void SyncOverlap::SwitchTo(bool overlaps) {
  overlaps_ = overlaps;
  tries_ = false;
  is_wanted_ = overlaps;
  syncs_ = samples_ = slow_ = 0;
}

// One slow sync may have other reasons.
bool SyncOverlap::IsHopeless() const { return slow_ >= kFewest; }

void SyncOverlap::EndTrial(const Load& load) {
  const bool before = !overlaps_;
  const bool says_nothing = samples_ < kFewest;
  const bool after =
      says_nothing || IsHopeless() ? before : Pays(nanos_alone_, nanos_beside_, load);
  pause_ = after == before ? std::min(2 * pause_, kLongestPause) : kShortestPause;
  SwitchTo(after);
}

}  // namespace groupcommit
