#include "support/test_storage.h"

#include <sys/stat.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <thread>
#include <utility>

#include "support/patience.h"
#include "support/test_storage_handle.h"

namespace groupcommit::testing {
namespace {

[[noreturn]] void Die(const std::string& message) {
  std::fprintf(stderr, "test storage: %s\n", message.c_str());
  std::abort();
}

// Another process may cut the file meanwhile: then it is read once more.
Bytes ReadAll(sqlite3_file* file) {
  constexpr sqlite3_int64 kPiece = 1 << 20;
  while (true) {
    sqlite3_int64 size = 0;
    if (file->pMethods->xFileSize(file, &size) != SQLITE_OK) Die("xFileSize failed");
    Bytes bytes(static_cast<size_t>(size));
    int rc = SQLITE_OK;
    for (sqlite3_int64 at = 0; rc == SQLITE_OK && at < size; at += kPiece) {
      const auto amount = static_cast<int>(std::min(kPiece, size - at));
      rc = file->pMethods->xRead(file, bytes.data() + at, amount, at);
    }
    if (rc == SQLITE_OK) return bytes;
    if (rc != SQLITE_IOERR_SHORT_READ) Die("xRead failed");
  }
}

}  // namespace

// ---- The power cut ----

std::map<std::string, Bytes> TestStorage::DurableImages(CutMode mode, uint64_t seed) const {
  std::mt19937_64 random(seed);
  std::map<std::string, Bytes> images;
  MutexLock lock(mutex_);
  for (const auto& [path, file] : files_) images[path] = file->image.AfterCut(mode, random);
  return images;
}

void TestStorage::CutInto(const std::string& dir, CutMode mode, uint64_t seed) {
  namespace fs = std::filesystem;
  const std::map<std::string, Bytes> images = DurableImages(mode, seed);
  std::error_code error;
  fs::create_directories(dir, error);
  for (const auto& [path, bytes] : images) {
    if (fs::equivalent(fs::path(path).parent_path(), dir, error)) Die("cut into a live directory");
  }
  for (const fs::directory_entry& entry : fs::directory_iterator(dir, error)) {
    fs::remove(entry.path(), error);
  }
  for (const auto& [path, bytes] : images) {
    const fs::path target = fs::path(dir) / fs::path(path).filename();
    std::ofstream out(target, std::ios::binary | std::ios::trunc);
    out.write(reinterpret_cast<const char*>(bytes.data()),
              static_cast<std::streamsize>(bytes.size()));
    out.close();
    if (!out) Die("cannot write " + target.string());
  }
}

size_t TestStorage::UnsyncedChanges(FileKind kind) const {
  size_t changes = 0;
  MutexLock lock(mutex_);
  for (const auto& [path, file] : files_) {
    if (file->kind == kind) changes += file->image.unsynced_changes();
  }
  return changes;
}

void TestStorage::ForgetClosedFiles() {
  MutexLock names(names_mutex_);
  MutexLock lock(mutex_);
  std::erase_if(files_, [](const auto& item) { return item.second->handles == 0; });
}

// ---- What happens to files ----

int TestStorage::Open(const Call& call, Handle& handle, int* out_flags) {
  MutexLock names(names_mutex_);
  const bool named = call.path[0] != '\0' && (call.flags & SQLITE_OPEN_DELETEONCLOSE) == 0;
  struct stat info;
  if (named && ::stat(call.path, &info) != 0) {
    // A test may have removed the file behind our back.
    MutexLock lock(mutex_);
    files_.erase(call.path);
  }
  sqlite3_file* base_file = handle.base();
  base_file->pMethods = nullptr;
  const int rc = base_->xOpen(base_, call.path[0] != 0 ? call.path : nullptr, base_file, call.flags,
                              out_flags);
  if (rc != SQLITE_OK) {
    if (base_file->pMethods != nullptr) base_file->pMethods->xClose(base_file);
    return rc;
  }
  if (named) RecordOpen(handle);
  MutexLock lock(mutex_);
  ++open_handles_;
  return SQLITE_OK;
}

// names_mutex_ keeps everyone else out of a new file until its content is known.
void TestStorage::RecordOpen(Handle& handle) {
  bool known = false;
  {
    MutexLock lock(mutex_);
    known = files_.count(handle.path) != 0;
  }
  auto file = std::make_shared<TrackedFile>();
  if (!known) {
    file->kind = handle.kind;
    file->image = FileImage(ReadAll(handle.base()));
  }
  MutexLock lock(mutex_);
  handle.tracked = files_.try_emplace(handle.path, std::move(file)).first->second;
  ++handle.tracked->handles;
  handle.sync_errors_told = handle.tracked->sync_errors;
}

int TestStorage::Close(Handle& handle) {
  const int rc = handle.base()->pMethods->xClose(handle.base());
  MutexLock lock(mutex_);
  if (handle.tracked) --handle.tracked->handles;
  --open_handles_;
  return rc;
}

int TestStorage::Delete(const char* path, int sync_dir) {
  MutexLock names(names_mutex_);
  const int rc = base_->xDelete(base_, path, sync_dir);
  if (rc == SQLITE_OK || rc == SQLITE_IOERR_DELETE_NOENT) {
    MutexLock lock(mutex_);
    files_.erase(path);
  }
  return rc;
}

void TestStorage::RecordWrite(const Handle& handle, int64_t offset, const void* data, int amount) {
  MutexLock lock(mutex_);
  FileCounters& counters = OfKind(handle.kind).counters;
  ++counters.writes;
  counters.bytes_written += amount;
  if (handle.tracked) handle.tracked->image.Write(offset, data, static_cast<size_t>(amount));
}

void TestStorage::RecordTruncate(const Handle& handle, int64_t size) {
  MutexLock lock(mutex_);
  if (handle.tracked) handle.tracked->image.Truncate(size);
}

// ---- Syncs ----

int TestStorage::Sync(Handle& handle, int flags) {
  const Call call{.op = Op::kSync,
                  .kind = handle.kind,
                  .path = handle.path,
                  .file = &handle.file,
                  .flags = flags};
  // The beginning: from here on it is settled what this sync covers.
  FileImage::Mark mark = 0;
  int planned = SQLITE_OK;
  {
    MutexLock lock(mutex_);
    Kind& kind = OfKind(handle.kind);
    ++kind.counters.syncs;
    ++kind.syncs_ever;
    if (kind.syncs_ever >= kind.fail_from && kind.syncs_ever < kind.fail_to) {
      planned = kind.fail_code;
    }
    if (handle.tracked) mark = handle.tracked->image.BeginSync();
  }
  if (const auto hooks = CurrentHooks(); hooks && hooks->observer) hooks->observer(call);
  const int gate = PassGate(handle.kind);
  // Read again: a test may set the hook while it holds the sync.
  const auto hooks = CurrentHooks();
  const int fault = hooks && hooks->fault ? hooks->fault(call) : SQLITE_OK;
  if (const int64_t us = sync_delay_us_; us > 0) {
    std::this_thread::sleep_for(std::chrono::microseconds(us));
  }
  int rc = planned != SQLITE_OK ? planned : gate != SQLITE_OK ? gate : fault;
  if (rc == SQLITE_OK && real_sync_) {
    rc = handle.base()->pMethods->xSync(handle.base(), flags);
  }

  // The end.
  MutexLock lock(mutex_);
  if (handle.tracked) {
    TrackedFile& file = *handle.tracked;
    const bool fails = rc != SQLITE_OK;
    const bool is_told = !fails && error_per_handle_ && handle.sync_errors_told != file.sync_errors;
    const SyncEnd end = fails     ? SyncEnd(failed_sync_end_)
                        : is_told ? SyncEnd::kPending
                                  : SyncEnd::kDurable;
    file.image.EndSync(mark, end);
    if (fails) {
      ++file.sync_errors;
      file.last_sync_error = rc;
    } else if (is_told) {
      rc = file.last_sync_error;
    }
    handle.sync_errors_told = file.sync_errors;
  }
  if (rc != SQLITE_OK) ++OfKind(handle.kind).counters.failed_syncs;
  return rc;
}

void TestStorage::FailSyncs(FileKind kind, int first, int count, int code) {
  MutexLock lock(mutex_);
  Kind& of = OfKind(kind);
  of.fail_from = of.syncs_ever + first;
  of.fail_to = of.fail_from + count;
  of.fail_code = code;
}

// ---- The gate ----

// Waits while syncs of that kind are held; returns the result that the test
// chose for this one.
int TestStorage::PassGate(FileKind kind) {
  MutexLock lock(mutex_);
  if (!OfKind(kind).held) return SQLITE_OK;
  HeldSync self;
  held_.push_back(&self);
  gate_changed_.SignalAll();
  while (!self.released) gate_changed_.Wait(mutex_);  // the test ends it, or its time limit
  return self.result;
}

void TestStorage::HoldSyncs(FileKind kind) {
  MutexLock lock(mutex_);
  OfKind(kind).held = true;
}

int TestStorage::ReleaseSyncs(int n, int result) {
  MutexLock lock(mutex_);
  int released = 0;
  for (; released < n && !held_.empty(); ++released) {
    *held_.front() = {.released = true, .result = result};
    held_.pop_front();
  }
  gate_changed_.SignalAll();
  return released;
}

void TestStorage::StopHolding() {
  MutexLock lock(mutex_);
  for (Kind& kind : kinds_) kind.held = false;
}

void TestStorage::OpenGate() {
  MutexLock lock(mutex_);
  for (Kind& kind : kinds_) kind.held = false;
  for (HeldSync* sync : held_) sync->released = true;
  held_.clear();
  gate_changed_.SignalAll();
}

bool TestStorage::WaitForHeldSyncs(int n) {
  const auto deadline = std::chrono::steady_clock::now() + kHangs;
  MutexLock lock(mutex_);
  while (held_.size() < static_cast<size_t>(n)) {
    const auto left = deadline - std::chrono::steady_clock::now();
    if (left <= left.zero()) return false;
    gate_changed_.WaitFor(mutex_, left);
  }
  return true;
}

int TestStorage::HeldSyncs() const {
  MutexLock lock(mutex_);
  return static_cast<int>(held_.size());
}

// ---- Faults and observation ----

void TestStorage::SetFaultHook(FaultHook hook) {
  MutexLock lock(hooks_mutex_);
  auto hooks = hooks_ ? std::make_shared<Hooks>(*hooks_) : std::make_shared<Hooks>();
  hooks->fault = std::move(hook);
  has_hooks_ = hooks->fault || hooks->observer;
  hooks_ = std::move(hooks);
}

void TestStorage::SetObserver(Observer observer) {
  MutexLock lock(hooks_mutex_);
  auto hooks = hooks_ ? std::make_shared<Hooks>(*hooks_) : std::make_shared<Hooks>();
  hooks->observer = std::move(observer);
  has_hooks_ = hooks->fault || hooks->observer;
  hooks_ = std::move(hooks);
}

std::shared_ptr<const TestStorage::Hooks> TestStorage::CurrentHooks() const {
  if (!has_hooks_) return nullptr;
  MutexLock lock(hooks_mutex_);
  return hooks_;
}

int TestStorage::Before(const Call& call, bool faults) const {
  const std::shared_ptr<const Hooks> hooks = CurrentHooks();
  if (!hooks) return SQLITE_OK;
  if (hooks->observer) hooks->observer(call);
  return faults && hooks->fault ? hooks->fault(call) : SQLITE_OK;
}

FileCounters TestStorage::Counters(FileKind kind) const {
  MutexLock lock(mutex_);
  return OfKind(kind).counters;
}

void TestStorage::ResetCounters() {
  MutexLock lock(mutex_);
  for (Kind& kind : kinds_) kind.counters = {};
}

}  // namespace groupcommit::testing
