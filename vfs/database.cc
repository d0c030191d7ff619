#include "database.h"

#include <algorithm>
#include <memory>
#include <new>
#include <system_error>
#include <unordered_map>
#include <utility>

#include "loss_reports.h"
#include "sync_strength.h"

namespace groupcommit {
namespace {

// The databases of this process. Several may have the same path: under different base VFSes, or
// where the file was replaced by another one while connections to the old one were still open, or
// where this process was forked off one that had it open.
using Registry = std::unordered_multimap<std::string, std::unique_ptr<Database>>;

Registry& Databases() REQUIRES(ProcessMutex()) {
  static auto* const registry = new Registry;  // never destroyed, as ProcessMutex()
  return *registry;
}

}  // namespace

Database::Database(sqlite3_vfs* base, const char* path)
    : base_(base), path_(path), coordinator_(clock_, &stats_) {}

int Database::Join(sqlite3_vfs* base, const char* path, sqlite3_file* file,
                   const std::optional<FlushPolicy>& from_uri, const FlushPolicy& fallback,
                   Database** database, std::string* error) {
  try {
    MutexLock lock(ProcessMutex());
    auto [found, end] = Databases().equal_range(path);
    while (found != end && !found->second->IsTheOneAt(base)) ++found;
    if (found == end) {
      found = Databases().emplace(path, std::unique_ptr<Database>(new Database(base, path)));
    }
    *database = found->second.get();
    return (*database)->AddConnection(file, from_uri, fallback, error);
  } catch (const std::bad_alloc&) {
    return SQLITE_NOMEM;  // a database without connections may stay behind; the next one finds it
  }
}

void Database::Leave(sqlite3_file* file) {
  MutexLock lock(ProcessMutex());
  if (!RemoveConnection(file)) return;
  // A hole that could not be closed: whoever opens the database next has to know of it.
  if (coordinator_.failure() != 0) return;
  auto [found, end] = Databases().equal_range(path_);
  while (found != end && found->second.get() != this) ++found;
  if (found != end) Databases().erase(found);
}

std::vector<Database::Info> Database::List() {
  MutexLock lock(ProcessMutex());
  std::vector<Info> all;
  for (const auto& [path, database] : Databases()) {
    if (database->fork_generation_ != ForkGeneration()) continue;
    const groupcommit_statistics stats = database->ReadStatistics();
    if (stats.connections == 0) continue;  // it is only remembered; see Leave()
    all.push_back({path, database->policy(), stats});
  }
  return all;
}

int Database::AddConnection(sqlite3_file* file, const std::optional<FlushPolicy>& from_uri,
                            const FlushPolicy& fallback, std::string* error) {
  MutexLock lock(mutex_);
  if (from_uri && uri_policy_ && *from_uri != *uri_policy_) {
    *error = "policy " + FormatPolicy(*from_uri) +
             " in the URI differs from the one that an earlier URI has set for this database: " +
             FormatPolicy(*uri_policy_);
    return SQLITE_MISUSE;
  }
  const bool applies = from_uri && !uri_policy_ && !policy_by_pragma_;
  // Those that are open count on their commits.
  if (applies && !files_.empty() && !from_uri->waits() && policy_ != *from_uri) {
    *error = "policy " + FormatPolicy(*from_uri) +
             " in the URI would be that of connections, too, which are open already under " +
             FormatPolicy(policy_) + ": only the first URI, or the pragma, may set it";
    return SQLITE_MISUSE;
  }
  const bool is_by_another_vfs = !files_.empty() && !uri_policy_ && !policy_by_pragma_;
  if (!from_uri && is_by_another_vfs && fallback.waits() && !policy_.waits()) {
    *error = "policy " + FormatPolicy(fallback) +
             " of this VFS would not hold, as the database is open through another VFS of policy " +
             FormatPolicy(policy_);
    return SQLITE_MISUSE;
  }
  coordinator_.Reserve(files_.size() + 2);  // this one, and the flusher
  files_.push_back(file);
  if (from_uri && !uri_policy_) {
    uri_policy_ = from_uri;
    if (applies) ApplyPolicy(*from_uri);
  } else if (files_.size() == 1) {
    ApplyPolicy(fallback);
  }
  return SQLITE_OK;
}

// Returns true if it was the last one.
bool Database::RemoveConnection(sqlite3_file* file) {
  MutexLock lock(mutex_);
  files_.erase(std::remove(files_.begin(), files_.end(), file), files_.end());
  if (!files_.empty()) return false;
  uri_policy_.reset();
  policy_by_pragma_ = false;
  return true;
}

// Is what `base` finds at our path now the file that our connections have open? If not, a newcomer
// shares nothing with them: a sync of the one says nothing of the other.
bool Database::IsTheOneAt(const sqlite3_vfs* base) const {
  if (base_ != base || fork_generation_ != ForkGeneration()) return false;
  MutexLock lock(mutex_);
  if (files_.empty()) return true;
  sqlite3_file* file = files_.front();
  int moved = 0;
  const int rc = file->pMethods->xFileControl(file, SQLITE_FCNTL_HAS_MOVED, &moved);
  return rc != SQLITE_OK || moved == 0;
}

FlushPolicy Database::policy() const {
  MutexLock lock(mutex_);
  return policy_;
}

void Database::SetPolicy(const FlushPolicy& policy) {
  MutexLock lock(mutex_);
  policy_by_pragma_ = true;
  ApplyPolicy(policy);
}

void Database::ApplyPolicy(const FlushPolicy& policy) {
  policy_ = policy;
  coordinator_.SetPolicy(policy);
  const bool each_flush = policy.kind == FlushPolicy::Kind::kOnEachFlush;
  each_flush_.store(each_flush, std::memory_order_relaxed);
  write_queue_->SetHoldersSleep(each_flush);
  constexpr int64_t kNanosPerMicro = 1000;
  max_delay_nanos_.store(policy.waits() ? -1 : policy.max_delay_us * kNanosPerMicro,
                         std::memory_order_relaxed);
}

void Database::AddLog(sqlite3_file* log, int64_t size) {
  if (coordinator_.failure() != 0) OnOpenedAfterFailure(log);
  MutexLock no_stop(flusher_mutex_);
  MutexLock lock(logs_mutex_);
  logs_.push_back({log});
  if (logs_.size() > 1) frames_.Reserve();  // for the others to read
  if (std::exchange(log_opened_, true) || size <= kWalHeaderSize) return;
  LogCommit found;
  found.first = 1;
  // No connection can append before the first has opened the log, so that nobody else does so now.
  commits_.Put(coordinator_.appended() + 1, found);
  coordinator_.Append(coordinator_.failures());
}

void Database::OnOpenedAfterFailure(sqlite3_file* log) {
  MutexLock lock(fence_.mutex());
  if (coordinator_.failure() == 0) return;
  // A flush through a log that nobody had open has failed: nothing of ours is to be taken back.
  if (LogCount() == 0) SetReopened();
  if (!IsReopened()) return;
  // The size is asked for here, as others may have opened it meanwhile, too, and written to it.
  sqlite3_int64 size = 0;
  const int rc = log->pMethods->xFileSize(log, &size);
  const bool is_gone = rc == SQLITE_OK && size <= kWalHeaderSize;  // the log with the hole
  if (!is_gone || !coordinator_.Resume()) return;
  EndReopened();
  fence_.Release();
}

bool Database::LeaveLog(const sqlite3_file* log) {
  MutexLock lock(logs_mutex_);
  FindLog(log).is_leaving = true;
  return std::all_of(logs_.begin(), logs_.end(),
                     [](const OpenLog& open) { return open.is_leaving; });
}

void Database::RemoveLog(sqlite3_file* log) {
  (void)LeaveLog(log);
  // Who opens the log next does not wait for this, but for a flusher that is stopped.
  {
    MutexLock logs_lock(logs_mutex_);
    AwaitSyncsThrough(log);
  }
  MutexLock lock(flusher_mutex_);
  if (LogCount() == 1) flusher_.Stop();  // it needs logs_mutex_ to come to an end
  MutexLock logs_lock(logs_mutex_);
  AwaitSyncsThrough(log);  // others may have begun, if no other log is open
  std::erase_if(logs_, [log](const OpenLog& open) { return open.file == log; });
  if (!logs_.empty()) return;
  log_opened_ = false;
  if (coordinator_.failure() != 0) SetReopened();
  frames_.Forget();
}

void Database::AwaitSyncsThrough(const sqlite3_file* log) {
  while (FindLog(log).syncs > 0) log_unused_.Wait(logs_mutex_);
}

Database::OpenLog& Database::FindLog(const sqlite3_file* log) {
  return *std::find_if(logs_.begin(), logs_.end(),
                       [log](const OpenLog& open) { return open.file == log; });
}

size_t Database::LogCount() {
  MutexLock lock(logs_mutex_);
  return logs_.size();
}

int Database::StartFlusher() {
  if (flusher_.is_running()) return SQLITE_OK;
  MutexLock lock(flusher_mutex_);
  if (flusher_.is_running() || LogCount() == 0) return SQLITE_OK;
  try {
    flusher_.Start();
    return SQLITE_OK;
  } catch (const std::bad_alloc&) {
    return SQLITE_NOMEM;
  } catch (const std::system_error&) {  // no more threads
    return SQLITE_NOMEM;
  }
}

std::optional<int> Database::SyncOpenLog(Lsn from, Lsn through, int strength) {
  sqlite3_file* log;
  {
    MutexLock lock(logs_mutex_);
    if (logs_.empty()) return std::nullopt;
    const auto stays = std::find_if(logs_.begin(), logs_.end(),
                                    [](const OpenLog& open) { return !open.is_leaving; });
    OpenLog& oldest = stays != logs_.end() ? *stays : logs_.front();
    log = oldest.file;
    oldest.syncs++;
  }
  const int rc = log->pMethods->xSync(log, SyncFlags(from, through, strength));
  MutexLock lock(logs_mutex_);
  if (--FindLog(log).syncs == 0) log_unused_.SignalAll();
  return rc;
}

// It is stopped before the last log is removed.
int Database::Sync(Lsn from, Lsn through) {
  return SyncOpenLog(from, through, 0).value_or(SQLITE_IOERR_FSYNC);
}

void Database::AskForLossReports(sqlite3_file* log, const char* path) {
  constexpr int64_t kRecentNanos = 10'000'000'000;
  const int64_t now = clock_->NowNanos();
  const int64_t asked_at = asked_at_.load(std::memory_order_relaxed);
  if (asked_at != INT64_MIN && now - asked_at < kRecentNanos) return;
  asked_at_.store(now, std::memory_order_relaxed);
  each_handle_is_told_.store(EachHandleIsTold(base_, log, path), std::memory_order_relaxed);
}

void Database::AskForSync(int flags) {
  strength_asked_.fetch_or(StrengthOf(flags), std::memory_order_relaxed);
}

int Database::SyncFlags(Lsn from, Lsn through, int strength) const {
  return FlagsOf(commits_.Strength(from, through) | strength |
                 strength_asked_.load(std::memory_order_relaxed));
}

void Database::DrainSyncErrors() {
  coordinator_.AwaitSyncs();
  MutexLock lock(logs_mutex_);
  for (const OpenLog& log : logs_) (void)log.file->pMethods->xSync(log.file, SQLITE_SYNC_NORMAL);
}

void Database::OnWriteLocked(const WalIndexHeader& header) {
  MutexLock lock(published_mutex_);
  if (!published_known_) {
    unknown_through_ = coordinator_.appended();
    others_are_synced_ = false;
  } else if (!header.ShowsTheSameAs(published_)) {
    foreign_after_ = coordinator_.appended();
    others_are_synced_ = false;
  }
}

void Database::OnWriteUnlocking(const WalIndexHeader& header, bool is_ours) {
  MutexLock lock(published_mutex_);
  published_ = header;
  if (is_ours) committed_ = header;
  published_known_ = true;
}

WalIndexHeader Database::published() const {
  MutexLock lock(published_mutex_);
  return published_;
}

WalIndexHeader Database::committed() const {
  MutexLock lock(published_mutex_);
  return committed_;
}

bool Database::IsOurs(Lsn tail, const WalIndexHeader& header) const {
  MutexLock lock(published_mutex_);
  return foreign_after_ <= tail && published_known_ && header.ShowsTheSameAs(published_);
}

void Database::OnPutBack(Lsn lsn, uint32_t change) {
  MutexLock lock(published_mutex_);
  hidden_after_ = lsn;
  hidden_through_ = coordinator_.appended();
  hidden_by_ = change;
}

// What another process commits on top of the header that was put back has frames with the same
// numbers. If it recovers the log before that, it may find what was taken out of sight, and counts
// from 0 again (wal.c: walIndexRecover()).
Lsn Database::LastInSight(Lsn appended, const WalIndexHeader& header) const {
  if (coordinator_.failures() == 0) return appended;
  MutexLock lock(published_mutex_);
  const bool is_hidden = appended == hidden_through_ && header.change() >= hidden_by_;
  return is_hidden ? hidden_after_ : appended;
}

void Database::OnSyncedUnderWriteLock() {
  MutexLock lock(published_mutex_);
  others_are_synced_ = true;
}

bool Database::IsOnTop(Lsn lsn) const {
  MutexLock lock(published_mutex_);
  return others_are_synced_ || (lsn > foreign_after_ && lsn > unknown_through_);
}

groupcommit_statistics Database::ReadStatistics() const {
  groupcommit_statistics stats{};
  stats_.CopyTo(&stats);
  const Lsn durable = coordinator_.durable();  // before `appended`, which only grows
  stats.pending = static_cast<sqlite3_int64>(coordinator_.appended() - durable);
  stats.waiting = coordinator_.waiting();
  stats.fenced = coordinator_.failure() != 0;
  stats.durable_lsn = static_cast<sqlite3_int64>(coordinator_.synced());  // before `lsn`, as above
  stats.lsn = static_cast<sqlite3_int64>(coordinator_.written());
  stats.background_errors = static_cast<sqlite3_int64>(flusher_.errors());
  MutexLock lock(mutex_);
  stats.connections = static_cast<sqlite3_int64>(files_.size());
  return stats;
}

}  // namespace groupcommit
