#include "laboratory/replay.h"

#include <algorithm>
#include <utility>

namespace groupcommit::testing {
namespace {

constexpr size_t kSector = 512;
constexpr int64_t kPage = 4096;  // of the kernel's page cache

// Which version of a thing survives, of those 0 (on the disk) to `newest`. `kind` makes it likelier
// that nearly nothing or nearly everything does.
uint32_t Choose(uint32_t newest, int kind, Random& random) {
  if (newest == 0) return 0;
  switch (random.Below(8) < 5 ? kind : 2) {
    case 0:
      return 0;
    case 1:
      return newest;
    default:
      return static_cast<uint32_t>(random.Below(static_cast<int>(newest) + 1));
  }
}

}  // namespace

void Replay::AdvanceTo(int64_t point) {
  for (; point_ < point; point_++) {
    const Event* event = record_->Next(last_);
    if (event == nullptr) return;
    Apply(*event);
    last_ = event;
  }
}

void Replay::Apply(const Event& event) {
  const auto data = event.data();
  switch (event.kind) {
    case Event::kCreate: {
      File& file = files_[event.file];
      file.path = data.data();  // ends with a zero
      file.durable.assign(data.begin() + static_cast<int64_t>(file.path.size()) + 1, data.end());
      file.cache = file.durable;
      break;
    }
    case Event::kWrite:
      Write(files_[event.file], event);
      break;
    case Event::kTruncate: {
      File& file = files_[event.file];
      file.pending.push_back({point_, true, event.a, nullptr, 0, {}});
      ApplyTo(file.cache, file.pending.back());
      break;
    }
    case Event::kDelete:
      files_.erase(event.file);
      break;
    case Event::kSyncBegin:
      files_[event.file].syncs[event.a] = point_;
      break;
    case Event::kSyncEnd:
      EndSync(files_[event.file], event);
      break;
    case Event::kAcknowledged:
      Acknowledge(knowledge_[event.file], event.a, event.b != 0);
      break;
    case Event::kFlushBegin:
      knowledge_[event.file].flushes[event.a] = knowledge_[event.file].in_turn.size();
      break;
    case Event::kFlushed: {
      Knowledge& known = knowledge_[event.file];
      const auto end = known.in_turn.begin() + static_cast<int64_t>(known.flushes[event.a]);
      known.acknowledged.insert(known.in_turn.begin(), end);
      break;
    }
    case Event::kGone:
      knowledge_[event.file].gone.insert(event.a);
      break;
    case Event::kSeen:
      knowledge_[event.file].seen.insert(event.a);
      break;
    case Event::kMistake:
      break;
  }
}

void Replay::Acknowledge(Knowledge& known, CommitId id, bool survives) {
  if (survives) {
    known.acknowledged.insert(id);
  } else if (known.without_sync.insert(id).second) {
    known.in_turn.push_back(id);
  }
}

void Replay::Write(File& file, const Event& event) {
  Change change{point_,     false, event.a, reinterpret_cast<const uint8_t*>(event.data().data()),
                event.size, {}};
  ApplyTo(file.cache, change);
  // A page that a failed sync left clean is dirty again as a whole.
  int64_t begin = event.a;
  int64_t end = begin + static_cast<int64_t>(event.size);
  for (int64_t page = begin / kPage; page <= (end - 1) / kPage; page++) {
    if (file.lost_pages.erase(page) == 0) continue;
    begin = std::min(begin, page * kPage);
    end = std::max(end, std::min((page + 1) * kPage, static_cast<int64_t>(file.cache.size())));
  }
  if (begin != event.a || end != event.a + static_cast<int64_t>(event.size)) {
    change.own.assign(file.cache.begin() + begin, file.cache.begin() + end);
    change.offset = begin;
    change.data = change.own.data();
    change.size = change.own.size();
  }
  file.pending.push_back(std::move(change));
}

void Replay::EndSync(File& file, const Event& event) {
  const auto sync = file.syncs.find(event.a);
  if (sync == file.syncs.end()) return;  // the file was deleted meanwhile
  Changes covered;
  while (!file.pending.empty() && file.pending.front().number < sync->second) {
    covered.push_back(std::move(file.pending.front()));
    file.pending.pop_front();
  }
  file.syncs.erase(sync);
  if (event.b != 0) {
    for (const Change& change : covered) ApplyTo(file.durable, change);
    return;
  }
  // It failed: some or none of it got to the disk, and the pages count as clean.
  Random random(Mix(record_->seed() + static_cast<uint64_t>(event.a)));
  const Survivors survivors = random.OneIn(2) ? Survivors::kNone : Survivors::kSectors4096;
  file.durable = Left(file.durable, covered, survivors, random);
  for (const Change& change : covered) {
    if (change.truncation) continue;
    const int64_t end = change.offset + static_cast<int64_t>(change.size);
    for (int64_t page = change.offset / kPage; page <= (end - 1) / kPage; page++) {
      file.lost_pages.insert(page);
    }
  }
  // What has been written to these pages since the sync began will carry the rest along, or has
  // done so; taking neither for granted is the harder case.
}

void Replay::ApplyTo(Bytes& image, const Change& change) {
  const auto offset = static_cast<size_t>(change.offset);
  if (change.truncation) {
    image.resize(offset);
    return;
  }
  if (image.size() < offset + change.size) image.resize(offset + change.size);
  std::copy(change.data, change.data + change.size,
            image.begin() + static_cast<Bytes::difference_type>(offset));
}

std::map<std::string, Bytes> Replay::Disk(Survivors survivors, uint64_t seed) const {
  std::map<std::string, Bytes> disk;
  Random random(seed);
  for (const auto& [number, file] : files_) {
    disk[file.path] = Left(file.durable, file.pending, survivors, random);
  }
  return disk;
}

std::map<std::string, Bytes> Replay::Files() const {
  std::map<std::string, Bytes> files;
  for (const auto& [number, file] : files_) files[file.path] = file.cache;
  return files;
}

Bytes Replay::Left(const Bytes& durable, const Changes& pending, Survivors survivors,
                   Random& random) {
  if (survivors == Survivors::kSectors512) return LeftSectors(durable, pending, kSector, random);
  if (survivors == Survivors::kSectors4096) return LeftSectors(durable, pending, 4096, random);
  Bytes image = durable;
  if (survivors == Survivors::kNone || pending.empty()) return image;
  size_t whole = pending.size();
  if (survivors == Survivors::kPrefix) {
    whole = static_cast<size_t>(random.Below(static_cast<int>(pending.size())));
  }
  for (size_t i = 0; i < whole; i++) ApplyTo(image, pending[i]);
  if (survivors == Survivors::kAll || pending[whole].truncation) return image;
  // Of the next one, the sectors on one side of a boundary.
  Change torn = {0, false, pending[whole].offset, pending[whole].data, pending[whole].size, {}};
  const size_t offset = static_cast<size_t>(torn.offset);
  const size_t sectors = (offset + torn.size + kSector - 1) / kSector - offset / kSector;
  const size_t kept = static_cast<size_t>(random.Below(static_cast<int>(sectors) + 1));
  const size_t boundary =
      std::clamp((offset / kSector + kept) * kSector, offset, offset + torn.size);
  if (random.OneIn(2)) {
    torn.size = boundary - offset;
  } else {
    torn.offset = static_cast<int64_t>(boundary);
    torn.data += boundary - offset;
    torn.size -= boundary - offset;
  }
  if (torn.size > 0) ApplyTo(image, torn);
  return image;
}

Bytes Replay::LeftSectors(const Bytes& durable, const Changes& pending, size_t sector,
                          Random& random) {
  // How many versions there are of each sector, then which one is left, then what that looks like.
  size_t end = durable.size();
  for (const Change& change : pending) {
    end = std::max(end, static_cast<size_t>(change.offset) + change.size);
  }
  std::vector<uint32_t> left(end / sector + 1);
  const auto for_each_sector = [sector](const Change& change, auto visit) {
    if (change.truncation || change.size == 0) return;
    const size_t first = static_cast<size_t>(change.offset) / sector;
    const size_t last = (static_cast<size_t>(change.offset) + change.size - 1) / sector;
    for (size_t i = first; i <= last; i++) visit(i);
  };
  for (const Change& change : pending) for_each_sector(change, [&](size_t i) { left[i]++; });
  const int kind = random.Below(3);
  for (uint32_t& version : left) version = Choose(version, kind, random);
  const uint32_t size_left = Choose(static_cast<uint32_t>(pending.size()), kind, random);

  Bytes image = durable;  // after so many changes, all of them in order
  Bytes result = durable;
  size_t size = durable.size();
  std::vector<uint32_t> versions(left.size());
  uint32_t changes = 0;
  for (const Change& change : pending) {
    ApplyTo(image, change);
    for_each_sector(change, [&](size_t i) {
      if (++versions[i] != left[i]) return;
      const size_t from = i * sector;
      const size_t to = std::min(from + sector, image.size());
      if (result.size() < to) result.resize(to);
      std::copy(image.begin() + static_cast<Bytes::difference_type>(from),
                image.begin() + static_cast<Bytes::difference_type>(to),
                result.begin() + static_cast<Bytes::difference_type>(from));
    });
    if (++changes == size_left) size = image.size();
  }
  result.resize(size);
  return result;
}

}  // namespace groupcommit::testing
