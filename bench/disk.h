// What the disk under a directory can do, and a directory of our own on it.
#ifndef GROUPCOMMIT_BENCH_DISK_H_
#define GROUPCOMMIT_BENCH_DISK_H_

#include <atomic>
#include <filesystem>
#include <string>

namespace groupcommit::bench {

// The disk's own latency of writing 4 KB and syncing it, without any database.
struct SyncLatency {
  double overwrite_p50_us = 0;  // Over blocks that the file has already: a WAL that is reused.
  double overwrite_p99_us = 0;
  double append_p50_us = 0;  // The file grows: its size has to become durable too.
  double append_p99_us = 0;
};

// Measures it with files in `directory`, which are removed again. Takes less than two seconds
// unless a single sync takes more than 20 ms, and ends early when *cancel (may be null) becomes
// true. Throws std::system_error, naming the file.
SyncLatency MeasureSyncLatency(const std::filesystem::path& directory,
                               const std::atomic<bool>* cancel);

// Whether `directory` lies in memory (tmpfs, ramfs), where a sync costs nothing. False where the
// system cannot tell.
bool IsMemoryFilesystem(const std::filesystem::path& directory);

// A new directory, removed with everything in it when the object goes unless Keep() was called.
class TemporaryDirectory {
 public:
  // Creates `parent`/`prefix`XXXXXX. Throws std::system_error.
  TemporaryDirectory(const std::filesystem::path& parent, const std::string& prefix);
  ~TemporaryDirectory();

  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;

  void Keep() { keep_ = true; }

  // Absolute, without symbolic links.
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
  bool keep_ = false;
};

}  // namespace groupcommit::bench

#endif  // GROUPCOMMIT_BENCH_DISK_H_
