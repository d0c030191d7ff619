// SyncOverlap: finds out whether it pays to have several syncs under way at a time.
//
// A disk with a volatile cache empties it for one sync after the other: two that overlap take
// twice as long as one. A network disk that writes through may serve several in the time of one.
// Then the commits in flight are better off in several groups, each of which syncs as soon as its
// own members have come, while the syncs of the others are under way. No disk says which kind it
// is. So both ways are tried from time to time, for a few syncs, and the better one is kept.
#ifndef GROUPCOMMIT_SYNC_OVERLAP_H_
#define GROUPCOMMIT_SYNC_OVERLAP_H_

#include <cstdint>

namespace groupcommit {

// A value; whoever has it sees to it that one thread at a time uses it.
class SyncOverlap {
 public:
  SyncOverlap() = default;
  // Lets them overlap always, and learns nothing.
  static SyncOverlap Always() { return SyncOverlap(true); }

  static constexpr int kMost = 4;  // more of them cost more of the processors than they gain
  // With shorter syncs than this the processors are what there is too little of.
  static constexpr int64_t kShortestNanos = 500'000;

  // What the syncs are for.
  struct Load {
    int64_t in_flight = 0;    // commits at a time
    int64_t apart_nanos = 0;  // how far apart they come after a sync
  };

  // How many syncs may be under way at a time.
  int Most() const;

  // A sync has taken `nanos`; when it began, `under_way` of those that share were, with itself.
  // They may overlap only if they are `independent`.
  void Learn(int under_way, int64_t nanos, const Load& now, bool independent);

  // Does it matter now whether they are?
  bool is_wanted() const { return is_wanted_; }

  // How many syncs a trial of the other way takes, unless so few of them show that it is of no use;
  // and how many lie between two trials, first and when none of them has changed anything for long.
  static constexpr int kTrial = 16;
  static constexpr int kFewest = 4;
  static constexpr int kShortestPause = 64;
  static constexpr int kLongestPause = 1024;

 private:
  explicit SyncOverlap(bool always) : always_(always) {}
  void SwitchTo(bool overlaps);
  bool IsHopeless() const;
  void EndTrial(const Load& load);

  bool always_ = false;
  bool overlaps_ = false;  // the way that is in use, by trial or for good
  bool tries_ = false;
  bool is_wanted_ = false;
  int syncs_ = 0;    // since the trial or the pause has begun
  int samples_ = 0;  // those of them that began as overlaps_ says
  int slow_ = 0;     // and, in a trial of that, took much longer than alone
  int pause_ = kShortestPause;
  int64_t in_flight_ = 0;     // the most of late
  int64_t nanos_alone_ = 0;   // that a sync takes; smoothed
  int64_t nanos_beside_ = 0;  // and one beside others
};

}  // namespace groupcommit

#endif  // GROUPCOMMIT_SYNC_OVERLAP_H_
