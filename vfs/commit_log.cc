#include "commit_log.h"

namespace groupcommit {

void CommitLog::Put(Lsn lsn, const LogCommit& commit) {
  MutexLock lock(mutex_);
  commits_[lsn % kCapacity] = commit;
}

void CommitLog::ForgetHeader(Lsn lsn) {
  MutexLock lock(mutex_);
  commits_[lsn % kCapacity].header = 0;
}

CommitLog::Owner CommitLog::OwnerOf(uint32_t position, Lsn durable, Lsn appended) const {
  MutexLock lock(mutex_);
  // From the newest backwards. Positions fall back when the log restarts, so that an old commit may
  // seem to lie beneath; waiting for it too costs nothing, as the next sync covers both.
  for (Lsn lsn = appended; lsn > durable; lsn--) {
    const LogCommit& commit = commits_[lsn % kCapacity];
    if (commit.first <= position) return {lsn, commit.header == position};
  }
  return {};
}

LogCommit CommitLog::Get(Lsn lsn) const {
  MutexLock lock(mutex_);
  return commits_[lsn % kCapacity];
}

int CommitLog::Strength(Lsn from, Lsn through) const {
  MutexLock lock(mutex_);
  int strength = 0;
  for (Lsn lsn = through; lsn > from; lsn--) strength |= commits_[lsn % kCapacity].strength;
  return strength;
}

}  // namespace groupcommit
