#include "log_repair.h"

#include <cstring>
#include <memory>
#include <new>

#include "wal_format.h"

namespace groupcommit {
namespace {

int SyncAll(sqlite3_file* log) { return log->pMethods->xSync(log, SQLITE_SYNC_FULL); }

// Reads so many bytes; sets *end if there are fewer.
int ReadAll(sqlite3_file* log, uint8_t* buffer, int size, int64_t offset, bool* end) {
  const int rc = log->pMethods->xRead(log, buffer, size, offset);
  *end = rc == SQLITE_IOERR_SHORT_READ;
  return *end ? SQLITE_OK : rc;
}

// Writes the frames again; *frames is how many there are.
int RewriteFrames(sqlite3_file* log, uint32_t* frames, uint32_t most) {
  uint8_t header[kWalHeaderSize];
  bool end = false;
  int rc = ReadAll(log, header, kWalHeaderSize, 0, &end);
  WalChecksum checksum;
  if (rc != SQLITE_OK || end || !checksum.StartsWith(header)) return rc;
  rc = log->pMethods->xWrite(log, header, kWalHeaderSize, 0);

  const int page_size = checksum.page_size();
  const int frame_size = kFrameHeaderSize + page_size;
  std::unique_ptr<uint8_t[]> frame(new (std::nothrow) uint8_t[static_cast<size_t>(frame_size)]);
  if (frame == nullptr) return SQLITE_NOMEM;
  while (rc == SQLITE_OK && *frames < most) {
    const int64_t offset = FrameOffset(*frames + 1, page_size);
    rc = ReadAll(log, frame.get(), frame_size, offset, &end);
    if (rc != SQLITE_OK || end || !checksum.Continues(frame.get())) return rc;
    rc = log->pMethods->xWrite(log, frame.get(), frame_size, offset);
    if (rc == SQLITE_OK) ++*frames;
  }
  return rc;
}

}  // namespace

int RewriteLog(sqlite3_file* log, uint32_t last_frame, uint32_t most) {
  uint32_t frames = 0;
  int rc = RewriteFrames(log, &frames, most);
  if (rc == SQLITE_OK) rc = SyncAll(log);
  return rc == SQLITE_OK && frames < last_frame ? SQLITE_CORRUPT : rc;
}

int CutLog(sqlite3_file* log, uint32_t last_frame, uint64_t next_generation) {
  // What recovery would go by: the log's own header. The one in the wal-index knows neither the
  // salts nor the page size of a log to which nobody has committed yet (wal.c: sqlite3WalFrames()
  // draws new salts if Wal.nCkpt is 0).
  uint8_t log_header[kWalHeaderSize];
  bool end = false;
  int rc = ReadAll(log, log_header, kWalHeaderSize, 0, &end);
  if (rc != SQLITE_OK || end) return rc;
  // Zeros are of an attempt that failed, and perhaps lost: they are written again.
  const uint8_t zeros[kWalHeaderSize] = {};
  if (std::memcmp(log_header, zeros, kWalHeaderSize) == 0) {
    return log->pMethods->xWrite(log, zeros, kWalHeaderSize, 0);
  }
  WalChecksum checksum;
  if (!checksum.StartsWith(log_header)) return rc;
  const uint8_t* salts = log_header + 16;
  // A log of former times, all of which is in the database file, and of which a power cut must not
  // leave the first frames alone: that would bring back what they hold. (Or one whose salts nobody
  // else will ever draw.)
  if (last_frame == 0 && std::memcmp(salts, &next_generation, 8) != 0) {
    return log->pMethods->xWrite(log, zeros, kWalHeaderSize, 0);
  }
  for (uint32_t frame = last_frame + 1;; frame++) {
    uint8_t header[kFrameHeaderSize];
    const int64_t offset = FrameOffset(frame, checksum.page_size());
    rc = log->pMethods->xRead(log, header, kFrameHeaderSize, offset);
    if (rc == SQLITE_IOERR_SHORT_READ) return SQLITE_OK;
    if (rc != SQLITE_OK) return rc;
    const bool was_cut = std::memcmp(header, zeros, kFrameHeaderSize) == 0;
    if (!was_cut && std::memcmp(header + 8, salts, 8) != 0) return SQLITE_OK;
    rc = log->pMethods->xWrite(log, zeros, kFrameHeaderSize, offset);
    if (rc != SQLITE_OK) return rc;
  }
}

}  // namespace groupcommit
