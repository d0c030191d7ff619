#include "statistics.h"

#include <algorithm>
#include <bit>

namespace groupcommit {

int LatencyHistogram::BucketOf(uint64_t nanos) {
  if (nanos < kSub) return static_cast<int>(nanos);
  // nanos >> exponent is in [kSub, 2 * kSub).
  const int exponent = static_cast<int>(std::bit_width(nanos)) - 1 - kSubBits;
  const int bucket = exponent * kSub + static_cast<int>(nanos >> exponent);
  return std::min(bucket, kBuckets - 1);
}

int64_t LatencyHistogram::UpperBound(int bucket) {
  if (bucket < 2 * kSub) return bucket;
  const int exponent = bucket / kSub - 1;
  const int64_t mantissa = bucket % kSub + kSub;
  return ((mantissa + 1) << exponent) - 1;
}

void LatencyHistogram::Record(int64_t nanos) {
  constexpr int64_t kLongest = int64_t{1} << 62;  // so that sums of two do not overflow
  nanos = std::clamp<int64_t>(nanos, 0, kLongest);
  const auto bucket = static_cast<size_t>(BucketOf(static_cast<uint64_t>(nanos)));
  buckets_[bucket].fetch_add(1, std::memory_order_relaxed);
  int64_t max = max_.load(std::memory_order_relaxed);
  while (nanos > max && !max_.compare_exchange_weak(max, nanos, std::memory_order_relaxed)) {
  }
}

groupcommit_latency LatencyHistogram::Summary() const {
  std::array<int64_t, kBuckets> counts;
  int64_t total = 0;
  for (size_t i = 0; i < counts.size(); i++) {
    counts[i] = buckets_[i].load(std::memory_order_relaxed);
    total += counts[i];
  }
  const int64_t max = max_.load(std::memory_order_relaxed);
  const auto quantile = [&](int percent) -> int64_t {
    const int64_t rank = (total * percent + 99) / 100;
    int64_t seen = 0;
    for (int i = 0; i < kBuckets; i++) {
      seen += counts[static_cast<size_t>(i)];
      if (seen >= rank) return std::min(UpperBound(i), max);
    }
    return max;
  };
  constexpr int64_t kNanosPerMicro = 1000;
  const auto micros = [](int64_t nanos) { return (nanos + kNanosPerMicro / 2) / kNanosPerMicro; };
  return {total, micros(quantile(50)), micros(quantile(99)), micros(max)};
}

void Statistics::RecordBatch(uint64_t commits_in_batch) {
  if (commits_in_batch == 0) return;
  // 1, 2, 3-4, 5-8, ...: the number of bits of (commits - 1).
  const auto bucket = static_cast<size_t>(std::bit_width(commits_in_batch - 1));
  batch[std::min(bucket, batch.size() - 1)].Add();
}

void Statistics::CopyTo(groupcommit_statistics* out) const {
  out->commits = commits.Get();
  out->deferred = deferred.Get();
  out->syncs = syncs.Get();
  out->failed_syncs = failed_syncs.Get();
  out->overlapped_syncs = overlapped_syncs.Get();
  for (size_t i = 0; i < batch.size(); i++) out->batch[i] = batch[i].Get();
  out->windows_filled = windows_filled.Get();
  out->windows_expired = windows_expired.Get();
  out->reader_waits = reader_waits.Get();
  out->sync = sync.Summary();
  out->commit_wait = commit_wait.Summary();
  out->lock_wait = lock_wait.Summary();
  out->reader_wait = reader_wait.Summary();
}

namespace {

class JsonObject {
 public:
  JsonObject& Value(const char* name, const std::string& json) {
    if (text_.size() > 1) text_ += ',';
    text_ += '"';
    text_ += name;
    text_ += "\":" + json;
    return *this;
  }
  JsonObject& Number(const char* name, int64_t value) { return Value(name, std::to_string(value)); }
  JsonObject& Latency(const char* name, const groupcommit_latency& latency) {
    return Value(name, JsonObject()
                           .Number("count", latency.count)
                           .Number("p50_us", latency.p50_us)
                           .Number("p99_us", latency.p99_us)
                           .Number("max_us", latency.max_us)
                           .Close());
  }
  std::string Close() { return text_ + "}"; }

 private:
  std::string text_ = "{";
};

}  // namespace

std::string BatchToJson(const groupcommit_statistics& stats) {
  std::string json;
  for (const sqlite3_int64 count : stats.batch) {
    json += (json.empty() ? "[" : ",") + std::to_string(count);
  }
  return json + "]";
}

std::string StatisticsToJson(const groupcommit_statistics& stats) {
  return JsonObject()
      .Number("connections", stats.connections)
      .Number("commits", stats.commits)
      .Number("deferred", stats.deferred)
      .Number("syncs", stats.syncs)
      .Number("failed_syncs", stats.failed_syncs)
      .Value("batch", BatchToJson(stats))
      .Number("windows_filled", stats.windows_filled)
      .Number("windows_expired", stats.windows_expired)
      .Number("reader_waits", stats.reader_waits)
      .Number("pending", stats.pending)
      .Number("waiting", stats.waiting)
      .Number("fenced", stats.fenced)
      .Latency("sync", stats.sync)
      .Latency("commit_wait", stats.commit_wait)
      .Latency("lock_wait", stats.lock_wait)
      .Latency("reader_wait", stats.reader_wait)
      .Number("lsn", stats.lsn)
      .Number("durable_lsn", stats.durable_lsn)
      .Number("background_errors", stats.background_errors)
      .Number("overlapped_syncs", stats.overlapped_syncs)
      .Close();
}

}  // namespace groupcommit
