// Distribution of latencies in buckets whose width is about 3 % of their value.
#ifndef GROUPCOMMIT_BENCH_LATENCY_HISTOGRAM_H_
#define GROUPCOMMIT_BENCH_LATENCY_HISTOGRAM_H_

#include <algorithm>
#include <array>
#include <bit>
#include <chrono>
#include <cstddef>
#include <cstdint>

namespace groupcommit::bench {

// A value; not thread-safe. Each thread fills its own and they are merged afterwards.
class LatencyHistogram {
 public:
  void Record(std::chrono::nanoseconds latency) {
    const auto ns = static_cast<uint64_t>(std::max<int64_t>(latency.count(), 0));
    ++buckets_[BucketOf(ns)];
    ++count_;
    max_ns_ = std::max(max_ns_, ns);
  }

  void Merge(const LatencyHistogram& other) {
    for (size_t i = 0; i < buckets_.size(); ++i) buckets_[i] += other.buckets_[i];
    count_ += other.count_;
    max_ns_ = std::max(max_ns_, other.max_ns_);
  }

  uint64_t count() const { return count_; }

  // Exact.
  double max_us() const { return static_cast<double>(max_ns_) / 1e3; }

  // The smallest bucket bound that at least `quantile` (0 to 1) of the latencies do not exceed;
  // 0 when nothing was recorded.
  double QuantileUs(double quantile) const {
    const double wanted = quantile * static_cast<double>(count_);
    uint64_t seen = 0;
    for (size_t i = 0; i < buckets_.size(); ++i) {
      seen += buckets_[i];
      if (seen > 0 && static_cast<double>(seen) >= wanted) {
        return static_cast<double>(std::min(UpperBound(i), max_ns_)) / 1e3;
      }
    }
    return max_us();
  }

 private:
  // Each power of two is cut into 2^kSubBits buckets; below 2^kSubBits ns a bucket is 1 ns wide.
  static constexpr int kSubBits = 5;
  static constexpr int kMaxBits = 42;  // More than an hour; longer latencies share the last bucket.
  static constexpr size_t kBuckets = size_t{kMaxBits - kSubBits + 1} << kSubBits;

  static size_t BucketOf(uint64_t ns) {
    const int shift = std::max(static_cast<int>(std::bit_width(ns)) - kSubBits - 1, 0);
    const size_t bucket =
        (static_cast<size_t>(shift) << kSubBits) + static_cast<size_t>(ns >> shift);
    return std::min(bucket, kBuckets - 1);
  }

  static uint64_t UpperBound(size_t bucket) {
    constexpr size_t kSub = size_t{1} << kSubBits;
    if (bucket < 2 * kSub) return bucket;
    const size_t shift = (bucket >> kSubBits) - 1;
    const uint64_t mantissa = bucket - (shift << kSubBits);
    return ((mantissa + 1) << shift) - 1;
  }

  std::array<uint64_t, kBuckets> buckets_{};
  uint64_t count_ = 0;
  uint64_t max_ns_ = 0;
};

}  // namespace groupcommit::bench

#endif  // GROUPCOMMIT_BENCH_LATENCY_HISTOGRAM_H_
