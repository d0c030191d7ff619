#include "disk.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>
#ifdef __linux__
#include <sys/vfs.h>
#endif

#include <array>
#include <cerrno>
#include <chrono>
#include <system_error>

#include "latency_histogram.h"

namespace groupcommit::bench {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

constexpr size_t kBlockSize = 4096;
constexpr int kBlocks = 1024;  // 4 MB: where a WAL stays with the default autocheckpoint.

[[noreturn]] void ThrowErrno(const fs::path& path) {
  throw std::system_error(errno, std::generic_category(), path.string());
}

// A scratch file, removed when the object goes.
class ScratchFile {
 public:
  explicit ScratchFile(const fs::path& path)
      : path_(path), fd_(open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600)) {
    if (fd_ < 0) ThrowErrno(path_);
  }
  ~ScratchFile() {
    close(fd_);
    unlink(path_.c_str());
  }
  ScratchFile(const ScratchFile&) = delete;
  ScratchFile& operator=(const ScratchFile&) = delete;

  void WriteBlock(int index) {
    static constexpr std::array<char, kBlockSize> kBlock = {'g', 'c'};
    const off_t offset = static_cast<off_t>(index) * static_cast<off_t>(kBlockSize);
    if (pwrite(fd_, kBlock.data(), kBlock.size(), offset) != static_cast<ssize_t>(kBlock.size())) {
      ThrowErrno(path_);
    }
  }

  void SyncData() {
#ifdef __APPLE__
    const int rc = fsync(fd_);
#else
    const int rc = fdatasync(fd_);
#endif
    if (rc != 0) ThrowErrno(path_);
  }

 private:
  const fs::path path_;
  const int fd_;
};

LatencyHistogram SyncBlocks(ScratchFile& file, const std::atomic<bool>* cancel) {
  // Twenty syncs at least, so that the median means something on a slow disk.
  constexpr int kAtLeast = 20;
  const auto enough = Clock::now() + std::chrono::milliseconds(500);
  LatencyHistogram latencies;
  for (int i = 0; i < kBlocks; ++i) {
    const auto start = Clock::now();
    if (i >= kAtLeast && start >= enough) break;
    if (cancel != nullptr && *cancel) break;
    file.WriteBlock(i);
    file.SyncData();
    latencies.Record(Clock::now() - start);
  }
  return latencies;
}

}  // namespace

SyncLatency MeasureSyncLatency(const fs::path& directory, const std::atomic<bool>* cancel) {
  SyncLatency result;
  {
    ScratchFile file(directory / "sync-overwrite");
    // Written, not just allocated: the first write to an allocated block changes metadata.
    for (int i = 0; i < kBlocks; ++i) file.WriteBlock(i);
    file.SyncData();
    const LatencyHistogram latencies = SyncBlocks(file, cancel);
    result.overwrite_p50_us = latencies.QuantileUs(0.5);
    result.overwrite_p99_us = latencies.QuantileUs(0.99);
  }
  ScratchFile file(directory / "sync-append");
  const LatencyHistogram latencies = SyncBlocks(file, cancel);
  result.append_p50_us = latencies.QuantileUs(0.5);
  result.append_p99_us = latencies.QuantileUs(0.99);
  return result;
}

bool IsMemoryFilesystem([[maybe_unused]] const fs::path& directory) {
#ifdef __linux__
  // From linux/magic.h, which not every libc's headers come with.
  constexpr unsigned long kTmpfs = 0x01021994;
  constexpr unsigned long kRamfs = 0x858458f6;
  struct statfs info {};
  if (statfs(directory.c_str(), &info) != 0) return false;
  const auto type = static_cast<unsigned long>(info.f_type) & 0xffffffffUL;
  return type == kTmpfs || type == kRamfs;
#else
  return false;
#endif
}

TemporaryDirectory::TemporaryDirectory(const fs::path& parent, const std::string& prefix) {
  std::string name = (parent / (prefix + "XXXXXX")).string();
  if (mkdtemp(name.data()) == nullptr) ThrowErrno(parent);
  path_ = fs::canonical(name);
}

TemporaryDirectory::~TemporaryDirectory() {
  std::error_code ignored;  // Nothing to be done about it in a destructor.
  if (!keep_) fs::remove_all(path_, ignored);
}

}  // namespace groupcommit::bench
