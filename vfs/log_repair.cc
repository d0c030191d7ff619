#include "log_repair.h"

#include <memory>
#include <new>

#include "wal_format.h"

namespace groupcommit {
namespace {

int SyncAll(sqlite3_file* log) { return log->pMethods->xSync(log, SQLITE_SYNC_FULL); }

int Copy(sqlite3_file* log, uint8_t* buffer, int size, int64_t offset) {
  const int rc = log->pMethods->xRead(log, buffer, size, offset);
  return rc == SQLITE_IOERR_SHORT_READ ? SQLITE_CORRUPT : rc;
}

}  // namespace

int RewriteLog(sqlite3_file* log, uint32_t last_frame) {
  // The error may still have to be told to this handle, though it is no news.
  (void)SyncAll(log);

  uint8_t header[kWalHeaderSize];
  int rc = Copy(log, header, kWalHeaderSize, 0);
  if (rc != SQLITE_OK) return rc;
  WalChecksum checksum;
  if (!checksum.StartsWith(header)) return SQLITE_CORRUPT;
  rc = log->pMethods->xWrite(log, header, kWalHeaderSize, 0);

  const int page_size = checksum.page_size();
  const int frame_size = kFrameHeaderSize + page_size;
  std::unique_ptr<uint8_t[]> frame(new (std::nothrow) uint8_t[static_cast<size_t>(frame_size)]);
  if (frame == nullptr) return SQLITE_NOMEM;
  for (uint32_t i = 1; rc == SQLITE_OK && i <= last_frame; i++) {
    const int64_t offset = FrameOffset(i, page_size);
    rc = Copy(log, frame.get(), frame_size, offset);
    if (rc == SQLITE_OK && !checksum.Continues(frame.get())) rc = SQLITE_CORRUPT;
    if (rc == SQLITE_OK) rc = log->pMethods->xWrite(log, frame.get(), frame_size, offset);
  }
  const int sync_rc = SyncAll(log);
  return rc != SQLITE_OK ? rc : sync_rc;
}

}  // namespace groupcommit
