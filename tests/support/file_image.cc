#include "support/file_image.h"

#include <algorithm>
#include <iterator>
#include <limits>
#include <map>
#include <utility>

namespace groupcommit::testing {
namespace {

// A set of file offsets, kept as disjoint ranges [first, second).
class OffsetSet {
 public:
  bool Contains(int64_t begin, int64_t end) const {
    auto after = ranges_.upper_bound(begin);
    return after != ranges_.begin() && std::prev(after)->second >= end;
  }

  void Add(int64_t begin, int64_t end) {
    auto it = ranges_.upper_bound(begin);
    if (it != ranges_.begin() && std::prev(it)->second >= begin) --it;
    while (it != ranges_.end() && it->first <= end) {
      begin = std::min(begin, it->first);
      end = std::max(end, it->second);
      it = ranges_.erase(it);
    }
    ranges_[begin] = end;
  }

 private:
  std::map<int64_t, int64_t> ranges_;
};

}  // namespace

void FileImage::Write(int64_t offset, const void* data, size_t size) {
  const auto* first = static_cast<const uint8_t*>(data);
  Append({.number = 0, .truncation = false, .offset = offset, .bytes = Bytes(first, first + size)});
}

void FileImage::Truncate(int64_t size) {
  Append({.number = 0, .truncation = true, .offset = size, .bytes = {}});
}

FileImage::Mark FileImage::BeginSync() {
  ++syncs_running_;
  return next_number_;
}

void FileImage::EndSync(Mark mark, SyncEnd end) {
  --syncs_running_;
  if (end == SyncEnd::kPending) return;
  while (!pending_.empty() && pending_.front().number < mark) {
    if (end == SyncEnd::kDurable) Apply(pending_.front(), durable_);
    pending_bytes_ -= pending_.front().bytes.size();
    pending_.pop_front();
  }
}

Bytes FileImage::AfterCut(CutMode mode, std::mt19937_64& random) const {
  Bytes image = durable_;
  if (mode == CutMode::kDropUnsynced) return image;
  for (const Change& change : pending_) {
    if (mode == CutMode::kKeepAll || random() % 2 == 0) Apply(change, image);
  }
  return image;
}

void FileImage::Apply(const Change& change, Bytes& image) {
  const auto offset = static_cast<size_t>(change.offset);
  if (change.truncation) {
    image.resize(offset);
    return;
  }
  const size_t end = offset + change.bytes.size();
  if (image.size() < end) image.resize(end);
  std::copy(change.bytes.begin(), change.bytes.end(),
            image.begin() + static_cast<Bytes::difference_type>(offset));
}

void FileImage::Append(Change change) {
  change.number = next_number_++;
  pending_bytes_ += change.bytes.size();
  pending_.push_back(std::move(change));
  // Not while a sync runs: its mark tells writes apart that this would merge.
  if (pending_bytes_ > compact_at_bytes_ && syncs_running_ == 0) Compact();
}

// Drops the changes whose every byte a later one overwrites or cuts off, so
// that a load that never syncs (synchronous=OFF) needs no more memory than the
// file has bytes.
void FileImage::Compact() {
  OffsetSet overwritten;
  int64_t cut_at = std::numeric_limits<int64_t>::max();
  std::deque<Change> kept;
  size_t kept_bytes = 0;
  for (auto it = pending_.rbegin(); it != pending_.rend(); ++it) {
    const int64_t end = it->offset + static_cast<int64_t>(it->bytes.size());
    if (it->truncation) {
      if (it->offset >= cut_at) continue;
      cut_at = it->offset;
    } else {
      if (it->offset >= cut_at || overwritten.Contains(it->offset, end)) continue;
      overwritten.Add(it->offset, end);
    }
    kept_bytes += it->bytes.size();
    kept.push_front(std::move(*it));
  }
  pending_ = std::move(kept);
  pending_bytes_ = kept_bytes;
  compact_at_bytes_ = std::max(kCompactAtBytes, 2 * kept_bytes);
}

}  // namespace groupcommit::testing
