// Counters and distributions that are cheap enough to be always on: relaxed atomics, no locks.
#ifndef GROUPCOMMIT_STATISTICS_H_
#define GROUPCOMMIT_STATISTICS_H_

#include <array>
#include <atomic>
#include <cstdint>
#include <string>

#include "groupcommit.h"

namespace groupcommit {

class Counter {
 public:
  void Add(int64_t n = 1) { value_.fetch_add(n, std::memory_order_relaxed); }
  int64_t Get() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<int64_t> value_{0};
};

// A distribution of durations in buckets that are at most 1/16 wide: a quantile is at most 6.25 %
// too high. Durations of 2^40 ns (18 minutes) and more share the last bucket; the maximum is exact.
class LatencyHistogram {
 public:
  void Record(int64_t nanos);
  groupcommit_latency Summary() const;

 private:
  static constexpr int kSubBits = 4;
  static constexpr int kSub = 1 << kSubBits;
  static constexpr int kMaxBits = 40;
  static constexpr int kBuckets = (kMaxBits - kSubBits + 1) * kSub;

  static int BucketOf(uint64_t nanos);
  static int64_t UpperBound(int bucket);

  std::array<std::atomic<int64_t>, kBuckets> buckets_{};
  std::atomic<int64_t> max_{0};
};

// See struct groupcommit_statistics for what each one counts.
struct Statistics {
  Counter commits;
  Counter deferred;
  Counter syncs;
  Counter failed_syncs;
  Counter overlapped_syncs;
  std::array<Counter, GROUPCOMMIT_BATCH_BUCKETS> batch;
  Counter windows_filled;
  Counter windows_expired;
  Counter reader_waits;
  LatencyHistogram sync;
  LatencyHistogram commit_wait;
  LatencyHistogram lock_wait;
  LatencyHistogram reader_wait;

  void RecordBatch(uint64_t commits_in_batch);
  void CopyTo(groupcommit_statistics* out) const;
};

// The statistics as one JSON object, with the names of struct groupcommit_statistics; and of them
// only `batch`, as an array.
std::string StatisticsToJson(const groupcommit_statistics& stats);
std::string BatchToJson(const groupcommit_statistics& stats);

}  // namespace groupcommit

#endif  // GROUPCOMMIT_STATISTICS_H_
