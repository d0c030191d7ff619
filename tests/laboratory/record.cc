#include "laboratory/record.h"

#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <thread>

namespace groupcommit::testing {
namespace {

// Address space; memory is used as far as the record gets.
constexpr size_t kBytes = size_t{512} << 20;
constexpr uint32_t kMaxFiles = 1024;

[[noreturn]] void Die(const char* what) {
  std::fprintf(stderr, "laboratory: %s\n", what);
  std::abort();
}

size_t RoundUp(size_t size) { return (size + 7) / 8 * 8; }

void* Map() {
  void* memory = mmap(nullptr, kBytes, PROT_READ | PROT_WRITE,
                      MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) Die("no memory for the record");
  return memory;
}

std::string Content(const char* path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

}  // namespace

struct Record::Shared {
  struct File {
    char path[400];
    bool exists;
    uint32_t errors;  // syncs that failed
  };
  pthread_mutex_t mutex;
  size_t used;  // bytes of events
  int64_t count;
  int64_t syncs;
  uint64_t seed;
  int sync_micros;
  int log_failures;
  int write_failures;
  int64_t writes;  // counted if some of them are to fail
  std::atomic<bool> over;
  bool deaths;
  uint32_t file_count;
  File files[kMaxFiles];
};

Record::Record()
    : shared_(static_cast<Shared*>(Map())),
      events_(reinterpret_cast<char*>(shared_) + RoundUp(sizeof(Shared))) {
  pthread_mutexattr_t attributes;
  pthread_mutexattr_init(&attributes);
  pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
  // A process that dies in the middle must not stop the others.
  pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
  pthread_mutex_init(&shared_->mutex, &attributes);
  pthread_mutexattr_destroy(&attributes);
}

Record::~Record() { munmap(shared_, kBytes); }

void Record::Lock() {
  if (pthread_mutex_lock(&shared_->mutex) == EOWNERDEAD) {
    pthread_mutex_consistent(&shared_->mutex);  // an event counts once it is whole
  }
  if (steps_left_ > 0 && --steps_left_ == 0) kill(getpid(), SIGKILL);
}

void Record::Unlock() { pthread_mutex_unlock(&shared_->mutex); }

void Record::Reset(uint64_t seed) {
  shared_->used = 0;
  shared_->count = shared_->syncs = 0;
  shared_->seed = seed;
  shared_->sync_micros = shared_->log_failures = shared_->write_failures = 0;
  shared_->writes = 0;
  shared_->over = false;
  shared_->deaths = false;
  shared_->file_count = 0;
}

uint64_t Record::seed() const { return shared_->seed; }
void Record::SetSyncMicros(int longest) { shared_->sync_micros = longest; }
void Record::SetFailures(int of_log) { shared_->log_failures = of_log; }
void Record::SetWriteFailures(int of_log) { shared_->write_failures = of_log; }
void Record::SetOver() { shared_->over = true; }
bool Record::IsOver() const { return shared_->over; }
void Record::SetDeaths(bool deaths) { shared_->deaths = deaths; }
bool Record::HasDeaths() const { return shared_->deaths; }
int64_t Record::count() const { return shared_->count; }

void Record::Append(Event::Kind kind, uint32_t file, int64_t a, int64_t b, std::string_view data) {
  Lock();
  AppendLocked(kind, file, a, b, data, {});
  Unlock();
}

void Record::AppendLocked(Event::Kind kind, uint32_t file, int64_t a, int64_t b,
                          std::string_view first, std::string_view second) {
  const size_t size = first.size() + second.size();
  const size_t end = shared_->used + RoundUp(sizeof(Event) + size);
  if (end > kBytes - RoundUp(sizeof(Shared))) Die("the record is full");
  auto* event = reinterpret_cast<Event*>(events_ + shared_->used);
  *event = {kind, file, a, b, size};
  char* data = reinterpret_cast<char*>(event + 1);
  if (!first.empty()) std::memcpy(data, first.data(), first.size());
  if (!second.empty()) std::memcpy(data + first.size(), second.data(), second.size());
  shared_->used = end;
  shared_->count++;
}

void Record::Known(const char* path, uint32_t* file, uint32_t* errors) {
  uint32_t i = 0;
  while (i < shared_->file_count &&
         !(shared_->files[i].exists && std::strcmp(shared_->files[i].path, path) == 0)) {
    i++;
  }
  if (i == shared_->file_count) {
    if (i == kMaxFiles || std::strlen(path) >= sizeof(Shared::File::path)) Die("too many files");
    shared_->file_count++;
    std::strcpy(shared_->files[i].path, path);
    shared_->files[i].exists = true;
    shared_->files[i].errors = 0;
    AppendLocked(Event::kCreate, i, 0, 0, {path, std::strlen(path) + 1}, Content(path));
  }
  *file = i;
  *errors = shared_->files[i].errors;
}

void Record::Forget(const char* path) {
  for (uint32_t i = 0; i < shared_->file_count; i++) {
    if (!shared_->files[i].exists || std::strcmp(shared_->files[i].path, path) != 0) continue;
    shared_->files[i].exists = false;
    AppendLocked(Event::kDelete, i, 0, 0, {}, {});
  }
}

bool Record::Sync(uint32_t file, bool is_log, uint32_t* errors) {
  Lock();
  const int64_t number = ++shared_->syncs;
  AppendLocked(Event::kSyncBegin, file, number, 0, {}, {});
  Unlock();

  Random random(Mix(shared_->seed) + static_cast<uint64_t>(number) * 16);
  const int micros = random.Below(shared_->sync_micros + 1);
  const bool fails = is_log && random.Below(1000) < shared_->log_failures;
  if (micros > 0) std::this_thread::sleep_for(std::chrono::microseconds(micros));

  Lock();
  Shared::File& state = shared_->files[file];
  if (fails) state.errors++;
  const bool told = *errors != state.errors;
  *errors = state.errors;
  // One that is told of an earlier failure has made nothing durable (ext4_sync_file()).
  if (fails || !told) AppendLocked(Event::kSyncEnd, file, number, fails ? 0 : 1, {}, {});
  Unlock();
  return !told;
}

int Record::Room(bool is_log, int size) {
  if (!is_log || shared_->write_failures == 0) return size;
  Lock();
  const int64_t number = ++shared_->writes;
  Unlock();
  Random random(Mix(shared_->seed) + static_cast<uint64_t>(number) * 32 + 1);
  if (random.Below(1000) >= shared_->write_failures) return size;
  return random.OneIn(2) ? 0 : random.Below(size);
}

const Event* Record::Next(const Event* event) const {
  const char* next = events_;
  if (event != nullptr) {
    next = reinterpret_cast<const char*>(event) + RoundUp(sizeof(Event) + event->size);
  }
  return next == events_ + shared_->used ? nullptr : reinterpret_cast<const Event*>(next);
}

bool Record::Save(const std::string& path) const {
  std::ofstream out(path, std::ios::binary);
  out.write(reinterpret_cast<const char*>(&shared_->seed), sizeof(shared_->seed));
  out.write(reinterpret_cast<const char*>(&shared_->count), sizeof(shared_->count));
  out.write(events_, static_cast<std::streamsize>(shared_->used));
  return out.good();
}

bool Record::Load(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  Reset(0);
  in.read(reinterpret_cast<char*>(&shared_->seed), sizeof(shared_->seed));
  in.read(reinterpret_cast<char*>(&shared_->count), sizeof(shared_->count));
  if (!in.good()) return false;
  in.read(events_, static_cast<std::streamsize>(kBytes - RoundUp(sizeof(Shared))));
  shared_->used = static_cast<size_t>(in.gcount());
  return true;
}

}  // namespace groupcommit::testing
